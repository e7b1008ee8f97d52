"""Checks of the nodes, and of the way to them and back: pure functions of what was seen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from clio_client import Generation
from clio_client.config.errors import ConfigError
from clio_client.config.membership_source import DiscoveredNodes, HostfileNodes
from clio_client.questions import NodeStatus
from clio_exporter.doctor.model import Finding, Status, named
from clio_exporter.doctor.nodes import NodeLook, NodesLook
from clio_exporter.doctor.ssh import SshLook

AHEAD_S: Final = 2.0
"""How far a node's clock may be ahead of ours: answers come back within a round trip."""

BEHIND_S: Final = 5.0
"""How old the newest sample may be: one is taken each second, later on a busy node."""

_NO_WAY: Final = ("refused", "unreachable", "unresolvable", "not_a_runtime")
_REMEDIES: Final = {
    "refused": "Start the runtime on the node; or compare networking.port with the port in the hostfile, "
    "which is the base port: 3 is added",
    "unreachable": "Open base port + 3 of the node to this host; see that the node's host is up",
    "unresolvable": "Correct the name in the hostfile or in the name service; it needs an IPv4 address",
    "not_a_runtime": "Correct the port in the hostfile: it is the runtime's base port, 3 is added",
}
_ELSEWHERE: Final = "docs/troubleshooting.md, 'A node is down', has each reason with its remedy"


def hostfile(seen: NodesLook) -> Iterator[Finding]:
    """Whether the members can be read, and are numbered as the runtimes number themselves."""
    if seen.problem is not None:
        remedy = seen.problem.remedy if isinstance(seen.problem, ConfigError) else _ELSEWHERE
        text = str(seen.problem).removesuffix(f". {remedy}")
        yield Finding("hostfile", Status.FAIL, text, remedy)
        return
    for cluster in seen.clusters:
        where = f"{cluster.name}: " if cluster.name else ""
        if cluster.error is not None:
            yield Finding(
                "hostfile", Status.FAIL, f"{where}the list of nodes is not current: {cluster.error}",
                "Give a hostfile that can be read, with --hostfile or --config.file",
            )  # fmt: skip
        for warning in cluster.warnings:
            yield Finding(
                "hostfile", Status.WARN, f"{where}{warning}", "Leave comments out of the runtimes' hostfile"
            )
        if isinstance(cluster.source, DiscoveredNodes):
            yield Finding(
                "hostfile", Status.WARN, f"{where}no hostfile: {cluster.source.origin}",
                "Give the runtimes' own hostfile: --hostfile FILE",
            )  # fmt: skip
        if cluster.error is None:
            source = cluster.source
            origin = f"{source.path}" if isinstance(source, HostfileNodes) else source.origin
            yield Finding("hostfile", Status.OK, f"{where}{len(cluster.nodes)} nodes from {origin}")


def numbering(seen: NodesLook) -> Iterator[Finding]:
    """Whether each runtime has the number that the membership gives it."""
    told = [
        (n, n.status.session.node_id) for n in seen.nodes if n.status and n.status.session.node_id is not None
    ]
    wrong = [(node, number) for node, number in told if number != node.member.node_id]
    if wrong:
        listed = named([f"{node.name} calls itself {number}" for node, number in wrong])
        yield Finding(
            "node ids", Status.FAIL, listed,
            "Give the exporter the hostfile that the runtimes have, in the same order; after a change of it "
            "restart the runtimes",
        )  # fmt: skip
    elif told:
        yield Finding(
            "node ids", Status.OK, f"{len(told)} runtimes have the number of their place in the list"
        )
    else:
        yield Finding("node ids", Status.SKIPPED, "no runtime has told its number")


def way_out(seen: NodesLook) -> Iterator[Finding]:
    """Whether the nodes' client ports can be reached from here."""
    cut = [node for node in seen.nodes if node.error is not None and node.error.reason in _NO_WAY]
    yield from _by_reason("ports to nodes", cut)
    if len(seen.nodes) > len(cut):
        count = len(seen.nodes) - len(cut)
        yield Finding(
            "ports to nodes", Status.OK, f"{count} of {len(seen.nodes)} nodes can be reached by TCP"
        )
    elif not seen.nodes:
        yield Finding("ports to nodes", Status.SKIPPED, "no node is known")


def way_back(seen: NodesLook) -> Iterator[Finding]:
    """Whether runtimes get their answers back to this host: reply address and port."""
    back = [node for node in seen.nodes if node.status and _dials_back(node.status)]
    silent = [node for node in seen.nodes if node.error is not None and node.error.reason in _SILENT]
    stopped = [node for node in silent if not node.greets]
    lost = [node for node in silent if node.greets]
    if stopped:
        yield Finding(
            "answers", Status.FAIL,
            f"{named([n.name for n in stopped])}: nothing greets where TCP connects: the process is stopped, "
            "or it is another kind of server",
            "On the node, look at the state of the process (T is stopped) and at the runtime's log",
        )  # fmt: skip
    if lost:
        to = _targets(seen, lost)
        foreign = sorted({n.dials for n in lost if n.dials and _is_foreign(seen, n.dials)})
        text = f"{named([n.name for n in lost])}: the runtime greets, but no answer came back"
        text += f" to {', '.join(to)}" if to else ""
        text += f"; {', '.join(foreign)} is not an address of this host" if foreign else ""
        yield Finding(
            "answers", Status.FAIL, text,
            "Open that port from the nodes to this host (nc -vz from a node), or set --runtime.reply-address "
            "to the address at which the nodes reach this host; --ssh tries it from the nodes. Where other "
            "nodes answer, the runtime may be stuck: read its log",
        )  # fmt: skip
    if back:
        to = _targets(seen, back)
        text = f"{len(back)} runtimes answered to {named(to)}" if to else f"{len(back)} runtimes answered"
        taken = {p for p in seen.endpoints.values() if seen.reply_port and p != seen.reply_port}
        if taken:
            text += f" (port {seen.reply_port} is taken on this host, probably by the exporter that runs)"
        yield Finding("answers", Status.OK, text)
    if not (stopped or lost or back):
        yield Finding("answers", Status.SKIPPED, "no runtime that answers by dialling back was reached")


def other_faults(seen: NodesLook) -> Iterator[Finding]:
    """What else keeps nodes from answering."""
    known = (*_NO_WAY, *_SILENT, "duplicate")
    rest = [node for node in seen.nodes if node.error is not None and node.error.reason not in known]
    yield from _by_reason("runtimes", rest)
    up = sum(node.status is not None for node in seen.nodes)
    status = Status.SKIPPED if not seen.nodes else Status.OK if up else Status.FAIL
    remedy = "" if up or not seen.nodes else "See the findings above"
    yield Finding("runtimes", status, f"{up} of {len(seen.nodes)} nodes answer", remedy)


def duplicates(seen: NodesLook) -> Iterator[Finding]:
    """Whether two members lead to one runtime."""
    same = [node for node in seen.nodes if node.error is not None and node.error.reason == "duplicate"]
    for node in same:
        yield Finding("duplicates", Status.FAIL, str(node.error), "List each runtime once, under one address")
    if not same and seen.nodes:
        yield Finding("duplicates", Status.OK, "no two members lead to the same runtime")


def clocks(seen: NodesLook) -> Iterator[Finding]:
    """Whether the nodes' clocks agree with this host's, by the time of their newest samples."""
    told = [(node, node.skew) for node in seen.nodes if node.skew is not None]
    off = [(node, skew) for node, skew in told if not -AHEAD_S <= skew <= BEHIND_S]
    if off:
        listed = named(
            [f"{n.name} {'behind' if skew > 0 else 'ahead'} by {abs(skew):.1f} s" for n, skew in off]
        )
        yield Finding(
            "clocks", Status.WARN, f"by their newest sample, against this host's clock: {listed}",
            "Synchronize the clocks (chronyc tracking, timedatectl) on nodes and this host; a node behind "
            "may also have stopped taking samples",
        )  # fmt: skip
    elif told:
        furthest = max(abs(skew) for _, skew in told)
        yield Finding("clocks", Status.OK, f"newest samples of {len(told)} nodes are within {furthest:.1f} s")
    else:
        yield Finding("clocks", Status.SKIPPED, "no node has told a sample")


def versions(seen: NodesLook) -> Iterator[Finding]:
    """Whether all runtimes speak the same protocol, one that tells everything."""
    by: defaultdict[str, list[str]] = defaultdict(list)
    for node in seen.nodes:
        if node.status and node.status.session.generation:
            by[node.status.session.generation.value].append(node.name)
    for value, names in by.items():
        if value == Generation.Z.value:
            yield Finding(
                "versions", Status.WARN, f"{named(names)}: protocol of runtime 1.0, worker statistics only",
                "Update the runtime (docs/compatibility.md)",
            )  # fmt: skip
    if len(by) > 1:
        listed = "; ".join(f"{value}: {named(names)}" for value, names in sorted(by.items()))
        yield Finding(
            "versions", Status.WARN, f"runtimes of several protocol generations: {listed}",
            "Run one version of the runtime on all nodes of a cluster",
        )  # fmt: skip
    elif by:
        yield Finding("versions", Status.OK, f"all runtimes speak protocol generation {next(iter(by))}")
    else:
        yield Finding("versions", Status.SKIPPED, "no runtime has told its generation")


def ssh(looks: Sequence[SshLook] | None) -> Iterator[Finding]:
    """Whether this user can log in to the nodes, and whether they reach us from there."""
    if looks is None:
        yield Finding("ssh", Status.SKIPPED, "not asked for: --ssh logs in to each node and runs `true`")
        return
    for look in looks:
        if look.problem:
            yield Finding(
                "ssh", Status.FAIL, f"{look.node.name}: {look.problem}",
                f"Try `ssh {look.node.member.address.host} true`: it must work without a question (key, "
                "agent, known host); --ssh.user, --ssh.port and --ssh.config say how",
            )  # fmt: skip
        elif look.reaches is False:
            yield Finding(
                "ssh", Status.FAIL, f"{look.node.name}: from the node, {look.target} cannot be reached",
                "Open that port from the nodes to this host, or set --runtime.reply-address to an address at "
                "which they reach it",
            )  # fmt: skip
    well = [look for look in looks if not look.problem and look.reaches is not False]
    if well:
        reached = sum(look.reaches is True for look in well)
        text = f"log-in to {len(well)} nodes works"
        yield Finding("ssh", Status.OK, f"{text}; {reached} of them reach this host" if reached else text)


_SILENT: Final = ("hung", "unsupported", "deadline", "connection_lost")


def _dials_back(status: NodeStatus) -> bool:
    generation = status.session.generation
    return generation is not None and generation.dials_back


def _targets(seen: NodesLook, nodes: Sequence[NodeLook]) -> list[str]:
    """Where these nodes are told to answer to."""
    ports = {node.dials: seen.endpoints.get(node.dials) for node in nodes if node.dials}
    return sorted(f"{address}:{port}" for address, port in ports.items() if port is not None)


def _is_foreign(seen: NodesLook, address: str) -> bool:
    everywhere = "0.0.0.0"  # noqa: S104 - what the socket is bound to for an address that is not ours
    return address != everywhere and everywhere in seen.endpoints and address in seen.endpoints


def _by_reason(check: str, nodes: Sequence[NodeLook]) -> Iterator[Finding]:
    """A finding a reason: a thousand nodes may have the same."""
    by: defaultdict[str, list[NodeLook]] = defaultdict(list)
    for node in nodes:
        if node.error is not None:
            by[node.error.reason].append(node)
    for reason, same in by.items():
        text = f"{reason}: {named([node.name for node in same])}: {same[0].error}"
        yield Finding(check, Status.FAIL, text, _REMEDIES.get(reason, _ELSEWHERE))

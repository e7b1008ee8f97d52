"""Which nodes a cluster has by what its runtimes call their hosts. Pure functions.

A runtime tells the number and the hostfile's text of every node, and no port. So all nodes are taken to have
the base port of the node that was asked, and of several nodes on one host only one can be found.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from clio_client.config.errors import ConfigError, quoted
from clio_client.config.hostfile import MAX_ENTRIES, check_host
from clio_client.protocol.records import HostInfo

_UNKNOWN: Final = (None, "", "0.0.0.0")  # noqa: S104 - what a runtime without hostfile calls itself
_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class DiscoveredHosts:
    """The hosts of a cluster's nodes, by node id; ``problems`` says which nodes are left out, and why."""

    hosts: tuple[tuple[int, str], ...]
    problems: tuple[str, ...]


def discovered_hosts(answers: Sequence[HostInfo], asked: str, asked_id: int | None) -> DiscoveredHosts:
    """The hosts of the nodes that ``answers`` tell of, in the order of their node ids.

    ``asked`` is the host that was asked and ``asked_id`` its own node id. It is what a node means that does
    not know its address, and what a loopback address means that another host tells.
    """
    problems: list[str] = []
    by_id: dict[int, str] = {}
    unnumbered = sum(answer.node_id is None for answer in answers)
    if unnumbered:
        problems.append(f"nodes that do not tell their numbers: {unnumbered}")
    numbered = [(answer.node_id, answer) for answer in answers if answer.node_id is not None]
    for node_id, answer in sorted(numbered, key=lambda pair: pair[0])[:MAX_ENTRIES]:
        host = _host(answer, asked, asked_id in (None, node_id))
        if host is None:
            problems.append(
                f"node {node_id} calls its host {quoted(answer.hostname)} and its address "
                f"{quoted(answer.ip_address)}, by which it cannot be reached from here"
            )
        elif host != by_id.setdefault(node_id, host):
            problems.append(f"{quoted(host)} has the number {node_id} of {quoted(by_id[node_id])}")
    by_host: dict[str, list[int]] = {}
    for node_id, host in by_id.items():
        by_host.setdefault(host.lower(), []).append(node_id)
    for ids in by_host.values():
        if len(ids) > 1:
            found = asked_id if asked_id in ids else ids[0]
            lost = [node_id for node_id in ids if node_id != found]
            problems.append(
                f"the host {by_id[found]} of node {found} also has {_listed(lost)}, "
                "whose ports no runtime tells"
            )
            for node_id in lost:
                del by_id[node_id]
    return DiscoveredHosts(tuple(by_id.items()), tuple(problems))


def incomplete(problems: Sequence[str]) -> str | None:
    """What an operator is told of nodes that are left out; None where there are none."""
    if not problems:
        return None
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return (
        f"nodes are left out: {'; '.join(problems[:_SHOWN])}{more}. Name the nodes as host:port in a hostfile"
    )


def _host(answer: HostInfo, asked: str, is_asked: bool) -> str | None:
    unknown = False
    for text in (answer.hostname, answer.ip_address):
        if text in _UNKNOWN or (_is_loopback(text) and not _is_loopback(asked)):
            unknown = True
        elif text is not None and _is_host(text):
            return text
    return asked if unknown and is_asked else None


def _is_host(text: str) -> bool:
    try:
        check_host(text, "", None)
    except ConfigError:
        return False
    return True


def _is_loopback(text: str | None) -> bool:
    try:
        return text is not None and (text.lower() == "localhost" or ipaddress.IPv4Address(text).is_loopback)
    except ValueError:
        return False


def _listed(ids: Sequence[int]) -> str:
    shown = ", ".join(map(str, ids[:_SHOWN]))
    return f"{'node' if len(ids) == 1 else 'nodes'} {shown}" + (" ..." if len(ids) > _SHOWN else "")

"""Who is in a cluster, and by which address and labels each member goes."""

from __future__ import annotations

import asyncio
import itertools
import threading
import unittest.mock
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import pytest

from clio_client import membership as membership_module
from clio_client.background import BackgroundRead
from clio_client.config.errors import ConfigError
from clio_client.config.settings import Settings, load_settings
from clio_client.errors import HungError, RefusedError
from clio_client.membership import ClusterMembership, Member, MembershipError
from clio_client.protocol.codec import Generation
from clio_client.questions import DISCOVERY_QUERY
from clio_client.transport.interface import MonitorAnswer
from tests.unit import recorded
from tests.unit.memory_transport import MemoryNode, MemoryTransport


def membership(tmp_path: Path, **flags: Any) -> ClusterMembership:
    settings = Settings().with_overrides(**flags)
    return ClusterMembership(settings.clusters[0], settings.runtime, {}, tmp_path)


def test_members_are_numbered_as_listed(tmp_path: Path) -> None:
    members = membership(tmp_path, nodes=["b", "a:9500", "127.0.0.9"]).members()
    assert [(m.node_id, m.hostname, m.target) for m in members] == [
        (0, "b", "b:9413"), (1, "a", "a:9500"), (2, "127.0.0.9", "127.0.0.9:9413"),
    ]  # fmt: skip
    assert members[1].address.client_port == 9503
    assert members[2].address.index == 2


def test_the_default_port_is_that_of_the_settings(tmp_path: Path) -> None:
    assert [m.target for m in membership(tmp_path, nodes=["a", "b:1"], port=9600).members()] == [
        "a:9600",
        "b:1",
    ]


def test_members_know_the_name_of_their_cluster(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("clusters: [{name: east, nodes: [a]}]")
    settings = load_settings(path)
    cluster = ClusterMembership(settings.clusters[0], settings.runtime, {}, tmp_path)
    assert cluster.name == cluster.members()[0].cluster == "east"


def test_overrides_apply_to_their_nodes(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        "clusters:\n- nodes: [a, 'b:9500']\n  generation: C\n"
        "  overrides: {b: {generation: A, reply_address: 10.1.2.3}}\n"
        "runtime: {reply_address: 10.0.0.1}\n"
    )
    settings = load_settings(path)
    cluster = ClusterMembership(settings.clusters[0], settings.runtime, {}, tmp_path)
    first, second = (m.address for m in cluster.members())
    assert (first.generation, first.reply_address) == (Generation.C, "10.0.0.1")
    assert (second.generation, second.reply_address) == (Generation.A, "10.1.2.3")


def test_a_hostfile_is_followed(tmp_path: Path) -> None:
    hostfile = tmp_path / "hosts"
    hostfile.write_text("a\nb\n")
    cluster = membership(tmp_path, hostfile=hostfile)

    async def refresh() -> tuple[Member, ...]:
        return await cluster.refresh(MemoryTransport({}), asyncio.get_running_loop().time() + 5)

    async def follow() -> None:
        before = cluster.members()
        assert await refresh() is before  # nothing is built anew while nothing changes
        hostfile.write_text("a\nc\nb\n")
        after = await refresh()
        assert [m.hostname for m in after] == ["a", "c", "b"]
        assert cluster.members() is after
        assert after[0] == before[0]  # who stays keeps what is remembered
        hostfile.write_text("a:x\n")
        assert await refresh() is after
        assert str(hostfile) in (cluster.error or "")
        hostfile.unlink()
        assert await refresh() is after
        assert str(hostfile) in (cluster.error or "")
        hostfile.write_text("d\n")
        assert [m.hostname for m in await refresh()] == ["d"]
        assert cluster.error is None

    asyncio.run(follow())


def test_a_hostfile_that_hangs_leaves_the_members_and_refuses_actions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostfile = tmp_path / "hosts"
    hostfile.write_text("a\nb\n")
    cluster = membership(tmp_path, hostfile=hostfile)
    monkeypatch.setattr(membership_module, "HOSTFILE_SECONDS", 0.05)
    ended = threading.Event()

    def hang() -> Any:
        ended.wait(60)

    cluster._changed_file = cluster._whole_file = BackgroundRead(hang)

    async def run() -> None:
        deadline = asyncio.get_running_loop().time() + 30
        try:
            assert [m.hostname for m in await cluster.refresh(MemoryTransport({}), deadline)] == ["a", "b"]
            assert "takes more than" in (cluster.error or "")
            with pytest.raises(MembershipError, match="takes more than"):
                await cluster.confirmed(MemoryTransport({}), deadline)
        finally:
            ended.set()

    asyncio.run(run())


def test_what_the_runtime_reads_differently_in_its_own_hostfile_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = unittest.mock.Mock()
    monkeypatch.setattr(membership_module, "_log", log)
    hostfile = tmp_path / "hosts"
    hostfile.write_text("# nodes\na\n")
    settings = Settings()
    env = {"CONTAINER_HOSTFILE": str(hostfile)}
    ClusterMembership(settings.clusters[0], settings.runtime, env, tmp_path)
    (call,) = log.warning.call_args_list
    assert "does not know comments" in call.kwargs["warning"]
    membership(tmp_path, hostfile=hostfile)  # the exporter's own may have them
    assert log.warning.call_count == 1


def test_a_hostfile_must_be_readable_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="hosts"):
        membership(tmp_path, hostfile=tmp_path / "hosts")
    (tmp_path / "hosts").mkdir()
    with pytest.raises(ConfigError, match="hosts"):
        membership(tmp_path, hostfile=tmp_path / "hosts")


# --- discovery ---------------------------------------------------------------------------------------------


@dataclass
class Seed(MemoryNode):
    """Node 0 of a cluster; each of ``hosts`` is what a node answers: its number, hostname and address."""

    hosts: Sequence[tuple[int | None, str, str]] = tuple((i, f"n{i}", f"10.0.0.{i}") for i in (2, 3, 0, 1))

    def answer(self, query: str) -> MonitorAnswer:
        if query == DISCOVERY_QUERY and query not in self.answers:
            fields = ("node_id", "hostname", "ip_address")
            documents = [dict(zip(fields, host, strict=True)) for host in self.hosts]
            return MonitorAnswer(query, 0, {i: msgpack.packb(d) for i, d in enumerate(documents)})
        return super().answer(query)


class OneHost(MemoryNode):
    """A recorded cluster of four nodes on 127.0.0.1."""

    def answer(self, query: str) -> MonitorAnswer:
        if query == DISCOVERY_QUERY:
            folder = recorded.FIXTURES / "2.3.2-4nodes"
            names = {c: f"pool_stats_1.0_broadcast_get_host_info.container{c}.msgpack" for c in (2, 3, 0, 1)}
            return MonitorAnswer(query, 0, {c: (folder / name).read_bytes() for c, name in names.items()})
        return super().answer(query)


class Discovery:
    """A membership that asks a seed, on a loop whose clock can be moved on."""

    def __init__(self, tmp_path: Path, node: MemoryNode, seed: str = "seed:9500") -> None:
        self.node = node
        self.cluster = membership(tmp_path, seed=seed)
        # The runtime that is asked as the seed is member 0 at the address of the hostfile.
        self.transport = MemoryTransport({seed.partition(":")[0]: node, "127.0.0.1": node, "n0": node})
        self.loop = asyncio.new_event_loop()
        real = self.loop.time
        self.ahead = 0.0
        self.loop.time = lambda: real() + self.ahead  # type: ignore[method-assign]

    def refresh(self) -> tuple[Member, ...]:
        async def run() -> tuple[Member, ...]:
            return await self.cluster.refresh(self.transport, asyncio.get_running_loop().time() + 5)

        return self.loop.run_until_complete(run())

    def asked(self) -> int:
        return self.node.count(DISCOVERY_QUERY)


@pytest.fixture
def discover(tmp_path: Path) -> Any:
    made: list[Discovery] = []

    def make(node: MemoryNode, **options: str) -> Discovery:
        made.append(Discovery(tmp_path, node, **options))
        return made[-1]

    yield make
    for each in made:
        each.loop.close()


def test_before_it_is_asked_the_seed_is_the_member(discover: Any) -> None:
    d = discover(Seed())
    assert [(m.hostname, m.target) for m in d.cluster.members()] == [("seed", "seed:9500")]


def named(d: Discovery) -> list[tuple[int, str]]:
    return [(member.node_id, member.target) for member in d.refresh()]


def test_members_are_those_the_runtime_names_in_the_order_of_their_numbers(discover: Any) -> None:
    d = discover(Seed())
    assert named(d) == [(i, f"n{i}:9500") for i in range(4)]
    assert d.cluster.error is None


def test_members_keep_the_numbers_that_the_runtime_gave_them(discover: Any) -> None:
    node = Seed(hosts=[(3, "n3", ""), (0, "n0", ""), (2, "n2", "")])
    d = discover(node)
    assert named(d) == [(0, "n0:9500"), (2, "n2:9500"), (3, "n3:9500")]
    assert [m.address.index for m in d.cluster.members()] == [0, 2, 3]  # what the binding routes by
    assert d.cluster.error is None
    node.hosts = [(0, "n0", ""), (3, "n2", ""), (2, "n3", "")]  # the same names, renumbered
    d.ahead += 61
    assert named(d) == [(0, "n0:9500"), (2, "n3:9500"), (3, "n2:9500")]


def test_a_number_that_two_nodes_claim_is_that_of_the_first(discover: Any) -> None:
    d = discover(Seed(hosts=[(0, "n0", ""), (1, "n1", ""), (1, "n2", ""), (1, "n1", "")]))
    assert named(d) == [(0, "n0:9500"), (1, "n1:9500")]
    assert "'n2' has the number 1 of 'n1'" in d.cluster.error


HOSTS = [(0, "n0", "10.0.0.0"), (2, "n2", "10.0.0.2")]
LONG_NAME = ".".join(["x" * 60] * 5)


@pytest.mark.parametrize(
    "name",
    [
        "bad_host!",
        "..",
        "../../etc",
        "a b",
        "a\n",
        "\x1b[31m",
        "a\x00",
        "é",
        LONG_NAME,
        "fe80::1",
        "1.2.3",
        "a:1",
    ],
)
def test_a_name_that_is_none_costs_only_its_node(discover: Any, name: str) -> None:
    d = discover(Seed(hosts=[*HOSTS, (1, name, "10.0.0.1")]))
    assert named(d) == [(0, "n0:9500"), (1, "10.0.0.1:9500"), (2, "n2:9500")]
    assert d.cluster.error is None
    d = discover(Seed(hosts=[*HOSTS, (1, name, name)]))
    assert named(d) == [(0, "n0:9500"), (2, "n2:9500")]
    assert "node 1 calls its host" in d.cluster.error
    assert d.cluster.error.isprintable()
    assert len(d.cluster.error) < 500


def test_ports_are_not_invented(discover: Any) -> None:
    """The runtimes of one host have ports of their own, and discovery tells none."""
    d = discover(Seed(hosts=[(0, "n0", ""), (1, "N0", ""), (2, "n0", ""), (3, "n3", "")]))
    assert named(d) == [(0, "n0:9500"), (3, "n3:9500")]
    assert "1, 2" in d.cluster.error
    assert "host:port" in d.cluster.error
    d = discover(OneHost(), seed="127.0.0.1:9500")
    assert named(d) == [(0, "127.0.0.1:9500")]
    assert "1, 2, 3" in d.cluster.error


def test_a_loopback_address_of_another_host_is_not_asked_here(discover: Any) -> None:
    d = discover(Seed(hosts=[(0, "localhost", "127.0.0.1"), (1, "127.0.1.1", "10.0.0.1")]))
    assert named(d) == [(0, "seed:9500"), (1, "10.0.0.1:9500")]
    d = discover(OneHost(), seed="10.0.0.9:9500")
    assert named(d) == [(0, "10.0.0.9:9500")]
    assert "host:port" in d.cluster.error


def test_discovery_is_repeated_once_a_minute(discover: Any) -> None:
    d = discover(Seed())
    d.refresh()
    d.refresh()
    assert d.asked() == 1
    d.ahead += 61
    d.refresh()
    assert d.asked() == 2


def test_once_known_the_seed_is_asked_as_the_member_it_is(discover: Any) -> None:
    d = discover(Seed())
    d.refresh()
    del d.transport.nodes["seed"]  # one runtime must not have two connections
    d.ahead += 61
    d.refresh()
    assert d.cluster.error is None
    assert d.asked() == 2


def test_a_node_without_hostfile_is_the_one_that_was_asked(discover: Any) -> None:
    d = discover(
        Seed(answers={DISCOVERY_QUERY: {"hostname": "0.0.0.0", "ip_address": "0.0.0.0", "node_id": 0}})
    )
    assert [m.target for m in d.refresh()] == ["seed:9500"]


def test_hosts_without_a_number_are_left_out(discover: Any) -> None:
    d = discover(Seed(answers={DISCOVERY_QUERY: {"hostname": "x"}}))
    assert [m.target for m in d.refresh()] == ["seed:9500"]


def test_a_seed_that_is_down_is_tried_at_each_scrape(discover: Any) -> None:
    node = Seed(down=RefusedError("nobody"))
    d = discover(node)
    assert [m.target for m in d.refresh()] == ["seed:9500"]
    assert "nobody" in (d.cluster.error or "")
    node.down = None
    assert len(d.refresh()) == 4
    assert d.cluster.error is None


def test_a_broadcast_that_is_not_answered_is_tried_less_and_less(discover: Any) -> None:
    node = Seed()
    d = discover(node)
    d.refresh()
    node.answers[DISCOVERY_QUERY] = HungError("lost")
    times: list[float] = []
    for _ in range(250):
        d.ahead += 10
        before = d.asked()
        assert len(d.refresh()) == 4  # the members known before are kept
        if d.asked() > before:
            times.append(d.ahead)
    assert "lost" in (d.cluster.error or "")
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert gaps == sorted(gaps)
    assert gaps[0] == pytest.approx(120, abs=15)
    assert gaps[-1] == pytest.approx(600, abs=15)
    del node.answers[DISCOVERY_QUERY]
    d.ahead += 601
    d.refresh()
    assert d.cluster.error is None


def confirmed(d: Discovery) -> tuple[Member, ...]:
    async def run() -> tuple[Member, ...]:
        return await d.cluster.confirmed(d.transport, asyncio.get_running_loop().time() + 5)

    return d.loop.run_until_complete(run())


def test_for_an_action_the_runtime_is_asked_at_once_until_it_has_told_the_members(discover: Any) -> None:
    node = Seed(answers={DISCOVERY_QUERY: HungError("lost")})
    d = discover(node)
    for asked in (1, 2):  # a scrape would let two minutes go by
        with pytest.raises(MembershipError, match=r"lost.*no runtime has told the nodes' numbers"):
            confirmed(d)
        assert d.asked() == asked
    del node.answers[DISCOVERY_QUERY]
    assert [member.node_id for member in confirmed(d)] == [0, 1, 2, 3]
    asked = d.asked()
    node.answers[DISCOVERY_QUERY] = HungError("lost")
    assert len(confirmed(d)) == 4  # they stand
    assert d.asked() == asked
    d.ahead += 61
    assert len(confirmed(d)) == 4  # also when nobody tells them again
    assert d.asked() == asked + 1


def test_the_broadcast_leaves_no_error_line_in_the_runtimes_log() -> None:
    # A header broadcast would (wire protocol, section 2).
    assert DISCOVERY_QUERY.startswith("pool_stats://1.0:broadcast:")

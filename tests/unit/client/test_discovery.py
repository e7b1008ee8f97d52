"""Which hosts are made of what runtimes call theirs."""

from __future__ import annotations

import pytest

from clio_client.discovery import discovered_hosts, incomplete
from clio_client.protocol.records import HostInfo


def host(node_id: int, hostname: str | None, ip_address: str | None) -> HostInfo:
    return HostInfo(node_id=node_id, hostname=hostname, ip_address=ip_address)


def test_what_several_answers_say_alike_is_said_once() -> None:
    answers = [host(1, name, None) for name in ("n1", "".join(["n", "1"]))]
    found = discovered_hosts(answers, "seed", 0)
    assert (found.hosts, found.problems) == (((1, "n1"),), ())


@pytest.mark.parametrize("asked_id", [0, None])
def test_a_name_that_is_none_does_not_mean_the_host_that_was_asked(asked_id: int | None) -> None:
    found = discovered_hosts([host(0, "no name!", "no address!")], "seed", asked_id)
    assert found.hosts == ()
    assert len(found.problems) == 1
    assert "cannot be reached from here" in found.problems[0]


@pytest.mark.parametrize("unknown", [None, "", "0.0.0.0"])
def test_a_node_that_knows_no_name_is_the_one_that_was_asked_and_no_other(unknown: str | None) -> None:
    found = discovered_hosts([host(i, unknown, unknown) for i in (0, 1)], "seed", 1)
    assert found.hosts == ((1, "seed"),)
    assert len(found.problems) == 1
    assert found.problems[0].startswith("node 0 ")


@pytest.mark.parametrize(
    ("nodes", "lost"),
    [(2, "node 1,"), (3, "nodes 1, 2,"), (4, "nodes 1, 2, 3,"), (5, "nodes 1, 2, 3 ...,")],
)
def test_nodes_of_one_host_are_told_by_number(nodes: int, lost: str) -> None:
    found = discovered_hosts([host(i, "n0", None) for i in range(nodes)], "n0", 0)
    assert found.hosts == ((0, "n0"),)
    assert found.problems == (f"the host n0 of node 0 also has {lost} whose ports no runtime tells",)


def test_what_an_operator_is_told_is_bounded() -> None:
    assert incomplete([]) is None
    told = [incomplete([f"p{i}" for i in range(count)]) for count in (1, 3, 4, 5)]
    assert [text is not None and " more. " in text for text in told] == [False, False, True, True]
    assert told[0] == "nodes are left out: p0. Name the nodes as host:port in a hostfile"
    assert told[3] == "nodes are left out: p0; p1; p2; and 2 more. Name the nodes as host:port in a hostfile"

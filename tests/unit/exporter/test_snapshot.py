"""When a node counts as up, and what is known of one that does not."""

from __future__ import annotations

import pytest

from clio_client.errors import HungError
from clio_client.membership import Member
from clio_client.protocol.codec import Generation, RuntimeIdentity
from clio_client.protocol.records import read_containers
from clio_client.transport.interface import NodeAddress, NodeSession
from clio_exporter.snapshot import NodeSnapshot, Topic, TopicResult

MEMBER = Member("", 0, "n0", NodeAddress("n0", 9413))
SESSION = NodeSession(Generation.C, RuntimeIdentity(start_ns=1, pid=2))
HUNG = TopicResult(HungError("n0:9413 did not answer in time"), 1.0)
KNOWN = TopicResult(None, 0.1)


@pytest.mark.parametrize("results", [{}, {Topic.CONTAINERS: KNOWN}, {Topic.WORKERS: HUNG}])
@pytest.mark.parametrize("heard", [False, True])
def test_up_is_what_was_heard_in_this_scrape(results: dict[Topic, TopicResult], heard: bool) -> None:
    node = NodeSnapshot(MEMBER, SESSION, results=results, heard=heard, duration=1.0)
    assert node.up is heard
    assert (node.failure is None) is heard
    assert node.answered(Topic.CONTAINERS) is (heard and Topic.CONTAINERS in results)


def test_pools_remembered_of_a_node_that_is_down_are_not_known() -> None:
    pools = tuple(read_containers([{"pool_id": "301.0", "pool_name": "a", "chimod_name": "clio_bdev"}]))
    node = NodeSnapshot(MEMBER, SESSION, containers=pools, results={Topic.CONTAINERS: KNOWN})
    assert node.pools == ()
    node.heard = True
    assert node.pools == pools

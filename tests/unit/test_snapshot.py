"""When a node counts as up, and what is known of one that does not."""

from __future__ import annotations

import pytest

from exporter.membership import Member
from exporter.runtime.codec import Generation, RuntimeIdentity
from exporter.runtime.errors import HungError
from exporter.runtime.records import read_containers
from exporter.runtime.transport import NodeAddress, NodeSession
from exporter.snapshot import NodeSnapshot, Outcome, Topic

MEMBER = Member("", 0, "n0", NodeAddress("n0", 9413), 'node_id="0"')
SESSION = NodeSession(Generation.C, RuntimeIdentity(start_ns=1, pid=2))
HUNG = Outcome(HungError("n0:9413 did not answer in time"), 1.0)
ANSWERED = Outcome(None, 0.1)
REMEMBERED = Outcome(None, 0.1, asked=False)


@pytest.mark.parametrize(
    ("outcomes", "finished", "up"),
    [
        ({Topic.WORKERS: ANSWERED}, True, True),
        ({Topic.WORKERS: HUNG, Topic.SYSTEM: ANSWERED}, True, True),
        ({Topic.WORKERS: HUNG, Topic.CONTAINERS: REMEMBERED}, True, False),
        ({Topic.CONTAINERS: REMEMBERED}, True, True),
        ({Topic.CONTAINERS: REMEMBERED}, False, False),
        ({Topic.CONTAINERS: ANSWERED}, False, True),
        ({}, True, True),
        ({}, False, False),
    ],
)
def test_up_is_what_was_heard_in_this_scrape(
    outcomes: dict[Topic, Outcome], finished: bool, up: bool
) -> None:
    node = NodeSnapshot(MEMBER, SESSION, outcomes=outcomes, duration=1.0 if finished else None)
    assert node.up is up
    assert (node.failure is None) is up


def test_pools_remembered_of_a_node_that_is_down_are_not_known() -> None:
    pools = tuple(read_containers([{"pool_id": "301.0", "pool_name": "a", "chimod_name": "clio_bdev"}]))
    outcomes = {Topic.CONTAINERS: REMEMBERED, Topic.WORKERS: ANSWERED}
    node = NodeSnapshot(MEMBER, SESSION, containers=pools, outcomes=outcomes, duration=1.0)
    assert node.pools == pools
    node.outcomes = {Topic.CONTAINERS: REMEMBERED, Topic.WORKERS: HUNG}
    assert node.pools == ()
    assert not node.answered(Topic.CONTAINERS)

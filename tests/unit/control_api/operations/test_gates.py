"""What has to hold between two nodes: each gate, closed and open."""

from __future__ import annotations

from dataclasses import replace

from clio_control_api.operations import gates
from clio_control_api.operations.gates import Alert, Evidence, Seen, Work, judge
from clio_control_api.operations.model import NodeProgress
from tests.unit.control_api.operations.scripted import POOLS, down, orders, up

NODE = NodeProgress(1, "n1", "n1:9413", run="1@1", pools=tuple(POOLS))
FRESH = up(1, 2)


def names(evidence: Evidence, action: str = "restart", **more: tuple[object, ...]) -> list[str]:
    given = {"before": (), "acted": (1,), **more}
    return [gate.name for gate in judge(orders(action), NODE, evidence, **given)]  # type: ignore[arg-type]


def test_a_node_that_came_back_whole_passes() -> None:
    assert names(Evidence(FRESH, FRESH, {0: up(0)}, (0,), ())) == []
    assert names(Evidence(down(1), None, {0: up(0)}, (0,), ()), "shutdown") == []


def test_it_is_another_process() -> None:
    assert names(Evidence(up(1), up(1))) == ["another process"]
    assert names(Evidence(down(1))) == ["another process"]
    # Generation Z tells nothing by which its runs could be told apart: the action's own look decides.
    silent = replace(FRESH, run=None)
    assert names(Evidence(silent, silent)) == []
    assert gates.another_process(replace(NODE, run=None), FRESH) is None


def test_it_composed_the_same_pools() -> None:
    fewer = replace(FRESH, pools=frozenset({"301.0 ram"}))
    assert gates.same_pools(NODE, fewer) == "lacks pool 512.0 cte"
    assert gates.same_pools(NODE, replace(FRESH, pools=POOLS | {"7.1 more"})) is None
    assert gates.same_pools(NODE, replace(FRESH, pools=None)) == "does not tell its pools"
    assert gates.same_pools(replace(NODE, pools=None), fewer) is None


def test_no_worker_is_stuck() -> None:
    def busy(processed: int, pending: int = 3, run: int = 2) -> Seen:
        return up(1, run, workers={0: Work(0, 5), 7: Work(pending, processed)})

    assert gates.no_worker_stuck(busy(10), busy(10)) == "has work that does not move: worker 7"
    assert gates.no_worker_stuck(busy(10), busy(11)) is None
    assert gates.no_worker_stuck(busy(10), busy(10, 0)) is None
    assert gates.no_worker_stuck(busy(10, 0), busy(10)) is None
    # One look, or one at the process before, says nothing yet.
    assert gates.no_worker_stuck(None, busy(11)) is not None
    assert gates.no_worker_stuck(busy(10, run=1), busy(11)) is not None
    assert gates.no_worker_stuck(FRESH, replace(FRESH, workers=None)) == "does not tell its workers"


def test_nobody_else_went_down() -> None:
    others = {0: up(0), 2: down(2), 3: down(3)}
    assert gates.nobody_else_down(others, (0,)) is None
    assert "node 2 (nothing listens)" in str(gates.nobody_else_down(others, (0, 2)))
    assert "no longer a member" in str(gates.nobody_else_down(others, (9,)))


def test_no_alert_of_the_cluster_fires() -> None:
    of_node = Alert("ClioWorkerStuck", "ClioWorkerStuck(node_id=3)", "", 3)
    of_cluster = Alert("ClioClusterNoLeader", "ClioClusterNoLeader()")
    of_another = Alert("ClioNodeDown", "ClioNodeDown(cluster=lab)", "lab", 1)
    own = Alert("ClioNodeDown", "ClioNodeDown(node_id=1)", "", 1)

    def closed(*alerts: Alert, action: str = "restart", before: tuple[str, ...] = ()) -> bool:
        now = FRESH if action == "restart" else down(1)
        return names(Evidence(now, FRESH, {}, (), alerts), action, before=before) == ["no alert"]

    assert closed(of_node)
    assert closed(of_cluster)
    assert closed(own)
    assert not closed(of_another)
    assert not closed(of_node, before=(of_node.labels,))
    # A shutdown sets off alerts about what it shuts down, and about the cluster, by itself.
    assert not closed(own, of_cluster, action="shutdown")
    assert closed(of_node, action="shutdown")
    assert names(Evidence(FRESH, FRESH, {}, (), "it cannot be asked")) == ["no alert"]
    assert names(Evidence(FRESH, FRESH, {}, (), None)) == []


def test_a_node_that_hangs_is_not_shut_down() -> None:
    hung = Seen(1, "it did not answer in time")
    assert names(Evidence(hung), "shutdown") == ["stopped"]
    assert names(Evidence(up(1)), "shutdown") == ["stopped"]

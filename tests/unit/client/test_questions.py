"""The typed questions: what is asked, what is decoded, and what is left undecoded."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from clio_client import questions
from clio_client.errors import HungError, MalformedAnswerError, QueryFailedError, RefusedError
from tests.unit import recorded
from tests.unit.memory_transport import IDENTITY, MemoryNode, MemoryTransport, member

NODE = member().address
SECONDS = 5.0
_T = TypeVar("_T")


class Asked:
    """One node in memory, and its answers to questions."""

    def __init__(self, node: MemoryNode) -> None:
        self.node = node
        self.transport = MemoryTransport({"n0": node})

    def __call__(self, question: Any, *arguments: Any, **options: Any) -> Any:
        async def ask() -> Any:
            deadline = asyncio.get_running_loop().time() + SECONDS
            return await question(self.transport, NODE, *arguments, deadline, **options)

        return _run(ask())


def _run(work: Coroutine[Any, Any, _T]) -> _T:
    return asyncio.run(work)


@pytest.mark.parametrize("version", recorded.versions())
def test_every_version_answers_every_question(version: str) -> None:
    ask = Asked(MemoryNode(version))
    rows = recorded.decoded(version, "worker_stats")
    assert [w.num_tasks_processed for w in ask(questions.workers)] == [r["num_tasks_processed"] for r in rows]
    rows = recorded.decoded(version, "system_stats_0")
    assert [s.event_id for s in ask(questions.samples)] == [row["event_id"] for row in rows]
    assert [s.event_id for s in ask(questions.samples, last=2)] == [row["event_id"] for row in rows[-2:]]
    rows = recorded.decoded(version, "container_stats")
    assert [c.pool_id for c in ask(questions.containers).containers] == [row["pool_id"] for row in rows]
    pools, devices = ask(questions.pools), ask(questions.pools, devices_only=True)
    assert [pool.container.pool_id for pool in pools] == [row["pool_id"] for row in rows]
    assert devices == tuple(pool for pool in pools if pool.container.is_bdev)
    assert "301.0" in {pool.container.pool_id for pool in devices}
    host = recorded.decoded(version, "get_host_info")
    status = ask(questions.status)
    assert (status.host.hostname, status.host.node_id) == (host["hostname"], host["node_id"])
    assert status.session.identity == IDENTITY
    assert ask(questions.document, "get_host_info") == host


def test_only_what_is_new_is_asked_for() -> None:
    ask = Asked(MemoryNode(samples=[{"event_id": event} for event in range(9)]))
    assert [sample.event_id for sample in ask(questions.samples, since=7)] == [7, 8]
    assert ask.node.asked == ["system_stats:7"]


def test_an_unchanged_list_of_pools_is_not_decoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = Asked(MemoryNode())
    first = ask(questions.containers)
    monkeypatch.setattr(questions, "decode_document", lambda raw: pytest.fail("decoded"))
    assert ask(questions.containers, known=first) is first


def test_a_pool_that_was_retired_meanwhile_is_left_out() -> None:
    ask = Asked(MemoryNode(answers={"pool_stats://301.0:local:stats": 3}))
    device = next(c for c in ask(questions.containers).containers if c.pool_id == "301.0")
    with pytest.raises(QueryFailedError) as caught:
        ask(questions.pool_stats, device)
    assert caught.value.unknown_pool
    assert "301.0" not in {pool.container.pool_id for pool in ask(questions.pools)}
    ask.node.answers["pool_stats://301.0:local:stats"] = HungError("lost")
    with pytest.raises(HungError):
        ask(questions.pools)


def test_statistics_that_a_module_does_not_have_are_none() -> None:
    ask = Asked(MemoryNode("2.2.1"))
    core = next(c for c in ask(questions.containers).containers if (c.chimod_name or "").endswith("cte_core"))
    assert ask(questions.pool_stats, core) is None


def test_the_status_always_asks() -> None:
    ask = Asked(MemoryNode(answers={"get_host_info": HungError("not a word")}))
    with pytest.raises(HungError):
        ask(questions.status)
    ask.node.down = RefusedError("gone")
    with pytest.raises(RefusedError):
        ask(questions.status)


def test_generation_z_is_asked_for_its_workers() -> None:
    ask = Asked(MemoryNode("1.0.3", answers={"worker_stats": [{"worker_id": 0}]}))
    assert ask(questions.status).host is None
    assert ask.node.asked == ["worker_stats"]


def test_an_answer_without_a_result_is_malformed_where_there_must_be_one() -> None:
    ask = Asked(MemoryNode("1.0.3"))
    for question in (questions.workers, questions.samples, questions.containers, questions.host_info):
        with pytest.raises(MalformedAnswerError, match=r"n0:9413: .* without a result"):
            ask(question)
    assert ask(questions.document, "nonsense") is None

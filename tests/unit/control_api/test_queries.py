"""What readers of a node in trouble are told, by answers that come when the test says so."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from clio_client.client import RuntimeClient
from clio_client.errors import HungError
from clio_client.transport.interface import NodeAddress
from clio_control_api import queries as module
from clio_control_api.queries import NodeAnswer, NodeQueries
from tests.exporter_process import eventually

NODE = NodeAddress("node", 1)
PATIENCE = 60.0
"""Seconds that nothing here takes, except where it never comes."""


class Questions:
    """Answers to questions by their text; each is held until it is given."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._given: dict[str, Future[NodeAnswer]] = {}

    def given(self, query: str) -> Future[NodeAnswer]:
        return self._given.setdefault(query, Future())

    def give(self, query: str, answer: NodeAnswer) -> None:
        self.given(query).set_result(answer)

    def release(self) -> None:
        """Let nobody wait any longer."""
        for future in self._given.values():
            if not future.done():
                future.set_result(NodeAnswer("released"))

    async def monitor(self, _transport: Any, _node: Any, query: str, _deadline: float) -> NodeAnswer:
        self.asked.append(query)
        return await asyncio.wrap_future(self.given(query))


class Nobody:
    """A transport that is never asked."""

    async def close(self) -> None:
        """Nothing to close."""


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Questions:
    held = Questions()
    monkeypatch.setattr(module, "_monitor", held.monitor)
    return held


@pytest.fixture
def queries(held: Questions) -> Iterator[NodeQueries]:
    client = RuntimeClient(Nobody)  # type: ignore[arg-type]
    queries = NodeQueries(client, timeout=100 * PATIENCE, patience=0.01, max_age=0.0)
    yield queries
    queries.close()


def test_who_waits_for_a_node_is_told_when_another_question_shows_that_it_hangs(
    queries: NodeQueries, held: Questions
) -> None:
    trouble = HungError("no answer")
    with ThreadPoolExecutor(2) as readers:
        try:
            one = readers.submit(queries.ask, [(NODE, "one")])
            two = readers.submit(queries.ask, [(NODE, "two")])
            eventually("both are out", lambda: sorted(held.asked) == ["one", "two"])
            held.give("one", NodeAnswer(error=trouble))
            assert one.result(PATIENCE) == two.result(PATIENCE) == [NodeAnswer(error=trouble)]
            # It is still out, and from now on nobody waits for it.
            assert [queries.ask([(NODE, "two")]) for _ in range(100)] == [[NodeAnswer(error=trouble)]] * 100
            assert held.asked.count("two") == 1
        finally:
            held.release()
    eventually("it is well", lambda: queries.ask([(NODE, "two")]) == [NodeAnswer("released")])


def test_readers_of_a_healthy_node_share_a_question_and_wait_for_it(
    queries: NodeQueries, held: Questions
) -> None:
    ready = threading.Barrier(11)

    def read() -> list[NodeAnswer]:
        ready.wait(PATIENCE)
        return queries.ask([(NODE, "one"), (NODE, "two")])

    with ThreadPoolExecutor(10) as readers:
        try:
            reads = [readers.submit(read) for _ in range(10)]
            ready.wait(PATIENCE)
            eventually("both are out", lambda: sorted(held.asked) == ["one", "two"])
            held.give("two", NodeAnswer(2))
            assert not any(read.done() for read in reads)
            held.give("one", NodeAnswer(1))
            assert [read.result(PATIENCE) for read in reads] == [[NodeAnswer(1), NodeAnswer(2)]] * 10
        finally:
            held.release()


def test_a_question_that_fails_in_our_own_code_fails_its_readers(
    queries: NodeQueries, held: Questions
) -> None:
    held.given("one").set_exception(ZeroDivisionError("ours"))
    for _ in range(2):
        with pytest.raises(ZeroDivisionError, match="ours"):
            queries.ask([(NODE, "one")])
    assert held.asked == ["one", "one"]

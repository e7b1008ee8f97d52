"""Asking nodes on behalf of many readers at once: shared, bounded, remembered for a moment.

However many readers ask, a node gets one copy of a question at a time, and what came of it is the answer for
whoever asks within `max_age` seconds: such a reader does not even wait for the event loop. A healthy node has
as long as a read may take. To a node whose last answer was a failure a question stays out as long, but is
waited for only `patience` seconds, and that from when it went out, not by each reader: who comes later is
told at once that the node is still in trouble. So a hung node holds hardly a thread of the web server,
however many read, and a node that comes back is seen by the next reader but one.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from clio_client import questions
from clio_client.client import RuntimeClient
from clio_client.errors import HungError, MalformedAnswerError, RuntimeClientError
from clio_client.questions import NodeStatus
from clio_client.transport.interface import NodeAddress, NodeSession, Transport

READ_TIMEOUT_S: Final = 1.2
"""What a node has to answer one question; with all overheads a read stays under 2 s."""

PATIENCE_S: Final = 0.3
MAX_AGE_S: Final = 0.5

Ask = tuple[NodeAddress, str]

_NEWEST: Final = "the newest of system_stats"
"""In the place of a query: the newest entry of a node's ring, found with a cursor."""


@dataclass(frozen=True, slots=True)
class NodeAnswer:
    """The document of the asked node's own container (None when it had nothing to say), or the error."""

    document: Any = None
    error: RuntimeClientError | None = None

    @property
    def ok(self) -> bool:
        """Whether the node answered."""
        return self.error is None


@dataclass(frozen=True, slots=True)
class _Question:
    """A question that is out: when it went out, and what its readers are told."""

    begun: float
    told: asyncio.Future[NodeAnswer]


class NodeQueries:
    """Shares the answers of one `RuntimeClient` among readers. Thread-safe; owns the client."""

    def __init__(
        self,
        client: RuntimeClient,
        *,
        timeout: float = READ_TIMEOUT_S,
        patience: float = PATIENCE_S,
        max_age: float = MAX_AGE_S,
    ) -> None:
        """``timeout``, ``patience`` and ``max_age`` are seconds; see the module's text."""
        self._client = client
        self._timeout = timeout
        self._patience = patience
        self._max_age = max_age
        # Everything below is changed on the client's event loop only.
        self._out: dict[NodeAddress, dict[str, _Question]] = {}
        self._recent: dict[Ask, tuple[float, NodeAnswer]] = {}
        self._troubled: dict[NodeAddress, RuntimeClientError] = {}
        self._cursors: dict[NodeAddress, int] = {}
        self._retained: frozenset[NodeAddress] | None = None

    @property
    def client(self) -> RuntimeClient:
        """The client, for what is not a shared read."""
        return self._client

    def ask(self, asks: Sequence[Ask], timeout: float | None = None) -> list[NodeAnswer]:
        """The answers, in order, after at most ``timeout`` seconds (`READ_TIMEOUT_S` by default)."""
        known = [self._remembered(ask) for ask in asks]
        answers = [answer for answer in known if answer is not None]
        if len(answers) == len(asks):
            return answers
        budget = max(0.0, self._timeout if timeout is None else min(timeout, self._timeout))

        async def work(transport: Transport) -> list[NodeAnswer]:
            return await self._ask(transport, asks, budget)

        return self._client.call(work, budget + 0.4)

    def newest_samples(self, nodes: Sequence[NodeAddress]) -> list[NodeAnswer]:
        """The newest entry of each node's 1 Hz ring (a map; None while the ring is empty)."""
        return self.ask([(node, _NEWEST) for node in nodes])

    def status(self, node: NodeAddress, timeout: float) -> NodeStatus:
        """Which runtime answers at a node now: a question is asked, so a dead one is noticed.

        Raises:
            RuntimeClientError: none does.
        """

        async def work(transport: Transport) -> NodeStatus:
            return await questions.status(transport, node, asyncio.get_running_loop().time() + timeout)

        return self._client.call(work, timeout + 1.0)

    def uptime(self, node: NodeAddress, session: NodeSession) -> float | None:
        """Seconds from the start of the runtime of `session` to its newest sample; None: it does not tell.

        Samples carry the clock that the start is told in; they come one a second and are numbered from 0.
        """
        answer = self.newest_samples([node])[0]
        if not answer.ok:
            return None
        sample = answer.document or {"event_id": 0}
        if session.identity is not None and isinstance(sample.get("timestamp_ns"), int):
            return float(sample["timestamp_ns"] - session.identity.start_ns) / 1e9
        return float(sample["event_id"])

    def retain(self, nodes: frozenset[NodeAddress]) -> None:
        """Drop connections to, and what is remembered of, every node but these."""
        if nodes == self._retained:
            return

        async def work(transport: Transport) -> None:
            transport.retain(nodes)
            for remembered in (self._troubled, self._cursors):
                for gone in [node for node in remembered if node not in nodes]:
                    del remembered[gone]

        self._client.call(work, 1.0)
        self._retained = nodes

    def close(self) -> None:
        """Close the client."""
        self._client.close()

    def _remembered(self, ask: Ask) -> NodeAnswer | None:
        """What is the answer without asking; from any thread."""
        until, answer = self._recent.get(ask, (-math.inf, None))
        return answer if until > time.monotonic() else None

    async def _ask(self, transport: Transport, asks: Sequence[Ask], budget: float) -> list[NodeAnswer]:
        found: dict[Ask, NodeAnswer] = {}
        told: dict[Ask, asyncio.Future[NodeAnswer]] = {}
        for ask in asks:
            known = self._remembered(ask)
            if known is None:
                told[ask] = self._question(transport, ask)
            else:
                found[ask] = known
        if told:
            await asyncio.wait(told.values(), timeout=budget)
        for ask, future in told.items():
            if future.done() and not future.cancelled():
                found[ask] = future.result()
            else:
                error = self._troubled.get(ask[0]) or HungError(f"{ask[0]} did not answer in time")
                found[ask] = NodeAnswer(error=error)
        return [found[ask] for ask in asks]

    def _question(self, transport: Transport, ask: Ask) -> asyncio.Future[NodeAnswer]:
        """What the readers of a question will be told; it goes out unless it is out."""
        node, query = ask
        out = self._out.setdefault(node, {})
        if query not in out:
            loop = asyncio.get_running_loop()
            out[query] = question = _Question(time.monotonic(), loop.create_future())
            task = loop.create_task(self._answer(transport, ask), name=f"ask {node}")
            task.add_done_callback(lambda ended: self._ended(ask, ended))
            if node in self._troubled:
                self._lose_patience(ask, question)
        return out[query].told

    def _lose_patience(self, ask: Ask, question: _Question) -> None:
        """Tell readers of the trouble that is known of a node once they have waited for it long enough."""

        def tell() -> None:
            trouble = self._troubled.get(ask[0])
            if trouble is not None and not question.told.done():
                # For all who ask, until the question has ended.
                self._recent[ask] = math.inf, NodeAnswer(error=trouble)
                question.told.set_result(self._recent[ask][1])

        wait = question.begun + self._patience - time.monotonic()
        asyncio.get_running_loop().call_later(max(0.0, wait), tell)

    async def _answer(self, transport: Transport, ask: Ask) -> NodeAnswer:
        node, query = ask
        deadline = asyncio.get_running_loop().time() + self._timeout
        if query == _NEWEST:
            return await self._newest_sample(transport, node, deadline)
        return await _monitor(transport, node, query, deadline)

    async def _newest_sample(self, transport: Transport, node: NodeAddress, deadline: float) -> NodeAnswer:
        """Only what is newer than the last one seen is asked for.

        A ring that answers nothing has been started anew (wire protocol, section 4), and is then asked from
        its beginning.
        """
        cursor = self._cursors.get(node, 0)
        answer = await _monitor(transport, node, f"system_stats:{cursor}", deadline)
        if answer.ok and answer.document == [] and cursor:
            self._cursors.pop(node, None)
            answer = await _monitor(transport, node, "system_stats:0", deadline)
        if not answer.ok:
            return answer
        try:
            sample = _newest(answer.document)
        except MalformedAnswerError as error:
            return NodeAnswer(error=error)
        if sample is not None:
            self._cursors[node] = sample["event_id"]
        return NodeAnswer(sample)

    def _ended(self, ask: Ask, task: asyncio.Task[NodeAnswer]) -> None:
        """Remember what came of a question, and tell who waits for it."""
        node, query = ask
        told = self._out[node].pop(query).told
        others = self._out[node] or self._out.pop(node)
        self._recent.pop(ask, None)
        if task.cancelled():
            told.cancel()
            return
        failure = task.exception()
        if failure is not None:
            if not told.done():
                told.set_exception(failure)
                told.exception()  # where nobody waits any more
            return
        answer = task.result()
        if answer.ok:
            self._troubled.pop(node, None)
        elif answer.error is not None and answer.error.reason not in ("query_failed", "malformed"):
            if node not in self._troubled:
                for other, question in others.items():
                    self._lose_patience((node, other), question)
            self._troubled[node] = answer.error
        self._recent[ask] = time.monotonic() + self._max_age, answer
        asyncio.get_running_loop().call_later(self._max_age, self._expire, ask)
        if not told.done():
            told.set_result(answer)

    def _expire(self, ask: Ask) -> None:
        recent = self._recent.get(ask)
        if recent is not None and recent[0] <= time.monotonic() + 0.001:
            del self._recent[ask]


async def _monitor(transport: Transport, node: NodeAddress, query: str, deadline: float) -> NodeAnswer:
    try:
        return NodeAnswer(await questions.document(transport, node, query, deadline))
    except RuntimeClientError as error:
        return NodeAnswer(error=error)


def _newest(document: Any) -> dict[str, Any] | None:
    if not isinstance(document, list):
        raise MalformedAnswerError(f"system_stats: expected an array, got {type(document).__name__}")
    rows = [row for row in document if isinstance(row, dict) and isinstance(row.get("event_id"), int)]
    return max(rows, key=lambda row: int(row["event_id"]), default=None)

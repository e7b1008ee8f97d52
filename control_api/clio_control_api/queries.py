"""Asking nodes on behalf of many readers at once: shared, bounded, remembered for a moment.

However many readers ask, a node gets one copy of a query at a time. A reader waits for a healthy node
as long as the read may take; for a node whose last answer was a failure only `patience` seconds, while
the question stays out and its outcome serves the readers that come later. So one hung node costs each
reader a fraction of a second, and a node that comes back is seen by the next reader but one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from clio_client import questions
from clio_client.client import RuntimeClient
from clio_client.errors import HungError, MalformedAnswerError, RuntimeClientError
from clio_client.questions import NodeStatus
from clio_client.single_flight import SingleFlight
from clio_client.transport.interface import NodeAddress, NodeSession, Transport

READ_TIMEOUT_S: Final = 1.2
"""What a node has to answer one question; with all overheads a read stays under 2 s."""

PATIENCE_S: Final = 0.3
MAX_AGE_S: Final = 0.5

Ask = tuple[NodeAddress, str]


@dataclass(frozen=True, slots=True)
class NodeAnswer:
    """The document of the asked node's own container (None when it had nothing to say), or the error."""

    document: Any = None
    error: RuntimeClientError | None = None

    @property
    def ok(self) -> bool:
        """Whether the node answered."""
        return self.error is None


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
        # Everything below is touched on the client's event loop only.
        self._flights: SingleFlight[asyncio.Task[NodeAnswer]] = SingleFlight()
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
        budget = self._timeout if timeout is None else min(timeout, self._timeout)

        async def work(transport: Transport) -> list[NodeAnswer]:
            return await self._ask(transport, asks, max(0.0, budget))

        return self._call(work, budget)

    def newest_samples(self, nodes: Sequence[NodeAddress]) -> list[NodeAnswer]:
        """The newest entry of each node's 1 Hz ring (a map; None while the ring is empty).

        Only what is newer than the last one seen is asked for. A ring that answers nothing has been
        started anew (wire protocol, section 4), and is then asked from its beginning.
        """

        async def one(transport: Transport, node: NodeAddress, end: float) -> NodeAnswer:
            loop = asyncio.get_running_loop()
            cursor = self._cursors.get(node, 0)
            answer = (await self._ask(transport, [(node, f"system_stats:{cursor}")], end - loop.time()))[0]
            if answer.ok and answer.document == [] and cursor:
                self._cursors.pop(node, None)
                answer = (await self._ask(transport, [(node, "system_stats:0")], end - loop.time()))[0]
            if not answer.ok:
                return answer
            try:
                sample = _newest(answer.document)
            except MalformedAnswerError as error:
                return NodeAnswer(error=error)
            if sample is not None:
                self._cursors[node] = sample["event_id"]
            return NodeAnswer(sample)

        async def work(transport: Transport) -> list[NodeAnswer]:
            end = asyncio.get_running_loop().time() + self._timeout
            return list(await asyncio.gather(*(one(transport, node, end) for node in nodes)))

        return self._call(work, self._timeout)

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

    def _call(self, work: Any, budget: float) -> list[NodeAnswer]:
        result: list[NodeAnswer] = self._client.call(work, budget + 0.4)
        return result

    async def _ask(self, transport: Transport, asks: Sequence[Ask], budget: float) -> list[NodeAnswer]:
        loop = asyncio.get_running_loop()
        started = loop.time()
        found: dict[Ask, NodeAnswer] = {}
        flights: dict[Ask, asyncio.Task[NodeAnswer]] = {}
        for ask in asks:
            recent = self._recent.get(ask)
            if recent is not None and recent[0] > started:
                found[ask] = recent[1]
            else:
                flights[ask] = self._flight(transport, ask)
        healthy = [task for ask, task in flights.items() if ask[0] not in self._troubled]
        troubled = [task for ask, task in flights.items() if ask[0] in self._troubled]
        if healthy:
            await asyncio.wait(healthy, timeout=max(0.0, budget))
        if troubled:
            left = min(self._patience, budget) - (loop.time() - started)
            await asyncio.wait(troubled, timeout=max(0.0, left))
        for ask, task in flights.items():
            if task.done() and not task.cancelled():
                found[ask] = task.result()
            else:
                error = self._troubled.get(ask[0]) or HungError(f"{ask[0]} did not answer in time")
                found[ask] = NodeAnswer(error=error)
        return [found[ask] for ask in asks]

    def _flight(self, transport: Transport, ask: Ask) -> asyncio.Task[NodeAnswer]:
        def start() -> asyncio.Task[NodeAnswer]:
            return asyncio.get_running_loop().create_task(self._fly(transport, ask), name=f"ask {ask[0]}")

        return self._flights.join(ask, start)[0]

    async def _fly(self, transport: Transport, ask: Ask) -> NodeAnswer:
        loop = asyncio.get_running_loop()
        node, query = ask
        answer = await _monitor(transport, node, query, loop.time() + self._timeout)
        if answer.ok:
            self._troubled.pop(node, None)
        elif answer.error is not None and answer.error.reason not in ("query_failed", "malformed"):
            self._troubled[node] = answer.error
        if self._max_age > 0:
            self._recent[ask] = (loop.time() + self._max_age, answer)
            loop.call_later(self._max_age, self._expire, ask)
        return answer

    def _expire(self, ask: Ask) -> None:
        recent = self._recent.get(ask)
        if recent is not None and recent[0] <= asyncio.get_running_loop().time() + 0.001:
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

"""A transport that answers from memory, with recorded documents."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack

from clio_client.errors import ClientClosedError, HungError, RuntimeClientError
from clio_client.membership import Member
from clio_client.protocol.codec import RuntimeIdentity
from clio_client.transport.interface import Asked, MonitorAnswer, NodeAddress, NodeSession
from clio_exporter.snapshot import NodeSnapshot
from tests.unit import recorded

IDENTITY = RuntimeIdentity(start_ns=1_000_000_000, pid=4711)


@dataclass
class MemoryNode:
    """One runtime. ``answers`` overrides a query: a document, a return code, or an error."""

    version: str = "2.3.2"
    identity: RuntimeIdentity | None = IDENTITY
    answers: dict[str, Any] = field(default_factory=dict)
    samples: list[dict[str, Any]] | None = None
    down: RuntimeClientError | None = None
    gate: threading.Event | None = None
    gated: frozenset[str] | None = None
    asked: list[str] = field(default_factory=list)

    def answer(self, query: str) -> MonitorAnswer:
        if query in self.answers:
            found = self.answers[query]
            if isinstance(found, Exception):
                raise found
            if isinstance(found, int):
                return MonitorAnswer(query, found)
            return MonitorAnswer(query, 0, {0: found if isinstance(found, bytes) else msgpack.packb(found)})
        if query.startswith("system_stats:") and self.samples is not None:
            minimum = int(query.partition(":")[2])
            rows = [row for row in self.samples if row["event_id"] >= minimum]
            return MonitorAnswer(query, 0, {0: msgpack.packb(rows)})
        if query.startswith("system_stats:"):
            name = "system_stats_0"
        else:
            name = query.replace("://", "_").replace(":", "_")
        path = recorded.FIXTURES / self.version / f"{name}.msgpack"
        raw = path.read_bytes() if path.exists() else b""
        return MonitorAnswer(query, 0, {0: raw} if raw else {})

    def count(self, query: str) -> int:
        return sum(asked == query for asked in self.asked)


@dataclass
class MemoryTransport:
    """Implements `Transport` over nodes by host name."""

    nodes: dict[str, MemoryNode]
    retained: frozenset[NodeAddress] | None = None
    closed: bool = False

    def _node(self, address: NodeAddress) -> MemoryNode:
        if self.closed:
            raise ClientClosedError("the client is closed")
        node = self.nodes[address.host]
        if node.down is not None:
            raise node.down
        return node

    async def session(self, node: NodeAddress, deadline: float) -> NodeSession:
        runtime = self._node(node)
        return NodeSession(recorded.generation_of(runtime.version), runtime.identity)

    async def monitor(self, node: NodeAddress, query: str, deadline: float) -> MonitorAnswer:
        runtime = self._node(node)
        runtime.asked.append(query)
        gate = runtime.gate
        if gate is not None and (runtime.gated is None or query in runtime.gated):
            loop = asyncio.get_running_loop()
            while not gate.is_set():
                if loop.time() > deadline or self.closed:
                    raise HungError(f"{node} did not answer {query} in time")
                await asyncio.sleep(0.002)
        return runtime.answer(query)

    async def monitor_all(
        self, node: NodeAddress, asked: Sequence[Asked], deadline: float, *, head_start: float = 0.0
    ) -> None:
        async def one(each: Asked) -> None:
            query, answered = each
            answer: MonitorAnswer | Exception
            try:
                answer = await self.monitor(node, query, deadline)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this question's
                answer = error
            answered(answer)

        tasks = [asyncio.ensure_future(one(each)) for each in asked[:1]]
        try:
            if head_start:
                await asyncio.wait(tasks, timeout=head_start)
            tasks += [asyncio.ensure_future(one(each)) for each in asked[1:]]
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    def retain(self, nodes: frozenset[NodeAddress]) -> None:
        self.retained = nodes

    def counters(self) -> Mapping[str, int]:
        return {"requests_sent": sum(len(n.asked) for n in self.nodes.values())}

    async def close(self) -> None:
        self.closed = True


LABELS = 'node_id="0",hostname="n0"'


def member(host: str = "n0", index: int = 0) -> Member:
    return Member("", index, host, NodeAddress(host, 9413, index))


def session_of(version: str) -> NodeSession:
    return NodeSession(recorded.generation_of(version), IDENTITY)


def snapshot(version: str = "2.3.2") -> NodeSnapshot:
    return NodeSnapshot(member(), session=session_of(version), heard=True, duration=0.25)


__all__ = ["LABELS", "MemoryNode", "MemoryTransport", "member", "session_of", "snapshot"]

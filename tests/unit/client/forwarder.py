"""Another address of a runtime: a TCP port whose connections are passed on, as by a NAT or a tunnel."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from types import TracebackType

from clio_client.transport.interface import CLIENT_PORT_OFFSET, NodeAddress


class Forwarder:
    """Listens on a free port of 127.0.0.1 for connections to a node's client port. A context manager."""

    def __init__(self, node: NodeAddress) -> None:
        self._to = (node.host, node.client_port)
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self._port: int = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, name="test-forwarder")
        self._thread.start()

    def node(self, index: int) -> NodeAddress:
        """The node under this address and number."""
        return NodeAddress("127.0.0.1", self._port - CLIENT_PORT_OFFSET, index)

    def __enter__(self) -> Forwarder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                far_reader, far_writer = await asyncio.open_connection(*self._to)
                try:
                    await asyncio.wait(
                        [
                            asyncio.ensure_future(_copy(reader, far_writer)),
                            asyncio.ensure_future(_copy(far_reader, writer)),
                        ]
                    )
                finally:
                    far_writer.close()
        finally:
            writer.close()
            self._tasks.discard(task)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()

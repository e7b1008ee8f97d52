"""The other transport: the runtime's compiled Python binding, where a user's build has it.

The module is called ``clio_runtime_ext`` (``chimaera_runtime_ext`` before 2.2). Its C++ layer is not
thread-safe, so one worker thread makes all calls, one after the other; it reads the runtime's own
configuration, connects to the local runtime and reaches other nodes through it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib
import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, Final

from clio_client.errors import (
    ClientClosedError,
    HungError,
    MalformedAnswerError,
    RefusedError,
    RuntimeClientError,
    TransportUnavailableError,
)
from clio_client.transport.interface import Asked, MonitorAnswer, NodeAddress, NodeSession, host_info

MODULES: Final = (("clio_runtime_ext", "clio"), ("chimaera_runtime_ext", "chimaera"))
"""Module names in order of preference, with the prefix of their init and finalize functions."""

_CLIENT_MODE: Final = 0
_CLOSE_SECONDS: Final = 5.0
_HANG_FACTOR: Final = 2.0
"""A call that outlives its own bound by this factor shows that the binding hangs."""

# Without these the C++ client retries a dead runtime for a minute before it says so.
_ENVIRONMENT: Final = {
    "CLIO_CLIENT_RETRY_TIMEOUT": "0",
    "CLIO_CLIENT_TRY_NEW_SERVERS": "16",
    "CHI_CLIENT_RETRY_TIMEOUT": "0",
    "CHI_CLIENT_TRY_NEW_SERVERS": "16",
}


class BindingTransport:
    """Asks nodes through the compiled binding. Create it and call it on one event loop only."""

    def __init__(self) -> None:
        """Import the binding; it connects when first asked.

        Raises:
            TransportUnavailableError: no binding can be imported.
        """
        self._loop = asyncio.get_running_loop()
        self._module, self._prefix = import_binding()
        self._worker = _Worker()
        self._turn = asyncio.Lock()
        self._asking: set[asyncio.Task[Any] | None] = set()
        self._counters: Counter[str] = Counter()
        self._connected = False
        self._closed = False

    async def session(self, node: NodeAddress, deadline: float) -> NodeSession:
        """Ask for the node's host; the binding hides the generation and the runtime's identity."""
        answer = await self.monitor(node, "get_host_info", deadline)
        said = host_info(answer)
        return NodeSession(None, None, said.node_id, said.hostname)

    async def monitor(self, node: NodeAddress, query: str, deadline: float) -> MonitorAnswer:
        """Ask one query of one node."""
        if self._closed:
            raise ClientClosedError("the client is closed")
        asking = asyncio.current_task()
        self._asking.add(asking)
        try:
            return await self._monitor(node, query, deadline)
        except asyncio.CancelledError:
            if self._closed:
                raise ClientClosedError("the client was closed") from None
            raise
        finally:
            self._asking.discard(asking)

    async def monitor_all(
        self,
        node: NodeAddress,
        asked: Sequence[Asked],
        deadline: float,
        *,
        head_start: float = 0.0,  # noqa: ARG002 - every question is alone here
    ) -> None:
        """Ask several queries of one node, one by one: the binding can do no other."""
        for query, answered in asked:
            answer: MonitorAnswer | Exception
            try:
                answer = await self.monitor(node, query, deadline)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this question's
                answer = error
            answered(answer)

    async def _monitor(self, node: NodeAddress, query: str, deadline: float) -> MonitorAnswer:
        if node.index < 0:
            # Any other number would be answered by another node.
            raise TransportUnavailableError(
                f"{node} has no number in the cluster, which the binding routes by; "
                "use --runtime.transport=zmq"
            )
        routing = f"physical:{node.index}"
        try:
            await asyncio.wait_for(self._turn.acquire(), deadline - self._loop.time())
        except (asyncio.TimeoutError, TimeoutError):
            raise HungError(f"{node}: the binding was busy with other nodes until the deadline") from None
        if self._closed:
            self._turn.release()
            raise ClientClosedError("the client was closed")
        call = self._run(self._call, routing, query, deadline - self._loop.time())
        # The turn ends with the call, not with our waiting: the C++ layer must never be entered twice.
        call.add_done_callback(lambda _: self._turn.release())
        call.add_done_callback(_consume)
        try:
            return_code, results = await asyncio.wait_for(asyncio.shield(call), deadline - self._loop.time())
        except (asyncio.TimeoutError, TimeoutError):
            raise HungError(f"{node} did not answer {query} in time") from None
        self._counters["answers_received"] += 1
        return MonitorAnswer(query, return_code, results)

    def retain(self, nodes: frozenset[NodeAddress]) -> None:
        """Nothing to do: the binding has no connection of its own for a node."""

    def counters(self) -> Mapping[str, int]:
        """Requests, answers and connections, in total."""
        return {**dict(self._counters), "connections_open": int(self._connected)}

    async def close(self) -> None:
        """End pending calls with `ClientClosedError`; one that hangs is left behind after five seconds."""
        if self._closed:
            return
        self._closed = True
        for task in tuple(self._asking):
            if task is not None:
                task.cancel()
        finalize = self._run(self._finalize)
        self._worker.stop()
        await asyncio.wait((finalize,), timeout=_CLOSE_SECONDS)
        finalize.add_done_callback(_consume)

    def _run(self, function: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        return asyncio.wrap_future(self._worker.submit(function, *arguments), loop=self._loop)

    # --- on the worker thread ---------------------------------------------------------------------

    def _call(self, routing: str, query: str, seconds: float) -> tuple[int, dict[int, bytes]]:
        if seconds <= 0:
            raise HungError(f"no time left to ask {query}")
        try:
            return self._ask(routing, query, seconds)
        except RuntimeClientError:
            raise
        except Exception as error:
            # Whatever the C++ layer throws is this node's trouble, not the scrape's.
            raise RuntimeClientError(f"{routing}: the binding failed on {query}: {error!r}") from error

    def _ask(self, routing: str, query: str, seconds: float) -> tuple[int, dict[int, bytes]]:
        self._connect()
        self._counters["requests_sent"] += 1
        started = time.monotonic()
        task = self._module.async_monitor(routing, query)
        results = task.wait(seconds)
        if not task.is_complete():
            # An empty map may be an answer without results, or a time-out: only the task knows.
            self._reconnect_after(time.monotonic() - started, seconds)
            raise HungError(f"{routing} did not answer {query} in time")
        return int(task.get_return_code()), _checked(results, query)

    def _connect(self) -> None:
        if self._connected:
            return
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        if not getattr(self._module, f"{self._prefix}_init")(_CLIENT_MODE):
            raise RefusedError("the binding cannot connect to the local runtime: it is not running")
        self._counters["connections_opened"] += 1
        self._connected = True

    def _reconnect_after(self, waited: float, seconds: float) -> None:
        # The binding came back before its time was up: the runtime is gone, not slow.
        if waited < seconds / _HANG_FACTOR:
            self._finalize()

    def _finalize(self) -> None:
        if self._connected:
            self._connected = False
            self._counters["connections_closed"] += 1
            getattr(self._module, f"{self._prefix}_finalize")()


class _Worker:
    """A thread that makes calls one after the other.

    It is a daemon, unlike the threads of the standard library's executors: the interpreter does not
    wait at its end for a call that never returns.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[
            tuple[concurrent.futures.Future[Any], Callable[..., Any], tuple[Any, ...]] | None
        ] = queue.SimpleQueue()
        threading.Thread(target=self._serve, name="clio-binding", daemon=True).start()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> concurrent.futures.Future[Any]:
        """Call the function on the thread, after all that were submitted before."""
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._jobs.put((future, function, arguments))
        return future

    def stop(self) -> None:
        """End the thread after what has been submitted; does not wait."""
        self._jobs.put(None)

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, function, arguments = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(function(*arguments))
            except BaseException as error:  # noqa: BLE001 - whoever waits for the call gets it
                future.set_exception(error)


def import_binding() -> tuple[ModuleType, str]:
    """The binding's module and the prefix of its init and finalize functions.

    Raises:
        TransportUnavailableError: no build of it is installed.
    """
    for name, prefix in MODULES:
        try:
            return importlib.import_module(name), prefix
        except ImportError:
            continue
    names = " nor ".join(name for name, _ in MODULES)
    raise TransportUnavailableError(
        f"neither {names} can be imported: the released wheels do not contain it. "
        "Use --runtime.transport=zmq, or a build of the runtime with Python bindings"
    )


def _checked(results: Any, query: str) -> dict[int, bytes]:
    if not isinstance(results, Mapping):
        raise MalformedAnswerError(f"{query}: the binding returned {type(results).__name__}, not a map")
    documents = {}
    for container, document in results.items():
        if not isinstance(container, int) or not isinstance(document, (bytes, bytearray)):
            raise MalformedAnswerError(
                f"{query}: the binding returned something else than bytes by container"
            )
        documents[container] = bytes(document)
    return documents


def _consume(call: asyncio.Future[Any]) -> None:
    """Take the outcome of a call nobody waits for any more, so that it is not reported as lost."""
    if not call.cancelled():
        call.exception()

"""The binding transport against a module with the binding's functions that replays recordings."""

from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clio_client.errors import (
    ClientClosedError,
    HungError,
    MalformedAnswerError,
    QueryFailedError,
    RefusedError,
    RuntimeClientError,
    TransportUnavailableError,
)
from clio_client.transport import binding as binding_transport
from clio_client.transport.binding import BindingTransport, import_binding
from clio_client.transport.interface import MonitorAnswer, NodeAddress, NodeSession, Transport
from tests.paths import ROOT
from tests.unit import recorded
from tests.unit.client.asking import RuntimeClient
from tests.unit.client.binding import replay
from tests.unit.client.binding.replay import Runtime

HERE = Path(__file__).parent / "binding"
LONG = 15.0
NODE = NodeAddress("n3", index=3)


MODULES = ("clio_runtime_ext", "chimaera_runtime_ext")


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    for name in MODULES:
        sys.modules.pop(name, None)
    for name in binding_transport._ENVIRONMENT:
        # Set first, so that what the transport sets is taken back.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    fresh = Runtime()
    monkeypatch.setattr(replay, "runtime", fresh)
    yield fresh
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture(params=["clio", "chimaera"])
def client(
    request: pytest.FixtureRequest, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RuntimeClient]:
    monkeypatch.syspath_prepend(str(HERE / request.param))
    client = RuntimeClient(BindingTransport)
    yield client
    if runtime.gate is not None:
        runtime.gate.set()
    client.close()
    deadline = time.monotonic() + LONG
    while any(t.name.startswith("clio-") for t in threading.enumerate()):
        assert time.monotonic() < deadline, "a thread was left behind"


def test_a_target_without_number_is_refused_instead_of_asking_another_node(
    client: RuntimeClient, runtime: Runtime
) -> None:
    with pytest.raises(TransportUnavailableError, match=r"other:9413 has no number.*transport=zmq"):
        client.monitor(NodeAddress("other", index=-1), "worker_stats", LONG)
    assert runtime.inits == 0


def test_the_binding_is_imported_and_connected_when_first_needed(
    client: RuntimeClient, runtime: Runtime
) -> None:
    assert not {"clio_runtime_ext", "chimaera_runtime_ext"} & set(sys.modules)
    assert runtime.inits == 0
    client.monitor(NODE, "worker_stats", LONG)
    client.monitor(NODE, "worker_stats", LONG)
    assert runtime.inits == 1
    assert client.counters() == {
        "requests_sent": 2, "answers_received": 2, "connections_opened": 1, "connections_open": 1,
    }  # fmt: skip


def test_documents_are_those_of_the_binding(client: RuntimeClient, runtime: Runtime) -> None:
    for query, name in (
        ("worker_stats", "worker_stats"),
        ("system_stats:0", "system_stats_0"),
        ("container_stats", "container_stats"),
        ("pool_stats://301.0:local:stats", "pool_stats_301.0_local_stats"),
    ):
        assert client.monitor(NODE, query, LONG) == {0: recorded.decoded("2.3.2", name)}
    assert client.monitor(NODE, "nonsense", LONG) == {}
    assert {routing for routing, _ in runtime.calls} == {"physical:3"}


def test_questions_that_are_asked_together_are_told_one_by_one(
    client: RuntimeClient, runtime: Runtime
) -> None:
    told: dict[str, MonitorAnswer | Exception] = {}

    async def ask(transport: Transport) -> None:
        deadline = asyncio.get_running_loop().time() + LONG
        asked = [(query, functools.partial(told.__setitem__, query)) for query in ("worker_stats", "broken")]
        await transport.monitor_all(NODE, asked, deadline, head_start=1.0)

    client.call(ask, LONG)
    answer = told["worker_stats"]
    assert isinstance(answer, MonitorAnswer)
    assert answer.sole()
    assert list(told) == ["worker_stats", "broken"]
    assert [query for _, query in runtime.calls] == ["worker_stats", "broken"]


def test_a_session_tells_what_the_node_calls_itself(client: RuntimeClient, runtime: Runtime) -> None:
    assert _session(client) == NodeSession(None, None, 0, "0.0.0.0")
    assert runtime.calls == [("physical:3", "get_host_info")]


def _session(client: RuntimeClient) -> NodeSession:

    async def ask(transport: Transport) -> NodeSession:
        return await transport.session(NODE, asyncio.get_running_loop().time() + LONG)

    return client.call(ask, LONG)


def test_calls_are_made_one_after_the_other_on_one_thread(client: RuntimeClient, runtime: Runtime) -> None:
    nodes = [NodeAddress(f"n{i}", index=i) for i in range(20)]
    threads = [
        threading.Thread(target=client.monitor_many, args=([(n, "worker_stats") for n in nodes], LONG))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert len(runtime.calls) == 80
    assert runtime.concurrent == 1
    assert len(runtime.threads) == 1
    assert threading.get_ident() not in runtime.threads


def test_a_return_code_is_an_error(client: RuntimeClient, runtime: Runtime) -> None:
    runtime.return_code = 3
    with pytest.raises(QueryFailedError) as caught:
        client.monitor(NODE, "worker_stats", LONG)
    assert caught.value.return_code == 3


def test_a_call_that_hangs_ends_at_its_deadline_and_is_never_entered_twice(
    client: RuntimeClient, runtime: Runtime
) -> None:
    client.monitor(NODE, "worker_stats", LONG)
    runtime.gate = threading.Event()
    with pytest.raises(HungError, match="did not answer"):
        client.monitor(NODE, "worker_stats", 0.2)
    with pytest.raises(HungError, match="busy with other nodes"):
        client.monitor(NODE, "worker_stats", 0.2)
    assert len(runtime.calls) == 2
    runtime.gate.set()
    assert client.monitor(NODE, "worker_stats", LONG)
    assert runtime.concurrent == 1


def test_a_runtime_that_is_not_running_is_refused(client: RuntimeClient, runtime: Runtime) -> None:
    runtime.running = False
    for _ in range(2):
        with pytest.raises(RefusedError, match="not running"):
            client.monitor(NODE, "worker_stats", LONG)
    runtime.running = True
    assert client.monitor(NODE, "worker_stats", LONG)


def test_a_runtime_that_died_is_connected_to_again(client: RuntimeClient, runtime: Runtime) -> None:
    client.monitor(NODE, "worker_stats", LONG)
    runtime.running = False
    with pytest.raises(HungError):
        client.monitor(NODE, "worker_stats", LONG)
    assert runtime.finalizes == 1
    with pytest.raises(RefusedError):
        client.monitor(NODE, "worker_stats", LONG)
    assert client.counters()["connections_open"] == 0
    runtime.running = True
    assert client.monitor(NODE, "worker_stats", LONG)
    assert (runtime.inits, runtime.finalizes) == (3, 1)


def test_close_finalizes_once_and_refuses_more(client: RuntimeClient, runtime: Runtime) -> None:
    client.monitor(NODE, "worker_stats", LONG)
    client.close()
    client.close()
    assert runtime.finalizes == 1
    with pytest.raises(ClientClosedError):
        client.monitor(NODE, "worker_stats", LONG)


def test_close_without_a_connection_finalizes_nothing(client: RuntimeClient, runtime: Runtime) -> None:
    runtime.running = False
    with pytest.raises(RefusedError):
        client.monitor(NODE, "worker_stats", LONG)
    client.close()
    assert runtime.finalizes == 0


def test_who_waits_for_a_turn_when_the_client_is_closed_does_not_connect_again(
    client: RuntimeClient, runtime: Runtime
) -> None:
    client.monitor(NODE, "worker_stats", LONG)
    runtime.gate = threading.Event()
    runtime.entered.clear()
    outcomes: list[object] = []

    def ask() -> None:
        outcomes.extend(client.monitor_many([(NODE, "worker_stats")] * 3, LONG))

    asking = threading.Thread(target=ask)
    asking.start()
    assert runtime.entered.wait(LONG)
    closing = threading.Thread(target=client.close)
    closing.start()
    time.sleep(0.1)  # so that close has asked for the finalize
    runtime.gate.set()
    closing.join(LONG)
    asking.join(LONG)
    assert not runtime.initialized
    assert runtime.finalizes == 1
    assert len(runtime.calls) == 2
    assert [type(outcome) for outcome in outcomes] == [ClientClosedError] * 3


def test_close_leaves_a_call_that_hangs_behind(
    client: RuntimeClient, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binding_transport, "_CLOSE_SECONDS", 0.2)
    runtime.gate = threading.Event()
    with pytest.raises(HungError):
        client.monitor(NODE, "worker_stats", 0.2)
    started = time.monotonic()
    client.close()
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("answers", [[b"x"], {0: "text"}, {"0": b"x"}, 7])
def test_what_is_no_map_of_bytes_is_malformed(
    client: RuntimeClient, runtime: Runtime, answers: object
) -> None:
    runtime.answers = answers
    with pytest.raises(MalformedAnswerError, match="worker_stats: the binding returned"):
        client.monitor(NODE, "worker_stats", LONG)


def test_the_newer_name_is_preferred(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE / "clio"))
    monkeypatch.syspath_prepend(str(HERE / "chimaera"))
    module, prefix = import_binding()
    assert (module.__name__, prefix) == ("clio_runtime_ext", "clio")


def test_without_a_binding_the_remedy_is_named(runtime: Runtime) -> None:
    client = RuntimeClient(BindingTransport)
    for _ in range(2):
        with pytest.raises(TransportUnavailableError, match=r"--runtime\.transport=zmq"):
            client.monitor(NODE, "worker_stats", LONG)
    client.close()


_HANG = """
import sys, threading
sys.path.insert(0, sys.argv[1])
from clio_client.transport.binding import BindingTransport
from clio_client.transport import binding as binding_transport
from tests.unit.client.asking import RuntimeClient
from clio_client.errors import HungError
from clio_client.transport.interface import NodeAddress
from tests.unit.client.binding import replay
binding_transport._CLOSE_SECONDS = 0.2
replay.runtime.gate = threading.Event()
client = RuntimeClient(BindingTransport)
try:
    client.monitor(NodeAddress("n0"), "worker_stats", 0.5)
except HungError:
    client.close()
    print("closed", flush=True)
"""


def test_the_process_ends_though_a_call_hangs() -> None:
    # The hanging call would be given up after 30 s.
    root = ROOT
    done = subprocess.run(
        [sys.executable, "-c", _HANG, str(HERE / "clio")],
        cwd=root, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "closed\n"), done.stderr


def test_errors_of_the_binding_itself_are_documented_errors(client: RuntimeClient, runtime: Runtime) -> None:
    # As pybind11 turns a C++ exception into one of Python's.
    runtime.failure = RuntimeError("std::bad_alloc")
    with pytest.raises(RuntimeClientError, match="std::bad_alloc"):
        client.monitor(NODE, "worker_stats", LONG)
    runtime.failure = None
    assert client.monitor(NODE, "worker_stats", LONG)

"""All faults of nodes at the same time: what is exported of each, and that the healthy ones lose nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from clio_client.address import CLIENT_PORT_OFFSET
from clio_lab.simulator.process import SimulatorProcess
from tests.exporter_process import Scrape
from tests.faults.conftest import (
    DEADLINE,
    GENEROUS,
    NODE_SECONDS,
    WORKERS,
    MakeExporter,
    is_gone,
    is_whole,
    reasons,
    summary,
)
from tests.faults.matrix import FAULTS, Fault, table
from tests.paths import ROOT
from tests.ports import free_port

SIMULATED = 13  # nodes 0 to 12; 13 to 16 are the others
HEALTHY = (0, 1)
SLOW_NAME = "slow.name-service.invalid"
HERE = [fault for fault in FAULTS if fault.node is not None]


@contextlib.contextmanager
def black_hole() -> Iterator[str]:
    """A node whose packets nobody answers: a full backlog, for which the kernel drops connections."""
    with contextlib.ExitStack() as stack:
        port = free_port()
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", port + CLIENT_PORT_OFFSET))
        listener.listen(0)
        for _ in range(4):
            pending = stack.enter_context(socket.socket())
            pending.setblocking(False)
            pending.connect_ex(listener.getsockname())
        yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def stopped_node() -> Iterator[str]:
    """A runtime whose process is stopped."""
    port = free_port()
    with SimulatorProcess("--nodes", "1", "--base-port", str(port), "--address", "127.96.3.1") as process:
        os.kill(process.pid, signal.SIGSTOP)
        try:
            yield f"127.96.3.1:{port}"
        finally:
            os.kill(process.pid, signal.SIGCONT)


@contextlib.contextmanager
def lavish_node() -> Iterator[str]:
    """A runtime whose answers are too large, in a process of its own, which they keep busy."""
    (fault,) = (fault.makes for fault in HERE if fault.makes.startswith("huge"))
    port = free_port()
    options = ("--nodes", "1", "--base-port", str(port), "--address", "127.96.4.1", "--fault", f"0={fault}")
    with SimulatorProcess(*options):
        yield f"127.96.4.1:{port}"


@contextlib.contextmanager
def slow_name_service() -> Iterator[str]:
    """A name whose look-up does not end inside the block."""
    ended, known = threading.Event(), socket.getaddrinfo

    def look_up(host: Any, *arguments: Any, **options: Any) -> Any:
        if host == SLOW_NAME:
            assert ended.wait(600)
            raise socket.gaierror(socket.EAI_NONAME, "not known")
        return known(host, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", look_up)
        try:
            yield f"{SLOW_NAME}:9413"
        finally:
            ended.set()


@dataclass(frozen=True)
class Observed:
    """The scrape in which every fault is seen, and how it came to it."""

    scrape: Scrape
    seconds: list[float]
    log: str
    counters: dict[str, int]


def is_as_it_should_be(scrape: Scrape, fault: Fault) -> bool:
    assert fault.node is not None
    if not fault.reasons:
        return is_whole(scrape, fault.node)
    return reasons(scrape).get(str(fault.node)) in fault.reasons and is_gone(scrape, fault.node)


OTHERS = (black_hole, stopped_node, slow_name_service, lavish_node)


@pytest.fixture(scope="module")
def observed(make_exporter: MakeExporter) -> Iterator[Observed]:
    port = free_port()
    options = ["--nodes", str(SIMULATED), "--base-port", str(port), "--address", "127.96.2.1"]
    options += ["--workers", str(WORKERS), "--bdevs", "1", "--age", "100"]
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(SimulatorProcess(*options))
        others = [stack.enter_context(make()) for make in OTHERS]
        nodes = [f"127.96.2.{i + 1}:{port}" for i in range(SIMULATED)] + others
        exporter = make_exporter(nodes=nodes)
        # Those that have a fault had none before, but for what is no simulated node.
        exporter.scrape_until("all are up", lambda s: all(is_whole(s, i) for i in range(SIMULATED)))
        for fault in HERE:
            if fault.makes and fault.node in range(SIMULATED):
                process.set_fault(fault.node, fault.makes)
        before = len(exporter.seconds)
        scrape = exporter.scrape_until(
            "every fault and every healthy node",
            lambda s: (
                all(is_as_it_should_be(s, fault) for fault in HERE)
                and all(is_whole(s, node) for node in HEALTHY)
            ),
        )
        counters = exporter.engine._state.client.counters()
        yield Observed(scrape, exporter.seconds[before:], exporter.log, dict(counters))
        # The engine is closed last, when the look-up of the name has ended, for which its thread waits.
        assert process.stats()["violations"] == {}


@pytest.mark.parametrize("fault", HERE, ids=lambda fault: fault.name)
def test_what_is_exported(observed: Observed, fault: Fault) -> None:
    assert is_as_it_should_be(observed.scrape, fault), summary(observed.scrape)


@pytest.mark.parametrize("node", HEALTHY)
def test_healthy_nodes_lose_nothing(observed: Observed, node: int) -> None:
    assert is_whole(observed.scrape, node)
    assert (
        observed.scrape.value("clio_node_probe_duration_seconds", node_id=str(node)) < GENEROUS * NODE_SECONDS
    )


def test_scrapes_end_when_the_slowest_node_has_had_its_time(observed: Observed) -> None:
    """Not later, though ten nodes would never answer; the scrape itself had more time."""
    assert min(observed.seconds) < GENEROUS * NODE_SECONDS < GENEROUS * DEADLINE
    durations = observed.scrape.by("collector", "clio_collector_duration_seconds")
    assert max(durations.values()) < GENEROUS * NODE_SECONDS


def test_answers_that_nobody_asked_for_are_counted_and_dropped(observed: Observed) -> None:
    assert observed.counters["answers_unexpected"] >= 2  # one twice, one of somebody else
    assert observed.scrape.value("clio_node_up", node_id="10") == 1


def test_the_log_has_every_node_that_is_down(observed: Observed) -> None:
    lines = [line for line in observed.log.splitlines() if "node is down" in line]
    for fault in HERE:
        if fault.reasons:
            assert [line for line in lines if f"node_id={fault.node} " in line], fault.name
    assert "Traceback" not in observed.log


def test_the_document_has_the_table() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert "\n".join(table()) in text


def test_every_row_names_a_test_that_is_there() -> None:
    for fault in FAULTS:
        path, _, name = fault.test.partition("::")
        assert f"def {name}(" in (ROOT / "tests" / path).read_text(encoding="utf-8"), fault.name

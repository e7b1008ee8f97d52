"""The real engine and the real transport, in this process, over simulated nodes."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from clio_exporter.engine import Engine
from clio_exporter.settings import Settings
from clio_web import logs
from tests.exporter_process import Scrape
from tests.ports import free_port

WORKERS = 2
NODE_SECONDS = 4.0
"""A healthy node answers in a tenth of a second; a machine that is busy may take its time."""

DEADLINE = 20.0
"""Of a scrape: more than a node has, so that what a scrape waits for are its nodes."""

GENEROUS = 3.0
"""How many times a deadline a starved machine may take; the fault itself has no end."""

PATIENCE = 90.0
"""Seconds after which what was to be seen must have been seen."""


@dataclass
class Exporter:
    """An engine and what it logs."""

    engine: Engine
    stream: io.StringIO
    seconds: list[float] = field(default_factory=list)

    def scrape(self, deadline: float = DEADLINE) -> Scrape:
        """One scrape, which ends by its deadline."""
        started = time.monotonic()
        result = self.engine.scrape(None, deadline)
        text = b"".join(result.render(openmetrics=False)).decode()
        self.seconds.append(time.monotonic() - started)
        assert self.seconds[-1] < GENEROUS * deadline
        return Scrape(text)

    def scrape_until(self, what: str, accept: Callable[[Scrape], bool]) -> Scrape:
        """The first scrape that is as it should be."""
        end = time.monotonic() + PATIENCE
        while not accept(found := self.scrape()):
            problem = f"not within {PATIENCE} s: {what}; the last:\n{summary(found)}\n{self.log}"
            assert time.monotonic() < end, problem
            time.sleep(0.1)  # a node takes a sample a second
        return found

    @property
    def log(self) -> str:
        return self.stream.getvalue()


def is_whole(scrape: Scrape, node_id: int) -> bool:
    """Whether all that a simulated node reports is there."""
    node = str(node_id)
    return (
        scrape.by("node_id", "clio_node_up").get(node) == 1
        and len(scrape.series("clio_worker_running", node_id=node)) == WORKERS
        and bool(scrape.series("clio_bdev_capacity_bytes", node_id=node))
        and bool(scrape.series("clio_node_cpu_utilization_ratio", node_id=node))
        and bool(scrape.series("clio_pool_info", node_id=node))
    )


def is_gone(scrape: Scrape, node_id: int) -> bool:
    """Whether nothing but its absence is told of a node."""
    allowed = {"clio_node_up", "clio_node_down_info", "clio_node_info", "clio_node_probe_duration_seconds"}
    return scrape.names_of(node_id=str(node_id)) <= allowed


def reasons(scrape: Scrape) -> dict[str, str]:
    """Reason by node id, of the nodes that are down."""
    return {labels["node_id"]: labels["reason"] for labels, _ in scrape.series("clio_node_down_info")}


def summary(scrape: Scrape) -> str:
    """What a failed test needs to be understood."""
    return "\n".join(line for line in scrape.text.splitlines() if line.startswith("clio_node_up{")) + (
        f"\n{reasons(scrape)}"
    )


MakeExporter = Callable[..., Exporter]


@pytest.fixture(scope="module")
def make_exporter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeExporter]:
    """Makes engines with reply ports and a home of their own."""
    made: list[Exporter] = []

    def make(**flags: object) -> Exporter:
        home: Path = tmp_path_factory.mktemp("home")
        given = {"reply_port": free_port(1), "timeout_seconds": NODE_SECONDS, **flags}
        stream = io.StringIO()
        logs.configure("info", "logfmt", stream)
        engine = Engine(lambda: Settings().with_overrides(**given), {}, home)
        made.append(Exporter(engine, stream))
        return made[-1]

    yield make
    for exporter in made:
        exporter.engine.close()

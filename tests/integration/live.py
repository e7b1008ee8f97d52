"""The exporter process with what tests on live nodes ask of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from tests.exporter_process import ExporterProcess, Scrape, free_port

Labels = frozenset[tuple[str, str]]
Series = tuple[str, Labels]

__all__ = ["Deadline", "Exporter", "Labels", "NodeScrape", "Series", "free_port"]


class NodeScrape(Scrape):
    """A scrape as one mapping from (name, labels) to value."""

    def __init__(self, text: str, seconds: float = 0.0) -> None:
        super().__init__(text, seconds)
        self.samples: dict[Series, float] = {
            (name, labels): value
            for name, series in self._samples.items()
            for labels, value in series.items()
        }

    def of_node(self, index: int) -> dict[Series, float]:
        """Every sample with this `node_id`."""
        label = ("node_id", str(index))
        return {series: value for series, value in self.samples.items() if label in series[1]}

    def totals(self, name: str) -> dict[int, float]:
        """Sum of a metric by node."""
        sums: dict[int, float] = {}
        for labels, value in self.series(name):
            node = int(labels["node_id"])
            sums[node] = sums.get(node, 0) + value
        return sums

    def up(self, index: int) -> bool:
        return self.value("clio_node_up", node_id=str(index)) == 1

    def reason(self, index: int) -> str | None:
        """Why the node is down, None when it is up."""
        found = self.series("clio_node_down_info", node_id=str(index))
        assert len(found) <= 1, found
        return found[0][0]["reason"] if found else None


class Exporter(ExporterProcess):
    """Scrapes with a timeout, as Prometheus does, and fails on an answer that is later."""

    def __init__(self, directory: Path, *arguments: str, reply_port: int | None = None) -> None:
        super().__init__(directory, *arguments, reply_port=reply_port)

    def take(self, timeout: float = 5.0, path: str = "/metrics") -> NodeScrape:
        plain = self.scrape(path, timeout)
        assert plain.seconds < timeout, f"a scrape took {plain.seconds:.2f} s of {timeout} s"
        return NodeScrape(plain.text, plain.seconds)

    def takes(self, seconds: float, *, timeout: float = 5.0, pause: float = 0.25) -> Iterator[NodeScrape]:
        """Scrape each `pause` seconds for `seconds`, at least twice; at once when that is too short."""
        end = Deadline(seconds)
        count = 0
        while count < 2 or not end.over:
            next_one = Deadline(pause)
            yield self.take(timeout)
            count += 1
            self.idle(next_one.left)

    def idle(self, seconds: float) -> None:
        """Let time pass; fails at once when the exporter ends."""
        code = self._child.wait(seconds)
        assert code is None, f"the exporter ended with {code}:\n{self.log}"


class Deadline:
    """A bound for waiting."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    @property
    def over(self) -> bool:
        return time.monotonic() >= self._at

    @property
    def left(self) -> float:
        return max(0.0, self._at - time.monotonic())

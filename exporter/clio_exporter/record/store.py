"""Samples of many nodes on disk, each once, and as text in an order that the formats ask for."""

from __future__ import annotations

import csv
import io
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from clio_client import SystemSample
from clio_exporter.collectors.node import GPU_SAMPLE, SAMPLE
from clio_exporter.exposition import format_value, label_text

FAMILIES: Final = (*SAMPLE.families, *GPU_SAMPLE.families)
"""What is recorded, under the names of the live series."""

Labels = Mapping[str, str]
Row = tuple[int, Sequence["str | None"], Sequence["float | None"]]


class Store:
    """Owns a temporary file, which goes with `close`. For one thread."""

    def __init__(self) -> None:
        self._nodes: dict[int, Labels] = {}
        self._numbers: dict[tuple[tuple[str, str], ...], int] = {}
        self._database = sqlite3.connect(
            ""
        )  # sqlite's own temporary file: a day of a thousand nodes is large
        columns = ", ".join(f"f{index}" for index in range(len(FAMILIES)))
        self._database.execute(
            f"CREATE TABLE sample (node, at, {columns}, PRIMARY KEY (node, at)) WITHOUT ROWID"
        )
        marks = ", ".join("?" * (len(FAMILIES) + 2))
        self._insert = f"INSERT OR IGNORE INTO sample VALUES ({marks})"  # noqa: S608 - marks alone

    def add(self, labels: Labels, samples: Iterable[SystemSample]) -> None:
        """Keep samples of the node with these labels; those without a time are not."""
        key = tuple(labels.items())
        node = self._numbers.setdefault(key, len(self._numbers))
        self._nodes[node] = labels
        self._database.executemany(
            self._insert,
            ((node, s.wall_time_ns // 1_000_000, *values(s)) for s in samples if s.wall_time_ns is not None),
        )
        self._database.commit()

    def __len__(self) -> int:
        return int(self._database.execute("SELECT count(*) FROM sample").fetchone()[0])

    def openmetrics(self) -> Iterator[str]:
        """OpenMetrics with timestamps: family by family, node by node, in order of time."""
        for index, family in enumerate(FAMILIES):
            begun = False
            rows = self._database.execute(
                f"SELECT node, at, f{index} FROM sample WHERE f{index} IS NOT NULL ORDER BY node, at"  # noqa: S608
            )
            for node, at, value in rows:
                if not begun:
                    yield family.header(openmetrics=True)
                    begun = True
                labels = label_text(self._nodes[node])
                yield f"{family.name}{{{labels}}} {format_value(value)} {at / 1000:.3f}\n"
        yield "# EOF\n"

    def csv(self) -> Iterator[str]:
        """A line a sample, in order of time; a field is empty where the node did not tell."""
        yield _line(["timestamp", *self.label_names(), *(family.name for family in FAMILIES)])
        for at, labels, values in self.rows():
            told = ["" if value is None else format_value(value) for value in values]
            yield _line([f"{at / 1000:.3f}", *(text or "" for text in labels), *told])

    def label_names(self) -> list[str]:
        """Names of all labels of any node."""
        return list(dict.fromkeys(name for labels in self._nodes.values() for name in labels))

    def rows(self) -> Iterator[Row]:
        """The samples in order of time: Unix time in ms, values of `label_names`, values of `FAMILIES`."""
        names = self.label_names()
        told = {node: [labels.get(name) for name in names] for node, labels in self._nodes.items()}
        for node, at, *values in self._database.execute("SELECT * FROM sample ORDER BY at, node"):
            yield at, told[node], values

    def close(self) -> None:
        """Remove the temporary file."""
        self._database.close()


def values(sample: SystemSample) -> list[float | None]:
    """Of `FAMILIES`; None where there is none."""
    # As in a scrape: a node without GPU has no series of them.
    gpu = GPU_SAMPLE.values(sample) if sample.gpu_count else [None] * len(GPU_SAMPLE.families)
    return [*SAMPLE.values(sample), *gpu]


def _line(cells: Iterable[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()

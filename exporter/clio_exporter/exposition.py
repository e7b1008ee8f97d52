"""Prometheus exposition: families as data, samples as text lines, both text formats.

prometheus_client's own writer takes five microseconds a sample, which is a second of a scrape of a
thousand nodes; this one formats each sample once, when it is added, for whatever format is asked for
(the sample lines of the two formats are the same, only the metadata differs). The result is checked
against prometheus_client's parsers in the tests.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
_HELP_ESCAPES: Final = str.maketrans({"\\": "\\\\", "\n": "\\n"})
_CHUNK_LINES: Final = 1024


class Kind(enum.Enum):
    """Metric types used here, by their OpenMetrics name."""

    COUNTER = "counter"
    GAUGE = "gauge"
    INFO = "info"


class Scope(enum.Enum):
    """Which labels a family's series carry besides their own."""

    NODE = "node"
    """``node_id`` and ``hostname``; and ``cluster`` where several are configured."""
    CLUSTER = "cluster"
    """``cluster`` where several are configured."""
    EXPORTER = "exporter"
    """None."""


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """One metric family; compared by identity.

    Attributes:
        name: full name of its samples, with ``_total`` or ``_info`` where the kind asks for it.
        help: one sentence for people.
        labels: labels besides those of the scope.
        source: where the value comes from, for the reference: ``query.field`` or a rule in words.
    """

    name: str
    kind: Kind
    help: str
    source: str
    labels: tuple[str, ...] = ()
    scope: Scope = Scope.NODE

    @property
    def base_name(self) -> str:
        """Name without the kind's suffix, as OpenMetrics wants it in metadata."""
        suffix = {Kind.COUNTER: "_total", Kind.INFO: "_info", Kind.GAUGE: ""}[self.kind]
        return self.name.removesuffix(suffix)

    def header(self, openmetrics: bool) -> str:
        """HELP and TYPE lines."""
        name = self.base_name if openmetrics else self.name
        kind = self.kind.value if openmetrics or self.kind is not Kind.INFO else "gauge"
        text = (self.help.translate(_ESCAPES) if openmetrics else self.help.translate(_HELP_ESCAPES)).strip()
        return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


def label_text(labels: Mapping[str, str]) -> str:
    """``name="value",...`` with the values escaped, in the given order."""
    return ",".join([f'{name}="{_escaped(value)}"' for name, value in labels.items()])


def join_labels(*parts: str) -> str:
    """Join non-empty pieces made by `label_text`."""
    return ",".join([part for part in parts if part])


def _escaped(value: str) -> str:
    # Most values need no escaping, and looking is cheaper than translating.
    if "\\" in value or '"' in value or "\n" in value:
        return value.translate(_ESCAPES)
    return value


def format_value(value: float) -> str:
    """A sample value; integers stay exact, non-finite values are written as Prometheus reads them."""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, int):
        return str(value)
    if math.isfinite(value):
        return repr(value)
    if math.isnan(value):
        return "NaN"
    return "+Inf" if value > 0 else "-Inf"


class _Block:
    """The samples of one family: full chunks as bytes, the rest as lines.

    A line as a string of its own takes half as much again as its text, which a hundred thousand of them
    make felt.
    """

    __slots__ = ("_chunks", "_count", "_lines")

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._lines: list[str] = []
        self._count = 0

    def add(self, line: str) -> None:
        self._lines.append(line)
        self._count += 1
        if len(self._lines) == _CHUNK_LINES:
            self._chunks.append(_encoded(self._lines))
            self._lines.clear()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[bytes]:
        yield from self._chunks
        if self._lines:
            yield _encoded(self._lines)


def _encoded(lines: list[str]) -> bytes:
    # A surrogate (from an escape in JSON or YAML) has no encoding; it must not cost the rest.
    return "".join(lines).encode(errors="replace")


class Samples:
    """Collects samples by family, in the order the families were declared."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._blocks = {family: _Block() for family in families}

    def add(self, family: Family, labels: str, value: float | None) -> None:
        """Add one sample; ``labels`` is ready text (see `label_text`), a value of None is no sample.

        Raises:
            KeyError: the family was not declared.
        """
        if value is None:
            return
        braces = f"{{{labels}}}" if labels else ""
        self._blocks[family].add(f"{family.name}{braces} {format_value(value)}\n")

    def __len__(self) -> int:
        return sum(map(len, self._blocks.values()))

    def count(self, families: Iterable[Family]) -> int:
        """Number of samples of the given families."""
        return sum(len(self._blocks[family]) for family in families)

    def render(self, openmetrics: bool) -> Iterator[bytes]:
        """The exposition text in chunks, families without samples left out. No ``# EOF``."""
        for family, block in self._blocks.items():
            if len(block):
                yield family.header(openmetrics).encode()
                yield from block

"""Prometheus exposition: families as data, samples as text lines, both text formats.

prometheus_client's own writer takes five microseconds a sample, which is a second of a scrape of a
thousand nodes; this one formats each sample once, when it is added, for whatever format is asked for
(the sample lines of the two formats are the same, only the metadata differs). The result is checked
against prometheus_client's parsers in the tests.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

_T = TypeVar("_T")

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
    """The samples of one family: full chunks as bytes, the rest as text of a line or more.

    A line as a string of its own takes half as much again as its text, which a hundred thousand of them
    make felt.
    """

    __slots__ = ("_chunks", "_count", "_pending", "_texts")

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._texts: list[str] = []
        self._pending = 0
        self._count = 0

    def add(self, text: str, lines: int) -> None:
        self._texts.append(text)
        self._count += lines
        self._pending += lines
        if self._pending >= _CHUNK_LINES:
            self._chunks.append(_encoded(self._texts))
            self._texts.clear()
            self._pending = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[bytes]:
        yield from self._chunks
        if self._texts:
            yield _encoded(self._texts)


def _encoded(texts: list[str]) -> bytes:
    # A surrogate (from an escape in JSON or YAML) has no encoding; it must not cost the rest.
    return "".join(texts).encode(errors="replace")


class KeptTexts:
    """Text made from what seldom changes, for as long as it has not. Belongs to one node.

    Of a scrape's samples those of the pools change once a minute at most, and labels hardly ever: a third of
    the time of writing is saved by not making them anew.
    """

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[str, tuple[object, Any]] = {}

    def get(self, key: str, source: object, make: Callable[[], _T]) -> _T:
        """What ``make`` returned for this key when ``source`` last was another; ``source`` is compared."""
        kept = self._kept.get(key)
        if kept is None or kept[0] != source:
            kept = self._kept[key] = (source, make())
        made: _T = kept[1]
        return made


class Samples:
    """Collects samples by family, in the order the families were declared.

    ``constant`` is ready text (see `label_text`) of the labels that every sample carries.
    """

    def __init__(self, families: Iterable[Family], constant: str = "") -> None:
        self._blocks = {family: _Block() for family in families}
        self._constant = constant
        self._before = f"{constant}," if constant else ""

    def add(self, family: Family, labels: str, value: float | None) -> None:
        """Add one sample; ``labels`` is ready text (see `label_text`), a value of None is no sample.

        Raises:
            KeyError: the family was not declared.
        """
        if value is None:
            return
        labels = f"{self._before}{labels}" if labels else self._constant
        braces = f"{{{labels}}}" if labels else ""
        self._blocks[family].add(f"{family.name}{braces} {format_value(value)}\n", 1)

    def add_column(self, family: Family, labels: Sequence[str], values: Iterable[float | None]) -> None:
        """Add a family's samples of several things at once, as `add` does; no ``labels`` may be empty.

        One text for all of them costs a third of the time that as many calls of `add` take.
        """
        start = f"{family.name}{{{self._before}"
        lines = [
            # Most values are plain integers.
            f"{start}{text}}} {value if type(value) is int else format_value(value)}\n"
            for text, value in zip(labels, values)  # noqa: B905 - checking costs as much as writing
            if value is not None
        ]
        if lines:
            self._blocks[family].add("".join(lines), len(lines))

    def add_kept(
        self,
        kept: KeptTexts,
        key: str,
        source: object,
        families: Iterable[Family],
        write: Callable[[Samples], None],
    ) -> None:
        """Add what ``write`` adds to samples of these families; kept while ``source`` is the same."""

        def texts() -> list[tuple[Family, str, int]]:
            own = Samples(families, self._constant)
            write(own)
            return [
                (family, b"".join(block).decode(), len(block))
                for family, block in own._blocks.items()
                if len(block)
            ]

        for family, text, lines in kept.get(key, source, texts):
            self._blocks[family].add(text, lines)

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

"""What a collector is: families declared as data, topics to ask, a pure function to samples.

To add one, write a module beside this one with a subclass of `Collector`, and add the module's name to the
list in ``clio_exporter/collectors/__init__.py``. The name is then a flag ``--[no-]collector.NAME``, a value
of ``collect[]`` and of the settings file's ``enabled``; ``make docs`` writes its families into
docs/metrics.md. If it is about something that no other asks nodes for, that is a `Topic` and an attribute
of `NodeSnapshot`, and a question in ``clio_exporter/poller.py`` besides; options of its own are entries in
``clio_exporter/settings.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, ClassVar

from clio_exporter.exposition import Family, Samples
from clio_exporter.snapshot import ClusterSnapshot, NodeSnapshot, Topic

Convert = Callable[[Any], float | None]


@dataclass(frozen=True, slots=True)
class FieldMap:
    """Which family a record's field goes to, and how its unit becomes the base unit.

    Attributes:
        field: attribute of the record; the runtime's own name.
        convert: applied to values that are not None; may return None for "not known".
    """

    field: str
    family: Family
    convert: Convert | None = None


class FieldTable:
    """Which families a kind of record fills.

    Attributes:
        families: in the order of the fields.
    """

    def __init__(self, *maps: FieldMap) -> None:
        self.families = tuple(entry.family for entry in maps)
        self._columns = [(attrgetter(entry.field), entry.family, entry.convert) for entry in maps]

    def add(self, records: Sequence[object], labels: Sequence[str], samples: Samples) -> None:
        """Add a sample for each field that a record has a value for; ``labels`` are those of the records."""
        for get, family, convert in self._columns:
            values = map(get, records)
            if convert is None:
                samples.add_column(family, labels, values)
            else:
                converted = [None if value is None else convert(value) for value in values]
                samples.add_column(family, labels, converted)

    def values(self, record: object) -> list[float | None]:
        """The samples' values by themselves, in the order of the families; None: no sample."""
        return [
            value if value is None or convert is None else convert(value)
            for value, convert in ((get(record), convert) for get, _, convert in self._columns)
        ]

    def any_of(self, record: object) -> bool:
        """Whether a field has a value other than 0."""
        return any(get(record) for get, _, _ in self._columns)


def ratio(percent: float) -> float:
    """Percent to ratio."""
    return percent / 100


def micros(value: float) -> float:
    """Microseconds to seconds."""
    return value / 1e6


def nanos(value: int) -> float:
    """Nanoseconds to seconds."""
    return value / 1e9


def mebibytes(value: float) -> float:
    """The runtime's megabytes (2^20) to bytes."""
    return value * 1048576


class Collector:
    """Turns what a scrape learned into samples.

    Attributes:
        families: every family it may emit, in the order of the exposition.
        topics: what must be asked of every node for it.
        reads_config: whether it needs the runtimes' configuration files.
        on_by_default: whether it runs unless the settings say otherwise.
    """

    families: ClassVar[tuple[Family, ...]]
    topics: ClassVar[frozenset[Topic]] = frozenset()
    reads_config: ClassVar[bool] = False
    on_by_default: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """That of its module, as in ``--collector.NAME``."""
        return type(self).__module__.rpartition(".")[2]

    def collect_node(self, node: NodeSnapshot, samples: Samples) -> None:
        """Samples of one node."""

    def collect_cluster(self, cluster: ClusterSnapshot, samples: Samples) -> None:
        """Samples about the cluster as a whole."""

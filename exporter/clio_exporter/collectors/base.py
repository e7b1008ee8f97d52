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


def add_fields(maps: Sequence[FieldMap], record: object, labels: str, samples: Samples) -> None:
    """One sample for each field the record has a value for."""
    for entry in maps:
        value = getattr(record, entry.field)
        if value is not None:
            samples.add(entry.family, labels, value if entry.convert is None else entry.convert(value))


def families_of(maps: Sequence[FieldMap]) -> tuple[Family, ...]:
    """The families a field map fills."""
    return tuple(map(attrgetter("family"), maps))


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

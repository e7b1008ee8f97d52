"""Typed records of what a runtime reports, tolerant of missing and new fields.

A field the runtime did not report is None, never 0. Fields this exporter does
not know are ignored. A known field of the wrong type, or a negative count, is
a `MalformedAnswerError`: better no sample than a wrong one.

Field names are the runtime's own (wire protocol, sections 4 and 5), so that a
record can be compared with the answer it came from.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from clio_client.errors import MalformedAnswerError

_R = TypeVar("_R")
_Check = Callable[[Any], Any]

_ADMIN_POOL_ID = "1.0"

_MAX_DEPTH = 16
"""Nesting of statistics that is followed; what is deeper is nobody's statistics."""


class _WrongTypeError(Exception):
    """A value is not of the expected type; the message names what was expected."""


def _count(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise _WrongTypeError("a count")


def _number(value: Any) -> float | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        # NaN and infinity say that the runtime had nothing to divide by, not a measurement.
        return value if math.isfinite(value) else None
    raise _WrongTypeError("a number")


def _measure(value: Any) -> float | None:
    number = _number(value)
    if number is not None and number < 0:
        raise _WrongTypeError("a number of at least 0")
    return number


def _flag(value: Any) -> bool:
    if isinstance(value, bool) or value in (0, 1):
        return bool(value)
    raise _WrongTypeError("true or false")


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise _WrongTypeError("text")


_CHECKS: dict[str, _Check] = {
    "Count": _count,
    "Number": _number,
    "Measure": _measure,
    "Flag": _flag,
    "Text": _text,
}

# The annotations below double as the table of checks: each alias names its check.
Count = int | None
"""Integer of at least 0."""
Number = float | None
"""Finite number."""
Measure = float | None
"""Finite number of at least 0."""
Flag = bool | None
"""True or false."""
Text = str | None
"""UTF-8 text."""


def _checks_of(record: type[Any]) -> tuple[tuple[str, _Check], ...]:
    checks = []
    for field in fields(record):
        check = _CHECKS.get(str(field.type))
        if check is not None:
            checks.append((field.name, check))
    return tuple(checks)


_TABLES: dict[type[Any], tuple[tuple[str, _Check], ...]] = {}


def _read(record: type[_R], raw: Any, **extra: Any) -> _R:
    """Build ``record`` from one decoded map.

    Raises:
        MalformedAnswerError: not a map, or a known field has an impossible value.
    """
    if not isinstance(raw, Mapping):
        raise MalformedAnswerError(f"{record.__name__}: expected a map, got {type(raw).__name__}")
    table = _TABLES.get(record)
    if table is None:
        table = _TABLES[record] = _checks_of(record)
    values: dict[str, Any] = extra
    try:
        for name, check in table:
            value = raw.get(name)
            values[name] = None if value is None else check(value)
    except _WrongTypeError as error:
        raise MalformedAnswerError(
            f"{record.__name__}.{name}: expected {error}, got {reprlib.repr(value)}"
        ) from None
    return record(**values)


def _rows(raw: Any, what: str) -> Sequence[Any]:
    if not isinstance(raw, (list, tuple)):
        raise MalformedAnswerError(f"{what}: expected an array, got {type(raw).__name__}")
    return raw


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """One worker thread, from ``worker_stats``."""

    worker_id: Count
    is_running: Flag
    is_active: Flag
    idle_iterations: Count
    num_queued_tasks: Count
    num_blocked_tasks: Count
    num_periodic_tasks: Count
    num_retry_tasks: Count
    suspend_period_us: Measure
    num_tasks_processed: Count
    load: Number


@dataclass(frozen=True, slots=True)
class SystemSample:
    """One entry of the 1 Hz ring, from ``system_stats``; percentages are 0 to 100."""

    event_id: Count
    timestamp_ns: Count
    wall_time_ns: Count
    ram_total_bytes: Count
    ram_available_bytes: Count
    ram_usage_pct: Measure
    cpu_usage_pct: Measure
    gpu_count: Count
    gpu_usage_pct: Measure
    hbm_usage_pct: Measure
    hbm_used_bytes: Count
    hbm_total_bytes: Count
    hostname: Text
    ip_address: Text
    node_id: Count
    is_leader: Flag


@dataclass(frozen=True, slots=True)
class HostInfo:
    """What a runtime calls its host, from ``get_host_info``: the hostfile's text, or "0.0.0.0"."""

    hostname: Text
    ip_address: Text
    node_id: Count


_LEARNED = ("coefficient", "mape", "wall_coefficient", "wall_mape")
_UNLEARNED = (1.0, 0.0, 1.0, 0.0)


@dataclass(frozen=True, slots=True)
class MethodModel:
    """Learned cost model of one method of a pool, from ``container_stats``."""

    id: Count
    name: Text
    coefficient: Number
    mape: Measure
    wall_coefficient: Number
    wall_mape: Measure

    @property
    def has_learned(self) -> bool:
        """Whether the model moved from where every model starts: coefficients 1, errors 0."""
        return (self.coefficient, self.mape, self.wall_coefficient, self.wall_mape) != _UNLEARNED


@dataclass(frozen=True, slots=True)
class Container:
    """A pool's container on the node that was asked, from ``container_stats``."""

    pool_id: Text
    pool_name: Text
    chimod_name: Text
    container_id: Count
    learning_rate: Number
    methods: tuple[MethodModel, ...] = ()
    """Only the models that have learned; the rest say nothing about this node."""

    @property
    def is_bdev(self) -> bool:
        """Whether the pool is a block device or an array of them."""
        return (self.chimod_name or "").endswith("_bdev")

    @property
    def is_admin(self) -> bool:
        """Whether it is the runtime's own pool, which answers questions and reports no statistics."""
        return self.pool_id == _ADMIN_POOL_ID


@dataclass(frozen=True, slots=True)
class BdevStats:
    """A block device, from selector ``stats`` of a ``*_bdev`` pool.

    Bandwidths are in 2^20 bytes a second; latencies are the learned model's time for one I/O of 1 MiB.
    """

    pool_name: Text
    bdev_type: Count
    total_capacity: Count
    remaining_capacity: Count
    read_bandwidth_mbps: Measure
    write_bandwidth_mbps: Measure
    read_latency_us: Measure
    write_latency_us: Measure
    iops: Measure
    total_reads: Count
    total_writes: Count
    total_bytes_read: Count
    total_bytes_written: Count
    device_health: Text
    failure_prediction: Text
    predicted_ttl_days: Number


@dataclass(frozen=True, slots=True)
class SafeBdevMember:
    """One member of an erasure-coded array."""

    role: Text
    index: Count
    pool_name: Text
    pool_id: Count
    state: Text

    @property
    def dotted_pool_id(self) -> str | None:
        """``major.minor``; the runtime packs it as major << 32 | minor here."""
        return None if self.pool_id is None else f"{self.pool_id >> 32}.{self.pool_id & 0xFFFFFFFF}"


@dataclass(frozen=True, slots=True)
class SafeBdevStats:
    """An erasure-coded array, from selector ``stats`` of a ``clio_safe_bdev`` pool."""

    pool_name: Text
    total_capacity: Count
    remaining_capacity: Count
    max_failures: Count
    parity_level: Count
    data_count: Count
    total_slots: Count
    written_slots: Count
    dirty_slots: Count
    alloc_log_records: Count
    reattached_members: Count
    recovery_active: Flag
    recovery_ops_total: Count
    recovery_ops_completed: Count
    recovery_ops_in_flight: Count
    recovery_ops_remaining: Count
    members: tuple[SafeBdevMember, ...] = ()


@dataclass(frozen=True, slots=True)
class CteStats:
    """The context transfer engine's core, from selector ``stats`` of a ``*_cte_core`` pool."""

    pool_name: Text
    num_targets: Count
    num_tags: Count
    num_blobs: Count


@dataclass(frozen=True, slots=True)
class ModuleStats:
    """Numbers of a module this exporter has no record for: every finite scalar, by its field name."""

    pool_name: str | None
    values: dict[str, float]


PoolStats = BdevStats | SafeBdevStats | CteStats | ModuleStats


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool's container on a node; ``stats`` is what it reports, None where its module reports nothing."""

    container: Container
    stats: PoolStats | None

    @property
    def name(self) -> str:
        """The pool's name, as its statistics tell it before the list of pools; "" when neither does."""
        return (self.stats and self.stats.pool_name) or self.container.pool_name or ""


def read_workers(raw: Any) -> list[WorkerStats]:
    """``worker_stats``: one record a worker, those without an id left out."""
    workers = [_read(WorkerStats, row) for row in _rows(raw, "worker_stats")]
    return _unique([w for w in workers if w.worker_id is not None], lambda w: w.worker_id, "worker_id")


def read_samples(raw: Any) -> list[SystemSample]:
    """``system_stats``: samples in ascending order of event id, those without one left out."""
    samples = [_read(SystemSample, row) for row in _rows(raw, "system_stats")]
    samples = [s for s in samples if s.event_id is not None]
    return sorted(_unique(samples, lambda s: s.event_id, "event_id"), key=lambda s: s.event_id or 0)


def read_host_info(raw: Any) -> HostInfo:
    """``get_host_info``."""
    return _read(HostInfo, raw)


def read_containers(raw: Any) -> list[Container]:
    """``container_stats``: one record a pool on this node, those without a pool id left out."""
    containers = []
    for row in _rows(raw, "container_stats"):
        methods = row.get("methods") if isinstance(row, Mapping) else None
        models = (
            ()
            if methods is None
            else tuple(
                _read(MethodModel, m)
                for m in _rows(methods, "container_stats.methods")
                # Five hundred a node, of which few have learned: the rest is not worth a record.
                if not isinstance(m, Mapping) or tuple(map(m.get, _LEARNED)) != _UNLEARNED
            )
        )
        container = _read(
            Container, row, methods=tuple(m for m in models if m.has_learned and m.id is not None)
        )
        if container.pool_id is not None:
            containers.append(container)
    return _unique(containers, lambda c: c.pool_id, "pool_id")


def read_pool_stats(module: str, raw: Any) -> PoolStats:
    """Selector ``stats`` of one pool of the given module (chimod name)."""
    if module.endswith("safe_bdev"):
        members = raw.get("members") if isinstance(raw, Mapping) else None
        rows = () if members is None else tuple(_read(SafeBdevMember, m) for m in _rows(members, "members"))
        return _read(SafeBdevStats, raw, members=rows)
    if module.endswith("_bdev"):
        return _read(BdevStats, raw)
    if module.endswith("_cte_core"):
        return _read(CteStats, raw)
    return _read_module_stats(raw)


def parse_health(text: str | None) -> dict[str, float]:
    """Finite numbers of ``device_health`` / ``failure_prediction``, flattened with dots; {} when empty.

    The runtime reports these as JSON text; "{}" means that the device reports no health.
    """
    if not text or text == "{}":
        return {}
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MalformedAnswerError(f"device health is not JSON: {error}") from error
    return _numbers(document)


def _read_module_stats(raw: Any) -> ModuleStats:
    if not isinstance(raw, Mapping):
        raise MalformedAnswerError(f"stats: expected a map, got {type(raw).__name__}")
    name = raw.get("pool_name")
    return ModuleStats(pool_name=name if isinstance(name, str) else None, values=_numbers(raw))


def _numbers(document: Any, prefix: str = "", depth: int = 0) -> dict[str, float]:
    if depth > _MAX_DEPTH:
        raise MalformedAnswerError(f"statistics are nested more than {_MAX_DEPTH} deep")
    if isinstance(document, Mapping):
        found: dict[str, float] = {}
        for key, value in document.items():
            found.update(_numbers(value, f"{prefix}.{key}" if prefix else str(key), depth + 1))
        return found
    if isinstance(document, bool):
        return {prefix: float(document)}
    if isinstance(document, (int, float)) and _is_finite(document):
        return {prefix: document}
    return {}


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:
        # JSON knows integers that no sample can hold.
        return False


def _unique(records: list[_R], key: Callable[[_R], Any], name: str) -> list[_R]:
    if len({key(record) for record in records}) != len(records):
        raise MalformedAnswerError(f"two records with one {name}")
    return records

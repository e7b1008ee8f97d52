"""Block devices: capacity, traffic, modelled speed, health; and erasure-coded arrays of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from clio_client import BdevStats, Pool, SafeBdevStats, parse_health
from clio_client.errors import MalformedAnswerError
from clio_exporter.collectors.base import Collector, FieldMap, FieldTable, mebibytes, micros
from clio_exporter.exposition import Family, Kind, Samples, join_labels, label_text
from clio_exporter.labels import node_labels
from clio_exporter.snapshot import NodeSnapshot, Topic

_POOL = ("pool_id", "pool_name")

BDEV_TYPES: Final = {0: "file", 1: "ram", 2: "hbm", 3: "pinned", 4: "noop"}
"""Device types by number, in the order of the runtime's configuration; others keep their number."""

MEMORY_TYPES: Final = frozenset({1, 2, 3})
"""Devices whose reads and writes go past the runtime's counters: of a RAM tier in use all four stay 0,
while its free bytes move (seen with 2.3.2)."""

TTL_UNKNOWN_DAYS: Final = 999999
"""What a runtime reports when it predicts no end of life (wire protocol, section 5)."""

_DAY: Final = 86400


def _lifetime(days: float) -> float | None:
    return None if days >= TTL_UNKNOWN_DAYS else days * _DAY


def _family(name: str, kind: Kind, text: str, field: str, *labels: str) -> Family:
    return Family(f"clio_bdev_{name}", kind, text, f"bdev stats.{field}", (*_POOL, *labels))


INFO = _family(
    "info", Kind.INFO, "Kind of device: file, ram, hbm, pinned, noop, or its number.", "bdev_type", "type"
)
HEALTH = _family(
    "device_health",
    Kind.GAUGE,
    "A number of the device's health report, by its name there; absent while the device reports none.",
    "device_health (JSON)",
    "attribute",
)
PREDICTION = _family(
    "failure_prediction",
    Kind.GAUGE,
    "A number of the failure prediction, by its name there; absent while there is no prediction.",
    "failure_prediction (JSON)",
    "attribute",
)

_SIZE = FieldTable(
    FieldMap(
        "total_capacity", _family("capacity_bytes", Kind.GAUGE, "Size of the device.", "total_capacity")
    ),
    FieldMap(
        "remaining_capacity",
        _family("free_bytes", Kind.GAUGE, "Bytes of the device not allocated.", "remaining_capacity"),
    ),
)

_TRAFFIC = FieldTable(
    FieldMap(
        "total_reads",
        _family(
            "reads_total",
            Kind.COUNTER,
            "Reads completed; absent of memory, which the runtime does not count.",
            "total_reads",
        ),
    ),
    FieldMap(
        "total_writes",
        _family(
            "writes_total",
            Kind.COUNTER,
            "Writes completed; absent of memory, which the runtime does not count.",
            "total_writes",
        ),
    ),
    FieldMap(
        "total_bytes_read",
        _family(
            "read_bytes_total",
            Kind.COUNTER,
            "Bytes read; absent of memory, which the runtime does not count.",
            "total_bytes_read",
        ),
    ),
    FieldMap(
        "total_bytes_written",
        _family(
            "written_bytes_total",
            Kind.COUNTER,
            "Bytes written; absent of memory, which the runtime does not count.",
            "total_bytes_written",
        ),
    ),
)

_MODEL = FieldTable(
    FieldMap(
        "read_bandwidth_mbps",
        _family(
            "read_bandwidth_bytes_per_second",
            Kind.GAUGE,
            "Read bandwidth by the runtime's learned model; before any I/O its default, not a measurement.",
            "read_bandwidth_mbps * 2^20",
        ),
        mebibytes,
    ),
    FieldMap(
        "write_bandwidth_mbps",
        _family(
            "write_bandwidth_bytes_per_second",
            Kind.GAUGE,
            "Write bandwidth by the runtime's learned model; before any I/O its default, not a measurement.",
            "write_bandwidth_mbps * 2^20",
        ),
        mebibytes,
    ),
    FieldMap(
        "read_latency_us",
        _family(
            "read_latency_seconds",
            Kind.GAUGE,
            "Time of a 1 MiB read by the runtime's learned model; before any I/O the model's default.",
            "read_latency_us / 10^6",
        ),
        micros,
    ),
    FieldMap(
        "write_latency_us",
        _family(
            "write_latency_seconds",
            Kind.GAUGE,
            "Time of a 1 MiB write by the runtime's learned model; before any I/O the model's default.",
            "write_latency_us / 10^6",
        ),
        micros,
    ),
    FieldMap(
        "iops",
        _family("iops", Kind.GAUGE, "I/O operations a second the runtime expects of the device.", "iops"),
    ),
    FieldMap(
        "predicted_ttl_days",
        _family(
            "predicted_time_to_live_seconds",
            Kind.GAUGE,
            "Predicted time until the device fails; absent while the runtime predicts no failure.",
            "predicted_ttl_days * 86400",
        ),
        _lifetime,
    ),
)


def _array(name: str, kind: Kind, text: str, field: str, *labels: str) -> Family:
    return Family(f"clio_safe_bdev_{name}", kind, text, f"safe_bdev stats.{field}", (*_POOL, *labels))


MEMBER = _array(
    "member_info",
    Kind.INFO,
    "A member of the array: role (data, parity), position, its pool and state (active, recovering, faulty).",
    "members[]",
    "role",
    "index",
    "member_pool_id",
    "member_pool_name",
    "state",
)

_ARRAY_FIELDS = FieldTable(
    FieldMap(
        "total_capacity",
        _array("capacity_bytes", Kind.GAUGE, "Usable size of the array, after parity.", "total_capacity"),
    ),
    FieldMap(
        "remaining_capacity",
        _array("free_bytes", Kind.GAUGE, "Bytes of the array not allocated.", "remaining_capacity"),
    ),
    FieldMap(
        "max_failures",
        _array("max_failures", Kind.GAUGE, "Member failures the array is built to survive.", "max_failures"),
    ),
    FieldMap(
        "parity_level", _array("parity_members", Kind.GAUGE, "Parity members in service.", "parity_level")
    ),
    FieldMap("data_count", _array("data_members", Kind.GAUGE, "Data members.", "data_count")),
    FieldMap("total_slots", _array("slots", Kind.GAUGE, "Stripes the array has.", "total_slots")),
    FieldMap(
        "written_slots", _array("written_slots", Kind.GAUGE, "Stripes that hold data.", "written_slots")
    ),
    FieldMap(
        "dirty_slots",
        _array("dirty_slots", Kind.GAUGE, "Stripes whose parity is not up to date.", "dirty_slots"),
    ),
    FieldMap(
        "alloc_log_records",
        _array(
            "alloc_log_records", Kind.GAUGE, "Records in the array's allocation log.", "alloc_log_records"
        ),
    ),
    FieldMap(
        "reattached_members",
        _array(
            "reattached_members", Kind.GAUGE, "Members found again after a restart.", "reattached_members"
        ),
    ),
    FieldMap(
        "recovery_active",
        _array(
            "recovery_active", Kind.GAUGE, "1 while a member is being rebuilt, else 0.", "recovery_active"
        ),
    ),
    FieldMap(
        "recovery_ops_total",
        _array("recovery_operations", Kind.GAUGE, "Operations of the current rebuild.", "recovery_ops_total"),
    ),
    FieldMap(
        "recovery_ops_completed",
        _array(
            "recovery_operations_completed",
            Kind.GAUGE,
            "Operations of the current rebuild that are done.",
            "recovery_ops_completed",
        ),
    ),
    FieldMap(
        "recovery_ops_in_flight",
        _array(
            "recovery_operations_in_flight",
            Kind.GAUGE,
            "Operations of the current rebuild under way.",
            "recovery_ops_in_flight",
        ),
    ),
    FieldMap(
        "recovery_ops_remaining",
        _array(
            "recovery_operations_remaining",
            Kind.GAUGE,
            "Operations of the current rebuild still to do.",
            "recovery_ops_remaining",
        ),
    ),
)


class BdevCollector(Collector):
    """The block devices of every node."""

    topics = frozenset({Topic.BDEVS})
    families: ClassVar = (
        INFO,
        *_SIZE.families,
        *_TRAFFIC.families,
        *_MODEL.families,
        HEALTH,
        PREDICTION,
        MEMBER,
        *_ARRAY_FIELDS.families,
    )

    def collect_node(self, node: NodeSnapshot, samples: Samples) -> None:
        """One set of samples a device or array with a container on the node."""
        devices: list[tuple[str, BdevStats]] = []
        for pool, labels in zip(node.bdevs, labels_of("bdevs", node, node.bdevs), strict=True):
            if isinstance(pool.stats, BdevStats):
                devices.append((labels, pool.stats))
            elif isinstance(pool.stats, SafeBdevStats):
                _safe_bdev(pool.stats, labels, samples)
        _devices(devices, samples)


def labels_of(key: str, node: NodeSnapshot, pools: Sequence[Pool]) -> list[str]:
    """Labels of pools of the node that reported statistics: the node's, ``pool_id`` and ``pool_name``."""
    names = [(pool.container.pool_id or "", pool.name) for pool in pools]

    def made() -> list[str]:
        of_node = node_labels(node.member)
        return [join_labels(of_node, label_text({"pool_id": i, "pool_name": name})) for i, name in names]

    return node.kept.get(key, names, made)


def _devices(devices: Sequence[tuple[str, BdevStats]], samples: Samples) -> None:
    labels, stats = [text for text, _ in devices], [device for _, device in devices]
    for text, device in devices:
        if device.bdev_type is not None:
            kind = BDEV_TYPES.get(device.bdev_type, str(device.bdev_type))
            samples.add(INFO, join_labels(text, label_text({"type": kind})), 1)
    _SIZE.add(stats, labels, samples)
    counted = [
        (text, device)
        for text, device in devices
        if device.bdev_type not in MEMORY_TYPES or _TRAFFIC.any_of(device)
    ]
    _TRAFFIC.add([device for _, device in counted], [text for text, _ in counted], samples)
    _MODEL.add(stats, labels, samples)
    for text, device in devices:
        _health(device, text, samples)


def _health(device: BdevStats, labels: str, samples: Samples) -> None:
    for family, report in ((HEALTH, device.device_health), (PREDICTION, device.failure_prediction)):
        try:
            numbers = parse_health(report)
        except MalformedAnswerError:
            # Free text of the device's vendor must not cost the numbers of the device.
            continue
        for attribute, value in numbers.items():
            samples.add(family, join_labels(labels, label_text({"attribute": attribute})), value)


def _safe_bdev(stats: SafeBdevStats, labels: str, samples: Samples) -> None:
    _ARRAY_FIELDS.add([stats], [labels], samples)
    for member in stats.members:
        described = {
            "role": member.role or "",
            "index": "" if member.index is None else str(member.index),
            "member_pool_id": member.dotted_pool_id or "",
            "member_pool_name": member.pool_name or "",
            "state": member.state or "",
        }
        samples.add(MEMBER, join_labels(labels, label_text(described)), 1)

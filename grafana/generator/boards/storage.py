"""Storage tiers: what there is, how full it gets and when, where bytes and blobs move."""

from __future__ import annotations

from clio_exporter.kit.rules import THRESHOLDS
from grafana.generator import links, thresholds, variables
from grafana.generator.annotations import marks
from grafana.generator.board import Board
from grafana.generator.panels import Column, Query, Section, Tile, lines, number, rows
from grafana.generator.queries import BDEV_KEYS, FEW, KEYS, NODE, by_type, linkable, of_type, per_device, rate

_NONE = "No block device reports"
_NO_ARRAY = "No erasure-coded array (safe_bdev)"
_NOT_IN_SIGHT = "None in sight"
_FORECAST = (
    "As in the alerts, only of files that are half full, fill steadily (80 %) and are known for half an hour: "
    "memory is meant to be full."
)


def board() -> Board:
    """The dashboard."""
    return Board(
        uid="clio-storage",
        question="How full are the storage tiers, when will they be full, where do bytes and blobs move.",
        variables=[variables.cluster(), variables.node()],
        annotations=[marks()],
        sections=[
            Section("", _totals()),
            Section("Tiers", _tiers()),
            Section("Traffic", _traffic()),
            Section("Targets and devices", _devices()),
            Section("Erasure-coded arrays", _arrays(), collapsed=True),
            Section("Device health", _device_health(), collapsed=True),
        ],
    )


def _sum(metric: str) -> str:
    return f"sum({per_device(metric)})"


def _totals() -> list[Tile]:
    return [
        number(
            "Capacity",
            "Size of all block devices of the selected nodes (clio_bdev_capacity_bytes).",
            _sum("clio_bdev_capacity_bytes"),
            unit="bytes",
            width=4,
            empty=_NONE,
        ),
        number(
            "Used",
            "Allocated share of all block devices (clio_bdev_free_bytes, clio_bdev_capacity_bytes). From 90 % "
            "it wants a look.",
            f"1 - {_sum('clio_bdev_free_bytes')} / {_sum('clio_bdev_capacity_bytes')}",
            unit="percentunit",
            band=thresholds.STORAGE_USED,
            width=4,
            decimals=1,
            trend=True,
            empty=_NONE,
        ),
        number(
            "First device full in",
            "Time until the first device is full, at the slower of its pace of an hour and that of 5 minutes "
            f"(bdev:clio_bdev_full_seconds:forecast1h). {_FORECAST} Under 3 days it wants a look, under 4 hours a "
            "hand.",
            f"min({_time_to_full()})",
            unit="dtdurations",
            band=thresholds.TIME_TO_FULL,
            width=4,
            decimals=0,
            empty=_NOT_IN_SIGHT,
        ),
        number(
            "Read",
            "Bytes read a second (clio_bdev_read_bytes_total), without devices in memory, which runtimes do not count.",
            f"sum({rate('clio_bdev_read_bytes_total')})",
            unit="binBps",
            width=4,
            trend=True,
            empty=_NONE,
        ),
        number(
            "Written",
            "Bytes written a second (clio_bdev_written_bytes_total), without devices in memory, which runtimes do not "
            "count.",
            f"sum({rate('clio_bdev_written_bytes_total')})",
            unit="binBps",
            width=4,
            trend=True,
            empty=_NONE,
        ),
        number(
            "Blobs",
            "Blobs whose metadata the selected nodes hold (clio_cte_blobs).",
            _sum("clio_cte_blobs"),
            width=4,
            decimals=0,
            trend=True,
            empty="No context transfer engine",
        ),
    ]


def _time_to_full() -> str:
    """Of the devices that the alerts forecast: another time is no forecast, and its colour would be no alarm."""
    steady, half = (THRESHOLDS[name].value for name in ("forecast_steady", "forecast_from"))
    return (
        f"({per_device('bdev:clio_bdev_full_seconds:forecast1h')} "
        f"and {per_device('bdev:clio_bdev_fill_steadiness:ratio1h')} > {steady} "
        f"and {per_device('bdev:clio_bdev_used:ratio')} > {half} "
        f'unless on (cluster, node_id, hostname, pool_id) clio_bdev_info{{{NODE}, type=~"ram|hbm|pinned|noop"}})'
    )


def _tiers() -> list[Tile]:
    capacity = by_type(f"max by ({BDEV_KEYS}) (clio_bdev_capacity_bytes{{{NODE}}})")
    free = by_type(f"max by ({BDEV_KEYS}) (clio_bdev_free_bytes{{{NODE}}})")
    return [
        rows(
            "Tiers",
            "Block devices by kind: how many, size, share allocated, traffic, and time until the first of them is "
            "full, at the slower of its pace of an hour and that of 5 minutes (clio_bdev_*, "
            f"bdev:clio_bdev_full_seconds:forecast1h). {_FORECAST} Runtimes do not count what devices in memory read "
            "and write. From 90 % used it wants a look; under 3 days to full too.",
            [
                linkable(f"count by (cluster, type) (max by ({BDEV_KEYS}, type) (clio_bdev_info{{{NODE}}}))"),
                linkable(capacity),
                linkable(f"1 - {free} / ({capacity} > 0)"),
                linkable(by_type(rate("clio_bdev_read_bytes_total"))),
                linkable(by_type(rate("clio_bdev_written_bytes_total"))),
                linkable(f"min by (cluster, type) ({of_type(_time_to_full())})"),
            ],
            [
                Column("type", "Tier", width=80),
                Column("A", "Devices", "none", 70),
                Column("B", "Size", "bytes", 85),
                Column("C", "Used", "percentunit", 120, "gauge", thresholds.STORAGE_USED, low=0, high=1),
                Column("D", "Read", "binBps", 95, absent="not counted"),
                Column("E", "Written", "binBps", 95, absent="not counted"),
                Column(
                    "F", "First full in", "dtdurations", 105, "colour", thresholds.TIME_TO_FULL, decimals=0
                ),
                Column("cluster", "Cluster", width=110, mapping={"All": ("unnamed", thresholds.IDLE)}),
            ],
            sort="Tier",
            descending=False,
            width=14,
            height=7,
            empty=_NONE,
        ),
        lines(
            "Share used by tier",
            "Allocated share of each tier over time (clio_bdev_free_bytes, clio_bdev_capacity_bytes). From 90 % "
            "it wants a look. A full fast tier above a roomy slow one is how tiers work.",
            [Query(f"1 - {free} / ({capacity} > 0)", "{{cluster}} {{type}}")],
            unit="percentunit",
            band=thresholds.STORAGE_USED,
            high=1,
            width=10,
            height=7,
            empty=_NONE,
        ),
    ]


def _traffic() -> list[Tile]:
    return [
        lines(
            "Bytes by tier",
            "Bytes a second read from (up) and written to (down) each tier (clio_bdev_read_bytes_total, "
            "clio_bdev_written_bytes_total). Devices in memory are not counted by the runtimes: no line.",
            [
                Query(by_type(rate("clio_bdev_read_bytes_total"), keys="type"), "read {{type}}"),
                Query(
                    by_type(rate("clio_bdev_written_bytes_total"), keys="type"),
                    "written {{type}}",
                    below=True,
                ),
            ],
            unit="binBps",
            low=None,
            width=8,
            empty=_NONE,
        ),
        lines(
            "Movement between tiers",
            "How fast the allocated part of each tier grows or shrinks (deriv of clio_bdev_free_bytes over the "
            "interval). Data that moves from one tier to another shows as one line down and another up.",
            [
                Query(
                    "-sum by (type) ("
                    + of_type(
                        f"max by ({BDEV_KEYS}) (deriv(clio_bdev_free_bytes{{{NODE}}}[$__rate_interval]))"
                    )
                    + ")",
                    "{{type}}",
                )
            ],
            unit="binBps",
            low=None,
            width=8,
            empty=_NONE,
        ),
        lines(
            "Blobs",
            "Blobs and tags of the selected nodes (clio_cte_blobs, clio_cte_tags).",
            [
                Query(f"sum(max by ({BDEV_KEYS}) (clio_cte_blobs{{{NODE}}}))", "blobs", "blue"),
                Query(f"sum(max by ({BDEV_KEYS}) (clio_cte_tags{{{NODE}}}))", "tags", "purple"),
            ],
            decimals=0,
            width=8,
            empty="No context transfer engine",
        ),
    ]


def _devices() -> list[Tile]:
    targets = f"max by ({BDEV_KEYS}) (clio_cte_targets{{{NODE}}})"
    used = (
        f"1 - sum by ({KEYS}) ({per_device('clio_bdev_free_bytes')}) "
        f"/ sum by ({KEYS}) ({per_device('clio_bdev_capacity_bytes')})"
    )
    return [
        rows(
            "Targets by node",
            "Storage targets registered with the transfer engine of each node, its blobs, and how full its "
            "devices are together (clio_cte_targets, clio_cte_blobs, clio_bdev_free_bytes). Bad: fewer targets "
            "than the other nodes.",
            [
                linkable(f"sum by ({KEYS}) ({targets})"),
                linkable(f"sum by ({KEYS}) (max by ({BDEV_KEYS}) (clio_cte_blobs{{{NODE}}}))"),
                linkable(f"sum by ({KEYS}) ({per_device('clio_bdev_capacity_bytes')})"),
                linkable(used),
            ],
            [
                Column("node_id", "Node", width=60, links=[links.node_from_row()]),
                Column("hostname", "Host"),
                Column("A", "Targets", "none", 70),
                Column("B", "Blobs", "short", 60),
                Column("C", "Size", "bytes", 85),
                Column("D", "Used", "percentunit", 115, "gauge", thresholds.STORAGE_USED, low=0, high=1),
                Column("cluster", "cluster", hidden=True),
            ],
            sort="Node",
            descending=False,
            width=10,
            empty=_NONE,
        ),
        rows(
            "Devices",
            "Every block device, fullest first: size, share allocated, time until it is full at the slower of its "
            "pace of an hour and that of 5 minutes, and how steadily it fills: in a straight line is 100 % "
            "(clio_bdev_*, bdev:clio_bdev_full_seconds:forecast1h, bdev:clio_bdev_fill_steadiness:ratio1h). "
            f"{_FORECAST} From 90 % used it wants a look; under 3 days to full too.",
            [
                linkable(f"max by ({BDEV_KEYS}, type) (clio_bdev_info{{{NODE}}})"),
                linkable(f"max by ({BDEV_KEYS}) (clio_bdev_capacity_bytes{{{NODE}}})"),
                linkable(
                    f"1 - max by ({BDEV_KEYS}) (clio_bdev_free_bytes{{{NODE}}}) "
                    f"/ (max by ({BDEV_KEYS}) (clio_bdev_capacity_bytes{{{NODE}}}) > 0)"
                ),
                linkable(_time_to_full()),
                linkable(f"{per_device('bdev:clio_bdev_fill_steadiness:ratio1h')} and {_time_to_full()}"),
            ],
            [
                Column("node_id", "Node", width=60, links=[links.node_from_row()]),
                Column("pool_name", "Device"),
                Column("type", "Tier", width=70),
                Column("B", "Size", "bytes", 75),
                Column("C", "Used", "percentunit", 105, "gauge", thresholds.STORAGE_USED, low=0, high=1),
                Column("D", "Full in", "dtdurations", 85, "colour", thresholds.TIME_TO_FULL, decimals=0),
                Column("E", "Steady", "percentunit", 65, decimals=0),
                *(Column(name, name, hidden=True) for name in ("cluster", "hostname", "pool_id")),
            ],
            sort="Used",
            width=14,
            empty=_NONE,
            drop=("Value #A",),
        ),
    ]


def _arrays() -> list[Tile]:
    def array(metric: str) -> str:
        return f"max by ({BDEV_KEYS}) ({metric}{{{NODE}}})"

    return [
        rows(
            "Arrays",
            "Erasure-coded arrays of block devices: usable size, share used, members that are not active, "
            "failures the array is built to survive, stripes whose parity is old (clio_safe_bdev_*, "
            "safe_bdev:clio_safe_bdev_unavailable_members:count). One member out of service wants a hand.",
            [
                linkable(array("clio_safe_bdev_capacity_bytes")),
                linkable(
                    f"1 - {array('clio_safe_bdev_free_bytes')} / ({array('clio_safe_bdev_capacity_bytes')} > 0)"
                ),
                linkable(array("safe_bdev:clio_safe_bdev_unavailable_members:count")),
                linkable(array("clio_safe_bdev_max_failures")),
                linkable(array("clio_safe_bdev_data_members")),
                linkable(array("clio_safe_bdev_parity_members")),
                linkable(array("clio_safe_bdev_dirty_slots")),
            ],
            [
                Column("node_id", "Node", width=60, links=[links.node_from_row()]),
                Column("pool_name", "Array"),
                Column("A", "Size", "bytes", 75),
                Column("B", "Used", "percentunit", 90, "gauge", thresholds.STORAGE_USED, low=0, high=1),
                Column("C", "Out of service", "none", 130, "colour", thresholds.ANY_IS_BAD),
                Column("D", "Survives", "none", 70),
                Column("E", "Data", "none", 50),
                Column("F", "Parity", "none", 60),
                Column("G", "Old parity", "short", 85, "colour", thresholds.ANY_IS_WORTH_A_LOOK),
                *(Column(name, name, hidden=True) for name in ("cluster", "hostname", "pool_id")),
            ],
            sort="Out of service",
            width=14,
            height=7,
            empty=_NO_ARRAY,
        ),
        rows(
            "Recovery",
            "How far the rebuild of each array's member is (clio_safe_bdev_recovery_operations_completed of "
            "clio_safe_bdev_recovery_operations). Empty while none is rebuilt.",
            [
                linkable(
                    f"{array('clio_safe_bdev_recovery_operations_completed')} "
                    f"/ ({array('clio_safe_bdev_recovery_operations')} > 0) "
                    f"and {array('clio_safe_bdev_recovery_active')} == 1"
                )
            ],
            [
                Column("node_id", "Node", width=65, links=[links.node_from_row()]),
                Column("pool_name", "Array"),
                Column("Value", "Rebuilt", "percentunit", 150, "gauge", low=0, high=1),
                *(Column(name, name, hidden=True) for name in ("cluster", "hostname", "pool_id")),
            ],
            sort="Rebuilt",
            width=10,
            height=7,
            empty="No array is being rebuilt",
        ),
        rows(
            "Members of arrays",
            "Each member of each array: role, position, device and state (clio_safe_bdev_member_info). "
            "Recovering wants a look, faulty a hand.",
            [
                linkable(
                    f"max by ({BDEV_KEYS}, role, index, member_pool_name, state) "
                    f"(clio_safe_bdev_member_info{{{NODE}}})"
                )
            ],
            [
                Column("node_id", "Node", width=70, links=[links.node_from_row()]),
                Column("pool_name", "Array"),
                Column("role", "Role", width=80),
                Column("index", "Position", width=80),
                Column("member_pool_name", "Device"),
                Column(
                    "state",
                    "State",
                    width=110,
                    cell="colour",
                    mapping={
                        "active": ("active", thresholds.GOOD),
                        "recovering": ("recovering", thresholds.WARN),
                        "faulty": ("faulty", thresholds.BAD),
                    },
                ),
                *(Column(name, name, hidden=True) for name in ("cluster", "hostname", "pool_id")),
            ],
            # What is not active comes first: recovering, faulty, active.
            sort="State",
            width=14,
            height=7,
            empty=_NO_ARRAY,
            drop=("Value",),
        ),
        lines(
            "Rebuild over time",
            "Operations of current rebuilds still to do and under way "
            "(clio_safe_bdev_recovery_operations_remaining, clio_safe_bdev_recovery_operations_in_flight). Bad "
            "when it stands still.",
            [
                Query(f"sum({array('clio_safe_bdev_recovery_operations_remaining')})", "still to do", "blue"),
                Query(f"sum({array('clio_safe_bdev_recovery_operations_in_flight')})", "under way", "purple"),
            ],
            width=10,
            height=7,
            empty=_NO_ARRAY,
        ),
    ]


def _device_health() -> list[Tile]:
    return [
        rows(
            "Devices predicted to fail",
            f"Devices for which the runtime predicts a failure, the {FEW} soonest "
            "(clio_bdev_predicted_time_to_live_seconds). Under 30 days wants a look, under 3 days a hand.",
            [
                linkable(
                    f"bottomk({FEW}, max by ({BDEV_KEYS}) "
                    f"(clio_bdev_predicted_time_to_live_seconds{{{NODE}}}))"
                )
            ],
            [
                Column("node_id", "Node", width=70, links=[links.node_from_row()]),
                Column("pool_name", "Device"),
                Column(
                    "Value", "Fails in", "dtdurations", 130, "colour", thresholds.TIME_TO_FAILURE, decimals=0
                ),
                *(Column(name, name, hidden=True) for name in ("cluster", "hostname", "pool_id")),
            ],
            sort="Fails in",
            descending=False,
            width=10,
            height=6,
            empty="No failure is predicted",
        ),
        rows(
            "What devices report of their health",
            "Numbers of the devices' health reports and failure predictions, by their names there "
            "(clio_bdev_device_health, clio_bdev_failure_prediction).",
            [
                linkable(
                    f"max by ({BDEV_KEYS}, attribute) (clio_bdev_device_health{{{NODE}}} "
                    f"or clio_bdev_failure_prediction{{{NODE}}})"
                )
            ],
            [
                Column("node_id", "Node", width=70, links=[links.node_from_row()]),
                Column("pool_name", "Device"),
                Column("attribute", "What"),
                Column("Value", "Reported", "short", 110),
                *(Column(name, name, hidden=True) for name in ("cluster", "hostname", "pool_id")),
            ],
            sort="Device",
            descending=False,
            width=14,
            height=6,
            empty="No device reports its health",
        ),
    ]

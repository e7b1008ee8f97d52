"""Recorded series of block devices and tiers of a node."""

from __future__ import annotations

from typing import Final

from clio_exporter.kit.rules.model import Group, Recording

STORAGE: Final = Group(
    name="clio-storage",
    rules=(
        Recording(
            record="bdev:clio_bdev_used:ratio",
            expr="""
            1 - max by ([[node]], pool_id, pool_name) (clio_bdev_free_bytes)
              / (max by ([[node]], pool_id, pool_name) (clio_bdev_capacity_bytes) > 0)
            """,
            what="allocated part of a device",
        ),
        Recording(
            record="bdev:clio_bdev_used_bytes:deriv1h",
            comment=(
                "Bytes a second by which the allocated part has grown over the last hour; "
                "negative while it shrinks."
            ),
            expr="-max by ([[node]], pool_id, pool_name) (deriv(clio_bdev_free_bytes[1h]))",
            what="growth, bytes a second over the last hour",
        ),
        Recording(
            record="bdev:clio_bdev_used_bytes:deriv5m",
            expr="-max by ([[node]], pool_id, pool_name) (deriv(clio_bdev_free_bytes[5m]))",
            what="over the last 5 minutes",
        ),
        Recording(
            record="bdev:clio_bdev_full_seconds:forecast1h",
            comment=(
                "Time until a device is full at the slower of a long and a recent pace: a burst is spread over the time before "
                "it, and a fill that has stopped is no forecast. Only what is known for half of the long window."
            ),
            expr="""
            max by ([[node]], pool_id, pool_name) (clio_bdev_free_bytes)
              /
            (
              (
                (bdev:clio_bdev_used_bytes:deriv1h < bdev:clio_bdev_used_bytes:deriv5m)
                  or
                bdev:clio_bdev_used_bytes:deriv5m
              ) > 0
            )
              and
            max by ([[node]], pool_id, pool_name) (clio_bdev_free_bytes offset 30m)
            """,
            what="seconds until it is full, by the slower of the pace of an hour and that of 5 minutes",
        ),
        Recording(
            record="bdev:clio_bdev_fill_steadiness:ratio1h",
            comment=(
                "R² of a straight line through the free bytes: the square of its slope times the variance of evenly spaced times "
                "(the window squared, by 12), by that of the values. Not there while nothing changes."
            ),
            expr="""
            clamp_max(
                bdev:clio_bdev_used_bytes:deriv1h ^ 2 * [[1h|seconds]] ^ 2 / 12
              /
                (max by ([[node]], pool_id, pool_name) (stdvar_over_time(clio_bdev_free_bytes[1h])) > 0),
              1
            )
            """,
            what="how steadily it fills or empties over an hour: 1 in a straight line",
        ),
        Recording(
            record="node:clio_bdev_idle:bool5m",
            comment="Space counts too: bytes that land in memory through a mapping are in no counter.",
            expr="""
            (
                max by ([[node]]) (changes(clio_bdev_free_bytes[5m]))
              + (
                  max by ([[node]]) (changes(clio_bdev_read_bytes_total[5m]))
                    or
                  0 * max by ([[node]]) (clio_bdev_free_bytes)
                )
              + (
                  max by ([[node]]) (changes(clio_bdev_written_bytes_total[5m]))
                    or
                  0 * max by ([[node]]) (clio_bdev_free_bytes)
                )
            ) == bool 0
            """,
            what="1 if no device has read, written, allocated or freed anything for 5 minutes",
        ),
        Recording(
            record="node:clio_bdev_capacity_bytes:sum",
            expr=("sum by ([[node]]) (max by ([[node]], pool_id, pool_name) (clio_bdev_capacity_bytes))"),
            what="size of all devices",
        ),
        Recording(
            record="node:clio_bdev_free_bytes:sum",
            expr=("sum by ([[node]]) (max by ([[node]], pool_id, pool_name) (clio_bdev_free_bytes))"),
            what="free in all devices",
        ),
        Recording(
            record="node:clio_bdev_used:ratio",
            expr="1 - node:clio_bdev_free_bytes:sum / (node:clio_bdev_capacity_bytes:sum > 0)",
            what="allocated part of all devices",
        ),
        Recording(
            record="node:clio_bdev_used_bytes:deriv1h",
            expr="sum by ([[node]]) (bdev:clio_bdev_used_bytes:deriv1h)",
            what="growth of all devices",
        ),
        Recording(
            record="node:clio_bdev_read_bytes:rate5m",
            expr="""
            sum by ([[node]]) (
              max by ([[node]], pool_id, pool_name) (rate(clio_bdev_read_bytes_total[5m]))
            )
            """,
            what="bytes read a second",
        ),
        Recording(
            record="node:clio_bdev_written_bytes:rate5m",
            expr="""
            sum by ([[node]]) (
              max by ([[node]], pool_id, pool_name) (rate(clio_bdev_written_bytes_total[5m]))
            )
            """,
            what="bytes written a second",
        ),
        Recording(
            record="node_tier:clio_bdev_capacity_bytes:sum",
            expr="""
            sum by ([[node]], type) (
                max by ([[node]], pool_id, pool_name) (clio_bdev_capacity_bytes)
              * on ([[node]], pool_id) group_left (type)
                max by ([[node]], pool_id, type) (clio_bdev_info)
            )
            """,
            what="size of the node's devices of a kind",
        ),
        Recording(
            record="node_tier:clio_bdev_free_bytes:sum",
            expr="""
            sum by ([[node]], type) (
                max by ([[node]], pool_id, pool_name) (clio_bdev_free_bytes)
              * on ([[node]], pool_id) group_left (type)
                max by ([[node]], pool_id, type) (clio_bdev_info)
            )
            """,
            what="free in them",
        ),
        Recording(
            record="node_tier:clio_bdev_read_bytes:rate5m",
            expr="""
            sum by ([[node]], type) (
                max by ([[node]], pool_id, pool_name) (rate(clio_bdev_read_bytes_total[5m]))
              * on ([[node]], pool_id) group_left (type)
                max by ([[node]], pool_id, type) (clio_bdev_info)
            )
            """,
            what="bytes read from them a second",
        ),
        Recording(
            record="node_tier:clio_bdev_written_bytes:rate5m",
            expr="""
            sum by ([[node]], type) (
                max by ([[node]], pool_id, pool_name) (rate(clio_bdev_written_bytes_total[5m]))
              * on ([[node]], pool_id) group_left (type)
                max by ([[node]], pool_id, type) (clio_bdev_info)
            )
            """,
            what="bytes written to them a second",
        ),
        Recording(
            record="safe_bdev:clio_safe_bdev_unavailable_members:count",
            comment=(
                "Members of an erasure-coded array that are faulty or still being rebuilt; 0 "
                "for a whole array."
            ),
            expr="""
            count by ([[node]], pool_id, pool_name) (
              max by ([[node]], pool_id, pool_name, index, role) (
                clio_safe_bdev_member_info{state!="active"}
              )
            )
              or
            0 * max by ([[node]], pool_id, pool_name) (clio_safe_bdev_parity_members)
            """,
            what="members of an array that are faulty or being rebuilt",
        ),
    ),
)

FORECAST: Final = Group(
    name="clio-forecast",
    interval="4m",
    rules=(
        Recording(
            record="bdev:clio_bdev_used_bytes:deriv6h",
            expr="-max by ([[node]], pool_id, pool_name) (deriv(clio_bdev_free_bytes[6h]))",
            what="over the last 6 hours",
        ),
        Recording(
            record="bdev:clio_bdev_full_seconds:forecast6h",
            comment="As that of an hour.",
            expr="""
            max by ([[node]], pool_id, pool_name) (clio_bdev_free_bytes)
              /
            (
              (
                (bdev:clio_bdev_used_bytes:deriv6h < bdev:clio_bdev_used_bytes:deriv1h)
                  or
                bdev:clio_bdev_used_bytes:deriv1h
              ) > 0
            )
              and
            max by ([[node]], pool_id, pool_name) (clio_bdev_free_bytes offset 3h)
            """,
            what="seconds until it is full, by the slower of the pace of 6 hours and that of an hour",
        ),
        Recording(
            record="bdev:clio_bdev_fill_steadiness:ratio6h",
            expr="""
            clamp_max(
                bdev:clio_bdev_used_bytes:deriv6h ^ 2 * [[6h|seconds]] ^ 2 / 12
              /
                (max by ([[node]], pool_id, pool_name) (stdvar_over_time(clio_bdev_free_bytes[6h])) > 0),
              1
            )
            """,
            what="how steadily it fills or empties over 6 hours: 1 in a straight line",
        ),
    ),
)

LATENCY: Final = Group(
    name="clio-latency",
    interval="4m",
    rules=(
        Recording(
            record="bdev:clio_bdev_read_latency_seconds:avg5m",
            expr=(
                "max by ([[node]], pool_id, pool_name) (avg_over_time(clio_bdev_read_latency_seconds[5m]))"
            ),
            what="modelled time of a 1 MiB read",
        ),
        Recording(
            record="bdev:clio_bdev_write_latency_seconds:avg5m",
            expr=(
                "max by ([[node]], pool_id, pool_name) (avg_over_time(clio_bdev_write_latency_seconds[5m]))"
            ),
            what="of a write",
        ),
        Recording(
            record="bdev:clio_bdev_read_latency_seconds:avg1d_offset1h",
            comment="The day that ended an hour ago: what is slow now does not yet count as usual.",
            expr="avg_over_time(bdev:clio_bdev_read_latency_seconds:avg5m[1d] offset 1h)",
            what="mean of the day that ended an hour ago",
        ),
        Recording(
            record="bdev:clio_bdev_write_latency_seconds:avg1d_offset1h",
            expr="avg_over_time(bdev:clio_bdev_write_latency_seconds:avg5m[1d] offset 1h)",
            what="the same of writes",
        ),
    ),
)

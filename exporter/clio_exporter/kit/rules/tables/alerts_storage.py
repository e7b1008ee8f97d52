"""Alerts about block devices and arrays of them."""

from __future__ import annotations

from typing import Final

from clio_exporter.kit.rules.model import Alert, Group

GROUPS: Final = (
    Group(
        name="clio-block-devices",
        rules=(
            Alert(
                name="ClioBdevAlmostFull",
                severity="warning",
                scope="node",
                wait="10m",
                dashboard="clio-storage",
                comment=(
                    "Not devices in memory: a fast tier is meant to be full while a slower one "
                    "has room (ClioNodeStorageAlmostFull)."
                ),
                expr="""
                (bdev:clio_bdev_used:ratio > [[device_full]])
                  unless on ([[node]], pool_id) clio_bdev_info{type=~"ram|hbm|pinned|noop"}
                """,
                summary="Block device {{ $labels.pool_name }} on [[where]] is almost full",
                description="{{ $value | humanizePercentage }} of the device is allocated.",
                when="over [[device_full|words]] allocated; not ram, hbm, pinned, noop",
            ),
            Alert(
                name="ClioNodeStorageAlmostFull",
                severity="warning",
                scope="node",
                wait="10m",
                dashboard="clio-storage",
                expr="node:clio_bdev_used:ratio > [[storage_full]]",
                summary="Storage of [[where]] is almost full",
                description=(
                    "{{ $value | humanizePercentage }} of all block devices of the node together "
                    "is allocated."
                ),
                when="over [[storage_full|words]] of all devices of the node",
            ),
            Alert(
                name="ClioBdevFillsWithin4Hours",
                severity="critical",
                scope="node",
                wait="15m",
                dashboard="clio-storage",
                comment="The last values of some minutes: an answer that is lost does not begin the wait anew.",
                expr="""
                (last_over_time(bdev:clio_bdev_full_seconds:forecast1h[3m]) < [[forecast_soon]])
                  and
                (last_over_time(bdev:clio_bdev_used:ratio[3m]) > [[forecast_from]])
                  and
                (last_over_time(bdev:clio_bdev_fill_steadiness:ratio1h[3m]) > [[forecast_steady]])
                  unless on ([[node]], pool_id)
                last_over_time(clio_bdev_info{type=~"ram|hbm|pinned|noop"}[3m])
                """,
                summary="Block device {{ $labels.pool_name }} on [[where]] will be full within [[forecast_soon|words]]",
                description=(
                    "It is full in {{ $value | humanizeDuration }} if it goes on at the pace of the last hour, or of the "
                    "last 5 minutes, whichever is slower. It has filled steadily to {{ with printf "
                    "\"bdev:clio_bdev_fill_steadiness:ratio1h{cluster='%s',node_id='%s',pool_id='%s'}\" $labels.cluster "
                    "$labels.node_id $labels.pool_id | query }}{{ . | first | value | humanizePercentage }}{{ end }} (100%: "
                    "a straight line)."
                ),
                when=(
                    "over [[forecast_from|words]], full in [[forecast_soon|words]] by the pace of the last hour and of the last "
                    "5 minutes, steadily; not in memory"
                ),
            ),
            Alert(
                name="ClioBdevFillsWithin3Days",
                severity="warning",
                scope="node",
                wait="1h",
                dashboard="clio-storage",
                expr="""
                (last_over_time(bdev:clio_bdev_full_seconds:forecast6h[10m]) < [[forecast_later]])
                  and
                (last_over_time(bdev:clio_bdev_used:ratio[10m]) > [[forecast_from]])
                  and
                (last_over_time(bdev:clio_bdev_fill_steadiness:ratio6h[10m]) > [[forecast_steady]])
                  unless on ([[node]], pool_id)
                last_over_time(clio_bdev_info{type=~"ram|hbm|pinned|noop"}[10m])
                """,
                summary="Block device {{ $labels.pool_name }} on [[where]] will be full within [[forecast_later|words]]",
                description=(
                    "It is full in {{ $value | humanizeDuration }} if it goes on at the pace of the last 6 hours, or of the "
                    "last hour, whichever is slower. It has filled steadily to {{ with printf "
                    "\"bdev:clio_bdev_fill_steadiness:ratio6h{cluster='%s',node_id='%s',pool_id='%s'}\" $labels.cluster "
                    "$labels.node_id $labels.pool_id | query }}{{ . | first | value | humanizePercentage }}{{ end }} (100%: "
                    "a straight line)."
                ),
                when=(
                    "over [[forecast_from|words]], full in [[forecast_later|words]] by the pace of the last 6 hours and of the last "
                    "hour, steadily; not in memory"
                ),
            ),
            Alert(
                name="ClioBdevLatencyHigh",
                severity="warning",
                scope="node",
                wait="15m",
                dashboard="clio-storage",
                comment=(
                    "Only devices in use: the latency is a model that learns from I/O. Below 1 ms"
                    " three times as slow is still fast."
                ),
                expr="""
                label_replace(
                  (bdev:clio_bdev_read_latency_seconds:avg5m > [[latency_floor]])
                    and
                  (bdev:clio_bdev_read_latency_seconds:avg5m > [[latency_factor]] * bdev:clio_bdev_read_latency_seconds:avg1d_offset1h)
                    and
                  (max by ([[node]], pool_id, pool_name) (rate(clio_bdev_reads_total[15m])) > 0),
                  "direction", "read", "", ""
                )
                  or
                label_replace(
                  (bdev:clio_bdev_write_latency_seconds:avg5m > [[latency_floor]])
                    and
                  (bdev:clio_bdev_write_latency_seconds:avg5m > [[latency_factor]] * bdev:clio_bdev_write_latency_seconds:avg1d_offset1h)
                    and
                  (max by ([[node]], pool_id, pool_name) (rate(clio_bdev_writes_total[15m])) > 0),
                  "direction", "write", "", ""
                )
                """,
                summary="Block device {{ $labels.pool_name }} on [[where]] has become slow",
                description=(
                    "By the model that the runtime learns from its I/O, a {{ $labels.direction }}"
                    " of 1 MiB takes {{ $value | humanizeDuration }}, more than [[latency_factor]] times what "
                    "it took in the day before."
                ),
                when="over [[latency_floor|words]], over [[latency_factor]] times the day before, in use",
            ),
            Alert(
                name="ClioBdevFailurePredicted",
                severity="warning",
                scope="node",
                wait="10m",
                dashboard="clio-storage",
                expr=(
                    "max by ([[node]], pool_id, pool_name) "
                    "(clio_bdev_predicted_time_to_live_seconds) < [[failure_predicted]]"
                ),
                summary="Block device {{ $labels.pool_name }} on [[where]] is predicted to fail",
                description="The runtime expects the device to fail in {{ $value | humanizeDuration }}.",
                when="predicted life under [[failure_predicted|words]]",
            ),
            Alert(
                name="ClioBdevFailureImminent",
                severity="critical",
                scope="node",
                wait="1m",
                dashboard="clio-storage",
                expr=(
                    "max by ([[node]], pool_id, pool_name) "
                    "(clio_bdev_predicted_time_to_live_seconds) < [[failure_imminent]]"
                ),
                summary="Block device {{ $labels.pool_name }} on [[where]] is about to fail",
                description="The runtime expects the device to fail in {{ $value | humanizeDuration }}.",
                when="predicted life under [[failure_imminent|words]]",
            ),
        ),
    ),
    Group(
        name="clio-arrays",
        rules=(
            Alert(
                name="ClioSafeBdevDegraded",
                severity="warning",
                scope="node",
                wait="5m",
                dashboard="clio-storage",
                expr="safe_bdev:clio_safe_bdev_unavailable_members:count > 0",
                summary="Array {{ $labels.pool_name }} on [[where]] is degraded",
                description="{{ $value }} of its members are faulty or being rebuilt.",
                when="a member not active",
            ),
            Alert(
                name="ClioSafeBdevRecovering",
                severity="info",
                scope="node",
                wait="1m",
                dashboard="clio-storage",
                expr="""
                (
                  max by ([[node]], pool_id, pool_name) (clio_safe_bdev_recovery_operations_completed)
                    /
                  (max by ([[node]], pool_id, pool_name) (clio_safe_bdev_recovery_operations) > 0)
                )
                  and
                (max by ([[node]], pool_id, pool_name) (clio_safe_bdev_recovery_active) == 1)
                """,
                summary="Array {{ $labels.pool_name }} on [[where]] is being rebuilt",
                description="{{ $value | humanizePercentage }} of the rebuild is done.",
                when="a rebuild is active",
            ),
            Alert(
                name="ClioSafeBdevOutOfSpares",
                severity="critical",
                scope="node",
                wait="1m",
                dashboard="clio-storage",
                expr="""
                (safe_bdev:clio_safe_bdev_unavailable_members:count >= max by ([[node]], pool_id, pool_name) (clio_safe_bdev_parity_members))
                  and
                (max by ([[node]], pool_id, pool_name) (clio_safe_bdev_max_failures) > 0)
                """,
                summary="Array {{ $labels.pool_name }} on [[where]] has no redundancy left",
                description=(
                    "{{ $value }} members are faulty or being rebuilt, as many as the array has "
                    "parity members: one more failure loses data."
                ),
                when="members not active at least as many as parity members",
            ),
        ),
    ),
)

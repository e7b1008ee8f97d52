"""Alerts about nodes: alive, answering, current."""

from __future__ import annotations

from typing import Final

from clio_exporter.kit.rules.model import Alert, Group

GROUPS: Final = (
    Group(
        name="clio-nodes",
        rules=(
            Alert(
                name="ClioNodeDown",
                severity="critical",
                scope="node",
                wait="1m",
                dashboard="clio-node",
                expr="""
                node:clio_node_up:max == 0
                  unless on ([[node]])
                clio_node_down_info{reason="hung"}
                """,
                summary="Runtime on [[where]] is down",
                description="The runtime has not answered for a minute; reason: {{ with printf \"clio_node_down_info{cluster='%s',node_id='%s'}\" $labels.cluster $labels.node_id | query }}{{ . | first | label \"reason\" }}{{ else }}unknown{{ end }}. Its workers and block devices are out of service.",
                when="down, for any reason but `hung`",
            ),
            Alert(
                name="ClioNodeHung",
                severity="critical",
                scope="node",
                wait="2m",
                dashboard="clio-node",
                comment=(
                    "Told apart from ClioNodeDown because the remedy is another one: there is a "
                    "process to look at, and to stop first."
                ),
                expr="""
                node:clio_node_up:max == 0
                  and on ([[node]])
                clio_node_down_info{reason="hung"}
                """,
                summary="Runtime on [[where]] is hung",
                description=(
                    "The process is there and accepts connections, but has answered nothing for 2 minutes."
                ),
                when="down, accepts connections but does not answer",
            ),
            Alert(
                name="ClioNodeFlapping",
                severity="warning",
                scope="node",
                dashboard="clio-node",
                comment=(
                    "resets() counts how often up fell from 1 to 0. Maintenance restarts a node once or twice, and a "
                    "loaded host loses an answer: neither alone nor together are they flapping."
                ),
                expr="""
                resets(node:clio_node_up:max[30m]) > [[flapping_outages]]
                  or
                changes(node:clio_node_start_time_seconds:max[30m]) > [[flapping_restarts]]
                """,
                summary="Runtime on [[where]] comes and goes",
                description='It went down, or was restarted, {{ $value | printf "%.0f" }} times in the last 30 minutes.',
                when="down 3 times, or 3 restarts, in 30 min",
            ),
            Alert(
                name="ClioNodeStatisticsStale",
                severity="warning",
                scope="node",
                wait="3m",
                dashboard="clio-node",
                comment=(
                    "By the change of the timestamp, not by its age: a node whose clock is wrong "
                    "is not stale."
                ),
                expr="""
                (time() - max by ([[node]]) (clio_node_sample_timestamp_seconds))
                  and on ([[node]])
                (max by ([[node]]) (changes(clio_node_sample_timestamp_seconds[2m])) == 0)
                  and on ([[node]])
                (node:clio_node_up:max == 1)
                """,
                summary="Statistics of [[where]] stand still",
                description=(
                    "The runtime answers, but its newest system sample is {{ $value | "
                    "humanizeDuration }} old; it takes one every second. CPU, memory and GPU "
                    "figures of this node are not current."
                ),
                when="up, no new system sample for 2 min",
            ),
            Alert(
                name="ClioNodeClockWrong",
                severity="warning",
                scope="node",
                wait="10m",
                dashboard="clio-node",
                comment=(
                    "The runtime takes a sample every second, so its newest is as old as the clocks differ. Age at the time of "
                    "the scrape; samples that stand still are ClioNodeStatisticsStale."
                ),
                expr="""
                max by ([[node]]) (
                  abs(timestamp(clio_node_sample_timestamp_seconds) - clio_node_sample_timestamp_seconds)
                ) > [[clock_wrong]]
                  and on ([[node]])
                (max by ([[node]]) (changes(clio_node_sample_timestamp_seconds[2m])) > 0)
                """,
                summary="The clock of [[where]] is wrong",
                description=(
                    "It differs by {{ $value | humanizeDuration }} from that of Prometheus: start times of the node's runtime, "
                    "and the times in its log, are off by as much."
                ),
                when="newest system sample [[clock_wrong|words]] off, while new ones come",
            ),
        ),
    ),
)

"""Alerts about whole clusters, and the servers that have a part of one."""

from __future__ import annotations

from typing import Final

from clio_exporter.kit.rules.model import Alert, Group

GROUPS: Final = (
    Group(
        name="clio-clusters",
        rules=(
            Alert(
                name="ClioClusterNoLeader",
                severity="critical",
                scope="cluster",
                wait="2m",
                dashboard="clio-topology",
                expr="cluster:clio_node_leader:sum == 0",
                summary="[[The_cluster]] has no leader",
                description="None of the nodes that answer says that it leads.",
                when="nodes answer, none leads",
            ),
            Alert(
                name="ClioClusterSeveralLeaders",
                severity="critical",
                scope="cluster",
                wait="1m",
                dashboard="clio-topology",
                expr="cluster:clio_node_leader:sum > 1",
                summary="[[The_cluster]] has {{ $value }} leaders",
                description=(
                    "More than one node says that it leads: the cluster may have split, or these "
                    "are several clusters under one name."
                ),
                when="more than 1 leads",
            ),
            Alert(
                name="ClioClusterManyNodesDown",
                severity="critical",
                scope="cluster",
                wait="1m",
                dashboard="clio-health",
                expr="""
                (1 - cluster:clio_node_up:ratio > [[nodes_down_ratio]])
                  and
                (cluster:clio_nodes:count - cluster:clio_node_up:sum >= [[nodes_down]])
                """,
                summary="[[The_cluster]] has lost {{ $value | humanizePercentage }} of its nodes",
                description="Of {{ with printf \"cluster:clio_nodes:count{cluster='%s'}\" $labels.cluster | query }}{{ . | first | value }}{{ end }} nodes, {{ with printf \"cluster:clio_node_up:sum{cluster='%s'}\" $labels.cluster | query }}{{ . | first | value }}{{ end }} answer. Alerts of the single nodes are held back.",
                when="more than [[nodes_down_ratio|words]] and at least [[nodes_down]] nodes down",
            ),
        ),
    ),
    Group(
        name="clio-shards",
        rules=(
            Alert(
                name="ClioShardDown",
                severity="critical",
                scope="exporter",
                wait="2m",
                dashboard="clio-exporter",
                comment=(
                    "Where this server has its nodes from others: those of one that is down are "
                    "in no sum any more."
                ),
                expr='up{job="[[shards_job]]"} == 0',
                summary="The Prometheus server {{ $labels.instance }} is down",
                description=(
                    "Its share of the nodes is missing here: cluster figures are too low, and "
                    "alerts about these nodes do not fire."
                ),
                when="`up` of a federated server 0",
            ),
        ),
    ),
)

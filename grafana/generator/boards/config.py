"""Configuration: what the runtimes are configured to do, and where nodes differ."""

from __future__ import annotations

from clio_client.config import in_common
from grafana.generator import links, thresholds, variables
from grafana.generator.board import Board
from grafana.generator.panels import Column, Section, Tile, number, rows
from grafana.generator.queries import CLUSTER, KEYS, linkable

_EMPTY = "No runtime configuration could be read"


def board() -> Board:
    """The dashboard."""
    return Board(
        uid="clio-config",
        question="What the runtimes are configured to do, where nodes differ, who has yet to read a change.",
        variables=[
            variables.cluster(),
            variables.text_filter(
                "filter", "Search", "Part of a path or of a value, or a regular expression; case is ignored."
            ),
        ],
        sections=[
            Section("", _totals()),
            Section("Active configuration", [_values(), _differences()]),
            Section("Files", [_pending(), _files()]),
        ],
    )


def _totals() -> list[Tile]:
    return [
        number(
            "Settings",
            "Different paths in the runtimes' configuration files (clio_config_info).",
            f"count(max by (cluster, path) (clio_config_info{{{CLUSTER}}}))",
            width=5,
            decimals=0,
            empty=_EMPTY,
        ),
        number(
            "Settings that differ",
            "Settings that do not have the same value on all nodes (clio_config_info). What is each node's own does not "
            "count: paths of files, ports, the namespace of shared memory.",
            f"count({_several()}) or 0 * max(clio_config_info{{{CLUSTER}}})",
            band=thresholds.ANY_IS_WORTH_A_LOOK,
            width=5,
            decimals=0,
            empty=_EMPTY,
        ),
        number(
            "Different files",
            "Different contents among the configuration files of a cluster, the most of any cluster, without what is "
            "each node's own (clio_config_digest_info). 1 means all nodes are configured alike.",
            f"max(count by (cluster) (max by (cluster, sha256) (clio_config_digest_info{{{CLUSTER}}})))",
            band=thresholds.SEVERAL_FILES,
            width=5,
            decimals=0,
            empty=_EMPTY,
        ),
        number(
            "Unreadable files",
            "Configuration files that the exporter could not read (clio_config_load_success = 0). Anything "
            "but 0 is bad.",
            f"sum(1 - max by ({KEYS}, file) (clio_config_load_success{{{CLUSTER}}}))",
            band=thresholds.ANY_IS_BAD,
            width=4,
            decimals=0,
            empty=_EMPTY,
        ),
        number(
            "Nodes to restart",
            "Nodes whose file was changed after their runtime started, which reads it only then "
            "(clio_config_modified_timestamp_seconds, clio_node_start_time_seconds).",
            f"count({_changed_since_start()}) or 0 * max(clio_config_load_success{{{CLUSTER}}})",
            band=thresholds.ANY_IS_WORTH_A_LOOK,
            width=5,
            decimals=0,
            empty=_EMPTY,
        ),
    ]


def _changed_since_start() -> str:
    """Seconds between start and change, one value a node: by its own file, or by the cluster's one file."""
    start = f"max by ({KEYS}) (clio_node_start_time_seconds{{{CLUSTER}}})"
    own = f'max by ({KEYS}) (clio_config_modified_timestamp_seconds{{{CLUSTER}, node_id!=""}})'
    common = f'max by (cluster) (clio_config_modified_timestamp_seconds{{{CLUSTER}, node_id=""}})'
    return f"({own} - {start} > 0) or (-({start} - on (cluster) group_left () {common}) > 0)"


def _values() -> Tile:
    def where(label: str) -> str:
        return f'max by ({KEYS}, path, value) (clio_config_info{{{CLUSTER}, {label}=~"(?i).*$filter.*"}})'

    return rows(
        "Active configuration",
        "Every value of the configuration files, by its path, and how many files have it; secrets are masked "
        "(clio_config_info). Narrow it with the search box, or filter and sort by a heading.",
        [linkable(f"count by (cluster, path, value) ({where('path')} or {where('value')})")],
        [
            Column("path", "Path", width=330),
            Column("value", "Value"),
            Column("Value", "Files", "none", 80),
            Column("cluster", "Cluster", width=110, mapping={"All": ("unnamed", thresholds.IDLE)}),
        ],
        sort="Path",
        descending=False,
        height=13,
        empty="Nothing matches the search",
    )


def _several() -> str:
    """Settings with more than one value, but for those that are each node's own."""
    paths = "|".join(path.replace(".", "[.]") for path in in_common.OWN)
    file = in_common.FILE.replace("\\", "\\\\")
    common = f'clio_config_info{{{CLUSTER}, path!~"{paths}", value!~"({file}).*"}}'
    return f"count by (cluster, path) (max by (cluster, path, value) ({common})) > 1"


def _differences() -> Tile:
    return rows(
        "Differences between nodes",
        "Settings that have more than one value within a cluster, with the node of each value "
        "(clio_config_info), without what is each node's own: paths of files, ports, the namespace of shared memory.",
        [
            linkable(
                f"max by (cluster, path, value, node_id, hostname) (clio_config_info{{{CLUSTER}}}) "
                f"and on (cluster, path) ({_several()})"
            )
        ],
        [
            Column("path", "Path", width=330),
            Column("node_id", "Node", width=70, links=[links.node_from_row()]),
            Column("value", "Value"),
            Column("hostname", "Host", width=120),
            Column("cluster", "cluster", hidden=True),
        ],
        sort="Path",
        descending=False,
        height=7,
        empty="All nodes have the same settings",
    )


def _pending() -> Tile:
    return rows(
        "Changed since the runtime started",
        "Nodes that run with an older configuration than the file's: it was changed after the runtime "
        "started, by so much (clio_config_modified_timestamp_seconds - clio_node_start_time_seconds). "
        "Restart them to apply it.",
        [linkable(_changed_since_start())],
        [
            Column("node_id", "Node", width=70, links=[links.node_from_row()]),
            Column("hostname", "Host"),
            Column("Value", "Changed after start", "dtdurations", 170),
            Column("cluster", "Cluster", width=110, mapping={"All": ("unnamed", thresholds.IDLE)}),
        ],
        sort="Node",
        descending=False,
        height=5,
        empty="Every node runs with its file as it is",
    )


def _files() -> Tile:
    keys = "cluster, node_id, hostname, file"
    return rows(
        "Configuration files",
        "Each file that the exporter reads: whether it could, and when it was last changed "
        "(clio_config_load_success, clio_config_modified_timestamp_seconds). One without a node counts for "
        "the whole cluster.",
        [
            linkable(f"max by ({keys}) (clio_config_load_success{{{CLUSTER}}})"),
            linkable(f"1000 * max by ({keys}) (clio_config_modified_timestamp_seconds{{{CLUSTER}}})"),
        ],
        [
            Column("node_id", "Node", width=90),
            Column("hostname", "Host", width=130),
            Column("file", "File"),
            Column("A", "Readable", width=90, cell="colour", mapping=thresholds.SUCCESS),
            Column("B", "Changed", "dateTimeAsIso", 170),
            Column("cluster", "Cluster", width=110, mapping={"All": ("unnamed", thresholds.IDLE)}),
        ],
        sort="Node",
        descending=False,
        height=8,
        empty=_EMPTY,
    )

"""Exporter: does monitoring itself work, what does it cost, who used the control API."""

from __future__ import annotations

from grafana.generator import thresholds, variables
from grafana.generator.board import Board
from grafana.generator.panels import Query, Section, Tile, lines, number, states
from grafana.generator.queries import CLUSTER, FEW, per_node

_JOB = 'job=~"$job"'


def board() -> Board:
    """The dashboard."""
    return Board(
        uid="clio-exporter",
        question="Does monitoring itself work, what does it cost, and who used the control API.",
        variables=[
            variables.cluster(),
            variables.job('{__name__=~"clio_exporter_build_info|clio_control_api_build_info"}'),
        ],
        sections=[
            Section("", _totals()),
            Section("Scrapes", _scrapes()),
            Section("Nodes", _nodes()),
            Section("Process", _process()),
            Section("Actions through the control API", _control(), collapsed=True),
        ],
    )


def _totals() -> list[Tile]:
    return [
        number(
            "Exporters up",
            "Share of the exporters and control APIs that Prometheus can scrape (up). Under 100 % is bad: what "
            "they watch is not seen.",
            f"avg(up{{{_JOB}}})",
            unit="percentunit",
            band=thresholds.UP_RATIO,
            decimals=0,
            width=4,
        ),
        number(
            "Collectors failing",
            "Collectors for which a node that is up did not answer, or answered what could not be read "
            "(clio_collector_success = 0). Anything but 0 is bad.",
            f"sum(1 - clio_collector_success{{{_JOB}}})",
            band=thresholds.ANY_IS_BAD,
            decimals=0,
            width=4,
        ),
        number(
            "Scrape",
            "Time of the last scrape, the slowest exporter (scrape_duration_seconds). Bad near Prometheus's "
            "scrape timeout, 10 s unless configured.",
            f"max(scrape_duration_seconds{{{_JOB}}})",
            unit="s",
            band=thresholds.SCRAPE_TIME,
            width=4,
            trend=True,
        ),
        number(
            "Series",
            "Samples of the last scrape, all exporters (scrape_samples_scraped).",
            f"sum(scrape_samples_scraped{{{_JOB}}})",
            decimals=0,
            width=4,
        ),
        number(
            "Settings",
            "Whether the last reload of the exporter's settings succeeded "
            "(clio_exporter_config_last_reload_successful). Failed: it runs with the previous ones.",
            f"min(clio_exporter_config_last_reload_successful{{{_JOB}}})",
            mapping=thresholds.SUCCESS,
            width=4,
        ),
        number(
            "Version",
            "Version of the exporter (clio_exporter_build_info).",
            f"count by (version) (clio_exporter_build_info{{{_JOB}}})",
            label="version",
            width=4,
        ),
    ]


def _scrapes() -> list[Tile]:
    return [
        lines(
            "Time by collector",
            "Time until the last node had answered what a collector asked, and its samples were made "
            "(clio_collector_duration_seconds). From 1 s it wants a look.",
            [Query(f"max by (collector) (clio_collector_duration_seconds{{{_JOB}}})", "{{collector}}")],
            unit="s",
            width=8,
        ),
        states(
            "Collectors failing when",
            "Whether every node that is up answered what each collector asked (clio_collector_success).",
            [Query(f"min by (collector) (clio_collector_success{{{_JOB}}})", "{{collector}}")],
            thresholds.SUCCESS,
            width=8,
        ),
        lines(
            "Time of a scrape",
            "Time that Prometheus waited for each exporter (scrape_duration_seconds). Bad near the scrape "
            "timeout, 10 s unless configured.",
            [Query(f"max by (instance) (scrape_duration_seconds{{{_JOB}}})", "{{instance}}")],
            unit="s",
            band=thresholds.SCRAPE_TIME,
            show_band=False,
            width=8,
        ),
        lines(
            "Series by exporter",
            "Samples of each scrape (scrape_samples_scraped). Grows with nodes, workers, devices and methods "
            "that have learned.",
            [Query(f"max by (instance) (scrape_samples_scraped{{{_JOB}}})", "{{instance}}")],
            decimals=0,
            width=8,
        ),
        lines(
            "HTTP requests",
            "Requests that the exporters answered a second, by route and status "
            "(clio_exporter_http_requests_total). 5xx is bad.",
            [
                Query(
                    "sum by (handler, code) "
                    f"(rate(clio_exporter_http_requests_total{{{_JOB}}}[$__rate_interval]))",
                    "{{handler}} {{code}}",
                )
            ],
            unit="reqps",
            width=8,
        ),
        lines(
            "Collections",
            "Collections from all nodes a second, and scrapes that were served by one under way "
            "(clio_exporter_collections_total, clio_exporter_collections_shared_total).",
            [
                Query(
                    f"sum(rate(clio_exporter_collections_total{{{_JOB}}}[$__rate_interval]))",
                    "started",
                    "blue",
                ),
                Query(
                    f"sum(rate(clio_exporter_collections_shared_total{{{_JOB}}}[$__rate_interval]))",
                    "shared",
                    "purple",
                ),
            ],
            unit="ops",
            width=8,
        ),
    ]


def _nodes() -> list[Tile]:
    return [
        lines(
            "Slowest nodes",
            f"The {FEW} nodes that took longest to answer all questions of a scrape, or to fail "
            "(clio_node_probe_duration_seconds). From 1 s it wants a look; at 3 s, unless configured, the "
            "exporter gives up.",
            [
                Query(
                    f"topk({FEW}, {per_node('clio_node_probe_duration_seconds', CLUSTER)})",
                    "node {{node_id}} ({{hostname}})",
                )
            ],
            unit="s",
            band=thresholds.ALL_ANSWERS,
            show_band=False,
            width=12,
        ),
        lines(
            "Answers of the runtimes",
            "Requests sent to runtimes a second, and their answers: received in time, late, or unexpected "
            "(clio_exporter_runtime_requests_total, clio_exporter_runtime_answers_total). Late and unexpected "
            "ones are bad when they go on.",
            [
                Query(
                    f"sum(rate(clio_exporter_runtime_requests_total{{{_JOB}}}[$__rate_interval]))",
                    "requests",
                    thresholds.IDLE,
                    dashed=True,
                ),
                Query(
                    f"sum by (fate) (rate(clio_exporter_runtime_answers_total{{{_JOB}}}[$__rate_interval]))",
                    "{{fate}}",
                ),
            ],
            unit="reqps",
            width=12,
        ),
        lines(
            "Connections to runtimes",
            "Runtimes that the exporters are connected to (clio_exporter_runtime_connections), and members of "
            "the clusters (clio_cluster_nodes). Fewer connections than members: nodes are down.",
            [
                Query(f"sum(clio_exporter_runtime_connections{{{_JOB}}})", "connected", "blue"),
                Query(
                    f"sum(max by (cluster) (clio_cluster_nodes{{{CLUSTER}}}))",
                    "members",
                    thresholds.IDLE,
                    dashed=True,
                ),
            ],
            decimals=0,
            width=12,
            height=7,
        ),
        lines(
            "Connections opened",
            "Connections to runtimes that were opened a second (clio_exporter_runtime_connections_opened_total). "
            "Steadily above 0: nodes come and go.",
            [
                Query(
                    "sum by (instance) "
                    f"(rate(clio_exporter_runtime_connections_opened_total{{{_JOB}}}[$__rate_interval]))",
                    "{{instance}}",
                )
            ],
            unit="cps",
            width=12,
            height=7,
        ),
    ]


def _process() -> list[Tile]:
    def own(metric: str) -> str:
        return f"max by (instance) ({metric}{{{_JOB}}})"

    return [
        lines(
            "Processor",
            "CPU seconds a second of each exporter (process_cpu_seconds_total). Near 1 it is at its limit: "
            "shard it.",
            [
                Query(
                    f"max by (instance) (rate(process_cpu_seconds_total{{{_JOB}}}[$__rate_interval]))",
                    "{{instance}}",
                )
            ],
            unit="percentunit",
            width=8,
            height=7,
        ),
        lines(
            "Memory",
            "Memory that each exporter occupies (process_resident_memory_bytes). Steady growth is bad.",
            [Query(own("process_resident_memory_bytes"), "{{instance}}")],
            unit="bytes",
            width=8,
            height=7,
        ),
        lines(
            "Open files",
            "File descriptors of each exporter and how many it may have (process_open_fds, process_max_fds).",
            [
                Query(own("process_open_fds"), "open {{instance}}"),
                Query(own("process_max_fds"), "limit {{instance}}", thresholds.IDLE, dashed=True),
            ],
            decimals=0,
            width=8,
            height=7,
        ),
    ]


def _control() -> list[Tile]:
    actions = f"clio_control_actions_total{{{_JOB}}}"
    return [
        lines(
            "Control actions",
            "Shutdowns and restarts asked of the control API in each interval, by outcome "
            "(clio_control_actions_total). Anything but success wants a look.",
            [
                Query(
                    f"sum by (action, outcome) (increase({actions}[$__rate_interval])) > 0",
                    "{{action}}: {{outcome}}",
                )
            ],
            points=True,
            decimals=0,
            width=12,
            empty="No action was asked for",
        ),
        lines(
            "Time of control actions",
            "Mean time from the request of a shutdown or restart to its outcome "
            "(clio_control_action_duration_seconds).",
            [
                Query(
                    f"sum by (action) (rate(clio_control_action_duration_seconds_sum{{{_JOB}}}[$__rate_interval])) "
                    "/ (sum by (action) "
                    f"(rate(clio_control_action_duration_seconds_count{{{_JOB}}}[$__rate_interval])) > 0)",
                    "{{action}}",
                )
            ],
            unit="s",
            points=True,
            width=12,
            empty="No action was asked for",
        ),
    ]

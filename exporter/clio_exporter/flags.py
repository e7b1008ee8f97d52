"""The command line: flags of the settings' tables, and those that no file has."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from clio_client.config import table
from clio_client.config.settings import CLUSTER, RUNTIME
from clio_client.config.table import Kind, Setting
from clio_exporter.collectors import COLLECTORS
from clio_exporter.settings import COLLECTOR, LABELS, NAMES, PROBE, Settings, load_settings
from clio_web import logs
from clio_web.options import WebOptions

_WEB = WebOptions()

FILE = Setting(
    "path", table.PATH, None, "settings file (YAML), see docs/configuration.md", flag="--config.file"
)
WEB = (
    Setting(
        "listen_addresses",
        Kind(lambda value: tuple(item.text() for item in value.sequence()), "[HOST]:PORT", action="append"),
        _WEB.listen_addresses, "address to listen on, may be repeated; no host means all",
        flag="--web.listen-address", shown=_WEB.listen_addresses[0],
    ),
    Setting(
        "telemetry_path", Kind(table.TEXT.read, "PATH"), _WEB.telemetry_path, "path of the metrics",
        flag="--web.telemetry-path",
    ),
    Setting(
        "config_file", Kind(lambda value: Path(value.text()) if value.text() else None, "FILE"), None,
        "TLS, basic auth and response headers, in the Prometheus exporter-toolkit format",
        flag="--web.config.file",
    ),
    Setting(
        "disable_exporter_metrics", table.BOOLEAN, _WEB.disable_exporter_metrics,
        "leave out what the exporter says of itself (clio_exporter_*, process_*, python_*)",
        flag="--web.disable-exporter-metrics",
    ),
    Setting(
        "grafana_url", Kind(table.TEXT.read, "URL"), _WEB.grafana_url,
        "address of Grafana, for links on the landing page", flag="--web.grafana-url", shown="none",
    ),
    Setting(
        "docs_url", Kind(table.TEXT.read, "URL"), _WEB.docs_url,
        "address of the documentation, for a link on the landing page", flag="--web.docs-url", shown="none",
        more="The runbooks are served by the exporter itself.",
    ),
    Setting(
        "max_requests", table.integer(0, 999_999), _WEB.max_requests,
        "scrapes in progress at once; 503 beyond, 0 for no limit", flag="--web.max-requests",
    ),
    Setting(
        "max_connections_per_address", table.integer(1, 512), _WEB.max_connections_per_address,
        "connections of one client address at once", flag="--web.max-connections-per-address",
        more="Beyond, the one of them that has been idle longest is closed. Of 512 in all, half: what some "
        "forty browsers behind one NAT or proxy keep open.",
    ),
    Setting(
        "enable_lifecycle", table.BOOLEAN, _WEB.enable_lifecycle,
        "allow a reload by POST to /-/reload", flag="--web.enable-lifecycle",
        more="SIGHUP reloads in any case.",
    ),
    Setting(
        "allowed_hosts",
        Kind(lambda value: tuple(i.text().lower() for i in value.sequence()), "HOST", action="append"),
        _WEB.allowed_hosts, "name by which this service is asked, may be repeated; others are refused",
        flag="--web.allowed-host", shown="any",
        more="Addresses and localhost are always allowed. Keeps out web pages whose name is made to lead "
        "here (DNS rebinding).",
    ),
    Setting(
        "scrape_timeout", table.duration(0.001, 86400), _WEB.scrape_timeout,
        "deadline of a scrape that comes without Prometheus's timeout header", flag="--web.scrape-timeout",
    ),
    Setting(
        "timeout_offset", table.duration(0, 86400), _WEB.timeout_offset,
        "taken off Prometheus's timeout, at most half of it", flag="--timeout-offset",
    ),
)  # fmt: skip
SD = (
    Setting(
        "file", table.PATH, None, "write this exporter as a target for Prometheus's file_sd here, and remove "
        "it at the end", flag="--sd.file", shown="none", more="The name ends in `.json`.",
    ),
    Setting(
        "address", Kind(lambda value: value.text(), "HOST:PORT"), None, "address in it",
        flag="--sd.address", shown="that of the first listener, this host's name where it is any",
    ),
    Setting(
        "lease", table.duration(1, 3600), 60.0, "how long the file counts after its last renewal",
        flag="--sd.lease", more="It is renewed three times in this time.",
    ),
)  # fmt: skip
LOG = (
    Setting("level", table.choice(*logs.LEVELS), "info", "what is logged", flag="--log.level"),
    Setting("log_format", table.choice(*logs.FORMATS), "logfmt", "how it is written", flag="--log.format"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags shared by serving and `scrape`. What is not given comes from the settings file."""
    table.add_arguments(parser.add_argument_group("cluster"), (FILE, *CLUSTER))
    table.add_arguments(parser.add_argument_group("runtime"), RUNTIME)
    collectors = parser.add_argument_group("collectors")
    collectors.add_argument(
        "--collector.disable-defaults",
        dest="disable_defaults",
        action="store_true",
        help="run only the collectors that are switched on by flags",
    )
    for collector in COLLECTORS:
        collectors.add_argument(
            f"--collector.{collector.name}",
            dest=f"collector_{collector.name}",
            action=argparse.BooleanOptionalAction,
            default=None,
            help=f"switch the {collector.name} collector on or off "
            f"({'on' if collector.on_by_default else 'off'} by default)",
        )
    table.add_arguments(collectors, COLLECTOR)
    table.add_arguments(parser.add_argument_group("labels"), LABELS)


def add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of serving: `/probe`, HTTP and logs."""
    for title, settings in (("probe", PROBE), ("HTTP", WEB), ("discovery by file", SD), ("logging", LOG)):
        table.add_arguments(parser.add_argument_group(title), settings)


def settings(args: argparse.Namespace) -> Settings:
    """The settings file named by the arguments, or the defaults, with the other arguments laid over it.

    Raises:
        ConfigError: the file, or a flag's value, cannot be used.
    """
    given = vars(args)
    base = load_settings(Path(args.config_file)) if args.config_file else Settings()
    if args.disable_defaults:
        bare = replace(base.collectors, enabled=frozenset(), added=frozenset())
        base = replace(base, collectors=bare)
    switches = {name: on for name in NAMES if (on := given[f"collector_{name}"]) is not None}
    flags = (*CLUSTER, *RUNTIME, *COLLECTOR, *PROBE, *LABELS)
    return base.with_overrides(
        switches, **{entry.name: given.get(entry.dest) for entry in flags if entry.flag}
    )


def web_options(args: argparse.Namespace) -> WebOptions:
    """The web settings from parsed arguments. Raises `ConfigError`."""
    return WebOptions(**table.resolved(WEB, vars(args)))

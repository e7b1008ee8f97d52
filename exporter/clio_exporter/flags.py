"""The command line: flags of the settings' tables, and those that no file has."""

from __future__ import annotations

import argparse
from pathlib import Path

from clio_client.config import table
from clio_client.config.settings import CLUSTER, RUNTIME
from clio_client.config.table import Kind, Setting
from clio_exporter.settings import COLLECTOR, NAMES, PROBE, Settings, load_settings
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
        "max_requests", table.integer(0, 999_999), _WEB.max_requests,
        "scrapes in progress at once; 503 beyond, 0 for no limit", flag="--web.max-requests",
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
LOG = (
    Setting("level", table.choice(*logs.LEVELS), "info", "what is logged", flag="--log.level"),
    Setting("log_format", table.choice(*logs.FORMATS), "logfmt", "how it is written", flag="--log.format"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags shared by serving and `scrape`. What is not given comes from the settings file."""
    table.add_arguments(parser.add_argument_group("cluster"), (FILE, *CLUSTER))
    table.add_arguments(parser.add_argument_group("runtime"), RUNTIME)
    collectors = parser.add_argument_group("collectors")
    for name in NAMES:
        collectors.add_argument(
            f"--collector.{name}",
            dest=f"collector_{name}",
            action=argparse.BooleanOptionalAction,
            default=None,
            help=f"switch the {name} collector on or off",
        )
    table.add_arguments(collectors, COLLECTOR)


def add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of serving: `/probe`, HTTP and logs."""
    for title, settings in (("probe", PROBE), ("HTTP", WEB), ("logging", LOG)):
        table.add_arguments(parser.add_argument_group(title), settings)


def settings(args: argparse.Namespace) -> Settings:
    """The settings file named by the arguments, or the defaults, with the other arguments laid over it.

    Raises:
        ConfigError: the file, or a flag's value, cannot be used.
    """
    given = vars(args)
    base = load_settings(Path(args.config_file)) if args.config_file else Settings()
    switches = {name: on for name in NAMES if (on := given[f"collector_{name}"]) is not None}
    flags = (*CLUSTER, *RUNTIME, *COLLECTOR, *PROBE)
    return base.with_overrides(
        switches, **{entry.name: given.get(entry.dest) for entry in flags if entry.flag}
    )


def web_options(args: argparse.Namespace) -> WebOptions:
    """The web settings from parsed arguments. Raises `ConfigError`."""
    return WebOptions(**table.resolved(WEB, vars(args)))

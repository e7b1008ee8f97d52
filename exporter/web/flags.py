"""Command-line flags of the web layer and of logging."""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path

from exporter import logs
from exporter.web import options as o

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)?", re.ASCII)
_UNITS = {None: 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the `--web.*`, `--timeout-offset` and `--log.*` flags."""
    web = parser.add_argument_group("HTTP")
    web.add_argument(
        "--web.listen-address",
        dest="web_listen_address",
        action="append",
        metavar="[HOST]:PORT",
        help=f"address to listen on, may be repeated; no host means all (default {o.DEFAULT_LISTEN_ADDRESS})",
    )
    web.add_argument(
        "--web.telemetry-path",
        dest="web_telemetry_path",
        default=o.DEFAULT_TELEMETRY_PATH,
        metavar="PATH",
        help="path of the metrics (default %(default)s)",
    )
    web.add_argument(
        "--web.config.file",
        dest="web_config_file",
        default="",
        metavar="FILE",
        help="TLS, basic auth and response headers, in the Prometheus exporter-toolkit format",
    )
    web.add_argument(
        "--web.max-requests",
        dest="web_max_requests",
        type=_count,
        default=o.DEFAULT_MAX_REQUESTS,
        metavar="N",
        help="scrapes in progress at once; 503 beyond, 0 for no limit (default %(default)s)",
    )
    web.add_argument(
        "--web.scrape-timeout",
        dest="web_scrape_timeout",
        type=_positive_duration,
        default=o.DEFAULT_SCRAPE_TIMEOUT,
        metavar="DURATION",
        help="deadline of a scrape that comes without Prometheus's timeout header (default 10s)",
    )
    web.add_argument(
        "--timeout-offset",
        dest="timeout_offset",
        type=duration,
        default=o.DEFAULT_TIMEOUT_OFFSET,
        metavar="DURATION",
        help="taken off Prometheus's timeout, at most half of it (default 0.25s)",
    )
    log = parser.add_argument_group("logging")
    log.add_argument(
        "--log.level",
        dest="log_level",
        choices=tuple(logs.LEVELS),
        default="info",
        help="(default %(default)s)",
    )
    log.add_argument(
        "--log.format",
        dest="log_format",
        choices=logs.FORMATS,
        default="logfmt",
        help="(default %(default)s)",
    )


def web_options(args: argparse.Namespace) -> o.WebOptions:
    """The web settings from parsed arguments."""
    return o.WebOptions(
        listen_addresses=tuple(args.web_listen_address or (o.DEFAULT_LISTEN_ADDRESS,)),
        telemetry_path=args.web_telemetry_path,
        config_file=Path(args.web_config_file) if args.web_config_file else None,
        max_requests=args.web_max_requests,
        timeout_offset=args.timeout_offset,
        scrape_timeout=args.web_scrape_timeout,
    )


def duration(text: str) -> float:
    """Seconds from `0.25`, `250ms`, `10s`, `2m` or `1h`, for use as an argparse type."""
    match = _DURATION.fullmatch(text)
    seconds = float(match[1]) * _UNITS[match[2]] if match else math.nan
    if not math.isfinite(seconds):
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration; write for example 0.25, 250ms or 10s")
    return seconds


def _positive_duration(text: str) -> float:
    seconds = duration(text)
    if seconds <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} must be above 0")
    return seconds


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 6):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")
    return int(text)

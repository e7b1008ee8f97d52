"""The subcommand: options, the source of the metrics, and how it is shown."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from clio_client.config import table
from clio_client.config.errors import ConfigError
from clio_client.config.fields import Field
from clio_client.config.table import Kind, Setting
from clio_client.errors import TransportUnavailableError
from clio_client.search import Search, SearchError, parse_search
from clio_exporter import flags
from clio_exporter.messages import failed
from clio_exporter.service_client import Service, service_url
from clio_exporter.top.sources import SECONDS, Nodes, Remote, Source, SourceError, next_frame
from clio_exporter.top.view import SORTS, printed

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2


def _search(value: Field) -> Search:
    try:
        return parse_search(value.text())
    except SearchError as error:
        raise value.error(f"is no search: {error}", "Write it as in the search box") from None


OPTIONS: Final = (
    Setting(
        "source", Kind(service_url, "URL"), None, "ask this exporter instead of the nodes", flag="--from",
        shown="the nodes",
    ),
    Setting("interval", table.duration(0.5, 3600), 2.0, "time between two looks", flag="--interval"),
    Setting("search", Kind(_search), Search(), "nodes to show, as in the search box", flag="--search",
            shown="all"),
    Setting("sort", table.choice(*SORTS), "node", "order", flag="--sort"),
    Setting("once", table.BOOLEAN, False, "print one frame, after one interval, and exit", flag="--once"),
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `top`."""
    parser.description = (
        "The cluster live in this terminal. Keys: Enter opens a node, / searches, s sorts, f freezes, "
        "q leaves. Needs the extra: pip install 'clio-exporter[top]'; --once does not."
    )
    flags.add_arguments(parser)
    table.add_arguments(parser.add_argument_group("view"), OPTIONS)


def run(args: argparse.Namespace, env: Mapping[str, str], home: Path) -> int:
    """Show the cluster until somebody leaves, or once."""
    try:
        options = table.resolved(OPTIONS, vars(args))
        source: Source
        if options["source"] is not None:
            source = Remote(Service(options["source"], SECONDS))
        else:
            source = Nodes(flags.settings(args), env, home)
    except (ConfigError, TransportUnavailableError) as error:
        return failed(error, EXIT_USAGE)
    with contextlib.closing(source):
        if options["once"]:
            return _once(source, options["interval"], options["search"], options["sort"])
        return _live(source, options["interval"], options["search"], options["sort"])


def _once(source: Source, interval: float, search: Search, sort: str) -> int:
    try:
        first = next_frame(source, None)
        time.sleep(interval)  # what a rate is measured over
        frame = next_frame(source, first)
    except SourceError as error:
        return failed(error, EXIT_FAILED)
    sys.stdout.write(printed(frame, search, sort, shutil.get_terminal_size().columns))
    return EXIT_OK


def _live(source: Source, interval: float, search: Search, sort: str) -> int:
    try:
        from clio_exporter.top.app import TopApp
    except ModuleNotFoundError as error:
        return failed(
            f"top needs {error.name}, which is not installed: pip install 'clio-exporter[top]'; or --once",
            EXIT_USAGE,
        )
    if not (sys.stdin.isatty() and sys.stderr.isatty()):  # it draws on standard error
        return failed("top needs a terminal; --once prints a frame", EXIT_USAGE)
    TopApp(lambda before: next_frame(source, before), interval, search, sort).run()
    return EXIT_OK

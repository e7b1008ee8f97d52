"""The subcommand: options, the source of the metrics, and how it is shown."""

from __future__ import annotations

import argparse
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
from clio_exporter.top.leaving import Leaving
from clio_exporter.top.saved import Saved, moment
from clio_exporter.top.sources import SECONDS, Nodes, Player, Remote, Source, SourceError
from clio_exporter.top.view import SORTS, printed

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130


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
    Setting(
        "job", Kind(table.PATH.read, "DIR"), None, "show what `job start` has kept in this directory, "
        "from its beginning, instead of the nodes as they are", flag="--job",
    ),
    Setting(
        "at", Kind(moment, "TIME"), None, "with --job: begin at this time: 2026-11-21T14:00:00Z, Unix "
        "seconds, or +2m from the beginning", flag="--at",
    ),
    Setting("interval", table.duration(0.5, 3600), 2.0, "time between two looks", flag="--interval"),
    Setting("search", Kind(_search), Search(), "nodes to show, as in the search box", flag="--search",
            shown="all"),
    Setting("sort", table.choice(*SORTS), "node", "order", flag="--sort"),
    Setting("once", table.BOOLEAN, False, "print one frame and exit: after one interval; with --job that of "
            "--at or the end", flag="--once"),
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `top`."""
    parser.description = (
        "The cluster live in this terminal. Keys: Enter opens a node, / searches, s sorts, f freezes, "
        "q leaves; with --job also Space plays or pauses, left and right step 10 s, with Shift 1 min, "
        "Home and End go to the first and last moment. Needs the extra: pip install 'clio-exporter[top]'; "
        "--once does not."
    )
    flags.add_arguments(parser)
    table.add_arguments(parser.add_argument_group("view"), OPTIONS)


def run(args: argparse.Namespace, env: Mapping[str, str], home: Path) -> int:
    """Show the cluster until somebody leaves, or once."""
    try:
        with Leaving() as leaving:
            return _run(args, env, home, leaving)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _run(args: argparse.Namespace, env: Mapping[str, str], home: Path, leaving: Leaving) -> int:
    try:
        options = table.resolved(OPTIONS, vars(args))
        once, shown = options["once"], (options["interval"], options["search"], options["sort"])
        if options["job"] is None and options["at"] is not None:
            raise ConfigError("--at", "is given without --job", "Give the job's directory, too")
        if options["job"] is not None and options["source"] is not None:
            raise ConfigError("--job", "is given with --from", "Give one of both")
        if not once and (problem := _no_screen()):
            return failed(problem, EXIT_USAGE)
        source: Source
        player: Saved | None = None
        if options["job"] is not None:
            source = player = Saved(options["job"], options["at"], last=once)
        elif options["source"] is not None:
            source = Remote(Service(options["source"], SECONDS))
        else:
            source = Nodes(flags.settings(args), env, home)
    except (ConfigError, TransportUnavailableError) as error:
        return failed(error, EXIT_USAGE)
    try:
        if once:
            return _once(source, *shown, wait=player is None)
        return _live(source, *shown, player, leaving)
    finally:
        leaving.ignore()
        source.close()


def _once(source: Source, interval: float, search: Search, sort: str, *, wait: bool) -> int:
    try:
        frame = source.frame(None)
        if wait:
            time.sleep(interval)  # what a rate is measured over
            frame = source.frame(frame)
    except SourceError as error:
        return failed(error, EXIT_FAILED)
    sys.stdout.write(printed(frame, search, sort, shutil.get_terminal_size().columns))
    return EXIT_OK


def _no_screen() -> str:
    """Why nothing can be shown live; "" where it can."""
    try:
        import clio_exporter.top.app  # noqa: F401 - whether it can be had
    except ModuleNotFoundError as error:
        return f"top needs {error.name}, which is not installed: pip install 'clio-exporter[top]'; or --once"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):  # it draws on standard error
        return "top needs a terminal; --once prints a frame"
    return ""


def _live(
    source: Source, interval: float, search: Search, sort: str, player: Player | None, leaving: Leaving
) -> int:
    from clio_exporter.top.app import TopApp

    app = TopApp(source.frame, interval, search, sort, player)
    with leaving.by(app.leave):
        app.run()
    return app.return_code or EXIT_OK

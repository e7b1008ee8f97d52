"""The subcommand: record for as long as is asked; what there is by then is written again and again."""

from __future__ import annotations

import argparse
import contextlib
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from clio_client.config import table
from clio_client.config.errors import ConfigError
from clio_client.config.table import Setting
from clio_client.errors import RuntimeClientError
from clio_client.membership import Member
from clio_exporter import flags
from clio_exporter.labels import member_labels
from clio_exporter.messages import failed
from clio_exporter.record.ring import TIMEOUT, NewSamples, Rings
from clio_exporter.record.store import Store
from clio_exporter.scrape_command import EXIT_ALL_DOWN, EXIT_OK, EXIT_SOME_DOWN, EXIT_USAGE, replaced
from clio_web.signals import set_by_signals

_Form = Callable[[Store, IO[bytes]], None]
_SHARE: Final = 20.0
"""A twentieth of the time, at most, goes into writing what is not all yet."""

OPTIONS: Final = (
    Setting("output", table.PATH, None, "write here", flag="--output", shown="standard output"),
    Setting(
        "format", table.choice("openmetrics", "csv", "parquet"), "openmetrics",
        "how it is written; Parquet to a file only, and by the extra clio-exporter[parquet]", flag="--format",
    ),
    Setting(
        "seconds", table.duration(0, 7 * 86400), 0.0, "go on for this long after what the nodes remember",
        flag="--for",
    ),
    Setting(
        "interval", table.duration(1, 600), 30.0, "time between two questions meanwhile",
        flag="--interval",
    ),
    TIMEOUT,
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `record`."""
    parser.description = (
        "Write what every node remembers of its host, one sample a second and up to 17 minutes back, under "
        "the names and labels of the metrics; with --for go on. Ctrl-C ends it early and writes all; a file "
        "has what there is by then also before the end. "
        "Exit status: 0 all nodes told, 1 none did, 2 wrong usage, 3 some did."
    )
    flags.add_arguments(parser)
    table.add_arguments(parser.add_argument_group("recording"), OPTIONS)


def run(args: argparse.Namespace, env: Mapping[str, str], home: Path) -> int:
    """Record and write."""
    try:
        options = table.resolved(OPTIONS, vars(args))
        form = _form(options["format"], options["output"])
        settings = flags.settings(args)
        rings = Rings(settings, env, home)
    except (ConfigError, RuntimeClientError) as error:
        return failed(error, EXIT_USAGE)
    constant = dict(settings.labels.labels)
    with contextlib.closing(rings), contextlib.closing(Store()) as store:
        told: dict[Member, bool] = {}
        output = _Output(options["output"], form, store)
        try:
            for found in _rounds(rings, options["seconds"], options["interval"], options["timeout"]):
                for node in found:
                    store.add({**constant, **member_labels(node.member)}, node.samples)
                    told[node.member] = told.get(node.member, False) or bool(node.samples)
                if options["seconds"]:
                    output.keep()
            last = found
            output.write()
        except RuntimeClientError as error:
            return failed(error, EXIT_USAGE)
        except OSError as error:
            return failed(f"cannot write {options['output'] or 'the output'}: {error.strerror}", EXIT_USAGE)
        sys.stderr.write(
            f"clio-exporter: {len(store)} samples of {sum(told.values())} of {len(told)} nodes\n"
        )
    for node in last:
        if node.error is not None:
            sys.stderr.write(f"clio-exporter: {node.member.target} tells nothing: {node.error}\n")
    if not any(told.values()):
        return EXIT_ALL_DOWN
    return EXIT_OK if all(told.values()) else EXIT_SOME_DOWN


def _form(name: str, path: Path | None) -> _Form:
    """What writes in a format. Raises `ConfigError` where that cannot be."""
    if name != "parquet":
        return _csv if name == "csv" else _openmetrics
    if path is None:
        raise ConfigError("--format parquet", "needs --output", "Give a file: it is not written in one go")
    try:
        from clio_exporter.record import parquet
    except ImportError as error:
        raise ConfigError(
            "--format parquet", f"needs pyarrow ({error})", "pip install 'clio-exporter[parquet]'"
        ) from None
    return parquet.write


def _csv(store: Store, stream: IO[bytes]) -> None:
    stream.writelines(line.encode() for line in store.csv())


def _openmetrics(store: Store, stream: IO[bytes]) -> None:
    stream.writelines(line.encode() for line in store.openmetrics())


class _Output:
    """The file, or standard output, that a recording is written to."""

    def __init__(self, path: Path | None, form: _Form, store: Store) -> None:
        self._path = path
        self._form = form
        self._store = store
        self._written = -math.inf
        self._took = 0.0

    def keep(self) -> None:
        """Write the file as it would be now, so that SIGKILL costs little; seldom where that takes long.

        Raises:
            OSError: it cannot be written at all; what hinders it later may be over at the end.
        """
        if self._path is None or time.monotonic() - self._written < self._took * _SHARE:
            return
        later = contextlib.suppress(OSError) if self._written > -math.inf else contextlib.nullcontext()
        with later:
            self.write()

    def write(self) -> None:
        """Write all there is. Raises OSError."""
        begin = time.monotonic()
        if self._path is None:
            self._form(self._store, sys.stdout.buffer)
            sys.stdout.flush()
        else:
            with replaced(self._path) as stream:
                self._form(self._store, stream)
        self._written = time.monotonic()
        self._took = self._written - begin


def _rounds(rings: Rings, seconds: float, interval: float, timeout: float) -> Iterator[Sequence[NewSamples]]:
    """What is new, at once and then each interval, until the time or a signal ends it."""
    stopped = threading.Event()
    with set_by_signals(stopped, signal.SIGINT, signal.SIGTERM):
        end = time.monotonic() + seconds
        yield rings.new(timeout)
        while (left := end - time.monotonic()) > 0 and not stopped.is_set():
            stopped.wait(min(left, interval))
            yield rings.new(timeout)

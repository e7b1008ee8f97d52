"""`clio-exporter scrape`: one scrape on standard output, for shells, cron and health checks."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

from clio_client import BdevStats, SystemSample, WorkerStats
from clio_client.config import table
from clio_client.config.errors import ConfigError
from clio_client.errors import TransportUnavailableError
from clio_exporter import flags
from clio_exporter.engine import Engine, Result
from clio_exporter.messages import failed
from clio_exporter.snapshot import NodeSnapshot, Topic

EXIT_OK: Final = 0
EXIT_ALL_DOWN: Final = 1
EXIT_USAGE: Final = 2
EXIT_SOME_DOWN: Final = 3

TIMEOUT: Final = (
    table.Setting("timeout", table.duration(0, 86400), 10.0, "time the whole scrape has", flag="--timeout"),
)
NODE_TIMEOUT: Final = 6.0
"""Longer than the three steps of detection, each 1.5 s, of which the last answers for generation A."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `scrape`."""
    parser.description = (
        "Scrape all nodes once and print the result. Exit status: 0 all nodes are up, 1 none is, "
        "2 wrong usage or settings, 3 some are down."
    )
    flags.add_arguments(parser)
    parser.add_argument(
        "--format",
        choices=sorted(_FORMATS),
        default="text",
        help="exposition text, a table or JSON (%(default)s)",
    )
    table.add_arguments(parser, TIMEOUT)
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="write here instead, all at once (for a textfile directory)",
    )


def run(args: argparse.Namespace, env: Mapping[str, str], home: Path) -> int:
    """Scrape, print, and say by the exit status whether all nodes are up."""
    try:
        timeout = table.resolved(TIMEOUT, vars(args))["timeout"]
        # A shell has no second scrape: one attempt must suffice to find out the generation of an old runtime.
        args.runtime_timeout = args.runtime_timeout or min(timeout, NODE_TIMEOUT)
        engine = Engine(lambda: flags.settings(args), env, home, role="scrape")
    except (ConfigError, TransportUnavailableError) as error:
        return failed(error, EXIT_USAGE)
    with contextlib.closing(engine):
        result = engine.scrape(None, timeout)
    text = _FORMATS[args.format](result)
    if args.output is None:
        _print(text)
    else:
        try:
            write_atomically(args.output, text)
        except OSError as error:
            return failed(f"cannot write {args.output}: {error.strerror}", EXIT_USAGE)
    for node in result.nodes:
        if not node.up:
            sys.stderr.write(f"clio-exporter: {node.member.target} is down: {node.failure}\n")
    return exit_status(result.nodes)


def _print(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (`| head`) has seen enough. What is still buffered must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def exit_status(nodes: Sequence[NodeSnapshot]) -> int:
    """Exit status for these nodes; no node at all counts as none up."""
    up = sum(node.up for node in nodes)
    if not up:
        return EXIT_ALL_DOWN
    return EXIT_OK if up == len(nodes) else EXIT_SOME_DOWN


def write_atomically(path: Path, text: str | Iterable[str], *, new: bool = False, sync: bool = False) -> None:
    """Replace ``path`` by a file with this text, or these pieces, as `replaced` does. Raises OSError."""
    with replaced(path, new=new, sync=sync) as stream:
        stream.writelines(piece.encode() for piece in ([text] if isinstance(text, str) else text))


@contextlib.contextmanager
def replaced(path: Path, *, new: bool = False, sync: bool = False) -> Iterator[IO[bytes]]:
    """A file to write that replaces ``path`` at the end; a reader sees the old or the new one.

    Args:
        new: there may be no old one.
        sync: what was written outlives a crash of the host.

    Raises:
        OSError: the directory or the file cannot be written; FileExistsError where it has to be new.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            if sync:
                stream.flush()
                os.fsync(handle)
        # mkstemp makes the file private; node_exporter runs as somebody else.
        Path(name).chmod(0o644)
        if new:
            os.link(name, path)  # which fails where there is one, unlike a rename
            Path(name).unlink()
        else:
            Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    if sync:
        _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    """Have the names in a directory outlive a crash, where its file system can."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def as_text(result: Result) -> str:
    """Prometheus text format 0.0.4."""
    return b"".join(Result(result.samples, result.clusters).render(openmetrics=False)).decode()


def as_json(result: Result) -> str:
    """Every record by node, fields named and in units as the runtime reports them."""
    return json.dumps({"nodes": [_node_document(node) for node in result.nodes]}, indent=2) + "\n"


def as_table(result: Result) -> str:
    """A line a node, for people."""
    rows = [_HEADINGS, *(_row(node) for node in result.nodes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if heading in _RIGHT else cell.ljust(width)
            for cell, width, heading in zip(row, widths, _HEADINGS, strict=True)
        ]
        lines.append("  ".join(cells).rstrip() + "\n")
    return "".join(lines)


_FORMATS: Final[dict[str, Callable[[Result], str]]] = {"text": as_text, "table": as_table, "json": as_json}

_HEADINGS: Final = (
    "NODE", "ADDRESS", "STATE", "CPU", "MEMORY", "GPUS",
    "WORKERS", "QUEUED", "BLOCKED", "PROCESSED", "STORAGE", "FREE",
)  # fmt: skip
_RIGHT: Final = frozenset(_HEADINGS) - {"NODE", "ADDRESS", "STATE"}
_UNKNOWN: Final = "-"


def _row(node: NodeSnapshot) -> tuple[str, ...]:
    newest = node.newest
    state = "up" if node.up else (node.failure.reason if node.failure else "down")
    if newest is not None and newest.is_leader:
        state += " (leader)"
    workers = node.workers if node.answered(Topic.WORKERS) else None
    devices = [pool.stats for pool in node.bdevs if isinstance(pool.stats, BdevStats)]
    known = devices if node.answered(Topic.BDEVS) else None
    name = f"{node.member.cluster}/{node.member.node_id}" if node.member.cluster else str(node.member.node_id)
    return (
        name,
        node.member.target,
        state,
        _percent(newest.cpu_usage_pct if newest else None),
        _percent(newest.ram_usage_pct if newest else None),
        _UNKNOWN if newest is None or newest.gpu_count is None else str(newest.gpu_count),
        _UNKNOWN if workers is None else str(len(workers)),
        _total(workers, "num_queued_tasks", str),
        _total(workers, "num_blocked_tasks", str),
        _total(workers, "num_tasks_processed", str),
        _total(known, "total_capacity", _size),
        _total(known, "remaining_capacity", _size),
    )


def _percent(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.1f}%"


def _total(records: Iterable[object] | None, field: str, write: Callable[[int], str]) -> str:
    values = [value for record in records or () if (value := getattr(record, field)) is not None]
    return write(sum(values)) if values else _UNKNOWN


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} PiB"


def _node_document(node: NodeSnapshot) -> dict[str, Any]:
    failure = node.failure
    return {
        "cluster": node.member.cluster or None,
        "node_id": node.member.node_id,
        "hostname": node.member.hostname,
        "target": node.member.target,
        "up": node.up,
        "reason": failure.reason if failure else None,
        "error": str(failure) if failure else None,
        "failed_queries": {
            topic.value: str(outcome.error) for topic, outcome in node.results.items() if outcome.error
        },
        "probe_seconds": node.duration,
        "system": None if node.newest is None else _document(node.newest),
        "workers": [_document(worker) for worker in node.workers],
        "pools": [
            {"pool_id": c.pool_id, "pool_name": c.pool_name, "module": c.chimod_name} for c in node.pools
        ],
        "stats": [
            {"pool_id": pool.container.pool_id, "module": pool.container.chimod_name, **_document(pool.stats)}
            for pool in (*node.bdevs, *node.modules)
        ],
    }


def _document(record: SystemSample | WorkerStats | Any) -> dict[str, Any]:
    """The fields the runtime reported."""
    fields = {name: getattr(record, name) for name in record.__dataclass_fields__}
    return {
        name: [_document(item) for item in value] if isinstance(value, tuple) else value
        for name, value in fields.items()
        if value is not None
    }

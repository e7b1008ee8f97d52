"""The subcommand: ask Prometheus, ask the nodes, send what is missing, say what was filled."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

from clio_client.config import table
from clio_client.config.errors import ConfigError
from clio_client.config.table import Kind, Setting
from clio_client.errors import RuntimeClientError
from clio_exporter import flags
from clio_exporter.backfill import live
from clio_exporter.backfill.plan import Fill, Index, NotFilledError, Plan, plan
from clio_exporter.messages import failed
from clio_exporter.record.ring import TIMEOUT, NewSamples, Rings
from clio_exporter.record.store import FAMILIES
from clio_exporter.scrape_command import EXIT_ALL_DOWN, EXIT_OK, EXIT_SOME_DOWN, EXIT_USAGE
from clio_exporter.service_client import Service, service_token, service_url

_ANSWER_S: Final = 60.0

OPTIONS: Final = (
    Setting("prometheus", Kind(service_url, "URL"), None, "the Prometheus with the gap", flag="--prometheus"),
    Setting("token", table.PATH, None, "file with a token for it", flag="--prometheus.token-file"),
    Setting("job", table.TEXT, None, "fill series of this job", flag="--job", shown="any"),
    Setting("instance", table.TEXT, None, "fill series of this instance", flag="--instance", shown="any"),
    Setting(
        "interval", table.duration(0.1, 600), None, "time between two scrapes", flag="--interval",
        shown="as Prometheus says",
    ),
    Setting("dry_run", table.BOOLEAN, False, "say what would be sent, and send nothing", flag="--dry-run"),
    TIMEOUT,
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `backfill`."""
    parser.description = (
        "Fill the gap of a Prometheus that was down, or that could not scrape, with what the nodes remember "
        "of their hosts: up to 17 minutes back, under the labels of the live series, one sample for each "
        "scrape that is missing. Scrapes must go on again. Prometheus (2.39 or newer) needs "
        "--web.enable-remote-write-receiver and, in prometheus.yml, storage: tsdb: "
        "out_of_order_time_window: 30m. "
        "Needs the extra: pip install 'clio-exporter[backfill]'; --dry-run does not. "
        "Exit status: 0 all nodes done, 1 none was or Prometheus refused, 2 wrong usage or no live series, "
        "3 some were."
    )
    flags.add_arguments(parser)
    table.add_arguments(parser.add_argument_group("backfill"), OPTIONS)


def run(args: argparse.Namespace, env: Mapping[str, str], home: Path) -> int:
    """Fill the gap."""
    try:
        options = table.resolved(OPTIONS, vars(args))
        if options["prometheus"] is None:
            raise ConfigError(
                "--prometheus", "is not given", "Give the address of the Prometheus with the gap"
            )
        service = Service(options["prometheus"], _ANSWER_S, service_token(options["token"]))
        targets = {name: options[name] for name in ("job", "instance") if options[name] is not None}
        with contextlib.closing(Rings(flags.settings(args), env, home)) as rings:
            found = live.look(service, [family.name for family in FAMILIES], targets)
            begun = time.monotonic()
            nodes = rings.new(options["timeout"])
            until = found.now + round((time.monotonic() - begun) * 1000)
        send = _nothing if options["dry_run"] else _sender(service)
    except (ConfigError, RuntimeClientError) as error:
        return failed(error, EXIT_USAGE)
    interval = None if options["interval"] is None else round(options["interval"] * 1000)
    index = Index(found.series)
    done = 0
    for node in nodes:
        try:
            planned = _planned(node, index, found, until, interval)
            if planned.fills and (refused := send(planned.fills)):
                return failed(refused, EXIT_ALL_DOWN)
        except NotFilledError as error:
            sys.stderr.write(f"clio-exporter: {node.member.target} is not filled: {error}\n")
            continue
        done += 1
        sys.stdout.writelines(_told(node, planned, dry=options["dry_run"]))
        sys.stdout.flush()
    if done == len(nodes):
        return EXIT_OK
    return EXIT_SOME_DOWN if done else EXIT_ALL_DOWN


def _planned(node: NewSamples, index: Index, found: live.Live, until: int, interval: int | None) -> Plan:
    if node.error is not None:
        raise NotFilledError(f"it tells nothing: {node.error}")
    return plan(index.of(node.member), node.samples, found, until, interval)


def _nothing(_fills: Sequence[Fill]) -> str:
    return ""


def _sender(service: Service) -> Callable[[Sequence[Fill]], str]:
    """What sends the samples of a node, in one request, and returns why Prometheus refused them, or ""."""
    try:
        from clio_exporter.backfill import remote_write
    except ModuleNotFoundError as error:
        raise ConfigError(
            "backfill", f"needs {error.name}, which is not installed",
            "pip install 'clio-exporter[backfill]'; or --dry-run",
        ) from None  # fmt: skip

    def send(fills: Sequence[Fill]) -> str:
        try:
            remote_write.send(service, ((fill.labels, fill.samples) for fill in fills))
        except remote_write.WriteError as error:
            return str(error)
        return ""

    return send


def _told(node: NewSamples, planned: Plan, *, dry: bool) -> Iterable[str]:
    """Lines about a node: of each gap what went in, and what nothing was there for."""
    name = f"{node.member.hostname or node.member.target} (node {node.member.node_id})"
    spans = Counter((fill.samples[0][0], fill.samples[-1][0], len(fill.samples)) for fill in planned.fills)
    verb = "would fill" if dry else "filled"
    for (first, last, samples), series in sorted(spans.items()):
        yield f"{name}: {verb} {_clock(first)} to {_clock(last)}: {samples} samples of {series} series\n"
    for gap in sorted(planned.lost, key=lambda gap: gap.begin):
        yield f"{name}: remembers nothing of {_clock(gap.begin)} to {_clock(gap.end)}\n"
    if planned.newest is not None:
        yield f"{name}: not scraped since {_clock(planned.newest)}; run this again when it is\n"
    elif not (spans or planned.lost):
        yield f"{name}: nothing is missing\n"


def _clock(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")

"""The metrics reference: docs/metrics.md, generated from the families (scripts/docs.py)."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Final

from clio_exporter import engine, telemetry
from clio_exporter.collectors import COLLECTORS
from clio_exporter.exposition import Family, Scope

_INTRODUCTION: Final = """\
# Metrics

This page is generated from the code by `make docs`; a test keeps it true.

All names start with `clio_`, all units are base units (seconds, bytes, ratios from 0 to 1). What the
runtime did not report has no sample; it is never exported as 0. A node that is down has `clio_node_up` 0,
`clio_node_down_info` with the reason, and nothing else that would have to be made up.

Labels besides those in the tables:

- every series of a node carries `node_id` (its position in the hostfile, which is how runtimes number
  themselves) and `hostname` (the hostfile's text);
- with several clusters configured, or one that has a name, series of nodes and clusters also carry
  `cluster`;
- every series, those about the exporter too, carries what `--label` gives.
"""

_SCOPES: Final = {Scope.NODE: "node", Scope.CLUSTER: "cluster", Scope.EXPORTER: "exporter"}


def render() -> str:
    """The whole page."""
    return "".join(_page())


def all_families() -> tuple[Family, ...]:
    """Every family the exporter declares, in the order of the exposition."""
    return (*(f for c in COLLECTORS for f in c.families), *engine.FAMILIES, *telemetry.FAMILIES)


def _page() -> Iterator[str]:
    yield _INTRODUCTION
    for collector in COLLECTORS:
        purpose = (sys.modules[type(collector).__module__].__doc__ or "").splitlines()[0]
        yield f"\n## Collector `{collector.name}`\n\n{purpose}\n\n"
        if not collector.on_by_default:
            yield f"Off unless `--collector.{collector.name}` is given.\n\n"
        if collector.topics:
            asked = ", ".join(sorted(f"`{topic.value}`" for topic in collector.topics))
            yield f"Asks every node for: {asked}.\n\n"
        yield from _table(collector.families)
    yield "\n## About the scrape and the exporter\n\n"
    yield "On `/metrics`; `/probe` has the first two only.\n\n"
    yield from _table((*engine.FAMILIES, *telemetry.FAMILIES))
    yield "\nBesides these, the process's own as prometheus_client names them:\n\n"
    yield "".join(f"- `{name}`\n" for name in sorted(telemetry.process_families()))


def _table(families: Iterable[Family]) -> Iterator[str]:
    yield "| metric | type | about | labels | what | from |\n|---|---|---|---|---|---|\n"
    for family in families:
        labels = ", ".join(f"`{label}`" for label in family.labels)
        yield (
            f"| `{family.name}` | {family.kind.value} | {_SCOPES[family.scope]} | {labels} "
            f"| {family.help} | {family.source} |\n"
        )

"""What of a node's ring goes to which series. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from clio_client import SystemSample
from clio_client.membership import Member
from clio_exporter.backfill import gaps
from clio_exporter.backfill.gaps import Gap
from clio_exporter.backfill.live import LOOK_BACK_S, Live, Series
from clio_exporter.labels import member_labels
from clio_exporter.record.store import FAMILIES, values

CLOCK_MS: Final = 15_000
"""So far apart may a node's clock and Prometheus's be, with the time that a slow answer takes."""


class NotFilledError(Exception):
    """Why nothing of this node can be filled, and the remedy."""


@dataclass(frozen=True, slots=True)
class Fill:
    """Samples for one series: Unix milliseconds and value, inside one gap."""

    labels: Mapping[str, str]
    samples: Sequence[tuple[int, float]]


@dataclass(slots=True)
class Plan:
    """What is missing of a node: what fills it, and gaps between scrapes that nothing fills.

    Attributes:
        newest: the last sample of all; None while scrapes go on.
    """

    fills: list[Fill] = field(default_factory=list)
    lost: set[Gap] = field(default_factory=set)
    newest: int | None = None


class Index:
    """The series of each node."""

    def __init__(self, series: Iterable[Series]) -> None:
        self._found: dict[tuple[str, str], list[Series]] = defaultdict(list)
        for each in series:
            self._found[each.labels.get("node_id", ""), each.labels.get("hostname", "")].append(each)

    def of(self, member: Member) -> dict[str, list[Series]]:
        """By family. Where the nodes' settings name no cluster, that label may be Prometheus's own."""
        wanted = member_labels(member)
        found = defaultdict(list)
        for series in self._found.get((wanted["node_id"], wanted["hostname"]), ()):
            if series.labels.get("cluster", "") == wanted.get("cluster", series.labels.get("cluster", "")):
                found[series.labels["__name__"]].append(series)
        return found


def plan(
    families: Mapping[str, Sequence[Series]],
    samples: Sequence[SystemSample],
    live: Live,
    until: int,
    interval: int | None,
) -> Plan:
    """What fills the gaps of one node's series.

    A gap is where no series of a family has samples, whatever its job and instance: an exporter that came
    back under another name goes on where the old one ended. The labels are those of the series that ends it.

    Args:
        families: the node's series, by family.
        samples: its ring.
        live: of the whole Prometheus.
        until: Prometheus's clock when the ring had come.
        interval: of scrapes, in milliseconds; None for what Prometheus says.

    Raises:
        NotFilledError: nothing can be filled.
    """
    if not families:
        raise NotFilledError("Prometheus has no live series of it: scrape it first")
    ring = dict(sorted((s.wall_time_ns // 1_000_000, s) for s in samples if s.wall_time_ns is not None))
    if not ring:
        raise NotFilledError("it remembers nothing with a time")
    times = list(ring)
    off = max(live.now - times[-1], times[-1] - until)
    if off > CLOCK_MS:
        raise NotFilledError(f"its clock is {off / 1000:.0f} s off Prometheus's: set the clocks")
    rows = {at: dict(zip((f.name for f in FAMILIES), values(s), strict=True)) for at, s in ring.items()}
    chosen: dict[tuple[Gap, int], list[int]] = {}
    found = Plan()
    newest = max((each for every in families.values() for each in every), key=lambda each: each.times[-1])
    if (waits := interval or live.interval(newest)) and live.now - newest.times[-1] > gaps.MISSED * waits:
        found.newest = newest.times[-1]
    for name, series in families.items():
        for gap, of, every in _gaps(series, live, interval):
            if (gap, every) not in chosen:
                chosen[gap, every] = [times[i] for i in gaps.fill(gap, times, every)]
            told = [(at, value) for at in chosen[gap, every] if (value := rows[at][name]) is not None]
            if told:
                found.fills.append(Fill(of.labels, told))
            elif gap.begin > _since(live):
                found.lost.add(gap)
    return found


def _gaps(series: Sequence[Series], live: Live, interval: int | None) -> list[tuple[Gap, Series, int]]:
    """Gaps of one family on one node, with the series that ends each and how often it is scraped."""
    ordered = sorted(series, key=lambda each: each.times[0])
    if any(after.times[0] < before.times[-1] for before, after in pairwise(ordered)):
        raise NotFilledError(
            "several live series are of it at once: choose by --job and --instance which are to be filled"
        )
    found = []
    since = _since(live)
    for each in ordered:
        every = interval or live.interval(each)
        if every is None:
            raise NotFilledError("Prometheus does not say how often it is scraped: give --interval")
        found += [(gap, each, every) for gap in gaps.find(each.times, since, every)]
        since = each.times[-1]
    return found


def _since(live: Live) -> int:
    return live.now - LOOK_BACK_S * 1000

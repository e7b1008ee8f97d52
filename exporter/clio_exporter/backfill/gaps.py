"""Where samples are missing, and which of a node's fill that. Pure; all times in Unix milliseconds."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MISSED: Final = 2.5
"""No sample for longer than so many scrape intervals is a gap: one scrape that failed is none."""
_NEAR_MS: Final = 2000
"""How far from its place on the grid a sample may be: a ring has one each second, now and then one late."""


@dataclass(frozen=True, slots=True)
class Gap:
    """No sample between two times, which are outside."""

    begin: int
    end: int


def find(times: Sequence[int], since: int, interval: int) -> list[Gap]:
    """Gaps between samples at these ordered times, and from ``since`` to the first.

    Not from the last to now: what is scraped may come yet.
    """
    return [
        Gap(begin, end)
        for begin, end in zip([since, *times], times, strict=False)
        if end - begin > MISSED * interval
    ]


def fill(gap: Gap, times: Sequence[int], interval: int) -> list[int]:
    """Indices of the samples, at these ordered times, that fill the gap: one for each scrape that is missing.

    The grid goes back from the scrape that ends the gap. To each place on it belongs the nearest sample, if
    one is near; none is nearer to a sample that exists than half an interval. They keep their own times:
    these are true, and the mark of staleness that a failed scrape leaves lies on the grid itself.
    """
    half = interval / 2
    near = min(half, _NEAR_MS)
    found = []
    place = gap.end - interval
    while place > gap.begin and times:
        after = bisect.bisect_right(times, place)
        # Of two as near, the later: the bound before the place is outside, the one after it inside.
        around = [i for i in (after, after - 1) if 0 <= i < len(times)]
        index = min(around, key=lambda i: abs(times[i] - place))
        at = times[index]
        # So no sample is near to two places.
        if place - near < at <= place + near and at > gap.begin + half:
            found.append(index)
        if after == 0 and place + near < times[0]:
            break  # nothing is older
        place -= interval
    return found[::-1]

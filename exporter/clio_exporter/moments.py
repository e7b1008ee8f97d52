"""Moments as people write them."""

from __future__ import annotations

import datetime
import math


def read_moment(text: str) -> float:
    """The Unix time of `2026-11-21T14:00:00` (with a zone, else of this host) or of Unix seconds.

    Raises:
        ValueError: it is neither.
    """
    try:
        seconds = float(text)
    except ValueError:
        try:
            return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
        except OverflowError:
            pass
    else:
        if math.isfinite(seconds):
            return seconds
    raise ValueError(text)

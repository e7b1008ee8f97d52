"""The recent past of a ring: which samples are new, and the extremes of the window."""

from __future__ import annotations

from typing import Any

import pytest

from clio_client import SystemSample
from clio_client.protocol.records import read_samples
from clio_exporter.peaks import RecentSamples
from clio_exporter.snapshot import Peaks

SECOND = 1_000_000_000


def samples(*ids: int, **fields: Any) -> list[SystemSample]:
    return read_samples([{"event_id": i, "timestamp_ns": i * SECOND, **fields} for i in ids])


def test_only_newer_samples_count() -> None:
    recent = RecentSamples(60)
    assert (recent.newest, recent.newest_id) == (None, -1)
    assert not recent.add([])
    assert recent.add(samples(0, cpu_usage_pct=90.0))
    assert recent.newest_id == 0
    assert not recent.add(samples(0, cpu_usage_pct=99.0))
    assert recent.peaks().cpu_usage_pct == 90
    assert recent.add(samples(0, 1, cpu_usage_pct=10.0))
    assert recent.newest_id == 1
    assert recent.newest is not None
    assert recent.newest.cpu_usage_pct == 10
    assert not recent.add(samples(0, 1))


def test_peaks_are_the_extremes_of_what_is_told() -> None:
    recent = RecentSamples(60)
    assert recent.peaks() == Peaks(None, None, None, None)
    rows = [
        {"cpu_usage_pct": 5.0, "gpu_usage_pct": 7.0, "hbm_used_bytes": 100, "ram_available_bytes": 30},
        {"cpu_usage_pct": 9.0, "gpu_usage_pct": 2.0, "hbm_used_bytes": 50, "ram_available_bytes": 10},
        {"cpu_usage_pct": None, "ram_available_bytes": 20},
    ]
    for number, row in enumerate(rows):
        recent.add(samples(number, **row))
    assert recent.peaks() == Peaks(
        cpu_usage_pct=9.0, gpu_usage_pct=7.0, hbm_used_bytes=100, ram_available_low_bytes=10
    )


@pytest.mark.parametrize(("newest", "peak"), [(10, 99.0), (11, 1.0), (500, 1.0)])
def test_the_window_ends_with_the_newest_sample(newest: int, peak: float) -> None:
    recent = RecentSamples(10)
    recent.add(samples(0, cpu_usage_pct=99.0))
    recent.add(samples(newest, cpu_usage_pct=1.0))
    assert recent.peaks().cpu_usage_pct == peak


def test_without_times_the_number_of_samples_is_bounded() -> None:
    recent = RecentSamples(10)
    rows = [{"event_id": i, "cpu_usage_pct": 99.0 if i == 0 else 1.0} for i in range(16)]
    recent.add(read_samples(rows[:15]))
    assert recent.peaks().cpu_usage_pct == 99
    recent.add(read_samples(rows))
    assert recent.peaks().cpu_usage_pct == 1

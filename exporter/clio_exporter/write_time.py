"""How long it will take to make and write an answer, so that it is out before a scrape's deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable
from typing import Final

from clio_exporter.exposition import Family, Kind, Samples, label_text

SAMPLES_A_NODE: Final = 300
"""Expected until a scrape has shown it: a node with 8 workers, 3 devices and some learned cost models."""

MIN_SAMPLES: Final = 1000
"""A scrape of fewer says nothing of the time a sample takes."""

MAX_SHARE: Final = 0.5
"""Of the time for a scrape, the most that is kept free; the nodes get the rest."""

_CALIBRATION_SAMPLES: Final = 2000
_DECAY: Final = 0.8


class WriteTime:
    """Foresees the time from the number of nodes; learns from every scrape. Thread-safe.

    A slower scrape counts at once, a faster one little by little.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds_a_sample = _calibrated()
        self._samples_a_node: dict[Hashable, float] = {}

    def foreseen(self, key: Hashable, nodes: int, timeout: float) -> float:
        """Seconds that the samples of so many nodes will take, of at most half of ``timeout``.

        ``key`` stands for the collectors that are chosen.
        """
        with self._lock:
            samples = nodes * self._samples_a_node.get(key, SAMPLES_A_NODE)
            return min(samples * self._seconds_a_sample, timeout * MAX_SHARE)

    def measured(self, key: Hashable, nodes: int, samples: int, seconds: float) -> None:
        """So many samples of so many nodes that were up have taken so long."""
        with self._lock:
            if nodes:
                # They may have been cut short: expect the full number the next time.
                expected = self._samples_a_node.get(key, SAMPLES_A_NODE)
                self._samples_a_node[key] = _slowly(expected, samples / nodes)
            if samples >= MIN_SAMPLES:
                self._seconds_a_sample = _slowly(self._seconds_a_sample, seconds / samples)


def _slowly(old: float, new: float) -> float:
    """The new value if it is higher; else one on the way to it."""
    return max(new, old * _DECAY + new * (1 - _DECAY))


def _calibrated() -> float:
    """Seconds that a sample takes on this machine, by processor time: others do not disturb it."""
    family = Family("clio_calibration", Kind.GAUGE, "None.", "none")
    started = time.thread_time()
    samples = Samples([family])
    for number in range(_CALIBRATION_SAMPLES):
        labels = label_text({"node_id": str(number), "hostname": "calibration", "worker_id": str(number)})
        samples.add(family, labels, number / 7)
    for _ in samples.render(openmetrics=False):
        pass
    return (time.thread_time() - started) / _CALIBRATION_SAMPLES

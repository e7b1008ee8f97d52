from __future__ import annotations

import threading

import pytest

from clio_lab.demo.background import Background
from clio_lab.demo.cluster import Progress
from clio_lab.demo.errors import DemoError, InterruptedStartError


class Slow:
    """A component whose start ends when it is let, or gives up when it is told to."""

    name = "slow"
    where: str | None = "slow http://slow"
    command: str | None = None

    def __init__(self, halt: threading.Event, error: Exception | None = None) -> None:
        self.let = threading.Event()
        self.stops = 0
        self._halt = halt
        self._error = error

    def start(self, progress: Progress) -> None:
        while not self.let.wait(0.01):
            if self._halt.is_set():
                raise InterruptedStartError("halted")
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        self.stops += 1

    def health(self) -> str | None:
        return "ill"


def silent(_line: str) -> None:
    return


def test_it_starts_beside_the_others() -> None:
    halt, ready = threading.Event(), threading.Event()
    slow = Slow(halt)
    part = Background(slow, halt, ready.set)
    part.start(silent)
    assert not part.settle(0.05)
    assert part.where == "slow http://slow (being started)"
    assert (part.missing, part.health(), ready.is_set()) == (None, None, False)
    slow.let.set()
    assert part.settle(10)
    assert part.where == "slow http://slow"
    assert (part.missing, part.health(), ready.is_set()) == (None, "ill", True)
    part.stop()
    part.stop()
    assert slow.stops == 2


@pytest.mark.parametrize("error", [DemoError("no such thing"), OSError("no such thing")])
def test_a_failure_is_kept_and_what_had_begun_is_ended(error: Exception) -> None:
    halt = threading.Event()
    slow = Slow(halt, error)
    part = Background(slow, halt)
    slow.let.set()
    part.start(silent)
    assert part.settle(10)
    assert (part.where, part.missing, part.health()) == (None, "no such thing", None)
    assert slow.stops == 1


def test_stopping_gives_the_start_up() -> None:
    halt = threading.Event()
    slow = Slow(halt)
    part = Background(slow, halt)
    part.start(silent)
    part.stop()
    assert part.settle(0)
    assert slow.stops == 1
    assert part.missing is None


def test_one_that_never_started_can_be_stopped() -> None:
    halt = threading.Event()
    Background(Slow(halt), halt).stop()

"""Signals that set an event."""

from __future__ import annotations

import signal
import threading

import pytest

from clio_web.signals import set_by_signals

pytestmark = pytest.mark.timeout(30, method="thread")


def test_a_signal_sets_the_event() -> None:
    event = threading.Event()
    before = signal.getsignal(signal.SIGUSR1)
    with set_by_signals(event, signal.SIGUSR1, signal.SIGUSR2):
        assert not event.is_set()
        signal.raise_signal(signal.SIGUSR2)
        assert event.wait(10)
        signal.raise_signal(signal.SIGUSR1)  # as an impatient Ctrl-C
    assert signal.getsignal(signal.SIGUSR1) is before


def test_without_a_signal_the_event_stays_unset() -> None:
    event = threading.Event()
    with set_by_signals(event, signal.SIGUSR1):
        pass
    assert not event.is_set()
    assert "signals" not in [thread.name for thread in threading.enumerate()]


def test_a_signal_in_the_midst_of_a_wait_is_no_deadlock() -> None:
    event = threading.Event()
    with set_by_signals(event, signal.SIGUSR1):
        # As `wait` does for a moment, before it lets go of the lock.
        with event._cond:
            signal.raise_signal(signal.SIGUSR1)
        assert event.wait(10)

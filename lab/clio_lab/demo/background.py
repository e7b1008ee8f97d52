"""A part that the demo can do without, started beside the others: what goes wrong costs a line."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable

from clio_lab.demo.cluster import Progress
from clio_lab.demo.errors import DemoError, InterruptedStartError
from clio_lab.demo.stack import Component

_STOP_SECONDS = 30.0


class Background:
    """A component whose start neither holds up the others nor ends the demo when it fails.

    `component` is to give its start up when `halt` is set. `ready` is called, in a thread of ours,
    once it has started.
    """

    command: str | None = None

    def __init__(
        self, component: Component, halt: threading.Event, ready: Callable[[], None] | None = None
    ) -> None:
        self._component = component
        self._halt = halt
        self._ready = ready
        self._thread: threading.Thread | None = None
        self._started = False
        self._failure: str | None = None

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return self._component.name

    @property
    def where(self) -> str | None:
        """Where a user finds it, None when it could not be started."""
        if self._failure is not None or self._component.where is None:
            return None
        return self._component.where if self._started else f"{self._component.where} (being started)"

    @property
    def missing(self) -> str | None:
        """Why it is not there, with the remedy; None when it is, or may still come."""
        return self._failure

    def start(self, progress: Progress) -> None:
        """Begin to start it, and return at once."""
        self._halt.clear()
        self._thread = threading.Thread(target=self._run, args=(progress,), name=self.name, daemon=True)
        self._thread.start()

    def settle(self, seconds: float) -> bool:
        """Wait up to `seconds` for its start to end, well or not; return whether it has."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self._thread is None or not self._thread.is_alive()

    def stop(self) -> None:
        """End its start, then it; fine when it never started, and when called again."""
        self._halt.set()
        if not self.settle(_STOP_SECONDS):
            raise DemoError(f"{self.name} is still starting after {_STOP_SECONDS:.0f} s")
        self._thread = None
        self._component.stop()

    def health(self) -> str | None:
        """Return what is wrong now with one that had started, None when nothing is."""
        return self._component.health() if self._started else None

    def _run(self, progress: Progress) -> None:
        try:
            self._component.start(progress)
        except InterruptedStartError:
            return
        except (DemoError, OSError, subprocess.SubprocessError) as error:
            self._failure = str(error)
            self._component.stop()
            return
        self._started = True
        if self._ready is not None:
            self._ready()

"""Signals that end `top`: what it holds is given back first."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Leaving:
    """While entered, the first SIGINT, SIGTERM or SIGHUP raises KeyboardInterrupt, later ones do nothing.

    A signal that is ignored (`nohup`) stays so.
    """

    def __init__(self) -> None:
        self._told = False
        self._leave: Callable[[], None] = _interrupt
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Leaving:
        heeded = [number for number in _SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
        self._before = {number: signal.signal(number, self._handle) for number in heeded}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def by(self, leave: Callable[[], None]) -> Iterator[None]:
        """Have this called instead; what follows is the end, which nothing interrupts."""
        self._leave = leave
        try:
            yield
        finally:
            self.ignore()

    def ignore(self) -> None:
        """Do nothing at signals from now on."""
        self._told = True

    def _handle(self, *_: object) -> None:
        if not self._told:
            self._told = True
            self._leave()


def _interrupt() -> None:
    raise KeyboardInterrupt

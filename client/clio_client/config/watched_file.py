"""What a file says, read again when it has changed. While it cannot be: what it said last, or an error."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

from clio_client.config.errors import ConfigError

_T = TypeVar("_T")
_Signature = tuple[int, ...]

SETTLED_S: Final = 2.0
"""Changes further apart than this have different dates: file systems count in ticks of up to 2 s (FAT)."""


class WatchedFile(Generic[_T]):
    """A file and what it was last read as. Thread-safe.

    Attributes:
        error: why the file as it was last looked at cannot be used; None when it can.
    """

    def __init__(
        self,
        path: Path,
        load: Callable[[Path], _T],
        changed: Callable[[_T | ConfigError], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``load`` reads the file or raises `ConfigError`. Nothing is read yet.

        ``changed`` is called with what is new about a file that was good once: its value, or another error.
        """
        self.path = path
        self.error: ConfigError | None = None
        self._load = load
        self._changed = changed
        self._lock = threading.Lock()
        self._clock = clock
        self._signature: _Signature | None = None
        self._settles = 0.0
        self._settled = False
        self._value: list[_T] = []

    def value(self) -> _T:
        """What the file says; its last good value while it cannot be used.

        Raises:
            ConfigError: it was never good.
        """
        with self._lock:
            try:
                self._refresh()
            except ConfigError:
                if not self._value:
                    raise
            return self._value[0]

    def current(self) -> _T:
        """What the file says now.

        Raises:
            ConfigError: it cannot be used now, whatever it said before.
        """
        with self._lock:
            self._refresh()
            return self._value[0]

    def reload(self) -> _T:
        """What the file says now, whatever its date.

        Raises:
            ConfigError: it cannot be used; `value` stays what it was.
        """
        with self._lock:
            self._read(self._stat())
            return self._value[0]

    def _refresh(self) -> None:
        # The signature is taken before reading: a change in between is seen by the next call.
        signature = self._stat()
        if signature is None or signature != self._signature or self.error is not None:
            self._read(signature)
        elif not self._settled:
            self._read(signature, again=True)

    def _read(self, signature: _Signature | None, again: bool = False) -> None:
        """Read it; ``again``: though it looks as it did, so that only another value is news."""
        # A file that changes twice within a tick looks the same after both: what is read counts for good only
        # once the signature is older than a tick. By our own clock: that of a file server may differ.
        now, before = self._clock(), self._value
        if not again:
            self._settles = now + SETTLED_S
        try:
            value = self._load(self.path)
        except ConfigError as error:
            news = str(error) != str(self.error)
            self.error = error
            if self._changed is not None and before and news:
                self._changed(error)
            raise
        self._value, self._signature, self.error = [value], signature, None
        self._settled = now >= self._settles
        if self._changed is not None and before and not (again and before == [value]):
            self._changed(value)

    def _stat(self) -> _Signature | None:
        try:
            stat = self.path.stat()
        except (OSError, ValueError):
            return None
        return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns

"""The audit log: one JSON object a line for every action that was asked for, and for what came of it.

Each line has the digest of the one before (`prev`), so that a line that was changed, taken out or put in
shows (`clio-control-api audit verify FILE`). What cannot be shown from the file alone is that its end was
cut off: for that the log can go to journald or syslog too, out of reach of who can write the file.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from clio_control_api.errors import Unavailable
from clio_web.logs import get_logger

FIRST: Final = "0" * 64
"""The `prev` of the first line of a file."""

SYSLOG_SOCKET: Final = "/dev/log"
"""Where journald and syslog daemons take messages (sd-journal, syslog(3))."""

WINDOW_S: Final = 10.0
"""After so many seconds the refusals of a burst that were only counted are written."""

_SYSLOG_AUTHPRIV_NOTICE: Final = 10 * 8 + 5  # RFC 5424, section 6.2.1
_BURST: Final = 20
_TAIL: Final = 64 * 1024

_log = get_logger(__name__)


class AuditLog:
    """Appends to a file that only its owner can read. Thread-safe; the file may be rotated at any time."""

    def __init__(
        self,
        path: Path,
        syslog: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        window: float = WINDOW_S,
    ) -> None:
        """`syslog` is a socket that each line is sent to as well, as far as that works.

        Of a burst of refusals, no longer than `window` seconds, the first are lines of their own.
        """
        self._path = path
        self._syslog = syslog
        self._clock = clock
        self._lock = threading.Lock()
        self._span = window
        self._window = (0.0, 0)
        self._timer: threading.Timer | None = None
        self._closed = False
        self._left_out: dict[tuple[str, str], int] = {}

    def write(self, event: str, **fields: Any) -> None:
        """Append one line; what is None is left out.

        Raises:
            Unavailable: it cannot be written whole; nothing that needs an audit may then be done.
        """
        with self._lock:
            self._append(event, fields)

    def write_refusal(self, **fields: Any) -> None:
        """Append that something was refused; of a burst the first 20 in 10 s, then their number by reason.

        What cannot be written is logged: the request is refused anyway.
        """
        with self._lock:
            self._sum_up()
            began, count = self._window
            if self._clock() - began >= self._span:
                began, count = self._clock(), 0
            self._window = began, count + 1
            if count >= _BURST:
                kind = str(fields.get("status")), str(fields.get("client"))
                # Of many clients the first hundred are told apart.
                kind = kind if kind in self._left_out or len(self._left_out) < 100 else (kind[0], "others")
                self._left_out[kind] = self._left_out.get(kind, 0) + 1
                self._sum_up_in(began + self._span - self._clock())
                return
            try:
                self._append("refused", fields)
            except Unavailable:
                return

    def close(self) -> None:
        """Write what was only counted so far."""
        with self._lock:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()
            self._sum_up(now=True)

    def _sum_up_in(self, seconds: float) -> None:
        if self._timer is None and not self._closed:
            self._timer = threading.Timer(max(0.0, seconds), self._on_time)
            self._timer.daemon = True
            self._timer.start()

    def _on_time(self) -> None:
        with self._lock:
            self._timer = None
            self._sum_up(now=True)
            if self._left_out:
                self._sum_up_in(self._span)

    def _sum_up(self, now: bool = False) -> None:
        if not self._left_out or not (now or self._clock() - self._window[0] >= self._span):
            return
        try:
            for (status, client), count in list(self._left_out.items()):
                self._append("refused_many", {"status": int(status), "client": client, "count": count})
                del self._left_out[status, client]
        except Unavailable:
            return  # logged; tried again later

    def _append(self, event: str, fields: dict[str, Any]) -> None:
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        entry = {"ts": now, "event": event, **{k: v for k, v in fields.items() if v is not None}}
        try:
            line = _append_line(self._path, entry)
        except OSError as error:
            text = error.strerror or str(error)
            _log.error("the audit log cannot be written", file=str(self._path), error=text)
            raise Unavailable(
                "the audit log cannot be written, so nothing is done; see the service's log"
            ) from None
        if self._syslog is not None:
            _send(self._syslog, line)


def _append_line(path: Path, entry: dict[str, Any]) -> bytes:
    """Append the entry, chained to the last line; returns the line. Raises OSError, leaving no part of it."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        size = os.fstat(descriptor).st_size
        last, whole = _last_line(descriptor, size)
        line = (json.dumps({**entry, "prev": last}, ensure_ascii=True) + "\n").encode()
        # What a crash left half is ended here, and shows as a bad line.
        data = line if whole else b"\n" + line
        if os.write(descriptor, data) != len(data):
            os.ftruncate(descriptor, size)
            raise OSError(28, "only a part could be written: no space left")
    finally:
        os.close(descriptor)
    return line


def _last_line(descriptor: int, size: int) -> tuple[str, bool]:
    """The digest of the last line, and whether it is whole."""
    tail = os.pread(descriptor, min(size, _TAIL), max(0, size - _TAIL))
    if not tail:
        return FIRST, True
    whole = tail.endswith(b"\n")
    return digest(tail.removesuffix(b"\n").rpartition(b"\n")[2]), whole


def digest(line: bytes) -> str:
    """What the next line has as `prev`: SHA-256 of a line without its end, in hexadecimal."""
    return hashlib.sha256(line).hexdigest()


def problems(lines: Iterable[bytes]) -> list[str]:
    """What is wrong with the lines of an audit log, each with its number; nothing: the chain is whole."""
    found = []
    wanted = None
    for number, raw in enumerate(lines, start=1):
        line = raw.removesuffix(b"\n")
        try:
            previous = json.loads(line)["prev"]
        except (ValueError, LookupError, TypeError, RecursionError):
            found.append(f"line {number} is no entry, or has no digest of the line before")
        else:
            if wanted is not None and previous != wanted:
                found.append(
                    f"line {number} does not follow line {number - 1}: that one was changed, or lines "
                    "were taken out or put in"
                )
        if not raw.endswith(b"\n"):
            found.append(f"line {number} is cut")
        wanted = digest(line)
    return found


def _send(address: str, line: bytes) -> None:
    message = b"<%d>clio-control-api: %s" % (_SYSLOG_AUTHPRIV_NOTICE, line.rstrip(b"\n"))
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            sock.sendto(message, address)
    except OSError as error:
        text = error.strerror or str(error)
        _log.error("the audit log cannot be sent to syslog", socket=address, error=text)

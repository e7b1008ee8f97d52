"""Log-ins of browsers: kept here, told apart by a random id that a cookie carries.

Nothing else is in the cookie, so that a log-in ends for good when it is taken off the list: by log-out, by
time, when its token is revoked, when the service is started again, or by newer ones where there are too many.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

PER_TOKEN: Final = 32
"""Log-ins one token may have: with a leaked token nobody can push out the log-ins of others."""


@dataclass(slots=True)
class Session:
    """One log-in.

    Attributes:
        key: what it is known by here; the cookie's value cannot be made from it.
        token: hash of the token it was begun with.
        address: where it was begun. The cookies of a host are sent to all of its ports: one that another
            user's program there has got hold of is of no use from elsewhere.
        created, used: on the clock of `Sessions`.
    """

    key: str
    token: str
    address: str
    created: float
    used: float


class Sessions:
    """The log-ins in force. Thread-safe. Times are seconds."""

    def __init__(
        self, idle: float, lifetime: float, limit: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`idle`: since the last request; `lifetime`: since the log-in; `limit`: how many there may be."""
        self._idle = idle
        self._lifetime = lifetime
        self._limit = limit
        self._clock = clock
        self._lock = threading.Lock()
        self._sessions: OrderedDict[str, Session] = OrderedDict()  # used longest ago first

    def begin(self, token: str, address: str) -> str:
        """A new log-in; returns the cookie's value."""
        secret = secrets.token_urlsafe(32)
        key, now = _key(secret), self._clock()
        with self._lock:
            own = [found.key for found in self._sessions.values() if found.token == token]
            for old in own[: max(0, len(own) - PER_TOKEN + 1)]:
                del self._sessions[old]
            while len(self._sessions) >= self._limit:
                self._sessions.popitem(last=False)
            self._sessions[key] = Session(key, token, address, now, now)
        return secret

    def find(self, secret: str, address: str) -> Session | None:
        """The log-in a cookie stands for, which has been used by this; None where it does not count."""
        with self._lock:
            found = self._sessions.get(_key(secret))
            if found is None or found.address != address:
                return None
            now = self._clock()
            if now - found.used >= self._idle or now - found.created >= self._lifetime:
                del self._sessions[found.key]
                return None
            found.used = now
            self._sessions.move_to_end(found.key)
            return found

    def end(self, session: Session) -> None:
        """Log out."""
        with self._lock:
            self._sessions.pop(session.key, None)

    def __len__(self) -> int:
        """How many there are, those that have expired unnoticed too."""
        with self._lock:
            return len(self._sessions)


def _key(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()

"""Checking passwords against bcrypt hashes, without paying bcrypt for each scrape."""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
from collections import Counter, OrderedDict
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout

import bcrypt

_HASH = re.compile(r"\$2[aby]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}", re.ASCII)
_BCRYPT_ALPHABET = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_MAX_PASSWORD = 72  # bytes; bcrypt reads no more, and the library refuses more


class Busy(Exception):  # noqa: N818 - a condition
    """Too many passwords are being checked at once; try again later."""


def hash_cost(text: str) -> int | None:
    """The cost of a bcrypt hash as `htpasswd -nBC 10` makes it; None if it is not one."""
    match = _HASH.fullmatch(text)
    return int(match[1]) if match else None


class PasswordChecker:
    """Checks user and password against the hashes given with each call.

    A successful check is remembered under a digest keyed with a random secret of this process, so
    neither passwords nor anything that could be tried offline stays in memory. The hash is part of
    the digest: changing it in the configuration ends the memory of the old password at once.
    Failures are not remembered; they cost one bcrypt each, one at a time, and so does an unknown
    user, so that the time of an answer does not tell which names exist.

    Only a few may wait for that at once, and of these only some from one address: whoever tries passwords
    holds neither the worker threads, which others' remembered passwords need, nor all the places for new
    ones. Who comes with the same password at the same time waits for the same answer.
    """

    def __init__(
        self, cache_size: int = 256, max_wait: float = 5.0, places: int = 4, places_per_address: int = 2
    ) -> None:
        self._key = secrets.token_bytes(32)
        self._cache_size = cache_size
        self._max_wait = max_wait
        self._places = places
        self._places_per_address = places_per_address
        self._waiting: Counter[str] = Counter()
        self._checking: dict[bytes, Future[bool]] = {}
        self._cache: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.Lock()
        self._bcrypt_lock = threading.Lock()
        self._dummies: dict[int, bytes] = {}
        self.computed = 0
        """How many times bcrypt was run."""

    def check(self, users: Mapping[str, str], user: str, password: str, client: str = "") -> bool:
        """Whether the password is right. `client` is the address that asks.

        Raises Busy when it is not known and too many others are being checked, or for longer than `max_wait`.
        """
        known = users.get(user)
        hashed = known.encode("ascii") if known is not None else self._dummy(users)
        secret = password.encode("utf-8")
        digest = self._digest(user.encode("utf-8"), hashed, secret)
        with self._lock:
            if digest in self._cache:
                self._cache.move_to_end(digest)
                return True
            answer = self._checking.get(digest)
            mine = answer is None
            if answer is None:
                if self._waiting.total() >= self._places or self._waiting[client] >= self._places_per_address:
                    raise Busy
                self._waiting[client] += 1
                answer = self._checking[digest] = Future()
        if mine:
            self._compute(answer, known is not None, secret, hashed, digest, client)
        try:
            return answer.result(self._max_wait)
        except FutureTimeout:
            raise Busy from None

    def _compute(
        self, answer: Future[bool], known: bool, secret: bytes, hashed: bytes, digest: bytes, client: str
    ) -> None:
        """Check one password, remember it if it is right, and tell all who wait for the same one."""
        try:
            if not self._bcrypt_lock.acquire(timeout=self._max_wait):
                raise Busy
            try:
                right = self._matches(secret, hashed) and known
            finally:
                self._bcrypt_lock.release()
        except BaseException as error:  # noqa: BLE001 - raised in those who wait
            self._done(digest, client)
            answer.set_exception(error)
            return
        if right:
            with self._lock:
                self._cache[digest] = None
                while len(self._cache) > self._cache_size:
                    self._cache.popitem(last=False)
        self._done(digest, client)
        answer.set_result(right)

    def _done(self, digest: bytes, client: str) -> None:
        with self._lock:
            del self._checking[digest]
            self._waiting[client] -= 1
            if not self._waiting[client]:
                del self._waiting[client]

    def _matches(self, secret: bytes, hashed: bytes) -> bool:
        self.computed += 1
        try:
            return bcrypt.checkpw(secret[:_MAX_PASSWORD], hashed)
        except ValueError:  # a NUL byte, which older versions of the library refuse
            return False

    def _digest(self, *parts: bytes) -> bytes:
        digest = hashlib.blake2b(key=self._key)
        for part in parts:
            digest.update(len(part).to_bytes(8, "big") + part)
        return digest.digest()

    def _dummy(self, users: Mapping[str, str]) -> bytes:
        """A hash that no password matches, as costly as the costliest real one."""
        cost = max((hash_cost(text) or 4 for text in users.values()), default=4)
        if cost not in self._dummies:
            tail = "".join(secrets.choice(_BCRYPT_ALPHABET) for _ in range(31))
            self._dummies[cost] = bcrypt.gensalt(cost) + tail.encode("ascii")
        return self._dummies[cost]

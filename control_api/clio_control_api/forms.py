"""What shows that a form was sent from a page that this service has shown to the same browser.

A page's form has a secret in a hidden field `csrf`. It belongs to the log-in or, before one, to a random
cookie, and to one purpose. Those of actions are good for one use; to log in and out they are not counted, for
whoever could fill a list of them would keep others from logging in.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from flask import g, request
from werkzeug.wrappers import Response

from clio_control_api.errors import Forbidden
from clio_control_api.sessions import Session

FIELD: Final = "csrf"
_LIFETIME_S: Final = 3600.0
_PER_OWNER: Final = 64
_LIMIT: Final = 10_000
_VISITOR = re.compile(r"[A-Za-z0-9_-]{22}", re.ASCII)


class Nonces:
    """Secrets for one use, each for one owner and purpose. Thread-safe; bounded in number and age."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, limit: int = _LIMIT) -> None:
        self._clock = clock
        self._limit = limit
        self._lock = threading.Lock()
        self._issued: OrderedDict[str, tuple[str, str, float]] = OrderedDict()

    def issue(self, owner: str, purpose: str) -> str:
        """A new one. An owner's oldest goes when it has many, else the oldest of all."""
        nonce = secrets.token_urlsafe(24)
        with self._lock:
            own = [known for known, (whose, _, _) in self._issued.items() if whose == owner]
            for old in own[: max(0, len(own) - _PER_OWNER + 1)]:
                del self._issued[old]
            while len(self._issued) >= self._limit:
                self._issued.popitem(last=False)
            self._issued[nonce] = (owner, purpose, self._clock() + _LIFETIME_S)
        return nonce

    def take(self, nonce: str, owner: str, purpose: str) -> bool:
        """Whether it is good for this; it is not any more after that."""
        with self._lock:
            found = self._issued.get(nonce)
            if found is None or found[:2] != (owner, purpose):
                return False
            del self._issued[nonce]
            return self._clock() < found[2]


class Forms:
    """Secrets of the forms of one application. Use within a request that `AccessControl` has checked."""

    def __init__(self, secure: bool) -> None:
        """`secure`: browsers reach the service over TLS whatever the request says."""
        self._secure = secure
        self._nonces = Nonces()
        self._key = secrets.token_bytes(32)

    def once(self, purpose: str) -> str:
        """The secret of a form that does something, for one use."""
        return self._nonces.issue(self._owner(make=True), purpose)

    def check_once(self, purpose: str) -> None:
        """Raises `Forbidden` where the form sent has no secret of `once` for this purpose, or it was used."""
        owner = self._owner()
        if not owner or not self._nonces.take(_sent(), owner, purpose):
            raise _refusal()

    def lasting(self, purpose: str) -> str:
        """The secret of a form that may be sent again."""
        return self._made(self._owner(make=True), purpose)

    def check_lasting(self, purpose: str) -> None:
        """Raises `Forbidden` where the form sent has no secret of `lasting` for this purpose."""
        owner = self._owner()
        if not owner or not hmac.compare_digest(_sent().encode(), self._made(owner, purpose).encode()):
            raise _refusal()

    # --- cookies ----------------------------------------------------------------------------------

    @property
    def is_secure(self) -> bool:
        """Whether the request came over TLS, as far as the browser is concerned."""
        return self._secure or request.scheme == "https"

    def cookie(self, name: str) -> str:
        """The value of one of our cookies; '' where there is none."""
        return request.cookies.get(self._cookie_name(name), "")

    def set_cookie(self, answer: Response, name: str, value: str) -> None:
        """Set a cookie: for this host alone, not for scripts, until the browser is closed."""
        answer.set_cookie(
            self._cookie_name(name), value, path="/", secure=self.is_secure, httponly=True, samesite="Strict"
        )

    def delete_cookie(self, answer: Response, name: str) -> None:
        """Have the browser forget a cookie."""
        answer.delete_cookie(
            self._cookie_name(name), path="/", secure=self.is_secure, httponly=True, samesite="Strict"
        )

    def finish(self, answer: Response) -> None:
        """Send the cookie that forms shown before a log-in belong to, where there was none yet."""
        visitor = g.get("new_visitor")
        if visitor is not None:
            self.set_cookie(answer, "form", visitor)

    def _cookie_name(self, name: str) -> str:
        return f"__Host-clio_control_{name}" if self.is_secure else f"clio_control_{name}"

    def _owner(self, *, make: bool = False) -> str:
        session: Session | None = g.get("session")
        if session is not None:
            return f"session {session.key}"
        visitor = g.get("new_visitor") or self.cookie("form")
        if not _VISITOR.fullmatch(visitor):
            if not make:
                return ""
            visitor = g.new_visitor = secrets.token_urlsafe(16)
        return f"visitor {visitor}"

    def _made(self, owner: str, purpose: str) -> str:
        return hmac.new(self._key, f"{owner}\n{purpose}".encode(), hashlib.sha256).hexdigest()


def _sent() -> str:
    return request.form.get(FIELD, "")


def _refusal() -> Forbidden:
    return Forbidden(
        "the form is not from this session, was sent already, or has expired; go back and load the page again"
    )

"""`--web.config.file`: TLS, basic authentication and response headers.

The format is that of Prometheus's exporter-toolkit (its page "web configuration"), so one file
serves every exporter of a site. Reading is strict and stricter than there in a few places, each
with an error that says so: keys open to all users, settings Python's ssl module cannot honour, and
settings that would be without effect. `http_server_config.http2` is accepted and has no effect:
this server speaks HTTP/1.1, which every client falls back to. `rate_limit` is refused.
"""

from __future__ import annotations

import base64
import binascii
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clio_web.auth import Busy, PasswordChecker, hash_cost
from clio_web.errors import WebConfigError, quoted
from clio_web.logs import get_logger
from clio_web.places import client_of
from clio_web.tls import Tls, load_tls
from clio_web.yamldoc import Section, load_document

# Header name -> the values it may have (none listed: any).
HEADERS: dict[str, tuple[str, ...]] = {
    "Content-Security-Policy": (),
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
}
_SECTIONS = ("tls_server_config", "http_server_config", "basic_auth_users")

_log = get_logger(__name__)

_StartResponse = Callable[..., Any]
_WsgiApp = Callable[[dict[str, Any], _StartResponse], Iterable[bytes]]


@dataclass(frozen=True)
class WebConfig:
    """A loaded configuration. `users` maps names to bcrypt hashes; `files` are what it was read from."""

    tls: Tls | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    files: tuple[Path, ...] = ()


def load(path: Path) -> WebConfig:
    """Read and check the file and all it names. Raises WebConfigError with file, line and remedy."""
    document = load_document(path)
    if "rate_limit" in document.items:
        document.fail(
            "rate_limit is not supported by this exporter",
            "Remove it; --web.max-requests bounds the scrapes in progress",
            "rate_limit",
        )
    document.only(_SECTIONS)
    tls, files = load_tls(document.section("tls_server_config"))
    http = document.section("http_server_config")
    http.only(("http2", "headers"))
    http.flag("http2", True)
    return WebConfig(
        tls=tls,
        headers=_headers(http.section("headers")),
        users=_users(document.section("basic_auth_users")),
        files=(path, *files),
    )


def _headers(section: Section) -> dict[str, str]:
    headers = {}
    for name in section.items:
        if name not in HEADERS:
            section.fail(
                f"HTTP header {quoted(name)} cannot be configured", f"Use one of: {', '.join(HEADERS)}", name
            )
        value = section.text(name)
        if HEADERS[name] and value not in HEADERS[name]:
            section.fail(
                f"{name}: {quoted(value)} is not allowed", f"Use one of: {', '.join(HEADERS[name])}", name
            )
        if not all(c.isprintable() and ord(c) < 256 for c in value):
            section.fail(
                f"{name}: the value has characters that a header cannot have", "Use printable text", name
            )
        if value:
            headers[name] = value
    return headers


def _users(section: Section) -> dict[str, str]:
    users = {}
    for name in section.items:
        value = section.text(name)
        if hash_cost(value) is None:
            # The value is not shown: it may be the password itself.
            section.fail(
                f"basic_auth_users: the password of {quoted(name)} is not a bcrypt hash",
                "Make one with: htpasswd -nBC 10 ''",
                name,
            )
        if ":" in name or not name:
            section.fail(
                f"basic_auth_users: the user name {quoted(name)} is empty or has a colon", "Rename it", name
            )
        users[name] = value
    return users


class WebConfigStore:
    """The configuration in use, read again when the file or a file it names changes.

    A change that cannot be loaded is logged once and the configuration before it stays in use, as
    does one that would switch TLS on or off (that needs a restart). Thread-safe.
    """

    RETRY = 5.0
    """Seconds after which a configuration that could not be loaded is tried again, changed or not
    (what was missing may have appeared)."""

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Load the file (None: no file, nothing guarded). Raises WebConfigError."""
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._config = WebConfig()
        self._seen: object = None
        self._error = ""
        self._retry_at = 0.0
        if path is not None:
            self._config, self._seen = _load_with_signature(path, (path,))
        self.tls_enabled = self._config.tls is not None

    def current(self) -> WebConfig:
        """The configuration in use, after looking for changes. Never raises."""
        if self._path is None:
            return self._config
        with self._lock:
            changed = _signature(self._config.files) != self._seen
            if changed or (self._error and self._clock() >= self._retry_at):
                try:
                    self._load(self._path)
                except WebConfigError as error:
                    if str(error) != self._error:
                        _log.error(
                            "web configuration changed and cannot be used, the previous one stays in use",
                            error=str(error),
                        )
                    self._error = str(error)
                    self._retry_at = self._clock() + self.RETRY
                else:
                    _log.info("web configuration reloaded", file=str(self._path))
            return self._config

    def reload(self) -> None:
        """Read everything again now. Raises WebConfigError; the previous configuration then stays."""
        if self._path is not None:
            with self._lock:
                self._load(self._path)

    def _load(self, path: Path) -> None:
        self._seen = _signature(self._config.files)
        config, seen = _load_with_signature(path, self._config.files)
        if (config.tls is not None) != self.tls_enabled:
            state = "off" if self.tls_enabled else "on"
            raise WebConfigError(path, f"TLS cannot be switched {state} while running", "Restart the service")
        self._config, self._seen, self._error = config, seen, ""


def _load_with_signature(path: Path, files: tuple[Path, ...]) -> tuple[WebConfig, object]:
    """Load, with a signature taken before reading: what changes meanwhile is seen as changed later."""
    seen = _signature(files)
    config = load(path)
    if config.files != files:
        seen = _signature(config.files)
        config = load(path)
    return config, seen


def _signature(files: tuple[Path, ...]) -> object:
    """Changes whenever one of the files does, its permissions included."""
    marks: list[object] = [files]
    for path in files:
        try:
            status = path.stat()
        except OSError as error:
            marks.append(error.errno)
        else:
            marks.append(
                (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            )
    return tuple(marks)


class WebConfigMiddleware:
    """WSGI middleware: basic authentication for every path, and the configured headers."""

    def __init__(self, app: _WsgiApp, store: WebConfigStore, checker: PasswordChecker | None = None) -> None:
        self._app = app
        self._store = store
        self._checker = checker if checker is not None else PasswordChecker()

    def __call__(self, environ: dict[str, Any], start_response: _StartResponse) -> Iterable[bytes]:
        """Answer one request (WSGI)."""
        config = self._store.current()

        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            kept = [(name, value) for name, value in headers if name.title() not in configured]
            return start_response(status, [*kept, *config.headers.items()], *exc_info)

        configured = {name.title() for name in config.headers}
        if config.users:
            try:
                allowed = self._allowed(config.users, environ)
            except Busy:
                return _plain(
                    environ,
                    start,
                    "503 Service Unavailable",
                    "too many passwords to check, try again later\n",
                    ("Retry-After", "1"),
                )
            if not allowed:
                challenge = ("WWW-Authenticate", 'Basic realm="clio-exporter", charset="UTF-8"')
                return _plain(
                    environ, start, "401 Unauthorized", "user name and password required\n", challenge
                )
        return self._app(environ, start)

    def _allowed(self, users: Mapping[str, str], environ: Mapping[str, Any]) -> bool:
        scheme, _, encoded = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            decoded = base64.b64decode(encoded.strip(), validate=True).decode("utf-8")
        except (binascii.Error, ValueError):
            return False
        user, colon, password = decoded.partition(":")
        return bool(colon) and self._checker.check(
            users, user, password, client_of(environ.get("REMOTE_ADDR", ""))
        )


def _plain(
    environ: dict[str, Any], start: _StartResponse, status: str, text: str, *headers: tuple[str, str]
) -> list[bytes]:
    body = text.encode()
    start(
        status,
        [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body))), *headers],
    )
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

"""Who may ask for what: every check that happens before an endpoint's own code.

The table of routes says what each needs; a route that is not in it is refused. Order: size and
form, rate, host name, cross-site, identity, role.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Final

from flask import Flask, Response, g, request

from clio_control_api.errors import ApiError, BadRequest, Forbidden, TooManyRequests, Unauthorized
from clio_control_api.exposure import Auth, forwarding_header
from clio_control_api.forms import Forms
from clio_control_api.metrics import Metrics
from clio_control_api.origins import cross_site, is_loopback, own_origin, parse_authority
from clio_control_api.principals import Identity, Role
from clio_control_api.ratelimit import RateLimiter
from clio_control_api.routes import LOG_IN, Route
from clio_control_api.sessions import Session, Sessions
from clio_control_api.settings import Settings
from clio_control_api.tokens import Token, TokenRefusedError, TokenStore
from clio_web.logs import get_logger

SESSION: Final = "session"
"""Name of the cookie of a log-in."""

_LOCAL_OPERATOR: Final = Identity("local", Role.OPERATOR, anonymous=True)
_LOCAL_VIEWER: Final = Identity("local", Role.VIEWER, anonymous=True)

_log = get_logger(__name__)


class LogInNeeded(Exception):  # noqa: N818 - a condition
    """A page that needs a log-in was asked for without one."""


class PayloadTooLargeError(ApiError):
    """The request is larger than any endpoint needs."""

    status = 413


class LengthRequiredError(ApiError):
    """A body without its length."""

    status = 411


class UriTooLongError(ApiError):
    """The URL is longer than any endpoint needs."""

    status = 414


class AccessControl:
    """The checks of one application."""

    def __init__(
        self,
        settings: Settings,
        auth: Auth,
        tokens: TokenStore,
        metrics: Metrics,
        routes: Iterable[Route],
        refused: Callable[[ApiError], None],
    ) -> None:
        """`refused` is told of requests for actions that were refused."""
        self._settings = settings
        self._auth = auth
        self._tokens = tokens
        self._metrics = metrics
        self._refused = refused
        limits = settings.limits
        self._sessions = Sessions(settings.session_idle, settings.session_lifetime, limits.max_sessions)
        self.forms = Forms(secure=(settings.external_url or "").startswith("https://"))
        self._reads = RateLimiter(limits.reads_per_second, 2 * limits.reads_per_second)
        self._actions = RateLimiter(limits.actions_per_minute / 60, limits.actions_per_minute)
        self._failures = RateLimiter(limits.failed_logins_per_minute / 60, limits.failed_logins_per_minute)
        self._routes = {route.endpoint: route for route in routes}

    def install(self, app: Flask) -> None:
        """Check every request of `app`."""
        app.before_request(self._check)
        app.after_request(self._finish)

    # --- before -----------------------------------------------------------------------------------

    def _check(self) -> Response | None:
        g.identity = g.session = None
        if request.url_rule is None or request.endpoint is None:
            self._check_rate(None)
            return None  # 404 or 405: tells nothing
        route = self._routes.get(request.endpoint)
        if route is None:
            raise Forbidden("this endpoint has no access rule")
        g.action = route.action and request.method == "POST"
        try:
            return self._check_route(route)
        except ApiError as error:
            if route.action:
                self._refused(error)
            raise

    def _check_route(self, route: Route) -> Response | None:
        self._check_size(route)
        if request.method == "OPTIONS":
            return self._preflight(route)
        if route.role is None and not route.page:
            self._check_rate(None)
            return None
        self._check_host()
        own = self._own_origins()
        reason = cross_site(request.method, dict(request.headers), own, self._settings.allowed_origins)
        if reason is not None:
            raise Forbidden(f"cross-site request refused: {reason}")
        g.identity = self._identify(route)
        if route.endpoint != LOG_IN:  # which counts failures only
            self._check_rate(g.identity)
        if route.role is not None:
            self._check_role(route)
        if route.action and request.method == "POST":
            self._limit(self._actions, self._client_key(g.identity), "too many actions")
        return None

    def _check_role(self, route: Route) -> None:
        identity: Identity | None = g.identity
        enough = identity is not None and route.role is not None and identity.role >= route.role
        if identity is None or (identity.anonymous and not enough):
            if route.page:
                raise LogInNeeded
            text = "a token is needed: send the header Authorization: Bearer TOKEN"
            if self._settings.tokens_file is None:
                text += (
                    ". The service's first start made an operator's: the file token in its state directory"
                )
            raise Unauthorized(text)
        if route.role is not None and not enough:
            raise Forbidden(
                f"{identity.name} is a {identity.role.name.lower()}; this needs the role "
                f"{route.role.name.lower()}"
            )

    def _check_size(self, route: Route) -> None:
        limits = self._settings.limits
        max_body = route.max_body or limits.max_body_bytes
        if len(request.environ.get("RAW_URI") or request.full_path) > limits.max_url_bytes:
            raise UriTooLongError(f"the URL is longer than {limits.max_url_bytes} bytes")
        if request.headers.get("Transfer-Encoding"):
            raise LengthRequiredError("send the body with a Content-Length")
        if (request.content_length or 0) > max_body:
            raise PayloadTooLargeError(f"the body is larger than {max_body} bytes")
        request.max_content_length = max_body

    def _check_host(self) -> None:
        """Against DNS rebinding: without a token, only names that mean this machine are answered to."""
        text = request.headers.get("Host", "")
        parsed = parse_authority(text)
        if parsed is None and text:
            raise BadRequest("the header Host is not a host name or address, with or without a port")
        if self._auth is Auth.ALL or (self._auth is Auth.ACTIONS and "Authorization" in request.headers):
            return
        host = "" if parsed is None else parsed[0]
        if not (is_loopback(host) or host in self._settings.allowed_hosts):
            raise Forbidden(
                f"the host name {host[:100]!a} is not this machine's; without tokens only localhost is "
                "answered to (allowed_hosts adds names)"
            )

    def _own_origins(self) -> set[str]:
        found = {own_origin(request.scheme, request.headers.get("Host", ""))}
        if self._settings.external_url:
            scheme, _, rest = self._settings.external_url.partition("://")
            found.add(own_origin(scheme, rest.partition("/")[0]))
        return {origin for origin in found if origin is not None}

    def _identify(self, route: Route) -> Identity | None:
        """Who asks; None when nobody in particular.

        Raises:
            Unauthorized: a token was presented and it does not count.
            TooManyRequests: too many of those from this address.
            Forbidden: a proxy has passed on what is for this machine's users alone.
        """
        if self._auth is Auth.NONE:
            header = forwarding_header(list(request.headers.keys()))
            if header is not None:
                raise Forbidden(
                    f"the request came through a proxy ({header}), but auth: none is for this machine alone; "
                    "remove that setting, so that actions need a token"
                )
            return _LOCAL_OPERATOR
        header = request.headers.get("Authorization", "")
        if header:
            scheme, _, presented = header.partition(" ")
            if scheme.lower() != "bearer":
                raise Unauthorized("only bearer tokens are accepted: Authorization: Bearer TOKEN")
            return self._token(presented.strip()).identity
        if route.page:
            token = self._session_token()
            if token is not None:
                return token.identity
        return _LOCAL_VIEWER if self._auth is Auth.ACTIONS else None

    # --- log-ins ----------------------------------------------------------------------------------

    def log_in(self, presented: str) -> str:
        """Begin a log-in, which ends the one before it; returns the value of its cookie.

        Raises:
            Unauthorized: the token does not count.
            TooManyRequests: too many of those from this address.
        """
        token = self._token(presented)
        self.log_out()
        return self._sessions.begin(token.digest, request.remote_addr or "")

    def log_out(self) -> None:
        """End the log-in of this request."""
        session: Session | None = g.session
        if session is not None:
            self._sessions.end(session)
        g.session = None

    def _session_token(self) -> Token | None:
        """The token that the browser's log-in was begun with, if both still count."""
        secret = self.forms.cookie(SESSION)
        session = self._sessions.find(secret, request.remote_addr or "") if secret else None
        if session is None:
            return None
        try:
            token = self._tokens.by_digest(session.token)
        except TokenRefusedError as error:
            if error.reason != "unusable_file":
                self._sessions.end(session)
            return None
        g.session = session
        return token

    def _token(self, presented: str) -> Token:
        """Whose token this is. One that counts is never refused; others are counted against the address.

        Raises:
            Unauthorized: it does not count.
            TooManyRequests: too many of those.
        """
        try:
            return self._tokens.find(presented)
        except TokenRefusedError as error:
            address = request.remote_addr or ""
            self._metrics.refused_tokens.labels(error.reason).inc()
            wait = self._failures.take(address)
            if wait:  # not logged: who guesses must not fill the disk
                raise _too_many("too many failed log-ins from this address", wait) from None
            _log.warning("a token was refused", client=address, path=request.path[:200], reason=error.reason)
            raise Unauthorized(str(error)) from None

    def _check_rate(self, identity: Identity | None) -> None:
        self._limit(self._reads, self._client_key(identity), "too many requests")

    def _client_key(self, identity: Identity | None) -> str:
        if identity is None or identity.anonymous:
            return f"address {request.remote_addr}"
        return f"token {identity.name}"

    def _limit(self, limiter: RateLimiter, key: str, what: str) -> None:
        wait = limiter.take(key)
        if wait:
            raise _too_many(what, wait)

    # --- CORS -------------------------------------------------------------------------------------

    def _preflight(self, route: Route) -> Response:
        origin = request.headers.get("Origin", "").lower()
        if not origin or "Access-Control-Request-Method" not in request.headers:
            raise BadRequest("OPTIONS is for CORS preflight requests only")
        if not route.preflight or origin not in self._settings.allowed_origins:
            raise Forbidden(f"the origin {origin[:100]!a} is not among allowed_origins")
        answer = Response(status=204)
        rule: Any = request.url_rule
        methods = sorted(rule.methods - {"HEAD", "OPTIONS"})
        answer.headers["Access-Control-Allow-Methods"] = ", ".join(methods)
        answer.headers["Access-Control-Allow-Headers"] = "Authorization, Content-Type"
        answer.headers["Access-Control-Max-Age"] = "600"
        return answer

    def _finish(self, answer: Response) -> Response:
        self.forms.finish(answer)
        headers = answer.headers
        headers.setdefault("X-Content-Type-Options", "nosniff")
        headers.setdefault("X-Frame-Options", "DENY")
        headers.setdefault("Referrer-Policy", "same-origin")
        headers.setdefault("Cross-Origin-Opener-Policy", "same-origin")
        headers.setdefault("Cache-Control", "no-store")
        headers.setdefault(
            "Content-Security-Policy",
            "default-src 'none'; style-src 'self'; form-action 'self'; "
            "frame-ancestors 'none'; base-uri 'none'",
        )
        if request.scheme == "https":
            headers.setdefault("Strict-Transport-Security", "max-age=31536000")
        route = self._routes.get(request.endpoint or "")
        origin = request.headers.get("Origin", "").lower()
        if self._settings.allowed_origins and (route is None or route.preflight):
            answer.vary.add("Origin")
            if origin in self._settings.allowed_origins:
                headers["Access-Control-Allow-Origin"] = origin
        return answer


def _too_many(what: str, wait: float) -> TooManyRequests:
    seconds = max(1, math.ceil(wait))
    error = TooManyRequests(f"{what}; try again in {seconds} s")
    error.headers["Retry-After"] = str(seconds)
    return error

"""Who may ask for what: every check that happens before an endpoint's own code.

The table of routes says what each needs; a route that is not in it is refused. Order: size and
form, rate, host name, cross-site, identity, role.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from flask import Flask, Response, g, request, session

from clio_control_api.errors import ApiError, BadRequest, Forbidden, TooManyRequests, Unauthorized
from clio_control_api.origins import cross_site, host_of, is_loopback, own_origin
from clio_control_api.ratelimit import RateLimiter
from clio_control_api.routes import Route
from clio_control_api.settings import Settings
from clio_control_api.tokens import Role, TokenStore

SESSION_DIGEST: Final = "token"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks. `name` and `role` are what the audit log records."""

    name: str
    role: Role


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
        tokens: TokenStore,
        routes: Iterable[Route],
        refused: Callable[[ApiError], None],
    ) -> None:
        """`refused` is told of requests for actions that were refused."""
        self._settings = settings
        self._tokens = tokens
        self._refused = refused
        limits = settings.limits
        self._reads = RateLimiter(limits.reads_per_second, 2 * limits.reads_per_second)
        self._actions = RateLimiter(limits.actions_per_minute / 60, limits.actions_per_minute)
        self._failures = RateLimiter(limits.failed_logins_per_minute / 60, limits.failed_logins_per_minute)
        self._refusals = RateLimiter(1.0, 120)
        self._routes = {route.endpoint: route for route in routes}

    def install(self, app: Flask) -> None:
        """Check every request of `app`."""
        app.before_request(self._check)
        app.after_request(self._finish)

    # --- before -----------------------------------------------------------------------------------

    def _check(self) -> Response | None:
        g.identity = None
        if request.url_rule is None or request.endpoint is None:
            self._check_rate(None)
            return None  # 404 or 405: tells nothing
        route = self._routes.get(request.endpoint)
        if route is None:
            raise Forbidden("this endpoint has no access rule")
        try:
            return self._check_route(route)
        except ApiError as error:
            # Who floods us with refused requests must not fill the disk with them.
            if route.action and not self._refusals.take(request.remote_addr or ""):
                self._refused(error)
            raise

    def _check_route(self, route: Route) -> Response | None:
        self._check_size()
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
        self._check_rate(g.identity)
        if route.role is not None:
            self._check_role(route)
        if route.action and request.method == "POST":
            self._limit(self._actions, self._client_key(g.identity), "too many actions")
        return None

    def _check_role(self, route: Route) -> None:
        identity: Identity | None = g.identity
        if identity is None:
            if route.page:
                raise LogInNeeded
            raise Unauthorized("a token is needed: send the header Authorization: Bearer TOKEN")
        if route.role is not None and identity.role < route.role:
            raise Forbidden(
                f"{identity.name} is a {identity.role.name.lower()}; this needs the role "
                f"{route.role.name.lower()}"
            )

    def _check_size(self) -> None:
        limits = self._settings.limits
        if len(request.environ.get("RAW_URI") or request.full_path) > limits.max_url_bytes:
            raise UriTooLongError(f"the URL is longer than {limits.max_url_bytes} bytes")
        if request.headers.get("Transfer-Encoding"):
            raise LengthRequiredError("send the body with a Content-Length")
        if (request.content_length or 0) > limits.max_body_bytes:
            raise PayloadTooLargeError(f"the body is larger than {limits.max_body_bytes} bytes")

    def _check_host(self) -> None:
        """Against DNS rebinding: without tokens, only names that mean this machine are answered to."""
        if self._tokens.configured:
            return
        host = host_of(request.headers.get("Host", ""))
        if not (is_loopback(host) or host in self._settings.allowed_hosts):
            raise Forbidden(
                f"the host name {host[:100]!a} is not this machine's; without tokens only localhost is "
                "answered to (allowed_hosts adds names)"
            )

    def _own_origins(self) -> set[str]:
        own = {own_origin(request.scheme, request.headers.get("Host", ""))}
        if self._settings.external_url:
            scheme, _, rest = self._settings.external_url.partition("://")
            own.add(own_origin(scheme, rest.partition("/")[0]))
        return own

    def _identify(self, route: Route) -> Identity | None:
        """Who asks; None when nobody in particular.

        Raises:
            Unauthorized: a token was presented and it is not known.
            TooManyRequests: too many of those from this address.
        """
        if not self._tokens.configured:
            return Identity("local", Role.OPERATOR)
        header = request.headers.get("Authorization", "")
        if header:
            scheme, _, presented = header.partition(" ")
            if scheme.lower() != "bearer":
                raise Unauthorized("only bearer tokens are accepted: Authorization: Bearer TOKEN")
            return self.identity_of(presented.strip())
        if route.page:
            digest = session.get(SESSION_DIGEST)
            token = self._tokens.by_digest(digest) if isinstance(digest, str) else None
            if token is not None:
                return Identity(token.name, token.role)
        return None

    def identity_of(self, presented: str) -> Identity:
        """Whose token this is; failures are counted against the address.

        Raises:
            Unauthorized: nobody's.
            TooManyRequests: too many failures.
        """
        address = request.remote_addr or ""
        wait = self._failures.check(address)
        if wait:
            raise _too_many("too many failed log-ins from this address", wait)
        token = self._tokens.find(presented)
        if token is None:
            self._failures.take(address)
            raise Unauthorized("the token is not known")
        return Identity(token.name, token.role)

    def _check_rate(self, identity: Identity | None) -> None:
        self._limit(self._reads, self._client_key(identity), "too many requests")

    def _client_key(self, identity: Identity | None) -> str:
        if identity is None or not self._tokens.configured:
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
    seconds = max(1, int(wait + 0.999))
    error = TooManyRequests(f"{what}; try again in {seconds} s")
    error.headers["Retry-After"] = str(seconds)
    return error

"""The HTTP endpoints, as a Flask application over a MetricsService.

The application knows nothing of sockets, TLS or passwords: server.py serves it, webconfig.py guards it.
"""

from __future__ import annotations

import platform
import re
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from flask import Flask, Response, g, jsonify, render_template, request
from werkzeug.exceptions import HTTPException, NotFound

from clio_client import __version__
from clio_client.config.errors import ConfigError
from clio_exporter.http.negotiate import (
    TIMEOUT_HEADER,
    BadRequest,
    collector_filter,
    exposition_format,
    gzip_accepted,
    probe_target,
    scrape_timeout,
)
from clio_exporter.http.origins import FOREIGN_HOST, foreign_request, host_allowed, own_host
from clio_exporter.http.runbooks import sections
from clio_exporter.http.service import Exposition, MetricsService, UnknownTarget
from clio_exporter.kit import sources
from clio_exporter.telemetry import Telemetry
from clio_web.body import gzip_stream, reblock
from clio_web.errors import WebConfigError
from clio_web.logs import get_logger
from clio_web.options import WebOptions

RUNBOOKS = "/docs/runbooks.md"
FIXED_PATHS = (
    "/", "/probe", "/sd", "/config", "/landing.css", "/favicon.ico", "/-/healthy", "/-/ready", "/-/reload",
    RUNBOOKS,
)  # fmt: skip
"""Paths that `--web.telemetry-path` cannot take."""

MOST_ROWS = 200
"""Nodes of a cluster that the landing page lists."""

_CSP = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_log = get_logger(__name__)
_HERE = Path(__file__).parent


class ResponseAborted(ConnectionError):  # noqa: N818 - like ConnectionAborted
    """An exposition failed while it was being sent; the connection must end without its terminator.

    A ConnectionError, so that the server closes the connection and the client sees a broken
    transfer instead of a short but complete one.
    """


def create_app(
    service: MetricsService,
    options: WebOptions,
    telemetry: Telemetry | None = None,
    flags: Mapping[str, Any] = MappingProxyType({}),
) -> Flask:
    """Build the application with all endpoints.

    `telemetry` counts the requests (pass the one that the exporter's own metrics are written from). `flags`
    are what `/config` shows beside the service's settings.
    Raises WebConfigError when the telemetry path cannot be used.
    """
    telemetry_path = checked_telemetry_path(options.telemetry_path)
    grafana_url = checked_url("--web.grafana-url", options.grafana_url)
    docs_url = checked_url("--web.docs-url", options.docs_url)
    style = (_HERE / "landing.css").read_bytes()
    counts = telemetry or Telemetry()
    reload_lock = threading.Lock()
    app = Flask("clio_exporter.http", static_folder=None, template_folder=str(_HERE))
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.url_map.strict_slashes = True

    def route(path: str, view: Callable[[], Response], *methods: str) -> None:
        app.add_url_rule(
            path, endpoint=path, view_func=view, methods=methods, provide_automatic_options=False
        )

    def filters() -> tuple[frozenset[str] | None, float]:
        wanted = collector_filter(
            request.args.getlist("collect[]"), request.args.getlist("exclude[]"), service.collectors
        )
        header = request.headers.get(TIMEOUT_HEADER)
        return wanted, scrape_timeout(header, options.timeout_offset, options.scrape_timeout)

    def metrics() -> Response:
        wanted, timeout = filters()
        return exposition(lambda: service.scrape(wanted, timeout))

    def probe() -> Response:
        target = probe_target(request.args.getlist("target"))
        wanted, timeout = filters()
        debug = request.args.get("debug") == "true"
        return exposition(lambda: service.probe(target, wanted, timeout), debug=debug)

    def exposition(collect: Callable[[], Exposition], debug: bool = False) -> Response:
        """Collect within the limit of concurrent scrapes and stream the answer; for people with `debug`."""
        openmetrics, content_type = exposition_format(request.headers.get("Accept"))
        if debug:
            openmetrics, content_type = False, "text/plain; charset=utf-8"
        if request.method == "HEAD":
            # Answered from the request alone: a health check must not cost every node a collection.
            return _vary(Response(content_type=content_type))
        if not counts.enter(options.max_requests):
            answer = _text(
                f"Limit of concurrent scrapes reached ({options.max_requests}); try again later "
                "or raise --web.max-requests.\n",
                503,
            )
            answer.headers["Retry-After"] = "1"
            return answer
        once = _Once(counts.leave)
        try:
            # The first block is made before the status line is sent, so that a failure is still a 500.
            collected = collect()
            chunks = collected.render(openmetrics)
            blocks = reblock(_explained(collected, chunks) if debug else chunks)
            first = next(blocks, b"")
        except BaseException:
            once()
            raise
        body: Iterator[bytes] = _guarded(first, blocks)
        compress = gzip_accepted(request.accept_encodings)
        if compress:
            body = gzip_stream(body)
        answer = _vary(Response(body, content_type=content_type))
        if compress:
            answer.headers["Content-Encoding"] = "gzip"
        answer.call_on_close(once)
        return answer

    def service_discovery() -> Response:
        return jsonify(service.target_groups())

    def healthy() -> Response:
        return _text("clio-exporter is healthy.\n")

    def ready() -> Response:
        if service.ready():
            return _text("clio-exporter is ready.\n")
        return _text("clio-exporter is not ready yet.\n", 503)

    def reload() -> Response:
        if not options.enable_lifecycle:
            return _text("reload by HTTP is off; start with --web.enable-lifecycle, or send SIGHUP\n", 403)
        problem = foreign_request(dict(request.headers), options.allowed_hosts)
        if problem is not None:
            return _text(f"{problem}\n", 403)
        with reload_lock:
            try:
                service.reload()
            except ConfigError as error:
                # The answer has no details: they quote what stands in files and the environment.
                _log.error("reload failed, the previous configuration stays in use", error=str(error))
                return _text("reload failed, the previous configuration stays in use; see the log\n", 500)
        _log.info("configuration reloaded")
        return _text("configuration reloaded\n")

    def config() -> Response:
        # A page whose name is made to lead here could read it from a browser inside the network.
        if not own_host(request.headers.get("Host", ""), options.allowed_hosts):
            return _text(f"{FOREIGN_HOST}\n", 403)
        document = {**service.config(), "flags": dict(flags)}
        answer = _text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
        answer.headers["Cache-Control"] = "no-store"
        return answer

    def landing() -> Response:
        clusters = service.summary()
        page = render_template(
            "landing.html",
            clusters=clusters,
            collectors=service.collectors,
            nodes=sum(cluster.nodes for cluster in clusters),
            telemetry_path=telemetry_path,
            docs_url=docs_url,
            lifecycle=options.enable_lifecycle,
            grafana_url=grafana_url,
            most_rows=MOST_ROWS,
            version=__version__,
            python=platform.python_version(),
        )
        return _page(page)

    def runbooks() -> Response:
        return _page(render_template("runbooks.html", sections=sections(sources.text("runbooks.md"))))

    route("/", landing, "GET")
    route(RUNBOOKS, runbooks, "GET")
    route(telemetry_path, metrics, "GET")
    route("/probe", probe, "GET")
    route("/config", config, "GET")
    route("/sd", service_discovery, "GET")
    route("/-/healthy", healthy, "GET")
    route("/-/ready", ready, "GET")
    route("/-/reload", reload, "POST", "PUT")
    route("/landing.css", lambda: Response(style, content_type="text/css; charset=utf-8"), "GET")
    route("/favicon.ico", lambda: Response(status=204), "GET")

    @app.errorhandler(BadRequest)
    def bad_request(error: BadRequest) -> Response:
        return _text(f"{error}\n", 400)

    @app.errorhandler(UnknownTarget)
    def unknown_target(error: UnknownTarget) -> Response:
        return _text(f"{error.args[0] if error.args else 'unknown target'}\n", 404)

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        if isinstance(error, NotFound):
            text = f"404 Not Found; metrics are at {telemetry_path}\n"
        else:
            text = f"{error.code} {error.name}: {error.description}\n"
        answer = _text(text, error.code or 500)
        for name, value in error.get_headers():
            if name.lower() in ("allow", "location", "retry-after"):
                answer.headers[name] = value
        return answer

    @app.errorhandler(Exception)
    def failure(error: Exception) -> Response:
        request_id = uuid.uuid4().hex[:12]
        _log.error("request failed", request_id=request_id, path=request.path, exc_info=error)
        return _text(
            f"internal error; the exporter's log has the details under request id {request_id}\n", 500
        )

    @app.before_request
    def note_route() -> Response | None:
        g.handler = request.url_rule.rule if request.url_rule is not None else "other"
        if options.allowed_hosts and not host_allowed(request.headers.get("Host", ""), options.allowed_hosts):
            return _text("this service is not called so; see --web.allowed-host\n", 421)
        return None

    @app.after_request
    def finish(answer: Response) -> Response:
        counts.answered(g.get("handler", "other"), answer.status_code)
        answer.headers.setdefault("X-Content-Type-Options", "nosniff")
        return answer

    return app


def checked_telemetry_path(path: str) -> str:
    """The path if metrics can be served there. Raises WebConfigError."""
    allowed = (
        path.startswith("/")
        and path.isascii()
        and path.isprintable()
        and not set(path) & set(" <>?#%{}\\\"'&")
    )
    if not allowed or "//" in path:
        raise WebConfigError(
            "--web.telemetry-path", f"{path!r} is not a plain URL path", "Give a path like /metrics"
        )
    if path in FIXED_PATHS:
        raise WebConfigError(
            "--web.telemetry-path", f"{path} is an endpoint of its own", "Give another path like /metrics"
        )
    return path


def checked_url(flag: str, url: str) -> str:
    """The address if pages can link to it, without a slash at its end. Raises WebConfigError."""
    if url and not re.fullmatch(r"https?://[^\s\"'<>]+", url):
        raise WebConfigError(flag, f"{url!r} is no address", "Give one like http://grafana.example:3000")
    return url.rstrip("/")


class _Once:
    """Calls a function the first time only: a response can be closed more than once."""

    def __init__(self, function: Callable[[], None]) -> None:
        self._function: Callable[[], None] | None = function

    def __call__(self) -> None:
        function, self._function = self._function, None
        if function is not None:
            function()


def _guarded(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    """The blocks; a failure among them is logged and ends the connection."""
    try:
        yield first
        yield from rest
    except Exception as error:
        request_id = uuid.uuid4().hex[:12]
        _log.error("an exposition failed while it was sent", request_id=request_id, exc_info=error)
        raise ResponseAborted(f"exposition failed, request id {request_id}") from error


def _explained(collected: Exposition, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """What was asked and how it went, then the metrics."""
    yield "".join(f"{line}\n" for line in collected.report()).encode()
    yield b"\nMetrics:\n"
    yield from chunks


def _page(text: str) -> Response:
    answer = Response(text, content_type="text/html; charset=utf-8")
    answer.headers["Content-Security-Policy"] = _CSP
    answer.headers["Referrer-Policy"] = "no-referrer"
    return answer


def _text(text: str, status: int = 200) -> Response:
    return Response(text, status=status, content_type="text/plain; charset=utf-8")


def _vary(answer: Response) -> Response:
    answer.headers["Vary"] = "Accept, Accept-Encoding"
    return answer

"""The control API as a Flask application: routes, what each needs, and how errors are answered."""

from __future__ import annotations

import json
import re
import secrets
import time
import uuid
from collections.abc import Callable
from typing import Any, Final

from flask import Flask, Response, g, redirect, request
from werkzeug.exceptions import HTTPException

from control_api import promapi
from control_api.actions import MAX_WAIT_S
from control_api.api import Reads
from control_api.errors import ApiError, BadRequest, Unauthorized, Unavailable
from control_api.guard import Access, Guard, Identity, LogInNeeded
from control_api.openapi import document as openapi_document
from control_api.pages import add_pages, error_page, log_in_redirect
from control_api.promapi import PromError
from control_api.search import Search, SearchError, parse_search
from control_api.services import Services, plan_for
from control_api.settings import ACTIONS
from control_api.tokens import Role
from exporter import __version__
from exporter.logs import get_logger
from exporter.membership import Member
from exporter.runtime.errors import RuntimeClientError

MAX_PARAMETER: Final = 4096
_WAIT = re.compile(r"[0-9]{1,3}", re.ASCII)
_log = get_logger(__name__)


def create_app(services: Services) -> Flask:
    """Build the application with all endpoints."""
    app = Flask("control_api", static_folder=None)
    # Log-ins end with the process: nothing to store, nothing to leak.
    app.secret_key = secrets.token_bytes(32)
    app.config["MAX_CONTENT_LENGTH"] = services.settings.limits.max_body_bytes
    app.config["MAX_FORM_MEMORY_SIZE"] = services.settings.limits.max_body_bytes
    app.json.ensure_ascii = True  # type: ignore[attr-defined]
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.url_map.strict_slashes = True
    app.url_map.merge_slashes = False
    guard = Guard(services.settings, services.tokens, lambda error: _audit_refusal(services, error))
    guard.install(app)
    app.extensions["guard"] = guard
    app.extensions["dashboard_url"] = services.settings.dashboard_url
    api = _Api(services)

    def route(path: str, view: Callable[..., Any], access: Access, *methods: str) -> None:
        endpoint = f"{path} {' '.join(methods)}"
        guard.register(endpoint, access)
        app.add_url_rule(path, endpoint, view, methods=[*methods, "OPTIONS"], provide_automatic_options=False)

    viewer = Access(Role.VIEWER)
    route("/api/topology", api.topology, viewer, "GET")
    route("/api/system", api.system, viewer, "GET")
    route("/api/workers", api.workers, viewer, "GET")
    route("/api/pools", api.pools, viewer, "GET")
    route("/api/config", api.config, viewer, "GET")
    route("/api/node/<node_id>/workers", api.node_workers, viewer, "GET")
    route("/api/node/<node_id>/system_stats", api.system_stats, viewer, "GET")
    route("/api/node/<node_id>/bdev_stats", api.bdev_stats, viewer, "GET")
    route("/api/node/<node_id>/container_stats", api.container_stats, viewer, "GET")
    for action in ACTIONS:
        route(
            f"/api/topology/node/<node_id>/{action}",
            lambda node_id, action=action: api.act(node_id, action),
            Access(Role.OPERATOR, action=True),
            "POST",
        )
    route("/api/v1/series", api.prom_series, viewer, "GET", "POST")
    route("/api/v1/query", api.prom_query, viewer, "GET", "POST")
    route("/api/v1/label/<name>/values", api.prom_values, viewer, "GET")
    route("/api/v1/labels", api.prom_labels, viewer, "GET", "POST")
    route("/api/v1/status/buildinfo", api.prom_buildinfo, viewer, "GET")
    route("/api/openapi.json", openapi_document, Access(None), "GET")
    route("/metrics", api.metrics, viewer, "GET")
    route("/-/healthy", lambda: {"status": "healthy"}, Access(None), "GET")
    add_pages(route, services, guard)
    _add_error_handlers(app)

    @app.after_request
    def count(answer: Response) -> Response:
        rule = request.url_rule.rule if request.url_rule is not None else "other"
        services.metrics.requests.labels(rule, str(answer.status_code)).inc()
        return answer

    return app


class _Api:
    """The JSON endpoints."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._directory = services.directory
        self._reads = Reads(services.directory, services.reader)

    def topology(self) -> dict[str, Any]:
        search = Search()
        try:
            search = parse_search(_parameter("search") or "")
        except SearchError as error:
            raise BadRequest(str(error)) from None
        return self._reads.topology(self._cluster(), search)

    def system(self) -> dict[str, Any]:
        return self._reads.system(self._cluster())

    def workers(self) -> dict[str, Any]:
        return self._reads.workers(self._cluster())

    def pools(self) -> dict[str, Any]:
        return self._reads.pools(self._cluster())

    def config(self) -> dict[str, Any]:
        return self._reads.config(self._cluster())

    def node_workers(self, node_id: str) -> dict[str, Any]:
        return self._reads.node_workers(self._member(node_id))

    def system_stats(self, node_id: str) -> dict[str, Any]:
        return self._reads.system_stats(self._member(node_id), _parameter("min_event_id"))

    def bdev_stats(self, node_id: str) -> dict[str, Any]:
        return self._reads.bdev_stats(self._member(node_id))

    def container_stats(self, node_id: str) -> dict[str, Any]:
        return self._reads.container_stats(self._member(node_id))

    def act(self, node_id: str, action: str) -> tuple[dict[str, Any], int]:
        member = self._member(node_id)
        wait = wait_seconds(_parameter("wait"), action)
        identity: Identity = g.identity
        runner = self._services.runner
        plan = plan_for(self._services, member)
        started = runner.start(
            action, plan, identity.name, request.remote_addr or "", identity.role.name.lower(), wait
        )
        ssh = plan.ssh
        # Every step has its own bound; this one is for the case that a bound fails.
        started.done.wait(2 * (ssh.connect_timeout + 30) + ssh.command_timeout + wait)
        if started.outcome is None:
            raise Unavailable(f"the {action} has not ended; its outcome will be in the audit log")
        return started.outcome.document(), started.outcome.status

    # --- for a Grafana variable -------------------------------------------------------------------

    def prom_series(self) -> dict[str, Any]:
        return _prom([labels for text in self._matches() for labels in self._series(text)])

    def prom_values(self, name: str) -> dict[str, Any]:
        texts = request.args.getlist("match[]")[:16] or [promapi.METRIC]
        values = {labels[name] for text in texts for labels in self._series(text) if name in labels}
        if name == "node_id_regex" and not values:
            values = {promapi.NOTHING}
        return _prom(sorted(values, key=_natural))

    def prom_labels(self) -> dict[str, Any]:
        return _prom(list(promapi.LABELS))

    def prom_query(self) -> dict[str, Any]:
        query = request.values.get("query", "")
        now = _time(request.values.get("time"))
        if query.replace(" ", "") == "1+1":  # how Grafana tests a data source
            return _prom({"resultType": "scalar", "result": [now, "2"]})
        result = [{"metric": labels, "value": [now, "1"]} for labels in self._series(query)]
        return _prom({"resultType": "vector", "result": result})

    def prom_buildinfo(self) -> dict[str, Any]:
        # Grafana asks which label endpoints there are; those that take match[] came with 2.24.
        return _prom({"version": "2.24.0", "application": "clio-control-api", "revision": __version__})

    def _matches(self) -> list[str]:
        texts = request.values.getlist("match[]")
        if not texts:
            raise PromError("no match[] parameter provided")
        return texts[:16]

    def _series(self, text: str) -> list[dict[str, str]]:
        selector = promapi.parse_selector(text)
        found = []
        for cluster in self._directory.names:
            nodes = self._reads.topology(cluster, Search())["nodes"]
            found += promapi.series_of(selector, cluster, nodes)
        return found

    def metrics(self) -> Response:
        body, content_type = self._services.metrics.render(request.headers.get("Accept", ""))
        return Response(body, content_type=content_type)

    # --- parameters -------------------------------------------------------------------------------

    def _cluster(self) -> str:
        return self._directory.cluster(_parameter("cluster"))

    def _member(self, node_id: str) -> Member:
        return self._directory.member(self._cluster(), node_id)


def wait_seconds(text: str | None, action: str) -> float:
    """The `wait` parameter; raises `BadRequest`."""
    if text is None:
        return 0.0
    if action != "restart":
        raise BadRequest("wait is for restart only; a shutdown answers when its command has ended")
    if not _WAIT.fullmatch(text) or int(text) > MAX_WAIT_S:
        raise BadRequest(f"wait is not a whole number of seconds from 0 to {MAX_WAIT_S}")
    return float(text)


def wants_html() -> bool:
    """Whether the answer is for a person's browser."""
    return request.path.startswith("/nodes/") or request.path in ("/login", "/logout")


def _parameter(name: str) -> str | None:
    values = request.args.getlist(name)
    if len(values) > 1:
        raise BadRequest(f"{name} is given {len(values)} times; give it once")
    if values and len(values[0]) > MAX_PARAMETER:
        raise BadRequest(f"{name} has more than {MAX_PARAMETER} characters")
    return values[0] if values else None


def _time(text: str | None) -> float:
    try:
        found = float(text) if text and len(text) < 32 else time.time()
    except ValueError:
        found = time.time()
    return found if 0 <= found < 1e12 else time.time()


def _natural(text: str) -> tuple[int, int, str]:
    return (0, int(text), "") if text.isascii() and text.isdigit() else (1, 0, text)


def _prom(data: Any) -> dict[str, Any]:
    return {"status": "success", "data": data}


def _audit_refusal(services: Services, error: ApiError) -> None:
    identity: Identity | None = g.get("identity")
    arguments = request.view_args or {}
    try:
        services.audit.write(
            "refused", actor=identity.name if identity else None, client=request.remote_addr,
            path=request.path[:200], node_id=str(arguments.get("node_id", ""))[:40] or None,
            status=error.status, error=str(error)[:300],
        )  # fmt: skip
    except Unavailable:
        return  # logged; the request is refused anyway


def _add_error_handlers(app: Flask) -> None:
    def answer(status: int, message: str, fields: dict[str, Any] | None = None) -> Response:
        if wants_html():
            return error_page(status, message)
        document: dict[str, Any] = {"error": message, **(fields or {})}
        if request.path.startswith("/api/v1/"):
            kind = {400: "bad_data", 404: "not_found", 503: "unavailable"}.get(status, "execution")
            document = {"status": "error", "errorType": kind, "error": message}
        return Response(json.dumps(document) + "\n", status=status, content_type="application/json")

    @app.errorhandler(ApiError)
    def api_error(error: ApiError) -> Response:
        found = answer(error.status, str(error), dict(error.fields))
        found.headers.update(error.headers)
        if isinstance(error, Unauthorized):
            found.headers["WWW-Authenticate"] = 'Bearer realm="clio-control-api"'
        return found

    @app.errorhandler(LogInNeeded)
    def log_in(_error: LogInNeeded) -> Any:
        return log_in_redirect()

    @app.errorhandler(RuntimeClientError)
    def runtime_error(error: RuntimeClientError) -> Response:
        return answer(503, str(error))

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Any:
        status = error.code or 500
        if status in (301, 308) and error.response is not None:
            return redirect(request.path, status)
        found = answer(status, f"{error.name.lower()}: {error.description or 'no further details'}")
        for name, value in error.get_headers():
            if name.lower() in ("allow", "retry-after"):
                found.headers[name] = value
        return found

    @app.errorhandler(Exception)
    def failure(error: Exception) -> Response:
        request_id = uuid.uuid4().hex[:12]
        _log.error("request failed", request_id=request_id, path=request.path[:200], exc_info=error)
        return answer(500, f"internal error; the service's log has the details under request id {request_id}")

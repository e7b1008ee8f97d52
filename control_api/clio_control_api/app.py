"""The control API as a Flask application: routes, what each needs, and how errors are answered."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from functools import partial
from itertools import chain
from typing import Any, Final

from flask import Flask, Response, g, redirect, request
from werkzeug.exceptions import HTTPException

from clio_client import __version__
from clio_client.errors import RuntimeClientError
from clio_client.membership import Member
from clio_client.search import Search, SearchError, parse_search
from clio_control_api import promapi
from clio_control_api.access import AccessControl, LogInNeeded
from clio_control_api.actions import MAX_WAIT_S
from clio_control_api.admission import identify
from clio_control_api.alertmanager.webhook import AlertmanagerApi
from clio_control_api.api import Reads
from clio_control_api.errors import ApiError, BadRequest, NotFound, Unauthorized, Unavailable
from clio_control_api.json_stream import json_answer, pieces
from clio_control_api.openapi import document
from clio_control_api.operations.api import OperationApi
from clio_control_api.operations.pages import OperationPages
from clio_control_api.operations.stream import Listeners
from clio_control_api.operations.world import RealWorld
from clio_control_api.pages import error_page, log_in_redirect, page_context, page_views
from clio_control_api.principals import Identity, require_action_on
from clio_control_api.promapi import PromError
from clio_control_api.reasons import checked_reason
from clio_control_api.routes import ROUTES
from clio_control_api.services import Services, plan_for
from clio_web.logs import get_logger

MAX_PARAMETER: Final = 4096
MAX_SELECTORS: Final = 16
_WAIT = re.compile(r"[0-9]{1,3}", re.ASCII)
_log = get_logger(__name__)


def create_app(services: Services) -> Flask:
    """Build the application with all endpoints."""
    app = Flask("clio_control_api", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = services.settings.limits.max_body_bytes
    app.config["MAX_FORM_MEMORY_SIZE"] = services.settings.limits.max_body_bytes
    app.json.ensure_ascii = True  # type: ignore[attr-defined]
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.url_map.strict_slashes = True
    app.url_map.merge_slashes = False
    access_control = AccessControl(
        services.settings, services.auth, services.tokens, services.metrics, ROUTES,
        lambda error: _audit_refusal(services, error.status, str(error)),
    )  # fmt: skip
    access_control.install(app)
    app.add_template_filter(_utc, "utc")
    app.context_processor(partial(page_context, access_control.forms, services.auth))
    app.extensions["dashboard_url"] = services.settings.dashboard_url
    pages = page_views(services, access_control)
    listeners = Listeners(services.operations, services.settings.limits.max_listeners)
    world = RealWorld(services.settings, services.clusters, services.queries, services.runner)
    owners = {
        "alertmanager": AlertmanagerApi(services, world),
        "api": _Api(services),
        "pages": pages,
        "operations": OperationApi(services, listeners),
        "operation_pages": OperationPages(services, listeners, access_control.forms, pages.page_values),
    }
    for route in ROUTES:
        owner, _, name = route.view.rpartition(".")
        view = partial(getattr(owners[owner or "api"], name), **route.arguments)
        app.add_url_rule(
            route.path, route.endpoint, view, methods=[*route.methods, "OPTIONS"],
            provide_automatic_options=False,
        )  # fmt: skip
    _add_error_handlers(app, services)

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
        self._clusters = services.clusters
        self._reads = Reads(services.clusters, services.queries)

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
        wait = wait_seconds(_parameter("wait"), action)
        member = self._clusters.current_member(self._cluster(), node_id)
        require_action_on(g.identity, member)
        before = identify(self._services.queries, member, _parameter("hostname"))
        self._services.operations.check_free(member)
        plan = plan_for(self._services, member)
        identity: Identity = g.identity
        started = self._services.runner.start(
            action, plan, before, actor=identity.name, role=identity.role.name.lower(),
            client=request.remote_addr or "", wait=wait, reason=checked_reason(_parameter("reason")),
        )  # fmt: skip
        ssh = plan.ssh
        # Every step has its own bound; this one is for the case that a bound fails.
        started.answered.wait(2 * (ssh.connect_timeout + 30) + ssh.command_timeout + wait)
        if started.answer is None:
            late = Unavailable(f"the {action} has not ended; ask /api/actions/{started.id} for its outcome")
            late.written = True  # it is under way, not refused
            raise late
        return {**started.answer.document(), "id": started.id}, started.answer.status

    def action(self, action_id: str) -> dict[str, Any]:
        found = self._services.runner.find(action_id)
        if found is None:
            raise NotFound("this action is not known, or was too long ago; the audit log has all of them")
        return found.document()

    # --- for a Grafana variable -------------------------------------------------------------------

    def prom_series(self) -> Response:
        return _prom_rows("[", self._series(self._matches()), "]")

    def prom_values(self, name: str) -> dict[str, Any]:
        texts = _selectors(request.args.getlist("match[]")) or [promapi.METRIC]
        values = {labels[name] for labels in self._series(texts) if name in labels}
        if name == "node_id_regex" and not values:
            values = {promapi.NOTHING}
        return _prom(sorted(values, key=_natural))

    def prom_labels(self) -> dict[str, Any]:
        return _prom(list(promapi.LABELS))

    def prom_query(self) -> dict[str, Any] | Response:
        query = request.values.get("query", "")
        now = _time(request.values.get("time"))
        if query.replace(" ", "") == "1+1":  # how Grafana tests a data source
            return _prom({"resultType": "scalar", "result": [now, "2"]})
        rows = ({"metric": labels, "value": [now, "1"]} for labels in self._series([query]))
        return _prom_rows('{"resultType":"vector","result":[', rows, "]}")

    def prom_buildinfo(self) -> dict[str, Any]:
        # Grafana asks which label endpoints there are; those that take match[] came with 2.24.
        return _prom({"version": "2.24.0", "application": "clio-control-api", "revision": __version__})

    def _matches(self) -> list[str]:
        texts = request.values.getlist("match[]")
        if not texts:
            raise PromError("no match[] parameter provided")
        return _selectors(texts)

    def _series(self, texts: Sequence[str]) -> Iterable[dict[str, str]]:
        """The series, one at a time; that they are not too many has been seen when this returns."""
        selectors = [promapi.parse_selector(text) for text in texts]
        # Nodes are read once for all selectors: a hung one costs each reading its patience.
        clusters = {cluster: self._reads.nodes(cluster) for cluster in self._clusters.names}
        return chain.from_iterable(promapi.select(selectors, clusters))

    def openapi(self) -> dict[str, Any]:
        return document()

    def healthy(self) -> dict[str, str]:
        return {"status": "healthy"}

    def metrics(self) -> Response:
        body, content_type = self._services.metrics.render(request.headers.get("Accept", ""))
        return Response(body, content_type=content_type)

    # --- parameters -------------------------------------------------------------------------------

    def _cluster(self) -> str:
        return self._clusters.cluster(_parameter("cluster"))

    def _member(self, node_id: str) -> Member:
        return self._clusters.member(self._cluster(), node_id)


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
    return request.path.startswith(("/nodes/", "/operations")) or request.path in ("/", "/login", "/logout")


def _parameter(name: str) -> str | None:
    values = request.args.getlist(name)
    if len(values) > 1:
        raise BadRequest(f"{name} is given {len(values)} times; give it once")
    if values and len(values[0]) > MAX_PARAMETER:
        raise BadRequest(f"{name} has more than {MAX_PARAMETER} characters")
    return values[0] if values else None


def _selectors(texts: list[str]) -> list[str]:
    texts = list(dict.fromkeys(texts))
    if len(texts) > MAX_SELECTORS:
        raise PromError(f"{len(texts)} different match[] are more than {MAX_SELECTORS}")
    return texts


def _time(text: str | None) -> float:
    try:
        found = float(text) if text and len(text) < 32 else time.time()
    except ValueError:
        found = time.time()
    return found if 0 <= found < 1e12 else time.time()


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def _natural(text: str) -> tuple[int, int, str]:
    return (0, int(text), "") if text.isascii() and text.isdigit() else (1, 0, text)


def _prom(data: Any) -> dict[str, Any]:
    return {"status": "success", "data": data}


def _prom_rows(before: str, rows: Iterable[Any], after: str) -> Response:
    return json_answer(pieces('{"status":"success","data":' + before, rows, after + "}\n"))


def _audit_refusal(services: Services, status: int, text: str) -> None:
    if g.get("audited"):
        return
    g.audited = True
    identity: Identity | None = g.get("identity")
    arguments = request.view_args or {}
    services.audit.write_refusal(
        actor=identity.name if identity else None, client=request.remote_addr,
        path=request.path[:200], node_id=str(arguments.get("node_id", ""))[:40] or None,
        status=status, error=text[:300],
    )  # fmt: skip


def _add_error_handlers(app: Flask, services: Services) -> None:
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
        if g.get("action") and not error.written:
            _audit_refusal(services, error.status, str(error))
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
        text = f"{error.name.lower()}: {error.description or 'no further details'}"
        if g.get("action"):
            _audit_refusal(services, status, text)
        found = answer(status, text)
        for name, value in error.get_headers():
            if name.lower() in ("allow", "retry-after"):
                found.headers[name] = value
        return found

    @app.errorhandler(Exception)
    def failure(error: Exception) -> Response:
        request_id = uuid.uuid4().hex[:12]
        _log.error("request failed", request_id=request_id, path=request.path[:200], exc_info=error)
        return answer(500, f"internal error; the service's log has the details under request id {request_id}")

"""Every route of the service, once: what Flask serves, who may ask for it, and how OpenAPI describes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from clio_control_api.actions import MAX_WAIT_S
from clio_control_api.principals import Role
from clio_control_api.reasons import MAX_REASON
from clio_control_api.settings import ACTIONS

WEBHOOK_BODY: Final = 128 * 1024
"""Bytes of a notification of some 80 of this project's alerts; Alertmanager's `max_alerts` bounds it."""

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """What OpenAPI says of a route's first method.

    Attributes:
        answer: name of the schema of a success.
        errors: status codes beside those that every route has.
        parameters: of path and query.
        error: name of the schema of an error.
        body: name of the schema of the request's body, if it has one.
        status: of a success.
        media: type of a success, where it is not JSON.
    """

    summary: str
    answer: str
    errors: tuple[int, ...] = ()
    parameters: tuple[Schema, ...] = ()
    error: str = "Error"
    body: str = ""
    status: int = 200
    media: str = "application/json"


@dataclass(frozen=True, slots=True)
class Route:
    """One route.

    Attributes:
        path: as Flask writes it.
        view: method of the JSON endpoints, or of what `app.create_app` knows by the name before the dot.
        methods: what it may be asked by, beside HEAD (with GET) and OPTIONS.
        role: what the caller must be; None: anyone.
        page: for people in browsers: also a log-in by cookie counts, and the page itself asks for one.
        action: it changes nodes when it is asked by POST.
        max_body: bytes that a request's body may have; None: as the settings say.
        preflight: whether other sites named in `allowed_origins` may use it.
        arguments: further arguments of the view.
        operation: its description; None: not part of the API for programs.
    """

    path: str
    view: str
    methods: tuple[str, ...] = ("GET",)
    role: Role | None = Role.VIEWER
    page: bool = False
    action: bool = False
    max_body: int | None = None
    preflight: bool = True
    arguments: Mapping[str, str] = field(default_factory=dict)
    operation: Operation | None = None

    @property
    def endpoint(self) -> str:
        """Flask's name of it."""
        return f"{self.path} {' '.join(self.methods)}"


def _parameter(name: str, schema: Schema, description: str, *, place: str = "query") -> Schema:
    return {
        "name": name, "in": place, "required": place == "path", "schema": schema, "description": description,
    }  # fmt: skip


_TEXT: Final[Schema] = {"type": "string"}
_CLUSTER: Final = _parameter(
    "cluster", {"type": "string", "maxLength": 128}, "needed where several clusters are configured"
)
_NODE: Final = _parameter(
    "node_id", {"type": "string", "pattern": "^[0-9]{1,9}$"}, "a node id, as /api/topology lists it",
    place="path",
)  # fmt: skip
_SEARCH: Final = _parameter(
    "search", _TEXT, "node ids 3, 1-20, 1,3,5, 1-4,9, or a part of a hostname or IP address"
)
_EVENT: Final = _parameter("min_event_id", {"type": "integer", "minimum": 0}, "only entries from this id on")
_SEEN: Final = _parameter(
    "hostname", {"type": "string", "minLength": 1, "maxLength": 253},
    "what the caller knows the node as, by the membership or by its runtime: the action is refused when the "
    "number is another host's by now",
)  # fmt: skip
_REASON: Final = _parameter(
    "reason", {"type": "string", "maxLength": MAX_REASON, "pattern": "^[ -~]*$"},
    "why, for the audit log and the dashboards; any printable text on one line",
)  # fmt: skip
_OPERATION: Final = _parameter(
    "operation_id", {"type": "string", "pattern": "^[0-9a-f]{16}$"}, "id of an operation", place="path"
)
_WAIT: Final = _parameter(
    "wait", {"type": "integer", "minimum": 0, "maximum": MAX_WAIT_S},
    "wait until the runtime answers again, this many seconds at most",
)  # fmt: skip
_ACTION_ID: Final = _parameter("action_id", _TEXT, "the id in the answer to an action", place="path")
_SELECTOR: Final = "selector, such as clio_node_search{search='1-20'}"
_MATCH: Final = _parameter("match[]", {"type": "array", "items": _TEXT}, _SELECTOR)
_LABEL: Final = _parameter("name", {"type": "string", "minLength": 1}, "name of a label", place="path")
_QUERY: Final = (_parameter("query", _TEXT, _SELECTOR), _parameter("time", _TEXT, "Unix time"))


def _read(path: str, view: str, summary: str, answer: str, *parameters: Schema) -> Route:
    operation = Operation(summary, answer, (400, 404, 503), (*parameters, _CLUSTER))
    return Route(path, view, operation=operation)


def _prometheus(path: str, view: str, *parameters: Schema, methods: tuple[str, ...] = ("GET",)) -> Route:
    operation = Operation(
        "Part of Prometheus's HTTP API, for a Grafana variable", "PromData", (400, 404, 503), parameters,
        "PromError",
    )  # fmt: skip
    return Route(f"/api/v1/{path}", view, methods, operation=operation)


def _action(action: str) -> tuple[Route, ...]:
    """What shuts down, or restarts, a node: for programs, and its pages for people."""
    parameters = (_NODE, _CLUSTER, _SEEN, _REASON, *((_WAIT,) if action == "restart" else ()))
    operation = Operation(
        f"{action.capitalize()} a node's runtime over SSH", "ActionResult",
        (400, 404, 409, 500, 502, 503, 504), parameters,
    )  # fmt: skip
    page, which = f"/nodes/<node_id>/{action}", {"action": action}
    return (
        Route(
            f"/api/topology/node/<node_id>/{action}", "act", ("POST",), Role.OPERATOR, action=True,
            arguments=which, operation=operation,
        ),
        _page(page, "pages.confirm", arguments=which),
        _page(page, "pages.act", "POST", action=True, arguments=which),
        _page(f"{page}/<action_id>", "pages.progress", arguments=which),
    )  # fmt: skip


def _rolling(action: str) -> tuple[Route, ...]:
    """What restarts, or shuts down, node after node: for programs, and its pages for people."""
    operation = Operation(
        f"{action.capitalize()} node after node, with gates in between", "Operation", (400, 404, 409, 503),
        body="RollingOrders", status=202,
    )  # fmt: skip
    which = {"action": action}
    return (
        Route(
            f"/api/topology/rolling-{action}", "operations.start", ("POST",), Role.OPERATOR, action=True,
            arguments=which, operation=operation,
        ),
        _page(f"/operations/{action}", "operation_pages.plan", arguments=which),
        _page(f"/operations/{action}", "operation_pages.start", "POST", action=True, arguments=which),
    )  # fmt: skip


def _command(command: str) -> tuple[Route, ...]:
    """What holds an operation up, ends it or lets it go on."""
    summary = {
        "abort": "Begin no further node; the ones under way are seen to their end",
        "pause": "Begin no further node for now",
        "resume": "Go on with an operation that is paused or was interrupted",
    }[command]
    operation = Operation(summary, "Operation", (404, 409, 503), (_OPERATION,))
    which = {"command": command}
    return (
        Route(
            f"/api/operations/<operation_id>/{command}", "operations.command", ("POST",), Role.OPERATOR,
            action=True, arguments=which, operation=operation,
        ),
        _page(
            f"/operations/<operation_id>/{command}", "operation_pages.command", "POST", action=True,
            arguments=which,
        ),
    )  # fmt: skip


def _page(path: str, view: str, method: str = "GET", role: Role | None = Role.OPERATOR, **more: Any) -> Route:
    return Route(path, view, (method,), role, page=True, preflight=False, **more)


LOG_IN_ROUTE: Final = _page("/login", "pages.log_in", "POST", role=None)
LOG_IN: Final = LOG_IN_ROUTE.endpoint

ROUTES: Final[tuple[Route, ...]] = (
    _read("/api/topology", "topology", "All nodes, dead ones too", "Topology", _SEARCH),
    _read("/api/system", "system", "Totals over the nodes that answer", "System"),
    _read("/api/workers", "workers", "Workers of all nodes", "Workers"),
    _read("/api/pools", "pools", "Pools of the compose section", "Pools"),
    _read("/api/config", "config", "Configuration of the runtime", "Config"),
    _read("/api/node/<node_id>/workers", "node_workers", "Workers of a node", "Workers", _NODE),
    _read(
        "/api/node/<node_id>/system_stats", "system_stats", "Recent samples of a node", "SystemStats",
        _NODE, _EVENT,
    ),
    _read("/api/node/<node_id>/bdev_stats", "bdev_stats", "Block devices of a node", "Devices", _NODE),
    _read(
        "/api/node/<node_id>/container_stats", "container_stats", "Pool containers of a node", "Containers",
        _NODE,
    ),
    *(route for action in ACTIONS for route in _action(action)),
    Route(
        "/api/actions/<action_id>", "action",
        operation=Operation("What became of an action", "Action", (404,), (_ACTION_ID,)),
    ),
    *(route for action in ACTIONS for route in _rolling(action)),
    Route(
        "/api/operations", "operations.all",
        operation=Operation("Operations under way and past, newest first", "Operations"),
    ),
    Route(
        "/api/operations/<operation_id>", "operations.one",
        operation=Operation("How far an operation is", "Operation", (404,), (_OPERATION,)),
    ),
    Route(
        "/api/operations/<operation_id>/events", "operations.events",
        operation=Operation(
            "The same as server-sent events, until it has ended", "Events", (404, 503), (_OPERATION,),
            media="text/event-stream",
        ),
    ),
    *(route for command in ("abort", "pause", "resume") for route in _command(command)),
    Route(
        "/api/alertmanager", "alertmanager.notify", ("POST",), Role.OPERATOR, action=True,
        max_body=WEBHOOK_BODY, preflight=False,
        operation=Operation(
            "Alertmanager's webhook: decides on each alert whether it causes an action", "AlertDecisions",
            (400, 404, 503), body="Notification",
        ),
    ),
    _page("/operations", "operation_pages.all", role=Role.VIEWER),
    _page("/operations/<operation_id>", "operation_pages.one", role=Role.VIEWER),
    _page("/operations/<operation_id>/events", "operation_pages.events", role=Role.VIEWER),
    Route("/operation.js", "operation_pages.script", role=None, preflight=False),
    _prometheus("series", "prom_series", _MATCH, methods=("GET", "POST")),
    _prometheus("query", "prom_query", *_QUERY, methods=("GET", "POST")),
    _prometheus("label/<name>/values", "prom_values", _LABEL, _MATCH),
    _prometheus("labels", "prom_labels", methods=("GET", "POST")),
    _prometheus("status/buildinfo", "prom_buildinfo"),
    Route("/metrics", "metrics"),
    Route("/api/openapi.json", "openapi", role=None),
    Route("/-/healthy", "healthy", role=None, operation=Operation("Whether the service runs", "Health")),
    _page("/", "pages.index", role=None),
    _page("/login", "pages.log_in_form", role=None),
    LOG_IN_ROUTE,
    _page("/logout", "pages.log_out", "POST", role=None),
    Route("/pages.css", "pages.style", role=None, preflight=False),
)  # fmt: skip

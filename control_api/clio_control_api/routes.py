"""Every route of the service, once: what Flask serves, who may ask for it, and how OpenAPI describes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from clio_control_api.actions import MAX_WAIT_S
from clio_control_api.settings import ACTIONS
from clio_control_api.tokens import Role

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """What OpenAPI says of a route's first method.

    Attributes:
        answer: name of the schema of a success.
        errors: status codes beside those that every route has.
        parameters: of path and query.
        error: name of the schema of an error.
    """

    summary: str
    answer: str
    errors: tuple[int, ...] = ()
    parameters: tuple[Schema, ...] = ()
    error: str = "Error"


@dataclass(frozen=True, slots=True)
class Route:
    """One route.

    Attributes:
        path: as Flask writes it.
        view: method of the JSON endpoints, or of the pages where it begins with "pages.".
        methods: what it may be asked by, beside HEAD (with GET) and OPTIONS.
        role: what the caller must be; None: anyone.
        page: for people in browsers: also a log-in by cookie counts, and the page itself asks for one.
        action: it changes nodes when it is asked by POST.
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
_WAIT: Final = _parameter(
    "wait", {"type": "integer", "minimum": 0, "maximum": MAX_WAIT_S},
    "wait until the runtime answers again, this many seconds at most",
)  # fmt: skip
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
    parameters = (_NODE, _CLUSTER, _SEEN, *((_WAIT,) if action == "restart" else ()))
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


def _page(path: str, view: str, method: str = "GET", role: Role | None = Role.OPERATOR, **more: Any) -> Route:
    return Route(path, view, (method,), role, page=True, preflight=False, **more)


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
    _prometheus("series", "prom_series", _MATCH, methods=("GET", "POST")),
    _prometheus("query", "prom_query", *_QUERY, methods=("GET", "POST")),
    _prometheus("label/<name>/values", "prom_values", _LABEL, _MATCH),
    _prometheus("labels", "prom_labels", methods=("GET", "POST")),
    _prometheus("status/buildinfo", "prom_buildinfo"),
    Route("/metrics", "metrics"),
    Route("/api/openapi.json", "openapi", role=None),
    Route("/-/healthy", "healthy", role=None, operation=Operation("Whether the service runs", "Health")),
    _page("/login", "pages.log_in_form", role=None),
    _page("/login", "pages.log_in", "POST", role=None),
    _page("/logout", "pages.log_out", "POST", role=None),
    Route("/pages.css", "pages.style", role=None, preflight=False),
)  # fmt: skip

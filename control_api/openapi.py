"""The OpenAPI 3.1 description of the JSON endpoints, served at /api/openapi.json."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from control_api.actions import MAX_WAIT_S
from control_api.settings import ACTIONS
from exporter import __version__

_Schema = dict[str, Any]

_COUNT: Final[_Schema] = {"type": "integer", "minimum": 0}
_TEXT: Final[_Schema] = {"type": "string"}
_FLAG: Final[_Schema] = {"type": "boolean"}
_REPORTED: Final[_Schema] = {
    "type": ["number", "null"],
    "description": "null where the runtime reports nothing, as a node that is down does",
}


def _object(properties: dict[str, Any], *, closed: bool = False, optional: tuple[str, ...] = ()) -> _Schema:
    found: _Schema = {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
    }
    if closed:
        found["additionalProperties"] = False
    return found


def _list(items: _Schema) -> _Schema:
    return {"type": "array", "items": items}


def _ref(name: str) -> _Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_ANY: Final[_Schema] = {"type": "object", "description": "field names and units as the runtime reports them"}
_SUMMARY = _object(dict.fromkeys(("count", "queued", "blocked", "processed"), _COUNT), closed=True)

_SCHEMAS: Final[dict[str, _Schema]] = {
    "Error": _object({"error": _TEXT}),
    "Node": _object(
        {
            "node_id": _COUNT, "hostname": _TEXT, "ip_address": _TEXT, "alive": _FLAG, "is_leader": _FLAG,
            "cpu_usage_pct": _REPORTED, "ram_usage_pct": _REPORTED, "gpu_count": _REPORTED,
            "gpu_usage_pct": _REPORTED, "hbm_usage_pct": _REPORTED,
        },
        closed=True,
    ),
    "Topology": _object({"nodes": _list(_ref("Node"))}, closed=True),
    "System": _object(
        {"connected": _FLAG, "workers": _COUNT, "queued": _COUNT, "blocked": _COUNT, "processed": _COUNT},
        closed=True,
    ),
    "Workers": _object({"workers": _list(_ANY), "summary": _SUMMARY}, closed=True),
    "SystemStats": _object({"entries": _list(_ANY)}, closed=True),
    "Devices": _object({"devices": _list(_object({"pool_id": _TEXT}))}, closed=True),
    "Containers": _object({"containers": _list(_ANY)}, closed=True),
    "Pools": _object(
        {"pools": _list(_object(dict.fromkeys(("mod_name", "pool_name", "pool_id", "pool_query"), _TEXT)))},
        closed=True,
    ),
    "Config": _object({"config": _ANY}, closed=True),
    "ActionResult": _object(
        {
            "success": _FLAG,
            "returncode": {"type": "integer", "description": "of the command; -1 when it did not run or end"},
            "stdout": _TEXT,
            "stderr": _TEXT,
            "error": {"type": "string", "description": "present when success is false"},
            "reason": {"type": "string", "description": "a stable word for programs"},
            "omitted_bytes": {"type": "integer", "description": "output beyond 64 KiB, from its beginning"},
        },
        optional=("error", "reason", "omitted_bytes"),
    ),
    "PromData": _object({"status": {"const": "success"}, "data": {"type": ["array", "object"]}}),
    "PromError": _object({"status": {"const": "error"}, "errorType": _TEXT, "error": _TEXT}),
    "Health": _object({"status": _TEXT}),
}  # fmt: skip

_CLUSTER: Final[_Schema] = {
    "name": "cluster", "in": "query", "required": False, "schema": {"type": "string", "maxLength": 128},
    "description": "needed where several clusters are configured",
}  # fmt: skip
_NODE: Final[_Schema] = {
    "name": "node_id", "in": "path", "required": True,
    "schema": {"type": "string", "pattern": "^[0-9]{1,9}$"},
    "description": "a node id, as /api/topology lists it",
}  # fmt: skip
_MATCH: Final[_Schema] = {
    "name": "match[]", "in": "query", "required": False, "schema": _list(_TEXT),
    "description": "selector, such as clio_node_search{search='1-20'}",
}  # fmt: skip


def _parameter(name: str, schema: _Schema, description: str) -> _Schema:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}


def _content(schema: str) -> _Schema:
    return {"application/json": {"schema": _ref(schema)}}


def _answers(schema: str, *errors: int, error: str = "Error") -> _Schema:
    texts = {
        400: "a parameter is not acceptable", 401: "no token, or an unknown one",
        403: "the role does not allow it, or another site caused the request", 404: "there is no such node",
        405: "no such method", 409: "another action is under way on the node", 411: "no Content-Length",
        413: "the body is too large", 414: "the URL is too long", 429: "too many requests",
        500: "the command ended with an exit code other than 0 and 134", 502: "SSH failed",
        503: "the runtime, or the service, cannot answer now",
        504: "SSH, the command or the runtime took too long",
    }  # fmt: skip
    found: _Schema = {"200": {"description": "success", "content": _content(schema)}}
    for code in sorted({*errors, 401, 403, 411, 413, 414, 429}):
        name = "ActionResult" if schema == "ActionResult" and code in (500, 502, 504) else error
        found[str(code)] = {"description": texts[code], "content": _content(name)}
    return found


def _get(summary: str, schema: str, *errors: int, parameters: tuple[_Schema, ...] = ()) -> _Schema:
    return {
        "get": {
            "summary": summary,
            "parameters": list(parameters),
            "responses": _answers(schema, *errors),
            "security": [{"token": []}],
        }
    }


@cache
def document() -> _Schema:
    """The description."""
    node = (_NODE, _CLUSTER)
    search = _parameter(
        "search", {"type": "string"},
        "node ids 3, 1-20, 1,3,5, 1-4,9, or a part of a hostname or IP address",
    )  # fmt: skip
    event = _parameter("min_event_id", {"type": "integer", "minimum": 0}, "only entries from this id on")
    paths: _Schema = {
        "/api/topology": _get(
            "All nodes, dead ones too", "Topology", 400, 404, 503, parameters=(search, _CLUSTER)
        ),
        "/api/system": _get(
            "Totals over the nodes that answer", "System", 400, 404, 503, parameters=(_CLUSTER,)
        ),
        "/api/workers": _get("Workers of all nodes", "Workers", 400, 404, 503, parameters=(_CLUSTER,)),
        "/api/pools": _get("Pools of the compose section", "Pools", 400, 404, 503, parameters=(_CLUSTER,)),
        "/api/config": _get("Configuration of the runtime", "Config", 400, 404, 503, parameters=(_CLUSTER,)),
        "/api/node/{node_id}/workers": _get("Workers of a node", "Workers", 400, 404, 503, parameters=node),
        "/api/node/{node_id}/system_stats": _get(
            "Recent samples of a node", "SystemStats", 400, 404, 503, parameters=(*node, event)
        ),
        "/api/node/{node_id}/bdev_stats": _get(
            "Block devices of a node", "Devices", 400, 404, 503, parameters=node
        ),
        "/api/node/{node_id}/container_stats": _get(
            "Pool containers of a node", "Containers", 400, 404, 503, parameters=node
        ),
        "/-/healthy": {
            "get": {
                "summary": "Whether the service runs",
                "responses": {
                    "200": {"description": "it does", "content": _content("Health")},
                    "429": {"description": "too many requests", "content": _content("Error")},
                },
            }
        },
    }
    for action in ACTIONS:
        wait = _parameter(
            "wait", {"type": "integer", "minimum": 0, "maximum": MAX_WAIT_S},
            "wait until the runtime answers again, this many seconds at most",
        )  # fmt: skip
        paths[f"/api/topology/node/{{node_id}}/{action}"] = {
            "post": {
                "summary": f"{action.capitalize()} a node's runtime over SSH",
                "parameters": [*node, *([wait] if action == "restart" else [])],
                "responses": _answers("ActionResult", 400, 404, 409, 500, 502, 503, 504),
                "security": [{"token": []}],
            }
        }
    for path, parameters in {
        "/api/v1/series": (_MATCH,),
        "/api/v1/label/{name}/values": (
            {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}},
            _MATCH,
        ),
        "/api/v1/query": (
            _parameter("query", _TEXT, "selector, such as clio_node_search{search='1-20'}"),
            _parameter("time", _TEXT, "Unix time"),
        ),
    }.items():
        paths[path] = {
            "get": {
                "summary": "Part of Prometheus's HTTP API, for a Grafana variable",
                "parameters": list(parameters),
                "responses": _answers("PromData", 400, 404, 503, error="PromError"),
                "security": [{"token": []}],
            }
        }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "CLIO control API",
            "version": __version__,
            "description": "Reads of a cluster of CLIO runtimes, and shutdown and restart of its nodes.",
            "license": {"name": "BSD-3-Clause", "identifier": "BSD-3-Clause"},
        },
        "paths": paths,
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "not needed on loopback while no tokens file is configured",
                }
            },
        },
    }

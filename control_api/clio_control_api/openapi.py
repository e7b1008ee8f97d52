"""The OpenAPI 3.1 description of the routes that have one, served at /api/openapi.json."""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Final

from clio_client import __version__
from clio_control_api.action import STATES as ACTION_STATES
from clio_control_api.actions import MAX_WAIT_S
from clio_control_api.alertmanager.decide import VERDICTS, VERSION
from clio_control_api.operations.model import NODE_STATES, ORDERS, STATES
from clio_control_api.operations.plan import DEFAULT_WAIT_S, MAX_AT_ONCE, MIN_WAIT_S
from clio_control_api.reasons import MAX_REASON
from clio_control_api.routes import ROUTES, Operation, Route
from clio_control_api.settings import ACTIONS

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

_TIME: Final[_Schema] = {"type": "number", "description": "Unix time in seconds"}
_OPERATION: Final[_Schema] = {
    "id": _TEXT, "state": {"enum": list(STATES)}, "message": _TEXT, "action": {"enum": list(ACTIONS)},
    "cluster": _TEXT, "search": _TEXT, "max_unavailable": _COUNT, "wait": {"type": "number"},
    "order": {"enum": list(ORDERS)}, "reason": _TEXT, "actor": _TEXT, "role": _TEXT, "client": _TEXT,
    "total": _COUNT, "done": _COUNT, "began": _TIME, "updated": _TIME, "ended": _TIME, "revision": _COUNT,
}  # fmt: skip
_OPTIONAL: Final = ("cluster", "actor", "role", "client", "ended")

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
            "id": {"type": "string", "description": "for /api/actions/<id>, which tells the outcome"},
        },
        optional=("error", "reason", "omitted_bytes"),
    ),
    "Action": _object(
        {
            "id": _TEXT, "action": {"enum": list(ACTIONS)}, "cluster": _TEXT, "node_id": _COUNT,
            "hostname": _TEXT, "who": {"type": "string", "description": "whose token it was"},
            "reason": {"type": "string", "description": "why, in the words of whoever asked for it"},
            "state": {
                "enum": list(ACTION_STATES),
                "description": "unknown: what came of a restart could not be learnt",
            },
            "since": {"type": "string", "format": "date-time"},
            "seconds": {"type": "number", "description": "how long it has been, or was, under way"},
            "message": {"type": "string", "description": "what is being done, or what came of it"},
        },
        closed=True,
    ),
    "RollingOrders": _object(
        {
            "nodes": {
                "type": "string", "pattern": "^[A-Za-z0-9._-]{0,64}$",
                "description": "which nodes, in the language of the search; empty: all",
            },
            "max_unavailable": {"type": "integer", "minimum": 1, "maximum": MAX_AT_ONCE, "default": 1},
            "wait": {
                "type": "integer", "minimum": MIN_WAIT_S, "maximum": MAX_WAIT_S, "default": DEFAULT_WAIT_S,
                "description": "seconds a node has to come back, and then to pass the gates",
            },
            "order": {"type": "string", "enum": list(ORDERS), "default": ORDERS[0]},
            "reason": {"type": "string", "maxLength": MAX_REASON, "pattern": "^[ -~]*$"},
            "cluster": {"type": "string", "description": "needed where several clusters are configured"},
        },
        closed=True, optional=("max_unavailable", "wait", "order", "reason", "cluster"),
    ),
    "Operation": _object(
        {
            **_OPERATION,
            "nodes": _list(
                _object(
                    {
                        "node_id": _COUNT, "hostname": _TEXT, "state": {"enum": list(NODE_STATES)},
                        "message": _TEXT, "was_leader": _FLAG, "was_down": _FLAG, "action_id": _TEXT,
                        "began": _TIME, "ended": _TIME,
                    },
                    closed=True, optional=("action_id", "began", "ended"),
                )
            ),
        },
        closed=True, optional=_OPTIONAL,
    ),
    "Operations": _object(
        {"operations": _list(_object(_OPERATION, closed=True, optional=_OPTIONAL))}, closed=True
    ),
    "Notification": _object(
        {
            "version": {"const": VERSION},
            "alerts": _list(
                _object(
                    {
                        "status": {"enum": ["firing", "resolved"]},
                        "labels": {
                            "type": "object", "additionalProperties": {"type": "string", "maxLength": 256},
                        },
                    }
                )
            ),
        }
    ),
    "AlertDecisions": _object(
        {
            "dry_run": _FLAG,
            "decisions": _list(
                _object(
                    {
                        "alert": _TEXT, "verdict": {"enum": list(VERDICTS)}, "why": _TEXT, "action": _TEXT,
                        "cluster": _TEXT, "node_id": _TEXT, "action_id": _TEXT,
                    },
                    closed=True, optional=("action", "action_id"),
                )
            ),
        },
        closed=True,
    ),
    "Events": _object(
        {
            "data": {"type": "string", "description": "an Operation; of its nodes those that have changed"},
            "event": {"enum": ["change", "end"]},
            "id": _TEXT,
            "retry": _COUNT,
        },
        optional=("data", "event", "id", "retry"),
    ),
    "PromData": _object({"status": {"const": "success"}, "data": {"type": ["array", "object"]}}),
    "PromError": _object({"status": {"const": "error"}, "errorType": _TEXT, "error": _TEXT}),
    "Health": _object({"status": _TEXT}),
}  # fmt: skip


def _content(schema: str, media: str = "application/json") -> _Schema:
    return {media: {"schema": _ref(schema)}}


_STATUS: Final = {
    400: "a parameter is not acceptable", 401: "no token, or an unknown one",
    403: "the role does not allow it, or another site caused the request",
    404: "there is no such node, cluster or operation",
    405: "no such method",
    409: "another action or operation is under way, or it is not the node that hostname means",
    411: "no Content-Length",
    413: "the body is too large", 414: "the URL is too long", 429: "too many requests",
    500: "the command ended with an exit code other than 0 and 134", 502: "SSH failed",
    503: "the runtime, or the service, cannot answer now",
    504: "SSH, the command or the runtime took too long",
}  # fmt: skip

_EVERYWHERE: Final = (401, 403, 411, 413, 414, 429)
"""What a route that needs a role can answer, whatever it does."""


def _responses(route: Route, operation: Operation) -> _Schema:
    content = _content(operation.answer, operation.media)
    found: _Schema = {str(operation.status): {"description": "success", "content": content}}
    for code in sorted({*operation.errors, *((429,) if route.role is None else _EVERYWHERE)}):
        # A command that failed is told in the form of one that succeeded.
        ran = operation.answer == "ActionResult" and code in (500, 502, 504)
        content = _content(operation.answer if ran else operation.error)
        found[str(code)] = {"description": _STATUS[code], "content": content}
    return found


def _described(route: Route, operation: Operation) -> _Schema:
    found: _Schema = {"summary": operation.summary, "responses": _responses(route, operation)}
    if operation.parameters:
        found["parameters"] = list(operation.parameters)
    if operation.body:
        found["requestBody"] = {"required": True, "content": _content(operation.body)}
    if route.role is not None:
        found["security"] = [{"token": []}]
    return {route.methods[0].lower(): found}


@cache
def document() -> _Schema:
    """The description."""
    paths = {
        re.sub("<(.*?)>", r"{\1}", route.path): _described(route, route.operation)
        for route in ROUTES
        if route.operation is not None
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

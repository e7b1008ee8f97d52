"""The pages of operations: a plan with a confirmation, how one goes on, and all there are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from flask import Response, g, redirect, render_template, request

from clio_control_api.errors import ApiError, BadRequest, Conflict
from clio_control_api.forms import Forms
from clio_control_api.operations.api import order_around
from clio_control_api.operations.model import (
    INTERRUPTED,
    ORDERS,
    PAUSED,
    RUNNING,
    NodeProgress,
)
from clio_control_api.operations.plan import DEFAULT_WAIT_S, MAX_AT_ONCE, MIN_WAIT_S, parse_orders
from clio_control_api.operations.stream import Listeners
from clio_control_api.principals import Identity, require_action_on
from clio_control_api.reasons import MAX_REASON
from clio_control_api.services import Services

_SCRIPT: Final = (Path(__file__).parent.parent / "operation.js").read_bytes()
_LIVE_POLICY: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
_FIELDS: Final = ("nodes", "max_unavailable", "wait", "order")
_WORDS: Final = {"restart": "Restart", "shutdown": "Shut down"}


class OperationPages:
    """Views, by the names that the table of routes has."""

    def __init__(
        self,
        services: Services,
        listeners: Listeners,
        forms: Forms,
        page_values: Callable[[], dict[str, Any]],
    ) -> None:
        """`page_values`: what all pages show."""
        self._services = services
        self._operations = services.operations
        self._listeners = listeners
        self._forms = forms
        self._page_values = page_values

    def script(self) -> Response:
        """What keeps the page of an operation up to date."""
        answer = Response(_SCRIPT, content_type="text/javascript; charset=utf-8")
        answer.headers["Cache-Control"] = "max-age=3600"
        return answer

    def all(self) -> str:
        """All operations."""
        return render_template("operations.html", operations=self._operations.all(), **self._page_values())

    def plan(self, action: str) -> Any:
        """What would be done; asks for a confirmation."""
        return self._plan_page(action)

    def start(self, action: str) -> Any:
        """Begin what the plan said."""
        self._forms.check_once(_purpose(action, request.form.get("cluster", "")))
        identity: Identity = g.identity
        orders = self._orders(action, request.form)
        try:
            found = self._operations.start(
                orders, lambda member: require_action_on(identity, member),
                lambda nodes: plan_digest(nodes) == request.form.get("plan"),
            )  # fmt: skip
        except Conflict as error:
            return self._plan_page(action, error), 409
        return redirect(self._url(f"/operations/{found.id}"), 303)

    def one(self, operation_id: str) -> Response:
        """How an operation goes on."""
        found = self._operations.find(operation_id)
        page = render_template(
            "operation.html", run=found, commands=_commands(found.state),
            csrf=self._forms.lasting(f"operation {found.id}"), **self._page_values(),
        )  # fmt: skip
        answer = Response(page, content_type="text/html; charset=utf-8")
        answer.headers["Content-Security-Policy"] = _LIVE_POLICY
        return answer

    def events(self, operation_id: str) -> Response:
        """The same, live."""
        return self._listeners.follow(operation_id)

    def command(self, operation_id: str, command: str) -> Any:
        """Abort, pause or resume one."""
        self._forms.check_lasting(f"operation {operation_id}")
        order_around(self._services, operation_id, command, g.identity)
        return redirect(self._url(f"/operations/{operation_id}"), 303)

    # --- parts ------------------------------------------------------------------------------------

    def _orders(self, action: str, values: Any) -> Any:
        identity: Identity = g.identity
        given = {name: values[name] for name in (*_FIELDS, "reason") if name in values}
        return parse_orders(
            action, given, self._services.clusters.cluster(values.get("cluster") or None),
            actor=identity.name, role=identity.role.name.lower(), client=request.remote_addr or "",
        )  # fmt: skip

    def _plan_page(self, action: str, conflict: ApiError | None = None) -> str:
        values = request.values
        names = self._services.clusters.names
        # With one cluster a dashboard's link may name it, none, or all.
        cluster = names[0] if len(names) == 1 else values.get("cluster", "")
        chosen = cluster in names
        problem, busy = "", None
        nodes: tuple[NodeProgress, ...] = ()
        if chosen:
            busy = self._operations.under_way(cluster)
            try:
                nodes = self._operations.plan(
                    self._orders(action, {**values.to_dict(), "cluster": cluster or None})
                )
            except BadRequest as error:
                problem = str(error)
        csrf = self._forms.once(_purpose(action, cluster)) if nodes and not busy else ""
        return render_template(
            "operation_plan.html", action=action, label=_WORDS[action], clusters=names, cluster=cluster,
            chosen=chosen, problem=problem, plan=nodes, digest=plan_digest(nodes), busy=busy, csrf=csrf,
            conflict=conflict, orders=ORDERS, most=MAX_AT_ONCE, least_wait=MIN_WAIT_S, max_reason=MAX_REASON,
            given={name: values.get(name, "") for name in (*_FIELDS, "reason")}, default_wait=DEFAULT_WAIT_S,
            prometheus=self._services.settings.prometheus_url is not None, **self._page_values(),
        )  # fmt: skip

    def _url(self, path: str) -> str:
        back = request.values.get("back")
        return path + (f"?{urlencode({'back': back[:2048]})}" if back else "")


def plan_digest(nodes: tuple[NodeProgress, ...]) -> str:
    """What tells a plan from one of other nodes, or of another order."""
    text = "\n".join(f"{node.node_id} {node.target}" for node in nodes)
    return hashlib.sha256(text.encode()).hexdigest()


def _purpose(action: str, cluster: str) -> str:
    """What a confirmation is for; that the plan is the one shown is told by its digest."""
    return repr(("operation", action, cluster))


def _commands(state: str) -> tuple[tuple[str, str], ...]:
    """What can be asked of an operation in this state: word and label of the button."""
    return {
        RUNNING: (("pause", "Pause"), ("abort", "Abort")),
        PAUSED: (("resume", "Resume"), ("abort", "Abort")),
        INTERRUPTED: (("resume", "Resume"),),
    }.get(state, ())

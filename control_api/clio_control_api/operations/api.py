"""The JSON endpoints of operations."""

from __future__ import annotations

from typing import Any

from flask import Response, g, request

from clio_control_api.errors import BadRequest
from clio_control_api.operations.model import Operation
from clio_control_api.operations.plan import parse_orders
from clio_control_api.operations.stream import Listeners
from clio_control_api.principals import Identity, require_action_on
from clio_control_api.requests import json_object
from clio_control_api.services import Services


class OperationApi:
    """Views, by the names that the table of routes has."""

    def __init__(self, services: Services, listeners: Listeners) -> None:
        self._services = services
        self._operations = services.operations
        self._listeners = listeners

    def start(self, action: str) -> tuple[dict[str, Any], int, dict[str, str]]:
        """Begin an operation."""
        given = json_object()
        if "nodes" not in given:
            raise BadRequest(
                'nodes is missing: give node ids such as "1-20", a part of a hostname, or "" for all'
            )
        cluster = given.get("cluster")
        if cluster is not None and not isinstance(cluster, str):
            raise BadRequest("cluster is the name of a cluster")
        identity: Identity = g.identity
        orders = parse_orders(
            action, given, self._services.clusters.cluster(cluster), actor=identity.name,
            role=identity.role.name.lower(), client=request.remote_addr or "",
        )  # fmt: skip
        operation = self._operations.start(orders, lambda member: require_action_on(identity, member))
        return operation.document(), 202, {"Location": f"/api/operations/{operation.id}"}

    def all(self) -> dict[str, Any]:
        """All operations, newest first, without their nodes."""
        found = [operation.document() for operation in self._operations.all()]
        return {"operations": [{k: v for k, v in each.items() if k != "nodes"} for each in found]}

    def one(self, operation_id: str) -> dict[str, Any]:
        """One operation."""
        return self._operations.find(operation_id).document()

    def events(self, operation_id: str) -> Response:
        """One operation, live."""
        return self._listeners.follow(operation_id)

    def command(self, operation_id: str, command: str) -> dict[str, Any]:
        """Abort, pause or resume one."""
        return order_around(self._services, operation_id, command, g.identity).document()


def order_around(services: Services, operation_id: str, command: str, identity: Identity) -> Operation:
    """Abort, pause or resume an operation, if `identity` may.

    Every operator may hold an operation up; to let it go on takes what it takes to begin it.
    """
    operations = services.operations
    found = operations.find(operation_id)
    if command == "resume":
        numbers = {node.node_id for node in found.nodes}
        for member in services.clusters.current_members(found.orders.cluster):
            if member.node_id in numbers:
                require_action_on(identity, member)
    commands = {"abort": operations.abort, "pause": operations.pause, "resume": operations.resume}
    return commands[command](operation_id, identity.name)

"""What the application is made of."""

from __future__ import annotations

from dataclasses import dataclass

from control_api.actions import ActionRunner
from control_api.audit import AuditLog
from control_api.directory import Directory
from control_api.metrics import Metrics
from control_api.reader import NodeReader
from control_api.remote import NodePlan
from control_api.settings import Settings
from control_api.tokens import TokenStore
from exporter.membership import Member


@dataclass(frozen=True, slots=True)
class Services:
    """What the application is made of; whoever made it closes it."""

    settings: Settings
    tokens: TokenStore
    reader: NodeReader
    directory: Directory
    runner: ActionRunner
    audit: AuditLog
    metrics: Metrics


def plan_for(services: Services, member: Member) -> NodePlan:
    """How to act on a member."""
    cluster = services.settings.ssh_of(member.cluster)
    ssh = cluster.for_node(member.node_id, member.hostname, member.address.port)
    return NodePlan(member, ssh)

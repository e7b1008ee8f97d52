"""What the application is made of."""

from __future__ import annotations

from dataclasses import dataclass

from clio_client.membership import Member
from clio_control_api.actions import ActionRunner
from clio_control_api.audit import AuditLog
from clio_control_api.clusters import Clusters
from clio_control_api.exposure import Auth
from clio_control_api.metrics import Metrics
from clio_control_api.node_script import NodePlan
from clio_control_api.operations.runner import OperationRunner
from clio_control_api.queries import NodeQueries
from clio_control_api.settings import Settings
from clio_control_api.tokens import TokenStore


@dataclass(frozen=True, slots=True)
class Services:
    """What the application is made of; whoever made it closes it."""

    settings: Settings
    auth: Auth
    tokens: TokenStore
    queries: NodeQueries
    clusters: Clusters
    runner: ActionRunner
    audit: AuditLog
    metrics: Metrics
    operations: OperationRunner


def plan_for(services: Services, member: Member) -> NodePlan:
    """How to act on a member."""
    cluster = services.settings.ssh_of(member.cluster)
    ssh = cluster.for_node(member.node_id, member.hostname, member.address.port)
    return NodePlan(member, ssh)

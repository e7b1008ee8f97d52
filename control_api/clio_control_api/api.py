"""The read endpoints: what nodes report, in the shapes and field names of the old dashboard's API."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from clio_client.config.known_keys import publishable
from clio_client.config.masking import mask_text
from clio_client.config.runtime_conf import RuntimeConfig
from clio_client.membership import Member
from clio_client.search import Search
from clio_control_api.clusters import Clusters
from clio_control_api.errors import BadRequest, NotFound, Unavailable
from clio_control_api.queries import READ_TIMEOUT_S, NodeAnswer, NodeQueries

USAGE_FIELDS: Final = ("cpu_usage_pct", "ram_usage_pct", "gpu_count", "gpu_usage_pct", "hbm_usage_pct")
_UNSPECIFIED: Final = ("", "0.0.0.0")  # noqa: S104 - compared
_MAX_EVENT_ID: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class TopologyNode:
    """A node, found by what the membership and by what its runtime calls it.

    Attributes:
        hostname: the membership's, which is the ``hostname`` label of the exporter's metrics.
        document: as `/api/topology` lists it, with the runtime's own hostname.
    """

    hostname: str
    document: Mapping[str, Any]

    def is_meant(self, search: Search) -> bool:
        """Whether a search means this node."""
        names = (self.hostname, self.document["hostname"], self.document["ip_address"])
        return search.matches(self.document["node_id"], names)


class Reads:
    """The read endpoints without HTTP: each method returns the JSON document."""

    def __init__(self, clusters: Clusters, queries: NodeQueries) -> None:
        self._clusters = clusters
        self._queries = queries

    def topology(self, cluster: str, search: Search) -> dict[str, Any]:
        """Every member; what a node does not report (a dead one reports nothing) is null."""
        return {"nodes": [node.document for node in self.nodes(cluster) if node.is_meant(search)]}

    def nodes(self, cluster: str) -> list[TopologyNode]:
        """Every member, for whoever searches."""
        members = self._clusters.members(cluster)
        answers = self._queries.newest_samples([member.address for member in members])
        return [
            TopologyNode(member.hostname, _node(member, answer))
            for member, answer in zip(members, answers, strict=True)
        ]

    def system(self, cluster: str) -> dict[str, Any]:
        """Totals over the nodes that answer."""
        summary = self.workers(cluster)["summary"]
        return {
            "connected": True,
            "workers": summary["count"],
            "queued": summary["queued"],
            "blocked": summary["blocked"],
            "processed": summary["processed"],
        }

    def workers(self, cluster: str) -> dict[str, Any]:
        """The workers of all nodes that answer, each with its `node_id`."""
        members = self._clusters.members(cluster)
        answers = self._queries.ask([(member.address, "worker_stats") for member in members])
        if not any(answer.ok for answer in answers):
            raise Unavailable(_why_none(members, answers), connected=False)
        workers = [
            {**row, "node_id": member.node_id}
            for member, answer in zip(members, answers, strict=True)
            for row in _maps(answer.document)
        ]
        return {"workers": workers, "summary": _summary(workers)}

    def node_workers(self, member: Member) -> dict[str, Any]:
        """One node's workers."""
        empty = {"workers": [], "summary": _summary(())}
        workers = _maps(self._one(member, "worker_stats", empty))
        return {"workers": workers, "summary": _summary(workers)}

    def system_stats(self, member: Member, min_event_id: str | None) -> dict[str, Any]:
        """Entries of one node's 1 Hz ring from an event id on."""
        minimum = 0
        if min_event_id is not None:
            if not (min_event_id.isascii() and min_event_id.isdigit() and len(min_event_id) <= 19):
                raise BadRequest("min_event_id is not a whole number of 0 or more")
            minimum = min(int(min_event_id), _MAX_EVENT_ID)
        entries = _maps(self._one(member, f"system_stats:{minimum}", {"entries": []}))
        return {"entries": entries}

    def container_stats(self, member: Member) -> dict[str, Any]:
        """One node's pool containers with their methods."""
        return {"containers": _maps(self._one(member, "container_stats", {"containers": []}))}

    def bdev_stats(self, member: Member) -> dict[str, Any]:
        """One node's block devices; each pool is asked, for the runtime's own list can hang for ever."""
        empty: dict[str, Any] = {"devices": []}
        end = time.monotonic() + READ_TIMEOUT_S
        containers = _maps(self._one(member, "container_stats", empty))
        pools = [
            str(row["pool_id"])
            for row in containers
            if str(row.get("chimod_name", "")).endswith("_bdev") and _is_pool_id(row.get("pool_id"))
        ]
        answers = self._queries.ask(
            [(member.address, f"pool_stats://{pool}:local:stats") for pool in pools],
            max(0.05, end - time.monotonic()),
        )
        devices = [
            {**_clean(answer.document), "pool_id": pool}
            for pool, answer in zip(pools, answers, strict=True)
            if isinstance(answer.document, dict)
        ]
        if pools and not any(answer.ok for answer in answers):
            raise Unavailable("node_down", detail=str(answers[0].error), **empty)
        return {"devices": devices}

    def pools(self, cluster: str) -> dict[str, Any]:
        """The compose section of the runtime's configuration."""
        config = self._config(cluster)
        return {
            "pools": [
                {
                    "mod_name": mask_text(pool.mod_name),
                    "pool_name": mask_text(pool.pool_name),
                    "pool_id": mask_text(pool.pool_id),
                    "pool_query": mask_text(pool.pool_query),
                }
                for pool in config.compose
            ]
        }

    def config(self, cluster: str) -> dict[str, Any]:
        """What may be shown of the runtime's configuration."""
        return {"config": _clean(publishable(self._config(cluster).document))}

    def _config(self, cluster: str) -> RuntimeConfig:
        files = self._clusters.config_files(cluster)
        for file in files:
            if file.config is not None:
                return file.config
        reasons = "; ".join(str(file.error) for file in files[:3] if file.error is not None)
        raise NotFound(
            "no runtime configuration was found on this host"
            + (f": {reasons}" if reasons else "; name it with runtime_config in the exporter's settings")
        )

    def _one(self, member: Member, query: str, empty: Mapping[str, Any]) -> Any:
        answer = self._queries.ask([(member.address, query)])[0]
        if answer.error is not None:
            if answer.error.reason in ("query_failed", "malformed"):
                raise Unavailable(f"{member.address}: {answer.error}", **empty)
            raise Unavailable("node_down", detail=str(answer.error), **empty)
        return answer.document


def _node(member: Member, answer: NodeAnswer) -> dict[str, Any]:
    sample: Mapping[str, Any] = answer.document or {}
    hostname, address = sample.get("hostname"), sample.get("ip_address")
    node: dict[str, Any] = {
        "node_id": member.node_id,
        "hostname": hostname if _named(hostname) else member.hostname,
        "ip_address": address if _named(address) else member.address.host,
        "alive": answer.ok,
        "is_leader": bool(sample.get("is_leader", False)),
    }
    node.update({name: _clean(sample.get(name)) for name in USAGE_FIELDS})
    return node


def _named(value: Any) -> bool:
    return isinstance(value, str) and value not in _UNSPECIFIED


def _maps(document: Any) -> list[dict[str, Any]]:
    rows = document if isinstance(document, list) else [document]
    return [_clean(row) for row in rows if isinstance(row, dict)]


def _summary(workers: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    rows = list(workers)

    def total(name: str) -> int:
        return sum(value for row in rows if isinstance(value := row.get(name), int))

    return {
        "count": len(rows),
        "queued": total("num_queued_tasks"),
        "blocked": total("num_blocked_tasks"),
        "processed": total("num_tasks_processed"),
    }


def _is_pool_id(value: Any) -> bool:
    parts = value.split(".") if isinstance(value, str) else []
    return len(parts) == 2 and all(p.isascii() and p.isdigit() and len(p) <= 10 for p in parts)


def _why_none(members: Sequence[Member], answers: Sequence[NodeAnswer]) -> str:
    if not members:
        return "the cluster has no nodes"
    shown = [str(answer.error) for answer in answers[:3]]
    more = f" and {len(answers) - 3} more" if len(answers) > 3 else ""
    return f"no runtime answers: {'; '.join(shown)}{more}"


def _clean(value: Any) -> Any:
    """`value` as JSON can say it: no NaN, no bytes, text keys."""
    if isinstance(value, Mapping):
        return {str(key): _clean(below) for key, below in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_clean(below) for below in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, (bool, int)) or value is None:
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value).encode("utf-8", "replace").decode("utf-8")

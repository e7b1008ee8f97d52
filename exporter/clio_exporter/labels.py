"""The labels that say which node or cluster a series is about, as ready text.

``cluster`` is there where the cluster has a name, which it must have where there are several.
"""

from __future__ import annotations

import functools

from clio_client.config.runtime_files import ConfigFile
from clio_client.membership import Member
from clio_exporter.exposition import label_text
from clio_exporter.probe_targets import NO_NUMBER


@functools.lru_cache(maxsize=1 << 16)
def node_labels(member: Member) -> str:
    """Labels of every series of this node; a target that is in no cluster has no number."""
    return label_text(member_labels(member))


def member_labels(member: Member) -> dict[str, str]:
    """The same by name."""
    named = {"cluster": member.cluster} if member.cluster else {}
    node_id = "" if member.node_id == NO_NUMBER else str(member.node_id)
    return {**named, "node_id": node_id, "hostname": member.hostname}


def cluster_labels(name: str) -> str:
    """Labels of every series about a cluster."""
    return label_text({"cluster": name}) if name else ""


def config_labels(file: ConfigFile, cluster: str) -> str:
    """Labels of what a configuration file says: of its node, or of the cluster when all nodes share it."""
    return cluster_labels(cluster) if file.member is None else node_labels(file.member)

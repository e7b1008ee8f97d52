"""Who asks, and what that lets them do. Pure functions.

A role says what kind of thing: reads, or actions too. A scope says on which nodes actions may be; reads
are not scoped.
"""

from __future__ import annotations

import enum
import fnmatch
import re
from dataclasses import dataclass
from typing import Final

from clio_client.membership import Member
from clio_control_api.errors import Forbidden

_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", re.ASCII)
_NAMES = re.compile(r"[A-Za-z0-9._*-]{1,253}", re.ASCII)
_CLUSTER = re.compile(r"[A-Za-z0-9_.-]{1,128}", re.ASCII)
_MAX_PARTS: Final = 256


class Role(enum.IntEnum):
    """What a client may do; a higher role may do all that a lower one may."""

    VIEWER = 1
    OPERATOR = 2


class OutOfScopeError(Forbidden):
    """The role allows the action, but not on this node."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The nodes that actions may be on. None: every one.

    Attributes:
        clusters: names of clusters.
        nodes: node ids (`3`), ranges of them (`1-20`), hostnames with `*` for any text (`gpu-*`).
    """

    clusters: tuple[str, ...] | None = None
    nodes: tuple[str, ...] | None = None

    def permits(self, member: Member) -> bool:
        """Whether a member is in the scope; names are the membership's, not what a runtime calls itself."""
        if self.clusters is not None and member.cluster not in self.clusters:
            return False
        if self.nodes is None:
            return True
        names = {member.hostname.lower(), member.address.host.lower()}
        return any(_is_node(part, member.node_id, names) for part in self.nodes)

    def __str__(self) -> str:
        """The words of a token's line; empty for every node."""
        found = (("clusters", self.clusters), ("nodes", self.nodes))
        return " ".join(f"{key}={','.join(parts)}" for key, parts in found if parts is not None)


EVERYWHERE: Final = Scope()


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks. `name` and `role` are what the audit log records.

    Attributes:
        anonymous: nobody has shown a token; the role is what everyone has who reaches the service.
    """

    name: str
    role: Role
    scope: Scope = EVERYWHERE
    anonymous: bool = False

    def may_act_on(self, member: Member) -> bool:
        """Whether actions on a node are allowed."""
        return self.role >= Role.OPERATOR and self.scope.permits(member)


def require_action_on(identity: Identity, member: Member) -> None:
    """Every action on a node, alone or as a part of an operation, asks this first.

    Raises:
        Forbidden: the role allows no actions.
        OutOfScopeError: the token is not for this node.
    """
    if identity.role < Role.OPERATOR:
        raise Forbidden(f"{identity.name} is a {identity.role.name.lower()}; this needs the role operator")
    if not identity.may_act_on(member):
        where = f"node {member.node_id} ({member.hostname})"
        where += f" of cluster {member.cluster}" if member.cluster else ""
        raise OutOfScopeError(
            f"the token of {identity.name} does not allow actions on {where}; it is for: {identity.scope}"
        )


def parse_clusters(text: str) -> tuple[str, ...]:
    """Names of clusters, with commas between them; raises `ValueError`."""
    parts = _parts(text)
    for part in parts:
        if not _CLUSTER.fullmatch(part):
            raise ValueError("clusters= is not a list of names such as lab,prod")
    return parts


def parse_nodes(text: str) -> tuple[str, ...]:
    """Node ids, ranges and hostnames, with commas between them; raises `ValueError`."""
    parts = _parts(text)
    for part in parts:
        match = _RANGE.fullmatch(part)
        if match is not None and match[2] is not None and int(match[2]) < int(match[1]):
            raise ValueError(f"nodes= has the range {part}, which is reversed")
        if match is None and not _NAMES.fullmatch(part):
            raise ValueError("nodes= is not a list such as 1-20,33,gpu-*")
    return tuple(part.lower() for part in parts)


def _parts(text: str) -> tuple[str, ...]:
    parts = tuple(text.split(","))
    if len(parts) > _MAX_PARTS:
        raise ValueError(f"a scope has more than {_MAX_PARTS} parts")
    return parts


def _is_node(part: str, node_id: int, names: set[str]) -> bool:
    match = _RANGE.fullmatch(part)
    if match is not None:
        return int(match[1]) <= node_id <= int(match[2] or match[1])
    return any(fnmatch.fnmatchcase(name, part) for name in names)

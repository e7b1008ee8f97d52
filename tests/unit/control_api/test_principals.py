"""Who may act on which node."""

from __future__ import annotations

import pytest

from clio_client.membership import Member
from clio_client.transport.interface import NodeAddress
from clio_control_api.errors import Forbidden
from clio_control_api.principals import (
    Identity,
    OutOfScopeError,
    Role,
    Scope,
    parse_clusters,
    parse_nodes,
    require_action_on,
)


def member(cluster: str = "lab", node_id: int = 7, name: str = "GPU-07.example", host: str = "") -> Member:
    return Member(cluster, node_id, name, NodeAddress(host or name))


@pytest.mark.parametrize(
    ("nodes", "permitted"),
    [
        (None, True),
        ("7", True),
        ("70", False),
        ("1-7", True),
        ("7-9", True),
        ("1-6", False),
        ("8-9", False),
        ("1,2,7", True),
        ("gpu-07.example", True),
        ("GPU-*", True),
        ("gpu-0", False),  # not a part of a name
        ("*", True),
        ("10.0.0.*", True),
        ("10.0.1.*,gpu-08*", False),
    ],
)
def test_nodes_of_a_scope(nodes: str | None, permitted: bool) -> None:
    scope = Scope(nodes=None if nodes is None else parse_nodes(nodes))
    assert scope.permits(member(host="10.0.0.7")) is permitted


def test_both_clusters_and_nodes_must_match() -> None:
    scope = Scope(parse_clusters("lab,prod"), parse_nodes("7"))
    assert scope.permits(member("lab"))
    assert scope.permits(member("prod"))
    assert not scope.permits(member("other"))
    assert not scope.permits(member("lab", 8))
    assert not Scope(clusters=("lab",)).permits(member(""))
    assert str(scope) == "clusters=lab,prod nodes=7"
    assert str(Scope()) == ""


def test_role_and_scope_of_an_action() -> None:
    require_action_on(Identity("anna", Role.OPERATOR), member())
    require_action_on(Identity("anna", Role.OPERATOR, Scope(nodes=("7",))), member())
    with pytest.raises(Forbidden, match="vera is a viewer") as viewer:
        require_action_on(Identity("vera", Role.VIEWER), member())
    assert not isinstance(viewer.value, OutOfScopeError)
    with pytest.raises(
        OutOfScopeError, match=r"node 7 \(GPU-07.example\) of cluster lab; it is for: nodes=1-3"
    ):
        require_action_on(Identity("anna", Role.OPERATOR, Scope(nodes=("1-3",))), member())
    assert not Identity("vera", Role.VIEWER).may_act_on(member())


@pytest.mark.parametrize(
    "text", ["", "a,,b", "a b", "9-3", "a\n", "é", "x" * 300, ",".join("a" * 300), "[a]", "a?"]
)
def test_bad_scopes(text: str) -> None:
    with pytest.raises(ValueError, match=r"nodes=|parts"):
        parse_nodes(text)


@pytest.mark.parametrize("text", ["", "a,,b", "a b", "a*", "é", "a/b"])
def test_bad_clusters(text: str) -> None:
    with pytest.raises(ValueError, match="clusters="):
        parse_clusters(text)

"""Which metrics a PromQL expression reads, and which labels its result has."""

from __future__ import annotations

from collections.abc import Iterator

import promql_parser as p

from clio_exporter.collectors.reference import all_families
from clio_exporter.exposition import Scope
from clio_exporter.telemetry import process_families
from grafana.generator.rules import RECORDED

SCRAPE_LABELS = frozenset({"job", "instance"})
_NODE = frozenset({"node_id", "hostname", "cluster"})

FROM_PROMETHEUS = {
    "up": frozenset[str](),
    "scrape_duration_seconds": frozenset[str](),
    "scrape_samples_scraped": frozenset[str](),
    "ALERTS": frozenset({"alertname", "alertstate", "severity", "worker_id", "pool_id", "pool_name"}) | _NODE,
}
CONTROL_API = {
    "clio_control_actions_total": frozenset({"action", "outcome"}),
    "clio_control_action_duration_seconds_sum": frozenset({"action"}),
    "clio_control_action_duration_seconds_count": frozenset({"action"}),
    "clio_control_action_begin_timestamp_seconds": frozenset(
        {"action", "cluster", "node_id", "hostname", "actor", "reason", "client"}
    ),
    "clio_control_api_build_info": frozenset({"version", "python_version"}),
}
JOB = {"clio_annotation_timestamp_seconds": frozenset({"job_id", "user", "job_name", "text"})}
"""Recorded by a job's own Prometheus (clio_exporter/job/marks.py)."""
NODE_SEARCH = {"clio_node_search": frozenset({"search", "node_id_regex", "ip_address"}) | _NODE}


def catalogue() -> dict[str, frozenset[str]]:
    """Every metric there is, with its labels."""
    scopes = {
        Scope.NODE: _NODE,
        # Of the configuration, with node labels where every node has a file of its own.
        Scope.CLUSTER: frozenset({"cluster"}),
        Scope.EXPORTER: frozenset[str](),
    }
    found = {family.name: frozenset(family.labels) | scopes[family.scope] for family in all_families()}
    for name in found:
        if name.startswith("clio_config_"):
            found[name] |= _NODE
    for name in process_families():
        found[name] = frozenset()
        found[f"{name}_total"] = frozenset()
    recorded = {name: frozenset(labels) for name, labels in RECORDED.items()}
    known = {**found, **recorded, **CONTROL_API, **JOB, **NODE_SEARCH}
    return {**{n: labels | SCRAPE_LABELS for n, labels in known.items()}, **{
        n: labels | SCRAPE_LABELS for n, labels in FROM_PROMETHEUS.items()
    }}  # fmt: skip


class LabelError(AssertionError):
    """A metric or label that does not exist."""


_CATALOGUE = catalogue()


def selectors(node: p.Expr) -> Iterator[tuple[str, p.VectorSelector]]:
    """Every selector of an expression with the metric's name."""
    match node:
        case p.VectorSelector():
            if node.name:
                yield node.name, node
            else:
                for matcher in node.matchers.matchers:
                    if matcher.name == "__name__":
                        for name in matcher.value.split("|"):
                            yield name, node
        case p.MatrixSelector():
            yield from selectors(node.vector_selector)
        case p.Call():
            for argument in node.args:
                yield from selectors(argument)
        case p.BinaryExpr():
            yield from selectors(node.lhs)
            yield from selectors(node.rhs)
        case p.AggregateExpr() | p.ParenExpr() | p.UnaryExpr() | p.SubqueryExpr():
            yield from selectors(node.expr)


def calls(node: p.Expr) -> Iterator[p.Call]:
    """Every function call of an expression."""
    match node:
        case p.Call():
            yield node
            for argument in node.args:
                yield from calls(argument)
        case p.BinaryExpr():
            yield from calls(node.lhs)
            yield from calls(node.rhs)
        case p.AggregateExpr() | p.ParenExpr() | p.UnaryExpr() | p.SubqueryExpr():
            yield from calls(node.expr)


def labels(node: p.Expr) -> frozenset[str]:
    """Labels the result can have.

    Raises:
        LabelError: a metric that does not exist, or a label that is used where it cannot be.
    """
    match node:
        case p.VectorSelector():
            found = frozenset[str]()
            for name, _ in selectors(node):
                if name not in _CATALOGUE:
                    raise LabelError(f"no such metric: {name}")
                found |= _CATALOGUE[name]
            for matcher in node.matchers.matchers:
                _exists({matcher.name} - {"__name__"}, found, node)
            return found
        case p.MatrixSelector():
            return labels(node.vector_selector)
        case p.ParenExpr() | p.UnaryExpr() | p.SubqueryExpr():
            return labels(node.expr)
        case p.AggregateExpr():
            return _aggregate(node)
        case p.BinaryExpr():
            return _binary(node)
        case p.Call():
            return _call(node)
        case _:
            return frozenset()


def _exists(wanted: set[str] | frozenset[str], there: frozenset[str], node: p.Expr) -> None:
    missing = wanted - there
    if missing:
        raise LabelError(f"no label {sorted(missing)} in {node.prettify()}: has {sorted(there)}")


def _aggregate(node: p.AggregateExpr) -> frozenset[str]:
    inner = labels(node.expr)
    if str(node.op) in ("topk", "bottomk"):
        return inner
    counted = frozenset({node.param.val} if str(node.op) == "count_values" else ())
    if node.modifier is None:
        return counted
    named = frozenset(node.modifier.labels)
    _exists(named, inner, node)
    return counted | (named if node.modifier.type == p.AggModifierType.By else inner - named)


def _binary(node: p.BinaryExpr) -> frozenset[str]:
    left, right = labels(node.lhs), labels(node.rhs)
    if isinstance(node.lhs, p.NumberLiteral):
        return right
    modifier = node.modifier
    matching = modifier.matching if modifier else None
    on = frozenset(matching.labels) if matching else frozenset[str]()
    if not isinstance(node.rhs, p.NumberLiteral):
        _exists(on, left, node)
        _exists(on, right, node)
    if str(node.op) == "or":
        return left | right
    if modifier is not None and modifier.card == p.VectorMatchCardinality.ManyToOne:
        extra = frozenset(
            modifier.card_labels if hasattr(modifier, "card_labels") else modifier.group_labels or ()
        )
        _exists(extra, right, node)
        return left | extra
    if matching and str(node.op) not in ("and", "unless"):
        return on
    return left


def _call(node: p.Call) -> frozenset[str]:
    name = node.func.name
    vectors = [labels(a) for a in node.args if not isinstance(a, p.NumberLiteral | p.StringLiteral)]
    found = vectors[0] if vectors else frozenset[str]()
    texts = [a.val for a in node.args if isinstance(a, p.StringLiteral)]
    if name == "label_replace":
        target, replacement, source, _ = texts
        _exists({source} - {""}, found, node)
        return found - {target} if replacement == "" else found | {target}
    if name == "label_join":
        target, _, *sources = texts
        _exists(set(sources), found, node)
        return found | {target}
    return found

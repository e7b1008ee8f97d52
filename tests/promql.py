"""A linter for PromQL over the metrics of this project: what promtool cannot know.

promtool checks syntax; it knows neither which metrics there are nor what labels they have, and an
expression with a wrong one is simply never true. `lint` infers the labels of every subexpression (with
promql-parser, a grammar that follows Prometheus 3) and reports

- metrics and labels that do not exist;
- rate() and the like of a gauge, deriv() and the like of a counter, and windows too short for the
  scrape interval;
- operands that can never match, because one side has labels that the other has not;
- sums, counts and means over what several exporters say of one node: `max by` has to come first.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import promql_parser as promql

from clio_control_api.metrics import Metrics as ControlMetrics
from clio_exporter.collectors.reference import all_families
from clio_exporter.exposition import Kind, Scope
from clio_exporter.telemetry import process_families

TARGET_LABELS = frozenset({"job", "instance"})
"""What Prometheus adds to everything it scrapes."""

NODE_LABELS = frozenset({"cluster", "node_id", "hostname"})

SCOPE_LABELS: Mapping[Scope, frozenset[str]] = {
    Scope.NODE: NODE_LABELS,
    Scope.CLUSTER: frozenset({"cluster"}),
    Scope.EXPORTER: frozenset(),
}

SHORTEST_RATE = datetime.timedelta(seconds=60)
"""Four scrapes at the interval of prometheus.yml, so that one that fails leaves no gap."""

_COUNTER_ONLY = frozenset({"rate", "irate", "increase"})
_GAUGE_ONLY = frozenset({"deriv", "delta", "idelta", "predict_linear"})
_NO_SUMS = frozenset({"max", "min", "group", "topk", "bottomk"})
"""Aggregations that give no wrong number when a series is there twice."""
_SCALAR_FUNCTIONS = frozenset({"time", "scalar", "pi"})


@dataclass(frozen=True)
class Metric:
    """A series name: whether it only goes up, and the labels it can carry."""

    name: str
    counter: bool
    labels: frozenset[str]


def _exported() -> Iterator[Metric]:
    for family in all_families():
        labels = frozenset(family.labels) | SCOPE_LABELS[family.scope] | TARGET_LABELS
        if family.name.startswith("clio_config_"):
            labels |= NODE_LABELS  # where the settings name one file a node
        yield Metric(family.name, family.kind is Kind.COUNTER, labels)


def _others() -> Iterator[Metric]:
    for name in process_families():
        counter = name == "process_cpu_seconds" or name.startswith("python_gc_")
        yield Metric(f"{name}_total" if counter else name, counter, TARGET_LABELS)
    for name in ("up", "scrape_duration_seconds", "scrape_timeout_seconds", "scrape_samples_scraped"):
        yield Metric(name, False, TARGET_LABELS)
    control = ControlMetrics()
    control.watch_tokens(lambda: (0, 0, 0, True))
    control.watch_certificate(lambda: 0.0)
    for family in control.registry.collect():
        for sample in family.samples:
            counter = family.type == "counter" or (
                family.type == "histogram" and "_created" not in sample.name
            )
            yield Metric(sample.name, counter, TARGET_LABELS | sample.labels.keys())


def scraped_metrics() -> dict[str, Metric]:
    """What exporter, control API and Prometheus itself provide, by name."""
    return {metric.name: metric for metric in (*_exported(), *_others())}


@dataclass
class Findings:
    """What `lint` found.

    Attributes:
        labels: labels the result can carry; None when it is a scalar or a string.
        metrics: names of all series selected.
        problems: one sentence each.
    """

    labels: frozenset[str] | None = None
    metrics: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)


def lint(expression: str, metrics: Mapping[str, Metric]) -> Findings:
    """Check one expression against the metrics there are."""
    findings = Findings()
    try:
        tree = promql.parse(expression)
    except ValueError as error:
        findings.problems.append(f"does not parse: {error}")
        return findings
    findings.labels = _Linter(metrics, findings).labels(tree)
    return findings


class _Linter:
    def __init__(self, metrics: Mapping[str, Metric], findings: Findings) -> None:
        self._metrics = metrics
        self._findings = findings

    def _complain(self, text: str) -> None:
        self._findings.problems.append(text)

    def labels(self, node: Any) -> frozenset[str] | None:
        """Labels that the result of a subexpression can carry; None for scalars and strings."""
        visit = getattr(self, f"_{type(node).__name__}", None)
        if visit is None:
            raise NotImplementedError(f"the linter does not know {type(node).__name__}")
        result: frozenset[str] | None = visit(node)
        return result

    def _NumberLiteral(self, node: Any) -> None:
        return None

    def _StringLiteral(self, node: Any) -> None:
        return None

    def _ParenExpr(self, node: Any) -> frozenset[str] | None:
        return self.labels(node.expr)

    def _UnaryExpr(self, node: Any) -> frozenset[str] | None:
        return self.labels(node.expr)

    def _SubqueryExpr(self, node: Any) -> frozenset[str] | None:
        return self.labels(node.expr)

    def _MatrixSelector(self, node: Any) -> frozenset[str]:
        return self._VectorSelector(node.vector_selector)

    def _VectorSelector(self, node: Any) -> frozenset[str]:
        self._findings.metrics.add(node.name)
        metric = self._metrics.get(node.name)
        if metric is None:
            self._complain(f"there is no metric {node.name}")
            return frozenset()
        for matcher in node.matchers.matchers:
            if matcher.name not in metric.labels:
                self._complain(f"{node.name} has no label {matcher.name}")
        return metric.labels

    def _Call(self, node: Any) -> frozenset[str] | None:
        name = node.func.name
        found = [self.labels(argument) for argument in node.args]
        self._check_kind(name, node.args)
        if name in _SCALAR_FUNCTIONS:
            return None
        if name == "vector":
            return frozenset()
        if name in ("absent", "absent_over_time"):
            return self._absent_labels(node.args[0])
        vector = next((labels for labels in found if labels is not None), frozenset())
        if name in ("label_replace", "label_join"):
            return vector | {node.args[1].val}
        if name == "histogram_quantile":
            return vector - {"le"}
        return vector

    def _absent_labels(self, argument: Any) -> frozenset[str]:
        selector = getattr(argument, "vector_selector", argument)
        matchers = getattr(selector, "matchers", None)
        if matchers is None:
            return frozenset()
        return frozenset(matcher.name for matcher in matchers.matchers if matcher.op == promql.MatchOp.Equal)

    def _check_kind(self, function: str, arguments: list[Any]) -> None:
        for argument in arguments:
            if type(argument).__name__ != "MatrixSelector":
                continue
            metric = self._metrics.get(argument.vector_selector.name)
            if metric is None:
                continue
            if function in _COUNTER_ONLY and not metric.counter:
                self._complain(f"{function}() of {metric.name}, which is no counter")
            if function in _GAUGE_ONLY and metric.counter:
                self._complain(f"{function}() of {metric.name}, which is a counter")
            if function in _COUNTER_ONLY | _GAUGE_ONLY and argument.range < SHORTEST_RATE:
                self._complain(f"{function}() of {metric.name} over only {argument.range}")

    def _AggregateExpr(self, node: Any) -> frozenset[str]:
        inner = self.labels(node.expr) or frozenset()
        if TARGET_LABELS | {"node_id"} <= inner and str(node.op) not in _NO_SUMS:
            self._complain(f"{node.op} counts a node twice that two exporters see: put max by (...) inside")
        modifier = node.modifier
        if modifier is None:
            return frozenset()
        named = frozenset(modifier.labels)
        for label in sorted(named - inner):
            self._complain(f"aggregation by {label}, which its operand cannot have")
        return named & inner if modifier.type == promql.AggModifierType.By else inner - named

    def _BinaryExpr(self, node: Any) -> frozenset[str] | None:
        left, right = self.labels(node.lhs), self.labels(node.rhs)
        if left is None or right is None:
            return right if left is None else left
        operator = str(node.op)
        matching = node.modifier.matching if node.modifier else None
        if operator == "or":
            return left | right
        if matching is None:
            if left != right:
                self._complain(
                    f"operands of {operator!r} never match: {sorted(left ^ right)} are on one side only"
                )
            keys = left & right
        elif matching.type == promql.LabelModifierType.Include:
            keys = frozenset(matching.labels)
            for label in sorted(keys - (left & right)):
                self._complain(f"on ({label}), which an operand of {operator!r} cannot have")
        else:
            keys = (left & right) - frozenset(matching.labels)
        if operator in ("and", "unless"):
            return left
        card = node.modifier.card if node.modifier else promql.VectorMatchCardinality.OneToOne
        if card == promql.VectorMatchCardinality.ManyToOne:
            return left | frozenset(node.modifier.group_labels or ())
        if card == promql.VectorMatchCardinality.OneToMany:
            return right | frozenset(node.modifier.group_labels or ())
        return keys

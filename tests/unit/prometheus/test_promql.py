"""The linter finds the mistakes it is for, and leaves correct expressions alone."""

from __future__ import annotations

import pytest

from tests.promql import NODE_LABELS, lint, scraped_metrics


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("clio_node_upp == 0", "there is no metric clio_node_upp"),
        ('clio_node_up{node="1"} == 0', "clio_node_up has no label node"),
        ("sum by (worker_id) (clio_node_up)", "aggregation by worker_id, which its operand cannot have"),
        ("sum without (worker_id) (clio_node_up)", "aggregation by worker_id"),
        ("rate(clio_node_memory_used_ratio[5m])", "which is no counter"),
        ("deriv(clio_bdev_reads_total[5m])", "which is a counter"),
        ("rate(clio_bdev_reads_total[30s])", "over only 0:00:30"),
        ("max by (cluster) (clio_node_up) / clio_cluster_nodes", "never match"),
        ("clio_bdev_free_bytes * on (hostname, worker_id) clio_node_up", "on (worker_id)"),
        ("clio_node_up == 0 and on (reason) clio_node_down_info", "on (reason)"),
        ("sum by (cluster) (clio_node_up)", "counts a node twice"),
        ("sum by (node_id) (rate(clio_worker_tasks_processed_total[5m]))", "counts a node twice"),
        ("rate(clio_node_up)", "does not parse"),
        ("sum by (cluster) (clio_node_up", "does not parse"),
    ],
)
def test_mistakes_are_found(expression: str, complaint: str) -> None:
    problems = lint(expression, scraped_metrics()).problems
    assert any(complaint in problem for problem in problems), problems


@pytest.mark.parametrize(
    ("expression", "labels"),
    [
        ("max by (cluster, node_id, hostname) (clio_node_up)", NODE_LABELS),
        ("max without (job, instance) (clio_node_up)", NODE_LABELS),
        ("sum(max by (cluster, node_id) (clio_node_up))", frozenset()),
        ("time() - 5", None),
        ("time() - max by (hostname) (clio_node_sample_timestamp_seconds)", {"hostname"}),
        ('absent(up{job="x", instance!="y"})', {"job"}),
        ('label_replace(max by (cluster) (clio_node_up), "a", "b", "", "")', {"cluster", "a"}),
        ("max by (cluster) (clio_node_up) or max by (hostname) (clio_node_up)", {"cluster", "hostname"}),
        ("max by (cluster) (clio_node_up) > 0 unless on (cluster) clio_cluster_nodes", {"cluster"}),
        (
            "max by (hostname) (clio_node_up) * on (hostname) group_right (job) clio_bdev_free_bytes",
            NODE_LABELS | {"pool_id", "pool_name", "job", "instance"},
        ),
        ("max_over_time(max by (cluster) (rate(clio_bdev_reads_total[5m]))[1h:5m])", {"cluster"}),
    ],
)
def test_labels_of_correct_expressions_are_inferred(expression: str, labels: set[str] | None) -> None:
    findings = lint(expression, scraped_metrics())
    assert findings.problems == []
    assert findings.labels == labels


def test_all_metrics_of_an_expression_are_named() -> None:
    found = lint("clio_node_up unless on (hostname) rate(clio_bdev_reads_total[5m])", scraped_metrics())
    assert found.metrics == {"clio_node_up", "clio_bdev_reads_total"}

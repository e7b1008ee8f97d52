"""Marks on the time axis."""

from __future__ import annotations

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as models

from grafana.generator import variables


class _ValueIsTime(models.AnnotationQuery):
    """A query whose values are the times (ms) of the marks; the builders lack the fields for it."""

    title_format = ""
    text_format = ""

    def to_json(self) -> dict[str, object]:
        """As the model, and the fields of Prometheus annotations."""
        return {
            **super().to_json(),
            "useValueForTime": "on",
            "step": "30s",
            "titleFormat": self.title_format,
            "textFormat": self.text_format,
        }


class _Ready(Builder[models.AnnotationQuery]):
    def __init__(self, model: models.AnnotationQuery) -> None:
        self._model = model

    def build(self) -> models.AnnotationQuery:
        return self._model


def restarts(matchers: str) -> Builder[models.AnnotationQuery]:
    """A mark where a runtime was started. By value, not by change: the start time jitters by microseconds."""
    query = _ValueIsTime(
        name="Runtime started",
        datasource=variables.DATASOURCE,
        enable=True,
        icon_color="orange",
        expr=f"max by (cluster, node_id, hostname) (clio_node_start_time_seconds{{{matchers}}}) * 1000",
    )
    query.title_format = "Runtime started"
    query.text_format = "node {{node_id}} ({{hostname}})"
    return _Ready(query)


def actions(matchers: str) -> Builder[models.AnnotationQuery]:
    """A mark where somebody asked the control API for an action: who, why and from where."""
    query = _ValueIsTime(
        name="Action asked for",
        datasource=variables.DATASOURCE,
        enable=True,
        icon_color="purple",
        expr=(
            "max by (cluster, node_id, hostname, action, actor, reason, client) "
            f"(clio_control_action_begin_timestamp_seconds{{{matchers}}}) * 1000"
        ),
    )
    query.title_format = "{{action}} by {{actor}} from {{client}}"
    query.text_format = "node {{node_id}} ({{hostname}}) {{reason}}"
    return _Ready(query)


def marks() -> Builder[models.AnnotationQuery]:
    """What `clio-exporter job annotate` has marked: of a job, whatever nodes and clusters are chosen."""
    query = _ValueIsTime(
        name="Marked in a job",
        datasource=variables.DATASOURCE,
        enable=True,
        icon_color="blue",
        expr="max by (job_id, job_name, text) (clio_annotation_timestamp_seconds) * 1000",
    )
    query.title_format = "{{text}}"
    query.text_format = "job {{job_id}} {{job_name}}"
    return _Ready(query)

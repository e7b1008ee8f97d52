"""The kit as objects of Kubernetes. Pure: texts in, texts out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import yaml

LABELS: Final = {"app.kubernetes.io/name": "clio-exporter"}
DASHBOARD_LABELS: Final = {**LABELS, "grafana_dashboard": "1"}
"""The sidecar of Grafana's Helm chart loads what carries the second one, unless it is told another."""


def config_maps(dashboards: Mapping[str, str], namespace: str | None = None) -> dict[str, str]:
    """One ConfigMap a dashboard, by file name: together they are more than the 1 MiB that one may hold."""
    return {
        f"{name.removesuffix('.json')}.yaml": _dump(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {
                    **_metadata(f"dashboard-{name.removesuffix('.json')}", namespace, DASHBOARD_LABELS),
                    "annotations": {"grafana_folder": "CLIO"},
                },
                "data": {name: text},
            }
        )
        for name, text in dashboards.items()
    }


def prometheus_rules(rules: Mapping[str, str], namespace: str | None = None) -> dict[str, str]:
    """One PrometheusRule a rule file, by file name."""
    return {
        f"{name.removesuffix('.yml')}.yaml": _dump(
            {
                "apiVersion": "monitoring.coreos.com/v1",
                "kind": "PrometheusRule",
                "metadata": _metadata(f"clio-{name.removesuffix('.yml')}", namespace, LABELS),
                "spec": yaml.safe_load(text),
            }
        )
        for name, text in rules.items()
    }


def _metadata(name: str, namespace: str | None, labels: Mapping[str, str]) -> dict[str, Any]:
    return {"name": name, **({"namespace": namespace} if namespace else {}), "labels": dict(labels)}


class _Dumper(yaml.SafeDumper):
    """Writes what has several lines as a block."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, "|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def _dump(document: Mapping[str, Any]) -> str:
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True)
    return text

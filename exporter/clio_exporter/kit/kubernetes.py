"""The kit as objects of Kubernetes. Pure: texts in, texts out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from clio_exporter.kit import grafana, prometheus, rules, sources

LABELS: Final = {"app.kubernetes.io/name": "clio-exporter"}
DASHBOARD_LABELS: Final = {**LABELS, "grafana_dashboard": "1"}
"""The sidecar of Grafana's Helm chart loads what carries the second one, unless it is told another."""


@dataclass(frozen=True, slots=True)
class KubernetesOptions:
    """What the files are made for.

    Attributes:
        hostfile: text of the hostfile of the cluster's nodes.
        client_ports: ports at which these nodes are asked.
        namespace, image: of everything that is made.
        monitoring: namespace that Prometheus and Grafana are in, which alone may ask.
        control_api: whether there is one.
        dashboards, rules: what these are made for.
    """

    hostfile: str
    client_ports: Sequence[int]
    image: str
    namespace: str = "clio"
    monitoring: str = "monitoring"
    control_api: bool = False
    dashboards: grafana.GrafanaOptions = field(default_factory=lambda: grafana.GrafanaOptions("/"))
    rules: rules.Options = field(
        default_factory=lambda: rules.Options(
            grafana_url=prometheus.GRAFANA_URL, docs_url=prometheus.DOCS_URL
        )
    )


def render(options: KubernetesOptions) -> dict[str, str]:
    """Every file by its path: a kustomization with all that it names. Raises ValueError."""
    services = ["exporter.yaml", *(["control-api.yaml"] if options.control_api else [])]
    files = {"namespace.yaml": _dump(_namespace(options.namespace))}
    files |= {name: "---\n".join(map(_dump, _filled_in(name, options))) for name in services}
    boards = config_maps(grafana.dashboards(options.dashboards))
    files |= {f"dashboards/{name}": text for name, text in boards.items()}
    made = prometheus_rules(rules.render(options.rules, prometheus.MADE))
    files |= {f"rules/{name}": text for name, text in made.items()}
    resources = list(files)
    files["settings/hostfile"] = options.hostfile
    files["settings/exporter.yaml"] = sources.text("kubernetes/exporter-settings.yaml")
    if options.control_api:
        files["settings/control-api.yaml"] = sources.text("kubernetes/control-api-settings.yaml")
    settings = [name for name in files if name.startswith("settings/")]
    name, _, tag = options.image.rpartition(":")
    files["kustomization.yaml"] = _dump(
        {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": options.namespace,
            "resources": resources,
            "configMapGenerator": [{"name": "clio-settings", "files": settings}],
            "images": [{"name": "clio-exporter", "newName": name, "newTag": tag}],
        }
    )
    return files


def _namespace(name: str) -> dict[str, Any]:
    # Nothing here needs more than the strictest of Kubernetes' profiles for pods.
    labels = {**LABELS, "pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": _metadata(name, None, labels)}


def _filled_in(name: str, options: KubernetesOptions) -> Iterator[dict[str, Any]]:
    for document in yaml.safe_load_all(sources.text(f"kubernetes/{name}")):
        if document["kind"] == "NetworkPolicy":
            (asking, _reply), egress = document["spec"]["ingress"], document["spec"]["egress"]
            asking["from"][0]["namespaceSelector"]["matchLabels"] = {
                "kubernetes.io/metadata.name": options.monitoring
            }
            egress[-1]["ports"] = [{"port": port} for port in options.client_ports]
        if document["kind"] == "ServiceMonitor" and document["metadata"]["name"] == "clio-exporter":
            document["spec"]["endpoints"][0]["relabelings"].insert(0, _job(options.rules.exporter_job))
        elif document["kind"] == "ServiceMonitor":
            document["spec"]["endpoints"][0]["relabelings"].insert(0, _job(options.rules.control_job))
        yield document


def _job(name: str) -> dict[str, str]:
    """The job that rules look for, whatever the service is called."""
    return {"targetLabel": "job", "replacement": name}


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

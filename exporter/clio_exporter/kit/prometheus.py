"""Rules and configuration for somebody's Prometheus and Alertmanager. Pure: options in, texts out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from clio_exporter.kit import rules, sources

GRAFANA_URL: Final = "http://localhost:3000"
DOCS_URL: Final = "http://localhost:9777/docs"
MADE: Final = "Made by `clio-exporter rules`, which makes them for other names too."
SCRAPE_TIMEOUT: Final = "10s"


@dataclass(frozen=True, slots=True)
class PrometheusOptions:
    """What the files are made for.

    Attributes:
        rules: names and addresses in the rules.
        exporter, control_api, alertmanager: `host:port` each, None for one that there is not.
        own_address: `host:port` at which Prometheus scrapes itself, None when it does not.
        scrape_interval, scrape_timeout: Prometheus durations; rules are evaluated at the same interval.
    """

    rules: rules.Options = field(
        default_factory=lambda: rules.Options(grafana_url=GRAFANA_URL, docs_url=DOCS_URL)
    )
    exporter: str = "localhost:9777"
    control_api: str | None = "localhost:5000"
    alertmanager: str | None = "localhost:9093"
    own_address: str | None = "localhost:9090"
    scrape_interval: str = "15s"
    scrape_timeout: str = SCRAPE_TIMEOUT


def render(options: PrometheusOptions) -> dict[str, str]:
    """Every file by its path: `rules/`, `prometheus.yml`, `alertmanager.yml`.

    Raises ValueError when the options cannot be met.
    """
    files = {f"rules/{name}": text for name, text in rules.render(options.rules, MADE).items()}
    files["prometheus.yml"] = _text(
        "A whole configuration. A Prometheus that runs already needs some sections of it.",
        _whole(options),
    )
    files["alertmanager.yml"] = sources.text("alertmanager.yml")
    return files


def sections(options: PrometheusOptions, rules_at: str = "rules") -> dict[str, Any]:
    """What a Prometheus that runs already needs; `rules_at` is the directory of the rules as it finds it."""
    jobs = [(options.rules.exporter_job, options.exporter), (options.rules.control_job, options.control_api)]
    found: dict[str, Any] = {"rule_files": [f"{rules_at}/*.yml"]}
    if options.alertmanager is not None:
        found["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [options.alertmanager]}]}]}
    found["scrape_configs"] = [
        {
            "job_name": name,
            "scrape_interval": options.scrape_interval,
            "scrape_timeout": options.scrape_timeout,
            "static_configs": [{"targets": [target]}],
        }
        for name, target in jobs
        if target is not None
    ]
    return found


def _whole(options: PrometheusOptions) -> dict[str, Any]:
    interval = options.scrape_interval
    document = {
        "global": {"scrape_interval": interval, "evaluation_interval": interval},
        **sections(options),
    }
    if options.own_address is not None:
        own = {"job_name": "prometheus", "static_configs": [{"targets": [options.own_address]}]}
        document["scrape_configs"].append(own)
    return document


def _text(comment: str, document: dict[str, Any]) -> str:
    return f"# {comment}\n" + yaml.safe_dump(document, sort_keys=False)

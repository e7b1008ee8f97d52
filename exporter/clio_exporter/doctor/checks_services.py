"""Checks of the services around the exporter: pure functions of what they said; None where none was named."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any, Final

from clio_client import __version__
from clio_exporter.doctor.model import Finding, Status, named
from clio_exporter.doctor.services import ControlLook, ExporterLook, GrafanaLook, PrometheusLook
from clio_exporter.kit.rules.model import Alert
from clio_exporter.kit.rules.tables import FILES
from clio_exporter.service_client import Answer, rules_by_name, text_labels

JOBS: Final = ("clio-exporter", "clio-nodes")
"""Names of scrape jobs in the configuration that the kit writes."""

_KIT: Final = "`clio-exporter rules` writes rules and the sections for prometheus.yml"


def exporter(look: ExporterLook | None) -> Iterator[Finding]:
    """Whether the exporter serves, sees nodes, and is as new as this command."""
    if look is None:
        yield Finding("exporter", Status.SKIPPED, "not asked for: --exporter URL")
    elif look.metrics.status == 401:
        yield Finding(
            "exporter", Status.WARN, f"{look.url} wants a password, which this command has not",
            "See in Prometheus whether its metrics arrive: --prometheus URL",
        )  # fmt: skip
    elif not look.metrics.ok:
        yield _not_there("exporter", look.url, look.metrics, "a clio-exporter")
    else:
        if look.version and look.version != __version__:
            yield Finding(
                "exporter", Status.WARN, f"{look.url} is version {look.version}, this command {__version__}",
                "Restart the exporter after an update",
            )  # fmt: skip
        status = Status.OK if look.up else Status.FAIL
        remedy = (
            ""
            if look.up
            else "Its settings or its host differ from these: compare --config.file and hostfile"
        )
        yield Finding(
            "exporter", status, f"{look.url} serves; {look.up} of {look.nodes} nodes are up", remedy
        )


def scraped(look: PrometheusLook | None, exporter_url: str = "") -> Iterator[Finding]:
    """Whether Prometheus scrapes the exporter."""
    if look is None:
        yield Finding("prometheus", Status.SKIPPED, "not asked for: --prometheus URL")
        return
    targets = look.targets.rows("activeTargets")
    if targets is None:
        yield _not_there("prometheus", look.url, look.targets, "a Prometheus")
        return
    ours = [target for target in targets if _is_ours(target, look, exporter_url)]
    waiting = sum(target.get("health") == "unknown" for target in targets)
    if not ours and waiting:
        # It has just started: whose these are, their metrics have to tell.
        yield Finding(
            "prometheus", Status.WARN,
            f"{look.url} has not yet scraped {waiting} of {len(targets)} targets; none of the others is a "
            "clio-exporter", "Ask again in a minute",
        )  # fmt: skip
    elif not ours:
        yield Finding(
            "prometheus", Status.FAIL,
            f"{look.url} has {len(targets)} targets, and none of them is a clio-exporter",
            f"Add a scrape job for the exporter and reload Prometheus; {_KIT}",
        )  # fmt: skip
    for target in ours:
        where = f"{look.url} scrapes {target.get('scrapeUrl')}"
        if target.get("health") == "up":
            yield Finding("prometheus", Status.OK, where)
        elif target.get("lastError"):
            yield Finding(
                "prometheus", Status.FAIL, f"{where} in vain: {target['lastError']}",
                "Correct address, scheme or log-in in prometheus.yml, or start the exporter; for timeouts "
                "see docs/operations.md, sizing",
            )  # fmt: skip
        else:
            yield Finding(
                "prometheus", Status.WARN, f"{where}, but has not done so yet", "Ask again in a minute"
            )


def rules(look: PrometheusLook | None) -> Iterator[Finding]:
    """Whether our rules are loaded and can be evaluated, and whether alerts have somewhere to go."""
    if look is None or look.rules.rows("groups") is None:
        yield Finding("rules", Status.SKIPPED, "no Prometheus was asked" if look is None else f"{look.rules}")
        return
    loaded = rules_by_name(look.rules)
    expected = [
        rule.name if isinstance(rule, Alert) else rule.record
        for file in FILES for group in file.groups for rule in group.rules
    ]  # fmt: skip
    names = list(dict.fromkeys(expected))
    missing = [name for name in names if name not in loaded]
    broken = [name for name in names if loaded.get(name, {}).get("health") == "err"]
    if len(missing) == len(names):
        yield Finding(
            "rules", Status.FAIL, f"{look.url} has none of the {len(names)} rules: no alerts, empty panels",
            f"{_KIT}; name the files under rule_files and reload Prometheus",
        )  # fmt: skip
    elif missing:
        yield Finding(
            "rules", Status.WARN, f"{look.url} lacks {len(missing)} of {len(names)} rules: {named(missing)}",
            f"Write them anew after an update, and reload Prometheus; {_KIT}",
        )  # fmt: skip
    for name in broken:
        yield Finding(
            "rules", Status.FAIL, f"{name} cannot be evaluated: {loaded[name].get('lastError')}",
            "Often the same node by two exporters: give them different cluster labels",
        )  # fmt: skip
    if not missing and not broken:
        yield Finding("rules", Status.OK, f"all {len(names)} rules are loaded")
    if any(isinstance(r, Alert) and r.name in loaded for f in FILES for g in f.groups for r in g.rules):
        active = look.alertmanagers.data.get("activeAlertmanagers")
        if isinstance(active, list) and not active:
            yield Finding(
                "rules", Status.WARN, f"{look.url} has no Alertmanager: alerts fire, and nobody is told",
                "Name one under alerting in prometheus.yml",
            )  # fmt: skip


def grafana(look: GrafanaLook | None) -> Iterator[Finding]:
    """Whether Grafana's data sources answer."""
    if look is None:
        yield Finding("grafana", Status.SKIPPED, "not asked for: --grafana URL")
        return
    health = look.health.document
    if not look.health.ok or not isinstance(health, dict) or "database" not in health:
        yield _not_there("grafana", look.url, look.health, "a Grafana")
        return
    if look.sources.status in (401, 403):
        yield Finding(
            "grafana", Status.WARN, f"{look.url} serves, but does not list its data sources: {look.sources}",
            "Give a token of a service account that may read them: --grafana.token-file FILE",
        )  # fmt: skip
        return
    for name, answer in look.asked.items():
        said: Mapping[str, Any] = answer.document if isinstance(answer.document, dict) else {}
        if answer.ok and said.get("status") == "OK":
            yield Finding("grafana", Status.OK, f"data source {name} answers")
        else:
            yield Finding(
                "grafana", Status.FAIL, f"data source {name}: {said.get('message') or answer}",
                "Correct its address in Grafana (Connections, Data sources), as Grafana's host reaches it",
            )  # fmt: skip
    if not look.asked:
        yield Finding(
            "grafana", Status.FAIL, f"{look.url} has no data source",
            "`clio-exporter dashboards` writes provisioning for one",
        )  # fmt: skip


def control_api(look: ControlLook | None) -> Iterator[Finding]:
    """Whether the control API serves and reaches the runtimes."""
    if look is None:
        yield Finding("control api", Status.SKIPPED, "not asked for: --control-api URL")
        return
    answer = look.system.document
    said: Mapping[str, Any] = answer if isinstance(answer, dict) else {}
    if look.system.ok and "connected" in said:
        yield Finding("control api", Status.OK, f"{look.url} serves and reaches runtimes")
    elif look.system.status in (401, 403) and "error" in said:
        yield Finding(
            "control api", Status.OK, f"{look.url} serves; reads need a token (--control-api.token-file)"
        )
    elif look.system.status in (400, 503) and "error" in said:
        yield Finding(
            "control api", Status.FAIL, f"{look.url}: {said['error']}",
            "Compare its settings with the exporter's: hostfile, reply address, its own reply port (9788)",
        )  # fmt: skip
    else:
        yield _not_there("control api", look.url, look.system, "a clio-control-api")


def _not_there(check: str, url: str, answer: Answer, what: str) -> Finding:
    seen = f"{url} is not {what}" if answer.ok else f"{url}: {answer}"
    return Finding(check, Status.FAIL, seen, "Start it, or correct the address")


def _is_ours(target: Mapping[str, Any], look: PrometheusLook, exporter_url: str) -> bool:
    labels = text_labels(target.get("labels"))
    if (labels.get("job"), labels.get("instance")) in look.having or labels.get("job") in JOBS:
        return True
    wanted = _place(exporter_url)
    return bool(wanted) and _place(str(target.get("scrapeUrl"))) == wanted


def _place(url: str) -> str:
    """Host and port of an address; "" where it is none."""
    try:
        return urllib.parse.urlsplit(url).netloc
    except ValueError:  # brackets around what is no IPv6 address
        return ""

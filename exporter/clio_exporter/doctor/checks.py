"""All checks, in the order in which a fault spreads: what an early one finds explains later ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from clio_exporter.doctor import checks_nodes, checks_services
from clio_exporter.doctor.model import Finding
from clio_exporter.doctor.nodes import NodesLook
from clio_exporter.doctor.services import ControlLook, ExporterLook, GrafanaLook, PrometheusLook
from clio_exporter.doctor.ssh import SshLook


@dataclass(frozen=True, slots=True)
class Seen:
    """All that was looked at; None where it was not asked for."""

    nodes: NodesLook
    ssh: tuple[SshLook, ...] | None = None
    exporter: ExporterLook | None = None
    prometheus: PrometheusLook | None = None
    grafana: GrafanaLook | None = None
    control: ControlLook | None = None


Check = Callable[[Seen], Iterable[Finding]]

CHECKS: Final[tuple[Check, ...]] = (
    lambda seen: checks_nodes.hostfile(seen.nodes),
    lambda seen: checks_nodes.way_out(seen.nodes),
    lambda seen: checks_nodes.way_back(seen.nodes),
    lambda seen: checks_nodes.other_faults(seen.nodes),
    lambda seen: checks_nodes.numbering(seen.nodes),
    lambda seen: checks_nodes.duplicates(seen.nodes),
    lambda seen: checks_nodes.versions(seen.nodes),
    lambda seen: checks_nodes.clocks(seen.nodes),
    lambda seen: checks_nodes.ssh(seen.ssh),
    lambda seen: checks_services.exporter(seen.exporter),
    lambda seen: checks_services.scraped(seen.prometheus, seen.exporter.url if seen.exporter else ""),
    lambda seen: checks_services.rules(seen.prometheus),
    lambda seen: checks_services.grafana(seen.grafana),
    lambda seen: checks_services.control_api(seen.control),
)


def findings(seen: Seen) -> list[Finding]:
    """What every check finds."""
    return [finding for check in CHECKS for finding in check(seen)]

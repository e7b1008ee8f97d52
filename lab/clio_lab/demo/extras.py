"""Prometheus, Alertmanager and Grafana around the demo's cluster, each made for where the others are."""

from __future__ import annotations

import functools
import threading
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clio_lab.demo import control_api, monitoring
from clio_lab.demo import grafana as grafana_server
from clio_lab.demo.background import Background
from clio_lab.demo.kit import Kit
from clio_lab.demo.preflight import choose_port
from clio_lab.demo.stack import Component
from clio_lab.demo.state import State
from clio_web.grafana_server import Program, find_program


@dataclass(frozen=True)
class Ports:
    """Where on loopback each listens."""

    control_api: int
    prometheus: int
    alertmanager: int
    grafana: int


def choose_ports(
    control_api_port: int | None,
    prometheus_port: int | None,
    alertmanager_port: int | None,
    grafana_port: int | None,
) -> Ports:
    """Return the ports wanted, and for each that is None a free one. Raises DemoError."""
    return Ports(
        choose_port(control_api_port, control_api.PORT, "the control API", "--control-api-port"),
        choose_port(prometheus_port, monitoring.PROMETHEUS_PORT, "Prometheus", "--prometheus-port"),
        choose_port(alertmanager_port, monitoring.ALERTMANAGER_PORT, "Alertmanager", "--alertmanager-port"),
        choose_port(grafana_port, grafana_server.PORT, "Grafana", "--grafana-port"),
    )


def make(
    directory: Path, ports: Ports, exporter: str, state: State, *, grafana: bool, open_browser: bool
) -> list[Background]:
    """Return Prometheus, Alertmanager and, where it is wanted, Grafana.

    `exporter` is its `host:port`. With `open_browser` the last of Grafana and Prometheus is opened in one.
    """

    def background(make_one: Callable[[threading.Event], Component], opens: bool = False) -> Background:
        halt = threading.Event()
        component = make_one(halt)
        return Background(component, halt, functools.partial(_open, component) if opens else None)

    rules = _rules(directory, ports, exporter)
    found = [
        background(
            functools.partial(
                monitoring.prometheus, directory / "prometheus", ports.prometheus, rules, state
            ),
            open_browser and not grafana,
        ),
        background(
            functools.partial(
                monitoring.alertmanager, directory / "alertmanager", ports.alertmanager, rules, state
            )
        ),
    ]
    if grafana:
        program = find_program()
        kit = _dashboards(directory, ports, program)
        found.append(
            background(
                functools.partial(grafana_server.Grafana, kit, program, ports.grafana, state), open_browser
            )
        )
    return found


def _rules(directory: Path, ports: Ports, exporter: str) -> Kit:
    host = monitoring.HOST
    return Kit(
        "rules",
        directory / "prometheus",
        [
            f"--grafana-url=http://{host}:{ports.grafana}",
            f"--docs-url=http://{exporter}/docs",
            f"--exporter={exporter}",
            f"--control-api={host}:{ports.control_api}",
            f"--alertmanager={host}:{ports.alertmanager}",
            f"--prometheus={host}:{ports.prometheus}",
            f"--scrape-interval={monitoring.SCRAPE_INTERVAL}",
        ],
    )


def _dashboards(directory: Path, ports: Ports, program: Program | None) -> Kit:
    host = monitoring.HOST
    return Kit(
        "dashboards",
        directory / "grafana",
        [
            f"--control-api=http://{host}:{ports.control_api}",
            f"--prometheus-url=http://{host}:{ports.prometheus}",
            f"--scrape-interval={monitoring.SCRAPE_INTERVAL}",
            *([f"--path={grafana_server.IN_CONTAINER}"] if program is None else []),
        ],
    )


def _open(component: Component) -> None:
    if component.where is not None:
        webbrowser.open(component.where.split()[-1])

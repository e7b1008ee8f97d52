"""The subcommand: look at what the options name, check it, print the findings."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from clio_client.config import table
from clio_client.config.errors import ConfigError
from clio_client.config.table import Kind, Setting
from clio_exporter import flags
from clio_exporter.doctor import nodes, services, ssh
from clio_exporter.doctor.checks import Seen, findings
from clio_exporter.doctor.model import as_json, as_text, exit_status
from clio_exporter.messages import failed
from clio_exporter.service_client import Service, service_token, service_url
from clio_exporter.settings import Settings

EXIT_USAGE: Final = 2
_URL: Final = Kind(service_url, "URL")

SERVICES: Final = tuple(
    entry
    for name, what in (
        ("exporter", "a running exporter"),
        ("prometheus", "the Prometheus that scrapes it"),
        ("grafana", "the Grafana that shows it"),
        ("control-api", "the control API"),
    )
    for entry in (
        Setting(name, _URL, None, f"look at {what}, too", flag=f"--{name}"),
        Setting(f"{name}.token", table.PATH, None, "file with a token for it", flag=f"--{name}.token-file"),
    )
)
SSH: Final = (
    Setting("ssh", table.BOOLEAN, False, "log in to every node and run `true`", flag="--ssh"),
    Setting("user", table.HOST, None, "user to log in as", flag="--ssh.user", shown="as ssh has it"),
    Setting("port", table.port(1, 65535), None, "port of sshd", flag="--ssh.port", shown="as ssh has it"),
    Setting("config", table.PATH, None, "configuration of ssh", flag="--ssh.config", shown="as ssh has it"),
)
LIMIT: Final = (
    Setting("timeout", table.duration(0.5, 300), 6.0, "time that each answer may take", flag="--timeout"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `doctor`."""
    parser.description = (
        "Look for what people trip over, and print what was seen and the remedy. Changes nothing. "
        "Exit status: 0 nothing fails (there may be warnings), 1 something does, 2 wrong usage or settings."
    )
    flags.add_arguments(parser)
    table.add_arguments(parser.add_argument_group("services"), SERVICES)
    table.add_arguments(parser.add_argument_group("SSH"), SSH)
    parser.add_argument("--format", choices=("text", "json"), default="text", help="%(default)s by default")
    table.add_arguments(parser, LIMIT)


def run(args: argparse.Namespace, env: Mapping[str, str], home: Path) -> int:
    """Look, check, print; the exit status says whether something fails."""
    try:
        seconds = float(table.resolved(LIMIT, vars(args))["timeout"])
        around = _services(table.resolved(SERVICES, vars(args)), seconds)
        login = table.resolved(SSH, vars(args))
        settings = flags.settings(args)
    except ConfigError as error:
        return failed(error, EXIT_USAGE)
    found = findings(look(settings, env, home, seconds, around, login))
    sys.stdout.write(as_json(found) if args.format == "json" else as_text(found))
    return exit_status(found)


def look(
    settings: Settings,
    env: Mapping[str, str],
    home: Path,
    seconds: float,
    around: Mapping[str, Service],
    login: Mapping[str, Any],
) -> Seen:
    """Look at all of it; ``around`` are the services by the names of their options."""
    from_nodes: list[tuple[ssh.SshLook, ...]] = []

    def log_in(seen: nodes.NodesLook) -> None:
        if login["ssh"]:
            options = ssh.SshOptions(login["user"], login["port"], login["config"])
            from_nodes.append(ssh.look(seen.nodes, seen.endpoints, options))

    # The nodes are tried over SSH while the reply socket still listens.
    seen = nodes.look(settings, env, home, seconds, log_in)
    services_of = {
        "exporter": services.look_at_exporter,
        "prometheus": services.look_at_prometheus,
        "grafana": services.look_at_grafana,
        "control-api": services.look_at_control_api,
    }
    looks: dict[str, Any] = {name: services_of[name](service) for name, service in around.items()}
    return Seen(
        seen, from_nodes[0] if from_nodes else None, looks.get("exporter"), looks.get("prometheus"),
        looks.get("grafana"), looks.get("control-api"),
    )  # fmt: skip


def _services(given: Mapping[str, Any], seconds: float) -> dict[str, Service]:
    found = {}
    for name in (entry.name for entry in SERVICES if "." not in entry.name):
        file: Path | None = given[f"{name}.token"]
        if given[name] is not None:
            found[name] = Service(given[name], seconds, service_token(file))
        elif file is not None:
            raise ConfigError(f"--{name}.token-file", f"is given without --{name}", f"Give --{name} URL, too")
    return found

"""A stand-in for Grafana where none can be had: it checks its configuration as the real one reads it.

`write(directory)` makes an executable `grafana` of it. It ends with a message where something is wrong with
grafana.ini, the provisioning files, the dashboards or the data sources; else it serves, as Grafana does to
an anonymous viewer, `/api/health`, `/api/search`, `/api/datasources` and the home dashboard.

What it cannot show is that Grafana draws the dashboards.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml


def write(directory: Path) -> Path:
    """Make the executable; returns its path."""
    program = directory / "grafana"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).resolve()} "$@"\n')
    program.chmod(0o755)
    return program


def check(condition: object, what: str) -> None:
    if not condition:
        sys.exit(f"grafana stand-in: {what}")


def substituted(value: Any) -> Any:
    """Environment variables as Grafana's provisioning fills them in."""
    if isinstance(value, dict):
        return {key: substituted(each) for key, each in value.items()}
    if isinstance(value, list):
        return [substituted(each) for each in value]
    if not isinstance(value, str):
        return value
    return re.sub(
        r"\$\$|\$\{(\w+)\}|\$(\w+)",
        lambda m: "$" if m[0] == "$$" else os.environ.get(m[1] or m[2], ""),
        value,
    )


def settings(path: Path) -> configparser.ConfigParser:
    ini = configparser.ConfigParser(interpolation=None)
    check(ini.read(path), f"{path} cannot be read")
    check(ini["server"]["http_addr"] == "127.0.0.1", "listens beyond this host")
    check(ini["auth.anonymous"]["enabled"] == "true", "asks who comes")
    check(ini["auth.anonymous"]["org_role"] == "Viewer", "lets who comes change things")
    check(ini["security"]["disable_initial_admin_creation"] == "true", "has an administrator")
    check(not [name for name in os.environ if name.startswith("GF_")], "the environment overrules the file")
    return ini


def provisioned(directory: Path, kind: str) -> list[dict[str, Any]]:
    found = []
    for path in sorted((directory / kind).glob("*.yaml")):
        document = substituted(yaml.safe_load(path.read_text(encoding="utf-8")))
        check(document["apiVersion"] == 1, f"{path}: apiVersion")
        found += document["providers" if kind == "dashboards" else "datasources"]
    check(found, f"nothing is provisioned in {directory / kind}")
    return found


def dashboards(ini: configparser.ConfigParser) -> list[dict[str, Any]]:
    boards = []
    for provider in provisioned(Path(ini["paths"]["provisioning"]), "dashboards"):
        path = Path(provider["options"]["path"])
        check(provider["type"] == "file" and path.is_dir(), f"no dashboards in {path}")
        boards += [json.loads(file.read_text(encoding="utf-8")) for file in sorted(path.glob("*.json"))]
    uids = [board["uid"] for board in boards]
    check(len(set(uids)) == len(uids), "two dashboards of one uid")
    return boards


def home(ini: configparser.ConfigParser) -> dict[str, Any]:
    path = Path(ini["dashboards"]["default_home_dashboard_path"])
    check(path.is_file(), f"{path}: no such home dashboard")
    board: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return board


def datasources(ini: configparser.ConfigParser) -> list[dict[str, Any]]:
    sources = provisioned(Path(ini["paths"]["provisioning"]), "datasources")
    for source in sources:
        check(re.fullmatch(r"https?://[^\s/]+(/.*)?", source["url"]), f"{source['name']}: no address")
    return sources


def main(arguments: list[str]) -> None:
    check(arguments[:1] == ["server"], f"unknown command {arguments[:1]}")
    options = dict(each.split("=", 1) for each in arguments[1:])
    check(options.keys() <= {"--config", "--homepath"}, f"unknown options {sorted(options)}")
    ini = settings(Path(options["--config"]))
    answers = {
        "/api/health": {"database": "ok"},
        "/api/search": [{"uid": board["uid"], "title": board["title"]} for board in dashboards(ini)],
        "/api/datasources": datasources(ini),
        "/api/dashboards/home": {"dashboard": home(ini)},
    }
    data = Path(ini["paths"]["data"])
    (data / "grafana.db").write_text("made\n")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(answers.get(self.path)).encode()
            self.send_response(200 if self.path in answers else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", int(ini["server"]["http_port"])), Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])

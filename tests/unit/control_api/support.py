"""A control API on simulated nodes: in process by Flask's client, or served on a real port."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from clio_control_api.cli import Application, application, settings_from
from clio_control_api.principals import Role
from clio_control_api.tokens import line_of, new_token

NODES = 5
CONFIG = """\
networking: {port: 9413, password: hunter2}
compose:
  - {mod_name: clio_bdev, pool_name: "ram::x", pool_id: "301.0", pool_query: local, bdev_type: ram}
  - {mod_name: clio_cte_core, pool_name: cte, pool_id: "512.0", pool_query: local}
"""
TOKENS = {"anna": (Role.OPERATOR, new_token()), "vera": (Role.VIEWER, new_token())}


@dataclass
class Api:
    """A built control API, its directory, and a client that sends a token where there is one.

    Where it made its own, actions and pages are asked for with that, unless a token or "" is given.
    """

    built: Application
    home: Path
    client: FlaskClient

    def get(self, path: str, token: str | None = None, **options: Any) -> TestResponse:
        return self.open("GET", path, token, **options)

    def post(self, path: str, token: str | None = None, **options: Any) -> TestResponse:
        return self.open("POST", path, token, **options)

    def open(self, method: str, path: str, token: str | None = None, **options: Any) -> TestResponse:
        headers = dict(options.pop("headers", {}))
        if token is None and (path.startswith("/nodes/") or (method == "POST" and "/node/" in path)):
            token = self.own_token
        if token:
            headers["Authorization"] = f"Bearer {token}"
        return self.client.open(path, method=method, headers=headers, **options)

    @property
    def own_token(self) -> str | None:
        settings = self.built.services.settings
        path = settings.state_dir / "token"
        own = settings.tokens_file is None and settings.auth != "none"
        return path.read_text().strip() if own else None

    def audit(self) -> list[dict[str, Any]]:
        path = self.built.services.settings.audit_path
        lines = path.read_text().splitlines() if path.exists() else []
        return [yaml.safe_load(line) for line in lines]


def write_tokens(path: Path, tokens: dict[str, tuple[Role, str]] = TOKENS) -> Path:
    path.write_text("# tokens\n" + "".join(line_of(n, r, t) + "\n" for n, (r, t) in tokens.items()))
    path.chmod(0o600)
    return path


@contextlib.contextmanager
def control_api(
    home: Path, hosts: str, *, tokens: bool = False, flags: dict[str, Any] | None = None, **settings: Any
) -> Iterator[Api]:
    """A control API whose home directory, and so every default path, is `home`."""
    (home / "hosts").write_text(hosts)
    (home / "clio.yaml").write_text(CONFIG)
    (home / "exporter.yaml").write_text(
        yaml.safe_dump({"clusters": [{"hostfile": "hosts", "runtime_config": "clio.yaml"}]})
    )
    document = {"exporter_config": "exporter.yaml", "reply_port": 0, **settings}
    if tokens:
        document["tokens_file"] = str(write_tokens(home / "tokens"))
    (home / "control.yaml").write_text(yaml.safe_dump(document))
    given = {"config": str(home / "control.yaml"), "port": "0", **(flags or {})}
    with application(settings_from(given, {}, home), {}, home) as built:
        yield Api(built, home, built.app.test_client())


def run_script(script: str, directory: Path, timeout: float = 30.0) -> subprocess.CompletedProcess[bytes]:
    """Run a node's script as SSH does: read from standard input, which stays open until the shell ends."""
    with subprocess.Popen(
        ["/bin/sh", "-s"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        cwd=directory, env={"PATH": "/usr/bin:/bin", "HOME": str(directory)},
    ) as process:  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(script.encode())
        process.stdin.flush()
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        assert process.stdout is not None
        assert process.stderr is not None
        done = process.stdout.read(), process.stderr.read()
    return subprocess.CompletedProcess(["/bin/sh"], process.returncode, *done)

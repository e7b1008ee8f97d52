"""An installed Grafana: its program, and settings by which it serves on loopback to who may only look."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HOST: Final = "127.0.0.1"
SHARE: Final = Path("/usr/share/grafana")
"""Where packages put it."""


@dataclass(frozen=True)
class Program:
    """An installed Grafana: how its server is started, and where its pages are, as far as that is known."""

    command: tuple[str, ...]
    home: Path | None


def find_program(path: str | None = None, share: Path = SHARE) -> Program | None:
    """The `grafana` or `grafana-server` on `path` (default: PATH) or under `share`; None without one.

    What Debian's package has in /usr/sbin reads its own configuration, so the program behind it is taken.
    """
    behind = [share / "bin" / name for name in ("grafana", "grafana-server")]
    packaged = next((file for file in behind if os.access(file, os.X_OK)), None)
    found = next(
        filter(None, (shutil.which(name, path=path) for name in ("grafana", "grafana-server"))), None
    )
    if packaged is not None and (found is None or Path(found).parent == Path("/usr/sbin")):
        found = str(packaged)
    if found is None:
        return None
    homes = (Path(found).resolve().parent.parent, share)
    home = next((each for each in homes if (each / "conf" / "defaults.ini").is_file()), None)
    server = ("server",) if Path(found).name == "grafana" else ()
    return Program((found, *server), home)


def configuration(made: str, directory: str, data: str | None, port: int) -> str:
    """grafana.ini: who comes may look at everything and change nothing; nobody can log in.

    `made` says who has written it, `directory` is where Grafana finds the kit; without `data` it has its own
    place for what it writes.
    """
    paths = f"data = {data}\nlogs = {data}/log\nplugins = {data}/plugins\n" if data is not None else ""
    return f"""\
# {made}
[paths]
{paths}provisioning = {directory}/provisioning
[server]
http_addr = {HOST}
http_port = {port}
root_url = http://{HOST}:{port}/
[auth]
disable_login_form = true
[auth.basic]
enabled = false
[auth.anonymous]
enabled = true
org_role = Viewer
hide_version = true
[security]
disable_initial_admin_creation = true
[dashboards]
default_home_dashboard_path = {directory}/dashboards/clio-topology.json
min_refresh_interval = 5s
[analytics]
reporting_enabled = false
check_for_updates = false
check_for_plugin_updates = false
[plugins]
preinstall_disabled = true
[news]
news_feed_enabled = false
[log]
mode = console
"""

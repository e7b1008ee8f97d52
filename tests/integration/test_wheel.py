"""The distribution as users get it: a wheel in a fresh environment, with its commands and the library.

Nothing is downloaded: the wheel is built with this environment's setuptools, and the fresh environment finds
the dependencies, but not this project, where they are already installed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

import clio_client
from clio_lab.child import ChildProcess
from clio_lab.demo.cluster import LocalCluster
from tests.exporter_process import free_port
from tests.integration.test_demo import READY, Demo, ensure_ended, metric
from tests.paths import ROOT
from tests.prometheus import Prometheus
from tests.system import needs_system

pytestmark = pytest.mark.integration

PARTS = ("client", "web", "exporter", "control_api", "lab")
SECONDS = 120


@dataclass(frozen=True)
class Installed:
    """A wheel and the environment that it is installed in."""

    wheel: Path
    home: Path

    def command(self, name: str) -> str:
        return str(self.home / "bin" / name)

    def run(self, *arguments: str) -> str:
        """Output of a command of the environment, run away from the sources."""
        done = subprocess.run(
            [self.command(arguments[0]), *arguments[1:]],
            cwd=self.home, env={"PATH": "/usr/bin:/bin", "HOME": str(self.home)},
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Built from a copy of the sources, so that nothing is left in them; the wheel from the sdist."""
    directory = tmp_path_factory.mktemp("wheel of clio")
    sources = directory / "sources"
    for part in PARTS:
        shutil.copytree(ROOT / part, sources / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "contrib" / "man", sources / "contrib" / "man")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(directory)]
    run_quietly([*build, str(sources)])
    (wheel,) = directory.glob("*.whl")
    home = directory / "environment"
    venv.create(home, with_pip=False, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python"), "install"]
    run_quietly([*pip, "--no-deps", "--no-index", "--quiet", "--disable-pip-version-check", str(wheel)])
    # A path added like this brings packages, not the editable installation of this project.
    (packages,) = home.glob("lib/python3*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return Installed(wheel, home)


def run_quietly(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_wheel_has_every_file_of_the_packages(installed: Installed) -> None:
    names = set(zipfile.ZipFile(installed.wheel).namelist())
    files = {
        path.relative_to(ROOT / part).as_posix()
        for part in PARTS
        for path in (ROOT / part).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert files - names == set()
    tops = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert {top for top in tops if not top.endswith(".data")} == {name.partition("/")[0] for name in files}


def test_man_finds_the_manual_pages(installed: Installed) -> None:
    for page in (ROOT / "contrib" / "man").glob("*.1"):
        assert (installed.home / "share" / "man" / "man1" / page.name).read_text() == page.read_text()


def test_the_commands_tell_their_version(installed: Installed) -> None:
    for command in ("clio-exporter", "clio-control-api"):
        assert clio_client.__version__ in installed.run(command, "--version")
    assert "usage: clio-exporter demo" in installed.run("clio-exporter", "demo", "--help")


def test_the_packages_are_those_of_the_wheel(installed: Installed) -> None:
    names = "clio_client, clio_web, clio_exporter, clio_control_api, clio_lab"
    code = f"import {names}; print(*(p.__file__ for p in ({names})), sep='\\n')"
    files = installed.run("python", "-c", code).splitlines()
    assert len(files) == 5
    assert all(Path(file).is_relative_to(installed.home) for file in files)


def test_a_short_demo(installed: Installed, tmp_path: Path) -> None:
    # The runtime's own scripts, as `pip install clio-exporter[demo]` puts them there.
    for script in ("clio_run", "clio_cte_bench"):
        link = installed.home / "bin" / script
        if not link.exists():
            link.symlink_to(Path(sysconfig.get_path("scripts")) / script)
    demo = Demo(tmp_path / "demo", nodes=1, program=[installed.command("clio-exporter")])
    try:
        url = demo.wait_line(READY)[1]
        assert list(metric(url, "clio_node_up").values()) == [1]
        assert demo.end() == 0
    finally:
        ensure_ended(demo)
    assert demo.left() == []


# --- the README's five steps ---------------------------------------------------------------------------


def steps() -> list[str]:
    """The commands of the README's steps, in order."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.partition("## On your own Prometheus and Grafana")[2].partition("\n## ")[0]
    return [textwrap.dedent(block) for block in re.findall(r"^ *```sh\n(.*?)^ *```", section, re.M | re.S)]


@needs_system("prometheus", "promtool")
def test_from_the_package_to_rules_and_dashboards(
    installed: Installed, cluster4: LocalCluster, tmp_path: Path
) -> None:
    start, write, check = steps()
    port = str(free_port())
    environment = {"PATH": f"{installed.home / 'bin'}:/usr/bin:/bin", "HOME": str(tmp_path)}

    def run(commands: str) -> str:
        done = subprocess.run(
            ["sh", "-e", "-c", commands.replace("9777", port)], cwd=tmp_path, env=environment,
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    hosts = "".join(f"{node.host}:{node.port}\n" for node in cluster4.nodes)
    (tmp_path / "hostfile").write_text(hosts)
    own = tmp_path / "prometheus.yml"
    own.write_text("global: {scrape_interval: 1s}\n")
    printed = run(write).partition("prometheus.yml:\n")[2].partition("9 files written")[0]
    own.write_text(own.read_text() + printed)
    run(check)
    reply = f"--runtime.reply-port={free_port()}"
    command = ["sh", "-c", f"exec {start.replace('9777', port).strip()} {reply}"]
    log = tmp_path / "exporter.log"
    with ChildProcess("exporter", command, log_path=log, environment=environment, directory=tmp_path):
        config = yaml.safe_load(own.read_text())
        with Prometheus(tmp_path, config) as prometheus:
            prometheus.wait_for("count(node:clio_health:score) == 4", seconds=120)
            groups = prometheus.api("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert [rule["name"] for rule in rules if rule["health"] == "err"] == []
    for alert in (rule for rule in rules if rule["type"] == "alerting"):
        assert alert["annotations"]["dashboard_url"].startswith("http://localhost:3000/d/clio-")
        assert "$externalLabels" not in str(alert["annotations"])
    assert len(list((tmp_path / "clio" / "dashboards").glob("clio-*.json"))) == 8


# --- the library's documentation -------------------------------------------------------------------------

OUTPUT = {
    "A whole cluster": r"(\S+: \d+ tasks queued\n){4}",
    "Which cluster": r"up: \[0, 1\]\nfound: \['.+'(, '.+')*\]\n",
    "One node": r"node 1 speaks Generation\.C, \d+\.\d ms away\n(\S+: \d+% of \d+ bytes free\n)+",
    "What is new only": r"(\S+ \d+ \d+(\.\d+)?\n){6,}",
    "On an event loop": r"(\S+ up [1-9]\d* devices\n){4}",
}
"""What the examples print, by the heading they stand under."""


def examples() -> dict[str, str]:
    """The Python example under each heading of the document."""
    text = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    found: dict[str, str] = {}
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        heading = section.partition("\n")[0]
        for block in re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL):
            assert heading not in found, f"two examples under {heading}"
            found[heading] = block
    return found


def test_every_example_is_tested() -> None:
    assert examples().keys() == OUTPUT.keys()


@pytest.mark.parametrize("heading", OUTPUT)
def test_examples_of_the_documentation(
    heading: str, installed: Installed, cluster4: LocalCluster, tmp_path: Path
) -> None:
    text = examples()[heading].replace("/etc/clio/hostfile", str(cluster4.hostfile))
    for number, node in enumerate(cluster4.nodes, start=1):
        text = text.replace(f"compute-{number:02}:9413", f"{node.host}:{node.port}")
    assert not re.search(r"compute-\d|/etc/", text)
    script = tmp_path / "example.py"
    script.write_text(text)
    output = installed.run("python", "-W", "error", str(script))
    assert re.fullmatch(OUTPUT[heading], output), output


# --- what a release consists of --------------------------------------------------------------------------


def test_the_index_would_take_both_distributions(installed: Installed) -> None:
    (source,) = installed.wheel.parent.glob("*.tar.gz")
    run_quietly([sys.executable, "-m", "twine", "check", "--strict", str(installed.wheel), str(source)])

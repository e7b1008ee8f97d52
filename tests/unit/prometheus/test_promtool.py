"""What Prometheus's and Alertmanager's own tools say of the committed files."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.prometheus import promtool
from tests.system import find_command, needs_system
from tests.unit.prometheus import ruletests
from tests.unit.prometheus.rulefiles import CONFIG_FILES, PROMETHEUS, RULE_FILES, TEST_FILES


def amtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = find_command("amtool")
    assert program is not None
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)


def ids(path: Path) -> str:
    return path.name


@needs_system("promtool")
@pytest.mark.parametrize("path", CONFIG_FILES, ids=ids)
def test_configuration_is_valid(path: Path) -> None:
    done = promtool("check", "config", "--lint-fatal", str(path))
    assert done.returncode == 0, done.stdout + done.stderr


@needs_system("promtool")
@pytest.mark.parametrize("path", RULE_FILES, ids=ids)
def test_rules_are_valid(path: Path) -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", str(path))
    assert done.returncode == 0, done.stdout + done.stderr


@needs_system("promtool")
@pytest.mark.parametrize("path", TEST_FILES, ids=ids)
def test_rules_do_what_their_tests_say(path: Path, tmp_path: Path) -> None:
    done = ruletests.run(path, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_system("amtool")
def test_alertmanager_configuration_is_valid() -> None:
    done = amtool("check-config", str(PROMETHEUS / "alertmanager.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


@needs_system("amtool")
@pytest.mark.parametrize(
    ("severity", "receiver"), [("critical", "operators"), ("warning", "operators"), ("info", "nobody")]
)
def test_alerts_are_routed_by_severity(severity: str, receiver: str) -> None:
    config = f"--config.file={PROMETHEUS / 'alertmanager.yml'}"
    done = amtool("config", "routes", "test", config, "alertname=ClioAny", f"severity={severity}")
    assert done.stdout.split() == [receiver], done.stdout + done.stderr

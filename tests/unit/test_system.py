"""Skips for missing system packages: the reason, and that CI turns them into failures."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import system
from tests.paths import ROOT


def run_suite(tmp_path: Path, source: str, ci: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on one module under a copy of this suite's conftest.py."""
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path / "conftest.py")
    (tmp_path / "test_sample.py").write_text(source)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            f"--basetemp={tmp_path / 'base'}",
            str(tmp_path),
        ],
        cwd=tmp_path,
        # Without the plugins of everything that is installed, which take most of the time.
        env={**os.environ, "CI": ci, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


SKIPS = {
    "mark": """
import pytest
@pytest.mark.skipif(True, reason="missing system package: prometheus")
def test_it(): pass
""",
    "call": """
import pytest
def test_it(): pytest.skip("missing system package: prometheus")
""",
    "fixture": """
import pytest
@pytest.fixture
def server(): pytest.skip("missing system package: prometheus")
def test_it(server): pass
""",
    "module": """
import pytest
pytest.skip("missing system package: prometheus", allow_module_level=True)
""",
}


@pytest.mark.parametrize("source", SKIPS.values(), ids=SKIPS.keys())
def test_missing_package_skips_outside_ci_and_fails_in_ci(tmp_path: Path, source: str) -> None:
    outside = run_suite(tmp_path, source, ci="")
    inside = run_suite(tmp_path, source, ci="true")
    assert outside.returncode in {0, 5}, outside.stdout  # 5: the only module was skipped as a whole
    assert "1 skipped" in outside.stdout
    assert inside.returncode != 0
    assert "not allowed where CI=true: " in inside.stdout
    assert "missing system package: prometheus" in inside.stdout


def test_other_skips_and_expected_failures_stay_as_they_are_in_ci(tmp_path: Path) -> None:
    done = run_suite(
        tmp_path,
        """
import pytest
def test_platform(): pytest.skip("no wheel for this platform")
@pytest.mark.xfail(reason="missing system package")
def test_expected(): assert False
def test_passes(): pass
""",
        ci="true",
    )
    assert done.returncode == 0, done.stdout
    assert "1 passed, 1 skipped, 1 xfailed" in done.stdout


def test_reason_names_each_missing_package_once_and_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "find_command", lambda name: None)
    reason = system.missing_reason("promtool", "prometheus", "sshd")
    assert reason is not None
    assert reason.startswith(f"{system.MISSING}: openssh-server prometheus (")
    assert "scripts/bootstrap.sh packages test" in reason
    with pytest.raises(pytest.skip.Exception, match="openssh-server"):
        system.require_system("sshd")


def test_nothing_is_missing_when_the_commands_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "find_command", lambda name: f"/usr/bin/{name}")
    assert system.missing_reason("promtool", "sshd") is None
    system.require_system("promtool", "sshd")


def test_a_command_without_a_package_is_an_error() -> None:
    with pytest.raises(KeyError, match="no-such-command"):
        system.package_of("no-such-command")

"""Tests that failed are tried again alone: which, how many, and what comes of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import again
from tests.paths import ROOT

FLICKERS = """
from pathlib import Path
import pytest

@pytest.mark.parametrize("at", range({count}))
def test_flickers(at):
    seen = Path(f"seen-{{at}}")
    if not seen.exists():
        seen.touch()
        raise AssertionError("first time")

def test_passes():
    with Path("passes").open("a") as file:
        file.write("x")
"""
FAILS = "def test_fails():\n    assert False\n"


def run(directory: Path, *arguments: str, processes: int = 0) -> subprocess.CompletedProcess[str]:
    """Run scripts/test.sh in `directory`, on whose tests it works."""
    script = ROOT / "scripts" / "test.sh"
    (directory / "pytest.ini").write_text("[pytest]\nmarkers =\n  alone: alone\n")
    (directory / "tests").symlink_to(ROOT / "tests")
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(directory),
        "PYTHONPATH": str(directory),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # all of ours take seconds, xdist is what the script uses
    }
    return subprocess.run(
        ["sh", script, sys.executable, str(processes), "-p", "xdist", "--ignore=tests", *arguments],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "test_passes.py").write_text("def test_it():\n    pass\n")
    return tmp_path


def test_nothing_failed(project: Path) -> None:
    done = run(project)
    assert done.returncode == 0
    assert "again" not in done.stdout


def test_one_that_passes_alone_is_named_and_no_failure(project: Path) -> None:
    (project / "test_flickers.py").write_text(FLICKERS.format(count=2))
    done = run(project, processes=2)
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith(
        "Passed only when tried again, alone; to be mended:\n"
        "  test_flickers.py::test_flickers[0]\n"
        "  test_flickers.py::test_flickers[1]\n"
    )
    assert (project / "passes").read_text() == "x"


def test_one_that_measures_times_is_tried_again_too(project: Path) -> None:
    text = FLICKERS.format(count=1) + "\npytestmark = pytest.mark.alone\n"
    (project / "test_flickers.py").write_text(text)
    assert run(project).returncode == 0


def test_what_fails_again_has_failed(project: Path) -> None:
    (project / "test_fails.py").write_text(FAILS)
    (project / "test_flickers.py").write_text(FLICKERS.format(count=1))
    done = run(project)
    assert done.returncode == 1
    assert "to be mended" not in done.stdout


def test_more_than_a_few_are_not_tried_again(project: Path) -> None:
    (project / "test_flickers.py").write_text(FLICKERS.format(count=again.MOST + 1))
    done = run(project)
    assert done.returncode == 1
    assert f"{again.MOST + 1} tests failed: not tried again" in done.stdout


def test_what_cannot_be_collected_is_no_failed_test(project: Path) -> None:
    (project / "test_broken.py").write_text("import nothing_of_that_name\n")
    done = run(project)
    assert done.returncode in (1, 2)
    assert "to be mended" not in done.stdout


def test_nothing_selected_is_told(project: Path) -> None:
    assert run(project, "-k", "no_such_test").returncode == 5

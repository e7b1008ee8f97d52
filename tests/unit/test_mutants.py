"""`make mutants` ends when it is told to, and leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.exporter_process import eventually
from tests.mutants.__main__ import Mutant, is_equivalent
from tests.paths import ROOT

MODULE = "exporter/clio_exporter/engine.py"
"""One whose tests take seconds."""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_nothing_is_left(number: signal.Signals, tmp_path: Path) -> None:
    before = (ROOT / MODULE).read_bytes()
    command = [sys.executable, "-m", "tests.mutants", MODULE]
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as run:  # fmt: skip
        try:
            found = eventually("tests run", lambda: _begun(psutil.Process(run.pid)), 60)
            assert list(tmp_path.iterdir())
            run.send_signal(number)
            assert run.wait(30) == 128 + number
            assert [process for process in found if _runs(process)] == []
            assert list(tmp_path.iterdir()) == []
            assert (ROOT / MODULE).read_bytes() == before
        finally:
            run.kill()


def _begun(process: psutil.Process) -> list[psutil.Process]:
    """Its processes, once there are the one in the copy and the tests that this one runs."""
    found = process.children(recursive=True)
    return found if len(found) >= 2 else []


def _runs(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_an_equivalent_is_that_of_a_module_a_line_and_an_operator(tmp_path: Path) -> None:
    path = tmp_path / "equivalents.yml"
    path.write_text("- {module: 'a', line: '^x = ', after: '[^3]$', operator: 'Number', because: y}\n")
    mutant = Mutant(1, "NumberReplacer", "x = 1", "x = 2", "")
    assert is_equivalent("a.py", mutant, path)
    assert not is_equivalent("b.py", mutant, path)
    assert not is_equivalent("a.py", Mutant(1, "NumberReplacer", "x = 1", "x = 3", ""), path)
    assert not is_equivalent("a.py", Mutant(1, "Other", "x = 1", "x = 2", ""), path)
    assert not is_equivalent("a.py", Mutant(1, "NumberReplacer", "y = 1", "y = 2", ""), path)

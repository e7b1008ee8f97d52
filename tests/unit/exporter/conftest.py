"""Fixtures for tests of the exporter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from clio_exporter import cli

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs `clio-exporter` as in an empty home; returns exit status, standard output and error."""
    for name in ("CLIO_SERVER_CONF", "CHI_SERVER_CONF", "WRP_RUNTIME_CONF", "CONTAINER_HOSTFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            status = cli.main(arguments)
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        out, err = capsys.readouterr()
        return status, out, err

    return run

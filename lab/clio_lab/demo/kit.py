"""What the exporter's package brings for Prometheus and Grafana, made for the demo's addresses."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from clio_lab.demo.errors import DemoError
from clio_lab.demo.stack import clean_environment

_SECONDS = 60.0


class Kit:
    """The files of `clio-exporter WHAT OPTIONS` in a directory, written when they are first asked for."""

    def __init__(self, what: str, directory: Path, options: Sequence[str]) -> None:
        self._what = what
        self._directory = directory
        self._options = options
        self._lock = threading.Lock()
        self._written = False

    def directory(self) -> Path:
        """Where the files are. Safe for several threads. Raises DemoError when they cannot be written."""
        with self._lock:
            if not self._written:
                self._write()
                self._written = True
        return self._directory

    def _write(self) -> None:
        command = [sys.executable, "-m", "clio_exporter", self._what, f"--directory={self._directory}"]
        try:
            done = subprocess.run(
                [*command, *self._options],
                env=clean_environment(os.environ),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise DemoError(f"`clio-exporter {self._what}` took over {_SECONDS:.0f} s: try again") from None
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines()
            raise DemoError(lines[-1] if lines else f"`clio-exporter {self._what}` failed")

"""`make profile`: where a scrape's time goes, as files to look at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil

from tests.paths import ROOT
from tests.ports import free_port


def test_a_profile_of_a_few_scrapes_is_two_files_and_leaves_nothing_running(tmp_path: Path) -> None:
    port = free_port()
    options = ["--nodes", "4", "--scrapes", "5", "--output", str(tmp_path), "--port", str(port)]
    made = subprocess.run(
        [sys.executable, "-m", "tests.bench.profile", *options, "--base-port", str(free_port())],
        cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout + made.stderr
    graph = (tmp_path / "scrape-4.svg").read_text(encoding="utf-8")
    assert "clio_exporter" in graph
    found = json.loads((tmp_path / "scrape-4.speedscope.json").read_text(encoding="utf-8"))
    assert any("poller.py" in (frame.get("file") or "") for frame in found["shared"]["frames"])
    assert str(tmp_path / "scrape-4.svg") in made.stdout
    assert not [p for p in psutil.process_iter(["cmdline"]) if f"127.0.0.1:{port}" in str(p.info["cmdline"])]

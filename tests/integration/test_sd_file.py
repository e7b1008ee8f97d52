"""A real Prometheus finds an exporter by its file, with its labels, and loses it at its end."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.exporter_process import ExporterProcess, eventually, run_exporter
from tests.ports import closed_port
from tests.prometheus import Prometheus
from tests.system import needs_system

pytestmark = [pytest.mark.integration, needs_system("prometheus")]


def test_found_lost_killed_and_taken_over(tmp_path: Path) -> None:
    directory = tmp_path / "sd"
    directory.mkdir()
    file = directory / "job-7.json"
    discovery = {
        "job_name": "jobs",
        "file_sd_configs": [{"files": [f"{directory}/*.json"], "refresh_interval": "1s"}],
        "relabel_configs": [{"source_labels": ["__meta_clio_label_job_id"], "target_label": "target_job"}],
    }
    with Prometheus(tmp_path, {"scrape_configs": [discovery]}) as prometheus, closed_port() as port:
        options = [
            f"--nodes=127.0.0.1:{port - 3}",
            f"--sd.file={file}",
            "--label=job_id=7",
            "--label=user=ann",
        ]

        def found() -> list[str]:
            return [t["scrapeUrl"] for t in prometheus.api("targets", state="active")["activeTargets"]]

        with ExporterProcess(tmp_path, *options) as exporter:
            prometheus.wait_for('clio_exporter_build_info{job_id="7", user="ann"}')
            prometheus.wait_for('clio_node_up{job_id="7", user="ann"} == 0')
            prometheus.wait_for('up{target_job="7"} == 1')
            assert found() == [f"http://{exporter.address}/metrics"]
            refused = run_exporter(tmp_path, "--web.listen-address=127.0.0.1:0", *options)
            assert refused.returncode == 1
            assert "belongs to an exporter that runs on this host" in refused.stderr
        assert list(directory.iterdir()) == []
        eventually("Prometheus has lost it", lambda: found() == [])

        with ExporterProcess(tmp_path, *options) as killed:
            eventually("it has written the file", file.exists)
            killed.signal(signal.SIGKILL)
            killed.wait()
        assert file.exists()
        with ExporterProcess(tmp_path, *options) as successor:
            eventually(
                "Prometheus scrapes the new one", lambda: found() == [f"http://{successor.address}/metrics"]
            )
            assert "target file of an exporter that was killed" in successor.log
        assert list(directory.iterdir()) == []

"""`clio-exporter scrape` and the command itself, over a simulated cluster."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from clio_exporter import scrape_command as shell
from clio_lab.simulator.process import SimulatorProcess
from tests.paths import ROOT
from tests.ports import free_port
from tests.unit.exporter.conftest import Run


@pytest.fixture(scope="module")
def simulator() -> Iterator[tuple[SimulatorProcess, int]]:
    port = free_port()
    with SimulatorProcess(
        "--nodes", "3", "--base-port", str(port), "--address", "127.96.2.1", "--age", "50", "--workers", "2"
    ) as process:
        yield process, port


@pytest.fixture
def nodes(simulator: tuple[SimulatorProcess, int]) -> Iterator[str]:
    """Value of --nodes; all healthy, and afterwards all unharmed."""
    process, port = simulator
    process.reset_stats()
    yield ",".join(f"127.96.2.{i}:{port}" for i in (1, 2, 3))
    stats = process.stats()
    process.clear()
    assert stats["violations"] == {}


@pytest.fixture
def run(run_command: Run) -> Run:
    return run_command


def scrape(run: Run, *arguments: str) -> tuple[int, str, str]:
    return run("scrape", "--runtime.reply-port", "0", "--generation", "C", *arguments)


# --- formats ---------------------------------------------------------------------------------------------


def test_exposition_text(run: Run, nodes: str) -> None:
    status, out, err = scrape(run, "--nodes", nodes)
    assert (status, err) == (0, "")
    families = {f.name: f for f in text_string_to_metric_families(out)}
    assert [s.value for s in families["clio_node_up"].samples] == [1, 1, 1]
    assert len(families["clio_worker_running"].samples) == 6
    assert families["clio_bdev_capacity_bytes"].samples
    # A textfile directory has metrics of its own process: the exporter's would clash.
    assert not any(name.startswith(("process_", "python_", "clio_exporter")) for name in families)


def test_json(run: Run, nodes: str, simulator: tuple[SimulatorProcess, int]) -> None:
    simulator[0].set_fault(1, "refused")
    status, out, _ = scrape(run, "--nodes", nodes, "--format", "json")
    assert status == 3
    first, second, third = json.loads(out)["nodes"]
    assert (first["up"], first["reason"], first["error"]) == (True, None, None)
    assert first["hostname"] == "127.96.2.1"
    assert first["node_id"] == 0
    assert first["system"]["event_id"] >= 49
    assert [w["worker_id"] for w in first["workers"]] == [0, 1]
    assert {"pool_id", "pool_name", "module"} == set(first["pools"][0])
    assert {s["module"] for s in first["stats"]} >= {"clio_bdev", "clio_cte_core"}
    assert first["failed_queries"] == {}
    assert first["cluster"] is None
    assert (second["up"], second["reason"], second["system"], second["workers"]) == (
        False,
        "refused",
        None,
        [],
    )
    assert "refuses connections" in second["error"]
    assert third["up"]


def test_table(run: Run, nodes: str, simulator: tuple[SimulatorProcess, int]) -> None:
    simulator[0].set_fault(2, "refused")
    status, out, err = scrape(run, "--nodes", nodes, "--format", "table")
    assert status == 3
    lines = out.splitlines()
    assert lines[0].split() == [
        "NODE", "ADDRESS", "STATE", "CPU", "MEMORY", "GPUS",
        "WORKERS", "QUEUED", "BLOCKED", "PROCESSED", "STORAGE", "FREE",
    ]  # fmt: skip
    assert len(lines) == 4
    up = lines[2].split()
    assert up[:3] == ["1", nodes.split(",")[1], "up"]
    assert up[3].endswith("%")
    assert up[6] == "2"
    assert lines[3].split() == ["2", nodes.split(",")[2], "refused", *["-"] * 9]
    assert lines[0].index("STATE") == lines[3].index("refused")
    assert f"{nodes.split(',')[2]} is down: " in err


def test_sizes() -> None:
    assert [shell._size(n) for n in (0, 1023, 1024, 1536, 2**30, 2**60, 2**70)] == [
        "0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 GiB", "1024.0 PiB", "1048576.0 PiB",
    ]  # fmt: skip


# --- exit status -----------------------------------------------------------------------------------------


def test_all_nodes_down(run: Run, nodes: str, simulator: tuple[SimulatorProcess, int]) -> None:
    simulator[0].set_fault([0, 1, 2], "refused")
    status, out, err = scrape(run, "--nodes", nodes)
    assert status == 1
    assert "clio_node_up" in out
    assert err.count("is down") == 3


def test_the_documented_health_check_asks_only_its_own_node(
    run: Run,
    nodes: str,
    simulator: tuple[SimulatorProcess, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = nodes.split(",")[0]
    (tmp_path / "hosts").write_text(nodes.replace(",", "\n") + "\n")
    (tmp_path / "clio.yaml").write_text("networking: {hostfile: hosts}\n")
    monkeypatch.setenv("CLIO_SERVER_CONF", str(tmp_path / "clio.yaml"))
    simulator[0].set_fault(2, "refused")
    text = (ROOT / "docs" / "operations.md").read_text()
    found = re.search(
        r"Health check of a runtime in its container: `clio-exporter ([^`]+) > /dev/null`", text
    )
    assert found is not None
    assert run(*found[1].replace("127.0.0.1:9413", own).split())[0] == 0
    status, _, error = run("scrape")
    assert status != 0, "without --nodes the dead member counts"
    assert nodes.split(",")[2] in error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--no-such-flag"], "--no-such-flag"),
        (["--format", "xml"], "xml"),
        (["--timeout", "soon"], "soon"),
        (["--generation", "Q"], "Q"),
        (["--hostfile", "missing.txt"], "missing.txt"),
        (["--hostfile", "directory"], "directory"),
        (["--config.file", "missing.yaml"], "missing.yaml"),
        (["--config.file", "broken.yaml"], "broken.yaml:2"),
        (["--config.file", "wrong.yaml"], "wrong.yaml"),
        (["--nodes", "a:99999999"], "99999999"),
        (["--nodes", "a,a"], "--nodes"),
        (["--port", "0", "--nodes", "a"], "--port"),
        (["--runtime.max-in-flight", "0"], "--runtime.max-in-flight"),
        (["--runtime.transport", "binding", "--nodes", "a"], "--runtime.transport=zmq"),
        (["--nodes", "a", "--hostfile", "x"], "--hostfile"),
    ],
)
def test_wrong_usage_is_told_in_one_line(run: Run, tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "broken.yaml").write_text("clusters:\n  - [")
    (tmp_path / "wrong.yaml").write_text("clusters: [{nodes: 7}]\n")
    status, out, err = run("scrape", *arguments)
    assert (status, out) == (2, "")
    assert said in err.splitlines()[-1] if said != "broken.yaml:2" else "broken.yaml" in err
    assert "Traceback" not in err


# --- --output ----------------------------------------------------------------------------------------------


def test_output_is_replaced_as_a_whole(run: Run, nodes: str, tmp_path: Path) -> None:
    target = tmp_path / "textfile" / "clio.prom"
    target.parent.mkdir()
    target.write_text("old")
    before = target.stat().st_ino
    status, out, _ = scrape(run, "--nodes", nodes, "--output", str(target))
    assert (status, out) == (0, "")
    assert "clio_node_up" in target.read_text()
    assert target.stat().st_ino != before  # another file took its place
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    assert os.listdir(target.parent) == ["clio.prom"]  # noqa: PTH208


def test_output_that_cannot_be_written(run: Run, nodes: str, tmp_path: Path) -> None:
    status, out, err = scrape(run, "--nodes", nodes, "--output", str(tmp_path / "missing" / "x.prom"))
    assert (status, out) == (2, "")
    assert "cannot write" in err
    assert "No such file" in err


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "x.prom"
    target.write_text("old")

    def full(self: Path, other: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        shell.write_atomically(target, "new")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.prom"]  # noqa: PTH208

"""The command line: help, flags, and what of them reaches the settings."""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from clio_client import __version__
from clio_client.config.errors import ConfigError
from clio_client.config.hostfile import HostEntry
from clio_exporter import cli, flags
from clio_exporter.collectors import COLLECTORS
from clio_exporter.settings import Settings


def settings(*arguments: str) -> Settings:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    flags.add_arguments(parser)
    flags.add_serve_arguments(parser)
    return flags.settings(parser.parse_args(arguments))


@pytest.mark.parametrize(
    "command",
    [
        [],
        *([name] for name in cli.COMMANDS),
    ],
)
def test_help(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "clio_exporter", *command, "--help"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert " ".join(["clio-exporter", *command]) in done.stdout
    if command in ([], ["scrape"]):
        for flag in ("--hostfile", "--config.file", "--runtime.reply-port", "--collector.worker"):
            assert flag in done.stdout
    if not command:
        for flag in (
            "--web.listen-address",
            "--web.config.file",
            "--probe.allow-any",
            "--log.format",
            "scrape",
        ):
            assert flag in done.stdout


def test_only_what_is_switched_on() -> None:
    chosen = settings("--collector.disable-defaults", "--collector.worker", "--collector.cost").collectors
    assert {each.name for each in COLLECTORS if chosen.is_enabled(each.name)} == {"worker", "cost"}


def test_devices_and_pools_by_name() -> None:
    chosen = settings("--collector.bdev.include=ram.*", "--collector.pool.exclude=cte_.*").collectors
    assert chosen.bdev_include is not None
    assert chosen.bdev_include.pattern == "ram.*"
    assert chosen.pool_exclude is not None
    assert (chosen.bdev_exclude, chosen.pool_include) == (None, None)
    with pytest.raises(ConfigError, match=r"--collector\.bdev\.include.* is no regular expression"):
        settings("--collector.bdev.include=(")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"clio-exporter {__version__}\n"


@pytest.mark.parametrize("arguments", [["--no-such"], ["--host", "x"], ["--collector.none"], ["stray"]])
def test_unknown_flags_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_settings_that_cannot_be_used_end_the_command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["--hostfile", str(tmp_path / "missing")]) == 1
    err = capsys.readouterr().err
    assert str(tmp_path / "missing") in err
    assert "Traceback" not in err


def test_without_flags_the_defaults_hold() -> None:
    assert settings() == Settings()


def test_flags_reach_the_settings(tmp_path: Path) -> None:
    made = settings(
        "--nodes", "a,b:9500", "--port", "9600", "--generation", "B",
        "--runtime-config", str(tmp_path / "c.yaml"),
        "--runtime.timeout", "1500ms", "--runtime.reply-port", "9999", "--runtime.reply-address", "10.0.0.1",
        "--runtime.transport", "binding", "--runtime.max-in-flight", "7",
        "--no-collector.bdev", "--collector.pool.interval", "2m", "--collector.node.peak-window", "90s",
        "--probe.allow-any",
    )  # fmt: skip
    (cluster,) = made.clusters
    assert [(e.host, e.port) for e in cluster.nodes] == [("a", None), ("b", 9500)]
    assert (cluster.port, cluster.generation) == (9600, "B")
    assert cluster.runtime_config == str(tmp_path / "c.yaml")
    assert made.runtime.timeout_seconds == 1.5
    assert (made.runtime.reply_port, made.runtime.reply_address) == (9999, "10.0.0.1")
    assert (made.runtime.transport, made.runtime.max_in_flight) == ("binding", 7)
    assert not made.collectors.is_enabled("bdev")
    assert made.collectors.is_enabled("worker")
    assert made.collectors.pool_interval_seconds == 120
    assert made.collectors.node_peak_window_seconds == 90
    assert made.probe.allow_any


def test_hostfile_and_seed(tmp_path: Path) -> None:
    assert settings("--hostfile", str(tmp_path / "h")).clusters[0].hostfile == tmp_path / "h"
    seed = settings("--seed", "s:9500").clusters[0].seed
    assert isinstance(seed, HostEntry)
    assert (seed.host, seed.port) == ("s", 9500)


def test_flags_go_over_the_settings_file(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        "clusters: [{nodes: [x]}]\nruntime: {timeout: 9s, max_in_flight: 2}\nprobe: {allow_any: true}\n"
    )
    made = settings("--config.file", str(path), "--runtime.timeout", "1s")
    assert made.runtime.timeout_seconds == 1
    assert made.runtime.max_in_flight == 2
    assert made.clusters[0].nodes[0].host == "x"
    assert made.probe.allow_any  # a flag that is not given takes nothing back


@pytest.mark.parametrize("collector", [c.name for c in COLLECTORS])
def test_every_collector_can_be_switched(collector: str) -> None:
    assert settings(f"--collector.{collector}").collectors.is_enabled(collector)
    off = settings(f"--no-collector.{collector}").collectors
    expected = [c.name for c in COLLECTORS if c.name == collector or not c.on_by_default]
    assert [c.name for c in COLLECTORS if not off.is_enabled(c.name)] == expected


@pytest.mark.parametrize(
    "arguments",
    [("--runtime.timeout", "0s"), ("--runtime.reply-port", "70000"), ("--runtime.max-in-flight", "65"),
     ("--collector.node.peak-window", "2000s"), ("--port", "70000"), ("--nodes", ","), ("--seed", "a:b:c"),
     ("--runtime.reply-address", "not an address")],
)  # fmt: skip
def test_values_out_of_range_name_their_flag(arguments: tuple[str, str]) -> None:
    with pytest.raises((ConfigError, SystemExit)) as caught:
        settings(*arguments)
    if isinstance(caught.value, ConfigError):
        assert arguments[0] in str(caught.value)


def test_the_descriptor_limit_is_raised_to_what_is_allowed() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, before[1]), before[1]))
        cli.raise_descriptor_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

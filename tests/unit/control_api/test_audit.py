"""The audit log: whole lines or none, chained, and bursts summed up."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from clio_control_api import cli
from clio_control_api.audit import FIRST, AuditLog, digest, problems
from clio_control_api.errors import Unavailable
from tests.exporter_process import eventually


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def written(path: Path, count: int = 4) -> list[bytes]:
    log = AuditLog(path)
    for number in range(count):
        log.write("begin", number=number, nothing=None)
    return path.read_bytes().splitlines(keepends=True)


def test_each_line_has_the_digest_of_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    raw = written(path)
    found = lines(path)
    assert [line["number"] for line in found] == [0, 1, 2, 3]
    assert "nothing" not in found[0]
    assert [line["prev"] for line in found] == [FIRST, *(digest(line.rstrip(b"\n")) for line in raw[:-1])]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    AuditLog(path).write("begin", number=4)  # another process goes on
    assert problems(path.read_bytes().splitlines(keepends=True)) == []


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda raw: [raw[0], raw[1].replace(b'"number": 1', b'"number": 7'), *raw[2:]], 3),
        (lambda raw: [raw[0], *raw[2:]], 2),
        (lambda raw: [raw[0], raw[2], raw[1], raw[3]], 2),
        (lambda raw: [*raw[:2], raw[1], *raw[2:]], 3),
        (lambda raw: [*raw[:3], b'{"event": "end"}\n', raw[3]], 4),
        (lambda raw: [*raw[:3], b"[" * 9999 + b"\n"], 4),
        (lambda raw: [*raw[:3], raw[3][:-5]], 4),
    ],
)
def test_what_was_changed_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Any, line: int
) -> None:
    path = tmp_path / "audit.jsonl"
    raw = written(path)
    assert cli.main(["audit", "verify", str(path)]) == 0
    assert "the chain is whole" in capsys.readouterr().out
    path.write_bytes(b"".join(change(raw)))
    assert cli.main(["audit", "verify", str(path)]) == 1
    assert f"line {line} " in capsys.readouterr().out.splitlines()[0]
    assert cli.main(["audit", "verify", str(tmp_path / "nowhere")]) == 2


def test_a_part_of_a_line_is_a_failure_and_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "audit.jsonl"
    written(path, 1)
    before = path.read_bytes()
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:10]))
    with pytest.raises(Unavailable, match="nothing is done"):
        AuditLog(path).write("begin")
    monkeypatch.undo()
    assert path.read_bytes() == before


def test_a_line_that_a_crash_cut_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    raw = written(path, 2)
    path.write_bytes(raw[0] + raw[1][:20])
    AuditLog(path).write("begin", number=2)
    assert lines_that_parse(path) == [0, 2]
    assert problems(path.read_bytes().splitlines(keepends=True)) == [
        "line 2 is no entry, or has no digest of the line before"
    ]


def lines_that_parse(path: Path) -> list[int]:
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line)["number"])
        except ValueError:
            continue
    return found


def test_a_full_disk_is_a_failure() -> None:
    with pytest.raises(Unavailable):
        AuditLog(Path("/dev/full")).write("begin")


def test_a_burst_of_refusals_is_summed_up(tmp_path: Path) -> None:
    path, clock = tmp_path / "audit.jsonl", Clock()
    log = AuditLog(path, clock=clock)
    for _ in range(500):
        log.write_refusal(status=401, client="10.0.0.1")
    log.write("begin")  # actions are never summed up
    for number in range(300):
        log.write_refusal(status=403, client=f"10.0.1.{number}")
    assert [line["event"] for line in lines(path)] == ["refused"] * 20 + ["begin"]
    clock.now += 11
    log.write_refusal(status=404, client="10.0.0.3")
    found = lines(path)[21:]
    assert found[-1]["event"] == "refused"
    assert {line["event"] for line in found[:-1]} == {"refused_many"}
    assert found[0]["count"] == 480
    assert found[0]["client"] == "10.0.0.1"
    assert sum(line["count"] for line in found if line["event"] == "refused_many") == 480 + 300
    assert len(found) <= 103
    for _ in range(30):
        log.write_refusal(status=401, client="10.0.0.1")
    log.close()
    assert lines(path)[-1]["count"] == 11
    assert problems(path.read_bytes().splitlines(keepends=True)) == []


def test_a_burst_that_nothing_follows_is_summed_up_in_time(tmp_path: Path) -> None:
    """Also when the log could not be written at first. Once it is closed nothing is left behind."""
    path = tmp_path / "later" / "audit.jsonl"
    log = AuditLog(path, clock=Clock(), window=0.1)
    others = set(threading.enumerate())
    for _ in range(30):
        log.write_refusal(status=401, client="10.0.0.1")
    timers = set(threading.enumerate()) - others
    assert timers
    eventually("it was tried in vain", lambda: not any(timer.is_alive() for timer in timers))
    path.parent.mkdir()
    eventually("the sum is written", path.exists)
    log.write("begin")
    for _ in range(2):
        log.write_refusal(status=401, client="10.0.0.1")
    log.close()
    found = [(line["event"], line.get("count")) for line in lines(path)]
    assert found[:2] == [("refused_many", 10), ("begin", None)]
    assert sum(count or 0 for _, count in found[2:]) == 2
    eventually("no timer is left", lambda: set(threading.enumerate()) <= others)


def test_lines_go_to_syslog_too(tmp_path: Path) -> None:
    address = str(tmp_path / "log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address)
        sock.settimeout(10)
        AuditLog(tmp_path / "audit.jsonl", address).write("begin", node="a")
        message = sock.recv(65536)
    assert message.startswith(b"<85>clio-control-api: {")
    assert json.loads(message.partition(b": ")[2]) == lines(tmp_path / "audit.jsonl")[0]
    AuditLog(tmp_path / "audit.jsonl", address).write("begin", node="b")  # nobody listens: the file has it
    assert len(lines(tmp_path / "audit.jsonl")) == 2

"""The script that runs on a node, with commands that behave as runtimes of each generation do."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from control_api.remote import SCRIPT, NodePlan
from control_api.settings import SshSettings
from exporter.membership import Member
from exporter.runtime.codec import Generation
from exporter.runtime.transport import NodeAddress
from tests.unit.control_api.support import run_script

HELP = {
    "2.3": "Commands:\n  start  Start the server; it recovers\n  stop  Stop\nLegacy:\n  runtime <start|stop>",
    "2.2": "Commands:\n  start  Start\n  restart  Restart (WAL replay)\nLegacy:\n  runtime <start|restart>",
    "1.5": "Commands:\n  runtime start   Start\n  runtime restart Restart\n  runtime stop    Stop",
}
WORDS = {"2.3": ("stop", "start"), "2.2": ("stop", "restart"), "1.5": ("runtime stop", "runtime restart")}


def command(directory: Path, name: str, body: str, help_text: str = HELP["2.3"]) -> Path:
    path = directory / name
    path.write_text(f"#!/bin/sh\ncase $1 in --help) cat <<'X'\n{help_text}\nX\nexit ;; esac\n{body}\n")
    path.chmod(0o755)
    return path


def plan(home: Path, port: int = 9413, **settings: object) -> NodePlan:
    member = Member("", 3, "127.0.0.1", NodeAddress("127.0.0.1", port), "")
    environment = {"PATH": f"{home}:/usr/bin:/bin"}
    return NodePlan(member, SshSettings(environment=environment, **settings))  # type: ignore[arg-type]


def wait_for(condition: object, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize("version", HELP)
@pytest.mark.parametrize("name", ["clio_run", "chimaera"])
def test_words_of_each_generation(tmp_path: Path, version: str, name: str) -> None:
    command(tmp_path, name, 'echo "$@" >>"$HOME/calls"; echo out; echo err >&2', HELP[version])
    done = run_script(plan(tmp_path).script("shutdown"), tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"out\n", b"err\n")
    done = run_script(plan(tmp_path).script("restart"), tmp_path)
    assert done.returncode == 0
    log = tmp_path / ".clio" / "restart-node3.log"
    assert str(log).encode() in done.stdout
    calls = tmp_path / "calls"
    wait_for(lambda: len(calls.read_text().splitlines()) == 3)
    stop, start = WORDS[version]
    assert calls.read_text().splitlines() == [stop, stop, start]
    assert log.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("body", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -ABRT $$", 134), ("kill -SEGV $$", 139)]
)
def test_exit_codes(tmp_path: Path, body: str, code: int) -> None:
    command(tmp_path, "clio_run", body)
    assert run_script(plan(tmp_path).script("shutdown"), tmp_path).returncode == code


@pytest.mark.parametrize("action", ["shutdown", "restart"])
@pytest.mark.parametrize("settings", [{}, {"program": "/opt/none/clio_run"}])
def test_a_missing_command(tmp_path: Path, action: str, settings: dict[str, str]) -> None:
    done = run_script(plan(tmp_path, **settings).script(action), tmp_path)
    assert done.returncode == 127
    assert b"found" in done.stderr


@pytest.mark.parametrize("action", ["shutdown", "restart"])
def test_a_configured_command_that_is_missing(tmp_path: Path, action: str) -> None:
    done = run_script(plan(tmp_path, commands={action: ("/opt/none", "x")}).script(action), tmp_path)
    assert done.returncode == 127


def test_a_configured_directory(tmp_path: Path) -> None:
    (tmp_path / "node 3").mkdir()
    found = plan(tmp_path, directory=str(tmp_path / "node {node_id}"), commands={"shutdown": ("pwd",)})
    assert run_script(found.script("shutdown"), tmp_path).stdout.decode().strip() == str(tmp_path / "node 3")
    assert run_script(plan(tmp_path, directory="/none").script("shutdown"), tmp_path).returncode != 0


def test_the_end_of_the_caller_ends_the_command(tmp_path: Path) -> None:
    command(tmp_path, "clio_run", 'echo $$ >"$HOME/pid"; sleep 300 & echo $! >"$HOME/child"; wait')
    process = subprocess.Popen(
        ["/bin/sh", "-s"], stdin=subprocess.PIPE, cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(plan(tmp_path).script("shutdown").encode())
    process.stdin.flush()
    wait_for(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text().strip())
    pids = [int((tmp_path / name).read_text()) for name in ("pid", "child")]
    assert all(alive(pid) for pid in pids)
    process.stdin.close()
    assert process.wait(20) != 0
    wait_for(lambda: not any(alive(pid) for pid in pids))


def test_a_restart_survives_its_caller_and_rotates_its_log(tmp_path: Path) -> None:
    command(
        tmp_path, "clio_run", 'case $1 in start) echo started; echo $$ >"$HOME/pid"; exec sleep 300 ;; esac'
    )
    pids = []
    for _ in range(2):
        (tmp_path / "pid").unlink(missing_ok=True)
        assert run_script(plan(tmp_path).script("restart"), tmp_path).returncode == 0
        wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip())
        pids.append(int((tmp_path / "pid").read_text()))
    try:
        assert all(alive(pid) for pid in pids)
        assert os.getsid(pids[0]) != os.getsid(0)
        log = tmp_path / ".clio" / "restart-node3.log"
        assert "started" in log.read_text()
        assert "started" in log.with_name(log.name + ".1").read_text()
        tail = run_script(plan(tmp_path).script("log"), tmp_path)
        assert b"started" in tail.stdout
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)


LISTENER = "import socket,sys,time; s=socket.socket(); s.bind(('127.0.0.1',int(sys.argv[2]))); s.listen(); print(1, flush=True); time.sleep(300)"  # noqa: E501


@pytest.mark.parametrize(("name", "ended"), [("clio_run", True), ("database", False)])
def test_a_restart_ends_a_hung_runtime_but_nothing_else_on_the_port(
    tmp_path: Path, name: str, ended: bool
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command(tmp_path, "clio_run", 'case $1 in start) echo "$@" >"$HOME/started" ;; esac')
    holder = subprocess.Popen(
        [sys.executable, "-c", LISTENER, name, str(port)], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.send_signal(signal.SIGSTOP)
        assert run_script(plan(tmp_path, port - 3).script("restart"), tmp_path).returncode == 0
        wait_for((tmp_path / "started").exists)
        log = (tmp_path / ".clio" / "restart-node3.log").read_text()
        if ended:
            assert holder.wait(10) < 0
            assert "still holds port" in log
        else:
            assert alive(holder.pid)
            assert "is no runtime" in log
    finally:
        holder.kill()
        holder.communicate()


def test_what_the_page_says_will_run(tmp_path: Path) -> None:
    member = Member("", 3, "n3", NodeAddress("n3"), "")
    found = NodePlan(member, SshSettings(), Generation.C)
    assert found.describe("shutdown") == "clio_run stop"
    assert found.describe("restart") == "clio_run stop, then clio_run start"
    assert NodePlan(member, SshSettings(), Generation.B).describe("restart").endswith("clio_run restart")
    own = NodePlan(member, SshSettings(commands={"restart": ("/opt/re", "{node_id}", "a b")}))
    assert own.describe("restart") == "/opt/re 3 'a b'"


def test_the_script_is_plain_sh() -> None:
    for shell in ("sh", "bash"):
        subprocess.run([shell, "-n"], input=SCRIPT.encode(), timeout=20, check=True)

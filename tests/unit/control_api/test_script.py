"""The script that runs on a node, with commands that behave as runtimes of each generation do."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clio_client.membership import Member
from clio_client.protocol.codec import Generation
from clio_client.transport.interface import NodeAddress
from clio_control_api.node_script import SCRIPT, NodePlan
from clio_control_api.settings import SshSettings
from tests.ports import free_port
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


def plan(home: Path, port: int | None = None, **settings: object) -> NodePlan:
    """How to act on a node of base port `port`; by default one that nobody listens on.

    A restart ends what holds the node's client port, so it must never be a port of somebody else's.
    """
    port = free_port() if port is None else port
    member = Member("", 3, "127.0.0.1", NodeAddress("127.0.0.1", port))
    settings = {"environment": {"PATH": f"{home}:/usr/bin:/bin"}, "start_timeout": 1.0, **settings}
    return NodePlan(member, SshSettings(**settings))  # type: ignore[arg-type]


def await_free(home: Path) -> None:
    """Until no sequence of a restart holds a lock."""
    for lock in (home / ".clio" / "control").glob("*.lock"):
        subprocess.run(["flock", "-w", "30", str(lock), "true"], timeout=40, check=True)


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
    await_free(tmp_path)


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
        await_free(tmp_path)
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


LISTENER = (
    "import os, socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); "
    "os.setuid(int(sys.argv[2])); print(1, flush=True); time.sleep(300)"
)

# The first thread ends (exit, not exit_group), the second holds the port.
HALF_ENDED = LISTENER.replace(
    "time.sleep(300)",
    "import ctypes, threading; threading.Thread(target=time.sleep, args=(300,)).start(); "
    "ctypes.CDLL(None).syscall({'x86_64': 60, 'aarch64': 93}[os.uname().machine], 0)",
)


@contextlib.contextmanager
def holder(
    executable: Path, port: int, *words: str, user: int | None = None, code: str = LISTENER
) -> Iterator[subprocess.Popen[bytes]]:
    """A stopped process that listens on `port`: Python as `executable`, `words` in its command line."""
    environment = {"PYTHONHOME": sys.base_prefix, "LD_LIBRARY_PATH": str(Path(sys.base_prefix) / "lib")}
    command = [
        str(executable),
        "-S",
        "-c",
        code,
        str(port),
        str(os.getuid() if user is None else user),
        *words,
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, start_new_session=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            if code is HALF_ENDED:
                wait_for(lambda: not alive(process.pid))
            process.send_signal(signal.SIGSTOP)
            yield process
        finally:
            process.kill()


@pytest.fixture
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the project's name in its path."""
    return tmp_path_factory.mktemp("clio run ")


def executable(directory: Path, name: str) -> Path:
    """This Python under another name: what /proc/PID/exe says of a runtime is `clio_run` or an older name."""
    path = directory / name
    shutil.copy(os.path.realpath(sys.executable), path)
    path.chmod(0o755)
    return path


def restarted(tmp_path: Path, port: int, **settings: object) -> str:
    """Restart; the log once the new runtime was started."""
    command(tmp_path, "clio_run", 'case $1 in start) echo "$@" >"$HOME/started" ;; esac')
    assert run_script(plan(tmp_path, port, **settings).script("restart"), tmp_path).returncode == 0
    wait_for((tmp_path / "started").exists)
    await_free(tmp_path)
    return (tmp_path / ".clio" / "restart-node3.log").read_text()


@pytest.mark.parametrize("name", ["clio_run", "chimaera", "chimaera_start_runtime"])
def test_a_restart_ends_a_hung_runtime(tmp_path: Path, elsewhere: Path, name: str) -> None:
    port = free_port()
    with holder(executable(elsewhere, name), port + 3) as process:
        assert "still holds port" in restarted(tmp_path, port)
        assert process.wait(10) < 0


def test_a_restart_ends_a_runtime_whose_first_thread_alone_has_ended(tmp_path: Path, elsewhere: Path) -> None:
    port = free_port()
    with holder(executable(elsewhere, "clio_run"), port + 3, code=HALF_ENDED) as process:
        assert "still holds port" in restarted(tmp_path, port)
        assert process.wait(10) < 0


def test_a_restart_ends_a_runtime_whose_wheel_was_replaced(tmp_path: Path, elsewhere: Path) -> None:
    port = free_port()
    program = executable(elsewhere, "clio_run")
    with holder(program, port + 3) as process:
        program.unlink()
        assert "still holds port" in restarted(tmp_path, port)
        assert process.wait(10) < 0


def test_a_restart_ends_a_runtime_of_the_configured_name(tmp_path: Path, elsewhere: Path) -> None:
    port = free_port()
    program = executable(elsewhere, "site runtime")
    link = tmp_path / "bin"
    link.symlink_to(program)
    home = tmp_path / "home"
    home.mkdir()
    with holder(program, port + 3) as process:
        # It cannot be started as a runtime; what counts is what has become of the one that held the port.
        script = plan(home, port, program=str(link)).script("restart")
        assert run_script(script, home).returncode == 0
        assert process.wait(30) < 0
    await_free(home)


@pytest.mark.parametrize("words", [("clio_run",), ("-d", "/srv/clio-data"), ("chimaera", "start")])
@pytest.mark.parametrize("name", ["database", "python3"])
def test_a_restart_ends_nothing_else_on_the_port(
    tmp_path: Path, elsewhere: Path, name: str, words: tuple[str, ...]
) -> None:
    port = free_port()
    with holder(executable(elsewhere, name), port + 3, *words) as process:
        log = restarted(tmp_path, port)
        assert alive(process.pid)
        assert f"{name}, which is no runtime" in log


@pytest.mark.skipif(os.getuid() != 0, reason="only root can start processes of another user")
def test_a_restart_ends_no_other_users_runtime(tmp_path: Path, elsewhere: Path) -> None:
    port = free_port()
    with holder(executable(elsewhere, "clio_run"), port + 3, user=65534) as process:
        log = restarted(tmp_path, port)
        assert alive(process.pid)
        assert "belongs to another user" in log


def test_what_the_page_says_will_run(tmp_path: Path) -> None:
    member = Member("", 3, "n3", NodeAddress("n3"))
    found = NodePlan(member, SshSettings(), Generation.C)
    assert found.describe("shutdown") == "clio_run stop"
    assert found.describe("restart") == "clio_run stop, then clio_run start"
    assert NodePlan(member, SshSettings(), Generation.B).describe("restart").endswith("clio_run restart")
    own = NodePlan(member, SshSettings(commands={"restart": ("/opt/re", "{node_id}", "a b")}))
    assert own.describe("restart") == "/opt/re 3 'a b'"


def test_the_script_is_plain_sh() -> None:
    for shell in ("sh", "bash"):
        subprocess.run([shell, "-n"], input=SCRIPT.encode(), timeout=20, check=True)

"""The lock that a node keeps while an action runs there, and what it tells of a restart afterwards."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clio_control_api.node_report import Report, read_report
from clio_control_api.node_script import Errand, NodePlan
from tests.ports import free_port
from tests.unit.control_api.support import run_script
from tests.unit.control_api.test_script import await_free, command, executable, plan, wait_for

GATED = (
    'echo "$1" >>"$HOME/calls"; [ "$1" != stop ] || while [ ! -e "$HOME/go" ]; do sleep 0.05; done; exit 3'
)
"""A runtime's command whose `stop` goes on until the file `go` is there, and that does not start."""


def do(
    home: Path, found: NodePlan, action: str, number: str, actor: str = "anna", patience: float = 0
) -> tuple[int, Report]:
    """Exit code and report of one script."""
    done = run_script(found.script(action, Errand(number, actor, patience)), home)
    return done.returncode, read_report(done.stderr, number)


def outcome(home: Path, found: NodePlan, number: str, patience: float = 0) -> tuple[str | None, str]:
    code, report = do(home, found, "outcome", number, patience=patience)
    assert code == 0
    return report.ending, report.text


@pytest.fixture
def gated(tmp_path: Path) -> Iterator[NodePlan]:
    command(tmp_path, "clio_run", GATED)
    yield plan(tmp_path)
    (tmp_path / "go").touch()
    await_free(tmp_path)


def test_a_restart_followed_at_once_by_a_shutdown(tmp_path: Path, gated: NodePlan) -> None:
    code, report = do(tmp_path, gated, "restart", "a1")
    assert (code, report.started) == (0, True)
    wait_for((tmp_path / "calls").exists)
    code, report = do(tmp_path, gated, "shutdown", "b2", "vera")
    assert (code, report.busy) == (75, True)
    holder = report.holder
    assert holder is not None
    assert (holder.id, holder.action, holder.actor, holder.host) == (
        "a1",
        "restart",
        "anna",
        platform.node(),
    )
    assert holder.step == "stopping the runtime"
    assert 0 <= holder.seconds < 30
    assert (tmp_path / "calls").read_text().split() == ["stop"]  # the shutdown has done nothing
    (tmp_path / "go").touch()
    await_free(tmp_path)
    assert do(tmp_path, gated, "shutdown", "c3")[0] == 3  # free again


def test_of_three_overlapping_restarts_one_runs(tmp_path: Path, gated: NodePlan) -> None:
    with ThreadPoolExecutor(3) as pool:
        codes = list(pool.map(lambda i: do(tmp_path, gated, "restart", f"a{i}")[0], range(3)))
    assert sorted(codes) == [0, 75, 75]
    (tmp_path / "go").touch()
    await_free(tmp_path)
    assert (tmp_path / "calls").read_text().split() == ["stop", "start"]


def test_a_shutdown_holds_the_lock_while_it_runs_and_when_its_caller_goes(
    tmp_path: Path, gated: NodePlan
) -> None:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    with subprocess.Popen(["/bin/sh", "-s"], stdin=subprocess.PIPE, env=environment, cwd=tmp_path) as process:
        assert process.stdin is not None
        process.stdin.write(gated.script("shutdown", Errand("a1", "anna")).encode())
        process.stdin.flush()
        wait_for((tmp_path / "calls").exists)
        code, report = do(tmp_path, gated, "restart", "b2")
        assert code == 75
        assert report.holder is not None
        assert report.holder.action == "shutdown"
        process.stdin.close()
        process.wait(20)
    await_free(tmp_path)
    (tmp_path / "go").touch()
    assert do(tmp_path, gated, "shutdown", "c3")[0] == 3


def test_a_lock_taken_by_hand_counts(tmp_path: Path, gated: NodePlan) -> None:
    (tmp_path / "go").touch()
    assert do(tmp_path, gated, "shutdown", "a1")[0] == 3
    (lock,) = (tmp_path / ".clio" / "control").glob("*.lock")
    with lock.open() as held:
        subprocess.run(["flock", str(held.fileno())], pass_fds=[held.fileno()], timeout=10, check=True)
        code, report = do(tmp_path, gated, "restart", "b2")
        assert (code, report.busy, report.holder) == (75, True, None)


def test_the_outcome_of_a_restart_that_fails(tmp_path: Path, gated: NodePlan) -> None:
    assert do(tmp_path, gated, "restart", "a1")[0] == 0
    wait_for((tmp_path / "calls").exists)
    assert outcome(tmp_path, gated, "a1") == ("running", "stopping the runtime")
    (tmp_path / "go").touch()
    assert outcome(tmp_path, gated, "a1", 10) == ("failed", "clio_run ended with exit code 3")
    assert outcome(tmp_path, gated, "a1") == ("failed", "clio_run ended with exit code 3")
    assert outcome(tmp_path, gated, "b2") == ("lost", "")


RUNTIME = (
    "import os, socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); "
    "open(sys.argv[2], 'w').write(str(os.getpid())); time.sleep(300)"
)


@pytest.fixture
def startable(tmp_path: Path) -> Iterator[tuple[NodePlan, Path]]:
    """A node whose command starts what listens on its client port; and the file with its process id."""
    port, pid = free_port(), tmp_path / "pid"
    python = executable(tmp_path, "clio-python")
    body = f"""case $1 in start)
    export PYTHONHOME={os.path.realpath(sys.base_prefix)} LD_LIBRARY_PATH={sys.base_prefix}/lib
    exec {python} -S -c "{RUNTIME}" {port + 3} "$HOME/pid" ;; esac"""
    command(tmp_path, "clio_run", body)
    yield plan(tmp_path, port, start_timeout=30.0), pid
    await_free(tmp_path)
    with contextlib.suppress(OSError, ValueError):
        os.kill(int(pid.read_text()), signal.SIGKILL)


def test_the_outcome_of_a_restart_that_succeeds(tmp_path: Path, startable: tuple[NodePlan, Path]) -> None:
    found, _pid = startable
    assert do(tmp_path, found, "restart", "a1")[0] == 0
    port = found.member.address.client_port
    assert outcome(tmp_path, found, "a1", 20) == ("succeeded", f"a new runtime listens on port {port}")
    # The runtime does not keep the lock.
    assert do(tmp_path, found, "shutdown", "b2")[0] == 0


def test_a_configured_command_that_starts_nothing_is_no_success(tmp_path: Path) -> None:
    for words, text in (
        (("true",), "true ended, and no new runtime listens"),
        (("sh", "-c", "exit 5"), "sh ended with exit code 5"),
        (("sleep", "4"), "no new runtime listens"),
    ):
        found = plan(tmp_path, commands={"restart": words})
        assert do(tmp_path, found, "restart", "a1")[0] == 0
        ending, said = outcome(tmp_path, found, "a1", 20)
        assert ending == "failed"
        assert text in said
        (tmp_path / ".clio" / "control" / "result-a1").unlink()


def test_a_restart_whose_sequence_is_killed_is_lost(tmp_path: Path, gated: NodePlan) -> None:
    done = run_script(gated.script("restart", Errand("a1")), tmp_path)
    pid = int(done.stdout.decode().split("process ")[1].split(")")[0])
    wait_for((tmp_path / "calls").exists)
    os.kill(pid, signal.SIGKILL)
    assert outcome(tmp_path, gated, "a1", 10)[0] == "lost"


def test_a_restart_whose_sequence_is_asked_to_end_says_so(tmp_path: Path, gated: NodePlan) -> None:
    done = run_script(gated.script("restart", Errand("a1")), tmp_path)
    pid = int(done.stdout.decode().split("process ")[1].split(")")[0])
    wait_for((tmp_path / "calls").exists)
    os.kill(pid, signal.SIGTERM)
    (tmp_path / "go").touch()
    assert outcome(tmp_path, gated, "a1", 10) == ("failed", "the restart was ended by a signal")


def test_without_flock_nothing_is_done(tmp_path: Path) -> None:
    for name in ("sh", "uname", "tr", "mkdir", "find", "id", "date", "cat", "sed", "sleep"):
        program = shutil.which(name)
        assert program is not None
        (tmp_path / name).symlink_to(program)
    command(tmp_path, "clio_run", 'echo "$1" >>"$HOME/calls"')
    found = plan(tmp_path, environment={"PATH": str(tmp_path)})
    for action in ("shutdown", "restart"):
        code, report = do(tmp_path, found, action, "a1")
        assert (code, report.unlocked) == (69, True)
        assert "flock is missing on this node: install it (package util-linux)" in report.stderr
    assert not (tmp_path / "calls").exists()


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_directory_that_others_can_write_is_no_place_for_a_lock(
    tmp_path: Path, gated: NodePlan, mode: int
) -> None:
    locks = tmp_path / "locks"
    locks.mkdir()
    locks.chmod(mode)
    found = plan(tmp_path, lock_directory=str(locks))
    code, report = do(tmp_path, found, "shutdown", "a1")
    assert (code, report.unlocked) == (69, True)
    assert f"others can write in {locks}" in report.stderr
    locks.chmod(0o700)
    (tmp_path / "go").touch()
    assert do(tmp_path, found, "shutdown", "a1")[0] == 3
    assert [path.suffix for path in locks.iterdir()] == [".lock"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_another_users_directory_is_no_place_for_a_lock(tmp_path: Path, gated: NodePlan) -> None:
    locks = tmp_path / "locks"
    locks.mkdir(0o700)
    os.chown(locks, 65534, -1)
    code, report = do(tmp_path, plan(tmp_path, lock_directory=str(locks)), "shutdown", "a1")
    assert (code, report.unlocked) == (69, True)


def test_old_results_are_removed(tmp_path: Path, gated: NodePlan) -> None:
    (tmp_path / "go").touch()
    locks = tmp_path / ".clio" / "control"
    locks.mkdir(parents=True, mode=0o700)
    for name, age in (("result-a1", 0), ("result-b2", 3 * 86400)):
        (locks / name).write_text("succeeded 1 x\n")
        when = (locks / name).stat().st_mtime - age
        os.utime(locks / name, (when, when))
    do(tmp_path, gated, "shutdown", "c3")
    assert {path.name for path in locks.glob("result-*")} == {"result-a1"}


def test_reports_are_told_from_what_commands_print() -> None:
    raw = (
        b"careful\n#clio-b2 started\n#clio-a1 busy 120 b2 restart anna login1 100 stopping it \n"
        b"#clio-a1 \nlast"
    )
    report = read_report(raw, "a1")
    assert report.busy
    assert not report.started
    assert report.holder is not None
    assert (report.holder.seconds, report.holder.step) == (20, "stopping it")
    assert report.stderr == "careful\n#clio-b2 started\nlast"


@pytest.mark.parametrize(
    "note",
    ["", "120", "120 b2 restart anna", "x b2 restart anna login1 100", "120 b2 restart anna login1 -1"],
)
def test_a_note_that_is_none_says_nothing(note: str) -> None:
    report = read_report(f"#clio-a1 busy {note}\n".encode(), "a1")
    assert report.busy
    assert report.holder is None


def test_an_id_or_a_name_cannot_leave_its_place(tmp_path: Path, gated: NodePlan) -> None:
    with pytest.raises(ValueError, match="not an action's id"):
        gated.script("shutdown", Errand("a1;id", "anna"))
    assert do(tmp_path, gated, "restart", "a1", "an na'$(touch bad)\n")[0] == 0
    report = do(tmp_path, gated, "shutdown", "b2")[1]
    assert report.holder is not None
    assert report.holder.actor == "an_na___touch_bad__"

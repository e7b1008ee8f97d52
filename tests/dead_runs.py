"""What test processes that were killed have left: runtimes, servers, loopback addresses, directories.

Each process that runs tests has a record while it does, and everything it starts is known by the record's
name in its environment, or by a directory of the run. A record whose process is gone tells the next
run, or the one that had started that process, what to end and remove; nobody else's things are touched.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil
from filelock import FileLock

from clio_lab.demo.state import MARK as STATE_MARK
from clio_lab.demo.state import ProcessRecord, State
from clio_web import processes
from tests.paths import ROOT

RUNS: Final = ROOT / ".cache" / "test-runs"
MARK: Final = "CLIO_TEST_RUN"
"""Environment variable with the path of the record of the process that runs the tests."""
_LOCK_SECONDS = 120.0


@contextlib.contextmanager
def recorded(basetemp: Path, runs: Path = RUNS) -> Iterator[None]:
    """Keep a record of this process, which works below `basetemp`, in the block; first remove the dead."""
    remove_dead(runs)
    me = ProcessRecord.of(psutil.Process(), "tests")
    record = runs / f"{me.pid}.json"
    runs.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps({"pid": me.pid, "created": me.created, "basetemp": str(basetemp)}))
    before = os.environ.get(MARK)
    os.environ[MARK] = str(record)
    try:
        yield
    finally:
        os.environ.pop(MARK)
        if before is not None:
            os.environ[MARK] = before
        record.unlink(missing_ok=True)


def remove_dead(runs: Path = RUNS) -> list[str]:
    """End and remove what dead processes left, and their records; return what was done, for people."""
    done: list[str] = []
    if not runs.is_dir():
        return done
    with FileLock(runs / "lock", timeout=_LOCK_SECONDS):
        for record in sorted(runs.glob("*.json")):
            found = _read(record)
            if found is None:  # killed while it was written, before it had started anything
                record.unlink(missing_ok=True)
            elif found[0].process() is None:
                done += _remove(record, found[1])
    return done


def _read(record: Path) -> tuple[ProcessRecord, Path] | None:
    try:
        raw = json.loads(record.read_text(encoding="utf-8"))
        return ProcessRecord(raw["pid"], raw["created"], "tests"), Path(raw["basetemp"])
    except (OSError, ValueError, KeyError):
        return None


def _remove(record: Path, basetemp: Path) -> list[str]:
    done = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # gone meanwhile, or somebody else's
            if process.pid != os.getpid() and _belongs(process, record, basetemp):
                done.append(f"ended {process.name()} (pid {process.pid}) of a killed test run")
                processes.kill(process)
    for mounted in _mounted_below(basetemp):
        subprocess.run(["umount", "-l", mounted], timeout=30, check=False)
        done.append(f"unmounted {mounted} of a killed test run")
    for state in basetemp.rglob("state.json"):
        done += State.load(state).clean()
    record.unlink(missing_ok=True)
    return done


def _mounted_below(directory: Path) -> list[str]:
    """Where there are file systems below it; a blank in the path is written as \\040."""
    lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    places = [line.split()[1].replace("\\040", " ") for line in lines]
    return [place for place in places if directory in Path(place).parents]


def _belongs(process: psutil.Process, record: Path, basetemp: Path) -> bool:
    """Whether a process was started by the tests that `record` is of; raises psutil.Error."""
    environment = process.environ()
    if environment.get(MARK) == str(record):
        return True
    # What the tests start with an environment of its own: runtimes, exporters, demos.
    if any(basetemp in Path(environment.get(name, "/")).parents for name in ("HOME", STATE_MARK)):
        return True
    # Who looks at a file of the run does so from a terminal.
    if process.terminal() is not None:
        return False
    # sshd writes over its environment, and slurmstepd over its command line too, but it has a log.
    if process.name() == "slurmstepd":
        return any(basetemp in Path(opened.path).parents for opened in process.open_files())
    return f"{basetemp}/" in " ".join(process.cmdline())

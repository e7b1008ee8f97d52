"""Job mode: the nodes of a job, its directory, and processes told apart by start time."""

from __future__ import annotations

import argparse
import dataclasses
import errno
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
import yaml

from clio_client.config.errors import ConfigError
from clio_exporter.job import command, lifecycle, marks, processes, state
from clio_exporter.job.marks import Mark
from clio_exporter.job.nodes import MAX_NODES, expand, find_job, find_nodes
from clio_exporter.job.state import Job, ProcessRecord, StartRecord

JOB = Job(host="here", labels={"job_id": "17", "job_name": "b"}, nodes=2, interval=1.0, began=1000.0)


@pytest.mark.parametrize(
    ("listed", "names"),
    [
        ("one", ["one"]),
        ("a,b-1.example", ["a", "b-1.example"]),
        ("n[1-3]", ["n1", "n2", "n3"]),
        ("n[08-11,007]", ["n08", "n09", "n10", "n11", "n007"]),
        ("n[1,3],login", ["n1", "n3", "login"]),
        ("r[0-1]n[1-2]-ib", ["r0n1-ib", "r0n2-ib", "r1n1-ib", "r1n2-ib"]),
    ],
)
def test_a_host_list_is_expanded(listed: str, names: list[str]) -> None:
    assert expand(listed, "X") == names


@pytest.mark.parametrize(
    "listed",
    ["", "n[1-3", "n]1[", "n[3-1]", "n[a]", "n[]", "a,,b", "a b", f"n[0-{MAX_NODES}]", "n[1-999][1-999]"],
)  # fmt: skip
def test_what_is_no_host_list_is_named(listed: str) -> None:
    with pytest.raises(ConfigError, match=r"X: .*hostfile"):
        expand(listed, "X")


def test_the_schedulers_own_word_comes_first() -> None:
    asked: list[Sequence[str]] = []

    def run(command: Sequence[str]) -> str | None:
        asked.append(command)
        return "z2\nz1\n"

    assert find_nodes({"SLURM_JOB_NODELIST": "z[2,1]"}, run) == ["z2", "z1"]
    assert asked == [["scontrol", "show", "hostnames", "z[2,1]"]]
    assert find_nodes({"SLURM_JOB_NODELIST": "z[2,1]"}, lambda _: None) == ["z2", "z1"]
    for env in ({}, {"FLUX_URI": "local"}):
        with pytest.raises(ConfigError, match="--hostfile"):
            find_nodes(env, lambda _: None)


# What flux-environment(7) says is set, and the source of hosts that is the job's: in a job without an
# instance of its own (`flux run`), in the script of `flux batch`, in a step of that, and below the
# `flux start` of another scheduler.
FLUX = {
    "step": ({"FLUX_URI": "local:///run/flux/local", "FLUX_JOB_ID": "ƒ2Qz"}, "ƒ2Qz", "local"),
    "batch": ({"FLUX_URI": "local:///tmp/flux-x/local-0", "FLUX_ENCLOSING_ID": "ƒ2mo"}, "ƒ2mo", "instance"),
    "step of batch": (
        {"FLUX_URI": "local:///tmp/flux-x/local-0", "FLUX_JOB_ID": "ƒ9X", "FLUX_ENCLOSING_ID": "ƒ2mo"},
        "ƒ2mo",
        "instance",
    ),
    "instance": ({"FLUX_URI": "local:///tmp/flux-x/local-0"}, None, "local"),
}


@pytest.mark.parametrize(("env", "job_id", "source"), FLUX.values(), ids=FLUX)
@pytest.mark.parametrize(
    ("printed", "names"),
    [("z2 z1 z10\n", ["z2", "z1", "z10"]), ("one one one\n", ["one"]), ("b a b a\n", ["b", "a"])],
    ids=["a broker on each host", "three brokers on one host", "two on each"],
)
def test_flux_tells_the_hosts_of_the_allocation(
    env: dict[str, str], job_id: str | None, source: str, printed: str, names: list[str]
) -> None:
    asked: list[Sequence[str]] = []

    def run(command: Sequence[str]) -> str | None:
        asked.append(command)
        return printed

    assert find_nodes(env, run) == names
    assert asked == [["flux", "hostlist", "--expand", source]]
    assert find_job(env) == job_id
    expected = {"user": "me"} if job_id is None else {"job_id": job_id, "user": "me"}
    assert lifecycle.identity(env, "me", None, None) == expected


def test_a_step_of_flux_finds_the_directory_of_its_allocation() -> None:
    asked = argparse.Namespace(directory=None)
    for name in ("batch", "step of batch"):
        assert command._chosen(asked, FLUX[name][0]) == Path("clio-job-f2mo")


def test_who_the_job_is() -> None:
    slurm = {"SLURM_JOB_ID": "17", "SLURM_JOB_USER": "ann", "SLURM_JOB_NAME": "sort"}
    assert lifecycle.identity(slurm, "root", None, None) == {
        "job_id": "17",
        "user": "ann",
        "job_name": "sort",
    }
    assert lifecycle.identity(slurm, "root", "x", "y") == {"job_id": "x", "user": "ann", "job_name": "y"}
    assert lifecycle.identity({"FLUX_JOB_ID": "f2"}, "me", None, None) == {"job_id": "f2", "user": "me"}


def test_the_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "b"
    claimed = state.claim(directory, dataclasses.replace(JOB, start=StartRecord(1, 2.5, "m")))
    assert (claimed.made, claimed.starting) == (True, True)
    assert state.load(directory, starting=True) == claimed
    with pytest.raises(ConfigError, match="start has not come to its end"):
        state.load(directory)
    with pytest.raises(FileExistsError):
        state.claim(directory, JOB)
    job = dataclasses.replace(JOB, processes={"exporter": ProcessRecord(1, 2.5, 3)}, ended=1010.0)
    state.save(directory, job)
    assert state.load(directory) == job
    assert [path.name for path in directory.iterdir()] == [state.STATE]


def test_a_directory_is_claimed_also_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    claimed = state.claim(tmp_path, JOB)
    assert state.load(tmp_path, starting=True) == claimed
    with pytest.raises(FileExistsError):
        state.claim(tmp_path, JOB)
    assert [path.name for path in tmp_path.iterdir()] == [state.STATE]


def test_what_is_no_directory_cannot_be_claimed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        state.claim(tmp_path / "file", JOB)


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ([], None),
        (["--port", "1", "--sd.file", "a.json"], "a.json"),
        (["--sd.file=/b/c.json", "--sd.lease", "20"], "/b/c.json"),
        (["--sd.file"], None),
        (["--sd.lease", "never", "--sd.file", "a.json"], None),
    ],
)
def test_the_target_file_is_known_from_the_exporters_arguments(
    arguments: list[str], path: str | None
) -> None:
    assert lifecycle._target(arguments) == (None if path is None else str(Path(path).absolute()))


def test_a_start_is_cleared_on_its_host_alone(tmp_path: Path) -> None:
    state.claim(tmp_path, JOB)
    with pytest.raises(ConfigError, match="started on here"):
        lifecycle.clear(tmp_path)


def job_json(**changes: str) -> str:
    """A job's file with parts of it, as JSON, put into the place of others."""
    parts = {
        "host": '"h"',
        "labels": "{}",
        "nodes": "1",
        "interval": "1",
        "began": "1",
        "processes": "{}",
        **changes,
    }
    return '{"version": 1, ' + ", ".join(f'"{name}": {text}' for name, text in parts.items()) + "}"


def test_a_state_is_what_its_form_says(tmp_path: Path) -> None:
    (tmp_path / state.STATE).write_text(job_json(ended="null"))
    assert state.load(tmp_path).ended is None


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", '{"version": 9}', '{"version": 1, "processes": 3}', "[" * 2000, job_json(host="1"),
        job_json(labels="1"), job_json(labels='{"job_id": 1}'), job_json(interval="1" + "0" * 400),
        job_json(began="NaN"), job_json(nodes="true"), job_json(ended='"x"'), job_json(more="1"),
        job_json(processes='{"exporter": {"pid": "1", "started": 1, "port": 1}}'),
        job_json(starting="1"), job_json(start='{"pid": 1}'), job_json(target="7"),
        job_json(start='{"pid": 1, "started": 1, "mark": 1}'),
    ],
    ids=range(19),
)  # fmt: skip
def test_a_state_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        state.load(tmp_path)
    (tmp_path / state.STATE).write_text(text)
    with pytest.raises(ConfigError, match=r"job\.json"):
        state.load(tmp_path)


def test_only_the_process_that_was_started_is_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        began = psutil.Process(child.pid).create_time()
        another = ProcessRecord(child.pid, began - 60, 0)
        assert processes.running(another) is None
        assert processes.end(another, 0.1)
        assert child.poll() is None
        own = ProcessRecord(child.pid, began, 0)
        assert processes.end(own, 10)
        assert child.wait(10) == -15
        assert processes.running(own) is None


def test_a_process_that_does_not_end_is_killed() -> None:
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); input()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as child:
        assert child.stdout is not None
        child.stdout.readline()
        record = ProcessRecord(child.pid, psutil.Process(child.pid).create_time(), 0)
        assert not processes.end(record, 0.2)
        assert child.wait(10) == -9


def test_stop_is_for_the_host_of_the_start(tmp_path: Path) -> None:
    record = ProcessRecord(os.getpid(), psutil.Process().create_time(), 0)
    state.save(tmp_path, dataclasses.replace(JOB, processes={"exporter": record}))
    with pytest.raises(ConfigError, match="started on here"):
        lifecycle.stop(tmp_path)


def test_marks_are_kept_in_order(tmp_path: Path) -> None:
    marks.add(tmp_path, Mark(20.0, 'two "ü"'))
    marks.add(tmp_path, Mark(10.0, "one"))
    with (tmp_path / state.MARKS).open("a") as torn:
        for odd in ("[]", '{"time": NaN, "text": "x"}', '{"time": 1, "text": "\\ud800"}', "[" * 2000):
            torn.write(f"{odd}\n")
        torn.write('{"time": 1' + "0" * 400 + ', "text": "x"}\n{"time": 30')
    assert marks.read(tmp_path) == [Mark(10.0, "one"), Mark(20.0, 'two "ü"')]
    made = yaml.safe_load(marks.rules(JOB, marks.read(tmp_path)))["groups"][0]["rules"]
    assert made[1] == {
        "record": "clio_annotation_timestamp_seconds",
        "labels": {"job_id": "17", "job_name": "b", "text": 'two "ü"'},
        "expr": "vector(20.000)",
    }


@pytest.mark.parametrize("text", ["", " ", "a\nb", "x" * 201])
def test_a_mark_has_a_text(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="TEXT"):
        marks.add(tmp_path, Mark(1.0, text))
    assert marks.read(tmp_path) == []

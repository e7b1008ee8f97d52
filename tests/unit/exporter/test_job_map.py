"""Whose job is on a node: files of the directory, and which node is meant."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from clio_client.config.errors import ConfigError
from clio_exporter import job_map
from clio_exporter.engine import Engine
from clio_exporter.job_map import JobFileError, JobMap, JobsOfNodes, NodeJob, parse
from clio_exporter.settings import CollectorSettings, LabelSettings, Settings

FILE = "job_id=17\nuser=ann\nnode=N1.site 10.0.0.1\n"


def ids(jobs: list[NodeJob]) -> list[str]:
    return [dict(job.labels)["job_id"] for job in jobs]


def test_a_file() -> None:
    job = parse(FILE + "\njob_name=sort = b\naccount=x\n")
    assert job.nodes == ("n1.site", "10.0.0.1")
    assert job.labels == (("job_id", "17"), ("user", "ann"), ("job_name", "sort = b"))
    assert parse(FILE).labels == (("job_id", "17"), ("user", "ann"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no job_id"),
        ("job_id=1\nuser=\nnode=a\n", "no user"),
        ("job_id=1\nuser=u\n", "no node"),
        ("job_id\n", "line 1"),
        (FILE + "user=bob\n", "again"),
        (f"job_id=1\nuser={'u' * 257}\nnode=a\n", "longer"),
        ("job_id=1\nuser=\x1b[2J\nnode=a\n", "printable"),
    ],
)
def test_what_is_no_job(text: str, problem: str) -> None:
    with pytest.raises(JobFileError, match=problem):
        parse(text)


def test_which_node_is_meant() -> None:
    texts = {"1": "n1", "2": "n1.site", "3": "n2 10.0.0.1", "4": "10.0.0.2"}
    nodes = JobsOfNodes(parse(f"job_id={job}\nuser=u\nnode={node}") for job, node in texts.items())
    assert ids(nodes.of("n1")) == ["1", "2"]
    assert ids(nodes.of("N1.site")) == ["2", "1"]
    assert ids(nodes.of("n1.other")) == ["1"]
    assert ids(nodes.of("n2", "10.0.0.1")) == ["3"]
    assert ids(nodes.of("10")) == ids(nodes.of("n")) == []


def test_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = JobMap(tmp_path / "jobs")
    assert not jobs.read().complete  # there is none
    (tmp_path / "jobs").mkdir()
    good = tmp_path / "jobs" / "17.n1.job"
    good.write_text(FILE)
    (tmp_path / "jobs" / "18.n1.tmp").write_text("job_id=")
    jobs.begin()
    read = jobs.result(30)
    assert (ids(list(read.jobs)), read.complete) == (["17"], True)

    for name, content in (("a", b"user=x\n"), ("b", b"#" * (job_map.MAX_BYTES + 1)), ("c", b"\xff")):
        (tmp_path / "jobs" / f"{name}.job").write_bytes(content)
    os.mkfifo(tmp_path / "jobs" / "d.job")
    read = jobs.read()
    assert (ids(list(read.jobs)), read.complete) == (["17"], False)
    for name in "abcd":
        (tmp_path / "jobs" / f"{name}.job").unlink()

    good.write_text(FILE.replace("17", "1700"))
    read = jobs.read()
    assert (ids(list(read.jobs)), read.complete) == (["1700"], True)
    good.unlink()
    assert jobs.read().jobs == ()

    monkeypatch.setattr(job_map, "MAX_FILES", 2)
    for name in "efg":
        (tmp_path / "jobs" / f"{name}.job").write_text(FILE)
    read = jobs.read()
    assert (len(read.jobs), read.complete) == (2, False)


def test_a_directory_that_hangs_costs_a_scrape_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    jobs = JobMap(tmp_path)
    monkeypatch.setattr(jobs, "read", lambda: go_on.wait(60) and job_map.JobList())
    jobs.begin()
    assert jobs.result(0.01) == job_map.JobList(complete=False)
    go_on.set()
    assert jobs.result(60) == job_map.JobList()


def test_a_label_of_all_series_and_one_that_tells_jobs_apart_exclude_each_other(tmp_path: Path) -> None:
    labels = LabelSettings((("job_id", "17"),))
    settings = Settings(labels=labels, collectors=CollectorSettings(node_job_directory=tmp_path))
    with pytest.raises(ConfigError, match="label job_id"):
        Engine(lambda: settings, {}, tmp_path)
    Engine(lambda: Settings(labels=labels), {}, tmp_path).close()

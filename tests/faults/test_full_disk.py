"""A disk that is really full, under the state of the control API and the files of the exporter.

It is a small tmpfs, for which it takes root. What is full gives a part of a line its last free bytes, and
nothing to the rest: that is what a simulated failure of `write` does not show.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from clio_client.address import CLIENT_PORT_OFFSET
from clio_client.config.errors import ConfigError
from clio_control_api import audit, operator_token
from clio_control_api.known_hosts import HostName, KnownHosts
from clio_control_api.principals import Role
from clio_control_api.ssh_errors import HostKeyError
from clio_control_api.tokens import line_of, load_tokens, new_token
from clio_exporter.job import marks
from clio_exporter.scrape_command import write_atomically
from tests.exporter_process import eventually
from tests.ports import closed_port
from tests.unit.control_api.support import TOKENS, Api, control_api

SIZE = 256 * 1024
PAGE = os.sysconf("SC_PAGESIZE")
ANNA = TOKENS["anna"][1]
RESTART = "/api/topology/node/0/restart"


class Disk:
    """A file system of its own; `fill` leaves no page free on it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fill(self) -> None:
        with (self.path / "ballast").open("ab", buffering=0) as ballast:
            for size in (PAGE, 1):
                with contextlib.suppress(OSError):
                    while ballast.write(bytes(size)):
                        pass
        with pytest.raises(OSError, match="No space left") as full:
            (self.path / "more").write_bytes(b"x")
        assert full.value.errno == errno.ENOSPC
        (self.path / "more").unlink()

    def free(self) -> None:
        (self.path / "ballast").unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    path = tmp_path / "disk"
    path.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk takes root")
    options = f"size={SIZE},mode=700"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "-l", str(path)], timeout=30, check=True)


@pytest.fixture
def api(tmp_path: Path, disk: Disk) -> Iterator[Api]:
    """A control API with its state on the disk, for one node that is down; SSH is refused."""
    with closed_port() as port:
        settings = {"state_dir": str(disk.path / "state"), "ssh": {"host": "127.0.0.1", "port": port}}
        with control_api(
            tmp_path, f"127.0.0.1:{port - CLIENT_PORT_OFFSET}\n", tokens=True, **settings
        ) as built:
            yield built


def audit_problems(api: Api) -> list[str]:
    return audit.problems(api.built.services.settings.audit_path.read_bytes().splitlines(keepends=True))


def test_nothing_is_done_while_the_audit_log_cannot_be_written(api: Api, disk: Disk) -> None:
    assert api.post(RESTART, ANNA).status_code == 502  # SSH is refused
    path = api.built.services.settings.audit_path
    disk.fill()
    # Its last page may have room for some entries; the one that has none leaves no part of itself.
    while (answer := api.post(RESTART, ANNA)).status_code != 503:
        assert answer.status_code == 502
    before = path.read_bytes()
    assert "nothing is done" in answer.json["error"]
    again = api.post(RESTART, ANNA)
    assert again.status_code == 503
    assert path.read_bytes() == before
    assert audit_problems(api) == []
    # What changes nothing goes on.
    assert api.get("/api/topology", ANNA).status_code == 200
    assert api.get("/metrics", ANNA).status_code == 200
    disk.free()
    assert api.post(RESTART, ANNA).status_code == 502
    assert audit_problems(api) == []
    assert len(path.read_bytes()) > len(before)


def test_an_operation_that_cannot_be_written_down_does_not_begin(api: Api, disk: Disk) -> None:
    directory = api.built.services.settings.state_dir / "operations"
    directory.mkdir(mode=0o700)
    disk.fill()
    answer = api.post("/api/topology/rolling-restart", ANNA, json={"nodes": ""})
    assert answer.status_code == 503
    assert "nothing" in answer.json["error"]
    assert list(directory.glob("*.json")) == []
    assert api.get("/api/operations", ANNA).json == {"operations": []}
    disk.free()
    begun = api.post("/api/topology/rolling-restart", ANNA, json={"nodes": ""})
    assert begun.status_code == 202, begun.text
    path = directory / f"{begun.json['id']}.json"
    eventually("it has ended", lambda: json.loads(path.read_text())["ended"], 60)
    assert audit_problems(api) == []


def test_an_operation_under_way_begins_no_further_node(disk: Disk, tmp_path: Path) -> None:
    with socket.socket() as silent, closed_port() as port:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        ssh = {"host": "127.0.0.1", "port": silent.getsockname()[1], "connect_timeout": "3s"}
        hosts = "".join(f"127.0.0.{i}:{port - CLIENT_PORT_OFFSET}\n" for i in (1, 2))
        settings = {"state_dir": str(disk.path / "state"), "ssh": ssh}
        with control_api(tmp_path, hosts, tokens=True, **settings) as api:
            begun = api.post("/api/topology/rolling-restart", ANNA, json={"nodes": ""}).json["id"]
            path = disk.path / "state" / "operations" / f"{begun}.json"
            eventually("it acts", lambda: "acting" in path.read_text(), 20)
            disk.fill()
            where = f"/api/operations/{begun}"
            eventually("it has ended", lambda: api.get(where, ANNA).json["state"] == "failed", 60)
            found = api.get(where, ANNA).json
            assert "No space left on device" in found["message"]
            assert [node["state"] for node in found["nodes"]].count("acting") == 1
            assert "checking" not in str(found)
            kept = json.loads(path.read_text())
            assert kept["state"] == "running"
            assert audit_problems(api) == []
        disk.free()
        with control_api(tmp_path, hosts, tokens=True, resume_within="0s", **settings) as api:
            found = api.get(where, ANNA).json
            assert found["state"] == "interrupted", found
            assert audit_problems(api) == []


def test_no_token_is_made_where_there_is_no_room(disk: Disk) -> None:
    disk.fill()
    before = sorted(disk.path.iterdir())
    with pytest.raises(ConfigError, match="No space left on device") as error:
        operator_token.ensure_tokens(disk.path)
    assert error.value.remedy
    assert sorted(disk.path.iterdir()) == before


def filled_to(path: Path, text: str, comment: str, room: int) -> None:
    """The file has this text after comments, and so many bytes are left in its last page."""
    missing = (-len(text) - room) % PAGE or PAGE
    line = comment + "x" * 60 + "\n"
    lines, rest = divmod(missing, len(line))
    path.write_text(line * (lines - 1) + comment + "x" * (len(line) + rest - len(comment) - 1) + "\n" + text)
    assert path.stat().st_size % PAGE == PAGE - room


def test_a_token_is_added_whole_or_not_at_all(disk: Disk) -> None:
    path = disk.path / "tokens"
    filled_to(path, line_of("anna", Role.OPERATOR, new_token()) + "\n", "#", 40)
    path.chmod(0o600)
    before = path.read_bytes()
    disk.fill()
    with pytest.raises(ConfigError, match="No space left on device"):
        operator_token.add_line(path, line_of("bert", Role.VIEWER, new_token()))
    assert path.read_bytes() == before
    assert load_tokens(path).problems == ()
    disk.free()
    operator_token.add_line(path, line_of("bert", Role.VIEWER, new_token()))
    assert sorted(token.name for token in load_tokens(path).tokens.values()) == ["anna", "bert"]


def test_a_host_key_is_remembered_whole_or_not_at_all(disk: Disk) -> None:
    path = disk.path / "known_hosts"
    known, new = (paramiko.ECDSAKey.generate() for _ in range(2))
    filled_to(path, f"node1 {known.get_name()} {known.get_base64()}\n", "#", 40)
    before = path.read_bytes()
    disk.fill()
    with pytest.raises(HostKeyError, match="cannot be remembered"):
        KnownHosts(path).check(HostName("node2"), new, "accept-new")
    assert path.read_bytes() == before
    KnownHosts(path).check(HostName("node1"), known, "strict")
    disk.free()
    KnownHosts(path).check(HostName("node2"), new, "accept-new")
    KnownHosts(path).check(HostName("node2"), new, "strict")


def test_a_mark_that_is_not_kept_is_an_error(disk: Disk) -> None:
    path = disk.path / marks.MARKS
    filled_to(path, json.dumps({"time": 1.0, "text": "kept"}) + "\n", "#", 10)
    disk.fill()
    with pytest.raises(ConfigError, match="No space left on device"):
        marks.add(disk.path, marks.Mark(2.0, "lost"))
    disk.free()
    marks.add(disk.path, marks.Mark(3.0, "later"))
    assert [mark.text for mark in marks.read(disk.path)] == ["kept", "later"]


def test_a_file_that_is_replaced_stays_the_old_one(disk: Disk) -> None:
    path = disk.path / "clio.prom"
    write_atomically(path, "old\n")
    disk.fill()
    with pytest.raises(OSError, match="No space left on device"):
        write_atomically(path, "new\n" * PAGE)
    assert path.read_text() == "old\n"
    assert sorted(found.name for found in disk.path.iterdir()) == ["ballast", "clio.prom"]

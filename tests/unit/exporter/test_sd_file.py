"""`--sd.file`: whose the file is, and that it goes when its owner does."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from clio_client.config.errors import ConfigError
from clio_exporter import sd_file
from clio_exporter.sd_file import OWNER, TargetFile, advertised, target_group
from tests.exporter_process import eventually

LEASE = 1.0


def write(path: Path, owner: str, age: float) -> None:
    path.write_text(json.dumps(target_group("gone:9777", owner, {})))
    os.utime(path, (time.time() - age, time.time() - age))


def targets(path: Path) -> list[str]:
    found: list[str] = json.loads(path.read_text())[0]["targets"]
    return found


def test_what_prometheus_is_told() -> None:
    assert target_group("h:1", "me", {"site": "x"}) == [
        {"targets": ["h:1"], "labels": {OWNER: "me", "__meta_clio_label_site": "x"}}
    ]
    special = target_group("h:1", "me", {}, tls=True, path="/m")[0]["labels"]
    assert special == {OWNER: "me", "__scheme__": "https", "__metrics_path__": "/m"}


def test_it_is_there_while_it_is_open_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "clio.json"
    with TargetFile(path, LEASE) as file:
        assert not path.exists()
        file.publish("h:1", dict)
        assert targets(path) == ["h:1"]
        assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == []


def test_the_lease_is_renewed_and_a_removed_file_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "clio.json"
    with TargetFile(path, LEASE) as file:
        file.publish("h:1", dict)
        os.utime(path, (0, 0))
        eventually("renewed", lambda: time.time() - path.stat().st_mtime < 5)
        path.unlink()
        eventually("written again", path.exists)
        assert targets(path) == ["h:1"]


def test_labels_that_change_are_written(tmp_path: Path) -> None:
    path = tmp_path / "clio.json"
    labels = {"site": "x"}
    with TargetFile(path, LEASE) as file:
        file.publish("h:1", lambda: labels)
        labels = {"site": "y"}
        written = target_group("h:1", file.owner, labels)
        eventually("the new labels", lambda: json.loads(path.read_text()) == written)


def test_one_that_is_held_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clio.json"
    with TargetFile(path, LEASE) as first:
        for publish in (False, True):
            if publish:
                first.publish("h:1", dict)
            with pytest.raises(ConfigError, match="belongs to an exporter that runs on this host"):
                TargetFile(path, LEASE).take()
        assert targets(path) == ["h:1"]


def test_one_of_another_host_counts_for_its_lease(tmp_path: Path) -> None:
    path = tmp_path / "clio.json"
    write(path, "elsewhere:1:a", age=10)
    with pytest.raises(ConfigError, match=r"belongs to elsewhere:1:a, which renewed it 1[0-9] s ago"):
        TargetFile(path, 60).take()
    assert targets(path) == ["gone:9777"]
    assert [p.name for p in tmp_path.iterdir()] == ["clio.json"]
    with TargetFile(path, 5) as file:
        file.publish("h:1", dict)
        assert targets(path) == ["h:1"]
    assert not path.exists()


def test_one_of_a_killed_process_of_this_host_is_taken_over_at_once(tmp_path: Path) -> None:
    path = tmp_path / "clio.json"
    dead = TargetFile(path, 60)
    write(path, dead.owner, age=0)
    with TargetFile(path, 60) as file:
        file.publish("h:1", dict)
        assert targets(path) == ["h:1"]


def test_without_locks_only_the_lease_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(_handle: int, _how: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(sd_file.fcntl, "flock", no_locks)
    path = tmp_path / "clio.json"
    write(path, "here:7:a", age=10)
    assert not TargetFile(path, 0).remove_left("here", 70)
    assert path.exists()
    assert TargetFile(path, 0).remove_left("here", 7)
    assert not path.exists()
    write(path, TargetFile(path, 60).owner, age=10)
    with pytest.raises(ConfigError, match="renewed it"):
        TargetFile(path, 60).take()
    with TargetFile(path, 5) as file:
        file.publish("h:1", dict)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_one_has_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "clio.json"
    assert not TargetFile(path, 0).remove_left("here", None)
    with TargetFile(path, LEASE) as file:
        file.publish("h:1", dict)
        assert not TargetFile(path, 0).remove_left(file.owner.partition(":")[0], os.getpid())
        assert targets(path) == ["h:1"]
    write(path, "elsewhere:7:a", age=100)
    assert not TargetFile(path, 0).remove_left("here", 7)
    path.write_text("[]")
    assert not TargetFile(path, 0).remove_left("here", 7)
    write(path, "here:7:a", age=0)
    (tmp_path / ".clio.json.lock").touch()
    assert TargetFile(path, 0).remove_left("here", None)
    assert list(tmp_path.iterdir()) == []
    assert not TargetFile(tmp_path / "none" / "x.json", 0).remove_left("here", 7)


def test_one_that_was_taken_over_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "clio.json"
    with TargetFile(path, LEASE) as file:
        file.publish("h:1", dict)
        write(path, "elsewhere:1:a", age=0)
    assert targets(path) == ["gone:9777"]


def test_a_file_of_somebody_else_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "clio.json"
    for content in (b"[]", b"[" * 2000, b'[{"targets": ["\xeb"]}]'):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="no exporter has written it"):
            TargetFile(path, LEASE).take()
    assert [p.name for p in tmp_path.iterdir()] == ["clio.json"]
    with pytest.raises(ConfigError, match="cannot be used"):
        TargetFile(tmp_path / "none" / "clio.json", LEASE).take()


def test_settings() -> None:
    given = {"file": Path("/x/a.json"), "address": None, "lease": 60.0}
    assert sd_file.target_file(given).path == Path("/x/a.json")
    assert sd_file.target_file({**given, "address": "[::1]:9777"})
    for wrong in (
        {"file": Path("/x/a.txt")},
        {"address": "host"},
        {"address": "a b:1"},
        {"address": "http://h:1"},
    ):
        with pytest.raises(ConfigError):
            sd_file.target_file({**given, **wrong})


def test_the_address() -> None:
    assert advertised("127.0.0.1", 9777) == "127.0.0.1:9777"
    assert advertised("::1", 9777) == "[::1]:9777"
    for everywhere in ("", "0.0.0.0", "::"):
        host, _, port = advertised(everywhere, 1).rpartition(":")
        assert host not in ("", "0.0.0.0", "::")
        assert port == "1"

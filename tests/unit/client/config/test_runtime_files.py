"""The runtimes' configuration files: one a cluster or one a node, and what one bad name or file costs."""

from __future__ import annotations

from pathlib import Path

import pytest

from clio_client.config.runtime_files import RuntimeConfigFiles
from clio_client.config.settings import ClusterSettings
from clio_client.membership import Member
from clio_client.transport.interface import NodeAddress


def member(node_id: int, hostname: str) -> Member:
    return Member("", node_id, hostname, NodeAddress(hostname, 9413, node_id))


def files(path: str, home: Path) -> RuntimeConfigFiles:
    return RuntimeConfigFiles(ClusterSettings(runtime_config=path), {}, home)


@pytest.mark.parametrize(
    "name", ["bad_host!", "../a", "..", "a/b", "a\x00b", "\ud800", "x" * 64, "x" * 300, "a\n", "-", "[", ""]
)
def test_a_name_that_is_none_costs_only_its_own_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.yaml").write_text("x: 1")
    found = files(f"{tmp_path}/{{hostname}}.yaml", tmp_path).read([member(0, "a"), member(1, name)])
    assert [file.config is not None for file in found] == [True, False]
    assert found[1].member == member(1, name)
    assert found[1].error is not None
    assert str(found[1].error).isprintable()


@pytest.mark.parametrize("path", ["/a\x00b", "/\ud800", "/" + "x" * 300, "/" + "x/" * 5000])
def test_a_path_that_is_none_is_an_error_of_the_file(tmp_path: Path, path: str) -> None:
    (found,) = files(path, tmp_path).read(())
    assert found.config is None
    assert found.mtime is None
    assert found.error is not None


def test_a_file_is_read_again_when_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clio_client.config.watched_file.SETTLED_S", 0.0)
    path = tmp_path / "clio.yaml"
    reader = files(str(path), tmp_path)
    (missing,) = reader.read(())
    assert missing.error is not None
    path.write_text("networking: {port: 1}")
    (first,) = reader.read(())
    assert first.entries == (("networking.port", "1"),)
    assert reader.read(())[0].entries is first.entries
    path.write_text("x: [")
    (broken,) = reader.read(())
    assert (broken.config, broken.entries) == (None, ())  # what is shown is what the file says now
    assert broken.error is not None
    assert broken.mtime is not None
    path.write_text("networking: {port: 22}\n")
    assert reader.read(())[0].entries == (("networking.port", "22"),)


def test_nodes_that_share_a_file_keep_it_apart(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("x: 1")
    found = files(f"{tmp_path}/{{hostname}}.yaml", tmp_path).read([member(0, "a"), member(1, "a")])
    assert [file.member and file.member.node_id for file in found] == [0, 1]

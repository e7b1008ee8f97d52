from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from clio_client.config.errors import ConfigError
from clio_client.config.hostfile import HostEntry
from clio_client.config.membership_source import (
    DiscoveredNodes,
    ExplicitNodes,
    HostfileNodes,
    MembershipSource,
    resolve_membership_source,
    watched_hostfile,
)
from clio_client.config.settings import Settings, parse_settings
from clio_client.config.watched_file import WatchedFile


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def resolve(settings: Settings, env: dict[str, str], home: Path, index: int = 0) -> MembershipSource:
    return resolve_membership_source(settings.clusters[index], env, home)


def test_the_order(tmp_path: Path) -> None:
    """Each source in turn is put before the ones already there, the last one wins."""
    home, env = tmp_path / "home", dict[str, str]()
    settings = Settings()
    assert resolve(settings, env, home) == DiscoveredNodes(
        "127.0.0.1", 9413, "discovery from the runtime on this host, port 9413", 9413
    )
    settings = settings.with_overrides(seed="s")
    assert resolve(settings, env, home) == DiscoveredNodes("s", 9413, "discovery from seed s:9413", 9413)

    conf = write(home / ".clio/clio.yaml", "networking: {port: 9423}")
    assert resolve(settings, env, home) == DiscoveredNodes("s", 9423, "discovery from seed s:9423", 9423)
    hosts = write(tmp_path / "conf-hosts", "a")
    conf.write_text(f"networking: {{port: 9423, hostfile: {hosts}}}")
    assert resolve(settings, env, home) == HostfileNodes(hosts, f"networking.hostfile in {conf}", 9423)

    env["CONTAINER_HOSTFILE"] = str(write(tmp_path / "env-hosts", "b"))
    assert resolve(settings, env, home) == HostfileNodes(
        Path(env["CONTAINER_HOSTFILE"]), "CONTAINER_HOSTFILE", 9423
    )
    env["CLIO_PORT"] = "9433"
    settings = settings.with_overrides(hostfile=tmp_path / "flag-hosts")
    assert resolve(settings, env, home) == HostfileNodes(tmp_path / "flag-hosts", "--hostfile", 9433)
    settings = settings.with_overrides(nodes=["c"], port=9443)
    assert resolve(settings, env, home) == ExplicitNodes((HostEntry("c", None, None),), "--nodes", 9443)


def test_hostfile_of_the_settings_comes_before_the_environment(tmp_path: Path) -> None:
    settings = parse_settings("clusters: [{hostfile: /h}]", Path("/e.yml"))
    env = {"CONTAINER_HOSTFILE": str(write(tmp_path / "x", "a"))}
    assert resolve(settings, env, tmp_path) == HostfileNodes(Path("/h"), "hostfile in /e.yml", 9413)


def test_seed_port_comes_before_the_default_port(tmp_path: Path) -> None:
    source = resolve(Settings().with_overrides(seed="s:9423", port=9433), {}, tmp_path)
    assert source == DiscoveredNodes("s", 9423, "discovery from seed s:9423", 9433)


def test_port_from_the_environment_without_a_configuration(tmp_path: Path) -> None:
    source = resolve(Settings(), {"CLIO_PORT": "9423"}, tmp_path)
    assert isinstance(source, DiscoveredNodes)
    assert source.port == 9423


def test_several_clusters_do_not_share_the_environment(tmp_path: Path) -> None:
    conf = write(tmp_path / "c.yaml", "networking: {port: 9423, hostfile: '${DIR}/hosts'}")
    write(tmp_path / "hosts", "a")
    settings = parse_settings(
        f"clusters: [{{name: a, runtime_config: {conf}}}, {{name: b, seed: s}}]", Path("/e.yml")
    )
    env = {
        "CONTAINER_HOSTFILE": "/nonexistent/h",
        "CLIO_SERVER_CONF": "/nonexistent/c",
        "CLIO_PORT": "1",
        "DIR": str(tmp_path),
    }
    assert resolve(settings, env, tmp_path) == HostfileNodes(
        tmp_path / "hosts", f"networking.hostfile in {conf}", 9423
    )
    assert resolve(settings, env, tmp_path, 1) == DiscoveredNodes(
        "s", 9413, "discovery from seed s:9413", 9413
    )


def test_a_configuration_a_node_does_not_name_the_hostfile(tmp_path: Path) -> None:
    settings = parse_settings("clusters: [{runtime_config: '/x/{node_id}.yaml', seed: s}]", Path("/e.yml"))
    assert isinstance(resolve(settings, {}, tmp_path), DiscoveredNodes)


@pytest.mark.parametrize(
    ("env", "conf", "path", "problem", "remedy"),
    [
        ({"CONTAINER_HOSTFILE": "/nonexistent/h"}, "", "/nonexistent/h", "CONTAINER_HOSTFILE names", "unset"),
        (
            {},
            "networking: {hostfile: /nonexistent/h}",
            "/nonexistent/h",
            "networking.hostfile in",
            "--hostfile",
        ),
        ({"CLIO_SERVER_CONF": "/nonexistent/c"}, "", "/nonexistent/c", "CLIO_SERVER_CONF names", "unset"),
        ({}, "a: [", "{home}/.clio/clio.yaml", "malformed YAML", "syntax"),
    ],
)
def test_what_is_named_must_be_there(
    tmp_path: Path, env: dict[str, str], conf: str, path: str, problem: str, remedy: str
) -> None:
    write(tmp_path / ".clio/clio.yaml", conf)
    with pytest.raises(ConfigError) as caught:
        resolve(Settings(), env, tmp_path)
    assert caught.value.path == path.format(home=tmp_path)
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy


def test_nodes_that_are_equal_by_the_default_port(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--nodes: 'a:9413' is there twice"):
        resolve(Settings().with_overrides(nodes=["a", "a:9413"]), {}, tmp_path)


def hosts(watcher: WatchedFile[tuple[HostEntry, ...]]) -> list[str]:
    return [str(entry) for entry in watcher.value()]


def rewrite(path: Path, text: str) -> None:
    """Replace as an editor does: a new inode, whatever the clock's resolution."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def test_watcher_follows_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "hosts", "a\nb\n")
    watcher = watched_hostfile(path)
    assert hosts(watcher) == ["a", "b"]
    path.write_text("a\nb\nc\n")  # in place, another size
    assert hosts(watcher) == ["a", "b", "c"]
    rewrite(path, "a\nb\nd\n")  # same size, another inode
    assert hosts(watcher) == ["a", "b", "d"]
    path.write_text("a\nb\ne\n")  # same size and inode, another time
    os.utime(path, ns=(1, 1))
    assert hosts(watcher) == ["a", "b", "e"]
    assert watcher.error is None


@pytest.mark.parametrize(
    ("breakage", "problem"),
    [
        ("broken", "the port 'x'"),
        ("empty", "no node"),
        ("gone", "does not exist"),
        ("directory", "directory"),
    ],
)
def test_watcher_keeps_the_last_good_entries(tmp_path: Path, breakage: str, problem: str) -> None:
    path = write(tmp_path / "hosts", "a\nb\n")
    watcher = watched_hostfile(path)
    watcher.value()
    if breakage in ("broken", "empty"):
        rewrite(path, "a\nb:x\n" if breakage == "broken" else "")
    else:
        path.unlink()
        if breakage == "directory":
            path.mkdir()
    for _ in range(2):
        assert hosts(watcher) == ["a", "b"]
        error = watcher.error
        assert error is not None
        assert error.path == str(path)
        assert problem in error.problem
        assert error.remedy
    if breakage == "directory":
        path.rmdir()
    rewrite(path, "c\n")
    assert hosts(watcher) == ["c"]
    assert watcher.error is None


def test_watcher_clears_its_error_when_the_same_file_comes_back(tmp_path: Path) -> None:
    path = write(tmp_path / "hosts", "a")
    watcher = watched_hostfile(path)
    watcher.value()
    path.rename(tmp_path / "away")
    assert hosts(watcher) == ["a"]
    assert watcher.error is not None
    (tmp_path / "away").rename(path)
    assert hosts(watcher) == ["a"]
    assert watcher.error is None


def test_watcher_raises_until_the_file_is_good_once(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    watcher = watched_hostfile(path, default_port=9413)
    for _ in range(2):
        with pytest.raises(ConfigError, match="does not exist"):
            watcher.value()
    path.write_text("a\na:9413")
    with pytest.raises(ConfigError, match=r":2: 'a:9413' is already in line 1"):
        watcher.value()
    rewrite(path, "a")
    assert hosts(watcher) == ["a"]


def test_watcher_does_not_read_an_unchanged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "hosts", "a")
    watcher = watched_hostfile(path)
    monkeypatch.setattr("clio_client.config.watched_file.SETTLED_S", 0.0)
    watcher.value()

    def fail(_: Path) -> list[HostEntry]:
        raise AssertionError("read again")

    monkeypatch.setattr("clio_client.config.membership_source.read_hostfile", fail)
    assert hosts(watcher) == ["a"]


def test_watcher_in_threads_never_shows_a_half_list(tmp_path: Path) -> None:
    path = write(tmp_path / "hosts", "n[1-50]")
    watcher = watched_hostfile(path)
    counts: set[int] = set()
    errors: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                counts.add(len(watcher.value()))
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for round_number in range(100):
        rewrite(path, "n[1-20]" if round_number % 2 else "n[1-50]")
    done.set()
    for thread in threads:
        thread.join(timeout=30)
        assert not thread.is_alive()
    assert not errors
    assert counts <= {20, 50}
    assert len(watcher.value()) == 20

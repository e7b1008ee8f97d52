"""Settings from file, environment and flags, and their errors."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clio_client.config.errors import ConfigError
from clio_control_api.settings import Settings, SshSettings, load, private_directory


def read(tmp_path: Path, text: str = "", env: dict[str, str] | None = None, **flags: object) -> Settings:
    path = tmp_path / "control.yaml"
    path.write_text(text)
    return load(path, flags, env or {}, tmp_path)


def test_defaults(tmp_path: Path) -> None:
    settings = load(None, {}, {}, tmp_path)
    assert (settings.host, settings.port, settings.debug) == ("127.0.0.1", 5000, False)
    assert settings.reply_port == 9788
    assert settings.state_dir == tmp_path / ".local/state/clio-control-api"
    ssh = settings.ssh_of("").ssh
    assert ssh.known_hosts_file == settings.state_dir / "known_hosts"
    assert ssh.host_keys == "accept-new"
    assert ssh.connect_timeout == 5
    assert ssh.config_file == tmp_path / ".ssh/config"


def test_flags_win_over_environment_over_file(tmp_path: Path) -> None:
    text = "host: 10.0.0.1\nport: 1\nstate_dir: s\n"
    env = {"CLIO_CONTROL_API_PORT": "2", "CLIO_CONTROL_API_HOST": "10.0.0.2"}
    settings = read(tmp_path, text, env, host="10.0.0.3")
    assert (settings.host, settings.port) == ("10.0.0.3", 2)
    assert settings.state_dir == tmp_path / "s"


def test_ssh_by_cluster_and_node(tmp_path: Path) -> None:
    (tmp_path / "exporter.yaml").write_text("clusters: [{name: a, nodes: [n1, n2]}, {name: b, nodes: [n3]}]")
    settings = read(
        tmp_path,
        """
exporter_config: exporter.yaml
ssh: {user: clio, port: 2222, environment: {A: "1"}, key_file: id, command_timeout: 2m}
clusters:
  a:
    ssh: {host_keys: strict, environment: {B: "{node_id}"}}
    nodes:
      n1: {user: root}
      "1": {host: 10.1.1.1, commands: {shutdown: [/opt/stop, "{hostname}"]}}
""",
    )
    common = settings.ssh_of("b").for_node(0, "n3", 9413)
    assert (common.user, common.port, common.environment) == ("clio", 2222, {"A": "1"})
    assert common.key_file == tmp_path / "id"
    assert common.command_timeout == 120
    first = settings.ssh_of("a").for_node(0, "n1", 9413)
    assert (first.user, first.host_keys, first.environment) == (
        "root",
        "strict",
        {"A": "1", "B": "{node_id}"},
    )
    second = settings.ssh_of("a").for_node(1, "n2", 9413)
    assert (second.host, second.user) == ("10.1.1.1", "clio")
    assert second.commands == {"shutdown": ("/opt/stop", "{hostname}")}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("hots: x", "unknown key"),
        ("port: 99999", "not a port"),
        ("port: x", "not a port"),
        ("ssh: {host_keys: maybe}", "not one of"),
        ("ssh: {user: 'a b'}", "user name"),
        ("ssh: {user: '-x'}", "user name"),
        ("ssh: {host: 'a;b'}", "host name"),
        ("ssh: {environment: {'A B': x}}", "environment variable"),
        ("ssh: {environment: {A: '{nodeid}'}}", "placeholder"),
        ('ssh: {environment: {A: "a\\nb"}}', "control character"),
        ("ssh: {commands: {restart: []}}", "is empty"),
        ("ssh: {commands: {reboot: [x]}}", "unknown key"),
        ("ssh: {connect_timeout: 1d}", "duration"),
        ("clusters: {x: {}}", "is no cluster"),
        ("allowed_origins: ['https://a/b']", "not an origin"),
        ("allowed_origins: ['*']", "not an origin"),
        ("dashboard_url: 'javascript:alert(1)'", "not a URL"),
        ("dashboard_url: 'https://[1-2]/'", "not a URL"),
        ("allowed_origins: ['https://[a]']", "not an origin"),
        ("limits: {reads_per_second: 0}", "whole number"),
        ("nodes: {n1: {ports: 2}}", "unknown key"),
        ("tokens_file: missing", None),
    ],
)
def test_errors_name_the_place(tmp_path: Path, text: str, problem: str | None) -> None:
    if problem is None:
        assert read(tmp_path, text).tokens_file == tmp_path / "missing"
        return
    with pytest.raises(ConfigError, match=problem) as caught:
        read(tmp_path, text)
    assert "control.yaml" in str(caught.value)
    assert caught.value.remedy


def test_a_node_without_settings_has_the_common_ones(tmp_path: Path) -> None:
    assert read(tmp_path, "").ssh_of("nowhere").ssh.user is SshSettings().user


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o1777])
def test_a_state_directory_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    state = tmp_path / "state"
    private_directory(state)
    assert state.stat().st_mode & 0o777 == 0o700
    state.chmod(mode)
    with pytest.raises(ConfigError, match=rf"{state}.*can be written by others \(mode {mode:o}"):
        private_directory(state)
    state.chmod(0o755)
    private_directory(state)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_another_users_state_directory_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, -1)
    with pytest.raises(ConfigError, match="user 65534"):
        private_directory(tmp_path)


def test_nodes_whose_host_keys_are_not_checked_are_named(tmp_path: Path) -> None:
    assert load(None, {}, {}, tmp_path).unchecked_hosts() == set()
    (tmp_path / "e.yaml").write_text("clusters: [{name: lab, nodes: [a, b]}]\n")
    text = (
        "exporter_config: e.yaml\nnodes: {'3': {host_keys: off}}\nclusters: {lab: {ssh: {host_keys: off}}}\n"
    )
    (tmp_path / "c.yaml").write_text(text)
    found = load(tmp_path / "c.yaml", {}, {}, tmp_path)
    assert found.unchecked_hosts() == {"node 3", "all nodes of cluster lab"}


def test_the_home_of_what_is_no_user_is_a_path_that_is_missing(tmp_path: Path) -> None:
    settings = read(tmp_path, 'tokens_file: "~\\0x/tokens"')
    assert settings.tokens_file == tmp_path / "~\0x/tokens"

from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clio_client.config.errors import ConfigError
from clio_client.config.fields import parse_duration
from clio_client.config.hostfile import HostEntry
from clio_client.config.settings import (
    ClusterSettings,
    NodeOverride,
    RuntimeSettings,
    Settings,
    load_settings,
    parse_settings,
)
from tests.paths import ROOT
from tests.unit.client.config.helpers import attempt, unhurried

FULL = """\
clusters:
  - name: alpha
    hostfile: hosts
    seed: 10.0.0.1:9423
    runtime_config: conf/{node_id}/{hostname}.yaml
    port: 9423
    generation: C
    overrides:
      "a": {generation: B, reply_address: 10.0.0.5}
      "a:9443": {generation: A}
  - name: beta
    nodes: [x, "y:9433", "n[1-2]"]
runtime: {timeout: 500ms, reply_port: 9000, reply_address: 10.0.0.9, transport: binding, max_in_flight: 2}
collectors: {pool: {interval: 2m}, node: {peak_window: 30}, disabled: [cte, config]}
probe: {allow_any: true}
"""
TWO = "clusters: [{name: a, nodes: [x]}, {name: b, nodes: [y]}]"


def parse(text: str) -> Settings:
    return parse_settings(text, Path("/etc/clio/exporter.yml"))


def cluster(text: str) -> ClusterSettings:
    return parse("clusters:\n  - " + text).clusters[0]


def test_a_full_file() -> None:
    settings = parse(FULL)
    alpha, beta = settings.clusters
    assert (alpha.name, alpha.hostfile, alpha.port, alpha.generation) == (
        "alpha",
        Path("/etc/clio/hosts"),
        9423,
        "C",
    )
    assert alpha.hostfile_origin == "hostfile in /etc/clio/exporter.yml"
    assert alpha.seed == HostEntry("10.0.0.1", 9423, 4)
    assert alpha.runtime_config_per_node
    assert alpha.runtime_config_for(7, "node07") == Path("/etc/clio/conf/7/node07.yaml")
    assert not alpha.environment
    assert [str(entry) for entry in beta.nodes] == ["x", "y:9433", "n1", "n2"]
    assert beta.nodes[0].line == 12
    assert settings.runtime == RuntimeSettings(0.5, 9000, "10.0.0.9", "binding", 2)


def test_the_briefest_files_are_the_defaults() -> None:
    for text in (
        "",
        "# nothing",
        "runtime:\nprobe: ~\nclusters: null\ncollectors:\n",
        "runtime: {timeout: ~}",
    ):
        settings = parse(text)
        assert settings == Settings(path=Path("/etc/clio/exporter.yml"))
    assert Settings().path is None
    assert Settings().clusters == (ClusterSettings(),)
    assert RuntimeSettings() == RuntimeSettings(3.0, 9778, None, "zmq", 8)


def test_settings_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().runtime.timeout_seconds = 1  # type: ignore[misc]
    hash(parse(FULL))


def test_overrides_of_a_port_come_before_those_of_its_host() -> None:
    alpha = parse(FULL).clusters[0]
    assert alpha.override_for("A", 9443) == NodeOverride("A", "10.0.0.5")
    assert alpha.override_for("a", 9413) == NodeOverride("B", "10.0.0.5")
    assert alpha.override_for("b", 9413) == NodeOverride()
    assert [alpha.generation_for(h, 9443) for h in ("a", "b")] == ["A", "C"]
    assert ClusterSettings().generation_for("a", 1) is None


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/operator")
    path = tmp_path / "etc/exporter.yml"
    path.parent.mkdir()
    path.write_text("clusters: [{hostfile: ../hosts, runtime_config: ~/clio.yaml}]")
    monkeypatch.chdir("/")
    (only,) = load_settings(path).clusters
    assert only.hostfile == tmp_path / "etc/../hosts"
    assert only.runtime_config_for(0, "a") == Path("/home/operator/clio.yaml")
    assert not only.runtime_config_per_node
    assert only.environment
    with pytest.raises(ConfigError, match="settings file does not exist"):
        load_settings(tmp_path / "gone.yml")


@pytest.mark.parametrize("hostname", ["../../etc/passwd", "a/b", "..", "", "::1"])
def test_a_lying_hostname_does_not_lead_out_of_the_directory(hostname: str) -> None:
    with pytest.raises(ConfigError):
        parse(FULL).clusters[0].runtime_config_for(0, hostname)


def test_a_variable_in_a_path_is_no_placeholder() -> None:
    assert cluster("{runtime_config: '/x/${Y}.yaml'}").runtime_config_for(1, "h") == Path("/x/${Y}.yaml")


@pytest.mark.parametrize(
    ("text", "line", "problem", "remedy"),
    [
        ("clusters:\n  - hostfil: x", 2, "unknown key 'hostfil' in clusters[0]", "Did you mean hostfile?"),
        ("runtime:\n  timeout: 3s\n  tiemout: 4s", 3, "unknown key 'tiemout' in runtime", "mean timeout?"),
        ("probes: {}", 1, "unknown key 'probes' in the settings", "mean probe?"),
        ("zzz: {}", 1, "unknown key 'zzz'", "Use one of: clusters, runtime, collectors, probe"),
        ("- a", 1, "the file is not a mapping", "clusters, runtime"),
        ("clusters: {}", 1, "clusters is not a list", "'- '"),
        ("clusters: []", 1, "clusters is empty", "Describe a cluster"),
        ("clusters: [x]", 1, "clusters[0] is not a mapping", "hostfile"),
        ("clusters:\n- {nodes: [x]}\n- {name: b, nodes: [y]}", 2, "clusters[0] has no name", "Add 'name:'"),
        (
            "clusters:\n- {name: a, nodes: [x]}\n- {name: a, nodes: [y]}",
            3,
            "clusters[1] has the name 'a' of the cluster in line 2",
            "its own name",
        ),
        ("clusters:\n- {name: a, nodes: [x]}\n- {name: b, port: 1}", 3, "does not say where", "seed"),
        ("clusters:\n- name: 'a b'", 2, "clusters[0].name is 'a b'", "letters, digits"),
        ("clusters:\n- hostfile: x\n  nodes: [y]", 3, "nodes is given together with hostfile", "Keep one"),
        ("clusters:\n- hostfile: [x]", 2, "clusters[0].hostfile is not a string", "Write one plain"),
        ("clusters:\n- hostfile: ''", 2, "clusters[0].hostfile is not a string", "Write one plain"),
        ("clusters:\n- nodes: x", 2, "clusters[0].nodes is not a list", "[a, b]"),
        ("clusters:\n- nodes: []", 2, "clusters[0].nodes is empty", "List host"),
        ("clusters:\n- nodes:\n  - host: 9413", 3, "nodes[0] is not a string", "quote it"),
        ("clusters:\n- nodes:\n  - a\n  - b:x", 4, "the port 'x'", "b:9413"),
        ("clusters:\n- nodes:\n  - a\n  - b\n  - A", 5, "'A' is already in line 3", "line 3 or line 5"),
        ("clusters:\n- nodes: [a, 'a:9413']\n  port: 9413", 2, "is there twice", "Remove one of the two"),
        ("clusters:\n- nodes: ['n[1-60000]', 'm[1-60000]']", 2, "more than 65536 nodes", "ranges"),
        ("clusters:\n- nodes: ['::1']", 2, "IPv6", "IPv4 address or a host name"),
        ("clusters:\n- seed: a;b", 2, "clusters[0].seed is 'a;b'", "exactly one"),
        ("clusters:\n- port: 70000", 2, "clusters[0].port is '70000'", "from 1 to 65532"),
        ("clusters:\n- port: 9413.0", 2, "clusters[0].port is '9413.0'", "whole number"),
        ("clusters:\n- generation: D", 2, "clusters[0].generation is 'D'", "Use one of: A, B, C, Z"),
        ("clusters:\n- runtime_config: '{node}.yaml'", 2, "unknown placeholder '{node}'", "{node_id}"),
        (
            "clusters:\n- overrides: {a: {port: 1}}",
            2,
            "unknown key 'port' in clusters[0].overrides.a",
            "reply",
        ),
        ("clusters:\n- overrides:\n    'a:0': {}", 3, "the port '0'", "networking.port"),
        ("clusters:\n- overrides: {a: {reply_address: '::1'}}", 2, "IPv6", "IPv4"),
        ("runtime: {timeout: fast}", 1, "runtime.timeout is 'fast'", "3s, 500ms or 1m"),
        ("runtime: {timeout: 0}", 1, "not a duration from 0.01s to 300s", "3s, 500ms"),
        ("runtime: {timeout: -1s}", 1, "runtime.timeout is '-1s'", "3s, 500ms"),
        ("runtime: {reply_port: 65536}", 1, "runtime.reply_port is '65536'", "0 to 65535"),
        ("runtime: {reply_address: 'a:1'}", 1, "IPv6 address or has more than one ':'", "IPv4"),
        ("runtime: {transport: zqm}", 1, "runtime.transport is 'zqm'", "Did you mean zmq?"),
        ("runtime: {max_in_flight: 0}", 1, "runtime.max_in_flight is '0'", "1 to 64"),
        ("runtime: {max_in_flight: {}}", 1, "runtime.max_in_flight is not a string", "Write one"),
        ("probe: {allow_any: true}\nprobe: {}", 2, "'probe' is already in line 1", "Keep one"),
        ("runtime: {timeout: 3s", 1, "malformed YAML", "Correct the syntax"),
    ],
)
def test_errors_name_file_line_key_and_remedy(text: str, line: int, problem: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    error = caught.value
    assert (error.path, error.line) == ("/etc/clio/exporter.yml", line), error
    assert problem in error.problem
    assert remedy in error.remedy
    assert str(error) == f"/etc/clio/exporter.yml:{line}: {error.problem}. {error.remedy}"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3s", 3),
        ("500ms", 0.5),
        ("1m", 60),
        ("2h", 7200),
        ("3", 3),
        ("0.25", 0.25),
        (".5s", 0.5),
        (" 1s ", 1),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "-1s", "1 m", "1d", "1m30s", "1e3", "nan", "inf", "\u0661s"])
def test_no_durations(text: str) -> None:
    assert parse_duration(text) is None


def test_flags_override_the_file() -> None:
    settings = parse("clusters: [{nodes: [a], port: 9999}]\nruntime: {reply_port: 1, max_in_flight: 3}")
    changed = settings.with_overrides(
        hostfile="hosts", seed="s:9423", runtime_config="clio.yaml", generation="A",
        timeout_seconds=1.5, reply_port=0, reply_address="10.0.0.1", transport="binding",
    )  # fmt: skip
    (only,) = changed.clusters
    assert (only.hostfile, only.hostfile_origin, only.nodes) == (Path.cwd() / "hosts", "--hostfile", ())
    assert (only.seed, only.generation, only.port) == (HostEntry("s", 9423, None), "A", 9999)
    assert only.runtime_config_for(0, "h") == Path.cwd() / "clio.yaml"
    assert changed.runtime == RuntimeSettings(1.5, 0, "10.0.0.1", "binding", 3)
    assert settings.runtime.reply_port == 1
    assert settings.with_overrides() == settings


def test_nodes_flag_replaces_the_hostfile() -> None:
    (only,) = parse("clusters: [{hostfile: h}]").with_overrides(nodes=["a;b:1"], port=9000).clusters
    assert (only.hostfile, only.nodes_origin, only.port) == (None, "--nodes", 9000)
    assert [str(entry) for entry in only.nodes] == ["a", "b:1"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"timeout_seconds": 0},
            "^--runtime.timeout: '0' is not a duration from 0.01s to 300s. Write",
        ),
        ({"timeout_seconds": float("nan")}, "^--runtime.timeout: 'nan' is not a duration"),
        ({"reply_port": 65536}, "^--runtime.reply-port: '65536' is not a whole number from 0 to 65535"),
        ({"reply_address": "::1"}, "^--runtime.reply-address: '::1' is an IPv6"),
        (
            {"transport": "tcp"},
            "^--runtime.transport: 'tcp' is not one of zmq, binding. Use one of",
        ),
        ({"max_in_flight": 0}, "^--runtime.max-in-flight: '0' is not a whole number from 1 to 64"),
        ({"port": 0}, "^--port: '0' is not a whole number from 1 to 65532"),
        ({"generation": "X"}, "^--generation: 'X' is not one of A, B, C, Z"),
        ({"nodes": ["a", "a"]}, "^--nodes: 'a' is there twice"),
        ({"nodes": []}, "^--nodes: is empty. List host or host:port"),
        ({"nodes": ["a"], "hostfile": "h"}, "^--nodes: is given together with --hostfile"),
        ({"seed": "a;b"}, "^--seed: 'a;b' is not one node"),
    ],
)
def test_flag_errors_name_the_flag(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Settings().with_overrides(**changes)


@pytest.mark.parametrize("changes", [{"hostfile": "h"}, {"port": 1}, {"nodes": ["a"]}])
def test_cluster_flags_need_a_single_cluster(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(TWO).with_overrides(**changes)
    assert caught.value.path == f"--{next(iter(changes))}"
    assert "/etc/clio/exporter.yml has 2" in caught.value.problem
    assert parse(TWO).with_overrides(reply_port=1).runtime.reply_port == 1


KEYS = ["clusters", "runtime", "name", "nodes", "timeout", "port", "overrides", "probe", "enabled", "x"]
yamlish = st.recursive(
    st.sampled_from(["1", "a", "~", "true", "3s", "'a:1'", "''", "{}", "[]"]),
    lambda below: st.one_of(
        st.lists(below, max_size=3).map(lambda items: "[" + ", ".join(items) + "]"),
        st.dictionaries(st.sampled_from(KEYS), below, max_size=3).map(
            lambda items: "{" + ", ".join(f"{key}: {value}" for key, value in items.items()) + "}"
        ),
    ),
    max_leaves=8,
)


@unhurried
@given(st.dictionaries(st.sampled_from(["clusters", "runtime", "collectors", "probe"]), yamlish, max_size=3))
def test_any_document_is_settings_or_a_config_error(document: dict[str, str]) -> None:
    settings = attempt(lambda: parse("\n".join(f"{key}: {value}" for key, value in document.items())))
    if isinstance(settings, ConfigError):
        assert str(settings).startswith("/etc/clio/exporter.yml:")
        assert settings.remedy
    else:
        assert settings.clusters


def test_the_documented_example_is_valid() -> None:
    document = ROOT / "docs/configuration.md"
    example = document.read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    settings = parse(example)
    assert [cluster.name for cluster in settings.clusters] == ["alpha", "beta"]
    assert settings.clusters[0].override_for("node08", 9423).generation == "B"
    assert settings.runtime == RuntimeSettings()

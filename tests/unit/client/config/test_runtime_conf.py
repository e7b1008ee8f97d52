from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from clio_client.config import yamltree
from clio_client.config.errors import ConfigError
from clio_client.config.known_keys import publishable
from clio_client.config.runtime_conf import (
    CONFIG_FILES,
    CONFIG_VARIABLES,
    RuntimeConfig,
    find_runtime_config,
    flatten,
    load_runtime_config,
    parse_runtime_config,
)
from tests.unit.client.config.helpers import attempt, unhurried

HOME = Path("/home/operator")
EXAMPLE = """\
networking:
  port: 9423
  hostfile: "${CONF}/hosts"
runtime: {num_threads: 4, learning_rate: 0.20, stack_size: 64KB}
workers: {legacy: yes}
compose:
  - mod_name: clio_bdev
    pool_name: "ram::x"
    pool_query: local
    pool_id: 301.0
    bdev_type: ram
    capacity: 1g
  - mod_name: clio_cte_core
    pool_name: cte
    pool_id: 512.10
    next_pool_id: "563.0"
    storage: [{path: "ram::t", score: 1.0}]
  - not a mapping
"""


def parse(text: str, env: dict[str, str] | None = None, path: str = "/etc/clio/clio.yaml") -> RuntimeConfig:
    return parse_runtime_config(text, Path(path), env or {}, HOME)


def touch(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_search_order(tmp_path: Path) -> None:
    env: dict[str, str] = {}
    assert find_runtime_config(env, tmp_path) is None
    for name in reversed(CONFIG_FILES):
        path = touch(tmp_path / name)
        assert find_runtime_config(env, tmp_path) == path
    for variable in reversed(CONFIG_VARIABLES):
        env[variable] = str(touch(tmp_path / variable))
        assert find_runtime_config(env, tmp_path) == Path(env[variable])
    env["CLIO_SERVER_CONF"] = ""
    assert find_runtime_config(env, tmp_path) == Path(env["CHI_SERVER_CONF"])


def test_order_is_the_documented_one() -> None:
    assert CONFIG_VARIABLES == ("CLIO_SERVER_CONF", "CHI_SERVER_CONF", "WRP_RUNTIME_CONF")
    assert CONFIG_FILES == (
        ".clio/clio.yaml",
        ".clio/chimaera.yaml",
        ".chimaera/clio.yaml",
        ".chimaera/chimaera.yaml",
    )


@pytest.mark.parametrize("variable", CONFIG_VARIABLES)
def test_a_variable_naming_a_missing_file_is_not_skipped(tmp_path: Path, variable: str) -> None:
    touch(tmp_path / ".clio/clio.yaml")
    with pytest.raises(ConfigError) as caught:
        find_runtime_config({variable: "${HOMEDIR}/gone.yaml", "HOMEDIR": "/nonexistent"}, tmp_path)
    assert caught.value.path == "/nonexistent/gone.yaml"
    assert variable in caught.value.problem
    assert caught.value.remedy == f"Correct or unset {variable}"


def test_reads_ports_hostfile_and_compose() -> None:
    config = parse(EXAMPLE, {"CONF": "/srv"})
    assert config.port == 9423
    assert config.hostfile == Path("/srv/hosts")
    bdev, cte = config.compose
    assert (bdev.mod_name, bdev.pool_name, bdev.pool_id, bdev.pool_query) == (
        "clio_bdev",
        "ram::x",
        "301.0",
        "local",
    )
    assert (bdev.next_pool_id, bdev.bdev_type, bdev.capacity) == (None, "ram", "1g")
    assert (cte.pool_id, cte.next_pool_id, cte.pool_query, cte.bdev_type) == ("512.10", "563.0", "", None)
    assert cte.raw["storage"] == [{"path": "ram::t", "score": 1.0}]


@pytest.mark.parametrize(
    ("text", "env", "port"),
    [
        ("", {}, 9413),
        ("# nothing", {}, 9413),
        ("networking:", {}, 9413),
        ("networking: []", {}, 9413),
        ("networking: {port: '9999'}", {}, 9999),
        ("networking: {port: 9999}", {"CLIO_PORT": "1234", "CHI_PORT": "5"}, 1234),
        ("networking: {port: 9999}", {"CLIO_PORT": "", "CHI_PORT": "5"}, 5),
        ("networking: {port: bad}", {"CLIO_PORT": "1234"}, 1234),
    ],
)
def test_port(text: str, env: dict[str, str], port: int) -> None:
    assert parse(text, env).port == port


@pytest.mark.parametrize(
    ("hostfile", "expected"),
    [
        ("~/hosts", "/home/operator/hosts"),
        ("hosts", "/etc/clio/hosts"),
        ("/a/${X}/${UNSET}h", "/a/x/h"),
        ("a~b", "/etc/clio/a~b"),
    ],
)
def test_hostfile_path(hostfile: str, expected: str) -> None:
    assert parse(f"networking: {{hostfile: '{hostfile}'}}", {"X": "x"}).hostfile == Path(expected)


def test_relative_hostfile_beside_the_file_or_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = touch(tmp_path / "conf/clio.yaml", "networking: {hostfile: hosts}")
    monkeypatch.chdir(tmp_path)
    assert load_runtime_config(path, {}, HOME).hostfile == tmp_path / "conf/hosts"
    touch(tmp_path / "hosts")
    assert load_runtime_config(path, {}, HOME).hostfile == tmp_path / "hosts"
    touch(tmp_path / "conf/hosts")
    assert load_runtime_config(path, {}, HOME).hostfile == tmp_path / "conf/hosts"


def test_the_wheels_default_configuration_is_understood_and_has_nothing_to_mask() -> None:
    package = pytest.importorskip("iowarp_core")
    config = load_runtime_config(Path(package.__file__).parent / "data/clio_default.yaml", {}, HOME)
    assert config.port == 9413
    assert config.hostfile is None
    assert "clio_bdev" in [pool.mod_name for pool in config.compose]
    assert all(pool.pool_id for pool in config.compose)
    assert publishable(config.document) == config.document
    pairs = flatten(config.document)
    assert ("compose[0].mod_name", "clio_bdev") in pairs
    assert ("swim.direct_probe_timeout_sec", "300.0") in pairs


BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)
MERGE_BOMB = "a0: &a0 {k: v}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{','.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 10)
)
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 80))


@pytest.mark.parametrize(
    ("text", "line", "problem", "remedy"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", 3, "malformed YAML", "Correct the syntax"),
        ("a:\n\t- x", 2, "malformed YAML", "Correct the syntax"),
        ("a: b: c", 1, "malformed YAML", "Correct the syntax"),
        ("a: 1\n---\nb: 2", 2, "malformed YAML", "Correct the syntax"),
        ("a: 1\nb: *x", 2, "malformed YAML", "Correct the syntax"),
        ("a: 1\nb: \x01", 2, "malformed YAML", "Remove the control character"),
        ("a: 1\nb: 2\na: 3", 3, "the key 'a' is already in line 1", "Keep one"),
        ("x:\n  - {a: 1, a: 2}", 2, "the key 'a' is already in line 2", "Keep one"),
        ("a: 1\n? [x]\n: 2", 2, "a key is a list or mapping", "plain string"),
        ("a: 1\nb: !!python/object/apply:os.system [ls]", 2, "unusable YAML", "no custom tags"),
        ("a: 1\nb: !mine x", 2, "unusable YAML", "no custom tags"),
        ("- a", 1, "not a YAML mapping", "networking:"),
        ("hello", 1, "not a YAML mapping", "networking:"),
        ("networking:\n  port: 70000", 2, "networking.port is '70000'", "by default 9413"),
        ("networking:\n\n  port: [1]", 3, "networking.port is '[]'", "by default 9413"),
        ("networking:\n  port: true", 2, "networking.port is 'true'", "by default 9413"),
        ("[" * 100_000, 1, "64 levels", "Flatten"),
        ("{a: " * 100_000, 1, "64 levels", "Flatten"),
        (BOMB, None, "more than 100000 values", "aliases"),
        (MERGE_BOMB, None, "more than 100000 values", "aliases"),
        (CHAIN, None, "64 levels", "Flatten"),
        ("a: &a [*a]", 1, "own ancestor", "Remove the alias"),
    ],
    ids=range(22),
)
@pytest.mark.parametrize("loader", ["SafeLoader", "CSafeLoader"])
def test_broken_files(
    monkeypatch: pytest.MonkeyPatch, loader: str, text: str, line: int | None, problem: str, remedy: str
) -> None:
    monkeypatch.setattr(yamltree, "_LOADER", getattr(yaml, loader, yaml.SafeLoader))
    with pytest.raises(ConfigError) as caught:
        parse(text)
    error = caught.value
    assert error.path == "/etc/clio/clio.yaml"
    assert error.line is not None
    assert line is None or error.line == line
    assert problem in error.problem
    assert remedy in error.remedy
    assert str(error) == f"/etc/clio/clio.yaml:{error.line}: {error.problem}. {error.remedy}"


@pytest.mark.parametrize("variable", ["CLIO_PORT", "CHI_PORT"])
@pytest.mark.parametrize("value", ["x", "0", "65536", "-1"])
def test_a_bad_port_variable_is_named(variable: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse("", {variable: value})
    assert str(caught.value).startswith(f"{variable}: '{value}' is not a port")
    assert "unset it" in caught.value.remedy


def test_missing_file_and_oversize(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="runtime configuration does not exist"):
        load_runtime_config(tmp_path / "x", {}, HOME)
    with pytest.raises(ConfigError, match="larger than"):
        load_runtime_config(touch(tmp_path / "y", "#" * 1_100_000), {}, HOME)


def test_flatten_writes_scalars_as_the_file_does() -> None:
    text = """\
a: {b: 0.20, c: 512.10, d: 0x10, e: 010, f: yes, g: ~, h: 12:30, i: 2024-01-02, j: 1_000, k: .inf}
l: []
m: {}
n: ["", 'true', "x: y", 3]
"o.p": {"q[0]": 1, "": 2, 3: 4, null: 5}
"""
    assert flatten(parse(text).document) == [
        ("a.b", "0.20"),
        ("a.c", "512.10"),
        ("a.d", "0x10"),
        ("a.e", "010"),
        ("a.f", "true"),
        ("a.g", "null"),
        ("a.h", "12:30"),
        ("a.i", "2024-01-02"),
        ("a.j", "1_000"),
        ("a.k", ".inf"),
        ("l", "[]"),
        ("m", "{}"),
        ("n[0]", ""),
        ("n[1]", "true"),
        ("n[2]", "x: y"),
        ("n[3]", "3"),
        ('["o.p"]["q[0]"]', "1"),
        ('["o.p"][""]', "2"),
        ('["o.p"].3', "4"),
        ('["o.p"].null', "5"),
    ]


def test_flatten_is_bounded() -> None:
    pairs = flatten({"long": "x" * 1000, "k" * 1000: 1, "list": list(range(5000))})
    assert pairs[0] == ("long", "x" * 255 + "…")
    assert pairs[1] == ("k" * 127 + "…", "1")
    assert len(pairs) == 2001
    assert pairs[-1] == ("...", "3002 more entries are not shown")


def test_flatten_repeats_no_pair_and_survives_lone_surrogates() -> None:
    document = {**parse('{1: a, "1": a, c: !!set {x, y}}').document, "b\ud800": "\udfff"}
    assert flatten(document) == [("1", "a"), ("c[0]", "x"), ("c[1]", "y"), ("b?", "?")]


@pytest.mark.parametrize(
    "text",
    ["a: !!bool maybe", 'a: !!int ""', "a: !!set [x]", 'a: "\\UFFFFFFFF"', 'a: "\\ud800"', "a: !!float ''"],
)
@pytest.mark.parametrize("loader", [yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)])
def test_ill_typed_values_are_text_or_a_config_error(
    monkeypatch: pytest.MonkeyPatch, text: str, loader: type
) -> None:
    monkeypatch.setattr(yamltree, "_LOADER", loader)
    config = attempt(lambda: parse(text))
    if isinstance(config, ConfigError):
        assert "YAML" in config.problem
        assert config.remedy
    else:
        flatten(config.document)[0][1].encode()


scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=300))
documents = st.recursive(
    scalars,
    lambda below: st.one_of(
        st.lists(below, max_size=4), st.dictionaries(st.text(max_size=8), below, max_size=4)
    ),
    max_leaves=20,
)


@unhurried
@given(documents)
def test_flatten_any_document(document: Any) -> None:
    pairs = flatten(document)
    assert len(set(pairs)) == len(pairs)
    assert pairs
    assert all(len(value) <= 256 for _, value in pairs)


@unhurried
@given(st.text(alphabet=st.sampled_from("ab:-{}[],&*!<? \n\t'\"#|>%0.~"), max_size=60))
def test_any_text_parses_or_is_a_config_error(text: str) -> None:
    config = attempt(lambda: parse(text))
    if isinstance(config, ConfigError):
        assert str(config).startswith("/etc/clio/clio.yaml:")
        assert config.remedy
        return
    flatten(publishable(config.document))

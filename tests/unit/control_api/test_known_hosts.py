"""known_hosts files of every kind: each is OpenSSH's meaning or the named error, never anything else."""

from __future__ import annotations

import base64
from pathlib import Path

import paramiko
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clio_control_api.known_hosts import HostName, KnownHosts, matches
from clio_control_api.ssh_errors import HostKeyError

KEY, OTHER = (paramiko.ECDSAKey.generate() for _ in range(2))
KIND, BLOB = KEY.get_name(), KEY.get_base64()
NODE, ODD_PORT = HostName("node1"), HostName("node1", 2222)


def is_known(path: Path, text: str | bytes, name: HostName = NODE) -> bool:
    """Whether `KEY` is accepted; `HostKeyError` when the host is known otherwise."""
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    try:
        KnownHosts(path).check(name, KEY, "strict")
    except HostKeyError as error:
        if "is not known and host_keys is strict" in str(error):
            return False
        raise
    return True


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "known_hosts"


@pytest.mark.parametrize(
    ("hosts", "name", "known"),
    [
        ("node1", NODE, True),
        ("NODE1", NODE, True),
        ("node2,node1", NODE, True),
        ("node", NODE, False),
        ("node11", NODE, False),
        ("node?", NODE, True),
        ("node??", NODE, False),
        ("*", ODD_PORT, True),
        ("n*,!node1", NODE, False),
        ("!node1,n*", NODE, False),
        ("!node2", NODE, False),
        ("[node1]:2222", ODD_PORT, True),
        ("[node1]:2222", NODE, False),
        ("[node1]:2223", ODD_PORT, False),
        ("node1", ODD_PORT, True),
        ("[node1]:22", NODE, False),
        ("gate", HostName("node1", 2222, "gate"), True),
        ("node1", HostName("node1", 2222, "gate"), False),
        pytest.param(paramiko.HostKeys.hash_host("node1"), NODE, True, id="hashed"),
        pytest.param(paramiko.HostKeys.hash_host("[node1]:2222"), ODD_PORT, True, id="hashed with port"),
        pytest.param(paramiko.HostKeys.hash_host("node2"), NODE, False, id="hashed other"),
    ],
)
def test_which_hosts_a_line_means(path: Path, hosts: str, name: HostName, known: bool) -> None:
    assert is_known(path, f"# x\n\n \t{hosts}\t{KIND}  {BLOB} comment\r\n", name) is known


def test_markers(path: Path) -> None:
    fine = f"node1 {KIND} {BLOB}\n"
    assert is_known(path, f"@revoked node2 {KIND} {BLOB}\n{fine}")
    assert is_known(path, f"@revoked * {KIND} {OTHER.get_base64()}\n{fine}")
    assert is_known(path, f"@cert-authority * {KIND} {OTHER.get_base64()}\n{fine}")
    assert not is_known(path, f"@cert-authority node2 {KIND} {BLOB}\n")
    for text, line in (
        (f"{fine}@revoked node1 {KIND} {BLOB}", 2),
        (f"{fine}@revoked * {KIND} {BLOB[:30]}", 2),
        (f"@cert-authority node1 {KIND} {BLOB}\n", 1),
        (f"{fine}@unknown node2 {KIND} {BLOB}", 2),
        (f"{fine}@revoked", 2),
    ):
        with pytest.raises(HostKeyError, match=f"{path} line {line} |by {path} line {line}:"):
            is_known(path, text)


def test_a_conflicting_key_is_no_new_host(path: Path) -> None:
    ed25519 = base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(32)).decode()
    for text in (
        f"node1 {KIND} {OTHER.get_base64()}\n",
        f"n* {KIND} {OTHER.get_base64()}\n",
        f"{paramiko.HostKeys.hash_host('node1')} {KIND} {OTHER.get_base64()}\n",
        f"node1 ssh-ed25519 {ed25519}\n",
        f"[node1]:2222 {KIND} {OTHER.get_base64()}\nnode1 {KIND} {BLOB}\n",
    ):
        path.write_text(text)
        with pytest.raises(HostKeyError, match=rf"remove line 1 from {path}"):
            KnownHosts(path).check(ODD_PORT if "2222" in text else NODE, KEY, "accept-new")
        assert path.read_text() == text
    # Several keys of a host: one of them will do.
    assert is_known(path, f"node1 {KIND} {OTHER.get_base64()}\nnode1 {KIND} {BLOB}\n")
    assert KnownHosts(path).kinds_of(NODE) == [KIND]


def test_a_line_that_is_cut_anywhere_is_refused_with_its_number(path: Path) -> None:
    whole = f"node1 {KIND} {BLOB}"
    for length in range(1, len(whole)):
        path.write_text(whole[:length])
        with pytest.raises(HostKeyError, match=rf"{path} line 1 "):
            KnownHosts(path).check(NODE, KEY, "accept-new")
        assert path.read_text() == whole[:length]


def test_a_new_key_is_remembered_once_and_on_a_line_of_its_own(path: Path) -> None:
    path.write_text(f"node2 {KIND} {BLOB}")
    for _ in range(2):
        KnownHosts(path).check(ODD_PORT, KEY, "accept-new")
    assert path.read_text() == f"node2 {KIND} {BLOB}\n[node1]:2222 {KIND} {BLOB}\n"
    KnownHosts(None).check(NODE, KEY, "accept-new")
    with pytest.raises(HostKeyError, match="cannot be read"):
        KnownHosts(path / "below").check(NODE, KEY, "accept-new")
    (path.parent / "dangling").symlink_to(path.parent / "none" / "known_hosts")
    with pytest.raises(HostKeyError, match="cannot be remembered"):
        KnownHosts(path.parent / "dangling").check(NODE, KEY, "accept-new")


_PIECES = st.sampled_from(
    [
        "node1", "*", "!node1", "[node1]:2222", "|1|", "|1|AAAA|AAAA", paramiko.HostKeys.hash_host("node1"),
        "|1|====|é", "@revoked", "@cert-authority", "@x", KIND, BLOB, BLOB[:-4], "ssh-rsa", "AAAA", " ", "\t",
        "\n", "\r", ",", "#", "\0", "\u2028", "é",
    ]
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.binary(max_size=300), st.lists(_PIECES, max_size=14).map(lambda p: " ".join(p).encode())))
def test_no_file_is_an_internal_error(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed_known_hosts"
    for name in (NODE, ODD_PORT):
        path.write_bytes(raw)
        known = KnownHosts(path)
        try:
            known.kinds_of(name)
            known.check(name, KEY, "accept-new")
        except HostKeyError as error:
            assert str(path) in str(error)  # noqa: PT017
        else:
            known.check(name, KEY, "strict")  # it is known now


def test_a_pattern_of_stars_does_not_take_for_ever() -> None:
    assert not matches(["*a" * 60], "a" * 59 + "b")
    assert matches(["*a" * 59 + "*b"], "a" * 59 + "b")

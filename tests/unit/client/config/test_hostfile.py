from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clio_client.config.errors import ConfigError
from clio_client.config.hostfile import (
    MAX_HOSTFILE_BYTES,
    HostEntry,
    check_duplicates,
    hostfile_warnings,
    parse_hostfile,
    read_hostfile,
)
from tests.unit.client.config.helpers import attempt, unhurried


def names(text: str) -> list[str]:
    return [str(entry) for entry in parse_hostfile(text, "hosts")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", ["a"]),
        ("a\nb\n", ["a", "b"]),
        ("a:9413\na:9423\n", ["a:9413", "a:9423"]),
        ("# head\n\n  \t\na # tail\n#x\nb:1#y\n", ["a", "b:1"]),
        ("a\r\nb:2\r\n", ["a", "b:2"]),
        ("\ufeffa\nb", ["a", "b"]),
        ("  a \n\tb:1\t", ["a", "b:1"]),
        ("node[01-03]-40g", ["node01-40g", "node02-40g", "node03-40g"]),
        ("node[00-02,05]", ["node00", "node01", "node02", "node05"]),
        ("hello[00-01]-40g;world[10-11]", ["hello00-40g", "hello01-40g", "world10", "world11"]),
        ("a;b;c", ["a", "b", "c"]),
        ("node[ 01 - 02 , 7 ]", ["node01", "node02", "node7"]),
        # Ends of unequal length: no padding, as in the runtime.
        ("n[8-11]", ["n8", "n9", "n10", "n11"]),
        ("n[008-11]", ["n8", "n9", "n10", "n11"]),
        ("n[08-011]", ["n8", "n9", "n10", "n11"]),
        ("n[007-009]", ["n007", "n008", "n009"]),
        ("n[5]", ["n5"]),
        ("n[1-2]:9423", ["n1:9423", "n2:9423"]),
        ("127.0.0.1:941[3-4]", ["127.0.0.1:9413", "127.0.0.1:9414"]),
        ("10.0.0.[1-2]", ["10.0.0.1", "10.0.0.2"]),
        ("[1-2]n", ["1n", "2n"]),
        ("under_score.example.org.", ["under_score.example.org."]),
        ("a:1\na:2\nA.b", ["a:1", "a:2", "A.b"]),
        ("a:65532", ["a:65532"]),
    ],
)
def test_entries(text: str, expected: list[str]) -> None:
    assert names(text) == expected


def test_entry_carries_host_port_and_line() -> None:
    assert parse_hostfile("# c\na\n\nb[1-2]:7 # d\r\n", "hosts") == [
        HostEntry("a", None, 2),
        HostEntry("b1", 7, 4),
        HostEntry("b2", 7, 4),
    ]


@pytest.mark.parametrize(
    ("text", "line", "problem", "remedy"),
    [
        ("a\nb:x", 2, "'b:x' has the port 'x'", "for example b:9413"),
        ("a:0", 1, "the port '0'", "networking.port"),
        ("a:", 1, "the port ''", "networking.port"),
        ("a:-1", 1, "the port '-1'", "networking.port"),
        ("a:65533", 1, "not a number from 1 to 65532", "base port + 3"),
        ("a:99999999999999999999", 1, "not a number", "networking.port"),
        ("a:\u0661\u0662", 1, "not a number", "networking.port"),
        ("x\n\n::1", 3, "IPv6", "IPv4 address or a host name"),
        ("[::1]:9413", 1, "IPv6", "IPv4 address or a host name"),
        ("[fe80::1]", 1, "IPv6", "IPv4 address or a host name"),
        ("fe80::1", 1, "IPv6", "cannot answer clients over IPv6"),
        ("a:1:2", 1, "more than one ':'", "optional port"),
        ("n[3-1]", 1, "'3-1' in 'n[3-1]' runs backwards", "smaller number first"),
        ("n[a-b]", 1, "is not a number or a range", "node[01-16]"),
        ("n[-3]", 1, "is not a number or a range", "node[01-16]"),
        ("n[1-]", 1, "is not a number or a range", "node[01-16]"),
        ("n[]", 1, "is not a number or a range", "node[01-16]"),
        ("n[1,,2]", 1, "is not a number or a range", "node[01-16]"),
        ("n[1-2", 1, "one pair of brackets", "one bracket group"),
        ("n1-2]", 1, "one pair of brackets", "one bracket group"),
        ("[1-2", 1, "one pair of brackets", "one bracket group"),
        ("n[1-2]]", 1, "one pair of brackets", "one bracket group"),
        ("n]1[", 1, "one pair of brackets", "one bracket group"),
        ("r[1-2]n[1-2]", 1, "one pair of brackets", "one bracket group"),
        ("n[1-999999999]", 1, "999999999 nodes", "two ends"),
        ("n[1-60000];m[1-60000]", 1, "more than 65536 nodes", "ranges"),
        ("a;;b", 1, "empty entry", "Remove the superfluous"),
        ("a;", 1, "empty entry", "Remove the superfluous"),
        ("a/b", 1, "'a/b' is not a host name", "letters, digits"),
        ("-a", 1, "is not a host name", "letters, digits"),
        ("a..b", 1, "is not a host name", "letters, digits"),
        ("h\u00f6st", 1, "is not a host name", "letters, digits"),
        ("a\x00b", 1, "is not a host name", "letters, digits"),
        ("x" * 254, 1, "is not a host name", "letters, digits"),
        ("10.0.0.256", 1, "is not an IPv4 address", "0 to 255"),
        ("10.0.1", 1, "is not an IPv4 address", "0 to 255"),
        ("10.0.0.01", 1, "is not an IPv4 address", "leading zeros"),
        ("a\nb\nA", 3, "'A' is already in line 1", "line 1 or line 3"),
        ("a:1\nn[1-3]\na:1 # again", 3, "'a:1' is already in line 1", "line 1 or line 3"),
        ("a; A", 1, "'A' is there twice", "Remove one of the two"),
        ("n[1-3]\nn2", 2, "'n2' is already in line 1", "line 1 or line 2"),
    ],
)
def test_errors_name_file_line_and_remedy(text: str, line: int, problem: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_hostfile(text, "/etc/clio/hosts")
    error = caught.value
    assert (error.path, error.line) == ("/etc/clio/hosts", line)
    assert problem in error.problem
    assert remedy in error.remedy
    assert str(error) == f"/etc/clio/hosts:{line}: {error.problem}. {error.remedy}"
    assert str(error).isprintable()


@pytest.mark.parametrize("text", ["", "\n\n", "# only\n  # comments\n", "\ufeff"])
def test_no_entry_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^hosts: no node in this file\. Add one line a node"):
        parse_hostfile(text, "hosts")


def test_default_port_makes_duplicates() -> None:
    entries = parse_hostfile("a\na:9413", "hosts")
    check_duplicates(entries, "hosts", 9423)
    with pytest.raises(ConfigError, match=r"^hosts:2: 'a:9413' is already in line 1"):
        check_duplicates(entries, "hosts", 9413)


def test_warns_of_comments_because_the_runtime_counts_them() -> None:
    warnings = hostfile_warnings("# head\na\nb # tail\n", "hosts")
    assert [warning.split(":")[1] for warning in warnings] == ["1", "3"]
    assert "counts this line as a node" in warnings[0]
    assert "part of the host's name" in warnings[1]
    assert hostfile_warnings("a\nb\n", "hosts") == []


def test_reads_a_real_file(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb:9423\r\n")
    assert [str(entry) for entry in read_hostfile(path)] == ["a", "b:9423"]


def unusable(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / "hosts"
    if kind == "directory":
        path.mkdir()
    elif kind == "dangling":
        path.symlink_to(tmp_path / "gone")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "large":
        path.write_bytes(b"a\n" * (MAX_HOSTFILE_BYTES // 2 + 1))
    elif kind == "not UTF-8":
        path.write_bytes(b"a\nb\nn\xf6de\n")
    elif kind == "below a file":
        path.write_text("a")
        return path / "x"
    return path


@pytest.mark.parametrize(
    ("kind", "line", "problem", "remedy"),
    [
        ("missing", None, "does not exist", "Create it"),
        ("directory", None, "is a directory", "Name a file in it"),
        ("dangling", None, "symbolic link to a file that does not exist", "Restore"),
        ("loop", None, "cannot be read", "read permission"),
        ("fifo", None, "not a regular file", "Name a regular file"),
        ("large", None, "larger than 4194304 bytes", "Check that this is the file you meant"),
        ("not UTF-8", 3, "not UTF-8", "Save the file as UTF-8"),
        ("below a file", None, "cannot be read: Not a directory", "correct the path"),
    ],
)
def test_unusable_files(tmp_path: Path, kind: str, line: int | None, problem: str, remedy: str) -> None:
    path = unusable(tmp_path, kind)
    with pytest.raises(ConfigError) as caught:
        read_hostfile(path)
    assert (caught.value.path, caught.value.line) == (str(path), line)
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy


def test_a_path_with_a_nul_is_an_error() -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_hostfile("a\x00b")


def test_error_is_one_line_whatever_is_in_it() -> None:
    error = ConfigError("a\nb", "x\r\n\ty\x1b[31m.", "do\nit", line=3)
    assert str(error) == "a b:3: x y\\x1b[31m. do it"


@unhurried
@given(st.text(alphabet=st.sampled_from("ab01.:;[],-# \t\r\n\ufeff\u00e9"), max_size=40))
def test_any_text_is_entries_or_a_config_error(text: str) -> None:
    entries = attempt(lambda: parse_hostfile(text, "hosts"))
    if isinstance(entries, ConfigError):
        assert str(entries).startswith("hosts:")
        assert entries.remedy
        return
    assert entries
    assert len({(entry.host.lower(), entry.port) for entry in entries}) == len(entries)
    assert [entry.line for entry in entries] == sorted(entry.line for entry in entries)
    # What was read reads again as itself.
    again = parse_hostfile("\n".join(map(str, entries)), "hosts")
    assert [(entry.host, entry.port) for entry in again] == [(e.host, e.port) for e in entries]


@unhurried
@given(
    st.from_regex(r"\A[a-z]{1,8}\Z"),
    st.integers(0, 500),
    st.integers(0, 50),
    st.integers(1, 6),
    st.one_of(st.none(), st.integers(1, 65532)),
)
def test_a_range_stands_for_each_of_its_numbers(
    prefix: str, low: int, count: int, width: int, port: int | None
) -> None:
    first, last = str(low).zfill(width), str(low + count).zfill(width)
    text = f"{prefix}[{first}-{last}]-ib" + ("" if port is None else f":{port}")
    pad = len(first) if len(first) == len(last) else 0
    expected = [(f"{prefix}{str(n).zfill(pad)}-ib", port) for n in range(low, low + count + 1)]
    assert [(entry.host, entry.port) for entry in parse_hostfile(text, "hosts")] == expected

"""Hostfiles: the nodes of a cluster, one entry or one pattern a line.

The syntax is what the runtime itself reads (`ParseHostNameString` of clio-core's `config_parse.h`, and
`host:port` since 2.3): white space is dropped, `;` separates entries, one bracket group of numbers and
ranges is expanded (`node[01-03,07]-40g`), numbers keep the width of a range whose two ends are equally
long. Where the runtime silently reads something else than what was meant, this parser refuses.
A node's id is the index of its entry, because the runtime numbers its nodes so (see `hostfile_warnings`
for the one exception).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from clio_client.address import DEFAULT_PORT, MAX_PORT, port_number, split_host_port
from clio_client.config.errors import ConfigError, quoted
from clio_client.config.files import read_text

MAX_HOSTFILE_BYTES = 4 * 1024 * 1024
MAX_ENTRIES = 65536

_WHITE_SPACE = re.compile(r"\s+")
_RANGE = re.compile(r"(?P<low>[0-9]{1,9})(?:-(?P<high>[0-9]{1,9}))?")
_NAME = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
    r"(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?"
)


@dataclass(frozen=True, slots=True)
class HostEntry:
    """One node of a hostfile: `port` is None where the entry names none, `line` is 1-based, None
    for an entry that stands in no file."""

    host: str
    port: int | None
    line: int | None

    def __str__(self) -> str:
        return self.host if self.port is None else f"{self.host}:{self.port}"


def parse_hostfile(text: str, source: str) -> list[HostEntry]:
    """The entries of a hostfile in their order; `source` names the file in errors.

    Raises `ConfigError` for a malformed entry, a (host, port) that is there twice, or no entry at all.
    """
    # Only \n ends a line for the runtime; \r is white space. str.splitlines() would number lines otherwise.
    lines = enumerate(text.removeprefix("\ufeff").split("\n"), start=1)
    entries = collect_entries(((number, line.partition("#")[0]) for number, line in lines), source)
    if not entries:
        raise ConfigError(source, "no node in this file", "Add one line a node: host or host:port")
    check_duplicates(entries, source)
    return entries


def read_hostfile(path: str | Path) -> list[HostEntry]:
    """Read and parse a hostfile of at most 4 MiB. Raises `ConfigError`."""
    return parse_hostfile(*read_hostfile_text(path))


def read_hostfile_text(path: str | Path) -> tuple[str, str]:
    """The text of a hostfile, and its path to name in messages. Raises `ConfigError`."""
    return read_text(Path(path), "hostfile", MAX_HOSTFILE_BYTES), str(path)


def collect_entries(lines: Iterable[tuple[int | None, str]], source: str) -> list[HostEntry]:
    """The entries of (line number, text without comment) pairs, at most 65,536. Raises `ConfigError`."""
    entries: list[HostEntry] = []
    for number, line in lines:
        for entry in parse_entries(line, source, number):
            entries.append(entry)
            if len(entries) > MAX_ENTRIES:
                raise ConfigError(
                    source,
                    f"more than {MAX_ENTRIES} nodes",
                    "Check the ranges; a cluster this large needs several exporters",
                    line=number,
                )
    return entries


def hostfile_warnings(text: str, source: str) -> list[str]:
    """What in a hostfile the runtime reads differently from this parser, one line each.

    Measured with 2.3.2: the runtime knows no comments. It counts a line that holds only a comment as a node,
    so that the ids of all nodes after it are higher than the index here, and takes a trailing comment for a
    part of the name. Harmless where the file is the exporter's own; the runtime's own file should have none.
    """
    return [
        f"{source}:{number}: the runtime does not know comments: "
        + (
            "in its own hostfile this one is a part of the host's name"
            if line.partition("#")[0].strip()
            else "in its own hostfile it counts this line as a node and numbers the next ones higher"
        )
        for number, line in enumerate(text.split("\n"), start=1)
        if "#" in line
    ]


def parse_entries(text: str, source: str, line: int | None) -> Iterator[HostEntry]:
    """The entries of one line without its comment: none, one, or many by `;` and brackets."""
    compact = _WHITE_SPACE.sub("", text)
    if not compact:
        return
    for pattern in compact.split(";"):
        if not pattern:
            raise ConfigError(
                source,
                "an empty entry beside ';'",
                "Remove the superfluous ';': the runtime would count it as a node",
                line=line,
            )
        for name in _expand(pattern, source, line):
            yield parse_entry(name, source, line)


def parse_entry(text: str, source: str, line: int | None) -> HostEntry:
    """One expanded `host` or `host:port`. Raises `ConfigError`."""
    try:
        host, port_text = split_host_port(text)
    except ValueError:
        raise _ipv6(text, source, line) from None
    check_host(host, source, line)
    if port_text is None:
        return HostEntry(host, None, line)
    port = port_number(port_text, high=MAX_PORT)
    if port is None:
        raise ConfigError(
            source,
            f"{quoted(text)} has the port {quoted(port_text)}, not a number from 1 to {MAX_PORT}",
            "Give the runtime's base port (networking.port), for example "
            f"{host}:{DEFAULT_PORT}; clients are served on the base port + 3",
            line=line,
        )
    return HostEntry(host, port, line)


def check_host(host: str, source: str, line: int | None) -> None:
    """Raise `ConfigError` unless `host` is an IPv4 address or looks like a host name."""
    if ":" in host or host.startswith("["):
        raise _ipv6(host, source, line)
    if not _NAME.fullmatch(host):
        raise ConfigError(
            source,
            f"{quoted(host)} is not a host name or IPv4 address",
            "Use letters, digits, '.', '-' and '_', for example node01 or 10.0.0.1",
            line=line,
        )
    # Four numbers, or numbers only: meant as an address, for no top-level domain is numeric.
    if re.fullmatch(r"[0-9.]+", host):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise ConfigError(
                source,
                f"{quoted(host)} is not an IPv4 address",
                "Give four numbers from 0 to 255 without leading zeros, for example 10.0.0.1, or a name",
                line=line,
            ) from None


def check_duplicates(entries: Iterable[HostEntry], source: str, default_port: int | None = None) -> None:
    """Raise `ConfigError` when a (host, port) is there twice.

    With `default_port`, entries without a port are taken to have that one: `a` and `a:9413` are then equal.
    """
    seen: dict[tuple[str, int | None], HostEntry] = {}
    for entry in entries:
        key = (entry.host.lower(), default_port if entry.port is None else entry.port)
        first = seen.setdefault(key, entry)
        if first is entry:
            continue
        if first.line == entry.line:
            raise ConfigError(
                source,
                f"{quoted(entry)} is there twice",
                "Remove one of the two: every node is listed once",
                line=entry.line,
            )
        raise ConfigError(
            source,
            f"{quoted(entry)} is already in line {first.line}",
            f"Remove it from line {first.line} or line {entry.line}: every node is listed once",
            line=entry.line,
        )


def _expand(pattern: str, source: str, line: int | None) -> Iterator[str]:
    """The names a pattern with at most one bracket group stands for."""
    left, right = pattern.find("["), pattern.rfind("]")
    if left < 0 and right < 0:
        yield pattern
        return
    if left >= 0 and pattern.count(":", 0, right + 1 or None) > 1:
        raise _ipv6(pattern, source, line)
    if left < 0 or right < left or pattern.count("[") > 1 or pattern.count("]") > 1:
        raise ConfigError(
            source,
            f"{quoted(pattern)} does not have one pair of brackets",
            "Use one bracket group an entry, for example node[01-16]; write several entries for more",
            line=line,
        )
    prefix, suffix = pattern[:left], pattern[right + 1 :]
    for part in pattern[left + 1 : right].split(","):
        match = _RANGE.fullmatch(part)
        low = int(match["low"]) if match else 0
        high = int(match["high"] or match["low"]) if match else -1
        if match is None or high < low:
            reason = "runs backwards" if match else "is not a number or a range of numbers"
            raise ConfigError(
                source,
                f"the range {quoted(part)} in {quoted(pattern)} {reason}",
                "Write the smaller number first, for example node[01-16] or node[1,3,5-8]",
                line=line,
            )
        if high - low >= MAX_ENTRIES:
            raise ConfigError(
                source,
                f"the range {quoted(part)} stands for {high - low + 1} nodes, more than {MAX_ENTRIES}",
                "Check the range's two ends",
                line=line,
            )
        first, last = match["low"], match["high"] or match["low"]
        width = len(first) if len(first) == len(last) else 0
        for value in range(low, high + 1):
            yield f"{prefix}{value:0{width}d}{suffix}" if width else f"{prefix}{value}{suffix}"


def _ipv6(text: str, source: str, line: int | None) -> ConfigError:
    return ConfigError(
        source,
        f"{quoted(text)} is an IPv6 address or has more than one ':'",
        "Use an IPv4 address or a host name with an optional port (10.0.0.1:9413): the runtime cannot "
        "answer clients over IPv6",
        line=line,
    )

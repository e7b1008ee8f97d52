"""A known_hosts file, as sshd(8) SSH_KNOWN_HOSTS FILE FORMAT describes it, and the check of a host's key.

Stricter than OpenSSH in two ways. A line about the host that cannot be read is an error, for it may be what
is left of the key that the host must show. And a host that is known by keys of other types only is not new.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import paramiko

from clio_control_api.ssh_errors import HostKeyError
from clio_web.appending import append_line
from clio_web.logs import get_logger

_MAX_BYTES: Final = 16 * 1024 * 1024
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class HostName:
    """What a host is called in known_hosts: `[host]:port` unless the port is 22, or its HostKeyAlias."""

    host: str
    port: int = 22
    alias: str | None = None

    @property
    def known_as(self) -> str:
        """The name to look for, and to remember a key by."""
        if self.alias is not None:
            return self.alias.lower()
        return self.host.lower() if self.port == 22 else f"[{self.host.lower()}]:{self.port}"

    @property
    def without_port(self) -> str | None:
        """The name that ssh(1) looks for when there is nothing under the other; None: there is no second."""
        return None if self.port == 22 or self.alias is not None else self.host.lower()


@dataclass(frozen=True, slots=True)
class Line:
    """One line about a host. `marker` is "", "@cert-authority" or "@revoked"."""

    number: int
    marker: str
    hosts: str
    kind: str
    blob: bytes


class KnownHosts:
    """A known_hosts file of our own. Thread-safe; new keys are appended, so that processes can share it."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()

    def kinds_of(self, name: HostName) -> list[str]:
        """Types of the keys that a host is known by, to ask it for one of these; raises `HostKeyError`."""
        lines = list(self._lines())
        for known_as in (name.known_as, name.without_port):
            found = [] if known_as is None else _keys(lines, known_as, self._path)
            if found:
                return list(dict.fromkeys(line.kind for line in found))
        return []

    def check(self, name: HostName, key: Any, policy: str) -> None:
        """Accept a key that a host shows; under the policy accept-new, remember that of a new one.

        Raises:
            HostKeyError: it is not accepted, or the file cannot be used.
        """
        with self._lock:
            if self._is_known(name, key):
                return
            if policy == "strict":
                raise HostKeyError(
                    f"the host key of {name.known_as} ({fingerprint(key)}) is not known and host_keys is "
                    f"strict; compare it with the node's, then add it to {self._path} (ssh-keyscan prints "
                    "the line)"
                )
            if self._path is not None:
                _append(self._path, name, key)
        _log.info("host key accepted on first contact", host=name.known_as, fingerprint=fingerprint(key))

    def _is_known(self, name: HostName, key: Any) -> bool:
        """Whether the key is the host's; False when the host is new."""
        path, lines, blob = self._path, list(self._lines()), key.asbytes()
        known_as, shown = name.known_as, f"{name.known_as} ({fingerprint(key)})"
        names = [text for text in (known_as, name.without_port) if text is not None]
        for line in lines:
            if line.marker == "@revoked" and line.blob == blob and any(_means(line, n, path) for n in names):
                raise HostKeyError(
                    f"the host key of {shown} is revoked by {path} line {line.number}: give it a new key"
                )
        found = _keys(lines, known_as, path)
        if found:
            if any(line.blob == blob for line in found):
                return True
            raise HostKeyError(
                f"the host key of {known_as} has changed (now {fingerprint(key)}): somebody may be in the "
                f"middle, or the node was installed anew; if so, remove line {_numbers(found)} from {path}"
            )
        # ssh(1) looks at the name without the port only for the very key.
        if any(line.blob == blob for text in names[1:] for line in _keys(lines, text, path)):
            return True
        for line in lines:
            if line.marker == "@cert-authority" and _means(line, known_as, path):
                raise HostKeyError(
                    f"{path} line {line.number} wants a certificate of {known_as}, and host certificates are "
                    f"not supported: add the key of {shown} after comparing it"
                )
        return False

    def _lines(self) -> Iterator[Line]:
        if self._path is None:
            return
        try:
            with self._path.open("rb") as file:
                raw = file.read(_MAX_BYTES + 1)
        except FileNotFoundError:
            return
        except OSError as error:
            raise HostKeyError(
                f"the known hosts file {self._path} cannot be read: {error.strerror}"
            ) from None
        if len(raw) > _MAX_BYTES:
            raise HostKeyError(f"the known hosts file {self._path} is larger than {_MAX_BYTES} bytes")
        yield from read_lines(raw, self._path)


def read_lines(raw: bytes, path: Path) -> Iterator[Line]:
    """The lines of a file; one whose key cannot be read has no `blob`: it matters to the host it is about.

    Raises:
        HostKeyError: a line does not tell which hosts it is about, or what it revokes.
    """
    for number, text in enumerate(raw.decode("utf-8", "replace").split("\n"), 1):
        fields = text.strip(" \t\r").replace("\t", " ").split(" ", 1)
        if not fields[0] or fields[0].startswith("#"):
            continue
        marker = ""
        if fields[0].startswith("@"):
            marker = fields[0]
            if marker not in ("@cert-authority", "@revoked"):
                raise _bad(path, number, "has an unknown marker")
            fields = (fields[1] if len(fields) > 1 else "").strip().split(" ", 1)
        rest = (fields[1] if len(fields) > 1 else "").split()
        if not fields[0] or not rest:
            raise _bad(path, number, "is cut: it has no key")
        blob = _blob(rest)
        if marker == "@revoked" and not blob:
            raise _bad(path, number, "revokes a key that cannot be read")
        yield Line(number, marker, fields[0], rest[0], blob)


def _blob(fields: list[str]) -> bytes:
    """The key of a line, b"" when it is none: its own first string must be the type that the line says."""
    try:
        blob = base64.b64decode(fields[1], validate=True)
    except (IndexError, binascii.Error, ValueError):
        return b""
    kind = fields[0].encode()
    if blob[:4] != len(kind).to_bytes(4, "big") or blob[4 : 4 + len(kind)] != kind:
        return b""
    # Every part is a length and that many bytes; a key that was cut ends within one.
    place = 0
    while place < len(blob):
        place += 4 + int.from_bytes(blob[place : place + 4].ljust(4, b"\xff"), "big")
    return blob if place == len(blob) and len(blob) > 4 + len(kind) else b""


def _keys(lines: list[Line], known_as: str, path: Path | None) -> list[Line]:
    """The lines that hold a key of a host; raises `HostKeyError` when one about it cannot be read."""
    found = [line for line in lines if not line.marker and _means(line, known_as, path)]
    for line in found:
        if not line.blob:
            raise _bad(path, line.number, f"is about {known_as}, and its key is cut or none")
    return found


def _means(line: Line, known_as: str, path: Path | None) -> bool:
    """Whether a line is about a host."""
    if line.hosts.startswith("|"):
        parts = line.hosts.split("|")
        if len(parts) != 4 or parts[1] != "1":
            raise _bad(path, line.number, "has a hashed name that cannot be read")
        try:
            salt = base64.b64decode(parts[2], validate=True)
            told = base64.b64decode(parts[3], validate=True)
        except (binascii.Error, ValueError):
            salt = told = b""
        if len(salt) != hashlib.sha1(usedforsecurity=False).digest_size or len(told) != len(salt):
            raise _bad(path, line.number, "has a hashed name that cannot be read")
        return bool(paramiko.HostKeys.hash_host(known_as, line.hosts) == line.hosts)
    return matches(line.hosts.lower().split(","), known_as)


def matches(patterns: list[str], text: str) -> bool:
    """Whether a list of OpenSSH's patterns (`*`, `?`, a leading `!` for not) means a text."""
    found = False
    for pattern in patterns:
        if _matches(pattern.removeprefix("!"), text):
            if pattern.startswith("!"):
                return False
            found = True
    return found


def _matches(pattern: str, text: str) -> bool:
    """One pattern, in len(pattern) * len(text) steps; a regular expression of stars takes for ever."""
    p = t = mark = 0
    star = -1
    while t < len(text):
        if p < len(pattern) and pattern[p] == "*":
            star, mark, p = p, t, p + 1
        elif p < len(pattern) and pattern[p] in ("?", text[t]):
            p, t = p + 1, t + 1
        elif star >= 0:
            mark += 1
            p, t = star + 1, mark
        else:
            return False
    return pattern[p:].strip("*") == "" and bool(pattern)


def _append(path: Path, name: HostName, key: Any) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        append_line(path, f"{name.known_as} {key.get_name()} {key.get_base64()}")
    except OSError as error:
        raise HostKeyError(
            f"the key of {name.known_as} cannot be remembered in {path}: {error.strerror}; "
            "give the service's user the permission, or space"
        ) from None


def _bad(path: Path | None, number: int, what: str) -> HostKeyError:
    return HostKeyError(f"{path} line {number} {what}: correct or remove it")


def _numbers(lines: list[Line]) -> str:
    return ", ".join(str(line.number) for line in lines[:5]) + (" and more" if len(lines) > 5 else "")


def fingerprint(key: Any) -> str:
    """A key's fingerprint as OpenSSH shows it."""
    digest = hashlib.sha256(key.asbytes()).digest()
    return f"{key.get_name()} SHA256:{base64.b64encode(digest).decode().rstrip('=')}"

"""Bearer tokens: made here, stored as SHA-256, read again when the file changes.

A line of the tokens file is `name:role:sha256-hex`. Tokens are 256 random bits, so a plain hash
is enough: there is nothing to guess. That is also why only tokens of that form are looked at.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import re
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from clio_client.config.errors import ConfigError, quoted
from clio_client.config.files import read_text
from clio_client.config.watched_file import WatchedFile
from clio_web.logs import get_logger

PREFIX: Final = "clio_"
_TOKEN = re.compile(r"clio_[A-Za-z0-9_-]{43}", re.ASCII)
_LINE = re.compile(r"([A-Za-z0-9_.@-]{1,64}):([a-z]+):([0-9a-f]{64})", re.ASCII)
_MAX_FILE: Final = 256 * 1024

_log = get_logger(__name__)


class Role(enum.IntEnum):
    """What a client may do; a higher role may do all that a lower one may."""

    VIEWER = 1
    OPERATOR = 2


@dataclass(frozen=True, slots=True)
class Token:
    """A known token: who it belongs to, what it allows, and its hash."""

    name: str
    role: Role
    digest: str


def new_token() -> str:
    """A fresh token, to be shown once."""
    return PREFIX + secrets.token_urlsafe(32)


def digest_of(token: str) -> str:
    """What the file stores of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def line_of(name: str, role: Role, token: str) -> str:
    """The line that lets `token` in."""
    return f"{name}:{role.name.lower()}:{digest_of(token)}"


def parse_tokens(text: str, source: str) -> dict[str, Token]:
    """Tokens by hash. Blank lines and lines that begin with '#' do not count.

    Raises:
        ConfigError: names the line; never shows its content, which may be a token in clear.
    """
    found: dict[str, Token] = {}
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        roles = {role.name.lower(): role for role in Role}
        if match is None or match[2] not in roles:
            raise ConfigError(
                source,
                "not a line of the form name:viewer:hash or name:operator:hash",
                "Make one with: clio-control-api token NAME --role operator",
                line=number,
            )
        if match[3] in found:
            raise ConfigError(
                source, f"the token of {quoted(match[1])} is there twice", "Remove one of the lines", number
            )
        found[match[3]] = Token(match[1], roles[match[2]], match[3])
    return found


class TokenStore:
    """The tokens in force. Thread-safe. Without a file nobody has one.

    A file that changes is read at the next request; one that cannot be used then is logged, and the
    tokens before it stay in force.
    """

    def __init__(self, path: Path | None) -> None:
        """Read the file.

        Raises:
            ConfigError: it cannot be used, others may write it, or it has no token.
        """
        self._file = None if path is None else WatchedFile(path, _load, _log_change)
        if self._file is not None:
            self._file.value()

    @property
    def configured(self) -> bool:
        """Whether a token is needed at all."""
        return self._file is not None

    def find(self, presented: str) -> Token | None:
        """The token a client presented; None when it is not known."""
        if not _TOKEN.fullmatch(presented):
            return None
        return self.by_digest(digest_of(presented))

    def by_digest(self, digest: str) -> Token | None:
        """The token with this hash, compared with every one in constant time."""
        found = None
        for token in self._current().values():
            if hmac.compare_digest(token.digest, digest):
                found = token
        return found

    def reload(self) -> None:
        """Read the file again now; raises `ConfigError`, and the tokens before stay in force."""
        if self._file is not None:
            self._file.reload()

    def _current(self) -> Mapping[str, Token]:
        return {} if self._file is None else self._file.value()


def _log_change(what: Mapping[str, Token] | ConfigError) -> None:
    if isinstance(what, ConfigError):
        _log.error(
            "the tokens file changed and cannot be used; the tokens before stay in force", error=str(what)
        )
    else:
        _log.info("tokens reloaded", tokens=len(what))


def _load(path: Path) -> Mapping[str, Token]:
    text = read_text(path, "tokens file", _MAX_FILE)
    if path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(path, "others than its owner may write the tokens file", "Run chmod 600 on it")
    found = parse_tokens(text, str(path))
    if not found:
        raise ConfigError(
            path, "the tokens file has no token", "Add one with: clio-control-api token NAME --role operator"
        )
    return found

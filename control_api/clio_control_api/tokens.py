"""Bearer tokens: made here, stored as SHA-256, read again when the file changes.

A line of the tokens file is `name:role:sha256-hex`, then words of the form `key=value`: `expires=` (a time,
RFC 3339, or a day, UTC), `clusters=` and `nodes=` (see `principals.Scope`). Tokens are 256 random bits, so a
plain hash is enough: there is nothing to guess. That is also why only tokens of that form are looked at.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

from clio_client.config.errors import ConfigError, quoted
from clio_client.config.files import read_text
from clio_client.config.watched_file import WatchedFile
from clio_control_api.principals import EVERYWHERE, Identity, Role, Scope, parse_clusters, parse_nodes
from clio_web.logs import get_logger

PREFIX: Final = "clio_"
MADE_WITH: Final = "clio-control-api token NAME --role operator"
_TOKEN = re.compile(r"clio_[A-Za-z0-9_-]{43}", re.ASCII)
_LINE = re.compile(r"([A-Za-z0-9_.@-]{1,64}):([a-z]+):([0-9a-f]{64})((?:[ \t]+\S+)*)", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,64}", re.ASCII)
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_MAX_FILE: Final = 256 * 1024
_SHOWN_PROBLEMS: Final = 20

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Token:
    """A known token: who it belongs to, what it allows, its hash, and until when (Unix time) it holds."""

    name: str
    role: Role
    digest: str
    scope: Scope = EVERYWHERE
    expires: float | None = None

    @property
    def identity(self) -> Identity:
        """Whoever shows it."""
        return Identity(self.name, self.role, self.scope)

    @property
    def line(self) -> str:
        """The line of the tokens file that lets it in."""
        words = [f"{self.name}:{self.role.name.lower()}:{self.digest}"]
        if self.expires is not None:
            words.append(f"expires={time_text(self.expires)}")
        if str(self.scope):
            words.append(str(self.scope))
        return " ".join(words)


class TokenRefusedError(Exception):
    """A token does not count. `reason` is one of `unknown`, `expired`, `unusable_file`."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            {
                "unknown": "the token is not known",
                "expired": "the token has expired",
                "unusable_file": "no token can be checked now; the service's log says why",
            }[reason]
        )
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ParsedTokens:
    """Tokens by hash, and what is wrong with the lines that do not count."""

    tokens: Mapping[str, Token]
    problems: tuple[ConfigError, ...] = ()


def new_token() -> str:
    """A fresh token, to be shown once."""
    return PREFIX + secrets.token_urlsafe(32)


def digest_of(token: str) -> str:
    """What the file stores of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def is_name(text: str) -> bool:
    """Whether a token can be called this."""
    return _NAME.fullmatch(text) is not None


def line_of(name: str, role: Role, token: str) -> str:
    """The line that lets `token` in."""
    return Token(name, role, digest_of(token)).line


def parse_tokens(text: str, source: str) -> ParsedTokens:
    """What a tokens file says. Blank lines and lines that begin with '#' do not count.

    A line that is wrong lets nobody in, and the others hold. Nor does a token that is there twice: one of
    the lines may have been meant to take something away. Problems never show a line's content, which may be
    a token in clear.
    """
    found: dict[str, Token] = {}
    twice: set[str] = set()
    problems: list[ConfigError] = []
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        try:
            token = _parse_line(line)
        except ValueError as error:
            problems.append(ConfigError(source, str(error), f"Make one with: {MADE_WITH}", number))
            continue
        if token.digest in found:
            twice.add(token.digest)
            text_of = f"the token of {quoted(token.name)} is there twice, and does not count"
            problems.append(ConfigError(source, text_of, "Remove one of the lines", number))
        found[token.digest] = token
    return ParsedTokens({d: t for d, t in found.items() if d not in twice}, tuple(problems))


def _parse_line(line: str) -> Token:
    match = _LINE.fullmatch(line)
    roles = {role.name.lower(): role for role in Role}
    if match is None or match[2] not in roles:
        raise ValueError("not a line of the form name:viewer:hash or name:operator:hash")
    words: dict[str, str] = {}
    for word in match[4].split():
        key, _, value = word.partition("=")
        if key not in ("expires", "clusters", "nodes") or key in words:
            raise ValueError("has a word that is not expires=, clusters= or nodes=, or has one twice")
        words[key] = value
    scope = Scope(
        parse_clusters(words["clusters"]) if "clusters" in words else None,
        parse_nodes(words["nodes"]) if "nodes" in words else None,
    )
    role = roles[match[2]]
    if role < Role.OPERATOR and scope != EVERYWHERE:
        raise ValueError("limits the nodes of a viewer, but a scope is about actions")
    return Token(
        match[1], role, match[3], scope, parse_time(words["expires"]) if "expires" in words else None
    )


def parse_time(text: str) -> float:
    """Unix time of a day (its beginning, UTC) or of an RFC 3339 time; raises `ValueError`."""
    try:
        if _DAY.fullmatch(text):
            return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
        if found.tzinfo is not None:
            return found.timestamp()
    except (ValueError, OverflowError):
        pass
    raise ValueError("expires= is not a day such as 2027-01-31 or a time such as 2027-01-31T12:00:00Z")


def time_text(when: float) -> str:
    """A Unix time as RFC 3339, in whole seconds."""
    return datetime.fromtimestamp(when, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


class TokenStore:
    """The tokens in force. Thread-safe. Without a file nobody has one.

    A file that changes is read at the next request. While it is missing, empty, unreadable, or others may
    write it, no token counts: whoever revokes one must not have to wonder whether that worked.
    """

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.time) -> None:
        """Read the file; `clock` tells Unix time.

        Raises:
            ConfigError: it cannot be used, others may write it, or none of its lines is a token's.
        """
        self._clock = clock
        self._file = None if path is None else WatchedFile(path, load_tokens, _log_change)
        if self._file is not None:
            _log_problems(self._file.current())

    def find(self, presented: str) -> Token:
        """The token a client presented.

        Raises:
            TokenRefusedError: it does not count, and why.
        """
        if not _TOKEN.fullmatch(presented):
            raise TokenRefusedError("unknown")
        return self.by_digest(digest_of(presented))

    def by_digest(self, digest: str) -> Token:
        """The token with this hash; raises as `find`."""
        try:
            # To compare in constant time would hide nothing: who knows a hash does not know its token.
            token = self._current().tokens.get(digest)
        except ConfigError:
            raise TokenRefusedError("unusable_file") from None
        if token is None:
            raise TokenRefusedError("unknown")
        if token.expires is not None and token.expires <= self._clock():
            raise TokenRefusedError("expired")
        return token

    def reload(self) -> None:
        """Read the file again now, whatever its date; problems are logged."""
        if self._file is not None:
            with contextlib.suppress(ConfigError):  # logged
                self._file.reload()

    def counts(self) -> tuple[int, int, int, bool]:
        """How many tokens hold, have expired, and lines do not count; whether the file can be used."""
        try:
            parsed = self._current()
        except ConfigError:
            return 0, 0, 0, False
        now = self._clock()
        expired = sum(1 for t in parsed.tokens.values() if t.expires is not None and t.expires <= now)
        return len(parsed.tokens) - expired, expired, len(parsed.problems), True

    def _current(self) -> ParsedTokens:
        return ParsedTokens({}) if self._file is None else self._file.current()


def load_tokens(path: Path) -> ParsedTokens:
    """Read a tokens file.

    Raises:
        ConfigError: it cannot be used, others may write it, or none of its lines is a token's.
    """
    text = read_text(path, "tokens file", _MAX_FILE)
    if path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(path, "others than its owner may write the tokens file", "Run chmod 600 on it")
    found = parse_tokens(text, str(path))
    if not found.tokens:
        if found.problems:
            raise found.problems[0]
        raise ConfigError(path, "the tokens file has no token", f"Add one with: {MADE_WITH}")
    return found


def _log_change(what: ParsedTokens | ConfigError) -> None:
    if isinstance(what, ConfigError):
        _log.error("the tokens file cannot be used: no token counts until it can", error=str(what))
    else:
        _log.info("tokens read again", tokens=len(what.tokens))
        _log_problems(what)


def _log_problems(parsed: ParsedTokens) -> None:
    for problem in parsed.problems[:_SHOWN_PROBLEMS]:
        _log.error("a line of the tokens file does not count", error=str(problem))
    if len(parsed.problems) > _SHOWN_PROBLEMS:
        more = len(parsed.problems) - _SHOWN_PROBLEMS
        _log.error("further lines of the tokens file do not count", lines=more)

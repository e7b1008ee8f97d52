"""~/.ssh/config as ssh_config(5) has it, as far as it says where and how to connect.

Read are Host, Match, Include, HostName, Port, User, IdentityFile, IdentitiesOnly, IdentityAgent none,
HostKeyAlias, ProxyJump and ProxyCommand. `Match exec` is refused: it would run a command for every name that
a runtime can think of.
"""

from __future__ import annotations

import getpass
import glob
import os
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from clio_control_api.known_hosts import HostName, matches
from clio_control_api.settings import SshSettings
from clio_control_api.ssh_errors import SshConfigError

_MAX_DEPTH: Final = 16
_MAX_BYTES: Final = 1024 * 1024
_LINE = re.compile(r"([A-Za-z]+)(?:\s*=\s*|\s+)(.*\S)\s*")
_HOST = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_.:%-]{0,254}", re.ASCII)
_USER = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.@+-]{0,127}", re.ASCII)
_WANTED: Final = frozenset(
    {
        "hostname", "port", "user", "identityfile", "identitiesonly", "identityagent", "hostkeyalias",
        "proxyjump", "proxycommand",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Destination:
    """Where to connect and how, once ~/.ssh/config has had its say.

    Attributes:
        command: whose standard input and output is the connection; None: TCP.
        agent: whether an agent's keys may be tried.
    """

    host: str
    port: int
    user: str
    identities: tuple[Path, ...]
    identities_only: bool
    jumps: tuple[str, ...]
    command: str | None = None
    agent: bool = True
    alias: str | None = None

    @property
    def name(self) -> HostName:
        """The name in known_hosts."""
        return HostName(self.host, self.port, self.alias)

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.host} port {self.port}"


def destination(host: str, settings: SshSettings) -> Destination:
    """Combine our settings with the file's; ours win.

    Raises:
        SshConfigError: the file cannot be used, or asks for what is not supported; a name is none.
    """
    _check(_HOST, host, "host name", settings.config_file)
    own_name = _own_name()
    options = Options(host, settings.user, own_name)
    if settings.config_file is not None and settings.config_file.is_file():
        _read(settings.config_file, options)
    first, path = options.first, settings.config_file
    target = first.get("hostname", host).replace("%%", "\0").replace("%h", host).replace("\0", "%")
    _check(_HOST, target, "HostName", path)
    user = _check(_USER, settings.user or first.get("user") or own_name, "User", path)
    port = settings.port or _port(first.get("port", "22"), path)
    tokens = {"%": "%", "h": target, "n": host, "p": str(port), "r": user}
    identities = [settings.key_file] if settings.key_file else []
    if settings.key_file is None:
        home = str(Path.home())
        more = {**tokens, "d": home, "u": own_name, "i": str(os.getuid())}
        texts = [_expanded(text, more, "IdentityFile", path) for text in options.identities]
        identities = [_with_home(text) for text in texts if text.lower() != "none"]
    jumps: tuple[str, ...] = ()
    command = None
    # The one that was said first counts.
    for keyword in options.first:
        if keyword == "proxyjump":
            text = _expanded(first[keyword], tokens, "ProxyJump", path)
            jumps = () if text.lower() == "none" else tuple(part.strip() for part in text.split(","))
            break
        if keyword == "proxycommand":
            command = None if first[keyword].lower() == "none" else first[keyword]
            command = command and _expanded(command, tokens, "ProxyCommand", path)
            break
    return Destination(
        host=target, port=port, user=user, identities=tuple(identities),
        identities_only=first.get("identitiesonly", "no").lower() in ("yes", "true"),
        jumps=jumps, command=command, agent=first.get("identityagent", "").lower() != "none",
        alias=first.get("hostkeyalias"),
    )  # fmt: skip


@dataclass(slots=True)
class Options:
    """What has been found for one host: of each keyword the first value, and all IdentityFiles."""

    host: str
    user: str | None
    own_name: str
    first: dict[str, str] = field(default_factory=dict)
    identities: list[str] = field(default_factory=list)
    final: bool = False
    wants_final: bool = False

    def add(self, keyword: str, value: str) -> None:
        """One line that holds for this host."""
        if keyword == "identityfile":
            if value not in self.identities:
                self.identities.append(value)
        elif keyword in _WANTED:
            self.first.setdefault(keyword, value)


def _read(path: Path, options: Options) -> None:
    _read_file(path, options, active=True, depth=0)
    if options.wants_final:
        options.final = True
        _read_file(path, options, active=True, depth=0)


def _read_file(path: Path, options: Options, *, active: bool, depth: int) -> None:
    """Take what holds for the host. A file that is included where nothing holds has nothing that does."""
    outer = active
    for number, line in enumerate(_text(path).splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if "\0" in text:
            raise SshConfigError(f"{path} line {number} has a null character: correct it")
        found = _LINE.fullmatch(text)
        if found is None:
            raise SshConfigError(f"{path} line {number} has no value: correct it")
        keyword, value = found[1].lower(), found[2]
        if keyword not in _WANTED and keyword not in ("host", "match", "include"):
            continue
        if keyword == "proxycommand":
            words = [value]
        else:
            try:
                words = shlex.split(value, comments=True)
            except ValueError:
                raise SshConfigError(
                    f"{path} line {number} has a quote without its end: correct it"
                ) from None
            if not words:
                raise SshConfigError(f"{path} line {number} has no value: correct it")
        if keyword == "host":
            active = outer and matches(words, options.host)
        elif keyword == "match":
            active = _match(words, options, f"{path} line {number}") and outer
        elif keyword == "include":
            if depth >= _MAX_DEPTH:
                raise SshConfigError(f"{path} line {number}: more than {_MAX_DEPTH} files include each other")
            for name in words:
                for included in _included(name):
                    _read_file(included, options, active=active, depth=depth + 1)
        elif active:
            options.add(keyword, words[0])


def _match(words: list[str], options: Options, where: str) -> bool:
    """Whether the criteria of a Match line hold."""
    local = options.own_name
    user = options.user or options.first.get("user") or local
    host = options.first.get("hostname", options.host).replace("%h", options.host)
    criteria: dict[str, Callable[[list[str]], bool]] = {
        "host": lambda patterns: matches(patterns, host),
        "originalhost": lambda patterns: matches(patterns, options.host),
        "user": lambda patterns: matches(patterns, user),
        "localuser": lambda patterns: matches(patterns, local),
    }
    result, rest = True, list(words)
    while rest:
        word = rest.pop(0)
        name, _, argument = word.removeprefix("!").partition("=")
        name = name.lower()
        if name in ("all", "canonical", "final"):
            options.wants_final |= name == "final"
            holds = {"all": True, "canonical": False, "final": options.final}[name]
        elif name == "exec":
            raise SshConfigError(
                f"{where} has Match exec, which is refused: a name could become part of a shell command. Use "
                " Match host, or give the control API a config_file of its own"
            )
        elif name not in criteria:
            raise SshConfigError(
                f"{where} has Match {name[:40]}, which is not supported: use Match host or Host"
            )
        elif not argument and not rest:
            raise SshConfigError(f"{where}: Match {name} has no value: correct it")
        else:
            holds = criteria[name]((argument or rest.pop(0)).split(","))
        result = result and holds != word.startswith("!")
    return result


def _included(name: str) -> list[Path]:
    """The files that an Include means; relative ones lie in ~/.ssh."""
    path = _with_home(name)
    found = glob.glob(str(path if path.is_absolute() else Path.home() / ".ssh" / path))  # noqa: PTH207
    return [Path(text) for text in sorted(found) if Path(text).is_file()]


def _with_home(text: str) -> Path:
    """A path with its leading `~` or `~user` expanded; that of a user who is not there stays as it is."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise SshConfigError(f"{path} cannot be read: {error.strerror}") from None


def _expanded(text: str, tokens: dict[str, str], keyword: str, path: Path | None) -> str:
    """`text` with its tokens replaced. Names have no character that a shell knows, so none needs a quote."""

    def value(found: re.Match[str]) -> str:
        if found[1] not in tokens:
            raise SshConfigError(f"{path}: {keyword} has the token %{found[1]}, which is not supported")
        return tokens[found[1]]

    return re.sub(r"%(.?)", value, text)


def _check(pattern: re.Pattern[str], text: str, what: str, path: Path | None) -> str:
    if not pattern.fullmatch(text):
        raise SshConfigError(f"{text[:80]!a} is no {what} that can be used; see the hostfile and {path}")
    return text


def _port(text: str, path: Path | None) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text[:6]) < 65536):
        raise SshConfigError(f"{path}: {text[:20]!a} is no Port: give a number from 1 to 65535")
    return int(text)


def _own_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())

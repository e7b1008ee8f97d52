"""Settings of the control API: YAML file, environment, flags; later ones win.

Where the nodes are is said in the exporter's own terms: `exporter_config` names the exporter's settings
file, so that both daemons share one description; without it a single cluster is found as the exporter
finds it (`hostfile` here, the environment, the runtime's configuration).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from exporter.config import yamltree
from exporter.config.errors import ConfigError, quoted
from exporter.config.fields import Field
from exporter.config.files import read_text
from exporter.config.hostfile import check_host
from exporter.config.settings import Settings as ExporterSettings
from exporter.config.settings import default_settings, load_settings

ENV_PREFIX: Final = "CLIO_CONTROL_API_"
DEFAULT_REPLY_PORT: Final = 9788
"""Away from the exporter's 9778 and the nine above it, which it falls back to."""

HOST_KEY_POLICIES: Final = ("accept-new", "strict", "off")
ACTIONS: Final = ("shutdown", "restart")
_MAX_FILE: Final = 1024 * 1024
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_PLACEHOLDERS = ("node_id", "hostname", "port")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,127}", re.ASCII)


@dataclass(frozen=True, slots=True)
class SshSettings:
    """How a node is reached and acted on. None and empty: the default, or what ~/.ssh/config says.

    `program` is the runtime's command (default: `clio_run`, else `chimaera`, from the PATH of the node),
    `commands` replaces what an action runs (an argument list; no shell), `environment`, `directory` and
    `log_file` are those of the commands. These four may hold {node_id}, {hostname} and {port}.
    Times are seconds. `jump` is host[:port] of a jump host, as ProxyJump.
    """

    host: str | None = None
    port: int | None = None
    user: str | None = None
    key_file: Path | None = None
    passphrase_file: Path | None = None
    config_file: Path | None = None
    known_hosts_file: Path | None = None
    host_keys: str = "accept-new"
    agent: bool = True
    connect_timeout: float = 5.0
    command_timeout: float = 60.0
    program: str | None = None
    directory: str | None = None
    log_file: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    commands: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClusterSsh:
    """SSH settings of one cluster, and those of single nodes by node id, host or host:port."""

    ssh: SshSettings = SshSettings()
    nodes: Mapping[str, SshSettings] = field(default_factory=dict)

    def for_node(self, node_id: int, host: str, port: int) -> SshSettings:
        """What holds for one node: by its id, else host:port, else host, else the cluster's."""
        for key in (str(node_id), f"{host}:{port}", host):
            if key in self.nodes:
                return self.nodes[key]
        return self.ssh


@dataclass(frozen=True, slots=True)
class Limits:
    """Requests a client may make; a client is a token's name or, without one, an address."""

    reads_per_second: int = 500
    actions_per_minute: int = 30
    failed_logins_per_minute: int = 20
    max_actions: int = 16
    max_body_bytes: int = 8192
    max_url_bytes: int = 16384


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the control API is told."""

    host: str = "127.0.0.1"
    port: int = 5000
    debug: bool = False
    exporter: ExporterSettings = field(default_factory=default_settings)
    reply_port: int = DEFAULT_REPLY_PORT
    tokens_file: Path | None = None
    web_config_file: Path | None = None
    state_dir: Path = Path("~/.local/state/clio-control-api")
    audit_log: Path | None = None
    dashboard_url: str | None = None
    external_url: str | None = None
    allowed_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    proxy_hops: int = 0
    limits: Limits = Limits()
    clusters: Mapping[str, ClusterSsh] = field(default_factory=lambda: {"": ClusterSsh()})
    log_level: str = "info"
    log_format: str = "logfmt"

    @property
    def audit_path(self) -> Path:
        """Where actions are written down."""
        return self.audit_log or self.state_dir / "audit.jsonl"

    def ssh_of(self, cluster: str) -> ClusterSsh:
        """The SSH settings of a cluster; one that is not named has the common ones."""
        return self.clusters.get(cluster) or self.clusters[""]


_FLAGS = {
    "host": str, "port": int, "tokens_file": str, "web_config_file": str, "hostfile": str,
    "exporter_config": str, "state_dir": str, "audit_log": str, "dashboard_url": str, "external_url": str,
    "reply_port": int, "log_level": str, "log_format": str,
}  # fmt: skip
"""Settings that flags and the environment can give too (CLIO_CONTROL_API_TOKENS_FILE ...)."""

_KEYS = (
    *_FLAGS, "allowed_origins", "allowed_hosts", "proxy_hops", "limits", "ssh", "nodes", "clusters",
)  # fmt: skip
_SSH_KEYS = (
    "host", "port", "user", "key_file", "passphrase_file", "config_file", "known_hosts_file", "host_keys",
    "agent", "connect_timeout", "command_timeout", "program", "directory", "log_file", "environment",
    "commands",
)  # fmt: skip


def load(path: Path | None, flags: Mapping[str, Any], env: Mapping[str, str], home: Path) -> Settings:
    """The settings of file, environment and flags (None: not given).

    Raises:
        ConfigError: names file and line, variable or flag, and the remedy.
    """
    top: dict[str, Field] = {}
    if path is not None:
        text = read_text(path, "control API settings file", _MAX_FILE)
        node = yamltree.compose(text, str(path))
        if node is not None:
            top = Field(node, str(path), "").mapping(_KEYS)
    base = Path.cwd() if path is None else path.parent.absolute()
    given = _scalars(top, flags, env, base, home)
    state_home = env.get("XDG_STATE_HOME") or str(home / ".local" / "state")
    state_dir = given.pop("state_dir", None) or Path(state_home) / "clio-control-api"
    exporter = _exporter(given.pop("exporter_config", None), given.pop("hostfile", None))
    settings = Settings(exporter=exporter, state_dir=state_dir, debug=bool(flags.get("debug")))
    settings = replace(settings, **given)
    changes: dict[str, Any] = {}
    if "allowed_origins" in top:
        changes["allowed_origins"] = tuple(_origin(item) for item in top["allowed_origins"].sequence())
    if "allowed_hosts" in top:
        changes["allowed_hosts"] = tuple(item.text().lower() for item in top["allowed_hosts"].sequence())
    if "proxy_hops" in top:
        changes["proxy_hops"] = top["proxy_hops"].integer(0, 8)
    if "limits" in top:
        values = top["limits"].mapping(Limits.__slots__)
        changes["limits"] = replace(
            Limits(), **{name: item.integer(1, 1_000_000) for name, item in values.items()}
        )
    common = SshSettings(known_hosts_file=state_dir / "known_hosts", config_file=home / ".ssh" / "config")
    changes["clusters"] = _clusters(top, common, base, home, {c.name for c in exporter.clusters})
    return replace(settings, **changes)


def _scalars(
    top: Mapping[str, Field], flags: Mapping[str, Any], env: Mapping[str, str], base: Path, home: Path
) -> dict[str, Any]:
    """Flags before environment before file, each value checked where it stands."""
    found: dict[str, Any] = {}
    for name, kind in _FLAGS.items():
        variable = ENV_PREFIX + name.upper()
        if flags.get(name) is not None:
            origin, value, directory = f"--{name.replace('_', '-')}", str(flags[name]), Path.cwd()
        elif env.get(variable):
            origin, value, directory = variable, env[variable], Path.cwd()
        elif name in top:
            origin, value, directory = top[name].source, top[name].text(), base
        else:
            continue
        line = top[name].line if name in top and origin == top[name].source else None
        if kind is int:
            if not re.fullmatch(r"[0-9]{1,5}", value, re.ASCII) or int(value) > 65535:
                raise ConfigError(origin, f"{name} is {quoted(value)}, not a port", "Give 0 to 65535", line)
            found[name] = int(value)
        elif name.endswith(("_file", "_dir", "_log", "_config")) or name == "hostfile":
            found[name] = directory / _path(value, home)
        elif name.endswith("_url"):
            found[name] = _url(value, origin, name, line)
        else:
            found[name] = value
    return found


def _exporter(config: Path | None, hostfile: Path | None) -> ExporterSettings:
    settings = default_settings() if config is None else load_settings(config)
    return settings if hostfile is None else settings.with_overrides(hostfile=hostfile)


def _clusters(
    top: Mapping[str, Field], common: SshSettings, base: Path, home: Path, known: set[str]
) -> dict[str, ClusterSsh]:
    if "ssh" in top:
        common = _ssh(top["ssh"], common, base, home)
    nodes = _nodes(top["nodes"], common, base, home) if "nodes" in top else {}
    found = {"": ClusterSsh(common, nodes)}
    if "clusters" in top:
        for name, item in top["clusters"].mapping().items():
            if name not in known:
                raise item.error(
                    "is no cluster of the exporter's settings",
                    f"Use one of: {', '.join(sorted(known)) or '(none is named)'}",
                )
            values = item.mapping(("ssh", "nodes"))
            ssh = _ssh(values["ssh"], common, base, home) if "ssh" in values else common
            own = _nodes(values["nodes"], ssh, base, home) if "nodes" in values else {}
            found[name] = ClusterSsh(ssh, own)
    return found


def _nodes(item: Field, ssh: SshSettings, base: Path, home: Path) -> dict[str, SshSettings]:
    return {name: _ssh(value, ssh, base, home) for name, value in item.mapping().items()}


def _ssh(item: Field, parent: SshSettings, base: Path, home: Path) -> SshSettings:
    """The settings of `item` over those of `parent`."""
    values = item.mapping(_SSH_KEYS)
    changes: dict[str, Any] = {}
    for name, value in values.items():
        if name in ("key_file", "passphrase_file", "config_file", "known_hosts_file"):
            changes[name] = base / _path(value.text(), home)
        elif name == "host":
            check_host(value.text(), value.source, value.line)
            changes[name] = value.text()
        elif name == "port":
            changes[name] = value.integer(1, 65535)
        elif name == "user":
            if not _USER.fullmatch(value.text()):
                raise value.error(f"is {quoted(value.text())}", "Give a user name")
            changes[name] = value.text()
        elif name == "host_keys":
            changes[name] = value.choice(HOST_KEY_POLICIES)
        elif name == "agent":
            changes[name] = value.boolean()
        elif name == "connect_timeout":
            changes[name] = value.seconds(0.1, 120)
        elif name == "command_timeout":
            changes[name] = value.seconds(1, 3600)
        elif name == "environment":
            changes[name] = {**parent.environment, **_environment(value)}
        elif name == "commands":
            changes[name] = {**parent.commands, **_commands(value)}
        else:
            changes[name] = _template(value, value.text())
    return replace(parent, **changes)


def _environment(item: Field) -> dict[str, str]:
    found = {}
    for name, value in item.mapping().items():
        if not _VARIABLE.fullmatch(name):
            raise value.error("is not the name of an environment variable", "Use letters, digits and '_'")
        found[name] = _template(value, value.text())
    return found


def _commands(item: Field) -> dict[str, tuple[str, ...]]:
    found = {}
    for name, value in item.mapping(ACTIONS).items():
        words = tuple(_template(word, word.text()) for word in value.sequence())
        if not words:
            raise value.error("is empty", "List the program and its arguments, or remove the key")
        found[name] = words
    return found


def _template(item: Field, text: str) -> str:
    if any(not c.isprintable() for c in text):
        raise item.error("has a control character", "Use printable text on one line")
    for name in _PLACEHOLDER.findall(text):
        if name not in _PLACEHOLDERS:
            raise item.error(
                f"has the unknown placeholder {quoted('{' + name + '}')}",
                "Use {node_id}, {hostname} or {port}",
            )
    return text


def fill(text: str, node_id: int, hostname: str, port: int) -> str:
    """`text` with {node_id}, {hostname} and {port} (base port) replaced."""
    values = {"node_id": str(node_id), "hostname": hostname, "port": str(port)}
    return _PLACEHOLDER.sub(lambda match: values[match[1]], text)


def _path(text: str, home: Path) -> Path:
    if text == "~" or text.startswith("~/"):
        return home / text[2:]
    return Path(text)


def _url(text: str, origin: str, name: str, line: int | None) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc or any(c.isspace() for c in text):
        raise ConfigError(origin, f"{name} is {quoted(text)}, not a URL", "Write https://host/path", line)
    return text


def _origin(item: Field) -> str:
    text = item.text().lower()
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path or parts.query:
        raise item.error(
            f"is {quoted(text)}, not an origin",
            "Write scheme and host only, such as https://grafana.example.org",
        )
    return text


def private_directory(path: Path) -> None:
    """Create a directory that only its owner can read, where it is missing.

    Raises:
        ConfigError: it cannot be created or written.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            path, f"cannot be created: {error.strerror}", "Give another state_dir or the permission"
        ) from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise ConfigError(path, "cannot be written", "Give another state_dir or the permission")

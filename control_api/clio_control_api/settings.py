"""Settings of the control API: YAML file, environment, flags; later ones win.

Where the nodes are is said in the exporter's own terms: `exporter_config` names the exporter's settings
file, so that both daemons share one description; without it a single cluster is found as the exporter
finds it (`hostfile` here, the environment, the runtime's configuration).
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from clio_client.address import HIGHEST_PORT
from clio_client.config import table
from clio_client.config.errors import ConfigError, quoted
from clio_client.config.fields import Field
from clio_client.config.files import read_text
from clio_client.config.settings import Settings as ClientSettings
from clio_client.config.settings import load_settings
from clio_client.config.table import PATH, Kind, Setting, setting, table_of
from clio_web import logs

ENV_PREFIX: Final = "CLIO_CONTROL_API_"
DEFAULT_REPLY_PORT: Final = 9788
"""Away from the exporter's 9778 and the nine above it, which it falls back to."""

HOST_KEY_POLICIES: Final = ("accept-new", "strict", "off")
ACTIONS: Final = ("shutdown", "restart")
AUTH: Final = ("none", "actions", "all")
_MAX_FILE: Final = 1024 * 1024
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_PLACEHOLDERS = ("node_id", "hostname", "port")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,127}", re.ASCII)


def _user(value: Field) -> str:
    if not _USER.fullmatch(value.text()):
        raise value.refusal("not a user name", "Give a user name")
    return value.text()


def _template(value: Field) -> str:
    text = value.text()
    if any(not c.isprintable() for c in text):
        raise value.error("has a control character", "Use printable text on one line")
    for name in _PLACEHOLDER.findall(text):
        if name not in _PLACEHOLDERS:
            raise value.error(
                f"has the unknown placeholder {quoted('{' + name + '}')}",
                "Use {node_id}, {hostname} or {port}",
            )
    return text


def _environment(section: Field) -> dict[str, str]:
    values = section.mapping()
    for name, value in values.items():
        if not _VARIABLE.fullmatch(name):
            raise value.error("is not the name of an environment variable", "Use letters, digits and '_'")
    return {name: _template(value) for name, value in values.items()}


def _commands(section: Field) -> dict[str, tuple[str, ...]]:
    found = {}
    for name, value in section.mapping(ACTIONS).items():
        found[name] = tuple(map(_template, value.sequence()))
        if not found[name]:
            raise value.error("is empty", "List the program and its arguments, or remove the key")
    return found


def _split(text: str) -> SplitResult:
    try:
        return urlsplit(text)
    except ValueError:  # brackets around what is no IPv6 address
        return SplitResult("", "", "", "", "")


def _url(value: Field) -> str:
    text = value.text()
    parts = _split(text)
    if parts.scheme not in ("http", "https") or not parts.netloc or any(c.isspace() for c in text):
        raise value.refusal("not a URL", "Write https://host/path")
    return text


def _origin(value: Field) -> str:
    text = value.text().lower()
    parts = _split(text)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path or parts.query:
        raise value.refusal(
            "not an origin", "Write scheme and host only, such as https://grafana.example.org"
        )
    return text


def _network(value: Field) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(value.text())
    except ValueError:
        raise value.refusal("not an address or network", "Write 10.0.0.5 or 10.0.0.0/24") from None


def _alert_actions(section: Field) -> dict[str, str]:
    return {name: value.choice(ACTIONS) for name, value in section.mapping().items()}


def _alertmanager(section: Field) -> AlertmanagerSettings:
    return table.updated(AlertmanagerSettings(), ALERTMANAGER, table.fields_of(ALERTMANAGER, section))


def _limits(section: Field) -> Limits:
    return table.updated(Limits(), LIMITS, table.fields_of(LIMITS, section))


_TEMPLATE: Final = Kind(_template)
_COUNT: Final = table.integer(1, 1_000_000)
_URL: Final = Kind(_url, "URL")
_FILE_ONLY: Final = {"flag": False, "variable": False}


@dataclass(frozen=True, slots=True)
class SshSettings:
    """How a node is reached and acted on. None and empty: the default, or what ~/.ssh/config says.

    `program` is the runtime's command, `commands` replaces what an action runs (an argument list; no shell),
    `environment`, `directory` and `log_file` are those of the commands. These, and `lock_directory`, may hold
    {node_id}, {hostname} and {port}. Times are seconds.
    """

    host: str | None = setting(
        None, table.HOST, "where sshd is, for one node", shown="as OpenSSH has it, else the node's"
    )
    port: int | None = setting(
        None, table.integer(1, HIGHEST_PORT), "port of sshd", shown="as OpenSSH has it"
    )
    user: str | None = setting(None, Kind(_user), "who logs in", shown="as OpenSSH has it")
    key_file: Path | None = setting(None, PATH, "private key", shown="as OpenSSH has it")
    passphrase_file: Path | None = setting(
        None, PATH, "passphrase of the key", shown=f"the variable `{ENV_PREFIX}KEY_PASSPHRASE`"
    )
    config_file: Path | None = setting(None, PATH, "OpenSSH's configuration", shown="`~/.ssh/config`")
    known_hosts_file: Path | None = setting(None, PATH, "hosts' keys", shown="`STATE_DIR/known_hosts`")
    host_keys: str = setting("accept-new", table.choice(*HOST_KEY_POLICIES), "how hosts are checked")
    agent: bool = setting(True, table.BOOLEAN, "whether the keys of an SSH agent are tried")
    connect_timeout: float = setting(5.0, table.duration(0.1, 120), "time until the log-in is done")
    command_timeout: float = setting(60.0, table.duration(1, 3600), "time a command has")
    start_timeout: float = setting(
        120.0, table.duration(1, 3600), "time a restarted runtime has until it listens"
    )
    lock_directory: str | None = setting(
        None,
        _TEMPLATE,
        "where a node keeps the lock of its action and the outcome; nobody but the user may write there",
        shown="`~/.clio/control`",
    )
    program: str | None = setting(
        None, _TEMPLATE, "the runtime's command", shown="`clio_run`, else `chimaera`, from the `PATH`"
    )
    directory: str | None = setting(None, _TEMPLATE, "where commands run", shown="the home directory")
    log_file: str | None = setting(
        None, _TEMPLATE, "output of a restart", shown="`~/.clio/restart-nodeID.log`"
    )
    environment: Mapping[str, str] = setting(
        dict, Kind(_environment), "variables of the commands, besides those of the section above this one"
    )
    commands: Mapping[str, tuple[str, ...]] = setting(
        dict, Kind(_commands), "lists of arguments that `shutdown` and `restart` run instead; no shell"
    )


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

    reads_per_second: int = setting(500, _COUNT, "by token, without one by address")
    actions_per_minute: int = setting(30, _COUNT, "by token, without one by address")
    failed_logins_per_minute: int = setting(20, _COUNT, "by address; a token that counts is never refused")
    max_sessions: int = setting(
        1000, _COUNT, "log-ins of browsers at once; the one unused longest goes first"
    )
    max_actions: int = setting(16, _COUNT, "actions under way at once")
    max_body_bytes: int = setting(8192, _COUNT, "size of a request's body")
    max_url_bytes: int = setting(16384, _COUNT, "size of a request's address")
    max_listeners: int = setting(
        16, table.integer(1, 64), "who may follow operations live at once; each holds one of 96 threads"
    )


@dataclass(frozen=True, slots=True)
class AlertmanagerSettings:
    """What alerts may cause: nothing unless switched on, then only words in the log until dry_run is off."""

    enabled: bool = setting(False, table.BOOLEAN, "whether `/api/alertmanager` takes notifications")
    dry_run: bool = setting(True, table.BOOLEAN, "decide and write down, but do nothing")
    actions: Mapping[str, str] = setting(
        dict, Kind(_alert_actions), "names of alerts, each with `restart` or `shutdown`"
    )
    max_per_hour: int = setting(1, table.integer(1, 60), "actions an hour and a node")
    max_down_percent: int = setting(
        25, table.integer(0, 100), "nothing is done while more of the cluster's nodes than this are down"
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the control API is told."""

    host: str = setting("127.0.0.1", Kind(table.TEXT.read, "ADDRESS"), "address to listen on")
    port: int = setting(5000, table.port(0, HIGHEST_PORT), "port to listen on")
    debug: bool = setting(False, table.BOOLEAN, "log at level debug", key="", variable=False)
    exporter_config: Path | None = setting(
        None, PATH, "the exporter's settings file: clusters, nodes, how runtimes are asked"
    )
    hostfile: Path | None = setting(None, PATH, "nodes of a single cluster, one host or host:port a line")
    reply_port: int = setting(
        DEFAULT_REPLY_PORT,
        table.port(0, HIGHEST_PORT),
        "port that runtimes dial back to; it must not be one of the exporter's, 9778 to 9787",
        flag=False,
    )
    auth: str | None = setting(
        None, table.choice(*AUTH), "what needs a token; `none` and `actions` are for loopback, without proxy",
        shown="`actions` on loopback without `tokens_file` and proxy, else `all`",
    )  # fmt: skip
    tokens_file: Path | None = setting(
        None, PATH, "tokens; must be given on any address but loopback", shown="`STATE_DIR/tokens`"
    )
    session_idle: float = setting(
        1800.0, table.duration(1, 604800), "time after which a log-in that is not used ends", flag=False
    )
    session_lifetime: float = setting(
        28800.0, table.duration(1, 604800), "time after which a log-in ends in any case", flag=False
    )
    web_config_file: Path | None = setting(
        None, PATH, "TLS and headers, in the Prometheus exporter-toolkit format"
    )
    state_dir: Path = setting(
        Path("~/.local/state/clio-control-api"), PATH, "known hosts, audit log, tokens", flag=False
    )
    audit_log: Path | None = setting(
        None, PATH, "where actions are written down", flag=False, shown="`STATE_DIR/audit.jsonl`"
    )
    audit_syslog: bool = setting(
        False, table.BOOLEAN, "send the audit log to journald or syslog (`/dev/log`) too", flag=False
    )
    dashboard_url: str | None = setting(None, _URL, "where the pages lead back to", flag=False)
    external_url: str | None = setting(None, _URL, "address that browsers use, behind a proxy", flag=False)
    allowed_origins: tuple[str, ...] = setting(
        (),
        Kind(lambda value: tuple(map(_origin, value.sequence()))),
        "sites whose scripts may call the API (CORS)",
        **_FILE_ONLY,
    )
    allowed_hosts: tuple[str, ...] = setting(
        (),
        Kind(lambda value: tuple(item.text().lower() for item in value.sequence())),
        "further host names that are answered to without tokens",
        **_FILE_ONLY,
    )
    proxy_hops: int = setting(
        0, table.integer(0, 8), "proxies in front whose `X-Forwarded-` headers are believed", **_FILE_ONLY
    )
    trusted_proxies: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = setting(
        (),
        Kind(lambda value: tuple(map(_network, value.sequence()))),
        "addresses or networks of those proxies; without it whoever connects is taken for one",
        **_FILE_ONLY,
    )
    limits: Limits = setting(
        Limits(), Kind(_limits), "requests a client may make", shown="see below", **_FILE_ONLY
    )
    prometheus_url: str | None = setting(None, _URL, "Prometheus whose alerts stop an operation", flag=False)
    resume_within: float = setting(
        600.0,
        table.duration(0, 86400),
        "an operation goes on by itself when the service was away no longer than this",
        flag=False,
    )
    alertmanager: AlertmanagerSettings = setting(
        AlertmanagerSettings(),
        Kind(_alertmanager),
        "what alerts may cause",
        shown="nothing",
        **_FILE_ONLY,
    )
    log_level: str = setting("info", table.choice(*logs.LEVELS), "what is logged")
    log_format: str = setting("logfmt", table.choice(*logs.FORMATS), "how it is written")
    exporter: ClientSettings = ClientSettings()
    clusters: Mapping[str, ClusterSsh] = field(default_factory=lambda: {"": ClusterSsh()})

    @property
    def tokens_path(self) -> Path:
        """Where tokens are, unless none is needed."""
        return self.tokens_file or self.state_dir / "tokens"

    @property
    def audit_path(self) -> Path:
        """Where actions are written down."""
        return self.audit_log or self.state_dir / "audit.jsonl"

    def ssh_of(self, cluster: str) -> ClusterSsh:
        """The SSH settings of a cluster; one that is not named has the common ones."""
        return self.clusters.get(cluster) or self.clusters[""]

    def unchecked_hosts(self) -> set[str]:
        """In words, the nodes whose host keys are not checked."""
        found = set()
        for name, cluster in self.clusters.items():
            where = f" of cluster {name}" if name else ""
            if cluster.ssh.host_keys == "off":
                found.add(f"all nodes{where}")
            else:
                off = (node for node, ssh in cluster.nodes.items() if ssh.host_keys == "off")
                found.update(f"node {node}{where}" for node in off)
        return found


SSH: Final = table_of(SshSettings)
LIMITS: Final = table_of(Limits)
ALERTMANAGER: Final = table_of(AlertmanagerSettings)
SETTINGS: Final = table_of(Settings, flags="--", variables=ENV_PREFIX)
FILE: Final = Setting(
    "config", PATH, None, f"settings file (YAML); also {ENV_PREFIX}CONFIG; see docs/control-api.md",
    flag="--config",
)  # fmt: skip


def load(path: Path | None, flags: Mapping[str, Any], env: Mapping[str, str], home: Path) -> Settings:
    """The settings of file, environment and flags (None: not given).

    Raises:
        ConfigError: names file and line, variable or flag, and the remedy.
    """
    top: dict[str, Field] = {}
    if path is not None:
        root = Field.root(read_text(path, "control API settings file", _MAX_FILE), path, home)
        top = table.fields_of(SETTINGS, root, ("ssh", "nodes", "clusters"))
    values = table.read(SETTINGS, {**top, **table.given(SETTINGS, flags, env, home)})
    state_home = env.get("XDG_STATE_HOME") or home / ".local" / "state"
    values.setdefault("state_dir", Path(state_home, "clio-control-api"))
    config = values.get("exporter_config")
    exporter = load_settings(config) if config else ClientSettings()
    settings = Settings(**values, exporter=exporter.with_overrides(hostfile=values.get("hostfile")))
    common = SshSettings(
        known_hosts_file=settings.state_dir / "known_hosts", config_file=home / ".ssh" / "config"
    )
    return replace(settings, clusters=_clusters(top, common, {c.name for c in exporter.clusters}))


def _clusters(top: Mapping[str, Field], ssh: SshSettings, known: set[str]) -> dict[str, ClusterSsh]:
    found = {"": _cluster(top, ssh)}
    for name, item in (top["clusters"].mapping() if "clusters" in top else {}).items():
        if name not in known:
            raise item.error(
                "is no cluster of the exporter's settings",
                f"Use one of: {', '.join(sorted(known)) or '(none is named)'}",
            )
        found[name] = _cluster(item.mapping(("ssh", "nodes")), found[""].ssh)
    return found


def _cluster(values: Mapping[str, Field], ssh: SshSettings) -> ClusterSsh:
    if "ssh" in values:
        ssh = _over(ssh, values["ssh"])
    nodes = values["nodes"].mapping() if "nodes" in values else {}
    return ClusterSsh(ssh, {name: _over(ssh, item) for name, item in nodes.items()})


def _over(parent: SshSettings, section: Field) -> SshSettings:
    """The settings of a section over those of its parent."""
    made = table.updated(parent, SSH, table.fields_of(SSH, section))
    return replace(
        made,
        environment={**parent.environment, **made.environment},
        commands={**parent.commands, **made.commands},
    )


def fill_placeholders(text: str, node_id: int, hostname: str, port: int) -> str:
    """`text` with {node_id}, {hostname} and {port} (base port) replaced."""
    values = {"node_id": str(node_id), "hostname": hostname, "port": str(port)}
    return _PLACEHOLDER.sub(lambda match: values[match[1]], text)


def private_directory(path: Path) -> None:
    """Create a directory that only its owner can read, where it is missing.

    Raises:
        ConfigError: it cannot be created or written, or others can put their files in the place of ours.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            path, f"cannot be created: {error.strerror}", "Give another state_dir or the permission"
        ) from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise ConfigError(path, "cannot be written", "Give another state_dir or the permission")
    found = path.stat()
    if found.st_mode & 0o022 or found.st_uid not in (0, os.geteuid()):
        raise ConfigError(
            path,
            f"can be written by others (mode {found.st_mode & 0o7777:o}, user {found.st_uid})",
            "They could change known hosts and the audit log: chmod go-w it, or give another state_dir",
        )

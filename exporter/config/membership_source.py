"""Where a cluster's list of nodes comes from, and a watcher that keeps a hostfile's entries current."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from exporter.config.errors import ConfigError
from exporter.config.files import exists
from exporter.config.hostfile import DEFAULT_PORT, HostEntry, check_duplicates, read_hostfile
from exporter.config.runtime_conf import (
    CONFIG_VARIABLES,
    PORT_VARIABLES,
    RuntimeConfig,
    expand_path,
    find_runtime_config,
    load_runtime_config,
    port_from_env,
)
from exporter.config.settings import ClusterSettings

HOSTFILE_VARIABLE = "CONTAINER_HOSTFILE"


@dataclass(frozen=True, slots=True)
class ExplicitNodes:
    """The nodes are listed in the settings. `default_port` is that of entries without a port."""

    entries: tuple[HostEntry, ...]
    origin: str
    default_port: int


@dataclass(frozen=True, slots=True)
class HostfileNodes:
    """The nodes are the entries of the hostfile `path`."""

    path: Path
    origin: str
    default_port: int


@dataclass(frozen=True, slots=True)
class DiscoveredNodes:
    """The nodes are asked for by broadcast from the runtime at `host`:`port` (its base port)."""

    host: str
    port: int
    origin: str
    default_port: int


MembershipSource = ExplicitNodes | HostfileNodes | DiscoveredNodes


def resolve_membership_source(
    cluster: ClusterSettings, env: Mapping[str, str], home: Path
) -> MembershipSource:
    """Where the nodes of `cluster` come from; `origin` says so in words.

    In this order: `nodes` or `hostfile` of the settings (where `--hostfile` has replaced them),
    CONTAINER_HOSTFILE, `networking.hostfile` of the runtime configuration, discovery from `seed` (by default
    this host). Environment and home directory count only for a cluster that is the only one. Whether the
    hostfile can be read is left to `HostfileWatcher`, except that one which the environment or the runtime
    configuration names must exist. Raises `ConfigError`.
    """
    if not cluster.environment:
        # ${VARIABLE} in paths still works; what describes one cluster must not describe them all.
        own = {*CONFIG_VARIABLES, *PORT_VARIABLES, HOSTFILE_VARIABLE}
        env = {name: value for name, value in env.items() if name not in own}
    config = _runtime_config(cluster, env, home)
    default_port = cluster.port or (config.port if config else port_from_env(env)) or DEFAULT_PORT
    if cluster.nodes:
        check_duplicates(cluster.nodes, cluster.nodes_origin, default_port)
        return ExplicitNodes(cluster.nodes, cluster.nodes_origin, default_port)
    if cluster.hostfile is not None:
        return HostfileNodes(cluster.hostfile, cluster.hostfile_origin, default_port)
    if env.get(HOSTFILE_VARIABLE):
        path = expand_path(env[HOSTFILE_VARIABLE], env, home).absolute()
        _must_exist(path, HOSTFILE_VARIABLE, f"Correct or unset {HOSTFILE_VARIABLE}")
        return HostfileNodes(path, HOSTFILE_VARIABLE, default_port)
    if config is not None and config.hostfile is not None:
        origin = f"networking.hostfile in {config.path}"
        _must_exist(config.hostfile, origin, "Correct that path or give --hostfile")
        return HostfileNodes(config.hostfile, origin, default_port)
    if cluster.seed is not None:
        port = default_port if cluster.seed.port is None else cluster.seed.port
        return DiscoveredNodes(
            cluster.seed.host, port, f"discovery from seed {cluster.seed.host}:{port}", default_port
        )
    return DiscoveredNodes(
        "127.0.0.1",
        default_port,
        f"discovery from the runtime on this host, port {default_port}",
        default_port,
    )


def _runtime_config(cluster: ClusterSettings, env: Mapping[str, str], home: Path) -> RuntimeConfig | None:
    if cluster.runtime_config is None:
        path = find_runtime_config(env, home) if cluster.environment else None
    elif cluster.runtime_config_per_node:
        return None  # which file is whose is known only once the nodes are
    else:
        path = Path(cluster.runtime_config)
    return None if path is None else load_runtime_config(path, env, home)


def _must_exist(path: Path, origin: str, remedy: str) -> None:
    if not exists(path):
        raise ConfigError(path, f"{origin} names this hostfile and it does not exist", remedy)


class HostfileWatcher:
    """The entries of a hostfile, read again when the file has changed. Safe to use from several threads.

    While a changed file is broken or gone, the last good entries stay and `last_error` says why.
    """

    def __init__(self, path: str | Path, default_port: int | None = None) -> None:
        self.path = Path(path)
        self._default_port = default_port
        self._lock = threading.Lock()
        self._signature: tuple[int, int, int] | None = None
        self._entries: list[HostEntry] | None = None
        self._error: ConfigError | None = None

    @property
    def last_error(self) -> ConfigError | None:
        """Why the file as it is now cannot be used, None when it can (as of the last `entries()`)."""
        with self._lock:
            return self._error

    def entries(self) -> list[HostEntry]:
        """The current entries (a copy). Raises `ConfigError` while the file has never been good."""
        with self._lock:
            # The signature is taken before reading: a change in between is seen by the next call.
            signature = self._stat()
            if signature is None or signature != self._signature or (self._entries is None):
                self._signature = signature
                try:
                    entries = read_hostfile(self.path)
                    if self._default_port is not None:
                        check_duplicates(entries, str(self.path), self._default_port)
                    self._entries, self._error = entries, None
                except ConfigError as error:
                    self._error = error
            if self._entries is None:
                raise self._error or AssertionError("no entries and no error")
            return list(self._entries)

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            stat = self.path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

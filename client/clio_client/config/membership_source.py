"""Where a cluster's list of nodes comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clio_client.address import DEFAULT_PORT
from clio_client.config.errors import ConfigError
from clio_client.config.files import exists
from clio_client.config.hostfile import HostEntry, check_duplicates, read_hostfile
from clio_client.config.runtime_conf import (
    CONFIG_VARIABLES,
    PORT_VARIABLES,
    RuntimeConfig,
    expand_path,
    find_runtime_config,
    load_runtime_config,
    port_from_env,
)
from clio_client.config.settings import ClusterSettings
from clio_client.config.watched_file import WatchedFile

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
    hostfile can be read is left to `watched_hostfile`, except that one which the environment or the runtime
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


def watched_hostfile(path: str | Path, default_port: int | None = None) -> WatchedFile[tuple[HostEntry, ...]]:
    """The entries of a hostfile, kept current; those without a port have ``default_port``."""

    def load(path: Path) -> tuple[HostEntry, ...]:
        entries = tuple(read_hostfile(path))
        if default_port is not None:
            check_duplicates(entries, str(path), default_port)
        return entries

    return WatchedFile(Path(path), load)

"""The settings file (`--config.file`), as far as every client needs it: clusters, and how runtimes are asked.

Strict YAML into frozen dataclasses, whose fields are the table of settings (`clio_client.config.table`):
flags, bounds, defaults and the documentation come from it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from clio_client.address import DEFAULT_PORT, HIGHEST_PORT, MAX_PORT
from clio_client.config import table
from clio_client.config.errors import quoted
from clio_client.config.fields import Field
from clio_client.config.files import read_text
from clio_client.config.hostfile import HostEntry, check_duplicates, check_host, collect_entries
from clio_client.config.table import Kind, Table, setting, table_of

MAX_SETTINGS_BYTES = 1024 * 1024
SECTIONS = ("clusters", "runtime", "collectors", "probe", "labels")
"""Keys of the file, which both services read; the last three are the exporter's own."""

GENERATIONS = ("A", "B", "C", "Z")
TRANSPORTS = ("zmq", "binding")

_CLUSTER_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_PLACEHOLDER = re.compile(r"(?<!\$)\{([^{}]*)\}")
_S = TypeVar("_S", bound="Settings")


def _name(value: Field) -> str:
    if not _CLUSTER_NAME.fullmatch(value.text()):
        raise value.refusal("not the name of a cluster", "Use 1 to 128 letters, digits, '_', '.' and '-'")
    return value.text()


def _texts(value: Field) -> tuple[str, ...]:
    return tuple(item.text() for item in value.sequence())


def _nodes(value: Field) -> tuple[HostEntry, ...]:
    entries = collect_entries(((item.line, item.text()) for item in value.sequence()), value.source)
    if not entries:
        raise value.error("is empty", "List host or host:port, or leave it out")
    check_duplicates(entries, value.source)
    return tuple(entries)


def _entry(value: Field) -> HostEntry:
    entries = collect_entries([(value.line, value.text())], value.source)
    if len(entries) != 1:
        raise value.refusal("not one node", "Give exactly one host or host:port")
    return entries[0]


def _template(value: Field) -> str:
    for name in _PLACEHOLDER.findall(value.text()):
        if name not in ("node_id", "hostname"):
            raise value.error(
                f"has the unknown placeholder {quoted('{' + name + '}')}", "Use {node_id} or {hostname}"
            )
    return str(value.path())


def _overrides(field: Field) -> tuple[tuple[HostEntry, NodeOverride], ...]:
    return tuple(
        (entry, table.updated(NodeOverride(), OVERRIDE, table.fields_of(OVERRIDE, item)))
        for name, item in field.mapping().items()
        for entry in collect_entries([(item.line, name)], field.source)
    )


_GENERATION = table.choice(*GENERATIONS)


@dataclass(frozen=True, slots=True)
class NodeOverride:
    """What is different for one node; None: as for the rest."""

    generation: str | None = setting(None, _GENERATION, "generation of these nodes")
    reply_address: str | None = setting(None, table.HOST, "address at which these nodes reach this host")


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """One cluster: where its nodes come from and how to talk to them.

    At most one of `nodes` and `hostfile` is given. `hostfile_origin` and `nodes_origin` say where they
    come from ("--hostfile", "hostfile in /etc/..."). `runtime_config` may hold {node_id} and {hostname}.
    `port` is the default base port of entries without one. `environment`: whether the process's variables
    and home directory describe this cluster too, which is so only when it is the only one.
    """

    name: str = setting(
        "", Kind(_name), "value of the `cluster` label: letters, digits, `_`, `.`, `-`; unique; needed with "
        "more than one cluster", flag=False, shown="empty",
    )  # fmt: skip
    hostfile: Path | None = setting(
        None, table.PATH, "the nodes, one host or host:port a line", more="See above."
    )
    nodes: tuple[HostEntry, ...] = setting(
        (), Kind(_nodes, "HOST[:PORT],..."), "the nodes, instead of a hostfile",
        more="In the file a list of entries in hostfile syntax; quote those with `:` or brackets.",
    )  # fmt: skip
    seed: HostEntry | None = setting(
        None, Kind(_entry, "HOST[:PORT]"), "node that is asked for the others when there is no hostfile",
        shown="this host",
    )  # fmt: skip
    runtime_config: str | None = setting(
        None, Kind(_template, "FILE"), "the runtime's own configuration file", shown="searched",
        more="See above; `{node_id}` and `{hostname}` in it stand for one file a node, which then cannot "
        "name the hostfile.",
    )  # fmt: skip
    runtime_config_own: tuple[str, ...] = setting(
        (), Kind(_texts), "paths in that file that are each node's own, so that they may differ", flag=False,
        shown="none",
        more="As `clio_config_info` names them, `*` for anything: `compose[*].capacity`. Paths of files, "
        "ports and `runtime.ipc_namespace` may differ anyway.",
    )  # fmt: skip
    port: int | None = setting(
        None, table.integer(1, MAX_PORT, metavar="PORT"), "base port of nodes listed without one",
        shown=str(DEFAULT_PORT), more="See above.",
    )  # fmt: skip
    generation: str | None = setting(
        None, _GENERATION, "protocol generation of all nodes, instead of finding it out", shown="detected",
        more="`Z` is never detected.",
    )  # fmt: skip
    overrides: tuple[tuple[HostEntry, NodeOverride], ...] = setting(
        (), Kind(_overrides), "by `host` or `host:port` (patterns too): `generation` and `reply_address` of "
        "these nodes; `host:port` comes before `host`", flag=False,
    )  # fmt: skip
    nodes_origin: str = "nodes"
    hostfile_origin: str = "hostfile"
    environment: bool = True

    def override_for(self, host: str, port: int) -> NodeOverride:
        """The overrides of a node: those of host:port before those of its host."""
        found = NodeOverride()
        for wanted in (None, port):
            for entry, override in self.overrides:
                if entry.host.lower() == host.lower() and entry.port == wanted:
                    found = NodeOverride(
                        override.generation or found.generation,
                        override.reply_address or found.reply_address,
                    )
        return found

    def generation_for(self, host: str, port: int) -> str | None:
        """The protocol generation to use for a node without detecting it, None to detect."""
        return self.override_for(host, port).generation or self.generation

    def runtime_config_for(self, node_id: int, hostname: str) -> Path | None:
        """The node's own runtime configuration file, None when the settings name none.

        `hostname` comes from the runtime: raises `ConfigError` when it is not a host name, for it could lead
        out of the directory (`../..`).
        """
        if self.runtime_config is None:
            return None
        check_host(hostname, f"node {node_id}", None)
        values = {"node_id": str(node_id), "hostname": hostname}
        return Path(_PLACEHOLDER.sub(lambda match: values[match[1]], self.runtime_config))

    @property
    def runtime_config_per_node(self) -> bool:
        """Whether `runtime_config` names one file a node."""
        return self.runtime_config is not None and bool(_PLACEHOLDER.search(self.runtime_config))


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """How to talk to runtimes. `reply_port` 0: any free port; `reply_address` None: found by itself."""

    timeout_seconds: float = setting(
        3.0, table.duration(0.01, 300), "time a node has to answer", key="timeout"
    )
    reply_port: int = setting(
        9778, table.integer(0, HIGHEST_PORT, metavar="PORT"),
        "port that runtimes dial back to, or the next nine, or any, where it is taken; 0 is any",
    )  # fmt: skip
    reply_address: str | None = setting(
        None, table.HOST, "IPv4 address or name of this host that runtimes dial back to",
        shown="that of the route to each node",
    )  # fmt: skip
    transport: str = setting(
        "zmq", table.choice(*TRANSPORTS), "how runtimes are spoken to",
        more="`binding` needs the runtime's compiled Python binding.",
    )  # fmt: skip
    max_in_flight: int = setting(8, table.integer(1, 64), "requests a node has to answer at the same time")


OVERRIDE = table_of(NodeOverride)
CLUSTER = table_of(ClusterSettings, flags="--")
RUNTIME = table_of(RuntimeSettings, flags="--runtime.")


@dataclass(frozen=True, slots=True)
class Settings:
    """Which clusters there are and how they are asked; `path` is the settings file, None without one."""

    clusters: tuple[ClusterSettings, ...] = (ClusterSettings(),)
    runtime: RuntimeSettings = RuntimeSettings()
    path: Path | None = None

    def with_overrides(self: _S, **flags: Any) -> _S:
        """These settings with others over them, as flags would lay them: `port=9423`, `timeout_seconds=1.5`.

        The names are those of the fields of `ClusterSettings` and `RuntimeSettings`; None leaves a setting as
        it is. Relative paths start at the working directory. Cluster settings need a single cluster. Values
        are checked as in the file; errors name the flag. Raises `ConfigError`.
        """
        unknown = flags.keys() - {entry.name for entry in (*CLUSTER, *RUNTIME) if entry.flag}
        if unknown:
            raise TypeError(f"there are no such settings: {', '.join(sorted(unknown))}")
        clusters, cluster = self.clusters, overrides(CLUSTER, flags)
        if cluster and len(clusters) > 1:
            raise next(iter(cluster.values())).error(
                f"is for one cluster and {self.path} has {len(clusters)}",
                "Give the setting in the file, to the cluster it is meant for",
            )
        if cluster:
            clusters = (_described(clusters[0], cluster),)
        runtime = table.updated(self.runtime, RUNTIME, overrides(RUNTIME, flags))
        return replace(self, clusters=clusters, runtime=runtime)


def overrides(settings: Table, flags: Mapping[str, Any]) -> dict[str, Field]:
    """What flags say that are given by the settings' names."""
    return table.given(settings, {entry.dest: flags.get(entry.name) for entry in settings})


def load_settings(path: str | Path) -> Settings:
    """Read a settings file of at most 1 MiB. Raises `ConfigError`."""
    return parse_settings(read_text(Path(path), "settings file", MAX_SETTINGS_BYTES), Path(path))


def parse_settings(text: str, path: Path) -> Settings:
    """`text` as settings; `path` names the file in errors, and relative paths start at its directory."""
    return client_settings(Field.root(text, path).mapping(SECTIONS), path)


def client_settings(sections: Mapping[str, Field], path: Path) -> Settings:
    """Clusters and runtime from the sections of a file."""
    return Settings(
        _clusters(sections["clusters"]) if "clusters" in sections else (ClusterSettings(),),
        table.updated(RuntimeSettings(), RUNTIME, table.fields_of(RUNTIME, sections.get("runtime"))),
        path,
    )


def _clusters(field: Field) -> tuple[ClusterSettings, ...]:
    items = field.sequence()
    if not items:
        raise field.error(
            "is empty", "Describe a cluster (for example '- hostfile: /etc/clio/hosts') or remove the key"
        )
    lines: dict[str, int | None] = {}
    clusters = []
    for item in items:
        cluster = _cluster(item, several=len(items) > 1)
        if cluster.name in lines:
            raise item.error(
                f"has the name {quoted(cluster.name)} of the cluster in line {lines[cluster.name]}",
                "Give every cluster its own name",
            )
        lines[cluster.name] = item.line
        clusters.append(cluster)
    return tuple(clusters)


def _cluster(field: Field, several: bool) -> ClusterSettings:
    values = table.fields_of(CLUSTER, field)
    if several and "name" not in values:
        raise field.error("has no name", "Add 'name:'; it is needed where there is more than one cluster")
    if several and not values.keys() & {"hostfile", "nodes", "seed", "runtime_config"}:
        raise field.error(
            "does not say where its nodes are",
            "Add hostfile, nodes, seed or runtime_config: the environment can describe only a single cluster",
        )
    return _described(ClusterSettings(environment=not several), values)


def _described(cluster: ClusterSettings, values: Mapping[str, Field]) -> ClusterSettings:
    """`cluster` with what a file or flags say of it over it; hostfile and nodes replace each other."""
    hostfile, nodes = values.get("hostfile"), values.get("nodes")
    if hostfile and nodes:
        raise nodes.error(f"is given together with {hostfile.name}", "Keep one of the two")
    cluster = table.updated(cluster, CLUSTER, values)
    if hostfile:
        cluster = replace(cluster, nodes=(), hostfile_origin=hostfile.origin)
    if nodes:
        check_duplicates(cluster.nodes, nodes.source, cluster.port)
        cluster = replace(cluster, hostfile=None, nodes_origin=nodes.origin)
    return cluster

"""The exporter's settings file (`--config.file`): strict YAML into frozen dataclasses.

Flags are laid over it by `Settings.with_overrides`; what neither gives has the default written here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from exporter.config import yamltree
from exporter.config.errors import ConfigError, quoted
from exporter.config.fields import Field
from exporter.config.files import read_text
from exporter.config.hostfile import (
    MAX_PORT,
    HostEntry,
    check_duplicates,
    check_host,
    collect_entries,
)

MAX_SETTINGS_BYTES = 1024 * 1024
_T = TypeVar("_T", "ClusterSettings", "RuntimeSettings", "CollectorSettings", "ProbeSettings")

GENERATIONS = ("A", "B", "C", "Z")
TRANSPORTS = ("zmq", "binding")
COLLECTORS = ("node", "worker", "bdev", "pool", "cte", "config")

_CLUSTER_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_PLACEHOLDER = re.compile(r"(?<!\$)\{([^{}]*)\}")
_CLUSTER_KEYS = (
    "name", "hostfile", "nodes", "seed", "runtime_config", "port", "generation", "overrides",
)  # fmt: skip
_RUNTIME_KEYS = ("timeout", "reply_port", "reply_address", "transport", "max_in_flight")
_COLLECTOR_OPTIONS: Mapping[str, tuple[str, ...]] = {"pool": ("interval",), "node": ("peak_window",)}


@dataclass(frozen=True, slots=True)
class NodeOverride:
    """What is different for one node; None: as for the rest."""

    generation: str | None = None
    reply_address: str | None = None


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """One cluster: where its nodes come from and how to talk to them.

    At most one of `nodes` and `hostfile` is given. `hostfile_origin` and `nodes_origin` say where they
    come from ("--hostfile", "hostfile in /etc/..."). `runtime_config` may hold {node_id} and {hostname}.
    `port` is the default base port of entries without one. `environment`: whether the process's variables
    and home directory describe this cluster too, which is so only when it is the only one.
    """

    name: str = ""
    nodes: tuple[HostEntry, ...] = ()
    nodes_origin: str = "nodes"
    hostfile: Path | None = None
    hostfile_origin: str = "hostfile"
    seed: HostEntry | None = None
    runtime_config: str | None = None
    port: int | None = None
    generation: str | None = None
    overrides: tuple[tuple[HostEntry, NodeOverride], ...] = ()
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

    timeout_seconds: float = 3.0
    reply_port: int = 9778
    reply_address: str | None = None
    transport: str = "zmq"
    max_in_flight: int = 4


@dataclass(frozen=True, slots=True)
class CollectorSettings:
    """Which collectors run and how. `enabled` None: all but the disabled ones."""

    enabled: frozenset[str] | None = None
    disabled: frozenset[str] = frozenset()
    pool_interval_seconds: float = 60.0
    node_peak_window_seconds: float = 60.0

    def is_enabled(self, name: str) -> bool:
        """Whether the collector `name` runs."""
        return name not in self.disabled and (self.enabled is None or name in self.enabled)


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """`/probe`: `allow_any` lets it ask targets that are not members of a configured cluster."""

    allow_any: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the exporter is told; `path` is the settings file, None without one."""

    clusters: tuple[ClusterSettings, ...] = (ClusterSettings(),)
    runtime: RuntimeSettings = RuntimeSettings()
    collectors: CollectorSettings = CollectorSettings()
    probe: ProbeSettings = ProbeSettings()
    path: Path | None = None

    def with_overrides(
        self,
        *,
        hostfile: str | Path | None = None,
        nodes: Iterable[str] | None = None,
        seed: str | None = None,
        runtime_config: str | Path | None = None,
        port: int | None = None,
        generation: str | None = None,
        timeout_seconds: float | None = None,
        reply_port: int | None = None,
        reply_address: str | None = None,
        transport: str | None = None,
        max_in_flight: int | None = None,
        enable_collectors: Iterable[str] = (),
        disable_collectors: Iterable[str] = (),
        pool_interval_seconds: float | None = None,
        node_peak_window_seconds: float | None = None,
        allow_any: bool | None = None,
    ) -> Settings:
        """These settings with command-line flags over them; None leaves a setting as it is.

        Relative paths stay relative to the working directory. Cluster flags need a single cluster. Values
        are checked as in the file; errors name the flag. Raises `ConfigError`.
        """
        changes = {
            "hostfile": hostfile, "nodes": None if nodes is None else list(nodes), "seed": seed,
            "runtime_config": runtime_config, "port": port, "generation": generation,
        }  # fmt: skip
        cluster_changes = {key: value for key, value in changes.items() if value is not None}
        clusters = self.clusters
        if cluster_changes:
            clusters = (_override_cluster(self, cluster_changes),)
        runtime = _replaced(
            self.runtime,
            timeout_seconds=_in_range("--runtime.timeout", timeout_seconds, *_TIMEOUT),
            reply_port=_in_range("--runtime.reply-port", reply_port, 0, 65535),
            reply_address=_flag_host("--runtime.reply-address", reply_address),
            transport=_one_of("--runtime.transport", transport, TRANSPORTS),
            max_in_flight=_in_range("--runtime.max-in-flight", max_in_flight, *_IN_FLIGHT),
        )
        collectors = _replaced(
            _switch_collectors(self.collectors, set(enable_collectors), set(disable_collectors)),
            pool_interval_seconds=_in_range("--collector.pool.interval", pool_interval_seconds, *_INTERVAL),
            node_peak_window_seconds=_in_range(
                "--collector.node.peak-window", node_peak_window_seconds, *_PEAK_WINDOW
            ),
        )
        return replace(
            self,
            clusters=clusters,
            runtime=runtime,
            collectors=collectors,
            probe=_replaced(self.probe, allow_any=allow_any),
        )


# Bounds, in seconds. The peak window ends at the runtime's own history: 1024 samples, one a second.
_TIMEOUT = (0.01, 300)
_INTERVAL = (0, 86400)
_PEAK_WINDOW = (1, 1024)
_IN_FLIGHT = (1, 64)


def default_settings() -> Settings:
    """The settings without a settings file: one unnamed cluster, found by the environment."""
    return Settings()


def load_settings(path: str | Path) -> Settings:
    """Read a settings file of at most 1 MiB. Raises `ConfigError`."""
    path = Path(path)
    return parse_settings(read_text(path, "settings file", MAX_SETTINGS_BYTES), path)


def parse_settings(text: str, path: Path) -> Settings:
    """`text` as settings; `path` names the file in errors, and relative paths start at its directory."""
    node = yamltree.compose(text, str(path))
    if node is None:
        return Settings(path=path)
    top = Field(node, str(path), "").mapping(("clusters", "runtime", "collectors", "probe"))
    return Settings(
        clusters=_clusters(top["clusters"], path.parent.absolute())
        if "clusters" in top
        else (ClusterSettings(),),
        runtime=_runtime(top["runtime"]) if "runtime" in top else RuntimeSettings(),
        collectors=_collectors(top["collectors"]) if "collectors" in top else CollectorSettings(),
        probe=_probe(top["probe"]) if "probe" in top else ProbeSettings(),
        path=path,
    )


def _clusters(field: Field, base: Path) -> tuple[ClusterSettings, ...]:
    items = field.sequence()
    if not items:
        raise field.error(
            "is empty", "Describe a cluster (for example '- hostfile: /etc/clio/hosts') or remove the key"
        )
    lines: dict[str, int] = {}
    clusters = []
    for item in items:
        cluster = _cluster(item, base, several=len(items) > 1)
        if cluster.name in lines:
            raise item.error(
                f"has the name {quoted(cluster.name)} of the cluster in line {lines[cluster.name]}",
                "Give every cluster its own name",
            )
        lines[cluster.name] = item.line
        clusters.append(cluster)
    return tuple(clusters)


def _cluster(field: Field, base: Path, several: bool) -> ClusterSettings:
    values = field.mapping(_CLUSTER_KEYS)
    if several and "name" not in values:
        raise field.error("has no name", "Add 'name:'; it is needed where there is more than one cluster")
    if "hostfile" in values and "nodes" in values:
        raise values["nodes"].error("is given together with hostfile", "Keep one of the two")
    if several and not values.keys() & {"hostfile", "nodes", "seed", "runtime_config"}:
        raise field.error(
            "does not say where its nodes are",
            "Add hostfile, nodes, seed or runtime_config: the environment can describe only a single cluster",
        )
    port = values["port"].integer(1, MAX_PORT) if "port" in values else None
    return ClusterSettings(
        name=_name(values["name"]) if "name" in values else "",
        nodes=_nodes(values["nodes"], port) if "nodes" in values else (),
        nodes_origin=f"nodes in {field.source}",
        hostfile=base / _home(values["hostfile"].text()) if "hostfile" in values else None,
        hostfile_origin=f"hostfile in {field.source}",
        seed=_entry(values["seed"]) if "seed" in values else None,
        runtime_config=_template(values["runtime_config"], base) if "runtime_config" in values else None,
        port=port,
        generation=_generation(values["generation"]) if "generation" in values else None,
        overrides=_overrides(values["overrides"]) if "overrides" in values else (),
        environment=not several,
    )


def _name(field: Field) -> str:
    name = field.text()
    if not _CLUSTER_NAME.fullmatch(name):
        raise field.error(f"is {quoted(name)}", "Use 1 to 128 letters, digits, '_', '.' and '-'")
    return name


def _nodes(field: Field, port: int | None) -> tuple[HostEntry, ...]:
    entries = collect_entries(((item.line, item.text()) for item in field.sequence()), field.source)
    if not entries:
        raise field.error("is empty", "List host or host:port, or remove the key")
    check_duplicates(entries, field.source, port)
    return tuple(entries)


def _entry(field: Field) -> HostEntry:
    entries = collect_entries([(field.line, field.text())], field.source)
    if len(entries) != 1:
        raise field.error(f"is {quoted(field.text())}", "Give exactly one host or host:port")
    return entries[0]


def _template(field: Field, base: Path) -> str:
    text = field.text()
    for name in _PLACEHOLDER.findall(text):
        if name not in ("node_id", "hostname"):
            raise field.error(
                f"has the unknown placeholder {quoted('{' + name + '}')}", "Use {node_id} or {hostname}"
            )
    return str(base / _home(text))


def _home(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:  # ~user of an unknown user: the file will be reported as missing
        return Path(text)


def _generation(field: Field) -> str:
    return field.choice(GENERATIONS)


def _overrides(field: Field) -> tuple[tuple[HostEntry, NodeOverride], ...]:
    overrides = []
    for name, item in field.mapping().items():
        entries = collect_entries([(item.line, name)], field.source)
        values = item.mapping(("generation", "reply_address"))
        override = NodeOverride(
            _generation(values["generation"]) if "generation" in values else None,
            _host(values["reply_address"]) if "reply_address" in values else None,
        )
        overrides += [(entry, override) for entry in entries]
    return tuple(overrides)


def _host(field: Field) -> str:
    host = field.text()
    check_host(host, field.source, field.line)
    return host


def _runtime(field: Field) -> RuntimeSettings:
    values = field.mapping(_RUNTIME_KEYS)
    return _replaced(
        RuntimeSettings(),
        timeout_seconds=values["timeout"].seconds(*_TIMEOUT) if "timeout" in values else None,
        reply_port=values["reply_port"].integer(0, 65535) if "reply_port" in values else None,
        reply_address=_host(values["reply_address"]) if "reply_address" in values else None,
        transport=values["transport"].choice(TRANSPORTS) if "transport" in values else None,
        max_in_flight=values["max_in_flight"].integer(*_IN_FLIGHT) if "max_in_flight" in values else None,
    )


def _collectors(field: Field) -> CollectorSettings:
    values = field.mapping(("enabled", "disabled", *_COLLECTOR_OPTIONS))
    options = {
        name: values[name].mapping(keys) for name, keys in _COLLECTOR_OPTIONS.items() if name in values
    }
    enabled = _collector_names(values["enabled"]) if "enabled" in values else None
    disabled = _collector_names(values["disabled"]) if "disabled" in values else frozenset()
    both = disabled & (enabled or frozenset())
    if both:
        raise values["disabled"].error(
            f"and enabled both name {', '.join(sorted(both))}", "Name a collector in one of the two"
        )
    interval = options.get("pool", {}).get("interval")
    peak_window = options.get("node", {}).get("peak_window")
    return _replaced(
        CollectorSettings(enabled, disabled),
        pool_interval_seconds=interval.seconds(*_INTERVAL) if interval else None,
        node_peak_window_seconds=peak_window.seconds(*_PEAK_WINDOW) if peak_window else None,
    )


def _collector_names(field: Field) -> frozenset[str]:
    return frozenset(item.choice(COLLECTORS) for item in field.sequence())


def _probe(field: Field) -> ProbeSettings:
    values = field.mapping(("allow_any",))
    return ProbeSettings(values["allow_any"].boolean() if "allow_any" in values else False)


def _override_cluster(settings: Settings, changes: Mapping[str, Any]) -> ClusterSettings:
    if len(settings.clusters) > 1:
        flag = next(iter(changes))
        raise ConfigError(
            f"--{flag.replace('_', '-')}",
            f"the flag is for one cluster and {settings.path} has {len(settings.clusters)}",
            "Give the setting in the file, to the cluster it is meant for",
        )
    cluster = settings.clusters[0]
    if "hostfile" in changes and "nodes" in changes:
        raise ConfigError("--nodes", "is given together with --hostfile", "Keep one of the two")
    if "port" in changes:
        cluster = replace(cluster, port=_in_range("--port", changes["port"], 1, MAX_PORT))
    if "hostfile" in changes:
        hostfile = Path(changes["hostfile"]).absolute()
        cluster = replace(cluster, hostfile=hostfile, hostfile_origin="--hostfile", nodes=())
    if "nodes" in changes:
        entries = _flag_entries("--nodes", changes["nodes"], cluster.port)
        cluster = replace(cluster, nodes=tuple(entries), nodes_origin="--nodes", hostfile=None)
    if "seed" in changes:
        cluster = replace(cluster, seed=_flag_entry("--seed", changes["seed"]))
    if "runtime_config" in changes:
        cluster = replace(cluster, runtime_config=str(Path(changes["runtime_config"]).absolute()))
    if "generation" in changes:
        cluster = replace(cluster, generation=_one_of("--generation", changes["generation"], GENERATIONS))
    return cluster


def _flag_entries(flag: str, texts: list[str], port: int | None = None) -> list[HostEntry]:
    try:
        entries = collect_entries(((1, text) for text in texts), flag)
        check_duplicates(entries, flag, port)
    except ConfigError as error:  # a flag has no lines
        raise ConfigError(flag, error.problem, error.remedy) from None
    if not entries:
        raise ConfigError(flag, "no node is given", "Give host or host:port")
    return entries


def _flag_entry(flag: str, text: str) -> HostEntry:
    entries = _flag_entries(flag, [text])
    if len(entries) != 1:
        raise ConfigError(flag, f"{quoted(text)} is not one node", "Give exactly one host or host:port")
    return entries[0]


def _flag_host(flag: str, host: str | None) -> str | None:
    if host is not None:
        check_host(host, flag, None)
    return host


def _in_range(flag: str, value: Any, low: float, high: float) -> Any:
    if value is not None and not low <= value <= high:
        raise ConfigError(flag, f"{value} is out of range", f"Give a value from {low:g} to {high:g}")
    return value


def _one_of(flag: str, value: str | None, allowed: tuple[str, ...]) -> str | None:
    if value is not None and value not in allowed:
        raise ConfigError(flag, f"{quoted(value)} is not known", f"Use one of: {', '.join(allowed)}")
    return value


def _switch_collectors(settings: CollectorSettings, on: set[str], off: set[str]) -> CollectorSettings:
    for name in sorted(on | off):
        if name not in COLLECTORS:
            raise ConfigError(
                f"--collector.{name}", "there is no such collector", f"Use one of: {', '.join(COLLECTORS)}"
            )
        if name in on & off:
            raise ConfigError(
                f"--collector.{name}",
                "the collector is both switched on and off",
                "Keep one of the two flags",
            )
    enabled = settings.enabled
    return replace(
        settings,
        enabled=None if enabled is None else (enabled | on) - off,
        disabled=(settings.disabled | off) - on,
    )


def _replaced(instance: _T, **changes: Any) -> _T:
    return replace(instance, **{key: value for key, value in changes.items() if value is not None})

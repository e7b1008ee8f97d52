"""Settings of the exporter: what every client needs to know, and which collectors run and how.

`--config.file`, with the flags laid over it; what neither gives has the default written here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clio_client.config import settings as client
from clio_client.config import table
from clio_client.config.fields import Field
from clio_client.config.files import read_text
from clio_client.config.table import Kind, setting, table_of
from clio_exporter.collectors import COLLECTORS

NAMES = tuple(collector.name for collector in COLLECTORS)


def _names(value: Field) -> frozenset[str]:
    return frozenset(item.choice(NAMES) for item in value.sequence())


@dataclass(frozen=True, slots=True)
class CollectorSettings:
    """Which collectors run and how. `enabled` None: all but the disabled ones."""

    enabled: frozenset[str] | None = setting(
        None, Kind(_names, choices=NAMES), "only these", flag=False, shown="all"
    )
    disabled: frozenset[str] = setting(frozenset(), Kind(_names), "all but these", flag=False, shown="none")
    pool_interval_seconds: float = setting(
        60.0, table.duration(0, 86400), "time between two lists of a node's pools", key="pool.interval",
        more="They are large and change slowly.",
    )  # fmt: skip
    node_peak_window_seconds: float = setting(
        60.0, table.duration(1, 1024), "time over which peaks are reported; at least the scrape interval",
        key="node.peak_window", more="The runtime remembers 1024 samples, one a second.",
    )  # fmt: skip

    def is_enabled(self, name: str) -> bool:
        """Whether the collector `name` runs."""
        return name not in self.disabled and (self.enabled is None or name in self.enabled)

    def switched(self, on: Mapping[str, bool]) -> CollectorSettings:
        """These settings with collectors switched on (True) or off."""
        wanted = {name for name, value in on.items() if value}
        unwanted = on.keys() - wanted
        return replace(
            self,
            enabled=None if self.enabled is None else (self.enabled | wanted) - unwanted,
            disabled=(self.disabled | unwanted) - wanted,
        )


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """`/probe`: `allow_any` lets it ask targets that are not members of a configured cluster."""

    allow_any: bool = setting(
        False, table.BOOLEAN, "let /probe ask targets that are not members of a configured cluster",
        more="`true` makes it a port scanner for whoever reaches it.",
    )  # fmt: skip


COLLECTOR = table_of(CollectorSettings, flags="--collector.")
PROBE = table_of(ProbeSettings, flags="--probe.")


@dataclass(frozen=True, slots=True)
class Settings(client.Settings):
    """Everything the exporter is told."""

    collectors: CollectorSettings = CollectorSettings()
    probe: ProbeSettings = ProbeSettings()

    def with_overrides(self, collectors: Mapping[str, bool] | None = None, **flags: Any) -> Settings:
        """These settings with flags laid over them; `collectors` says which are switched on or off."""
        own = {entry.name: flags.pop(entry.name, None) for entry in (*COLLECTOR, *PROBE)}
        switched = self.collectors.switched(collectors or {})
        return replace(
            client.Settings.with_overrides(self, **flags),
            collectors=table.updated(switched, COLLECTOR, client.overrides(COLLECTOR, own)),
            probe=table.updated(self.probe, PROBE, client.overrides(PROBE, own)),
        )


def load_settings(path: str | Path) -> Settings:
    """Read a settings file of at most 1 MiB. Raises `ConfigError`."""
    return parse_settings(read_text(Path(path), "settings file", client.MAX_SETTINGS_BYTES), Path(path))


def parse_settings(text: str, path: Path) -> Settings:
    """`text` as settings; `path` names the file in errors, and relative paths start at its directory."""
    sections = Field.root(text, path).mapping(client.SECTIONS)
    common = client.client_settings(sections, path)
    fields = table.fields_of(COLLECTOR, sections.get("collectors"))
    collectors = table.updated(CollectorSettings(), COLLECTOR, fields)
    both = collectors.disabled & (collectors.enabled or frozenset())
    if both:
        raise fields["disabled"].error(
            f"and enabled both name {', '.join(sorted(both))}", "Name a collector in one of the two"
        )
    probe = table.updated(ProbeSettings(), PROBE, table.fields_of(PROBE, sections.get("probe")))
    return Settings(common.clusters, common.runtime, path, collectors, probe)

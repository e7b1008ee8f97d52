"""Settings of the exporter: what every client needs to know, and which collectors run and how.

`--config.file`, with the flags laid over it; what neither gives has the default written here.
"""

from __future__ import annotations

import re
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
from clio_exporter.constant_labels import constant_labels

NAMES = tuple(collector.name for collector in COLLECTORS)
_ON = frozenset(collector.name for collector in COLLECTORS if collector.on_by_default)


def _pattern(value: Field) -> re.Pattern[str]:
    try:
        return re.compile(value.text())
    except re.error as error:
        raise value.error(f"is no regular expression: {error}", "Escape what is meant literally") from None


_PATTERN = Kind(_pattern, "REGEX")
_WHOLE = "A regular expression that the whole name matches."


def _names(value: Field) -> frozenset[str]:
    return frozenset(item.choice(NAMES) for item in value.sequence())


@dataclass(frozen=True, slots=True)
class CollectorSettings:
    """Which collectors run and how. `enabled` None: those that are on by default and the `added` ones."""

    enabled: frozenset[str] | None = setting(
        None, Kind(_names, choices=NAMES), "only these", flag=False,
        shown=f"all but {', '.join(name for name in NAMES if name not in _ON)}",
    )  # fmt: skip
    added: frozenset[str] = setting(
        frozenset(), Kind(_names), "besides those that are on by default, these", flag=False, shown="none"
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
    bdev_include: re.Pattern[str] | None = setting(
        None, _PATTERN, "tell of devices with such names only", key="bdev.include", more=_WHOLE,
    )  # fmt: skip
    bdev_exclude: re.Pattern[str] | None = setting(
        None, _PATTERN, "tell of no devices with such names", key="bdev.exclude", more=_WHOLE
    )
    pool_include: re.Pattern[str] | None = setting(
        None, _PATTERN, "tell of pools with such names only", key="pool.include", more=_WHOLE
    )
    pool_exclude: re.Pattern[str] | None = setting(
        None, _PATTERN, "tell of no pools with such names", key="pool.exclude", more=_WHOLE
    )

    node_job_directory: Path | None = setting(
        None, Kind(table.PATH.read, "DIR"), "directory of files that say whose job is on which node",
        key="node.job_directory",
        more="The scheduler's prolog writes them, its epilog removes them (contrib/slurm).",
    )  # fmt: skip

    def is_enabled(self, name: str) -> bool:
        """Whether the collector `name` runs."""
        wanted = _ON | self.added if self.enabled is None else self.enabled | self.added
        return name in wanted - self.disabled

    def switched(self, on: Mapping[str, bool]) -> CollectorSettings:
        """These settings with collectors switched on (True) or off."""
        wanted = {name for name, value in on.items() if value}
        unwanted = on.keys() - wanted
        return replace(
            self, added=(self.added | wanted) - unwanted, disabled=(self.disabled | unwanted) - wanted
        )


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """`/probe`: `allow_any` lets it ask targets that are not members of a configured cluster."""

    allow_any: bool = setting(
        False, table.BOOLEAN, "let /probe ask targets that are not members of a configured cluster",
        more="`true` makes it a port scanner for whoever reaches it.",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class LabelSettings:
    """Labels that every series carries, in the order in which they are given."""

    labels: tuple[tuple[str, str], ...] = setting(
        (), Kind(constant_labels, "NAME=VALUE", action="append"),
        "label that every series carries, may be repeated", flag="--label", shown="none",
        more="In the file a mapping. Refused where a series has such a label already, and for names that "
        "Prometheus gives (`job`, `instance`) or reserves (`__...`).",
    )  # fmt: skip


COLLECTOR = table_of(CollectorSettings, flags="--collector.")
PROBE = table_of(ProbeSettings, flags="--probe.")
LABELS = table_of(LabelSettings)


@dataclass(frozen=True, slots=True)
class Settings(client.Settings):
    """Everything the exporter is told."""

    collectors: CollectorSettings = CollectorSettings()
    probe: ProbeSettings = ProbeSettings()
    labels: LabelSettings = LabelSettings()

    def with_overrides(self, collectors: Mapping[str, bool] | None = None, **flags: Any) -> Settings:
        """These settings with flags laid over them; `collectors` says which are switched on or off."""
        own = {entry.name: flags.pop(entry.name, None) for entry in (*COLLECTOR, *PROBE, *LABELS)}
        switched = self.collectors.switched(collectors or {})
        return replace(
            client.Settings.with_overrides(self, **flags),
            collectors=table.updated(switched, COLLECTOR, client.overrides(COLLECTOR, own)),
            probe=table.updated(self.probe, PROBE, client.overrides(PROBE, own)),
            labels=table.updated(self.labels, LABELS, client.overrides(LABELS, own)),
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
    for name, named in (("enabled", collectors.enabled or frozenset()), ("added", collectors.added)):
        if both := collectors.disabled & named:
            raise fields["disabled"].error(
                f"and {name} both name {', '.join(sorted(both))}", "Name a collector in one of the two"
            )
    probe = table.updated(ProbeSettings(), PROBE, table.fields_of(PROBE, sections.get("probe")))
    labels = {name: sections[name] for name in ("labels",) if name in sections}
    return Settings(
        common.clusters, common.runtime, path, collectors, probe,
        table.updated(LabelSettings(), LABELS, labels),
    )  # fmt: skip

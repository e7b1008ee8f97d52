"""The settings in force as a document, for `/config`. Pure: settings in, plain values out."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clio_client.config.hostfile import HostEntry
from clio_client.config.masking import MASK, is_secret_name, mask_text
from clio_client.config.settings import CLUSTER, OVERRIDE, RUNTIME
from clio_client.config.table import Table
from clio_exporter.settings import COLLECTOR, NAMES, PROBE, Settings


def document(settings: Settings) -> dict[str, Any]:
    """What holds after file, flags and defaults, with the keys of the settings file; credentials masked.

    Loaded as a settings file it means the same, unless something was masked.
    """
    collectors = settings.collectors
    return {
        "clusters": [
            {
                **_section(cluster, CLUSTER),
                **(
                    {"overrides": {str(entry): _section(own, OVERRIDE) for entry, own in cluster.overrides}}
                    if cluster.overrides
                    else {}
                ),
            }
            for cluster in settings.clusters
        ],
        "runtime": _section(settings.runtime, RUNTIME),
        "collectors": {
            **_section(collectors, tuple(e for e in COLLECTOR if e.name not in _SWITCHES)),
            "enabled": [name for name in NAMES if collectors.is_enabled(name)],
        },
        "probe": _section(settings.probe, PROBE),
        "labels": {name: masked(name, value) for name, value in settings.labels.labels},
    }


_SWITCHES = ("enabled", "added", "disabled")


def flags(values: Mapping[str, Any], table: Table) -> dict[str, Any]:
    """What settings that no file has are set to, by flag; credentials masked."""
    return {
        entry.flag: masked(entry.flag, plain(value))
        for entry in table
        if (value := values[entry.name]) not in (None, "", ())
    }


def _section(section: Any, table: Table) -> dict[str, Any]:
    """A section of settings without what is unset: dotted keys are mappings in mappings."""
    found: dict[str, Any] = {}
    for entry in table:
        value = getattr(section, entry.name)
        if value is None or value in ("", ()) or entry.name == "overrides":
            continue
        *above, last = entry.key.split(".")
        into = found
        for key in above:
            into = into.setdefault(key, {})
        into[last] = masked(last, plain(value))
    return found


def plain(value: Any) -> Any:
    """A typed value as YAML has it."""
    if isinstance(value, re.Pattern):
        return value.pattern
    if isinstance(value, (Path, HostEntry)):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        raise TypeError(f"no plain form of {type(value).__name__}")
    return value


def masked(name: str, value: Any) -> Any:
    """The value with everything in its texts that looks like a credential as `<secret>`."""
    if isinstance(value, list):
        return [masked(name, item) for item in value]
    if not isinstance(value, str):
        return value
    return MASK if is_secret_name(name) else mask_text(value)

"""Labels that every series carries (`--label`, `labels:`): which names and values they may have."""

from __future__ import annotations

import re
from typing import Final

from clio_client.config.fields import Field

_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_MAX_VALUE: Final = 1024
JOB: Final = frozenset({"job_id", "user", "job_name"})
"""What an exporter of one job gives all series; one that tells jobs apart (`node.job_directory`) may not."""
_PROMETHEUS: Final = frozenset({"job", "instance", "le", "quantile"})


def constant_labels(value: Field) -> tuple[tuple[str, str], ...]:
    """Names and values: of a mapping in the file, or of repeated `NAME=VALUE`. Raises `ConfigError`."""
    found: dict[str, str] = {}
    for name, text, field in _pairs(value):
        if not _NAME.fullmatch(name):
            raise field.error(
                f"names a label {name!r}, which is no name", "Use letters, digits and '_', no digit first"
            )
        if name.startswith("__") or name in _PROMETHEUS:
            raise field.error(f"names a label {name}, which Prometheus gives itself", "Give it another name")
        if name in emitted() - JOB:
            raise field.error(
                f"names a label {name}, which series of the exporter have already",
                "Give it another name, such as site_" + name,
            )
        if name in found:
            raise field.error(f"names the label {name} twice", "Give each label once")
        if not text.isprintable() or len(text) > _MAX_VALUE:
            raise field.error(
                f"gives the label {name} a value that is not printable or too long",
                f"Use at most {_MAX_VALUE} printable characters",
            )
        found[name] = text
    return tuple(found.items())


def _pairs(value: Field) -> list[tuple[str, str, Field]]:
    if value.line is not None:
        return [(name, field.text(), field) for name, field in value.mapping().items()]
    pairs = []
    for item in value.sequence():
        name, equals, text = item.text().partition("=")
        if not equals or not text:
            raise item.refusal("not a label", "Write it as name=value")
        pairs.append((name, text, item))
    return pairs


def emitted() -> frozenset[str]:
    """Names of the labels that the exporter's own series have."""
    # Not at the top: the families' modules read settings, which read this.
    from clio_exporter.collectors.reference import all_families
    from clio_exporter.telemetry import process_labels

    own = {label for family in all_families() for label in family.labels}
    return frozenset(own | {"cluster", "node_id", "hostname"} | process_labels())

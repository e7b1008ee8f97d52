"""What the runtimes are configured to do, from the configuration files this host can read."""

from __future__ import annotations

from typing import ClassVar

from clio_client.config.runtime_files import ConfigFile
from clio_exporter.collectors.base import Collector
from clio_exporter.exposition import Family, Kind, Samples, Scope, join_labels, label_text
from clio_exporter.labels import config_labels
from clio_exporter.snapshot import ClusterSnapshot

_FILE = "runtime configuration file"

INFO = Family(
    "clio_config_info",
    Kind.INFO,
    "A value of the runtime configuration, by its path in the file: of known keys; of others only a mark "
    "that tells values apart. With node labels "
    "where the settings name one file a node.",
    _FILE,
    ("path", "value"),
    Scope.CLUSTER,
)
DIGEST = Family(
    "clio_config_digest_info",
    Kind.INFO,
    "SHA-256 of what the nodes of a cluster ought to have in common: the configuration's values without "
    "each node's own (paths of files, ports, what the settings name).",
    _FILE,
    ("sha256",),
    Scope.CLUSTER,
)
LOADED = Family(
    "clio_config_load_success",
    Kind.GAUGE,
    "1 if the runtime configuration file could be read, else 0.",
    _FILE,
    ("file",),
    Scope.CLUSTER,
)
MTIME = Family(
    "clio_config_modified_timestamp_seconds",
    Kind.GAUGE,
    "Unix time at which the runtime configuration file was changed; the runtime reads it when it starts.",
    _FILE,
    ("file",),
    Scope.CLUSTER,
)


class ConfigCollector(Collector):
    """The runtimes' configuration files."""

    families: ClassVar = (INFO, DIGEST, LOADED, MTIME)
    reads_config = True

    def collect_cluster(self, cluster: ClusterSnapshot, samples: Samples) -> None:
        """Every value of every file."""
        for file in cluster.configs:
            _file(file, cluster.name, samples)


def _file(file: ConfigFile, cluster: str, samples: Samples) -> None:
    labels = config_labels(file, cluster)
    named = join_labels(labels, label_text({"file": str(file.path)}))
    samples.add(LOADED, named, file.config is not None)
    samples.add(MTIME, named, file.mtime)
    if file.config is None:
        return
    for path, value in file.entries:
        samples.add(INFO, join_labels(labels, label_text({"path": path, "value": value})), 1)
    samples.add(DIGEST, join_labels(labels, label_text({"sha256": file.digest})), 1)

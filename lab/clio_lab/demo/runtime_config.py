"""The configuration of one runtime of a local cluster: pure functions from sizes and paths to YAML.

Keys and module names are those of the default configuration that the wheel ships
(`iowarp_core/data/*_default.yaml`), checked by starting each version.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Module = dict[str, Any]


@dataclass(frozen=True)
class Capacities:
    """Sizes of what a demo node composes, in MiB. RAM devices map that much shared memory up front."""

    ram_device: int = 64
    file_device: int = 64
    ram_tier: int = 32
    file_tier: int = 256
    file_growth: int = 64
    """A file tier reserves its disk space in steps of this, one of them at the start."""

    @property
    def disk_at_most(self) -> int:
        """MiB of disk a node can take with both file devices full."""
        return self.file_device + self.file_tier


@dataclass(frozen=True)
class NodeSettings:
    """Everything the configuration file of one node says."""

    port: int
    store: Path
    conf_dir: Path
    namespace: str
    hostfile: Path | None = None
    num_threads: int = 2
    neighborhood: int = 1
    capacities: Capacities = Capacities()
    peer_wait: int = 30
    """Seconds a starting runtime waits for the others in the hostfile (`wait_for_restart`)."""


def render(settings: NodeSettings, release: tuple[int, ...]) -> str:
    """Return the YAML text for a runtime of version `release`."""
    networking: dict[str, Any] = {"port": settings.port}
    if settings.hostfile is not None:
        networking["hostfile"] = str(settings.hostfile)
    networking["wait_for_restart"] = settings.peer_wait
    document = {
        "networking": networking,
        "runtime": {
            "num_threads": settings.num_threads,
            "queue_depth": 1024,
            "conf_dir": str(settings.conf_dir),
            "ipc_namespace": settings.namespace,
        },
        "viz": {"enabled": False},
        "compose": modules(settings, release),
    }
    return yaml.safe_dump(document, sort_keys=False)


def modules(settings: NodeSettings, release: tuple[int, ...]) -> list[Module]:
    """Return the compose section: every module the wheel contains for 2.3, devices and engine before.

    The order matters: a module comes after the one its `next_pool_id` names.
    """
    if release < (2, 3):
        return [_ram_device(settings, release), _file_device(settings, release), _engine(settings, release)]
    return [
        _ram_device(settings, release),
        _file_device(settings, release),
        _engine(settings, release),
        _module("clio_cae_core", "cae_main", "400.0", next_pool_id="512.0"),
        _module(
            "clio_cte_replication",
            "clio_cte_replication",
            "561.0",
            next_pool_id="512.0",
            replication_factor=1,
            cache_score=1.0,
            replica_score=0.2,
        ),
        _module(
            "clio_cte_indexer",
            "clio_cte_indexer",
            "564.0",
            next_pool_id="561.0",
            index_log_path=str(settings.store / "cte_indexer_index"),
        ),
        _module("clio_cte_cache", "clio_cte_cache", "563.0", next_pool_id="564.0", min_score=0.5),
        _module("clio_cte_stream", "clio_cte_stream", "565.0", next_pool_id="563.0", staging_pool_id="561.0"),
        _module("clio_cte_filesystem", "clio_cte_filesystem", "560.0", next_pool_id="563.0"),
    ]


def _module(name: str, pool_name: str, pool_id: str, **parameters: Any) -> Module:
    head = {"mod_name": name, "pool_name": pool_name, "pool_query": "local", "pool_id": pool_id}
    return {**head, **parameters}


def _device_module(release: tuple[int, ...]) -> str:
    return "clio_bdev" if release >= (1, 5, 8) else "chimaera_bdev"


def _ram_device(settings: NodeSettings, release: tuple[int, ...]) -> Module:
    return _module(
        _device_module(release),
        "ram::chi_default_bdev",
        "301.0",
        bdev_type="ram",
        capacity=f"{settings.capacities.ram_device}MB",
    )


def _file_device(settings: NodeSettings, release: tuple[int, ...]) -> Module:
    return _module(
        _device_module(release),
        str(settings.store / "bdev_file.dat"),
        "302.0",
        bdev_type="file",
        capacity=f"{settings.capacities.file_device}MB",
    )


# Measured on 2.3.2 with `clio_cte_bench`: with random placement, these scores and no periodic flush
# (which moves all of RAM to the file tier) half of the blobs stay on each tier. With the shipped
# scores of 1.0 and 0.2 all of them go to the file tier.
_RAM_SCORE = 0.4
_FILE_SCORE = 0.1
_FLUSH_PERIOD_MS = 3_600_000


def _engine(settings: NodeSettings, release: tuple[int, ...]) -> Module:
    """The context transfer engine with a RAM tier above a file tier."""
    sizes = settings.capacities
    file_tier: dict[str, Any] = {
        "path": str(settings.store / "cte_disk_tier.dat"),
        "bdev_type": "file",
        "capacity_limit": f"{sizes.file_tier}MB",
        "score": _FILE_SCORE,
    }
    parameters: dict[str, Any] = {
        "storage": [
            {
                "path": "ram::cte_ram_tier1",
                "bdev_type": "ram",
                "capacity_limit": f"{sizes.ram_tier}MB",
                "score": _RAM_SCORE,
            },
            file_tier,
        ],
        "dpe": {"dpe_type": "random"},
        "targets": {
            "neighborhood": settings.neighborhood,
            "default_target_timeout_ms": 30000,
            "poll_period_ms": 5000,
        },
    }
    if release >= (2, 3):
        file_tier["growth_unit"] = f"{sizes.file_growth}MB"
        file_tier["persistence_level"] = "temporary"
        parameters["performance"] = {
            "metadata_log_path": str(settings.store / "cte_metadata_log"),
            "transaction_log_capacity": "4MB",
            "flush_data_period_ms": _FLUSH_PERIOD_MS,
        }
    name = "clio_cte_core" if release >= (1, 5, 8) else "wrp_cte_core"
    return _module(name, "cte_main", "512.0", **parameters)

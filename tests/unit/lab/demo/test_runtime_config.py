from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from clio_lab.demo.runtime_config import Capacities, NodeSettings, render

NODE = NodeSettings(
    port=9423,
    store=Path("/data/n1/store"),
    conf_dir=Path("/data/n1/conf"),
    namespace="n1",
    hostfile=Path("/data/hostfile"),
)


def parsed(settings: NodeSettings, release: tuple[int, ...]) -> dict[str, Any]:
    document = yaml.safe_load(render(settings, release))
    assert isinstance(document, dict)
    return document


def test_network_and_paths_are_the_nodes_own() -> None:
    document = parsed(NODE, (2, 3, 2))
    assert document["networking"]["port"] == 9423
    assert document["networking"]["hostfile"] == "/data/hostfile"
    assert document["runtime"]["conf_dir"] == "/data/n1/conf"
    assert document["runtime"]["ipc_namespace"] == "n1"
    assert document["viz"] == {"enabled": False}


def test_pools_are_unique_and_chained_to_earlier_ones() -> None:
    seen: set[str] = set()
    for module in parsed(NODE, (2, 3, 2))["compose"]:
        assert module["pool_id"] not in seen
        if "next_pool_id" in module:
            assert module["next_pool_id"] in seen
        seen.add(module["pool_id"])
    assert seen == {"301.0", "302.0", "400.0", "512.0", "561.0", "564.0", "563.0", "565.0", "560.0"}


@pytest.mark.parametrize(
    ("release", "names"),
    [
        ((1, 0, 3), ["chimaera_bdev", "chimaera_bdev", "wrp_cte_core"]),
        ((1, 5, 1), ["chimaera_bdev", "chimaera_bdev", "wrp_cte_core"]),
        ((1, 5, 8), ["clio_bdev", "clio_bdev", "clio_cte_core"]),
        ((2, 2, 1), ["clio_bdev", "clio_bdev", "clio_cte_core"]),
    ],
)
def test_older_versions_get_the_modules_they_have_by_their_names(
    release: tuple[int, ...], names: list[str]
) -> None:
    assert [module["mod_name"] for module in parsed(NODE, release)["compose"]] == names


def test_without_a_hostfile_the_key_is_absent() -> None:
    settings = NodeSettings(port=9413, store=Path("/s"), conf_dir=Path("/c"), namespace="n0")
    assert "hostfile" not in parsed(settings, (2, 1, 0))["networking"]


def test_capacities_reach_their_devices() -> None:
    sizes = Capacities(ram_device=1, file_device=2, ram_tier=3, file_tier=4, file_growth=5)
    settings = NodeSettings(
        port=9413, store=Path("/s"), conf_dir=Path("/c"), namespace="n0", capacities=sizes, neighborhood=2
    )
    modules = {module["pool_id"]: module for module in parsed(settings, (2, 3, 2))["compose"]}
    assert modules["301.0"]["capacity"] == "1MB"
    assert modules["302.0"]["capacity"] == "2MB"
    ram, file = modules["512.0"]["storage"]
    assert (ram["capacity_limit"], file["capacity_limit"], file["growth_unit"]) == ("3MB", "4MB", "5MB")
    assert ram["score"] > file["score"]
    assert modules["512.0"]["targets"]["neighborhood"] == 2
    assert sizes.disk_at_most == 6

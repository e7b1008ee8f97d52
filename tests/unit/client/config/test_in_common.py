"""What the nodes of a cluster should be configured alike in, and what is each one's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from clio_client.config.in_common import digest
from clio_client.config.known_keys import publishable
from clio_client.config.runtime_conf import flatten
from clio_client.config.runtime_files import RuntimeConfigFiles
from clio_client.config.settings import ClusterSettings
from clio_client.membership import Member
from clio_client.transport.interface import NodeAddress
from clio_lab.demo.runtime_config import Capacities, NodeSettings, render


def node(index: int, **more: object) -> str:
    """The configuration of one of the demo's nodes, which share a host."""
    root = Path(f"/demo/n{index}")
    settings = NodeSettings(
        port=9413 + 10 * index, store=root / "store", conf_dir=root / "conf", namespace=f"n{index}",
        hostfile=Path("/demo/hostfile"), **more,  # type: ignore[arg-type]
    )  # fmt: skip
    return render(settings, (2, 3, 2))


def digest_of(text: str, *own: str) -> str:
    return digest(flatten(publishable(yaml.safe_load(text))), own)


def test_nodes_of_one_cluster_are_alike() -> None:
    assert len({digest_of(node(index)) for index in range(4)}) == 1


@pytest.mark.parametrize(
    "other",
    [
        node(1, num_threads=3),
        node(1, neighborhood=2),
        node(1, capacities=Capacities(file_tier=512)),
        node(1).replace("dpe_type: random", "dpe_type: max_bw"),
        node(1).replace("wait_for_restart: 30", "unknown_key: s3cret"),
        node(1).replace("/demo/n1/store/bdev_file.dat", "ram::bdev_file"),
    ],
)
def test_what_should_be_equal_counts(other: str) -> None:
    assert digest_of(node(0)) != digest_of(other)


def test_the_settings_name_more_that_is_a_nodes_own() -> None:
    small, large = node(0), node(1, capacities=Capacities(file_tier=512), num_threads=8)
    assert digest_of(small, "runtime.num_threads") != digest_of(large, "runtime.num_threads")
    own = ("runtime.num_threads", "compose[*].storage[*].capacity_limit")
    assert digest_of(small, *own) == digest_of(large, *own)


def test_each_file_of_a_cluster_is_read_with_the_clusters_settings(tmp_path: Path) -> None:
    for index in range(2):
        (tmp_path / f"{index}.yaml").write_text(node(index, num_threads=1 + index))
    members = [Member("", index, f"n{index}", NodeAddress(f"n{index}")) for index in range(2)]

    def different(*own: str) -> int:
        settings = ClusterSettings(runtime_config=str(tmp_path / "{node_id}.yaml"), runtime_config_own=own)
        files = RuntimeConfigFiles(settings, {}, tmp_path).read(members)
        return len({file.digest for file in files})

    assert different() == 2
    assert different("runtime.num_threads") == 1

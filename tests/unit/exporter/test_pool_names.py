"""Devices and pools that are left out by name."""

from __future__ import annotations

import re

import pytest

from clio_exporter.pool_names import only_chosen
from clio_exporter.settings import CollectorSettings
from clio_exporter.snapshot import ClusterSnapshot
from tests.unit.exporter.collectors.test_collectors import polled


@pytest.fixture(scope="module")
def cluster() -> ClusterSnapshot:
    return ClusterSnapshot("", (polled("2.3.2"),))


def left(cluster: ClusterSnapshot, **patterns: str) -> tuple[set[str], set[str], set[str]]:
    """Names of devices, of pools and of pools with statistics that are told of with these settings."""
    settings = CollectorSettings(**{name: re.compile(text) for name, text in patterns.items()})  # type: ignore[arg-type]
    ((node,),) = (each.nodes for each in only_chosen((cluster,), settings))
    pools = {each.pool_name or "" for each in node.containers}
    return {each.name for each in node.bdevs}, pools, {each.name for each in node.modules}


def test_without_patterns_all_are_there(cluster: ClusterSnapshot) -> None:
    assert only_chosen((cluster,), CollectorSettings()) == (cluster,)
    devices, pools, modules = left(cluster)
    assert devices
    assert len(pools) > 2
    assert modules


def test_devices_are_chosen_by_their_whole_names(cluster: ClusterSnapshot) -> None:
    devices, pools, modules = left(cluster)
    one = sorted(devices)[0]
    assert left(cluster, bdev_include=re.escape(one)) == ({one}, pools, modules)
    assert left(cluster, bdev_exclude=re.escape(one)) == (devices - {one}, pools, modules)
    assert left(cluster, bdev_exclude=re.escape(one[:-1])) == (devices, pools, modules)
    assert left(cluster, bdev_include=".*", bdev_exclude=re.escape(one))[0] == devices - {one}


def test_pools_are_left_out_with_their_statistics(cluster: ClusterSnapshot) -> None:
    devices, pools, modules = left(cluster)
    one = sorted(modules)[0]
    assert left(cluster, pool_exclude=re.escape(one)) == (devices, pools - {one}, modules - {one})
    assert left(cluster, pool_include=re.escape(one)) == (devices, pools & {one}, modules & {one})

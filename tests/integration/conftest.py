"""Real runtimes shared by the integration tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clio_lab.demo.cluster import LocalCluster
from clio_lab.demo.install import RuntimeInstall
from clio_lab.demo.ports import find_base_port


@pytest.fixture(scope="session")
def runtime_install() -> RuntimeInstall:
    """The runtime wheel of the environment that runs the tests."""
    return RuntimeInstall.current()


@pytest.fixture(scope="session")
def cluster4(
    runtime_install: RuntimeInstall, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalCluster]:
    """Four real runtimes for the whole session, on free ports away from a demo's.

    A test that pauses, kills or restarts a node leaves all four ready again.
    """
    root: Path = tmp_path_factory.mktemp("cluster4")
    with LocalCluster(root, 4, install=runtime_install, base_port=find_base_port(4)) as cluster:
        yield cluster

"""Which tests stay together, and in which order, where several processes share them (`make test`).

A group of tests is run by one process, in order. It is a test file, so that what a module shares is made
once, apart from files that share more, and tests of one version of the runtime, which is installed first.
"""

from __future__ import annotations

import re
from typing import Final

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

CONTAINERS: Final = "tests/containers"
_VERSION: Final = re.compile(r"^tests/integration/.*\[(\d+\.\d+\.\d+)\]$")

TOGETHER: Final = {
    # What shares four real runtimes, which cost processor time for as long as they run.
    "cluster4 1": ("cardinality", "control_demo", "control_operations", "local_cluster", "python_client"),
    "cluster4 2": ("alerting", "dashboards", "job", "lifecycle", "prometheus", "wheel"),
    # What measures times (the mark `alone`) comes after all others, one test after the other, so it is all in
    # one group; only the 500 simulated nodes of alerts_simulated, which mostly wait, are watched beside it.
    "cluster4 3": (
        "control_cluster", "control_load", "good_guest", "truth", "large_clusters", "scale",
    ),
}  # fmt: skip
"""Files of tests/integration that are a group."""

LONGEST: Final = (
    "tests/integration/test_alerts_in_earnest.py", CONTAINERS, "cluster4 1", "cluster4 2",
    "tests/integration/test_alerts_simulated.py", "cluster4 3", "tests/integration/test_soak.py",
)  # fmt: skip
"""Groups that begin first, so that nobody waits for one of them in the end."""

_TOGETHER: Final = {
    f"tests/integration/test_{name}.py": group for group, names in TOGETHER.items() for name in names
}


def group_of(nodeid: str) -> str:
    """The group of a test."""
    path = nodeid.partition("::")[0]
    if path.startswith(f"{CONTAINERS}/"):
        return CONTAINERS
    version = _VERSION.match(nodeid)
    return _TOGETHER.get(path, path) if version is None else f"runtime {version[1]}"


def rank(nodeid: str) -> tuple[int, str]:
    """The place of a test's group in the order: long ones, then what mostly waits, then what computes."""
    group = group_of(nodeid)
    if group in LONGEST:
        return LONGEST.index(group), group
    return len(LONGEST) + group.startswith("tests/unit/"), group


class GroupScheduling(LoadScopeScheduling):
    """Hands out groups, in the order of the collected tests."""

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # that is by the number of tests

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)

"""How tests are shared out among processes."""

from __future__ import annotations

import re

from tests.paths import ROOT
from tests.schedule import CONTAINERS, LONGEST, TOGETHER, group_of, rank

UNIT = "tests/unit/web/test_limits.py::test_one[a::b]"
WAITS = "tests/integration/test_demo.py::test_one"


def test_a_file_is_a_group() -> None:
    assert group_of(UNIT) == "tests/unit/web/test_limits.py"


def test_tests_of_a_version_are_a_group_across_files() -> None:
    first = group_of("tests/integration/test_compatibility.py::test_one[2.2.1]")
    assert first == group_of("tests/integration/test_older_runtimes.py::test_two[2.2.1]")
    assert first != group_of("tests/integration/test_compatibility.py::test_one[2.1.0]")


def test_containers_are_a_group() -> None:
    assert {group_of(f"{CONTAINERS}/{name}") for name in ("test_a.py::a", "test_b.py::b[1]")} == {CONTAINERS}


def test_files_that_share_runtimes_are_a_group() -> None:
    for group, names in TOGETHER.items():
        files = [f"tests/integration/test_{name}.py" for name in names]
        assert {group_of(f"{file}::test_one") for file in files} == {group}
        assert [file for file in files if not (ROOT / file).exists()] == []


def test_files_that_use_the_four_runtimes_are_in_a_group_that_shares_them() -> None:
    files = (ROOT / "tests/integration").glob("test_*.py")
    users = [file for file in files if re.search(r"\bcluster4: ", file.read_text())]
    together = {name for group, names in TOGETHER.items() if group.startswith("cluster4") for name in names}
    assert {file.stem.removeprefix("test_") for file in users} <= together


def test_what_takes_long_begins_first_and_what_computes_fills_the_gaps() -> None:
    soak = "tests/integration/test_soak.py::test_one"
    images = f"{CONTAINERS}/test_images.py::test_one"
    assert sorted([UNIT, WAITS, soak, images], key=rank) == [images, soak, WAITS, UNIT]


def test_the_groups_that_begin_first_are_there() -> None:
    assert [group for group in LONGEST if group not in TOGETHER and not (ROOT / group).exists()] == []


def test_what_measures_times_is_run_one_by_one_but_for_one_file() -> None:
    files = (ROOT / "tests/integration").glob("test_*.py")
    alone = {file.stem.removeprefix("test_") for file in files if "mark.alone" in file.read_text()}
    assert alone - {"alerts_simulated"} <= set(TOGETHER["cluster4 3"])

"""How tests are shared out among processes."""

from __future__ import annotations

from tests.paths import ROOT
from tests.schedule import CONTAINERS, LONGEST, group_of, rank

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


def test_what_takes_long_begins_first_and_what_computes_fills_the_gaps() -> None:
    long = [f"{group}::test_one" for group in LONGEST if group.endswith(".py")]
    assert sorted([UNIT, WAITS, *reversed(long)], key=rank) == [*long, WAITS, UNIT]


def test_the_groups_that_begin_first_are_there() -> None:
    paths = [ROOT / group for group in LONGEST if not group.startswith("runtime ")]
    assert [path for path in paths if not path.exists()] == []

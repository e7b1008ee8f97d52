"""The table of `make bench`."""

from __future__ import annotations

import pytest

from tests.bench.ratios import MARKS, Figure, changes, committed, table, written

FIGURES = [
    Figure("CPU against the writer", 0.2412, 0.25),
    Figure("memory", 199.7, 180, " MiB"),
    Figure("against the tool", 23.0, 60, " times", most=False),
]


def test_the_table_says_what_is_held() -> None:
    assert list(table(FIGURES))[2:] == [
        "| CPU against the writer | 0.241 | at most 0.25 | held |",
        "| memory | 200 MiB | at most 180 MiB | missed |",
        "| against the tool | 23 times | at least 60 times | missed |",
    ]


def test_what_is_written_is_read_again_and_replaces_what_was_there() -> None:
    text = f"before\n{MARKS[0]}\nold\n{MARKS[1]}\nafter\n"
    new = written(text, table(FIGURES))
    assert committed(new) == {"CPU against the writer": 0.241, "memory": 200.0, "against the tool": 23.0}
    assert new.startswith("before\n")
    assert new.endswith("\nafter\n")
    assert "old" not in new
    assert written(new, table(FIGURES)) == new
    assert committed(text) == {}
    with pytest.raises(ValueError, match="bench"):
        written("nothing", [])


def test_changes_are_told_by_what_they_mean() -> None:
    before = {"CPU against the writer": 0.24, "memory": 100.0, "against the tool": 10.0}
    assert list(changes(FIGURES, before)) == [
        "memory: worse, 100 before, 200 now",
        "against the tool: better, 10 before, 23 now",
    ]
    assert list(changes(FIGURES[:1], {})) == ["CPU against the writer: new"]

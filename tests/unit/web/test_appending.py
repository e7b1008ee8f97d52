"""Lines at the end of a file; `tests/faults/test_full_disk.py` has the disk that is full."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from clio_web.appending import append_line


def test_lines_stand_by_themselves(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    append_line(path, "a")
    append_line(path, "ü")
    with path.open("a") as torn:
        torn.write("torn")
    append_line(path, "b")
    assert path.read_text(encoding="utf-8") == "a\nü\ntorn\nb\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    append_line(tmp_path / "open", "a", 0o640)
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o640


def short(monkeypatch: pytest.MonkeyPatch) -> None:
    write: Callable[[int, bytes], int] = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))


def test_a_part_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lines"
    append_line(path, "whole")
    short(monkeypatch)
    with pytest.raises(OSError, match="No space left"):
        append_line(path, "another")
    assert path.read_text() == "whole\n"


def test_without_locks_nothing_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It could be another writer's line that is cut."""

    def none(*_: object) -> None:
        raise OSError("no locks")

    path = tmp_path / "lines"
    monkeypatch.setattr(fcntl, "flock", none)
    append_line(path, "whole")
    short(monkeypatch)
    with pytest.raises(OSError, match="No space left"):
        append_line(path, "another")
    assert path.read_text() == "whole\nano"
    monkeypatch.undo()
    append_line(path, "next")
    assert path.read_text() == "whole\nano\nnext\n"

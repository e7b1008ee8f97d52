"""What a file says, its last good value while it cannot be used, and what is told of changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from clio_client.config.errors import ConfigError
from clio_client.config.watched_file import SETTLED_S, WatchedFile


class Numbers:
    """A watched file of one whole number."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reads = 0
        self.now = 100.0
        self.told: list[object] = []
        self.file: WatchedFile[int] = WatchedFile(path, self._load, self.told.append, lambda: self.now)

    def _load(self, path: Path) -> int:
        self.reads += 1
        try:
            return int(path.read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(path, f"is no number: {type(error).__name__}", "Write one") from None


@pytest.fixture
def numbers(tmp_path: Path) -> Numbers:
    (tmp_path / "n").write_text("1")
    return Numbers(tmp_path / "n")


def test_it_is_read_when_it_has_changed_and_told_of_once(numbers: Numbers) -> None:
    """And once more when its date can have no second change any longer."""
    for number, text in enumerate(["1", "22"], start=1):
        numbers.path.write_text(text)
        for seconds in (0.0, SETTLED_S, SETTLED_S):
            numbers.now += seconds
            assert numbers.file.value() == int(text)
        assert numbers.reads == 2 * number
    assert numbers.told == [22]


def test_a_change_that_leaves_date_and_length_as_they_were_is_seen(
    numbers: Numbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two changes within a tick of the file system's clock: here it stands."""
    stat = numbers.path.stat()
    monkeypatch.setattr(Path, "stat", lambda _: stat)
    assert numbers.file.current() == 1
    for seconds, text in ((0.0, "2"), (SETTLED_S / 2, "3"), (SETTLED_S / 2, "4")):
        numbers.now += seconds
        numbers.path.write_text(text)
        assert [numbers.file.current() for _ in range(2)] == [int(text)] * 2
    numbers.now += 2 * SETTLED_S
    numbers.path.write_text("x")  # no file system's clock stands for so long: it need not be seen
    assert numbers.file.current() == 4
    assert numbers.told == [2, 3, 4]


def test_what_is_wrong_is_told_once_while_it_is_read_again(
    numbers: Numbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = numbers.path.stat()
    monkeypatch.setattr(Path, "stat", lambda _: stat)
    numbers.file.value()
    numbers.path.write_text("x")
    for _ in range(3):
        with pytest.raises(ConfigError, match="ValueError"):
            numbers.file.current()
    numbers.path.write_text("1")
    assert numbers.file.current() == 1
    assert [isinstance(told, ConfigError) for told in numbers.told] == [True, False]


def test_the_last_good_value_stays_and_each_error_is_told_once(numbers: Numbers) -> None:
    numbers.file.value()
    numbers.path.write_text("x")
    assert [numbers.file.value() for _ in range(3)] == [1, 1, 1]
    numbers.path.unlink()
    assert [numbers.file.value() for _ in range(3)] == [1, 1, 1]
    assert "ValueError" in str(numbers.told[0])
    assert "FileNotFound" in str(numbers.told[1])
    assert str(numbers.file.error) == str(numbers.told[1])
    numbers.path.write_text("2")
    assert numbers.file.value() == 2
    assert numbers.file.error is None
    assert numbers.told[2:] == [2]


def test_it_raises_while_it_was_never_good(tmp_path: Path) -> None:
    numbers = Numbers(tmp_path / "none")
    for _ in range(2):
        with pytest.raises(ConfigError, match="FileNotFound"):
            numbers.file.value()
    assert numbers.told == []
    numbers.path.write_text("1")
    assert numbers.file.value() == 1


def test_a_reload_reads_whatever_the_date_and_says_what_is_wrong(numbers: Numbers) -> None:
    numbers.file.value()
    assert numbers.file.reload() == 1
    assert numbers.reads == 2
    numbers.path.write_text("x")
    with pytest.raises(ConfigError, match="ValueError"):
        numbers.file.reload()
    assert numbers.file.value() == 1


def test_what_could_not_be_read_is_tried_again_though_its_date_is_the_same(numbers: Numbers) -> None:
    """A network file system fails for a moment: nothing about the file changes."""
    numbers.file.value()
    load = numbers.file._load
    numbers.path.write_text("22")

    def fail(path: Path) -> int:
        raise ConfigError(path, "input/output error", "Try again")

    numbers.file._load = fail
    assert numbers.file.value() == 1
    numbers.file._load = load
    assert numbers.file.value() == 22

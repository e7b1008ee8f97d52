"""The time that is kept free for writing: foreseen before the first answer, learned from the others."""

from __future__ import annotations

import pytest

from clio_exporter.exposition import Samples
from clio_exporter.write_time import MAX_SHARE, MIN_SAMPLES, SAMPLES_A_NODE, WriteTime

NODES = 1024
LONG = 1000.0


def test_the_first_answer_is_foreseen_from_the_number_of_nodes() -> None:
    times = WriteTime()
    assert times.foreseen(None, 0, LONG) == 0
    one = times.foreseen(None, 1, LONG)
    assert 0 < one < 0.1
    assert times.foreseen(None, NODES, LONG) == pytest.approx(NODES * one)


def test_the_first_answer_is_foreseen_from_the_speed_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    times, added = [5.0, 5.0 + 0.5], []
    add = Samples.add
    monkeypatch.setattr("clio_exporter.write_time.time.thread_time", lambda: times.pop(0))
    monkeypatch.setattr(Samples, "add", lambda *given: added.append(add(*given)))
    found = WriteTime()
    assert times == []
    assert len(added) > 0
    assert found.foreseen(None, 2, LONG) == pytest.approx(2 * SAMPLES_A_NODE * 0.5 / len(added))


@pytest.mark.parametrize(("samples", "counts"), [(MIN_SAMPLES - 1, False), (MIN_SAMPLES, True)])
def test_from_how_many_samples_on_a_scrape_tells_how_long_one_takes(samples: int, counts: bool) -> None:
    times = WriteTime()
    before = times.foreseen("other", 1, LONG)
    times.measured(None, 1, samples, 50.0)
    after = times.foreseen("other", 1, LONG)
    assert after == pytest.approx(SAMPLES_A_NODE * 50.0 / samples if counts else before)


def test_without_nodes_nothing_is_learned_of_their_number() -> None:
    times = WriteTime()
    before = times.foreseen(None, 1, LONG)
    times.measured(None, 0, 100, 1.0)
    assert times.foreseen(None, 1, LONG) == before


def test_the_nodes_get_at_least_half_of_the_time() -> None:
    assert WriteTime().foreseen(None, 10_000_000, 5.0) == 5.0 * MAX_SHARE


def test_what_is_slow_counts_at_once_and_what_is_fast_little_by_little() -> None:
    times = WriteTime()
    times.measured(None, NODES, NODES * 400, 40.0)
    assert times.foreseen(None, NODES, LONG) == pytest.approx(40.0)
    times.measured(None, NODES, NODES * 400, 1.0)
    assert 20.0 < times.foreseen(None, NODES, LONG) < 40.0
    for _ in range(50):
        times.measured(None, NODES, NODES * 400, 1.0)
    assert times.foreseen(None, NODES, LONG) == pytest.approx(1.0, rel=0.01)


def test_a_scrape_of_little_says_nothing_of_one_of_all() -> None:
    times = WriteTime()
    times.measured(None, NODES, NODES * 400, 4.0)
    few = frozenset({"config"})
    for _ in range(50):
        times.measured(few, NODES, 10, 0.5)
    assert times.foreseen(None, NODES, LONG) == pytest.approx(4.0)
    assert times.foreseen(few, NODES, LONG) < 0.1


def test_an_answer_cut_short_is_not_expected_again() -> None:
    times = WriteTime()
    before = times.foreseen(None, NODES, LONG)
    times.measured(None, NODES, NODES * 10, before / 30)
    assert times.foreseen(None, NODES, LONG) >= before * 0.8 * 0.8

from __future__ import annotations

import argparse

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clio_lab.simulator import model
from clio_lab.simulator.command import add_arguments, config_from
from clio_lab.simulator.faults import parse_fault, parse_node_fault
from clio_lab.simulator.server import SimulatorConfig, node_address

ages = st.integers(0, 10**15)
nodes = st.integers(0, 5000)


@settings(max_examples=50, deadline=None)
@given(nodes, st.integers(0, 7), ages, ages)
def test_counters_never_go_back(node: int, thing: int, one: int, other: int) -> None:
    early, late = sorted((one, other))
    for counter in (model.tasks_processed, model.idle_iterations, model.bdev_reads, model.bdev_writes):
        assert 0 <= counter(node, thing, early, 1.5) <= counter(node, thing, late, 1.5)
    assert model.cte_blobs(node, early, 1.5) <= model.cte_blobs(node, late, 1.5)


def test_counters_move_at_their_rate() -> None:
    assert model.tasks_processed(3, 2, 10 * model.SECOND, 2.0) == 2 * 10 * (100 + 20 + 3)
    assert model.tasks_processed(3, 2, 10 * model.SECOND, 0.0) == 0


@settings(max_examples=50, deadline=None)
@given(nodes, st.integers(0, 10**7), st.integers(10, 10**12))
def test_gauges_stay_in_their_range(node: int, number: int, total: int) -> None:
    assert 0 < model.bdev_remaining(total, number) <= total
    assert 0 <= model.cpu_percent(node, number) <= 100
    assert 0 <= model.memory_available(node, number, total) <= total


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 5000), st.integers(0, 5000))
def test_the_cursor(minimum: int, seconds: int) -> None:
    events = model.event_range(minimum, seconds * model.SECOND)
    kept = set(range(max(0, seconds - 1023), seconds + 1))
    assert set(events) == {event for event in kept if event >= minimum}


def test_addresses() -> None:
    assert node_address(SimulatorConfig(), 256) == ("127.96.1.1", 9413)
    assert node_address(SimulatorConfig(same_address=True), 2) == ("127.96.0.1", 9433)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sleepy", "unknown fault"),
        ("slow", "needs an argument"),
        ("slow:fast", "not a number"),
        ("silent:1", "takes no argument"),
        ("truncated:1.5", "out of range"),
        ("workers:-1", "out of range"),
    ],
)
def test_a_bad_fault_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_fault(text)


def test_faults_of_the_command_line() -> None:
    chosen, fault = parse_node_fault("1-2=slow:1.5", 3)
    assert (list(chosen), fault.kind, fault.number) == ([1, 2], "slow", 1.5)
    assert parse_fault("restarting").number == 1
    for text in ("3=silent", "x=silent", "silent", "2-1=silent"):
        with pytest.raises(ValueError, match="--fault"):
            parse_node_fault(text, 3)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--nodes", "0"], "--nodes 0"),
        (["--workers", "-1"], "--workers"),
        (["--rate", "-1"], "--rate"),
        (["--address", "localhost"], "--address localhost"),
        (["--base-port", "65533"], "--base-port 65533"),
        (["--same-address", "--nodes", "10000"], "--base-port"),
        (["--hostname-format", "{name}"], "--hostname-format"),
        (["--node-generation", "0=Z"], "--node-generation"),
        (["--fault", "9=silent"], "nodes 0 to 3"),
    ],
)
def test_bad_options_are_named(options: list[str], says: str) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(ValueError, match=says):
        config_from(parser.parse_args(options))

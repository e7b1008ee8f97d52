"""Hooks for the whole suite."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests import dead_runs, schedule
from tests.system import MISSING

if TYPE_CHECKING:
    from xdist.remote import Producer

# 200 ms for an example say nothing on a busy machine.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


@pytest.fixture(scope="session", autouse=True)
def _recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What killed runs have left is gone, and this one is known should it be killed."""
    with dead_runs.recorded(tmp_path_factory.getbasetemp()):
        yield


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Clean up after processes of this run that were ended before they could: Ctrl-C does that."""
    if not _is_worker(config):
        for done in dead_runs.remove_dead():
            print(done)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several processes share the tests, long ones begin first."""
    if _is_worker(config):
        items.sort(key=lambda item: schedule.rank(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> schedule.GroupScheduling:
    """Share the tests out by groups, whatever `--dist` says."""
    return schedule.GroupScheduling(config, log)


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def _in_ci() -> bool:
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"}


def _fail_skip_for_missing_package(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip for want of a system package into a failure: in CI it hides a defect."""
    if not report.skipped or hasattr(report, "wasxfail") or not _in_ci():
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if MISSING in reason:
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: not allowed where CI=true: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Check each phase of each test."""
    report = yield
    _fail_skip_for_missing_package(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Check skips of whole modules."""
    report = yield
    _fail_skip_for_missing_package(report)
    return report

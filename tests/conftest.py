"""Hooks for the whole suite."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

from tests.system import MISSING


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

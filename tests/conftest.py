"""What every test may use, and the rule that nothing skips where everything is installed."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest


def _forbid_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """With DHP_NO_SKIPS=1 a skip counts as a failure, so that CI cannot lose tests unnoticed."""
    if os.environ.get("DHP_NO_SKIPS") != "1" or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = f"DHP_NO_SKIPS=1 forbids skipping. {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Looks at each test's outcome."""
    report = yield
    _forbid_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Looks at modules that skip as a whole while they are collected."""
    report = yield
    _forbid_skip(report)
    return report

"""What holds for every test."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator

import hypothesis
import pytest

# A shell that runs the tests in the background has them ignore Ctrl-C, and every process that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no failure. What hypothesis finds it can find again: it prints how.
hypothesis.settings.register_profile("decaf", deadline=None, print_blob=True)
hypothesis.settings.load_profile("decaf")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        _fail_on_ci(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped:
        _fail_on_ci(report)
    return report


def _fail_on_ci(report: pytest.TestReport | pytest.CollectReport) -> None:
    """With CI=true what is skipped has failed: the machine lacks what a test needs."""
    if os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} was skipped, and on CI nothing may be: {report.longrepr}"

"""What holds for every test."""

from __future__ import annotations

import os
from collections.abc import Generator

import hypothesis
import pytest

# A busy machine is no failure. What hypothesis finds it can find again: it prints how.
hypothesis.settings.register_profile("decaf", deadline=None, print_blob=True)
hypothesis.settings.load_profile("decaf")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With CI=true a skipped test has failed: the machine lacks what the test needs."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and on CI nothing may be: {report.longrepr}"
    return report

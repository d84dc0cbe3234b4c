"""A real Chromium without a screen, driven by selenium. Needs Debian's ``chromium`` and ``chromium-driver``."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

DRIVER = "/usr/bin/chromedriver"
OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # CI is root, in a container
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
)


@contextmanager
def chromium(*more: str) -> Iterator[Chrome]:
    """Give a browser with an empty profile, which keeps what its console says."""
    options = ChromeOptions()
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(prefix="decaf-browser-") as profile:
        for option in (*OPTIONS, f"--user-data-dir={profile}", *more):
            options.add_argument(option)
        browser = Chrome(options, Service(DRIVER))
        try:
            yield browser
        finally:
            browser.quit()


def sized(browser: Chrome, width: int, height: int, scheme: str = "light") -> None:
    """Give the page so many CSS pixels, as a phone has few, and say what the system prefers."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

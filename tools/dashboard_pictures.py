"""Take the pictures of the dashboard in docs/ anew, from one that is running: its address is the argument."""

from __future__ import annotations

import argparse
import base64
from pathlib import Path

from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.browser import chromium, sized

DOCS = Path(__file__).parent.parent / "docs"
PICTURES = {"light": (1240, 1080), "dark": (1240, 1080), "phone": (390, 1400)}
PATIENCE = 30.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", help="as decaf-node dashboard prints it")
    parser.add_argument("--to", type=Path, default=DOCS, help="folder")
    parser.add_argument("--whole", action="store_true", help="the whole page, and not only its top")
    arguments = parser.parse_args()
    for name, (width, height) in PICTURES.items():
        with chromium() as browser:
            sized(browser, width, height, "dark" if name == "dark" else "light")
            browser.get(arguments.address)
            WebDriverWait(browser, PATIENCE).until(ready)
            file = arguments.to / f"dashboard-{name}.png"
            file.write_bytes(picture(browser, arguments.whole))
            print(f"{file}: {file.stat().st_size / 1000:.0f} kB")
    return 0


def ready(browser: Chrome) -> bool:
    """All is drawn."""
    return bool(browser.find_elements(By.CSS_SELECTOR, "#charts canvas")) and bool(
        browser.find_elements(By.CSS_SELECTOR, "#graph .node") and browser.find_elements(By.CSS_SELECTOR, "#alerts *")
    )


def picture(browser: Chrome, whole: bool) -> bytes:
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": whole})
    return base64.b64decode(shot["data"])


if __name__ == "__main__":
    raise SystemExit(main())

"""A headless Chromium, if it is installed (`apt-get install chromium chromium-driver`)."""

import json
import shutil
from collections.abc import Iterator

import pytest


def chromium() -> Iterator["object"]:
    """A selenium driver; skips the test, with the reason, if no browser is installed."""
    binary = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if not (binary and driver):
        pytest.skip("needs a browser: apt-get install chromium chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    # As root, as CI is, Chromium does not start in its sandbox; pages here are our own.
    for flag in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        yield browser
    finally:
        browser.quit()


def resize(browser, width: int, height: int = 800, *, dark: bool = False) -> None:
    """Sets the size of the screen; below 600 pixels it is that of a phone."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def errors(browser) -> list[str]:
    """Messages on the console since the last call."""
    return [f"{e['level']}: {e['message']}" for e in browser.get_log("browser")]


def overflow(browser) -> int:
    """Pixels by which the page is wider than the screen."""
    return browser.execute_script(
        "const root = document.documentElement; return root.scrollWidth - root.clientWidth"
    )


def requested(browser) -> set[str]:
    """Schemes of the addresses that were fetched since the last call."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return {
        message["params"]["request"]["url"].partition(":")[0]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    }

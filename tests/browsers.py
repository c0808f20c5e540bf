"""The browser of this machine, for the tests that need one."""

import os
import shutil

import pytest

NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Google\Chrome\Application\chrome.exe",
)


def find_chromium() -> str | None:
    """The path of the first browser that is there; CSREFT_CHROMIUM names another one."""
    chosen = os.environ.get("CSREFT_CHROMIUM")
    return next(filter(None, map(shutil.which, (chosen, *NAMES) if chosen else NAMES)), None)


def path_of_chromium() -> str:
    """The path of a browser; without one a test of CI fails, and any other is skipped."""
    path = find_chromium()
    if path is None:
        message = "no Chromium or Chrome found; install one or set CSREFT_CHROMIUM"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return path

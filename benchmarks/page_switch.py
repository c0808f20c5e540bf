"""How long a click on a page of the navigation takes, in a browser, with everything loaded.

    python -m benchmarks.page_switch [--rounds 8] [--chromium PATH]

Starts the app on the shipped runs, opens every page once, then clicks from page to page. A switch
ends when the new page's title stands and its script has run to the end. Prints the median and the
95th percentile of all switches, and each page's own median.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from playwright.sync_api import Page, sync_playwright

from benchmarks.app_server import serving

PAGES = (
    "Model",
    "Skills",
    "Train",
    "Router",
    "Geometry",
    "States",
    "Interference",
    "Compare",
    "Methods",
    "Claims",
    "Runs",
    "Start",
)
# textContent, unlike innerText, makes the browser lay nothing out: to look must cost nothing.
_DONE = """([before]) => {
    const app = document.querySelector('[data-testid="stApp"]');
    const title = document.querySelector('h1');
    const captions = [...document.querySelectorAll('[data-testid="stCaptionContainer"]')];
    return app && app.dataset.testScriptState === 'notRunning' && title
        && title.textContent !== before
        && captions.some(caption => caption.textContent.includes('CS-ReFT Explorer ·'));
}"""


def switch(page: Page, name: str) -> float:
    """Seconds from the click on a page's link until that page is there."""
    before = page.locator("h1").first.text_content()
    link = page.get_by_test_id("stSidebar").get_by_role("link", name=name)
    started = time.perf_counter()
    link.click()
    page.wait_for_function(_DONE, arg=[before], polling=20)
    return time.perf_counter() - started


def measure(address: str, chromium: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of every switch, by the page that is opened; the first round only warms up."""
    times: dict[str, list[float]] = {name: [] for name in PAGES}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        page.set_default_timeout(120_000)
        page.goto(address)
        page.get_by_text("With the adapter").wait_for()
        for turn in range(rounds + 1):
            for name in PAGES:
                seconds = switch(page, name)
                page.wait_for_timeout(500)
                if turn:
                    times[name].append(seconds)
        browser.close()
    return times


def main() -> None:
    """Start the app, measure, print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as (address, _):
        times = measure(address, args.chromium, args.rounds)
    for name, seconds in times.items():
        print(f"{name:<14} median {1000 * np.median(seconds):5.0f} ms  of {len(seconds)}")
    every = [s for seconds in times.values() for s in seconds]
    low, high = np.percentile(every, [50, 95])
    print(f"all            median {1000 * low:5.0f} ms  p95 {1000 * high:.0f} ms  of {len(every)}")


if __name__ == "__main__":
    main()

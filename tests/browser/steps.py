"""What a user reads off a page."""

import re

from playwright.sync_api import Page


def answers(page: Page) -> list[str]:
    """The answers without and with the adapter, once both are drawn."""
    page.get_by_test_id("stCode").nth(1).wait_for()
    return [text.strip() for text in page.get_by_test_id("stCode").all_inner_texts()]


def wait_for_state(page: Page, state: str) -> None:
    """Wait until the run's badge shows a state."""
    # The badge's text begins with the name of its icon.
    page.locator(".stMarkdownBadge").filter(has_text=re.compile(f"{state}$")).wait_for()


def progress(page: Page) -> str:
    """The text above the progress bar."""
    return page.get_by_test_id("stProgress").inner_text().strip()


def wait_until_drawn(page: Page) -> None:
    """Wait until the page is not being drawn anew: a click on what is replaced is lost."""
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()

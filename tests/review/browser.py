"""A real Chromium for tests of pages."""

import os
import shutil
from contextlib import contextmanager

import pytest

REQUIRED = "FACESWAP_BROWSER"  # set to "required" where a missing browser is an error


def chromium():
    """Return the path of Chromium; skip the test where there is none."""
    found = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if not found:
        if os.environ.get(REQUIRED) == "required":
            pytest.fail("Chromium is required here, but it is not installed")
        pytest.skip("Chromium is not installed (Debian: apt install chromium)")
    return found


@contextmanager
def opened(address, allowed=None, **options):
    """Open an address in a new browser; errors of the page fail the test.

    Args:
        address: What to open.
        allowed: Part of the errors that are expected.
        options: Of the browser context, such as ``color_scheme``.
    """
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    path = chromium()
    errors = []
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_context(viewport={"width": 1280, "height": 800}, **options).new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.goto(address)
        yield page
        browser.close()
    assert [error for error in errors if not (allowed and allowed in error)] == []

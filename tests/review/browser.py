"""A real Chromium for tests of pages."""

import os
import shutil
import signal
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
def at_most(seconds):
    """Fail a test that hangs, for example because the browser does not start."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(number, frame):
        raise TimeoutError(f"the browser did not answer within {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


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
    with at_most(600), api.sync_playwright() as playwright:
        # The zygote, from which other processes fork, hung once in a hundred starts.
        args = ["--no-sandbox", "--no-zygote", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=path, args=args)
        page = browser.new_context(viewport={"width": 1280, "height": 800}, **options).new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.on("dialog", lambda dialog: errors.append(dialog.message) or dialog.dismiss())
        page.goto(address)
        yield page
        browser.close()
    found = [error for error in errors if not (allowed and allowed in error)]
    assert not found, found

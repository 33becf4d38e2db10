"""Pages in a headless Chromium."""

import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from playwright.async_api import Browser, Page

CHROMIUM: Final = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
ARGUMENTS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SECONDS: Final = 30_000

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Chromium: install the package `chromium` (apt-get install chromium)"
)


@asynccontextmanager
async def page_of(browser: Browser, *, allowed: str = "(?!)", **options: Any) -> AsyncIterator[Page]:
    """A page; any console error fails the test, but for those that match ``allowed``."""
    problems: list[str] = []
    context = await browser.new_context(**({"viewport": {"width": 1440, "height": 900}} | options))
    page = await context.new_page()
    page.set_default_timeout(SECONDS)
    page.on("console", lambda m: problems.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    yield page
    await context.close()
    assert [problem for problem in problems if not re.search(allowed, problem)] == []

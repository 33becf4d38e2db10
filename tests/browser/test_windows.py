"""Many windows of one browser over one real server: a browser opens six connections to it, and no more."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from schemas.aggregates import BoardRow
from schemas.signals import CryptoSignal
from tests.browser.pages import SECONDS, needs_chromium, page_of
from tests.serving import full_signal, now, state_over
from tests.waiting import eventually
from worker.serve.api import build_api
from worker.serve.server import bound_socket, serve_app
from worker.serve.state import ServeState
from worker.settings import ServeSettings

pytestmark = needs_chromium
WINDOWS = 7


class Redis:
    """An empty board."""

    async def board(self, _: str) -> list[BoardRow]:
        return []

    async def index(self, *_: Any) -> list[Any]:
        return []


@asynccontextmanager
async def server(**settings: Any) -> AsyncIterator[tuple[str, ServeState]]:
    """Address and state of a server without Kafka and Redis."""
    stop = asyncio.Event()
    state = state_over(Redis(), streams=100)
    chosen = ServeSettings(port=0, **settings)
    with bound_socket(chosen) as listening:
        api = build_api(state, chosen)
        serving = asyncio.create_task(serve_app(api, listening, stop, closing=state.hub.close))
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", state
        stop.set()
        await serving


def say(state: ServeState, number: int) -> None:
    state.signal(CryptoSignal.model_validate(full_signal(number, now(), text=f"말 {number}")), live=True)


async def see(page: Page, visibility: str) -> None:
    await page.evaluate(
        """(state) => {
          for (const [name, value] of [["visibilityState", state], ["hidden", state === "hidden"]])
            Object.defineProperty(document, name, { value, configurable: true });
          document.dispatchEvent(new Event("visibilitychange"));
        }""",
        visibility,
    )


async def test_windows_of_a_browser_share_one_stream(browser: Browser) -> None:
    async with server() as (address, state), page_of(browser, locale="ko-KR") as first:
        pages = [first, *[await first.context.new_page() for _ in range(WINDOWS - 1)]]
        for page in pages:
            await page.goto(address, timeout=SECONDS)
        for page in pages:
            await expect(page.locator("#status")).to_have_text("실시간", timeout=SECONDS)
            await expect(page.locator("#view")).to_contain_text("아직 집계된 신호가 없습니다")
        assert len(state.hub) == 1
        await pages[1].select_option("#filter-action", "sell")
        say(state, 1)
        for page in (*pages[:1], *pages[2:]):
            await expect(page.locator("#feed .message-text")).to_have_text(["말 1"], timeout=SECONDS)
        await first.close()  # it had the stream
        await eventually(lambda: len(state.hub) == 1, what="another window has it")
        await expect(pages[2].locator("#status")).to_have_text("실시간")
        say(state, 2)
        for page in pages[2:]:
            await expect(page.locator("#feed .message-text")).to_have_text(["말 2", "말 1"], timeout=SECONDS)
        await expect(pages[1].locator("#feed .message-text")).to_have_count(0)


@pytest.mark.parametrize("locks", [True, False])
async def test_a_hidden_page_lets_its_stream_go(browser: Browser, locks: bool) -> None:
    """Without locks, as over plain HTTP beyond this machine, each window has a stream of its own."""
    async with server() as (address, state), page_of(browser, locale="ko-KR") as page:
        if not locks:
            await page.add_init_script("Object.defineProperty(navigator, 'locks', { value: undefined })")
        await page.clock.install()
        await page.goto(address)
        status, text = page.locator("#status"), page.locator("#feed .message-text")
        await expect(status).to_have_text("실시간")
        await see(page, "hidden")
        await page.clock.run_for(4_000)
        assert len(state.hub) == 1  # a glance at another window costs nothing
        await page.clock.run_for(2_000)
        await eventually(lambda: len(state.hub) == 0, what="the stream ends")
        say(state, 1)
        await expect(status).to_have_text("실시간")
        await expect(text).to_have_count(0)
        await see(page, "visible")
        await expect(text).to_have_text(["말 1"], timeout=SECONDS)
        await expect(status).to_have_text("실시간")
        assert len(state.hub) == 1

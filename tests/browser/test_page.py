"""The page in a real headless Chromium, over a live server.

``KBERT_SCREENSHOTS=worker/serve/screenshots pytest tests/browser`` makes the pictures of the README.
"""

import asyncio
import math
import os
import tempfile
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from tests.browser.pages import SECONDS, needs_chromium, page_of
from tests.fake_traffic import signal
from tests.serving import INJECTION, full_signal, now, send, serve_settings, serving, week_of_signals
from worker.aggregates.store import RedisStore
from worker.narrative.project import NarrativeProjector
from worker.settings import Settings

SCREENSHOTS = Path(os.environ.get("KBERT_SCREENSHOTS") or tempfile.mkdtemp(prefix="kbert-screenshots-"))

pytestmark = needs_chromium


@pytest.fixture
async def settings(kafka: Any, topics: Any, redis_url: str, redis_prefix: str) -> Settings:
    return await serve_settings(kafka, topics, redis_url, redis_prefix)


async def test_board_alerts_coin_window_and_language(settings: Settings, browser: Browser) -> None:
    await send(settings, *week_of_signals(now(), 24_000))
    texts = ("페페 다 던졌다 더 빠질 듯", "페페 고래 또 매도 떴네 도망쳐", "페페 왜 이럼 손절합니다")
    fear = {"sentiment_strength": "strong_neg", "action_signal": "sell", "emotions": ["fear"]}
    surge = [
        full_signal(
            50_000 + n, now() - timedelta(seconds=50 * (60 - n)), ("PEPE",), text=texts[n % 3], **fear
        )
        for n in range(60)
    ]
    await send(settings, *surge)
    async with (
        serving(settings) as address,
        page_of(browser, locale="ko-KR", color_scheme="dark") as page,
    ):
        await page.goto(address)
        bitcoin = page.locator('tr[data-symbol="BTC"]')
        await expect(bitcoin).to_contain_text("비트코인", timeout=60_000)
        await expect(page.locator("#status")).to_have_text("실시간")
        await expect(page.locator(".alert", has_text="페페").first).to_be_visible(timeout=60_000)
        await expect(page.locator("#feed .message").nth(10)).to_be_visible(timeout=SECONDS)
        await page.fill("#search", "비트")
        await expect(page.locator("tbody tr")).to_have_count(1)
        await page.fill("#search", "")
        await page.locator("#search").blur()
        await page.screenshot(path=await _ready(page, "board-ko.png"))

        # A coin, by keyboard alone; then another window, another language and light.
        await bitcoin.locator("a").focus()
        await page.keyboard.press("Enter")
        await expect(page.locator(".coin h1")).to_contain_text("비트코인")
        await expect(page.locator(".coin canvas")).to_have_count(4, timeout=SECONDS)
        await page.click("#windows label:nth-of-type(5)")
        await expect(page.locator(".fresh")).to_contain_text("4시간", timeout=SECONDS)
        await page.click("#language")
        await expect(page.locator(".coin h1")).to_contain_text("Bitcoin")
        await expect(page.locator("html")).to_have_attribute("lang", "en")
        await expect(page.locator(".coin .panel h2").first).to_have_text("Sentiment index and volume")
        await page.set_viewport_size({"width": 1440, "height": 1080})
        await page.mouse.move(700, 420)
        await page.screenshot(path=await _ready(page, "coin-en.png"))
        await page.click("#theme")
        await expect(page.locator("html")).to_have_attribute("data-theme", "light")
        await page.goto(f"{address}/#/coin/XRP")
        await expect(page.locator(".coin h1")).to_contain_text("XRP", timeout=SECONDS)
    for name in ("board-ko.png", "coin-en.png"):
        assert (SCREENSHOTS / name).stat().st_size < 300_000


async def test_the_feed_is_live_and_filtered_and_text_stays_text(
    settings: Settings, browser: Browser
) -> None:
    async with serving(settings) as address, page_of(browser, locale="ko-KR") as page:
        await page.goto(address)
        await expect(page.locator("#status")).to_have_text("실시간", timeout=SECONDS)
        hostile = {"source": INJECTION, "text": INJECTION}
        await send(settings, full_signal(1, now(), ("BTC", "<b>X</b>"), **hostile))
        text = page.locator("#feed .message-text").first
        await expect(text).to_have_text(INJECTION, timeout=SECONDS)
        await expect(page.locator("#feed .chip").nth(1)).to_have_text("<b>X</b>")
        await page.goto(f"{address}/#/coin/BTC")
        await expect(page.locator(".coin .message-text").first).to_have_text(INJECTION, timeout=SECONDS)
        assert await page.evaluate("window.pwned") is None
        assert await page.locator("main img, main script, main b b").count() == 0

        await send(settings, *(full_signal(10 + n, now(), ("ETH",), text=f"이더 {n}") for n in range(3)))
        await page.fill("#filter-coin", "eth")
        await page.select_option("#filter-action", "buy")
        await page.fill("#filter-certainty", "0.5")
        await expect(page.locator("#feed .message")).to_have_count(3, timeout=SECONDS)
        await send(
            settings,
            full_signal(20, now(), ("BTC",)),
            full_signal(21, now(), ("ETH",), certainty=0.4),
            full_signal(22, now(), ("ETH",), action_signal="sell"),
            full_signal(23, now(), ("ETH",), text="새 이더"),
        )
        await expect(page.locator("#feed .message")).to_have_count(4, timeout=SECONDS)
        await expect(page.locator("#feed .message-text").first).to_have_text("새 이더")
        await page.click("#feed button[type=reset]")
        await expect(page.locator("#feed .message")).to_have_count(8, timeout=SECONDS)
        await expect(page.locator("#feed output").first).to_have_text("≥ 0.00")


async def test_the_traffic_index_stands_where_articles_were_counted(
    settings: Settings, browser: Browser
) -> None:
    async with serving(settings, "serve") as address, page_of(browser, locale="ko-KR") as page:
        await page.goto(f"{address}/#/narrative")
        await expect(page.locator("#view")).to_contain_text("아직 집계된 기사가 없습니다", timeout=SECONDS)
        await expect(page.locator("#narrative")).to_be_hidden()
        await _count_articles(settings)
        await page.goto(address)
        await page.reload()
        await page.click("#narrative")
        await expect(page.locator("#view canvas")).to_have_count(1, timeout=SECONDS)
        await expect(page.locator(".months tbody tr")).to_have_count(24)
        await expect(page.locator(".u-legend .u-value").first).to_have_text("2024-12")
        await expect(page.locator(".months tbody tr").first).to_contain_text("2024-12")
        await page.click("#language")
        await expect(page.locator("#view h1")).to_have_text("Traffic narrative index")
        await page.set_viewport_size({"width": 1440, "height": 900})
        await page.screenshot(path=await _ready(page, "narrative-en.png"))
        await page.click(".brand")
        await expect(page.locator("#search")).to_be_visible()


async def _count_articles(settings: Settings) -> None:
    """Ten years of articles with a share of negative ones that rises and falls, the 37th month empty."""
    signals: list[tuple[int, dict[str, Any]]] = []
    for month in (m for m in range(120) if m != 36):
        time = f"{2015 + month // 12}-{month % 12 + 1:02d}-10T00:00:00Z"
        for n in range(articles := 20 + month * 7 % 13):
            label = int(n < articles * (0.35 + 0.2 * math.sin(month / 9)))
            one = signal(len(signals), time, label=label, probability=0.1 + 0.8 * label, source="wire")
            signals.append((len(signals), one))
    async with RedisStore(settings.redis.url.get_secret_value()) as store:
        projector = NarrativeProjector(store, prefix=settings.redis.prefix)
        await projector.apply({("signals.traffic", 0): signals})


@pytest.fixture(autouse=True, scope="module")
def _screenshots() -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)


async def _ready(page: Page, name: str) -> Path:
    """Where a screenshot goes, once two frames have been drawn."""
    await page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return SCREENSHOTS / name


async def test_it_comes_back_by_itself_after_a_restart(settings: Settings, browser: Browser) -> None:
    # The browser itself reports each refused connection on the console.
    async with AsyncExitStack() as stack:
        page = await stack.enter_async_context(
            page_of(browser, locale="en-US", allowed="Failed to load resource|ERR_")
        )
        async with serving(settings) as address:
            await page.goto(address)
            await expect(page.locator("#view")).to_contain_text("No signals yet", timeout=SECONDS)
            await expect(page.locator("#view")).to_contain_text("kbert demo")
            await expect(page.locator("#status")).to_have_text("Live")
        await expect(page.locator("#banner")).to_contain_text("kbert serve", timeout=SECONDS)
        await expect(page.locator("#status")).to_have_text("Disconnected")
        async with serving(settings):
            await expect(page.locator("#banner")).to_be_hidden(timeout=SECONDS)
            await expect(page.locator("#status")).to_have_text("Live")
            await send(settings, full_signal(1, now(), ("SOL",), text="솔라나 복귀"))
            await expect(page.locator("#feed")).to_contain_text("솔라나 복귀", timeout=SECONDS)
            await expect(page.locator('tr[data-symbol="SOL"]')).to_contain_text("Solana", timeout=SECONDS)


async def test_a_phone_needs_no_sideways_scrolling(settings: Settings, browser: Browser) -> None:
    await send(settings, *(full_signal(n, now(), ("BTC",), text="가나다" * 60) for n in range(5)))
    await _count_articles(settings)
    async with (
        serving(settings) as address,
        page_of(browser, locale="ko-KR", viewport={"width": 360, "height": 740}) as page,
    ):
        await page.goto(address)
        await expect(page.locator('tr[data-symbol="BTC"]')).to_be_visible(timeout=60_000)
        for place in ("#/", "#/coin/BTC", "#/narrative"):
            await page.goto(f"{address}/{place}")
            await asyncio.gather(
                expect(page.locator("#feed .message").first).to_be_visible(timeout=SECONDS),
                expect(page.locator("#view .panel").first).to_be_visible(timeout=SECONDS),
            )
            if place == "#/narrative":
                await expect(page.locator(".months tbody tr")).to_have_count(24, timeout=SECONDS)
            assert await page.evaluate("document.documentElement.scrollWidth") <= 360
            tables = "[...document.querySelectorAll('table')]"
            fits = "every(table => table.scrollWidth <= table.parentElement.clientWidth)"
            assert await page.evaluate(f"{tables}.{fits}")


async def test_the_token_is_asked_for_on_the_page(settings: Settings, browser: Browser) -> None:
    token = "a-token-of-the-tests-0123"
    serve = settings.serve.model_validate(settings.serve.model_dump() | {"token": token})
    async with (
        serving(settings.model_copy(update={"serve": serve})) as address,
        page_of(browser, locale="en-US", allowed="401") as page,
    ):
        await page.goto(address)
        field = page.locator("#token-field")
        await expect(field).to_be_visible()
        await expect(page.locator("#banner")).to_be_hidden()
        await field.fill("비밀토큰은열여섯글자이상이어야함")
        await page.click("#token button")
        assert await field.evaluate("field => field.validationMessage") == "The token is wrong."
        assert await page.evaluate("sessionStorage.length") == 0
        await field.fill("some-other-token-0123")
        await page.click("#token button")
        await expect(page.locator("#banner")).to_have_text("The token is wrong.")
        await expect(field).to_be_visible()
        await field.fill(token)
        await page.click("#token button")
        await expect(page.locator("#status")).to_have_text("Live", timeout=SECONDS)
        await expect(page.locator("#token")).to_be_hidden()
        await expect(page.locator("#banner")).to_be_hidden()

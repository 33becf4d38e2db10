"""The page alone, over answers that the tests hold back, refuse or never give."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.async_api import Browser, Page, Route, expect

from schemas.aggregates import WindowMetrics
from schemas.labels import ACTIONS, EMOTIONS
from schemas.windows import MARKET, WINDOW_SECONDS
from tests.browser.pages import needs_chromium, page_of
from tests.serving import full_signal, now
from tests.waiting import eventually
from worker.serve.api import PAGE

pytestmark = needs_chromium

ADDRESS = "http://page.test"
STREAM = """
const real = window.fetch;
window.fetch = (path, options) => String(path).startsWith("/v1/stream") ?
  Promise.resolve(new Response(new ReadableStream(), { status: %d })) : real(path, options);
"""
SEEN = "document.dispatchEvent(new Event('visibilitychange'))"
DRAWN = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"

Query = dict[str, str]
Answer = tuple[int, Any]
Answering = Callable[[str, Query], Awaitable[Answer]]


def metrics(messages: int) -> dict[str, Any]:
    values = dict.fromkeys(WindowMetrics.model_fields, None)
    counts = {"action": dict.fromkeys(ACTIONS, 0), "emotion": dict.fromkeys(EMOTIONS, 0)}
    return values | counts | {"messages": messages, "unique_authors": messages}


def board(messages: int, window: str = "1h") -> Answer:
    spark = {"step": 60, "messages": [], "sentiment_index": []}
    names = {MARKET: "시장 전체", "BTC": "비트코인", "ETH": "이더리움"}
    english = {MARKET: "Whole market", "BTC": "Bitcoin", "ETH": "Ethereum"}
    row = {"freshness": 1.0, "metrics": metrics(messages), "spark": spark}
    coins = [{"symbol": s, "korean": k, "english": english[s]} | row for s, k in names.items()]
    return 200, {"window": window, "coins": coins}


def of_coin(path: str, symbol: str) -> Answer:
    if path.endswith("/series"):
        return 200, {"window": "1h", "times": [], "values": {"messages": []}}
    windows = {window: metrics(3) for window in WINDOW_SECONDS}
    return 200, {
        "symbol": symbol,
        "korean": "새 코인",
        "english": "New",
        "freshness": 1.0,
        "windows": windows,
    }


async def usual(path: str, query: Query) -> Answer:
    if path == "coins":
        return board(1, query["window"])
    if path.startswith("coins/"):
        return of_coin(path, path.split("/")[1])
    return 200, {"signals": [], "months": []}


@asynccontextmanager
async def alone(
    browser: Browser, answer: Answering, place: str = "", stream: int = 200, **options: Any
) -> AsyncIterator[Page]:
    """The page with its own files, and `answer` in the place of the API; its stream is silent, or refused."""

    async def serve(route: Route) -> None:
        url = urlsplit(route.request.url)
        if not url.path.startswith("/v1/"):
            await route.fulfill(path=PAGE / (url.path[1:] or "index.html"))
            return
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        status, body = await answer(url.path.removeprefix("/v1/"), query)
        await route.fulfill(status=status, body=json.dumps(body), content_type="application/json")

    async with page_of(browser, locale="ko-KR", **options) as page:
        await page.add_init_script(STREAM % stream)
        await page.route("**/*", serve)
        await page.goto(f"{ADDRESS}/{place}")
        await expect(page.locator("#status")).to_have_text("실시간" if stream == 200 else "실시간 아님")
        yield page


def messages(page: Page) -> Any:
    return page.locator('tr[data-symbol="BTC"] .c4')


@pytest.mark.parametrize("of", ["window", "sort"])
async def test_a_late_board_is_not_shown(browser: Browser, of: str) -> None:
    release = asyncio.Event()
    late = {"window": "7d", "sort": "symbol"}[of]

    async def answer(path: str, query: Query) -> Answer:
        if path != "coins":
            return await usual(path, query)
        if query[of] == late:
            await release.wait()
            return board(7)
        return board(4 if (query["window"], query["sort"]) == ("4h", "volume") else 1)

    async def choose(name: str) -> None:
        if of == "window":
            await page.evaluate(f"document.querySelector('input[value=\"{name}\"]').click()")
        else:
            await page.click(f"thead .c{0 if name == 'symbol' else 4} button")

    async with alone(browser, answer) as page:
        await expect(messages(page)).to_have_text("1")
        asked = f"**/v1/coins?*{of}={late}*"
        async with page.expect_request(asked):
            await choose(late)
        async with page.expect_response(asked) as held:
            async with page.expect_response(lambda r: "/v1/coins?" in r.url and late not in r.url):
                await choose("4h" if of == "window" else "volume")
            shown = "4" if of == "window" else "1"
            await expect(messages(page)).to_have_text(shown)
            release.set()
        await (await held.value).finished()
        await page.evaluate(DRAWN)
        await expect(messages(page)).to_have_text(shown)


async def test_late_signals_of_another_filter_are_not_shown(browser: Browser) -> None:
    release = asyncio.Event()

    async def answer(path: str, query: Query) -> Answer:
        if path != "signals/recent":
            return await usual(path, query)
        sentiment = query.get("sentiment", "neutral")
        if sentiment == "strong_neg":
            await release.wait()
        return 200, {
            "signals": [full_signal(len(sentiment), now(), text=sentiment, sentiment_strength=sentiment)]
        }

    async with alone(browser, answer) as page:
        text = page.locator("#feed .message-text")
        await expect(text).to_have_text("neutral")
        async with page.expect_request("**/recent?*strong_neg*"):
            await page.select_option("#filter-sentiment", "strong_neg")
        async with page.expect_response("**/recent?*strong_neg*") as held:
            await page.select_option("#filter-sentiment", "weak_pos")
            await expect(text).to_have_text("weak_pos")
            release.set()
        await (await held.value).finished()
        await page.evaluate(DRAWN)
        await expect(text).to_have_text(["weak_pos"])


async def test_a_coin_is_filtered_by_its_names_and_others_are_refused(browser: Browser) -> None:
    async with alone(browser, usual) as page:
        await expect(messages(page)).to_have_text("1")
        field = page.locator("#filter-coin")
        for name, symbol in (("이더리움", "ETH"), ("bitcoin", "BTC"), ("zzq", "ZZQ")):
            async with page.expect_request(f"**/recent?coin={symbol}&*"):
                await field.fill(name)
            assert await field.evaluate("field => field.validationMessage") == ""
        async with page.expect_request(lambda request: "/recent?limit=80" in request.url):
            await field.fill("없는 코인")
        assert await field.evaluate("field => field.validationMessage") == "이 이름의 코인이 없습니다"


async def test_a_coin_that_appears_is_shown(browser: Browser) -> None:
    known = False

    async def answer(path: str, query: Query) -> Answer:
        if path.startswith("coins/") and not known:
            return 404, {}
        return await usual(path, query)

    async with alone(browser, answer, "#/coin/ZZQ", allowed="404") as page:
        await expect(page.locator("#view")).to_contain_text("이 이름의 코인이 없습니다: ZZQ")
        known = True
        await page.evaluate("document.querySelector('input[value=\"7d\"]').click()")
        await expect(page.locator(".coin h1")).to_contain_text("새 코인")
        await expect(page.locator("#view")).not_to_contain_text("이 이름의 코인이 없습니다")
        await expect(page.locator(".coin .chart")).to_have_count(4)


async def test_a_series_that_is_not_kept_is_no_unknown_coin(browser: Browser) -> None:
    async def answer(path: str, query: Query) -> Answer:
        return (409, {}) if path.endswith("/series") else await usual(path, query)

    async with alone(browser, answer, "#/coin/ZZQ", allowed="409") as page:
        async with page.expect_response("**/series?*") as refused:
            await page.evaluate("document.querySelector('input[value=\"7d\"]').click()")
        await (await refused.value).finished()
        await page.evaluate(DRAWN)
        await expect(page.locator("#view")).not_to_contain_text("이 이름의 코인이 없습니다")


@pytest.mark.parametrize(
    ("status", "korean", "english"),
    [
        (0, "kbert serve의 로그", "the log of kbert serve"),
        (429, "serve.requests_per_second", "raise serve.requests_per_second"),
        (500, "kbert serve의 로그", "the log of kbert serve"),
        (503, "Redis를 확인하세요", "Check Redis"),
    ],
)
@pytest.mark.parametrize("of", ["coins", "signals/recent"])
async def test_a_read_that_fails_is_said_until_one_is_answered(
    browser: Browser, of: str, status: int, korean: str, english: str
) -> None:
    async def refuse(route: Route) -> None:
        await (route.fulfill(status=status) if status else route.abort())

    async with alone(browser, usual, allowed="Failed to load resource") as page:
        banner = page.locator("#banner")
        await expect(messages(page)).to_have_text("1")
        await expect(banner).to_be_hidden()
        await page.route(f"**/v1/{of}?*", refuse)
        await page.evaluate("document.querySelector('input[value=\"7d\"]').click()")
        await page.select_option("#filter-sentiment", "strong_neg")
        await expect(banner).to_contain_text(korean)
        await expect(page.locator("#status")).to_have_text("실시간")
        await page.click("#language")
        await expect(banner).to_contain_text(english)
        await page.unroute(f"**/v1/{of}?*")
        await page.evaluate("document.querySelector('input[value=\"1h\"]').click()")
        await expect(banner).to_be_hidden()


async def test_a_coin_that_is_young_is_asked_for_by_the_clock_of_the_server(browser: Browser) -> None:
    asked: list[str] = []

    async def answer(path: str, query: Query) -> Answer:
        if not path.endswith("/series"):
            return await usual(path, query)
        asked.extend([query["from"]] if "from" in query else [])
        times = [f"2020-01-01T00:{minute:02}:00Z" for minute in range(30)]
        return 200, {"window": "1h", "times": times, "values": {"messages": [0] * 28 + [1, 1]}}

    async with alone(browser, answer, "#/coin/ZZQ") as page:
        await expect(page.locator(".coin h1")).to_contain_text("새 코인")
    assert set(asked) == {"2020-01-01T00:19:00.000Z"}


async def test_an_address_that_is_cut_off_shows_the_board(browser: Browser) -> None:
    async with alone(browser, usual, "#/coin/%E0%A4") as page:
        await expect(messages(page)).to_have_text("1")


async def test_only_a_pointer_keeps_a_chart_as_it_is(browser: Browser) -> None:
    """On a phone `:hover` stays after a tap."""
    script = """async (pointer) => {
      const { CoinView } = await import("/coin.js");
      const view = new CoinView("BTC");
      let drawn = 0;
      view.charts = [{ destroy() { drawn += 1; } }];
      view.drawn = "1h";
      view.node = { querySelector: () => view.parts[0] };
      window.matchMedia = () => ({ matches: pointer });
      view.draw({ window: "1h", values: { messages: [] } });
      return drawn;
    }"""
    async with alone(browser, usual) as page:
        assert [await page.evaluate(script, pointer) for pointer in (True, False)] == [0, 1]


async def test_an_answer_that_never_ends_is_given_up(browser: Browser) -> None:
    script = """async (begun) => {
      const { get } = await import("/api.js");
      const waits = [];
      AbortSignal.timeout = (wait) => { waits.push(wait); return AbortSignal.any([over.signal]); };
      const over = new AbortController();
      window.fetch = (path, { signal }) => {
        const end = new Promise((_, refuse) => signal.addEventListener("abort", () => refuse(signal.reason)));
        setTimeout(() => over.abort());
        return begun ? Promise.resolve(new Response(new ReadableStream({ pull: () => end }))) : end;
      };
      const status = await get("coins").catch((error) => error.status);
      return [status, waits[0] < 60000];
    }"""
    async with alone(browser, usual) as page, asyncio.timeout(60):
        assert [await page.evaluate(script, begun) for begun in (False, True)] == [[0, True]] * 2


@pytest.mark.parametrize("status", [429, 503])
async def test_without_a_stream_the_board_is_read_all_the_same(browser: Browser, status: int) -> None:
    async with alone(browser, usual, stream=status) as page:
        banner = page.locator("#banner")
        await expect(messages(page)).to_have_text("1")
        for _ in range(2):
            await expect(banner).to_contain_text(
                re.compile(r"serve\.max_streams_per_client.* serve\.max_streams\b")
            )
            await page.click("#language")
        async with page.expect_request("**/v1/coins?*"), page.expect_request("**/recent?*"):
            pass
        await expect(banner).not_to_contain_text("kbert serve")


async def test_a_proxy_that_reaches_no_server_is_no_limit_of_streams(browser: Browser) -> None:
    async def answer(path: str, query: Query) -> Answer:
        return 503, {}

    async with alone(browser, answer, stream=503, allowed="503") as page:
        await expect(page.locator("#banner")).to_contain_text("kbert serve가 실행 중인지")


async def test_a_click_that_takes_its_time_is_not_lost(browser: Browser) -> None:
    read = 0

    async def answer(path: str, query: Query) -> Answer:
        nonlocal read
        read += path == "coins"
        return board(read) if path == "coins" else await usual(path, query)

    async with alone(browser, answer) as page:
        await expect(messages(page)).not_to_have_text("")
        await page.evaluate(
            """() => {
              const wait = window.setTimeout;
              window.setTimeout = (call, time) => (time === 2000 ? 0 : wait(call, time)); // a press may last
            }"""
        )
        await messages(page).hover()
        await page.mouse.down()
        shown = await messages(page).text_content()
        async with page.expect_response("**/v1/coins?*") as new:
            await page.evaluate(SEEN)
        await (await new.value).finished()
        await page.evaluate(DRAWN)
        assert await messages(page).text_content() == shown
        await page.mouse.up()
        await expect(page.locator(".coin h1")).to_contain_text("새 코인")


async def test_a_keyboard_keeps_its_place(browser: Browser) -> None:
    script = """async () => {
      const { renew } = await import("/dom.js");
      const make = (tag) => document.createElement(tag);
      const [list, first, second, third] = ["ul", "button", "button", "button"].map(make);
      document.body.append(list);
      renew(list, [second, third]);
      third.focus();
      renew(list, [first, second, third]);
      renew(list, [first, third]);
      return [document.activeElement === third, list.children.length];
    }"""
    async with alone(browser, usual, "#/coin/ZZQ") as page:
        await expect(page.locator(".coin h1")).to_contain_text("새 코인")
        await page.focus(".skip")
        await page.keyboard.press("Enter")
        await expect(page.locator("#main")).to_be_focused()
        await expect(page.locator(".coin h1")).to_contain_text("새 코인")
        await page.click(".brand")
        await page.focus("thead .c0 button")
        await page.keyboard.press("Enter")
        await expect(page.locator("thead .c0 button")).to_be_focused()
        assert await page.evaluate(script) == [True, 2]


async def test_a_week_has_no_band_to_wait_for(browser: Browser) -> None:
    async with alone(browser, usual) as page:
        await expect(page.locator(".alerts")).to_contain_text("24시간의 기록")
        await page.evaluate("document.querySelector('input[value=\"7d\"]').click()")
        await expect(page.locator(".alerts")).to_contain_text("7일 창에는")
        await page.click("#language")
        await expect(page.locator(".alerts")).to_contain_text("A window of 7 days")


async def test_the_page_of_a_coin_knows_the_names_of_the_others(browser: Browser) -> None:
    asked: list[str] = []

    async def answer(path: str, query: Query) -> Answer:
        asked.append(path)
        return await usual(path, query)

    async with alone(browser, answer, "#/coin/ZZQ") as page:
        await eventually(lambda: "coins" in asked, what="the board")
        await page.wait_for_load_state("networkidle")
        async with page.expect_request("**/recent?coin=ETH&*"):
            await page.fill("#filter-coin", "이더리움")


async def test_the_month_that_runs_is_marked(browser: Browser) -> None:
    seoul = now() + timedelta(hours=9)
    names = [f"{seoul - timedelta(days=seoul.day):%Y-%m}", f"{seoul:%Y-%m}"]
    fields = {"articles": 9, "negatives": 3, "share": 0.3, "share_low": 0.1, "share_high": 0.6}

    async def answer(path: str, query: Query) -> Answer:
        months = [{"month": name, "standardised": None} | fields for name in names]
        return 200, {"signals": [], "months": months} | board(1)[1]

    async with alone(browser, answer, "#/narrative") as page:
        rows = page.locator(".months tbody td:first-child")
        await expect(rows).to_have_text([f"{names[1]} (진행 중)", names[0]])
        await page.click("#language")
        await expect(rows).to_have_text([f"{names[1]} (so far)", names[0]])
        for place in (".numbers dd", ".u-legend .u-value"):
            await expect(page.locator(place).first).to_have_text(f"{names[1]} (so far)")


async def test_a_stream_without_headers_is_given_up(browser: Browser) -> None:
    script = """async () => {
      const { Stream } = await import("/api.js");
      const wait = window.setTimeout;
      window.setTimeout = (call, time) => wait(call, time === 15000 ? 0 : time);
      window.fetch = (path, { signal }) => new Promise((_, refuse) => {
        signal.addEventListener("abort", () => refuse(signal.reason));
      });
      return new Promise((done) => {
        const stream = new Stream({ onState: (state, why) => state === "lost" && done(why) });
        stream.open();
      });
    }"""
    async with alone(browser, usual) as page, asyncio.timeout(60):
        assert await page.evaluate(script) == "network"

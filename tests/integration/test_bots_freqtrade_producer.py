"""A stock freqtrade's ExternalMessageConsumer receives from ours."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from schemas.aggregates import Series
from tests.serving import full_signal
from tests.waiting import eventually
from worker.aggregates.project import Aggregator
from worker.aggregates.store import RedisStore
from worker.clients import Aggregates
from worker.clients.bots.freqtrade_producer import FreqtradeProducer
from worker.clients.bots.markets import Markets
from worker.coins import load_catalogue
from worker.commands.bot_freqtrade import run_freqtrade
from worker.embedded import EmbeddedRedis, free_port
from worker.errors import ConfigurationError
from worker.settings import BotSettings, FreqtradeSettings, RedisSettings, Settings

TOKEN = "a-token_of.freqtrade~"
PAIRS = ("BTC/KRW", "ETH/KRW")


def settings_for(redis_url: str, redis_prefix: str, **fields: Any) -> Settings:
    chosen = FreqtradeSettings(port=free_port(), ws_token=SecretStr(TOKEN), pairs=PAIRS, **fields)
    return Settings(
        _env_file=None,
        redis=RedisSettings(url=SecretStr(redis_url), prefix=redis_prefix),
        bot=BotSettings(freqtrade=chosen),
    )


@asynccontextmanager
async def producing(settings: Settings) -> AsyncIterator[str]:
    stop = asyncio.Event()
    work = asyncio.create_task(run_freqtrade(settings, stop))
    port = settings.bot.freqtrade.port

    async def listens() -> bool:
        if work.done():
            work.result()
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    try:
        await eventually(listens)
        yield f"ws://127.0.0.1:{port}/api/v1/message/ws?token="
    finally:
        stop.set()
        await work


async def write(redis_url: str, redis_prefix: str, *ages: timedelta, start: int = 0) -> None:
    now = datetime.now(UTC)
    signals = [full_signal(start + n, now - age, ("BTC",)) for n, age in enumerate(ages)]
    async with RedisStore(redis_url) as store:
        aggregator = Aggregator(store, prefix=redis_prefix)
        await aggregator.apply({("signals", 0): list(enumerate(signals, start))})


@asynccontextmanager
async def consumer(port: int, timeframe: str) -> AsyncIterator[Any]:
    """freqtrade's own consumer and data provider, as its bot starts them; gives the data provider."""
    pytest.importorskip("freqtrade", reason="freqtrade needs Python 3.11 or newer and its wheels")
    from freqtrade.data.dataprovider import DataProvider
    from freqtrade.enums import CandleType, RunMode
    from freqtrade.rpc.external_message_consumer import ExternalMessageConsumer

    producer = {"name": "kbert", "host": "127.0.0.1", "port": port, "ws_token": TOKEN}
    config = {
        "runmode": RunMode.DRY_RUN,
        "timeframe": timeframe,
        "candle_type_def": CandleType.SPOT,
        "exchange": {"pair_whitelist": list(PAIRS)},
        "external_message_consumer": {"enabled": True, "producers": [producer], "sleep_time": 0.2},
    }
    provider = DataProvider(config, None)
    consuming = ExternalMessageConsumer(config, provider)
    loop, thread = consuming._loop, consuming._thread
    try:
        yield provider
    finally:
        await asyncio.to_thread(consuming.shutdown)  # it shakes hands with our server: not on our loop
        loop.call_soon_threadsafe(loop.stop)  # its own stop can come too early, and the thread never ends
        await asyncio.to_thread(thread.join, 20)


async def test_a_stock_freqtrade_has_the_pairs_and_the_candles(redis_url: str, redis_prefix: str) -> None:
    ages = [timedelta(minutes=7 * n + 20) for n in range(100)]
    await write(redis_url, redis_prefix, *ages)
    settings = settings_for(redis_url, redis_prefix)
    async with producing(settings):
        async with consumer(settings.bot.freqtrade.port, "5m") as provider:
            await eventually(
                lambda: provider.get_producer_pairs("kbert") == list(PAIRS), timeout=60, what="pairs"
            )

            def frame() -> Any:
                return provider.get_producer_df("BTC/KRW", producer_name="kbert")[0]

            await eventually(lambda: len(frame()) == 1_500, timeout=60, what="candles")

            def analysed() -> datetime:
                moment: datetime = provider.get_producer_df("ETH/KRW", producer_name="kbert")[1]
                return moment

            await eventually(lambda: analysed().year > 1970, timeout=60, what="the other coin")
            assert abs((datetime.now(UTC) - analysed()).total_seconds()) < 60
        candles = frame()
    assert list(candles.columns) == [
        "date", "kbert_sentiment_index", "kbert_messages", "kbert_action_balance",
    ]  # fmt: skip
    opens = candles["date"]
    assert opens.dt.tz is not None
    assert set(opens.diff().dropna()) == {timedelta(minutes=5)}
    closed = datetime.now(UTC).timestamp() // 300 * 300
    assert opens.iloc[-1].timestamp() in (closed - 300, closed - 600)
    # Each row is the window that was over a minute before its candle closed.
    async with Aggregates(redis_url, redis_prefix) as aggregates:
        since = opens.iloc[-100].to_pydatetime() + timedelta(minutes=4)
        until = opens.iloc[-1].to_pydatetime() + timedelta(minutes=4)
        series: Series = await aggregates.series("BTC", ["messages"], "1h", since=since, until=until, step=60)
    expected = dict(zip(series.times, series.values["messages"], strict=True))
    got = {
        at.to_pydatetime() + timedelta(minutes=4): count
        for at, count in zip(opens[-100:], candles["kbert_messages"][-100:], strict=True)
    }
    assert got == {at: expected[at] for at in got}
    assert max(got.values()) > 0
    # As a strategy joins them, with a candle of the exchange that ours has not reached yet.
    own = opens.dt.as_unit("ms").to_frame()
    own.loc[len(own)] = [opens.iloc[-1] + timedelta(minutes=5)]
    joined = own.merge(candles, on="date", how="left")
    assert len(joined) == len(candles) + 1
    assert list(joined["kbert_messages"][:-1]) == list(candles["kbert_messages"])
    assert joined["kbert_messages"].isna().iloc[-1]


async def test_new_candles_come_by_themselves(redis_url: str, redis_prefix: str, tick: list[float]) -> None:
    settings = settings_for(redis_url, redis_prefix, timeframe="1m", delay=0)
    async with producing(settings), consumer(settings.bot.freqtrade.port, "1m") as provider:

        def frame() -> Any:
            return provider.get_producer_df("BTC/KRW", producer_name="kbert")[0]

        await eventually(lambda: len(frame()) == 1_500, timeout=60, what="candles")
        last = frame()["date"].iloc[-1]
        tick[0] += 60
        await eventually(
            lambda: frame()["date"].iloc[-1] == last + timedelta(minutes=1), timeout=60, what="the next"
        )
        began, reached = tick[0], frame()["date"].iloc[-1]

        def gap_filled() -> bool:
            """freqtrade asks for what is missing; what it asks in its first seconds it may forget to send."""
            moved = timedelta(seconds=tick[0] - began)
            if moved and frame()["date"].iloc[-1] == reached + moved:
                return True
            tick[0] += 120  # as after an outage
            return False

        await eventually(gap_filled, timeout=60, interval=2.0, what="the gap")
        assert set(frame()["date"].diff().dropna()) == {timedelta(minutes=1)}


@pytest.fixture
def tick(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock of the producer that a test moves on; its waits for a close end when it has moved."""
    import time as real

    clock = [real.time()]
    told = [clock[0]]

    class Clock:
        @staticmethod
        def time() -> float:
            return clock[0]

    async def until_moved(seconds: float) -> None:
        await eventually(lambda: clock[0] >= told[0] + 60, timeout=120)
        told[0] = clock[0]

    monkeypatch.setattr("worker.clients.bots.freqtrade_producer.time", Clock)
    monkeypatch.setattr("worker.aggregates.series.time", Clock)
    monkeypatch.setattr("worker.clients.bots.freqtrade_producer._sleep", until_moved)
    return clock


async def test_requests_as_freqtrade_writes_them(redis_url: str, redis_prefix: str) -> None:
    settings = settings_for(redis_url, redis_prefix)
    async with producing(settings) as address, connect(address + TOKEN, max_size=None) as socket:

        async def ask(request: Any) -> Any:
            await socket.send(request if isinstance(request, str) else json.dumps(request))
            async with asyncio.timeout(20):
                return json.loads(await socket.recv())

        for nonsense in ("{", "[]", '{"type": "nothing"}', '{"type": "analyzed_df", "data": {"limit": "x"}}'):
            await socket.send(nonsense)
        await socket.send('{"type": "analyzed_df", "data": {"pair": "DOGE/KRW"}}')
        assert await ask({"type": "whitelist", "data": None}) == {"type": "whitelist", "data": list(PAIRS)}
        answer = await ask({"type": "analyzed_df", "data": {"limit": 3, "pair": "ETH/KRW"}})
        assert answer["data"]["key"] == ["ETH/KRW", "5m", "spot"]
        frame = json.loads(answer["data"]["df"]["__value__"])
        assert len(frame["data"]) == 3
        assert {len(row) for row in frame["data"]} == {len(frame["columns"])}


@pytest.mark.parametrize("timeframe", ["1w", "1d"])
async def test_candles_open_when_those_of_exchanges_do(
    redis_url: str, redis_prefix: str, monkeypatch: pytest.MonkeyPatch, timeframe: str
) -> None:
    """Weeks were counted from 1970-01-01, a Thursday: no candle of an exchange had a row."""
    closes: list[float] = []

    async def until_the_close(seconds: float) -> None:
        closes.append(datetime.now(UTC).timestamp() + seconds)
        await asyncio.Event().wait()

    monkeypatch.setattr("worker.clients.bots.freqtrade_producer._sleep", until_the_close)
    settings = settings_for(redis_url, redis_prefix, timeframe=timeframe)
    async with producing(settings) as address, connect(address + TOKEN, max_size=None) as socket:
        await socket.send('{"type": "analyzed_df", "data": {"limit": 2, "pair": "BTC/KRW"}}')
        async with asyncio.timeout(20):
            answer = json.loads(await socket.recv())
    rows = json.loads(answer["data"]["df"]["__value__"])["data"]
    first, second = [datetime.fromtimestamp(row[0] / 1_000, UTC) for row in rows]
    assert (first.hour, first.minute, first.second) == (0, 0, 0)
    assert timeframe == "1d" or first.strftime("%A") == "Monday"
    length = second - first
    assert length == timedelta(days=7 if timeframe == "1w" else 1)
    assert second + length <= datetime.now(UTC) < second + 2 * length
    assert closes == [pytest.approx((second + 2 * length).timestamp(), abs=5)]


async def test_the_token_is_asked_for(redis_url: str, redis_prefix: str) -> None:
    async with producing(settings_for(redis_url, redis_prefix)) as address:
        for wrong in ("", "x" + TOKEN, "토큰"):
            with pytest.raises(InvalidStatus) as refused:
                await connect(address + wrong)
            assert refused.value.response.status_code == 403


async def test_without_redis_it_says_so_and_goes_on() -> None:
    async with EmbeddedRedis() as redis:
        settings = settings_for(redis.url, "kbert:")
        async with producing(settings) as address, connect(address + TOKEN, max_size=None) as socket:
            await redis.stop()
            await socket.send('{"type": "analyzed_df"}')
            async with asyncio.timeout(60):
                answer = json.loads(await socket.recv())
            assert answer == {"type": "exception", "data": "Error processing request"}
            await socket.send('{"type": "whitelist"}')
            assert json.loads(await socket.recv())["data"] == list(PAIRS)


async def test_a_stopping_producer_says_so(redis_url: str, redis_prefix: str) -> None:
    async with producing(settings_for(redis_url, redis_prefix)) as address:
        socket = await connect(address + TOKEN)
    with pytest.raises(ConnectionClosed) as closed:
        await asyncio.wait_for(socket.recv(), 20)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012


async def test_what_cannot_work_is_said_at_the_start(redis_url: str) -> None:
    markets = Markets(load_catalogue())
    async with Aggregates(redis_url) as aggregates:
        for fields, sentence in (
            ({}, r"bot\.freqtrade\.ws_token"),
            ({"ws_token": SecretStr("a token with spaces")}, r"bot\.freqtrade\.ws_token"),
            ({"ws_token": SecretStr(TOKEN), "pairs": ("NOSUCHCOIN/KRW",)}, "no coin"),
            ({"ws_token": SecretStr(TOKEN), "timeframe": "5 minutes"}, "5m, 1h or 1d"),
            ({"ws_token": SecretStr(TOKEN), "metrics": ("nothing",)}, "there are messages"),
        ):
            with pytest.raises(ConfigurationError, match=sentence):
                FreqtradeProducer(aggregates, markets, FreqtradeSettings(**fields))

"""The API over a real broker and a real Redis, with signals that the aggregation applied."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from schemas.aggregates import CoinAggregates
from schemas.signals import CryptoSignal
from schemas.windows import MARKET
from tests.serving import INJECTION, full_signal, now, send, serve_settings, serving, week_of_signals
from tests.waiting import eventually
from worker.embedded import EmbeddedRedis
from worker.settings import RedisSettings, Settings

TOKEN = "a-token-of-the-tests-0123"


@pytest.fixture
async def settings(kafka: Any, topics: Any, redis_url: str, redis_prefix: str) -> Settings:
    return await serve_settings(kafka, topics, redis_url, redis_prefix)


def with_serve(settings: Settings, **fields: Any) -> Settings:
    return settings.model_copy(update={"serve": settings.serve.model_copy(update=fields)})


@asynccontextmanager
async def client(address: str, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=address, timeout=20, **options) as opened:
        yield opened


async def board_of(http: httpx.AsyncClient, **query: str) -> dict[str, Any]:
    answer = await http.get("/v1/coins", params=query)
    assert answer.status_code == 200, answer.text
    return {coin["symbol"]: coin for coin in answer.json()["coins"]}


async def events(answer: httpx.Response) -> AsyncIterator[tuple[str, Any]]:
    kind = ""
    async for line in answer.aiter_lines():
        if line.startswith("event: "):
            kind = line[7:]
        elif line.startswith("data: ") and kind != "beat":
            yield kind, json.loads(line[6:])


async def next_event(
    source: AsyncIterator[tuple[str, Any]], wanted: Callable[[str, Any], bool]
) -> tuple[str, Any]:
    async with asyncio.timeout(30):
        async for kind, data in source:
            if wanted(kind, data):
                return kind, data
    raise AssertionError("the stream ended first")


async def test_board_coin_and_series_tell_the_same_numbers(settings: Settings) -> None:
    signals = week_of_signals(now(), 1_500)
    await send(settings, *signals)
    async with serving(settings) as address, client(address) as http:

        async def all_counted() -> bool:
            answer = await http.get("/v1/coins/BTC")
            counted = sum("BTC" in signal["coins"] for signal in signals)
            in_week = CoinAggregates.model_validate(answer.json()).windows["7d"].messages
            return in_week >= counted * 0.8 and bool((await board_of(http, window="7d")).get("TRX"))

        await eventually(all_counted, timeout=60, what="the aggregates")
        coin = (await http.get("/v1/coins/BTC")).json()
        assert (coin["korean"], coin["english"]) == ("비트코인", "Bitcoin")
        assert coin["windows"]["24h"]["zscore_volume"] is not None

        async def board_agrees() -> bool:
            row = (await board_of(http, window="7d"))["BTC"]
            return bool(row["metrics"]["messages"] == coin["windows"]["7d"]["messages"])

        await eventually(board_agrees, what="board and coin agree")
        for window in ("4h", "24h", "7d"):
            series = (
                await http.get(
                    "/v1/coins/BTC/series",
                    params={"window": window, "metric": ["messages", "sentiment_index", "action"]},
                )
            ).json()
            assert series["times"] == sorted(series["times"])
            assert {len(column) for column in series["values"].values()} == {len(series["times"])}
            if window != "24h":  # from hour buckets, whose first hour is whole where the window's is not
                assert series["values"]["messages"][-1] == coin["windows"][window]["messages"]
                assert series["values"]["sentiment_index"][-1] == coin["windows"][window]["sentiment_index"]
                assert series["values"]["action.buy"][-1] == coin["windows"][window]["action"]["buy"]
        by_index = list((await board_of(http, window="7d", sort="index")).values())
        assert by_index[0]["symbol"] == MARKET
        indices = [row["metrics"]["sentiment_index"] for row in by_index[1:]]
        assert indices == sorted(indices, reverse=True)


async def test_what_cannot_be_answered_is_said(settings: Settings) -> None:
    async with serving(settings) as address, client(address) as http:
        assert (await http.get("/v1/coins/NOSUCHCOIN")).status_code == 404
        assert (await http.get("/v1/coins/BTC")).json()["windows"]["1h"]["messages"] == 0
        assert (await http.get("/v1/coins", params={"window": "2h"})).status_code == 422
        refused = await http.get(
            "/v1/coins/BTC/series", params={"window": "1m", "from": (now() - timedelta(days=3)).isoformat()}
        )
        assert refused.status_code == 409
        assert "window of 1h or more" in refused.text
        assert (await http.get("/v1/signals/recent", params={"min_certainty": "nan"})).status_code == 422
        document = (await http.get("/v1/openapi.json")).json()
        assert {"/v1/coins", "/v1/coins/{symbol}/series", "/v1/stream", "/healthz"} <= set(document["paths"])
        assert "kbert_http_requests_total" in (await http.get("/metrics")).text


async def test_recent_signals_survive_a_restart_and_pass_the_filters(settings: Settings) -> None:
    await send(
        settings,
        full_signal(1, now() - timedelta(seconds=30)),
        full_signal(2, now() - timedelta(seconds=20), ("ETH",), action_signal="sell", certainty=0.3),
        full_signal(3, now() - timedelta(seconds=10), ("BTC", "ETH"), text=INJECTION),
    )
    async with serving(settings, "serve") as address, client(address) as http:

        async def recent(**query: Any) -> list[CryptoSignal]:
            answer = await http.get("/v1/signals/recent", params=query)
            return [CryptoSignal.model_validate(signal) for signal in answer.json()["signals"]]

        async def read_back() -> bool:
            return len(await recent()) == 3

        await eventually(read_back, what="signals of before the start")
        assert {signal.id for signal in await recent(coin="ETH")} == {"message-2", "message-3"}
        assert [signal.id for signal in await recent(action="sell")] == ["message-2"]
        assert await recent(emotion="fear") == []
        assert len(await recent(emotion=["fear", "hope"])) == 3
        assert {signal.id for signal in await recent(min_certainty=0.5)} == {"message-1", "message-3"}
        assert len(await recent(limit=1)) == 1
        answer = await http.get("/v1/signals/recent", params={"coin": "BTC"})
        assert INJECTION in [signal["text"] for signal in answer.json()["signals"]]
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_stream_and_websocket_give_new_signals_that_pass(settings: Settings) -> None:
    socket_address = f"ws://127.0.0.1:{settings.serve.port}/v1/ws?coin=ETH&event=signal"
    async with (
        serving(settings) as address,
        client(address) as http,
        http.stream("GET", "/v1/stream", params={"coin": "ETH", "min_relevance": 0.5}) as answer,
        connect(socket_address) as websocket,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        source = events(answer)
        await send(
            settings,
            full_signal(1, now(), ("BTC",)),
            full_signal(2, now(), ("ETH",), relevance=0.2),
            full_signal(3, now(), ("ETH",)),
        )
        _, signal = await next_event(source, lambda kind, _: kind == "signal")
        assert signal["id"] == "message-3"
        _, change = await next_event(source, lambda kind, _: kind == "aggregates")
        assert "ETH" in change["symbols"]
        async with asyncio.timeout(20):
            received = [json.loads(await websocket.recv()) for _ in range(2)]
        assert [message["data"]["id"] for message in received] == ["message-2", "message-3"]


@asynccontextmanager
async def flood(settings: Settings) -> AsyncIterator[None]:
    """Signals with long texts, until the block ends."""
    enough = asyncio.Event()

    async def work() -> None:
        number = 0
        while not enough.is_set():
            await send(settings, *(full_signal(number + n, now(), text="가" * 6_000) for n in range(100)))
            number += 100

    working = asyncio.create_task(work())
    try:
        yield
    finally:
        enough.set()
        await working


def small_buffer(port: int) -> socket.socket:
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    reader.connect(("127.0.0.1", port))
    reader.setblocking(False)
    return reader


async def cut(http: httpx.AsyncClient, kind: str) -> float:
    """How many streams of this kind were cut off for being slow."""
    text = (await http.get("/metrics")).text
    found = re.search(rf'kbert_streams_cut_total{{kind="{kind}",reason="slow"}} (\S+)', text)
    return float(found[1]) if found else 0.0


async def test_a_slow_websocket_is_cut_off_and_others_are_not(settings: Settings) -> None:
    settings = with_serve(settings, stream_queue=200)  # room for the awake one on a busy machine
    port = settings.serve.port
    url = f"ws://127.0.0.1:{port}/v1/ws"
    async with (
        serving(settings, "serve") as address,
        client(address) as http,
        connect(url, sock=small_buffer(port), max_queue=None, ping_interval=None) as sleeper,
        connect(url, max_queue=None) as awake,
    ):
        before = await cut(http, "websocket")
        sleeper.transport.pause_reading()
        read = 0

        async def read_on() -> None:
            nonlocal read
            async for _ in awake:
                read += 1

        reading = asyncio.create_task(read_on())
        async with flood(settings):

            async def was_cut() -> bool:
                return await cut(http, "websocket") > before

            await eventually(was_cut, timeout=60, what="the slow reader is cut off")
            sleeper.transport.resume_reading()
            with pytest.raises(ConnectionClosed) as closed:
                async with asyncio.timeout(30):
                    while True:
                        await sleeper.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1013
            assert closed.value.rcvd.reason.startswith("slow_reader")
            seen = read
            await eventually(lambda: read > seen, what="the other still receives")
            assert await cut(http, "websocket") == before + 1
        reading.cancel()


async def test_a_slow_event_stream_is_told_why_it_ends(settings: Settings) -> None:
    settings = with_serve(settings, stream_queue=20)
    async with serving(settings, "serve") as address, client(address) as http:
        before = await cut(http, "sse")
        async with http.stream("GET", "/v1/stream") as stream:
            async with flood(settings):

                async def was_cut() -> bool:
                    return await cut(http, "sse") > before

                await eventually(was_cut, timeout=60, what="the slow reader is cut off")
                _, error = await next_event(events(stream), lambda kind, _: kind == "error")
            assert error["code"] == 1013
            assert error["reason"].startswith("slow_reader")


async def test_a_stopping_server_says_so_and_ends(settings: Settings) -> None:
    async with serving(settings, "serve"):
        websocket = await connect(f"ws://127.0.0.1:{settings.serve.port}/v1/ws")
    async with asyncio.timeout(10):
        with pytest.raises(ConnectionClosed) as closed:
            await websocket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012


async def test_the_token_is_asked_for(settings: Settings) -> None:
    settings = with_serve(settings, token=SecretStr(TOKEN))
    async with serving(settings, "serve") as address, client(address) as http:
        good = {"Authorization": f"Bearer {TOKEN}"}
        for path in ("/v1/coins", "/v1/stream", "/v1/openapi.json", "/metrics"):
            refused = await http.get(path)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
            wrong = await http.get(path, headers={"Authorization": f"Bearer {TOKEN}x"})
            assert wrong.status_code == 401
        assert (await http.get("/v1/coins", headers=good)).status_code == 200
        assert (await http.get("/")).status_code == 200  # the page itself holds no data
        url = f"ws://127.0.0.1:{settings.serve.port}/v1/ws"
        with pytest.raises(InvalidStatus) as refused_socket:
            await connect(url)
        assert refused_socket.value.response.status_code == 401
        async with connect(url, additional_headers=good):
            pass


async def test_other_names_and_other_origins_are_refused(settings: Settings) -> None:
    async with serving(settings, "serve") as address, client(address) as http:
        rebound = await http.get("/v1/coins", headers={"Host": "evil.example"})
        assert rebound.status_code == 421
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://127.0.0.1:{settings.serve.port}/v1/ws", origin="http://evil.example")  # type: ignore[arg-type]
        assert refused.value.response.status_code == 403
        page = await http.get("/", headers={"Origin": "http://evil.example"})
        assert "access-control-allow-origin" not in page.headers
        policy = page.headers["content-security-policy"]
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy


async def test_streams_have_a_limit(settings: Settings) -> None:
    settings = with_serve(settings, max_streams=1)
    async with serving(settings, "serve") as address, client(address) as http:
        async with http.stream("GET", "/v1/stream"):
            refused = await http.get("/v1/stream")
            assert refused.status_code == 503
            websocket = await connect(f"ws://127.0.0.1:{settings.serve.port}/v1/ws")
            with pytest.raises(ConnectionClosed) as closed:
                await websocket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.reason.startswith("too_many_streams")

        async def free_again() -> bool:
            async with http.stream("GET", "/v1/stream") as answer:
                return answer.status_code == 200

        await eventually(free_again, what="a place is free again")


async def test_without_redis_it_stays_up_and_says_so(settings: Settings) -> None:
    async with EmbeddedRedis() as redis:
        settings = settings.model_copy(update={"redis": RedisSettings(url=SecretStr(redis.url))})
        async with serving(settings, "serve") as address, client(address) as http:
            assert (await http.get("/v1/coins")).status_code == 200
            await redis.stop()
            for path in ("/v1/coins/BTC", "/v1/coins/BTC/series", "/readyz"):
                answer = await http.get(path)
                assert answer.status_code == 503
                assert "Redis" in answer.json()["detail"]
                assert redis.url not in answer.text
            assert (await http.get("/healthz")).status_code == 200

            async def board_admits_it() -> bool:  # the next reading fails, and drops the old board
                return (await http.get("/v1/coins")).status_code == 503

            await eventually(board_admits_it, timeout=20, what="the board")

"""The fan-out: bounded queues, filters, and one slow reader that harms nobody."""

import asyncio
import gc
import gzip
import weakref
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Message

from schemas.aggregates import BoardRow
from schemas.signals import CryptoSignal
from tests.serving import full_signal, now, state_over
from tests.waiting import eventually
from worker.serve import coins as coins_module
from worker.serve import fresh as fresh_module
from worker.serve import state as state_module
from worker.serve.api import build_api
from worker.serve.coins import coin_routes
from worker.serve.fresh import Fresh
from worker.serve.health import health_routes
from worker.serve.hub import Ending, Event, Hub, TooManyStreamsError, pump
from worker.serve.live import live_routes
from worker.settings import ServeSettings
from worker.signal_filter import SignalFilter


def signal_event(number: int, coin: str = "BTC") -> Event:
    signal = CryptoSignal.model_validate(full_signal(number, now(), (coin,)))
    return Event("signal", b'{"n":%d}' % number, signal=signal)


async def test_a_full_queue_ends_its_reader_and_only_it() -> None:
    hub = Hub(queue=3, streams=10)
    slow = hub.subscribe(SignalFilter(), ["signal"])
    narrow = hub.subscribe(SignalFilter(coins=frozenset({"ETH"})), ["signal"])
    fast = hub.subscribe(SignalFilter(), ["signal"])
    taken = 0
    for number in range(10):
        hub.publish(signal_event(number))
        taken += len(await fast.take())
    assert slow.ending is Ending.SLOW
    assert (narrow.ending, fast.ending, taken) == (None, None, 10)


async def test_a_write_that_hangs_is_cancelled_when_the_queue_is_full() -> None:
    hub = Hub(queue=2, streams=10)
    reader = hub.subscribe(SignalFilter(), ["signal"])
    writing = asyncio.Event()

    async def write(_: list[Event]) -> None:
        writing.set()
        await asyncio.Event().wait()

    async def gone() -> None:
        await asyncio.Event().wait()

    pumping = asyncio.create_task(pump(reader, kind="sse", write=write, gone=gone))
    hub.publish(signal_event(0))
    await writing.wait()
    for number in range(3):
        hub.publish(signal_event(number))
    async with asyncio.timeout(5):
        assert await pumping is Ending.SLOW


async def test_changes_follow_the_coin_filter_and_kinds_are_chosen() -> None:
    hub = Hub(queue=5, streams=10)
    bitcoin = hub.subscribe(SignalFilter(coins=frozenset({"BTC"})), ["signal", "aggregates"])
    signals = hub.subscribe(SignalFilter(), ["signal"])
    hub.publish(Event("aggregates", b"{}", symbols=["ETH"]))
    hub.publish(Event("aggregates", b"{}", symbols=["BTC", "ETH"]))
    hub.publish(signal_event(1, "ETH"))
    assert [event.kind for event in await bitcoin.take()] == ["aggregates"]
    assert [event.kind for event in await signals.take()] == ["signal"]


async def test_streams_are_limited_and_a_closed_hub_ends_all() -> None:
    hub = Hub(queue=5, streams=1)
    first = hub.subscribe(SignalFilter(), ["signal"])
    with pytest.raises(TooManyStreamsError):
        hub.subscribe(SignalFilter(), ["signal"])
    hub.close()
    assert await first.ended() is Ending.STOPPING
    hub.leave(first)
    assert hub.subscribe(SignalFilter(), ["signal"]).ending is Ending.STOPPING


async def test_an_answer_is_made_once_for_all_who_ask_at_once() -> None:
    made = 0

    async def make() -> int:
        nonlocal made
        made += 1
        await asyncio.sleep(0)
        return made

    answers: Fresh[int] = Fresh(fresh=60, usable=60)
    assert set(await asyncio.gather(*(answers.get("key", make) for _ in range(50)))) == {1}
    stale: Fresh[int] = Fresh(fresh=-1, usable=60)
    assert await stale.get("key", make) == 2
    assert await stale.get("key", make) == 2  # the old one, while the next is made

    async def renewed() -> bool:
        return await stale.get("key", make) > 2

    await eventually(renewed, what="the next answer")


class Large:
    """An answer whose life can be followed."""


@pytest.mark.parametrize(("usable", "kept"), [(60.0, {20}), (-1.0, {0, 1})])
async def test_answers_that_none_may_have_are_dropped(usable: float, kept: set[int]) -> None:
    made: weakref.WeakSet[Large] = weakref.WeakSet()

    async def make() -> Large:
        answer = Large()
        made.add(answer)
        return answer

    answers: Fresh[Large] = Fresh(fresh=-1, usable=usable)
    for number in range(20):
        await answers.get(("BTC", number), make)
    gc.collect()
    assert len(made) in kept  # the loop may still hold the last one


@pytest.mark.parametrize("said", [{"bytes": b"\x01"}, {"text": "hello"}])
async def test_a_websocket_that_says_something_goes_on_hearing(said: dict[str, Any]) -> None:
    hub = Hub(queue=5, streams=1)
    api = FastAPI()
    api.include_router(live_routes(hub))
    coming: list[Message] = [{"type": "websocket.connect"}, {"type": "websocket.receive"} | said]
    sent: list[str] = []
    heard = asyncio.Event()

    async def receive() -> Message:
        if coming:
            return coming.pop(0)
        hub.publish(signal_event(1))
        await heard.wait()
        return {"type": "websocket.disconnect", "code": 1000}

    async def send(message: Message) -> None:
        sent.append(message["type"])
        if message["type"] == "websocket.send":
            heard.set()

    scope = {"type": "websocket", "path": "/v1/ws", "query_string": b"", "headers": [], "subprotocols": []}
    async with asyncio.timeout(30):
        await api(scope, receive, send)
    assert sent == ["websocket.accept", "websocket.send"]


async def test_no_board_is_answered_that_is_older_than_five_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    read: list[float] = []

    class Redis:
        async def board(self, _: str) -> list[BoardRow]:
            read.append(now)
            return []

    monkeypatch.setattr(fresh_module, "time", SimpleNamespace(monotonic=lambda: now))
    api = FastAPI()
    api.include_router(coin_routes(state_over(Redis())))
    transport = httpx.ASGITransport(app=api)
    read_at: dict[str, float] = {}
    plain = {"Accept-Encoding": "identity"}  # packing would let the next reading overtake
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=plain) as http:

        async def read_of(sort: str) -> float:
            answer = (await http.get("/v1/coins", params={"sort": sort})).json()
            assert answer["sort"] == sort
            return read_at.setdefault(answer["as_of"], read[-1])

        assert await read_of("volume") == 0.0
        now = 4.9
        assert await read_of("symbol") == 0.0  # while the next is read
        await eventually(lambda: read == [0.0, 4.9])
        now = 9.8
        assert await read_of("symbol") == 4.9
        now = 14.9
        assert await read_of("symbol") >= 9.8


async def test_a_silent_redis_is_not_waited_for_by_a_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent:
        async def check(self) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(state_module, "_CHECK_SECONDS", 0.01)
    state = state_over(Silent())
    api = FastAPI()
    api.include_router(health_routes(state))
    transport = httpx.ASGITransport(app=api)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http, asyncio.timeout(30):
        assert (await http.get("/readyz")).status_code == 503
    assert state.problem is not None
    assert "redis.url" in state.problem


class EmptyRedis:
    async def board(self, _: str) -> list[BoardRow]:
        return []

    async def check(self) -> None:
        pass


def whole_api() -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=build_api(state_over(EmptyRedis()), ServeSettings()))
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")


async def test_a_board_is_packed_once_for_all_who_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    packed: list[bytes] = []

    def compress(body: bytes, level: int, *, mtime: float) -> bytes:
        packed.append(body)
        return gzip.compress(body, level, mtime=mtime)

    monkeypatch.setattr(coins_module, "gzip", SimpleNamespace(compress=compress))
    async with whole_api() as http:
        http.headers["accept-encoding"] = "identity"
        plain = await http.get("/v1/coins")
        assert (plain.headers["vary"], "content-encoding" in plain.headers) == ("Accept-Encoding", False)
        for _ in range(2):
            given = await http.get("/v1/coins", headers={"Accept-Encoding": "br, gzip"})
            assert (given.headers["vary"], given.headers["content-encoding"]) == ("Accept-Encoding", "gzip")
            assert given.content == plain.content
        refused = await http.get("/v1/coins", headers={"Accept-Encoding": "br, gzip; q=0.0"})
        assert "content-encoding" not in refused.headers
    assert packed == [plain.content]


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_probes_may_ask_for_the_head_alone(path: str) -> None:
    async with whole_api() as http:
        assert (await http.head(path)).status_code == (await http.get(path)).status_code == 200


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("/v1/coins?min-certainty=0.9", "window, sort"),
        ("/v1/coins/BTC?min-certainty=0.9", "no query"),
        ("/v1/coins/BTC/series?min-certainty=0.9", "metric, window, from, to, step"),
        ("/v1/narrative?min-certainty=0.9", "from, to"),
        (
            "/v1/signals/recent?limit=3&min-certainty=0.9",
            "limit, coin, sentiment, action, emotion, min_certainty",
        ),
        ("/v1/stream?coin=BTC&min-certainty=0.9", "event, coin, sentiment, action, emotion, min_certainty"),
    ],
)
async def test_a_name_that_a_query_does_not_know_is_refused(path: str, known: str) -> None:
    async with whole_api() as http:
        refused = await http.get(path)
    assert refused.status_code == 422
    (error,) = refused.json()["detail"]
    assert error["loc"] == ["query", "min-certainty"]
    assert error["msg"].startswith(f"'min-certainty' is unknown here: it takes {known}")


@pytest.mark.parametrize(
    ("query", "said"),
    [(b"coin=BTC,ETH", b"should match pattern"), (b"coins=BTC", b"'coins' is unknown here")],
)
async def test_a_websocket_is_refused_with_a_reason(query: bytes, said: bytes) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "websocket",
        "path": "/v1/ws",
        "query_string": query,
        "headers": [(b"host", b"localhost")],
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}},
    }
    await build_api(state_over(EmptyRedis()), ServeSettings())(scope, receive, send)
    assert sent[0]["status"] == 422
    assert said in sent[1]["body"]

"""A client that asks too much is told when to come again; memory stays bounded."""

import hmac
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import REGISTRY
from pydantic import SecretStr
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from worker.rate_limit import RateLimit, client_of
from worker.serve.guard import Guard
from worker.serve.limit import StreamLimit
from worker.settings import ServeSettings


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_and_then_the_rate() -> None:
    clock = Clock()
    limit = RateLimit(rate=2.0, burst=5, clock=clock)
    assert [limit.wait("a") for _ in range(7)] == [0, 0, 0, 0, 0, 1, 1]
    assert limit.wait("b") == 0  # another's bucket
    clock.now = 0.5
    assert [limit.wait("a") for _ in range(2)] == [0, 1]
    clock.now = 1_000.0
    assert [limit.wait("a") for _ in range(6)].count(0) == 5  # no more than the burst after any pause


def test_a_slow_rate_says_how_long() -> None:
    limit = RateLimit(rate=0.1, burst=1, clock=Clock())
    assert [limit.wait("a"), limit.wait("a")] == [0, 10]


def test_a_million_clients_do_not_fill_the_memory() -> None:
    limit = RateLimit(rate=1.0, burst=1, clock=Clock())
    for number in range(50_000):
        limit.wait(str(number))
    assert len(limit) == 10_000
    assert limit.wait("49999") > 0  # the latest are known


def test_streams_of_one_client() -> None:
    limit = StreamLimit(2)
    with limit.one("a"), limit.one("a"):
        assert limit.full("a")
        assert not limit.full("b")
    assert not limit.full("a")
    assert not limit._open


def test_an_ipv6_client_is_its_network() -> None:
    assert client_of("2001:db8::1") == client_of("2001:db8::ffff:1") != client_of("2001:db8:0:1::1")
    assert client_of("192.0.2.1") != client_of("192.0.2.2")


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("ok")(scope, receive, send)


def api(settings: ServeSettings) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=Guard(answer, settings))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")


async def test_too_many_requests_are_refused_with_a_time() -> None:
    async with api(ServeSettings(requests_per_second=0.01, burst=3)) as http:
        answers = [await http.get("/v1/coins") for _ in range(5)]
        assert [a.status_code for a in answers] == [200, 200, 200, 429, 429]
        assert 0 < int(answers[-1].headers["retry-after"]) <= 100
        assert answers[-1].headers["content-security-policy"]
        assert (await http.get("/healthz")).status_code == 200  # a supervisor is never sent away


async def test_guessing_a_token_is_limited_too() -> None:
    token = SecretStr("0123456789abcdef")
    async with api(ServeSettings(requests_per_second=0.01, burst=3, token=token)) as http:
        statuses = [(await http.get("/v1/coins")).status_code for _ in range(5)]
        assert statuses == [401, 401, 401, 429, 429]


async def test_the_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[Any] = []
    real = hmac.compare_digest

    def compare(given: bytes, wanted: bytes) -> bool:
        compared.append((given, wanted))
        return real(given, wanted)

    monkeypatch.setattr("worker.binding.hmac.compare_digest", compare)
    async with api(ServeSettings(token=SecretStr("0123456789abcdef"))) as http:
        for given in ("", "Bearer x", "Bearer 0123456789abcdef", "Basic 0123456789abcdef"):
            await http.get("/v1/coins", headers={"Authorization": given})
    assert [wanted for _, wanted in compared] == [b"0123456789abcdef"] * 4


def counted(route: str, status: int) -> float:
    labels = {"route": route, "status": str(status)}
    return REGISTRY.get_sample_value("kbert_http_requests_total", labels) or 0.0


async def test_a_failure_is_answered_as_everything_else_and_counted() -> None:
    def broken() -> None:
        raise RuntimeError("secret")

    failing = FastAPI()
    failing.add_api_route("/v1/broken", broken)
    failing.add_middleware(Guard, settings=ServeSettings())
    before = counted("/v1/broken", 500)
    transport = httpx.ASGITransport(app=failing, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        given = await http.get("/v1/broken")
    assert (given.status_code, counted("/v1/broken", 500)) == (500, before + 1)
    assert given.headers["content-security-policy"]
    assert given.headers["cache-control"] == "no-store"
    assert "secret" not in given.text
    transport = httpx.ASGITransport(app=failing)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        with pytest.raises(RuntimeError, match="secret"):  # the server logs it
            await http.get("/v1/broken")


@pytest.mark.parametrize("accepted", [False, True])
async def test_a_socket_that_fails_is_answered_once(accepted: bool) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        if accepted:
            await send({"type": "websocket.accept"})
        raise RuntimeError

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    scope = {"type": "websocket", "path": "/v1/ws", "headers": [(b"host", b"localhost")]}
    with pytest.raises(RuntimeError):
        await Guard(broken, ServeSettings())(scope, receive, send)
    kinds = [message["type"] for message in sent]
    refused = ["websocket.http.response.start", "websocket.http.response.body"]
    assert kinds == (["websocket.accept"] if accepted else refused)


@pytest.mark.parametrize("token", [None, SecretStr("0123456789abcdef")])
@pytest.mark.parametrize("origin", ["http://[", "http://½]", "null", "", "https://evil.example"])
async def test_a_socket_of_another_or_a_malformed_origin_is_refused(
    origin: str, token: SecretStr | None
) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    headers = [(b"host", b"localhost"), (b"origin", origin.encode("latin-1"))]
    scope = {"type": "websocket", "path": "/v1/ws", "headers": headers}
    before = counted("other", 403)
    await Guard(answer, ServeSettings(token=token))(scope, receive, send)
    assert (sent[0]["type"], sent[0]["status"]) == ("websocket.http.response.start", 403)
    assert b"content-security-policy" in dict(sent[0]["headers"])
    assert counted("other", 403) == before + 1


async def test_no_other_origin_may_read() -> None:
    async with api(ServeSettings()) as http:
        for method in ("GET", "OPTIONS"):
            headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "GET"}
            given = await http.request(method, "/v1/coins", headers=headers)
            assert not [name for name in given.headers if name.startswith("access-control-")]
            assert given.headers["cross-origin-resource-policy"] == "same-origin"

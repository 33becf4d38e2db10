"""The probes say what is wrong, and answer also when the event loop does not turn."""

import asyncio
import socket
from collections.abc import Iterator
from typing import Any, cast

import httpx
import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr
from structlog.testing import capture_logs

from worker.commands import bot
from worker.embedded import free_port
from worker.errors import ConfigurationError, ConnectionFailedError
from worker.serve import server
from worker.serve.fresh import Fresh
from worker.serve.state import ServeState
from worker.settings import MetricsSettings, Settings
from worker.telemetry import endpoint
from worker.telemetry.endpoint import expose
from worker.telemetry.health import HEALTH, Health
from worker.telemetry.metrics import READY
from worker.watchdog import Look, StalledError, watch


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(clock)


@pytest.fixture
def address(health: Health) -> Iterator[str]:
    server = expose("127.0.0.1", 0, health=health)
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def get(address: str) -> tuple[int, Any]:
    answer = httpx.get(address, timeout=10)
    return answer.status_code, answer.json()


def test_ready_when_every_part_is(health: Health, address: str) -> None:
    health.beat()
    assert get(f"{address}/readyz") == (503, {"status": "unavailable", "parts": {}})
    with health.part("worker") as worker, health.part("aggregates") as aggregates:
        assert get(f"{address}/readyz")[1]["parts"] == {"worker": "starting", "aggregates": "starting"}
        worker(None)
        aggregates("Redis does not answer")
        status, body = get(f"{address}/readyz")
        assert (status, body["parts"]) == (503, {"worker": "ok", "aggregates": "Redis does not answer"})
        assert get(f"{address}/healthz")[0] == 200  # a restart would not mend it
        aggregates(None)
        assert get(f"{address}/readyz")[0] == 200


def test_a_blocked_event_loop_is_neither_ready_nor_alive(health: Health, clock: Clock, address: str) -> None:
    with health.part("worker") as worker:
        worker(None)
        health.beat()
        clock.now = 29.0
        assert (get(f"{address}/readyz")[0], get(f"{address}/healthz")[0]) == (200, 200)
        clock.now = 31.0
        assert (get(f"{address}/readyz")[0], get(f"{address}/healthz")[0]) == (503, 503)
        assert "has not turned for 31 s" in get(f"{address}/healthz")[1]["parts"]["process"]


def test_a_taken_port_is_one_sentence() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(ConfigurationError, match=r"metrics\.p"),
    ):
        expose("127.0.0.1", taken.getsockname()[1])


def test_an_ipv6_address_is_bound(health: Health) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    server = expose("::1", 0, health=health)
    try:
        assert get(f"http://[::1]:{server.server_port}/healthz")[0] == 200
    finally:
        server.shutdown()
        server.server_close()


def test_a_name_that_nobody_knows_is_one_sentence() -> None:
    with pytest.raises(ConfigurationError, match=r"metrics\.host"):
        expose("no-such-name.invalid", 0, SecretStr("0123456789abcdef"))


async def test_who_waits_for_redis_is_not_ended() -> None:
    looks = 0

    async def look(timeout: float) -> Look:
        nonlocal looks
        looks += 1
        return Look(moved=0, idle=False, problem="Redis does not answer", excused=looks < 50)

    with pytest.raises(StalledError, match="Redis does not answer"):
        await watch("test", 0.2, look)
    assert looks > 50


async def test_a_part_that_lacks_something_is_not_ready_also_where_it_is_excused() -> None:
    looks = iter(
        [
            Look(moved=0, idle=True),
            Look(moved=0, idle=False, problem="Redis does not answer", excused=True),
            Look(moved=0, idle=True),
        ]
    )
    shown: list[float | None] = []

    async def look(timeout: float) -> Look:
        shown.append(REGISTRY.get_sample_value("kbert_ready", {"part": "never-seen"}))
        return next(looks)

    with pytest.raises(RuntimeError):  # there is no fourth
        await watch("never-seen", 0.2, look)
    assert shown == [None, 1.0, 0.0, 1.0]


def test_metrics_beyond_this_machine_only_with_a_token() -> None:
    with pytest.raises(ConfigurationError, match=r"metrics\.token \(KBERT_METRICS__TOKEN\)") as refused:
        expose("0.0.0.0", 0)
    assert "\n" not in str(refused.value)


def test_a_token_guards_the_metrics_and_not_the_probes(health: Health) -> None:
    server = expose("127.0.0.1", 0, SecretStr("0123456789abcdef"), health)
    address = f"http://127.0.0.1:{server.server_port}"
    try:
        for headers in (
            {},
            {"Authorization": "Bearer 0123456789abcdeX"},
            {"Authorization": "0123456789abcdef"},
        ):
            answer = httpx.get(f"{address}/metrics", headers=headers)
            assert (answer.status_code, "kbert_" in answer.text) == (401, False)
        good = httpx.get(f"{address}/metrics", headers={"Authorization": "Bearer 0123456789abcdef"})
        assert (good.status_code, "kbert_" in good.text) == (200, True)
        assert httpx.get(f"{address}/readyz").status_code == 503  # it answers: nothing is ready here
    finally:
        server.shutdown()
        server.server_close()


def test_who_scrapes_without_end_is_slowed_down(health: Health, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_READS_PER_SECOND", 1e-6)  # none comes back however slow this machine is
    server = expose("127.0.0.1", 0, health=health)
    address = f"http://127.0.0.1:{server.server_port}"
    try:
        answers = [httpx.get(f"{address}/metrics").status_code for _ in range(22)]
        assert answers == [200] * 20 + [429] * 2
        assert httpx.get(f"{address}/healthz").status_code in (200, 503)  # a probe is always answered
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("error", "lines"),
    [(ConnectionResetError(), 0), (BrokenPipeError(), 0), (TimeoutError(), 0), (ValueError("broken"), 1)],
)
def test_a_client_that_goes_away_is_no_news(
    health: Health, error: Exception, lines: int, capsys: pytest.CaptureFixture[str]
) -> None:
    server = expose("127.0.0.1", 0, health=health)
    try:
        with capture_logs() as said, socket.socket() as client:
            for _ in range(3):
                try:
                    raise error
                except (OSError, ValueError):
                    server.handle_error(client, ("127.0.0.1", 1))
    finally:
        server.shutdown()
        server.server_close()
    assert [line["event"] for line in said] == ["metrics.request_failed"] * lines
    assert capsys.readouterr().err == ""


class _State:
    """As much of a ServeState as its readiness needs; each look notes what the last one told."""

    def __init__(self) -> None:
        self.probes: Fresh[None] = Fresh(fresh=0.0, usable=0.0)
        self.silent = iter((False, True, False))
        self.told: list[tuple[str | None, float | None]] = []
        self.done = asyncio.Event()

    async def check(self) -> None:
        ready = REGISTRY.get_sample_value("kbert_ready", {"part": "serve"})
        self.told.append((HEALTH.parts()["serve"], ready))
        if (silent := next(self.silent, None)) is None:
            self.done.set()
            await asyncio.Event().wait()
        if silent:
            raise ConnectionFailedError("redis.url=redis://secret-host does not answer")


async def test_the_part_of_a_server_says_what_its_own_probe_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_READY_SECONDS", 0.0)
    READY.remove("serve")  # another test of this process may have left it
    state = _State()
    telling = asyncio.create_task(server._tell_readiness(cast(ServeState, state)))
    await asyncio.wait_for(state.done.wait(), 10)
    telling.cancel()
    await asyncio.wait([telling])
    problem = "Redis or Kafka does not answer as it should"
    assert state.told == [("starting", None), (None, 1.0), (problem, 0.0), (None, 1.0)]
    assert "serve" not in HEALTH.parts()


def test_a_bot_answers_at_the_metrics_port() -> None:
    settings = Settings(_env_file=None, metrics=MetricsSettings(port=free_port()))
    answers: list[Any] = []

    async def work(known: Settings, _: asyncio.Event) -> None:
        address = f"http://127.0.0.1:{known.metrics.port}"
        answers.append(await asyncio.to_thread(get, f"{address}/readyz"))

    bot._run(work, settings, part="bot-webhook")
    assert answers == [(200, {"status": "ok", "parts": {"bot-webhook": "ok"}})]
    with pytest.raises(httpx.ConnectError):
        get(f"http://127.0.0.1:{settings.metrics.port}/readyz")

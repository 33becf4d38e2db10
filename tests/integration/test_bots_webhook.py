"""The webhook against a real HTTP server that fails, hangs, drops and recovers."""

import asyncio
import errno
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from schemas.signals import CryptoSignal
from tests.processes import kbert
from tests.receivers import Answer, receiver
from tests.servers import KafkaServer, Topics
from tests.serving import full_signal, now, send, serve_settings
from tests.waiting import eventually
from worker.cli import app
from worker.clients.bots.webhook import ID, SIGNATURE, TIMESTAMP, Webhook, sign, verify
from worker.commands.bot_webhook import read_dead_letters, resend_dead_letters, run_webhook
from worker.commands.common import InterruptedEarlyError
from worker.embedded import free_port
from worker.errors import ConfigurationError
from worker.settings import BotSettings, Settings, WebhookSettings

SHAKY: list[Answer] = ["drop", 500] * 10
SECRET = "a secret of the two"


def webhook(url: str, tmp_path: Path, **fields: Any) -> WebhookSettings:
    quick: dict[str, Any] = {"backoff": 0.001, "max_backoff": 0.01, "attempts": 4}
    return WebhookSettings(
        url=SecretStr(url),
        secret=SecretStr(SECRET),
        dead_letters=tmp_path / "dead.jsonl",
        **quick | fields,
    )


def a_signal(number: int = 1, **fields: Any) -> CryptoSignal:
    return CryptoSignal.model_validate(full_signal(number, now(), **fields))


def letters(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "dead.jsonl").read_text().splitlines()]


async def test_a_request_is_signed_and_says_what_it_is(tmp_path: Path) -> None:
    sent = a_signal(7, text="비트 간다").model_copy(update={"id": "방:7"})
    with receiver() as server:
        async with Webhook(webhook(server.url, tmp_path)) as hook:
            assert await hook.deliver(sent)
    (headers, body) = server.requests[0]
    assert CryptoSignal.model_validate_json(body) == sent
    assert headers[ID] == "%EB%B0%A9:7"
    assert verify(SECRET, headers, body)
    assert not verify(SECRET + "x", headers, body)
    assert not verify(SECRET, headers, body + b" ")
    assert not verify(SECRET, {**headers, TIMESTAMP: str(int(headers[TIMESTAMP]) + 1)}, body)
    assert not verify(SECRET, headers, body, now=int(headers[TIMESTAMP]) + 301)
    assert not verify(SECRET, {SIGNATURE: headers[SIGNATURE]}, body)
    # openssl dgst -sha256 -hmac key <<< "1.{}" without the newline
    assert sign("key", 1, b"{}") == "sha256=" + OPENSSL


OPENSSL = "1ba6b8171186efc613e8bcc0cbdab2748f24984d7c5a84faa2637afa0e40d224"


@pytest.mark.parametrize(
    "script",
    [
        (500, 503, 502),
        ("hang", "hang"),
        ("drop", "drop", "drop"),
        (429, 408, 425),
        ("drop", 500, "hang"),
        ("garble", "garble"),
    ],
)
async def test_what_passes_is_tried_again(script: tuple[Any, ...], tmp_path: Path) -> None:
    with receiver(*script) as server:
        async with Webhook(webhook(server.url, tmp_path, timeout=0.5)) as hook:
            assert await hook.deliver(a_signal())
        assert len(server.requests) == len(script) + 1
        assert len(set(server.bodies)) == 1
        assert all(verify(SECRET, headers, body) for headers, body in server.requests)
    assert letters(tmp_path) == []


@pytest.mark.parametrize("status", [400, 401, 410, 302, 204])
async def test_what_is_answered_for_good_is_not_tried_again(status: int, tmp_path: Path) -> None:
    with receiver((status, {"Location": "/elsewhere"})) as server:
        async with Webhook(webhook(server.url, tmp_path)) as hook:
            delivered = await hook.deliver(a_signal())
        assert len(server.requests) == 1
    assert delivered == (status == 204)
    assert [letter["reason"] for letter in letters(tmp_path)] == ([] if delivered else [f"status {status}"])


async def test_after_the_last_attempt_the_signal_is_kept(tmp_path: Path) -> None:
    first, second = a_signal(1), a_signal(2)
    with receiver(500, 500, 500, 500) as server:
        settings = webhook(server.url, tmp_path)
        async with Webhook(settings) as hook:
            assert not await hook.deliver(first)
            assert await hook.deliver(second)
    (letter,) = letters(tmp_path)
    assert (letter["reason"], letter["attempts"]) == ("status 500", 4)
    assert CryptoSignal.model_validate(letter["signal"]) == first
    assert "hidden" not in (tmp_path / "dead.jsonl").read_text()


async def test_pauses_grow_are_random_and_obey_the_receiver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def instead(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("worker.clients.bots.webhook.asyncio.sleep", instead)
    settings = {"backoff": 1.0, "max_backoff": 10.0, "attempts": 7}
    for _ in range(20):
        with receiver(*[500] * 6) as server:
            async with Webhook(webhook(server.url, tmp_path, **settings)) as hook:
                assert await hook.deliver(a_signal())
    rounds = [pauses[n : n + 6] for n in range(0, len(pauses), 6)]
    for number, longest in enumerate((1, 2, 4, 8, 10, 10)):
        nth = [pause[number] for pause in rounds]
        assert max(nth) <= longest
        assert max(nth) > longest / 2
        assert len(set(nth)) > 10
    pauses.clear()
    with receiver((429, {"Retry-After": "7"}), (503, {"Retry-After": "3600"})) as server:
        async with Webhook(webhook(server.url, tmp_path, **settings)) as hook:
            assert await hook.deliver(a_signal())
    assert pauses == [7, 10]


async def test_dead_letters_can_be_sent_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with receiver(400, 200, 400) as server:
        settings = Settings(_env_file=None, bot=BotSettings(webhook=webhook(server.url, tmp_path)))
        async with Webhook(settings.bot.webhook) as hook:
            for number in (1, 2, 3):
                await hook.deliver(a_signal(number))
        with pytest.raises(ConfigurationError, match="rename it"):
            read_dead_letters(settings, tmp_path / "dead.jsonl")
        (tmp_path / "dead.jsonl").rename(tmp_path / "old.jsonl")
        server.script[:] = [400]
        again, left_out = read_dead_letters(settings, tmp_path / "old.jsonl")
        await resend_dead_letters(settings, again, left_out, asyncio.Event())
    assert capsys.readouterr().out.endswith("1 delivered, 1 refused, 0 left out\n")
    assert [letter["signal"]["id"] for letter in letters(tmp_path)] == ["message-1"]


@pytest.mark.parametrize(("script", "delivered"), [(("hang",), 0), ((200, "hang"), 1)])
async def test_a_stop_ends_a_delivery_that_hangs(
    script: tuple[Any, ...], delivered: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = asyncio.Event()
    with receiver(*script) as server:
        hook = webhook(server.url, tmp_path, timeout=600)
        settings = Settings(_env_file=None, bot=BotSettings(webhook=hook))
        sending = asyncio.create_task(resend_dead_letters(settings, [a_signal(n) for n in range(3)], 0, stop))
        await eventually(lambda: len(server.requests) == len(script), what="the request that hangs")
        stop.set()
        async with asyncio.timeout(20):
            with pytest.raises(InterruptedEarlyError, match=f"the last {3 - delivered} were not sent"):
                await sending
    assert capsys.readouterr().out == f"{delivered} delivered, 0 refused, 0 left out\n"
    assert letters(tmp_path) == []


async def test_a_stop_behind_the_last_delivery_interrupts_nothing(tmp_path: Path) -> None:
    stop = asyncio.Event()
    with receiver() as server:
        settings = Settings(_env_file=None, bot=BotSettings(webhook=webhook(server.url, tmp_path)))
        await resend_dead_letters(settings, [a_signal(1)], 0, stop)
        stop.set()
        with pytest.raises(InterruptedEarlyError):
            await resend_dead_letters(settings, [a_signal(1)], 0, stop)
        assert len(server.requests) == 1


async def test_a_full_disk_leaves_no_torn_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next letter stood on the torn line, and was lost although its place was committed."""
    with receiver(400, 400, 400) as server:
        async with Webhook(webhook(server.url, tmp_path)) as hook:
            await hook.deliver(a_signal(1))
            with monkeypatch.context() as full, pytest.raises(ConfigurationError, match="No space left"):
                full.setattr("worker.clients.bots.webhook.os.fsync", no_space)
                await hook.deliver(a_signal(2))
            await hook.deliver(a_signal(3))
    assert [letter["signal"]["id"] for letter in letters(tmp_path)] == ["message-1", "message-3"]


def no_space(_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


async def test_a_torn_line_costs_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torn = b'{"failed_at":"2026-01-05T00:00:00Z","reas'
    (tmp_path / "dead.jsonl").write_bytes(torn)
    with receiver(400, 400) as server:
        settings = Settings(_env_file=None, bot=BotSettings(webhook=webhook(server.url, tmp_path)))
        async with Webhook(settings.bot.webhook) as hook:
            await hook.deliver(a_signal(1))
            await hook.deliver(a_signal(2))
    old = (tmp_path / "dead.jsonl").rename(tmp_path / "old.jsonl")
    signals, left_out = read_dead_letters(settings, old)
    assert [one.id for one in signals] == ["message-1", "message-2"]
    assert left_out == 1
    assert "left out old.jsonl:1: " in capsys.readouterr().err
    old.write_bytes(torn)
    with pytest.raises(ConfigurationError, match="is no file of dead letters"):
        read_dead_letters(settings, old)


def test_resending_with_a_line_left_out_has_status_1(tmp_path: Path) -> None:
    with receiver() as server:
        letter = b'{"signal":' + a_signal(1).model_dump_json().encode() + b"}\n"
        (tmp_path / "old.jsonl").write_bytes(letter + b"{torn\n")
        environment = {"KBERT_BOT__WEBHOOK__SECRET": SECRET, "KBERT_BOT__WEBHOOK__URL": server.url}
        environment["KBERT_BOT__WEBHOOK__DEAD_LETTERS"] = str(tmp_path / "dead.jsonl")
        arguments = ["bot", "webhook", "--resend", str(tmp_path / "old.jsonl")]
        done = CliRunner().invoke(app, arguments, env=environment)
        assert len(server.accepted) == 1
    assert (done.exit_code, done.stdout) == (1, "1 delivered, 0 refused, 1 left out\n")
    assert "left out old.jsonl:2: " in done.stderr


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.org/hook",
        "ftp://host/",
        "http://",
        "http://[::1",
        "http://host:abc/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:-1/",
        "http://ho\x01st/",
        "http://host/\n",
        "http://xn--/",
    ],
)
def test_an_address_that_cannot_be_asked_is_one_sentence_at_the_start(url: str, tmp_path: Path) -> None:
    """httpx refuses some of them, and the sockets some ports, in errors that no attempt expects."""
    with pytest.raises(ConfigurationError, match=r"bot\.webhook\.url"):
        Webhook(webhook(url, tmp_path))


async def test_what_cannot_work_is_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"bot\.webhook\.url"):
        Webhook(WebhookSettings(secret=SecretStr(SECRET)))
    with pytest.raises(ConfigurationError, match=r"bot\.webhook\.secret"):
        Webhook(WebhookSettings(url=SecretStr("https://host/")))
    settings = webhook("https://host/", tmp_path).model_copy(update={"dead_letters": tmp_path})
    with pytest.raises(ConfigurationError, match=r"bot\.webhook\.dead_letters"):
        await Webhook(settings).__aenter__()


@pytest.fixture
async def settings(kafka: KafkaServer, topics: Topics, tmp_path: Path) -> Settings:
    settings = await serve_settings(kafka, topics, "redis://127.0.0.1:1/0", "unused:")
    group = f"webhook-{settings.topics.signals}"
    hook = webhook(
        f"http://127.0.0.1:{free_port()}/", tmp_path, group_id=group, coins=("BTC",), attempts=1_000
    )
    return settings.model_copy(update={"bot": BotSettings(webhook=hook)})


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[asyncio.Event]:
    stop = asyncio.Event()
    work = asyncio.create_task(run_webhook(settings, stop))
    try:
        yield stop
    finally:
        stop.set()
        await work


def with_hook(settings: Settings, **fields: Any) -> Settings:
    hook = settings.bot.webhook.model_copy(update=fields)
    return settings.model_copy(update={"bot": BotSettings(webhook=hook)})


def numbers(bodies: list[bytes]) -> list[int]:
    return [int(json.loads(body)["id"].removeprefix("message-")) for body in bodies]


async def joined(settings: Settings, probe: Any) -> None:
    """Until the group reads: signals of before it joined are not its business."""
    number = 10_000

    async def arrived() -> bool:
        nonlocal number
        number += 1
        await send(settings, full_signal(number, now()))
        return bool(probe())

    await eventually(arrived, timeout=60, interval=0.2, what="the first signal")


async def test_nothing_is_lost_and_order_kept_while_the_receiver_is_away(settings: Settings) -> None:
    """Down at first, then back; a bounded queue holds the rest in Kafka; stopped in between."""
    hook = settings.bot.webhook
    assert hook.url is not None
    url = hook.url.get_secret_value()
    port = int(url.rsplit(":", 1)[1].strip("/"))
    settings = with_hook(settings, queue=5, drain_timeout=0.2)
    with receiver(port=port) as server:
        async with running(settings):
            await joined(settings, lambda: server.requests)
            await eventually(lambda: numbers(server.bodies)[-1] >= 10_001)
    many = [full_signal(n, now(), ("BTC",) if n % 2 else ("ETH",)) for n in range(60)]
    async with running(settings):  # nobody listens: it gives up after the drain, and commits nothing
        await send(settings, *many)
    with receiver(*SHAKY, port=port) as server:
        async with running(settings):
            await eventually(
                lambda: len(server.requests) >= 30 + 20, timeout=60, what="every signal once, and retries"
            )
            wanted = [n for n in range(60) if n % 2]
            await eventually(lambda: wanted[-1] in numbers(server.accepted))
            assert list(dict.fromkeys(n for n in numbers(server.accepted) if n < 10_000)) == wanted


async def test_a_killed_process_sends_the_rest_after_its_restart(settings: Settings, tmp_path: Path) -> None:
    hook = settings.bot.webhook
    with receiver() as server:
        environment: dict[str, Any] = {
            "KBERT_BOT__WEBHOOK__URL": server.url,
            "KBERT_BOT__WEBHOOK__SECRET": SECRET,
            "KBERT_BOT__WEBHOOK__GROUP_ID": hook.group_id,
            "KBERT_BOT__WEBHOOK__COINS": '["BTC"]',
            "KBERT_BOT__WEBHOOK__DEAD_LETTERS": str(hook.dead_letters),
        }
        plain = settings.model_copy(update={"bot": BotSettings()})
        arguments = ["bot", "webhook"]
        with kbert(arguments, plain, tmp_path / "one.log", **environment) as process:
            await joined(settings, lambda: server.requests)
            server.script[:] = [200] * 5 + ["hang"]
            count = len(server.requests)
            await send(settings, *(full_signal(n, now()) for n in range(20)))
            await eventually(
                lambda: len(server.requests) >= count + 6, timeout=60, what="the request that hangs"
            )
            process.send(signal.SIGKILL)
            process.wait()
        server.awake.set()
        log = (tmp_path / "one.log").read_text()
        assert "hidden" not in log
        assert SECRET not in log
        with kbert(arguments, plain, tmp_path / "two.log", **environment) as process:
            await eventually(lambda: 19 in numbers(server.accepted), timeout=60, what="the rest")
            process.send(signal.SIGTERM)
            assert process.wait() == 0
    arrived = list(dict.fromkeys(n for n in numbers(server.accepted) if n < 10_000))
    assert arrived == list(range(20))

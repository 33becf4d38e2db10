"""The examples, run as a user runs them."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import orjson
import pytest
from redis.asyncio import Redis

from schemas.aggregates import AggregateChange
from tests.kafka_io import produce
from tests.servers import KafkaServer, Topics
from tests.serving import full_signal, now
from tests.waiting import eventually
from worker.aggregates.project import Aggregator
from worker.aggregates.store import RedisStore
from worker.clients.examples import alert_on_zscore


@contextlib.contextmanager
def example(name: str, *arguments: str, output: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", f"worker.clients.examples.{name}", *arguments]
    with output.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


async def test_follow_signals(kafka: KafkaServer, topics: Topics, tmp_path: Path) -> None:
    topic = await topics.make("signals")
    old = full_signal(1, now() - timedelta(minutes=5), ("BTC",), text="비트 간다")
    others = [full_signal(2, now(), ("ETH",)), full_signal(3, now(), ("BTC",), relevance=0.1)]
    await produce(kafka.bootstrap_servers, topic, [orjson.dumps(s) for s in (old, *others)])
    output = tmp_path / "out"
    with example("follow_signals", kafka.bootstrap_servers, "BTC", "--topic", topic, output=output):
        await eventually(lambda: output.read_text().count("\n") == 1)
        await produce(kafka.bootstrap_servers, topic, [orjson.dumps(full_signal(4, now(), ("BTC", "ETH")))])
        await eventually(lambda: output.read_text().count("\n") == 2)
    first, second = output.read_text().splitlines()
    assert first.endswith("BTC weak_pos buy certainty=0.80 비트 간다")
    assert " BTC,ETH " in second


def test_read_aggregates(redis_url: str, redis_prefix: str) -> None:
    signals = [full_signal(n, now() - timedelta(minutes=n), ("BTC", "ETH")[: 1 + n % 2]) for n in range(30)]

    async def write() -> None:
        async with RedisStore(redis_url) as store:
            await Aggregator(store, prefix=redis_prefix).apply({("signals", 0): list(enumerate(signals))})

    asyncio.run(write())
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "worker.clients.examples.read_aggregates",
            redis_url,
            "--prefix",
            redis_prefix,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = run.stdout.splitlines()
    assert "BTC      messages=30 index=+0.50" in lines[:2]
    assert lines[2] == "ETH      messages=15 index=+0.50"
    assert lines[-1].endswith("BTC messages=30 index=+0.50")


async def test_alert_on_zscore_names_markets_of_the_users_own_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Away:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        async def __aenter__(self) -> "Away":
            return self

        async def __aexit__(self, *_: object) -> None:
            pass

        async def changes(self) -> AsyncIterator[AggregateChange]:
            yield AggregateChange(symbols=["XYZ"], at=now())

        async def get(self, _: str) -> SimpleNamespace:
            return SimpleNamespace(windows={"1h": SimpleNamespace(zscore_index=4.0)})

    coins, markets = tmp_path / "coins.toml", tmp_path / "markets.toml"
    coins.write_text('[coins.XYZ]\nkorean = "엑스"\nenglish = "Xyz"\n')
    markets.write_text('[upbit.codes]\nXYZ = { code = "OWN" }\n')
    monkeypatch.setenv("KBERT_COINS__USER_FILE", str(coins))
    monkeypatch.setenv("KBERT_BOT__MARKETS_FILE", str(markets))
    monkeypatch.setattr(alert_on_zscore, "Aggregates", Away)
    await alert_on_zscore.alert("redis://away", "upbit", 3.0, "kbert:")
    assert capsys.readouterr().out == "KRW-OWN greedy z=+4.0\n"


async def test_alert_on_zscore(redis_url: str, redis_prefix: str, tmp_path: Path) -> None:
    moods = ("weak_pos", "neutral", "weak_neg", "neutral")
    week = [
        full_signal(n, now() - timedelta(hours=2 + n / 3), ("BTC",), sentiment_strength=moods[n * n % 4])
        for n in range(300)
    ]
    burst = [
        full_signal(90_000 + n, now(), ("BTC",), sentiment_strength="strong_pos", certainty=1, relevance=1)
        for n in range(100)
    ]
    output = tmp_path / "out"
    async with RedisStore(redis_url) as store:
        aggregator = Aggregator(store, prefix=redis_prefix)
        await aggregator.apply({("signals", 0): list(enumerate(week))})
        arguments = (redis_url, "--prefix", redis_prefix)
        with example("alert_on_zscore", *arguments, output=output):
            async with Redis.from_url(redis_url) as client:

                async def subscribed() -> bool:
                    return dict(await client.pubsub_numsub(f"{redis_prefix}changes")).popitem()[1] == 1

                await eventually(subscribed)
            for number in range(2):  # the second changes nothing that has not been said
                offset = len(week) + number * len(burst)
                batch = [signal | {"id": f"{signal['id']}-{number}"} for signal in burst]
                await aggregator.apply({("signals", 0): list(enumerate(batch, offset))})
                await eventually(lambda: "KRW-BTC greedy z=+" in output.read_text())
            assert output.read_text().count("KRW-BTC") == 1

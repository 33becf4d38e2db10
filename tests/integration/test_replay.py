"""`kbert replay`: files back onto the raw topic, as they were."""

import asyncio
import csv
import gzip
import itertools
import json
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet
from pydantic import SecretStr
from typer.testing import CliRunner

from schemas.windows import MARKET
from tests.fake_model import FakeEngine
from tests.kafka_io import read_topic
from tests.pipelines import outcomes, pipeline_settings, running_pipeline
from tests.processes import environment_of
from tests.servers import KafkaServer, Topics
from tests.serving import full_signal, send
from tests.waiting import eventually
from worker.aggregation import Aggregation
from worker.cli import app
from worker.clients import Aggregates
from worker.errors import KbertError
from worker.history.messages import BadLine
from worker.history.pace import Pace
from worker.history.replay import Replay, shift_to_now
from worker.settings import AggregateSettings, RedisSettings, Settings


@pytest.fixture
async def settings(
    kafka: KafkaServer, topics: Topics, redis_url: str, redis_prefix: str
) -> AsyncIterator[Settings]:
    made = await pipeline_settings(
        kafka,
        topics,
        redis=RedisSettings(url=SecretStr(redis_url), prefix=redis_prefix),
        aggregates=AggregateSettings(group_id=f"aggregates-{redis_prefix}", session_timeout=6.0),
    )
    yield made


@dataclass
class Done:
    """How a command ended."""

    exit_code: int
    stderr: str


async def replay(settings: Settings, *arguments: str | Path) -> Done:
    """Run `kbert replay …`, as a process: it takes over the signals."""
    process = await started(settings, "replay", *arguments)
    async with asyncio.timeout(60):
        _, said = await process.communicate()
    assert process.returncode is not None
    return Done(process.returncode, said.decode())


async def started(settings: Settings, *arguments: str | Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "worker", *map(str, arguments)),
        env=environment_of(settings),
        stderr=subprocess.PIPE,
    )


async def sent(settings: Settings) -> list[dict[str, Any]]:
    """What the raw topic holds, by id."""
    records = await read_topic(settings.kafka.bootstrap_servers, settings.topics.raw)
    return sorted((json.loads(record.value) for record in records), key=lambda one: str(one["id"]))


def messages(count: int, start: datetime, gap: float = 1.0) -> list[dict[str, Any]]:
    coins = ("비트", "이더", "리플")
    return [
        {
            "id": f"m{n:03}",
            "source": "room",
            "text": f'{coins[n % 3]} 간다, "{n}"',
            "author": f"author{n % 4}",
            "published_at": (start + timedelta(seconds=gap * n)).isoformat().replace("+00:00", "Z"),
        }
        for n in range(count)
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if ".jsonl" in path.name:
        body = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        path.write_bytes(gzip.compress(body) if path.suffix == ".gz" else body)
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        times = [datetime.fromisoformat(row["published_at"]) for row in rows]
        table = pyarrow.Table.from_pylist(
            [row | {"published_at": time} for row, time in zip(rows, times, strict=True)]
        )
        parquet.write_table(table, path)
    return path


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "csv", "parquet"])
async def test_every_format_sends_ids_times_and_texts(
    settings: Settings, tmp_path: Path, ending: str
) -> None:
    rows = messages(1_200, datetime(2026, 3, 1, tzinfo=UTC))  # more than a chunk and a batch
    done = await replay(settings, write(tmp_path / f"m.{ending}", rows))
    assert done.exit_code == 0, done.stderr
    assert "1200 messages sent" in done.stderr
    assert "0 left out" in done.stderr
    found = await sent(settings)
    assert [{name: one[name] for name in rows[0]} for one in found] == sorted(rows, key=lambda one: one["id"])


async def test_replayed_twice_counts_once(settings: Settings, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    rows = messages(120, now - timedelta(minutes=30))
    for row in rows[:20]:
        del row["id"]  # known again by its line
    path = write(tmp_path / "m.jsonl", rows)
    url, prefix = settings.redis.url.get_secret_value(), settings.redis.prefix
    stop = asyncio.Event()
    async with (
        running_pipeline(settings, FakeEngine()) as (pipeline, _, running),
        Aggregation(settings) as aggregation,
        Aggregates(url, prefix=prefix) as aggregates,
    ):
        counting = asyncio.create_task(aggregation.run(stop))
        try:
            await replay(settings, path)
            await outcomes(pipeline, running, 120)
            coins = ("BTC", "ETH", "XRP")

            async def counted() -> bool:
                board = await aggregates.all("24h", at=now)
                return sum(board[coin].messages for coin in coins if coin in board) == 120

            await eventually(counted, timeout=40, what="120 messages counted")
            once = await aggregates.all("24h", at=now)
            await replay(settings, path)
            await outcomes(pipeline, running, 240)
            # One more, behind the repeats, tells when they have been read.
            marker = [row | {"id": f"marker{n}"} for n, row in enumerate(rows[20:60])]
            await replay(settings, write(tmp_path / "marker.jsonl", marker))

            async def marked() -> bool:
                board = await aggregates.all("24h", at=now)
                return sum(board[coin].messages for coin in coins) >= 160

            await eventually(marked, timeout=40, what="the marker counted")
            twice = await aggregates.all("24h", at=now)
        finally:
            stop.set()
            await counting
    assert sum(twice[coin].messages for coin in coins) == sum(once[coin].messages for coin in coins) + 40
    assert {coin: twice[coin].unique_authors for coin in coins} == {
        coin: once[coin].unique_authors for coin in coins
    }
    assert once[MARKET].messages + 40 == twice[MARKET].messages


async def test_an_export_of_signals_is_replayed(settings: Settings, tmp_path: Path) -> None:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    await send(
        settings, *(full_signal(n, at + timedelta(seconds=n), text=f"비트 {n}\n둘") for n in range(30))
    )
    await send(settings, full_signal(99, at, text=None))
    for ending in ("jsonl", "csv", "parquet"):
        path = tmp_path / f"s.{ending}"
        arguments = ["export", "signals", "-o", str(path)]
        await asyncio.to_thread(CliRunner().invoke, app, arguments, env=environment_of(settings))
        done = await replay(settings, path)
        assert done.exit_code == 1
        assert "30 messages sent" in done.stderr
        assert "one of text, title or body is required" in done.stderr
    found = await sent(settings)
    assert len(found) == 90
    assert {one["id"] for one in found} == {f"message-{n}" for n in range(30)}
    assert all(one["text"] == f"비트 {one['id'][8:]}\n둘" for one in found)
    assert all(one["author"] == f"{int(one['id'][8:]) % 41:016x}" for one in found)


async def test_bad_lines_are_named_and_the_rest_is_sent(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    good = json.dumps(messages(1, datetime(2026, 3, 1, tzinfo=UTC))[0])
    path.write_text("\n".join([good, '{"id": "x"', "", '{"likes": 3}', "그냥 글"]) + "\n")
    done = await replay(settings, path)
    assert done.exit_code == 1
    assert "left out m.jsonl:2:" in done.stderr
    assert "left out m.jsonl:4:" in done.stderr
    assert "2 messages sent" in done.stderr
    assert "2 left out" in done.stderr
    without, given = [one["id"] for one in await sent(settings)]
    assert without.startswith("line-5-")
    assert given == "m000"


async def test_now_moves_the_last_to_the_present_and_keeps_the_gaps(
    settings: Settings, tmp_path: Path
) -> None:
    rows = messages(5, datetime(2020, 1, 1, tzinfo=UTC), gap=60)
    began = datetime.now(UTC)
    await replay(settings, write(tmp_path / "m.jsonl", [rows[4], *rows[:4]]), "--now")
    times = [datetime.fromisoformat(one["published_at"]) for one in await sent(settings)]
    assert began <= times[4] <= datetime.now(UTC)
    assert [(b - a).total_seconds() for a, b in itertools.pairwise(times)] == [60.0] * 4


async def test_a_time_that_means_none_does_not_move_the_others(settings: Settings, tmp_path: Path) -> None:
    """9999-12-31 was the latest: every other message was moved before the year 1, in a traceback."""
    rows = messages(4, datetime(2020, 1, 1, tzinfo=UTC), gap=60)
    rows[1]["published_at"] = "9999-12-31T00:00:00Z"
    began = datetime.now(UTC)
    done = await replay(settings, write(tmp_path / "m.jsonl", rows), "--now", "--speed", "max")
    assert done.exit_code == 1
    assert "3 messages sent" in done.stderr
    assert "left out m.jsonl: id m001: --now moves 9999-12-31" in done.stderr
    times = [datetime.fromisoformat(one["published_at"]) for one in await sent(settings)]
    assert began <= times[-1] <= datetime.now(UTC)
    assert [(b - a).total_seconds() for a, b in itertools.pairwise(times)] == [120.0, 60.0]


def test_the_latest_time_of_a_file_is_at_most_a_year_ahead(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    path = write(tmp_path / "m.jsonl", messages(1, now + timedelta(days=30)))
    assert abs(shift_to_now(path, 10_000) + timedelta(days=30)) < timedelta(minutes=5)
    write(path, messages(1, now + timedelta(days=400)))
    with pytest.raises(KbertError, match="at most a year from now"):
        shift_to_now(path, 10_000)


async def test_an_interrupt_says_what_was_sent(settings: Settings, tmp_path: Path) -> None:
    path = write(tmp_path / "m.jsonl", messages(5, datetime(2026, 3, 1, tzinfo=UTC), gap=3_600))
    process = await started(settings, "replay", path, "--speed", "1")
    try:

        async def first() -> bool:
            return len(await sent(settings)) == 1

        await eventually(first, timeout=40, what="the first message")
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(20):
            _, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 130
    assert said.decode().startswith("1 messages sent to ")
    assert "not the whole file" in said.decode()
    assert "Traceback" not in said.decode()


@pytest.mark.parametrize("line", ["{", "", "x" * 2_000])
async def test_an_interrupt_ends_a_large_file_without_messages(
    settings: Settings, tmp_path: Path, line: str
) -> None:
    """Nothing waited while lines were refused, so that Ctrl-C was heard when the file ended."""
    source = settings.source.model_copy(update={"max_payload_bytes": 100})
    path = tmp_path / "m.jsonl"
    path.write_text(f"{line}\n" * 5_000)
    stop, told = asyncio.Event(), 0

    def tell(_: BadLine) -> None:
        nonlocal told
        told += 1

    sending = Replay(
        settings.model_copy(update={"source": source}), path, Pace(), shift=timedelta(), tell=tell
    )
    asyncio.get_running_loop().call_later(0, stop.set)
    await sending.run(stop)
    assert told < 5_000
    assert not sending.done.complete


def test_pace() -> None:
    start = datetime(2026, 3, 1, tzinfo=UTC)
    times = [
        start,
        start + timedelta(seconds=60),
        start + timedelta(seconds=30),
        None,
        start + timedelta(hours=1),
    ]
    assert [pace.due(time) for pace in [Pace(speed=60)] for time in times] == [0, 1, 1, 1, 60]
    assert [pace.due(time) for pace in [Pace(rate=4)] for time in times] == [0, 0.25, 0.5, 0.75, 1]
    assert [pace.due(time) for pace in [Pace()] for time in times] == [0] * 5


@pytest.mark.parametrize(
    ("name", "body", "options", "sentence"),
    [
        ("m.txt", "", [], r"ends in none of \.jsonl"),
        ("m.csv", "when,what\n1,2\n", [], "has no column text, title or body"),
        ("m.parquet", "no parquet", [], "is not Parquet"),
        ("m.csv", 'id,text\n1,"open', [], "cannot be read to its end"),
        ("m.jsonl", '{"text": "no time"}\n', ["--now"], "No message of .* has a published_at"),
        ("m.jsonl", "", ["--speed", "fast"], "neither max nor a number"),
        ("absent.jsonl", None, [], "cannot be read"),
    ],
)
async def test_a_file_that_is_no_replay_is_one_sentence(  # noqa: PLR0917 - parameters have names
    settings: Settings, tmp_path: Path, name: str, body: str | None, options: list[str], sentence: str
) -> None:
    if body is not None:
        (tmp_path / name).write_text(body)
    done = await replay(settings, tmp_path / name, *options)
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert re.match(f"kbert: .*{sentence}", line)

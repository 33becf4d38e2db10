"""`kbert export`: what comes out is what was produced."""

import asyncio
import csv
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet
from typer.testing import CliRunner, Result

from schemas.signals import CryptoSignal
from schemas.windows import MARKET
from tests.fake_traffic import signal as traffic_signal
from tests.kafka_io import produce
from tests.processes import environment_of
from tests.recount import RELEVANT_FROM
from tests.servers import KafkaServer, Topics
from tests.serving import full_signal, send, serve_settings, week_of_signals
from worker.aggregates.project import Aggregator
from worker.aggregates.series import METRICS
from worker.aggregates.store import RedisStore
from worker.cli import app
from worker.clients import Aggregates
from worker.embedded import free_port
from worker.errors import ConfigurationError, ConnectionFailedError, KbertError
from worker.history.columns import CRYPTO_COLUMNS
from worker.history.formulas import unescape_formula
from worker.history.writing import writer
from worker.settings import Settings

START = datetime(2026, 3, 1, tzinfo=UTC)


async def export(settings: Settings, *arguments: str) -> Result:
    """Run `kbert export …`; its error is raised."""
    return await asyncio.to_thread(
        CliRunner().invoke, app, ["export", *arguments], env=environment_of(settings), catch_exceptions=False
    )


@pytest.fixture
async def settings(kafka: KafkaServer, topics: Topics, redis_url: str, redis_prefix: str) -> Settings:
    return await serve_settings(kafka, topics, redis_url, redis_prefix)


def signals(count: int, **fields: Any) -> list[dict[str, Any]]:
    """Signals a minute apart, with texts that are hard on a file format."""
    texts = ('"따옴표", 쉼표', "줄\n바꿈\r\n둘", "하나\r둘", "=1+1", "'-1", "🚀 비트 간다", "", None)
    return [
        full_signal(
            n,
            START + timedelta(minutes=n),
            ("BTC", "ETH") if n % 3 == 0 else () if n % 3 == 1 else ("XRP",),
            certainty=n / 97,
            emotions=["hope", "greed"] if n % 2 else [],
            text=texts[n % len(texts)],
            **fields,
        )
        for n in range(count)
    ]


def normal(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """As the contract has them, by id."""
    parsed = [CryptoSignal.model_validate(one).model_dump() for one in found]
    return sorted(parsed, key=lambda one: int(one["id"].rpartition("-")[2]))


def nested(row: dict[str, Any]) -> dict[str, Any]:
    """Columns named by a path back into objects."""
    record: dict[str, Any] = {}
    for name, value in row.items():
        *parents, last = name.split(".")
        place = record
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return record


def from_csv(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = []
        for row in csv.DictReader(file):
            values: dict[str, Any] = dict(row)
            for name in ("coins", "emotions"):
                values[name] = values[name].split(";") if values[name] else []
            values["author_hash"] = values["author_hash"] or None
            values["text"] = unescape_formula(values["text"])
            rows.append(nested(values))
        return rows


async def test_every_format_gives_back_what_was_produced(settings: Settings, tmp_path: Path) -> None:
    produced = signals(90)
    await send(settings, *produced[:40])
    await send(settings, *produced[35:])  # five of them twice, as after a worker died
    await produce(settings.kafka.bootstrap_servers, settings.topics.signals, [b"{}", b"\xff", b"[]"])
    said = [
        (await export(settings, "signals", "-o", str(tmp_path / f"s.{ending}"))).stderr
        for ending in ("parquet", "csv", "jsonl")
    ]
    assert all("90 signals" in line and "5 repeats" in line and "3 records" in line for line in said)
    table = parquet.read_table(tmp_path / "s.parquet")
    assert table.column_names == [column.name for column in CRYPTO_COLUMNS]
    assert str(table.schema.field("published_at").type) == "timestamp[us, tz=UTC]"
    assert str(table.schema.field("coins").type).startswith("list<")
    assert normal([nested(row) for row in table.to_pylist()]) == normal(produced)
    lines = (tmp_path / "s.jsonl").read_text().splitlines()
    assert normal([json.loads(line) for line in lines]) == normal(produced)
    # CSV has an empty cell for an empty text and for none.
    as_csv = [one | {"text": one["text"] or ""} for one in produced]
    assert normal(from_csv(tmp_path / "s.csv")) == normal(as_csv)


async def test_one_id_in_two_rooms_is_two_signals(settings: Settings) -> None:
    await send(settings, *(full_signal(n, START, source=room) for n in range(9) for room in ("a", "b", "b")))
    done = await export(settings, "signals", "-o", "-")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    pairs = {(one["source"], one["id"]) for one in found}
    assert (len(found), len(pairs)) == (18, 18)
    assert "9 repeats" in done.stderr


async def test_ends_of_the_range_are_exact(settings: Settings) -> None:
    produced = signals(30)
    for n, one in enumerate(produced):  # published as numbered, processed the other way round
        one["processed_at"] = produced[29 - n]["published_at"]
    await send(settings, *produced)
    ends = ["--from", "2026-03-01T00:10:00Z", "--to", "2026-03-01T09:20:00+09:00"]

    async def ids(*arguments: str) -> list[int]:
        done = await export(settings, "signals", "-o", "-", *ends, *arguments)
        return sorted(int(json.loads(line)["id"].rpartition("-")[2]) for line in done.stdout.splitlines())

    assert await ids("--by", "published_at") == list(range(10, 20))
    produced_ids = [n for n in range(30) if 10 <= 29 - n < 20]
    assert await ids() == produced_ids
    assert await ids("--coin", "BTC") == [n for n in produced_ids if n % 3 == 0]
    assert await ids("--emotion", "greed", "--min-certainty", "0.17") == [17, 19]
    assert await ids("--action", "sell") == []


@pytest.mark.parametrize("by", ["processed_at", "published_at"])
async def test_a_range_may_begin_before_there_were_clocks(settings: Settings, by: str) -> None:
    await send(settings, *signals(3))
    done = await export(settings, "signals", "-o", "-", "--from", "0001-01-01", "--by", by)
    assert len(done.stdout.splitlines()) == 3


async def test_an_empty_range_is_a_file_with_columns(settings: Settings, tmp_path: Path) -> None:
    await send(settings, *signals(3))
    for ending in ("parquet", "csv"):
        await export(settings, "signals", "-o", str(tmp_path / f"s.{ending}"), "--from", "2027-01-01")
    assert parquet.read_table(tmp_path / "s.parquet").num_rows == 0
    assert from_csv(tmp_path / "s.csv") == []
    assert (tmp_path / "s.csv").read_text("utf-8-sig").startswith("id,source,kind,")


async def test_it_ends_while_signals_keep_coming(settings: Settings, tmp_path: Path) -> None:
    await send(settings, *signals(50))
    stop = asyncio.Event()
    number = 1_000

    async def go_on() -> None:
        nonlocal number
        while not stop.is_set():
            number += 1
            await send(settings, full_signal(number, START))

    going = asyncio.create_task(go_on())
    try:
        async with asyncio.timeout(60):
            await export(settings, "signals", "-o", str(tmp_path / "s.jsonl"))
    finally:
        stop.set()
        await going
    found = {json.loads(line)["id"] for line in (tmp_path / "s.jsonl").read_text().splitlines()}
    assert found >= {f"message-{n}" for n in range(50)}


async def test_signals_of_traffic_news(settings: Settings, topics: Topics, tmp_path: Path) -> None:
    topic = await topics.make("traffic", 2)
    settings = settings.model_copy(update={"traffic": settings.traffic.model_copy(update={"signals": topic})})
    produced = [
        traffic_signal(n, "2026-03-01T00:00:00Z", label=n % 2, probability=0.25, source="a")
        for n in range(20)
    ]
    await produce(settings.kafka.bootstrap_servers, topic, [json.dumps(one).encode() for one in produced])
    await export(settings, "signals", "--pipeline", "traffic", "-o", str(tmp_path / "t.parquet"))
    rows = parquet.read_table(tmp_path / "t.parquet").to_pylist()
    assert {(row["id"], row["label"]) for row in rows} == {(one["id"], one["label"]) for one in produced}


async def test_one_id_of_two_newswires_is_two_articles(settings: Settings, topics: Topics) -> None:
    topic = await topics.make("traffic")
    settings = settings.model_copy(update={"traffic": settings.traffic.model_copy(update={"signals": topic})})
    rows = [traffic_signal(n, "2026-03-01T00:00:00Z", source=wire) for n in range(9) for wire in "abb"]
    await produce(settings.kafka.bootstrap_servers, topic, [json.dumps(row).encode() for row in rows])
    done = await export(settings, "signals", "--pipeline", "traffic", "-o", "-")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len({(one["source"], one["id"]) for one in found}) == len(found) == 18
    assert "9 repeats" in done.stderr


async def test_aggregates_are_the_series_of_the_buckets(settings: Settings, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    url, prefix = settings.redis.url.get_secret_value(), settings.redis.prefix
    produced = [(n, one) for n, one in enumerate(week_of_signals(now, 600))]
    async with RedisStore(url) as store:
        await Aggregator(store, prefix=prefix, relevant_from=RELEVANT_FROM).apply({("signals", 0): produced})
    # Points stand on a grid of whole steps, so on even hours here.
    hour = now.replace(hour=now.hour // 2 * 2, minute=0, second=0, microsecond=0)
    since, until = hour - timedelta(days=3), hour - timedelta(days=1)
    ends = ["--from", since.isoformat(), "--to", until.isoformat()]
    path = tmp_path / "a.parquet"
    await export(settings, "aggregates", "-o", str(path), "--window", "4h", "--step", "7200", *ends)
    rows = parquet.read_table(path).to_pylist()
    async with Aggregates(url, prefix=prefix) as aggregates:
        symbols = [MARKET, *await aggregates.coins()]
        assert list(dict.fromkeys(row["symbol"] for row in rows)) == symbols
        for symbol in symbols:
            series = await aggregates.series(
                symbol, list(METRICS), "4h", since=since, until=until, step=7_200
            )
            mine = [row for row in rows if row["symbol"] == symbol]
            kept = [n for n, time in enumerate(series.times) if time < until]
            assert [row["time"] for row in mine] == [series.times[n] for n in kept]
            assert mine[0]["time"] >= since
            assert mine[-1]["time"] == until - timedelta(hours=2)
            for name, values in series.values.items():
                assert [row[name] for row in mine] == [values[n] for n in kept], name
    done = await export(
        settings, "aggregates", "-o", "-", "--coin", "BTC", "--metric", "action", "--format", "csv"
    )
    head, *lines = done.stdout.splitlines()
    assert head == "symbol,window,time," + ",".join(METRICS["action"])
    assert all(line.startswith("BTC,1h,") and line.split(",")[2].endswith(":00Z") for line in lines)
    too_far = await export(settings, "aggregates", "-o", "-", "--from", "30d", "--window", "24h")
    assert "the buckets reach back to" in too_far.stderr
    with pytest.raises(ConfigurationError, match="No signal has named btc: kbert watch"):
        await export(settings, "aggregates", "-o", "-", "--coin", "btc")
    with pytest.raises(ConfigurationError, match="minutes are kept for 25 h"):
        await export(settings, "aggregates", "-o", "-", "--from", "3d", "--window", "5m")


def test_a_file_has_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("what was")

    def interrupted() -> None:
        with writer(path, "csv", CRYPTO_COLUMNS) as file:
            file.write(signals(1)[0])
            assert len(list(tmp_path.iterdir())) == 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("s.csv", "what was")]
    missing = tmp_path / "missing" / "s.csv"
    with (
        pytest.raises(KbertError, match=r"s\.csv cannot be written: No such file"),
        writer(missing, "csv", []),
    ):
        pass


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["signals", "-o", "s.xlsx"], r"ends in none of \.parquet, \.csv and \.jsonl"),
        (["signals", "-o", "-", "--format", "parquet"], "Parquet needs a file"),
        (["signals", "-o", ".", "--format", "csv"], "--out . is a directory"),
        (["aggregates", "-o", "/", "--format", "csv"], "--out / is a directory"),
        (["signals", "-o", "s.csv", "--coin", "btc"], "No signal can name btc, .*: write BTC"),
        (["signals", "-o", "s.csv", "--coin", "XYZZY"], r"XYZZY, .* nor of coins\.user_file .*kbert watch"),
        (["signals", "-o", "s.csv", "--from", "soon"], "--from 'soon' is no time"),
        (["signals", "-o", "s.csv", "--from", "0001-01-01T00:00:00+09:00"], "is no time"),
    ],
)
def test_a_mistake_is_one_sentence(arguments: list[str], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        CliRunner().invoke(app, ["export", *arguments], catch_exceptions=False)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["signals", "-o", "s.csv", "--action", "panic"], "ask_info"),
        (["signals", "-o", "s.csv", "--from", "2026-02-01", "--to", "2026-02-01"], "at or after"),
        (["signals", "-o", "s.csv", "--pipeline", "traffic", "--coin", "BTC"], "filters"),
        (["aggregates", "-o", "s.csv", "--metric", "mood"], "sentiment_index"),
    ],
)
def test_a_wrong_option_names_the_right_ones(arguments: list[str], word: str) -> None:
    done = CliRunner().invoke(app, ["export", *arguments])
    assert done.exit_code == 2
    assert word in done.output


async def test_servers_that_are_not_there(settings: Settings) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    lost = settings.model_copy(
        update={"kafka": settings.kafka.model_copy(update={"bootstrap_servers": nowhere})}
    )
    with pytest.raises(ConnectionFailedError, match=r"kafka\.bootstrap_servers"):
        await export(lost, "signals", "-o", "-")

"""Traffic articles through Kafka and Redis to the index, and the same from a file."""

import asyncio
import json
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from schemas.signals import TrafficSignal
from tests.fake_model import FakeModel
from tests.fake_traffic import FakeTrafficModel, articles, signal
from tests.kafka_io import headers_of, ids, produce, read_topic, settings_for
from tests.servers import KafkaServer, Topics
from tests.waiting import eventually
from worker.aggregates.project import DataLostError
from worker.aggregates.store import RedisStore
from worker.coins import CoinTagger, load_catalogue
from worker.errors import ConfigurationError
from worker.inference.thread import EngineThread
from worker.inference.turns import EngineInTurn, Turns
from worker.narration import Narration
from worker.narrative.build import build_from_articles, build_from_signals
from worker.narrative.index import monthly_index
from worker.narrative.keys import NarrativeKeys
from worker.narrative.project import NarrativeProjector
from worker.narrative.reader import read_sums
from worker.narrative.sums import Accumulator, MonthlySums, contribution
from worker.pipeline import Pipeline
from worker.settings import NarrativeSettings, RedisSettings, Settings, SourceSettings, TrafficSettings
from worker.sink.producer import KafkaSink
from worker.source.consumer import KafkaSource
from worker.tasks import CryptoTask, TrafficTask

PLACE = ("signals.traffic", 0)
TIMES = ("2020-01-31T14:00:00Z", "2020-01-31T16:00:00Z", "2020-03-05T00:00:00Z")


def _signals(count: int, start: int = 0) -> list[tuple[int, dict[str, Any]]]:
    return [
        (n, signal(n, TIMES[n % 3], label=n % 2, probability=(n % 7) / 7, source=f"s{n % 2}"))
        for n in range(start, start + count)
    ]


def _expected(signals: list[tuple[int, dict[str, Any]]]) -> MonthlySums:
    accumulator = Accumulator()
    for _, one in signals:
        accumulator.add(contribution(one))
    return accumulator.sums()


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[RedisStore]:
    async with RedisStore(redis_url) as opened:
        yield opened


async def test_replay_and_overlap_change_nothing(store: RedisStore, redis_prefix: str) -> None:
    projector = NarrativeProjector(store, prefix=redis_prefix)
    signals = _signals(200)
    await projector.apply({PLACE: signals[:120]})
    await projector.apply({PLACE: signals[60:]})
    await projector.apply({PLACE: signals})
    assert await read_sums(store, redis_prefix) == _expected(signals)
    other = NarrativeProjector(store, prefix=redis_prefix, id_window=30)
    assert await other.assign({PLACE: 200}, margin=50) == {PLACE: 150}
    await other.apply({PLACE: signals[150:]})
    assert await read_sums(store, redis_prefix) == _expected(signals)


async def test_a_repeat_right_after_a_restart_counts_once(store: RedisStore, redis_prefix: str) -> None:
    """The ids of the margin alone were known, a tenth of those that a running process remembers."""
    signals = [*_signals(80), (80, {"id": "x"}), *_signals(19, 81)]
    await NarrativeProjector(store, prefix=redis_prefix).apply({PLACE: signals})
    restarted = NarrativeProjector(store, prefix=redis_prefix, id_window=50)
    assert await restarted.assign({PLACE: 100}, margin=5) == {PLACE: 50}
    again = await restarted.apply({PLACE: signals[50:90]})
    assert (again.records, again.fence_skips, again.rejected) == (40, 40, [])
    assert again.stands == {PLACE: 100}, "what was committed stays committed"
    await restarted.apply({PLACE: signals[90:]})
    applied = await restarted.apply({PLACE: [(100, signals[50][1]), (101, signals[94][1])]})
    assert (applied.repeats, applied.stands) == (2, {PLACE: 102})
    assert await read_sums(store, redis_prefix) == _expected([*signals[:80], *signals[81:]])


async def test_one_id_of_two_newswires_is_two_articles(
    store: RedisStore, redis_prefix: str, tmp_path: Path
) -> None:
    """The second newswire's article was dropped as a repeat of the first one's."""
    wires = [one | {"source": wire} for _, one in _signals(50) for wire in ("a", "b", "b")]
    projector = NarrativeProjector(store, prefix=redis_prefix)
    applied = await projector.apply({PLACE: list(enumerate(wires))})
    assert (applied.records, applied.repeats) == (150, 50)
    streamed = await read_sums(store, redis_prefix)
    assert sum(one.articles for sources in streamed.values() for one in sources.values()) == 100
    file = tmp_path / "signals.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in wires))
    assert build_from_signals([file], max_future=60).accumulator.sums() == streamed


async def test_a_repeated_id_counts_once(store: RedisStore, redis_prefix: str) -> None:
    projector = NarrativeProjector(store, prefix=redis_prefix)
    again = [(n + 50, one) for n, one in _signals(50)]
    applied = await projector.apply({PLACE: [*_signals(50), *again]})
    assert (applied.records, applied.repeats) == (100, 50)
    assert await read_sums(store, redis_prefix) == _expected(_signals(50))


async def test_a_replay_on_another_partition_counts_once(store: RedisStore, redis_prefix: str) -> None:
    """With more partitions than before, an id stands on another one."""
    projector = NarrativeProjector(store, prefix=redis_prefix)
    await projector.apply({PLACE: _signals(50)})
    assert (await projector.apply({(PLACE[0], 1): _signals(50)})).repeats == 50
    assert await read_sums(store, redis_prefix) == _expected(_signals(50))


async def test_two_writers_of_one_partition_count_once(store: RedisStore, redis_prefix: str) -> None:
    one, two = (NarrativeProjector(store, prefix=redis_prefix) for _ in range(2))
    signals = _signals(300)
    for projector in (one, two):
        await projector.assign({PLACE: 0})
    await asyncio.gather(
        *(p.apply({PLACE: signals[at : at + 30]}) for at in range(0, 300, 30) for p in (one, two))
    )
    assert await read_sums(store, redis_prefix) == _expected(signals)


async def test_lost_writes_are_noticed_and_read_again(store: RedisStore, redis_prefix: str) -> None:
    projector = NarrativeProjector(store, prefix=redis_prefix, id_window=10)
    signals = _signals(100)
    await projector.apply({PLACE: signals[:50]})
    keys = NarrativeKeys(redis_prefix)
    await store.run(
        [("DEL", keys.fences, keys.months, *(keys.month(m) for m in ("2020-01", "2020-02", "2020-03")))]
    )
    with pytest.raises(DataLostError) as lost:
        await projector.apply({PLACE: signals[50:]})
    assert lost.value.rewind == {PLACE: 0}
    await projector.apply({PLACE: signals})
    assert await read_sums(store, redis_prefix) == _expected(signals)


@pytest.mark.parametrize("anew", [True, False])
async def test_a_topic_that_ends_before_its_fence_goes_on_and_the_months_stay(
    store: RedisStore, redis_prefix: str, anew: bool
) -> None:
    await NarrativeProjector(store, prefix=redis_prefix).apply({PLACE: _signals(100)})
    with pytest.raises(ConfigurationError, match="made anew, or the broker lost its end") as refused:
        await NarrativeProjector(store, prefix=redis_prefix).assign({PLACE: None}, ends={PLACE: 20})
    command = str(refused.value).split("`")[1 if anew else 3]
    await store.run([tuple(shlex.split(command)[1:])])
    projector = NarrativeProjector(store, prefix=redis_prefix)
    assert await projector.assign({PLACE: None}, ends={PLACE: 20}) == {PLACE: 0}
    fresh = _signals(30, start=200)
    await projector.apply({PLACE: [(n - 200, one) for n, one in fresh]})
    assert await read_sums(store, redis_prefix) == _expected(_signals(100) + (fresh if anew else fresh[20:]))


async def test_what_is_no_signal_is_named_and_passed_by(store: RedisStore, redis_prefix: str) -> None:
    projector = NarrativeProjector(store, prefix=redis_prefix)
    good = _signals(3)
    changes: list[dict[str, Any]] = [{"label": 5}, {"published_at": "9999-12-31T20:00:00Z"}]
    bad = [{}, *(good[0][1] | change for change in changes)]
    applied = await projector.apply({PLACE: [*good, *enumerate(bad, 3)]})
    assert [(offset, reason.split(":")[0]) for _, offset, reason in applied.rejected] == [
        (3, "id"),
        (4, "label"),
        (5, "published_at"),
    ]
    assert await read_sums(store, redis_prefix) == _expected(good)


@asynccontextmanager
async def _running(
    settings: Settings, model: Any, task: Any, turns: Turns
) -> AsyncIterator[tuple[Pipeline, "asyncio.Task[None]"]]:
    thread = EngineThread(EngineInTurn(model.engine, turns))
    sink = KafkaSink(settings.kafka, settings.sink)
    await sink.start()
    source = KafkaSource(settings.topics.raw, settings.kafka, settings.source)
    await source.start()
    pipeline = Pipeline(settings, source=source, sink=sink, model=model, engine=thread, task=task)
    stop = asyncio.Event()
    running = asyncio.create_task(pipeline.run(stop))
    try:
        yield pipeline, running
    finally:
        stop.set()
        await asyncio.gather(running, return_exceptions=True)
        await source.stop()
        await sink.stop()
        thread.close()


async def _settings(kafka: KafkaServer, topics: Topics, redis_url: str, prefix: str) -> Settings:
    raw = await topics.make("raw", 2)
    both = settings_for(
        kafka.bootstrap_servers,
        idempotence=kafka.idempotence,
        raw=await topics.make("crypto", 2),
        signals=await topics.make("crypto-signals", 2),
        dead_letter=await topics.make("dead"),
        source=SourceSettings(group_id=f"crypto-{raw}", session_timeout=6.0, drain_timeout=5.0),
        redis=RedisSettings(url=SecretStr(redis_url), prefix=prefix),
        traffic=TrafficSettings(raw=raw, signals=await topics.make("signals", 2), group_id=f"traffic-{raw}"),
        narrative=NarrativeSettings(group_id=f"narrative-{raw}", session_timeout=6.0),
    )
    return both.model_copy(update={"pipelines": ["crypto", "traffic"]})


async def test_stream_and_file_give_the_same_index_and_replay_changes_nothing(
    kafka: KafkaServer, topics: Topics, redis_url: str, redis_prefix: str, tmp_path: Path
) -> None:
    settings = await _settings(kafka, topics, redis_url, redis_prefix)
    rows = articles(600)
    lines = [json.dumps(row).encode() for row in rows]
    await produce(kafka.bootstrap_servers, settings.traffic.raw, lines, partitions=2)
    task = TrafficTask(FakeTrafficModel().info, "[SEP]")
    async with RedisStore(redis_url) as store:

        async def counted() -> int:
            sums = await read_sums(store, redis_prefix)
            return sum(one.articles for sources in sums.values() for one in sources.values())

        stop = asyncio.Event()
        async with (
            Narration(settings) as narration,
            _running(settings.of("traffic"), FakeTrafficModel(), task, Turns()),
        ):
            projecting = asyncio.create_task(narration.run(stop))

            async def is_counted() -> bool:
                return await counted() >= 600

            await eventually(is_counted, timeout=60)
            # The whole topic again, under the same ids: repeats, which count once.
            await produce(kafka.bootstrap_servers, settings.traffic.raw, lines, partitions=2)

            async def repeated() -> bool:
                return len(await read_topic(kafka.bootstrap_servers, settings.traffic.signals)) >= 1_200

            await eventually(repeated, timeout=60)
            stop.set()
            await projecting
        # A reader of its own group starts at the beginning: a replay of the signals.
        group = settings.narrative.model_copy(update={"group_id": f"{settings.narrative.group_id}-again"})
        replay = Narration(settings.model_copy(update={"narrative": group}))
        stop = asyncio.Event()
        async with replay:
            projecting = asyncio.create_task(replay.run(stop))
            await produce(
                kafka.bootstrap_servers,
                settings.traffic.signals,
                [json.dumps(signal(10**6 + n, "2031-01-15T00:00:00Z")).encode() for n in range(2)],
                partitions=2,
            )

            async def has_read_to_the_end() -> bool:
                return await counted() >= 602

            await eventually(has_read_to_the_end, timeout=60)
            stop.set()
            await projecting
        streamed = monthly_index(await read_sums(store, redis_prefix), None, "2021-12")
    records = await read_topic(kafka.bootstrap_servers, settings.traffic.signals)
    assert set(ids(records[:1_200])) >= {"a0", "a599"}
    assert headers_of(records[0]) == {"schema": "traffic-signal/1"}
    assert records[0].key == json.loads(records[0].value)["id"].encode()
    TrafficSignal.model_validate_json(records[0].value)
    file = tmp_path / "articles.jsonl"
    file.write_bytes(b"\n".join(lines))
    built = build_from_articles([file], FakeTrafficModel(), task, max_bytes=100_000, max_future=60)
    assert monthly_index(built.accumulator.sums(), None, "2021-12") == streamed
    assert sum(row.articles for row in streamed) == 600


async def test_both_pipelines_share_one_device_and_both_finish(
    kafka: KafkaServer, topics: Topics, redis_url: str, redis_prefix: str
) -> None:
    settings = await _settings(kafka, topics, redis_url, redis_prefix)
    await produce(
        kafka.bootstrap_servers, settings.topics.raw, [b"%d w" % n for n in range(3_000)], partitions=2
    )
    lines = [json.dumps(row).encode() for row in articles(100)]
    await produce(kafka.bootstrap_servers, settings.traffic.raw, lines, partitions=2)
    crypto_model, turns = FakeModel(), Turns()
    crypto = CryptoTask(crypto_model.info, CoinTagger(load_catalogue()), settings.sink)
    traffic = TrafficTask(FakeTrafficModel().info, "[SEP]")
    async with (
        _running(settings, crypto_model, crypto, turns) as (one, _),
        _running(settings.of("traffic"), FakeTrafficModel(), traffic, turns) as (two, _),
    ):
        await eventually(lambda: one.counts.signals == 3_000 and two.counts.signals == 100, timeout=60)
    assert len(await read_topic(kafka.bootstrap_servers, settings.topics.signals)) == 3_000
    assert len(await read_topic(kafka.bootstrap_servers, settings.traffic.signals)) == 100

"""``kbert demo``: the whole flow on embedded servers, the bundled model and sample chatter."""

import asyncio
import gzip
import itertools
import random
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Final

import orjson
from pydantic import SecretStr
from rich.console import Console
from rich.live import Live
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from schemas.aggregates import WindowMetrics
from schemas.windows import MARKET
from worker.app import run_services, stop_on_signals
from worker.clients import Aggregates, SignalStream
from worker.commands.board import Board, coin_lines, signal_line
from worker.commands.common import InterruptedEarlyError
from worker.embedded import EmbeddedKafka, EmbeddedRedis, free_port
from worker.errors import KbertError
from worker.settings import KafkaSettings, MetricsSettings, RedisSettings, Settings
from worker.sink.producer import KafkaSink, OutRecord
from worker.sink.topics import create_topics
from worker.source.counting import TopicCounter
from worker.stopping import stopped_within

SAMPLES: Final = Path(__file__).parent.parent / "bundled" / "samples" / "crypto.jsonl.gz"
_HUMAN_PACE: Final = 6.0  # messages a second
_BROKEN_EVERY: Final = 97
_BROKEN: Final = (
    b'{"text": "\xeb\xb9\x84\xed\x8a\xb8',
    b"\xff\xfe\x00\x01",
    b'{"likes": 3}',
    b'{"text": ""}',
)
_TABLE_SECONDS: Final = 5.0
_FLOOD_TIMEOUT: Final = 600.0


async def run_demo(settings: Settings, *, messages: int | None, exit_when_done: bool, as_json: bool) -> None:
    """Run the demo until it is done or interrupted.

    Args:
        messages: how many raw messages to send; without end where absent.
        exit_when_done: send at full speed, wait for every outcome, and return.
        as_json: print one JSON object at the end instead of the board.
    """
    names = ["worker", "aggregates"]
    if not exit_when_done:
        settings = _with_free_port(settings)
        names.append("serve")
        print(f"Live page: {_page(settings)}   (alive as soon as the model is loaded)", flush=True)
    async with _servers(settings) as local, stop_on_signals() as stop:
        await create_topics(local)
        async with asyncio.TaskGroup() as group:
            services = group.create_task(run_services(local, names, stop))
            try:
                if exit_when_done:
                    await _flood(local, messages or 1_000, as_json, stop)
                else:
                    await _show(local, messages, stop)
            finally:
                stop.set()
            await services


def _with_free_port(settings: Settings) -> Settings:
    """The settings with a port of this machine to serve on: another demo may have the usual one."""
    port = settings.serve.port or free_port()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            port = free_port()
    serve = settings.serve.model_copy(update={"host": "127.0.0.1", "port": port})
    return settings.model_copy(update={"serve": serve})


def _page(settings: Settings) -> str:
    return f"http://{settings.serve.host}:{settings.serve.port}/"


@asynccontextmanager
async def _servers(settings: Settings) -> AsyncIterator[Settings]:
    """The embedded servers, and the settings that lead to them."""
    async with EmbeddedKafka() as kafka, EmbeddedRedis() as redis:
        yield settings_on(settings, kafka.bootstrap_servers, redis.url)


def settings_on(settings: Settings, kafka: str, redis: str) -> Settings:
    """The settings with the embedded servers at these addresses, and nothing that only others understand.

    Whoever tries the demo may have a production's variables exported: its credentials, TLS, transactions,
    replicas and metrics port. Model, coins and batches stay as they are set.
    """
    return settings.model_copy(
        update={
            "pipelines": ["crypto"],
            "delivery": "at_least_once",
            "kafka": KafkaSettings(bootstrap_servers=kafka, idempotent_producer=False),
            "redis": RedisSettings(url=SecretStr(redis), prefix=settings.redis.prefix),
            "topics": settings.topics.model_copy(update={"replication_factor": 1}),
            "metrics": MetricsSettings(),
            "sink": settings.sink.model_copy(
                update={"author_key": settings.sink.author_key or SecretStr(f"{random.getrandbits(128):x}")}
            ),
        }
    )


def samples(run: str, seed: int = 7) -> Iterator[bytes]:
    """Sample messages without end, each with an id of its own; one in 97 is broken on purpose."""
    with gzip.open(SAMPLES, "rt", encoding="utf-8") as lines:
        rows = [orjson.loads(line) for line in lines]
    order = random.Random(seed)
    for number in itertools.count(1):
        if number % _BROKEN_EVERY == 0:
            yield _BROKEN[number // _BROKEN_EVERY % len(_BROKEN)]
            continue
        row = order.choice(rows)
        yield orjson.dumps(
            row | {"id": f"{run}-{number}", "published_at": datetime.now(UTC)}, option=orjson.OPT_UTC_Z
        )


async def _flood(settings: Settings, count: int, as_json: bool, stop: asyncio.Event) -> None:
    """Send ``count`` messages at full speed, and print what came of them."""
    progress = Progress(
        *Progress.get_default_columns()[:2],
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    recount: Counter[str] = Counter()
    aggregates: dict[str, WindowMetrics] = {}
    signals = letters = 0
    started = datetime.now(UTC)
    with progress:
        bar = progress.add_task("classifying", total=count)
        sending = asyncio.create_task(_send(settings, itertools.islice(samples("demo"), count)))
        stream = SignalStream(settings.kafka.bootstrap_servers, topic=settings.topics.signals, since=started)
        outcomes = TopicCounter(settings.kafka, settings.topics.signals, settings.topics.dead_letter)
        try:
            async with asyncio.timeout(_FLOOD_TIMEOUT), ending(sending), stream, outcomes:
                counting = asyncio.create_task(_count(stream, settings, recount))
                async with ending(counting):
                    while signals + letters < count and not stop.is_set():
                        _raise_failed(sending, counting)
                        counts = await outcomes.update(timeout=0.1, at_most=0.3)
                        signals, letters = (
                            counts[settings.topics.signals],
                            counts[settings.topics.dead_letter],
                        )
                        progress.update(bar, completed=signals + letters)
                    if signals + letters >= count:
                        await sending
                        aggregates = await _agreed(settings, recount, signals, stop)
        except TimeoutError:
            raise KbertError(
                f"Of {count} messages only {signals + letters} had an outcome within {_FLOOD_TIMEOUT:g} s."
            ) from None
    equal = {s: m.messages for s, m in aggregates.items()} == _without_total(recount)
    if stop.is_set() and not (equal and signals + letters >= count):
        raise InterruptedEarlyError(
            f"Interrupted: {signals + letters} of {count} messages had an outcome, "
            "and the aggregates were not compared with a recount."
        )
    result = {
        "messages_in": count,
        "signals_out": signals,
        "dead_letters": letters,
        "aggregates_equal_recount": equal,
        "aggregates": {symbol: metrics.model_dump() for symbol, metrics in aggregates.items()},
    }
    if as_json:
        print(orjson.dumps(result, option=orjson.OPT_INDENT_2).decode())
    else:
        print(f"messages in {count}, signals out {signals}, dead letters {letters}")
        print("\n".join(coin_lines(aggregates)))
    if not equal:
        raise KbertError("The aggregates in Redis differ from a recount of the signals topic.")


@asynccontextmanager
async def ending(*tasks: asyncio.Task[None]) -> AsyncIterator[None]:
    """Tasks that are over when the block is left: cancelled, where they are not done.

    A producer that outlived its block was closed by the loop's own end, and aiokafka then left a task of its
    own behind: ``Task was destroyed`` came after the sentence that said why the demo had ended.
    """
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _raise_failed(*tasks: asyncio.Task[None]) -> None:
    """Raise what ended a task."""
    for task in tasks:
        if task.done():
            task.result()


async def _send(settings: Settings, feed: Iterator[bytes]) -> None:
    sink = KafkaSink(settings.kafka, settings.sink)
    await sink.start()
    try:
        while chunk := list(itertools.islice(feed, 500)):
            records = [OutRecord(settings.topics.raw, None, value) for value in chunk]
            await (await sink.send(records)).acknowledged()
    finally:
        await sink.stop()


async def _count(stream: SignalStream, settings: Settings, recount: Counter[str]) -> None:
    async for signal in stream:
        recount.update(signal.coins)
        recount["signals"] += 1
        if signal.relevance >= settings.aggregates.relevant_from:
            recount[MARKET] += 1


async def _agreed(
    settings: Settings, recount: Counter[str], signals: int, stop: asyncio.Event
) -> dict[str, WindowMetrics]:
    """The aggregates, once they hold what the recount of the topic holds (or after 30 s)."""
    url = settings.redis.url.get_secret_value()
    async with Aggregates(url, prefix=settings.redis.prefix) as reader:
        deadline = monotonic() + 30.0
        while True:
            metrics = await reader.all("24h")
            counted = recount["signals"] == signals
            if counted and {s: m.messages for s, m in metrics.items()} == _without_total(recount):
                break
            if monotonic() > deadline or await stopped_within(stop, 0.1):
                break
    return metrics


def _without_total(recount: Counter[str]) -> dict[str, int]:
    return {symbol: count for symbol, count in recount.items() if symbol != "signals"}


async def _show(settings: Settings, messages: int | None, stop: asyncio.Event) -> None:
    """Send at a human pace and show the board; plain lines where there is no terminal."""
    console = Console()
    board = Board("1h")
    url = settings.redis.url.get_secret_value()
    stream = SignalStream(
        settings.kafka.bootstrap_servers, topic=settings.topics.signals, since=datetime.now(UTC)
    )
    async with stream, Aggregates(url, prefix=settings.redis.prefix) as aggregates:
        with Live(console=console, auto_refresh=False) if console.is_terminal else nullcontext() as live:

            async def follow() -> None:
                async for signal in stream:
                    board.add(signal)
                    if live is None:
                        print(signal_line(signal), flush=True)

            following = asyncio.create_task(follow())
            feeding = asyncio.create_task(_feed(settings, messages, stop))
            next_table = monotonic() + _TABLE_SECONDS
            async with ending(following, feeding):
                while not stop.is_set():
                    _raise_failed(following, feeding)
                    board.metrics = await aggregates.all("1h")
                    board.status = (
                        f"Ctrl-C ends   Page {_page(settings)}   Kafka {settings.kafka.bootstrap_servers}   "
                        f"Redis {url}   watch from another terminal with the same settings: kbert watch"
                    )
                    if live is not None:
                        live.update(board.render(console), refresh=True)
                    elif monotonic() >= next_table and board.metrics[MARKET].messages:
                        next_table = monotonic() + _TABLE_SECONDS
                        print("\n".join(["", *coin_lines(board.metrics), ""]), flush=True)
                    await stopped_within(stop, 0.5)


async def _feed(settings: Settings, count: int | None, stop: asyncio.Event) -> None:
    """A Poisson process: chatter comes in bursts."""
    sink = KafkaSink(settings.kafka, settings.sink)
    await sink.start()
    try:
        feed = samples("demo", seed=random.getrandbits(32))
        for value in feed if count is None else itertools.islice(feed, count):
            await (await sink.send([OutRecord(settings.topics.raw, None, value)])).acknowledged()
            if await stopped_within(stop, random.expovariate(_HUMAN_PACE)):
                return
    finally:
        await sink.stop()

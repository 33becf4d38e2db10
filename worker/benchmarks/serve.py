"""The HTTP API under a fixed rate of requests."""

import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, Final

import orjson
from pydantic import SecretStr

from schemas.windows import WINDOWS
from worker.aggregates.project import Aggregator
from worker.aggregates.store import RedisStore
from worker.benchmarks.machine import describe_host
from worker.benchmarks.traffic import make_batches, make_signal
from worker.embedded import EmbeddedKafka, EmbeddedRedis, free_port
from worker.embedded.child import ChildProcess
from worker.errors import KbertError
from worker.settings import KafkaSettings, Settings, load_settings
from worker.sink.producer import KafkaSink, OutRecord
from worker.sink.topics import create_topics

_SYMBOLS: Final = (
    "BTC", "ETH", "XRP", "SOL", "DOGE", "ADA", "TRX", "LINK", "SUI", "PEPE", "SHIB", "AVAX", "DOT", "BCH",
)  # fmt: skip
_SIGNALS_OF_THE_PAST: Final = 30_000
_WEEK: Final = 8 * 86_400
_SIGNALS_A_SECOND: Final = 6.0
_CONNECTIONS: Final = 16
_SORTS: Final = ("volume", "index", "zscore_volume")
_READY_SECONDS: Final = 60.0


async def bench_serve(
    report: Callable[[str], None], *, rate: float = 500.0, seconds: float = 8.0, coins: int = len(_SYMBOLS)
) -> dict[str, Any]:
    """Ask a server that is held to one core for boards, coins, series and recent signals.

    Open loop: a request is due whether or not the one before it has its answer, and its latency counts
    from when it was due. Six signals a second come in meanwhile. Embedded servers, a week of history.

    Returns:
        ``latency_ms``, ``answers`` by status, ``requests_per_second`` asked and done, and
        ``server_core_share``, the part of its core that the server used.
    """
    symbols = _SYMBOLS[:coins] + tuple(f"COIN{n}" for n in range(coins - len(_SYMBOLS)))
    core = max(_cores())
    async with AsyncExitStack() as stack:
        report("starting Kafka and Redis")
        kafka = await stack.enter_async_context(EmbeddedKafka())
        redis = await stack.enter_async_context(EmbeddedRedis())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        settings = load_settings(
            _env_file=None,
            kafka=KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, idempotent_producer=False),
        )
        settings = settings.model_copy(
            update={
                "redis": settings.redis.model_copy(update={"url": SecretStr(redis.url)}),
                "serve": settings.serve.model_copy(update={"port": free_port()}),
            }
        )
        await create_topics(settings)
        store = await stack.enter_async_context(RedisStore(redis.url))
        aggregator = Aggregator(store, prefix=settings.redis.prefix)
        offsets = count()
        report("writing a week of signals")
        for batch in make_batches(_SIGNALS_OF_THE_PAST, _WEEK, symbols):
            records = [(next(offsets), orjson.loads(value)) for value in batch]
            await aggregator.apply({("signals.crypto", 0): records})
        server = ChildProcess(_command(core), folder / "serve.log", _environment(settings))
        stack.callback(server.kill)
        await _until_ready(settings, server)
        feeding = asyncio.create_task(_feed(settings, aggregator, offsets, symbols))
        stack.callback(feeding.cancel)
        paths = _paths(symbols)
        report("warming up")
        await _ask(settings, paths, rate, 2.0)
        report(f"{rate:g} requests a second for {seconds:g} s")
        used = _cpu_seconds(server.pid)
        began = time.perf_counter()
        latencies, answers = await _ask(settings, paths, rate, seconds)
        wall = time.perf_counter() - began
        share = (_cpu_seconds(server.pid) - used) / wall
    centiles = statistics.quantiles(latencies, n=1_000)
    return {
        "machine": describe_host(),
        "coins": len(symbols),
        "connections": _CONNECTIONS,
        "requests_per_second": {"asked": rate, "done": round(len(latencies) / wall, 1)},
        "answers": {str(status): number for status, number in sorted(answers.items())},
        "latency_ms": {
            "p50": round(centiles[499] * 1_000, 2),
            "p95": round(centiles[949] * 1_000, 2),
            "p99": round(centiles[989] * 1_000, 2),
            "max": round(max(latencies) * 1_000, 2),
        },
        "server_core_share": round(share, 2),
    }


def _cores() -> set[int]:
    return os.sched_getaffinity(0) if sys.platform == "linux" else {0}


def _command(core: int) -> list[str]:
    """`kbert serve` on one core, where the system can hold it there."""
    pin = f"os.sched_setaffinity(0, {{{core}}}); " if sys.platform == "linux" else ""
    return [sys.executable, "-c", f"import os, sys; {pin}sys.argv = ['kbert', 'serve']; "
            "from worker.cli import main; main()"]  # fmt: skip


def _environment(settings: Settings) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("KBERT_")} | {
        "KBERT_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
        "KBERT_REDIS__URL": settings.redis.url.get_secret_value(),
        "KBERT_SERVE__PORT": str(settings.serve.port),
    }


async def _until_ready(settings: Settings, server: ChildProcess) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline and server.running:
        try:
            connection = await _Connection.open(settings.serve.port)
        except OSError:
            await asyncio.sleep(0.05)
            continue
        status = await connection.get("/readyz")
        connection.close()
        if status == 200:
            return
    raise KbertError(f"The server did not start: {server.log.read_text('utf-8')[-500:]}")


async def _feed(
    settings: Settings, aggregator: Aggregator, offsets: "count[int]", symbols: tuple[str, ...]
) -> None:
    """New signals, on the topic and in the aggregates."""
    rng = random.Random(5)
    sink = KafkaSink(settings.kafka, settings.sink)
    await sink.start()
    try:
        while True:
            offset = next(offsets)
            value = make_signal(offset, datetime.now(UTC), rng, symbols)
            await (await sink.send([OutRecord(settings.topics.signals, None, value)])).acknowledged()
            await aggregator.apply({("signals.crypto", 0): [(offset, orjson.loads(value))]})
            await asyncio.sleep(rng.expovariate(_SIGNALS_A_SECOND))
    finally:
        await sink.stop()


def _paths(symbols: tuple[str, ...]) -> list[str]:
    """What a page and some bots ask for."""
    rng = random.Random(3)
    kinds = (
        lambda: (
            f"/v1/coins?window={rng.choice(WINDOWS)}&sort={rng.choice(('volume', 'index', 'zscore_volume'))}"
        ),
        lambda: f"/v1/coins/{rng.choice(symbols)}",
        lambda: f"/v1/coins/{rng.choice(symbols)}/series?window={rng.choice(('1h', '4h', '24h'))}",
        lambda: f"/v1/signals/recent?coin={rng.choice(symbols)}&limit=30",
    )
    return [rng.choice(kinds)() for _ in range(1_000)]


async def _ask(
    settings: Settings, paths: list[str], rate: float, seconds: float
) -> tuple[list[float], Counter[int]]:
    """Latencies from the time at which each request was due, and the statuses."""
    total = int(rate * seconds)
    numbers = iter(range(total))
    latencies: list[float] = []
    answers: Counter[int] = Counter()
    start = time.perf_counter() + 0.1

    async def ask() -> None:
        connection = await _Connection.open(settings.serve.port)
        for number in numbers:  # shared: whoever is free takes the next
            due = start + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            answers[await connection.get(paths[number % len(paths)])] += 1
            latencies.append(time.perf_counter() - due)
        connection.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(_CONNECTIONS):
            group.create_task(ask())
    return latencies, answers


class _Connection:
    """One kept-alive connection; a client library took longer for a request than the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> "_Connection":
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def get(self, path: str) -> int:
        """The status, once the whole answer is there."""
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        head = await self._reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        await self._reader.readexactly(length)
        return int(lines[0].split()[1])

    def close(self) -> None:
        self._writer.close()


def _cpu_seconds(pid: int) -> float:
    """Processor time of a process so far; 0 where the system does not tell it so."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.is_file():
        return 0.0
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

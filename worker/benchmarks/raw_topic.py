"""Topics of their own for a run, the raw one filled with sample messages."""

import gzip
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from uuid import uuid4

import orjson

from worker.commands.demo import SAMPLES
from worker.settings import Settings
from worker.sink.producer import KafkaSink, OutRecord
from worker.sink.topics import create_topics

_CHUNK = 1_000


def payloads(count: int) -> list[bytes]:
    """Sample messages with ids and without the broken ones of the demo."""
    with gzip.open(SAMPLES, "rt", encoding="utf-8") as lines:
        rows = [orjson.loads(line) for line in lines]
    return [orjson.dumps(row | {"id": f"bench-{n}"}) for n, row in enumerate(islice(cycle(rows), count))]


def on_broker(settings: Settings, bootstrap_servers: str) -> Settings:
    """The settings on the embedded broker.

    It lacks the idempotent producer's requests.
    """
    kafka = settings.kafka.model_copy(
        update={"bootstrap_servers": bootstrap_servers, "idempotent_producer": False}
    )
    return settings.model_copy(update={"kafka": kafka, "delivery": "at_least_once"})


def answered_soon(settings: Settings) -> Settings:
    """The settings for a broker that looks for new records only when a fetch has waited, to measure delays.

    50 fetches a second that find nothing cost worker and broker 8 % of a core.
    """
    source = settings.source.model_copy(update={"fetch_max_wait": 0.02})
    return settings.model_copy(update={"source": source})


def with_own_topics(settings: Settings, raw: str | None = None) -> Settings:
    """The settings with topics and a group that nobody else uses; ``raw`` may be shared."""
    name = f"kbert-bench-{uuid4().hex[:8]}"
    named = {role: f"{name}-{role}" for role in ("raw", "signals", "dead_letter")}
    topics = settings.topics.model_copy(update=named | ({"raw": raw} if raw else {}))
    traffic = settings.traffic.model_copy(
        update={"raw": f"{name}-raw_traffic", "signals": f"{name}-signals_traffic"}
    )
    source = settings.source.model_copy(update={"group_id": name})
    return settings.model_copy(update={"topics": topics, "traffic": traffic, "source": source})


async def fill(settings: Settings, values: Sequence[bytes]) -> None:
    """Make the topics and write ``values`` to the raw one, over all its partitions."""
    await create_topics(settings)
    sink = KafkaSink(settings.kafka, settings.sink)
    await sink.start()
    try:
        for chunk in _chunks(values):
            records = [OutRecord(settings.topics.raw, None, value) for value in chunk]
            await (await sink.send(records)).acknowledged()
    finally:
        await sink.stop()


def _chunks(values: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    return (values[first : first + _CHUNK] for first in range(0, len(values), _CHUNK))

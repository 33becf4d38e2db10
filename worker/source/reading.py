"""Reading a topic from a time to where it ends now."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import UTC, datetime
from time import time
from typing import Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from worker.errors import ConfigurationError
from worker.settings import KafkaSettings
from worker.source.header_names import escape_header_names
from worker.source.membership import stop
from worker.source.reaching import ask, why_unreachable

_SILENT_POLLS: Final = 20
"""Polls of half a second that bring nothing, after which the brokers are asked whether they are there."""


@dataclass(slots=True)
class Reach:
    """How far back a topic goes, as reading it shows."""

    whole_from: datetime | None = None
    """Time from which on no partition is known to lack records: of those that were read from where their
    deleted records end, the latest first time; None where there are none."""


async def read_to_end(
    topic: str,
    kafka: KafkaSettings,
    *,
    setting: str,
    since: datetime | None = None,
    reach: Reach | None = None,
) -> AsyncGenerator[list[ConsumerRecord], None]:
    """The committed records that the topic holds now, a poll at a time, in the order of each partition.

    Args:
        setting: name of the setting that holds the topic, for the error.
        since: records whose timestamp is older may be left out; a broker without an index of times
            (the embedded one) gives them all the same.
        reach: told while it runs how far back every partition goes.

    Raises:
        ConnectionFailedError: no broker answers.
        ConfigurationError: there is no such topic, or this user may not read it.
    """
    started = time() * 1000
    escape_header_names()
    consumer = AIOKafkaConsumer(
        topic,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        fetch_max_wait_ms=100,
        **kafka.client_options(),
    )
    try:
        await consumer.start()
        partitions = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic) or ()]
        if not partitions:
            raise ConfigurationError(
                f"There is no topic {topic}: correct {setting} or run kbert topics --create."
            )
        ends = {tp: end for tp, end in (await consumer.end_offsets(partitions)).items() if end}
        oldest = await consumer.beginning_offsets(partitions)
        positions = dict(oldest)
        if since is not None:
            positions |= await _from(consumer, since, ends)
        cut = {tp for tp in ends if oldest[tp] > 0 and positions[tp] <= oldest[tp]}
        silent = 0
        while any(positions[tp] < end for tp, end in ends.items()):
            polled = await consumer.getmany(timeout_ms=500)
            silent = 0 if polled else silent + 1
            if silent and silent % _SILENT_POLLS == 0:
                await ask(kafka)  # aiokafka waits for a broker without end
            for tp, records in polled.items():
                positions[tp] = records[-1].offset + 1
                # The embedded broker answers the base of the last batch plus one, 11 where 15 records
                # stand, so what is older than this call counts too; the batch comes in one piece.
                end = ends.get(tp, 0)
                if held := [r for r in records if r.offset < end or r.timestamp <= started]:
                    if reach is not None and tp in cut:
                        cut.remove(tp)
                        # Some producers write times that no calendar has.
                        first = datetime.fromtimestamp(min(held[0].timestamp, started) / 1000, UTC)
                        reach.whole_from = max(reach.whole_from or first, first)
                    yield held
            for tp in ends:  # transaction markers and compacted records are never delivered
                positions[tp] = max(positions[tp], await consumer.position(tp))
    except KafkaError as error:
        raise await why_unreachable(kafka, error, topic=topic, setting=setting) from error
    finally:
        await stop(consumer)


async def _from(
    consumer: AIOKafkaConsumer, since: datetime, ends: dict[TopicPartition, int]
) -> dict[TopicPartition, int]:
    """Seek each partition to its first record of that time, and say where that is."""
    # A broker may round timestamps down to whole milliseconds.
    asked = int(since.timestamp() * 1000) - 1
    found = await consumer.offsets_for_times(dict.fromkeys(ends, max(0, asked)))
    starts = {tp: ends[tp] if place is None else place.offset for tp, place in found.items()}
    for tp, offset in starts.items():
        consumer.seek(tp, offset)
    return starts

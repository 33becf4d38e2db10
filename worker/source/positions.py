"""Where to read on where a broker has no record at the position that is asked for.

aiokafka's own resets are told to nobody, and treat a position before the log as one behind it. So both
readers switch them off, and place themselves by what it raises then.
"""

from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError

from worker.telemetry import metrics

log = structlog.get_logger(__name__)

NO_RESET: Final[dict[str, Any]] = {"auto_offset_reset": "none"}
"""Of a consumer that is placed by what is here."""

DROPPED: Final = "their topic has dropped them before they were read: its retention is too short"
"""Why records are lost that lie before the oldest one."""

OUT_OF_PLACE: Final = (OffsetOutOfRangeError, NoOffsetForPartitionError)
"""What a poll of such a consumer raises; the records of other partitions come with the next ones."""


def positions_of(error: KafkaError) -> dict[TopicPartition, int | None]:
    """The partitions of an `OUT_OF_PLACE` and the offsets asked for; None where none was committed."""
    if isinstance(error, NoOffsetForPartitionError):
        return {error.args[0]: None}
    return dict(error.args[0])


async def bounds_of(consumer: AIOKafkaConsumer, partition: TopicPartition) -> tuple[int, int] | None:
    """The oldest offset of a log and the one behind its last record; None where no broker answers."""
    try:
        oldest = await consumer.beginning_offsets([partition])
        end = await consumer.end_offsets([partition])
    except KafkaError as error:
        log.warning("bounds.unknown", partition=partition.partition, error=repr(error))
        return None
    return oldest[partition], end[partition]


def report_lost(pipeline: str, service: str, partition: TopicPartition, count: int, reason: str) -> None:
    """Tell of records that nobody can read any more.

    Args:
        pipeline: label of the metric.
        service: the other one, ``worker`` or ``aggregates``.
    """
    metrics.RECORDS_LOST.labels(pipeline, service).inc(count)
    log.error(
        "records.lost", topic=partition.topic, partition=partition.partition, count=count, reason=reason
    )


def report_uncommitted(partition: TopicPartition, oldest: int, applied: int | None = None) -> None:
    """Tell of a log whose first records are gone, and of which nothing says whether they were all read.

    Kafka forgets the offsets of a group that is away for ``offsets.retention.minutes`` (a week).

    Args:
        applied: next offset by what is known to have been applied, where anything is.
    """
    log.warning(
        "records.uncommitted",
        topic=partition.topic,
        partition=partition.partition,
        read_from=oldest,
        **({} if applied is None else {"applied_up_to": applied - 1}),
        reason="the group has no offset: it is new, or was away for longer than the brokers keep offsets "
        "(offsets.retention.minutes), and what the topic dropped meanwhile is lost to it",
    )


def report_shorter(partition: TopicPartition, position: int, oldest: int, end: int) -> None:
    """Tell of a log that ends before what was read, or committed, of it."""
    log.error(
        "records.read_again",
        topic=partition.topic,
        partition=partition.partition,
        committed=position,
        end=end,
        read_from=oldest,
        reason="the topic was made anew, or its broker has lost the end of it",
    )

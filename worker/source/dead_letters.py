"""Reading the dead-letter topic."""

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from datetime import datetime

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from pydantic import ValidationError

from schemas.dead_letters import DeadLetterHeaders, DeadLetterReason
from worker.errors import ConfigurationError
from worker.settings import KafkaSettings
from worker.source.reaching import why_unreachable


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter and where it stands on its topic."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]
    about: DeadLetterHeaders

    @property
    def place(self) -> str:
        """``partition:offset``, as the commands take it."""
        return f"{self.partition}:{self.offset}"

    @property
    def failed_at(self) -> datetime:
        """When it was given up."""
        return datetime.fromisoformat(self.about.failed_at)


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Which dead letters are meant; None means any."""

    reasons: Collection[DeadLetterReason] | None = None
    since: datetime | None = None
    until: datetime | None = None
    places: Collection[str] | None = None

    def takes(self, letter: DeadLetter) -> bool:
        """Whether all conditions hold."""
        return (
            (self.reasons is None or letter.about.reason in self.reasons)
            and (self.since is None or letter.failed_at >= self.since)
            and (self.until is None or letter.failed_at < self.until)
            and (self.places is None or letter.place in self.places)
        )


async def read_dead_letters(
    topic: str, kafka: KafkaSettings, wanted: DeadLetterFilter
) -> AsyncIterator[DeadLetter]:
    """Every dead letter that the topic holds now and the filter takes.

    Records without our headers are another program's and are passed over.

    Raises:
        ConnectionFailedError: no broker answers.
        ConfigurationError: there is no such topic.
    """
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
    except KafkaError as error:
        await consumer.stop()
        raise await why_unreachable(kafka, error) from error
    try:
        partitions = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic) or ()]
        if not partitions:
            raise ConfigurationError(
                f"There is no topic {topic}: correct topics.dead_letter or run kbert topics --create."
            )
        ends = {tp: end for tp, end in (await consumer.end_offsets(partitions)).items() if end}
        positions = await consumer.beginning_offsets(partitions)
        while any(positions[tp] < end for tp, end in ends.items()):
            for tp, records in (await consumer.getmany(timeout_ms=500)).items():
                positions[tp] = records[-1].offset + 1
                for record in records:
                    letter = _letter(record)
                    if letter is not None and wanted.takes(letter):
                        yield letter
            for tp in ends:  # transaction markers and compacted records are never delivered
                positions[tp] = max(positions[tp], await consumer.position(tp))
    finally:
        await consumer.stop()


def _letter(record: ConsumerRecord) -> DeadLetter | None:
    headers = list(record.headers or ())
    try:
        about = DeadLetterHeaders.model_validate(
            {name: (value or b"").decode("utf-8", "replace") for name, value in headers}
        )
    except ValidationError:
        return None
    return DeadLetter(record.partition, record.offset, record.key, record.value or b"", headers, about)

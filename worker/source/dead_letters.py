"""Reading the dead-letter topic."""

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from datetime import datetime

from aiokafka import ConsumerRecord
from pydantic import ValidationError

from schemas.dead_letters import DeadLetterHeaders, DeadLetterReason
from worker.settings import KafkaSettings
from worker.source.reading import read_to_end


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
    async for records in read_to_end(topic, kafka, setting="topics.dead_letter"):
        for record in records:
            letter = _letter(record)
            if letter is not None and wanted.takes(letter):
                yield letter


def _letter(record: ConsumerRecord) -> DeadLetter | None:
    headers = list(record.headers or ())
    try:
        about = DeadLetterHeaders.model_validate(
            {name: (value or b"").decode("utf-8", "replace") for name, value in headers}
        )
    except ValidationError:
        return None
    return DeadLetter(record.partition, record.offset, record.key, record.value or b"", headers, about)

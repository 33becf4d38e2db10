"""How many records topics hold, by reading them."""

from collections import Counter
from time import monotonic
from types import TracebackType
from typing import Self

from aiokafka import AIOKafkaConsumer

from worker.settings import KafkaSettings
from worker.source.header_names import escape_header_names
from worker.source.membership import stop


class TopicCounter:
    """Counts the committed records of topics from their beginning; an async context manager.

    End offsets would be cheaper, but they count transaction markers too, and the embedded
    broker answers the base of the last batch plus one: 11 where 15 records stand.
    """

    def __init__(self, kafka: KafkaSettings, *topics: str) -> None:
        self.counts: Counter[str] = Counter()
        self._topics = topics
        self._kafka = kafka

    async def __aenter__(self) -> Self:
        escape_header_names()
        self._consumer = AIOKafkaConsumer(
            *self._topics,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            fetch_max_wait_ms=50,
            **self._kafka.client_options(),
        )
        try:
            await self._consumer.start()
        except BaseException:
            await stop(self._consumer)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._consumer.stop()

    async def update(self, timeout: float = 0.2, at_most: float = 1.0) -> Counter[str]:
        """Read on until nothing comes for ``timeout`` seconds, or for ``at_most``; counts so far by topic."""
        until = monotonic() + at_most
        while polled := await self._consumer.getmany(timeout_ms=int(timeout * 1000), max_records=10_000):
            for partition, records in polled.items():
                self.counts[partition.topic] += len(records)
            if monotonic() >= until:  # under load something always comes
                break
        return self.counts

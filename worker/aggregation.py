"""The wiring of the aggregates: signals topic to Redis windows.

One reader a partition, strictly in order. The offset is committed after Redis has the
signals, but what decides is the fence in Redis: whatever is read again changes nothing.
"""

import asyncio
from types import TracebackType
from typing import Self

import orjson
import structlog

from worker.aggregates.project import Aggregator, DataLostError
from worker.aggregates.store import RedisStore
from worker.settings import Settings
from worker.source.follower import Partition, SignalFollower, SignalRecord
from worker.telemetry import metrics

log = structlog.get_logger(__name__)

_COMMIT_SECONDS = 1.0


class Aggregation:
    """Follows the signals topic and applies every batch to Redis; an async context manager."""

    def __init__(self, settings: Settings) -> None:
        redis = settings.redis
        self._store = RedisStore(redis.url.get_secret_value(), cluster=redis.cluster)
        self._aggregator = Aggregator(
            self._store,
            prefix=redis.prefix,
            relevant_from=settings.aggregates.relevant_from,
            id_window=settings.aggregates.id_window,
        )
        self._margin = settings.aggregates.margin
        self._follower = SignalFollower(
            settings.topics.signals,
            settings.kafka,
            settings.aggregates,
            on_assigned=self._start_offsets,
            on_revoked=self._aggregator.revoke,
        )

    async def __aenter__(self) -> Self:
        """Connect to both.

        Raises:
            ConnectionFailedError: Kafka or Redis does not answer.
        """
        try:
            await self._store.check()
            await self._follower.start()
        except BaseException:
            await self._store.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._follower.stop()
        finally:
            await self._store.aclose()

    async def run(self, stop: asyncio.Event) -> None:
        """Apply signals until ``stop`` is set."""
        log.info("aggregates.ready", redis=self._store.address)
        loop = asyncio.get_running_loop()
        commit_at = loop.time() + _COMMIT_SECONDS
        while not stop.is_set():
            polled = await self._follower.poll()
            if polled:
                await self._apply(polled)
            if loop.time() >= commit_at:
                await self._follower.commit()
                commit_at = loop.time() + _COMMIT_SECONDS
        log.info("aggregates.stopped")

    async def _apply(self, polled: dict[Partition, list[SignalRecord]]) -> None:
        batch = {partition: [parsed(record) for record in records] for partition, records in polled.items()}
        try:
            applied = await self._aggregator.apply(batch)
        except DataLostError as lost:
            metrics.AGGREGATE_REWINDS.inc()
            log.warning("aggregates.rewind", reason=str(lost))
            for partition, offset in lost.rewind.items():
                await self._follower.rewind(partition, offset)
            return
        for place, offset, reason in applied.rejected:
            log.warning("aggregates.not_a_signal", place=place, offset=offset, reason=reason)
        metrics.AGGREGATED.inc(applied.records - applied.repeats - len(applied.rejected))
        metrics.AGGREGATE_REPEATS.inc(applied.repeats)
        for partition, records in polled.items():
            self._follower.applied(partition, records[-1].offset + 1)

    async def _start_offsets(self, committed: dict[Partition, int | None]) -> dict[Partition, int]:
        return await self._aggregator.assign(committed, self._margin)


def parsed(record: SignalRecord) -> tuple[int, dict[str, object]]:
    """What is no JSON object becomes an empty one, which the aggregator rejects with its offset."""
    try:
        value = orjson.loads(record.value)
    except orjson.JSONDecodeError:
        value = {}
    return record.offset, value if isinstance(value, dict) else {}

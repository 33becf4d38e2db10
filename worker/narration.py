"""The wiring of the narrative index: traffic signals to months in Redis.

As in `aggregation`: strictly in order, and what decides is the fence in Redis.
"""

import asyncio
from types import TracebackType
from typing import Self

import structlog

from worker.aggregates.project import DataLostError
from worker.aggregates.store import RedisStore
from worker.aggregation import parsed
from worker.narrative.project import NarrativeProjector
from worker.settings import Settings
from worker.source.follower import Partition, SignalFollower, SignalRecord

log = structlog.get_logger(__name__)

_COMMIT_SECONDS = 1.0


class Narration:
    """Follows the traffic signals and adds every batch to its months; an async context manager."""

    def __init__(self, settings: Settings) -> None:
        redis = settings.redis
        self._store = RedisStore(redis.url.get_secret_value(), cluster=redis.cluster)
        self._projector = NarrativeProjector(
            self._store, prefix=redis.prefix, id_window=settings.narrative.id_window
        )
        self._margin = settings.narrative.margin
        self._follower = SignalFollower(
            settings.traffic.signals,
            settings.kafka,
            settings.narrative,
            on_assigned=self._start_offsets,
            on_revoked=self._projector.revoke,
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
        """Add signals until ``stop`` is set."""
        log.info("narrative.ready", redis=self._store.address)
        loop = asyncio.get_running_loop()
        commit_at = loop.time() + _COMMIT_SECONDS
        while not stop.is_set():
            polled = await self._follower.poll()
            if polled:
                await self._apply(polled)
            if loop.time() >= commit_at:
                await self._follower.commit()
                commit_at = loop.time() + _COMMIT_SECONDS
        log.info("narrative.stopped")

    async def _apply(self, polled: dict[Partition, list[SignalRecord]]) -> None:
        batch = {partition: [parsed(record) for record in records] for partition, records in polled.items()}
        try:
            applied = await self._projector.apply(batch)
        except DataLostError as lost:
            log.warning("narrative.rewind", reason=str(lost))
            for partition, offset in lost.rewind.items():
                await self._follower.rewind(partition, offset)
            return
        for place, offset, reason in applied.rejected:
            log.warning("narrative.not_a_signal", place=place, offset=offset, reason=reason)
        for partition, records in polled.items():
            self._follower.applied(partition, records[-1].offset + 1)

    async def _start_offsets(self, committed: dict[Partition, int | None]) -> dict[Partition, int]:
        return await self._projector.assign(committed, self._margin)

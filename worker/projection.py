"""What the wiring of signals into Redis shares: a follower, a projector, and what binds them.

One reader a partition, strictly in order. The offset is committed after Redis has the
signals, but what decides is the fence in Redis: whatever is read again changes nothing.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from time import monotonic
from types import TracebackType
from typing import Protocol, Self

import structlog

from worker.aggregates.project import DataLostError
from worker.aggregates.store import RedisStore, RefusedForNowError
from worker.errors import ConnectionFailedError, KbertError
from worker.settings import AggregateSettings, KafkaSettings, NarrativeSettings, PipelineName
from worker.source.follower import Found, Partition, SignalFollower, SignalRecord, Start
from worker.telemetry import metrics
from worker.telemetry.health import HEALTH
from worker.telemetry.seldom import Seldom
from worker.watchdog import Look, watch

log = structlog.get_logger(__name__)

_COMMIT_SECONDS = 1.0
_STOP_SECONDS = 5.0
_CHECK_SECONDS = 1.0


class Outcome(Protocol):
    """What became of a batch."""

    @property
    def records(self) -> int:
        """How many it held."""
        ...

    @property
    def repeats(self) -> int:
        """Those whose id stood on the partition before."""
        ...

    @property
    def fence_skips(self) -> int:
        """Those that Redis had already, by their fence, and whose id is no repeat."""
        ...

    @property
    def rejected(self) -> list[tuple[Partition, int, str]]:
        """Partition, offset and reason of what is no signal."""
        ...

    @property
    def stands(self) -> Mapping[Partition, int]:
        """Offset of each partition to commit: what is read again below it is no news."""
        ...


class Projector(Protocol):
    """Applies signals to Redis, each once: `Aggregator`, `NarrativeProjector`."""

    async def check(self) -> None:
        """Raise where Redis does not answer or refuses, RefusedForNowError where that passes."""
        ...

    async def assign(
        self,
        committed: Mapping[Partition, int | None],
        margin: int,
        ends: Mapping[Partition, int] | None,
        oldest: Mapping[Partition, int],
    ) -> dict[Partition, int]:
        """Where to start reading each partition."""
        ...

    def applied(self, partition: Partition) -> int:
        """Next offset of an assigned partition by what Redis has applied; 0 for nothing."""
        ...

    def revoke(self, partitions: Collection[Partition]) -> None:
        """Forget partitions."""
        ...

    async def apply(self, batch: Mapping[Partition, Sequence[tuple[int, bytes]]]) -> Outcome:
        """Apply signals as JSON in offset order, or raise DataLostError."""
        ...


class Projection:
    """Follows a signals topic and applies every batch to Redis; an async context manager.

    Args:
        name: of the log events.
        topic: the signals topic.
        group: consumer group, margin and poll size.
        prefix: before every key.
        stall_limit: seconds without progress after which `run` fails.
        pipeline: whose signals they are.
    """

    def __init__(
        self,
        name: str,
        *,
        topic: str,
        kafka: KafkaSettings,
        group: AggregateSettings | NarrativeSettings,
        store: RedisStore,
        prefix: str,
        projector: Projector,
        stall_limit: float,
        pipeline: PipelineName,
    ) -> None:
        self._name = name
        self._topic = topic
        self._store = store
        self._projector = projector
        self._margin = group.margin
        self._prefix = prefix
        self._stall_limit = stall_limit
        self._records = 0
        self._seldom = Seldom(log)
        for counter in (metrics.PROJECTION_REWINDS, metrics.PROJECTION_REJECTED):
            counter.labels(name)  # born at 1, its first step would be no increase to an alert
        self._follower = SignalFollower(
            topic,
            kafka,
            group,
            on_assigned=self._start_offsets,
            # The embedded broker answers ends that are too low: any restart would look like a new topic.
            ends_are_exact=kafka.idempotent_producer,
            on_revoked=projector.revoke,
            stall_limit=stall_limit,
            pipeline=pipeline,
        )

    async def __aenter__(self) -> Self:
        """Connect to both; waits while Redis is full, a replica or the like.

        Raises:
            ConnectionFailedError: Kafka or Redis does not answer.
            ConfigurationError: one of them refuses us.
        """
        try:
            await self._check()
            with HEALTH.part(self._name) as report:
                report("joining the consumer group")
                await self._follower.start()
        except BaseException:
            await self.__aexit__(None, None, None)
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

    async def _check(self) -> None:
        has_answered = False
        with HEALTH.part(self._name) as report:
            while True:
                try:
                    return await self._projector.check()
                except ConnectionFailedError as error:
                    # A batch would wait as well; raised, it would take the services beside this one along.
                    # Where nothing has ever answered, the address may be wrong.
                    has_answered = has_answered or isinstance(error, RefusedForNowError)
                    if not has_answered:
                        raise
                    report(str(error))
                    metrics.READY.labels(self._name).set(0)
                    self._seldom.warning(f"{self._name}.redis_refuses", reason=str(error))
                await asyncio.sleep(_CHECK_SECONDS)

    async def run(self, stop: asyncio.Event) -> None:
        """Apply signals until ``stop`` is set."""
        log.info(f"{self._name}.ready", redis=self._store.address)
        following = asyncio.create_task(self._follow(stop))
        stopping = asyncio.create_task(stop.wait())
        watching = asyncio.create_task(watch(self._name, self._stall_limit, self._look))
        try:
            await asyncio.wait({following, stopping, watching}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()
            # A batch waits for Redis as long as it takes; a shutdown does not, since the fences tell.
            await asyncio.wait({following}, timeout=_STOP_SECONDS)
        finally:
            stopping.cancel()
            watching.cancel()
            if following.cancel():
                log.warning(f"{self._name}.batch_abandoned")
            await asyncio.wait({following})
        if not following.cancelled():
            following.result()
        elif not stop.is_set():
            raise KbertError(f"The task of {self._name} has ended by itself: it stops, to be started anew.")
        log.info(f"{self._name}.stopped")

    async def _follow(self, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        commit_at = loop.time() + _COMMIT_SECONDS
        while not stop.is_set():
            polled = await self._follower.poll()
            if polled:
                self._records += 1
                await self._apply(polled)
            if loop.time() >= commit_at:
                await self._follower.commit()
                commit_at = loop.time() + _COMMIT_SECONDS

    async def _apply(self, polled: dict[Partition, list[SignalRecord]]) -> None:
        try:
            applied = await self._projector.apply(polled)
        except DataLostError as lost:
            metrics.PROJECTION_REWINDS.labels(self._name).inc()
            log.warning(f"{self._name}.rewind", reason=str(lost))
            for partition, offset in lost.rewind.items():
                start = await self._follower.rewind(partition, offset)
                if start is not None:
                    self._follower.applied(partition, start)
            await self._follower.commit()  # a restart before all is read again must not skip it
            return
        for place, offset, reason in applied.rejected:
            self._seldom.warning(f"{self._name}.not_a_signal", place=place, offset=offset, reason=reason)
        metrics.PROJECTED.labels(self._name).inc(
            applied.records - applied.repeats - applied.fence_skips - len(applied.rejected)
        )
        metrics.PROJECTION_REPEATS.labels(self._name).inc(applied.repeats)
        metrics.PROJECTION_FENCE_SKIPS.labels(self._name).inc(applied.fence_skips)
        metrics.PROJECTION_REJECTED.labels(self._name).inc(len(applied.rejected))
        for partition, stands in applied.stands.items():
            self._follower.applied(partition, stands)

    async def _look(self, timeout: float) -> Look:
        lag = await self._follower.lag(timeout)
        problem, excused = None, False
        # A batch waits for Redis as long as it takes, and a new process would wait as well.
        if (waiting := self._store.waiting) is not None:
            seconds = monotonic() - waiting.since
            problem, excused = f"Redis has taken nothing for {seconds:.0f} s ({waiting.reason})", True
        elif lag is None:
            problem = "Kafka does not answer"
        elif not self._follower.joined:
            problem = "the consumer group has not assigned partitions yet"
        elif self._follower.topic_is_gone:
            problem = f"there is no topic {self._topic}"
        else:
            try:
                async with asyncio.timeout(timeout):
                    await self._store.check(self._prefix)
            except RefusedForNowError:
                problem, excused = "Redis refuses for now", True
            except (ConnectionFailedError, TimeoutError):
                problem, excused = "Redis does not answer", True
        return Look(
            moved=self._records,
            idle=lag is not None and not any(lag.values()),
            problem=problem,
            excused=excused,
        )

    async def _start_offsets(self, found: Found) -> dict[Partition, Start]:
        starts = await self._projector.assign(found.committed, self._margin, found.ends, found.oldest)
        return {p: Start(offset, self._projector.applied(p)) for p, offset in starts.items()}

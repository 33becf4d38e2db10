"""Signals of a time range out of their topic."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from pydantic import BaseModel, ValidationError

from schemas.signals import CryptoSignal, TrafficSignal
from worker.history.repeats import SeenIds
from worker.settings import PipelineName, Settings, topic_setting
from worker.signal_filter import SignalFilter
from worker.source.reading import Reach, read_to_end

By = Literal["processed_at", "published_at"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_CONTRACTS: Final[dict[PipelineName, type[CryptoSignal | TrafficSignal]]] = {
    "crypto": CryptoSignal,
    "traffic": TrafficSignal,
}


@dataclass(frozen=True, slots=True)
class Range:
    """Times from ``since`` on and before ``until``, by one of a signal's two times; None is open."""

    since: datetime | None = None
    until: datetime | None = None
    by: By = "processed_at"

    def holds(self, signal: CryptoSignal | TrafficSignal) -> bool:
        """Whether the signal lies in it."""
        time: datetime = getattr(signal, self.by)
        return (self.since is None or time >= self.since) and (self.until is None or time < self.until)


@dataclass(slots=True)
class ReadCounts:
    """What was found on the topic."""

    signals: int = 0
    repeats: int = 0
    unreadable: int = 0
    reach: Reach = field(default_factory=Reach)


async def signals_of(
    settings: Settings,
    pipeline: PipelineName,
    within: Range,
    wanted: SignalFilter,
    counts: ReadCounts,
) -> AsyncGenerator[Mapping[str, Any], None]:
    """Each signal once, as its contract's fields with times as datetimes, in the order of each partition.

    The topic is read up to where it ended at the call. A signal is written after it is processed, so
    reading starts at the record of ``since``; it never ends early, because a worker that waited for
    the broker writes late.

    Args:
        wanted: for crypto signals.
        counts: added to while it runs.

    Raises:
        ConnectionFailedError: no broker answers.
        ConfigurationError: there is no such topic.
    """
    contract = _CONTRACTS[pipeline]
    since = within.since
    if since is not None and within.by == "published_at":
        # Nothing is published later than this past its processing: the worker sets it back.
        ahead = timedelta(seconds=settings.source.max_future)
        since = max(since, _EPOCH + ahead) - ahead  # --from 0001-01-01 has nothing before it
    topic = settings.of(pipeline).topics.signals
    records = read_to_end(
        topic, settings.kafka, setting=topic_setting(pipeline, "signals"), since=since, reach=counts.reach
    )
    with SeenIds() as seen:
        async with aclosing(records) as polls:
            async for poll in polls:
                for record in poll:
                    try:
                        signal = contract.model_validate_json(record.value or b"")
                    except ValidationError:
                        counts.unreadable += 1
                        continue
                    if not within.holds(signal):
                        continue
                    if isinstance(signal, CryptoSignal) and not wanted.passes(signal):
                        continue
                    if not seen.is_new(signal.source, signal.id):
                        counts.repeats += 1
                        continue
                    counts.signals += 1
                    yield as_record(signal)


def as_record(signal: BaseModel) -> dict[str, Any]:
    """The fields of the contract, every one of them."""
    return signal.model_dump()

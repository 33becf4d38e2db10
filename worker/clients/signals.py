"""Signals as a bot reads them."""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from pydantic import ValidationError

from schemas import topics
from schemas.signals import CryptoSignal
from schemas.times import to_utc
from worker.errors import ConnectionFailedError
from worker.signal_filter import SignalFilter, as_set, check_symbols
from worker.source.header_names import escape_header_names
from worker.source.membership import stop
from worker.source.reaching import refusal

log = structlog.get_logger(__name__)

_REMEMBERED_IDS = 100_000


class SignalStream:
    """Async iterator over ``signals.crypto``; use it as an async context manager.

    ::

        async with SignalStream("127.0.0.1:9092", coins=["BTC"], min_certainty=0.6) as stream:
            async for signal in stream:
                ...

    Args:
        bootstrap_servers: ``host:port``, several joined by commas.
        topic: the signals topic.
        coins: only signals that name one of these symbols.
        actions: only these values of ``action_signal``.
        sentiments: only these values of ``sentiment_strength``.
        emotions: only signals that show one of these.
        min_certainty: only signals at least as certain.
        min_relevance: only signals at least as relevant.
        since: start with signals processed at this time or later, in UTC where it has no zone; by
            default with new ones.
        group_id: share the partitions with other streams of this group, and go on after a
            restart where the group left off; a new group starts with new signals, and reads partitions
            that appear later from their beginning. Without it each stream sees everything.
        auto_commit: with a group, commit by itself what was handed out. Off, `commit` says what was
            really done with, so that a killed reader gets the rest again.
        client_options: further keyword arguments of an aiokafka client, such as TLS and SASL.

    Raises ConfigurationError for a filter that cannot be meant: a string or nothing for a list, an unknown
    label, a coin that is no symbol, a score outside 0..1.

    At least once: a worker that died may have sent a signal twice. Repeats among the last
    100,000 signals, by source and id, are removed here.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        topic: str = topics.SIGNALS_CRYPTO,
        coins: Collection[str] | None = None,
        actions: Collection[str] | None = None,
        sentiments: Collection[str] | None = None,
        emotions: Collection[str] | None = None,
        min_certainty: float = 0.0,
        min_relevance: float = 0.0,
        since: datetime | None = None,
        group_id: str | None = None,
        auto_commit: bool = True,
        **client_options: Any,
    ) -> None:
        self._address = bootstrap_servers
        self._topic = topic
        self._wanted = SignalFilter(
            coins=as_set("coins", coins),
            sentiments=as_set("sentiments", sentiments),
            actions=as_set("actions", actions),
            emotions=as_set("emotions", emotions),
            min_certainty=min_certainty,
            min_relevance=min_relevance,
        )
        check_symbols(self._wanted.coins or ())
        self._since = None if since is None else to_utc(since)
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()
        self.unreadable = 0
        """Records that are no CryptoSignal: another schema version, or another program's."""
        self._options: dict[str, Any] = {
            "bootstrap_servers": bootstrap_servers,
            "group_id": group_id,
            "isolation_level": "read_committed",
            **client_options,
        }
        self._auto_commit = group_id is not None and auto_commit
        self._from_now = group_id is None and since is None

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            ConnectionFailedError: no broker answers.
            ConfigurationError: there is no such topic, or this user may not read it.
        """
        # Only now: a consumer that is made and never stopped complains, and a task that is cancelled
        # between its making and its start would leave one.
        escape_header_names()
        self._consumer = AIOKafkaConsumer(
            self._topic,
            enable_auto_commit=self._auto_commit,
            auto_offset_reset="latest" if self._from_now else "earliest",
            fetch_max_wait_ms=100,
            **self._options,
        )
        try:
            starts: Mapping[TopicPartition, int] = {}
            if self._options["group_id"] is not None and self._since is None:
                starts = await self._place_group()
            await self._consumer.start()
            for partition in starts.keys() & self._consumer.assignment():
                self._consumer.seek(partition, starts[partition])
            if self._since is not None:
                await self._seek_to(self._since)
        except BaseException as error:
            await stop(self._consumer)
            if not isinstance(error, KafkaError):
                raise
            raise refusal(error, topic=self._topic) or ConnectionFailedError(
                f"No Kafka broker answers at {self._address}: start one or correct the address ({error})."
            ) from error
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._consumer.stop()

    async def __aiter__(self) -> AsyncIterator[CryptoSignal]:
        """Signals that pass the filters, in the order of each partition."""
        async for record in self._consumer:
            try:
                signal = CryptoSignal.model_validate_json(record.value or b"")
            except ValidationError:
                self.unreadable += 1
                continue
            if self._since is not None and signal.processed_at < self._since:
                continue
            if self._wanted.passes(signal) and self._is_new(signal):
                yield signal

    async def check(self, timeout: float = 2.0) -> None:
        """Ask the brokers whether they are there.

        Raises:
            ConnectionFailedError: no answer within ``timeout`` seconds.
        """
        mine = self._consumer.assignment()
        try:
            async with asyncio.timeout(timeout):
                await (self._consumer.end_offsets(mine) if mine else self._consumer.topics())
        except (TimeoutError, KafkaError) as error:
            raise ConnectionFailedError(f"No Kafka broker answers at {self._address}.") from error

    async def places(self) -> dict[TopicPartition, int]:
        """How far signals were handed out: the next offset of each partition, for `commit`."""
        found = {}
        for partition in self._consumer.assignment():
            with contextlib.suppress(IllegalStateError):  # another member has it meanwhile
                found[partition] = await self._consumer.position(partition)
        return found

    async def commit(self, places: Mapping[TopicPartition, int]) -> None:
        """Tell the group that everything before these places is done with.

        What another member has meanwhile is left out: that member starts before these places, and
        repeats are what every reader of at least once has to expect.
        """
        mine = {p: offset for p, offset in places.items() if p in self._consumer.assignment()}
        if not mine:
            return  # aiokafka refuses to commit nothing
        try:
            await self._consumer.commit(mine)
        except (CommitFailedError, IllegalStateError) as error:
            log.warning("signals.not_committed", error=str(error))

    def _is_new(self, signal: CryptoSignal) -> bool:
        identity = signal.source, signal.id
        if identity in self._seen:
            return False
        self._seen[identity] = None
        if len(self._seen) > _REMEMBERED_IDS:
            self._seen.popitem(last=False)
        return True

    async def _place_group(self) -> Mapping[TopicPartition, int]:
        """Commit the ends of all partitions where the group has no place in any, before it is joined.

        Else a group without a place would start anew after each restart, and pass over what came
        in between. Partitions that alone have no place appeared since.

        Returns:
            Where to start without a commit: others are in the group, and none has read this topic.
        """
        consumer = AIOKafkaConsumer(enable_auto_commit=False, **self._options)
        consumer.assign([TopicPartition(self._topic, 0)])  # joins no group, and asks for the topic's metadata
        try:
            await consumer.start()
            partitions = [
                TopicPartition(self._topic, p) for p in consumer.partitions_for_topic(self._topic) or ()
            ]
            consumer.assign(partitions)
            fresh = [partition for partition in partitions if await consumer.committed(partition) is None]
            if not fresh or len(fresh) < len(partitions):
                return {}
            ends: dict[TopicPartition, int] = await consumer.end_offsets(fresh)
            try:
                await consumer.commit(ends)
            except CommitFailedError:
                return ends  # only an empty group takes it
            return {}
        finally:
            await consumer.stop()

    async def _seek_to(self, since: datetime) -> None:
        """To the first record written at that time: a signal is never written before it is processed."""
        partitions = [
            TopicPartition(self._topic, p) for p in self._consumer.partitions_for_topic(self._topic) or ()
        ]
        asked = max(0, int(since.timestamp() * 1000))  # aiokafka refuses a time before 1970
        found = await self._consumer.offsets_for_times(dict.fromkeys(partitions, asked))
        mine = self._consumer.assignment()
        for partition, place in found.items():
            if partition not in mine:
                continue
            if place is None:
                await self._consumer.seek_to_end(partition)
            else:
                self._consumer.seek(partition, place.offset)

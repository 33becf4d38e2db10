"""Where a stream of a group begins, what a relay commits of it, and what is taken for a repeat."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest
import time_machine
from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.signals import CryptoSignal
from tests.kafka_io import committed, produce
from tests.servers import KafkaServer, Topics
from tests.serving import full_signal, now
from tests.waiting import eventually
from worker.clients import SignalStream
from worker.clients.bots.relay import relay


class Watched(SignalStream):
    """Counts how often it was asked how far it is."""

    asked = 0
    furthest = 0

    async def places(self) -> dict[TopicPartition, int]:
        places = await super().places()
        self.asked += 1
        self.furthest = max([self.furthest, *places.values()])
        return places


class Group:
    """Relays of one group on one topic that want only BTC; ``got`` holds the numbers of their signals."""

    def __init__(self, address: str, topic: str) -> None:
        self.address, self.topic, self.name = address, topic, f"relays-{topic}"
        self.got: list[int] = []

    async def send(self, *numbers: int, coin: str = "BTC") -> None:
        """Each to the next partition."""
        values = [orjson.dumps(full_signal(number, now(), (coin,))) for number in numbers]
        await produce(self.address, self.topic, values, partitions=len(numbers))

    @asynccontextmanager
    async def relaying(self, deliver: Any = None) -> AsyncIterator[Watched]:
        async def keep(signal: CryptoSignal) -> None:
            self.got.append(int(signal.id.removeprefix("message-")))

        stop = asyncio.Event()
        stream = Watched(self.address, topic=self.topic, coins=["BTC"], group_id=self.name, auto_commit=False)
        async with stream:
            work = asyncio.create_task(relay(stream, deliver or keep, stop, queue=10, drain_timeout=0.1))
            try:
                yield stream
            finally:
                stop.set()
                await work

    @asynccontextmanager
    async def other_member(self, topic: str) -> AsyncIterator[None]:
        """Somebody of the group who reads another topic."""
        async with AIOKafkaConsumer(topic, bootstrap_servers=self.address, group_id=self.name):
            yield

    async def commit(self, places: Mapping[int, int]) -> None:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.address, group_id=self.name, enable_auto_commit=False
        )
        offsets = {TopicPartition(self.topic, partition): place for partition, place in places.items()}
        consumer.assign(list(offsets))
        async with consumer:
            await consumer.commit(offsets)

    async def place(self) -> int | None:
        return (await committed(self.address, self.name, self.topic, 1))[0]


async def test_a_new_group_begins_with_new_signals_and_misses_none_over_a_restart(
    kafka: KafkaServer, topics: Topics
) -> None:
    group = Group(kafka.bootstrap_servers, await topics.make("signals"))
    await group.send(1)
    async with group.relaying():
        pass
    await group.send(2)
    async with group.relaying():
        await eventually(lambda: group.got, what="what came between the two")
    assert group.got == [2]


async def test_what_the_filters_leave_out_is_committed_and_nothing_undelivered(
    kafka: KafkaServer, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.clients.bots.relay._COMMIT_SECONDS", 0.05)
    group = Group(kafka.bootstrap_servers, await topics.make("signals"))

    async def hang(signal: CryptoSignal) -> None:
        await asyncio.Event().wait()

    async def at(place: int) -> bool:
        return await group.place() == place

    async with group.relaying(hang) as stream:
        await group.send(1, coin="ETH")
        await eventually(lambda: at(1), what="the commit of a signal that nobody wants")
        await group.send(2)
        await group.send(3, coin="ETH")
        await eventually(lambda: stream.furthest == 3, what="both to be read")
        asked = stream.asked
        await eventually(lambda: stream.asked > asked + 3, what="the next looks at the places")
        assert await at(1)
    assert await at(1)
    async with group.relaying():
        await eventually(lambda: group.got == [2], what="the one that was not delivered")
        await eventually(lambda: at(3), what="the commit of both")


@pytest.mark.parametrize("busy", [True, False], ids=["while the group runs", "while it does not"])
async def test_partitions_that_appear_later_are_read_from_their_beginning(
    kafka: KafkaServer, topics: Topics, busy: bool
) -> None:
    """One without a commit beside one that has: the embedded broker adds none to a topic."""
    group = Group(kafka.bootstrap_servers, await topics.make("signals", 2))
    await group.commit({0: 0})
    async with group.other_member(await topics.make("other")) if busy else nullcontext():
        await group.send(1, 2)
        async with group.relaying():
            await eventually(lambda: len(group.got) == 2, what="the signals of both partitions")
    assert sorted(group.got) == [1, 2]


async def test_a_member_that_loses_its_last_partition_stays(
    kafka: KafkaServer, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.clients.bots.relay._COMMIT_SECONDS", 0.05)
    group = Group(kafka.bootstrap_servers, await topics.make("signals"))
    async with group.relaying() as one, group.relaying() as two:

        async def idle() -> bool:
            return not all([await one.places(), await two.places()])

        await eventually(idle, what="a member without a partition")
        asked = one.asked, two.asked
        await eventually(lambda: min(one.asked - asked[0], two.asked - asked[1]) > 3, what="further looks")
        await group.send(1)
        await eventually(lambda: group.got == [1], what="the signal")


async def test_the_first_reader_of_a_topic_in_a_busy_group_gets_no_history(
    kafka: KafkaServer, topics: Topics
) -> None:
    group = Group(kafka.bootstrap_servers, await topics.make("signals"))
    async with group.other_member(await topics.make("other")):
        await group.send(1)
        async with group.relaying():
            await group.send(2)
            await eventually(lambda: group.got, what="the new signal")
    assert group.got == [2]


@pytest.mark.parametrize("year", [1, 1960])
async def test_a_stream_may_begin_before_there_were_clocks(
    kafka: KafkaServer, topics: Topics, year: int
) -> None:
    topic = await topics.make("signals")
    address = kafka.bootstrap_servers
    await produce(address, topic, [orjson.dumps(full_signal(1, now()))])
    async with SignalStream(address, topic=topic, since=datetime(year, 1, 1, tzinfo=UTC)) as stream:
        assert (await asyncio.wait_for(anext(aiter(stream)), 30)).id == "message-1"


async def test_the_same_id_in_another_room_is_another_signal(kafka: KafkaServer, topics: Topics) -> None:
    topic = await topics.make("signals")
    sent: Sequence[tuple[str, int]] = [("a", 500), ("b", 500), ("a", 500), ("a", 501)]
    values = [orjson.dumps(full_signal(number, now(), source=room)) for room, number in sent]
    await produce(kafka.bootstrap_servers, topic, values)
    got: list[tuple[str, str]] = []
    async with (
        asyncio.timeout(20),
        SignalStream(kafka.bootstrap_servers, topic=topic, since=now() - timedelta(minutes=1)) as stream,
    ):
        async for signal in stream:
            got.append((signal.source, signal.id))
            if signal.id == "message-501":
                break
    assert got == [("a", "message-500"), ("b", "message-500"), ("a", "message-501")]


def test_a_start_without_a_zone_is_in_utc() -> None:
    at = datetime(2026, 1, 5, 9, tzinfo=UTC)
    with time_machine.travel(at.astimezone(ZoneInfo("Asia/Seoul"))):  # the zone of the process, too
        starts = [SignalStream("127.0.0.1:1", since=since)._since for since in (at, at.replace(tzinfo=None))]
    assert starts == [at, at]

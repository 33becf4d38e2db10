"""What `kbert export signals` says of a topic that does not reach back to --from."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from aiokafka import TopicPartition
from typer.testing import CliRunner

from tests.serving import full_signal
from worker.cli import app

Exported = Callable[[tuple[int, int], str], tuple[int, str]]

DAYS = [datetime(2026, 3, day, tzinfo=UTC) for day in range(1, 9)]


@dataclass
class Record:
    offset: int
    timestamp: int
    value: bytes


class FakeConsumer:
    """Two partitions, a signal a day in turn; of each, its number in ``deleted`` of the oldest are gone."""

    deleted = (0, 0)

    def __init__(self, topic: str, **_: object) -> None:
        self._places = {TopicPartition(topic, n): first for n, first in enumerate(self.deleted)}

    def _all(self, partition: TopicPartition) -> list[Record]:
        times = DAYS[partition.partition :: 2]
        return [
            Record(n, int(time.timestamp() * 1000), json.dumps(full_signal(time.day, time)).encode())
            for n, time in enumerate(times)
        ]

    def partitions_for_topic(self, _topic: str) -> set[int]:
        return {0, 1}

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 4)

    async def beginning_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {tp: self.deleted[tp.partition] for tp in partitions}

    async def offsets_for_times(self, asked: dict[TopicPartition, int]) -> dict[TopicPartition, Any]:
        return {
            tp: next((r for r in self._all(tp)[self.deleted[tp.partition] :] if r.timestamp >= time), None)
            for tp, time in asked.items()
        }

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._places[partition] = offset

    async def position(self, partition: TopicPartition) -> int:
        return self._places[partition]

    async def getmany(self, timeout_ms: int) -> dict[TopicPartition, list[Record]]:
        assert timeout_ms
        polled = {tp: records for tp, at in self._places.items() if (records := self._all(tp)[at:])}
        self._places = dict.fromkeys(self._places, 4)
        return polled


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Exported:
    """Runs the export: how many signals, and what it said."""

    def run(deleted: tuple[int, int], since: str) -> tuple[int, str]:
        monkeypatch.setattr("worker.source.reading.AIOKafkaConsumer", FakeConsumer)
        monkeypatch.setattr(FakeConsumer, "deleted", deleted)
        done = CliRunner().invoke(
            app, ["export", "signals", "-o", "-", "--from", since], catch_exceptions=False
        )
        return len(done.stdout.splitlines()), done.stderr

    return run


@pytest.mark.parametrize(
    ("deleted", "since", "count", "day"),
    [
        ((2, 2), "2026-03-02", 4, 6),  # days 1 to 4 are gone
        ((2, 0), "2026-03-02", 6, 5),  # of the other partition nothing is gone
        ((0, 3), "2026-03-02", 4, 8),
        ((1, 2), "2026-03-03T12:00:00Z", 4, 6),  # one partition alone does not reach as far
    ],
)
def test_it_says_how_far_back_every_partition_reaches(
    exported: Exported, deleted: tuple[int, int], since: str, count: int, day: int
) -> None:
    found, said = exported(deleted, since)
    assert found == count
    assert f"signals.crypto reaches back to 2026-03-0{day}T00:00:00Z only" in said


@pytest.mark.parametrize(
    ("since", "count"),
    [("2026-03-06T00:00:00Z", 3), ("2026-03-06T12:00:00Z", 2), ("2026-04-01T00:00:00Z", 0)],
)
def test_it_says_nothing_where_older_records_stand(exported: Exported, since: str, count: int) -> None:
    found, said = exported((2, 2), since)
    assert found == count
    assert "reaches back" not in said


def test_it_says_nothing_of_a_topic_that_lost_nothing(exported: Exported) -> None:
    found, said = exported((0, 0), "2026-02-01")
    assert found == 8
    assert "reaches back" not in said

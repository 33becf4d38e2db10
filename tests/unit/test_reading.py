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

DAYS = [datetime(2026, 3, day, tzinfo=UTC) for day in range(1, 9)]


@dataclass
class Record:
    offset: int
    timestamp: int
    value: bytes


class FakeConsumer:
    """Two partitions, a signal a day in turn; the oldest ``deleted`` of each are gone."""

    deleted = 0

    def __init__(self, topic: str, **_: object) -> None:
        self._places = dict.fromkeys((TopicPartition(topic, 0), TopicPartition(topic, 1)), self.deleted)

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
        return dict.fromkeys(partitions, self.deleted)

    async def offsets_for_times(self, asked: dict[TopicPartition, int]) -> dict[TopicPartition, Any]:
        return {
            tp: next((r for r in self._all(tp)[self.deleted :] if r.timestamp >= time), None)
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
def exported(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str], tuple[int, str]]:
    """Runs the export: how many signals, and what it said."""

    def run(deleted: int, since: str) -> tuple[int, str]:
        monkeypatch.setattr("worker.source.reading.AIOKafkaConsumer", FakeConsumer)
        monkeypatch.setattr(FakeConsumer, "deleted", deleted)
        done = CliRunner().invoke(
            app, ["export", "signals", "-o", "-", "--from", since], catch_exceptions=False
        )
        return len(done.stdout.splitlines()), done.stderr

    return run


def test_it_says_how_far_back_the_topic_reaches(exported: Callable[[int, str], tuple[int, str]]) -> None:
    count, said = exported(2, "2026-03-02")  # days 1 to 4 are gone
    assert count == 4
    assert "signals.crypto reaches back to 2026-03-05T00:00:00Z only" in said


@pytest.mark.parametrize(
    ("since", "count"),
    [("2026-03-05T00:00:00Z", 4), ("2026-03-06T12:00:00Z", 2), ("2026-04-01T00:00:00Z", 0)],
)
def test_it_says_nothing_where_older_records_stand(
    exported: Callable[[int, str], tuple[int, str]], since: str, count: int
) -> None:
    found, said = exported(2, since)
    assert found == count
    assert "reaches back" not in said

"""What follows the changes waits longer and longer for a silent Redis, and says so once."""

import asyncio
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from structlog.testing import capture_logs

from schemas.aggregates import AggregateChange
from worker.clients import Aggregates

CHANGE = '{"symbols": ["BTC"], "at": "2026-03-01T00:00:00Z"}'


class FakePubSub:
    """Refuses the first connections, and then has one change."""

    def __init__(self, failures: int) -> None:
        self.failures = failures

    def __call__(self, **_: object) -> "FakePubSub":
        return self

    async def __aenter__(self) -> "FakePubSub":
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def subscribe(self, _channel: str) -> None:
        if self.failures:
            self.failures -= 1
            raise RedisConnectionError("gone")

    async def get_message(self, timeout: float) -> dict[str, Any]:
        assert timeout
        return {"data": CHANGE}


async def test_pauses_grow_up_to_two_seconds_and_one_line_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async def answers(_prefix: str) -> None: ...

    aggregates = Aggregates("redis://127.0.0.1:1/0")
    monkeypatch.setattr(aggregates._store, "check", answers)
    monkeypatch.setattr(aggregates._store.client, "pubsub", FakePubSub(8))
    monkeypatch.setattr(asyncio, "sleep", sleep)
    changes = aggregates.changes()
    with capture_logs() as lines:
        assert await anext(changes) == AggregateChange.model_validate_json(CHANGE)
    await changes.aclose()
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    assert [line["event"] for line in lines] == ["aggregates.changes_interrupted"]

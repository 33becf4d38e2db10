"""Counters of a projection that alerts look at stand at 0 before their first step, and losses step them."""

from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from worker.aggregates.project import Aggregator
from worker.projection import Projection
from worker.settings import AggregateSettings, KafkaSettings
from worker.telemetry.health import HEALTH


def projection(name: str = "never-seen", **parts: Any) -> Projection:
    usual: dict[str, Any] = {
        "topic": "signals",
        "kafka": KafkaSettings(),
        "group": AggregateSettings(),
        "store": Mock(),
        "prefix": "kbert:",
        "projector": Mock(),
        "stall_limit": 180.0,
        "pipeline": "crypto",
    }
    return Projection(name, **usual | parts)


async def test_a_first_loss_of_data_is_an_increase() -> None:
    names = ("kbert_projection_rewinds_total", "kbert_projection_rejected_total")
    labels = {"projection": "never-seen"}
    assert [REGISTRY.get_sample_value(name, labels) for name in names] == [None, None]
    projection()
    assert [REGISTRY.get_sample_value(name, labels) for name in names] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("committed", "fences", "oldest", "lost"),
    [
        (60_000, {}, 0, True),  # it came back empty
        (60_000, {}, 60_000, True),
        (4_000, {}, 0, False),  # nothing that counts so far
        (None, {}, 0, False),
        (60_000, {"BTC": 58_000}, 0, False),
        (200_000, {"BTC": 58_000}, 0, True),  # it came back with an old state
        (200_000, {"BTC": 58_000}, 200_000, False),  # the topic has dropped what is between
        (100_000, {"BTC": 20_000}, 60_000, True),  # not all of it
    ],
)
async def test_data_that_was_lost_while_nobody_looked_is_told(
    committed: int | None,
    fences: dict[str, int],
    oldest: int,
    lost: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = ("signals.crypto", 0)
    aggregator = Aggregator(Mock(), prefix="kbert:")
    monkeypatch.setattr(aggregator, "_standing", AsyncMock(return_value={place: fences}))
    labels = ("kbert_projection_rewinds_total", {"projection": "aggregates"})
    before = REGISTRY.get_sample_value(*labels) or 0.0
    with capture_logs() as said:
        await aggregator.assign({place: committed}, oldest={place: oldest})
    assert [line["event"] for line in said] == ["aggregates.data_lost"] * lost
    assert (REGISTRY.get_sample_value(*labels) or 0.0) - before == lost


async def test_a_reader_that_waits_for_its_group_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = projection("waits", projector=Mock(check=AsyncMock()), store=Mock(aclose=AsyncMock()))
    lacks: list[str | None] = []

    async def start() -> None:
        lacks.append(HEALTH.parts()["waits"])

    monkeypatch.setattr(waiting._follower, "start", start)
    monkeypatch.setattr(waiting._follower, "stop", AsyncMock())
    async with waiting:
        assert lacks == ["joining the consumer group"]


async def test_a_reader_whose_topic_is_gone_is_no_spare_member(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = projection(store=Mock(waiting=None))
    follower = Mock(lag=AsyncMock(return_value={}), joined=True, topic_is_gone=True)
    monkeypatch.setattr(reader, "_follower", follower)
    seen = await reader._look(1.0)
    assert (seen.problem, seen.excused) == ("there is no topic signals", False)

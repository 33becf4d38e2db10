"""Counters of a projection that alerts look at stand at 0 before their first step."""

from unittest.mock import Mock

from prometheus_client import REGISTRY

from worker.projection import Projection
from worker.settings import AggregateSettings, KafkaSettings


async def test_a_first_loss_of_data_is_an_increase() -> None:
    names = ("kbert_projection_rewinds_total", "kbert_projection_rejected_total")
    labels = {"projection": "never-seen"}
    assert [REGISTRY.get_sample_value(name, labels) for name in names] == [None, None]
    Projection(
        "never-seen",
        topic="signals",
        kafka=KafkaSettings(),
        group=AggregateSettings(),
        store=Mock(),
        prefix="kbert:",
        projector=Mock(),
        stall_limit=180.0,
        pipeline="crypto",
    )
    assert [REGISTRY.get_sample_value(name, labels) for name in names] == [0.0, 0.0]

"""A short cut of the matrix: ``make faults`` runs all of it; kills are in test_worker_faults.py."""

from pathlib import Path

import pytest

from tests.faults import backpressure, bad_input, scenarios
from tests.faults.matrix import table
from tests.faults.scenarios import Scenario
from tests.servers import KafkaServer

SHORT: dict[str, tuple[Scenario, int]] = {
    "terminated": (scenarios.terminated, 1),
    "terminated twice": (scenarios.terminated_twice, 1),
    "read-only": (scenarios.read_only, 1),
    "disk full": (scenarios.disk_full, 1),
    "clock jumps": (scenarios.clock_jumps, 1),
    "bad input": (bad_input.short_bad_input, 1),
    "flood": (backpressure.short_flood, 1),
    "poisonous": (scenarios.poisonous, 1),
    "whole batch": (scenarios.whole_batch, 1),
    "out of memory": (scenarios.out_of_memory, 1),
    "redis slow": (scenarios.redis_slow, 1),
}


@pytest.mark.parametrize("name", SHORT)
async def test_after_a_fault_nothing_is_lost(
    name: str, kafka: KafkaServer, checkpoint: Path, tmp_path: Path
) -> None:
    scenario, rounds = SHORT[name]
    async with scenarios.field_of(kafka, checkpoint, tmp_path, exactly_once=False) as place:
        row = await scenario(place, rounds)
    print(table([row]).splitlines()[-1])
    assert row.tally.messages > 0
    assert (row.tally.lost, row.tally.unfinished_committed) == (0, 0)


@pytest.mark.apache_kafka
@pytest.mark.parametrize("name", ["stopped", "rebalances", "terminated", "terminated_twice"])
async def test_in_exactly_once_mode_nothing_is_lost_and_nothing_repeated(
    name: str, kafka: KafkaServer, checkpoint: Path, tmp_path: Path
) -> None:
    async with scenarios.field_of(kafka, checkpoint, tmp_path, exactly_once=True) as place:
        row = await getattr(scenarios, name)(place, 1)
    assert row.tally.messages > 0
    assert (row.tally.lost, row.tally.unfinished_committed, row.tally.repeated) == (0, 0, 0)


@pytest.mark.apache_kafka
@pytest.mark.skipif(
    scenarios.RESTART is None,
    reason="needs the command that kills and restarts the broker: KBERT_TEST_KAFKA_RESTART",
)
@pytest.mark.parametrize("exactly_once", [False, True])
@pytest.mark.timeout(400)
async def test_a_broker_killed_and_restarted_loses_nothing(
    exactly_once: bool, kafka: KafkaServer, checkpoint: Path, tmp_path: Path
) -> None:
    async with scenarios.field_of(kafka, checkpoint, tmp_path, exactly_once=exactly_once) as place:
        row = await scenarios.broker_restarted(place, 1)
    assert (row.tally.lost, row.tally.unfinished_committed) == (0, 0)
    if exactly_once:
        assert row.tally.repeated == 0

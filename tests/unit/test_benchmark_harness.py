"""`kbert bench` measures what it says: the load, the rules compared with, and what is called flat."""

import asyncio
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from schemas.messages import RawMessage
from schemas.signals import CryptoSignal
from worker.benchmarks import null_race
from worker.benchmarks.aggregates import rates
from worker.benchmarks.common_rules import SIZE, TIMER, FixedSizeBatcher, TimerBatcher
from worker.benchmarks.latency import goals, per_second
from worker.benchmarks.load_generator import Load, planned_arrivals
from worker.benchmarks.null_job import signal_of
from worker.benchmarks.soak import SPAN, summary
from worker.errors import KbertError


def test_arrivals_are_planned_by_a_poisson_process() -> None:
    load = Load("", "", per_second=400.0, messages=20_000, seed=3)
    arrivals = planned_arrivals(load, start_ns=1_000)
    gaps = [(b - a) / 1e9 for a, b in pairwise(arrivals)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert min(gaps) >= 0
    assert mean == pytest.approx(1 / 400, rel=0.05)
    assert deviation == pytest.approx(mean, rel=0.05)  # as an exponential distribution has it
    assert planned_arrivals(load, start_ns=1_000) == arrivals


def test_capacity_is_counted_while_the_load_arrives() -> None:
    second = 1_000_000_000
    # 40 every tenth of a second from 0.05 s on, nothing of the warm-up, and a faster end when nobody sends.
    finishes = [(n * second // 10 + second // 20, 40) for n in range(30)]
    finishes += [(3 * second + n, 400) for n in range(1, 9)]
    finishes += [(1_500_000_000, 0)]
    assert per_second(finishes, 0, 3 * second) == pytest.approx(400.0)
    with pytest.raises(KbertError, match="--seconds"):
        per_second([(2 * second, 40)], 0, 3 * second)


def test_the_goals_compare_the_tails_of_all_rules() -> None:
    def point(load: float, ours: float, *rules: float) -> dict[str, Any]:
        ms = {"ours": {"p99": ours}} | {f"rule {n}": {"p99": p99} for n, p99 in enumerate(rules)}
        return {"load": load, "ms": ms}

    points = [point(0.1, 37.0, 93.0, 92.0), point(0.5, 112.0, 134.0, 112.0), point(0.8, 190.0, 383.0, 246.0)]
    found = goals(points, {"one_message": 8.0, "full_batch": 95.0}, {"p99": 14.5})
    assert found["p99 at 80%"] == {"limit_ms": 380.0, "ours_ms": 190.0, "broker_p99_ms": 14.5}
    assert {name: met for name, met in found.items() if "below" in name} == {
        "p99 below both rules at 10%": True,
        "p99 below both rules at 50%": False,
        "p99 below both rules at 80%": True,
    }


def test_aggregates_are_held_against_their_peer() -> None:
    found = rates([60_000.0, 66_000.0], [50_000.0], [90_000.0], [70_000.0], [2_000.0])
    assert found["apply"] == 63_000
    assert found["peers"] == {"one HINCRBY per field": 2_000}
    assert found["ratios"] == {"one HINCRBY per field": 31.5}


async def test_the_fixed_size_rule_waits_for_its_size_or_its_timer() -> None:
    batcher: FixedSizeBatcher[int] = FixedSizeBatcher(10_000, 100_000, 2.0, timer=0.02)
    await batcher.put_all((n, 1) for n in range(2 * SIZE + 3))
    sizes = []
    for _ in range(3):
        batch = await batcher.next_batch()
        assert batch is not None
        sizes.append(len(batch.items))
    assert sizes == [SIZE, SIZE, 3]
    assert batcher.queued_tokens == 0


async def test_the_fixed_size_rule_wakes_when_its_size_is_there() -> None:
    batcher: FixedSizeBatcher[int] = FixedSizeBatcher(10_000, 100_000, 2.0, timer=60.0)
    waiting = asyncio.create_task(batcher.next_batch())
    for n in range(SIZE):
        await asyncio.sleep(0)
        assert not waiting.done()
        await batcher.put(n, 1)
    async with asyncio.timeout(10):
        batch = await waiting
    assert batch is not None
    assert len(batch.items) == SIZE


async def test_the_timer_rule_lets_an_idle_engine_wait() -> None:
    batcher: TimerBatcher[int] = TimerBatcher(10_000, 100_000, 2.0)
    waiting = asyncio.create_task(batcher.next_batch())
    await batcher.put(1, 1)
    await asyncio.sleep(0)
    assert not waiting.done()
    await batcher.put(2, 1)
    batch = await waiting
    assert batch is not None
    assert batch.items == [1, 2]
    assert batch.oldest_wait >= TIMER * 0.9


@pytest.mark.parametrize(("growth", "slowdown"), [(1.0, 1.0), (1.5, 1.0), (1.0, 2.0)])
def test_the_soak_sees_growth_and_slowing(growth: float, slowdown: float) -> None:
    samples, seconds = [], 0.0
    for done in range(0, 5 * SPAN + 1, 10_000):
        late = done > 4 * SPAN
        seconds += 1.0 * (slowdown if late else 1.0)
        memory = 100.0 * (growth if late else 1.0)
        samples.append({"messages": done, "seconds": seconds, "cpu_seconds": seconds, "memory_mb": memory})
    found = summary(samples)
    assert found["memory_mb"]["ratio"] == pytest.approx(growth, rel=0.02)
    assert found["throughput"]["ratio"] == pytest.approx(1 / slowdown, rel=0.1)


def test_all_sides_of_the_null_job_make_the_same_signal() -> None:
    message = RawMessage(id="m-1", text="비트 지금이라도 탑승해야됨", author="개미")
    signal = CryptoSignal.model_validate(signal_of(message))
    assert signal.id == "m-1"
    assert signal.text == message.text
    assert signal.author_hash


def test_a_peer_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(null_race, "find_spec", lambda _: None)
    able, absent = null_race.contestants(None)
    assert list(able) == ["ours"]
    assert "kbert-stream[bench]" in absent["FastStream"]
    assert "--quix-python" in absent["Quix Streams"]
    able, absent = null_race.contestants(Path("/opt/quix/bin/python"))
    assert able["Quix Streams"] == "/opt/quix/bin/python"
    assert list(absent) == ["FastStream"]

"""What a real run tells its operators: every metric, and a log that traffic does not lengthen."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from tests.checkpoints import SMALL, random_state, write_checkpoint
from tests.fake_model import POISON
from tests.kafka_io import exactly_once, produce
from tests.pipelines import pipeline_settings
from tests.processes import KbertProcess, kbert
from tests.servers import KafkaServer, Topics
from tests.waiting import eventually
from worker.embedded import free_port
from worker.settings import MetricsSettings, ModelSettings, RedisSettings, Settings

Samples = dict[str, dict[frozenset[tuple[str, str]], float]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model") / "small", random_state(SMALL))


async def scrape(settings: Settings) -> Samples:
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{settings.metrics.port}/metrics")
    found: Samples = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return found


def total(samples: Samples, name: str, **labels: str) -> float:
    """Sum of the samples that have these labels."""
    return sum(value for have, value in samples.get(name, {}).items() if labels.items() <= set(have))


async def until(
    settings: Settings, process: KbertProcess, name: str, at_least: float, **labels: str
) -> Samples:
    async def so() -> Samples | None:
        assert process.running, process.log.read_text()[-2_000:]
        try:
            samples = await scrape(settings)
        except httpx.TransportError:
            return None
        is_there = any(labels.items() <= set(have) for have in samples.get(name, {}))
        return samples if is_there and total(samples, name, **labels) >= at_least else None

    found = await eventually(so, timeout=90, interval=0.2, what=f"{name} {labels}")
    assert found is not None
    return found


async def test_a_run_of_both_pipelines_shows_every_metric(
    kafka: KafkaServer, topics: Topics, redis_url: str, redis_prefix: str, tmp_path: Path
) -> None:
    settings = await pipeline_settings(
        kafka,
        topics,
        redis=RedisSettings(url=SecretStr(redis_url), prefix=redis_prefix),
        metrics=MetricsSettings(port=free_port()),
        model=ModelSettings(device="cpu", threads=1),
    )
    raw, signals = await topics.make("raw-traffic", 2), await topics.make("signals-traffic", 2)
    variables: dict[str, Any] = {
        "KBERT_AGGREGATES__GROUP_ID": f"aggregates-{raw}",
        "KBERT_NARRATIVE__GROUP_ID": f"narrative-{raw}",
        "KBERT_TRAFFIC__RAW": raw,
        "KBERT_TRAFFIC__SIGNALS": signals,
        "KBERT_TRAFFIC__GROUP_ID": f"workers-{raw}",
        "KBERT_TRAFFIC__MODEL__DEVICE": "cpu",
        "KBERT_TRAFFIC__MODEL__THREADS": "1",
    }
    chatter = [f"비트 {n} 지금 사도 되나".encode() for n in range(300)] + [b"\xff", b'{"text": ""}']
    articles = [json.dumps({"title": f"빗길 추돌 {n}", "body": "본문"}).encode() for n in range(60)]
    await produce(kafka.bootstrap_servers, settings.topics.raw, chatter, partitions=2)
    await produce(kafka.bootstrap_servers, raw, articles, partitions=2)
    arguments = ["run", "--pipeline", "crypto", "--pipeline", "traffic"]
    with kbert(arguments, settings, tmp_path / "first.log", **variables) as process:
        await until(settings, process, "kbert_projected_total", 300, projection="aggregates")
        await until(settings, process, "kbert_projected_total", 60, projection="narrative")
        found = await until(
            settings, process, "kbert_lag_records", 0, service="aggregates", pipeline="traffic"
        )
        for pipeline, count in (("crypto", 302), ("traffic", 60)):
            assert total(found, "kbert_records_total", pipeline=pipeline) == count
            for stage in ("decode", "tokenise", "wait", "infer", "produce"):
                assert total(found, "kbert_stage_seconds_count", pipeline=pipeline, stage=stage) > 0, stage
            for name in (
                "kbert_batch_tokens_count",
                "kbert_batch_messages_count",
                "kbert_engine_busy_seconds_total",
            ):
                assert total(found, name, pipeline=pipeline) > 0, name
            assert total(found, "kbert_batch_filler_tokens_total", pipeline=pipeline, where="attention") > 0
            assert total(found, "kbert_commits_total", pipeline=pipeline, outcome="done") > 0
            lag = {
                dict(labels)["partition"]: lag
                for labels, lag in found["kbert_lag_records"].items()
                if {("pipeline", pipeline), ("service", "worker")} <= labels
            }
            assert set(lag) == {"0", "1"}
            for name in ("kbert_queue_tokens", "kbert_queue_messages"):
                assert frozenset({("pipeline", pipeline)}) in found[name]
        assert total(found, "kbert_signals_total", pipeline="crypto") == 300
        assert (
            total(found, "kbert_signal_classes_total", pipeline="crypto", field="sentiment_strength") == 300
        )
        assert total(found, "kbert_signal_classes_total", pipeline="crypto", field="action_signal") == 300
        assert total(found, "kbert_signal_classes_total", pipeline="traffic", field="label") == 60
        assert total(found, "kbert_dead_letters_total", pipeline="crypto", reason="not_utf8") == 1
        assert total(found, "kbert_dead_letters_total", pipeline="crypto", reason="empty_text") == 1
        parts = {dict(labels)["part"] for labels in found["kbert_stalled_seconds"]}
        assert parts == {"worker-crypto", "worker-traffic", "aggregates", "narrative"}
        process.send(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait) == 0

    with kbert(arguments, settings, tmp_path / "second.log", **variables) as process:
        # It reads its margin again, and the fences in Redis tell that all of it was applied.
        found = await until(
            settings, process, "kbert_projection_fence_skips_total", 300, projection="aggregates"
        )
        found = await until(
            settings, process, "kbert_projection_fence_skips_total", 60, projection="narrative"
        )
        assert total(found, "kbert_projected_total") == 0


async def test_transactions_are_counted(
    kafka: KafkaServer, topics: Topics, checkpoint: Path, tmp_path: Path
) -> None:
    settings = exactly_once(
        await pipeline_settings(
            kafka,
            topics,
            metrics=MetricsSettings(port=free_port()),
            model=ModelSettings(ref=str(checkpoint), device="cpu", threads=1),
        )
    )
    await produce(kafka.bootstrap_servers, settings.topics.raw, [b"a", b"b"], partitions=2)
    arguments = ["run", "--only", "worker"]
    entry = "tests.faults.worker_entry"
    with kbert(arguments, settings, tmp_path / "log", module=entry, FAULT_NEWER_INIT="1") as process:
        await until(settings, process, "kbert_transactions_total", 2, pipeline="crypto", outcome="committed")


async def test_ten_times_the_messages_are_as_many_log_lines(
    kafka: KafkaServer, topics: Topics, checkpoint: Path, tmp_path: Path
) -> None:
    lines: list[list[str]] = []
    for count in (200, 2_000):
        settings = await pipeline_settings(
            kafka,
            topics,
            metrics=MetricsSettings(port=free_port()),
            model=ModelSettings(ref=str(checkpoint), device="cpu", threads=1),
        )
        bad = [b"\xff", b'{"text"', b"", POISON.encode()]
        values = [bad[n // 10 % 4] if n % 10 == 0 else f"비트 {n}".encode() for n in range(count)]
        await produce(kafka.bootstrap_servers, settings.topics.raw, values, partitions=2)
        log = tmp_path / f"{count}.log"
        with kbert(["run", "--only", "worker"], settings, log) as process:
            await until(settings, process, "kbert_records_total", count)
            process.send(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait) == 0
        events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
        lines.append([event for event in events if event != "pipeline.progress"])  # every 30 s, by time alone
        assert not any("비트" in line for line in log.read_text().splitlines())
    assert sorted(lines[0]) == sorted(lines[1])
    assert all(" " not in event for event in lines[0]), lines[0]

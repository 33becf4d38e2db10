"""``kbert bench pipeline``: end to end through an embedded broker, beside the engine alone."""

import asyncio
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Final

import orjson

from schemas.signals import ModelInfo
from worker.benchmarks.drain import drain
from worker.benchmarks.engine import (
    BERT_BASE,
    Report,
    chosen_engine,
    random_state,
    run_in_arrival_order,
)
from worker.benchmarks.machine import describe_machine
from worker.benchmarks.null_engine import NullEngine
from worker.benchmarks.null_race import race
from worker.benchmarks.raw_topic import fill, on_broker, payloads, with_own_topics
from worker.benchmarks.transformers_peer import TransformersPeer
from worker.coins import CoinTagger, load_catalogue
from worker.embedded import EmbeddedKafka
from worker.inference.classifier import TextEncoder
from worker.inference.devices import calm_openmp, choose_device, choose_threads
from worker.inference.engine import Engine, HeadOutputs
from worker.inference.heads import decode_crypto
from worker.inference.load import load_model
from worker.settings import Settings
from worker.tasks import CryptoTask

_INFO: Final = ModelInfo(name="bench", revision="random weights")


@dataclass(frozen=True)
class BenchClassifier:
    """The bundled tokeniser before some engine."""

    tokeniser: TextEncoder
    engine: Engine[Any]
    info: ModelInfo = _INFO
    max_length: int = 200

    @property
    def default_batch_tokens(self) -> int:
        """The engine's, and room for the longest text."""
        return max(self.max_length, self.engine.default_batch_tokens)

    def decode(self, outputs: HeadOutputs) -> list[dict[str, Any]]:
        """The heads' decoder, thresholds at one half."""
        return decode_crypto(outputs, [0.5] * 7, {})


async def bench_pipeline(
    settings: Settings,
    *,
    messages: int = 1_200,
    null_messages: int = 40_000,
    repeats: int = 3,
    quix_python: Path | None = None,
    report: Report | None = None,
) -> dict[str, Any]:
    """Measure the whole worker at BERT-base size with random weights, on the sample chatter.

    Args:
        settings: Device, precision, threads and graphs of the engine; everything else as it ships. The
            precision ``auto`` is the fastest, as ``bench_engine`` finds it.
        messages: Of a repeat through the engine.
        null_messages: Of a repeat without an engine.
        repeats: Interleaved repeats.
        quix_python: Interpreter that has Quix Streams, which wants an older pydantic than ours.
        report: Called with a line for a person before each measurement.

    Returns:
        Messages/s, medians over interleaved repeats: ``engine_only`` (tokenised before, same
        batches), ``end_to_end`` (from the first poll to the last acknowledged signal, with
        decoding, tokenising, tagging and serialising), their ``ratio``; ``broker_cores`` that the broker
        took meanwhile, and ``ratio_beside_broker``: the same ratio to what the engine would do on the
        cores that the broker leaves; ``cpu_ms_per_message`` of this process, which a busy neighbour
        changes least; ``tokens_per_s`` of both; ``peers``: a plain transformers
        loop in arrival order without a broker; ``null_engine``: as ``null_race.race`` answers, and
        ``ours_with_tokeniser_and_tagger`` by the clock; ``precision`` of the engine;
        ``engine_by_precision`` messages/s by which ``auto`` chose it, else empty.
    """
    calm_openmp()
    import torch

    tell = report or (lambda _: None)
    device, threads = choose_device(settings.model.device), choose_threads(settings.model.threads)
    torch.set_num_threads(threads)
    tokeniser = load_model(threads=threads).tokeniser
    values = payloads(max(messages, null_messages))
    texts = [orjson.loads(payload) for payload in values[:messages]]
    encoded = tokeniser.encode([text.get("text") or text["title"] for text in texts])
    tokens = sum(map(len, encoded))
    state = random_state(BERT_BASE)
    tell("making the engine")
    engine, by_precision = chosen_engine(
        state,
        BERT_BASE,
        settings.model.precision,
        device,
        threads,
        cuda_graphs=settings.model.cuda_graphs,
    )
    peer = TransformersPeer(state, BERT_BASE, torch.float32, device)
    some = encoded[: min(messages, 96)]  # fifteen a second: all would take a minute a repeat
    run_in_arrival_order(engine, encoded[:64], engine.default_batch_tokens)

    alone, through, plain, null = [], [], [], []
    broker_cores, engine_cpu, worker_cpu = [], [], []
    async with EmbeddedKafka() as kafka:
        local = on_broker(settings, kafka.bootstrap_servers)
        task = CryptoTask(_INFO, CoinTagger(load_catalogue()), local.sink)
        for repeat in range(repeats):
            tell(f"repeat {repeat + 1} of {repeats}: engine only, {engine.precision}")
            start, cpu = perf_counter(), process_time()
            await asyncio.to_thread(_on_threads, threads, engine, encoded)
            alone.append(messages / (perf_counter() - start))
            engine_cpu.append(1000 * (process_time() - cpu) / messages)
            tell(f"repeat {repeat + 1} of {repeats}: end to end")
            mine = with_own_topics(local)
            await fill(mine, values[:messages])
            drained = await drain(mine, BenchClassifier(tokeniser, engine), task, messages, broker=kafka.pid)
            through.append(drained.per_second)
            broker_cores.append(drained.broker_cpu_seconds / drained.seconds)
            worker_cpu.append(1000 * drained.cpu_seconds / messages)
            tell(f"repeat {repeat + 1} of {repeats}: plain transformers")
            start = perf_counter()
            await asyncio.to_thread(peer.classify, some, in_order=True)
            plain.append(len(some) / (perf_counter() - start))
            tell(f"repeat {repeat + 1} of {repeats}: null engine")
            mine = with_own_topics(local)
            await fill(mine, values[:null_messages])
            null.append(
                (await drain(mine, BenchClassifier(tokeniser, NullEngine()), task, null_messages)).per_second
            )
        raced = await race(
            local, kafka, messages=null_messages, repeats=repeats, quix_python=quix_python, report=tell
        )
    engine_only, end_to_end = statistics.median(alone), statistics.median(through)
    mean = tokens / messages
    broker = statistics.median(broker_cores)
    beside_broker = engine_only * (1 - broker / threads)
    return {
        "engine_only": round(engine_only, 1),
        "end_to_end": round(end_to_end, 1),
        "ratio": round(end_to_end / engine_only, 3),
        "ratio_beside_broker": round(end_to_end / beside_broker, 3),
        "broker_cores": round(broker, 2),
        "cpu_ms_per_message": {
            "engine_only": round(statistics.median(engine_cpu), 2),
            "end_to_end": round(statistics.median(worker_cpu), 2),
        },
        "tokens_per_s": {
            "engine_only": round(engine_only * mean, 1),
            "end_to_end": round(end_to_end * mean, 1),
        },
        "peers": {"transformers fp32, arrival order, batch 32 padded": round(statistics.median(plain), 1)},
        "null_engine": raced | {"ours_with_tokeniser_and_tagger": round(statistics.median(null))},
        "precision": engine.precision,
        "engine_by_precision": by_precision,
        "messages": {"engine": messages, "null_engine": null_messages, "mean_tokens": round(mean, 1)},
        "repeats": repeats,
        "machine": describe_machine(device, threads),
    }


def _on_threads(threads: int, engine: Any, encoded: Sequence[Any]) -> None:
    import torch

    torch.set_num_threads(threads)  # OpenMP keeps it per thread
    run_in_arrival_order(engine, encoded, engine.default_batch_tokens)

"""``kbert bench pipeline``: end to end through an embedded broker, beside the engine alone."""

import asyncio
import gzip
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import orjson

from schemas.signals import ModelInfo
from worker.benchmarks.engine import (
    BERT_BASE,
    Report,
    base_engine,
    precisions_of,
    random_state,
    run_in_arrival_order,
)
from worker.benchmarks.machine import describe_machine
from worker.benchmarks.null_engine import NullEngine
from worker.benchmarks.transformers_peer import TransformersPeer
from worker.coins import CoinTagger, load_catalogue
from worker.commands.demo import SAMPLES
from worker.embedded import EmbeddedKafka
from worker.inference.classifier import TextEncoder
from worker.inference.devices import calm_openmp, choose_device, choose_threads
from worker.inference.engine import Engine, HeadOutputs
from worker.inference.heads import decode_crypto
from worker.inference.load import load_model
from worker.inference.thread import EngineThread
from worker.pipeline import Pipeline
from worker.settings import Settings
from worker.sink.producer import KafkaSink, OutRecord
from worker.sink.topics import create_topics
from worker.source.consumer import KafkaSource
from worker.tasks import CryptoTask

if TYPE_CHECKING:
    pass

_INFO: Final = ModelInfo(name="bench", revision="random weights")


@dataclass(frozen=True)
class _Classifier:
    """The bundled tokeniser before some engine."""

    tokeniser: TextEncoder
    engine: Engine[Any]
    info: ModelInfo = _INFO
    max_length: int = 200

    @property
    def default_batch_tokens(self) -> int:
        return max(self.max_length, self.engine.default_batch_tokens)

    def decode(self, outputs: HeadOutputs) -> list[dict[str, Any]]:
        return decode_crypto(outputs, [0.5] * 7, {})


async def bench_pipeline(
    settings: Settings,
    *,
    messages: int = 600,
    null_messages: int = 30_000,
    repeats: int = 3,
    report: Report | None = None,
) -> dict[str, Any]:
    """Measure the whole worker at BERT-base size with random weights, on the sample chatter.

    Returns:
        Messages/s, medians over interleaved repeats: ``engine_only`` (tokenised before, same
        batches), ``end_to_end`` (from the first poll to the last acknowledged signal, with
        decoding, tokenising, tagging and serialising), their ``ratio``; ``tokens_per_s`` of
        both; ``peers``: a plain transformers loop in arrival order without a broker;
        ``null_engine``: ``ours``, messages/s with an engine that computes nothing.
    """
    calm_openmp()
    import torch

    tell = report or (lambda _: None)
    device, threads = choose_device(settings.model.device), choose_threads(settings.model.threads)
    torch.set_num_threads(threads)
    # Random weights have no answers to keep, so int8 is for whoever asks for it.
    asked = settings.model.precision
    precision = precisions_of(device)[0] if asked == "auto" else asked
    tokeniser = load_model(threads=threads).tokeniser
    payloads = _payloads(max(messages, null_messages))
    texts = [orjson.loads(payload) for payload in payloads[:messages]]
    encoded = tokeniser.encode([text.get("text") or text["title"] for text in texts])
    tokens = sum(map(len, encoded))
    state = random_state(BERT_BASE)
    engine = base_engine(state, BERT_BASE, precision, device, threads)
    peer = TransformersPeer(state, BERT_BASE, torch.float32, device)
    some = encoded[: min(messages, 96)]  # fifteen a second: all would take a minute a repeat
    run_in_arrival_order(engine, encoded[:64], engine.default_batch_tokens)

    alone, through, plain, null = [], [], [], []
    async with EmbeddedKafka() as kafka:
        local = settings.model_copy(
            update={
                "kafka": settings.kafka.model_copy(
                    update={"bootstrap_servers": kafka.bootstrap_servers, "idempotent_producer": False}
                )
            }
        )
        for repeat in range(repeats):
            tell(f"repeat {repeat + 1} of {repeats}: engine only")
            start = perf_counter()
            await asyncio.to_thread(_on_threads, threads, engine, encoded)
            alone.append(messages / (perf_counter() - start))
            tell(f"repeat {repeat + 1} of {repeats}: end to end")
            through.append(await _run(local, _Classifier(tokeniser, engine), payloads[:messages]))
            tell(f"repeat {repeat + 1} of {repeats}: plain transformers")
            start = perf_counter()
            await asyncio.to_thread(peer.classify, some, in_order=True)
            plain.append(len(some) / (perf_counter() - start))
            tell(f"repeat {repeat + 1} of {repeats}: null engine")
            null.append(await _run(local, _Classifier(tokeniser, NullEngine()), payloads))
    engine_only, end_to_end = statistics.median(alone), statistics.median(through)
    mean = tokens / messages
    return {
        "engine_only": round(engine_only, 1),
        "end_to_end": round(end_to_end, 1),
        "ratio": round(end_to_end / engine_only, 3),
        "tokens_per_s": {
            "engine_only": round(engine_only * mean, 1),
            "end_to_end": round(end_to_end * mean, 1),
        },
        "peers": {"transformers fp32, arrival order, batch 32 padded": round(statistics.median(plain), 1)},
        "null_engine": {"ours": round(statistics.median(null), 1)},
        "precision": engine.precision,
        "messages": {"engine": messages, "null_engine": null_messages, "mean_tokens": round(mean, 1)},
        "repeats": repeats,
        "machine": describe_machine(device, threads),
    }


def _on_threads(threads: int, engine: Any, encoded: Sequence[Any]) -> None:
    import torch

    torch.set_num_threads(threads)  # OpenMP keeps it per thread
    run_in_arrival_order(engine, encoded, engine.default_batch_tokens)


def _payloads(count: int) -> list[bytes]:
    """Sample messages with ids and without the broken ones of the demo."""
    with gzip.open(SAMPLES, "rt", encoding="utf-8") as lines:
        rows = [orjson.loads(line) for line in lines]
    return [orjson.dumps(row | {"id": f"bench-{n}"}) for n, row in enumerate(islice(cycle(rows), count))]


async def _run(settings: Settings, model: _Classifier, payloads: Sequence[bytes]) -> float:
    """Messages/s from the first record read to the last signal acknowledged."""
    name = uuid4().hex[:8]
    topics = settings.topics.model_copy(
        update={"raw": f"raw-{name}", "signals": f"signals-{name}", "dead_letter": f"dead-{name}"}
    )
    source_settings = settings.source.model_copy(update={"group_id": name})
    mine = settings.model_copy(update={"topics": topics, "source": source_settings})
    await create_topics(mine)
    sink = KafkaSink(mine.kafka, mine.sink)
    await sink.start()
    for first in range(0, len(payloads), 1_000):
        records = [OutRecord(topics.raw, None, payload) for payload in payloads[first : first + 1_000]]
        await (await sink.send(records)).acknowledged()
    engine = EngineThread(model.engine)
    source = KafkaSource(topics.raw, mine.kafka, mine.source)
    task = CryptoTask(model.info, CoinTagger(load_catalogue()), mine.sink)
    pipeline = Pipeline(mine, source=source, sink=sink, model=model, engine=engine, task=task)
    stop = asyncio.Event()
    await source.start()
    start = perf_counter()
    running = asyncio.create_task(pipeline.run(stop))
    try:
        while pipeline.counts.signals + pipeline.counts.dead_letters < len(payloads):
            if running.done():
                running.result()
            if not pipeline.counts.records:
                start = perf_counter()
            await asyncio.sleep(0.002)
        taken = perf_counter() - start
    finally:
        stop.set()
        await asyncio.gather(running, return_exceptions=True)
        await source.stop()
        await sink.stop()
        engine.close()
    return len(payloads) / taken

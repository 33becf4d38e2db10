"""Thousands of bad records through the real consumer, tokeniser and producer: one outcome each, and why."""

import random
from collections import Counter
from dataclasses import replace
from functools import partial
from time import monotonic, time
from typing import Any, Final

from aiokafka import AIOKafkaProducer, ConsumerRecord

from schemas.dead_letters import DeadLetterReason
from schemas.signals import CryptoSignal
from schemas.topics import ID_HEADER
from tests.faults import load
from tests.faults.aggregates_load import equal_a_recount, without_doubtful_ids
from tests.faults.bad_cases import Case, bomb, make_cases
from tests.faults.load import Tally
from tests.faults.scenarios import Field, Row, Scenario
from tests.kafka_io import read_topic
from tests.pipelines import outcomes, running_pipeline
from worker.benchmarks.null_engine import NullEngine
from worker.inference.load import load_model
from worker.settings import BatchSettings, Settings
from worker.source.decoding import decode

_SEED: Final = 20_260_101
_GOOD: Final = 2_000
_AT_LEAST: Final = 0.5
"""Of the throughput before."""
_ATTEMPTS: Final = 8

Place = tuple[int, int]


async def _bad_input(place: Field, rounds: int, *, cases: int) -> Row:
    """So many cases a round between two loads of good messages, whose throughput is compared."""
    settings = (await place.settings()).model_copy(update={"batch": BatchSettings()})
    model = replace(
        load_model(None, head_set="crypto", threads=1),
        engine=NullEngine(),  # type: ignore[arg-type]
    )
    sent: dict[Place, Case] = {}
    good = 0
    async with running_pipeline(settings, model) as (pipeline, _, running):

        async def throughput() -> float:
            """Good messages a second."""
            nonlocal good
            began = monotonic()
            await load.feed(settings, 0, _GOOD)
            good += _GOOD
            await outcomes(pipeline, running, len(sent) + good, timeout=60)
            return _GOOD / (monotonic() - began)

        await throughput()  # warms up
        before = sorted([await throughput() for _ in range(3)])[1]
        for number in range(rounds):
            rng = random.Random(_SEED + number)
            batch = make_cases(cases, _SEED + number)
            sent |= await _produce(place, settings, batch, bomb(rng, 64))
            await outcomes(pipeline, running, len(sent) + good, timeout=300)
        # What is slower from now on stays so; what other work of the machine takes comes back.
        ratio = 0.0
        for _ in range(_ATTEMPTS):
            if (ratio := await throughput() / before) >= _AT_LEAST:
                break
        assert ratio >= _AT_LEAST, f"throughput is {ratio:.2f} of that before"
        await load.committed_to_the_end(settings, len(sent) + good)
    counts = await _judge(settings, sent, good)
    await equal_a_recount(await without_doubtful_ids(place.kafka, place.topics, settings))
    found = ", ".join(f"{name} {count}" for name, count in counts.most_common())
    missing = len(sent) - counts.total()
    note = f"{found}; throughput afterwards ×{ratio:.2f}"
    return Row("bad input", rounds, Tally(len(sent), max(0, missing), max(0, -missing), 0), None, note)


async def _produce(
    place: Field, settings: Settings, cases: list[Case], compressed: list[Case]
) -> dict[Place, Case]:
    """Where each case stands, and with which timestamp."""
    options: dict[str, Any] = {
        "bootstrap_servers": settings.kafka.bootstrap_servers,
        "max_request_size": 2**27,
        "enable_idempotence": place.kafka.idempotence,
    }
    topic, sent = settings.topics.raw, {}
    now = int(time() * 1000)
    cases = [replace(case, timestamp=_accepted(place, case.timestamp, now)) for case in cases]
    async with AIOKafkaProducer(max_batch_size=2**20, **options) as producer:
        pending = [
            await producer.send(
                topic,
                case.value,
                key=case.key,
                partition=number % load.PARTITIONS,
                timestamp_ms=case.timestamp,
                headers=list(case.headers),
            )
            for number, case in enumerate(cases)
        ]
        for case, future in zip(cases, pending, strict=True):
            written = await future
            sent[written.partition, written.offset] = case
    async with AIOKafkaProducer(compression_type="gzip", max_batch_size=2**27, **options) as producer:
        builder = producer.create_batch()
        for case in compressed:
            assert builder.append(timestamp=now, key=case.key, value=case.value) is not None
        written = await (await producer.send_batch(builder, topic, partition=0))
        for number, case in enumerate(compressed):
            sent[0, written.offset + number] = replace(case, timestamp=now)
    return sent


def _accepted(place: Field, timestamp: int | None, now: int) -> int:
    """Apache Kafka refuses a timestamp that lies ahead of it, from 4.0 on."""
    if timestamp is None or (place.kafka.is_apache and timestamp > 1_700_000_000_000):
        return now
    return timestamp


async def _judge(settings: Settings, sent: dict[Place, Case], good: int) -> Counter[str]:
    """Outcomes of the cases: ``signal``, or the reason of the dead letter; each is what it should be."""
    servers = settings.kafka.bootstrap_servers
    letters = await read_topic(servers, settings.topics.dead_letter)
    counts: Counter[str] = Counter()
    refused: set[Place] = set()
    for letter in letters:
        headers = dict(letter.headers)
        where = int(headers["kbert.partition"]), int(headers["kbert.offset"])
        assert where not in refused, f"{where} has two dead letters"
        refused.add(where)
        _check_letter(letter, sent[where])
        counts[DeadLetterReason(headers["kbert.reason"].decode())] += 1
    expected = Counter(_id_of(settings, where, case) for where, case in sent.items() if where not in refused)
    signals = [
        CryptoSignal.model_validate_json(record.value)
        for record in await read_topic(servers, settings.topics.signals)
    ]
    ids = Counter(signal.id for signal in signals)
    for number in range(_GOOD):
        name = f"m{number}"
        assert ids.pop(name, 0) == good // _GOOD, f"the good message {name} is not there as often as sent"
    assert ids == expected, f"lost {expected - ids}, too many {ids - expected}"
    counts["signal"] = ids.total()
    return counts


def _check_letter(letter: ConsumerRecord, case: Case) -> None:
    """The original is untouched, or what is left of it begins as it did."""
    headers = dict(letter.headers)
    assert headers["kbert.detail"]
    if "kbert.original_bytes" in headers:
        assert (case.value or b"").startswith(letter.value or b"")
        return
    assert letter.value == (case.value or b"")
    assert letter.key == case.key
    theirs = [(name, value) for name, value in case.headers if name not in ("kbert.reason", "kbert.offset")]
    assert list(letter.headers[: len(theirs)]) == theirs


def _id_of(settings: Settings, where: Place, case: Case) -> str:
    given = decode(case.value, settings.source.max_payload_bytes).id
    header = next((value for name, value in case.headers if name == ID_HEADER and value), None)
    if given is not None:
        return given
    if header is not None:
        return header.decode("utf-8", "backslashreplace")[:512]
    return f"{settings.topics.raw}:{where[0]}:{where[1]}:{case.timestamp}"


bad_input: Final[Scenario] = partial(_bad_input, cases=10_000)
short_bad_input: Final[Scenario] = partial(_bad_input, cases=2_000)

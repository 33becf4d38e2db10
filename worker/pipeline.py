"""The wiring of one pipeline: source, encode, batch, infer, decode, sink.

Four tasks joined by bounded queues. Each message meets them once, in this order:

    intake       polls records, decodes them, tokenises them in a thread, fills the batcher
    infer        takes batches, collates them, hands them to the engine thread
    publish      waits for the engine in order, builds the signals, hands records to the producer
    acknowledge  waits for the broker in order, and tells the source what is finished

The first failure of any of them ends all: nothing is committed that was not acknowledged,
so the next worker reads it again.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import orjson
import structlog

from schemas.dead_letters import DeadLetterReason
from schemas.messages import RawMessage
from schemas.topics import ID_HEADER
from worker.batching import DynamicBatcher
from worker.errors import ConfigurationError, KbertError
from worker.inference.classifier import Classifier
from worker.inference.engine import HeadOutputs
from worker.inference.errors import EngineStopped, TokeniseError
from worker.inference.thread import EngineThread
from worker.inference.tokenising import EncodedText
from worker.portions import portions
from worker.settings import BatchSettings, PipelineName, Settings
from worker.sink.dead_letters import dead_letter, smaller
from worker.sink.producer import Delivery, OutRecord, Sink
from worker.source.consumer import KafkaSource, Record
from worker.source.decoding import (
    BadMessageError,
    decode,
    event_time,
    made_up_id,
    record_time,
    record_timestamp,
)
from worker.source.record import unread
from worker.tasks import Task
from worker.telemetry import metrics
from worker.telemetry.seldom import Seldom
from worker.watchdog import Look, watch

log = structlog.get_logger(__name__)

_ENGINE_DEPTH = 2  # one batch runs, one waits collated
_REPORT_SECONDS = 30.0
_STAGES = ("decode", "tokenise", "wait", "infer", "produce")


class StageEndedError(KbertError):
    """A task of the pipeline has ended, and nobody asked it to."""


class EngineBrokenError(KbertError):
    """What fails on a message fails on a text that is known to be good too: it is not the message."""


@dataclass(slots=True)  # not frozen, as Record
class _Work:
    record: Record
    message: RawMessage
    encoded: EncodedText


@dataclass(frozen=True, slots=True)
class _Running:
    works: list[_Work]
    outputs: "asyncio.Future[HeadOutputs]"


@dataclass(frozen=True, slots=True)
class _Outcome:
    """``out[i]`` is the signal or dead letter of ``records[i]``; ``classes`` those of the signals."""

    records: list[Record]
    out: list[OutRecord]
    classes: Counter[tuple[str, str]] = field(default_factory=Counter)


@dataclass(slots=True)
class Counts:
    """What a pipeline has done since it started."""

    records: int = 0
    signals: int = 0
    dead_letters: int = 0


class Pipeline:
    """One raw topic to one signal topic through one model."""

    def __init__(
        self,
        settings: Settings,
        *,
        source: KafkaSource,
        sink: Sink,
        model: Classifier,
        engine: EngineThread,
        task: Task,
        name: PipelineName = "crypto",
        make_batcher: "Callable[[int, int, float], DynamicBatcher[_Work]]" = DynamicBatcher,
    ) -> None:
        self._settings = settings
        self._name = name
        self._source = source
        self._sink = sink
        self._model = model
        self._engine = engine
        self._task = task
        self._batcher = make_batcher(*batch_bounds(settings.batch, model), settings.batch.max_queue_delay)
        self._tokenising = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kbert-tokenise")
        self._in_order: asyncio.Queue[_Running | _Outcome | None] = asyncio.Queue(_ENGINE_DEPTH)
        self._unacknowledged: asyncio.Queue[tuple[_Outcome, Delivery, float] | None] = asyncio.Queue(
            settings.sink.max_unacknowledged
        )
        self._tokens_per_message = 32.0  # moving mean, so that one poll brings what the queue has room for
        self._canary = _Work(
            unread(settings.topics.raw),
            RawMessage(id="canary", text="."),
            model.tokeniser.encode(["."])[0],
        )
        self._seldom = Seldom(log)
        self._stage = {stage: metrics.STAGE_SECONDS.labels(name, stage) for stage in _STAGES}
        metrics.BATCH_SPLITS.labels(name)  # there from the start: what is born at 1 shows no increase
        metrics.QUEUE_TOKENS.labels(name).set_function(lambda: self._batcher.queued_tokens)
        metrics.QUEUE_MESSAGES.labels(name).set_function(lambda: self._batcher.queued_items)
        self.counts = Counts()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set, then finish what was taken, within ``source.drain_timeout``."""
        try:
            async with asyncio.TaskGroup() as group:
                stages = [
                    group.create_task(self._intake(stop), name="intake"),
                    group.create_task(self._infer(), name="infer"),
                    group.create_task(self._publish(), name="publish"),
                    group.create_task(self._acknowledge(), name="acknowledge"),
                ]
                background = [
                    group.create_task(self._source.commit_forever(), name="commit"),
                    group.create_task(self._report_forever(), name="report"),
                    group.create_task(self._watch_progress(), name="watch"),
                    group.create_task(self._enforce_deadline(stop, stages), name="deadline"),
                ]
                await self._until_done(stages, background, stop)
                for task in background:
                    task.cancel()
        finally:
            self._tokenising.shutdown(wait=False, cancel_futures=True)
        log.info("pipeline.stopped", unfinished=self._source.outstanding(), **self._totals())

    async def _until_done(
        self, stages: "list[asyncio.Task[None]]", background: "list[asyncio.Task[None]]", stop: asyncio.Event
    ) -> None:
        """Wait for all stages; a task that ends by itself would leave the others waiting for ever."""
        running = {*stages, *background}
        while not running.isdisjoint(stages):
            ended, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                if not stop.is_set() and (task.cancelled() or task.exception() is None):
                    raise StageEndedError(
                        f"The task {task.get_name()} of the {self._name} pipeline has ended by itself: "
                        "the worker stops, to be started anew."
                    )

    async def _intake(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self._batcher.wait_for_room()
            records = await self._source.poll(self._records_wanted())
            if not records:
                continue
            self.counts.records += len(records)
            metrics.RECORDS.labels(self._name).inc(len(records))
            read, refused = await self._decoded(records)
            # The tokeniser lets go of the interpreter, so in a thread it leaves the loop alone.
            works = await asyncio.get_running_loop().run_in_executor(
                self._tokenising, self._encode, read, refused
            )
            if refused.records:
                await self._in_order.put(refused)
            if works:
                lengths = [len(work.encoded.ids) for work in works]
                await self._batcher.put_all(zip(works, lengths, strict=True))
                self._tokens_per_message += 0.2 * (sum(lengths) / len(works) - self._tokens_per_message)
        self._batcher.close()

    async def _infer(self) -> None:
        running: deque[asyncio.Future[HeadOutputs]] = deque()
        while (batch := await self._batcher.next_batch(running[-1] if running else None)) is not None:
            works = [work for work in batch.items if work.record.claim.active]
            metrics.GIVEN_UP.labels(self._name).inc(len(batch.items) - len(works))
            if not works:
                continue
            metrics.BATCH_TOKENS.labels(self._name).observe(batch.tokens)
            metrics.BATCH_MESSAGES.labels(self._name).observe(len(works))
            self._stage["wait"].observe(batch.oldest_wait)
            try:
                prepared = self._model.engine.prepare([work.encoded for work in works])
            except Exception as error:  # noqa: BLE001 - as in `_outcome`
                await self._in_order.put(_Running(works, _failed(error)))
                continue
            filler = self._model.engine.filler(prepared)
            metrics.FILLER_TOKENS.labels(self._name, "rows").inc(filler.rows)
            metrics.FILLER_TOKENS.labels(self._name, "attention").inc(filler.attention)
            while len(running) >= _ENGINE_DEPTH:
                await asyncio.wait([running.popleft()])
            outputs = self._engine.submit(prepared)
            self._time_service(outputs, running[-1] if running else None, batch.tokens)
            running.append(outputs)
            await self._in_order.put(_Running(works, outputs))
        await self._in_order.put(None)

    async def _publish(self) -> None:
        while (item := await self._in_order.get()) is not None:
            outcome = item if isinstance(item, _Outcome) else await self._outcome(item)
            sent_at = monotonic()
            delivery = await self._sink.send(outcome.out, outcome.records)
            await self._unacknowledged.put((outcome, delivery, sent_at))
        await self._unacknowledged.put(None)

    async def _acknowledge(self) -> None:
        while (item := await self._unacknowledged.get()) is not None:
            outcome, delivery, sent_at = item
            too_large = await delivery.acknowledged()
            self._stage["produce"].observe(monotonic() - sent_at)
            dead_letter_topic = self._settings.topics.dead_letter
            letters = sum(out.topic == dead_letter_topic for out in outcome.out)
            for index in too_large:
                refused = outcome.out[index]
                await self._replace(outcome.records[index], refused)
                if refused.topic != dead_letter_topic:
                    letters += 1
                    outcome.classes.subtract(self._task.classes([orjson.loads(refused.value)]))
            self._source.finish(outcome.records)
            self.counts.dead_letters += letters
            self.counts.signals += len(outcome.out) - letters
            metrics.SIGNALS.labels(self._name).inc(len(outcome.out) - letters)
            for (name, value), count in outcome.classes.items():
                metrics.SIGNAL_CLASSES.labels(self._name, name, value).inc(count)

    async def _decoded(self, records: list[Record]) -> tuple[list[tuple[Record, RawMessage]], _Outcome]:
        """Messages with their records; what cannot be read becomes a dead letter."""
        read: list[tuple[Record, RawMessage]] = []
        refused = _Outcome([], [])
        max_bytes = self._settings.source.max_payload_bytes
        began = monotonic()
        async for part in portions([record.size for record in records]):
            for record in records[part]:
                try:
                    read.append((record, decode(record.value, max_bytes)))
                except BadMessageError as error:
                    self._refuse(refused, record, error.reason, error.detail)
        self._stage["decode"].observe(monotonic() - began)
        return read, refused

    def _encode(self, read: list[tuple[Record, RawMessage]], refused: _Outcome) -> list[_Work]:
        """Tokenise, in a thread of its own; what the tokeniser gives up on becomes a dead letter."""
        began = monotonic()
        works = self._tokenised(read, refused)
        self._stage["tokenise"].observe(monotonic() - began)
        return works

    def _tokenised(self, read: list[tuple[Record, RawMessage]], refused: _Outcome) -> list[_Work]:
        try:
            encoded = self._model.tokeniser.encode([self._task.text(message) for _, message in read])
        except TokeniseError as error:
            if len(read) > 1:
                return [work for one in read for work in self._tokenised([one], refused)]
            self._refuse(refused, read[0][0], DeadLetterReason.TOKENISE_FAILED, str(error))
            return []
        return [_Work(record, message, e) for (record, message), e in zip(read, encoded, strict=True)]

    async def _signals(self, works: Sequence[_Work], outputs: HeadOutputs) -> _Outcome:
        max_future, processed_at = self._settings.source.max_future, datetime.now(UTC)
        predictions = self._model.decode(outputs)
        signals: list[dict[str, Any]] = []
        async for part in portions([work.record.size for work in works]):
            signals += [
                self._task.signal(
                    work.message,
                    message_id=work.message.id or _record_id(work.record),
                    published_at=event_time(work.message.published_at, record_time(work.record), max_future),
                    processed_at=processed_at,
                    prediction=prediction,
                    truncated=work.encoded.truncated,
                )
                for work, prediction in zip(works[part], predictions[part], strict=True)
            ]
        return _Outcome(
            [work.record for work in works],
            self._task.records(self._settings.topics.signals, signals),
            self._task.classes(signals),
        )

    async def _outcome(self, running: _Running) -> _Outcome:
        try:
            return await self._signals(running.works, await running.outputs)
        except EngineStopped:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a batch makes a device or a decoder raise
            metrics.BATCH_SPLITS.labels(self._name).inc()
            self._seldom.warning("engine.batch_failed", messages=len(running.works), error=repr(error))
            return await self._isolate(running.works, error)

    async def _isolate(self, works: list[_Work], error: Exception) -> _Outcome:
        """Split a failed batch until the culprits stand alone; they become dead letters."""
        if len(works) == 1:
            await self._check_canary(error)
            refused = _Outcome([], [])
            self._refuse(refused, works[0].record, DeadLetterReason.INFERENCE_FAILED, repr(error))
            return refused
        middle = len(works) // 2
        whole = _Outcome([], [])
        for half in (works[:middle], works[middle:]):
            part = await self._outcome(_Running(half, self._submitted(half)))
            whole.records.extend(part.records)
            whole.out.extend(part.out)
            whole.classes.update(part.classes)
        return whole

    async def _check_canary(self, error: Exception) -> None:
        """Raise if anything fails: a topic of dead letters would be our fault, not the messages'."""
        try:
            outputs = await self._submitted([self._canary])
            await self._signals([self._canary], outputs)
        except Exception:  # noqa: BLE001 - as in `_outcome`
            raise EngineBrokenError(
                f"The engine fails on every text, so the worker stops: {error!r}"
            ) from error

    def _submitted(self, works: Sequence[_Work]) -> "asyncio.Future[HeadOutputs]":
        """Outputs of a batch to come; it may fail while it is prepared, or later."""
        try:
            return self._engine.submit(self._model.engine.prepare([work.encoded for work in works]))
        except Exception as error:  # noqa: BLE001 - as in `_outcome`
            return _failed(error)

    async def _replace(self, record: Record, refused: OutRecord) -> None:
        """The broker took a record for too large: a signal becomes a dead letter, a dead letter is cut."""
        letter = refused
        if refused.topic != self._settings.topics.dead_letter:
            outcome = _Outcome([], [])
            detail = f"the broker refuses the signal of {len(refused.value)} bytes as too large"
            self._refuse(outcome, record, DeadLetterReason.SIGNAL_REJECTED, detail)
            letter = outcome.out[0]
            if not await (await self._sink.send([letter], [record])).acknowledged():
                return
        while (less := smaller(letter)) is not None:
            letter = less
            if not await (await self._sink.send([letter], [record])).acknowledged():
                return
        raise KbertError(
            "The broker refuses even an empty dead letter as too large: "
            f"raise max.message.bytes of {letter.topic}."
        )

    def _refuse(self, outcome: _Outcome, record: Record, reason: DeadLetterReason, detail: str) -> None:
        metrics.DEAD_LETTERS.labels(self._name, reason).inc()
        outcome.records.append(record)
        outcome.out.append(
            dead_letter(
                self._settings.topics.dead_letter,
                place=(record.claim.partition.topic, record.claim.partition.partition, record.offset),
                timestamp_ms=record_timestamp(record),
                key=record.key,
                value=record.value,
                headers=record.headers,
                reason=reason,
                detail=detail,
            )
        )

    def _records_wanted(self) -> int:
        room = int(self._batcher.room_tokens / self._tokens_per_message)
        return max(1, min(room, self._settings.source.max_poll_records))

    def _time_service(
        self,
        outputs: "asyncio.Future[HeadOutputs]",
        before: "asyncio.Future[HeadOutputs] | None",
        tokens: int,
    ) -> None:
        started = monotonic() if before is None or before.done() else None

        def begun(_: object) -> None:
            nonlocal started
            started = monotonic()

        def ended(done: "asyncio.Future[HeadOutputs]") -> None:
            if started is not None:
                seconds = monotonic() - started
                if not done.cancelled() and done.exception() is None:  # else it tells nothing of the rate
                    self._batcher.record_service(tokens, seconds)
                self._stage["infer"].observe(seconds)
                metrics.ENGINE_BUSY_SECONDS.labels(self._name).inc(seconds)

        if started is None and before is not None:
            before.add_done_callback(begun)
        outputs.add_done_callback(ended)

    async def _report_forever(self) -> None:
        while True:
            await asyncio.sleep(_REPORT_SECONDS)
            log.info("pipeline.progress", queued=self._batcher.queued_items, **self._totals())

    async def _watch_progress(self) -> None:
        await watch(f"worker-{self._name}", self._settings.source.stall_limit, self._look)

    async def _look(self, timeout: float) -> Look:
        lag = await self._source.lag(timeout)
        if not self._engine.alive:
            raise EngineStopped("The engine thread has ended: the worker stops, to be started anew.")
        problem = None
        if lag is None:
            problem = "Kafka does not answer"
        elif self._source.claims_fail:  # what is read of it is dropped, and leaves no lag
            problem = "Kafka opens no transactional producer"
        elif not self._source.joined:
            problem = "the consumer group has not assigned partitions yet"
        elif self._source.topic_is_gone:  # a member without partitions looks like a spare one
            problem = f"there is no topic {self._settings.topics.raw}"
        return Look(
            moved=self.counts.records + self.counts.signals + self.counts.dead_letters,
            idle=lag is not None and not any(lag.values()),
            unfinished=self._source.outstanding(),
            problem=problem,
        )

    async def _enforce_deadline(self, stop: asyncio.Event, stages: "list[asyncio.Task[None]]") -> None:
        await stop.wait()
        await asyncio.sleep(self._settings.source.drain_timeout)
        log.warning("pipeline.drain_deadline", unfinished=self._source.outstanding())
        for stage in stages:
            stage.cancel()

    def _totals(self) -> dict[str, int]:
        return {
            "records": self.counts.records,
            "signals": self.counts.signals,
            "dead_letters": self.counts.dead_letters,
        }


def batch_bounds(settings: BatchSettings, model: Classifier) -> tuple[int, int]:
    """Tokens of a batch, in which the longest text has room, and of the queue.

    Raises:
        ConfigurationError: the queue is set below one batch.
    """
    batch = max(settings.max_batch_tokens or model.default_batch_tokens, model.max_length)
    queue = settings.max_queue_tokens or 16 * batch
    if queue < batch:
        lower = f", or set batch.max_batch_tokens={queue}" if queue >= model.max_length else ""
        raise ConfigurationError(
            f"batch.max_queue_tokens={queue} is below one batch of {batch} tokens: "
            f"raise it to {batch} or more{lower}."
        )
    return batch, queue


def _failed(error: Exception) -> "asyncio.Future[HeadOutputs]":
    outputs: asyncio.Future[HeadOutputs] = asyncio.get_running_loop().create_future()
    outputs.set_exception(error)
    return outputs


def _record_id(record: Record) -> str:
    """Id of a message that brings none: as given by a replay, or made up."""
    given = next((value for name, value in record.headers if name == ID_HEADER and value), None)
    if given is not None:
        return given.decode("utf-8", "backslashreplace")[:512]
    partition = record.claim.partition
    return made_up_id(partition.topic, partition.partition, record.offset, record_timestamp(record))

"""``kbert classify``: lines on standard input to signals on standard output."""

import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from queue import Empty, Queue
from typing import Any, BinaryIO

from pydantic import ValidationError

from schemas.messages import RawMessage
from worker.errors import KbertError
from worker.inference.load import Model
from worker.json_object import json_object
from worker.line_ids import line_id
from worker.settings import Settings
from worker.sink.signals import serialise
from worker.source.decoding import BadMessageError, decode
from worker.tasks import Task, TrafficTask

_MOST_LINES = 512


def classify_stream(
    model: Model, task: Task, settings: Settings, lines: BinaryIO, out: BinaryIO
) -> tuple[int, int]:
    """Write one JSON object a line, in the order of the lines.

    What is waiting is taken at once, so a pipe that trickles gets its answers as fast as
    one that floods gets its throughput. A line that cannot be read gives an object with
    ``id``, its own where it has one, and ``error`` in its place. A message without a time has
    that of its processing, to the microsecond: its reader may tell by that.

    Returns:
        Lines read, and how many of them could not be classified.
    """
    read = refused = 0
    for chunk in _gulps(lines):
        numbered = list(enumerate(chunk, start=read + 1))
        outcomes = _classify(model, task, numbered, settings.source.max_payload_bytes)
        for outcome in outcomes:
            out.write(serialise(outcome) + b"\n")
        out.flush()
        read += len(chunk)
        refused += sum("error" in outcome for outcome in outcomes)
    return read, refused


def _classify(
    model: Model, task: Task, lines: Sequence[tuple[int, bytes]], max_bytes: int
) -> list[dict[str, Any]]:
    article = isinstance(task, TrafficTask)
    outcomes: list[dict[str, Any]] = []
    messages: dict[int, RawMessage] = {}  # by position in outcomes
    for number, line in lines:
        try:
            message = decode(line, max_bytes)
        except BadMessageError as error:
            about = {"reason": error.reason, "detail": error.detail}
            outcomes.append({"id": _refused_id(line, number), "error": about})
        else:
            messages[len(outcomes)] = message
            outcomes.append({"id": message.id or line_id(message, line, number, article=article)})
    predictions = model.classify([task.text(message) for message in messages.values()])
    processed_at = datetime.now(UTC)
    for (position, message), prediction in zip(messages.items(), predictions, strict=True):
        truncated = prediction.pop("truncated")
        outcomes[position] = task.signal(
            message,
            message_id=outcomes[position]["id"],
            published_at=message.published_at or processed_at,
            processed_at=processed_at,
            prediction=prediction,
            truncated=truncated,
        )
    return outcomes


def _refused_id(line: bytes, number: int) -> str:
    """The id that a line gives itself, where the contract takes that; else the line's own."""
    try:
        read = RawMessage.model_validate({"id": json_object(line).get("id"), "text": ""})
    except ValidationError:
        read = RawMessage(text="")
    return read.id or line_id(read, line, number)


def _gulps(lines: BinaryIO) -> Iterator[list[bytes]]:
    queue: Queue[bytes | Exception | None] = Queue(maxsize=4 * _MOST_LINES)

    def read() -> None:
        try:
            for line in lines:
                queue.put(line.rstrip(b"\r\n"))
        except OSError as error:
            queue.put(error)
        else:
            queue.put(None)

    threading.Thread(target=read, name="kbert-stdin", daemon=True).start()
    ended = False
    while not ended:
        gulp: list[bytes] = []
        item = queue.get()
        while True:
            if item is None:
                ended = True
                break
            if isinstance(item, Exception):
                raise KbertError(f"Standard input cannot be read: {item}") from item
            gulp.append(item)
            if len(gulp) == _MOST_LINES:
                break
            try:
                item = queue.get_nowait()
            except Empty:
                break
        if gulp:
            yield gulp

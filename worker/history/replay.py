"""Messages of a file onto the raw topic, at a chosen pace."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Final

from schemas.messages import RawMessage
from worker.errors import KbertError
from worker.history.messages import BadLine, read_messages
from worker.history.pace import Pace
from worker.settings import Settings
from worker.sink.outputs import Output
from worker.sink.producer import KafkaSink, OutRecord
from worker.stopping import stopped_within

_CHUNK: Final = 500
_AHEAD: Final = timedelta(days=366)
"""A time further past the present (9999-12-31 for "none") is not what a file is moved by."""


@dataclass(slots=True)
class Replayed:
    """What became of the file so far."""

    sent: int = 0
    bad: int = 0
    complete: bool = False


class Replay:
    """Sends what a file holds to ``topics.raw``; ids and times stay as they are.

    Args:
        pace: when each message is due.
        shift: added to every ``published_at``.
        tell: told of each line that cannot be sent.
    """

    def __init__(
        self, settings: Settings, path: Path, pace: Pace, *, shift: timedelta, tell: Callable[[BadLine], None]
    ) -> None:
        self._settings = settings
        self._path = path
        self._pace = pace
        self._shift = shift
        self._tell = tell
        self._chunk: list[OutRecord] = []
        self.done = Replayed()

    async def run(self, stop: asyncio.Event) -> None:
        """Send until the file ends or ``stop`` is set; what was counted as sent the broker has.

        Raises:
            ConnectionFailedError: no broker answers.
            ConfigurationError: there is no such topic.
            KbertError: the file cannot be read.
        """
        sink = KafkaSink(self._settings.kafka, self._settings.sink)
        await sink.start(Output(self._settings.topics.raw, "topics.raw"))
        try:
            await self._send_all(sink, stop)
        finally:
            await sink.stop()

    async def _send_all(self, sink: KafkaSink, stop: asyncio.Event) -> None:
        started = monotonic()
        for read in read_messages(self._path, self._settings.source.max_payload_bytes):
            found = self._shifted(read) if isinstance(read, RawMessage) else read
            if not isinstance(found, RawMessage):
                if found is not None:
                    self._refuse(found)
                await asyncio.sleep(0)  # nothing else waits here, and only what waits hears of a signal
                if stop.is_set():
                    return
                continue
            due = started + self._pace.due(found.published_at)
            if due > monotonic():
                await self._flush(sink)
                if await stopped_within(stop, due - monotonic()):
                    return
            self._chunk.append(self._record(found))
            if len(self._chunk) >= _CHUNK:
                await self._flush(sink)
                if stop.is_set():
                    return
        await self._flush(sink)
        self.done.complete = True

    def _shifted(self, message: RawMessage) -> RawMessage | BadLine:
        if message.published_at is None or not self._shift:
            return message
        try:
            moved = message.published_at + self._shift
        except OverflowError:
            return BadLine(
                self._path.name,
                f"id {message.id}: --now moves {message.published_at} out of the years 1 to 9999",
            )
        return message.model_copy(update={"published_at": moved})

    def _record(self, message: RawMessage) -> OutRecord:
        return OutRecord(self._settings.topics.raw, None, message.model_dump_json(exclude_none=True).encode())

    async def _flush(self, sink: KafkaSink) -> None:
        if not self._chunk:
            return
        chunk, self._chunk = self._chunk, []
        too_large = await sink.deliver(chunk)
        self.done.sent += len(chunk) - len(too_large)
        for index in too_large:
            self._refuse(BadLine(self._path.name, f"too large for the topic: {chunk[index].value[:80]!r}"))

    def _refuse(self, line: BadLine) -> None:
        self.done.bad += 1
        self._tell(line)


def shift_to_now(path: Path, max_bytes: int) -> timedelta:
    """What moves the latest ``published_at`` of the file to the present; reads it once.

    Times more than a year past the present do not count: one of them would move all others into the past.

    Raises:
        KbertError: no message has such a time, or the file cannot be read.
    """
    until = datetime.now(UTC) + _AHEAD
    times = (found.published_at for found in read_messages(path, max_bytes) if isinstance(found, RawMessage))
    latest = max((time for time in times if time is not None and time <= until), default=None)
    if latest is None:
        raise KbertError(
            f"No message of {path} has a published_at that --now could move: one at most a year from now."
        )
    return datetime.now(UTC) - latest

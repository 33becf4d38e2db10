"""``kbert dead-letter``: list, show and replay what has no signal."""

import sys
from collections import Counter
from collections.abc import Mapping
from typing import Final

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from schemas.topics import ID_HEADER, TIMESTAMP_HEADER
from worker.commands.board import one_line
from worker.commands.common import MOST_NAMED
from worker.errors import KbertError
from worker.settings import PIPELINES, Settings, topic_setting
from worker.sink.dead_letters import without_ours
from worker.sink.producer import KafkaSink, OutRecord
from worker.sink.topics import describe_topics
from worker.source.dead_letters import DeadLetter, DeadLetterFilter, read_dead_letters
from worker.source.decoding import made_up_id

_CHUNK: Final = 500


async def list_dead_letters(
    settings: Settings, wanted: DeadLetterFilter, *, limit: int | None, as_json: bool
) -> None:
    """One line a dead letter, in the order of each partition."""
    table = Table("place", "failed at", "reason", "from", "bytes", "value", box=None)
    shown = total = 0
    async for letter in read_dead_letters(settings.topics.dead_letter, settings.kafka, wanted):
        total += 1
        if limit is not None and shown >= limit:
            continue
        shown += 1
        if as_json:
            print(orjson.dumps(_as_dict(letter)).decode(), flush=True)
            continue
        about = letter.about
        table.add_row(
            letter.place,
            about.failed_at[:19],
            about.reason,
            f"{about.topic}:{about.partition}:{about.offset}",
            str(len(letter.value)),
            Text(one_line(letter.value[:80].decode("utf-8", "replace"))),
        )
    if not as_json:
        console = Console()
        console.print(table)
        console.print(f"{shown} of {total} dead letters", style="dim")


async def show_dead_letter(settings: Settings, place: str, *, raw: bool) -> None:
    """One dead letter whole; ``raw`` writes its original bytes and nothing else."""
    async for letter in read_dead_letters(
        settings.topics.dead_letter, settings.kafka, DeadLetterFilter(places=[place])
    ):
        if raw:
            sys.stdout.buffer.write(letter.value)
        else:
            print(orjson.dumps(_as_dict(letter), option=orjson.OPT_INDENT_2).decode())
        return
    raise KbertError(f"There is no dead letter at {place} of {settings.topics.dead_letter}.")


async def replay_dead_letters(settings: Settings, wanted: DeadLetterFilter) -> int:
    """Send originals back to the raw topic they came from, and return how many.

    A message without an id of its own gets the id that its first reading would have had,
    in the header ``kbert.id``, so that a second replay is recognised as a repeat; ``kbert.timestamp``
    keeps the time of one without ``published_at``.

    Raises:
        KbertError: some could not be sent, all others were; the first of them are named on standard error.
    """
    sink = KafkaSink(settings.kafka, settings.sink)
    await sink.start()
    sent = 0
    left_out: Counter[str] = Counter()

    def leave_out(letter: DeadLetter, why: str) -> None:
        left_out[why] += 1
        if left_out.total() <= MOST_NAMED:
            origin = f"{one_line(letter.about.topic)}:{letter.about.partition}:{letter.about.offset}"
            print(f"left out {letter.place}, from {origin}: {why}", file=sys.stderr)

    async def send(chunk: list[DeadLetter]) -> int:
        too_large = await sink.deliver([_original(letter) for letter in chunk])
        for index in too_large:
            leave_out(chunk[index], "too large for its topic")
        return len(chunk) - len(too_large)

    try:
        raw_topics = await _raw_topics(settings)
        chunk: list[DeadLetter] = []
        async for letter in read_dead_letters(settings.topics.dead_letter, settings.kafka, wanted):
            if (why := _why_not(letter, raw_topics)) is not None:
                leave_out(letter, why)
                continue
            chunk.append(letter)
            if len(chunk) == _CHUNK:
                sent += await send(chunk)
                chunk = []
        if chunk:
            sent += await send(chunk)
    finally:
        await sink.stop()
    if left_out:
        named = left_out.most_common(MOST_NAMED)
        reasons = [f"{count}: {why}" for why, count in named]
        if more := left_out.total() - sum(count for _, count in named):
            reasons.append(f"{more}: for others")
        raise KbertError(f"{sent} replayed, {left_out.total()} left out ({'; '.join(reasons)}).")
    return sent


async def _raw_topics(settings: Settings) -> dict[str, str | None]:
    """Name of each raw topic, and why nothing can be sent there; None where it is there."""
    there = {state.name for state in await describe_topics(settings) if state.exists}
    raw_topics: dict[str, str | None] = {}
    for pipeline in PIPELINES:
        name, setting = settings.of(pipeline).topics.raw, topic_setting(pipeline, "raw")
        missing = f"there is no topic {name}: correct {setting} or run kbert topics --create"
        raw_topics[name] = None if name in there else missing
    return raw_topics


def _why_not(letter: DeadLetter, raw_topics: Mapping[str, str | None]) -> str | None:
    """Why a dead letter is not replayed; None for one that is."""
    if letter.about.original_bytes is not None:
        return "it was cut, and what is left is not the message"
    topic = letter.about.topic
    if topic not in raw_topics:  # anyone who may write dead letters could have signals sent in their name
        return f"{one_line(topic)} is neither topics.raw nor traffic.raw"
    return raw_topics[topic]


def _original(letter: DeadLetter) -> OutRecord:
    about = letter.about
    headers = without_ours(letter.headers)
    headers.append((TIMESTAMP_HEADER, str(about.timestamp).encode()))
    if not any(name == ID_HEADER and value for name, value in headers):
        made_up = made_up_id(about.topic, about.partition, about.offset, about.timestamp)
        headers.append((ID_HEADER, made_up.encode()))
    return OutRecord(about.topic, letter.key, letter.value, headers)


def _as_dict(letter: DeadLetter) -> dict[str, object]:
    about = letter.about.model_dump(exclude_none=True)
    return {
        "place": letter.place,
        **about,
        "key": None if letter.key is None else letter.key.decode("utf-8", "backslashreplace"),
        "headers": {
            n: (v or b"").decode("utf-8", "backslashreplace") for n, v in without_ours(letter.headers)
        },
        "bytes": len(letter.value),
        "value": letter.value.decode("utf-8", "backslashreplace"),
    }

"""The job that ours and its peers do when the engine costs nothing, each in a process of its own.

Every record of the raw topic is validated as a RawMessage; a null engine judges it at once; a
CryptoSignal with the id as its key goes to the signals topic, acknowledged by all replicas; an offset is
committed after its signal. A peer imports this module alone of the worker, so it needs pydantic only.
"""

import hashlib
import json
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any, Final

from schemas.labels import ACTIONS, EMOTIONS, SENTIMENTS
from schemas.messages import RawMessage

if TYPE_CHECKING:
    from worker.settings import Settings

PREDICTION: Final[dict[str, Any]] = {
    "sentiment_strength": SENTIMENTS[0],
    "action_signal": ACTIONS[0],
    "emotions": list(EMOTIONS),
    "certainty": 0.0,
    "relevance": 0.0,
    "toxicity": 0.0,
    "scores": {
        "sentiment_strength": dict.fromkeys(SENTIMENTS, 0.2),
        "action_signal": dict.fromkeys(ACTIONS, 0.166667),
        "emotions": dict.fromkeys(EMOTIONS, 0.5),
    },
}
"""What the heads' decoder makes of zeros; given to all sides for nothing."""


@dataclass(frozen=True)
class NullJob:
    """Where the messages lie, and where the signals go."""

    bootstrap_servers: str
    group: str
    raw: str
    signals: str
    dead_letter: str
    messages: int
    partitions: int
    validated: bool
    """Of peers: signals are CryptoSignals too, as their documents show; else plain dicts."""

    @classmethod
    def of(cls, settings: "Settings", messages: int, *, validated: bool) -> "NullJob":
        """The job over the broker and topics of ``settings``."""
        return cls(
            bootstrap_servers=settings.kafka.bootstrap_servers,
            group=settings.source.group_id,
            raw=settings.topics.raw,
            signals=settings.topics.signals,
            dead_letter=settings.topics.dead_letter,
            messages=messages,
            partitions=settings.topics.partitions,
            validated=validated,
        )

    def to_argument(self) -> str:
        """For the command line of a contestant."""
        return json.dumps(asdict(self))

    @classmethod
    def from_command_line(cls) -> "NullJob":
        """The job that this contestant was started with."""
        return cls(**json.loads(sys.argv[1]))


class Meter:
    """CPU of this process from now on, all threads; wall time from the first record on."""

    def __init__(self) -> None:
        self._cpu = process_time()
        self._start: float | None = None

    def first_record(self) -> None:
        """A record is here; only the first call counts."""
        if self._start is None:
            self._start = perf_counter()

    def print(self, messages: int, seconds: float | None = None) -> None:
        """The measurement as one line of JSON on standard output."""
        cpu = process_time() - self._cpu
        taken = seconds or perf_counter() - (self._start or perf_counter())
        print(json.dumps({"messages": messages, "seconds": taken, "cpu_seconds": cpu}), flush=True)


def signal_of(message: RawMessage) -> dict[str, Any]:
    """The fields of a CryptoSignal, in plain types: the fastest that a user of a peer can write."""
    text = message.text or f"{message.title} {message.body}"
    signal: dict[str, Any] = {
        "id": message.id,
        "source": message.source,
        "kind": message.kind or ("news" if message.title is not None else "chat"),
        "published_at": message.published_at or datetime.now(UTC),
        "processed_at": datetime.now(UTC),
        "coins": [],
        **PREDICTION,
        "model": {"name": "bench", "revision": "null"},
        "truncated": False,
        "text": text[:500],
    }
    if message.author is not None:
        signal["author_hash"] = hashlib.blake2b(message.author.encode(), digest_size=8, key=b"k").hexdigest()
    return signal

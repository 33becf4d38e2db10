"""A traffic model of plain Python whose answers depend on the text, and articles for it."""

import hashlib
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from schemas.signals import ModelInfo
from worker.inference.engine import Filler, HeadOutputs
from worker.inference.heads import decode_traffic
from worker.inference.tokenising import EncodedText


@dataclass
class HashTokeniser:
    """Token ids that depend on the whole text."""

    separator: str = "[SEP]"

    def encode(self, texts: Sequence[str]) -> list[EncodedText]:
        return [
            EncodedText(
                np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8).astype(np.int32), False
            )
            for text in texts
        ]


@dataclass
class HashEngine:
    """Logits from the token ids; notes the order of its batches."""

    name: str = ""
    description: str = "hash"
    default_batch_tokens: int = 512
    seconds_per_batch: float = 0.0
    log: list[str] = field(default_factory=list)

    def prepare(self, batch: Sequence[EncodedText]) -> list[EncodedText]:
        return list(batch)

    def filler(self, prepared: list[EncodedText]) -> Filler:
        return Filler()

    def run(self, prepared: list[EncodedText]) -> HeadOutputs:
        self.log.append(self.name)
        if self.seconds_per_batch:
            time.sleep(self.seconds_per_batch)  # a real batch computes without the GIL
        logits = [[text.ids[0] / 64 - 2, text.ids[1] / 64 - 2] for text in prepared]
        return {"logits": np.array(logits, np.float32)}

    def infer(self, batch: Sequence[EncodedText]) -> HeadOutputs:
        return self.run(self.prepare(batch))


@dataclass
class FakeTrafficModel:
    """What the pipeline, and the index of a file, ask of a model."""

    engine: HashEngine = field(default_factory=HashEngine)
    tokeniser: HashTokeniser = field(default_factory=HashTokeniser)
    info: ModelInfo = field(default_factory=lambda: ModelInfo(name="fake-traffic", revision="0"))
    max_length: int = 512
    default_batch_tokens: int = 512

    def decode(self, outputs: HeadOutputs) -> list[dict[str, Any]]:
        return decode_traffic(outputs, {})

    def classify(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        fields = self.decode(self.engine.infer(self.tokeniser.encode(texts))) if texts else []
        return [{**one, "truncated": False} for one in fields]


def articles(count: int, seed: int = 1, days: int = 400) -> list[dict[str, Any]]:
    """Raw messages of two sources over ``days`` days, ids ``a0`` …"""
    rng = random.Random(seed)
    start = datetime(2020, 1, 1, tzinfo=UTC)
    return [
        {
            "id": f"a{number}",
            "source": rng.choice(("one", "two:three")),
            "title": f"제목 {number}",
            "body": f"본문 {number}",
            "published_at": (start + timedelta(days=days * rng.random())).isoformat(),
        }
        for number in range(count)
    ]


def signal(
    number: int, published_at: str, label: int = 0, probability: float = 0.25, **more: Any
) -> dict[str, Any]:
    """A traffic signal."""
    return {
        "id": f"a{number}",
        "source": "one",
        "published_at": published_at,
        "processed_at": "2032-01-01T00:00:00Z",
        "label": label,
        "label_name": "negative narrative" if label else "non-negative",
        "probability": probability,
        "model": {"name": "m", "revision": "0"},
        "truncated": False,
        **more,
    }

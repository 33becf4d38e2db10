"""A model of plain Python behind the same protocols, so that tests can poison, slow and break it."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from schemas.labels import ACTIONS, EMOTIONS, SENTIMENTS
from schemas.signals import ModelInfo
from worker.inference.engine import Filler, HeadOutputs
from worker.inference.tokenising import EncodedText

POISON = "독약"


@dataclass
class FakeTokeniser:
    """One token a word; the words' hash decides nothing."""

    def encode(self, texts: Sequence[str]) -> list[EncodedText]:
        return [
            EncodedText(np.full(min(200, 2 + len(text.split())), int(POISON in text), np.int32), False)
            for text in texts
        ]


@dataclass
class FakeEngine:
    """Fails on poisoned texts, or on everything, or waits, as a test wants."""

    description: str = "fake"
    default_batch_tokens: int = 512
    seconds_per_batch: float = 0.0
    broken: bool = False
    immune: bool = False
    too_many: int | None = None
    """From this many texts on a batch is out of memory."""
    fails_at: frozenset[int] = frozenset()
    """Numbers of the batches, from 0, that fail whole."""
    gate: threading.Event | None = None
    calls: int = 0
    batches: list[int] = field(default_factory=list)

    def prepare(self, batch: Sequence[EncodedText]) -> list[EncodedText]:
        return list(batch)

    def filler(self, prepared: list[EncodedText]) -> Filler:
        return Filler()

    def run(self, prepared: list[EncodedText]) -> HeadOutputs:
        if self.gate is not None:
            self.gate.wait()
        if self.seconds_per_batch:
            time.sleep(self.seconds_per_batch)
        self.calls += 1
        if self.calls - 1 in self.fails_at:
            raise RuntimeError("device-side failure")
        if self.too_many is not None and len(prepared) >= self.too_many:
            raise MemoryError(f"out of memory on {len(prepared)} texts")
        if self.broken or (not self.immune and any(text.ids[0] for text in prepared)):
            raise RuntimeError("device-side failure")
        self.batches.append(len(prepared))
        return {"n": np.zeros((len(prepared), 1), np.float32)}

    def infer(self, batch: Sequence[EncodedText]) -> HeadOutputs:
        return self.run(self.prepare(batch))


@dataclass
class FakeModel:
    """What the pipeline asks of a model."""

    engine: FakeEngine = field(default_factory=FakeEngine)
    tokeniser: FakeTokeniser = field(default_factory=FakeTokeniser)
    info: ModelInfo = field(default_factory=lambda: ModelInfo(name="fake", revision="0"))
    head_set: str = "crypto"
    max_length: int = 200
    default_batch_tokens: int = 512

    def decode(self, outputs: HeadOutputs) -> list[dict[str, Any]]:
        one = {
            "sentiment_strength": "neutral",
            "action_signal": "info_only",
            "emotions": [],
            "certainty": 0.5,
            "relevance": 0.9,
            "toxicity": 0.0,
            "scores": {
                "sentiment_strength": dict.fromkeys(SENTIMENTS, 0.2),
                "action_signal": dict.fromkeys(ACTIONS, 1 / 6),
                "emotions": dict.fromkeys(EMOTIONS, 0.1),
            },
        }
        return [dict(one) for _ in range(len(outputs["n"]))]

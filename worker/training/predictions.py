"""What a crypto model says about a list of texts, as arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from schemas.labels import ACTIONS, EMOTIONS, SCORES, SENTIMENTS
from worker.training.batches import encode, pad
from worker.training.datasets import LabelledText
from worker.training.model import MultiHeadModel

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Truth:
    """Labels of N texts: classes [N], emotions [N, 7], scores [N, 3]."""

    sentiment: Ints
    action: Ints
    emotions: Bools
    scores: Floats

    @classmethod
    def of(cls, rows: Sequence[LabelledText]) -> "Truth":
        """The labels of the rows, in their order."""
        return cls(
            np.array([SENTIMENTS.index(row.sentiment_strength) for row in rows]),
            np.array([ACTIONS.index(row.action_signal) for row in rows]),
            np.array([[name in row.emotions for name in EMOTIONS] for row in rows]),
            np.array([[row.certainty, row.relevance, row.toxicity] for row in rows]),
        )

    def take(self, rows: npt.NDArray[np.intp]) -> "Truth":
        """The labels of some of the texts; an index may come twice."""
        return Truth(**{name: values[rows] for name, values in vars(self).items()})


@dataclass(frozen=True)
class Predictions:
    """Probabilities of sentiment [N, 5], action [N, 6], emotions [N, 7]; named ones [N, 7]; scores [N, 3]."""

    sentiment: Floats
    action: Floats
    emotions: Floats
    named: Bools
    scores: Floats

    @classmethod
    def of_signals(cls, signals: Sequence[Mapping[str, Any]]) -> "Predictions":
        """From the signal fields of the product's own inference."""
        scores = [signal["scores"] for signal in signals]
        return cls(
            np.array([[s["sentiment_strength"][name] for name in SENTIMENTS] for s in scores]),
            np.array([[s["action_signal"][name] for name in ACTIONS] for s in scores]),
            np.array([[s["emotions"][name] for name in EMOTIONS] for s in scores]),
            np.array([[name in signal["emotions"] for name in EMOTIONS] for signal in signals]),
            np.array([[signal[name] for name in SCORES] for signal in signals]),
        )

    def take(self, rows: npt.NDArray[np.intp]) -> "Predictions":
        """The answers for some of the texts; an index may come twice."""
        return Predictions(**{name: values[rows] for name, values in vars(self).items()})

    @classmethod
    def of_logits(
        cls, logits: Mapping[str, Floats], thresholds: Floats, temperature: tuple[float, float] = (1.0, 1.0)
    ) -> "Predictions":
        """From raw outputs of the four heads."""
        emotions = sigmoid(logits["head_emo"])
        return cls(
            softmax(logits["head_senti"] / temperature[0]),
            softmax(logits["head_act"] / temperature[1]),
            emotions,
            emotions >= thresholds,
            logits["head_reg"].clip(0, 1),
        )


def sigmoid(logits: Floats) -> Floats:
    """Probabilities, each by itself."""
    result: Floats = 1 / (1 + np.exp(-logits))
    return result


def softmax(logits: Floats) -> Floats:
    """Probabilities along the last axis."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    result: Floats = powers / powers.sum(-1, keepdims=True)
    return result


def predict_logits(
    model: MultiHeadModel,
    tokenizer: "Tokenizer",
    texts: Sequence[str],
    *,
    prefix: str,
    max_length: int,
    pad_id: int,
    batch_size: int = 64,
) -> dict[str, Floats]:
    """Raw outputs [N, size] of every head of the training model, fp32, in the order of the texts."""
    import torch

    rows = encode(tokenizer, texts, prefix, max_length)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    device = next(model.parameters()).device
    model.eval()
    parts: dict[str, list[Floats]] = {}
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            ids, mask = pad([rows[i] for i in order[start : start + batch_size]], pad_id)
            for name, values in model(ids.to(device), mask.to(device)).items():
                parts.setdefault(name, []).append(values.cpu().double().numpy())
    back = np.argsort(order)
    return {name: np.concatenate(values)[back] for name, values in parts.items()}

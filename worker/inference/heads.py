"""From logits to the fields of a signal: the meaning of every head, on one page."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.labels import ACTIONS, EMOTIONS, SENTIMENTS, TRAFFIC_LABELS
from worker.inference.config import ScaledHead

_DECIMALS = 6
Floats = npt.NDArray[np.floating[Any]]


def decode_crypto(
    outputs: Mapping[str, Floats], thresholds: Sequence[float], temperature: Mapping[ScaledHead, float]
) -> list[dict[str, Any]]:
    """Decode the four crypto heads.

    Args:
        outputs: ``logits_senti`` [n, 5], ``logits_act`` [n, 6], ``logits_emo`` [n, 7], ``pred_reg`` [n, 3].
        thresholds: Seven; an emotion is named where its sigmoid reaches its threshold.
        temperature: Divides the logits of ``sentiment_strength`` and ``action_signal`` before the softmax.

    Returns:
        For each message the fields of ``CryptoSignal`` that the model gives, ``scores`` among them.
    """
    sentiment = _softmax(outputs["logits_senti"], temperature.get("sentiment_strength", 1.0))
    action = _softmax(outputs["logits_act"], temperature.get("action_signal", 1.0))
    emotion = _sigmoid(outputs["logits_emo"])
    felt = emotion >= np.asarray(thresholds)
    graded = np.clip(outputs["pred_reg"].astype(np.float64), 0.0, 1.0)
    return [
        {
            "sentiment_strength": SENTIMENTS[best_sentiment],
            "action_signal": ACTIONS[best_action],
            "emotions": [name for name, is_felt in zip(EMOTIONS, feels, strict=True) if is_felt],
            "certainty": certainty,
            "relevance": relevance,
            "toxicity": toxicity,
            "scores": {
                "sentiment_strength": dict(zip(SENTIMENTS, sentiments, strict=True)),
                "action_signal": dict(zip(ACTIONS, actions, strict=True)),
                "emotions": dict(zip(EMOTIONS, emotions, strict=True)),
            },
        }
        for best_sentiment, best_action, feels, (
            certainty,
            relevance,
            toxicity,
        ), sentiments, actions, emotions in zip(
            sentiment.argmax(1).tolist(),
            action.argmax(1).tolist(),
            felt.tolist(),
            _plain(graded),
            _plain(sentiment),
            _plain(action),
            _plain(emotion),
            strict=True,
        )
    ]


def decode_traffic(
    outputs: Mapping[str, Floats], temperature: Mapping[ScaledHead, float]
) -> list[dict[str, Any]]:
    """Decode the traffic head.

    Args:
        outputs: ``logits`` [n, 2].
        temperature: Divides the logits under the name ``label``.

    Returns:
        For each message ``label`` (0, 1), ``label_name`` and ``probability`` of label 1.
    """
    probability = _softmax(outputs["logits"], temperature.get("label", 1.0))
    return [
        {"label": label, "label_name": TRAFFIC_LABELS[label], "probability": negative}
        for label, (_, negative) in zip(probability.argmax(1).tolist(), _plain(probability), strict=True)
    ]


def _softmax(logits: Floats, temperature: float) -> Floats:
    """In float64: a share of 1 - 1e-9 must not come out above 1."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True, initial=-np.inf))
    shares: Floats = powers / powers.sum(axis=1, keepdims=True)
    return shares


def _sigmoid(logits: Floats) -> Floats:
    # tanh has no overflow, and exp(-logits) has at -710.
    return 0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64)))


def _plain(values: Floats) -> list[list[float]]:
    rows: list[list[float]] = np.round(values, _DECIMALS).tolist()
    return rows

"""The contracts: every message and aggregate that crosses a process boundary.

This package imports only pydantic and the standard library, so that a bot can
use it without the rest. ``python -m schemas.generate`` writes the JSON Schema
files and the AsyncAPI document beside it.
"""

from schemas.aggregates import AggregateChange, CoinAggregates, WindowMetrics
from schemas.dead_letters import DeadLetterHeaders, DeadLetterReason
from schemas.labels import ACTIONS, EMOTIONS, POLARITY, SENTIMENTS, Action, Emotion, Sentiment
from schemas.messages import RawMessage
from schemas.signals import CryptoScores, CryptoSignal, ModelInfo, TrafficSignal
from schemas.windows import WINDOWS, Window

__all__ = [
    "ACTIONS",
    "EMOTIONS",
    "POLARITY",
    "SENTIMENTS",
    "WINDOWS",
    "Action",
    "AggregateChange",
    "CoinAggregates",
    "CryptoScores",
    "CryptoSignal",
    "DeadLetterHeaders",
    "DeadLetterReason",
    "Emotion",
    "ModelInfo",
    "RawMessage",
    "Sentiment",
    "TrafficSignal",
    "Window",
    "WindowMetrics",
]

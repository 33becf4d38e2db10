"""Predictions to records of ``signals.traffic``."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from schemas.messages import RawMessage
from schemas.topics import SCHEMA_HEADER, TRAFFIC_SIGNAL_V1
from worker.sink.producer import OutRecord
from worker.sink.signals import serialise_each

_HEADERS = ((SCHEMA_HEADER, TRAFFIC_SIGNAL_V1.encode()),)


def traffic_signal(
    message: RawMessage,
    model: Mapping[str, Any],
    *,
    message_id: str,
    published_at: datetime,
    processed_at: datetime,
    prediction: Mapping[str, Any],
    truncated: bool,
) -> dict[str, Any]:
    """A TrafficSignal as a dict in the order of the contract; ``prediction`` is what the head gives."""
    return {
        "id": message_id,
        "source": message.source,
        "published_at": published_at,
        "processed_at": processed_at,
        **prediction,
        "model": model,
        "truncated": truncated,
    }


def traffic_records(topic: str, signals: Sequence[Mapping[str, Any]]) -> list[OutRecord]:
    """Keyed by id, so that a repeat lands on the partition of the first."""
    return [
        OutRecord(topic, signal["id"].encode(), value, _HEADERS)
        for signal, value in zip(signals, serialise_each(signals), strict=True)
    ]

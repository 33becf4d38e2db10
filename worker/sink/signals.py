"""Predictions to records of ``signals.crypto``."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache, partial
from typing import Any, Final

import orjson

from schemas.messages import RawMessage
from schemas.signals import ModelInfo
from schemas.topics import CRYPTO_SIGNAL_V1, SCHEMA_HEADER
from worker.settings import SinkSettings
from worker.sink.producer import OutRecord
from worker.source.decoding import message_kind, message_text

_HEADERS = ((SCHEMA_HEADER, CRYPTO_SIGNAL_V1.encode()),)
_PUBLIC_KEY = b"kbert-stream"  # stable, not secret: used only where sink.author_key is not set
_AUTHORS: Final = 16_384  # whose hashes are remembered: those who write, write again
_BREAK: Final = orjson.Fragment(b"\n")


class CryptoSignalBuilder:
    """Builds the value of a CryptoSignal from plain dicts.

    The contract's model is not instantiated for each signal (it costs ten times the
    serialising); tests/contract holds every field of the output against it.
    """

    def __init__(self, model: ModelInfo, settings: SinkSettings) -> None:
        self._model = model.model_dump()
        self._settings = settings
        key = settings.author_key
        author_key = key.get_secret_value().encode()[:64] if key else _PUBLIC_KEY
        self._hash = lru_cache(_AUTHORS)(partial(_keyed_hash, author_key))

    def build(
        self,
        message: RawMessage,
        *,
        message_id: str,
        published_at: datetime,
        processed_at: datetime,
        coins: list[str],
        prediction: Mapping[str, Any],
        truncated: bool,
    ) -> dict[str, Any]:
        """One signal as a dict in the order of the contract.

        Args:
            prediction: what ``heads.decode`` gives for one message.
        """
        signal: dict[str, Any] = {
            "id": message_id,
            "source": message.source,
            "kind": message_kind(message),
            "published_at": published_at,
            "processed_at": processed_at,
            "coins": coins,
            **prediction,
            "model": self._model,
            "truncated": truncated,
        }
        if message.author is not None:
            signal["author_hash"] = self._hash(message.author)
        if self._settings.publish_text:
            signal["text"] = message_text(message)[: self._settings.text_characters]
        return signal


def _keyed_hash(key: bytes, author: str) -> str:
    return hashlib.blake2b(author.encode(), digest_size=8, key=key).hexdigest()


def serialise(signal: Mapping[str, Any] | Sequence[object]) -> bytes:
    """JSON with times as RFC 3339 in UTC."""
    return orjson.dumps(signal, option=orjson.OPT_UTC_Z)


def serialise_each(signals: Sequence[Mapping[str, Any]]) -> list[bytes]:
    """`serialise` of each. One call for all takes less than half of the time of a call a signal."""
    parts: list[object] = [_BREAK] * (2 * len(signals))
    parts[::2] = signals
    # A bracket or comma, the signal, a comma, a break; and so on. No string in JSON holds a raw break.
    return [line[1:-1] for line in serialise(parts).split(b"\n")[:-1]]


def signal_records(topic: str, signals: Sequence[Mapping[str, Any]]) -> list[OutRecord]:
    """Keyed by the first coin, so that one coin stays in order; by the id where none is named."""
    return [
        OutRecord(topic, (signal["coins"] or (signal["id"],))[0].encode(), value, _HEADERS)
        for signal, value in zip(signals, serialise_each(signals), strict=True)
    ]

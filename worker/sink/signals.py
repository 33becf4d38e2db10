"""Predictions to records of ``signals.crypto``."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from schemas.messages import RawMessage
from schemas.signals import ModelInfo
from schemas.topics import CRYPTO_SIGNAL_V1, SCHEMA_HEADER
from worker.settings import SinkSettings
from worker.sink.producer import OutRecord
from worker.source.decoding import message_kind, message_text

_HEADERS = ((SCHEMA_HEADER, CRYPTO_SIGNAL_V1.encode()),)
_PUBLIC_KEY = b"kbert-stream"  # stable, not secret: used only where sink.author_key is not set


class CryptoSignalBuilder:
    """Builds the value of a CryptoSignal from plain dicts.

    The contract's model is not instantiated for each signal (it costs ten times the
    serialising); tests/contract holds every field of the output against it.
    """

    def __init__(self, model: ModelInfo, settings: SinkSettings) -> None:
        self._model = model.model_dump()
        self._settings = settings
        key = settings.author_key
        self._author_key = key.get_secret_value().encode()[:64] if key else _PUBLIC_KEY

    def build(
        self,
        message: RawMessage,
        *,
        message_id: str,
        published_at: datetime,
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
            "processed_at": datetime.now(UTC),
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

    def _hash(self, author: str) -> str:
        return hashlib.blake2b(author.encode(), digest_size=8, key=self._author_key).hexdigest()


def serialise(signal: Mapping[str, Any]) -> bytes:
    """JSON with times as RFC 3339 in UTC."""
    return orjson.dumps(signal, option=orjson.OPT_UTC_Z)


def signal_record(topic: str, signal: Mapping[str, Any]) -> OutRecord:
    """Keyed by the first coin, so that one coin stays in order; by the id where none is named."""
    coins = signal["coins"]
    key: str = coins[0] if coins else signal["id"]
    return OutRecord(topic, key.encode(), serialise(signal), _HEADERS)

"""What differs between the pipelines: which text the heads read, and what becomes of a prediction."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Any, Protocol

from schemas.messages import RawMessage
from schemas.signals import ModelInfo
from worker.coins import CoinTagger
from worker.settings import SinkSettings
from worker.sink.producer import OutRecord
from worker.sink.signals import CryptoSignalBuilder, signal_records
from worker.sink.traffic_signals import traffic_records, traffic_signal
from worker.source.decoding import is_blank, message_text


class Task(Protocol):
    """One head set's way from a message to a signal. ``text`` is not called on the loop."""

    def text(self, message: RawMessage) -> str:
        """The text that is tokenised."""
        ...

    def signal(
        self,
        message: RawMessage,
        *,
        message_id: str,
        published_at: datetime,
        processed_at: datetime,
        prediction: Mapping[str, Any],
        truncated: bool,
    ) -> dict[str, Any]:
        """The signal as a dict in the order of its contract."""
        ...

    def records(self, topic: str, signals: Sequence[Mapping[str, Any]]) -> list[OutRecord]:
        """The signals as records for a topic."""
        ...

    def classes(self, signals: Sequence[Mapping[str, Any]]) -> Counter[tuple[str, str]]:
        """How many of the signals have each class, by field and value."""
        ...


class CryptoTask:
    """Chat and news to crypto signals."""

    def __init__(self, model: ModelInfo, tagger: CoinTagger, settings: SinkSettings) -> None:
        self._builder = CryptoSignalBuilder(model, settings)
        self._tagger = tagger

    def text(self, message: RawMessage) -> str:
        """The text itself, or title and body on one line."""
        return message_text(message)

    def signal(
        self,
        message: RawMessage,
        *,
        message_id: str,
        published_at: datetime,
        processed_at: datetime,
        prediction: Mapping[str, Any],
        truncated: bool,
    ) -> dict[str, Any]:
        """A CryptoSignal."""
        return self._builder.build(
            message,
            message_id=message_id,
            published_at=published_at,
            processed_at=processed_at,
            coins=self._tagger.tag(message_text(message)),
            prediction=prediction,
            truncated=truncated,
        )

    def records(self, topic: str, signals: Sequence[Mapping[str, Any]]) -> list[OutRecord]:
        """Keyed by the first coin."""
        return signal_records(topic, signals)

    def classes(self, signals: Sequence[Mapping[str, Any]]) -> Counter[tuple[str, str]]:
        """Sentiment, action, and every emotion."""
        return crypto_classes(signals)


class TrafficTask:
    """Traffic news to traffic signals.

    Args:
        model: what every signal names.
        separator: the tokeniser's own separator token, ``[SEP]`` in BERT's.
    """

    def __init__(self, model: ModelInfo, separator: str) -> None:
        self._model = model.model_dump()
        self._separator = separator

    def text(self, message: RawMessage) -> str:
        """``title [SEP] body``; the one that is there where only one is. Plain text counts as a title."""
        title = message.title or ""
        return article_text(
            (message.text or "") if is_blank(title) else title, message.body or "", self._separator
        )

    def signal(
        self,
        message: RawMessage,
        *,
        message_id: str,
        published_at: datetime,
        processed_at: datetime,
        prediction: Mapping[str, Any],
        truncated: bool,
    ) -> dict[str, Any]:
        """A TrafficSignal."""
        return traffic_signal(
            message,
            self._model,
            message_id=message_id,
            published_at=published_at,
            processed_at=processed_at,
            prediction=prediction,
            truncated=truncated,
        )

    def records(self, topic: str, signals: Sequence[Mapping[str, Any]]) -> list[OutRecord]:
        """Keyed by id."""
        return traffic_records(topic, signals)

    def classes(self, signals: Sequence[Mapping[str, Any]]) -> Counter[tuple[str, str]]:
        """The label."""
        return Counter(("label", str(signal["label"])) for signal in signals)


def crypto_classes(signals: Sequence[Mapping[str, Any]]) -> Counter[tuple[str, str]]:
    """How many of the signals have each sentiment, action and emotion."""
    # Counter counts an iterable in C.
    found = {
        "sentiment_strength": Counter(signal["sentiment_strength"] for signal in signals),
        "action_signal": Counter(signal["action_signal"] for signal in signals),
        "emotions": Counter(chain.from_iterable(signal["emotions"] for signal in signals)),
    }
    return Counter({(name, value): n for name, counts in found.items() for value, n in counts.items()})


def article_text(title: str, body: str, separator: str) -> str:
    """What the traffic head reads of an article."""
    return f" {separator} ".join(part for part in (title, body) if part.strip())

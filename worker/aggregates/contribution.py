"""What one signal adds, and to which buckets: pure, and the same on every replay."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from schemas.labels import ACTIONS, EMOTIONS, POLARITY, SENTIMENTS
from schemas.signals import CryptoSignal
from schemas.windows import MARKET
from worker.aggregates.keys import is_symbol
from worker.json_object import json_object

MILLI: Final = 1_000
"""Certainty, relevance and toxicity are kept in thousandths, rounded half to even."""

MICRO: Final = 1_000_000
"""Weights are kept in millionths: a product of two scores has twice their digits. In thousandths
the index of a two-message window was off by up to 0.0016."""

MINUTE_MS: Final = 60_000
MINUTE_BUCKETS_MS: Final = 25 * 3_600_000
"""A signal older than this when it was processed goes to its hour bucket only."""

HOUR_BUCKETS_MS: Final = 8 * 86_400_000
"""A signal older than this when it was processed is counted as late, where it was processed."""

MAX_FUTURE_MS: Final = 60_000
"""A signal further ahead of its own processing is taken as published when it was processed: a
year 9999 would hold its bucket for ever. The source clamps to the broker's clock before this."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# Columns of a bucket, see buckets.ROW.
MESSAGES: Final = 0
SENTIMENT: Final = 1
ACTION: Final = SENTIMENT + len(SENTIMENTS)
EMOTION: Final = ACTION + len(ACTIONS)
LATE: Final = EMOTION + len(EMOTIONS)

_SENTIMENT_COLUMN: Final = {name: SENTIMENT + n for n, name in enumerate(SENTIMENTS)}
_ACTION_COLUMN: Final = {name: ACTION + n for n, name in enumerate(ACTIONS)}
_EMOTION_COLUMN: Final = {name: EMOTION + n for n, name in enumerate(EMOTIONS)}
_TWICE_POLARITY: Final = {name: round(2 * POLARITY[name]) for name in SENTIMENTS}


class RejectedSignalError(ValueError):
    """A value on the signals topic that is no crypto signal; the message says what is wrong."""


class Contribution(NamedTuple):
    """What one signal adds to each bucket it falls into."""

    id_hash: int
    """Of source and id: two rooms number their messages alike."""
    symbols: tuple[str, ...]
    minute: int
    """Minute of the event time; of the processing time where the signal is late."""
    has_minute: bool
    """Whether it goes to the minute bucket too, not only to the hour bucket."""
    columns: tuple[int, ...]
    """Columns that grow by one; only LATE where the signal is late, none where it only moves the fences."""
    certainty: int
    relevance: int
    toxicity: int
    weight: int
    weighted_polarity: int
    """Weight x twice the polarity, an integer since polarities are halves."""
    newest: int
    """Event time, ms; -1 where the signal is late."""
    author: str | None


Signal = bytes | Mapping[str, Any] | CryptoSignal
"""JSON, what is parsed of it, or the contract's model."""


def _fields(signal: Signal) -> Mapping[str, Any]:
    if isinstance(signal, bytes):
        return json_object(signal)
    return vars(signal) if isinstance(signal, CryptoSignal) else signal


def contribution(signal: Signal, relevant_from: float) -> Contribution:
    """Read a signal. JSON is best given as it is: its many objects are gone before the next is parsed.

    Args:
        signal: needs ``id``, ``published_at``, ``processed_at``, ``coins``, the two classes,
            ``emotions`` and the three scores; ``source`` and ``author_hash`` may be absent.
        relevant_from: relevance from which MARKET counts the signal.

    Raises:
        RejectedSignalError: a field is missing or has no sense.
    """
    fields = _fields(signal)
    try:
        identity = fields["id"]
        certainty, relevance, toxicity = fields["certainty"], fields["relevance"], fields["toxicity"]
        in_range = 0 <= certainty <= 1 and 0 <= relevance <= 1 and 0 <= toxicity <= 1
        sentiment = fields["sentiment_strength"]
        coins, emotions = fields["coins"], fields["emotions"]
        published = _milliseconds(fields["published_at"])
        processed = _milliseconds(fields["processed_at"])
        columns = (
            MESSAGES,
            _SENTIMENT_COLUMN[sentiment],
            _ACTION_COLUMN[fields["action_signal"]],
            *map(_EMOTION_COLUMN.__getitem__, emotions if len(emotions) < 2 else set(emotions)),
        )
        symbols = _symbols(coins, relevance >= relevant_from)
    except RejectedSignalError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise RejectedSignalError(f"{type(error).__name__}: {error}") from error
    if not isinstance(identity, str):
        raise RejectedSignalError(f"id is {type(identity).__name__}, not text")
    source = fields.get("source")
    if source is not None and not isinstance(source, str):
        raise RejectedSignalError(f"source is {type(source).__name__}, not text")
    author = fields.get("author_hash")
    if author is not None and not (isinstance(author, str) and author):
        raise RejectedSignalError("author_hash is no text")
    if not in_range:
        raise RejectedSignalError("a score lies outside 0..1")

    id_hash = hash((source, identity))
    if published > processed + MAX_FUTURE_MS:
        published = processed
    age = processed - published
    if age > HOUR_BUCKETS_MS:
        return Contribution(id_hash, symbols, processed // MINUTE_MS, True, (LATE,), 0, 0, 0, 0, 0, -1, None)
    weight = round(certainty * relevance * MICRO)
    return Contribution(
        id_hash,
        symbols,
        published // MINUTE_MS,
        age <= MINUTE_BUCKETS_MS,
        columns,
        round(certainty * MILLI),
        round(relevance * MILLI),
        round(toxicity * MILLI),
        weight,
        weight * _TWICE_POLARITY[sentiment],
        published,
        author,
    )


def _symbols(coins: list[str], relevant: bool) -> tuple[str, ...]:
    if not isinstance(coins, list):
        raise RejectedSignalError(f"coins is {type(coins).__name__}, not a list")
    for coin in coins:
        if not is_symbol(coin) or coin == MARKET:
            raise RejectedSignalError(f"{coin!r} is no coin symbol")
    named = coins if len(coins) < 2 else dict.fromkeys(coins)
    return (*named, MARKET) if relevant else tuple(named)


def _milliseconds(time: str | datetime) -> int:
    """Milliseconds since 1970; a time without a zone is UTC."""
    moment = datetime.fromisoformat(time) if isinstance(time, str) else time
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    age = moment - _EPOCH
    return age.days * 86_400_000 + age.seconds * 1_000 + age.microseconds // 1_000

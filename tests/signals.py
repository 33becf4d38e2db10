"""Crypto signals made up for tests."""

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from schemas.labels import ACTIONS, EMOTIONS, SENTIMENTS

COINS = ("BTC", "ETH", "SOL", "XRP", "DOGE")


def make_signal(
    number: int,
    published_at: datetime,
    processed_at: datetime,
    rng: random.Random,
    coins: Sequence[str] = COINS,
) -> dict[str, Any]:
    """A signal as JSON gives it, of random content; ``number`` makes its id."""
    return {
        "id": f"message-{number}",
        "source": "room",
        "kind": "chat",
        "published_at": _rfc3339(published_at),
        "processed_at": _rfc3339(processed_at),
        "coins": rng.sample(coins, k=rng.choice((0, 1, 1, 1, 2))),
        "sentiment_strength": rng.choice(SENTIMENTS),
        "action_signal": rng.choice(ACTIONS),
        "emotions": rng.sample(EMOTIONS, k=rng.choice((0, 0, 1, 2, 7))),
        "certainty": rng.choice((0.0, 1.0, rng.random())),
        "relevance": rng.choice((0.0, 0.4, 1.0, rng.random())),
        "toxicity": rng.random(),
        "author_hash": rng.choice((None, f"{rng.randrange(30):016x}")),
    }


def make_week(now: datetime, count: int, seed: int, days: float = 9.0) -> list[dict[str, Any]]:
    """Signals of the ``days`` before ``now``, most of them lately, in no order, some late, some ahead."""
    rng = random.Random(seed)
    signals = []
    for number in range(count):
        processed = now - timedelta(days=days) * rng.random() ** 3
        delay = rng.choice((0.0, rng.uniform(-50, 5), rng.uniform(0, 120), rng.uniform(0, 9 * 86_400)))
        published = processed - timedelta(seconds=delay)
        signals.append(make_signal(number, published, processed, rng))
    return signals


def _rfc3339(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")

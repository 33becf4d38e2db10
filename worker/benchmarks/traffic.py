"""Signals made up for measuring."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import orjson

from schemas.labels import ACTIONS, EMOTIONS, SENTIMENTS

COINS: Final = tuple(f"COIN{n}" for n in range(150))
ZIPF: Final = tuple(1 / (n + 1) for n in range(150))
BATCH: Final = 5_000


def make_batches(signals: int, seconds: float, coins: Sequence[str] = COINS) -> list[list[bytes]]:
    """Traffic of the last ``seconds``, evenly spread, as JSON, in batches."""
    rng = random.Random(int(seconds))
    start = datetime.now(UTC) - timedelta(seconds=seconds)
    values = [
        make_signal(n, start + timedelta(seconds=seconds * n / signals), rng, coins) for n in range(signals)
    ]
    return [values[n : n + BATCH] for n in range(0, signals, BATCH)]


def make_signal(number: int, at: datetime, rng: random.Random, coins: Sequence[str] = COINS) -> bytes:
    """One signal as JSON; the first coins are named most."""

    def scores(names: tuple[str, ...]) -> dict[str, float]:
        return {name: round(rng.random(), 4) for name in names}

    signal = {
        "id": f"room-{at.isoformat()}-{number}",
        "source": "room",
        "kind": "chat",
        "published_at": at,
        "processed_at": at + timedelta(seconds=rng.random()),
        "coins": list(dict.fromkeys(rng.choices(coins, ZIPF[: len(coins)], k=rng.choice((0, 1, 1, 1, 2))))),
        "sentiment_strength": rng.choice(SENTIMENTS),
        "action_signal": rng.choice(ACTIONS),
        "emotions": rng.sample(EMOTIONS, k=rng.choice((0, 1, 1, 2))),
        **scores(("certainty", "relevance", "toxicity")),
        "scores": {
            "sentiment_strength": scores(SENTIMENTS),
            "action_signal": scores(ACTIONS),
            "emotions": scores(EMOTIONS),
        },
        "model": {"name": "kbert-crypto-small", "revision": "0123456789ab"},
        "truncated": False,
        "author_hash": f"{rng.randrange(20_000):016x}",
        "text": "비트 지금이라도 탑승해야됨",
    }
    return orjson.dumps(signal, option=orjson.OPT_UTC_Z)

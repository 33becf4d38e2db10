"""Keys of one coin share a slot, so that one script may change them all."""

import random
from datetime import UTC, datetime

import pytest
from redis.crc import key_slot

from tests.signals import make_week
from worker.aggregates.apply import apply_command, key_names
from worker.aggregates.buckets import fold
from worker.aggregates.contribution import contribution
from worker.aggregates.keys import Keys
from worker.errors import ConfigurationError

NOW = datetime(2026, 5, 4, 12, 30, tzinfo=UTC)


@pytest.mark.parametrize("prefix", ["kbert:", "", "desk 7/"])
def test_every_declared_key_of_a_coin_has_one_slot(prefix: str) -> None:
    records = [(n, contribution(s, 0.4)) for n, s in enumerate(make_week(NOW, 300, seed=1))]
    slots = set()
    for symbol, delta in fold({("signals", 0): records}, {}).items():
        names = key_names(apply_command(Keys(prefix), symbol, delta, {}, now=NOW.timestamp()))
        assert len(names) > 10
        assert len({key_slot(name.encode()) for name in names}) == 1
        slots.add(key_slot(names[0].encode()))
    assert len(slots) > 3, "coins spread over the cluster"


def test_buckets_that_have_expired_are_not_sent() -> None:
    records = [(n, contribution(s, 0.4)) for n, s in enumerate(make_week(NOW, 300, seed=1))]
    delta = fold({("signals", 0): records}, {})["BTC"]
    month_later = NOW.timestamp() + 30 * 86_400
    assert key_names(apply_command(Keys(), "BTC", delta, {}, now=month_later)) == ["kbert:{BTC}:state"]


@pytest.mark.parametrize("prefix", ["{kbert}:", "a}", "{"])
def test_a_prefix_with_braces_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigurationError, match=r"redis\.prefix"):
        Keys(prefix)


def test_random_symbols_stay_in_the_slot_of_their_tag() -> None:
    rng = random.Random(2)
    for _ in range(100):
        symbol = "".join(rng.choices("ABCXYZ019비트", k=rng.randint(1, 8)))
        keys = Keys()
        assert key_slot(keys.state(symbol).encode()) == key_slot(f"{{{symbol}}}".encode())

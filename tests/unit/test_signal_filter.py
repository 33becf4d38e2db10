"""A filter that lets nothing or everything through by mistake is refused, and says what is meant."""

import re
from pathlib import Path
from typing import Any

import pytest

from worker.clients import SignalStream
from worker.coins import load_catalogue
from worker.errors import ConfigurationError
from worker.signal_filter import SignalFilter, check_coins


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"coins": "BTC"}, "coins is the string 'BTC': give a list, ['BTC']"),
        ({"coins": []}, "coins is empty, so no signal passes: leave it out"),
        ({"coins": ["BTC", "btc"]}, "coins has 'btc': write symbols as signals have them"),
        ({"coins": ["KRW-BTC"]}, "coins has 'KRW-BTC'"),
        ({"actions": "buy"}, "actions is the string 'buy'"),
        ({"actions": ["buy", "BUY"]}, "actions has no 'BUY': there are buy, hold, sell, avoid, info_only"),
        ({"sentiments": ["positive"]}, "sentiments has no 'positive': there are strong_pos"),
        ({"emotions": ["joy"]}, "emotions has no 'joy': there are greed"),
        ({"min_certainty": 60}, "min_certainty is 60: give a number from 0 to 1"),
        ({"min_certainty": float("nan")}, "min_certainty is nan"),
        ({"min_relevance": -0.1}, "min_relevance is -0.1"),
    ],
)
def test_a_stream_refuses_what_cannot_be_meant(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(sentence)):
        SignalStream("127.0.0.1:1", **given)


def test_a_stream_takes_what_can_be_meant() -> None:
    SignalStream(
        "127.0.0.1:1",
        coins=["BTC", "1INCH", "MARKET"],
        actions=("buy",),
        sentiments={"neutral"},
        emotions=["fear"],
        min_certainty=0,
        min_relevance=1,
    )


def test_a_filter_of_its_own_is_as_strict() -> None:
    with pytest.raises(ConfigurationError, match="actions has no 'BUY'"):
        SignalFilter(actions=frozenset({"BUY"}))
    with pytest.raises(ConfigurationError, match="min_relevance is 2"):
        SignalFilter(min_relevance=2)


def test_a_coin_has_to_be_in_the_catalogue_or_in_the_users_own_file(tmp_path: Path) -> None:
    own = tmp_path / "coins.toml"
    own.write_text('[coins.XYZZY]\nkorean = "쯔지"\nenglish = "Xyzzy"\n', "utf-8")
    check_coins(["BTC", "XYZZY"], load_catalogue(own))
    with pytest.raises(ConfigurationError, match=r"No signal can name XYZZY, .*: kbert watch shows"):
        check_coins(["BTC", "XYZZY"], load_catalogue())
    with pytest.raises(ConfigurationError, match=r"No signal can name btc, .*: write BTC"):
        check_coins(["btc"], load_catalogue())

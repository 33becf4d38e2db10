"""The strategy mixin in the real freqtrade: a back test, a live strategy with a server, FreqAI's columns."""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from schemas.signals import CryptoSignal
from tests.servers import KafkaServer, Topics
from tests.serving import full_signal, now, send, serve_settings, serving, week_of_signals
from tests.waiting import eventually
from worker.clients.bots.freqtrade import KbertMixin
from worker.embedded import free_port
from worker.errors import ConfigurationError

pytest.importorskip("freqtrade", reason="freqtrade needs Python 3.11 or newer and its wheels")

import pandas as pd
from freqtrade.enums import CandleType, RunMode
from freqtrade.resolvers import StrategyResolver

START = datetime(2026, 3, 2, tzinfo=UTC)
STRATEGY = """
from freqtrade.strategy import IStrategy
from worker.clients.bots.freqtrade import KbertMixin

class Mood(KbertMixin, IStrategy):
    timeframe = "5m"
    minimal_roi = {{"0": 10}}
    stoploss = -0.9
    kbert_signals = {signals!r}
    kbert_url = {url!r}
    kbert_metrics = ("sentiment_index", "messages", "action")

    def populate_entry_trend(self, dataframe, metadata):
        dataframe.loc[dataframe["kbert_sentiment_index"] > 0.3, "enter_long"] = 1
        return dataframe

    def populate_exit_trend(self, dataframe, metadata):
        dataframe.loc[dataframe["kbert_sentiment_index"] < -0.3, "exit_long"] = 1
        return dataframe
"""


def candles(start: datetime, count: int) -> pd.DataFrame:
    rng = random.Random(1)
    price = [1_000 + rng.uniform(-5, 5) for _ in range(count)]
    return pd.DataFrame(
        {
            "date": pd.date_range(start, periods=count, freq="5min"),
            "open": price,
            "high": [one + 6 for one in price],
            "low": [one - 6 for one in price],
            "close": price,
            "volume": 10.0,
        }
    )


def config(directory: Path, *, signals: Path | None = None, url: str = "") -> dict[str, Any]:
    """What a user's config.json and command line come to."""
    (directory / "strategies").mkdir(exist_ok=True)
    file = str(signals) if signals else None
    (directory / "strategies" / "mood.py").write_text(STRATEGY.format(signals=file, url=url))
    prices = {"price_side": "same", "use_order_book": False}
    return {
        "runmode": RunMode.BACKTEST,
        "stake_currency": "KRW",
        "stake_amount": 10_000.0,
        "dry_run": True,
        "dry_run_wallet": 1_000_000,
        "max_open_trades": 1,
        "trading_mode": "spot",
        "margin_mode": "",
        "candle_type_def": CandleType.SPOT,
        "exchange": {"name": "upbit", "pair_whitelist": ["BTC/KRW"], "pair_blacklist": []},
        "pairlists": [{"method": "StaticPairList"}],
        "datadir": directory / "data",
        "user_data_dir": directory,
        "strategy": "Mood",
        "strategy_path": str(directory / "strategies"),
        "timeframe": "5m",
        "dataformat_ohlcv": "feather",
        "dataformat_trades": "feather",
        "entry_pricing": prices,
        "exit_pricing": prices,
        "export": "none",
        "exportfilename": directory / "result",
        "timerange": "",
        "fee": 0.0,
        "original_config": {},
    }


def write(file: Path, signals: list[dict[str, Any]]) -> Path:
    file.write_text("".join(CryptoSignal.model_validate(s).model_dump_json() + "\n" for s in signals))
    return file


def said(number: int, minute: float, processed: float, sentiment: str) -> dict[str, Any]:
    """Minutes after midnight at which it was published and processed."""
    published = START + timedelta(minutes=minute)
    known = START + timedelta(minutes=processed)
    return full_signal(
        number,
        published,
        sentiment_strength=sentiment,
        processed_at=known.isoformat(),
        certainty=1,
        relevance=1,
    )


def backtest(directory: Path, signals: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """freqtrade's own back test on candles from a file; only the exchange's list of markets is ours."""
    from freqtrade.data.history import get_datahandler
    from freqtrade.exchange import Exchange
    from freqtrade.optimize.backtesting import Backtesting

    nothing = {"min": None, "max": None}
    market = {
        "id": "KRW-BTC", "symbol": "BTC/KRW", "base": "BTC", "quote": "KRW", "active": True,
        "spot": True, "swap": False, "type": "spot", "precision": {"price": 0.01, "amount": 1e-8},
        "limits": {"amount": nothing, "price": nothing, "cost": nothing, "leverage": nothing}, "info": {},
    }  # fmt: skip

    def load(self: Any, reload: bool = False) -> Any:
        self._api_async.set_markets([market], {})
        return self._api_async.markets

    monkeypatch.setattr(Exchange, "_load_async_markets", load)
    (directory / "data").mkdir()
    handler = get_datahandler(directory / "data", "feather")
    handler.ohlcv_store("BTC/KRW", "5m", candles(START, 600), CandleType.SPOT)
    testing = Backtesting(config(directory, signals=signals))
    try:
        testing.start()
        return testing.all_bt_content["Mood"]["results"]
    finally:
        testing.cleanup()


@pytest.mark.parametrize(
    ("processed", "opens"), [(603.2, 605), (617.0, 620), (620.0, 620), (620.1, 625), (664.9, None)]
)
def test_a_back_test_trades_at_the_first_open_after_it_knew(
    processed: float, opens: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Published at minute 602.5, so not before 603 + the delay of one, and out of the hour at 664."""
    signals = [said(1, 602.5, processed, "strong_pos"), said(2, 720.2, 720.3, "strong_neg")]
    trades = backtest(tmp_path, write(tmp_path / "signals.jsonl", signals), monkeypatch)
    if opens is None:
        assert trades.empty
        return
    (opened,), (closed,) = trades["open_date"], trades["close_date"]
    assert opened == START + timedelta(minutes=opens)
    assert closed == START + timedelta(minutes=725)
    assert list(trades["pair"]) == ["BTC/KRW"]


def strategy(settings: dict[str, Any]) -> Any:
    return StrategyResolver.load_strategy(settings)


def test_columns_of_an_earlier_candle_never_change(tmp_path: Path) -> None:
    """The real strategy twice: all signals, and only those that were processed before the cut."""
    rng = random.Random(3)
    signals = [
        said(n, minute := rng.uniform(0, 1_400), minute + rng.expovariate(0.2), rng.choice(MOODS))
        for n in range(400)
    ]
    frame = candles(START, 288)
    made = []
    for name, cut in (("all", 10_000), ("some", 700)):
        directory = tmp_path / name
        directory.mkdir()
        limit = (START + timedelta(minutes=cut)).isoformat()
        kept = [signal for signal in signals if signal["processed_at"] <= limit]
        file = write(directory / "signals.jsonl", kept)
        mood = strategy(config(directory, signals=file))
        mood.dp = None
        analysed = mood.advise_all_indicators({"BTC/KRW": frame.copy()})["BTC/KRW"]
        made.append(mood.advise_entry(analysed, {"pair": "BTC/KRW"}))
    whole, cut_off = made
    known = whole["date"] + pd.Timedelta("5min") <= START + timedelta(minutes=700)
    pd.testing.assert_frame_equal(whole[known], cut_off[known])
    assert not whole[~known].equals(cut_off[~known])
    assert whole["enter_long"].notna().any()
    assert {"kbert_sentiment_index", "kbert_messages", "kbert_action_buy"} <= set(whole.columns)


MOODS = ("strong_pos", "weak_pos", "neutral", "weak_neg", "strong_neg")


def test_freqai_gets_the_same_columns_as_features(tmp_path: Path) -> None:
    signals = write(tmp_path / "signals.jsonl", [said(1, 10, 10, "weak_pos")])
    mood = strategy(config(tmp_path, signals=signals))
    frame = candles(START, 20)
    plain = mood.populate_indicators(frame.copy(), {"pair": "BTC/KRW"})
    features = mood.feature_engineering_standard(frame.copy(), metadata={"pair": "BTC/KRW"})
    names = [name for name in features if name.startswith("%-kbert_")]
    assert len(names) == 8
    for name in names:
        pd.testing.assert_series_equal(features[name], plain[name.removeprefix("%-")], check_names=False)
    assert list(features["%-kbert_sentiment_index"].dropna().unique()) == [0.5]


def test_an_unknown_pair_has_no_values(tmp_path: Path) -> None:
    signals = write(tmp_path / "signals.jsonl", [said(1, 10, 10, "weak_pos")])
    mood = strategy(config(tmp_path, signals=signals))
    frame = mood.populate_indicators(candles(START, 20), {"pair": "NOSUCHCOIN/KRW"})
    assert frame["kbert_messages"].isna().all()


def test_a_pair_means_what_the_users_own_files_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Mood(KbertMixin):
        timeframe = "5m"
        kbert_metrics = ("messages",)
        kbert_signals = write(tmp_path / "signals.jsonl", [said(1, 2, 2, "weak_pos") | {"coins": ["XYZ"]}])

    def counted(pair: str) -> float:
        return float(Mood().kbert_join(candles(START, 1), pair, "kbert_")["kbert_messages"].sum())

    assert [counted("XYZ/KRW"), counted("OWN/KRW")] == [0, 0]
    coins, markets = tmp_path / "coins.toml", tmp_path / "markets.toml"
    coins.write_text('[coins.XYZ]\nkorean = "엑스"\nenglish = "Xyz"\n')
    monkeypatch.setenv("KBERT_COINS__USER_FILE", str(coins))
    assert [counted("XYZ/KRW"), counted("OWN/KRW")] == [1, 0]
    markets.write_text('[ccxt.codes]\nXYZ = { code = "OWN" }\n')
    monkeypatch.setenv("KBERT_BOT__MARKETS_FILE", str(markets))
    assert counted("OWN/KRW") == 1
    markets.write_text("[ccxt")
    with pytest.raises(ConfigurationError, match=r"markets\.toml"):  # no pair without a coin
        counted("OWN/KRW")


async def test_live_it_reads_the_server_and_never_repaints(
    kafka: KafkaServer, topics: Topics, redis_url: str, redis_prefix: str, tmp_path: Path
) -> None:
    settings = await serve_settings(kafka, topics, redis_url, redis_prefix)
    since = (now() - timedelta(days=6)).isoformat()
    signals = [s for s in week_of_signals(now() - timedelta(minutes=10), 1_000) if s["published_at"] > since]
    await send(settings, *signals)
    mood = strategy(config(tmp_path, url=f"http://127.0.0.1:{settings.serve.port}"))
    start = now().replace(minute=0, second=0, microsecond=0) - timedelta(days=4)
    count = int((now() - start).total_seconds()) // 300
    pair = {"pair": "BTC/KRW"}

    async def analysed() -> pd.DataFrame:
        return await asyncio.to_thread(mood.populate_indicators, candles(start, count), pair)

    async with serving(settings) as address:

        async def counted() -> bool:
            async with httpx.AsyncClient(base_url=address) as client:
                coin = (await client.get("/v1/coins/BTC")).json()
            return bool(coin["windows"]["7d"]["messages"] == sum("BTC" in s["coins"] for s in signals))

        await eventually(counted, timeout=60, what="every signal in the aggregates")
        before = await analysed()
        assert before["kbert_messages"].notna().all()
        assert before["kbert_messages"].sum() > 0
        late = now() - timedelta(hours=3)
        await send(settings, *(full_signal(50_000 + n, late) for n in range(40)))

        async def came() -> bool:
            fresh = strategy(config(tmp_path, url=mood.kbert_url))
            frame = await asyncio.to_thread(fresh.populate_indicators, candles(start, count), pair)
            return bool((frame["kbert_messages"] > before["kbert_messages"] + 30).any())

        await eventually(came, timeout=30, interval=0.5, what="late messages, for a strategy that starts now")
        pd.testing.assert_frame_equal(await analysed(), before)
    away = strategy(config(tmp_path, url=f"http://127.0.0.1:{free_port()}"))
    assert (
        (await asyncio.to_thread(away.populate_indicators, candles(start, 20), pair))["kbert_messages"]
        .isna()
        .all()
    )

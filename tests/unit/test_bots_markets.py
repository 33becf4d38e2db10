"""The market map: a coin's codes at every venue, and back."""

from pathlib import Path

import pytest

from worker.clients.bots.markets import MarketError, Markets
from worker.coins import load_catalogue

CATALOGUE = load_catalogue()
MARKETS = Markets(CATALOGUE)


def test_bitcoin_everywhere() -> None:
    assert {venue: market.code for venue, market in MARKETS.codes("BTC").items()} == {
        "upbit": "KRW-BTC",
        "bithumb": "KRW-BTC",
        "coinone": "KRW-BTC",
        "korbit": "btc_krw",
        "binance": "BTCUSDT",
        "binance-futures": "BTCUSDT",
        "bybit": "BTCUSDT",
        "okx": "BTC-USDT",
        "okx-swap": "BTC-USDT-SWAP",
        "kraken": "XBT/USD",
        "ccxt": "BTC/KRW",
        "ccxt-swap": "BTC/USDT:USDT",
        "hummingbot": "BTC-KRW",
    }


@pytest.mark.parametrize("venue", MARKETS.venues)
def test_every_coin_goes_there_and_back(venue: str) -> None:
    seen: dict[str, str] = {}
    for coin in CATALOGUE:
        for quote in MARKETS._rules(venue).quotes:
            if quote == coin.symbol or coin.symbol in MARKETS._rules(venue).unsure:
                continue
            market = MARKETS.of(coin.symbol, venue, quote)
            assert seen.setdefault(market.code, coin.symbol) == coin.symbol, market.code
            assert MARKETS.market(market.code, venue) == market


def test_units_and_codes_of_their_own() -> None:
    pepe = MARKETS.market("1000PEPEUSDT", "binance-futures")
    assert (pepe.symbol, pepe.units) == ("PEPE", 1_000)
    assert MARKETS.market("PEPEUSDT", "binance").units == 1
    assert MARKETS.code("LUNC", "kraken") == "LUNA/USD"
    assert MARKETS.market("XDG/EUR", "kraken").symbol == "DOGE"
    assert MARKETS.market("KRW-MATIC").symbol == "POL"  # its former ticker is read
    assert MARKETS.code("POL") == "KRW-POL"  # and never written


@pytest.mark.parametrize(
    ("code", "venue", "sentence"),
    [
        ("KRW-TON", "upbit", "two coins at upbit"),
        ("BTC/KRW", "upbit", "written like KRW-BTC"),
        ("KRW-NOSUCHCOIN", "upbit", "no coin of the catalogue"),
        ("PEPEUSDT", "binance-futures", "no coin of the catalogue"),
        ("BTCUSDT", "nowhere", "there are upbit"),
    ],
)
def test_what_is_not_sure_is_refused(code: str, venue: str, sentence: str) -> None:
    with pytest.raises(MarketError, match=sentence):
        MARKETS.market(code, venue)


def test_coins_and_currencies_that_fit_nowhere_are_refused() -> None:
    with pytest.raises(MarketError, match=r"coins\.user_file"):
        MARKETS.code("NOSUCHCOIN")
    with pytest.raises(MarketError, match="no markets in EUR"):
        MARKETS.code("BTC", "upbit", "EUR")
    with pytest.raises(MarketError, match="against itself"):
        MARKETS.code("BTC", "upbit", "BTC")
    with pytest.raises(MarketError, match="two coins"):
        MARKETS.code("TON")


def test_a_file_of_the_user_decides_and_adds(tmp_path: Path) -> None:
    file = tmp_path / "markets.toml"
    file.write_text(
        '[upbit.codes]\nTOKAMAK = { code = "TON" }\n[mine]\nformat = "{base}.{quote}"\nquotes = ["KRW"]\n'
    )
    markets = Markets(CATALOGUE, file)
    assert markets.market("KRW-TON").symbol == "TOKAMAK"
    assert markets.code("BTC") == "KRW-BTC"
    assert markets.code("ETH", "mine") == "ETH.KRW"
    file.write_text('[mine]\nformat = "{base}"\nquotes = ["KRW"]\n')
    with pytest.raises(MarketError, match=r"key format"):
        Markets(CATALOGUE, file)


def test_codes_agree_with_ccxt() -> None:
    """Where ccxt knows that an exchange calls a coin otherwise, so does the map."""
    ccxt = pytest.importorskip("ccxt", reason="ccxt comes with freqtrade")
    for venue in ("upbit", "bithumb", "coinone", "binance", "bybit", "okx", "kraken"):
        rules = MARKETS._rules(venue)
        for code, symbol in getattr(ccxt, venue)().commonCurrencies.items():
            if code not in CATALOGUE or symbol == code:
                continue
            try:
                ours = MARKETS.market(rules.written(code, rules.quotes[0]), venue).symbol
            except MarketError:
                assert symbol not in CATALOGUE, f"{venue} calls {symbol} {code}"
            else:
                assert symbol in (ours, *CATALOGUE[ours].tickers), f"{venue} calls {symbol} {code}"

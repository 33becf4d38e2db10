"""The market map: a coin's codes at every venue, and back."""

from pathlib import Path

import pytest

from worker.clients.bots.markets import MarketError, Markets
from worker.coins import load_catalogue
from worker.commands import bot
from worker.settings import Settings

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
        ("KRW-NOSUCHCOIN", "upbit", r"catalogue: add it in coins\.user_file\.$"),
        (
            "1000PEPEUSDT",
            "bybit",
            r"catalogue: say in bot\.markets_file, as \[bybit\.codes\] with PEPE = "
            r'\{ code = "1000PEPE", units = 1000 \}',
        ),
        ("1000NOSUCH/USDT", "ccxt", r"add NOSUCH in coins\.user_file, and say in bot\.markets_file"),
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


@pytest.mark.parametrize(
    ("base", "symbol", "units"),
    [
        ("PEPE", "PEPE", 1),
        ("1000PEPE", "PEPE", 1_000),
        ("1000000MOG", "MOG", 1_000_000),
        ("SHIB1000", "SHIB", 1_000),
        ("10000SATS", "SATS", 10_000),
        ("1000SATS", "SATS", 1_000),
        ("SATS", "SATS", 1),
        ("1MBABYDOGE", "BABYDOGE", 1_000_000),
        ("BABYDOGE", "BABYDOGE", 1),
        ("LUNA2", "LUNA", 1),
        ("LUNA", "LUNA", 1),
        ("1000LUNC", "LUNC", 1_000),
        ("1INCH", "1INCH", 1),
        ("0G", "0G", 1),
        ("2Z", "2Z", 1),
    ],
)
def test_libraries_write_multiples_of_a_coin(base: str, symbol: str, units: int) -> None:
    for code, venue in (
        (f"{base}/USDT:USDT", "ccxt-swap"),
        (f"{base}/USDT", "ccxt"),
        (f"{base}-USDT", "hummingbot"),
    ):
        market = MARKETS.market(code, venue)
        assert (market.symbol, market.units, market.code) == (symbol, units, code)


def test_a_code_of_the_user_stands_for_the_coin_alone(tmp_path: Path) -> None:
    file = tmp_path / "markets.toml"
    file.write_text('[ccxt-swap.codes]\nPEPE = { code = "1000PEPE", units = 1000 }\n')
    markets = Markets(CATALOGUE, file)
    assert markets.market("1000PEPE/USDT:USDT", "ccxt-swap").units == 1_000
    assert markets.spellings("PEPE", "ccxt-swap") == ("1000PEPE/USDT:USDT",)
    for other in ("PEPE", "1000000PEPE"):
        with pytest.raises(MarketError, match="no coin of the catalogue"):
            markets.market(f"{other}/USDT:USDT", "ccxt-swap")


def test_every_spelling_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bot, "_settings", Settings)
    bot.markets(coin=["PEPE", "BTC"], venue=None, as_json=False)
    pepe, bitcoin = (line.split() for line in capsys.readouterr().out.splitlines())
    assert "ccxt-swap=PEPE/USDT:USDT,1000PEPE/USDT:USDT" in pepe
    assert "binance-futures=1000PEPEUSDT" in pepe
    assert "ccxt-swap=BTC/USDT:USDT" in bitcoin


@pytest.mark.parametrize("quote", ["FDUSD", "BUSD", "JPY", "TRY"])
def test_ccxt_reads_further_currencies(quote: str) -> None:
    market = MARKETS.market(f"BTC/{quote}", "ccxt")
    assert (market.symbol, market.quote) == ("BTC", quote)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('format = "x"\n', "format"),
        ("[[upbit]]\nlower = true\n", "upbit"),
        ('[upbit]\ncodes = ["TON"]\n', r"upbit\.codes"),
        ('[mine]\nformat = "{base}{quote}"\nquotes = ["KRW"]\ncodes = "TON"\n', r"mine\.codes"),
    ],
)
def test_what_is_no_table_is_refused(text: str, key: str, tmp_path: Path) -> None:
    file = tmp_path / "markets.toml"
    file.write_text(text)
    with pytest.raises(MarketError, match=rf"markets\.toml, key {key}: write it as a table, \[{key}\]"):
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

"""The catalogue, and names of a user's own."""

from collections import defaultdict
from pathlib import Path

import pytest

from worker.coins import CatalogueError, Certainty, CoinTagger, load_catalogue
from worker.errors import ConfigurationError


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "my-coins.toml"
    path.write_text(text, encoding="utf-8")
    return path


def _tags(tmp_path: Path, toml: str, text: str) -> list[str]:
    return CoinTagger(load_catalogue(_file(tmp_path, toml))).tag(text)


def test_every_coin_has_display_names() -> None:
    for coin in load_catalogue():
        assert coin.korean, coin.symbol
        assert coin.english, coin.symbol


def test_the_major_coins_are_in_it() -> None:
    majors = "BTC ETH XRP BNB SOL USDC USDT DOGE TRX ADA TON AVAX PEPE WLD LINK SUI XLM HBAR BCH LTC SHIB XMR"
    catalogue = load_catalogue()
    assert all(symbol in catalogue for symbol in majors.split())
    assert catalogue["BTC"].korean == "비트코인"
    assert catalogue["ADA"].english == "Cardano"


def test_no_spelling_stands_for_two_coins_without_context() -> None:
    owners: dict[str, set[str]] = defaultdict(set)
    for coin in load_catalogue():
        for name, certainty in coin.spellings():
            if certainty <= Certainty.LIKELY:
                owners[name.replace(" ", "").lower()].add(coin.symbol)
    assert {name: symbols for name, symbols in owners.items() if len(symbols) > 1} == {}


def test_a_former_ticker_is_nobody_elses_ticker() -> None:
    catalogue = load_catalogue()
    former = [ticker for coin in catalogue for ticker in coin.tickers]
    assert len(former) == len(set(former))
    assert not set(former) & set(catalogue.coins)


@pytest.mark.parametrize(
    ("text", "symbol"),
    [
        ("클레이튼 떡상", "KAIA"),
        ("KLAY", "KAIA"),
        ("매틱 숏", "POL"),
        ("MATIC", "POL"),
        ("RNDR", "RENDER"),
        ("FTM", "S"),
    ],
)
def test_a_renamed_coin_gets_its_ticker_of_today(text: str, symbol: str) -> None:
    assert CoinTagger(load_catalogue()).tag(text) == [symbol]


def test_a_users_coin_is_added(tmp_path: Path) -> None:
    toml = '[coins.XYZ]\nkorean = "가나다코인"\nnames = ["가나다라", "가나다 마바"]\ntickers = ["OLDXYZ"]\n'
    for text in (
        "가나다라가 쏜다",
        "가나다 마바 숏",
        "가나다마바 롱",
        "XYZ 매수",
        "OLDXYZ 상장",
        "KRW-XYZ",
        "가나다코인",
    ):
        assert _tags(tmp_path, toml, text) == ["XYZ"], text
    assert load_catalogue(tmp_path / "my-coins.toml")["XYZ"].korean == "가나다코인"


def test_a_users_everyday_word_needs_context(tmp_path: Path) -> None:
    toml = '[coins.CHAIR]\nambiguous = ["의자", "CHAIR"]\nagainst = ["책상"]\n'
    assert _tags(tmp_path, toml, "의자 상장빔 떡상") == ["CHAIR"]
    assert _tags(tmp_path, toml, "의자에 앉아서 쉬는 중") == []
    assert _tags(tmp_path, toml, "의자 책상 세트 매수") == []


@pytest.mark.parametrize("shown", ["", 'english = "NEWS"\n', 'korean = "NEWS"\n'])
def test_the_symbol_of_a_users_coin_is_no_name_in_small_letters(tmp_path: Path, shown: str) -> None:
    toml = f'[coins.NEWS]\nnames = ["뉴스코인"]\n{shown}'
    assert _tags(tmp_path, toml, "good news 나옴") == []
    assert _tags(tmp_path, toml, "NEWS 상장") == ["NEWS"]
    assert _tags(tmp_path, toml, "뉴스코인 봤음?") == ["NEWS"]


def test_a_word_against_a_name_may_count_only_as_it_is(tmp_path: Path) -> None:
    toml = '[coins.CHAIR]\nlikely = ["의자왕"]\nagainst = ["=책상", "백제"]\n'
    assert _tags(tmp_path, toml, "의자왕 책상") == []
    assert _tags(tmp_path, toml, "의자왕 책상을") == []
    assert _tags(tmp_path, toml, "의자왕 책상물림") == ["CHAIR"]
    assert _tags(tmp_path, toml, "의자왕 백제시대") == []


def test_a_users_leaning_name_is_a_coin_at_the_head_of_a_post(tmp_path: Path) -> None:
    toml = '[coins.CHAIR]\nleaning = ["의자"]\nagainst = ["책상"]\n'
    assert _tags(tmp_path, toml, "의자 아직 들고계신 분") == ["CHAIR"]
    assert _tags(tmp_path, toml, "오늘은 의자 위에서 쉬는 중") == []
    assert _tags(tmp_path, toml, "의자 말고 책상") == []
    assert _tags(tmp_path, '[coins.CHAIR]\nambiguous = ["의자"]\n', "의자 아직 들어본 분") == []


def test_a_users_name_moves_from_one_coin_to_another(tmp_path: Path) -> None:
    toml = '[coins.XYZ]\nnames = ["비트"]\n'
    assert _tags(tmp_path, toml, "비트 간다") == ["XYZ"]
    assert _tags(tmp_path, toml, "비트코인 간다") == ["BTC"]


def test_a_user_makes_a_name_of_a_known_coin_need_context(tmp_path: Path) -> None:
    toml = '[coins.BTC]\nambiguous = ["비트"]\n'
    assert _tags(tmp_path, toml, "비트 참 좋네 그치") == []
    assert _tags(tmp_path, toml, "비트 숏 청산") == ["BTC"]
    assert _tags(tmp_path, toml, "비트코인 참 좋네") == ["BTC"]


def test_a_user_adds_a_nickname_to_a_known_coin(tmp_path: Path) -> None:
    toml = '[coins.BTC]\nnames = ["대장님코"]\n'
    assert _tags(tmp_path, toml, "대장님코 가즈아") == ["BTC"]
    assert load_catalogue(tmp_path / "my-coins.toml")["BTC"].korean == "비트코인"


def test_a_user_ignores_a_name_and_a_phrase(tmp_path: Path) -> None:
    toml = 'ignore = ["비트코인", "이더 만세"]\n'
    assert _tags(tmp_path, toml, "비트코인 숏 청산") == []
    assert _tags(tmp_path, toml, "비트코인이 쏘네") == []
    assert _tags(tmp_path, toml, "이더 만세 부르자") == []
    assert _tags(tmp_path, toml, "이더 숏") == ["ETH"]


def test_what_a_user_ignores_stays_ignored_when_the_coin_gets_names(tmp_path: Path) -> None:
    toml = 'ignore = ["비트코인"]\n[coins.BTC]\nnames = ["대장님코"]\n'
    assert _tags(tmp_path, toml, "비트코인이 쏘네") == []
    assert _tags(tmp_path, toml, "대장님코가 쏘네") == ["BTC"]


@pytest.mark.parametrize(
    ("toml", "key"),
    [
        ("[coins.XYZ]\nnmaes = ['가나다']\n", "coins.XYZ.nmaes"),
        ("[coins.XYZ]\nnames = '가나다'\n", "coins.XYZ.names"),
        ("[coins.XYZ]\nnames = [1]\n", "coins.XYZ.names.0"),
        ("[coins.XYZ]\nnames = ['']\n", "coins.XYZ.names"),
        ("[coins.XYZ]\nnames = ['가나/다']\n", "coins.XYZ.names"),
        ("[coins.XYZ]\nnames = ['가나다']\nambiguous = ['가나다']\n", "coins.XYZ.ambiguous"),
        ("[coins.xyz]\nnames = ['가나다']\n", "coins.xyz"),
        ("[coins.MARKET]\nnames = ['가나다']\n", "coins.MARKET"),
        ("[coins.XYZ]\ntickers = ['old']\n", "coins.XYZ.tickers"),
        ("[coins.XYZ]\nkorean = ''\n", "coins.XYZ.korean"),
        ("[coins.XYZ]\nagainst = [' ']\n", "coins.XYZ.against"),
        ("[coins.XYZ]\nagainst = ['=']\n", "coins.XYZ.against"),
        ("[coin.XYZ]\nnames = ['가나다']\n", "coin"),
        ("ignore = ['!']\n", "ignore"),
    ],
)
def test_a_broken_file_is_refused_in_one_sentence_with_file_and_key(
    tmp_path: Path, toml: str, key: str
) -> None:
    path = _file(tmp_path, toml)
    with pytest.raises(CatalogueError) as refusal:
        load_catalogue(path)
    message = str(refusal.value)
    assert str(path) in message
    assert f"key {key}:" in message
    assert "\n" not in message
    assert isinstance(refusal.value, ConfigurationError)


def test_a_file_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    path = _file(tmp_path, "[coins.XYZ\n")
    with pytest.raises(CatalogueError, match=r"my-coins\.toml is not TOML in UTF-8: .*line 1"):
        load_catalogue(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"nowhere\.toml cannot be read"):
        load_catalogue(tmp_path / "nowhere.toml")

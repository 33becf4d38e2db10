"""What holds for every text."""

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from time import process_time

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import worker.training
from worker.coins import Catalogue, Coin, CoinTagger, load_catalogue
from worker.coins.measure import read_lines

_LABELLED = Path(worker.training.__file__).parent / "data" / "crypto_ko.jsonl.gz"
_WORDS = (
    *(
        "비트",
        "이더",
        "비트코인",
        "캐시",
        "리플",
        "솔",
        "보라",
        "링크",
        "온도",
        "레이어",
        "랑",
        "이",
        "가",
        "은",
        "한테",
    ),
    *(
        "BTC",
        "btc",
        "$sol",
        "KRW-",
        "/USDT",
        "USDT",
        "SXP",
        "https://",
        "숏",
        "떡상",
        "3%",
        "0.5",
        "ㅋㅋ",
        "2",
    ),
    *("(", ")", "·", ",", "…", "@", ".", "-", "/", "#"),
)
_FRAGMENTS = st.sampled_from(_WORDS)
_TEXTS = st.one_of(
    st.text(max_size=200),
    st.lists(_FRAGMENTS, max_size=30).map("".join),
    st.lists(_FRAGMENTS, max_size=30).map(" ".join),
)
_KOREAN = st.text(st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3), min_size=2, max_size=6)


@cache
def _tagger() -> CoinTagger:
    return CoinTagger(load_catalogue())


@cache
def _texts() -> list[str]:
    return [line.text for line in read_lines(_LABELLED)][::7]


@given(_TEXTS)
@settings(max_examples=400, deadline=None)
def test_any_text_gives_known_symbols_each_once(text: str) -> None:
    symbols = _tagger().tag(text)
    assert len(symbols) == len(set(symbols))
    assert all(symbol in load_catalogue() for symbol in symbols)


@given(name=_KOREAN, text=st.sampled_from(range(600)))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_new_coin_changes_nothing_where_its_name_does_not_stand(name: str, text: int) -> None:
    sentence = _texts()[text % len(_texts())]
    assume(name not in sentence.replace(" ", ""))
    known = load_catalogue()
    coin = Coin("XQZ7", korean=name, english="Some Coin", names=(name + "코인", name + " 토큰"))
    assume(not any(spelling in sentence for spelling in ("XQZ7", "Some Coin")))
    with_it = CoinTagger(Catalogue({**known.coins, "XQZ7": coin}, known.ignored))
    assert with_it.tag(sentence) == _tagger().tag(sentence)


@given(st.lists(_FRAGMENTS, min_size=1, max_size=12), st.integers(1, 1_000))
@settings(max_examples=30, deadline=None)
def test_a_text_of_ten_thousand_characters_is_read_without_trouble(words: list[str], times: int) -> None:
    text = (" ".join(words) * times)[:10_000]
    assert all(symbol in load_catalogue() for symbol in _tagger().tag(text))
    joined = ("".join(words) * times)[:10_000]
    assert all(symbol in load_catalogue() for symbol in _tagger().tag(joined))


@pytest.mark.parametrize(
    ("before", "repeated"),
    [
        ("비트", " "),
        ("비트", "1"),
        ("비트", "1,"),
        ("비트 ", "("),
        ("", "비트" + " " * 50),
        ("", "보라, "),
        ("", "BTC,"),
        ("", "BTC-ETH/"),
        ("", "비트이더"),
        ("BTC-", "A"),
        ("BTC", "가"),
        ("비트 ", "ㅋ"),
        ("비트", "\u0301\u0327"),
    ],
)
def test_the_time_grows_with_the_text_and_no_faster(before: str, repeated: str) -> None:
    def seconds(length: int) -> float:
        text = before + (repeated * length)[:length] + "ㅋ"
        taken = []
        for _ in range(4):
            start = process_time()
            _tagger().tag(text)
            taken.append(process_time() - start)
        return min(taken)

    # Four times the text; with a square it is sixteen times the time.
    assert seconds(16_000) < 8 * max(seconds(4_000), 0.0005)


def test_a_list_of_quotes_is_one_up_to_seventeen() -> None:
    assert _tagger().tag("BTC" + ",KRW" * 16 + " 마켓") == []


def test_threads_find_what_one_thread_finds() -> None:
    texts = _texts()
    alone = [CoinTagger(load_catalogue()).tag(text) for text in texts[:50]]
    shared = CoinTagger(load_catalogue(), cached_words=64)
    with ThreadPoolExecutor(8) as threads:
        for _ in range(4):
            assert list(threads.map(shared.tag, texts[:50])) == alone

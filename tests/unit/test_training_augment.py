import random

from worker.training.augment import COINS, augment, drop_spaces, mistype, redraw_runs, swap_coins


def test_coins_swap_within_their_line_and_alike_in_a_text() -> None:
    seen = set()
    for seed in range(50):
        text = swap_coins("비트 롱 비트 숏", random.Random(seed))
        first, _, second, _ = text.split()
        assert first == second
        assert first in COINS[0]
        seen.add(first)
    assert len(seen) > 3


def test_only_whole_names_are_swapped() -> None:
    for text in ("업비트 서버", "알트코인 불장", "BTCUSDT 차트", "샌드위치 먹자"):
        assert swap_coins(text, random.Random(1)) == text


def test_names_stay_where_no_coin_is_named() -> None:
    for seed in range(50):
        assert "리플" in augment("리플 달아", random.Random(seed), has_coins=False).replace(" ", "")[:3]


def test_runs_change_length_only() -> None:
    lengths = {redraw_runs("간다ㅋㅋㅋ", random.Random(seed)) for seed in range(40)}
    assert lengths == {"간다" + "ㅋ" * n for n in range(2, 7)}


def test_the_same_seed_gives_the_same_text() -> None:
    text = "이더 지금 4100에서 반등하면 롱 들어간다 진짜ㅋㅋㅋ!!"
    for seed in range(20):
        one = augment(text, random.Random(seed), has_coins=True)
        assert one == augment(text, random.Random(seed), has_coins=True)
        assert one.strip()


def test_typing_changes_lose_nothing_else() -> None:
    for seed in range(30):
        spaced = drop_spaces("가 나 다 라", random.Random(seed))
        assert spaced.replace(" ", "") == "가나다라"
        assert len(mistype("오늘 불장이다", random.Random(seed))) == len("오늘 불장이다")

import random

from worker.training.datasets import PACKAGED, load_labelled
from worker.training.splits import near_duplicate_groups, split

TEXTS = [row.text for row in load_labelled(PACKAGED[0])]


def test_near_duplicates_stay_together() -> None:
    pairs = [
        ("비트 지금이라도 탑승해야됨 존나 간다", "비트 지금이라도 탑승해야됨 존나 간다ㅋㅋㅋㅋㅋㅋ!!"),
        ("업비트, 솔라나 입출금 일시 중단 안내 (3/27)", "업비트 솔라나 입출금 일시중단 안내 (11/4)"),
    ]
    for one, two in pairs:
        # Many times under other company, so that chance alone would part them.
        for i in range(40):
            parts = split([f"{i} {one}", *TEXTS[i * 5 : i * 5 + 5], f"{i} {two}"])
            assert parts[0] == parts[-1]


def test_different_texts_are_not_near() -> None:
    groups = near_duplicate_groups(["비트 간다", "이더 팔아라", "오늘 점심 뭐 먹지", "?", "!"])
    assert len(set(groups)) == 5


def test_order_and_company_play_no_role() -> None:
    expected = dict(zip(TEXTS, split(TEXTS), strict=True))
    shuffled = random.Random(3).sample(TEXTS, len(TEXTS))
    assert dict(zip(shuffled, split(shuffled), strict=True)) == expected
    half = TEXTS[::2]
    moved = sum(part != expected[text] for text, part in zip(half, split(half), strict=True))
    assert moved <= 2  # only a member of a group that lost its first text may move


def test_shares_are_as_promised() -> None:
    parts = split(TEXTS)
    assert 0.08 < parts.count("test") / len(parts) < 0.12
    assert 0.06 < parts.count("validation") / len(parts) < 0.10

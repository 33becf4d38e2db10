import hashlib
import random
import time

from worker.training.datasets import PACKAGED, load_labelled
from worker.training.splits import NEAR, _trigrams, canonical, near_duplicate_groups, split

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


def test_the_packaged_texts_are_split_as_ever() -> None:
    lines = "\n".join(f"{part} {text}" for text, part in zip(TEXTS, split(TEXTS), strict=True))
    found = hashlib.sha256(lines.encode()).hexdigest()
    assert found == "a32e425a579acd561a629b04ceaca68490d7978e02720ff242b6729ed1bcc021"


def test_every_near_pair_shares_a_group() -> None:
    rng = random.Random(4)
    texts = ["".join(rng.choices("가나다", k=rng.randint(1, 14))) for _ in range(250)]
    groups = near_duplicate_groups(texts)
    grams = [_trigrams(canonical(text)) for text in texts]
    near = [
        (i, j)
        for i, one in enumerate(grams)
        for j, two in enumerate(grams[:i])
        if len(one & two) >= NEAR * len(one | two)
    ]
    assert near
    assert all(groups[i] == groups[j] for i, j in near)


def test_long_texts_of_common_words_take_no_pairwise_time() -> None:
    rng = random.Random(5)
    common = "".join(chr(0xAC00 + n) for n in range(60))
    texts = [common + "".join(chr(0xAC00 + rng.randrange(11_000)) for _ in range(140)) for _ in range(1_500)]
    start = time.process_time()
    assert len(set(near_duplicate_groups(texts))) == len(texts)
    assert time.process_time() - start < 5

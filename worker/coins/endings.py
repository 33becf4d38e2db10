"""What may follow a coin's name within one written word: particles, and words that people glue on."""

import re
from collections.abc import Iterable

# Behind a name: case and topic particles, forms of "to be", and what turns a coin into its followers.
_PARTICLES = """
은 는 이 가 을 를 의 에 로 와 과 랑 도 만 야 아 여 요 임 인 다 냐 네 지 죠 든 엔 서 론 께 들 님 놈 년
충 형 러 단 빠 건 나 고 며 면 니 군 란 래 뿐 씩 쯤 으로 이랑 하고 한테 한텐 에게 에겐 에서 에선 까지
부터 마저 조차 보다 보단 처럼 만큼 만은 만이 이나 라도 이라도 이라면 라면 이든 든지 이든지 이야 이여
이요 이임 인데 이다 이었 였던 였다 이냐 인가 인지 이네 이지 이죠 예요 이에요 에요 입니다 인듯 일듯 이란
이라 이라고 라고 이라는 라는 이라던 라던 이래 밖에 대로 마다 께서 이놈 새끼 이새끼 이형 형님 형들 쟁이
으론 로는 인게 인거 이건 이고 이며 거든 이거든 잖아 이잖아 라서 이라서 라니 이라니 처럼만 니까 이니까
마는 치고 말고 같이 같은 따위 란게 일까 일지 이면 이더라 인줄 인척 라며 이라며 다만 이나마 나마 이여서
여서 이니 이었나 였나 에는 에도 에만 로도 로만 서는 과의 와의 입니까 인가요 인데요 네요 이네요 임다
입니당 구나 이구나 이군 였는데 였네 였네요 였음 였어 였지 이었는데 이었음
까진 부턴 말곤 라매 이라매 라면서 이라면서 하곤
"""
# Behind an everyday word: without those that make a verb of it (보라고, 갈라서) or another noun (바나나).
_STRICT = """
은 는 이 가 을 를 의 에 로 와 과 랑 도 만 야 님 형 들 임 요 으로 이랑 하고 한테 한텐 에게 에서 까지
부터 보다 보단 처럼 만큼 이나 라도 이라도 인데 이다 예요 이에요 에요 입니다 이야 형님 말고 밖에 따위
은요 는요 이요 뿐 까진 부턴 말곤
"""
# Behind one syllable: fewer still, or half of the language would be coins.
_SHORT = """
은 이 가 을 를 도 만 의 로 에 랑 형 님 아 들 과 와 뿐 이랑 한테 한텐 까지 부터 보다 보단 처럼 말고 이나
이라도 이야 이지 이네 인데 이냐 이다 으로 이는 이가 이도 은요 이요 에서 이고 하고 밖에 만큼 까진
"""
# Behind a context word of one syllable.
_PLAIN = "은 는 이 가 을 를 의 에 로 도 만 요 임 인 한 각 들 인데 이다 이라 으로 에서 까지 이나"


def _one_of(particles: str) -> str:
    return "|".join(sorted(set(particles.split()), key=len, reverse=True))


# Three in a row at most: 들한테만, 한테까지는.
PARTICLES = re.compile(f"(?:{_one_of(_PARTICLES)}){{0,3}}")
STRICT_PARTICLES = re.compile(f"(?:{_one_of(_STRICT)}){{0,2}}")
SHORT_PARTICLES = re.compile(f"(?:{_one_of(_SHORT)})?")
PLAIN_PARTICLES = tuple(_PLAIN.split())
PLAIN_PARTICLE = re.compile(f"(?:{_one_of(_PLAIN)})?")


def tail_pattern(tails: Iterable[str]) -> re.Pattern[str]:
    """Match the start of what may be glued to a name, behind at most one particle."""
    return re.compile(f"(?:은|는|이|가|을|를|도|만|로|으로|에|의)?(?:{_one_of(' '.join(tails))})")

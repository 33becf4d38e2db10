"""Raw records of every bad kind that a topic may hold, made with a fixed seed."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

FIELDS: Final = ("id", "source", "kind", "text", "title", "body", "author", "url", "published_at")
_TEXTS: Final = (
    "비트코인 가즈아 🚀🚀",
    "이더 손절했다 ㅠㅠ 리플은 존버",
    "\u202e\ub9ac\ud50c \ub9e4\uc218\u202c",  # right to left, and back
    "비\u200b트\u200d코\u200c인\ufeff 떡상",  # zero width within a word
    "\u200b\u200c\u200d",
    "\u3000\u00a0\t",
    "nul \x00 in the middle",
    "e\u0301" * 50 + "\u1112\u1161\u11ab" * 50,  # decomposed
    "👨‍👩‍👧‍👦" * 40 + "\U000e0041" * 30,
    "가" * 5_000,
    "ㅋ" * 3_000,
    "$BTC " * 2_000,
    "a" * 20_000,
    "\u0915\u094d" * 300 + "\ufffd\ufffe\uffff",
)
# What JSON writers and their bugs put where a value belongs; not all of it is JSON.
_TOKENS: Final = (
    "NaN",
    "-Infinity",
    "1e400",
    "-1e-400",
    "9" * 400,
    "9" * 5_000,
    "18446744073709551616",
    "-0.0",
    "0x10",
    "01",
    "null",
    "true",
    "[]",
    "{}",
    '""',
    '"\\ud800"',
    '"\\udc00\\ud800"',
    '"\\u0000"',
    '"\\x41"',
    "'비트'",
    '"' + "가" * 5_000 + '"',
    "[" * 3_000,
    "[" * 3_000 + "]" * 3_000,
    '{"a":' * 3_000 + "1" + "}" * 3_000,
    '"0001-01-01T00:00:00+14:00"',
    '"9999-12-31T23:59:59-14:00"',
    '"1970-01-01T00:00:00Z"',
    '"2026-02-30T25:61:61"',
    '"2026-03-29T02:30:00"',
    '"2026-01-01T00:00:60Z"',
    "1e15",
    "-62135596800001",
    "253402300800000",
    "99999999999999999999",
)
_TIMESTAMPS: Final = (0, 1, 951_782_400_000, 4_102_444_800_000, 253_402_300_800_000, 2**53, 2**62)
"""Milliseconds: 1970, a leap day, the year 2100, the year 10000, and beyond."""


@dataclass(frozen=True, slots=True)
class Case:
    """A raw record; ``timestamp`` in ms, the producer's clock where absent."""

    value: bytes | None
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()
    timestamp: int | None = None


def make_cases(count: int, number: int) -> list[Case]:
    """``count`` cases, a tenth by hypothesis, the rest mutations; the same for the same ``number``.

    (Hypothesis also draws constants of the modules that are loaded, so its tenth differs between programs.)
    """
    rng = random.Random(number)
    made = [*_giants(), *(Case(payload) for payload in _hypothesis_payloads(count // 10, number))][:count]
    while len(made) < count:
        made.append(_mutated(rng))
    rng.shuffle(made)
    return made


def bomb(rng: random.Random, megabytes: int) -> list[Case]:
    """Records for one batch: large, and next to nothing once compressed."""
    good = json.dumps({"text": "가" * 80_000}).encode()
    huge = json.dumps({"text": " " * 1_000_000}).encode()
    cases: list[Case] = []
    while sum(len(case.value or b"") for case in cases) < megabytes * 1_000_000:
        cases.append(Case(rng.choice((good, huge))))
    return cases


def _giants() -> list[Case]:
    """Texts of a megabyte, and keys and headers as large as a topic takes them."""
    megabyte, most = "가" * 333_000, 1_040_000
    return [
        *[Case(json.dumps({"text": megabyte}, ensure_ascii=False).encode())] * 5,
        *[Case(megabyte.encode())] * 5,
        *[Case(b"x" * 262_144)] * 5,  # the largest that is read
        Case(b'{"text": "' + b"\\ud55c" * 40_000 + b'"}'),
        Case(b"\xff" * most),
        Case(b"", key=b"k" * most),
        Case(None, key=b"k" * most),
        Case(b"\xff", headers=[("h", b"v" * most)]),
        Case(b"\xff", headers=[("h" * 30_000, b"v" * 1_000)] * 30),
        Case(b'{"text": "x"}', key=b"k" * most),
        Case(b'{"text": "x"}', headers=[("h", b"v" * most)]),
        # A dead letter adds headers of its own: no room is left for them.
        *[Case(b"\xff" * (1_048_400 - n)) for n in range(0, 400, 50)],
        *[Case(b"\xff", headers=[("h", b"v" * (1_048_380 - n))]) for n in range(0, 400, 50)],
        *[Case(b"\xff", key=b"k" * (1_048_400 - n)) for n in range(0, 400, 50)],
    ]


@lru_cache
def _hypothesis_payloads(count: int, number: int) -> list[bytes]:
    anything = st.text(st.characters(exclude_categories=()), max_size=60)  # lone surrogates too
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | anything
    values = st.recursive(
        leaves, lambda inner: st.lists(inner) | st.dictionaries(anything, inner), max_leaves=15
    )
    messages = st.dictionaries(st.sampled_from(FIELDS) | anything, values, max_size=6)
    payloads = (
        st.binary(max_size=200)
        | anything.map(lambda text: text.encode("utf-8", "surrogatepass"))
        | messages.map(lambda message: json.dumps(message).encode())
        | messages.map(
            lambda message: json.dumps(message, ensure_ascii=False).encode("utf-8", "surrogatepass")
        )
    )
    found: list[bytes] = []

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(payloads)
    def collect(payload: bytes) -> None:
        found.append(payload)

    collect()
    return found


def _mutated(rng: random.Random) -> Case:
    message = _message(rng)
    mutate = rng.choice(_MUTATIONS)
    value = mutate(rng, message)
    return Case(
        value,
        key=rng.choice((None, None, b"", b"key", rng.randbytes(rng.choice((1, 50, 5_000))))),
        headers=_headers(rng),
        timestamp=rng.choice(_TIMESTAMPS) if rng.random() < 0.2 else None,
    )


def _message(rng: random.Random) -> dict[str, Any]:
    message: dict[str, Any] = {"text": rng.choice(_TEXTS)}
    if rng.random() < 0.3:
        message = {"title": rng.choice(_TEXTS), "body": rng.choice(_TEXTS)}
    more = {
        "id": f"case-{rng.randrange(10**9)}",
        "source": rng.choice(("room", "news", "가" * 200)),
        "author": rng.choice(_TEXTS)[:1_000],
        "url": "https://example.org/" + "x" * rng.randrange(3_900),
        "published_at": "2026-11-01T00:00:00+09:00",
    }
    return message | {name: more[name] for name in rng.sample(list(more), rng.randrange(len(more)))}


def _headers(rng: random.Random) -> list[tuple[str, bytes]]:
    kind = rng.random()
    if kind < 0.6:
        return []
    if kind < 0.7:
        return [("kbert.id", rng.choice((b"", b"given", b"\xff\xfe", b"x" * 5_000)))]
    if kind < 0.8:
        return [("kbert.reason", b"invalid_json"), ("kbert.offset", b"no number")]
    count, size = rng.choice(((1, 1), (1, 50_000), (100, 100), (1_000, 1), (3, 0)))
    return [(rng.choice(("h", "", "이름", "h" * 200)), rng.randbytes(size)) for _ in range(count)]


def _encoded(message: dict[str, Any]) -> bytes:
    return json.dumps(message, ensure_ascii=False).encode()


def _untouched(_: random.Random, message: dict[str, Any]) -> bytes:
    return _encoded(message)


def _truncated(rng: random.Random, message: dict[str, Any]) -> bytes:
    value = _encoded(message)
    return value[: rng.randrange(len(value))]


def _flipped(rng: random.Random, message: dict[str, Any]) -> bytes:
    value = bytearray(_encoded(message))
    for _ in range(rng.choice((1, 1, 3, 30))):
        value[rng.randrange(len(value))] = rng.randrange(256)
    return bytes(value)


def _spliced(rng: random.Random, message: dict[str, Any]) -> bytes:
    value = _encoded(message)
    start, end = sorted((rng.randrange(len(value)), rng.randrange(len(value))))
    other = _encoded(_message(rng))
    return value[:start] + rng.choice((b"", b"\x00", b"\xed\xa0\x80", other, value)) + value[end:]


def _with_token(rng: random.Random, message: dict[str, Any]) -> bytes:
    name = rng.choice((*FIELDS, "unknown"))
    rest = _encoded({key: value for key, value in message.items() if key != name})[1:]
    pair = f'"{name}": {rng.choice(_TOKENS)}'.encode()
    return b"{" + pair + (b", " if rest != b"}" else b"") + rest


def _with_duplicates(rng: random.Random, message: dict[str, Any]) -> bytes:
    first, second = _encoded(message), _with_token(rng, message)
    return first[:-1] + b", " + second[1:]


def _otherwise_encoded(rng: random.Random, message: dict[str, Any]) -> bytes:
    text = json.dumps(message, ensure_ascii=False)
    return text.encode(rng.choice(("utf-16", "utf-32", "cp949", "utf-7", "utf-8-sig")), "replace")


def _as_text(rng: random.Random, message: dict[str, Any]) -> bytes:
    text = str(message.get("text") or message["title"])
    return rng.choice((text, f"[{text}", f'"{text}"', f"\n\n{text}", f"\ufeff{text}")).encode()


def _wrapped(rng: random.Random, message: dict[str, Any]) -> bytes:
    value = _encoded(message)
    return rng.choice(
        (b"[" + value + b"]", value + value, value + b",", b" \r\n" + value + b"\n", b"\x00" + value)
    )


_MUTATIONS: Final[tuple[Callable[[random.Random, dict[str, Any]], bytes], ...]] = (
    _untouched,
    _truncated,
    _flipped,
    _spliced,
    _with_token,
    _with_token,
    _with_duplicates,
    _otherwise_encoded,
    _as_text,
    _wrapped,
)

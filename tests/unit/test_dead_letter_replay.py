"""Which dead letters a replay sends, and what it says of the others, without a broker."""

from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from unittest.mock import AsyncMock, Mock

import pytest

from schemas.dead_letters import DeadLetterHeaders, DeadLetterReason
from worker.commands import dead_letter
from worker.commands.dead_letter import replay_dead_letters
from worker.errors import KbertError
from worker.settings import Settings, load_settings
from worker.sink.record import OutRecord
from worker.sink.topics import TopicState
from worker.source.dead_letters import DeadLetter, DeadLetterFilter


def letter(offset: int, topic: str) -> DeadLetter:
    about = DeadLetterHeaders(
        reason=DeadLetterReason.INFERENCE_FAILED,
        detail="x",
        topic=topic,
        partition=0,
        offset=offset,
        timestamp=1_750_000_000_000,
        failed_at="2026-01-01T00:00:00+00:00",
    )
    return DeadLetter(0, offset, None, str(offset).encode(), [], about)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[OutRecord]:
    """What goes to a broker that takes everything."""
    taken: list[OutRecord] = []

    async def deliver(records: Sequence[OutRecord]) -> list[int]:
        taken.extend(records)
        return []

    sink = SimpleNamespace(start=AsyncMock(), stop=AsyncMock(), deliver=deliver)
    monkeypatch.setattr(dead_letter, "KafkaSink", Mock(return_value=sink))
    return taken


def broker(monkeypatch: pytest.MonkeyPatch, letters: Sequence[DeadLetter], *there: str) -> Settings:
    """A broker that holds dead letters, and has these topics."""

    async def read(*_: object) -> AsyncIterator[DeadLetter]:
        for one in letters:
            yield one

    monkeypatch.setattr(dead_letter, "read_dead_letters", read)
    states = [TopicState(name, name in there, 1, 1) for name in ("raw.crypto", "raw.traffic")]
    monkeypatch.setattr(dead_letter, "describe_topics", AsyncMock(return_value=states))
    return load_settings(_env_file=None)


async def test_a_topic_that_is_gone_or_no_raw_topic_holds_nothing_up(
    monkeypatch: pytest.MonkeyPatch, sent: list[OutRecord], capsys: pytest.CaptureFixture[str]
) -> None:
    """One letter of a topic that was gone blocked all; a forged one was sent among the signals."""
    topics = ["raw.traffic", "raw.crypto", "signals.crypto", "raw.old\x1b[2J", "raw.crypto", "raw.traffic"]
    letters = [letter(offset, topic) for offset, topic in enumerate(topics)]
    settings = broker(monkeypatch, letters, "raw.crypto")
    with pytest.raises(KbertError) as left_out:
        await replay_dead_letters(settings, DeadLetterFilter())
    assert str(left_out.value) == (
        "2 replayed, 4 left out "
        "(2: there is no topic raw.traffic: correct traffic.raw or run kbert topics --create; "
        "1: signals.crypto is neither topics.raw nor traffic.raw; "
        "1: raw.old [2J is neither topics.raw nor traffic.raw)."
    )
    assert [(one.topic, one.value) for one in sent] == [("raw.crypto", b"1"), ("raw.crypto", b"4")]
    said = capsys.readouterr().err
    assert "left out 0:0, from raw.traffic:0:0: there is no topic raw.traffic" in said
    assert "\x1b" not in said


async def test_raw_topics_are_those_of_the_settings(
    monkeypatch: pytest.MonkeyPatch, sent: list[OutRecord]
) -> None:
    letters = [letter(offset, topic) for offset, topic in enumerate(("raw.crypto", "raw.traffic"))]
    settings = broker(monkeypatch, letters, "raw.crypto", "raw.traffic")
    assert await replay_dead_letters(settings, DeadLetterFilter()) == 2
    assert [one.topic for one in sent] == ["raw.crypto", "raw.traffic"]
    assert dict(sent[1].headers) == {
        "kbert.timestamp": b"1750000000000",
        "kbert.id": b"raw.traffic:0:1:1750000000000",
    }


async def test_a_summary_of_many_forged_topics_stays_short(
    monkeypatch: pytest.MonkeyPatch, sent: list[OutRecord]
) -> None:
    settings = broker(monkeypatch, [letter(n, f"forged-{n}") for n in range(100)], "raw.crypto")
    with pytest.raises(KbertError, match=r"^0 replayed, 100 left out .* 80: for others\)\.$"):
        await replay_dead_letters(settings, DeadLetterFilter())
    assert not sent

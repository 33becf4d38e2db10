"""`kbert topics` and what `kbert doctor` says of topics: partitions and replicas."""

import re

import pytest

from worker.commands.topics import show_topics
from worker.doctor.kafka import topic_finding
from worker.settings import Settings
from worker.sink.topics import TopicState


@pytest.mark.parametrize(("create", "told"), [(True, ["raw.crypto"]), (False, [])])
async def test_creating_names_a_topic_that_is_too_narrow(
    create: bool, told: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def created(_: Settings) -> list[str]:
        return ["signals.crypto"]

    async def described(_: Settings) -> list[TopicState]:
        return [
            TopicState("raw.crypto", True, 3, 1),
            TopicState("signals.crypto", True, 6, 1),
            TopicState("dead-letter", True, 12, 1),
            TopicState("raw.traffic", False, 0, 0),
        ]

    monkeypatch.setattr("worker.commands.topics.create_topics", created)
    monkeypatch.setattr("worker.commands.topics.describe_topics", described)
    await show_topics(Settings(), create=create, as_json=True)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in lines] == told
    assert all("topics.partitions asks for 6" in line for line in lines)
    assert all("--alter --topic raw.crypto --partitions 6" in line for line in lines)


@pytest.mark.parametrize("name", ["signals.crypto", "signals.traffic"])
async def test_no_one_is_told_to_widen_a_topic_of_signals(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def described(_: Settings) -> list[TopicState]:
        return [TopicState(name, True, 3, 1)]

    async def created(_: Settings) -> list[str]:
        return []

    monkeypatch.setattr("worker.commands.topics.create_topics", created)
    monkeypatch.setattr("worker.commands.topics.describe_topics", described)
    await show_topics(Settings(), create=True, as_json=True)
    told = capsys.readouterr().err
    assert "--alter" not in told
    assert re.search(
        r"counts known ids again and breaks the order of a coin's signals .*drain it first", told
    )


def test_a_topic_on_one_broker_is_a_warning_that_names_the_setting() -> None:
    found = topic_finding(TopicState("raw.crypto", True, 6, 1))
    assert found.outcome == "warn"
    assert "topics.replication_factor=3 (KBERT_TOPICS__REPLICATION_FACTOR)" in (found.mend or "")
    assert topic_finding(TopicState("raw.crypto", True, 6, 3)).outcome == "ok"

"""The generated documents match the models, and are what they say they are."""

import json

import pytest
from pydantic import ValidationError

from schemas import topics
from schemas.generate import documents
from schemas.labels import ACTIONS, EMOTIONS, POLARITY, SENTIMENTS
from schemas.messages import RawMessage
from schemas.signals import CryptoSignal


def test_generated_files_have_not_drifted() -> None:
    for path, content in documents().items():
        assert path.read_text(encoding="utf-8") == content, f"{path.name}: run python -m schemas.generate"


def test_the_asyncapi_document_resolves_and_names_every_topic() -> None:
    files = {path.name: path for path in documents()}
    document = json.loads(files["asyncapi.json"].read_text(encoding="utf-8"))
    assert document["asyncapi"].startswith("3.")
    addresses = {channel["address"] for channel in document["channels"].values()}
    assert addresses == {
        topics.RAW_CRYPTO,
        topics.RAW_TRAFFIC,
        topics.SIGNALS_CRYPTO,
        topics.SIGNALS_TRAFFIC,
        topics.DEAD_LETTER,
    }

    def references(node: object) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if "$ref" in node else []
            return own + [ref for value in node.values() for ref in references(value)]
        if isinstance(node, list):
            return [ref for value in node for ref in references(value)]
        return []

    for reference in references(document):
        if reference.startswith("#/"):
            node = document
            for part in reference[2:].split("/"):
                node = node[part]
        else:
            assert (files["asyncapi.json"].parent / reference).is_file()


def test_labels_are_those_of_the_labelling_guide_in_logit_order() -> None:
    assert SENTIMENTS == ("strong_pos", "weak_pos", "neutral", "weak_neg", "strong_neg")
    assert ACTIONS == ("buy", "hold", "sell", "avoid", "info_only", "ask_info")
    assert EMOTIONS == ("greed", "fear", "confidence", "doubt", "anger", "hope", "sarcasm")
    assert [POLARITY[s] for s in SENTIMENTS] == [1.0, 0.5, 0.0, -0.5, -1.0]


def test_signal_fields_have_exactly_the_published_names() -> None:
    fields = set(CryptoSignal.model_fields)
    assert {
        "sentiment_strength",
        "action_signal",
        "emotions",
        "certainty",
        "relevance",
        "toxicity",
    } <= fields
    assert {"id", "source", "kind", "published_at", "processed_at", "coins", "scores", "model"} <= fields


@pytest.mark.parametrize(
    ("given", "utc"),
    [
        ("2026-01-01T00:00:00+09:00", "2025-12-31T15:00:00+00:00"),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00+00:00"),
        ("2026-01-01T00:00:00", "2026-01-01T00:00:00+00:00"),
    ],
)
def test_times_are_utc(given: str, utc: str) -> None:
    message = RawMessage.model_validate({"text": "x", "published_at": given})
    assert message.published_at is not None
    assert message.published_at.isoformat() == utc


def test_a_time_past_the_calendar_is_refused_not_raised_through() -> None:
    with pytest.raises(ValidationError, match="years 1 to 9999"):
        RawMessage.model_validate({"text": "x", "published_at": "0001-01-01T00:00:00+09:00"})


def test_unknown_fields_are_ignored_and_numbers_are_ids() -> None:
    message = RawMessage.model_validate({"text": "x", "id": 12, "likes": 3})
    assert message.id == "12"
    assert not hasattr(message, "likes")

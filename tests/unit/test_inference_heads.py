"""Decoding: the labelling guide's names, thresholds as told, plain Python values that the schemas accept."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.labels import ACTIONS, EMOTIONS, SENTIMENTS
from schemas.signals import CryptoSignal, TrafficSignal
from worker.inference.heads import decode_crypto, decode_traffic

HALF = (0.5,) * 7
COMMON = {
    "id": "1",
    "source": "s",
    "published_at": "2025-01-01T00:00:00Z",
    "processed_at": "2025-01-01T00:00:00Z",
    "model": {"name": "m", "revision": "r"},
    "truncated": False,
}


def outputs(rows: int = 1, **given_rows: list[float]) -> dict[str, Any]:
    sizes = {"logits_senti": 5, "logits_act": 6, "logits_emo": 7, "pred_reg": 3}
    return {
        name: np.tile(np.array(given_rows.get(name, [0.0] * size), dtype=np.float32), (rows, 1))
        for name, size in sizes.items()
    }


def crypto(**given_rows: list[float]) -> dict[str, Any]:
    return decode_crypto(outputs(1, **given_rows), HALF, {})[0]


@pytest.mark.parametrize("index", range(5))
def test_sentiment_is_the_largest_logit(index: int) -> None:
    logits = [0.0] * 5
    logits[index] = 2.0
    assert crypto(logits_senti=logits)["sentiment_strength"] == SENTIMENTS[index]


@pytest.mark.parametrize("index", range(6))
def test_action_is_the_largest_logit(index: int) -> None:
    logits = [0.0] * 6
    logits[index] = 2.0
    assert crypto(logits_act=logits)["action_signal"] == ACTIONS[index]


def test_softmax_and_sigmoid() -> None:
    fields = crypto(logits_senti=[math.log(6), 0, 0, 0, 0], logits_emo=[math.log(3), -9, 0, 0, 0, 0, 0])
    assert fields["scores"]["sentiment_strength"] == dict(zip(SENTIMENTS, [0.6, *[0.1] * 4], strict=True))
    assert fields["scores"]["emotions"]["greed"] == 0.75
    assert fields["scores"]["emotions"]["fear"] == round(1 / (1 + math.exp(9)), 6)


def test_an_emotion_is_named_from_its_threshold_on() -> None:
    logits = [0.0, -0.001, 3.0, -3.0, 1.0, 1.0, 1.0]
    assert crypto(logits_emo=logits)["emotions"] == ["greed", "confidence", "anger", "hope", "sarcasm"]
    own = (0.9, 0.4, 0.99, 0.01, 0.9, 0.9, 0.7)
    decoded = decode_crypto(outputs(logits_emo=logits), own, {})[0]
    assert decoded["emotions"] == ["fear", "doubt", "sarcasm"]


def test_scores_are_clamped() -> None:
    fields = crypto(pred_reg=[-0.5, 1.5, 0.25])
    assert (fields["certainty"], fields["relevance"], fields["toxicity"]) == (0.0, 1.0, 0.25)


def test_temperature_softens_the_shares_and_keeps_the_label() -> None:
    given_outputs = outputs(logits_senti=[4, 0, 0, 0, 0], logits_act=[0, 0, 0, 0, 0, 4])
    plain = decode_crypto(given_outputs, HALF, {})[0]
    soft = decode_crypto(given_outputs, HALF, {"sentiment_strength": 4.0})[0]
    assert soft["sentiment_strength"] == plain["sentiment_strength"]
    share = math.e / (math.e + 4)
    assert soft["scores"]["sentiment_strength"]["strong_pos"] == pytest.approx(share, abs=1e-6)
    assert soft["scores"]["action_signal"] == plain["scores"]["action_signal"]


@given(
    values=st.lists(
        st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=21, max_size=21),
        min_size=1,
        max_size=4,
    )
)
def test_any_logits_make_a_valid_signal(values: list[list[float]]) -> None:
    array = np.array(values, dtype=np.float32)
    decoded = decode_crypto(
        {
            "logits_senti": array[:, :5],
            "logits_act": array[:, 5:11],
            "logits_emo": array[:, 11:18],
            "pred_reg": array[:, 18:],
        },
        HALF,
        {},
    )
    assert len(decoded) == len(values)
    for fields in decoded:
        json.dumps(fields, allow_nan=False)
        CryptoSignal.model_validate({**COMMON, **fields, "kind": "chat", "coins": []}, strict=False)
        assert sum(fields["scores"]["action_signal"].values()) == pytest.approx(1.0, abs=1e-5)
        assert fields["scores"]["sentiment_strength"][fields["sentiment_strength"]] == max(
            fields["scores"]["sentiment_strength"].values()
        )


def test_values_are_plain_python() -> None:
    fields = crypto()
    values = [fields["certainty"], *fields["scores"]["emotions"].values()]
    assert {type(value) for value in values} == {float}
    assert list(fields["scores"]["emotions"]) == list(EMOTIONS)


def test_no_rows() -> None:
    assert decode_crypto(outputs(rows=0), HALF, {}) == []
    assert decode_traffic({"logits": np.empty((0, 2), dtype=np.float32)}, {}) == []


def test_traffic() -> None:
    logits = np.array([[0.0, math.log(3)], [2.0, 0.0], [0.0, 800.0]], dtype=np.float32)
    decoded = decode_traffic({"logits": logits}, {})
    assert decoded[0] == {"label": 1, "label_name": "negative narrative", "probability": 0.75}
    assert (decoded[1]["label"], decoded[1]["label_name"]) == (0, "non-negative")
    assert decoded[2]["probability"] == 1.0
    for fields in decoded:
        TrafficSignal.model_validate({**COMMON, **fields})
    softer = decode_traffic({"logits": logits}, {"label": 2.0})
    assert softer[0]["probability"] == pytest.approx(math.sqrt(3) / (1 + math.sqrt(3)), abs=1e-6)

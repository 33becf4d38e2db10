"""The sample messages of the demo."""

import gzip
import json
from collections import Counter
from pathlib import Path

import worker
from schemas.messages import RawMessage
from worker.coins import CoinTagger, load_catalogue

_SAMPLES = Path(worker.__file__).parent / "bundled" / "samples" / "crypto.jsonl.gz"


def _rows() -> list[dict[str, str]]:
    with gzip.open(_SAMPLES, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_samples_are_raw_messages_without_labels() -> None:
    rows = _rows()
    assert 1_200 <= len(rows) <= 1_500
    for row in rows:
        message = RawMessage.model_validate(row)
        assert message.kind is not None
        assert message.title if message.kind == "news" else message.text, row
        assert set(row) <= {"kind", "source", "author", "text", "title"}


def test_samples_are_all_different() -> None:
    texts = [row.get("text") or row["title"] for row in _rows()]
    assert len(texts) == len(set(texts))


def test_samples_name_many_coins_and_bitcoin_most() -> None:
    tagger = CoinTagger(load_catalogue())
    named = Counter(symbol for row in _rows() for symbol in tagger.tag(row.get("text") or row["title"]))
    assert named.most_common(2)[0][0] == "BTC"
    assert named.most_common(2)[1][0] == "ETH"
    assert len(named) > 100

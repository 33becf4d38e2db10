"""Adding characters that the encoder's vocabulary lacks."""

import json
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tokenizers import Tokenizer

NEW_PIECE_SCORE: Final = -20.0
"""Log probability of an added character: rarer than nearly all pieces, so known words stay whole."""


def missing_characters(tokenizer: "Tokenizer", texts: Iterable[str], min_count: int) -> list[str]:
    """Normalised characters that the tokenizer has no piece for, most frequent first."""
    from tokenizers import normalizers

    normalise = tokenizer.normalizer or normalizers.Sequence([])
    seen: Counter[str] = Counter()
    for text in texts:
        seen.update(normalise.normalize_str(text))
    return [
        char
        for char, count in seen.most_common()
        if count >= min_count and not char.isspace() and tokenizer.token_to_id(char) is None
    ]


def extend_tokenizer(tokenizer: "Tokenizer", characters: Iterable[str]) -> "Tokenizer":
    """A copy of a Unigram tokenizer with the characters as pieces behind the known ones."""
    from tokenizers import Tokenizer

    spec = json.loads(tokenizer.to_str())
    if spec["model"]["type"] != "Unigram":
        raise ValueError(f"only a Unigram tokenizer takes new pieces, not {spec['model']['type']}")
    spec["model"]["vocab"] += [[char, NEW_PIECE_SCORE] for char in characters]
    extended: Tokenizer = Tokenizer.from_str(json.dumps(spec, ensure_ascii=False))
    return extended

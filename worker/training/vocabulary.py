"""The encoder's tokenizer, and characters that its vocabulary lacks."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from worker.errors import ConfigurationError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

NEW_PIECE_SCORE: Final = -20.0
"""Log probability of an added character: rarer than nearly all pieces, so known words stay whole."""


def load_tokenizer(path: Path) -> "Tokenizer":
    """That of a tokenizer.json, which neither pads nor cuts; ConfigurationError where it is damaged."""
    from tokenizers import Tokenizer

    try:
        tokenizer: Tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:
        raise ConfigurationError(
            f"{path} is not a tokenizer ({error}): --base and --init take a folder with tokenizer.json "
            "as it was saved"
        ) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


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
    """A copy of a Unigram or WordPiece tokenizer with the characters as pieces behind the known ones.

    A WordPiece tokenizer gets each of them twice: at the start of a word, and inside it.
    """
    from tokenizers import Tokenizer

    spec = json.loads(tokenizer.to_str())
    vocabulary = spec["model"]["vocab"]
    match spec["model"]["type"]:
        case "Unigram":
            vocabulary += [[char, NEW_PIECE_SCORE] for char in characters]
        case "WordPiece":
            inside = spec["model"]["continuing_subword_prefix"]
            free = max(tokenizer.get_vocab().values()) + 1
            pieces = [piece for char in characters for piece in (char, f"{inside}{char}")]
            new = [piece for piece in pieces if piece not in vocabulary]
            vocabulary |= {piece: free + i for i, piece in enumerate(new)}
        case other:
            raise ConfigurationError(f"only a Unigram or WordPiece tokenizer takes new pieces, not {other}")
    extended: Tokenizer = Tokenizer.from_str(json.dumps(spec, ensure_ascii=False))
    return extended

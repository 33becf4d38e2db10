"""Breaking pieces into characters while training, so that a piece and its letters come to mean the same.

Character n-grams see 들고간다 and 들고있다 as neighbours; to the tokenizer they may share no piece. Known as
subword regularisation.
"""

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPACE: Final = "▁"


class Speller:
    """For each piece of a Unigram tokenizer the ids of its characters, where all are known."""

    def __init__(self, tokenizer: "Tokenizer") -> None:
        vocabulary = tokenizer.get_vocab()
        special = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
        self._letters: dict[int, list[int]] = {}
        for piece, index in vocabulary.items():
            body = piece.removeprefix(SPACE)
            if piece in special or len(body) < 2:
                continue
            first = f"{SPACE}{body[0]}"
            # The space goes with the first letter where there is such a piece, else it stands alone.
            start = [first] if piece != body and first in vocabulary else [SPACE, body[0]]
            letters = [*(start if piece != body else [body[0]]), *body[1:]]
            if all(letter in vocabulary for letter in letters):
                self._letters[index] = [vocabulary[letter] for letter in letters]

    def spell(self, ids: Sequence[int], share: float, rng: random.Random) -> list[int]:
        """The ids with each piece that can be broken broken with a chance of ``share``."""
        spelled: list[int] = []
        for index in ids:
            letters = self._letters.get(index)
            if letters is not None and rng.random() < share:
                spelled += letters
            else:
                spelled.append(index)
        return spelled

"""The heads that training puts on the encoder: the four of a crypto model, and helpers from public data."""

from dataclasses import dataclass
from typing import Final, Literal

from schemas.labels import ACTIONS, EMOTIONS, SCORES, SENTIMENTS

LossKind = Literal["ordinal", "class", "multilabel", "score"]


@dataclass(frozen=True)
class HeadSpec:
    """One linear head: its name, its number of outputs and how its loss is taken.

    ``ordinal`` and ``class`` take the index of one class, ``multilabel`` one 0/1 for each output,
    ``score`` one value in 0..1 for each output. ``weight`` is the head's share of the sum of losses, and
    ``positive_weight`` how much more a label that is there counts than one that is not.
    """

    name: str
    size: int
    kind: LossKind
    weight: float = 1.0
    positive_weight: float = 1.0


CRYPTO_HEADS: Final = (
    HeadSpec("head_senti", len(SENTIMENTS), "ordinal", 1.0),
    HeadSpec("head_act", len(ACTIONS), "class", 1.0),
    HeadSpec("head_emo", len(EMOTIONS), "multilabel", 5.0, positive_weight=2.5),
    HeadSpec("head_reg", len(SCORES), "score", 4.0),
)

PUBLIC_HEADS: Final = (
    HeadSpec("aux_rating", 5, "ordinal", 1.0),
    HeadSpec("aux_feeling", 44, "multilabel", 4.0),
    HeadSpec("aux_hate", 1, "multilabel", 1.0),
    HeadSpec("aux_intent", 7, "class", 0.7),
    HeadSpec("aux_irony", 2, "class", 0.3),
)
"""Heads of the intermediate stage; thrown away at export."""

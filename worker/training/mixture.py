"""What the epochs of the labelled stage are made of."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker.training.augment import augment
from worker.training.datasets import CONVENTIONS, LabelledText
from worker.training.examples import Example

if TYPE_CHECKING:
    from worker.training.distil import ModelTeacher
    from worker.training.lexical import LexicalTeacher


@dataclass(frozen=True)
class Round:
    """One round over the labelled texts, from a warm-up to a learning rate of 0.

    Mixed in for each epoch: ``splices`` new texts with the opinion of TF-IDF, at most half as many as there
    are labelled ones, so that labels and not opinions lead, and of which ``fragments`` are a few words only;
    ``replay`` rows of the public stage; ``background`` everyday texts. ``augmented`` is the share of labelled
    texts that are changed, ``spelled`` that of pieces broken into letters in half of all texts. A text of the
    files that are judged on, or of the labelling guide, comes ``repeats`` times where others come once.
    """

    epochs: int
    batch: int
    rate: float
    splices: int = 1500
    fragments: float = 0.0
    replay: int = 300
    background: int = 1000
    augmented: float = 0.7
    spelled: float = 0.0
    repeats: int = 1


def settled(train: Sequence[LabelledText], judged: Sequence[LabelledText]) -> list[LabelledText]:
    """The rows to learn from that say what is right: those whose like is judged on, and the guide's own."""
    known = set(judged)
    return [row for row in train if row in known or row.file == CONVENTIONS]


@dataclass(frozen=True)
class Mixture:
    """What the epochs are drawn from: labelled texts, splices of them, public rows, everyday texts.

    ``own`` are those of the rows that are ``settled``.
    """

    rows: Sequence[LabelledText]
    own: Sequence[LabelledText]
    lexical: "LexicalTeacher | None"
    teacher: "ModelTeacher | None"
    public: Sequence[Example]
    background: Sequence[Example]
    smoothing: float

    def epoch(self, part: Round, number: int, rng: random.Random) -> list[Example]:
        """The examples of one epoch; in the first the labelled texts are as they were written, once."""
        examples = []
        again = list(self.own) * (part.repeats - 1)
        for n, row in enumerate((*self.rows, *again)):
            example = row.example()
            if (number > 0 or n >= len(self.rows)) and rng.random() < part.augmented:
                example = Example(augment(row.text, rng, has_coins=bool(row.coins)), example.targets)
            examples.append(example)
        if self.lexical is not None:
            splices = min(part.splices, len(self.rows) // 2)
            examples += self.lexical.examples(splices, part.fragments, rng)
        examples += rng.sample(self.public, min(part.replay, len(self.public)))
        examples += rng.sample(self.background, min(part.background, len(self.background)))
        return self.teacher.teach(examples, self.smoothing) if self.teacher is not None else examples

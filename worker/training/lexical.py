"""Teaching the encoder what words alone tell: the opinion of TF-IDF on texts spliced from the labelled ones.

Character n-grams generalise better than the encoder to words that only a few labelled lines hold: after plain
fine-tuning the baseline was 4 points of macro-F1 ahead on actions. Splices give such words any number of new
surroundings, and the baseline, which reads words alone, is right to judge them.
"""

import random
from collections.abc import Sequence

from schemas.labels import ACTIONS, SENTIMENTS
from worker.errors import ConfigurationError
from worker.training.augment import augment
from worker.training.baseline import TfidfBaseline
from worker.training.datasets import LabelledText
from worker.training.examples import Example


def splice(one: LabelledText, two: LabelledText, rng: random.Random) -> str:
    """The beginning of one text and the end of the other, cut between words, changed as typing changes it."""
    head, tail = one.text.split(), two.text.split()
    text = " ".join(head[: rng.randint(0, len(head))] + tail[rng.randint(0, len(tail) - 1) :])
    return augment(text, rng, has_coins=bool(one.coins and two.coins))


def fragment(row: LabelledText, rng: random.Random) -> str:
    """One to four neighbouring words of a text: the fewer, the more plainly each shows its weight."""
    words = row.text.split()
    start = rng.randrange(len(words))
    return " ".join(words[start : start + rng.randint(1, 4)])


def check_classes(rows: Sequence[LabelledText]) -> None:
    """Raise ConfigurationError where no text has one of the sentiments or actions: none could be taught."""
    known = {name for row in rows for name in (row.sentiment_strength, row.action_signal)}
    if missing := [name for name in (*SENTIMENTS, *ACTIONS) if name not in known]:
        raise ConfigurationError(
            f"the training texts lack {', '.join(missing)}: --data has to hold every sentiment and action"
        )


class LexicalTeacher:
    """The baseline, trained on the rows, and splices of the rows with its opinion as target."""

    def __init__(self, rows: Sequence[LabelledText]) -> None:
        check_classes(rows)
        self._baseline = TfidfBaseline(rows)
        self._sources = [[row for row in rows if row.source == source] for source in ("chat", "news")]
        self._sources = [rows for rows in self._sources if rows]

    def examples(self, count: int, fragments: float, rng: random.Random) -> list[Example]:
        """``count`` new texts: a share of ``fragments``, the rest splices of two texts of one source."""
        sizes = [len(rows) for rows in self._sources]
        chosen = rng.choices(self._sources, sizes, k=count)
        texts = [
            fragment(rng.choice(rows), rng)
            if rng.random() < fragments
            else splice(rng.choice(rows), rng.choice(rows), rng)
            for rows in chosen
        ]
        sentiment, action = self._baseline.probabilities(texts)
        return [
            Example(text, {"head_senti": tuple(map(float, s)), "head_act": tuple(map(float, a))})
            for text, s, a in zip(texts, sentiment, action, strict=True)
        ]

"""Everyday texts from the public sets as examples of what has nothing to do with the market."""

from pathlib import Path
from typing import Final

from schemas.labels import ACTIONS, SENTIMENTS
from worker.training.examples import Example
from worker.training.public import public_rows

NEUTRAL: Final = SENTIMENTS.index("neutral")
ASK: Final = ACTIONS.index("ask_info")
INFORM: Final = ACTIONS.index("info_only")
RELEVANCE: Final = 0.03
CERTAINTY_OF_QUESTION: Final = 0.25
UNKNOWN: Final = float("nan")


def load_background(folder: Path) -> list[Example]:
    """Spoken questions and statements, small talk, and headlines of entertainment news.

    Only what is sure has a target: relevance near 0, questions ask, statements and headlines inform. Emotions
    and toxicity have none.
    """
    examples = []
    for row in public_rows(folder, "3i4k_intent"):
        if row["label"] == "question":
            scores = (CERTAINTY_OF_QUESTION, RELEVANCE, UNKNOWN)
            examples.append(
                Example(row["text"], {"head_senti": NEUTRAL, "head_act": ASK, "head_reg": scores})
            )
        elif row["label"] == "statement":
            examples.append(
                Example(row["text"], {"head_act": INFORM, "head_reg": (UNKNOWN, RELEVANCE, UNKNOWN)})
            )
    examples += [
        Example(row["text"], {"head_reg": (UNKNOWN, RELEVANCE, UNKNOWN)})
        for row in public_rows(folder, "chatbot_smalltalk")
    ]
    titles = dict.fromkeys(row["title"] for row in public_rows(folder, "kocohub_unlabeled"))
    examples += [
        Example(title, {"head_senti": NEUTRAL, "head_act": INFORM, "head_reg": (UNKNOWN, RELEVANCE, 0.0)})
        for title in titles
        if title
    ]
    return examples

"""Everyday texts from the public sets as examples of what has nothing to do with the market."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from schemas.labels import ACTIONS, SENTIMENTS
from worker.training.examples import Example
from worker.training.public import check_files, read_public, text_of

NEUTRAL: Final = SENTIMENTS.index("neutral")
ASK: Final = ACTIONS.index("ask_info")
INFORM: Final = ACTIONS.index("info_only")
RELEVANCE: Final = 0.03
CERTAINTY_OF_QUESTION: Final = 0.25
UNKNOWN: Final = float("nan")
_COMMENTS: Final = ("nsmc_rating", "kote", "kmhas", "kocohub_unlabeled")
_FILES: Final = ("3i4k_intent", "chatbot_smalltalk", *_COMMENTS)
_LEAST_LETTERS: Final = 15
"""Shorter comments could stand in any room."""
_MARKET: Final = re.compile(
    r"코인|비트|이더|리플|업비트|빗썸|바이낸스|거래소|주식|주가|증시|코스피|코스닥|투자|상장|매수|매도|떡상|떡락|환율|달러|금리"
)


def load_background(folder: Path) -> list[Example]:
    """Spoken questions and statements, small talk, headlines of entertainment news, reviews and comments.

    Only what is sure has a target: relevance near 0, questions ask, statements and headlines inform. Emotions
    and toxicity have none. Raises PublicDataError, which names file and line, where a file is missing or a
    column is not as expected.
    """
    check_files(folder, _FILES)
    examples = []
    for text, intent in read_public(folder, "3i4k_intent", lambda row: (text_of(row), row["label"])):
        if intent == "question":
            scores = (CERTAINTY_OF_QUESTION, RELEVANCE, UNKNOWN)
            examples.append(Example(text, {"head_senti": NEUTRAL, "head_act": ASK, "head_reg": scores}))
        elif intent == "statement":
            examples.append(Example(text, {"head_act": INFORM, "head_reg": (UNKNOWN, RELEVANCE, UNKNOWN)}))
    examples += [
        Example(text, {"head_reg": (UNKNOWN, RELEVANCE, UNKNOWN)})
        for text in read_public(folder, "chatbot_smalltalk", text_of)
    ]
    titles = dict.fromkeys(read_public(folder, "kocohub_unlabeled", lambda row: text_of(row, "title")))
    examples += [
        Example(title, {"head_senti": NEUTRAL, "head_act": INFORM, "head_reg": (UNKNOWN, RELEVANCE, 0.0)})
        for title in titles
        if title
    ]
    examples += [Example(text, {"head_reg": (UNKNOWN, RELEVANCE, UNKNOWN)}) for text in _comments(folder)]
    return examples


def _comments(folder: Path) -> Iterator[str]:
    """Reviews and comments of some length in which no word of markets occurs."""
    for name in _COMMENTS:
        for text in read_public(folder, name, text_of):
            if len(text) >= _LEAST_LETTERS and not _MARKET.search(text):
                yield text

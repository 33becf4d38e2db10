"""Public Korean data sets as examples for the intermediate stage; see README.md for where to get them."""

import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from worker.errors import KbertError
from worker.training.examples import Example, Target

HATE_STEPS: Final = {"none": 0.0, "offensive": 0.6, "hate": 1.0}
KMHAS_LABELS: Final = (
    "not_hate_speech",
    "profanity",
    "politics",
    "origin",
    "physical",
    "gender",
    "age",
    "religion",
    "race",
)
INTENTS: Final = (
    "fragment",
    "statement",
    "question",
    "command",
    "rhetorical_question",
    "rhetorical_command",
    "intonation_dependent",
)
FILES: Final = (
    "nsmc_rating",
    "kote",
    "kocohub_hate",
    "kmhas",
    "apeach_hate",
    "curse_detection",
    "malicious_comments",
    "3i4k_intent",
    "kocasm_sarcasm",
)
"""Of the intermediate stage."""
_RATINGS: Final = range(1, 11)
T = TypeVar("T")
_HASHTAG: Final = re.compile(r"#\S+")


class PublicDataError(KbertError, ValueError):
    """The folder of public data lacks a file, or a file has other columns than expected."""


def public_rows(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    """The rows of one public file. Raises PublicDataError where it is missing or broken."""
    path = folder / f"{name}.jsonl.gz"
    if not path.is_file():
        raise PublicDataError(f"{path} is missing; worker/training/README.md lists the public sets")
    try:
        with gzip.open(path, "rt", encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise PublicDataError(f"{path}:{number}: not JSON: {error}") from error
                if not isinstance(row, dict):
                    raise PublicDataError(f"{path}:{number}: not a JSON object")
                yield row
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise PublicDataError(f"{path}: cannot be read: {error}") from error


def check_files(folder: Path, names: Sequence[str]) -> None:
    """Raise PublicDataError, which names them, where public files are missing."""
    if missing := [f"{name}.jsonl.gz" for name in names if not (folder / f"{name}.jsonl.gz").is_file()]:
        raise PublicDataError(
            f"{folder} lacks {', '.join(missing)}; worker/training/README.md lists the public sets"
        )


def read_public(folder: Path, name: str, read: Callable[[dict[str, Any]], T]) -> Iterator[T]:
    """What ``read`` makes of each row of one public file.

    Raises PublicDataError, which names the file and the line, also where ``read`` finds a row to be unusable.
    """
    for number, row in enumerate(public_rows(folder, name), 1):
        try:
            yield read(row)
        except (KeyError, TypeError, ValueError) as error:
            reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            raise PublicDataError(
                f"{folder / name}.jsonl.gz:{number}: {reason}; worker/training/README.md has the columns"
            ) from error


def text_of(row: dict[str, Any], column: str = "text") -> str:
    """A text of a row. Raises KeyError where it is missing, TypeError where it is none."""
    text = row[column]
    if not isinstance(text, str):
        raise TypeError(f"{column} is {text!r}, expected a text")
    return text


def _number(row: dict[str, Any], column: str, allowed: range) -> int:
    number = row[column]
    if isinstance(number, bool) or number not in allowed:
        raise ValueError(f"{column} is {number!r}, expected {allowed[0]} to {allowed[-1]}")
    return int(number)


def _flagged(row: dict[str, Any], column: str) -> tuple[str, int]:
    return text_of(row), _number(row, column, range(2))


def _name(row: dict[str, Any], column: str, allowed: Sequence[str]) -> str:
    name = row[column]
    if name not in allowed:
        raise ValueError(f"{column} is {name!r}, expected one of {', '.join(allowed)}")
    return str(name)


def _names(row: dict[str, Any], column: str, allowed: Sequence[str] = ()) -> list[str]:
    """Names of a row's list, one of ``allowed`` each where those are known beforehand."""
    names = row[column]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"{column} is {names!r}, expected a list of names")
    if allowed and (unknown := [name for name in names if name not in allowed]):
        raise ValueError(f"{column} holds {', '.join(unknown)}, expected some of {', '.join(allowed)}")
    return names


def _feelings(folder: Path) -> Iterator[Example]:
    rows = list(read_public(folder, "kote", lambda row: (text_of(row), set(_names(row, "labels")))))
    names = sorted({label for _, chosen in rows for label in chosen})
    if len(names) != 44:
        raise PublicDataError(f"{folder / 'kote.jsonl.gz'}: {len(names)} emotions, expected 44")
    for text, chosen in rows:
        yield Example(text, {"aux_feeling": tuple(float(name in chosen) for name in names)})


def _hate(folder: Path) -> Iterator[Example]:
    def example(row: dict[str, Any], degree: float) -> Example:
        return Example(text_of(row), {"aux_hate": (degree,)})

    def step(row: dict[str, Any]) -> Example:
        return example(row, HATE_STEPS[_name(row, "hate", tuple(HATE_STEPS))])

    def kind(row: dict[str, Any]) -> Example:
        # A misspelt not_hate_speech would make hatred of 16,699 harmless rows, and nobody would see it.
        return example(row, float("not_hate_speech" not in _names(row, "labels", KMHAS_LABELS)))

    yield from read_public(folder, "kocohub_hate", step)
    yield from read_public(folder, "kmhas", kind)
    for name, column in (
        ("apeach_hate", "hate"),
        ("curse_detection", "curse"),
        ("malicious_comments", "malicious"),
    ):
        for text, degree in read_public(folder, name, partial(_flagged, column=column)):
            yield Example(text, {"aux_hate": (float(degree),)})


def load_public(folder: Path) -> list[Example]:
    """Every row of the public sets that has a label of use, in file order.

    Raises PublicDataError, which names file and line, where a file is missing or a column is not as expected.
    """

    def example(row: dict[str, Any], head: str, target: Target) -> Example:
        return Example(text_of(row), {head: target})

    check_files(folder, FILES)
    examples = list(
        read_public(
            folder,
            "nsmc_rating",
            lambda row: example(row, "aux_rating", 4 - (_number(row, "rating", _RATINGS) - 1) // 2),
        )
    )
    # KOTE is the only source of emotions and ten times smaller than the ratings.
    examples += 2 * list(_feelings(folder))
    examples += _hate(folder)
    intents = read_public(
        folder,
        "3i4k_intent",
        lambda row: example(row, "aux_intent", INTENTS.index(_name(row, "label", INTENTS))),
    )
    # Every second row: intent is learned long before 58,000 rows, a quarter of the stage.
    examples += list(intents)[::2]
    # The rows were labelled by hashtag, so a hashtag left over gives the answer away.
    sarcasm = read_public(
        folder,
        "kocasm_sarcasm",
        partial(_flagged, column="sarcasm"),
    )
    plain = ((_HASHTAG.sub("", text).strip(), target) for text, target in sarcasm)
    examples += [Example(text, {"aux_irony": target}) for text, target in plain if text]
    return examples

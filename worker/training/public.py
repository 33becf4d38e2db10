"""Public Korean data sets as examples for the intermediate stage; see README.md for where to get them."""

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from worker.errors import KbertError
from worker.training.examples import Example

HATE_STEPS: Final = {"none": 0.0, "offensive": 0.6, "hate": 1.0}
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


def _feelings(folder: Path) -> Iterator[Example]:
    rows = list(public_rows(folder, "kote"))
    names = sorted({label for row in rows for label in row["labels"]})
    if len(names) != 44:
        raise PublicDataError(f"kote.jsonl.gz: {len(names)} emotions, expected 44")
    for row in rows:
        chosen = set(row["labels"])
        yield Example(row["text"], {"aux_feeling": tuple(float(name in chosen) for name in names)})


def _hate(folder: Path) -> Iterator[Example]:
    for row in public_rows(folder, "kocohub_hate"):
        yield Example(row["text"], {"aux_hate": (HATE_STEPS[row["hate"]],)})
    for row in public_rows(folder, "kmhas"):
        yield Example(row["text"], {"aux_hate": (float("not_hate_speech" not in row["labels"]),)})
    for name, column in (
        ("apeach_hate", "hate"),
        ("curse_detection", "curse"),
        ("malicious_comments", "malicious"),
    ):
        for row in public_rows(folder, name):
            yield Example(row["text"], {"aux_hate": (float(row[column]),)})


def load_public(folder: Path) -> list[Example]:
    """Every row of the public sets that has a label of use, in file order.

    Raises PublicDataError where a file is missing or a column is not as expected.
    """
    try:
        examples = [
            Example(row["text"], {"aux_rating": 4 - (row["rating"] - 1) // 2})
            for row in public_rows(folder, "nsmc_rating")
        ]
        # KOTE is the only source of emotions and ten times smaller than the ratings.
        examples += 2 * list(_feelings(folder))
        examples += _hate(folder)
        # Every second row: intent is learned long before 58,000 rows, a quarter of the stage.
        intents = list(public_rows(folder, "3i4k_intent"))[::2]
        examples += [Example(row["text"], {"aux_intent": INTENTS.index(row["label"])}) for row in intents]
        for row in public_rows(folder, "kocasm_sarcasm"):
            # The rows were labelled by hashtag, so a hashtag left over gives the answer away.
            if text := _HASHTAG.sub("", row["text"]).strip():
                examples.append(Example(text, {"aux_irony": int(row["sarcasm"])}))
    except (KeyError, TypeError) as error:
        raise PublicDataError(f"{folder}: a row lacks or misspells a column: {error}") from error
    return examples

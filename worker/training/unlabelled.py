"""Texts without labels: one a line, or JSONL with ``text``; also gzipped."""

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from worker.training.datasets import DatasetError


def load_texts(paths: Sequence[Path]) -> Iterator[str]:
    """Every text of the files that is not empty.

    Raises DatasetError, which names the file and the line, where a .jsonl line holds no ``text``.
    """
    for path in paths:
        opened = gzip.open if path.suffix == ".gz" else open
        try:
            with opened(path, "rt", encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    text = line.strip()
                    if text and ".jsonl" in path.suffixes:
                        try:
                            text = json.loads(line)["text"]
                        except (ValueError, KeyError, TypeError) as error:
                            raise DatasetError(f"{path}:{number}: no JSON object with text") from error
                    if text:
                        yield text
        except (OSError, UnicodeDecodeError, EOFError) as error:
            raise DatasetError(f"{path}: cannot be read: {error}") from error

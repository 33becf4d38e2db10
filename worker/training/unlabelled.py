"""Texts without labels: one a line, or JSONL with ``text``; also gzipped."""

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from worker.training.datasets import DatasetError


def load_texts(paths: Sequence[Path]) -> Iterator[str]:
    """Every text of the files that is not empty.

    Raises DatasetError, which names the file and the line, where a .jsonl line holds no ``text``, or a
    file cannot be read.
    """
    for path in paths:
        opened = gzip.open if path.suffix == ".gz" else open
        try:
            with opened(path, "rt", encoding="utf-8-sig") as lines:
                for number, line in enumerate(lines, 1):
                    text = line.strip()
                    if text and ".jsonl" in path.suffixes:
                        try:
                            text = str.strip(json.loads(line)["text"])
                            text.encode()  # tokenisers refuse half a surrogate pair, which JSON may spell
                        except (ValueError, KeyError, TypeError) as error:
                            raise DatasetError(
                                f"{path}:{number}: no JSON object with text, a string of valid Unicode"
                            ) from error
                    if text:
                        yield text
        except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
            raise DatasetError(f"{path}: cannot be read: {error}") from error

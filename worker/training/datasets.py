"""Reading texts labelled by the labelling guide (data/LABELING.md): JSONL or CSV, also gzipped."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from schemas.labels import ACTIONS, EMOTIONS, SENTIMENTS, Action, Emotion, Sentiment
from worker.errors import KbertError
from worker.training.examples import Example, Target
from worker.training.heads import CRYPTO_HEADS

_DATA: Final = Path(__file__).parent / "data"
PACKAGED: Final = (_DATA / "crypto_ko.jsonl.gz",)
EXTRA: Final = tuple(
    _DATA / f"{name}_ko.jsonl.gz"
    for name in ("short", "chatter", "real", "talk", "posts", "registers", "everyday", "guide", "further")
)
"""Packaged texts that are only learned from, never judged on."""
CONVENTIONS: Final = "guide"
"""The register of the labelling guide's own examples and lines like them."""
_SIZES: Final = {head.name: head.size for head in CRYPTO_HEADS}
_LISTS: Final = ("coins", "emotions")
_LONGEST_CELL: Final = 131_072
"""Characters of a CSV cell; more of them are a quote that nothing closes."""
_SUFFIXES: Final = (".jsonl", ".csv")

Score = Annotated[float, Field(ge=0.0, le=1.0)]


class DatasetError(KbertError, ValueError):
    """A data file cannot be used; the message names the file and the line."""


class Labels(BaseModel):
    """What one annotator says of a text."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    sentiment_strength: Sentiment
    action_signal: Action
    emotions: tuple[Emotion, ...]
    certainty: Score
    relevance: Score
    toxicity: Score

    def targets(self) -> dict[str, Target]:
        """For the four crypto heads."""
        return {
            "head_senti": SENTIMENTS.index(self.sentiment_strength),
            "head_act": ACTIONS.index(self.action_signal),
            "head_emo": tuple(float(name in self.emotions) for name in EMOTIONS),
            "head_reg": (self.certainty, self.relevance, self.toxicity),
        }


class LabelledText(Labels):
    """One labelled text. ``file`` is the register it belongs to, by default the name of its file; ``second``
    what another annotator says who did not see the first labels."""

    text: str = Field(min_length=1)
    source: Literal["chat", "news"]
    coins: tuple[str, ...]
    second: Labels | None = None
    file: str = ""

    @field_validator("text")
    @classmethod
    def _with_a_word(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("nothing but blanks")
        return text

    def example(self) -> Example:
        """The text with targets for the four crypto heads: the mean of its annotators."""
        targets = self.targets()
        if self.second is not None:
            others = self.second.targets()
            targets = {name: _between(_SIZES[name], targets[name], others[name]) for name in targets}
        return Example(self.text, targets)


def _between(size: int, one: Target, two: Target) -> Target:
    """The mean of two targets; a class that both name stays a class."""
    if one == two:
        return one
    first, second = ([float(i == t) for i in range(size)] if isinstance(t, int) else t for t in (one, two))
    return tuple((a + b) / 2 for a, b in zip(first, second, strict=True))


def read_lines(path: Path) -> io.StringIO:
    """The lines of a file, gzipped or not. Raises DatasetError where it cannot be read."""
    try:
        raw = path.read_bytes()
        content = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise DatasetError(f"{path}: cannot be read: {error}") from error
    return io.StringIO(content, newline="")


def _csv_rows(path: Path, lines: Iterator[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a CSV file with a header; lists are separated by ``|``."""
    csv.field_size_limit(_LONGEST_CELL)  # one for the process: whoever reads sets it
    reader = csv.DictReader(lines)
    try:
        for row in reader:
            filled: dict[str, Any] = {
                key: value for key, value in row.items() if key is not None and value is not None
            }
            for key in _LISTS:
                if key in filled:
                    filled[key] = [item.strip() for item in filled[key].split("|") if item.strip()]
            yield reader.line_num, filled
    except csv.Error as error:
        where = f"{path}:{reader.line_num}"
        raise DatasetError(f"{where}: not CSV, perhaps for a quote left open: {error}") from error


def _jsonl_rows(path: Path, lines: Iterator[str]) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise DatasetError(f"{path}:{number}: not JSON: {error}") from error


def load_labelled(path: Path) -> list[LabelledText]:
    """All rows of a .jsonl, .jsonl.gz, .csv or .csv.gz file.

    Raises DatasetError, which names the file and the line, where a row is not as the guide says.
    """
    plain = path.name.removesuffix(".gz")
    suffix = Path(plain).suffix
    if suffix not in _SUFFIXES:
        raise DatasetError(f"{path}: a data file ends in .jsonl or .csv, with or without .gz")
    lines = read_lines(path)
    rows: list[LabelledText] = []
    for number, row in _csv_rows(path, lines) if suffix == ".csv" else _jsonl_rows(path, lines):
        try:
            item = LabelledText.model_validate(row)
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(str(part) for part in problem["loc"]) or "row"
            raise DatasetError(f"{path}:{number}: {where}: {problem['msg']}") from error
        rows.append(item if item.file else item.model_copy(update={"file": Path(plain).stem}))
    if not rows:
        raise DatasetError(f"{path}: no rows")
    return rows


def load_all(paths: Sequence[Path]) -> list[LabelledText]:
    """The rows of several files; a text that is there twice counts once, the first time."""
    seen: dict[str, LabelledText] = {}
    for path in paths:
        for row in load_labelled(path):
            seen.setdefault(row.text, row)
    return list(seen.values())

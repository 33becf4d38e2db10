"""Labelled traffic articles: reading them, and splitting them by hash with equal shares of both labels."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from worker.training.datasets import DatasetError, read_lines
from worker.training.splits import canonical, near_duplicate_groups

_DATA: Final = Path(__file__).parent / "data"
PACKAGED_ARTICLES: Final = tuple(
    _DATA / f"{name}_ko.jsonl.gz" for name in ("traffic", "traffic_news", "traffic_real")
)
CHECK_ARTICLES: Final = _DATA / "traffic_check_ko.jsonl.gz"
"""Real sentences and headlines that no training run sees."""
_HELD_BACK: Final = 0.10
"""Share of the test part, and of the validation part."""


class Article(BaseModel):
    """One article; label 1 is a negative narrative about traffic safety."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    title: str = Field(min_length=1)
    body: str = ""
    label: Literal[0, 1]


@dataclass(frozen=True)
class ArticleParts:
    """Articles by the part that they fall into."""

    train: list[Article]
    validation: list[Article]
    test: list[Article]


def load_articles(paths: Sequence[Path]) -> list[Article]:
    """The rows of .jsonl(.gz) files with ``title``, ``body`` and ``label``; an article twice counts once.

    Where the two have different labels, the first counts. Articles of one title and different bodies are two.

    Raises:
        DatasetError: names the file and the line.
    """
    seen: dict[tuple[str, str], Article] = {}
    for path in paths:
        for number, line in enumerate(read_lines(path), 1):
            if not line.strip():
                continue
            try:
                article = Article.model_validate(json.loads(line))
            except json.JSONDecodeError as error:
                raise DatasetError(f"{path}:{number}: not JSON: {error}") from error
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                where = ".".join(str(part) for part in first["loc"]) or "row"
                raise DatasetError(f"{path}:{number}: {where}: {first['msg']}") from error
            seen.setdefault((article.title, article.body), article)
    if not seen:
        raise DatasetError("no articles were given")
    return list(seen.values())


def split_articles(articles: Sequence[Article]) -> ArticleParts:
    """80/10/10 of each label, in the order of a hash of the title; near-duplicates stay together.

    A group of them counts for the label of its first article in that order. Of 3,000 articles that is 2,400,
    300 and 300. The order of the file plays no role.
    """
    groups = near_duplicate_groups([f"{article.title} {article.body}" for article in articles])
    members: dict[int, list[Article]] = {}
    for number, article in zip(groups, articles, strict=True):
        members.setdefault(number, []).append(article)
    firsts = {number: min(group, key=_place) for number, group in members.items()}
    parts = ArticleParts([], [], [])
    for label in (0, 1):
        of_label = [group for group in firsts if firsts[group].label == label]
        of_label.sort(key=lambda group: _place(firsts[group]))
        quota = round(_HELD_BACK * sum(len(members[group]) for group in of_label))
        for group in of_label:
            held_back = (part for part in (parts.test, parts.validation) if _count(part, label) < quota)
            next(held_back, parts.train).extend(members[group])
    return parts


def _count(articles: Sequence[Article], label: int) -> int:
    return sum(article.label == label for article in articles)


def _place(article: Article) -> tuple[bytes, str, str]:
    """Where an article stands in the order of the split; what it says parts those of one hash."""
    return hashlib.sha256(canonical(article.title).encode()).digest(), article.title, article.body

"""Measures the tagger on labelled lines: ``python -m worker.coins.measure [FILE ...]``.

A file holds one JSON object a line (plain or gzipped) with ``text`` and ``coins``; ``file``, where a row has
it, names the register that it counts under. A row without ``coins`` names none, so any text that is not about
coins shows how often the tagger sees some where there are none. Without files the labelled lines of the
project are read.
"""

import argparse
import gzip
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from worker.coins.catalogue import load_catalogue
from worker.coins.rules import Rule
from worker.coins.tagger import CoinTagger

_SHIPPED = Path(__file__).parent.parent / "training" / "data" / "crypto_ko.jsonl.gz"


@dataclass(frozen=True, slots=True)
class Line:
    """One labelled text."""

    text: str
    coins: frozenset[str]
    file: str


@dataclass(slots=True)
class Score:
    """Counts over sets of symbols per line, and what follows from them."""

    lines: int = 0
    right: int = 0
    wrong: int = 0
    missed: int = 0

    def add(self, expected: frozenset[str], found: Iterable[str]) -> None:
        """Count one line."""
        got = set(found)
        self.lines += 1
        self.right += len(got & expected)
        self.wrong += len(got - expected)
        self.missed += len(expected - got)

    @property
    def precision(self) -> float:
        """Share of the found symbols that are right; 1 where none was found."""
        return self.right / (self.right + self.wrong) if self.right + self.wrong else 1.0

    @property
    def recall(self) -> float:
        """Share of the labelled symbols that were found; 1 where there are none."""
        return self.right / (self.right + self.missed) if self.right + self.missed else 1.0

    @property
    def f1(self) -> float:
        """Micro F1."""
        return 2 * self.right / (2 * self.right + self.wrong + self.missed) if self.right else 0.0


def read_lines(path: Path) -> Iterator[Line]:
    """Read labelled rows: ``coins`` empty where absent, ``file`` the name of the file."""
    name = path.name.removesuffix(".gz").removesuffix(".jsonl")
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    for row in map(json.loads, raw.decode("utf-8").splitlines()):
        yield Line(row["text"], frozenset(row.get("coins", ())), row.get("file", name))


def score(tagger: CoinTagger, lines: Sequence[Line]) -> dict[str, Score]:
    """Return the score of each file and, under ``all``, of all lines."""
    scores: dict[str, Score] = {}
    for line in lines:
        found = tagger.tag(line.text)
        for key in (line.file, "all"):
            scores.setdefault(key, Score()).add(line.coins, found)
    return dict(sorted(scores.items(), key=lambda item: (item[0] == "all", item[0])))


def precision_by_way(tagger: CoinTagger, lines: Sequence[Line]) -> dict[str, tuple[int, int]]:
    """How many names each way of finding found, and how many of them stand for a labelled coin."""
    found: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for line in lines:
        for mention in tagger.mentions(line.text):
            found[mention.found.value] += 1
            right[mention.found.value] += mention.symbol in line.coins
    return {way: (count, right[way]) for way, count in found.most_common()}


def without_each_rule(lines: Sequence[Line]) -> dict[str, Score]:
    """The score over all lines with one rule of context left out at a time."""
    catalogue = load_catalogue()
    return {rule.value: score(CoinTagger(catalogue, without=[rule]), lines)["all"] for rule in Rule}


def texts_per_second(tagger: CoinTagger, lines: Sequence[Line]) -> float:
    """Texts that one core tags in a second of its own time, with nothing cached from before."""
    texts = [line.text for line in lines]
    start = time.process_time()
    for text in texts:
        tagger.tag(text)
    return len(texts) / ((time.process_time() - start) or 1e-9)


def report(lines: Sequence[Line], tagger: CoinTagger) -> dict[str, Any]:
    """Return everything that is measured, ready for JSON."""
    speed = texts_per_second(tagger, lines)
    ways = precision_by_way(tagger, lines)
    return {
        "files": {name: _figures(one) for name, one in score(tagger, lines).items()},
        "ways": {way: {"names": names, "right": right} for way, (names, right) in ways.items()},
        "without": {name: _figures(one) for name, one in without_each_rule(lines).items()},
        "texts_per_second": round(speed),
    }


def _figures(one: Score) -> dict[str, float]:
    return {
        "lines": one.lines,
        "precision": one.precision,
        "recall": one.recall,
        "f1": one.f1,
        "wrong": one.wrong,
        "missed": one.missed,
    }


def show(measured: Mapping[str, Any], console: Console) -> None:
    """Print a report as tables."""
    files = Table("file", "lines", "precision", "recall", "F1", "wrong", "missed", "wrong per 10,000 lines")
    for name, one in measured["files"].items():
        rate = f"{1e4 * one['wrong'] / one['lines']:.1f}"
        files.add_row(name, str(one["lines"]), *_shares(one), str(one["wrong"]), str(one["missed"]), rate)
    ways = Table("found as", "names", "right", "precision")
    for way, one in measured["ways"].items():
        ways.add_row(way, str(one["names"]), str(one["right"]), f"{one['right'] / one['names']:.3f}")
    rules = Table("without the rule", "precision", "recall", "F1")
    for rule, one in measured["without"].items():
        rules.add_row(rule, *_shares(one))
    for table in (files, ways, rules):
        console.print(table)
    console.print(f"{measured['texts_per_second']:,} texts a second on one core")


def _shares(one: Mapping[str, float]) -> tuple[str, str, str]:
    return f"{one['precision']:.3f}", f"{one['recall']:.3f}", f"{one['f1']:.3f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables, or one JSON object with ``--json``."""
    parser = argparse.ArgumentParser(prog="python -m worker.coins.measure", description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, default=[_SHIPPED])
    parser.add_argument("--coins", type=Path, help="TOML with names of your own")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument(
        "--wrong", action="store_true", help="the lines that come out wrong, instead of tables"
    )
    options = parser.parse_args(arguments)
    lines = [line for path in options.files for line in read_lines(path)]
    tagger = CoinTagger(load_catalogue(options.coins))
    if options.wrong:
        for line in lines:
            found = set(tagger.tag(line.text))
            if found != line.coins:
                wrong, missed = sorted(found - line.coins), sorted(line.coins - found)
                print(json.dumps({"wrong": wrong, "missed": missed, "text": line.text}, ensure_ascii=False))
        return 0
    measured = report(lines, tagger)
    if options.json:
        print(json.dumps(measured, ensure_ascii=False, indent=1))
    else:
        show(measured, Console())
    return 0


if __name__ == "__main__":
    sys.exit(main())

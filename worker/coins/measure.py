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


@dataclass(slots=True)
class Way:
    """Counts of one way of finding, and what follows from them.

    ``labelled``: symbols of all lines. ``names``: what it found. ``right``: of these, names of a labelled
    coin. ``found``: labelled symbols that it found, once a line.
    """

    labelled: int
    names: int = 0
    right: int = 0
    found: int = 0

    @property
    def precision(self) -> float:
        """Share of its names that stand for a labelled coin; 1 where it found none."""
        return self.right / self.names if self.names else 1.0

    @property
    def recall(self) -> float:
        """Share of the labelled symbols that it finds; of a coin with two names two ways may count."""
        return self.found / self.labelled if self.labelled else 1.0


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


def score_by_way(tagger: CoinTagger, lines: Sequence[Line]) -> dict[str, Way]:
    """Return what each way of finding brings, the way of most names first."""
    labelled = sum(len(line.coins) for line in lines)
    ways: dict[str, Way] = {}
    for line in lines:
        found: dict[str, set[str]] = {}
        for mention in tagger.mentions(line.text):
            way = ways.setdefault(mention.found.value, Way(labelled))
            way.names += 1
            way.right += mention.symbol in line.coins
            found.setdefault(mention.found.value, set()).add(mention.symbol)
        for name, symbols in found.items():
            ways[name].found += len(symbols & line.coins)
    return dict(sorted(ways.items(), key=lambda item: -item[1].names))


def without_each_rule(lines: Sequence[Line]) -> dict[str, dict[str, Score]]:
    """Return, with one rule of context left out at a time, the score of each file and of ``all``."""
    catalogue = load_catalogue()
    return {rule.value: score(CoinTagger(catalogue, without=[rule]), lines) for rule in Rule}


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
    return {
        "files": _by_file(score(tagger, lines)),
        "ways": {
            name: {"names": way.names, "right": way.right, "precision": way.precision, "recall": way.recall}
            for name, way in score_by_way(tagger, lines).items()
        },
        "without": {rule: _by_file(scores) for rule, scores in without_each_rule(lines).items()},
        "texts_per_second": round(speed),
    }


def _by_file(scores: Mapping[str, Score]) -> dict[str, dict[str, float]]:
    return {name: _figures(one) for name, one in scores.items()}


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
    ways = Table("found as", "names", "right", "precision", "recall")
    for way, one in measured["ways"].items():
        shares = f"{one['precision']:.3f}", f"{one['recall']:.3f}"
        ways.add_row(way, str(one["names"]), str(one["right"]), *shares)
    rules = Table("without the rule", "file", "precision", "recall", "F1")
    for rule, by_file in measured["without"].items():
        rules.add_section()
        for number, (name, one) in enumerate(by_file.items()):
            rules.add_row("" if number else rule, name, *_shares(one))
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

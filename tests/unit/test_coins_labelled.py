"""The labelled lines of the project are the tagger's test."""

from functools import cache
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

import worker.training
from worker.coins import CoinTagger, load_catalogue
from worker.coins.measure import Line, Score, read_lines, report, score, show, without_each_rule
from worker.coins.rules import Found, Rule

_DATA = Path(worker.training.__file__).parent / "data"
_LABELLED = _DATA / "crypto_ko.jsonl.gz"
# A little below what is measured, so that a better rule may cost a line.
_LEAST_F1 = {
    "all": 0.98,
    "chat_board": 0.975,
    "chat_community": 0.98,
    "chat_gallery": 0.98,
    "chat_live": 0.98,
    "news": 0.985,
    "news_wire": 0.985,
}


@cache
def _lines() -> list[Line]:
    return list(read_lines(_LABELLED))


@cache
def _scores() -> dict[str, Score]:
    return score(CoinTagger(load_catalogue()), _lines())


@pytest.mark.parametrize(("file", "least"), _LEAST_F1.items())
def test_f1_on_labelled_lines(file: str, least: float) -> None:
    measured = _scores()[file]
    assert measured.f1 >= least, f"{file}: {measured}"


def test_precision_and_recall_are_balanced() -> None:
    measured = _scores()["all"]
    assert measured.precision >= 0.98
    assert measured.recall >= 0.975


def test_every_file_is_measured() -> None:
    assert set(_scores()) == set(_LEAST_F1)


def test_the_words_around_a_name_are_what_finds_everyday_words() -> None:
    whole = _scores()["all"]
    without = {rule: scores["all"] for rule, scores in without_each_rule(_lines()).items()}
    assert without[Rule.MARKET.value].recall < whole.recall - 0.015
    assert without[Rule.AGAINST.value].precision < whole.precision - 0.01
    assert without[Rule.COMPANY.value].recall < whole.recall - 0.01


def test_a_leaning_name_at_the_head_of_a_post_is_found() -> None:
    lines = list(read_lines(_DATA / "talk_ko.jsonl.gz"))
    whole = score(CoinTagger(load_catalogue()), lines)["all"]
    without = score(CoinTagger(load_catalogue(), without=[Rule.HEAD]), lines)["all"]
    assert without.recall < whole.recall - 0.002


@pytest.mark.parametrize(("file", "least"), [("talk_ko", 0.95), ("chatter_ko", 0.95), ("talk_check_ko", 0.9)])
def test_f1_on_lines_of_other_annotators(file: str, least: float) -> None:
    measured = score(CoinTagger(load_catalogue()), list(read_lines(_DATA / f"{file}.jsonl.gz")))["all"]
    assert measured.f1 >= least, f"{file}: {measured}"


def test_a_report_counts_what_it_says() -> None:
    lines = [
        Line("비트 간다", frozenset({"BTC"}), "a"),
        Line("이더 비트", frozenset({"ETH"}), "a"),
        Line("점심 뭐 먹지", frozenset(), "b"),
        Line("모르는코인 떡상", frozenset({"XYZ"}), "b"),
    ]
    measured = report(lines, CoinTagger(load_catalogue()))
    assert measured["files"]["a"] == {
        "lines": 2,
        "precision": pytest.approx(2 / 3),
        "recall": 1.0,
        "f1": pytest.approx(0.8),
        "wrong": 1,
        "missed": 0,
    }
    assert measured["files"]["b"]["missed"] == 1
    assert measured["files"]["all"]["lines"] == 4
    assert set(measured["without"]) == {rule.value for rule in Rule}


def test_a_rule_is_measured_in_each_file() -> None:
    lines = [
        Line("링크 상장 폭등", frozenset({"LINK"}), "a"),
        Line("비트 간다", frozenset({"BTC"}), "b"),
    ]
    without = report(lines, CoinTagger(load_catalogue()))["without"][Rule.MARKET.value]
    assert {file: (one["recall"], one["lines"]) for file, one in without.items()} == {
        "a": (0.0, 1),
        "b": (1.0, 1),
        "all": (0.5, 2),
    }


def test_a_way_of_finding_has_precision_and_recall() -> None:
    lines = [
        Line("비트코인 비트코인 이더", frozenset({"BTC", "ETH"}), "a"),
        Line("비트코인", frozenset(), "a"),
    ]
    ways = report(lines, CoinTagger(load_catalogue()))["ways"]
    assert ways[Found.NAME.value] == {
        "names": 3,
        "right": 2,
        "precision": pytest.approx(2 / 3),
        "recall": 0.5,
    }
    assert ways[Found.LIKELY.value]["recall"] == 0.5


def test_the_tables_show_each_rule_and_file() -> None:
    lines = [Line("비트 간다", frozenset({"BTC"}), "rooms"), Line("점심", frozenset(), "press")]
    console = Console(record=True, width=120, file=StringIO())
    show(report(lines, CoinTagger(load_catalogue())), console)
    assert console.export_text().count("rooms") == 1 + len(Rule)

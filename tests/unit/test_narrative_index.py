"""Months, sums and the index that is made of them."""

import csv
import gzip
import json
import math
import random
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, stdev
from typing import Any, cast
from unittest.mock import Mock

import pytest
from pyarrow import parquet
from structlog.testing import capture_logs
from typer.testing import CliRunner

from tests.fake_traffic import signal
from tests.signals import make_signal
from worker.aggregates.project import Aggregator, DataLostError
from worker.aggregates.project import Applied as CoinsApplied
from worker.aggregates.store import Command, RedisStore
from worker.commands.narrative import narrative_app
from worker.errors import ConfigurationError, KbertError
from worker.narration import Narration
from worker.narrative.build import build_from_signals
from worker.narrative.export import check_output, write
from worker.narrative.index import NoArticlesError, monthly_index, wilson
from worker.narrative.months import parse_month
from worker.narrative.project import Applied, NarrativeProjector
from worker.narrative.sums import Accumulator, RejectedSignalError, Sums, contribution
from worker.projection import Projection
from worker.settings import SourceSettings, load_settings

PLACE, OTHER = ("signals.traffic", 0), ("signals.traffic", 1)


@pytest.mark.parametrize(
    ("time", "month"),
    [
        ("2015-01-31T14:59:59Z", "2015-01"),
        ("2015-01-31T15:00:00Z", "2015-02"),  # midnight in Seoul
        ("2015-02-01T00:30:00+09:00", "2015-02"),
        ("2015-12-31T23:00:00Z", "2016-01"),
    ],
)
def test_a_month_is_one_of_seoul(time: str, month: str) -> None:
    assert contribution(signal(1, time)).month == month


def test_what_is_no_signal_is_rejected_with_the_field() -> None:
    with pytest.raises(RejectedSignalError, match="label"):
        contribution(signal(1, "2015-01-01T00:00:00Z", label=2))


@pytest.mark.parametrize(
    "time",
    [
        "0001-01-01T00:00:00Z",  # zero in Go
        "1970-01-01T00:00:00Z",
        "1979-12-31T23:59:59Z",
        "2101-01-01T00:00:00Z",
        "9999-12-31T20:00:00Z",  # the year 10000 in Seoul
    ],
)
def test_a_date_without_sense_is_rejected(time: str) -> None:
    """One such article put 12,300 empty months into the index, or stopped the service at every start."""
    with pytest.raises(RejectedSignalError, match="published_at: not within the years 1980 to 2100"):
        contribution(signal(1, time))


@pytest.mark.parametrize(
    ("time", "month"), [("1980-01-01T00:00:00Z", "1980-01"), ("2100-12-31T20:00:00Z", "2101-01")]
)
def test_the_first_and_the_last_date_with_sense_count(time: str, month: str) -> None:
    assert contribution(signal(1, time)).month == month


def test_an_article_from_the_future_is_rejected() -> None:
    """Without published_at it went by its producer's clock, and stood in the month 2090-01 for good."""
    processed = "2026-03-01T00:00:00Z"
    for time in ("2090-01-01T00:00:00Z", "2026-03-02T00:00:01Z"):
        with pytest.raises(RejectedSignalError, match="published_at lies in the future"):
            contribution(signal(1, time, processed_at=processed), max_future=60)


@pytest.mark.parametrize("time", ["2026-03-01T00:01:01Z", "2026-03-02T00:00:00Z"])
def test_an_article_of_a_clock_that_is_ahead_by_less_than_a_day_counts(time: str) -> None:
    """61 s were too many once, and the articles of such a producer were in no month."""
    one = contribution(signal(1, time, processed_at="2026-03-01T00:00:00Z"), max_future=60)
    assert one.month == "2026-03"


def test_the_stream_rejects_it_by_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    started = Mock(return_value=None)
    monkeypatch.setattr(Projection, "__init__", started)
    Narration(load_settings(_env_file=None, source=SourceSettings(max_future=100_000)))
    projector: NarrativeProjector = started.call_args.kwargs["projector"]
    projector._fences[PLACE] = None
    ahead = ("2026-03-02T03:46:40Z", "2026-03-02T03:46:41Z")
    rows = [(n, signal(n, time, processed_at="2026-03-01T00:00:00Z")) for n, time in enumerate(ahead)]
    result = Applied()
    read = projector._read(PLACE, rows, result)
    assert [offset for offset, _ in read.contributions] == [0]
    assert result.rejected == [(PLACE, 1, "published_at lies in the future")]


class _Fences:
    """A Redis that keeps the fences alone."""

    def __init__(self) -> None:
        self.fences: dict[str, bytes] = {}

    async def run(self, commands: list[Command]) -> list[list[bytes | None]]:
        (command,) = commands
        if command[0] == "HMGET":
            return [[self.fences.get(str(name)) for name in command[2:]]]
        at = [n for n, word in enumerate(command) if str(word).startswith("signals.traffic:")]
        standing = [self.fences.get(str(command[n]), b"") for n in at]
        if standing != [str(command[n + 1]).encode() for n in at]:
            return [[*standing]]
        self.fences |= {str(command[n]): str(command[n + 2]).encode() for n in at}
        return [[]]


async def test_a_rejected_article_may_come_back_corrected_after_a_restart() -> None:
    """Its id, read again below the fence, made the corrected article a repeat."""
    store = cast(RedisStore, _Fences())
    bad = [(n, signal(n, "0001-01-01T00:00:00Z")) for n in range(3)]
    good = [(3, signal(3, "2020-01-01T00:00:00Z"))]
    assert len((await NarrativeProjector(store, prefix="k").apply({PLACE: [*bad, *good]})).rejected) == 3
    restarted = NarrativeProjector(store, prefix="k")
    assert await restarted.assign({PLACE: 4}) == {PLACE: 0}
    again = await restarted.apply({PLACE: [*bad, *good]})
    assert (again.fence_skips, again.rejected) == (4, [])
    corrected = [(4 + n, signal(n, "2020-01-01T00:00:00Z")) for n in range(4)]
    assert (await restarted.apply({PLACE: corrected})).repeats == 1, "of the one that was good"


def _rows(offsets: range, ids: int = 0) -> list[tuple[int, dict[str, Any]]]:
    return [(n, signal(ids + n, "2020-01-01T00:00:00Z")) for n in offsets]


async def test_a_redis_that_is_empty_at_the_start_is_told_of() -> None:
    """Nobody was told, and the months that the topic no longer holds stayed short without a word."""
    projector = NarrativeProjector(cast(RedisStore, _Fences()), prefix="k")
    with capture_logs() as logs:
        assert await projector.assign({PLACE: 5_000, OTHER: None}) == {PLACE: 0, OTHER: 0}
        await projector.apply({PLACE: _rows(range(4_000, 4_002)), OTHER: _rows(range(2))})
        await projector.apply({PLACE: _rows(range(4_002, 4_004))})
    assert [line["event"] for line in logs] == ["narrative.data_lost", "narrative.not_refilled"]
    assert logs[0]["rewind"] == {"signals.traffic:0": 0}
    assert (logs[1]["partition"], logs[1]["topic_begins"]) == ("signals.traffic:0", 4_000)


async def test_what_the_topic_dropped_is_no_loss_of_redis() -> None:
    """It is committed as passed over, above every fence: each restart told of a Redis without persistence."""
    store = _Fences()
    store.fences = {"signals.traffic:0": b"99"}
    with capture_logs() as logs:
        projector = NarrativeProjector(cast(RedisStore, store), prefix="k")
        await projector.assign({PLACE: 300}, oldest={PLACE: 300})
        assert logs == []
        assert projector.applied(PLACE) == 100
        await projector.assign({PLACE: 301}, oldest={PLACE: 300})
    assert [line["event"] for line in logs] == ["narrative.data_lost"]


async def test_a_loss_is_looked_for_on_every_partition() -> None:
    """One without new records stayed short."""
    store = _Fences()
    projector = NarrativeProjector(cast(RedisStore, store), prefix="k", id_window=2)
    await projector.assign({PLACE: None, OTHER: None})
    await projector.apply({PLACE: _rows(range(10)), OTHER: _rows(range(10), 100)})
    store.fences = {"signals.traffic:1": b"5"}
    with capture_logs() as logs:
        with pytest.raises(DataLostError) as lost:
            await projector.apply({PLACE: _rows(range(10, 11))})
        assert lost.value.rewind == {PLACE: 0, OTHER: 4}
        again = await projector.apply({PLACE: _rows(range(11)), OTHER: _rows(range(4, 10), 100)})
    assert (again.fence_skips, again.stands) == (2, {PLACE: 11, OTHER: 10})
    assert [line["event"] for line in logs] == ["narrative.data_lost"]


def test_a_rejected_coin_signal_may_come_back_corrected_after_a_restart() -> None:
    projector = Aggregator(Mock(), prefix="k")
    projector._fences[PLACE], projector._stands[PLACE] = {}, 1
    time = datetime(2026, 3, 1, tzinfo=UTC)
    good = make_signal(1, time, time, random.Random(1))
    result = CoinsApplied()
    rows = [(0, {**good, "certainty": 7}), (1, good), (2, good)]
    read = projector._read(PLACE, rows, result, set())
    assert [offset for offset, _ in read] == [1]
    assert (result.fence_skips, result.rejected, result.repeats) == (1, [], 1)


def test_ids_are_unique_within_their_source_only() -> None:
    """Newswires number their articles alike: two first articles were taken for a repeat."""
    here, there = (contribution(signal(500, "2020-01-10T00:00:00Z", source=wire)) for wire in ("a", "b"))
    assert here.id_hash != there.id_hash
    again = contribution(signal(500, "2020-02-10T00:00:00Z", 1, source="a"))
    assert here.id_hash == again.id_hash


def test_an_id_counts_once_and_the_order_plays_no_role() -> None:
    signals = [
        signal(n, f"2020-0{1 + n % 3}-10T00:00:00Z", n % 2, (n % 10) / 9.7, source=f"s{n % 4}")
        for n in range(200)
    ]
    forwards, backwards = Accumulator(), Accumulator()
    for one in [*signals, *signals[:50]]:
        forwards.add(contribution(one))
    for one in reversed(signals):
        backwards.add(contribution(one))
    assert forwards.repeats == 50
    assert monthly_index(forwards.sums()) == monthly_index(backwards.sums())
    assert sum(row.articles for row in monthly_index(forwards.sums())) == 200


def test_wilson_agrees_with_a_textbook() -> None:
    # Newcombe (1998), Statistics in Medicine 17, table I, method 3: 81/263, 15/148, 0/20, 1/29.
    for count, trials, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        found = wilson(count / trials, trials)
        assert found == pytest.approx((low, high), abs=5e-5)


def test_empty_months_are_explicit() -> None:
    sums = {"2020-01": {"a": Sums(4, 1, 1_000)}, "2020-04": {"a": Sums(2, 2, 1_900)}}
    rows = monthly_index(sums, "2019-12", "2020-05")
    assert [row.month for row in rows] == ["2019-12", "2020-01", "2020-02", "2020-03", "2020-04", "2020-05"]
    assert [row.share for row in rows] == [None, 0.25, None, None, 1.0, None]
    assert [row.articles for row in rows] == [0, 4, 0, 0, 2, 0]
    assert rows[1].mean_probability == 0.25
    assert rows[4].mean_probability == 0.95


def test_nothing_counted_needs_months_to_be_named() -> None:
    with pytest.raises(NoArticlesError, match="--from"):
        monthly_index({})
    assert [row.articles for row in monthly_index({}, "2020-01", "2020-03")] == [0, 0, 0]
    with pytest.raises(NoArticlesError, match="no month"):
        monthly_index({"2020-01": {"a": Sums(1, 0, 0)}}, "2021-01")


def test_weights_move_share_and_interval_but_not_the_counts() -> None:
    sums = {"2020-01": {"a": Sums(10, 10, 10_000), "b": Sums(30, 0, 0)}}
    (even,) = monthly_index(sums)
    (weighted,) = monthly_index(sums, weights={"a": 3.0})
    (without,) = monthly_index(sums, weights={"a": 0.0})
    assert even.share == 0.25
    assert weighted.share == 0.5
    assert (weighted.articles, weighted.negatives) == (40, 10)
    # Kish: (3·10 + 30)² / (9·10 + 30) = 30 articles of equal weight.
    assert (weighted.share_low, weighted.share_high) == wilson(0.5, 30)
    assert without.share == 0.0


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 2.0, 1e200, 1e300])
def test_the_unit_of_the_weights_plays_no_role(scale: float) -> None:
    """The square of 1e-200 is 0: dividing by it ended the command with a traceback."""
    sums = {"2020-01": {"a": Sums(10, 10, 10_000), "b": Sums(30, 0, 0)}}
    (weighted,) = monthly_index(sums, weights={"a": 3.0, "b": 1.0})
    (scaled,) = monthly_index(sums, weights={"a": 3 * scale, "b": scale})
    figures = (weighted.share, weighted.share_low, weighted.share_high, weighted.mean_probability)
    assert (scaled.share, scaled.share_low, scaled.share_high, scaled.mean_probability) == pytest.approx(
        figures
    )


def test_standardised_uses_the_past_only() -> None:
    shares = [3, 5, 4, 6, 2, 7, 5, 4, 3, 6, 5, 4, 8, 1]
    sums = {f"20{10 + n // 12}-{n % 12 + 1:02d}": {"a": Sums(10, s, 0)} for n, s in enumerate(shares)}
    rows = monthly_index(sums, standardise=True)
    assert [row.standardised for row in rows[:12]] == [None] * 12
    past = [share / 10 for share in shares[:12]]
    assert rows[12].standardised == pytest.approx((0.8 - mean(past)) / stdev(past))
    changed = {**sums, rows[13].month: {"a": Sums(10, 10, 0)}}
    assert monthly_index(changed, standardise=True)[12] == rows[12]
    # A month's value does not depend on where the table begins.
    assert monthly_index(sums, rows[12].month, standardise=True)[0] == rows[12]


def test_a_constant_past_gives_no_standardised_value() -> None:
    sums = {f"2020-{n:02d}": {"a": Sums(10, 5, 0)} for n in range(1, 13)} | {"2021-01": {"a": Sums(10, 9, 0)}}
    assert monthly_index(sums, standardise=True)[-1].standardised is None


def test_csv_and_parquet_hold_the_same(tmp_path: Path) -> None:
    sums = {"2020-01": {"a": Sums(4, 1, 1_000)}, "2020-03": {"a": Sums(2, 2, 1_900)}}
    rows = monthly_index(sums)
    write(rows, tmp_path / "index.csv")
    write(rows, tmp_path / "index.parquet")
    with (tmp_path / "index.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    stored = parquet.read_table(tmp_path / "index.parquet").to_pylist()
    assert [line["month"] for line in lines] == [row["month"] for row in stored]
    for line, row, original in zip(lines, stored, rows, strict=True):
        assert row["share"] == original.share
        assert (float(line["share"]) if line["share"] else None) == original.share
        assert math.isclose(row["share_high"] or 0.0, float(line["share_high"] or 0.0))
    with pytest.raises(ConfigurationError, match=r"\.csv nor in \.parquet"):
        check_output(tmp_path / "index.xlsx")


def _signals(path: Path) -> Path:
    lines = (json.dumps(signal(n, f"2020-0{n}-10T00:00:00Z")) for n in range(1, 4))
    path.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))
    return path


@pytest.mark.parametrize(("options", "asked"), [([], False), (["--standardise"], True)])
def test_the_columns_depend_on_the_option_and_not_on_the_values(
    tmp_path: Path, options: list[str], asked: bool
) -> None:
    """With fewer than thirteen months the key was missing, which the API always answers."""
    out = tmp_path / "index.csv"
    arguments = ["build", "--signals", "--input", str(_signals(tmp_path / "signals.jsonl.gz"))]
    outcome = CliRunner().invoke(narrative_app, [*arguments, *options, "--json", "--out", str(out)])
    assert outcome.exit_code == 0, outcome.output
    rows = json.loads(outcome.stdout)
    assert [row.get("standardised", "missing") for row in rows] == [None if asked else "missing"] * 3
    assert ("standardised" in out.read_text(encoding="utf-8").splitlines()[0]) is asked


def test_a_damaged_gzip_file_is_one_sentence(tmp_path: Path) -> None:
    """zlib's own error is no OSError, and came through as a traceback."""
    file = _signals(tmp_path / "signals.jsonl.gz")
    whole = bytearray(file.read_bytes())
    whole[10] = 0xFF  # the first byte behind the header: a kind of block that there is not
    file.write_bytes(whole)
    with pytest.raises(KbertError, match=r"signals\.jsonl\.gz cannot be read: .*invalid block type"):
        build_from_signals([file], max_future=60)


def test_a_folder_that_is_not_there_is_refused_before_the_work(tmp_path: Path) -> None:
    """The file could not be opened, after all articles had been classified."""
    articles = str(tmp_path / "articles.jsonl")
    for option, name in (("--out", "index.csv"), ("--chart", "index.png")):
        arguments = ["build", "--input", articles, option, str(tmp_path / "nowhere" / name)]
        outcome = CliRunner().invoke(narrative_app, arguments)
        assert isinstance(outcome.exception, ConfigurationError)
        assert "a folder that is not there" in str(outcome.exception)


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "index.csv").mkdir()
    with pytest.raises(KbertError, match=r"index\.csv cannot be written: Is a directory\.$"):
        write(monthly_index({"2020-01": {"a": Sums(4, 1, 1_000)}}), tmp_path / "index.csv")


def test_a_weight_that_names_no_source_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KBERT_NARRATIVE__SOURCE_WEIGHTS", '{"Kept": 2}')
    arguments = ["build", "--signals", "--input", str(_signals(tmp_path / "signals.jsonl.gz"))]
    source = signal(1, "2020-01-10T00:00:00Z")["source"]
    outcome = CliRunner().invoke(narrative_app, [*arguments, "--weight", "Wire=1", "--weight", f"{source}=2"])
    assert outcome.exit_code == 0, outcome.output
    end = f", of which there is no article: the sources are {source}"
    for said in (f"--weight names Wire{end}", f"narrative.source_weights names Kept{end}"):
        assert said in outcome.stderr.splitlines()


def test_the_month_that_is_not_over_is_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.commands.narrative.running_month", lambda: "2020-03")
    arguments = ["build", "--signals", "--input", str(_signals(tmp_path / "signals.jsonl.gz"))]
    page = CliRunner().invoke(narrative_app, arguments).stdout
    assert page.count("(so far)") == page.count("2020-03 (so far)") == 1


def test_signals_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "signals.jsonl"
    file.write_text(json.dumps(signal(1, "2020-01-10T00:00:00Z")) + "\n", encoding="utf-8-sig")
    built = build_from_signals([file], max_future=60)
    assert (built.rejected, list(built.accumulator.sums())) == ([], ["2020-01"])


@pytest.mark.parametrize("text", ["2015", "2015-13", "15-01", "2015-1", "2015-01-01"])
def test_what_is_no_month_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="no month"):
        parse_month(text)

"""The regression against statsmodels by hand, against Stata, and what it refuses."""

import json
import math
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm
from statsmodels.datasets import macrodata
from statsmodels.stats.diagnostic import acorr_breusch_godfrey
from statsmodels.stats.outliers_influence import variance_inflation_factor
from statsmodels.tsa.stattools import adfuller
from typer.testing import CliRunner

from tests.simulated_series import autoregressive, coverage, series
from worker.commands.narrative import narrative_app
from worker.errors import ConfigurationError, KbertError
from worker.narrative.chart import regression_charts
from worker.narrative.index import monthly_index
from worker.narrative.regression import Regression, fixed_b_critical_value, newey_west_lags, regress
from worker.narrative.report import latex, text
from worker.narrative.series import SeriesError, common_months, read_index, read_series, shifted
from worker.narrative.sums import Sums


def _simulated(months: int = 120, seed: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    index = autoregressive(rng, months, 0.5)
    other = autoregressive(rng, months, 0.3)
    return 1.0 + 0.8 * index - 0.4 * other + autoregressive(rng, months, 0.6), index, other


def test_everything_equals_statsmodels_called_by_hand() -> None:
    y, index, other = _simulated()
    fitted = regress(
        series(y),
        series(index),
        dependent="accidents",
        index_name="share",
        lags=[1, 0, -1],
        others={"rain": series(other)},
        month_dummies=True,
        trend=True,
    )
    # By hand: a lead at the end and a lag at the start cost a month each; 2015-02 is month 2.
    rows = range(1, 119)
    months = [t % 12 + 1 for t in rows]
    design = np.column_stack(
        [
            np.ones(118),
            [index[t + 1] for t in rows],
            [index[t] for t in rows],
            [index[t - 1] for t in rows],
            [other[t] for t in rows],
            np.arange(118),
            *([float(m == month) for m in months] for month in range(2, 13)),
        ]
    )
    assert fitted.maxlags == 4
    by_hand = sm.OLS(y[1:119], design).fit(
        cov_type="HAC", cov_kwds={"maxlags": 4, "use_correction": True}, use_t=True
    )
    names = ["const", "share(t+1)", "share", "share(t-1)", "rain", "trend"]
    assert list(fitted.terms)[:6] == names
    terms = list(fitted.terms.values())
    np.testing.assert_allclose([t.coefficient for t in terms], by_hand.params, rtol=1e-9)
    np.testing.assert_allclose([t.error for t in terms], by_hand.bse, rtol=1e-9)
    np.testing.assert_allclose([t.p or 0.0 for t in terms], by_hand.pvalues, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose([[t.low, t.high] for t in terms], by_hand.conf_int(), rtol=1e-7)
    assert fitted.months[0] == "2015-02"
    assert fitted.degrees_of_freedom == by_hand.df_resid
    plain = sm.OLS(y[1:119], design).fit()
    np.testing.assert_allclose(list(fitted.plain_errors.values()), plain.bse, rtol=1e-9)
    tests = fitted.diagnostics
    lm, p, *_ = acorr_breusch_godfrey(plain, nlags=tests.breusch_godfrey_lags, result_object=False)
    assert (tests.breusch_godfrey, tests.breusch_godfrey_p) == pytest.approx((lm, p))
    np.testing.assert_allclose(
        list(tests.variance_inflation.values()),
        [variance_inflation_factor(design, i) for i in range(1, design.shape[1])],
        rtol=1e-6,
    )
    statistic, p, *_ = adfuller(y[1:119], autolag="AIC", result_object=False)
    assert tests.unit_roots["accidents"].statistic == pytest.approx(statistic)
    assert tests.unit_roots["accidents"].p == pytest.approx(p)


def test_statas_newey_west_errors_are_reproduced() -> None:
    """Stata: ``newey g_realinv g_realgdp L.realint, lag(4)`` on the macrodata set of statsmodels.

    The figures are those that statsmodels 0.15.0 keeps in
    statsmodels/regression/tests/results/results_macro_ols_robust.py (results_newey4); the Durbin-Watson
    statistic is gretl's for the same regression, from test_glsar_gretl.py. Quarters stand here as months.
    """
    data = macrodata.load_pandas().data
    investment = 400 * np.diff(np.log(data["realinv"].to_numpy()))
    product = 400 * np.diff(np.log(data["realgdp"].to_numpy()))
    rate = data["realint"].to_numpy()[:-1]
    fitted = regress(
        series(investment),
        series(product),
        dependent="g_realinv",
        index_name="g_realgdp",
        others={"L.realint": series(rate)},
        maxlags=4,
    )
    assert (fitted.observations, fitted.degrees_of_freedom) == (202, 199)
    stata = {
        "g_realgdp": (4.3742216647032, 0.33125644884286, 13.204940401864, 3.7209983425819, 5.0274449868245),
        "L.realint": (
            -0.61399696947899,
            0.29582347593197,
            -2.0755518727668,
            -1.1973480087863,
            -0.03064593017165,
        ),
        "const": (-9.4816727746549, 1.1859338087713, -7.9951112823729, -11.820282709911, -7.1430628393989),
    }
    for name, figures in stata.items():
        term = fitted.terms[name]
        assert (term.coefficient, term.error, term.t, term.low, term.high) == pytest.approx(figures, rel=1e-8)
    assert fitted.terms["L.realint"].p == pytest.approx(0.03922090940364, rel=1e-8)
    assert fitted.r_squared == pytest.approx(0.6769775594319388)
    assert fitted.diagnostics.durbin_watson == pytest.approx(2.213805, abs=5e-7)


def test_the_newey_west_rule() -> None:
    assert [newey_west_lags(months) for months in (50, 100, 120, 202, 400)] == [3, 4, 4, 4, 5]


def test_the_critical_value_is_the_quantile_of_what_it_approximates() -> None:
    """|t| of the mean of white noise, with the Bartlett kernel over a fifth of the sample."""
    rng = np.random.default_rng(7)
    months, maxlags = 300, 59
    noise = rng.standard_normal((8_000, months))
    sums = np.cumsum(noise - noise.mean(1, keepdims=True), axis=1)
    width = maxlags + 1
    # The Bartlett estimate in partial sums.
    squares = (sums**2).sum(1) - (sums[:, :-width] * sums[:, width:]).sum(1)
    t = math.sqrt(months) * noise.mean(1) / np.sqrt(2 * squares / (months * width))
    assert fixed_b_critical_value(maxlags, months) == pytest.approx(np.quantile(np.abs(t), 0.95), abs=0.12)
    assert fixed_b_critical_value(0, 10**6) == pytest.approx(1.96, abs=1e-4)


def test_the_row_of_lazarus_has_an_interval_by_fixed_b_and_no_p() -> None:
    """Its rule was made for these critical values, and was read with Student's t."""
    fitted = _fitted()
    rows = {line.maxlags: line for line in fitted.sensitivity}
    term = rows[15].terms["index_share"]
    critical = fixed_b_critical_value(15, fitted.observations)
    assert critical > 2.3
    assert (term.high - term.coefficient) / term.error == pytest.approx(critical)
    assert (term.coefficient - term.low) / term.error == pytest.approx(critical)
    assert term.p is None
    assert all(line.terms["index_share"].p is not None for lag, line in rows.items() if lag != 15)
    (printed,) = (line for line in text(fitted).splitlines() if line.startswith("   15 index_share "))
    assert f"      - {f'[{term.low:.4g}, {term.high:.4g}]':>25}   1.3 sqrt(T), interval by" in printed
    assert {index.p for index in _chosen(15).terms.values()}.isdisjoint({None})


def _chosen(maxlags: int) -> Regression:
    y, index, _ = _simulated()
    return regress(series(y), series(index), maxlags=maxlags)


def test_a_small_cut_of_the_simulation() -> None:
    found = coverage(60, seed=2)
    assert found.hac >= 0.88  # 60 series: 95 % within some six points
    assert found.plain < found.hac


def test_a_lag_is_the_index_before_and_a_lead_after() -> None:
    index = {"2020-01": 1.0, "2020-02": 2.0}
    assert shifted(index, 1) == {"2020-02": 1.0, "2020-03": 2.0}
    assert shifted(index, -1) == {"2019-12": 1.0, "2020-01": 2.0}


def _refusal(message: str, **changes: object) -> None:
    y, index, other = _simulated()
    arguments: dict[str, object] = {"y": series(y), "index": series(index), **changes}
    if callable(arguments["y"]):
        arguments["y"] = arguments["y"](y)
    if callable(arguments["index"]):
        arguments["index"] = arguments["index"](index)
    if arguments.pop("twice", False):
        arguments["others"] = {"other": series(other), "twin": series(2 * other)}
    with pytest.raises((SeriesError, ConfigurationError), match=message) as refused:
        regress(**arguments)  # type: ignore[arg-type]
    assert str(refused.value).count("\n") == 0


def test_refusals_are_one_sentence_that_names_what() -> None:
    _refusal("no month in common", y=lambda y: series(y, start=1950 * 12))
    _refusal("lacks 1 of the 120 months.*2016-03", index=lambda i: _without(series(i), "2016-03"))
    _refusal("too few for 2 coefficients", y=lambda y: series(y[:11]))
    _refusal("index is constant", index=lambda i: series(0 * i + 3))
    _refusal("y is constant", y=lambda y: series(0 * y))
    _refusal("twin is a combination", twice=True)
    _refusal("names no lag", lags=[])
    _refusal("twice", lags=[1, 1])
    _refusal("--maxlags 500", maxlags=500)
    _refusal("no value at all", y={})
    taken = {name: series(_simulated()[2]) for name in ("trend", "month_02")}
    _refusal("trend is there twice", others=taken, trend=True)
    _refusal("month_02 is there twice", others=taken, month_dummies=True)
    _refusal("index is there twice", others={"index": taken["trend"]}, lags=[1])


@pytest.mark.parametrize(
    ("dependent", "options"),
    [
        ("index", {}),
        ("index", {"lags": [1]}),
        ("index(t-1)", {"lags": [1]}),
        ("const", {}),
        ("trend", {"trend": True}),
        ("month_02", {"month_dummies": True}),
    ],
)
def test_a_dependent_named_as_a_regressor_is_refused(dependent: str, options: dict[str, object]) -> None:
    """A column index_share of --y was a KeyError, and its series was not checked for being constant."""
    _refusal(
        rf"{re.escape(dependent)} is there twice: rename the column of --y", dependent=dependent, **options
    )
    y, index, _ = _simulated()
    assert regress(series(y), series(index), dependent="trend").dependent == "trend", "no trend, no clash"


def test_an_index_that_moves_only_before_the_sample_is_refused() -> None:
    """The Dickey-Fuller test of the constant rest was a ValueError."""
    _refusal(
        "index is constant from 2015-02",
        y=lambda y: series(y[1:], start=2015 * 12 + 1),
        index=lambda i: series(np.array([1.0, *[3.0] * 119])),
        lags=[1],
    )


def _without(values: dict[str, float], month: str) -> dict[str, float]:
    return {key: value for key, value in values.items() if key != month}


def test_files_are_read_or_refused_with_the_line(tmp_path: Path) -> None:
    file = tmp_path / "y.csv"
    file.write_text('month,accidents,rain\n2015-01,"1,200",3\n2015-02-28,1300,\n', encoding="utf-8")
    assert read_series(file) == {
        "accidents": {"2015-01": 1200.0, "2015-02": 1300.0},
        "rain": {"2015-01": 3.0},
    }
    for content, message in (
        ("month,a\n2015-01,1\n2015-01,2\n", ":3 repeats the month 2015-01"),
        ("month,a\n2015-01,x\n", ":2 has 'x'"),
        ("month,a\n2015-01,nan\n", ":2 has 'nan'"),
        ("month,a\nJanuary,1\n", ":2: 'January' is no month"),
        ("month,a\n2015-1,1\n", ":2: '2015-1' is no month"),
        ("month,a\n2015-01,1\n2015-013,1\n", ":3: '2015-013' is no month"),
        ("month,a,b\n2015-01,1,2\n2015-02,11,993,2\n", ":3 has more cells than the header"),
        ('month,a\n2015-01,"1,15"\n', ":2 has '1,15'"),
        ('month,a\n2015-01,"1\n', "cannot be read"),
        ('month,a\n2015-01,"0,512"\n', ":2 has '0,512'.* no number: write its decimals after a point"),
        ('month,a\n2015-01,"-0,001"\n', ":2 has '-0,001'"),
        ("month;a\n2015-01;1,5\n", "separates its columns with semicolons"),
        ("month\ta\n2015-01\t1\n", "separates its columns with tabs"),
        ("month,a,\n2015-01,1,2\n", "a column with values and without a name"),
        ("year,a\n2015,1\n", "no column month"),
        ("month,a,b,a\n2015-01,1,2,3\n", "names the column 'a' twice"),
        ("month,a,month\n2015-01,1,2015-02\n", "names the column 'month' twice"),
        ("month,a\n2015-01,1_15\n", ":2 has '1_15'"),
    ):
        file.write_text(content, encoding="utf-8")
        with pytest.raises((SeriesError, ConfigurationError), match=message):
            read_series(file)
    file.write_text('month,a\n2015-01,"-1,234,567.5"\n', encoding="utf-8")
    assert read_series(file) == {"a": {"2015-01": -1_234_567.5}}
    file.write_text("month,a\n2015-01,1\n", encoding="utf-8")
    with pytest.raises(SeriesError, match="no column b: it has a"):
        read_series(file, "b")
    with pytest.raises(SeriesError, match="lacks 1 of the 3"):
        common_months(
            {"a": {"2015-01": 1.0, "2015-03": 1.0}, "b": dict.fromkeys(("2015-01", "2015-03"), 1.0)}
        )


def test_what_a_spreadsheet_leaves_around_the_values_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("month, rain,,\n2015-01, 3,,\n,,,\n\n2015-02,4\n,,,,,\n")
    assert read_series(file) == {"rain": {"2015-01": 3.0, "2015-02": 4.0}}


def test_a_korean_file_is_read_and_another_one_named(tmp_path: Path) -> None:
    file, notes = tmp_path / "y.csv", list[str]()
    file.write_bytes("month,사고건수\n2015-01,1239\n".encode("cp949"))
    assert read_series(file, "사고건수", notes) == {"사고건수": {"2015-01": 1239.0}}
    assert notes == [f"{file} is no UTF-8 and was read as CP949."]
    file.write_text("month\ta\n2015-01\t1\n", encoding="utf-16")
    with pytest.raises(SeriesError, match=r"is neither UTF-8 nor CP949: save it as CSV UTF-8\.$"):
        read_series(file)


def test_commas_that_may_be_decimal_are_said_once(tmp_path: Path) -> None:
    """0,512 was read as 512."""
    file, notes = tmp_path / "y.csv", list[str]()
    file.write_text('month,a,b\n2015-01,"1,234","1,234,567"\n2015-02,"1,235","1,234.5"\n')
    assert read_series(file, "a", notes)["a"] == {"2015-01": 1234.0, "2015-02": 1235.0}
    assert notes == [f"{file}:2 has '1,234' in the column a: its commas were read as thousands."]
    notes.clear()
    read_series(file, "b", notes)
    assert notes == [], "these can be nothing else"


def test_only_the_column_that_is_asked_for_has_to_have_a_name_of_its_own(tmp_path: Path) -> None:
    """A spreadsheet writes empty columns behind the last one, all without a name."""
    file = tmp_path / "y.csv"
    file.write_text("month,a,,\n2015-01,1,,\n")
    assert read_series(file, "a") == {"a": {"2015-01": 1.0}}


@pytest.mark.parametrize(
    ("option", "message"),
    [("--lags", "--lags ² is no list of months"), ("--maxlags", "--maxlags ² is neither auto nor a number")],
)
def test_a_raised_digit_is_no_number(tmp_path: Path, option: str, message: str) -> None:
    file = tmp_path / "y.csv"
    file.write_text("month,a,share\n2015-01,1,2\n")
    arguments = ["regress", "--y", str(file), "--column", "a", "--index", str(file), option, "²"]
    outcome = CliRunner().invoke(narrative_app, arguments)
    assert isinstance(outcome.exception, ConfigurationError)
    assert message in str(outcome.exception)


def test_an_index_with_an_empty_count_names_the_month(tmp_path: Path) -> None:
    file = tmp_path / "index.csv"
    file.write_text(
        "month,articles,negatives,share,share_low,share_high\n"
        "2015-01,4,1,0.25,0.1,0.5\n2015-02,4,,0.25,0.1,0.5\n"
    )
    with pytest.raises(SeriesError, match="has no negatives in the month 2015-02"):
        read_index(file)


def _fitted() -> Regression:
    y, index, _ = _simulated()
    return regress(series(y), series(index), dependent="accidents_n", index_name="index_share", lags=[0, 1])


def test_text_latex_and_json_hold_the_same_figures() -> None:
    fitted = _fitted()
    page, table = text(fitted), latex(fitted)
    term = fitted.terms["index_share(t-1)"]
    assert f"{term.error:.5g}" in page
    assert "maxlags 4 (Newey-West rule" in page
    assert "1.3 sqrt(T)" in page
    assert f"({term.error:.4g})" in table
    assert r"accidents\_n" in table
    assert table.count(r"\begin") == table.count(r"\end") == 1
    assert latex(_named("a^2~{b}")).count(r"a\textasciicircum{}2\textasciitilde{}\{b\} ") == 1
    plain = json.loads(json.dumps(fitted.to_dict()))
    assert plain["terms"]["index_share(t-1)"]["error"] == term.error
    assert {line["maxlags"] for line in plain["sensitivity"]} == {0, 4, 6, 12, 15}


def test_charts_are_drawn(tmp_path: Path) -> None:
    rows = monthly_index({"2020-01": {"a": Sums(9, 3, 3_000)}, "2020-04": {"a": Sums(5, 1, 900)}})
    paths = regression_charts(_fitted(), rows, tmp_path)
    assert [path.name for path in paths] == ["index.png", "fit.png", "maxlags.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def _named(dependent: str) -> Regression:
    y, index, _ = _simulated()
    return regress(series(y), series(index), dependent=dependent)


def test_a_short_regressor_is_named_with_the_months_that_it_costs() -> None:
    y, index, other = _simulated()
    short = series(other[24:84], start=2017 * 12)
    fitted = regress(series(y), series(index), lags=[0, 1], others={"rain": short})
    said = "y has 120 months; `rain` (2017-01 to 2021-12) limits the sample to 60"
    assert fitted.notes[0] == f"{said}."
    assert not any("limits" in note for note in regress(series(y), series(index), lags=[0, 1]).notes)
    few = series(other[:11], start=2017 * 12)
    _refusal(
        r"at least 13 are needed; y has 120 months; `rain` \(2017-01 to 2017-11\) limits",
        others={"rain": few},
    )


def test_the_month_that_is_not_over_is_left_out() -> None:
    y, index, _ = _simulated()
    fitted = regress(series(y), series(index), lags=[1], running="2024-12")
    assert (fitted.months[-1], fitted.observations) == ("2024-11", 118)
    assert fitted.notes[0] == "2024-12 is not over: the sample has the months before it only."
    assert regress(series(y), series(index), running="2025-01") == regress(series(y), series(index))


@pytest.mark.filterwarnings("error")
def test_a_dickey_fuller_test_without_a_result_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(*_: object, **__: object) -> tuple[float, float, int]:
        warnings.warn("divide by zero", RuntimeWarning, stacklevel=1)
        return math.nan, math.nan, 0

    monkeypatch.setattr("statsmodels.tsa.stattools.adfuller", endless)
    fitted = _fitted()
    note = "ADF of accidents_n and index_share is not finite: it tells nothing of a unit root."
    assert note in fitted.notes
    assert f"\n% {note}" in latex(fitted)


def test_of_the_index_only_its_own_columns_are_read_and_for_charts_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A column of words beside the index, or an empty count, ended the regression."""
    monkeypatch.setattr("worker.commands.narrative.running_month", lambda: "2024-12")
    _, index, _ = _simulated()
    file = tmp_path / "index.csv"
    header = "month,a,articles,negatives,share,share_low,share_high,note\n"
    lines = [
        f'{month},"1,{n + 100}",9,1,{one},0,1,ok' for n, (month, one) in enumerate(series(index).items())
    ]
    file.write_text(header + "\n".join(lines) + "\n")
    assert len(read_index(file)) == 120
    file.write_text(file.read_text().replace(",9,", ",,", 1))
    arguments = ["regress", "--y", str(file), "--column", "a", "--index", str(file), "--output", "json"]
    outcome = CliRunner().invoke(narrative_app, arguments)
    assert outcome.exit_code == 0, outcome.output
    fitted = json.loads(outcome.stdout)
    assert fitted["months"][-1] == "2024-11"
    assert "commas were read as thousands" in fitted["notes"][0]


def test_a_file_in_the_place_of_the_folder_of_plots_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "y.csv"
    file.write_text("month,a\n2015-01,1\n")
    arguments = ["regress", "--y", str(file), "--column", "a", "--plots", str(file)]
    outcome = CliRunner().invoke(narrative_app, arguments)
    assert isinstance(outcome.exception, ConfigurationError)
    assert "is a file" in str(outcome.exception)
    with pytest.raises(KbertError, match="cannot be made"):
        regression_charts(_fitted(), [], file / "plots")

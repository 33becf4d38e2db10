"""Ordinary least squares with Newey-West (HAC) errors, and the diagnostics that go with it."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import ceil, floor, sqrt
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from worker.errors import ConfigurationError
from worker.narrative.months import number
from worker.narrative.series import Series, SeriesError, common_months, shifted

Floats = npt.NDArray[np.float64]

MIN_SPARE: Final = 10
"""Observations that have to be left after one for each coefficient."""
CONSTANT: Final = "const"
_LEVEL: Final = 0.05
_LAZARUS_RULE: Final = "1.3 sqrt(T), interval by fixed-b"
_MONTH_DUMMIES: Final = {month: f"month_{month:02d}" for month in range(2, 13)}


@dataclass(frozen=True)
class Term:
    """One coefficient with its HAC error and 95 % interval, by the t distribution.

    ``p`` is None where the interval is by a fixed-b critical value: of these only some levels are tabulated.
    """

    coefficient: float
    error: float
    t: float
    p: float | None
    low: float
    high: float


@dataclass(frozen=True)
class Sensitivity:
    """The index terms under one choice of maxlags."""

    maxlags: int
    rule: str
    terms: Mapping[str, Term]


@dataclass(frozen=True)
class UnitRoot:
    """Augmented Dickey-Fuller test with a constant; the lag length is chosen by AIC."""

    statistic: float
    p: float
    lags: int


@dataclass(frozen=True)
class Diagnostics:
    """What the residuals and the regressors look like."""

    durbin_watson: float
    breusch_godfrey_lags: int
    breusch_godfrey: float
    breusch_godfrey_p: float
    unit_roots: Mapping[str, UnitRoot]
    variance_inflation: Mapping[str, float]


@dataclass(frozen=True)
class Regression:
    """A finished regression."""

    dependent: str
    months: list[str]
    observations: int
    degrees_of_freedom: int
    maxlags: int
    maxlags_rule: str
    r_squared: float
    r_squared_adjusted: float
    terms: Mapping[str, Term]
    index_terms: list[str]
    plain_errors: Mapping[str, float]
    sensitivity: list[Sensitivity]
    diagnostics: Diagnostics
    notes: list[str] = field(default_factory=list)
    observed: list[float] = field(default_factory=list)
    fitted: list[float] = field(default_factory=list)
    residuals: list[float] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def newey_west_lags(observations: int) -> int:
    """floor(4 (T/100)^(2/9)), Newey and West's rule of thumb for the Bartlett kernel."""
    return floor(4 * math.pow(observations / 100, 2 / 9))


def lazarus_lags(observations: int) -> int:
    """Rounded-up 1.3 sqrt(T): Lazarus, Lewis, Stock and Watson (2018), who go by fixed-b critical values."""
    return ceil(1.3 * sqrt(observations))


def fixed_b_critical_value(maxlags: int, observations: int) -> float:
    """Of |t| at 5 % with the Bartlett kernel: Kiefer and Vogelsang (2005), table 1."""
    b = (maxlags + 1) / observations
    return 1.96 + 2.9694 * b + 0.416 * b**2 - 0.5324 * b**3


def fit(y: Floats, x: Floats, maxlags: int) -> Any:
    """statsmodels' OLS of y [T] on x [T, k] with HAC errors: small-sample correction, t distribution."""
    import statsmodels.api as sm

    return sm.OLS(y, x).fit(cov_type="HAC", cov_kwds={"maxlags": maxlags, "use_correction": True}, use_t=True)


def regress(
    y: Series,
    index: Series,
    *,
    dependent: str = "y",
    index_name: str = "index",
    lags: Sequence[int] = (0,),
    others: Mapping[str, Series] | None = None,
    maxlags: int | None = None,
    month_dummies: bool = False,
    trend: bool = False,
    running: str | None = None,
) -> Regression:
    """Regress a monthly series on the index.

    Args:
        y: the dependent series.
        index: the narrative index.
        dependent: name of ``y`` in the output.
        index_name: name of the index in the output.
        lags: months by which the index comes before ``y``; a negative one is a lead.
        others: further regressors, unshifted.
        maxlags: of the Bartlett kernel; the Newey-West rule where absent.
        month_dummies: eleven dummies, January is the base.
        trend: a linear trend, one a month.
        running: the month that is not over; it and those after it are left out of both series.

    Raises:
        SeriesError: the series do not fit together, are too short, constant, collinear or named alike.
        ConfigurationError: ``lags`` or ``maxlags`` cannot be.
    """
    notes = []
    if running is not None and any(month >= running for month in (*y, *index)):
        y, index = (_before(series, running) for series in (y, index))
        notes.append(f"{running} is not over: the sample has the months before it only.")
    terms = {_term_name(index_name, lag): shifted(index, lag) for lag in _checked_lags(lags)}
    index_terms = list(terms)
    added = ["trend"] if trend else []
    if month_dummies:
        added += _MONTH_DUMMIES.values()
    if dependent in (index_name, *terms, CONSTANT, *added):
        raise SeriesError(f"The name {dependent} is there twice: rename the column of --y.")
    for name, series in (others or {}).items():
        if name in (index_name, *terms, dependent, CONSTANT, *added):
            raise SeriesError(f"The name {name} is there twice: rename the column of --x.")
        terms[name] = series
    months = common_months({dependent: y, **terms})
    cut = _cut(dependent, y, {index_name: index, **(others or {})}, len(months))
    if cut:
        notes.append(cut)
    observed = np.array([y[month] for month in months])
    columns = {name: np.array([series[month] for month in months]) for name, series in terms.items()}
    common = _common(index, months, columns)
    # The index unshifted too: with --lags 1 one that moved before the sample only was one month's dummy.
    for name, values in {dependent: observed, index_name: common, **columns}.items():
        if np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())):
            raise SeriesError(f"The series {name} is constant from {months[0]} to {months[-1]}.")
    if trend:
        columns["trend"] = np.arange(len(months), dtype=float)
    if month_dummies:
        of_year = np.array([number(month) % 12 + 1 for month in months])
        columns |= {name: (of_year == m).astype(float) for m, name in _MONTH_DUMMIES.items()}
    design = np.column_stack([np.ones(len(months)), *columns.values()])
    names = [CONSTANT, *columns]
    _check_design(design, names, months, cut)
    rule = "given"
    if maxlags is None:
        maxlags, rule = newey_west_lags(len(months)), "Newey-West rule floor(4(T/100)^(2/9))"
    if not 0 <= maxlags < len(months):
        raise ConfigurationError(f"--maxlags {maxlags} is not between 0 and {len(months) - 1}.")
    result = fit(observed, design, maxlags)
    plain = _plain(observed, design)
    unit_roots = {dependent: _unit_root(observed), index_name: _unit_root(common)}
    diagnostics = Diagnostics(
        *_residual_tests(plain), unit_roots=unit_roots, variance_inflation=_vif(design, names)
    )
    return Regression(
        dependent=dependent,
        months=months,
        observations=len(months),
        degrees_of_freedom=int(result.df_resid),
        maxlags=maxlags,
        maxlags_rule=rule,
        r_squared=float(result.rsquared),
        r_squared_adjusted=float(result.rsquared_adj),
        terms=_terms(result, names),
        index_terms=index_terms,
        plain_errors=dict(zip(names, map(float, plain.bse), strict=True)),
        sensitivity=_sensitivity(observed, design, names, index_terms, chosen=maxlags, rule=rule),
        diagnostics=diagnostics,
        notes=[*notes, *_notes(diagnostics, len(months), maxlags)],
        observed=observed.tolist(),
        fitted=result.fittedvalues.tolist(),
        residuals=result.resid.tolist(),
    )


def _term_name(index_name: str, lag: int) -> str:
    if lag == 0:
        return index_name
    return f"{index_name}(t{-lag:+d})"


def _before(series: Series, end: str) -> Series:
    return {month: value for month, value in series.items() if month < end}


def _cut(dependent: str, y: Series, regressors: Mapping[str, Series], rows: int) -> str:
    """The regressors that begin later or end earlier than ``y``, as a sentence; empty where none does."""
    first, last = min(y), max(y)
    short = [
        f"`{name}` ({min(series)} to {max(series)})"
        for name, series in regressors.items()
        if min(series) > first or max(series) < last
    ]
    if not short:
        return ""
    limit = "limits" if len(short) == 1 else "limit"
    return f"{dependent} has {len(y)} months; {' and '.join(short)} {limit} the sample to {rows}."


def _checked_lags(lags: Sequence[int]) -> list[int]:
    if not lags:
        raise ConfigurationError("--lags names no lag: give at least one, for example --lags 0.")
    if len(set(lags)) < len(lags):
        raise ConfigurationError("--lags and --leads name a month twice.")
    return sorted(lags)


def _check_design(design: Floats, names: Sequence[str], months: Sequence[str], cut: str) -> None:
    rows, columns = design.shape
    if rows < columns + MIN_SPARE:
        raise SeriesError(
            f"The series share {rows} months ({months[0]} to {months[-1]}), too few for {columns} "
            f"coefficients: at least {columns + MIN_SPARE} are needed{cut and f'; {cut[:-1]}'}."
        )
    scaled = design / np.abs(design).max(0)
    for count in range(2, columns + 1):
        if np.linalg.matrix_rank(scaled[:, :count], tol=1e-9 * sqrt(rows)) < count:
            raise SeriesError(f"The regressor {names[count - 1]} is a combination of those before it.")


def _plain(y: Floats, x: Floats) -> Any:
    import statsmodels.api as sm

    return sm.OLS(y, x).fit()


def _terms(result: Any, names: Sequence[str]) -> dict[str, Term]:
    intervals = result.conf_int(_LEVEL)
    return {
        name: Term(
            float(result.params[i]),
            float(result.bse[i]),
            float(result.tvalues[i]),
            float(result.pvalues[i]),
            float(intervals[i][0]),
            float(intervals[i][1]),
        )
        for i, name in enumerate(names)
    }


def _sensitivity(
    y: Floats, x: Floats, names: Sequence[str], index_terms: Sequence[str], *, chosen: int, rule: str
) -> list[Sensitivity]:
    rows = len(y)
    choices = {0: "heteroscedasticity only", newey_west_lags(rows): "Newey-West rule"}
    choices |= {6: "half a year", 12: "a year", lazarus_lags(rows): _LAZARUS_RULE}
    choices[chosen] = "chosen" if rule == "given" else "Newey-West rule (chosen)"
    lines = []
    for maxlags, why in sorted(choices.items()):
        if maxlags < rows:
            terms = _terms(fit(y, x, maxlags), names)
            if why == _LAZARUS_RULE:
                critical = fixed_b_critical_value(maxlags, rows)
                terms = {name: _with_critical_value(term, critical) for name, term in terms.items()}
            lines.append(Sensitivity(maxlags, why, {name: terms[name] for name in index_terms}))
    return lines


def _with_critical_value(term: Term, critical: float) -> Term:
    half = critical * term.error
    return replace(term, p=None, low=term.coefficient - half, high=term.coefficient + half)


def _residual_tests(plain: Any) -> tuple[float, int, float, float]:
    from statsmodels.stats.diagnostic import acorr_breusch_godfrey
    from statsmodels.stats.stattools import durbin_watson

    lags = min(12, int(plain.df_resid) // 4)
    statistic, p, _, _ = acorr_breusch_godfrey(plain, nlags=lags, result_object=False)
    return float(durbin_watson(plain.resid)), lags, float(statistic), float(p)


def _unit_root(values: Floats) -> UnitRoot:
    from statsmodels.tsa.stattools import adfuller

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a perfect fit, or of a division by 0: `_notes` says so
        statistic, p, lags, *_ = adfuller(values, autolag="AIC", result_object=False)
    return UnitRoot(float(statistic), float(p), int(lags))


def _common(index: Series, months: Sequence[str], columns: Mapping[str, Floats]) -> Floats:
    """The unshifted index in the months of the sample, or its first shifted form where it ends earlier."""
    if all(month in index for month in months):
        return np.array([index[month] for month in months])
    return next(iter(columns.values()))


def _vif(design: Floats, names: Sequence[str]) -> dict[str, float]:
    """1 / (1 - R²) of each regressor on the others, constant included."""
    result = {}
    for i, name in enumerate(names):
        if name == CONSTANT:
            continue
        others = np.delete(design, i, axis=1)
        column = design[:, i]
        coefficients = np.linalg.lstsq(others, column, rcond=None)[0]
        residual = float(((column - others @ coefficients) ** 2).sum())
        total = float(((column - column.mean()) ** 2).sum())
        result[name] = total / residual if residual > 0 else float("inf")
    return result


def _notes(diagnostics: Diagnostics, rows: int, maxlags: int) -> list[str]:
    notes = []
    rooted = [name for name, test in diagnostics.unit_roots.items() if test.p > _LEVEL]
    if len(rooted) == len(diagnostics.unit_roots):
        notes.append(
            f"ADF does not reject a unit root in {' nor in '.join(rooted)}: the regression of two such "
            "series can be spurious; consider differences."
        )
    elif rooted:
        notes.append(f"ADF does not reject a unit root in {rooted[0]}.")
    endless = [n for n, test in diagnostics.unit_roots.items() if not math.isfinite(test.statistic)]
    if endless:
        notes.append(f"ADF of {' and '.join(endless)} is not finite: it tells nothing of a unit root.")
    if diagnostics.breusch_godfrey_p <= _LEVEL and maxlags == 0:
        notes.append("Residuals are autocorrelated and maxlags is 0: the errors are too small.")
    inflated = [name for name, value in diagnostics.variance_inflation.items() if value > 10]
    if inflated:
        notes.append(f"Variance inflation above 10: {', '.join(inflated)}.")
    if rows < 60:
        notes.append(f"{rows} months are few: HAC errors are known to be too small in short samples.")
    return notes

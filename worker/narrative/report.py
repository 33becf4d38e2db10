"""A regression as text or LaTeX."""

from collections.abc import Iterator

from worker.narrative.regression import Regression, Term

_STARS = ((0.01, "***"), (0.05, "**"), (0.1, "*"))


def text(fitted: Regression) -> str:
    """A page of plain text."""
    return "\n".join(_text(fitted))


def _text(fitted: Regression) -> Iterator[str]:
    yield (
        f"OLS of {fitted.dependent}, {fitted.months[0]} to {fitted.months[-1]}: "
        f"{fitted.observations} months, {fitted.degrees_of_freedom} degrees of freedom"
    )
    yield (
        f"HAC errors (Newey-West, Bartlett kernel), maxlags {fitted.maxlags} ({fitted.maxlags_rule}), "
        "small-sample correction, t distribution"
    )
    yield f"R-squared {fitted.r_squared:.4f}, adjusted {fitted.r_squared_adjusted:.4f}"
    yield ""
    width = max(len(name) for name in fitted.terms)
    yield (
        f"{'':<{width}} {'coefficient':>12} {'HAC error':>12} {'t':>8} {'p':>7}     "
        f"{'95 % interval':>25} {'OLS error':>12}"
    )
    for name, term in fitted.terms.items():
        yield (
            f"{name:<{width}} {term.coefficient:>12.5g} {term.error:>12.5g} {term.t:>8.3f} "
            f"{_p(term):>7}{_stars(term.p):<4} {_interval(term):>25} {fitted.plain_errors[name]:>12.5g}"
        )
    yield ""
    yield "The index under several maxlags"
    for line in fitted.sensitivity:
        for name, term in line.terms.items():
            yield (
                f"  {line.maxlags:>3} {name:<{width}} {term.coefficient:>12.5g} {term.error:>12.5g} "
                f"{term.t:>8.3f} {_p(term):>7} {_interval(term):>25}   {line.rule}"
            )
    yield ""
    tests = fitted.diagnostics
    yield f"Durbin-Watson {tests.durbin_watson:.3f}"
    yield (
        f"Breusch-Godfrey ({tests.breusch_godfrey_lags} lags) LM {tests.breusch_godfrey:.3f}, "
        f"p {tests.breusch_godfrey_p:.4f}"
    )
    for name, root in tests.unit_roots.items():
        yield f"ADF {name}: {root.statistic:.3f}, p {root.p:.4f}, {root.lags} lags"
    yield "Variance inflation: " + ", ".join(
        f"{name} {value:.2f}" for name, value in tests.variance_inflation.items()
    )
    yield from (f"Note: {note}" for note in fitted.notes)


def latex(fitted: Regression) -> str:
    """A booktabs table: coefficient, HAC error in brackets, stars, what made them; notes as comments."""
    rows = []
    for name, term in fitted.terms.items():
        stars = _stars(term.p).strip()
        rows.append(
            f"{_escaped(name)} & {term.coefficient:.4g}{f'$^{{{stars}}}$' if stars else ''} & "
            f"({term.error:.4g}) & {term.t:.2f} & {_p(term, 3)} \\\\"
        )
    tests = fitted.diagnostics
    return "\n".join(
        [
            r"\begin{tabular}{lrrrr}",
            r"\toprule",
            rf" & {_escaped(fitted.dependent)} & HAC error & $t$ & $p$ \\",
            r"\midrule",
            *rows,
            r"\midrule",
            rf"Observations & \multicolumn{{4}}{{r}}{{{fitted.observations}}} \\",
            rf"$R^2$ / adjusted & \multicolumn{{4}}{{r}}{{{fitted.r_squared:.3f} / "
            rf"{fitted.r_squared_adjusted:.3f}}} \\",
            rf"maxlags (Newey--West) & \multicolumn{{4}}{{r}}{{{fitted.maxlags}}} \\",
            rf"Durbin--Watson & \multicolumn{{4}}{{r}}{{{tests.durbin_watson:.2f}}} \\",
            rf"Breusch--Godfrey $p$ ({tests.breusch_godfrey_lags} lags) & "
            rf"\multicolumn{{4}}{{r}}{{{tests.breusch_godfrey_p:.3f}}} \\",
            r"\bottomrule",
            r"\multicolumn{5}{l}{\footnotesize $^{*}p<0.1$, $^{**}p<0.05$, $^{***}p<0.01$; HAC errors with "
            r"small-sample correction, $t$ distribution.}",
            r"\end{tabular}",
            *(f"% {note}" for note in fitted.notes),
        ]
    )


def _interval(term: Term) -> str:
    return f"[{term.low:.4g}, {term.high:.4g}]"


def _p(term: Term, places: int = 4) -> str:
    return "-" if term.p is None else f"{term.p:.{places}f}"


def _stars(p: float | None) -> str:
    return next((f" {stars}" for level, stars in _STARS if p is not None and p < level), "")


def _escaped(name: str) -> str:
    for character in "\\&%$#_{}":
        name = name.replace(character, rf"\{character}" if character != "\\" else r"\textbackslash ")
    # After the braces, which these bring along.
    return name.replace("^", r"\textasciicircum{}").replace("~", r"\textasciitilde{}")

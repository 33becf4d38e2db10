"""What each ingredient of the crypto recipe brings: runs without it, on registers that no run learned from.

Every seed leaves two registers of ``crypto_ko`` out, so that the three seeds judge all six. All runs take
about the same number of steps, a thirtieth of the recipe's, and the same sample of the further texts.
"""

import gzip
import json
import random
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from worker.errors import ConfigurationError
from worker.training.baseline import TfidfBaseline
from worker.training.crypto import ROUNDS, TAKEN_OVER, CryptoTrainConfig, scores_by_register
from worker.training.datasets import EXTRA, PACKAGED, LabelledText, load_all
from worker.training.metrics import macro_f1
from worker.training.mixture import Round
from worker.training.parts import add_extra, divide
from worker.training.predictions import Truth
from worker.training.provenance import MODEL, PUBLIC_SETS, check, digest, digest_of_folder, writing

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

LEFT_OUT: Final[Mapping[int, tuple[str, str]]] = {
    1: ("chat_board", "news"),
    2: ("chat_community", "news_wire"),
    3: ("chat_gallery", "chat_live"),
}
"""Registers by the seed that leaves them out."""
WHOLE: Final = "all ingredients"
BASELINE: Final = "TF-IDF, the same texts"
MEASURES: Final = ("senti", "act", "emo")
Scores = dict[str, dict[str, float]]
"""By register, then by measure."""
_SPLICES: Final = 1_000
"""An epoch, of some 6,000 labelled texts."""


@dataclass(frozen=True)
class AblationConfig:
    """``base`` and ``public`` as for `kbert train crypto`; ``init`` is the ``--out`` of such a run, whose
    public stage all runs but one take over. ``further`` texts are drawn from those that are only learned
    from; each run takes about ``steps`` steps. ``only`` names rows of RUNS (none: BY_DEFAULT). Finished runs
    in ``out`` are not run again.
    """

    base: Path
    public: Path
    init: Path
    out: Path
    steps: int = 220
    further: int = 3_000
    threads: int | None = None
    only: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Further:
    """Files with the sample of further texts."""

    both: Path
    """As they are."""
    one: Path
    """Without what the second annotator said."""


Change = Callable[[CryptoTrainConfig, _Further], CryptoTrainConfig]


def _round(**changes: Any) -> Change:
    def changed(config: CryptoTrainConfig, _: _Further) -> CryptoTrainConfig:
        return replace(config, rounds=tuple(replace(r, **changes) for r in config.rounds))

    return changed


RUNS: Final[Mapping[str, Change]] = {
    WHOLE: lambda config, _: config,
    "without the public stage": lambda config, _: replace(config, init=None, public_steps=0),
    "without the further texts": lambda config, _: replace(config, extra=()),
    "without the second annotator": lambda config, further: replace(config, extra=(further.one,)),
    "without splices and changed texts": _round(splices=0, augmented=0.0, spelled=0.0),
    "without splices": _round(splices=0),
    "without changed texts": _round(augmented=0.0),
    "without broken pieces": _round(spelled=0.0),
    "without everyday texts": _round(background=0),
    "without replay": _round(replay=0),
    "without label smoothing": lambda config, _: replace(config, smoothing=0.0),
    "without class balance": lambda config, _: replace(config, balance=0.0),
    "without averaged weights": lambda config, _: replace(config, average=0.0),
    "without layer decay": lambda config, _: replace(config, layer_decay=1.0),
}
BY_DEFAULT: Final = tuple(RUNS)[:5]
"""The rest is run where it is asked for: a row takes a run for each seed."""


def ablate(config: AblationConfig, console: "Console") -> dict[str, Any]:
    """Run all that has not been run.

    Returns:
        ``rows``: for each ingredient and measure ``mean`` over the six registers, ``change`` against all
        ingredients, and ``error``, the standard error of that change over the registers; ``runs``: every
        score; ``steps`` and ``further`` as asked.

    Raises:
        DatasetError, PublicDataError, ConfigurationError: As `kbert train crypto` does, the last also where
            ``only`` names no row.
        StateMismatchError: ``out`` holds scores of another encoder, public folder, earlier run or texts.
    """
    runs = _chosen(config.only)
    with writing(config.out):
        config.out.mkdir(parents=True, exist_ok=True)
        further = _sample(config)
    made_from = _made_from(config, further)
    found: dict[str, Scores] = {}
    for seed, registers in LEFT_OUT.items():
        for name, change in {BASELINE: None, **runs}.items():
            key = (name.replace(" ", "_"), config.steps, config.further, seed)
            stored = config.out / ("-".join(map(str, key)) + ".json")
            if not stored.is_file():
                console.print(f"seed {seed}, without {' and '.join(registers)}: {name}")
                scores = (
                    _baseline(registers, further)
                    if change is None
                    else _scores(config, change, seed, further, console)
                )
                with writing(config.out):
                    text = json.dumps({"made_from": made_from, "scores": scores})
                    stored.write_text(text, encoding="utf-8")
            content = json.loads(stored.read_text(encoding="utf-8"))
            check(stored, content.get("made_from", {}), made_from)
            found.setdefault(name, {}).update(content["scores"])
    return {
        "rows": {name: _summary(scores, found[WHOLE]) for name, scores in found.items()},
        "runs": found,
        "steps": config.steps,
        "further": config.further,
    }


def _chosen(names: Sequence[str]) -> dict[str, Change]:
    """The runs of these names, and that with all ingredients, which the others are set against."""
    if unknown := [name for name in names if name not in RUNS]:
        raise ConfigurationError(f"--only {', '.join(unknown)}: no such row, only {', '.join(RUNS)}")
    return {name: change for name, change in RUNS.items() if name in (WHOLE, *(names or BY_DEFAULT))}


def _made_from(config: AblationConfig, further: _Further) -> dict[str, str]:
    """What the scores are made from, beyond what the names of their files say."""
    texts = load_all([*PACKAGED, further.both])
    return {
        "base": digest_of_folder(config.base, MODEL),
        "public": digest_of_folder(config.public, PUBLIC_SETS),
        "init": digest_of_folder(config.init, TAKEN_OVER),
        "data": digest(row.model_dump_json() for row in texts),
    }


def _sample(config: AblationConfig) -> _Further:
    rows = load_all(EXTRA)
    chosen = random.Random(1).sample(rows, min(config.further, len(rows)))
    files = _Further(config.out / "both.jsonl.gz", config.out / "one.jsonl.gz")
    for path, without in ((files.both, set[str]()), (files.one, {"second"})):
        with gzip.open(path, "wt", encoding="utf-8") as lines:
            lines.writelines(row.model_dump_json(exclude=without, exclude_none=True) + "\n" for row in chosen)
    return files


def _scores(
    config: AblationConfig, change: Change, seed: int, further: _Further, console: "Console"
) -> Scores:
    whole = CryptoTrainConfig.for_encoder(
        config.base,
        config.out,
        public=config.public,
        init=config.init,
        extra=(further.both,),
        rounds=(replace(ROUNDS[0], splices=_SPLICES),),
        threads=config.threads,
        seed=seed,
        leave_out=LEFT_OUT[seed],
    )
    changed = change(whole, further)
    texts = [row for row in load_all((*changed.data, *changed.extra)) if row.file not in changed.leave_out]
    rounds = tuple(replace(part, epochs=_epochs(part, len(texts), config.steps)) for part in changed.rounds)
    with writing(config.out):
        folder = tempfile.TemporaryDirectory(prefix="run-", dir=config.out)
    with folder as name:
        return scores_by_register(replace(changed, out=Path(name), rounds=rounds), console)


def _epochs(part: Round, texts: int, steps: int) -> int:
    return max(1, round(steps * part.batch / (texts + part.splices + part.replay + part.background)))


def _baseline(registers: tuple[str, str], further: _Further) -> Scores:
    parts = add_extra(divide(load_all(PACKAGED), registers), load_all([further.both]))
    baseline = TfidfBaseline(parts.train)

    def judged(rows: Sequence[LabelledText]) -> dict[str, float]:
        truth = Truth.of(rows)
        sentiment, action = baseline.predict([row.text for row in rows])
        return {"senti": macro_f1(truth.sentiment, sentiment, 5), "act": macro_f1(truth.action, action, 6)}

    return {name: judged([row for row in parts.test if row.file == name]) for name in registers}


def _summary(scores: Scores, whole: Scores) -> dict[str, dict[str, float]]:
    summary = {}
    for measure in MEASURES:
        pairs = [(s[measure], whole[register][measure]) for register, s in scores.items() if measure in s]
        if pairs:
            changes = [mine - all_of_it for mine, all_of_it in pairs]
            summary[measure] = {
                "mean": statistics.fmean(mine for mine, _ in pairs),
                "change": statistics.fmean(changes),
                "error": statistics.stdev(changes) / len(changes) ** 0.5,
            }
    return summary


def table(found: Mapping[str, Any]) -> "Table":
    """The rows of :func:`ablate` for a terminal."""
    from rich.table import Table

    shown = Table(
        "", "sentiment", "action", "emotions", caption="Macro-F1 over six registers, left out in turn"
    )
    for name, row in found["rows"].items():
        cells = [_cell(row[measure]) if measure in row else "" for measure in MEASURES]
        shown.add_row(name, *cells)
    return shown


def _cell(figures: Mapping[str, float]) -> str:
    mean = f"{figures['mean']:.3f}"
    return f"{mean} ({figures['change']:+.3f} ± {figures['error']:.3f})" if figures["change"] else mean

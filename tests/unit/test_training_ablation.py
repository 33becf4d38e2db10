"""Which runs an ablation makes, and what it says of their scores."""

import io
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from rich.console import Console

from tests.unit.training_toys import toy_rows
from worker.errors import ConfigurationError
from worker.training import ablation
from worker.training.ablation import AblationConfig, ablate, table
from worker.training.crypto import CryptoTrainConfig
from worker.training.datasets import load_all
from worker.training.provenance import StateMismatchError

REGISTERS = {"chat_board", "chat_community", "chat_gallery", "chat_live", "news", "news_wire"}


@pytest.fixture
def config(tmp_path: Path) -> AblationConfig:
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text('{"hidden_size": 64}')
    return AblationConfig(
        base, tmp_path / "public", tmp_path / "init", tmp_path / "out", steps=240, further=2_000
    )


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[CryptoTrainConfig]:
    """What was asked for, of runs that take no time; without the public stage sentiment is 0.1 lower."""
    runs: list[CryptoTrainConfig] = []

    def run(asked: CryptoTrainConfig, _: Console) -> dict[str, dict[str, float]]:
        runs.append(asked)
        assert asked.out.is_dir()
        lower = 0.1 if asked.init is None else 0.0
        return {name: {"senti": 0.6 - lower, "act": 0.7, "emo": 0.5} for name in asked.leave_out}

    def told(registers: tuple[str, str], _: object) -> dict[str, dict[str, float]]:
        return {name: {"senti": 0.5, "act": 0.6} for name in registers}

    monkeypatch.setattr(ablation, "scores_by_register", run)
    monkeypatch.setattr(ablation, "_baseline", told)
    return runs


def test_every_register_is_judged_by_a_run_that_never_saw_it_and_no_run_is_made_twice(
    config: AblationConfig, runs: list[CryptoTrainConfig]
) -> None:
    console = Console(file=io.StringIO())
    (config.out / "run").mkdir(parents=True)
    found = ablate(config, console)
    assert [folder.name for folder in config.out.iterdir() if folder.is_dir()] == ["run"], "one's own stays"

    assert len(runs) == 3 * len(ablation.BY_DEFAULT)
    of_each = [runs[start :: len(ablation.BY_DEFAULT)] for start in range(len(ablation.BY_DEFAULT))]
    for same in of_each:
        assert {name for run in same for name in run.leave_out} == REGISTERS
        assert {run.seed for run in same} == {1, 2, 3}
    steps = [run.rounds[0].epochs for run in runs]
    assert max(steps) > min(steps), "fewer texts, more epochs: all runs are of one length"
    second = [
        any(row.second for row in load_all(run.extra))
        for run in runs[: len(ablation.BY_DEFAULT)]
        if run.extra
    ]
    assert second.count(False) == 1

    row = found["rows"]["without the public stage"]
    assert row["senti"] == pytest.approx({"mean": 0.5, "change": -0.1, "error": 0.0})
    assert found["rows"][ablation.BASELINE].keys() == {"senti", "act"}
    console.print(table(found))

    again = len(runs)
    assert ablate(config, console) == found
    assert len(runs) == again


@pytest.mark.usefixtures("runs")
def test_scores_of_another_encoder_are_not_taken_for_ones_own(config: AblationConfig) -> None:
    console = Console(file=io.StringIO())
    ablate(config, console)
    (config.base / "model.safetensors").write_bytes(b"others")
    config.init.mkdir()
    (config.init / "public.pt").write_bytes(b"others")
    with pytest.raises(StateMismatchError, match=r"\(base, init\)"):
        ablate(config, console)


def test_rows_that_are_asked_for_are_run_beside_all_ingredients(
    config: AblationConfig, runs: list[CryptoTrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablation, "load_all", lambda _: toy_rows(30))
    console = Console(file=io.StringIO())
    found = ablate(replace(config, only=("without replay",)), console)
    assert found["rows"].keys() == {ablation.BASELINE, ablation.WHOLE, "without replay"}
    assert [one.rounds[0].replay for one in runs] == [300, 0] * 3
    with pytest.raises(ConfigurationError, match="--only without sense: no such row, only all ingredients"):
        ablate(replace(config, only=("without sense",)), console)


@pytest.mark.parametrize(
    ("row", "setting"),
    [
        ("without splices", {"splices": 0}),
        ("without changed texts", {"augmented": 0.0}),
        ("without broken pieces", {"spelled": 0.0}),
        ("without everyday texts", {"background": 0}),
        ("without replay", {"replay": 0}),
        ("without label smoothing", {"smoothing": 0.0}),
        ("without class balance", {"balance": 0.0}),
        ("without averaged weights", {"average": 0.0}),
        ("without layer decay", {"layer_decay": 1.0}),
    ],
)
def test_a_row_lacks_what_its_name_says_and_nothing_else(row: str, setting: dict[str, float]) -> None:
    whole = CryptoTrainConfig(base=Path("base"), out=Path("out"))
    less = ablation.RUNS[row](whole, ablation._Further(Path("both"), Path("one")))
    before, after = (
        {**asdict(one), **asdict(one.rounds[0]), "rounds": len(one.rounds)} for one in (whole, less)
    )
    assert {key: value for key, value in after.items() if value != before[key]} == setting

"""``kbert train`` and ``kbert evaluate``."""

import json
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from worker.commands.common import AsJson, ModelRef, settings_in_force
from worker.configured_model import load_configured

if TYPE_CHECKING:
    from worker.inference.load import Model
    from worker.settings import PipelineName, Settings

train_app = typer.Typer(no_args_is_help=True, help="Fine-tune a model.")
evaluate_app = typer.Typer(no_args_is_help=True, help="Measure a model on labelled data.")

BaseDir = Annotated[
    Path, typer.Option(help="Directory of the pretrained encoder, or of a finished model to go on from.")
]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; all cores where absent.")]


@train_app.command("crypto")
def train_crypto(
    *,
    base: BaseDir,
    out: Annotated[Path, typer.Option(help="Where the model, its curves and its state go.")],
    data: Annotated[
        list[Path] | None,
        typer.Option(
            help="JSONL or CSV by the labelling guide, once for each file; the packaged set where absent."
        ),
    ] = None,
    public: Annotated[
        Path | None, typer.Option(help="Directory of public sets for the intermediate stage.")
    ] = None,
    mlm: Annotated[
        list[Path] | None,
        typer.Option(
            help="Unlabelled texts, for masked-language modelling before all else; once for each file."
        ),
    ] = None,
    init: Annotated[
        Path | None, typer.Option(help="--out of an earlier run whose stages before the labels are kept.")
    ] = None,
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIR_OR_HUB_ID",
            help="Crypto model to learn from as well, once for each; OWNER/NAME@REVISION pins it.",
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name in the signals.")] = None,
    layers: Annotated[int | None, typer.Option(min=1, help="First layers that are kept.")] = None,
    max_length: Annotated[int | None, typer.Option(min=16, max=512, help="Tokens.")] = None,
    pooling: Annotated[Literal["cls", "mean"] | None, typer.Option(help="What the heads read.")] = None,
    prefix: Annotated[str | None, typer.Option(help="Put before each text.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Over the labelled texts.")] = None,
    rate: Annotated[float | None, typer.Option(min=0, help="Learning rate of these epochs.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Texts in a batch of these epochs.")] = None,
    balance: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Power of class frequency that classes of sentiment and action weigh by; emotions have a "
            "fixed positive weight.",
        ),
    ] = None,
    accumulate: Annotated[int | None, typer.Option(min=1, help="Batches to one step.")] = None,
    patience: Annotated[
        int | None, typer.Option(min=0, help="Epochs without a better one before a round ends; 0: all.")
    ] = None,
    leave_out: Annotated[
        list[str] | None,
        typer.Option(metavar="REGISTER", help="Kept out of training, and judged on; once for each."),
    ] = None,
    threads: Threads = None,
    seed: Annotated[int | None, typer.Option()] = None,
) -> None:
    """Fine-tune the four crypto heads.

    Without options the recipe is one like that of the bundled model, or the published one where the encoder
    is of BERT-base size. The same command goes on where an interrupted run stopped.
    """
    settings = settings_in_force()
    _need_training_packages()
    from worker.training.crypto import CryptoTrainConfig
    from worker.training.crypto import train as train_model

    given: dict[str, Any] = {
        "data": data and tuple(data),
        "public": public,
        "mlm": mlm and tuple(mlm),
        "init": init,
        "teacher": teacher and tuple(teacher),
        "offline": settings.model.offline,
        "name": name,
        "layers": layers,
        "max_length": max_length,
        "pooling": pooling,
        "text_prefix": prefix,
        "balance": balance,
        "accumulate": accumulate,
        "patience": patience,
        "leave_out": leave_out and tuple(leave_out),
        "threads": threads,
        "seed": seed,
    }
    given = {key: value for key, value in given.items() if value is not None}
    if data:
        given["extra"] = ()  # one's own texts are learned from instead of all packaged ones
    first = {"epochs": epochs, "rate": rate, "batch": batch}
    first = {key: value for key, value in first.items() if value is not None}
    print(train_model(CryptoTrainConfig.for_encoder(base, out, **given).with_first_round(**first)))


@train_app.command("ablation")
def train_ablation(
    *,
    base: BaseDir,
    public: Annotated[Path, typer.Option(help="Directory of public sets.")],
    init: Annotated[
        Path, typer.Option(help="--out of `kbert train crypto`, whose public stage is taken over.")
    ],
    out: Annotated[Path, typer.Option(help="Where the scores of finished runs are kept.")],
    steps: Annotated[int, typer.Option(min=1, help="Of each run.")] = 220,
    further: Annotated[int, typer.Option(min=1, help="Texts that are only learned from.")] = 3_000,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROW",
            help="Row of the table, such as 'without replay', once for each; five of them where absent. An "
            "unknown one is told which there are.",
        ),
    ] = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """What each ingredient of the crypto recipe brings, over three seeds, on registers that are left out."""
    settings_in_force()
    _need_training_packages()
    from rich.console import Console

    from worker.training.ablation import AblationConfig, ablate, table

    config = AblationConfig(base, public, init, out, steps, further, threads, tuple(only or ()))
    found = ablate(config, Console(stderr=True))
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        Console().print(table(found))


@train_app.command("traffic")
def train_traffic(
    *,
    base: Annotated[Path, typer.Option(help="Directory of the pretrained encoder.")],
    out: Annotated[Path, typer.Option(help="Where the model and the training curve go.")],
    data: Annotated[
        list[Path] | None,
        typer.Option(
            help="JSONL with title, body and label 0 or 1, once for each file; the packaged set where absent."
        ),
    ] = None,
    public: Annotated[Path | None, typer.Option(help="Directory of public sets, for --background.")] = None,
    init: Annotated[
        Path | None, typer.Option(help="Checkpoint of this project whose encoder is taken over.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name in the signals.")] = "kbert-traffic",
    layers: Annotated[int, typer.Option(min=1, help="First layers that are kept; all by default.")] = 1_000,
    max_length: Annotated[int, typer.Option(min=16, max=512, help="Tokens.")] = 512,
    pooling: Annotated[
        Literal["cls", "mean"] | None,
        typer.Option(help="What the pooler reads; that of --init, else cls."),
    ] = None,
    prefix: Annotated[
        str | None, typer.Option(help="Put before each text; that of --init, else none.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 5,
    rate: Annotated[float, typer.Option(help="Learning rate.")] = 2e-5,
    batch: Annotated[int, typer.Option(min=1)] = 16,
    views: Annotated[
        int, typer.Option(min=0, help="Cut and reworded views of each article an epoch; 0: as it is.")
    ] = 0,
    briefs: Annotated[
        int, typer.Option(min=0, help="Short items an epoch, made from sentences with slots.")
    ] = 0,
    background: Annotated[
        int, typer.Option(min=0, help="Public news texts an epoch, as non-negative; needs --public.")
    ] = 0,
    smoothing: Annotated[float, typer.Option(min=0, max=0.5, help="Of the labels.")] = 0.0,
    average: Annotated[
        float, typer.Option(min=0, max=0.9999, help="Decay of averaged weights; 0: off.")
    ] = 0.0,
    threads: Threads = None,
    seed: Annotated[int, typer.Option()] = 42,
) -> None:
    """Fine-tune the traffic classifier; the defaults are the published recipe for BERT-base."""
    settings_in_force()
    _need_training_packages()
    from worker.training.articles import PACKAGED_ARTICLES
    from worker.training.traffic import TrafficTrainConfig
    from worker.training.traffic import train_traffic as train_model

    given = {"pooling": pooling, "text_prefix": prefix}
    print(
        train_model(
            TrafficTrainConfig.going_on(
                base,
                out,
                data=tuple(data or PACKAGED_ARTICLES),
                public=public,
                init=init,
                name=name,
                layers=layers,
                max_length=max_length,
                epochs=epochs,
                rate=rate,
                batch=batch,
                views=views,
                briefs=briefs,
                background=background,
                smoothing=smoothing,
                average=average,
                threads=threads,
                seed=seed,
                **{key: value for key, value in given.items() if value is not None},
            )
        )
    )


@evaluate_app.command("traffic")
def evaluate_traffic(
    data: Annotated[
        list[Path] | None,
        typer.Option(help="JSONL with title, body and label; the packaged set where absent."),
    ] = None,
    model: ModelRef = None,
    part: Annotated[
        Literal["test", "all"] | None,
        typer.Option(help="Held-back part or every article; every one where --data is given."),
    ] = None,
    baseline: Annotated[bool, typer.Option(help="Train and measure the TF-IDF baseline beside it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure a traffic model: the table of its card."""
    import orjson

    settings = settings_in_force(model, pipeline="traffic")
    _need_training_packages()
    from worker.training.traffic_evaluate import evaluate_traffic as evaluate_model

    report = evaluate_model(_judged(settings, "traffic"), data or [], baseline=baseline, part=part)
    print(orjson.dumps(report.to_dict(), option=orjson.OPT_INDENT_2).decode() if as_json else report.text())


@evaluate_app.command("crypto")
def evaluate_crypto(
    *,
    data: Annotated[
        list[Path] | None,
        typer.Option(help="JSONL or CSV by the labelling guide; the held-back part where absent."),
    ] = None,
    model: ModelRef = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--compare",
            metavar="DIR_OR_HUB_ID",
            help="Another model, with a paired test; OWNER/NAME@REVISION pins it.",
        ),
    ] = None,
    part: Annotated[
        Literal["test", "all"] | None,
        typer.Option(help="What training keeps out, or every row; every row where --data is given."),
    ] = None,
    baseline: Annotated[bool, typer.Option(help="Train and measure the TF-IDF baseline beside it.")] = False,
    plots: Annotated[Path | None, typer.Option(help="Directory for the confusion matrices, PNG.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a crypto model, or compare two on the same texts."""
    import orjson

    settings = settings_in_force(model)
    _need_training_packages()
    from worker.training.evaluate import compare_crypto
    from worker.training.evaluate import evaluate_crypto as evaluate_model

    judged = _judged(settings, "crypto")
    if against is not None:
        if baseline or plots:
            raise typer.BadParameter("--baseline and --plots are of one model: leave --compare out")
        other = _judged(settings.with_model("crypto", against), "crypto", pinned=False)
        compared = compare_crypto(judged, other, data or [], part)
        print(orjson.dumps(compared.to_dict()).decode() if as_json else compared.text())
        return
    report = evaluate_model(judged, data or [], baseline, part)
    if plots is not None:
        report.plot(plots)
    print(orjson.dumps(report.to_dict(), option=orjson.OPT_INDENT_2).decode() if as_json else report.text())


def _need_training_packages() -> None:
    """Say that one is missing before the work, not after it."""
    for name in ("sklearn", "scipy", "matplotlib"):
        import_module(name)


def _judged(settings: "Settings", pipeline: "PipelineName", *, pinned: bool = True) -> "Model":
    """The model that the settings name, in full precision; ``pinned``: at the revisions that they name."""
    chosen = settings.of(pipeline).model
    changes: dict[str, Any] = {"precision": "fp32", "cuda_graphs": False}
    if not pinned:
        changes |= {"revision": None, "tokeniser_revision": None}
    return load_configured(chosen.model_copy(update=changes), pipeline)

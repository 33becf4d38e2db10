"""The recipe of the bundled crypto model: an intermediate stage on public data, then the labelled texts."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from worker.training.augment import augment
from worker.training.datasets import PACKAGED, SHORT, LabelledText, load_all
from worker.training.examples import Example
from worker.training.heads import CRYPTO_HEADS, PUBLIC_HEADS
from worker.training.splits import Part, near_duplicate_groups, split

if TYPE_CHECKING:
    from rich.console import Console

    from worker.training.lexical import LexicalTeacher
    from worker.training.model import MultiHeadModel
    from worker.training.predictions import Floats
    from worker.training.trainer import Reader, Stage, StageConfig

PUBLIC_MAX_LENGTH: Final = 96
"""Tokens read of a public row; 95 % of them are shorter, and the tail would be a third of the time."""
SENTIMENT_FROM_RATING: Final = ("aux_rating", "head_senti")
VALIDATION_THRESHOLD: Final = 0.4


@dataclass(frozen=True)
class Round:
    """One round over the labelled texts, from a warm-up to a learning rate of 0.

    Mixed in for each epoch: ``splices`` new texts with the opinion of TF-IDF, of which ``fragments`` are a
    few words only; ``replay`` rows of the public stage; ``background`` everyday texts. ``augmented`` is the
    share of labelled texts that are changed, ``spelled`` that of pieces broken into letters in half of all
    texts.
    """

    epochs: int
    batch: int
    rate: float
    splices: int = 1500
    fragments: float = 0.0
    replay: int = 300
    background: int = 200
    augmented: float = 0.7
    spelled: float = 0.0


ROUNDS: Final = (
    Round(epochs=12, batch=32, rate=8e-5),
    Round(epochs=6, batch=64, rate=1e-4, splices=4000, fragments=0.5, spelled=0.1),
)


@dataclass(frozen=True)
class CryptoTrainConfig:
    """What `kbert train crypto` is asked for; the defaults made the bundled model.

    ``data`` is split; ``extra`` is only learned from, without what is close to a held-back text. ``base``
    holds a BERT encoder with its tokenizer.json, ``public`` the public sets (None skips the intermediate
    stage), ``init`` the folder of an earlier run whose intermediate stage is taken over. ``public_steps``
    ends that stage early, without waiting for its decay (None: one pass). ``leave_out`` names registers that
    are kept out of training, to see how the model does on other text.
    """

    base: Path
    out: Path
    data: tuple[Path, ...] = (PACKAGED,)
    extra: tuple[Path, ...] = (SHORT,)
    public: Path | None = None
    init: Path | None = None
    name: str = "kbert-crypto-small"
    layers: int = 8
    max_length: int = 200
    pooling: str = "mean"
    text_prefix: str = "query: "
    public_steps: int | None = 2250
    public_rate: float = 1e-4
    public_batch: int = 64
    rounds: tuple[Round, ...] = ROUNDS
    dropout: float = 0.15
    layer_decay: float = 0.95
    average: float = 0.99
    smoothing: float = 0.1
    patience: int = 0
    threads: int | None = None
    seed: int = 1
    leave_out: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class Parts:
    """Rows by the part that they fall into."""

    train: list[LabelledText]
    validation: list[LabelledText]
    test: list[LabelledText]


def divide(rows: Sequence[LabelledText], leave_out: Sequence[str] = ()) -> Parts:
    """Split by hash. With ``leave_out``, the test part is those registers, whole, and nothing else."""
    parts: dict[Part, list[LabelledText]] = {"train": [], "validation": [], "test": []}
    for row, part in zip(rows, split([row.text for row in rows]), strict=True):
        if row.file in leave_out:
            parts["test"].append(row)
        else:
            parts["train" if leave_out and part == "test" else part].append(row)
    return Parts(parts["train"], parts["validation"], parts["test"])


def add_extra(parts: Parts, extra: Sequence[LabelledText]) -> Parts:
    """The parts with the extra texts in the train part, without those that a held-back text is close to."""
    held = [*parts.validation, *parts.test]
    groups = near_duplicate_groups([row.text for row in (*held, *extra)])
    taken = set(groups[: len(held)])
    fresh = [row for row, group in zip(extra, groups[len(held) :], strict=True) if group not in taken]
    return Parts(parts.train + fresh, parts.validation, parts.test)


@dataclass(frozen=True)
class _Mixture:
    """What the epochs of a round are made of."""

    part: Round
    rows: Sequence[LabelledText]
    teacher: "LexicalTeacher | None"
    public: Sequence[Example]
    background: Sequence[Example]

    def epoch(self, number: int, rng: random.Random) -> list[Example]:
        """The examples of one epoch; in the first the labelled texts are as they were written."""
        part = self.part
        examples = []
        for row in self.rows:
            example = row.example()
            if number > 0 and rng.random() < part.augmented:
                example = Example(augment(row.text, rng, has_coins=bool(row.coins)), example.targets)
            examples.append(example)
        if self.teacher is not None:
            examples += self.teacher.examples(part.splices, part.fragments, rng)
        examples += rng.sample(self.public, min(part.replay, len(self.public)))
        examples += rng.sample(self.background, min(part.background, len(self.background)))
        return examples


class _Recipe:
    """The steps of one run."""

    def __init__(self, config: CryptoTrainConfig, console: "Console") -> None:
        from tokenizers import Tokenizer

        self.config = config
        self.console = console
        self.rows = load_all(config.data)
        self.parts = divide(self.rows, config.leave_out)
        if config.extra:
            self.parts = add_extra(self.parts, load_all(config.extra))
        self.tokenizer: Tokenizer = Tokenizer.from_file(str(self._base_tokenizer()))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.pad_id: int = 0

    def _base_tokenizer(self) -> Path:
        path = self.config.base / "tokenizer.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is missing: --base takes an encoder's folder with tokenizer.json"
            )
        return path

    def build(self, public: Sequence[Example]) -> "MultiHeadModel":
        """The encoder with the heads of the first stage, its vocabulary grown by what the data needs."""
        import torch

        from worker.training.model import MultiHeadModel, grow_embeddings, load_encoder
        from worker.training.vocabulary import extend_tokenizer, missing_characters

        config = self.config
        torch.manual_seed(config.seed)
        encoder = load_encoder(config.base, config.layers, 0.0, config.max_length)
        self.pad_id = encoder.config.pad_token_id or 0
        characters = missing_characters(self.tokenizer, [row.text for row in self.rows], 2)
        characters += missing_characters(self.tokenizer, [example.text for example in public], 20)
        grown = extend_tokenizer(self.tokenizer, dict.fromkeys(characters))
        grow_embeddings(encoder, self.tokenizer, grown)
        self.tokenizer = grown
        return MultiHeadModel(encoder, PUBLIC_HEADS if public else CRYPTO_HEADS, config.pooling, 0.1)

    def stage(self, model: "MultiHeadModel", config: "StageConfig") -> "Stage":
        """A stage, at the place where an earlier run of it stopped."""
        from worker.training.trainer import Stage

        stage = Stage(model, (*CRYPTO_HEADS, *PUBLIC_HEADS), config, self.config.out, self.console)
        if stage.resume():
            self.console.print(f"{config.name}: resumed at step {stage.step}")
        return stage

    def reader(self, max_length: int) -> "Reader":
        """How texts become token ids."""
        from worker.training.spelling import Speller
        from worker.training.trainer import Reader

        speller = Speller(self.tokenizer)
        return Reader(self.tokenizer, self.config.text_prefix, max_length, self.pad_id, speller)

    def intermediate(self, model: "MultiHeadModel", public: Sequence[Example]) -> "MultiHeadModel":
        """The public stage, or its result from the folder ``init``."""
        import torch

        from worker.training.trainer import StageConfig

        config = self.config
        done = (config.init or config.out) / "public.pt"
        if config.init is not None and not done.is_file():
            raise FileNotFoundError(f"{done} is missing: --init takes the output of a run with --public")
        if done.is_file():
            model.load_state_dict(torch.load(done, weights_only=True))
            return model
        stage = StageConfig(
            name="public",
            epochs=1,
            batch_size=config.public_batch,
            learning_rate=config.public_rate,
            smoothing=config.smoothing,
            seed=config.seed,
            save_every=250,
        )
        read = self.reader(PUBLIC_MAX_LENGTH)
        model = self.stage(model, stage).run(
            lambda _epoch, _rng: public, read, stop_after=config.public_steps
        )
        torch.save(model.state_dict(), done)
        return model

    def logits(self, model: "MultiHeadModel", rows: Sequence[LabelledText]) -> dict[str, "Floats"]:
        """Raw outputs for the rows."""
        from worker.training.predictions import predict_logits

        return predict_logits(
            model,
            self.tokenizer,
            [row.text for row in rows],
            prefix=self.config.text_prefix,
            max_length=self.config.max_length,
            pad_id=self.pad_id,
        )

    def validate(self, model: "MultiHeadModel") -> dict[str, float]:
        """The four measures on the validation part and their mean, by which the best epoch is chosen."""
        return self.measure(model, self.parts.validation)

    def measure(self, model: "MultiHeadModel", rows: Sequence[LabelledText]) -> dict[str, float]:
        """Macro-F1 of sentiment, action and emotions, error of the scores, and a mean of all."""
        import numpy as np

        from worker.training.metrics import macro_f1, multilabel_f1
        from worker.training.predictions import Predictions, Truth

        truth = Truth.of(rows)
        said = Predictions.of_logits(self.logits(model, rows), np.full(7, VALIDATION_THRESHOLD))
        senti = macro_f1(truth.sentiment, said.sentiment.argmax(1), 5)
        act = macro_f1(truth.action, said.action.argmax(1), 6)
        emo = float(multilabel_f1(truth.emotions, said.named).mean())
        error = float(np.abs(truth.scores - said.scores).mean())
        return {
            "senti": senti,
            "act": act,
            "emo": emo,
            "mae": error,
            "mean": (senti + act + emo + 1 - error) / 4,
        }

    def fine_tune(self, model: "MultiHeadModel", public: Sequence[Example]) -> "MultiHeadModel":
        """The labelled texts in rounds, each with its own share of what is mixed in."""
        import torch

        from worker.training.background import load_background
        from worker.training.lexical import LexicalTeacher

        config = self.config
        torch.manual_seed(config.seed + 1)
        model.add_heads(CRYPTO_HEADS)
        if public:
            # Ratings of films and outlooks of prices are two scales of the same five steps.
            source, target = SENTIMENT_FROM_RATING
            model.heads[target].load_state_dict(model.heads[source].state_dict())
        model.set_dropout(config.dropout)
        teacher = LexicalTeacher(self.parts.train) if any(r.splices for r in config.rounds) else None
        background = load_background(config.public) if config.public is not None else []
        for number, part in enumerate(config.rounds):
            model = self.round(
                model, number, part, _Mixture(part, self.parts.train, teacher, public, background)
            )
        return model

    def round(
        self, model: "MultiHeadModel", number: int, part: Round, mixture: "_Mixture"
    ) -> "MultiHeadModel":
        """One round, ending with its best epoch on the validation part."""
        from worker.training.trainer import StageConfig

        config = self.config
        stage = StageConfig(
            name="crypto" if number == 0 else f"crypto{number + 1}",
            epochs=part.epochs,
            batch_size=part.batch,
            learning_rate=part.rate,
            warmup=0.1,
            layer_decay=config.layer_decay,
            head_factor=5.0,
            smoothing=config.smoothing,
            average=config.average,
            patience=config.patience,
            spelled=part.spelled,
            seed=config.seed,
        )
        return self.stage(model, stage).run(mixture.epoch, self.reader(config.max_length), self.validate)

    def export(self, model: "MultiHeadModel") -> Path:
        """Calibrate on the validation part and write the checkpoint; returns its folder."""
        from worker.training.calibration import fit_temperature, fit_thresholds
        from worker.training.export import export
        from worker.training.predictions import Truth, sigmoid

        config = self.config
        truth, logits = Truth.of(self.parts.validation), self.logits(model, self.parts.validation)
        probabilities = sigmoid(logits["head_emo"])
        folder = config.out / "model"
        kbert = {
            "head_set": "crypto",
            "name": config.name,
            "pooling": config.pooling,
            "text_prefix": config.text_prefix,
            "max_length": config.max_length,
            "emo_threshold": fit_thresholds(probabilities, truth.emotions),
            "temperature": {
                "sentiment_strength": fit_temperature(logits["head_senti"], truth.sentiment),
                "action_signal": fit_temperature(logits["head_act"], truth.action),
            },
        }
        texts = [row.text for row in self.parts.validation]
        export(model, self.tokenizer, folder, kbert, check_texts=texts, pad_id=self.pad_id)
        return folder


def train(config: CryptoTrainConfig) -> Path:
    """Run the recipe and return the folder of the finished checkpoint, ``out/model``.

    Resumes where an earlier run with the same settings and the same ``out`` stopped. Raises DatasetError,
    PublicDataError, FileNotFoundError or ValueError with one sentence where an input cannot be used.
    """
    import torch
    from rich.console import Console

    from worker.training.public import load_public

    console = Console()
    config.out.mkdir(parents=True, exist_ok=True)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    recipe = _Recipe(config, console)
    parts = recipe.parts
    console.print(
        f"train {len(parts.train)}, validation {len(parts.validation)}, test {len(parts.test)} texts"
    )
    public = load_public(config.public) if config.public is not None else []
    model = recipe.build(public)
    if public:
        model = recipe.intermediate(model, public)
    model = recipe.fine_tune(model, public)
    folder = recipe.export(model)
    shown = "  ".join(f"{key} {value:.3f}" for key, value in recipe.measure(model, parts.test).items())
    console.print(f"{folder}: on the test part {shown}")
    return folder

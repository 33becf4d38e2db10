"""The recipe of the crypto model: stages on public data, then the labelled texts."""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from worker.errors import ConfigurationError
from worker.training.datasets import EXTRA, PACKAGED, LabelledText, load_all
from worker.training.examples import Example
from worker.training.heads import CRYPTO_HEADS, PUBLIC_HEADS
from worker.training.mixture import Mixture, Round, settled
from worker.training.parts import add_extra, divide
from worker.training.vocabulary import extend_tokenizer, load_tokenizer, missing_characters

if TYPE_CHECKING:
    from rich.console import Console
    from tokenizers import Tokenizer
    from transformers import BertModel

    from worker.training.model import MultiHeadModel
    from worker.training.objective import Objective
    from worker.training.predictions import Floats
    from worker.training.trainer import Reader, Stage, StageConfig

PUBLIC_MAX_LENGTH: Final = 96
"""Tokens read of a public row; 95 % of them are shorter, and the tail would be a third of the time."""
SENTIMENT_FROM_RATING: Final = ("aux_rating", "head_senti")
VALIDATION_THRESHOLD: Final = 0.4
VOCABULARY: Final = "tokenizer.json"
MLM: Final = "mlm.pt"
PUBLIC: Final = "public.pt"
TAKEN_OVER: Final = (VOCABULARY, MLM, PUBLIC)
"""Files of an earlier run that ``init`` takes over."""

ROUNDS: Final = (Round(epochs=5, batch=64, rate=1e-4, splices=30_000, fragments=0.5, spelled=0.1),)
PUBLISHED_ROUNDS: Final = (
    Round(epochs=5, batch=32, rate=2e-5, splices=0, replay=0, background=0, augmented=0.0),
)
"""As BERT-base is commonly tuned; nothing is mixed in."""
FURTHER_ROUNDS: Final = (
    Round(
        epochs=3,
        batch=64,
        rate=1e-4,
        splices=16_000,
        fragments=0.5,
        background=4000,
        spelled=0.1,
        repeats=3,
    ),
)
"""For a finished model that goes on."""
FURTHER_PUBLISHED_ROUNDS: Final = (replace(PUBLISHED_ROUNDS[0], epochs=3),)
"""For a finished model of BERT-base size, which diverges at the rate of the small one."""
BASE_SIZE: Final = 768
"""Hidden size from which an encoder counts as BERT-base and gets the published recipe."""


@dataclass(frozen=True)
class CryptoTrainConfig:
    """What `kbert train crypto` is asked for; the defaults make a model like the bundled one.

    ``data`` is split; ``extra`` is only learned from, without what is close to a held-back text. ``base``
    holds a BERT encoder with its tokenizer.json, or a finished model to go on from, heads and all. ``public``
    is the folder of the public sets (None skips the intermediate stage), ``mlm`` files of unlabelled texts
    for masked-language modelling before it, ``init`` the folder of an earlier run whose stages before the
    labelled texts are taken over. ``teacher`` names crypto models to learn from as well, folders or Hub ids;
    ``offline`` takes them from the Hub's cache only. ``public_steps`` ends the public stage early, without
    waiting for its decay (None: one pass). ``leave_out`` names registers that are kept out of training, to
    see how the model does on other text.
    """

    base: Path
    out: Path
    data: tuple[Path, ...] = PACKAGED
    extra: tuple[Path, ...] = EXTRA
    public: Path | None = None
    mlm: tuple[Path, ...] = ()
    init: Path | None = None
    teacher: tuple[str, ...] = ()
    offline: bool = False
    name: str = "kbert-crypto-small"
    layers: int = 8
    max_length: int = 200
    pooling: str = "mean"
    text_prefix: str = "query: "
    mlm_epochs: int = 1
    public_steps: int | None = 2250
    public_rate: float = 1e-4
    public_batch: int = 64
    rounds: tuple[Round, ...] = ROUNDS
    dropout: float = 0.15
    layer_decay: float = 0.95
    average: float = 0.99
    smoothing: float = 0.1
    balance: float = 0.5
    accumulate: int = 1
    patience: int = 0
    threads: int | None = None
    seed: int = 1
    leave_out: tuple[str, ...] = field(default=())

    @classmethod
    def for_encoder(cls, base: Path, out: Path, **given: Any) -> "CryptoTrainConfig":
        """The defaults that suit what ``base`` holds: those above for a small encoder, the published ones for
        BERT-base, those to go on with for a finished model.

        ``given`` goes before both. Raises ConfigurationError where the folder holds no config.json that can
        be read, or a finished model of other heads.
        """
        from worker.inference.config import parse_kbert
        from worker.training.model import check_head_set, read_config

        config = read_config(base)
        published: dict[str, Any] = {}
        large = config.get("hidden_size", 0) >= BASE_SIZE
        tuning = {"public_rate": 2e-5, "dropout": 0.1, "layer_decay": 1.0, "average": 0.0}
        if "kbert" in config:
            check_head_set(base, parse_kbert(config["kbert"], base / "config.json").head_set, "crypto")
            kept = ("name", "pooling", "text_prefix", "max_length")
            published = {key: config["kbert"][key] for key in kept if key in config["kbert"]}
            published |= {"layers": config.get("num_hidden_layers", 1_000), "rounds": FURTHER_ROUNDS}
            if large:
                published |= {**tuning, "rounds": FURTHER_PUBLISHED_ROUNDS}
        elif large:
            published = {
                "name": "kbert-crypto",
                "layers": 1_000,
                "pooling": "cls",
                "text_prefix": "",
                "rounds": PUBLISHED_ROUNDS,
                **tuning,
            }
        return cls(base=base, out=out, **(published | given))

    def with_first_round(self, **changes: Any) -> "CryptoTrainConfig":
        """The same with other settings of the first round, which is the only one of each recipe here."""
        return replace(self, rounds=(replace(self.rounds[0], **changes), *self.rounds[1:]))


def _check_init(folder: Path) -> None:
    """Raise ConfigurationError where the folder holds nothing that ``init`` could take over."""
    stages = (MLM, PUBLIC)
    if (folder / VOCABULARY).is_file() and any((folder / name).is_file() for name in stages):
        return
    # --out of a run holds the stages, its finished model one folder down does not.
    mend = f": name {folder.parent}" if any((folder.parent / name).is_file() for name in stages) else ""
    raise ConfigurationError(
        f"{folder} lacks {VOCABULARY}, or both of {MLM} and {PUBLIC}: "
        f"--init takes the output of a run with --public or --mlm{mend}"
    )


class _Recipe:
    """The steps of one run."""

    def __init__(self, config: CryptoTrainConfig, console: "Console") -> None:
        from worker.training.model import is_finished
        from worker.training.provenance import check_out

        self.config = config
        self.console = console
        check_out(config.out, base=config.base)
        self.rows = load_all(config.data)
        extra = load_all(config.extra) if config.extra else []
        registers = {row.file for row in (*self.rows, *extra)}
        if unknown := sorted(set(config.leave_out) - registers):
            raise ConfigurationError(
                f"--leave-out {', '.join(unknown)}: no such register, only {', '.join(sorted(registers))}"
            )
        if config.init is not None:
            _check_init(config.init)
            if is_finished(config.base):
                raise ConfigurationError(
                    f"--base {config.base} is a finished model, which has the stages before the labelled "
                    "texts behind it: leave --init out"
                )
        if config.init is not None and config.mlm:
            raise ConfigurationError(
                "--init takes over the stages before the labelled texts, --mlm is one of them: leave one out"
            )
        self.parts = add_extra(divide(self.rows, config.leave_out), extra, config.leave_out)
        if not self.parts.train or not self.parts.validation:
            raise ConfigurationError(
                f"--data: of {len(self.rows)} texts none falls into the train or validation part; give more"
            )
        if any(part.splices for part in config.rounds):
            from worker.training.lexical import check_classes

            check_classes(self.parts.train)
        self.tokenizer = load_tokenizer(self._base_tokenizer())
        self.pad_id: int = 0

    def _base_tokenizer(self) -> Path:
        path = self.config.base / "tokenizer.json"
        if not path.is_file():
            raise ConfigurationError(
                f"{path} is missing: --base takes an encoder's folder with tokenizer.json"
            )
        return path

    @cached_property
    def made_before(self) -> dict[str, Any]:
        """What the stages before the labelled texts are made from, beyond their own settings."""
        from worker.training.provenance import MODEL, PUBLIC_SETS, digest, digest_of_files, digest_of_folder

        config = self.config
        names = ("layers", "max_length", "pooling", "text_prefix", "public_steps", "mlm_epochs", "seed")
        return {
            **{name: getattr(config, name) for name in names},
            "base": digest_of_folder(config.base, MODEL),
            "mlm": digest_of_files(config.mlm),
            "public": digest_of_folder(config.public, PUBLIC_SETS),
            "init": digest_of_folder(config.init, TAKEN_OVER),
            "vocabulary": digest(sorted(self.tokenizer.get_vocab())),
        }

    @cached_property
    def made_from(self) -> dict[str, Any]:
        """What the labelled stage is made from, beyond its own settings."""
        from worker.training.provenance import digest

        config = self.config
        parts = (self.parts.train, self.parts.validation)
        return {
            **self.made_before,
            "data": digest(row.model_dump_json() for rows in parts for row in rows),
            "teacher": list(config.teacher),
            "dropout": config.dropout,
            "rounds": [asdict(part) for part in config.rounds],
        }

    def encoder(self) -> "BertModel":
        """The pretrained encoder, its vocabulary grown by what the data needs, or that of ``init``."""
        import torch

        from worker.training.model import check_positions, load_encoder

        config = self.config
        torch.manual_seed(config.seed)
        encoder = load_encoder(config.base, config.layers, 0.0, config.max_length)
        self.pad_id = encoder.config.pad_token_id or 0
        check_positions(encoder, config.base, config.max_length)
        if config.init is not None:
            self._adopt(encoder, load_tokenizer(config.init / VOCABULARY))
        return encoder

    def _adopt(self, encoder: "BertModel", tokenizer: "Tokenizer") -> None:
        """Go on with a tokenizer whose pieces begin with those of today's."""
        from worker.training.model import grow_embeddings

        grow_embeddings(encoder, self.tokenizer, tokenizer)
        self.tokenizer = tokenizer

    def grow(self, encoder: "BertModel", texts: Sequence[str]) -> None:
        """Pieces for the characters that the labelled texts use twice, or ``texts`` use often."""
        rows = [row.text for row in (*self.rows, *self.parts.train)]
        characters = missing_characters(self.tokenizer, dict.fromkeys(rows), 2)
        characters += missing_characters(self.tokenizer, texts, 20)
        if characters:
            self._adopt(encoder, extend_tokenizer(self.tokenizer, dict.fromkeys(characters)))

    def reads_public(self) -> bool:
        """Whether the public sets are learned from, or their characters, and not only their background."""
        init = self.config.init
        return (
            init is None or not (init / PUBLIC).is_file() or any(part.replay for part in self.config.rounds)
        )

    def stage(self, model: "MultiHeadModel", objective: "Objective", config: "StageConfig") -> "Stage":
        """A stage, at the place where an earlier run of it stopped."""
        from worker.training.trainer import Stage

        made_from = self.made_from if config.name.startswith("crypto") else self.made_before
        stage = Stage(model, objective, config, self.config.out, self.console, made_from=made_from)
        if stage.resume():
            how = "finished" if stage.finished else "resumed"
            self.console.print(f"{config.name}: {how} at step {stage.step}")
        return stage

    def public_reader(self) -> "Reader":
        """The reader of the stages before the labelled texts; positions end at ``max_length``."""
        return self.reader(min(PUBLIC_MAX_LENGTH, self.config.max_length))

    def reader(self, max_length: int) -> "Reader":
        """How texts become token ids; WordPiece has no letters to break its pieces into."""
        from worker.training.spelling import Speller
        from worker.training.trainer import Reader

        unigram = type(self.tokenizer.model).__name__ == "Unigram"
        speller = Speller(self.tokenizer) if unigram else None
        return Reader(self.tokenizer, self.config.text_prefix, max_length, self.pad_id, speller)

    def adapt(self, encoder: "BertModel") -> "BertModel":
        """Masked-language modelling on unlabelled texts and the labelled ones of the train part."""
        from worker.training.objective import MaskedModel, MaskedObjective
        from worker.training.provenance import load_stage, save_stage
        from worker.training.trainer import StageConfig
        from worker.training.unlabelled import load_texts

        config = self.config
        model = MaskedModel(encoder)
        if config.init is not None:
            load_stage(config.init / MLM, model, None)
            return encoder
        done = config.out / MLM
        if done.is_file():
            load_stage(done, model, self.made_before)
            return encoder
        texts = list(dict.fromkeys([*load_texts(config.mlm), *(row.text for row in self.parts.train)]))
        stage = StageConfig(
            name="mlm",
            epochs=config.mlm_epochs,
            batch_size=config.public_batch,
            learning_rate=config.public_rate,
            head_factor=5.0,
            seed=config.seed,
            save_every=250,
        )
        examples = [Example(text, {}) for text in texts]
        objective = MaskedObjective(self.tokenizer)
        self.stage(model, objective, stage).run(lambda _epoch, _rng: examples, self.public_reader())
        self.save_vocabulary()
        save_stage(done, model, self.made_before)
        return encoder

    def save_vocabulary(self) -> None:
        """Beside the weights of a stage, which ``init`` takes over with it."""
        from worker.training.provenance import writing

        path = self.config.out / VOCABULARY
        partial = path.with_suffix(".part")
        with writing(self.config.out):
            partial.write_text(self.tokenizer.to_str(pretty=True), encoding="utf-8")
            partial.replace(path)

    def intermediate(self, encoder: "BertModel", public: Sequence[Example]) -> "MultiHeadModel":
        """The public stage, or its result from the folder ``init``; without either, fresh heads.

        A finished model has it behind itself.
        """
        import torch

        from worker.training.model import MultiHeadModel, is_finished
        from worker.training.objective import HeadsObjective
        from worker.training.provenance import load_stage, save_stage
        from worker.training.trainer import StageConfig

        config = self.config
        folder = config.out
        if config.init is not None and (config.init / PUBLIC).is_file():
            folder = config.init
        done = folder / PUBLIC
        heads = PUBLIC_HEADS if public or done.is_file() else CRYPTO_HEADS
        torch.manual_seed(config.seed)  # the same heads whether the stage before ran just now or earlier
        model = MultiHeadModel(encoder, heads, config.pooling, 0.1)
        if done.is_file():
            load_stage(done, model, self.made_before if folder is config.out else None)
        elif public and not is_finished(config.base):
            stage = StageConfig(
                name="public",
                epochs=1,
                batch_size=config.public_batch,
                learning_rate=config.public_rate,
                smoothing=config.smoothing,
                seed=config.seed,
                save_every=250,
            )
            read = self.public_reader()
            model = self.stage(model, HeadsObjective(PUBLIC_HEADS), stage).run(
                lambda _epoch, _rng: public, read, stop_after=config.public_steps
            )
            self.save_vocabulary()
            save_stage(done, model, self.made_before)
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

        from worker.training.metrics import macro_f1, multilabel_macro_f1
        from worker.training.predictions import Predictions, Truth

        truth = Truth.of(rows)
        said = Predictions.of_logits(self.logits(model, rows), np.full(7, VALIDATION_THRESHOLD))
        senti = macro_f1(truth.sentiment, said.sentiment.argmax(1), 5)
        act = macro_f1(truth.action, said.action.argmax(1), 6)
        emo = multilabel_macro_f1(truth.emotions, said.named)
        error = float(np.abs(truth.scores - said.scores).mean())
        return {
            "senti": senti,
            "act": act,
            "emo": emo,
            "mae": error,
            "mean": (senti + act + emo + 1 - error) / 4,
        }

    def fine_tune(
        self, model: "MultiHeadModel", public: Sequence[Example], background: Sequence[Example]
    ) -> "MultiHeadModel":
        """The labelled texts in rounds, each with its own share of what is mixed in."""
        import torch

        from worker.training.distil import ModelTeacher
        from worker.training.lexical import LexicalTeacher
        from worker.training.model import finished

        config = self.config
        torch.manual_seed(config.seed + 1)
        model.add_heads(CRYPTO_HEADS)
        source, target = SENTIMENT_FROM_RATING
        before = finished(config.base, "crypto")
        if before is not None:
            model.adopt_heads(before)
        elif source in model.heads:
            # Ratings of films and outlooks of prices are two scales of the same five steps.
            model.heads[target].load_state_dict(model.heads[source].state_dict())
        model.set_dropout(config.dropout)
        lexical = None
        if any(part.splices for part in config.rounds):
            self.console.print(f"TF-IDF learns from {len(self.parts.train)} texts, for the splices")
            lexical = LexicalTeacher(self.parts.train)
        teacher = ModelTeacher.load(config.teacher, offline=config.offline) if config.teacher else None
        own = settled(self.parts.train, self.rows if config.extra else ())
        mixture = Mixture(self.parts.train, own, lexical, teacher, public, background, config.smoothing)
        for number, part in enumerate(config.rounds):
            model = self.round(model, number, part, mixture)
        return model

    def round(self, model: "MultiHeadModel", number: int, part: Round, mixture: Mixture) -> "MultiHeadModel":
        """One round, ending with its best epoch on the validation part."""
        from worker.training.objective import HeadsObjective
        from worker.training.trainer import StageConfig

        config = self.config
        stage = StageConfig(
            name="crypto" if number == 0 else f"crypto{number + 1}",
            epochs=part.epochs,
            batch_size=part.batch,
            accumulate=config.accumulate,
            learning_rate=part.rate,
            warmup=0.1,
            layer_decay=config.layer_decay,
            head_factor=5.0,
            smoothing=config.smoothing,
            average=config.average,
            balance=config.balance,
            patience=config.patience,
            spelled=part.spelled,
            seed=config.seed,
        )

        def texts(epoch: int, rng: random.Random) -> list[Example]:
            if config.teacher:  # minutes, in which no bar moves
                self.console.print(f"{stage.name}: the teachers read the texts of epoch {epoch + 1}")
            return mixture.epoch(part, epoch, rng)

        return self.stage(model, HeadsObjective((*CRYPTO_HEADS, *PUBLIC_HEADS)), stage).run(
            texts, self.reader(config.max_length), self.validate
        )

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


def _fitted(config: CryptoTrainConfig, console: "Console") -> tuple[_Recipe, "MultiHeadModel"]:
    """All stages of the recipe."""
    import torch

    from worker.training.background import load_background
    from worker.training.provenance import writing
    from worker.training.public import load_public

    with writing(config.out):
        config.out.mkdir(parents=True, exist_ok=True)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    recipe = _Recipe(config, console)
    parts = recipe.parts
    console.print(
        f"train {len(parts.train)}, validation {len(parts.validation)}, test {len(parts.test)} texts"
    )
    mixed_in = any(part.background for part in config.rounds)
    background = load_background(config.public) if config.public is not None and mixed_in else []
    public = load_public(config.public) if config.public is not None and recipe.reads_public() else []
    encoder = recipe.encoder()
    if config.init is None:
        recipe.grow(encoder, [example.text for example in public])
    stages = config.init
    if config.mlm or (stages is not None and (stages / MLM).is_file() and not (stages / PUBLIC).is_file()):
        encoder = recipe.adapt(encoder)
    model = recipe.intermediate(encoder, public)
    if config.init is not None:
        recipe.grow(model.bert, ())
    return recipe, recipe.fine_tune(model, public, background)


def train(config: CryptoTrainConfig) -> Path:
    """Run the recipe and return the folder of the finished checkpoint, ``out/model``.

    Resumes where an earlier run with the same settings and the same ``out`` stopped. Raises DatasetError,
    PublicDataError or ConfigurationError with one sentence where an input cannot be used.
    """
    from rich.console import Console

    console = Console()
    recipe, model = _fitted(config, console)
    folder = recipe.export(model)
    if recipe.parts.test:
        scores = recipe.measure(model, recipe.parts.test)
        shown = "  ".join(f"{key} {value:.3f}" for key, value in scores.items())
        console.print(f"{folder}: on the test part {shown}")
    return folder


def scores_by_register(config: CryptoTrainConfig, console: "Console") -> dict[str, dict[str, float]]:
    """Run the recipe without storing the model: its scores on each register of the test part.

    Resumes and raises as :func:`train` does.
    """
    recipe, model = _fitted(config, console)
    test = recipe.parts.test
    return {
        register: recipe.measure(model, [row for row in test if row.file == register])
        for register in sorted({row.file for row in test})
    }

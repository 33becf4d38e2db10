"""The recipe of the traffic model. Its defaults are those of klue-bert-traffic-news-classifier."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from schemas.labels import TRAFFIC_LABELS
from worker.errors import ConfigurationError
from worker.tasks import article_text
from worker.training.article_background import load_background
from worker.training.article_briefs import brief
from worker.training.article_views import view
from worker.training.articles import PACKAGED_ARTICLES, Article, load_articles, split_articles
from worker.training.datasets import DatasetError
from worker.training.examples import Example
from worker.training.vocabulary import load_tokenizer

if TYPE_CHECKING:
    from rich.console import Console

    from worker.training.predictions import Floats
    from worker.training.traffic_model import TrafficModel

_ALL_LAYERS: Final = 1_000
_HEAD: Final = "classifier"
_THRESHOLD_BOUNDS: Final = (0.3, 0.7)
"""A held-back part of ninety articles must not move the decision further than this."""


@dataclass(frozen=True)
class TrafficTrainConfig:
    """What `kbert train traffic` is asked for.

    The defaults are the published recipe for BERT-base: whole articles, five epochs, the best by validation
    F1. ``init`` names a checkpoint of this project whose encoder and tokenizer are taken over (``base`` then
    gives what it lacks: positions up to ``max_length``). ``views`` of each article an epoch are cut and
    reworded (0: the article as it is); ``briefs`` items an epoch come from sentences with slots;
    ``background`` texts of ``public`` an epoch count as label 0.
    """

    base: Path
    out: Path
    data: tuple[Path, ...] = PACKAGED_ARTICLES
    public: Path | None = None
    init: Path | None = None
    name: str = "kbert-traffic"
    layers: int = _ALL_LAYERS
    max_length: int = 512
    pooling: str = "cls"
    text_prefix: str = ""
    epochs: int = 5
    rate: float = 2e-5
    batch: int = 16
    dropout: float = 0.1
    layer_decay: float = 1.0
    average: float = 0.0
    smoothing: float = 0.0
    views: int = 0
    briefs: int = 0
    background: int = 0
    threads: int | None = None
    seed: int = 42

    @classmethod
    def going_on(cls, base: Path, out: Path, **given: Any) -> "TrafficTrainConfig":
        """The defaults, pooling and prefix those of ``init`` where it is given; ``given`` goes before both.

        Raises ConfigurationError where the config.json of ``init`` cannot be read.
        """
        from worker.inference.config import parse_kbert
        from worker.training.model import is_finished, read_config

        kept: dict[str, Any] = {}
        init = given.get("init")
        if init is not None and is_finished(init):
            kbert = read_config(init)["kbert"]
            parse_kbert(kbert, init / "config.json")
            kept = {key: kbert[key] for key in ("pooling", "text_prefix") if key in kbert}
        return cls(base=base, out=out, **(kept | given))


class _Recipe:
    """The steps of one run."""

    def __init__(self, config: TrafficTrainConfig, console: "Console") -> None:
        self.config = config
        self.console = console
        articles = load_articles(config.data)
        self.parts = split_articles(articles)
        needed = (self.parts.train, self.parts.validation)
        if any(len({article.label for article in part}) < len(TRAFFIC_LABELS) for part in needed):
            raise DatasetError(
                f"--data: of {len(articles)} articles the train part or the validation part gets not both "
                "labels; give more, about ten of either label at least"
            )
        path = (config.init or config.base) / "tokenizer.json"
        if not path.is_file():
            raise ConfigurationError(f"{path} is missing: an encoder's folder with tokenizer.json is needed")
        self.tokenizer = load_tokenizer(path)
        self.separator = self.tokenizer.encode("").tokens[-1]
        self.pad_id = 0

    def build(self) -> "TrafficModel":
        """The encoder with pooler and classifier."""
        import torch

        from worker.training.model import check_positions, load_encoder
        from worker.training.traffic_model import TrafficModel, read_checkpoint, take_over

        config = self.config
        torch.manual_seed(config.seed)
        encoder = load_encoder(config.base, config.layers, config.dropout, config.max_length)
        self.pad_id = encoder.config.pad_token_id or 0
        check_positions(encoder, config.base, config.max_length)
        if config.init is not None:
            take_over(encoder, read_checkpoint(config.init), config.init, config.layers)
        model = TrafficModel(encoder, config.pooling, 0.1)
        weights = read_checkpoint(config.base)
        if "pooler.dense.weight" in weights:
            model.pooler.dense.load_state_dict(
                {"weight": weights["pooler.dense.weight"], "bias": weights["pooler.dense.bias"]}
            )
        return model

    def text(self, title: str, body: str) -> str:
        """What the model reads of an article."""
        return article_text(title, body, self.separator)

    def logits(self, model: "TrafficModel", texts: Sequence[str]) -> "Floats":
        """Raw outputs [N, 2]."""
        from worker.training.predictions import predict_logits

        return predict_logits(
            model,
            self.tokenizer,
            texts,
            prefix=self.config.text_prefix,
            max_length=self.config.max_length,
            pad_id=self.pad_id,
        )[_HEAD]

    def measure(self, model: "TrafficModel", articles: Sequence[Article]) -> dict[str, float]:
        """Accuracy and F1 of label 1 on whole articles, and on headlines alone where views are trained.

        ``mean``, by which the best epoch is chosen, is the F1, or the mean of both F1.
        """
        import numpy as np

        from worker.training.metrics import confusion, precision_recall_f1

        truth = np.array([article.label for article in articles])
        result: dict[str, float] = {}
        kinds = {"": [self.text(a.title, a.body) for a in articles]}
        if self.config.views:
            kinds["_headline"] = [a.title for a in articles]
        for kind, texts in kinds.items():
            counts = confusion(truth, self.logits(model, texts).argmax(1), 2)
            result[f"f1{kind}"] = float(precision_recall_f1(counts)[2][1])
            result[f"accuracy{kind}"] = float(counts.diagonal().sum() / counts.sum())
        scores = [value for key, value in result.items() if key.startswith("f1")]
        return result | {"mean": sum(scores) / len(scores)}

    def train(self, model: "TrafficModel") -> "TrafficModel":
        """Fine-tune and return the best epoch."""
        from worker.training.objective import HeadsObjective
        from worker.training.traffic_model import TRAFFIC_HEADS, TrafficModel
        from worker.training.trainer import Reader, Stage, StageConfig

        config = self.config
        background = []
        if config.background:
            if config.public is None:
                raise ConfigurationError("--background draws from --public: name its directory")
            background = load_background(config.public)

        def epoch_of(_epoch: int, rng: random.Random) -> list[Example]:
            examples = []
            for article in self.parts.train:
                if config.views:
                    made = [view(article, rng) for _ in range(config.views)]
                else:
                    made = [(article.title, article.body)]
                examples += [Example(self.text(*one), {_HEAD: int(article.label)}) for one in made]
            for article in (brief(rng) for _ in range(config.briefs)):
                one = view(article, rng)
                examples.append(Example(self.text(*one), {_HEAD: int(article.label)}))
            chosen = rng.sample(background, min(config.background, len(background)))
            return examples + [Example(text, {_HEAD: 0}) for text in chosen]

        stage = Stage(
            model,
            HeadsObjective(TRAFFIC_HEADS),
            StageConfig(
                name="traffic",
                epochs=config.epochs,
                batch_size=config.batch,
                learning_rate=config.rate,
                warmup=0.1,
                layer_decay=config.layer_decay,
                smoothing=config.smoothing,
                average=config.average,
                balance=0.5 if config.views else 0.0,
                seed=config.seed,
            ),
            config.out,
            self.console,
            made_from=self.made_from(),
        )
        if stage.resume():
            self.console.print(f"{'finished' if stage.finished else 'resumed'} at step {stage.step}")
        reader = Reader(self.tokenizer, config.text_prefix, config.max_length, self.pad_id)

        def validate(judged: object) -> dict[str, float]:
            assert isinstance(judged, TrafficModel)  # noqa: S101 - the stage gives back what it was given
            return self.measure(judged, self.parts.validation)

        best = stage.run(epoch_of, reader, validate)
        assert isinstance(best, TrafficModel)  # noqa: S101 - as above
        return best

    def made_from(self) -> dict[str, Any]:
        """What a run is made from, beyond the settings of its stage."""
        from worker.training.provenance import MODEL, PUBLIC_SETS, digest, digest_of_folder

        config = self.config
        names = ("layers", "max_length", "pooling", "text_prefix", "dropout", "views", "briefs", "background")
        articles = (*self.parts.train, *self.parts.validation)
        return {
            **{name: getattr(config, name) for name in names},
            "base": digest_of_folder(config.base, MODEL),
            "init": digest_of_folder(config.init, MODEL),
            "public": digest_of_folder(config.public, PUBLIC_SETS),
            "data": digest(repr(article) for article in articles),
        }

    def export(self, model: "TrafficModel") -> Path:
        """Calibrate on the validation part and write the checkpoint; returns its folder.

        The threshold goes into the classifier's bias, so that the label stays the larger of two logits.
        """
        import numpy as np
        import torch

        from worker.training.calibration import fit_temperature, fit_thresholds
        from worker.training.export import export
        from worker.training.predictions import softmax

        config = self.config
        articles = self.parts.validation
        texts = [self.text(a.title, a.body) for a in articles]
        truth = np.array([a.label for a in articles])
        if config.views:
            texts += [a.title for a in articles]
            truth = np.concatenate([truth, truth])
        logits = self.logits(model, texts)
        temperature = fit_temperature(logits, truth)
        probability = softmax(logits / temperature)[:, 1:]
        (threshold,) = fit_thresholds(probability, (truth == 1)[:, None])
        threshold = float(np.clip(threshold, *_THRESHOLD_BOUNDS))
        with torch.no_grad():
            bias = model.get_parameter(f"heads.{_HEAD}.bias")
            bias[1] -= temperature * float(np.log(threshold / (1 - threshold)))
        self.console.print(f"temperature {temperature}, threshold {threshold:.2f}")
        folder = config.out / "model"
        kbert = {
            "head_set": "traffic",
            "name": config.name,
            "pooling": config.pooling,
            "text_prefix": config.text_prefix,
            "max_length": config.max_length,
            "temperature": {"label": temperature},
        }
        export(
            model,
            self.tokenizer,
            folder,
            kbert,
            check_texts=texts,
            pad_id=self.pad_id,
            heads=(_HEAD,),
            architecture="BertForSequenceClassification",
        )
        return folder


def train_traffic(config: TrafficTrainConfig) -> Path:
    """Run the recipe and return the folder of the finished checkpoint, ``out/model``.

    ``out`` also gets the training curve, traffic.csv and traffic.png. Resumes where an earlier run with the
    same settings stopped. Raises DatasetError, PublicDataError or ConfigurationError with one
    sentence where an input cannot be used.
    """
    import torch
    from rich.console import Console

    from worker.training.provenance import check_out, writing

    console = Console()
    check_out(config.out, base=config.base, init=config.init)
    with writing(config.out):
        config.out.mkdir(parents=True, exist_ok=True)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    recipe = _Recipe(config, console)
    parts = recipe.parts
    console.print(
        f"train {len(parts.train)}, validation {len(parts.validation)}, test {len(parts.test)} articles"
    )
    folder = recipe.export(recipe.train(recipe.build()))
    summary = {key: str(value) for key, value in vars(config).items()}
    with writing(config.out):
        (config.out / "recipe.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return folder

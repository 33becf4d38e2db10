"""One training stage: warm-up, decay, mixed precision, averaging, early stopping, and resuming."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.optim.swa_utils import AveragedModel
from torch.optim.swa_utils import get_ema_multi_avg_fn as ema

from worker.training.batches import Batch, encode, plan
from worker.training.curve import write_curve
from worker.training.examples import Example
from worker.training.model import MultiHeadModel
from worker.training.objective import Objective
from worker.training.provenance import check, store, writing
from worker.training.spelling import Speller

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

Validate = Callable[[MultiHeadModel], dict[str, float]]
"""Metrics of a model on the validation part; higher ``mean`` is better."""
Epoch = Callable[[int, random.Random], Sequence[Example]]
"""The examples of an epoch by its number: the place for augmentation and for mixing in other data."""


@dataclass(frozen=True)
class Reader:
    """How texts become token ids."""

    tokenizer: "Tokenizer"
    prefix: str
    max_length: int
    pad_id: int
    speller: Speller | None = None


@dataclass(frozen=True)
class StageConfig:
    """How one stage trains. ``learning_rate`` is that of the encoder's top layer; layer n, counted from the
    top, gets it times ``layer_decay`` to the n, the heads times ``head_factor``. Classes weigh by their
    frequency to the power of -``balance``: 0 leaves them as they are, 1 makes them equal."""

    name: str
    epochs: int
    batch_size: int
    learning_rate: float
    warmup: float = 0.06
    layer_decay: float = 1.0
    head_factor: float = 1.0
    weight_decay: float = 0.01
    smoothing: float = 0.1
    accumulate: int = 1
    clip: float = 1.0
    average: float = 0.0
    balance: float = 0.5
    patience: int = 0
    spelled: float = 0.0
    save_every: int = 500
    seed: int = 1


def _parameter_groups(model: MultiHeadModel, config: StageConfig) -> list[dict[str, Any]]:
    """Parameters by learning rate, those without decay (biases, norms) apart."""
    depth = model.bert.config.num_hidden_layers
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if name.startswith("bert.encoder.layer."):
            factor = config.layer_decay ** (depth - 1 - int(name.split(".")[3]))
        elif name.startswith("bert."):
            factor = config.layer_decay**depth
        else:
            factor = config.head_factor
        decay = config.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((factor, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": config.learning_rate * factor, "weight_decay": decay}
        for (factor, decay), parameters in groups.items()
    ]


def _device() -> "torch.device":
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Stage:
    """A stage over a model, with its optimiser, its averaged weights and its place, all of which resume.

    ``made_from`` says what the run learns from beyond ``config``; a state of another run is refused.
    """

    def __init__(
        self,
        model: MultiHeadModel,
        objective: Objective,
        config: StageConfig,
        folder: Path,
        console: Console,
        *,
        made_from: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = model.to(_device())
        self.objective = objective
        self.config = config
        self.folder = folder
        self.console = console
        self.made_from = {**asdict(config), **(made_from or {})}
        self.optimizer = torch.optim.AdamW(_parameter_groups(model, config), fused=True)
        self.base_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.averaged = (
            AveragedModel(model, multi_avg_fn=ema(config.average))  # type: ignore[no-untyped-call]
            if config.average
            else None
        )
        self.step = 0
        self.best: tuple[float, dict[str, Tensor]] | None = None
        self.since_best = 0
        self.curve: list[dict[str, float]] = []
        self.losses: list[float] = []
        self.sizes: list[int] = []
        """Examples of each epoch so far."""
        self.finished = False

    @property
    def state_file(self) -> Path:
        """Where the state to resume from lies."""
        return self.folder / f"{self.config.name}.state.pt"

    def save(self) -> None:
        """Write the state, whole or not at all; of a finished stage its result alone.

        Raises ConfigurationError where it cannot be written.
        """
        state = {
            "made_from": self.made_from,
            "model": self.model.state_dict(),
            "step": self.step,
            "curve": self.curve,
            "finished": self.finished,
        }
        if not self.finished:
            state |= {
                "optimizer": self.optimizer.state_dict(),
                "averaged": self.averaged.state_dict() if self.averaged else None,
                "best": self.best,
                "since_best": self.since_best,
                "losses": self.losses,
                "sizes": self.sizes,
            }
        store(self.state_file, state)

    def resume(self) -> bool:
        """Take up a saved state; false where there is none. Raises StateMismatchError on other settings."""
        if not self.state_file.is_file():
            return False
        state = torch.load(self.state_file, map_location="cpu", weights_only=True)
        check(self.state_file, state.get("made_from", {}), self.made_from)
        self.model.load_state_dict(state["model"])
        self.step, self.curve, self.finished = state["step"], state["curve"], state.get("finished", False)
        if self.finished:
            return True
        self.optimizer.load_state_dict(state["optimizer"])
        if self.averaged:
            self.averaged.load_state_dict(state["averaged"])
        self.best, self.since_best, self.losses = state["best"], state["since_best"], state["losses"]
        self.sizes = state.get("sizes", [])
        return True

    def current(self) -> MultiHeadModel:
        """The model to judge: the averaged one where there is one."""
        if self.averaged is None:
            return self.model
        module = self.averaged.module
        assert isinstance(module, MultiHeadModel)  # noqa: S101 - what was put in comes out
        return module

    def _rate(self, total: int) -> float:
        warm = max(1, round(total * self.config.warmup))
        return min((self.step + 1) / warm, (total - self.step) / max(1, total - warm))

    def _update(self, batches: Sequence[Batch], weights: dict[str, "Tensor"], total: int) -> None:
        # Seeding each step makes a resumed run drop the same units as an unbroken one.
        torch.manual_seed(self.config.seed * 1_000_003 + self.step)
        self.model.train()
        for batch in batches:
            loss = self.objective.loss(self.model, batch, weights) / len(batches)
            torch.autograd.backward(loss)
            self.losses.append(float(loss.detach()) * len(batches))
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        factor = self._rate(total)
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.averaged:
            self.averaged.update_parameters(self.model)
        self.step += 1

    def _spelled(self, row: list[int], read: Reader, rng: random.Random) -> list[int]:
        """Half of the texts with some pieces broken into letters, where they still fit."""
        if read.speller is None or rng.random() >= 0.5:
            return row
        spelled = read.speller.spell(row, self.config.spelled, rng)
        return spelled if len(spelled) <= read.max_length else row

    def _record(self, metrics: dict[str, float]) -> None:
        mean = sum(self.losses) / max(1, len(self.losses))
        self.losses = []
        self.curve.append({"step": float(self.step), "loss": mean, **metrics})
        with writing(self.folder):
            write_curve(self.curve, self.folder, self.config.name)
        shown = "  ".join(f"{key} {value:.4f}" for key, value in metrics.items())
        self.console.print(f"{self.config.name} step {self.step}  loss {mean:.4f}  {shown}")

    def _judge(self, metrics: dict[str, float]) -> bool:
        """Keep the best weights; true when it is time to stop."""
        if self.best is None or metrics["mean"] > self.best[0]:
            weights = {k: v.detach().cpu().clone() for k, v in self.current().state_dict().items()}
            self.best, self.since_best = (metrics["mean"], weights), 0
        else:
            self.since_best += 1
        return self._settled()

    def _settled(self) -> bool:
        return bool(self.config.patience) and self.since_best >= self.config.patience

    def run(
        self,
        epoch_of: Epoch,
        read: "Reader",
        validate: Validate | None = None,
        stop_after: int | None = None,
    ) -> MultiHeadModel:
        """Train to the end (or to step ``stop_after``) and return the best model of those validated.

        Raises ConfigurationError where the folder cannot be written.
        """
        if self.finished:
            return self.model
        config = self.config
        per_step = config.batch_size * config.accumulate
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.console,
        ) as progress:
            bar = None
            for epoch in range(config.epochs):
                if epoch < len(self.sizes) and self.step >= (epoch + 1) * -(-self.sizes[epoch] // per_step):
                    continue
                rng = random.Random(f"{config.seed}/{config.name}/{epoch}")
                examples = epoch_of(epoch, rng)
                self.sizes[epoch:] = [len(examples)]
                per_epoch = -(-len(examples) // per_step)
                total = per_epoch * config.epochs
                if self.step >= (epoch + 1) * per_epoch:
                    continue
                if self._settled():  # a run that had ended is asked for again
                    break
                bar = bar if bar is not None else progress.add_task(config.name, total=total)
                rows = encode(read.tokenizer, [e.text for e in examples], read.prefix, read.max_length)
                if read.speller is not None and config.spelled:
                    rows = [self._spelled(row, read, rng) for row in rows]
                weights = self.objective.weights(examples, config.balance)
                weights = {name: value.to(_device()) for name, value in weights.items()}
                batches = plan([len(r) for r in rows], config.batch_size, rng)
                groups = [
                    batches[i : i + config.accumulate] for i in range(0, len(batches), config.accumulate)
                ]
                for group in groups[self.step - epoch * per_epoch :]:
                    if stop_after is not None and self.step >= stop_after:
                        self.save()
                        return self.model
                    made = [
                        self.objective.collate(
                            [examples[i] for i in b], [rows[i] for i in b], read.pad_id, config.smoothing
                        )
                        for b in group
                    ]
                    self._update(made, weights, total)
                    progress.update(bar, completed=self.step)
                    if self.step % config.save_every == 0 and self.step != (epoch + 1) * per_epoch:
                        self._record({})
                        self.save()
                metrics = validate(self.current()) if validate else {}
                stop = self._judge(metrics) if metrics else False
                self._record(metrics)
                self.save()
                if stop:
                    break
        if self.best is not None:
            self.model.load_state_dict(self.best[1])
        elif self.averaged:
            self.model.load_state_dict(self.averaged.module.state_dict())
        self.finished = True
        self.save()
        return self.model

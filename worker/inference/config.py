"""What ``config.json`` says: the encoder's shape, and our own ``kbert`` object."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.labels import EMOTIONS
from worker.inference.errors import CheckpointError

HeadSet = Literal["crypto", "traffic"]
Pooling = Literal["cls", "mean"]
ScaledHead = Literal["sentiment_strength", "action_signal", "label"]
"""Heads with a softmax, which a temperature may sharpen or soften."""
Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]

DEFAULT_MAX_LENGTH: Final[dict[HeadSet, int]] = {"crypto": 200, "traffic": 512}

ACTIVATIONS: Final[dict[str, Activation]] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}

# These share BERT's parameter names but not its arithmetic (position offsets, factorised embeddings).
_LOOKALIKES: Final = {
    "roberta",
    "xlm-roberta",
    "camembert",
    "electra",
    "data2vec-text",
    "ernie",
    "mobilebert",
}

Threshold = Annotated[float, Field(ge=0.0, le=1.0)]
Temperature = Annotated[float, Field(gt=0.0)]


@dataclass(frozen=True, slots=True)
class EncoderShape:
    """Sizes of a BERT encoder."""

    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    positions: int
    token_types: int
    activation: Activation = "gelu"
    layer_norm_eps: float = 1e-12


class KbertConfig(BaseModel):
    """The object ``kbert`` in ``config.json``; every field has the published layout as its default."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    head_set: HeadSet | None = None
    name: str | None = None
    pooling: Pooling = "cls"
    text_prefix: str = ""
    max_length: int | None = Field(default=None, ge=3, description="Tokens, special tokens included.")
    emo_threshold: Threshold | list[Threshold] = 0.5
    temperature: dict[ScaledHead, Temperature] = {}

    def thresholds(self) -> tuple[float, ...]:
        """One threshold an emotion, in the order of the logits."""
        if isinstance(self.emo_threshold, list):
            return tuple(self.emo_threshold)
        return (self.emo_threshold,) * len(EMOTIONS)


def parse_kbert(raw: Any, origin: Path) -> KbertConfig:
    """Check the ``kbert`` object.

    Raises:
        CheckpointError: A field has a wrong type or value.
    """
    try:
        config = KbertConfig.model_validate({} if raw is None else raw)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in ("kbert", *first["loc"]))
        raise CheckpointError(f"{origin}: `{field}` is not usable: {first['msg']}.") from error
    if len(config.thresholds()) != len(EMOTIONS):
        raise CheckpointError(
            f"{origin}: `kbert.emo_threshold` holds {len(config.thresholds())} numbers; "
            f"give one, or {len(EMOTIONS)}, one for each emotion."
        )
    return config


def refuse_lookalike(raw: dict[str, Any], origin: Path) -> None:
    """Refuse encoders whose weights carry BERT's names but mean something else.

    Raises:
        CheckpointError: ``model_type`` or a setting of it is none that this encoder computes.
    """
    kind = raw.get("model_type")
    if not isinstance(kind, str | None):
        raise CheckpointError(f"{origin}: `model_type` is {kind!r}; a name is expected.")
    if kind in _LOOKALIKES:
        raise CheckpointError(
            f"{origin}: `model_type` is {kind!r}, and only BERT encoders run here; choose a BERT checkpoint."
        )
    positions = raw.get("position_embedding_type", "absolute")
    if positions != "absolute":
        raise CheckpointError(
            f"{origin}: `position_embedding_type` is {positions!r}, and only 'absolute' is supported."
        )


def parse_activation(raw: dict[str, Any], origin: Path) -> Activation:
    """The feed-forward activation that ``hidden_act`` names.

    Raises:
        CheckpointError: The name is unknown.
    """
    name = raw.get("hidden_act", "gelu")
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise CheckpointError(
            f"{origin}: `hidden_act` is {name!r}; known are {', '.join(sorted(ACTIVATIONS))}."
        )
    return ACTIVATIONS[name]

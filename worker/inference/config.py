"""What ``config.json`` says: the encoder's shape, and our own ``kbert`` object."""

import re
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

_NUMBERED: Final = re.compile(r"(?:label[_ ]?)?([01])", re.IGNORECASE)
_NAMES: Final[dict[str, int]] = {
    "nonnegative": 0,
    "notnegative": 0,
    "neutral": 0,
    "positive": 0,
    "비부정": 0,
    "중립": 0,
    "긍정": 0,
    "negative": 1,
    "부정": 1,
}
"""What classifiers call the two labels of traffic news, without case and signs, and which of them that is."""

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
    if raw.get("is_decoder"):
        raise CheckpointError(
            f"{origin}: `is_decoder` is {raw['is_decoder']!r}: its tokens see only those before them, and "
            "encoders run here; choose a checkpoint of an encoder."
        )
    positions = raw.get("position_embedding_type", "absolute")
    if positions != "absolute":
        raise CheckpointError(
            f"{origin}: `position_embedding_type` is {positions!r}, and only 'absolute' is supported."
        )


def check_labels(raw: dict[str, Any], kbert: KbertConfig, origin: Path) -> None:
    """Compare the names of the traffic labels with what the columns are taken for: 1 is negative.

    Names that say nothing pass where ``kbert.head_set`` says that the layout is ours.

    Raises:
        CheckpointError: The columns are the other way round, or nothing tells which is which.
    """
    named = raw.get("id2label")
    if named is None:
        return
    names = [named.get(key) for key in ("0", "1")] if isinstance(named, dict) else [None, None]
    first, second = map(_label, names)
    if second == 1 and first != 1:
        return
    if first == 1 and second != 1:
        raise CheckpointError(
            f"{origin}: `id2label` calls column 0 {names[0]!r} and column 1 {names[1]!r}, and column 1 "
            "has to be the negative one; swap the rows of classifier.weight and classifier.bias, and the "
            "names."
        )
    if kbert.head_set != "traffic":
        raise CheckpointError(
            f"{origin}: `id2label` calls the columns {names[0]!r} and {names[1]!r}, which does not tell the "
            'negative one; where it is column 1, put `"kbert": {"head_set": "traffic"}` there (into a copy, '
            "where it is from the Hub: a changed file in the cache is refused)."
        )


def _label(name: Any) -> int | None:
    """Which label a name means; None where it does not say."""
    text = str(name).strip()
    numbered = _NUMBERED.fullmatch(text)
    word = re.sub(r"(?:narrative|서사|적)+$", "", re.sub(r"[\W_]+", "", text).lower())
    return int(numbered[1]) if numbered else _NAMES.get(word)


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

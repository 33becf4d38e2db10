"""What comes out: one signal for each message."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.labels import Action, Emotion, Sentiment
from schemas.times import UtcDatetime

Probability = Annotated[float, Field(ge=0.0, le=1.0)]


class ModelInfo(BaseModel):
    """Which weights made the signal."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    revision: str = Field(description="Hub commit, or a digest of weights, configuration and tokeniser.")


class CryptoScores(BaseModel):
    """Per-class scores: softmax for the two classes, sigmoid for each emotion."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    sentiment_strength: dict[Sentiment, Probability]
    action_signal: dict[Action, Probability]
    emotions: dict[Emotion, Probability]


class CryptoSignal(BaseModel):
    """A message on ``signals.crypto``, keyed by the first coin, or by id where no coin is named."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str = Field(description="Id of the raw message: equal on every repeat of the signal.")
    source: str
    kind: Literal["chat", "news"]
    published_at: UtcDatetime = Field(description="Event time; windows go by it.")
    processed_at: UtcDatetime
    coins: list[str] = Field(description="Ticker symbols in the order in which the text names them.")
    sentiment_strength: Sentiment
    action_signal: Action
    emotions: list[Emotion]
    certainty: Probability
    relevance: Probability
    toxicity: Probability
    scores: CryptoScores
    model: ModelInfo
    truncated: bool = Field(description="The text was longer than the model reads.")
    author_hash: str | None = Field(
        default=None,
        description="Keyed hash of the author (BLAKE2b, 16 hex digits), for counting unique authors.",
    )
    text: str | None = Field(
        default=None,
        description="The first characters of the message; absent where `publish_text` is off.",
    )


class TrafficSignal(BaseModel):
    """A message on ``signals.traffic``, keyed by id."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str
    source: str
    published_at: UtcDatetime
    processed_at: UtcDatetime
    label: Literal[0, 1]
    label_name: Literal["non-negative", "negative narrative"]
    probability: Probability = Field(description="Probability of label 1.")
    model: ModelInfo
    truncated: bool

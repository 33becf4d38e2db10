"""What stands in Redis, as a reader sees it."""

from pydantic import BaseModel, ConfigDict, Field

from schemas.labels import Action, Emotion, Sentiment
from schemas.times import UtcDatetime
from schemas.windows import Window


class WindowMetrics(BaseModel):
    """One coin over one rolling window; null where there is nothing to divide by."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    window: Window
    messages: int
    unique_authors: int = Field(description="HyperLogLog estimate; messages without author are not counted.")
    sentiment: dict[Sentiment, int]
    action: dict[Action, int]
    emotion: dict[Emotion, int]
    sentiment_share: dict[Sentiment, float] | None = Field(description="Counts over messages.")
    action_share: dict[Action, float] | None = Field(description="Counts over messages.")
    emotion_share: dict[Emotion, float] | None = Field(description="Counts over messages.")
    sentiment_index: float | None = Field(description="sum(weight * polarity) / sum(weight), -1..1.")
    action_balance: float | None = Field(description="(buy - sell - avoid) / (buy + sell + avoid).")
    certainty: float | None = Field(description="Mean.")
    relevance: float | None = Field(description="Mean.")
    toxicity: float | None = Field(description="Mean.")
    dispersion: float | None = Field(description="Standard deviation of polarity.")
    dominance: float | None = Field(description="Messages over the messages of MARKET.")
    zscore_index: float | None = Field(description="Index against the hours of the coin's past week.")
    zscore_volume: float | None = Field(description="Messages an hour against the same hours.")
    late: int = Field(description="Messages that came after their bucket had gone.")


class CoinAggregates(BaseModel):
    """Every window of one coin at one moment."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    symbol: str
    as_of: UtcDatetime
    freshness: float | None = Field(description="Seconds from the newest message's event time to as_of.")
    windows: dict[Window, WindowMetrics]


class Spark(BaseModel):
    """A coin's latest past in small, oldest first; the last point is as far as it has come."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    step: int = Field(description="Seconds of a point.")
    messages: list[int]
    sentiment_index: list[float | None]


class BoardRow(BaseModel):
    """One coin on the board."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    symbol: str
    freshness: float | None = Field(description="Seconds from the newest message's event time to as_of.")
    metrics: WindowMetrics
    spark: Spark


class Series(BaseModel):
    """Rolling windows of one coin over time, one column a metric.

    The value at a time covers the buckets that ended by it, as known today: messages published by
    then and processed later are in it. For a backtest export signals and go by ``processed_at``.
    Only the last point, where the series reaches the present, ends in a bucket that still grows.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    symbol: str
    window: Window
    step: int = Field(description="Seconds between points.")
    times: list[UtcDatetime]
    values: dict[str, list[float | None]] = Field(
        description="By metric; of sentiment, action and emotion one column a class, as `action.buy`."
    )


class AggregateChange(BaseModel):
    """Announced on the Redis channel ``<prefix>changes`` after each applied batch."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    symbols: list[str]
    at: UtcDatetime

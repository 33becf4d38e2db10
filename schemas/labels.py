"""Label sets of the crypto heads, in the order of the logits."""

from typing import Final, Literal, get_args

Sentiment = Literal["strong_pos", "weak_pos", "neutral", "weak_neg", "strong_neg"]
Action = Literal["buy", "hold", "sell", "avoid", "info_only", "ask_info"]
Emotion = Literal["greed", "fear", "confidence", "doubt", "anger", "hope", "sarcasm"]

SENTIMENTS: Final[tuple[Sentiment, ...]] = get_args(Sentiment)
ACTIONS: Final[tuple[Action, ...]] = get_args(Action)
EMOTIONS: Final[tuple[Emotion, ...]] = get_args(Emotion)
SCORES: Final = ("certainty", "relevance", "toxicity")

POLARITY: Final[dict[Sentiment, float]] = {
    "strong_pos": 1.0,
    "weak_pos": 0.5,
    "neutral": 0.0,
    "weak_neg": -0.5,
    "strong_neg": -1.0,
}
"""Position of each sentiment on the -1..1 axis that the sentiment index uses."""

TRAFFIC_LABELS: Final = ("non-negative", "negative narrative")

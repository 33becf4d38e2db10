"""Windows recounted in plain Python, straight from the signals: what the aggregates have to equal.

Shares no code with worker.aggregates; slow on purpose.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest

from schemas.aggregates import WindowMetrics
from schemas.labels import ACTIONS, EMOTIONS, POLARITY, SENTIMENTS
from schemas.windows import MARKET, WINDOW_SECONDS, WINDOWS, Window

Signal = Mapping[str, Any]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
RELEVANT_FROM = 0.4


class Recount:
    """Every number of every window of every symbol at one moment, from a list of signals."""

    def __init__(self, signals: Iterable[Signal], now: datetime) -> None:
        self.now = now
        self.by_symbol: dict[str, list[tuple[datetime, Signal]]] = {MARKET: []}
        self.late_by_symbol: dict[str, list[datetime]] = {MARKET: []}
        for signal in signals:
            published, processed = _time(signal["published_at"]), _time(signal["processed_at"])
            if published > processed + timedelta(minutes=1):
                published = processed
            symbols = set(signal["coins"])
            if signal["relevance"] >= RELEVANT_FROM:
                symbols.add(MARKET)
            for symbol in symbols:
                if processed - published > timedelta(days=8):
                    self.late_by_symbol.setdefault(symbol, []).append(processed)
                else:
                    self.by_symbol.setdefault(symbol, []).append((published, signal))

    @property
    def symbols(self) -> set[str]:
        """Every symbol, MARKET included."""
        return self.by_symbol.keys() | self.late_by_symbol.keys()

    def check(self, symbol: str, window: Window, found: WindowMetrics) -> None:
        """Assert that every number of ``found`` is right."""
        rows = [s for t, s in self.by_symbol.get(symbol, []) if self._inside(t, window)]
        market = [s for t, s in self.by_symbol[MARKET] if self._inside(t, window)]
        n = len(rows)
        sentiment = {c: sum(s["sentiment_strength"] == c for s in rows) for c in SENTIMENTS}
        action = {c: sum(s["action_signal"] == c for s in rows) for c in ACTIONS}
        emotion = {c: sum(c in s["emotions"] for s in rows) for c in EMOTIONS}
        index = _index(rows)
        acting = action["buy"] + action["sell"] + action["avoid"]
        polarity = [POLARITY[s["sentiment_strength"]] for s in rows]
        authors = {s["author_hash"] for s in rows if s.get("author_hash")}
        expected = {
            "window": window,
            "messages": n,
            "sentiment": sentiment,
            "action": action,
            "emotion": emotion,
            "sentiment_share": {c: k / n for c, k in sentiment.items()} if n else None,
            "action_share": {c: k / n for c, k in action.items()} if n else None,
            "emotion_share": {c: k / n for c, k in emotion.items()} if n else None,
            "sentiment_index": None if index is None else _close(float(index)),
            "action_balance": (
                _close((action["buy"] - action["sell"] - action["avoid"]) / acting) if acting else None
            ),
            "certainty": _mean(rows, "certainty"),
            "relevance": _mean(rows, "relevance"),
            "toxicity": _mean(rows, "toxicity"),
            "dispersion": _close(_deviation(polarity)) if n else None,
            "dominance": _close(n / len(market)) if market else None,
            "zscore_index": self._zscore_index(symbol, window, index),
            "zscore_volume": self._zscore_volume(symbol, window, n),
            "late": sum(self._inside(t, window) for t in self.late_by_symbol.get(symbol, [])),
        }
        actual = found.model_dump(exclude={"unique_authors"})
        assert actual == expected, f"{symbol} {window} at {self.now}"
        # HyperLogLog: standard error 0.81%, and exact up to a collision where there are few.
        assert found.unique_authors == pytest.approx(len(authors), rel=0.05, abs=1)

    def check_all(self, found: Mapping[str, Mapping[Window, WindowMetrics]]) -> None:
        """Assert that every window of every symbol is right."""
        assert found.keys() >= self.symbols
        for symbol, windows in found.items():
            for window in WINDOWS:
                self.check(symbol, window, windows[window])

    def differences(self, window: Window, found: Mapping[str, int]) -> dict[str, tuple[int, int]]:
        """Symbols whose number of messages is not the right one: what was found, and what is right."""
        right = {
            symbol: sum(self._inside(time, window) for time, _ in self.by_symbol.get(symbol, []))
            for symbol in self.symbols
        }
        symbols = right.keys() | found.keys()
        return {
            symbol: (found.get(symbol, 0), right.get(symbol, 0))
            for symbol in symbols
            if found.get(symbol, 0) != right.get(symbol, 0)
        }

    def freshness(self, symbol: str) -> float | None:
        """Seconds since the newest message up to the current minute."""
        end = _floor(self.now, timedelta(minutes=1)) + timedelta(minutes=1)
        times = [t for t, _ in self.by_symbol.get(symbol, []) if t < end]
        return max(0.0, (self.now - max(times)).total_seconds()) if times else None

    def _inside(self, time: datetime, window: Window) -> bool:
        this_minute = _floor(self.now, timedelta(minutes=1))
        if time >= this_minute + timedelta(minutes=1):
            return False
        if window == "7d":
            return time >= _floor(self.now, HOUR) - 167 * HOUR
        return time >= this_minute + timedelta(minutes=1) - timedelta(seconds=WINDOW_SECONDS[window])

    def _past_hours(self, symbol: str) -> dict[datetime, list[Signal]]:
        this_hour = _floor(self.now, HOUR)
        hours: dict[datetime, list[Signal]] = {this_hour - n * HOUR: [] for n in range(1, 169)}
        for time, signal in self.by_symbol.get(symbol, []):
            hour = _floor(time, HOUR)
            if hour in hours:
                hours[hour].append(signal)
        return hours

    def _zscore_index(self, symbol: str, window: Window, index: Fraction | None) -> Any:
        if window == "7d" or index is None:
            return None
        past = [i for rows in self._past_hours(symbol).values() if (i := _index(rows)) is not None]
        return _zscore(float(index), [float(i) for i in past])

    def _zscore_volume(self, symbol: str, window: Window, messages: int) -> Any:
        times = [t for t, _ in self.by_symbol.get(symbol, [])]
        if window == "7d" or not times:
            return None
        past = [len(rows) for hour, rows in self._past_hours(symbol).items() if hour + HOUR > min(times)]
        return _zscore(messages * 3600 / WINDOW_SECONDS[window], past)


def _index(rows: Sequence[Signal]) -> Fraction | None:
    weights: list[int] = [round(s["certainty"] * s["relevance"] * 1_000_000) for s in rows]
    if not sum(weights):
        return None
    polarities = [Fraction(POLARITY[s["sentiment_strength"]]) for s in rows]
    signed = sum((w * p for w, p in zip(weights, polarities, strict=True)), Fraction(0))
    return signed / sum(weights)


def _mean(rows: Sequence[Signal], name: str) -> Any:
    return _close(sum(round(s[name] * 1000) for s in rows) / 1000 / len(rows)) if rows else None


def _deviation(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return math.sqrt(sum((v - mean) ** 2 for v in values) / len(values))


def _zscore(value: float, past: Sequence[float]) -> Any:
    if len(past) < 24 or len(set(past)) == 1:
        return None
    return pytest.approx((value - sum(past) / len(past)) / _deviation(past), rel=1e-6, abs=1e-9)


def _close(value: float) -> Any:
    return pytest.approx(value, rel=1e-9, abs=1e-9)


def _time(value: str | datetime) -> datetime:
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def _floor(time: datetime, step: timedelta) -> datetime:
    return EPOCH + (time - EPOCH) // step * step

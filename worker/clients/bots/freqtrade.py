"""freqtrade: a strategy mixin that puts a coin's rolling windows beside its candles, without look-ahead."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import structlog
from pydantic import ValidationError

from schemas.aggregates import Series
from schemas.windows import Window
from worker.clients.bots.candles import (
    DEFAULT_DELAY,
    SeriesMemory,
    Values,
    column_names,
    point_of,
    timeframe_seconds,
)
from worker.clients.bots.markets import MarketError, Markets
from worker.clients.bots.recorded import RecordedSignals, read_signals
from worker.coins import load_catalogue
from worker.errors import ConfigurationError
from worker.settings import load_settings

if TYPE_CHECKING:
    import httpx
    import pandas as pd

log = structlog.get_logger(__name__)

_TIMEOUT: Final = 10.0


class KbertMixin:
    """Put it before ``IStrategy``, and call ``super().populate_indicators`` first.

    ::

        class Mood(KbertMixin, IStrategy):
            timeframe = "5m"

            def populate_indicators(self, dataframe, metadata):
                dataframe = super().populate_indicators(dataframe, metadata)
                ...

            def populate_entry_trend(self, dataframe, metadata):
                dataframe.loc[dataframe["kbert_sentiment_index"] > 0.3, "enter_long"] = 1
                return dataframe

    Each row gets what could be read when its candle closed. Live and in dry runs that comes from
    ``kbert serve``, and a value that was seen once stays; in back tests from recorded signals, by
    the moment at which each was processed. Where nothing is known the columns hold NaN, and no
    comparison with NaN is true. FreqAI gets the same columns as ``%-kbert_...``. Which coin a pair
    means is told by the settings ``coins.user_file`` and ``bot.markets_file``, too.
    """

    kbert_url: ClassVar[str] = "http://127.0.0.1:8420"
    """Where ``kbert serve`` answers; its token is read from ``KBERT_SERVE__TOKEN``."""
    kbert_signals: ClassVar[Path | str | None] = None
    """JSONL of recorded signals, which then take the place of the server."""
    kbert_metrics: ClassVar[Sequence[str]] = ("sentiment_index", "messages", "action_balance")
    """Names in `worker.aggregates.series.METRICS`; ``action`` gives ``kbert_action_buy`` and so on."""
    kbert_window: ClassVar[Window] = "1h"
    kbert_delay: ClassVar[int] = DEFAULT_DELAY
    """Seconds before its close up to which a candle sees messages."""

    timeframe: str

    def populate_indicators(self, dataframe: "pd.DataFrame", metadata: Mapping[str, Any]) -> "pd.DataFrame":
        """Add the columns ``kbert_...``."""
        dataframe = self.kbert_join(dataframe, metadata["pair"], "kbert_")
        return super().populate_indicators(dataframe, metadata)  # type: ignore[misc]

    def feature_engineering_standard(
        self, dataframe: "pd.DataFrame", metadata: Mapping[str, Any], **kwargs: Any
    ) -> "pd.DataFrame":
        """Add the columns ``%-kbert_...``, FreqAI's features."""
        dataframe = self.kbert_join(dataframe, metadata["pair"], "%-kbert_")
        return super().feature_engineering_standard(dataframe, metadata, **kwargs)  # type: ignore[misc]

    def kbert_join(self, dataframe: "pd.DataFrame", pair: str, prefix: str) -> "pd.DataFrame":
        """The candles with the pair's columns beside them; ``date`` is when each candle opens."""
        import pandas as pd

        names = [prefix + name.replace(".", "_") for name in column_names(self.kbert_metrics)]
        opens = (
            dataframe["date"]
            .dt.tz_convert("UTC")
            .dt.tz_localize(None)
            .astype("datetime64[s]")
            .astype("int64")
        )
        length = timeframe_seconds(self.timeframe)
        rows = self._kbert_rows(pair, [int(at) + length for at in opens])
        joined = pd.DataFrame(rows, columns=names, index=dataframe.index, dtype="float64")
        return pd.concat([dataframe.drop(columns=names, errors="ignore"), joined], axis=1)

    def _kbert_rows(self, pair: str, closes: list[int]) -> list[Values]:
        nothing: Values = (None,) * len(column_names(self.kbert_metrics))
        markets = self._kbert_markets()
        try:
            symbol = markets.market(pair, "ccxt-swap" if ":" in pair else "ccxt").symbol
        except MarketError as error:
            log.warning("freqtrade.no_coin", pair=pair, reason=str(error))
            return [nothing] * len(closes)
        if not closes:
            return []
        if self.kbert_signals is not None:
            recorded = self._kbert_recorded(symbol, Path(self.kbert_signals))
            return recorded.at(closes, self.kbert_metrics, self.kbert_window, self.kbert_delay)
        memory = self._kbert_memory(symbol)
        points = [point_of(close, self.kbert_delay) for close in closes]
        for reading in memory.missing(points[0], points[-1], time.time()):
            series = self._kbert_series(symbol, reading.since, reading.until, reading.step)
            if series is not None:
                memory.add(reading, series)
        memory.forget_before(points[0])
        return [memory.at(point) for point in points]

    def _kbert_series(self, symbol: str, since: int, until: int, step: int) -> Series | None:
        """One answer of the server; None where there is none, so that stop losses go on."""
        import httpx

        query: dict[str, Any] = {
            "metric": list(self.kbert_metrics),
            "window": self.kbert_window,
            "from": _rfc3339(since),
            "to": _rfc3339(until),
            "step": step,
        }
        try:
            answer = self._kbert_http().get(f"/v1/coins/{symbol}/series", params=query)
            if answer.status_code in (401, 404, 422):
                raise ConfigurationError(
                    f"{self.kbert_url} answers {answer.status_code}: correct kbert_url, "
                    f"KBERT_SERVE__TOKEN or what the strategy asks for ({answer.text[:200]})."
                )
            answer.raise_for_status()
            return Series.model_validate_json(answer.content)
        except (httpx.HTTPError, ValidationError) as error:
            log.warning("freqtrade.no_answer", url=self.kbert_url, symbol=symbol, reason=str(error))
            return None

    # The strategy's constructor is freqtrade's, so what lives as long as it is made where it is first used.

    def _kbert_markets(self) -> Markets:
        if not hasattr(self, "_kbert_known"):
            settings = load_settings()
            catalogue = load_catalogue(settings.coins.user_file)
            self._kbert_known = Markets(catalogue, settings.bot.markets_file)
        return self._kbert_known

    def _kbert_memory(self, symbol: str) -> SeriesMemory:
        if not hasattr(self, "_kbert_memories"):
            self._kbert_memories: dict[str, SeriesMemory] = {}
        if symbol not in self._kbert_memories:
            self._kbert_memories[symbol] = SeriesMemory(self.kbert_metrics, self.kbert_window)
        return self._kbert_memories[symbol]

    def _kbert_recorded(self, symbol: str, file: Path) -> RecordedSignals:
        if not hasattr(self, "_kbert_records"):
            self._kbert_all = list(read_signals(file))
            self._kbert_records: dict[str, RecordedSignals] = {}
        if symbol not in self._kbert_records:
            self._kbert_records[symbol] = RecordedSignals(self._kbert_all, symbol)
        return self._kbert_records[symbol]

    def _kbert_http(self) -> "httpx.Client":
        import httpx

        if not hasattr(self, "_kbert_client"):
            token = os.environ.get("KBERT_SERVE__TOKEN")
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            self._kbert_client = httpx.Client(base_url=self.kbert_url, headers=headers, timeout=_TIMEOUT)
        return self._kbert_client


def _rfc3339(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))

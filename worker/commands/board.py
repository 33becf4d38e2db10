"""The terminal board: coins by volume, and the latest signals."""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from schemas.aggregates import WindowMetrics
from schemas.signals import CryptoSignal
from schemas.windows import MARKET

_BAR_HALF: Final = 8
_SENTIMENT_STYLE: Final = {
    "strong_pos": "bold green",
    "weak_pos": "green",
    "neutral": "white",
    "weak_neg": "red",
    "strong_neg": "bold red",
}


class Board:
    """What is shown; it knows no Kafka and no Redis."""

    def __init__(self, window: str, feed_lines: int = 10, coin_lines: int = 14) -> None:
        self._window = window
        self._coin_lines = coin_lines
        self._feed: deque[CryptoSignal] = deque(maxlen=feed_lines)
        self.metrics: Mapping[str, WindowMetrics] = {}
        self.status = ""

    def add(self, signal: CryptoSignal) -> None:
        """A new signal for the feed."""
        self._feed.append(signal)

    def render(self) -> Group:
        """The board as it stands."""
        parts: list[Table | Text] = [self.coins()]
        if self._feed:
            parts.append(self._feed_table())
        parts.append(Text(self.status, style="dim"))
        return Group(*parts)

    def coins(self) -> Table:
        """One row a coin, MARKET first, then by messages."""
        table = Table(title=f"coins, last {self._window}", title_justify="left", expand=True, box=None)
        table.add_column("coin", style="bold")
        table.add_column("msgs", justify="right")
        table.add_column("authors", justify="right")
        table.add_column("sentiment index  - 0 +", min_width=2 * _BAR_HALF + 8)
        table.add_column("buy/hold/sell/avoid", justify="right")
        table.add_column("act. balance", justify="right")
        table.add_column("certainty", justify="right")
        table.add_column("toxicity", justify="right")
        table.add_column("share", justify="right")
        for symbol, metrics in _by_volume(self.metrics)[: self._coin_lines]:
            actions = metrics.action
            table.add_row(
                symbol,
                str(metrics.messages),
                str(metrics.unique_authors),
                index_bar(metrics.sentiment_index),
                "/".join(str(actions[name]) for name in ("buy", "hold", "sell", "avoid")),
                signed(metrics.action_balance),
                plain(metrics.certainty),
                plain(metrics.toxicity),
                "" if metrics.dominance is None else f"{metrics.dominance:.0%}",
            )
        return table

    def _feed_table(self) -> Table:
        table = Table(title="signals", title_justify="left", expand=True, box=None, show_header=False)
        table.add_column(width=10)
        table.add_column(width=12)
        table.add_column(width=9)
        table.add_column(width=5)
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        for signal in self._feed:
            style = _SENTIMENT_STYLE[signal.sentiment_strength]
            table.add_row(
                Text(" ".join(signal.coins) or "-", style="bold"),
                Text(signal.sentiment_strength, style=style),
                signal.action_signal,
                f"{signal.certainty:.2f}",
                Text(one_line(signal.text or signal.id)),
            )
        return table


def signal_line(signal: CryptoSignal) -> str:
    """One signal as one line of plain text."""
    coins = ",".join(signal.coins) or "-"
    return (
        f"{signal.processed_at:%H:%M:%S} {coins:<10} {signal.sentiment_strength:<10} "
        f"{signal.action_signal:<9} certainty {signal.certainty:.2f} relevance {signal.relevance:.2f} "
        f"toxicity {signal.toxicity:.2f} {','.join(signal.emotions) or '-'} | {one_line(signal.text or '')}"
    )


def coin_line(symbol: str, metrics: WindowMetrics) -> str:
    """One coin as one line of plain text."""
    return (
        f"{symbol:<8} messages {metrics.messages:>5} authors {metrics.unique_authors:>5} "
        f"index {signed(metrics.sentiment_index)} balance {signed(metrics.action_balance)} "
        f"certainty {plain(metrics.certainty)} toxicity {plain(metrics.toxicity)}"
    )


def coin_lines(metrics: Mapping[str, WindowMetrics]) -> Iterable[str]:
    """All coins as plain text, MARKET first, then by messages."""
    return (coin_line(symbol, m) for symbol, m in _by_volume(metrics))


def index_bar(index: float | None) -> Text:
    """A bar that grows from the middle: red to the left, green to the right."""
    if index is None:
        return Text("·".center(2 * _BAR_HALF + 1), style="dim")
    length = round(abs(index) * _BAR_HALF)
    left = ("█" * length).rjust(_BAR_HALF) if index < 0 else " " * _BAR_HALF
    right = ("█" * length).ljust(_BAR_HALF) if index > 0 else " " * _BAR_HALF
    return Text.assemble((left, "red"), ("│", "dim"), (right, "green"), f" {index:+.2f}")


def signed(value: float | None) -> str:
    """A signed number, or a dot for none."""
    return "  ·  " if value is None else f"{value:+.2f}"


def plain(value: float | None) -> str:
    """A number, or a dot for none."""
    return " ·  " if value is None else f"{value:.2f}"


def one_line(text: str) -> str:
    """Message text is untrusted: control characters could move a terminal's cursor."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _by_volume(metrics: Mapping[str, WindowMetrics]) -> list[tuple[str, WindowMetrics]]:
    return sorted(metrics.items(), key=lambda item: (item[0] != MARKET, -item[1].messages, item[0]))

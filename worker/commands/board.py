"""The terminal board: coins by volume, and the latest signals."""

from collections import deque
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Final

from rich.cells import cell_len
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from schemas.aggregates import WindowMetrics
from schemas.signals import CryptoSignal
from schemas.windows import MARKET

_BAR_HALF: Final = 8
_GAP: Final = 2
_MOST_SIGNALS: Final = 200
_SIGNAL_COLUMNS: Final = (10, 12, 9, 5)  # coins, sentiment, action, certainty
_LEAST_TEXT: Final = 24
_INDEX: Final = "sentiment index  - 0 +"
_ACTIONS: Final = "buy/hold/sell/avoid"
_IN_ORDER: Final = (
    "coin",
    "msgs",
    "authors",
    _INDEX,
    _ACTIONS,
    "act. balance",
    "certainty",
    "toxicity",
    "share",
)
_BY_NEED: Final = (
    "coin",
    "msgs",
    _INDEX,
    _ACTIONS,
    "certainty",
    "authors",
    "toxicity",
    "act. balance",
    "share",
)
"""A narrow terminal goes without the last ones."""
_LEFT: Final = ("coin", _INDEX)
_LEAST: Final = {"coin": 6, "msgs": 5, _INDEX: 2 * _BAR_HALF + 8}
"""Widths that keep columns in place while numbers grow."""
_SENTIMENT_STYLE: Final = {
    "strong_pos": "bold green",
    "weak_pos": "green",
    "neutral": "white",
    "weak_neg": "red",
    "strong_neg": "bold red",
}


class Board:
    """What is shown, never more than a terminal holds; it knows no Kafka and no Redis."""

    def __init__(self, window: str) -> None:
        self._window = window
        self._feed: deque[CryptoSignal] = deque(maxlen=_MOST_SIGNALS)
        self.metrics: Mapping[str, WindowMetrics] = {}
        self.status = ""

    def add(self, signal: CryptoSignal) -> None:
        """A new signal for the feed."""
        self._feed.appendleft(signal)

    def render(self, console: Console) -> Group:
        """The board as it stands, cut to the size that the console has now."""
        width, height = console.size
        status = Text(self.status, style="dim")
        # Titles, the header of the coins, and the line below where the cursor waits.
        rows = height - len(status.wrap(console, width)) - (4 if self._feed else 3)
        signals = min(len(self._feed), max(1, rows // 2, rows - len(self.metrics)))
        parts: list[Table | Text] = [status, self._coins(width, max(1, rows - signals))]
        if self._feed:
            parts.append(self._signals(width, signals))
        return Group(*parts)

    def _coins(self, width: int, rows: int) -> Table:
        """One row a coin, MARKET first, then by messages."""
        table = _table(f"coins, last {self._window}")
        shown = [_cells(symbol, metrics) for symbol, metrics in _by_volume(self.metrics)[:rows]]
        widths = {
            name: max([cell_len(name), _LEAST.get(name, 0), *(cells[name].cell_len for cells in shown)])
            for name in _BY_NEED
        }
        names = [*_BY_NEED]
        while len(names) > 1 and sum(widths[name] + _GAP for name in names) - _GAP > width:
            names.pop()
        names.sort(key=_IN_ORDER.index)
        for name in names:
            table.add_column(
                name,
                style="bold" if name == "coin" else None,
                justify="left" if name in _LEFT else "right",
                min_width=widths[name],
                no_wrap=True,
            )
        for cells in shown:
            table.add_row(*(cells[name] for name in names))
        return table

    def _signals(self, width: int, rows: int) -> Table:
        """The newest first."""
        table = _table("signals", show_header=False)
        columns = [*_SIGNAL_COLUMNS]
        while columns and width - sum(column + _GAP for column in columns) < _LEAST_TEXT:
            columns.pop()
        for column in columns:
            table.add_column(width=column, no_wrap=True)
        table.add_column(ratio=1, no_wrap=True)
        for signal in islice(self._feed, rows):
            before = [
                Text(" ".join(signal.coins) or "-", style="bold"),
                Text(signal.sentiment_strength, style=_SENTIMENT_STYLE[signal.sentiment_strength]),
                Text(signal.action_signal),
                Text(f"{signal.certainty:.2f}"),
            ]
            table.add_row(*before[: len(columns)], Text(one_line(signal.text or signal.id)))
        return table


def _table(title: str, *, show_header: bool = True) -> Table:
    return Table(
        title=title,
        title_justify="left",
        expand=True,
        box=None,
        show_header=show_header,
        padding=(0, _GAP, 0, 0),
        pad_edge=False,
    )


def _cells(symbol: str, metrics: WindowMetrics) -> dict[str, Text]:
    """What stands in a coin's row, by column."""
    actions = metrics.action
    dominance = "" if metrics.dominance is None else f"{metrics.dominance:.0%}"
    return {
        "coin": Text(symbol),
        "msgs": Text(str(metrics.messages)),
        "authors": Text(str(metrics.unique_authors)),
        _INDEX: index_bar(metrics.sentiment_index),
        _ACTIONS: Text("/".join(str(actions[name]) for name in ("buy", "hold", "sell", "avoid"))),
        "act. balance": Text(signed(metrics.action_balance)),
        "certainty": Text(plain(metrics.certainty)),
        "toxicity": Text(plain(metrics.toxicity)),
        "share": Text(dominance),
    }


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

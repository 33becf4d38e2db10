"""The board fits its terminal, and what matters most is always in it."""

import io
import re
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from schemas.aggregates import WindowMetrics
from schemas.labels import ACTIONS, EMOTIONS, SENTIMENTS
from schemas.signals import CryptoSignal
from worker.commands.board import Board

_STATUS = (
    "Ctrl-C ends   Page http://127.0.0.1:8420/   Kafka 127.0.0.1:45678   Redis redis://127.0.0.1:45679/0   "
    "watch from another terminal with the same settings: kbert watch"
)
_COINS = ("MARKET", "BTC", "ETH", "XRP", "SOL", "DOGE", *(f"COIN{number}" for number in range(20)))


def _metrics(messages: int) -> WindowMetrics:
    values = dict.fromkeys(WindowMetrics.model_fields, None) | {
        "window": "1h",
        "messages": messages,
        "unique_authors": messages // 2,
        "sentiment": dict.fromkeys(SENTIMENTS, 1),
        "action": dict.fromkeys(ACTIONS, 1_234),
        "emotion": dict.fromkeys(EMOTIONS, 0),
        "sentiment_index": -0.42,
        "action_balance": 0.25,
        "certainty": 0.5,
        "toxicity": 0.125,
        "dominance": 0.75,
        "late": 0,
    }
    return WindowMetrics.model_validate(values)


def _signal(number: int) -> CryptoSignal:
    shown: dict[str, Any] = {
        "id": f"message-{number}",
        "coins": ["BTC", "DOGE", "SOL", "XRP"],
        "sentiment_strength": "strong_neg",
        "action_signal": "avoid",
        "certainty": 0.5,
        "text": f"글{number} " + "비트 지금이라도 탑승해야됨 " * 20,
    }
    return CryptoSignal.model_construct(**shown)


def _lines(board: Board, width: int, height: int) -> list[str]:
    console = Console(width=width, height=height, record=True, force_terminal=True, file=io.StringIO())
    console.print(board.render(console))
    return console.export_text().splitlines()


@pytest.mark.parametrize("signals", [0, 1, 3, 500])
@pytest.mark.parametrize("coins", [1, 7, 26])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (200, 60), (40, 12)])
def test_the_board_fits_with_the_status_and_the_newest_signal(
    width: int, height: int, coins: int, signals: int
) -> None:
    board = Board("1h")
    board.status = _STATUS
    board.metrics = {symbol: _metrics(900 - n) for n, symbol in enumerate(_COINS[:coins])}
    for number in range(1, signals + 1):
        board.add(_signal(number))
    lines = _lines(board, width, height)
    assert len(lines) < height
    assert max(map(cell_len, lines)) <= width
    assert lines[0].startswith("Ctrl-C ends")
    assert any(line.startswith("MARKET") for line in lines)
    if signals:
        feed = lines[next(n for n, line in enumerate(lines) if line.strip() == "signals") + 1 :]
        assert f"글{signals} " in feed[0]
        assert [f"글{signals - n} " in line for n, line in enumerate(feed)] == [True] * len(feed)
        assert len(feed) >= min(signals, 3, height // 8)


def test_a_narrow_terminal_goes_without_columns_and_cuts_none() -> None:
    board = Board("1h")
    board.metrics = {"MARKET": _metrics(900), "BTC": _metrics(12_345)}
    names = {}
    for width in (50, 80, 100, 200):
        lines = _lines(board, width, 24)
        assert "…" not in "".join(lines)
        header = next(line for line in lines if line.startswith("coin "))
        names[width] = re.sub(r"index +- 0 [+]", "index", header)
    assert names[50].split() == ["coin", "msgs", "sentiment", "index"]
    assert {"authors", "buy/hold/sell/avoid", "certainty"} < set(names[80].split())
    assert set(names[80].split()) < set(names[100].split()) < set(names[200].split())
    assert names[200].split()[-1] == "share"

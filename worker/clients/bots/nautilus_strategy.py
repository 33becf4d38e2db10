"""An example strategy for NautilusTrader: long while a coin's sentiment index is high."""

from decimal import Decimal

from nautilus_trader.config import StrategyConfig
from nautilus_trader.core.data import Data
from nautilus_trader.model.data import Bar, BarType
from nautilus_trader.model.enums import OrderSide
from nautilus_trader.model.identifiers import ClientId, InstrumentId
from nautilus_trader.model.orders import Order
from nautilus_trader.trading.strategy import Strategy

from worker.clients.bots.nautilus import CLIENT, CryptoSignalData, data_type
from worker.clients.bots.rolling import RollingIndex


class IndexCrossConfig(StrategyConfig, frozen=True):  # type: ignore[call-arg]
    """Parameters.

    Args:
        instrument_id: what to trade.
        bar_type: whose closes make the index expire, and show that there is a price.
        coin: whose index, as signals name it.
        trade_size: of one position, in the base currency.
        window: seconds of the index.
        least: signals below which there is no index.
        enter: buy when the index rises above this.
        leave: sell when it falls below this, or when there is none any more.
    """

    instrument_id: InstrumentId
    bar_type: BarType
    coin: str
    trade_size: Decimal
    window: int = 3_600
    least: int = 3
    enter: float = 0.3
    leave: float = 0.0


class IndexCross(Strategy):
    """Buys at the market when the index crosses ``enter`` upwards, sells all below ``leave``.

    Whether it is long is what the portfolio says, so the instrument is traded by nothing else.
    """

    def __init__(self, config: IndexCrossConfig) -> None:
        super().__init__(config)
        self._index = RollingIndex(config.window, config.least)
        self._last: Order | None = None
        self._priced = False
        self._informed_from = 0
        """From here on no index means silence; before, that the strategy has just been started."""

    def on_start(self) -> None:
        """Subscribe."""
        self._informed_from = self.clock.timestamp_ns() + self.config.window * 1_000_000_000
        self.subscribe_bars(self.config.bar_type)
        self.subscribe_data(data_type(self.config.coin), client_id=ClientId(CLIENT))

    def on_data(self, data: Data) -> None:
        """A signal about the coin."""
        if isinstance(data, CryptoSignalData):
            self._index.add(data.ts_event / 1e9, data.weight, data.polarity)
            self._decide(data.ts_init)

    def on_bar(self, bar: Bar) -> None:
        """Time has passed: old signals leave the window."""
        self._priced = True
        self._decide(bar.ts_init)

    def _decide(self, now: int) -> None:
        if not self._priced or (self._last is not None and not self._last.is_closed):
            return
        index = self._index.at(now / 1e9)
        if index is not None:
            self._informed_from = min(self._informed_from, now)
        held = self.portfolio.net_position(self.config.instrument_id)
        if held <= 0 and index is not None and index > self.config.enter:
            self._order(OrderSide.BUY, self.config.trade_size)
        elif held > 0 and (now >= self._informed_from if index is None else index < self.config.leave):
            self._order(OrderSide.SELL, held)

    def _order(self, side: OrderSide, size: Decimal) -> None:
        instrument = self.cache.instrument(self.config.instrument_id)
        self._last = self.order_factory.market(
            instrument_id=self.config.instrument_id,
            order_side=side,
            quantity=instrument.make_qty(size),
        )
        self.submit_order(self._last)

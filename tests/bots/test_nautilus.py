"""NautilusTrader itself: a back test on recorded signals, and the data client on a real topic."""

import asyncio
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson
import pytest

from schemas.labels import SENTIMENTS
from schemas.signals import CryptoSignal
from tests.kafka_io import produce
from tests.servers import KafkaServer, Topics
from tests.serving import full_signal, now
from tests.waiting import eventually
from worker.clients.bots.markets import Markets
from worker.clients.bots.rolling import RollingIndex
from worker.coins import load_catalogue

pytest.importorskip(
    "nautilus_trader", reason="NautilusTrader 1.221 needs Python 3.11 to 3.13: `make bots` installs it"
)

from nautilus_trader.backtest.engine import BacktestEngine, BacktestEngineConfig
from nautilus_trader.config import LoggingConfig
from nautilus_trader.core.uuid import UUID4
from nautilus_trader.data.messages import SubscribeData, UnsubscribeData
from nautilus_trader.model.currencies import BTC
from nautilus_trader.model.data import Bar, BarType
from nautilus_trader.model.enums import AccountType, OmsType, OrderSide, OrderStatus
from nautilus_trader.model.identifiers import ClientId, InstrumentId, Symbol, Venue
from nautilus_trader.model.instruments import CurrencyPair
from nautilus_trader.model.objects import Currency, Money, Price, Quantity
from nautilus_trader.model.orders import Order
from nautilus_trader.trading.strategy import Strategy

from worker.clients.bots.nautilus import (
    CLIENT,
    CryptoSignalData,
    KbertDataClientConfig,
    KbertDataClientFactory,
    data_type,
    nautilus_data,
)
from worker.clients.bots.nautilus_strategy import IndexCross, IndexCrossConfig

START = datetime(2026, 3, 2, tzinfo=UTC)
START_NS = int(START.timestamp()) * 1_000_000_000
MINUTE_NS = 60_000_000_000
KRW = Currency.from_str("KRW")
UPBIT = Venue("UPBIT")
MARKET = InstrumentId(Symbol(Markets(load_catalogue()).code("BTC", "upbit")), UPBIT)
BARS = BarType.from_str(f"{MARKET}-1-MINUTE-LAST-EXTERNAL")
WINDOW, LEAST, ENTER, LEAVE = 1_800, 3, 0.3, 0.0

Trade = tuple[int, str, float]


def said(number: int, minute: float, lag: float, sentiment: str, coin: str = "BTC") -> CryptoSignal:
    """Published that many minutes after midnight, processed ``lag`` minutes later."""
    published = START + timedelta(minutes=minute)
    fields = {
        "published_at": published,
        "processed_at": published + timedelta(minutes=lag),
        "sentiment_strength": sentiment,
    }
    return CryptoSignal.model_validate(full_signal(number, START, (coin,)) | fields)


def price(minute: int) -> float:
    return 100_000_000 + 1_000 * minute


def bars(count: int) -> list[Bar]:
    """A candle a minute, known at its close; the price of each minute is its own."""
    made = []
    for minute in range(1, count + 1):
        cost = Price(price(minute), 0)
        at = START_NS + minute * MINUTE_NS
        made.append(Bar(BARS, cost, cost, cost, cost, Quantity(100, 8), at, at))
    return made


class BoughtBefore(Strategy):  # type: ignore[misc]
    """What a run before left behind: half a coin from the first candle on."""

    def on_start(self) -> None:
        self.subscribe_bars(BARS)

    def on_bar(self, bar: Bar) -> None:
        if not self.cache.orders(strategy_id=self.id):
            self.submit_order(self.order_factory.market(MARKET, OrderSide.BUY, Quantity(0.5, 8)))


def backtest(
    signals: Sequence[CryptoSignal],
    minutes: int = 600,
    *,
    most: float = 1.0,
    others: Sequence[Strategy] = (),
    status: OrderStatus = OrderStatus.FILLED,
) -> list[Trade]:
    """Orders of the example strategy: nanoseconds after midnight, side, price."""
    engine = BacktestEngine(BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True)))
    try:
        engine.add_venue(
            UPBIT, OmsType.NETTING, AccountType.CASH, [Money(10**9, KRW), Money(0, BTC)], base_currency=None
        )
        engine.add_instrument(
            CurrencyPair(
                MARKET, Symbol("KRW-BTC"), BTC, KRW, 0, 8, Price(1, 0), Quantity(1e-8, 8), 0, 0,
                maker_fee=Decimal(0), taker_fee=Decimal(0), max_quantity=Quantity(most, 8),
            )
        )  # fmt: skip
        engine.add_data(bars(minutes))
        if signals:
            engine.add_data(nautilus_data(signals), client_id=ClientId(CLIENT))
        config = IndexCrossConfig(
            instrument_id=MARKET, bar_type=BARS, coin="BTC", trade_size=Decimal("0.5"),
            window=WINDOW, least=LEAST, enter=ENTER, leave=LEAVE,
        )  # fmt: skip
        example = IndexCross(config)
        engine.add_strategies([*others, example])
        engine.run()
        orders: list[Order] = engine.cache.orders(strategy_id=example.id)
        orders.sort(key=lambda order: order.ts_init)
        assert {order.status for order in orders} <= {status}
        return [
            (order.ts_init - START_NS, "BUY" if order.side == OrderSide.BUY else "SELL", order.avg_px)
            for order in orders
        ]
    finally:
        engine.dispose()


def expected(signals: Sequence[CryptoSignal], minutes: int = 600) -> list[Trade]:
    """The same by hand: at each moment, only what was processed by then, and the last closed candle."""
    known = sorted((s for s in signals if "BTC" in s.coins), key=lambda s: s.processed_at)
    moments = {(s.processed_at - START) // timedelta(microseconds=1) * 1_000 for s in known}
    moments |= {minute * MINUTE_NS for minute in range(1, minutes + 1)}
    trades: list[Trade] = []
    for moment in sorted(m for m in moments if m >= MINUTE_NS):
        at = START + timedelta(microseconds=moment // 1_000)
        inside = [
            s for s in known if s.processed_at <= at and s.published_at > at - timedelta(seconds=WINDOW)
        ]
        index = RollingIndex(WINDOW, LEAST)
        for s in inside:
            polarity = {"strong_pos": 1, "weak_pos": 0.5, "neutral": 0, "weak_neg": -0.5, "strong_neg": -1}
            index.add(s.published_at.timestamp(), s.certainty * s.relevance, polarity[s.sentiment_strength])
        value = index.at(at.timestamp())
        last = price(min(moment // MINUTE_NS, minutes))
        if len(trades) % 2 == 0 and value is not None and value > ENTER:
            trades.append((moment, "BUY", last))
        elif len(trades) % 2 == 1 and (value is None or value < LEAVE):
            trades.append((moment, "SELL", last))
    return trades


def test_orders_appear_when_the_index_crosses_and_not_before_it_was_known() -> None:
    """Three good ones of minute 60 are known at 61, 62 and 75.5; two bad ones at 90; all gone after 90."""
    signals = [
        said(1, 60, 1, "strong_pos"),
        said(2, 60, 2, "strong_pos"),
        said(3, 60, 15.5, "strong_pos"),
        said(4, 60, 15.6, "strong_pos", "ETH"),
        *(said(n, 80, 0.25, "strong_neg") for n in (5, 6, 7, 8)),
        *(said(n, 200, 0.5, "weak_pos") for n in (9, 10, 11)),
    ]
    assert backtest(signals) == [
        (int(75.5 * MINUTE_NS), "BUY", price(75)),
        (int(80.25 * MINUTE_NS), "SELL", price(80)),
        (int(200.5 * MINUTE_NS), "BUY", price(200)),
        (230 * MINUTE_NS, "SELL", price(230)),  # the three have left the window: there is no index
    ]
    assert backtest([]) == []


def test_a_restarted_strategy_knows_what_it_holds() -> None:
    """What an earlier run bought is not bought again, and is sold when the index falls or never comes."""
    signals = [
        *(said(n, 10, 0.5, "strong_pos") for n in (1, 2, 3)),
        *(said(n, 20, 0.25, "strong_neg") for n in (4, 5, 6, 7)),
    ]
    trades = backtest(signals, others=[BoughtBefore()])
    assert trades == [(int(20.25 * MINUTE_NS), "SELL", price(20))]
    trades = backtest([], others=[BoughtBefore()])
    assert trades == [(31 * MINUTE_NS, "SELL", price(31))]  # it has seen a whole window


def test_what_was_refused_is_not_held() -> None:
    """An order too large: it tries again while the index is high, and has nothing to sell afterwards."""
    signals = [
        *(said(n, 60, 0.5, "strong_pos") for n in (1, 2, 3)),
        *(said(n, 80, 0.25, "strong_neg") for n in (4, 5, 6, 7)),
    ]
    trades = backtest(signals, most=0.1, status=OrderStatus.DENIED)
    assert len(trades) > 1
    assert {side for _, side, _ in trades} == {"BUY"}


@pytest.mark.parametrize("seed", range(4))
def test_every_order_is_where_a_count_by_hand_puts_it(seed: int) -> None:
    rng = random.Random(seed)
    signals = [
        said(n, rng.uniform(0, 590), rng.expovariate(0.3), mood)
        for n in range(250)
        for mood in [rng.choices(SENTIMENTS, [3, 3, 2, 2, 3])[0]]
    ]
    trades = backtest(signals)
    assert trades == expected(signals)
    assert len(trades) > 4
    cut = trades[len(trades) // 2][0]
    known = [s for s in signals if s.processed_at <= START + timedelta(microseconds=cut // 1_000)]
    before = [trade for trade in backtest(known) if trade[0] <= cut]
    assert before == [trade for trade in trades if trade[0] <= cut]  # the future changes no earlier order


def test_the_data_survives_a_catalogue() -> None:
    (made,) = nautilus_data([said(1, 60, 1, "weak_neg")])
    data = made.data
    assert (data.ts_event, data.ts_init) == (START_NS + 60 * MINUTE_NS, START_NS + 61 * MINUTE_NS)
    assert data.polarity == -0.5
    assert data.weight == pytest.approx(0.72)
    for again in (
        CryptoSignalData.from_dict(data.to_dict()),
        CryptoSignalData.from_bytes(data.to_bytes()),
        *CryptoSignalData.from_arrow(data.to_arrow()),
    ):
        assert again.to_dict() == data.to_dict()


def test_the_same_id_in_another_room_is_another_signal() -> None:
    first = said(500, 60, 1, "weak_neg")
    other = first.model_copy(update={"source": "another room", "sentiment_strength": "weak_pos"})
    assert [made.data.polarity for made in nautilus_data([first, other, first])] == [-0.5, 0.5]


async def test_the_data_client_publishes_what_is_subscribed(kafka: KafkaServer, topics: Topics) -> None:
    from nautilus_trader.cache.cache import Cache
    from nautilus_trader.common.component import LiveClock, MessageBus
    from nautilus_trader.live.data_engine import LiveDataEngine
    from nautilus_trader.model.identifiers import TraderId

    topic = await topics.make("signals")
    loop = asyncio.get_running_loop()
    clock = LiveClock()
    bus = MessageBus(trader_id=TraderId("TESTER-001"), clock=clock)
    cache = Cache()
    engine = LiveDataEngine(loop=loop, msgbus=bus, cache=cache, clock=clock)
    config = KbertDataClientConfig(bootstrap_servers=kafka.bootstrap_servers, topic=topic, min_relevance=0.5)
    client = KbertDataClientFactory.create(loop, CLIENT, config, bus, cache, clock)
    engine.register_client(client)
    received: list[CryptoSignalData] = []
    bus.subscribe(topic=f"data.{data_type('BTC').topic}", handler=received.append)
    engine.start()
    client.connect()
    await eventually(lambda: client.is_connected, what="the data client")

    def command(kind: type) -> Any:
        return kind(data_type("BTC"), None, ClientId(CLIENT), None, UUID4(), clock.timestamp_ns())

    engine.execute(command(SubscribeData))
    number = 0

    async def send(*coins: str, **fields: Any) -> int:
        nonlocal number
        number += 1
        await produce(
            kafka.bootstrap_servers, topic, [orjson.dumps(full_signal(number, now(), coins, **fields))]
        )
        return number

    async def arrived() -> bool:
        await send("BTC")
        return bool(received)

    await eventually(arrived, timeout=60, interval=0.2, what="the first signal")
    await send("ETH")
    await send("BTC", relevance=0.2)
    last = await send("ETH", "BTC", sentiment_strength="strong_neg")
    await eventually(lambda: received[-1].message_id == f"message-{last}")
    assert {data.coin for data in received} == {"BTC"}
    assert {data.message_id for data in received}.isdisjoint({f"message-{last - 1}", f"message-{last - 2}"})
    assert received[-1].polarity == -1.0
    assert received[-1].ts_event < received[-1].ts_init <= clock.timestamp_ns()
    engine.execute(command(UnsubscribeData))
    await eventually(lambda: not client._coins)
    client.disconnect()
    await eventually(lambda: not client.is_connected)
    engine.stop()

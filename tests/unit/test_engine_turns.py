"""Two engines on one device: neither starves the other."""

import asyncio
import threading

import pytest

from tests.fake_traffic import HashEngine, HashTokeniser
from tests.waiting import eventually
from worker.inference.thread import EngineThread
from worker.inference.turns import EngineInTurn, Turns


def test_turns_are_given_in_the_order_of_asking() -> None:
    turns, order, asked = Turns(), list[int](), list[threading.Thread]()

    def work(number: int) -> None:
        with turns.mine():
            order.append(number)

    with turns.mine():
        for number in range(8):
            thread = threading.Thread(target=work, args=(number,))
            thread.start()
            asked.append(thread)
            while turns._next != number + 2:  # it stands in the queue
                pass
        assert order == []
    for thread in asked:
        thread.join(10)
    assert order == list(range(8))


def test_a_failing_batch_gives_its_turn_back() -> None:
    turns = Turns()
    with pytest.raises(RuntimeError), turns.mine():
        raise RuntimeError("device")
    with turns.mine():
        pass


async def test_a_flooded_pipeline_does_not_starve_the_other() -> None:
    log: list[str] = []
    running = threading.Lock()

    class Exclusive(HashEngine):
        def run(self, prepared: list) -> dict:  # type: ignore[type-arg]
            assert running.acquire(blocking=False), "two batches on one device"
            try:
                return super().run(prepared)
            finally:
                running.release()

    turns = Turns()
    texts = HashTokeniser().encode(["a"])
    threads = {
        name: EngineThread(EngineInTurn(Exclusive(name=name, log=log, seconds_per_batch=0.002), turns))
        for name in ("crypto", "traffic")
    }
    with turns.mine():  # both fill their queues before the first batch runs
        flood = [threads["crypto"].submit(texts) for _ in range(200)]
        few = [threads["traffic"].submit(texts) for _ in range(20)]
        await eventually(lambda: turns._next == 3)
    await asyncio.gather(*flood, *few)
    for thread in threads.values():
        thread.close()
    assert log.count("crypto") == 200
    # Strictly in turn while both have work: the flood is at most a batch or two ahead of each of the few.
    last = max(place for place, name in enumerate(log) if name == "traffic")
    assert log[: last + 1].count("crypto") <= 3 * 20

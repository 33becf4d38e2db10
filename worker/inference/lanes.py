"""Parts of one batch on several cores, each part on its own: what one core computes waits for no other.

Cores that share each product have to meet after each of the 20 steps of a layer. With int8 products, which
take little time, the meetings cost much: two cores of a Xeon did 3,473 tokens/s in batches of 256 in two
lanes and 2,619 together, 4,810 and 4,159 in batches of 2,048. In fp32 neither was ahead.
"""

import atexit
import queue
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")
_Items = queue.SimpleQueue[Callable[[], None] | None]
_LEAVE_WITHIN: Final = 5.0
"""Seconds that the end of the process waits for parts that are being computed."""
_lanes: dict[threading.Thread, _Items] = {}


class Lanes:
    """Threads that take items from one queue; each computes with its share of the cores.

    They are daemons, as the engine's own thread is: what hangs in native code keeps no process from exiting
    for long.

    Args:
        count: Lanes, at least 1.
        threads: Cores for all of them.
    """

    def __init__(self, count: int, threads: int) -> None:
        items: _Items = queue.SimpleQueue()
        self._items = items
        for number in range(count):
            lane = threading.Thread(
                target=_work,
                args=(items, max(1, threads // count)),
                name=f"kbert-lane-{number}",
                daemon=True,
            )
            _lanes[lane] = items
            lane.start()
        weakref.finalize(self, _end, items, count).atexit = False

    def map(self, compute: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """``compute`` of each item, in order; raises the first error of an item, when all have ended."""
        ended: queue.SimpleQueue[tuple[int, Any, BaseException | None]] = queue.SimpleQueue()

        def task(number: int, item: Item) -> Callable[[], None]:
            def run() -> None:
                try:
                    ended.put((number, compute(item), None))
                except BaseException as error:  # noqa: BLE001 - it belongs to the caller
                    ended.put((number, None, error))

            return run

        for number, item in enumerate(items):
            self._items.put(task(number, item))
        answers = sorted((ended.get() for _ in items), key=lambda answer: answer[0])
        for _, _, error in answers:
            if error is not None:
                raise error
        return [result for _, result, _ in answers]


def set_threads(count: int) -> None:
    """Let the calling thread compute on so many cores; OpenMP keeps the number for each thread."""
    # Asked first: a thread's first computation would else take over what another thread set last.
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


def _work(items: _Items, threads: int) -> None:
    set_threads(threads)
    try:
        while (task := items.get()) is not None:
            task()
            # It knows the engine, whose end would else wait for the next batch.
            del task
    finally:
        _lanes.pop(threading.current_thread(), None)


def _end(items: _Items, count: int) -> None:
    for _ in range(count):
        items.put(None)


@atexit.register
def _end_all() -> None:
    """At exit: a thread that came back from native code to a finalised interpreter would abort all."""
    lanes = dict(_lanes)
    for items in lanes.values():
        items.put(None)
    deadline = time.monotonic() + _LEAVE_WITHIN
    for lane in lanes:
        lane.join(max(0.0, deadline - time.monotonic()))

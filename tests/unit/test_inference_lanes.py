import gc
import subprocess
import sys
import threading

import pytest
import torch

from worker.inference.lanes import Lanes


def lane_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("kbert-lane")}


def test_answers_come_in_order_from_several_threads() -> None:
    lanes = Lanes(3, 6)
    meet = threading.Barrier(3, timeout=20)

    def compute(number: int) -> tuple[int, str, int]:
        meet.wait()
        return number, threading.current_thread().name, torch.get_num_threads()

    answers = lanes.map(compute, range(3))
    assert [number for number, _, _ in answers] == [0, 1, 2]
    assert len({name for _, name, _ in answers}) == 3
    assert {threads for _, _, threads in answers} == {2}
    assert lanes.map(lambda number: number * number, range(50)) == [number**2 for number in range(50)]


def test_an_error_reaches_the_caller_when_all_have_ended_and_the_lanes_go_on() -> None:
    lanes = Lanes(2, 2)
    ended = []

    def compute(number: int) -> int:
        ended.append(number)
        if number % 2:
            raise ZeroDivisionError(str(number))
        return number

    with pytest.raises(ZeroDivisionError, match="1"):
        lanes.map(compute, range(6))
    assert sorted(ended) == list(range(6))
    assert lanes.map(compute, [2, 4]) == [2, 4]


def test_lanes_end_with_their_owner() -> None:
    before = lane_threads()
    lanes = Lanes(2, 2)
    mine = lane_threads() - before
    assert len(mine) == 2
    assert lanes.map(lambda number: number, range(4)) == list(range(4))
    del lanes
    gc.collect()
    for thread in mine:
        thread.join(20)
        assert not thread.is_alive()


def test_a_process_that_ends_in_the_middle_of_a_part_ends_cleanly() -> None:
    script = """
import threading, torch
from worker.inference.lanes import Lanes
lanes, begun = Lanes(2, 2), threading.Event()
def compute(_):
    begun.set()
    for _ in range(20):
        torch.randn(300, 300) @ torch.randn(300, 300)
threading.Thread(target=lambda: lanes.map(compute, range(4)), daemon=True).start()
begun.wait()
"""
    for _ in range(3):
        ended = subprocess.run(
            [sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=60
        )
        assert (ended.returncode, ended.stderr) == (0, "")

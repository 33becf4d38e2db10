"""Repeated ids are found within their window, and the answer never changes on re-reading."""

from hypothesis import given
from hypothesis import strategies as st

from worker.aggregates.repeats import RepeatWindow, RepeatWindows

logs = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 6)), min_size=1, max_size=60)
"""Steps between offsets (transactions leave gaps) and ids."""


def offsets_of(log: list[tuple[int, int]]) -> list[tuple[int, int]]:
    records, offset = [], 0
    for step, identity in log:
        offset += step
        records.append((offset, identity))
    return records


def plainly(records: list[tuple[int, int]], size: int) -> dict[int, bool]:
    return {
        offset: any(i == identity and offset - size <= o < offset for o, i in records)
        for offset, identity in records
    }


@given(logs, st.integers(1, 20))
def test_a_repeat_is_an_id_that_stood_within_the_window(log: list[tuple[int, int]], size: int) -> None:
    records = offsets_of(log)
    window = RepeatWindow(size)
    assert {o: window.is_repeat(o, i) for o, i in records} == plainly(records, size)


@given(logs, st.integers(1, 20), st.data())
def test_reading_again_gives_the_same_answers(
    log: list[tuple[int, int]], size: int, data: st.DataObject
) -> None:
    records = offsets_of(log)
    expected = plainly(records, size)
    window = RepeatWindow(size)
    position = 0
    for _ in range(6):
        stop = data.draw(st.integers(position, len(records)))
        first_offset = records[position][0] if position < len(records) else 0
        for offset, identity in records[position:stop]:
            found = window.is_repeat(offset, identity)
            # Below a full window after the start there may be repeats of what was not read.
            if offset >= first_offset + size or position == 0:
                assert found == expected[offset]
        position = data.draw(st.integers(0, stop)) if stop else 0


@given(logs, st.integers(1, 20), st.integers(0, 60))
def test_after_a_full_window_a_late_starter_agrees(log: list[tuple[int, int]], size: int, start: int) -> None:
    records = offsets_of(log)
    expected = plainly(records, size)
    tail = records[start:]
    window = RepeatWindow(size)
    for offset, identity in tail:
        found = window.is_repeat(offset, identity)
        if offset - size >= tail[0][0]:
            assert found == expected[offset]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), max_size=60), st.integers(0, 9), st.data())
def test_an_id_counts_once_whichever_partition_it_comes_back_on(
    log: list[tuple[int, int]], late: int, data: st.DataObject
) -> None:
    """Also when all is read again in another order, from before what was known, or after partitions left."""
    partitions: dict[int, list[int]] = {number: [] for number, _ in log}
    for number, identity in log:
        partitions[number].append(identity)
    windows = RepeatWindows(100)

    def counted(start: int) -> list[int]:
        order = data.draw(st.permutations([n for n, rows in partitions.items() for _ in rows[start:]]))
        position = dict.fromkeys(partitions, start)
        found = []
        for number in order:
            offset = position[number]
            position[number] += 1
            identity = partitions[number][offset]
            if not windows.of(("signals", number)).is_repeat(offset, identity):
                found.append(identity)
        return sorted(found)

    for start in (late, 0):
        expected = sorted({identity for rows in partitions.values() for identity in rows[start:]})
        assert counted(start) == expected
    for number in partitions:
        windows.forget(("signals", number))
    assert windows._owners == {}
    assert counted(0) == sorted({identity for _, identity in log})


def test_what_another_partition_had_is_told_apart() -> None:
    windows = RepeatWindows(10)
    one, two = (windows.of(("signals", n)) for n in range(2))
    assert [one.is_repeat(0, 7), two.is_repeat(0, 7), two.is_repeat(1, 7)] == [False, True, True]
    assert [two.came_elsewhere(offset) for offset in range(2)] == [True, False]
    for offset in range(1, 12):
        one.is_repeat(offset, 100 + offset)
    assert not one.is_repeat(12, 7), "it is beyond the window of its partition"
    assert len(windows._owners) == 11


def test_it_does_not_grow_beyond_its_window() -> None:
    window = RepeatWindow(100)
    for offset in range(10_000):
        window.is_repeat(offset, offset % 150)
        window.is_repeat(offset, offset % 150)
    assert len(window._offsets) <= 101
    for offset in range(10_000, 20_000):
        window.is_repeat(offset, 1)
    assert len(window._repeats) <= 101

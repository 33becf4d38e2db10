"""Every token lies in one row and one place of one tile, whatever the lengths."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from worker.inference.packing import pack, share, split

LENGTHS = st.one_of(
    st.lists(st.integers(1, 600), min_size=1, max_size=120),
    st.lists(st.integers(1, 24), min_size=1, max_size=120),
)


@given(lengths=LENGTHS)
def test_rows_and_positions(lengths: list[int]) -> None:
    packing = pack(lengths)
    assert packing.tokens == sum(lengths)
    assert packing.tokens <= packing.rows
    assert packing.rows - packing.tokens < max(8, packing.tokens / 4)
    seen = np.full(packing.rows, -1)
    for number, length in enumerate(lengths):
        rows = np.arange(packing.starts[number], packing.starts[number] + length)
        assert (seen[rows] == -1).all()
        seen[rows] = number
        assert packing.positions[rows].tolist() == list(range(length))
        assert (packing.owners[rows] == number).all()
    assert (seen[: packing.tokens] >= 0).all()


@given(lengths=LENGTHS)
def test_tiles(lengths: list[int]) -> None:
    packing = pack(lengths)
    assert packing.scatter.max() < len(packing.gather)
    # Out to the tiles and back gives every token itself.
    rows = np.arange(packing.tokens)
    assert (packing.gather[packing.scatter[rows]] == rows).all()
    assert sorted(packing.slots[packing.slot_of].tolist()) == list(range(len(lengths)))
    for tile in packing.tiles:
        for slot in range(tile.count):
            number = int(packing.slots[tile.first + slot])
            start = tile.start + slot * tile.length
            keys = packing.gather[start : start + tile.length]
            mask = np.zeros(tile.length) if tile.mask is None else tile.mask[slot]
            assert np.isfinite(mask).any(), "a row without any key would be NaN"
            if packing.slot_of[number] != tile.first + slot:
                continue  # filler: its output is read by nobody
            visible = keys[np.isfinite(mask)]
            first = packing.starts[number]
            assert visible.tolist() == list(range(first, first + lengths[number]))
            assert (packing.scatter[visible] == start + np.arange(lengths[number])).all()


@given(lengths=st.lists(st.integers(1, 512), min_size=1, max_size=200))
def test_few_distinct_shapes(lengths: list[int]) -> None:
    """oneDNN compiles a kernel for each shape and keeps 1024 of them."""
    shapes = {(tile.count, tile.length) for tile in pack(lengths).tiles}
    assert {count for count, _ in shapes} <= {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64}
    assert all(length % 8 == 0 for _, length in shapes)
    assert all(count * length <= 1024 or count == 1 for count, length in shapes)


@given(lengths=LENGTHS, most=st.integers(1, 2000))
def test_split(lengths: list[int], most: int) -> None:
    parts = split(lengths, most)
    assert sorted(number for part in parts for number in part.tolist()) == list(range(len(lengths)))
    for part in parts:
        assert len(part) == 1 or sum(lengths[number] for number in part) <= most


@given(lengths=LENGTHS, parts=st.integers(1, 16))
def test_shares_hold_every_text_once_and_nearly_as_many_tokens(lengths: list[int], parts: int) -> None:
    shares = share(lengths, parts)
    assert 1 <= len(shares) <= parts
    assert sorted(np.concatenate(shares).tolist()) == list(range(len(lengths)))
    assert all(len(numbers) for numbers in shares)
    for numbers in shares:
        assert sum(lengths[number] for number in numbers) <= sum(lengths) / parts + max(lengths)

"""The offset ledger never commits past an unfinished offset, whatever the order of finishing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from worker.source.ledger import OffsetLedger

PARTITIONS = st.integers(0, 2)


class LedgerMachine(RuleBasedStateMachine):
    """Against a model that keeps every offset's state in plain sets."""

    in_flight = Bundle("in_flight")

    def __init__(self) -> None:
        super().__init__()
        self.ledger: OffsetLedger[int] = OffsetLedger()
        self.unfinished: dict[int, set[int]] = {}
        self.position: dict[int, int] = {}
        self.committed: dict[int, int] = {}
        self.generation = {0: 0, 1: 0, 2: 0}

    @rule(target=in_flight, partition=PARTITIONS, gaps=st.lists(st.integers(0, 3), min_size=1, max_size=8))
    def track(self, partition: int, gaps: list[int]) -> object:
        offsets = []
        offset = self.position.get(partition, 0)
        for gap in gaps:  # compacted topics and transaction markers leave gaps
            offset += gap
            offsets.append(offset)
            offset += 1
        self.ledger.track(partition, offsets)
        self.unfinished.setdefault(partition, set()).update(offsets)
        self.position[partition] = offset
        return multiple(*((partition, self.generation[partition], o) for o in offsets))

    @rule(item=consumes(in_flight))
    def finish(self, item: tuple[int, int, int]) -> None:
        partition, generation, offset = item
        if generation == self.generation[partition]:  # the source asks the claim
            self.ledger.finish(partition, [offset])
            self.unfinished[partition].discard(offset)

    @rule(partition=PARTITIONS)
    def release(self, partition: int) -> None:
        self.ledger.release([partition])
        self.generation[partition] += 1
        self.unfinished.pop(partition, None)
        # The next owner starts at the committed offset.
        if partition in self.position:
            self.position[partition] = self.committed.get(partition, 0)

    @rule()
    def commit(self) -> None:
        positions = self.ledger.committable()
        self.ledger.mark_committed(positions)
        for partition, position in positions.items():
            assert position >= self.committed.get(partition, 0)
            self.committed[partition] = position
        assert self.ledger.committable() == {}

    @invariant()
    def never_past_an_unfinished_offset(self) -> None:
        for partition, position in self.ledger.committable().items():
            unfinished = self.unfinished.get(partition, set())
            assert not any(offset < position for offset in unfinished)
            expected = min(unfinished) if unfinished else self.position[partition]
            assert position == expected

    @invariant()
    def counts_what_is_outstanding(self) -> None:
        for partition, unfinished in self.unfinished.items():
            held_back = self.ledger.outstanding([partition])
            assert held_back >= len(unfinished)
            assert (held_back == 0) == (not unfinished)


TestLedger = LedgerMachine.TestCase


@given(order=st.permutations(range(12)))
def test_the_position_is_the_first_unfinished_offset(order: list[int]) -> None:
    ledger: OffsetLedger[str] = OffsetLedger()
    ledger.track("p", range(12))
    done: set[int] = set()
    for offset in order:
        ledger.finish("p", [offset])
        done.add(offset)
        expected = next((o for o in range(12) if o not in done), 12)
        assert ledger.committable() == {"p": expected}


def test_reading_backwards_is_an_error() -> None:
    ledger: OffsetLedger[str] = OffsetLedger()
    ledger.track("p", [5])
    with pytest.raises(ValueError, match="offset 5 was read after 5"):
        ledger.track("p", [5])


def test_finishing_after_release_is_ignored() -> None:
    ledger: OffsetLedger[str] = OffsetLedger()
    ledger.track("p", [0])
    ledger.release(["p"])
    ledger.finish("p", [0])
    assert ledger.committable() == {}

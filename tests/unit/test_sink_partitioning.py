"""A key stands on the partition where every other Kafka client would put it."""

from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from worker.sink.partitioning import partitions_of


@given(keys=st.lists(st.binary(max_size=40) | st.binary(max_size=700)), count=st.integers(1, 50))
def test_keys_go_where_other_clients_send_them(keys: list[bytes], count: int) -> None:
    partitions = list(range(count))
    theirs = DefaultPartitioner()
    assert partitions_of(keys, partitions) == [theirs(key, partitions, []) for key in keys]


@given(keys=st.lists(st.binary(min_size=8, max_size=11), min_size=50))
def test_keys_of_one_length_are_hashed_each_for_itself(keys: list[bytes]) -> None:
    partitions = list(range(1_000))
    theirs = DefaultPartitioner()
    assert partitions_of(keys, partitions) == [theirs(key, partitions, []) for key in keys]

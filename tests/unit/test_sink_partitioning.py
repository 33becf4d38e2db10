"""A key stands on the partition where every other Kafka client would put it."""

from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from worker.sink.partitioning import partition_of


@given(key=st.binary(max_size=700), count=st.integers(1, 50))
def test_keys_go_where_other_clients_send_them(key: bytes, count: int) -> None:
    partitions = list(range(count))
    assert partition_of(key, tuple(partitions)) == DefaultPartitioner()(key, partitions, [])

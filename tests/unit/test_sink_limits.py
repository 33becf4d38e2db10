"""The cheap bound never says that a record fits which does not."""

from hypothesis import given
from hypothesis import strategies as st

from worker.sink.limits import record_size, size_at_most
from worker.sink.record import OutRecord

headers = st.lists(st.tuples(st.text(max_size=40), st.none() | st.binary(max_size=300)), max_size=5)


@given(
    key=st.none() | st.binary(max_size=300),
    value=st.binary(max_size=3_000),
    headers=headers,
    fixed=st.booleans(),
)
def test_the_bound_is_never_too_low(
    key: bytes | None, value: bytes, headers: list[tuple[str, bytes | None]], fixed: bool
) -> None:
    record = OutRecord("topic", key, value, tuple(headers) if fixed else headers)
    assert size_at_most(record) >= record_size(record)

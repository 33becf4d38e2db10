"""Signals serialised together are what each is alone."""

from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from schemas.messages import RawMessage
from schemas.signals import ModelInfo
from worker.settings import SinkSettings
from worker.sink.signals import CryptoSignalBuilder, serialise, serialise_each

TEXTS = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(['\n,\n"', "\r\n", "\x85 "])
VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.datetimes() | TEXTS,
    lambda children: st.lists(children) | st.dictionaries(TEXTS, children),
    max_leaves=8,
)


@given(signals=st.lists(st.dictionaries(TEXTS, VALUES, max_size=4), max_size=6))
def test_a_batch_is_serialised_as_its_signals_are(signals: list[dict[str, object]]) -> None:
    assert serialise_each(signals) == [serialise(signal) for signal in signals]


def test_a_remembered_author_has_the_hash_of_the_first_time() -> None:
    def builder() -> CryptoSignalBuilder:
        return CryptoSignalBuilder(
            ModelInfo(name="m", revision="0"), SinkSettings(author_key=SecretStr("key"))
        )

    message = RawMessage(text="x", author="a")
    known = builder()
    first = known._hash(message.author or "")
    assert known._hash("a") == first == builder()._hash("a")
    assert known._hash("b") != first

"""The encoder trains in bf16 where that is faster, and says so to autocast."""

from collections.abc import Iterator

import pytest
import torch

from worker.training import mixed_precision


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    mixed_precision.bf16_pays.cache_clear()
    yield
    mixed_precision.bf16_pays.cache_clear()


@pytest.mark.parametrize(
    ("fp32", "bf16", "expected"),
    [(2.0, 1.0, torch.bfloat16), (1.0, 0.95, torch.float32), (1.0, 2.0, torch.float32)],
)
def test_a_cpu_multiplies_in_the_faster_precision(
    fp32: float, bf16: float, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {torch.float32: fp32, torch.bfloat16: bf16}
    monkeypatch.setattr(mixed_precision, "_seconds", lambda _, dtype: seconds[dtype])
    with mixed_precision.autocast(torch.device("cpu"), 8):
        product = torch.nn.functional.linear(torch.ones(2, 8), torch.ones(3, 8))
    assert product.dtype is expected


def test_a_real_product_is_timed() -> None:
    assert mixed_precision.bf16_pays(64) in (True, False)

"""The encoder trains in bf16 where that is faster, and says so to autocast."""

from collections.abc import Iterator

import pytest
import torch

from worker.inference import devices
from worker.training import mixed_precision


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    devices.bf16_pays.cache_clear()
    yield
    devices.bf16_pays.cache_clear()


@pytest.mark.parametrize(
    ("fp32", "bf16", "expected"),
    [(2.0, 1.0, torch.bfloat16), (1.0, 2.0, torch.float32)],
)
def test_a_cpu_multiplies_in_the_faster_precision(
    fp32: float, bf16: float, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {torch.float32: fp32, torch.bfloat16: bf16}
    monkeypatch.setattr(devices, "multiplies_bf16", lambda: True)
    monkeypatch.setattr(devices, "_product_seconds", seconds.__getitem__)
    with mixed_precision.autocast(torch.device("cpu")):
        product = torch.nn.functional.linear(torch.ones(2, 8), torch.ones(3, 8))
    assert product.dtype is expected


def test_a_real_product_is_timed() -> None:
    assert devices.bf16_pays() in (True, False)


def test_without_the_instructions_nothing_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "multiplies_bf16", lambda: False)
    monkeypatch.setattr(devices, "_product_seconds", lambda dtype: pytest.fail(f"{dtype} was timed"))
    assert devices.bf16_pays() is False

"""A feed-forward layer in bytes: outliers, the caller's residual, neurons of one scale."""

import pytest
import torch

from worker.inference.int8 import Int8FeedForward, Range, int8_runs

HIDDEN, ROWS = 64, 128
pytestmark = pytest.mark.skipif(not int8_runs(), reason="this CPU multiplies no bytes")


def layer(reach: float, neurons: int = 256) -> tuple[Int8FeedForward, torch.Tensor, torch.Tensor]:
    """A layer with one neuron that reaches so many times as far, an input, and the exact output."""
    drawn = torch.Generator().manual_seed(3)
    x = torch.randn(ROWS, HIDDEN, generator=drawn)
    up = torch.randn(neurons, HIDDEN, generator=drawn) * 0.1
    down = torch.randn(HIDDEN, neurons, generator=drawn)
    up[-1] *= reach
    down[:, -1] /= reach
    bias = torch.randn(HIDDEN, generator=drawn)
    inner = torch.nn.functional.gelu(x @ up.T)
    made = Int8FeedForward(
        (up, torch.zeros(neurons)),
        (down, bias),
        "gelu",
        seen=Range(x.amin(0), x.amax(0)),
        inner=Range(inner.amin(0), inner.amax(0)),
        dtype=torch.float32,
    )
    return made, x, x + inner @ down.T + bias


@pytest.mark.parametrize("neurons", [1, 8, 15, 16, 17, 37, 256])
@pytest.mark.parametrize("reach", [1.0, 30.0])
def test_one_neuron_that_reaches_far_costs_the_others_no_digits(reach: float, neurons: int) -> None:
    made, x, exact = layer(reach, neurons)
    before = x.clone()
    with torch.inference_mode():
        error = (made(x) - exact).abs().mean() / exact.std()
    assert error < 0.015
    assert torch.equal(x, before), "the residual belongs to the caller"

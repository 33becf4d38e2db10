import torch

from worker.training.dropout import ByteDropout


def test_dropped_units_are_nearly_the_share_and_the_rest_is_scaled_up() -> None:
    torch.manual_seed(1)
    dropout = ByteDropout(0.15)
    x = torch.ones(300, 1001, requires_grad=True)
    y = dropout(x)
    assert y.shape == x.shape
    kept = y[y > 0]
    assert torch.allclose(kept, torch.full_like(kept, 256 / 218))
    assert abs(1 - len(kept) / y.numel() - 38 / 256) < 0.005
    torch.autograd.backward(y.sum())
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())


def test_the_same_seed_drops_the_same_units_and_evaluation_drops_none() -> None:
    dropout = ByteDropout(0.5)
    x = torch.ones(64, 7)
    torch.manual_seed(3)
    first = dropout(x)
    torch.manual_seed(3)
    assert torch.equal(dropout(x), first)
    assert not torch.equal(dropout(x), first)
    assert torch.equal(dropout.eval()(x), x)

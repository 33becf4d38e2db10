"""The variable-length path says the same as the tiles; its CUDA kernel is stood in for by plain products."""

import inspect

import numpy as np
import pytest
import torch
from torch.nn.attention import varlen

from worker.inference.attention import (
    TiledAttention,
    VarlenAttention,
    attends_by_varlen,
    make_attention,
)
from worker.inference.packing import pack

HEADS, WIDTH = 4, 8
HIDDEN = HEADS * WIDTH
LENGTHS = [5, 1, 17, 8, 8, 64, 2, 1, 30]


def plain_varlen(  # noqa: PLR0917 - as the kernel has them
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float,
) -> torch.Tensor:
    """What `varlen_attn` documents, one sequence after another."""
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    out = torch.empty_like(query)
    for index in range(len(cu_seq_q) - 1):
        asking = slice(int(cu_seq_q[index]), int(cu_seq_q[index + 1]))
        known = slice(int(cu_seq_k[index]), int(cu_seq_k[index + 1]))
        assert asking.stop - asking.start <= max_q
        assert known.stop - known.start <= max_k
        q, k, v = (part.transpose(0, 1) for part in (query[asking], key[known], value[known]))
        out[asking] = ((q @ k.transpose(1, 2) * scale).softmax(-1) @ v).transpose(0, 1)
    return out


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> tuple[VarlenAttention, TiledAttention, int]:
    monkeypatch.setattr(varlen, "varlen_attn", plain_varlen)
    packing = pack(LENGTHS)
    return (
        VarlenAttention.of(packing, HEADS, torch.from_numpy),
        TiledAttention(packing, HEADS, torch.from_numpy),
        packing.rows,
    )


def test_every_token_asks(both: tuple[VarlenAttention, TiledAttention, int]) -> None:
    ours, tiled, rows = both
    qkv = torch.randn(rows, 3 * HIDDEN, generator=torch.Generator().manual_seed(1))
    tokens = sum(LENGTHS)
    torch.testing.assert_close(ours.all_rows(qkv)[:tokens], tiled.all_rows(qkv)[:tokens])
    assert torch.isfinite(ours.all_rows(qkv)).all()


def test_first_tokens_ask(both: tuple[VarlenAttention, TiledAttention, int]) -> None:
    ours, tiled, rows = both
    generator = torch.Generator().manual_seed(2)
    q = torch.randn(len(LENGTHS), HIDDEN, generator=generator)
    kv = torch.randn(rows, 2 * HIDDEN, generator=generator)
    torch.testing.assert_close(ours.first_rows(q, kv), tiled.first_rows(q, kv))


def test_the_kernel_takes_what_it_is_given() -> None:
    parameters = inspect.signature(varlen.varlen_attn).parameters
    assert list(parameters)[:7] == list(inspect.signature(plain_varlen).parameters)[:7]
    assert "scale" in parameters


@pytest.mark.parametrize(
    ("dtype", "capability", "width", "expected"),
    [
        (torch.bfloat16, (9, 0), 64, True),
        (torch.float16, (8, 0), 32, True),
        (torch.float16, (7, 5), 64, False),
        (torch.float32, (9, 0), 64, False),
        (torch.bfloat16, (9, 0), 20, False),
        (torch.bfloat16, (9, 0), 512, False),
    ],
)
def test_choice_on_cuda(
    dtype: torch.dtype,
    capability: tuple[int, int],
    width: int,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert attends_by_varlen(dtype, torch.device("cuda:1"), width) == expected


def test_choice_on_a_cpu() -> None:
    assert not attends_by_varlen(torch.bfloat16, torch.device("cpu"), 64)
    assert isinstance(make_attention(pack([3]), HEADS, torch.from_numpy, varlen=False), TiledAttention)
    assert isinstance(make_attention(pack([3]), HEADS, torch.from_numpy, varlen=True), VarlenAttention)


def test_large_scores_do_not_overflow() -> None:
    packing = pack([3, 9])
    qkv = torch.full((packing.rows, 3 * HIDDEN), 1e3)
    out = TiledAttention(packing, HEADS, torch.from_numpy).all_rows(qkv)
    np.testing.assert_allclose(out[: packing.tokens].numpy(), 1e3, rtol=1e-5)

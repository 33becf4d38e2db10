"""bf16 for the encoder while it trains: always on a GPU, on a CPU only where its products are faster in it.

A CPU may have the instructions and still be slower: on a Sapphire Rapids whose guest sees no AMX one
core did 100 GFLOP/s in bf16 and 195 in fp32.
"""

import functools
import time
from typing import Final

import torch
from torch.nn import functional

_WORTH: Final = 1.1
_ROWS: Final = 1024
"""Tokens of a usual batch."""
_RUNS: Final = 5


def autocast(device: torch.device, width: int) -> torch.autocast:
    """Context for the encoder's forward pass; ``width`` is its hidden size."""
    enabled = device.type != "cpu" or bf16_pays(width)
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


@functools.cache
def bf16_pays(width: int) -> bool:
    """Whether this CPU multiplies as in one layer of that width faster in bf16 than in fp32."""
    return _WORTH * _seconds(width, torch.bfloat16) < _seconds(width, torch.float32)


def _seconds(width: int, dtype: torch.dtype) -> float:
    rows, matrix = torch.ones(_ROWS, width, dtype=dtype), torch.ones(4 * width, width, dtype=dtype)
    taken = []
    with torch.no_grad():
        for _ in range(_RUNS):
            began = time.perf_counter()
            functional.linear(rows, matrix)
            taken.append(time.perf_counter() - began)
    return min(taken)

"""Linear layers in FP8 (e4m3), for GPUs from Ada and Hopper on: a scale for each token and each output.

Not measured on a GPU. The product is torch's ``scaled_mm``, which a CPU computes as well: the answers are
tested there, and the bundled model keeps 98 % of its labels.
"""

from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from worker.inference.config import Activation
from worker.inference.kernels import FloatKernels, Parameters
from worker.inference.linears import Linear, PlainLinear

LEAST_CAPABILITY: Final = (8, 9)
"""CUDA compute capability that has FP8 products."""
_FORMAT: Final = torch.float8_e4m3fn
_LARGEST: Final = torch.finfo(_FORMAT).max
_TINY: Final = 1e-12
_ROWS: Final = F.ScalingType.RowWise


def _rounded(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows in FP8 ``[rows, width]`` and the float32 scale of each ``[rows, 1]``."""
    # Two passes over x: the plain way (abs, amax, float, division, cast) takes six, longer than FP8 saves.
    largest = torch.linalg.vector_norm(x, torch.inf, 1, keepdim=True, dtype=torch.float32)
    scale = largest.clamp_min(_TINY) / _LARGEST
    return torch.div(x, scale, out=torch.empty_like(x, dtype=_FORMAT)), scale


class Fp8Linear(PlainLinear):
    """One linear layer; takes and gives ``dtype``.

    Args:
        weight: ``[outputs, inputs]`` float32; both multiples of 16.
        bias: ``[outputs]``.
        activation: What :meth:`activated` applies.
        dtype: bfloat16.
    """

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor, activation: Activation, dtype: torch.dtype
    ) -> None:
        rounded, scale = _rounded(weight)
        super().__init__(rounded.t(), bias.to(dtype), activation)
        self._scale, self._dtype = scale.t(), dtype

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """See :class:`~worker.inference.linears.Linear`."""
        rounded, scale = _rounded(x)
        return F.scaled_mm(
            rounded,
            self._weight,
            scale,
            _ROWS,
            self._scale,
            _ROWS,
            bias=self._bias,
            output_dtype=self._dtype,
        )


class Fp8Kernels(FloatKernels):
    """Products in FP8; ``dtype`` between them."""

    def __init__(self, activation: Activation, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(activation, dtype, device)
        self.precision = "fp8"

    def _linear(self, parameters: Parameters) -> Linear:
        weight, bias = (tensor.to(self._device) for tensor in parameters)
        return Fp8Linear(weight, bias, self._activation, self._dtype)

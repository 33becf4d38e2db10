"""A linear layer with what follows it fused in: the activation, or the residual.

On x86 processors oneDNN gets the weights once, in its own blocked order. Measured on two Zen 5 cores at
BERT-base size: fp32 430 GFLOP/s against 200 of ``torch.nn.functional.linear`` (MKL), bf16 950 against 890,
and the activation or residual costs 2 to 5% instead of 10 to 40%.
"""

from typing import Any, Final, Protocol

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from worker.inference.config import Activation

_ROWS_HINT: Final = 512
ONEDNN_ACTIVATION: Final[dict[Activation, tuple[str, str]]] = {
    "gelu": ("gelu", "none"),
    "gelu_tanh": ("gelu", "tanh"),
    "relu": ("relu", ""),
    "silu": ("swish", ""),
}
"""Names of oneDNN's post-operation and its algorithm."""


class Projection(Protocol):
    """``x @ W.T + b`` for ``x`` of shape ``[rows, inputs]``."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``[rows, outputs]``."""
        ...

    def plus(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """Return ``self(x) + residual``."""
        ...


class Linear(Projection, Protocol):
    """A projection that an activation may follow."""

    def activated(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``activation(self(x))``."""
        ...


class FeedForward:
    """``x + down(activation(up(x)))`` for ``x`` of shape ``[rows, hidden]``."""

    def __init__(self, up: Linear, down: Linear) -> None:
        self._up, self._down = up, down

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``[rows, hidden]``."""
        return self._down.plus(self._up.activated(x), x)


class PlainLinear:
    """Runs wherever torch runs."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, activation: Activation) -> None:
        self._weight, self._bias = weight, bias
        self._activation = activation

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """See :class:`Linear`."""
        return F.linear(x, self._weight, self._bias)

    def activated(self, x: torch.Tensor) -> torch.Tensor:
        """See :class:`Linear`."""
        y = self(x)
        if self._activation == "relu":
            return F.relu(y)
        if self._activation == "silu":
            return F.silu(y)
        return F.gelu(y, approximate="tanh" if self._activation == "gelu_tanh" else "none")

    def plus(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """See :class:`Linear`."""
        return self(x).add_(residual)


class OneDnnLinear:
    """Weights in oneDNN's blocked order; the operators that torch's own compiler uses on a CPU."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, activation: Activation) -> None:
        ops: Any = torch.ops.mkldnn
        self._weight = ops._reorder_linear_weight(weight, _ROWS_HINT)
        self._bias = bias
        self._activation, self._algorithm = ONEDNN_ACTIVATION[activation]
        self._linear = ops._linear_pointwise
        self._linear_add = ops._linear_pointwise.binary

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """See :class:`Linear`."""
        y: torch.Tensor = self._linear(x, self._weight, self._bias, "none", [], "")
        return y

    def activated(self, x: torch.Tensor) -> torch.Tensor:
        """See :class:`Linear`."""
        y: torch.Tensor = self._linear(x, self._weight, self._bias, self._activation, [], self._algorithm)
        return y

    def plus(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """See :class:`Linear`."""
        y: torch.Tensor = self._linear_add(x, residual, self._weight, self._bias, "add")
        return y


def make_linear(weight: torch.Tensor, bias: torch.Tensor, activation: Activation) -> Linear:
    """Choose the kernel for where the weight lies.

    Args:
        weight: ``[outputs, inputs]``, in the precision and on the device of the computation.
        bias: ``[outputs]``, likewise.
        activation: What :meth:`Linear.activated` applies.
    """
    if weight.device.type == "cpu" and _onednn_runs(weight.dtype):
        return OneDnnLinear(weight, bias, activation)
    return PlainLinear(weight, bias, activation)


def _onednn_runs(dtype: torch.dtype) -> bool:
    """These operators are not part of torch's documented interface: without them the plain ones serve."""
    mkldnn: Any = torch.backends.mkldnn
    return bool(
        mkldnn.is_available()
        and (dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported())
        and torch.cpu.get_capabilities().get("architecture") == "x86_64"
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )

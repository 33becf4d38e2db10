"""Which kernels compute the linear layers of an encoder: those of one float precision, or int8."""

from collections.abc import Callable, Container, Mapping
from typing import Protocol

import torch

from worker.inference.config import Activation
from worker.inference.int8 import Int8FeedForward, Int8Linear, Range
from worker.inference.linears import FeedForward, Linear, Projection, make_linear

Parameters = tuple[torch.Tensor, torch.Tensor]
"""Weight ``[outputs, inputs]`` and bias ``[outputs]``, float32."""
Ranges = Mapping[str, Range]
"""By the name of a layer, as :class:`Kernels` gets it, and name + ``.inner`` between two products."""


class Kernels(Protocol):
    """Makes an encoder's linear layers; every layer has a name of its own."""

    @property
    def precision(self) -> str:
        """For a person: what the products are computed in."""
        ...

    def projection(self, name: str, parameters: Parameters) -> Projection:
        """One product."""
        ...

    def feed_forward(
        self, name: str, up: Parameters, down: Parameters
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """``x + down(activation(up(x)))``."""
        ...


class FloatKernels:
    """Everything in ``dtype`` on ``device``."""

    def __init__(self, activation: Activation, dtype: torch.dtype, device: torch.device) -> None:
        self._activation, self._dtype, self._device = activation, dtype, device
        self.precision = str(dtype).removeprefix("torch.")

    def projection(self, name: str, parameters: Parameters) -> Projection:
        """See :class:`Kernels`."""
        del name
        return self._linear(parameters)

    def feed_forward(
        self, name: str, up: Parameters, down: Parameters
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """See :class:`Kernels`."""
        del name
        return FeedForward(self._linear(up), self._linear(down))

    def _linear(self, parameters: Parameters) -> Linear:
        weight, bias = (tensor.to(self._device, self._dtype) for tensor in parameters)
        return make_linear(weight, bias, self._activation)


class Int8Kernels:
    """Products in int8 on a CPU; ``dtype`` between them.

    Args:
        activation: Of the feed-forward layers.
        dtype: Of attention, norms and residuals.
        ranges: Of every layer that is made.
        left: Feed-forward layers that stay in ``dtype``.
    """

    def __init__(
        self, activation: Activation, dtype: torch.dtype, ranges: Ranges, left: Container[str] = ()
    ) -> None:
        self._activation, self._dtype, self._ranges, self._left = activation, dtype, ranges, left
        self._floats = FloatKernels(activation, dtype, torch.device("cpu"))
        self.precision = "int8"

    def projection(self, name: str, parameters: Parameters) -> Projection:
        """See :class:`Kernels`."""
        return Int8Linear(*parameters, self._ranges[name], self._dtype)

    def feed_forward(
        self, name: str, up: Parameters, down: Parameters
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """See :class:`Kernels`."""
        if name in self._left:
            return self._floats.feed_forward(name, up, down)
        return Int8FeedForward(
            up,
            down,
            self._activation,
            seen=self._ranges[name],
            inner=self._ranges[f"{name}.inner"],
            dtype=self._dtype,
        )


class ObservingKernels:
    """Computes in ``dtype`` on a CPU and notes the range of every channel that goes into a product."""

    def __init__(self, activation: Activation, dtype: torch.dtype) -> None:
        self._activation, self._dtype = activation, dtype
        self.precision = str(dtype).removeprefix("torch.")
        self.ranges: dict[str, Range] = {}

    def projection(self, name: str, parameters: Parameters) -> Projection:
        """See :class:`Kernels`."""
        weight, bias = (tensor.to(self._dtype) for tensor in parameters)
        return _ObservedProjection(make_linear(weight, bias, self._activation), name, self._note)

    def feed_forward(
        self, name: str, up: Parameters, down: Parameters
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """See :class:`Kernels`."""
        first, second = (
            make_linear(weight.to(self._dtype), bias.to(self._dtype), self._activation)
            for weight, bias in (up, down)
        )

        def observed(x: torch.Tensor) -> torch.Tensor:
            inner = first.activated(x)
            self._note(name, x)
            self._note(f"{name}.inner", inner)
            return second.plus(inner, x)

        return observed

    def _note(self, name: str, x: torch.Tensor) -> None:
        low, high = x.amin(0).float(), x.amax(0).float()
        known = self.ranges.get(name)
        if known is not None:
            low, high = torch.minimum(known.low, low), torch.maximum(known.high, high)
        self.ranges[name] = Range(low, high)


class _ObservedProjection:
    def __init__(self, inside: Projection, name: str, note: Callable[[str, torch.Tensor], None]) -> None:
        self._inside, self._name, self._note = inside, name, note

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self._note(self._name, x)
        return self._inside(x)

    def plus(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        self._note(self._name, x)
        return self._inside.plus(x, residual)

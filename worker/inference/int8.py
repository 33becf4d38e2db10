"""Linear layers in int8: weights by output channel, activations by ranges that were observed before.

Activations are unsigned bytes around a fixed zero point: oneDNN has no fast kernel for signed ones (its
reference runs instead, under 1 GFLOP/s). Two things keep the answers:

* Each input channel is moved to the middle of its range and divided by a power of that range, which the
  weights take over (SmoothQuant with a shift).
* One scale for all neurons of a feed-forward layer would leave most of them too few digits: those with the
  widest range have a scale of their own, and outliers, a neuron or two of some layers, stay in the outer
  precision. All other activations leave the first product as bytes.

What lies outside the observed range saturates, and no scale depends on who shares the batch.
"""

from dataclasses import dataclass
from typing import Any, Final

import torch

from worker.inference.config import Activation
from worker.inference.linears import ONEDNN_ACTIVATION, FeedForward, make_linear

_LEVELS: Final = 255
_MIDDLE: Final = 128
_WEIGHT_LEVELS: Final = 127
_LEAST_RANGE: Final = 1e-3
_TINY: Final = 1e-9
_INPUT_POWER: Final = 0.75
"""How much of a channel's range the weights take over; 0.5 changes the answers four times as much."""
_WIDE_NEURONS: Final = 16
"""One neuron in so many counts as wide. In the outer precision, at a quarter of the speed, they took 16 % of
the layer's time, and the bundled crypto model kept 99.5 % of the samples' labels."""
_OUTLIER: Final = 2.0
"""Times the range of the narrowest wide neuron. The bundled model has a neuron that reaches 69 where others
end at 7. With outliers among the bytes 98.2 % of those labels were kept, without 99.7 %."""
_BLOCK: Final = 16


@dataclass(frozen=True, slots=True)
class Range:
    """What a layer's inputs were seen to be, by channel."""

    low: torch.Tensor
    high: torch.Tensor


class Int8Linear:
    """One linear layer, see :class:`~worker.inference.linears.Projection`; takes and gives ``dtype``."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, seen: Range, dtype: torch.dtype) -> None:
        self._round = _Rounder(seen, weight, dtype)
        scaled = weight * self._round.steps
        self._product = ByteProduct(scaled, bias, self._round.scale, _MIDDLE)
        self._product.move(scaled, self._round.moved)
        self._dtype = dtype

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``[rows, outputs]``."""
        return self._product(self._round(x), self._dtype)

    def plus(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """Return ``self(x) + residual``."""
        return self._product.plus(self._round(x), residual)


class Int8FeedForward:
    """``x + down(activation(up(x)))``; the bytes between the two products never exist in ``dtype``.

    Args:
        up: Weight ``[inner, hidden]`` and bias ``[inner]``, float32.
        down: Weight ``[hidden, inner]`` and bias ``[hidden]``, float32.
        activation: Between them.
        seen: Inputs of the layer.
        inner: Outputs of the activation.
        dtype: Of what goes in and out, and of outliers.
    """

    def __init__(
        self,
        up: tuple[torch.Tensor, torch.Tensor],
        down: tuple[torch.Tensor, torch.Tensor],
        activation: Activation,
        *,
        seen: Range,
        inner: Range,
        dtype: torch.dtype,
    ) -> None:
        (up_weight, up_bias), (down_weight, down_bias) = up, down
        self._activation = (ONEDNN_ACTIVATION[activation][0], ONEDNN_ACTIVATION[activation][1])
        self._round = _Rounder(seen, up_weight, dtype)
        scaled = up_weight * self._round.steps
        self._groups: list[_Group] = []
        groups, outliers = _by_range(torch.maximum(inner.high, -inner.low))
        for neurons in groups:
            first = ByteProduct(scaled[neurons], up_bias[neurons], self._round.scale, _MIDDLE)
            first.move(scaled[neurons], self._round.moved)
            low = min(0.0, float(inner.low[neurons].min()))
            scale = max(_LEAST_RANGE, float(inner.high[neurons].max()) - low) / _LEVELS
            zero = round(-low / scale)
            # The bias belongs to the sum of all groups, so one of them adds it.
            bias = torch.zeros_like(down_bias) if self._groups else down_bias
            second = ByteProduct(down_weight[:, neurons], bias, scale, zero)
            self._groups.append(_Group(first, second, scale, zero))
        self._outliers: FeedForward | None = None
        if len(outliers):
            first_part = up_weight[outliers].to(dtype), up_bias[outliers].to(dtype)
            second_part = down_weight[:, outliers].to(dtype), torch.zeros_like(down_bias, dtype=dtype)
            self._outliers = FeedForward(
                make_linear(*first_part, activation), make_linear(*second_part, activation)
            )

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``[rows, hidden]``."""
        rounded = self._round(x)
        y = x if self._outliers is None else self._outliers(x)
        for group in self._groups:
            inner = group.up.activated(rounded, self._activation, group.scale, group.zero)
            # The residual belongs to the caller; what the first group made of it does not.
            y = group.down.plus(inner, y) if y is x else group.down.onto(inner, y)
        return y


@dataclass(frozen=True, slots=True)
class _Group:
    """Neurons of a feed-forward layer that share a scale, and the byte that stands for 0."""

    up: "ByteProduct"
    down: "ByteProduct"
    scale: float
    zero: int


def _by_range(ranges: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The neurons in groups for one scale each, and those that no scale suits, in whole blocks."""
    order = ranges.argsort()
    wide = min(len(order), max(_BLOCK, len(order) // _WIDE_NEURONS // _BLOCK * _BLOCK))
    far = int((ranges > _OUTLIER * ranges[order[-wide]]).sum())
    # One group at least: it adds the bias. A layer of 16 neurons with an outlier had none.
    last = max(1, len(order) - -(-far // _BLOCK) * _BLOCK)
    # The small one first: the large one then adds in place.
    groups = (order[len(order) - wide : last], order[:-wide])
    return [group for group in groups if len(group)], order[last:]


class _Rounder:
    """Activations as bytes: ``x * factor + offset``, rounded and saturated."""

    def __init__(self, seen: Range, weight: torch.Tensor, dtype: torch.dtype) -> None:
        middle = (seen.low + seen.high) / 2
        half = ((seen.high - seen.low) / 2).clamp_min(_LEAST_RANGE)
        weight_range = weight.abs().amax(0).clamp_min(_TINY)
        smoothed = half.pow(_INPUT_POWER) / weight_range.pow(1 - _INPUT_POWER)
        self.scale = float((half / smoothed).max()) / _WEIGHT_LEVELS
        # Rounded to the computation's precision first: the weights then undo exactly what is done.
        self._factor = (1 / (smoothed * self.scale)).to(dtype)
        self._offset = (_MIDDLE - middle * self._factor.float()).to(dtype)
        self.steps = 1 / (self._factor.float() * self.scale)
        """What each input channel of the weights is multiplied with."""
        self.moved = (_MIDDLE - self._offset.float()) * self.scale
        """What the byte of the zero point stands for, by channel."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        # oneDNN's reorder rounds and saturates in one pass: an eighth of the time of .to(torch.uint8) alone.
        return torch.addcmul(self._offset, x, self._factor).to_mkldnn(torch.uint8)


class ByteProduct:
    """Bytes times int8 weights through the operators of torch's own compiler.

    Args:
        weight: ``[outputs, inputs]`` float32; rounded here, a scale for each output.
        bias: ``[outputs]`` float32.
        scale: What one step of a byte stands for.
        zero: The byte that stands for 0.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, scale: float, zero: int) -> None:
        ops: Any = torch.ops.onednn
        self._scales = weight.abs().amax(1).clamp_min(_TINY) / _WEIGHT_LEVELS
        self._weight = ops.qlinear_prepack(self._rounded(weight).to(torch.int8), None)
        self._zeros = torch.zeros(len(weight), dtype=torch.int64)
        self._bias = bias.clone()
        self._scale, self._zero = scale, zero
        self._linear = ops.qlinear_pointwise
        self._linear_add = ops.qlinear_pointwise.binary

    def _rounded(self, weight: torch.Tensor) -> torch.Tensor:
        return (weight / self._scales[:, None]).round()

    def move(self, weight: torch.Tensor, moved: torch.Tensor) -> None:
        """Add to the bias what the weights, as they are rounded, make of an input that was moved."""
        self._bias += (self._rounded(weight) * self._scales[:, None]) @ moved

    def __call__(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Return ``[rows, outputs]`` for bytes ``[rows, inputs]``."""
        y: torch.Tensor = self._linear(x, *self._operands(), self._bias, 1.0, 0, dtype, "none", [], "")
        return y

    def activated(
        self, x: torch.Tensor, activation: tuple[str, str], scale: float, zero: int
    ) -> torch.Tensor:
        """The activation of the product, as bytes again."""
        name, algorithm = activation
        y: torch.Tensor = self._linear(
            x, *self._operands(), self._bias, scale, zero, torch.uint8, name, [], algorithm
        )
        return y

    def plus(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """The product and ``residual``."""
        return self._added(x, residual, "add")

    def onto(self, x: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
        """The product and ``total``, which is overwritten with it."""
        return self._added(x, total, "sum")

    def _added(self, x: torch.Tensor, other: torch.Tensor, how: str) -> torch.Tensor:
        y: torch.Tensor = self._linear_add(
            x,
            *self._operands(),
            other,
            self._bias,
            1.0,
            0,
            other.dtype,
            1.0,
            0,
            how,
            1.0,
            "none",
            [],
            "",
        )
        return y

    def _operands(self) -> tuple[float, int, torch.Tensor, torch.Tensor, torch.Tensor]:
        return self._scale, self._zero, self._weight, self._scales, self._zeros


def int8_runs() -> bool:
    """Whether this processor multiplies bytes without overflow, and torch brings the operators for it.

    Before VNNI the sum of two products of bytes is kept in 16 bits and saturates: wrong answers, not slow
    ones.
    """
    mkldnn: Any = torch.backends.mkldnn
    found = torch.cpu.get_capabilities()
    return bool(
        mkldnn.is_available()
        and found.get("architecture") == "x86_64"
        and (found.get("avx512_vnni") or found.get("avx_vnni") or found.get("amx_int8"))
        and hasattr(torch.ops.onednn, "qlinear_prepack")
        and hasattr(torch.ops.onednn, "qlinear_pointwise")
    )

"""Stand-ins for what numpy is pickled as: they read numbers and nothing else.

Thresholds tuned with numpy are pickled as its scalars or arrays. numpy's own types would also make arrays of
objects, whose bytes are addresses: whoever wrote the file could have any of them followed.
"""

import math
import re
from pickle import UnpicklingError
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_NUMBER: Final = re.compile(r"f[248]|[iu][1248]|b1")
_BYTE_ORDERS: Final = ("<", ">", "=", "|")
_NDARRAY: Final = object()
"""``numpy.ndarray`` is only named, as what is to be rebuilt; this cannot be called."""


class _Dtype:
    """``numpy.dtype`` of whole numbers, floats and booleans."""

    def __new__(cls, code: Any, *_: Any) -> "_Dtype":
        if not isinstance(code, str) or not _NUMBER.fullmatch(code):
            raise UnpicklingError(f"numpy.dtype {code!r} is none of numbers")
        made = super().__new__(cls)
        made.code, made.order = code, "="
        return made

    code: str
    order: str

    def __setstate__(self, state: Any) -> None:
        order = state[1]
        if order not in _BYTE_ORDERS:
            raise UnpicklingError(f"byte order {order!r} is unknown")
        self.order = order

    def read(self, data: Any, count: int) -> npt.NDArray[Any]:
        """So many numbers, out of exactly their bytes."""
        dtype = np.dtype(self.order + self.code)
        if type(data) is not bytes or len(data) != count * dtype.itemsize:
            raise UnpicklingError(f"{count} numbers of {dtype} are not what the bytes hold")
        return np.frombuffer(data, dtype)


class _Array:
    """What ``_reconstruct`` makes: empty until its state is set."""

    def __init__(self, *_: Any) -> None:
        self.values: npt.NDArray[Any] = np.empty(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, by_columns, data = state
        if type(dtype) is not _Dtype or not all(type(size) is int and size >= 0 for size in shape):
            raise UnpicklingError("an array of anything but numbers")
        values = dtype.read(data, math.prod(shape))
        self.values = values.reshape(shape, order="F" if by_columns else "C")

    def tolist(self) -> Any:
        """As ``numpy.ndarray.tolist``."""
        return self.values.tolist()


def _scalar(dtype: Any, data: Any) -> Any:
    """A plain Python number."""
    if type(dtype) is not _Dtype:
        raise UnpicklingError("a scalar of anything but a number")
    return dtype.read(data, 1)[0].item()


STAND_INS: Final[list[Any]] = [
    (_Dtype, "numpy.dtype"),
    (_NDARRAY, "numpy.ndarray"),
    *(
        (stand_in, f"numpy.{core}.multiarray.{name}")
        for core in ("core", "_core")
        for name, stand_in in (("scalar", _scalar), ("_reconstruct", _Array))
    ),
]
"""For ``torch.serialization.safe_globals``: each with the name it answers to, of numpy 1 and 2."""

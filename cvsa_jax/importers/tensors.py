"""Tensors of PyTorch in pickles, as arrays: what their names stand for, without PyTorch.

A tensor is (storage, offset, size, stride): its entry i is number offset + sum_k i_k stride_k of a run of numbers.

References: torch/_utils.py says what the names do.
"""

import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from cvsa_jax.importers.pickles import Budget, Name
from cvsa_jax.importers.plain import only_named, plain_names

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
STORAGES: dict[str, Any] = {
    "Double": np.float64, "Float": np.float32, "Half": np.float16, "BFloat16": BFLOAT16, "Long": np.int64,
    "Int": np.int32, "Short": np.int16, "Char": np.int8, "Byte": np.uint8, "Bool": np.bool_,
    "ComplexFloat": np.complex64, "ComplexDouble": np.complex128,
}  # fmt: skip
DTYPES = "float64 float32 float16 int64 int32 int16 int8 uint8 uint16 uint32 uint64 bool complex64 complex128 bfloat16"
_MOST_AXES, _LARGEST = 32, 2**63  # of a tensor; beyond its sizes, strides and offset


def tensor_names(budget: Budget, make: Callable | None = None) -> dict[str, Any]:
    """The names that make tensors, and those that may stand beside them.

    Args:
      budget: what tensors may cost.
      make: makes one of (storage, offset, size, stride); None is `strided`.
    """

    def tensor(storage, offset, size, stride, _=False, __=None, metadata=None):
        if metadata:
            raise ValueError("refuses a tensor that is conjugated or negated only when it is used")
        return make(storage, offset, size, stride) if make else strided(storage, offset, size, stride, budget)

    def typed(storage, offset, size, stride, _, __, dtype, metadata=None):
        return tensor(storage.view(as_dtype(dtype)), offset, size, stride, metadata=metadata)

    def parameter(value=None, *_):
        return value

    def with_attributes(name, _, arguments, *__):
        if type(name) is not Name or name.make not in (tensor, typed, parameter):
            raise ValueError("a tensor is not made as it should be")
        return name.make(*arguments)

    names = plain_names(budget)
    names |= {f"torch._utils._rebuild_{end}": tensor for end in ("tensor", "tensor_v2")}
    names |= {f"torch._utils._rebuild_{end}": parameter for end in ("parameter", "parameter_with_state")}
    names |= {f"torch._tensor._rebuild_from_type{end}": with_attributes for end in ("", "_v2")}
    names |= {f"torch.nn{end}.Parameter": parameter for end in ("", ".parameter")}
    names |= {name: only_named(name) for name in ("torch.Tensor", "torch._tensor.Tensor")}
    names |= {f"torch.{name}": np.dtype(BFLOAT16 if name == "bfloat16" else name) for name in DTYPES.split()}
    names |= dict.fromkeys((f"torch.{end}UntypedStorage" for end in ("", "storage.", "storage._")), np.dtype(np.uint8))
    for name, kind in STORAGES.items():
        names |= {f"torch.{place}{name}Storage": np.dtype(kind) for place in ("", "cuda.")}
    return names | {
        "torch._utils._rebuild_tensor_v3": typed,
        "torch.Size": lambda sizes=(): tuple(sizes),
        "torch.device": _device,
    }


def _device(kind: Any, number: Any = None) -> str:
    if type(kind) is not str or type(number) not in (int, type(None)):
        raise ValueError("a device is not told as its kind and its number")
    return kind if number is None else f"{kind}:{number}"


def as_dtype(value: Any) -> np.dtype:
    """The same value, if it is a type of numbers; else ValueError."""
    if not isinstance(value, np.dtype):
        raise ValueError(f"a {type(value).__name__} is no type of numbers")
    return value


def strided(storage: Any, offset: Any, size: Any, stride: Any, budget: Budget) -> np.ndarray:
    """A tensor as a contiguous array, in memory of its own unless it is all of its storage. bfloat16 becomes float32.

    Raises:
      ValueError: if it does not lie within its storage, or repeats it too often.
    """
    if not isinstance(storage, np.ndarray) or storage.ndim != 1:
        raise ValueError("a tensor has no storage")
    if type(size) is not tuple or type(stride) is not tuple or not len(size) == len(stride) <= _MOST_AXES:
        raise ValueError("the sizes and strides of a tensor do not belong together")
    if any(type(n) is not int or not 0 <= n < _LARGEST for n in (offset, *size, *stride)):
        raise ValueError("the sizes, strides and offset of a tensor must be whole numbers, at least 0")
    count = math.prod(size)
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if count and last >= storage.size:
        raise ValueError(f"a tensor ends at number {last} of a storage of {storage.size}")
    dtype = np.dtype(np.float32) if storage.dtype == BFLOAT16 else storage.dtype
    budget.spend(count * dtype.itemsize)
    if not count:
        return np.zeros(size, dtype)
    view = np.lib.stride_tricks.as_strided(
        storage[offset:], size, [s * storage.itemsize * (n > 1) for n, s in zip(size, stride, strict=True)]
    )
    if dtype == np.bool_:
        return view.view(np.uint8) != 0  # whatever byte stands for True
    whole = count == storage.size and view.flags.c_contiguous and dtype == storage.dtype
    return view if whole else np.array(view, dtype, order="C")

"""NumPy arrays in the checkpoints of torch, read without any of NumPy's own unpickling.

A pickle names the functions that rebuild its objects. `torch.load` with `weights_only` refuses all
but its own, and so arrays too. `allowed` gives the names of NumPy another meaning, for as long as
it is entered: classes of this module, which only keep what the pickle holds. Nothing that a file
names is called.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

# Letters of NumPy's types, without those of Python objects, texts and records.
_TYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")
_ORDERS = ("<", ">", "=", "|")
# torch keeps the names that it allows for the whole process.
_ALLOWING = threading.RLock()


class _Type:
    """The type of an array's numbers."""

    def __init__(self, letters: object, *_: object) -> None:
        if isinstance(letters, bytes):
            letters = letters.decode("ascii")
        if letters not in _TYPES:
            raise ValueError(f"an array holds {letters!r} where numbers are needed")
        self.letters, self.order = str(letters), "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1].decode("ascii") if isinstance(state[1], bytes) else state[1]
        if order not in _ORDERS:
            raise ValueError(f"an array has the byte order {order!r}")
        self.order = order

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type for NumPy."""
        return np.dtype(self.order + self.letters)


class PickledArray:
    """An array as it stands in a pickle."""

    def __init__(self) -> None:
        self._shape: tuple[int, ...] = (0,)
        self._dtype = np.dtype("f4")
        self._is_fortran, self._content = False, b""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, is_fortran, content = state
        if not isinstance(kind, _Type) or not isinstance(content, bytes):
            raise ValueError("an array has no numbers")
        if not all(type(side) is int and side >= 0 for side in shape):
            raise ValueError(f"an array has the shape {shape!r}")
        if math.prod(shape) * kind.dtype.itemsize != len(content):
            raise ValueError(f"an array of shape {shape} has {len(content)} bytes")
        self._shape, self._dtype = tuple(shape), kind.dtype
        self._is_fortran, self._content = bool(is_fortran), content

    @property
    def size_bytes(self) -> int:
        """The memory that `tensor` takes, in bytes."""
        return len(self._content)

    def tensor(self) -> torch.Tensor:
        """Return the numbers as a tensor with memory of its own.

        Returns:
            A tensor on the CPU, of the array's shape and type.

        Raises:
            TypeError: torch has no such type.
        """
        flat = np.frombuffer(self._content, self._dtype).astype(self._dtype.newbyteorder("="))
        if self._is_fortran:
            return torch.from_numpy(flat.reshape(self._shape[::-1]).T.copy())
        return torch.from_numpy(flat.reshape(self._shape))


def _empty_array(*_: object) -> PickledArray:
    return PickledArray()


def _number(kind: object, content: object) -> float:
    """Return a NumPy scalar, such as a loss beside the weights, as a number."""
    if not isinstance(kind, _Type) or not isinstance(content, bytes):
        raise ValueError("a number of NumPy has no value")
    return float(np.frombuffer(content, kind.dtype)[0])


class _Namespace:
    """The options of a training program, which are dropped."""

    def __setstate__(self, state: object) -> None:
        pass


def _meanings() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Return what stands for each name that a pickle may use."""
    found: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
        (_Type, "numpy.dtype"),
        (PickledArray, "numpy.ndarray"),
        (_Namespace, "argparse.Namespace"),
    ]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        found += [(_empty_array, f"{module}._reconstruct"), (_number, f"{module}.scalar")]
    return found


@contextmanager
def allowed() -> Iterator[None]:
    """Let `torch.load` with `weights_only` read NumPy's arrays, as `PickledArray`.

    Yields:
        Nothing. Other threads wait.
    """
    with _ALLOWING, torch.serialization.safe_globals(_meanings()):
        yield

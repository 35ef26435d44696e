"""Reads the networks of TensorFlow Lite that vidrestore uses, for onnxruntime.

OpenCV reads these files, too, but runs them three times slower. A .tflite file is a FlatBuffer: a
table is a list of fields, each at an offset that the table's own table of offsets states. Numbers
of fields and codes of operators are those of TensorFlow Lite's schema, version 3.

Convention: the file's pictures are (1, height, width, channels), those of the result are
(1, channels, height, width).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_IDENTIFIER = b"TFL3"
_ADD, _CONV, _DEPTHWISE, _DEQUANTIZE, _MAX_POOL, _PAD, _PRELU = 0, 3, 4, 6, 17, 34, 54
_TYPES: dict[int, type[np.generic]] = {0: np.float32, 1: np.float16, 2: np.int32}
_PADDING = ("SAME_UPPER", "VALID")
_OPSET = 13


def onnx_of_tflite(content: bytes) -> bytes:
    """Convert a network of convolutions to ONNX.

    Args:
        content: The content of a .tflite file with one picture as its input.

    Returns:
        The content of an .onnx file with the same names of inputs and outputs.

    Raises:
        ValueError: The file is damaged, or holds an operator that this module does not know.
    """
    if content[4:8] != _IDENTIFIER:
        raise ValueError("it is not a file of TensorFlow Lite")
    try:
        return _Graph(content).converted()
    except (struct.error, IndexError, KeyError) as error:
        raise ValueError(f"its content is damaged ({error!r})") from error


@dataclass(frozen=True, slots=True)
class _Table:
    """One table of a FlatBuffer."""

    content: bytes
    at: int
    """The offset of the table in the content."""

    def _field(self, number: int) -> int | None:
        """Return the offset of a field; None where the table leaves the field out."""
        offsets = self.at - _number("<i", self.content, self.at)
        if 4 + 2 * number >= _number("<H", self.content, offsets):
            return None
        offset = _number("<H", self.content, offsets + 4 + 2 * number)
        return self.at + offset if offset else None

    def number(self, number: int, kind: str = "<B") -> int:
        """Return an integer; 0 where it is left out."""
        at = self._field(number)
        return 0 if at is None else _number(kind, self.content, at)

    def table(self, number: int) -> _Table | None:
        """Return a table; None where it is left out."""
        at = self._field(number)
        return None if at is None else _Table(self.content, _target(self.content, at))

    def raw(self, number: int, item_bytes: int = 1) -> bytes:
        """Return the bytes of a vector or a text; empty where it is left out."""
        at = self._field(number)
        if at is None:
            return b""
        start = _target(self.content, at)
        end = start + 4 + item_bytes * _number("<I", self.content, start)
        if end > len(self.content):
            raise IndexError(f"a vector ends at {end}")
        return self.content[start + 4 : end]

    def integers(self, number: int) -> list[int]:
        """Return a vector of integers."""
        return [int(value) for value in np.frombuffer(self.raw(number, 4), "<i4")]

    def tables(self, number: int) -> list[_Table]:
        """Return a vector of tables."""
        at = self._field(number)
        if at is None:
            return []
        start = _target(self.content, at)
        places = range(start + 4, start + 4 + 4 * _number("<I", self.content, start), 4)
        return [_Table(self.content, _target(self.content, place)) for place in places]


def _number(kind: str, content: bytes, at: int) -> int:
    return int(struct.unpack_from(kind, content, at)[0])


def _target(content: bytes, at: int) -> int:
    """Return the place to which the relative offset at a place leads."""
    return at + _number("<I", content, at)


class _Graph:
    """The first subgraph of a file, and its conversion."""

    def __init__(self, content: bytes) -> None:
        model = _Table(content, _target(content, 0))
        # Old files hold the code of an operator in field 0, new ones in both.
        self._codes = [max(each.number(0), each.number(3, "<i")) for each in model.tables(1)]
        self._graph = model.tables(2)[0]
        self._buffers = model.tables(4)
        self._tensors = self._graph.tables(0)
        self._arrays = dict(self._stored())

    def converted(self) -> bytes:
        from onnx import TensorProto, helper, numpy_helper

        nodes: list[Any] = []
        weights: dict[str, npt.NDArray[Any]] = {}
        for operator in self._graph.tables(3):
            code = self._codes[operator.number(0, "<I")]
            inputs, outputs = operator.integers(1), operator.integers(2)
            if code == _DEQUANTIZE:
                self._arrays[outputs[0]] = self._arrays[inputs[0]].astype(np.float32)
                continue
            names, result = [self._name(index) for index in inputs], self._name(outputs[0])
            if code == _PAD and (more := self._more_channels(inputs)) is not None:
                weights[f"{result} channels"] = more
                nodes.append(helper.make_node("Conv", [names[0], f"{result} channels"], [result]))
                continue
            options = operator.table(4) or _Table(self._graph.content, self._graph.at)
            weights |= {
                self._name(index): self._weight(code, index)
                for index in inputs
                if index in self._arrays
            }
            if code == _PRELU:
                # onnxruntime leaves its fast layout of the channels for PRelu, not for these:
                # alpha x + (1 - alpha) max(x, 0). It joins a product and the Relu after it.
                picture, alpha = names
                rest = weights[f"{result} rest"] = 1 - weights[alpha]
                high, order = picture, ("Mul", "Relu") if rest.min() >= 0 else ("Relu", "Mul")
                for kind in order:
                    factors = [f"{result} rest"] if kind == "Mul" else []
                    name = f"{result} {kind}"
                    nodes.append(helper.make_node(kind, [high, *factors], [name]))
                    high = name
                nodes += [
                    helper.make_node("Mul", [picture, alpha], [f"{result} low"]),
                    helper.make_node("Add", [f"{result} low", high], [result]),
                ]
                continue
            kind, attributes = self._described(code, inputs, options)
            nodes.append(helper.make_node(kind, names, [result], **attributes))

        def value(index: int) -> Any:
            count, height, width, channels = self._tensors[index].integers(0)
            shape = [count, channels, height, width]
            return helper.make_tensor_value_info(self._name(index), TensorProto.FLOAT, shape)

        graph = helper.make_graph(
            nodes,
            "tflite",
            [value(index) for index in self._graph.integers(1)],
            [value(index) for index in self._graph.integers(2)],
            [numpy_helper.from_array(array, name) for name, array in weights.items()],
        )
        opset = helper.make_opsetid("", _OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
        content: bytes = model.SerializeToString()
        return content

    def _stored(self) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Yield (index, values) of the tensors whose values are in the file."""
        for index, tensor in enumerate(self._tensors):
            raw = self._buffers[tensor.number(2, "<I")].raw(0)
            if raw:
                kind = _TYPES[tensor.number(1)]
                yield index, np.frombuffer(raw, kind).reshape(tensor.integers(0))

    def _name(self, index: int) -> str:
        if index < 0:  # TensorFlow Lite's mark of a missing input; a list would count from its end
            raise IndexError(f"an operator has no input {index}")
        return self._tensors[index].raw(3).decode("utf-8", "replace")

    def _more_channels(self, inputs: list[int]) -> npt.NDArray[np.float32] | None:
        """Return the weights of a convolution that appends channels of zeros, as a padding does.

        onnxruntime leaves its fast layout of the channels for Pad, and then for the sums and the
        products that follow, too.

        Args:
            inputs: The numbers of the tensors of a picture, and of how much the padding adds.

        Returns:
            (C + added, C, 1, 1); None where the padding adds something else.
        """
        picture, amounts = inputs
        added = self._arrays[amounts]
        if added.shape != (4, 2) or added[:3].any() or added[3, 0]:
            return None
        channels = self._tensors[picture].integers(0)[3]
        return np.eye(channels + int(added[3, 1]), channels, dtype=np.float32)[..., None, None]

    def _described(
        self, code: int, inputs: list[int], options: _Table
    ) -> tuple[str, dict[str, Any]]:
        """Return the kind and the attributes of an operator in ONNX."""
        if code == _ADD:
            return "Add", {}
        if code == _PAD:
            return "Pad", {}
        strides = {
            "strides": [options.number(2, "<i"), options.number(1, "<i")],
            "auto_pad": _PADDING[options.number(0)],
        }
        if code == _CONV:
            return "Conv", strides
        if code == _DEPTHWISE:
            channels = self._tensors[inputs[1]].integers(0)[3]
            return "Conv", strides | {"group": channels}
        if code == _MAX_POOL:
            sides = [options.number(4, "<i"), options.number(3, "<i")]
            return "MaxPool", strides | {"kernel_shape": sides}
        raise ValueError(f"vidrestore cannot run its operator {code}")

    def _weight(self, code: int, index: int) -> npt.NDArray[Any]:
        """Return stored values in the order of axes that ONNX expects."""
        values = self._arrays[index]
        if code == _CONV and values.ndim == 4:
            values = values.transpose(0, 3, 1, 2)
        elif code == _DEPTHWISE and values.ndim == 4:
            values = values.transpose(3, 0, 1, 2)
        elif code == _PRELU:
            values = values.transpose(2, 0, 1)
        elif code == _PAD:
            values = values[[0, 3, 1, 2]].T.ravel().astype(np.int64)  # all starts, then all ends
        return np.ascontiguousarray(values)

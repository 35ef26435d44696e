"""Small networks as ONNX files."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx


def repeating(path: Path, factor: int, sides: tuple[Any, Any] = ("h", "w")) -> Path:
    """A network that repeats every pixel."""
    shape = [1, 3, *sides]
    kinds = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, size)
        for name, size in (("image", shape), ("larger", [1, 3, None, None]))
    ]
    scales = onnx.numpy_helper.from_array(np.array([1, 1, factor, factor], np.float32), "scales")
    node = onnx.helper.make_node(
        "Resize", ["image", "", "scales"], ["larger"], mode="nearest",
        coordinate_transformation_mode="asymmetric", nearest_mode="floor",
    )  # fmt: skip
    graph = onnx.helper.make_graph([node], "repeating", kinds[:1], kinds[1:], [scales])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, str(path))
    return path

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


def network(path: Path, inputs: Any, output: Any, nodes: Any, weights: Any = None) -> Path:
    """A network of `nodes`, each (operation, inputs, outputs, attributes).

    `inputs` are (name, numpy type, shape) in their order, and `output` is one such. `weights` maps
    names to arrays.
    """

    def declared(name: str, kind: Any, shape: Any) -> Any:
        number = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind))
        return onnx.helper.make_tensor_value_info(name, number, shape)

    made = [
        onnx.helper.make_node(kind, ins, outs, name=f"node{i}", **how)
        for i, (kind, ins, outs, how) in enumerate(nodes)
    ]
    tensors = [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in (weights or {}).items()]
    graph = onnx.helper.make_graph(
        made, "g", [declared(*each) for each in inputs], [declared(*output)], tensors
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, str(path))
    return path

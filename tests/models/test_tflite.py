"""The conversion of .tflite files gives networks whose results are those of OpenCV's own reader."""

import cv2
import numpy as np
import onnx
import pytest

from vidrestore.models.onnx_session import processor_session
from vidrestore.models.tflite import onnx_of_tflite

OUTPUTS = ("conv2d_21", "conv2d_31")


@pytest.fixture(scope="module")
def file(shared):
    return shared / "models" / "face_landmark.tflite"


def test_the_face_mesh_gives_what_it_gives_in_opencv(file):
    ours = processor_session(onnx_of_tflite(file.read_bytes()), threads=1)
    opencv = cv2.dnn.readNetFromTFLite(str(file))
    rng = np.random.default_rng(0)
    for _ in range(3):
        picture = cv2.GaussianBlur(rng.random((192, 192, 3), np.float32), (0, 0), 5)[None]
        blob = np.ascontiguousarray(picture.transpose(0, 3, 1, 2))
        opencv.setInput(blob)
        for mine, theirs in zip(
            ours.run(OUTPUTS, {"input_1": blob}), opencv.forward(OUTPUTS), strict=True
        ):
            np.testing.assert_allclose(mine.ravel(), theirs.ravel(), atol=2e-3)


def test_the_face_mesh_has_only_operators_that_keep_the_fast_layout_of_channels(file):
    graph = onnx.load_from_string(onnx_of_tflite(file.read_bytes())).graph
    assert {node.op_type for node in graph.node} == {"Conv", "MaxPool", "Mul", "Relu", "Add"}
    stored, used = (
        {each.name for each in graph.initializer},
        {n for x in graph.node for n in x.input},
    )
    assert stored <= used


def test_a_damaged_file_is_refused_and_never_read_beyond_its_end(file):
    content = file.read_bytes()
    for part in (b"", content[:6], b"no network", content[:2000], content[: len(content) // 2]):
        with pytest.raises(ValueError, match=r"not a file of TensorFlow|damaged"):
            onnx_of_tflite(part)

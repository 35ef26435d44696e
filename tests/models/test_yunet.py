"""YuNet gives what OpenCV's own class for it gives."""

import cv2
import numpy as np
import pytest
from insightface.data import get_image

from vidrestore.common.errors import WeightsError
from vidrestore.models.detectors.yunet import YuNet


@pytest.fixture(scope="module")
def model(shared):
    return shared / "models" / "face_detection_yunet_2023mar.onnx"


@pytest.mark.parametrize("size", [(1280, 886), (640, 443), (333, 211)])
def test_it_finds_what_opencv_finds(model, size):
    picture = np.ascontiguousarray(cv2.resize(get_image("t1"), size, interpolation=cv2.INTER_AREA))
    opencv = cv2.FaceDetectorYN.create(str(model), "", size, 0.5)
    _, rows = opencv.detect(picture)
    found = YuNet(model, score=0.5, threads=1)(picture)
    assert len(found) == len(rows) == 6
    for face, row in zip(found, rows, strict=True):
        np.testing.assert_allclose(face.box, [*row[:2], *(row[:2] + row[2:4])], atol=0.01)
        np.testing.assert_allclose(face.landmarks.ravel(), row[4:14], atol=0.01)
        assert face.score == pytest.approx(float(row[14]), abs=1e-4)


def test_a_picture_does_not_depend_on_those_before_it(model):
    """The detector keeps the memory for pictures of a few sizes, and drops that of others."""
    photo = get_image("t1")
    sizes = [(320, 224), (320, 200), (200, 320), (310, 224), (160, 112), (320, 224), (320, 200)]
    detector = YuNet(model, score=0.5, threads=1)
    for size in (*sizes, *reversed(sizes)):
        picture = np.ascontiguousarray(cv2.resize(photo, size, interpolation=cv2.INTER_AREA))
        found, alone = detector(picture), YuNet(model, score=0.5, threads=1)(picture)
        assert [face.score for face in found] == [face.score for face in alone]
        for face, other in zip(found, alone, strict=True):
            np.testing.assert_array_equal(face.box, other.box)
        detector(np.full_like(picture, 255))


@pytest.mark.parametrize("size", [(17, 31), (1, 1), (32, 64)])
def test_a_small_picture_without_a_face(model, size):
    assert YuNet(model, score=0.7)(np.zeros((*size, 3), np.uint8)) == []


def test_a_file_that_is_no_yunet_is_refused_in_one_sentence(tmp_path):
    file = tmp_path / "yunet.onnx"
    file.write_bytes(b"no network")
    with pytest.raises(WeightsError, match=r"cannot be loaded as a YuNet model.*fetch it again"):
        YuNet(file, score=0.7)


def test_what_a_library_says_of_a_damaged_file_is_one_printable_line(model, tmp_path, capfd):
    content, messages = model.read_bytes(), list[str]()
    for seed in range(12):
        random = np.random.default_rng(seed)
        damaged = bytearray(content)
        for at in random.integers(0, len(content), 20):
            damaged[at] ^= 1 << int(random.integers(8))
        file = tmp_path / f"{seed}.onnx"
        file.write_bytes(damaged)
        try:
            YuNet(file, score=0.7)
        except WeightsError as error:
            messages.append(str(error))
    assert messages
    assert all(map(str.isprintable, messages))
    assert capfd.readouterr() == ("", "")

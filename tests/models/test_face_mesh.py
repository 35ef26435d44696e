"""The face mesh: what it finds in turned heads, where it finds none, and the five landmarks."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

from vidrestore.common import checksums
from vidrestore.common.errors import WeightsError
from vidrestore.imaging.geometry import apply, fit_similarity, invert, template
from vidrestore.models.detectors.yunet import YuNet
from vidrestore.models.face_mesh import (
    POINTS,
    SHAPE_POINTS,
    FaceMesh,
    Mesh,
    Square,
    square_of_landmarks,
    square_of_mesh,
)

ASTRONAUT_BOX = np.array([170, 60, 280, 190])


def square_around(box, degrees=0.0):
    """A square with room around a face of which only a box x1 y1 x2 y2 is known."""
    (x, y), side = (box[:2] + box[2:]) / 2, 1.5 * float(max(box[2:] - box[:2]))
    return Square((float(x), float(y)), side, degrees)


@pytest.fixture(scope="module")
def shared():
    folder = Path(__file__).parents[3] / "shared"
    if not (folder / "models" / "face_landmark.tflite").exists():
        pytest.skip(f"there is no face mesh in {folder / 'models'}")
    return folder


@pytest.fixture(scope="module")
def network(shared):
    return FaceMesh(shared / "models" / "face_landmark.tflite")


@pytest.fixture(scope="module")
def portrait():
    """(512, 512, 3) uint8 BGR, one face."""
    return np.ascontiguousarray(skimage.data.astronaut()[..., ::-1])


def turned(picture, degrees, center):
    """The picture, turned clockwise about a point that moves to the middle of the result."""
    matrix = cv2.getRotationMatrix2D(center, -degrees, 1)
    matrix[:, 2] += np.array([320, 240]) - center
    return cv2.warpAffine(picture, matrix, (640, 480), borderValue=(90, 100, 110)), matrix


def wrapped(degrees):
    return (degrees + 180) % 360 - 180


@pytest.mark.parametrize("degrees", [0, 30, 45, 60, 90, 120, 150, 180, -30, -60, -90, -135])
def test_a_turned_head_is_found_from_any_start(network, portrait, degrees):
    center = (225.0, 125.0)
    upright = network.find(portrait, square_around(ASTRONAUT_BOX))
    picture, matrix = turned(portrait, degrees, center)
    box = np.array([320 - 60, 240 - 65, 320 + 60, 240 + 65])
    for start in (0.0, 90.0, 180.0, -90.0):
        mesh = network.find(picture, square_around(box, start))
        assert mesh is not None
        assert abs(wrapped(mesh.roll_degrees - upright.roll_degrees - degrees)) < 3
        wanted = apply(matrix, upright.landmarks())
        assert np.linalg.norm(mesh.landmarks() - wanted, axis=1).max() < 3


@pytest.mark.parametrize("side", [140.3, 330.7])
@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_picture_turned_by_right_angles_gives_the_same_mesh(network, portrait, quarters, side):
    wanted = network.look(portrait, Square((225.2, 125.6), side, 3.7))
    turn = np.array({1: [[0, 1, 0], [-1, 0, 511]], 2: [[-1, 0, 511], [0, -1, 511]],
                     3: [[0, -1, 511], [1, 0, 0]]}[quarters], float)  # fmt: skip
    x, y = apply(turn, np.array([[225.2, 125.6]]))[0]
    square = Square((x, y), side, wrapped(3.7 - 90 * quarters))
    found = network.look(np.ascontiguousarray(np.rot90(portrait, quarters)), square)
    assert np.abs(found.points - wanted.moved(turn).points).max() < 1e-2
    assert found.logit == pytest.approx(wanted.logit, abs=1e-3)


def test_a_dark_face_is_seen_like_a_bright_one(network, portrait):
    bright = network.find(portrait, square_around(ASTRONAUT_BOX))
    dark = network.find(portrait // 8, square_around(ASTRONAUT_BOX))
    assert dark.logit > 0.8 * bright.logit
    assert np.linalg.norm(dark.landmarks() - bright.landmarks(), axis=1).max() < 2.5
    night = np.random.default_rng(1).integers(0, 9, portrait.shape, np.uint8)
    assert network.find(night, square_around(ASTRONAUT_BOX)) is None


def test_a_start_at_an_ear_ends_where_one_at_the_whole_face_ends(network, shared):
    """A dark face, 34 px between the eyes; YuNet sees less than half of it where the picture is
    turned."""
    source = cv2.VideoCapture(str(shared / "clips" / "hamilton_short.mp4"))
    for _ in range(82):
        source.grab()
    found, picture = source.read()
    if not found:
        pytest.skip(f"there is no clip hamilton_short.mp4 in {shared}")
    starts = Square((183.4, 111.0), 135.8, 0.8), Square((186.2, 78.2), 60.9, 1.4)
    whole, part = (network.find(picture, start).landmarks() for start in starts)
    off_px = np.linalg.norm(part - whole, axis=1).max()
    assert off_px < 0.005 * np.linalg.norm(whole[1] - whole[0])


def test_hair_cloth_and_walls_are_no_faces(network, portrait):
    for box in (
        [20, 20, 120, 130],
        [380, 300, 500, 420],
        [180, 260, 300, 380],
        [300, 20, 420, 140],
    ):
        assert network.find(portrait, square_around(np.array(box))) is None


def test_noise_and_a_flat_picture_are_no_faces(network):
    random = np.random.default_rng(0)
    flat = np.full((200, 200, 3), 127, np.uint8)
    noise = random.integers(0, 256, (200, 200, 3), np.uint8)
    for picture in (flat, noise):
        assert network.find(picture, Square((100, 100), 120, 0)) is None


@pytest.mark.parametrize("place", [(-500.0, 40.0), (900.0, 900.0), (0.0, 0.0), (511.0, 100.0)])
@pytest.mark.parametrize("side", [0.5, 30.0, 5000.0])
def test_a_square_beyond_the_picture_is_no_error(network, portrait, place, side):
    mesh = network.look(portrait, Square(place, side, 10))
    assert np.isfinite(mesh.points).all()


def test_the_side_that_the_head_turns_to(network, shared):
    """A mirrored head turns to the other side, by about as much."""
    clip = cv2.imread(str(shared / "real-restorers" / "solvay" / "face11.jpg"))
    if clip is None:
        pytest.skip("there are no pictures of real restorers")
    face = np.ascontiguousarray(clip[:, 512:])
    whole = square_around(np.array([80, 60, 430, 470]))
    mesh = network.find(face, whole)
    mirrored = network.find(
        np.ascontiguousarray(face[:, ::-1]), Square((256, 265), whole.side_px, 0)
    )
    assert mesh.yaw_degrees < -12
    assert mirrored.yaw_degrees == pytest.approx(-mesh.yaw_degrees, abs=6)
    assert mirrored.pitch_degrees == pytest.approx(mesh.pitch_degrees, abs=6)


def test_small_faces_are_aligned_as_the_authors_align_them(network, shared):
    folder = shared / "real-restorers"
    if not (folder / "gpen_solvay_matrices.json").exists():
        pytest.skip("there are no pictures of real restorers")
    picture = cv2.imread(str(folder / "solvay" / "source.png"))
    places = template("gpen") * 512 - 0.5
    detector = YuNet(shared / "models" / "face_detection_yunet_2023mar.onnx", score=0.5)
    found = detector(picture)
    errors = []
    for matrix in json.loads((folder / "gpen_solvay_matrices.json").read_text()).values():
        wanted = apply(invert(np.array(matrix)), places)
        near = min(found, key=lambda face: np.linalg.norm(face.landmarks - wanted))
        mesh = network.find(picture, square_of_landmarks(near.landmarks))
        own = fit_similarity(mesh.landmarks()[None].astype(float), places)[0]
        errors.append(np.linalg.norm(apply(own, wanted) - places, axis=1).mean())
    assert len(errors) == 29
    assert np.mean(errors) < 5.5
    assert max(errors) < 13


def test_the_shape_lies_in_the_crop_of_the_landmarks(network, portrait):
    mesh = network.find(portrait, square_around(ASTRONAUT_BOX))
    shape = mesh.shape()
    to_unit = fit_similarity(mesh.landmarks()[None].astype(float), template("gpen"))[0]
    wanted = apply(to_unit, mesh.points[list(SHAPE_POINTS), :2].astype(float))
    assert np.abs(shape.points - wanted).max() < 1e-3  # half precision
    assert shape.points.nbytes <= 1000
    assert shape.logit == mesh.logit


def test_a_mesh_moves_with_its_picture(network, portrait):
    mesh = network.find(portrait, square_around(ASTRONAUT_BOX))
    matrix = np.array([[0.0, -2.0, 30.0], [2.0, 0.0, -5.0]])
    moved = mesh.moved(matrix)
    assert moved.roll_degrees == pytest.approx(mesh.roll_degrees + 90, abs=1e-2)
    assert moved.yaw_degrees == pytest.approx(mesh.yaw_degrees, abs=1e-2)
    assert moved.landmarks() == pytest.approx(apply(matrix, mesh.landmarks()), abs=1e-2)
    assert square_of_mesh(moved).side_px == pytest.approx(2 * square_of_mesh(mesh).side_px)


def test_another_file_is_refused_in_one_sentence(tmp_path):
    file = tmp_path / "mesh.tflite"
    file.write_bytes(b"no network")
    with pytest.raises(WeightsError, match=r"mesh.tflite cannot be loaded as a face mesh"):
        FaceMesh(file)
    with pytest.raises(WeightsError, match="cannot be loaded"):
        FaceMesh(tmp_path / "missing.tflite")


def test_the_file_is_read_once_for_its_hash(shared, monkeypatch):
    read = []
    hashed = checksums.sha256_of_file
    monkeypatch.setattr(checksums, "sha256_of_file", lambda path: read.append(path) or hashed(path))
    hashes, file = checksums.FileHashes(), shared / "models" / "face_landmark.tflite"
    assert FaceMesh(file, hashes).sha256 == FaceMesh(file, hashes).sha256 == hashed(file)
    assert read == [file]


def test_a_mesh_of_another_size_is_refused():
    with pytest.raises(ValueError, match="points"):
        Mesh(np.zeros((POINTS + 1, 3), np.float32), 0.0)

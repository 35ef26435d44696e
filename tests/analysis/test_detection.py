"""Faces of all sizes are found, and second looks are taken where they are needed."""

from collections.abc import Sequence

import av
import cv2
import numpy as np
import pytest
import torch
from helpers.media import info_of, random_image
from helpers.onnx_providers import Machine
from skimage import data

from vidrestore.analysis.detection import FirstLook, close_gaps, detect
from vidrestore.common.settings import Detect
from vidrestore.imaging.frame import Frame, VideoInfo
from vidrestore.imaging.geometry import Rect
from vidrestore.models.detectors import (
    Detector,
    detection,
    look_closely,
    with_others,
)
from vidrestore.models.factory import open_detector
from vidrestore.models.onnx_session import import_onnxruntime

KINDS = ("yunet", "insightface")
# Of the astronaut's face, x1 y1 x2 y2.
_FACE = np.array([176, 62, 268, 192])


def portrait_of_size(side: int, *, share: float) -> tuple[np.ndarray, np.ndarray]:
    """A square BGR picture of which the face takes that share of the height, and its box."""
    height = _FACE[3] - _FACE[1]
    wide = round(height / share)
    corner = (_FACE[:2] + _FACE[2:] - wide) // 2
    padded = np.pad(data.astronaut()[..., ::-1], ((99, 99), (99, 99), (0, 0)), mode="edge")
    part = padded[corner[1] + 99 :, corner[0] + 99 :][:wide, :wide]
    picture = cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA)
    return picture, (_FACE - np.tile(corner, 2)) * side / wide


@pytest.fixture(scope="module", params=KINDS)
def detector(request, shared):
    models = shared / "models"
    where = {"yunet": models / "face_detection_yunet_2023mar.onnx",
             "det_only": models / "insightface" / "models" / "det_only"}  # fmt: skip
    how = Detect(detector=request.param, pack="det_only")
    return open_detector(how, find_weights=where.__getitem__)


def on_cuda(shared, notices):
    return open_detector(
        Detect(detector="insightface", pack="det_only"),
        find_weights={
            "det_only": shared / "models" / "insightface" / "models" / "det_only"
        }.__getitem__,
        device=torch.device("cuda"),
        on_notice=notices.append,
    )


def test_a_cuda_that_onnxruntime_only_claims_leaves_it_to_the_processor(shared, monkeypatch):
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(import_onnxruntime(), "get_available_providers", lambda: both)
    notices = []
    detector = on_cuda(shared, notices)
    assert len(detector(data.astronaut()[..., ::-1])) == 1
    assert len(notices) == 2
    assert notices[-1].endswith("; the processor runs it")


def test_insightface_runs_on_a_device_that_gives_what_the_processor_gives(shared, monkeypatch):
    calls = []

    def right(value):
        calls.append(value.shape)
        return value

    machine, notices = Machine(monkeypatch, CUDA=right), []
    detector = on_cuda(shared, notices)
    assert notices == []
    assert len(machine.tried) == 1
    calls.clear()
    assert len(detector(data.astronaut()[..., ::-1])) == 1
    assert len(calls) == 9  # the outputs for scores, boxes and landmarks at three scales

    def displaced(value):  # all landmarks, and nothing else, by a little
        return value + np.float32(0.05) * (value.shape[-1] == 10)

    Machine(monkeypatch, CUDA=displaced)
    detector = on_cuda(shared, notices)
    assert len(notices) == 1
    assert "scrfd_2.5g_bnkps.onnx does not run in CUDAExecutionProvider with Tensor" in notices[0]
    assert "the PSNR of its result" in notices[0]


def frame_of(picture: np.ndarray, index: int = 0) -> Frame:
    return Frame(index, index * 512, av.VideoFrame.from_ndarray(picture, format="bgr24"))


def faces_in(pictures: Sequence[np.ndarray], detector) -> list[list[np.ndarray]]:
    height, width = pictures[0].shape[:2]
    info = info_of(width, height, "gbrp")
    first = FirstLook(detector, info, Detect())
    frames = (frame_of(picture, i) for i, picture in enumerate(pictures))
    seen = detect(map(first, frames), detector, info, Detect())
    return [[d.box for d in observation.detections] for _, observation in seen]


def placed(face: np.ndarray, width: int, height: int, x: int, y: int) -> np.ndarray:
    canvas = np.full((height, width, 3), (90, 100, 95), np.uint8)
    canvas[y : y + face.shape[0], x : x + face.shape[1]] = face
    return canvas


def test_a_face_that_fills_four_fifths_of_a_small_frame_is_found(detector):
    picture, box = portrait_of_size(128, share=0.8)
    ((found,),) = faces_in([picture], detector)
    assert np.abs(found - box).max() < 0.15 * 128


@pytest.mark.parametrize(("x", "y"), [(60, 40), (633, 500), (1275, 890), (1700, 20)])
def test_a_face_of_25_pixels_in_a_large_frame_is_found(detector, x, y):
    """Some of the places lie on the edges of tiles."""
    patch, box = portrait_of_size(60, share=25 / 60)
    ((found,),) = faces_in([placed(patch, 1920, 1080, x, y)], detector)
    assert np.abs(found - box - np.tile([x, y], 2)).max() < 8


@pytest.mark.long
def test_a_small_face_is_followed_through_every_frame(detector):
    patch, _ = portrait_of_size(60, share=25 / 60)
    pictures = [placed(patch, 1920, 1080, 700 + 3 * i, 400 + i) for i in range(6)]
    assert [len(found) for found in faces_in(pictures, detector)] == [1] * 6


class Counting(Detector):
    """Sees nothing, and notes the sizes of what it is shown."""

    coarse = False

    def __init__(self):
        self.shown: list[tuple[int, int]] = []

    def __call__(self, picture):
        self.shown.append(picture.shape[1::-1])
        return []


def looks(detector, count: int, info: VideoInfo, rate: int = 25) -> list[int]:
    """How many pictures the second look is shown for each frame."""
    first = FirstLook(Counting(), info, Detect())
    image = random_image(info.width, info.height, "yuv420p", 0)
    frames = (Frame(i, i * 512, image) for i in range(count))
    seen, numbers = 0, []
    for _ in detect(map(first, frames), detector, info, Detect()):
        numbers.append(len(detector.shown) - seen)
        seen = len(detector.shown)
    return numbers


def test_empty_frames_are_looked_at_again_only_now_and_then():
    detector = Counting()
    assert looks(detector, 30, info_of(640, 360)) == [1 if i % 13 == 0 else 0 for i in range(30)]
    assert set(detector.shown) == {(480, 270)}


def test_large_empty_frames_are_looked_at_in_tiles_as_often():
    detector = Counting()
    numbers = looks(detector, 14, info_of(1920, 1080))
    assert numbers == [1 + 6] + [0] * 12 + [1 + 6]
    assert set(detector.shown) == {(480, 270), (640, 640)}


def sees(boxes: Sequence[Sequence[int]]) -> list:
    return [detection(box, np.zeros((5, 2)) + box[:2], 0.9) for box in boxes]


def test_a_tile_leaves_what_its_edge_cuts_to_the_next():
    picture = np.zeros((100, 300, 3), np.uint8)
    tiles = [Rect(0, 0, 160, 100), Rect(100, 0, 260, 100), Rect(200, 0, 300, 100)]
    answers = iter([
        sees([[5, 5, 40, 40], [120, 20, 159.5, 60]]),  # the second is cut
        sees([[20, 20, 60, 60], [70, 0, 150, 90]]),    # the first whole; too large a one
        sees([[0, 10, 30, 50], [60, 70, 100, 100]]),   # cut; and one at the picture's own edge
    ])  # fmt: skip
    found = look_closely(picture, lambda part: next(answers), tiles, largest_px=50)
    boxes = [face.box.tolist() for face in found]
    assert boxes == [[5, 5, 40, 40], [120, 20, 160, 60], [260, 70, 300, 100]]


def test_a_face_seen_twice_counts_once_as_it_was_seen_first():
    first, again, other = sees([[0, 0, 40, 40], [4, 4, 44, 44], [60, 0, 90, 30]])
    assert with_others([first], [again, other]) == [first, other]


def test_crops_of_frames_beside_each_other_share_no_memory():
    """A look keeps its picture while others are made."""
    info = info_of(64, 48)
    first = FirstLook(Counting(), info, Detect(size_px=64, every=2))
    images = [random_image(64, 48, "yuv420p", seed) for seed in range(3)]
    made = [first(Frame(i, i, image)) for i, image in enumerate(images)]
    assert [look.found for look in made] == [[], None, []]
    assert not np.array_equal(made[0].picture, made[1].picture)
    again = first(Frame(0, 0, images[0]))
    np.testing.assert_array_equal(again.picture, made[0].picture)


class Scripted(Detector):
    """Has scores for each frame, which it knows by the gray of the picture; each at its place."""

    def __init__(self, scores, grays):
        self.least_score = 0.7
        self._scores = dict(zip(grays, scores, strict=True))
        self.seen: list[int] = []

    def __call__(self, picture):
        return self.with_hint(picture)[0]

    def with_hint(self, picture):
        gray = int(picture[0, 0, 0])
        self.seen.append(gray)
        scores = np.atleast_1d(self._scores[gray])
        faces = [
            detection(np.add([10, 10, 40, 40], 40 * place), np.full(10, 25.0 + 40 * place), score)
            for place, score in enumerate(scores)
            if score >= self.least_score
        ]
        return faces, bool((scores >= 0.3).sum() > len(faces))


def first_looks(scores, apart, grays=None, *, most_frames=3.0, cut=12.0, follows=False):
    """What the first look finds in each frame, and how many frames it looks at."""
    grays = grays or [60 + 2 * i for i in range(len(scores))]
    detector = Scripted(scores, grays)
    first = FirstLook(detector, info_of(96, 64, "gbrp"), Detect(), apart=apart)
    frames = [frame_of(np.full((64, 96, 3), g, np.uint8), i) for i, g in enumerate(grays)]
    needed = close_gaps(map(first, frames), most_ticks=512 * most_frames, cut=cut, follows=follows)
    results = [first.closed(each) for each in needed]
    assert [each.frame.index for each in results] == list(range(len(scores)))
    assert all(each.found is not None and not each.is_open for each in results)
    return results, len(detector.seen)


def frames_with_faces(*arguments, **how) -> tuple[list[int], int]:
    """The frames in which the first look finds a face, and how many it looks at."""
    results, looks = first_looks(*arguments, **how)
    return [each.frame.index for each in results if each.found], looks


def followed_frames(*arguments, **how) -> list[int]:
    """The frames that are left to the mesh."""
    results, _ = first_looks(*arguments, **how, follows=True)
    assert not any(each.found for each in results if each.is_followed)
    return [each.frame.index for each in results if each.is_followed]


def test_frames_between_two_with_the_same_faces_are_left_to_the_mesh():
    between = [1, 2, 4, 5, 7, 8]
    assert followed_frames([0.8] * 11, 3) == between  # not the two after the last look
    assert followed_frames([(0.8, 0.9)] * 11, 3) == between
    assert first_looks([0.8] * 11, 3, follows=True)[1] == 5
    assert first_looks([0.8] * 11, 3)[1] == 11
    assert followed_frames([0.0] * 11, 3) == []  # they have no face at all
    assert first_looks([0.0] * 11, 3, follows=True)[1] == 5


@pytest.mark.parametrize(
    "scores",
    [
        [0.8] * 4 + [(0.8, 0.9)] * 3,  # another face comes
        [(0.8, 0.9)] * 4 + [0.8] * 3,  # one goes
        [0.0] * 4 + [0.8] * 3,
        [(0.8, 0.0)] * 4 + [(0.0, 0.8)] * 3,  # one goes and another one comes elsewhere
        [0.8] * 3 + [(0.8, 0.4)] * 4,  # something else may be a face
        [(0.8, 0.4)] * 6 + [0.8],
    ],
)
def test_frames_around_a_change_of_faces_are_looked_at(scores):
    assert set(followed_frames(scores, 3)) <= {1, 2}
    (some, _), (every, _) = first_looks(scores, 3, follows=True), first_looks(scores, 1)
    for mine, wanted in zip(some[3:], every[3:], strict=True):
        assert [face.score for face in mine.found] == [face.score for face in wanted.found]


def test_no_face_is_followed_over_a_cut_or_a_gap_in_time():
    grays = [60 + i for i in range(5)] + [90 + i for i in range(5)]
    assert followed_frames([0.8] * 10, 3, grays) == [1, 2, 7, 8]
    assert followed_frames([0.8] * 10, 3, most_frames=2.9) == []


@pytest.mark.parametrize("length", [3, 4, 9])
@pytest.mark.parametrize("start", range(3, 9))
def test_a_face_after_calm_frames_is_found_from_its_first_frame_to_its_last(start, length):
    scores = [0.0] * start + [0.8] * length + [0.0] * 12
    found, looks = frames_with_faces(scores, 3)
    assert found == list(range(start, start + length))
    assert looks < len(scores)


def test_a_face_that_is_sure_only_between_the_looks_is_found_by_its_hints():
    scores = [0.0] * 6 + [0.4, 0.8, 0.8] * 3 + [0.4] + [0.0] * 8
    assert (
        frames_with_faces(scores, 3)[0] == frames_with_faces(scores, 1)[0] == [7, 8, 10, 11, 13, 14]
    )


def test_calm_frames_cost_a_third_and_the_frames_around_a_change_are_all_looked_at():
    assert frames_with_faces([0.1] * 31, 3) == ([], 11)
    grays = [60 + i for i in range(13)] + [90 + i for i in range(18)]  # a cut before frame 13
    assert frames_with_faces([0.1] * 31, 3, grays) == ([], 13)
    brief = [0.0] * 13 + [0.8] + [0.0] * 17  # one frame after the cut
    assert frames_with_faces(brief, 3, grays)[0] == [13]


def test_frames_that_are_far_apart_in_time_are_all_looked_at():
    """A file may state a rate of its frames that is many times too high."""
    scores = [0.0] * 4 + [0.8] * 2 + [0.0] * 7
    assert frames_with_faces(scores, 3) == ([], 5)
    assert frames_with_faces(scores, 3, most_frames=2.9) == ([4, 5], 13)


def test_a_cut_as_small_as_the_settings_allow_hides_no_face():
    grays = [60 + i for i in range(4)] + [66, 67] + [70 + i for i in range(7)]  # changes of 3
    scores = [0.0] * 4 + [0.8] * 2 + [0.0] * 7
    assert frames_with_faces(scores, 3, grays) == ([], 5)
    assert frames_with_faces(scores, 3, grays, cut=3.0)[0] == [4, 5]


def test_the_hints_of_a_detector_leave_its_faces_as_they_are(detector):
    picture, _ = portrait_of_size(320, share=0.5)
    for shown in (picture, np.tile(cv2.resize(picture, (80, 80)), (3, 4, 1))):
        found, _ = detector.with_hint(np.ascontiguousarray(shown))
        expected = detector(np.ascontiguousarray(shown))
        assert [face.score for face in found] == [face.score for face in expected]
        assert all((a.box == b.box).all() for a, b in zip(found, expected, strict=True))
    assert detector.with_hint(np.full((64, 96, 3), 128, np.uint8)) == ([], False)


def test_a_hint_is_what_no_face_of_the_detector_explains(detector):
    picture, _ = portrait_of_size(320, share=0.5)
    found, has_hint = detector.with_hint(picture)
    assert [len(found), has_hint] == [1, False]
    usual = detector.least_score
    try:
        detector.least_score = 0.999
        assert detector.with_hint(picture) == ([], True)
    finally:
        detector.least_score = usual

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from helpers.media import info_of
from helpers.motion import (
    BAD,
    Course,
    Noise,
    Wear,
    drawn_face,
    frames,
    info_for,
    moving_face,
    portrait,
    seen,
    sighting,
    still_face,
    true_matrices,
)

from vidrestore.analysis.motion import FaceMotionEstimator
from vidrestore.imaging.geometry import apply, compose, invert, upright
from vidrestore.imaging.planes import plane
from vidrestore.models.detectors import Detection

PICTURES = [portrait, drawn_face]


def odometer(info, **changes) -> FaceMotionEstimator:
    return FaceMotionEstimator(info, **({"carry_frames": 10, "least_support": 0.3} | changes))


def a_second(picture=portrait, seed=4, **options) -> tuple[Course, list[av.VideoFrame]]:
    """25 frames with the hardest turn."""
    face = picture()
    course = moving_face(seed, seconds=3, shape=face.shape, **options)
    start = int(np.flatnonzero(course.is_fast)[0]) - 5
    part = cut_out(course, start, start + 25)
    return part, list(frames(part, face, seed))


def cut_out(course: Course, start: int, end: int) -> Course:
    names = ("place", "factor", "yaw", "talk", "is_fast")
    return replace(course, **{name: getattr(course, name)[start:end] for name in names})


def motions_of(images, found, info, **changes) -> list:
    """Of the only face; `found` has None where it was missed."""
    watching = odometer(info, **changes)
    sightings = ([face] if face else [] for face in found)
    pairs = [watching.follow(i, f)[1] for i, f in zip(images, sightings, strict=True)]
    return [p.get((0, 0)) for p in pairs]


def detections(course: Course, seed: int, noise: Noise | None = None) -> list[Detection | None]:
    found = seen(course, seed, noise)
    return [sighting(points) if np.isfinite(points).all() else None for points in found]


def errors(course: Course, motions: list) -> np.ndarray:
    """(n - 1,) how far the face's middle is led astray, in eye distances."""
    landmarks, to_frame = course.landmarks, invert(true_matrices(course))
    off = []
    for t, motion in enumerate(motions[1:], start=1):
        true_step = compose(to_frame[t], invert(to_frame[t - 1]))
        middle = landmarks[t - 1].mean(axis=0)[None]
        off.append(apply(motion.matrix, middle) - apply(true_step, middle))
    return np.linalg.norm(np.array(off)[:, 0], axis=-1) / np.abs(course.factor[1:])


@pytest.mark.parametrize("picture", PICTURES)
def test_motion_is_far_more_exact_than_landmarks(picture):
    """Which are off by 0.67 % of the eye distance in each coordinate."""
    course, images = a_second(picture)
    motions = motions_of(images, detections(course, 1, Noise(dropped_share=0)), info_for(course))
    assert motions[0] is None
    assert np.sqrt((errors(course, motions) ** 2).mean()) < 0.003
    assert min(m.support for m in motions[1:]) > 0.5
    assert min(m.points for m in motions[1:]) > 20


def test_a_face_that_nobody_found_is_carried_and_found_again():
    course, images = a_second()
    found = detections(course, 2, Noise(outlier_share=0, dropped_share=0))
    watching = odometer(info_for(course))
    motions = []
    for t, (image, face) in enumerate(zip(images, found, strict=True)):
        missed = 4 <= t < 10
        faces, pairs = watching.follow(image, [] if missed else [face])
        assert len(faces) == 1
        assert np.isnan(faces[0].score) == missed
        motions.append(pairs.get((0, 0)))
        if missed:
            off = np.linalg.norm(faces[0].landmarks - course.landmarks[t], axis=-1)
            assert off.max() < 0.12 * abs(course.factor[t])
            assert (faces[0].box[:2] < faces[0].landmarks.min(axis=0)).all()
            assert (faces[0].box[2:] > faces[0].landmarks.max(axis=0)).all()
    assert errors(course, motions).max() < 0.02


def test_a_face_is_carried_only_so_far():
    course, images = a_second()
    watching = odometer(info_for(course), carry_frames=3)
    counts = [len(watching.follow(image, [sighting(course.landmarks[0])] if t == 0 else [])[0])
              for t, image in enumerate(images[:7])]  # fmt: skip
    assert counts == [1, 1, 1, 1, 0, 0, 0]


def test_the_detector_may_run_now_and_then():
    course, images = a_second()
    found = detections(course, 3, Noise(dropped_share=0))
    sparse = [face if t % 5 == 0 else None for t, face in enumerate(found)]
    motions = motions_of(images, sparse, info_for(course), carry_frames=4)
    assert np.sqrt((errors(course, motions) ** 2).mean()) < 0.004


def test_two_faces_that_are_apart_are_each_their_own():
    course, images = a_second(drawn_face)
    width, height = course.frame_size
    info = info_of(width, 2 * height, "gray")
    watching = odometer(info)
    for t, image in enumerate(images[:6]):
        both = av.VideoFrame(width, 2 * height, "gray")
        upper = course.landmarks[t]
        lower = course.landmarks[5 - t] + [0, height]
        plane(both, 0)[:height], plane(both, 0)[height:] = (
            plane(image, 0), plane(images[5 - t], 0))  # fmt: skip
        order = [lower, upper] if t % 2 else [upper, lower]
        faces, pairs = watching.follow(both, [sighting(points) for points in order])
        assert len(faces) == 2
        assert set(pairs) == (set() if t == 0 else {(0, 1), (1, 0)})


@pytest.mark.parametrize("noise", [0.0, 3.0])
def test_without_texture_there_is_no_motion(noise):
    random = np.random.default_rng(5)
    info = info_of(320, 240, "gray")
    watching = odometer(info)
    face = sighting(still_face(1, eyes_px=50, shape=portrait().shape).landmarks[0])
    for t in range(6):
        image = av.VideoFrame(320, 240, "gray")
        plane(image, 0)[...] = np.rint(random.normal(120, noise, (240, 320)))
        faces, pairs = watching.follow(image, [face] if t < 3 else [])
        assert all(motion.support < 0.3 for motion in pairs.values())
        assert len(faces) == (t < 3)


def test_across_a_cut_nothing_agrees():
    one, before = a_second(portrait)
    other, after = a_second(drawn_face)
    info = info_of(*np.maximum(one.frame_size, other.frame_size).tolist(), "gray")
    watching = odometer(info)
    place = sighting(one.landmarks[0])
    watching.follow(padded(before[0], info), [place])
    shift = one.landmarks[0].mean(axis=0) - other.landmarks[0].mean(axis=0)
    moved = padded(after[0], info, shift.round().astype(int))
    _, pairs = watching.follow(moved, [place])
    assert all(motion.support < 0.3 for motion in pairs.values())


def padded(image: av.VideoFrame, info, shift=(0, 0)) -> av.VideoFrame:
    larger = av.VideoFrame(info.width, info.height, "gray")
    size = (info.width, info.height)
    matrix = np.column_stack([np.eye(2), shift])
    plane(larger, 0)[...] = cv2.warpAffine(plane(image, 0).copy(), matrix, size)
    return larger


def test_a_face_that_leaves_the_frame_is_let_go():
    """It goes out to the left at a tenth of its eye distance per frame; the detector gives up."""
    picture = drawn_face()
    course = still_face(40, eyes_px=40.0, shape=picture.shape)
    course = replace(course, place=course.place - 4.0 * np.arange(40))
    whole = replace(course, place=course.place + 200)
    info = info_of(256, 224, "gray")
    watching = odometer(info, carry_frames=40)
    seen_until = 15
    for t, image in enumerate(frames(whole, picture, 6)):
        part = padded(image, info, (-200, 0))
        face = sighting(course.landmarks[t])
        faces, pairs = watching.follow(part, [face] if t < seen_until else [])
        if 0 < t < seen_until:
            middle = course.landmarks[t - 1].mean(axis=0)[None]
            assert apply(pairs[0, 0].matrix, middle) - middle == pytest.approx(
                np.array([[-4.0, 0.0]]), abs=0.3
            )
        assert all(found.landmarks.mean(axis=0)[0] >= 0 for found in faces)
    assert not faces


@pytest.mark.parametrize(
    "landmarks",
    [np.full((5, 2), 20.0), np.full((5, 2), -500.0), np.arange(10).reshape(5, 2) * 1e4,
     still_face(1, eyes_px=50, shape=drawn_face().shape).landmarks[0] + 1000],
)  # fmt: skip
def test_landmarks_that_are_no_face_in_the_frame_do_no_harm(landmarks):
    course, images = a_second()
    watching = odometer(info_for(course))
    for image in images[:3]:
        faces, pairs = watching.follow(image, [sighting(landmarks)])
        assert len(faces) == 1
        assert pairs == {}


def as_depth(image: av.VideoFrame, name: str) -> av.VideoFrame:
    """The same grey picture in the green or luma plane of another format."""
    grey = plane(image, 0)
    deeper = av.VideoFrame(image.width, image.height, name)
    bits = deeper.format.components[0].bits
    for index in range(len(deeper.planes)):
        plane(deeper, index)[...] = 2 ** (bits - 1)
    plane(deeper, 0)[...] = grey.astype(np.uint16) << (bits - 8)
    return deeper


@pytest.mark.parametrize("name", ["gray16le", "gray10le", "yuv420p", "yuv444p12le", "gbrp"])
def test_every_depth_gives_the_same(name):
    """The first plane of gbr is green."""
    course, images = a_second()
    found = detections(course, 7)
    info = info_for(course)
    expected = motions_of(images[:8], found[:8], info)
    deeper = replace(info, pixel_format=name)
    result = motions_of([as_depth(image, name) for image in images[:8]], found[:8], deeper)
    for t, (a, b) in enumerate(zip(expected[1:], result[1:], strict=True)):
        ends = [apply(m.matrix, course.landmarks[t]) for m in (a, b)]
        np.testing.assert_allclose(*ends, rtol=0, atol=0.15)
        assert a.support == pytest.approx(b.support, abs=0.1)


def scaled(images: list[av.VideoFrame], gains, offsets) -> Iterator[av.VideoFrame]:
    for image, gain, offset in zip(images, gains, offsets, strict=True):
        other = av.VideoFrame(image.width, image.height, "gray")
        plane(other, 0)[...] = np.clip(plane(image, 0) * gain + offset, 0, 255).round()
        yield other


def test_limited_range_and_light_that_flickers_move_nothing():
    course, images = a_second()
    found = detections(course, 8)
    info = info_for(course)
    random = np.random.default_rng(8)
    flicker = random.normal(1, 0.1, len(images)), random.normal(0, 10, len(images))
    limited = [219 / 255] * len(images), [16] * len(images)
    for gains, offsets in (flicker, limited):
        motions = motions_of(scaled(images, gains, offsets), found, info)
        assert np.sqrt((errors(course, motions) ** 2).mean()) < 0.004
        assert min(m.support for m in motions[1:]) > 0.5


def test_a_turned_stream_of_flat_pixels_moves_as_an_upright_one():
    course, images = a_second()
    shown = info_for(course)
    coded = replace(shown, width=shown.height // 2, height=shown.width,
                    sample_aspect_ratio=Fraction(2), display_orientation=(0, -1, 1, 0))  # fmt: skip
    view = upright(coded).matrix
    found = detections(course, 9)
    inside = [face and in_coded(face, invert(view)) for face in found]
    turned = [as_coded(image, coded) for image in images]
    result = motions_of(turned, inside, coded)
    back = [None] + [replace(m, matrix=compose(view, compose(m.matrix, invert(view))))
                     for m in result[1:]]  # fmt: skip
    assert np.sqrt((errors(course, back) ** 2).mean()) < 0.004
    for motion in back[1:]:
        a, b = motion.matrix[:, 0], motion.matrix[:, 1]
        assert a @ b == pytest.approx(0, abs=1e-6)
        assert np.hypot(*a) == pytest.approx(np.hypot(*b), abs=1e-6)


def as_coded(image: av.VideoFrame, coded) -> av.VideoFrame:
    """Shown x = height - 1 - coded y; shown y = 2 coded x, whose pixels are averaged."""
    flat = cv2.resize(plane(image, 0).copy(), (image.width, image.height // 2),
                      interpolation=cv2.INTER_AREA)  # fmt: skip
    other = av.VideoFrame(coded.width, coded.height, "gray")
    plane(other, 0)[...] = np.rot90(flat)
    return other


def in_coded(face: Detection, back: np.ndarray) -> Detection:
    corners = apply(back, face.box.reshape(2, 2))
    box = np.concatenate([corners.min(axis=0), corners.max(axis=0)]).astype(np.float32)
    return Detection(box, apply(back, face.landmarks).astype(np.float32), face.score)


def test_threads_and_repetition_change_nothing():
    course, images = a_second(drawn_face, eyes_px=90.0)
    found = detections(course, 10)
    before = cv2.getNumThreads()
    results = []
    try:
        for threads in (1, 4, 4):
            cv2.setNumThreads(threads)
            results.append(motions_of(images, found, info_for(course)))
    finally:
        cv2.setNumThreads(before)
    for one, four, again in zip(*results, strict=True):
        for other in (four, again):
            assert (one is None) == (other is None)
            if one is not None:
                np.testing.assert_array_equal(one.matrix, other.matrix)
                assert (one.support, one.points) == (other.support, other.points)


def test_faces_of_any_size_are_followed():
    """From 12 pixels between the eyes, which are enlarged, to 240, which are averaged."""
    for eyes_px, limit in ((12.0, 0.02), (24.0, 0.008), (240.0, 0.002)):
        picture = drawn_face()
        course = still_face(4, eyes_px=eyes_px, shape=picture.shape)
        course = replace(course, place=course.place + 0.03 * eyes_px * np.arange(4))
        wear = BAD if eyes_px < 30 else Wear()
        found = detections(course, 11, Noise(outlier_share=0, dropped_share=0))
        motions = motions_of(frames(course, picture, 11, wear), found, info_for(course))
        assert errors(course, motions).max() < limit

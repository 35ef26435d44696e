from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from helpers.media import info_of
from helpers.motion import (
    BAD,
    CROP_PX,
    FFHQ,
    Course,
    Noise,
    Score,
    Wear,
    drawn_face,
    filled,
    followed,
    frames,
    info_for,
    moving_face,
    portrait,
    raw_track,
    score,
    seen,
    steps_of,
    still_face,
    thinned,
    true_matrices,
)

from vidrestore.analysis.alignment import _steady, align, broken, smooth_landmarks, whittaker
from vidrestore.analysis.tracks import Motion, RawTrack, work_size
from vidrestore.common.settings import Align, Detect
from vidrestore.imaging.geometry import apply, compose, fit_similarity, invert, template, upright
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.media.probe import probe
from vidrestore.models.face_mesh import SHAPE_POINTS
from vidrestore.models.factory import open_detector

FACE = template("gpen") * 200
HOW = {"how": Align(), "template_name": "ffhq", "coarse": False}


def aligned(landmarks, info=None, **changes):
    how = HOW | {"template_name": "gpen", "how": Align(**changes)}
    track = raw_track(landmarks)
    return align([track], info or info_of(640, 360), **how)[0]


def moving(n, noise=0.0, seed=0):
    """A face that sways, nods and turns quickly once; (n, 5, 2) and its noise-free truth."""
    random = np.random.default_rng(seed)
    t = np.arange(n) / 25
    sway = np.stack([30 * np.sin(1.9 * t) + 60 / (1 + np.exp(-(t - n / 50) * 12)),
                     12 * np.sin(2.6 * t + 1)], axis=-1)  # fmt: skip
    truth = FACE[None] + sway[:, None] + [120, 60]
    return truth + random.normal(0, noise, truth.shape), truth


RATES = (Fraction(1, 60), Fraction(1), Fraction(1000), Fraction(10_000), Fraction(90_000),
         Fraction(10**6))  # fmt: skip


@pytest.mark.parametrize("rate", RATES, ids=str)
@pytest.mark.parametrize("frame_count", [1, 3, 8, 60, 2000])
@pytest.mark.parametrize("share_seen", [1.0, 0.3])
@pytest.mark.parametrize("is_followed", [False, True])
def test_a_face_is_aligned_at_any_frame_rate(rate, frame_count, share_seen, is_followed):
    """A face that moves evenly, and is one frame in ten found somewhere else."""
    random = np.random.default_rng(1)
    way = np.arange(frame_count)[:, None, None] * [0.15, 0.1] + [200, 150]
    truth = FACE + way
    points = truth + random.normal(0, 0.3, truth.shape)
    points[5::10] += 40
    points[1:][random.random(frame_count - 1) >= share_seen] = np.nan
    track = raw_track(points.astype(np.float32))
    if is_followed:
        step = Motion(np.array([[1, 0, 0.15], [0, 1, 0.1]]), 1.0, 30)
        track = replace(track, motions=(None, *[step] * (frame_count - 1)))
    info = info_of(1280, 720, frame_rate=rate)
    (found,) = align([track], info, **(HOW | {"template_name": "gpen"}))
    steps = np.linalg.norm(found.landmarks - truth, axis=-1)
    is_seen = np.isfinite(track.score)
    is_seen[5::10] = False
    assert np.median(steps[is_seen]) < 2
    # What lies between is not taken for the corner of the picture.
    assert steps.max() < 150


@pytest.mark.parametrize("smoothness", [1e-30, 1e-6, 1.0, 1e6, 1e12, 1e20, 1e30])
@pytest.mark.parametrize("order", [2, 3])
def test_samples_are_smoothed_with_any_weights(smoothness, order):
    random = np.random.default_rng(3)
    truth = np.linspace(1000, 1100, 400)[:, None]
    weights = np.where(random.random(400) < 0.1, 10 ** random.uniform(-6, 0, 400), 0.0)
    weights[[40, 200, 360]] = 1.0
    smooth = whittaker(truth, weights, smoothness, order=order)
    assert np.abs(smooth - truth)[40:360].max() < 0.1


@pytest.mark.parametrize("seed", range(5))
def test_the_banded_solve_is_the_dense_one(seed):
    random = np.random.default_rng(seed)
    n = int(random.integers(5, 40))
    z, weights = random.normal(size=(n, 2)), random.uniform(0.1, 1, n)
    d3 = np.diff(np.eye(n), n=3, axis=0)
    dense = np.linalg.solve(np.diag(weights) + 0.7 * d3.T @ d3, weights[:, None] * z)
    np.testing.assert_allclose(whittaker(z, weights, 0.7), dense, atol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_the_shortest_tracks_are_smoothed_too(n):
    noisy, _ = moving(n, 1.0)
    assert np.isfinite(smooth_landmarks(noisy, 0.2)).all()
    assert aligned(noisy).matrices.shape == (n, 2, 3)


def test_trembling_goes_and_motion_stays():
    results = []
    for seed in range(8):
        noisy, truth = moving(120, noise=0.015 * 42, seed=seed)
        smooth = smooth_landmarks(noisy, 0.2)
        jitter = [np.diff(x - truth, n=2, axis=0).std() for x in (smooth, noisy)]
        velocity = np.gradient(truth, axis=0)
        lag = -((smooth - truth) * velocity).sum() / (velocity**2).sum()
        results.append((jitter[0] / jitter[1], abs(lag)))
    shrunk, lag = np.mean(results, axis=0)
    assert shrunk < 0.35
    assert lag < 0.1


def test_an_outlier_and_a_gap_leave_no_trace():
    noisy, truth = moving(80, noise=0.3)
    noisy[40, 2] += [25, -18]
    noisy[50:54] = np.nan
    smooth = smooth_landmarks(noisy, 0.2)
    error = np.linalg.norm(smooth - truth, axis=-1)
    assert error[40, 2] < 1.5
    assert error[50:54].max() < 1.5


@pytest.mark.parametrize(
    ("side_px", "wanted"),
    [(0.5, 1), (3, 4), (5, 5), (7, 8), (64, 64), (64.5, 80), (80, 80), (81, 96), (97, 128),
     (250, 256), (256, 256), (257, 320), (385, 512), (1300, 1536), (1537, 2048)],
)  # fmt: skip
def test_the_work_size_is_a_little_larger_than_the_crop(side_px, wanted):
    assert work_size(side_px) == wanted


def test_work_sizes_are_few_and_none_is_far_above_the_crop():
    sides = {side: work_size(side) for side in range(64, 2049)}
    assert all(side <= work < side * 4 / 3 and work % 16 == 0 for side, work in sides.items())
    assert all(work_size(work) == work for work in sides.values())
    assert len(set(sides.values())) == 16


@pytest.mark.parametrize("work_px", [0, 7, 100, 112, 272, 448])
def test_a_track_has_a_work_size(work_px):
    whole = aligned(np.repeat(FACE[None], 3, axis=0) + 100)
    with pytest.raises(ValueError, match=f"5/8 or 3/4 of one, got {work_px}"):
        replace(whole, work_px=work_px)


def test_nothing_leaks_across_a_cut():
    first, _ = moving(30, 0.5, seed=1)
    second, _ = moving(30, 0.5, seed=2)
    info = info_of(640, 360)
    both = align([raw_track(first), raw_track(second + 40, 30)], info, **HOW)
    alone = align([raw_track(second + 40)], info, **HOW)
    np.testing.assert_array_equal(both[1].matrices, alone[0].matrices)


def test_the_matrix_leads_landmarks_to_the_template():
    truth = FACE + np.arange(10)[:, None, None] * np.array([3.0, -2.0]) + 100
    track = aligned(truth)
    np.testing.assert_allclose(
        apply(track.matrices.astype(float), truth), np.broadcast_to(template("gpen"), truth.shape),
        atol=1e-4,
    )  # fmt: skip
    assert track.work_px == 256


def test_an_anamorphic_sideways_face_is_fitted_upright_and_square():
    """Landmarks seen in the coded picture of a turned stream with flat pixels."""
    info = info_of(360, 640, sample_aspect_ratio=Fraction(4, 3), display_orientation=(0, -1, 1, 0))
    shown = FACE + np.array([200, 100])
    # Shown x = height - 1 - coded y, shown y = 4/3 coded x, both in edge coordinates.
    coded = np.stack([(shown[:, 1] + 0.5) / (4 / 3) - 0.5, 639 - shown[:, 0]], axis=-1)
    track = aligned(np.repeat(coded[None], 4, axis=0), info)
    np.testing.assert_allclose(apply(track.matrices[0], coded), template("gpen"), atol=1e-4)


def matrices(track: RawTrack, course: Course, **changes) -> np.ndarray:
    return align([track], info_for(course), **(HOW | {"how": Align(**changes)}))[0].matrices


def mean_of(scores: list[Score]) -> Score:
    names = Score.__dataclass_fields__
    return Score(**{name: float(np.mean([getattr(s, name) for s in scores])) for name in names})


def test_the_simulation_is_as_hard_as_the_published_one():
    """Raw landmarks with 1.5 % of noise and nothing else score about 2.9 px and 7 px."""
    scores = []
    for seed in range(6):
        course = moving_face(seed)
        found = seen(course, seed, Noise(outlier_share=0, dropped_share=0))
        scores.append(score(fit_similarity(found, FFHQ), course))
    assert mean_of(scores).rms == pytest.approx(2.9, abs=0.2)
    assert mean_of(scores).jitter == pytest.approx(7.0, abs=0.4)
    late = true_matrices(course)[np.r_[0, : len(found) - 1]]
    assert score(late, course).lag == pytest.approx(1.0, abs=0.15)
    assert score(true_matrices(course), course).rms < 1e-9


def test_landmarks_alone_come_out_smooth_and_in_time():
    smooth, raw = [], []
    for seed in range(100, 116):
        course = moving_face(seed)
        found = seen(course, seed)
        smooth.append(score(matrices(raw_track(found), course), course))
        raw.append(score(fit_similarity(filled(found), FFHQ), course))
    mean = mean_of(smooth)
    assert mean.rms <= 3.8
    assert mean.jitter <= min(2.8, 0.25 * mean_of(raw).jitter)
    assert abs(mean.lag) <= 0.1


def followed_scores(seeds, seconds, eyes_px, noise, wear) -> Score:
    scores = []
    for seed in seeds:
        picture = (portrait, drawn_face)[seed % 2]()
        course = moving_face(seed, seconds=seconds, eyes_px=eyes_px, shape=picture.shape)
        found = seen(course, seed, noise)
        track = followed(frames(course, picture, seed, wear), found, info_for(course))
        scores.append(score(matrices(track, course), course))
    return mean_of(scores)


@pytest.mark.long
@pytest.mark.parametrize(
    ("seeds", "seconds"),
    [(range(4), 5.0), pytest.param(range(2000, 2012), 12.0, marks=pytest.mark.long)],
)
def test_the_crop_goes_with_the_pixels(seeds, seconds):
    mean = followed_scores(seeds, seconds, 60.0, Noise(), Wear())
    assert mean.rms <= 1.5
    assert mean.jitter <= 1.4
    assert abs(mean.lag) <= 0.05


@pytest.mark.long
@pytest.mark.parametrize(
    ("seeds", "seconds"),
    [(range(4), 5.0), pytest.param(range(2000, 2012), 12.0, marks=pytest.mark.long)],
)
def test_the_crop_goes_with_the_pixels_of_small_bad_faces(seeds, seconds):
    mean = followed_scores(seeds, seconds, 24.0, Noise(landmark=0.03), BAD)
    assert mean.rms <= 2.2
    assert mean.jitter <= 1.8


def test_a_still_face_is_still_to_a_fraction_of_a_pixel_at_2048():
    picture = portrait()
    course = still_face(60, eyes_px=90.0, shape=picture.shape)
    images = frames(course, picture, 1, Wear(noise=3.0, quality=75))
    track = followed(images, seen(course, 1), info_for(course))
    result = score(matrices(track, course), course)
    assert result.jitter * 2048 / CROP_PX < 1.0


def test_nothing_of_measured_motion_leaks_across_a_cut():
    courses = [moving_face(seed, seconds=3) for seed in (1, 2)]
    info = info_of(1280, 720)
    apart, start = [], 0
    for seed, course in enumerate(courses):
        motions = tuple(steps_of(course, seed))
        n = len(motions)
        apart.append(raw_track(seen(course, seed), start, (start, start + n), motions))
        start += n
    both = align(broken(apart, Align()), info, **HOW)
    assert len(both) == 2
    for whole, raw in zip(both, apart, strict=True):
        alone = align([replace(raw, first_frame=0, shot=(0, len(raw.score)))], info, **HOW)[0]
        np.testing.assert_array_equal(whole.matrices, alone.matrices)
        np.testing.assert_array_equal(whole.landmarks, alone.landmarks)


def test_motion_that_nothing_agrees_on_changes_nothing():
    course = moving_face(3, seconds=4)
    found = seen(course, 3)
    lost = [step and replace(step, support=0.2) for step in steps_of(course, 3)]
    few = [step and replace(step, points=5) for step in steps_of(course, 3)]
    alone = matrices(raw_track(found), course)
    for motions in (lost, few, [None] * len(lost)):
        result = matrices(raw_track(found, motions=tuple(motions)), course)
        np.testing.assert_array_equal(result, alone)


def test_motion_that_is_missing_now_and_then_still_helps():
    gapped, alone = [], []
    for seed in range(6):
        course = moving_face(seed, seconds=6)
        found, steps = seen(course, seed), steps_of(course, seed)
        missing = np.random.default_rng(seed).random(len(steps)) < 0.2
        kept = tuple(None if m else s for m, s in zip(missing, steps, strict=True))
        gapped.append(score(matrices(raw_track(found, motions=kept), course), course))
        alone.append(score(matrices(raw_track(found), course), course))
    assert mean_of(gapped).rms < 0.7 * mean_of(alone).rms
    assert mean_of(gapped).jitter < 0.7 * mean_of(alone).jitter


def test_motion_of_a_hand_before_the_face_does_not_carry_the_crop_away():
    """Ten frames that go wrong by 5 % of the eye distance each, with all points agreeing."""
    course = moving_face(5, seconds=6)
    found, steps = seen(course, 5), steps_of(course, 5)
    clean = score(matrices(raw_track(found, motions=tuple(steps)), course), course)
    for t in range(60, 70):
        aside = np.array([[1, 0, 0.05 * abs(course.factor[t])], [0, 1, 0]])
        steps[t] = replace(steps[t], matrix=compose(aside, steps[t].matrix))
    led = score(matrices(raw_track(found, motions=tuple(steps)), course), course)
    assert led.rms < clean.rms + 0.7
    assert led.jitter < clean.jitter + 0.5


def test_carried_faces_do_not_count_as_found():
    course = moving_face(6, seconds=3)
    track = raw_track(seen(course, 6), motions=tuple(steps_of(course, 6)))
    missed = ~np.isfinite(track.score)
    assert missed.any()
    carried = track.landmarks.copy()
    carried[missed] = 1000.0
    np.testing.assert_array_equal(
        matrices(track, course), matrices(replace(track, landmarks=carried), course)
    )


@pytest.mark.long
def test_more_frames_a_second_do_not_bring_more_trembling():
    """Both scored at 25 frames per second, so that the second difference is the same."""
    results = {}
    for rate in (25, 50):
        alone, with_motion = [], []
        for seed in range(3):
            picture = drawn_face()
            course = moving_face(seed, seconds=4, rate=Fraction(rate), eyes_px=24.0)
            found = seen(course, seed, Noise(landmark=0.03))
            track = followed(frames(course, picture, seed, BAD), found, info_for(course))
            thin, step = thinned(course, rate // 25), rate // 25
            with_motion.append(score(matrices(track, course)[::step], thin))
            alone.append(score(matrices(raw_track(found), course)[::step], thin))
        results[rate] = mean_of(alone), mean_of(with_motion)
    for slow, quick in zip(results[25], results[50], strict=True):
        assert quick.jitter < slow.jitter
        assert quick.rms < slow.rms
        assert abs(quick.lag) < 0.1


def test_a_turned_stream_of_flat_pixels_is_aligned_as_an_upright_one():
    course = moving_face(7, seconds=3)
    shown = info_for(course)
    coded = replace(shown, width=shown.height // 2, height=shown.width,
                    sample_aspect_ratio=Fraction(2), display_orientation=(0, -1, 1, 0))  # fmt: skip
    view = upright(coded).matrix
    track = raw_track(seen(course, 7), motions=tuple(steps_of(course, 7)))
    inside = coded_track(track, view)
    square = align([track], shown, **HOW)[0]
    turned = align([inside], coded, **HOW)[0]
    np.testing.assert_allclose(
        compose(turned.matrices, invert(view)), square.matrices, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(apply(view, turned.landmarks), square.landmarks, atol=1e-2)


def coded_track(track: RawTrack, view: np.ndarray) -> RawTrack:
    """The same face in a stream whose upright view is `view`."""
    back = invert(view)
    motions = tuple(
        step and replace(step, matrix=compose(back, compose(step.matrix, view)))
        for step in track.motions
    )
    landmarks = apply(back, track.landmarks.astype(float)).astype(np.float32)
    return replace(track, landmarks=landmarks, motions=motions)


def test_a_track_breaks_where_pixels_and_landmarks_say_so():
    course = moving_face(8, seconds=2)
    found, steps = course.landmarks, steps_of(course, 8)
    found[30:] += [0.8 * course.eyes_px, 0]
    found[28] = np.nan
    steps[30] = replace(steps[30], support=0.1)
    raw = raw_track(found, 100, (90, 160), tuple(steps))
    first, second = broken([raw], Align())
    assert (first.first_frame, len(first.score)) == (100, 30)
    assert (second.first_frame, len(second.score)) == (130, 20)
    assert second.motions[0] is None
    assert second.shot == first.shot == (90, 160)
    np.testing.assert_array_equal(np.concatenate([first.landmarks, second.landmarks]),
                                  raw.landmarks)  # fmt: skip


def test_a_track_holds_where_only_one_of_the_two_says_so():
    for seed in range(8):
        course = moving_face(seed, seconds=6)
        steps = steps_of(course, seed)
        jumps = seen(course, seed)
        jumps[50:] += 0.8 * course.eyes_px
        agreed = raw_track(jumps, motions=tuple(steps))
        turning = seen(course, seed, Noise(outlier_share=0, dropped_share=0))
        unmeasured = raw_track(turning, motions=(None, steps[1], *[None] * 148))
        without = raw_track(jumps)
        for raw in (agreed, unmeasured, without):
            assert broken([raw], Align()) == [raw]


def test_weights_of_single_differences_let_a_kink_be():
    z = np.abs(np.arange(41) - 20.0)[:, None]
    stiff = np.full(39, 1e4)
    stiff[19] = 0
    np.testing.assert_allclose(whittaker(z, np.ones(41), stiff, order=2), z, atol=1e-6)
    assert abs(whittaker(z, np.ones(41), 1e4, order=2)[20, 0]) > 1


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_the_shortest_tracks_follow_motion_too(n):
    course = moving_face(9, seconds=2)
    found, steps = course.landmarks[:n], steps_of(course, 9, error=0.0)[:n]
    found[1:-1] = np.nan
    result = matrices(raw_track(found, motions=tuple(steps)), course)
    np.testing.assert_allclose(result, true_matrices(course)[:n], rtol=0.02, atol=0.02)


@pytest.mark.long
@pytest.mark.parametrize(
    ("detector", "frames_to_see", "share"),
    [
        ("yunet", 100, 0.22),
        ("insightface", 30, 0.42),
        pytest.param("yunet", None, 0.22, marks=pytest.mark.long),
        pytest.param("insightface", None, 0.42, marks=pytest.mark.long),
    ],
)
def test_a_real_face_trembles_less_than_its_landmarks(shared, detector, frames_to_see, share):
    """Its motion by pixels alone trembles 36 % (SCRFD) and 18 % (YuNet) as much as the raw."""
    source = shared / "clips" / "lp_s18.mp4"
    images = [f.image for f in islice(decode(source, DecodeErrors()), frames_to_see)]
    found = raw_landmarks(images, detector, shared / "models")
    info = probe(source).info
    track = followed(images, found, info)
    final = align([track], info, **HOW)[0].matrices
    assert trembling(final) <= share * trembling(fit_similarity(filled(found), FFHQ))


def raw_landmarks(images: list, name: str, models: Path) -> np.ndarray:
    """(n, 5, 2) of the surest face in pictures of half the size, as square and upright as these."""
    files = {"yunet": models / "face_detection_yunet_2023mar.onnx",
             "det_only": models / "insightface" / "models" / "det_only"}  # fmt: skip
    how = Detect(detector=name, pack="det_only")
    detector = open_detector(how, find_weights=files.__getitem__)
    landmarks = []
    for image in images:
        half = image.reformat(image.width // 2, image.height // 2, "bgr24", interpolation="AREA")
        faces = detector(half.to_ndarray())
        best = (
            max(faces, key=lambda face: face.score).landmarks if faces else np.full((5, 2), np.nan)
        )
        landmarks.append(2 * best + 0.5)
    return np.array(landmarks)


def trembling(frame_to_unit: np.ndarray) -> float:
    """The second difference of where the crop lies, rms, in px at 512."""
    grid = np.stack(np.meshgrid(*2 * [np.linspace(0.2, 0.8, 4)]), axis=-1).reshape(1, 16, 2)
    back = invert(frame_to_unit.astype(float))
    unit_per_px = np.linalg.norm(frame_to_unit[:, :, 0], axis=1).mean()
    places = apply(back, np.repeat(grid, len(back), axis=0)) * unit_per_px * CROP_PX
    return float(np.sqrt((np.diff(places, n=2, axis=0) ** 2).sum(axis=-1).mean()))


@pytest.mark.parametrize("frame_rate", [25.0, 50.0])
def test_an_outline_stands_still_on_a_calm_head_and_follows_one_that_turns(frame_rate):
    n, random = round(4 * frame_rate), np.random.default_rng(0)
    still = 0.5 + random.normal(0, 0.002, (n, 20))
    calm = _steady(still, np.ones(n), frame_rate)
    assert np.abs(np.diff(calm, axis=0)).mean() < 0.05 * np.abs(np.diff(still, axis=0)).mean()
    # In a third of a second the far side comes in by a fifth of the crop.
    seconds = np.arange(n) / frame_rate
    turning = 0.5 + 0.2 * np.clip((seconds - 2) * 3, 0, 1)[:, None] * np.ones(20)
    assert np.abs(_steady(turning, np.ones(n), frame_rate) - turning).max() < 0.04


@pytest.mark.parametrize("every", [1, 2, 3, 5, 12])
def test_a_track_keeps_its_shapes_however_seldom_faces_are_detected(every: int) -> None:
    seen, _ = moving(60)
    shapes = np.full((60, len(SHAPE_POINTS), 2), 0.4, np.float16)
    angles = np.full((60, 2), 20, np.float32)
    missed = np.arange(60) % every > 0
    for values in (seen, shapes, angles):
        values[missed] = np.nan
    raw = replace(raw_track(seen), shapes=shapes, angles_degrees=angles)
    (track,) = align([raw], info_of(640, 360), **HOW | {"template_name": "gpen"})
    assert track.shapes is not None
    assert track.angles_degrees == pytest.approx(20, abs=0.1)
    assert track.shapes.astype(float) == pytest.approx(0.4, abs=0.001)


def test_a_track_whose_detections_mostly_have_no_mesh_has_no_shapes() -> None:
    seen, _ = moving(60)
    shapes = np.full((60, len(SHAPE_POINTS), 2), 0.4, np.float16)
    angles = np.full((60, 2), 20, np.float32)
    for values in (shapes, angles):
        values[np.arange(60) % 3 > 0] = np.nan
    raw = replace(raw_track(seen), shapes=shapes, angles_degrees=angles)
    (track,) = align([raw], info_of(640, 360), **HOW)
    assert track.shapes is None
    assert track.angles_degrees is None

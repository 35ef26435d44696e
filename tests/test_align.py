from fractions import Fraction

import numpy as np
import pytest
from media import info_of

from vidrestore.frame import RawTrack
from vidrestore.geometry import apply, template
from vidrestore.stages.align import align, smooth_landmarks, whittaker

FACE = template("gpen") * 200


def raw_track(landmarks, first_frame=0, shot=None):
    n = len(landmarks)
    score = np.where(np.isnan(landmarks[:, 0, 0]), np.nan, 0.9).astype(np.float32)
    return RawTrack(first_frame, shot or (first_frame, first_frame + n),
                    landmarks.astype(np.float32), score)  # fmt: skip


def aligned(landmarks, info=None, **changes):
    how = {"template_name": "gpen", "smoothness": 0.2, "min_face_px": 0.0, "fade_seconds": 0.2}
    track = raw_track(landmarks)
    return align([track], info or info_of(640, 360), **(how | changes))[0]


def moving(n, noise=0.0, seed=0):
    """A face that sways, nods and turns quickly once; (n, 5, 2) and its noise-free truth."""
    random = np.random.default_rng(seed)
    t = np.arange(n) / 25
    sway = np.stack([30 * np.sin(1.9 * t) + 60 / (1 + np.exp(-(t - n / 50) * 12)),
                     12 * np.sin(2.6 * t + 1)], axis=-1)  # fmt: skip
    truth = FACE[None] + sway[:, None] + [120, 60]
    return truth + random.normal(0, noise, truth.shape), truth


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


def test_nothing_leaks_across_a_cut():
    first, _ = moving(30, 0.5, seed=1)
    second, _ = moving(30, 0.5, seed=2)
    how = {"template_name": "gpen", "smoothness": 0.2, "min_face_px": 0.0, "fade_seconds": 0.0}
    info = info_of(640, 360)
    both = align([raw_track(first), raw_track(second + 40, 30)], info, **how)
    alone = align([raw_track(second + 40)], info, **how)
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


def test_strength_fades_only_where_a_track_begins_or_ends_inside_its_shot():
    _, truth = moving(40)
    how = {"template_name": "gpen", "smoothness": 0.2, "min_face_px": 0.0, "fade_seconds": 0.2}
    inside = align([raw_track(truth, 10, (0, 50))], info_of(640, 360), **how)[0]
    assert inside.strength[0] == pytest.approx(1 / 6)
    assert inside.strength[-1] == 1
    assert (np.diff(inside.strength) >= 0).all()
    assert (aligned(truth).strength == 1).all()


def test_faces_too_small_are_left_out_smoothly():
    sizes = np.linspace(0.2, 1.0, 60)
    growing = FACE[None] * sizes[:, None, None]
    strength = aligned(growing, min_face_px=20.0).strength
    assert strength[0] == 0
    assert strength[-1] == 1
    assert np.abs(np.diff(strength)).max() < 0.1

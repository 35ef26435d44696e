"""Bad pictures for training: repeatable, within their figures, and as bad as the film."""

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from skimage import data

from vidrestore.imaging.luma import BT601_WEIGHTS, bt601_luma
from vidrestore.personal.degradations import (
    BlindDegradation,
    FaceCondition,
    FilmDegradation,
    compressed,
    condition_of,
    detail_of,
)
from vidrestore.restoration.compositing import defocus, grain

SIDE = 192
ALL = np.ones((SIDE, SIDE), bool)


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    crop = data.astronaut()[0:224, 114:338]
    return cv2.resize(crop, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def white(sigma_levels: float) -> grain.Spectrum:
    return np.full((16, 9), sigma_levels**2)


def condition(**changes: object) -> FaceCondition:
    clean = (grain.nothing(),) * 3
    return replace(FaceCondition(96.0, 0.1, (0.0, 0.0), math.inf, clean), **changes)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return -10 * math.log10(np.mean((a - b) ** 2))


@pytest.mark.parametrize(
    "make", [BlindDegradation, lambda: FilmDegradation([condition(noise=(white(2.0),) * 3)])]
)
def test_the_same_seed_gives_the_same_pair(face: np.ndarray, make: object) -> None:
    before = face.copy()
    first, second, other = (make()(face, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert np.array_equal(first.degraded, second.degraded)
    assert np.array_equal(first.truth, second.truth)
    assert not np.array_equal(first.degraded, other.degraded)
    assert np.array_equal(face, before)
    assert first.degraded.shape == face.shape
    assert first.degraded.dtype == np.float32
    assert 0 <= first.degraded.min() <= first.degraded.max() <= 1


def test_the_shares_of_gray_and_mirrored_pairs_are_the_authors(face: np.ndarray) -> None:
    small = np.ascontiguousarray(face[::6, ::6])
    random, degrade = np.random.default_rng(0), BlindDegradation().for_side(32)
    truths = [degrade(small, random).truth for _ in range(400)]
    gray = np.mean([np.ptp(each, axis=2).max() == 0 for each in truths])
    luma = small.mean()
    mirrored = np.mean(
        [np.abs(t - small).mean() > np.abs(t[:, ::-1] - small).mean() for t in truths]
    )
    assert gray == pytest.approx(0.2, abs=0.06)
    assert mirrored == pytest.approx(0.5, abs=0.08)
    assert np.mean(truths) == pytest.approx(luma, abs=0.02)


def test_each_figure_has_its_own_effect(face: np.ndarray) -> None:
    nothing = BlindDegradation(
        sigma_px=(0.01, 0.01), reduction=(1.0, 1.0), noise_levels=(0.0, 0.0), quality=(100, 100),
        gray_share=0.0, mirrored_share=0.0,
    )  # fmt: skip

    def result(**changes: object) -> np.ndarray:
        return replace(nothing, **changes)(face, np.random.default_rng(1)).degraded

    assert psnr(result(), face) > 34  # what JPEG of the best quality leaves with halved chroma
    assert result().mean() == pytest.approx(face.mean(), abs=2e-3)
    noise = bt601_luma(result(noise_levels=(10.0, 10.0)) - result())  # JPEG halves chroma
    assert noise.std() * 255 == pytest.approx(10 * np.linalg.norm(BT601_WEIGHTS), rel=0.05)
    wide = defocus.width_px(result(sigma_px=(3.0, 3.0)), ALL)
    assert wide == pytest.approx(3, rel=0.25)
    assert psnr(result(reduction=(8.0, 8.0)), face) < psnr(result(reduction=(2.0, 2.0)), face) - 3
    assert psnr(result(quality=(60, 60)), face) < psnr(result(quality=(95, 95)), face) - 1


def test_figures_are_scaled_with_the_crop() -> None:
    small = BlindDegradation().for_side(128)
    assert small.sigma_px == (0.025, 2.5)
    assert small.taps == 11
    assert small.reduction == (0.8, 2.0)
    assert small.noise_levels == (0.0, 20.0)
    assert BlindDegradation().for_side(512) == BlindDegradation()


def in_frame(pair_degraded: np.ndarray, side: int) -> np.ndarray:
    return cv2.resize(pair_degraded, (side, side), interpolation=cv2.INTER_AREA)


def film_of(face: np.ndarray, side: int, sigma: float, levels: float, quality: int) -> np.ndarray:
    """Return the face as a film would show it."""
    small = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)
    small = compressed(cv2.GaussianBlur(small, (0, 0), sigma), quality)
    noise = grain.grain(white(levels), side, side, (3,))[..., None] / 255
    return np.clip(small + noise, 0, 1).astype(np.float32)


@pytest.mark.parametrize(
    ("side", "sigma", "levels", "quality"), [(96, 1.6, 2.0, 90), (128, 2.5, 4.0, 60)]
)
def test_the_film_is_matched(
    face: np.ndarray, side: int, sigma: float, levels: float, quality: int
) -> None:
    film = film_of(face, side, sigma, levels, quality)
    where = np.ones((side, side), bool)
    noise = (white(levels), grain.nothing(), grain.nothing())
    measured = condition_of(film, where, side_px=side, noise=noise)
    assert measured is not None
    pair = FilmDegradation([measured], mirrored_share=0.0)(face, np.random.default_rng(0))
    made = in_frame(pair.degraded, side)
    assert np.array_equal(pair.truth, face)
    assert defocus.width_px(made, where) == pytest.approx(measured.edges_px, rel=0.2)
    assert psnr(made, film) > 28
    # Closer to the film than what is only as small.
    assert psnr(made, film) > psnr(in_frame(face, side), film) + 1


def test_motion_blurs_along_its_direction(face: np.ndarray) -> None:
    still = FilmDegradation([condition()], mirrored_share=0.0)
    moving = FilmDegradation([condition(motion_px=(8.0, 0.0))], mirrored_share=0.0)
    a, b = (each(face, np.random.default_rng(0)).degraded for each in (still, moving))
    across, down = (
        np.abs(np.diff(b, axis=axis)).mean() / np.abs(np.diff(a, axis=axis)).mean()
        for axis in (1, 0)
    )
    assert across < 0.8 * down


def test_compression_leaves_no_more_detail_than_the_film(face: np.ndarray) -> None:
    def detail(limit: float) -> float:
        degrade = FilmDegradation([condition(side_px=SIDE, detail=limit)], mirrored_share=0.0)
        return detail_of(degrade(face, np.random.default_rng(0)).degraded)

    free = detail(math.inf)
    assert detail(0.5 * free) <= 0.5 * 1.05 * free
    assert detail(0.9 * free) > detail(0.5 * free)


def test_without_edges_there_is_no_condition() -> None:
    flat = np.full((40, 40, 3), 0.5, np.float32)
    noise = (grain.nothing(),) * 3
    assert condition_of(flat, np.ones((40, 40), bool), side_px=40, noise=noise) is None
    with pytest.raises(ValueError, match="without measured conditions"):
        FilmDegradation([])

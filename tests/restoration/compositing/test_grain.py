"""A restored face has the grain of the picture around it."""

import cv2
import numpy as np
import pytest
import torch
from helpers.media import Unchanged, frames_of, info_of, mild_image, plain_track, planes_of
from helpers.pasting import Finish, paste

from vidrestore.common.settings import Restore
from vidrestore.imaging import color
from vidrestore.restoration.batching import restore
from vidrestore.restoration.compositing import grain
from vidrestore.restoration.crop import crop
from vidrestore.restoration.statistics import RestorationStats

WIDTH, HEIGHT = 448, 352
CENTRE, SIDE_PX = (224, 176), 400.0
INSIDE, OUTSIDE = np.s_[112:240, 160:288], np.s_[112:240, 4:100]
GRAIN = Finish(grain=1.0)
BANDS = [(0.1, 0.2), (0.2, 0.3), (0.3, 0.5)]


class Denoiser(Unchanged):
    """A restorer that takes all noise away."""

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        return torch.full_like(windows[:, 0], 0.5)


def noise(sigma: float, softness_px: float, seed: int, size=(HEIGHT, WIDTH)) -> np.ndarray:
    made = np.random.default_rng(seed).normal(0, 1, size)
    if softness_px:
        made = cv2.GaussianBlur(made, (0, 0), softness_px)
    return sigma * made / made.std()


def noisy(sigma: float, softness_px: float = 0, pixel_format="gray", seed=0):
    image = mild_image(WIDTH, HEIGHT, pixel_format, 0)
    for index in range(len(image.planes)):
        plane = color.plane(image, index)
        made = noise(sigma, softness_px, seed + 10 * index, plane.shape)
        plane[...] = np.clip(np.rint(127.5 + made), 0, 255)
    return image


def pasted(images, finish=GRAIN, *, strength=1.0, restorer=None):
    info = info_of(WIDTH, HEIGHT, images[0].format.name, full_range=True)
    track = plain_track(len(images), centre=CENTRE, side=SIDE_PX, work_px=256)
    cut = crop(frames_of(images), [track], info, largest_px=2048, device=torch.device("cpu"))
    done = restore(
        cut,
        restorer or Denoiser(),
        RestorationStats(),
        how=Restore(batch_size=1, max_waiting_frames=1),
    )
    out = paste(done, info, RestorationStats(), strength=strength, tracks=[track], finish=finish)
    return [planes_of(frame.image) for frame in out]


def band_levels_db(part: np.ndarray) -> np.ndarray:
    """Mean power in bands of frequency, in cycles per pixel."""
    window = np.outer(np.hanning(part.shape[0]), np.hanning(part.shape[1]))
    power = np.abs(np.fft.fft2((part - part.mean()) * window)) ** 2 / (window**2).sum()
    frequency = np.hypot(
        np.fft.fftfreq(part.shape[0])[:, None], np.fft.fftfreq(part.shape[1])[None]
    )
    return 10 * np.log10(
        [power[(frequency >= low) & (frequency < high)].mean() for low, high in BANDS]
    )


@pytest.mark.parametrize("sigma", [3, 6, 10])
@pytest.mark.parametrize("softness_px", [0, 0.7])
@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_noise_inside_is_that_of_outside(sigma, softness_px, strength):
    images = [noisy(sigma, softness_px, seed=i) for i in range(3)]
    planes = [each[0].astype(float) for each in pasted(images, strength=strength)]
    inside, outside = (np.mean([band_levels_db(p[part]) for p in planes], axis=0)
                       for part in (INSIDE, OUTSIDE))  # fmt: skip
    np.testing.assert_allclose(inside, outside, atol=2)
    clean = pasted([noisy(sigma, softness_px)], Finish(), strength=strength)[0][0].astype(float)
    assert (band_levels_db(clean[INSIDE]) < outside - 6).all()


def test_colour_noise_is_matched_as_well():
    planes = pasted([noisy(6, pixel_format="yuv420p")])[0]
    for plane in planes[1:]:
        half = [tuple(slice(s.start // 2, s.stop // 2) for s in part) for part in (INSIDE, OUTSIDE)]
        assert plane[half[0]].std() == pytest.approx(plane[half[1]].std(), rel=0.25)


def test_grain_is_the_same_again_and_another_in_the_next_frame():
    first, again = (pasted([noisy(6, seed=i) for i in range(2)]) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a[0], b[0])
    one, other = (planes[0][INSIDE].astype(float).ravel() for planes in first)
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.05


def test_a_clean_picture_gets_none():
    image = noisy(0)
    planes = pasted([image])[0]
    assert np.ptp(planes[0][INSIDE].astype(int)) <= 1


def test_noise_that_the_restorer_left_is_not_doubled():
    class Keeper(Unchanged):
        def __call__(self, windows: torch.Tensor) -> torch.Tensor:
            return windows[:, 0] * 0.99 + 0.005

    plane = pasted([noisy(6)], restorer=Keeper())[0][0]
    assert plane[INSIDE].std() == pytest.approx(plane[OUTSIDE].std(), rel=0.15)


def test_half_of_the_match_is_half_of_the_noise():
    none, half, whole = (
        pasted([noisy(8)], Finish(grain=share))[0][0][INSIDE].std() for share in (0, 0.5, 1)
    )
    assert none < 0.5
    assert half == pytest.approx(whole / 2, rel=0.1)


@pytest.mark.parametrize("sigma", [1.0, 3.0, 10.0])
def test_sigma_is_found_on_a_slope(sigma):
    slope = np.linspace(60, 190, 256) + np.linspace(0, 20, 256)[:, None]
    plane = np.clip(np.rint(slope + noise(sigma, 0, 5, (256, 256))), 0, 255)
    assert grain.sigma_of(grain.spectrum_of(plane, 8)) == pytest.approx(sigma, rel=0.1)


def test_texture_beside_flat_parts_is_not_taken_for_noise():
    plane = 128 + noise(3, 0, 1, (256, 256))
    plane[:, :128] += noise(40, 1, 2, (256, 128))
    assert grain.sigma_of(grain.spectrum_of(np.rint(plane), 8)) == pytest.approx(3, rel=0.15)

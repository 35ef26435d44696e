"""A restored face is as far out of focus as what stands around it, and no further."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from helpers.media import AS_PAINTED, analysis_of_file, frames_of, planes_of, write_video
from helpers.moving_face import (
    SIZE,
    WORK_PX,
    frame_of,
    moving_track,
    pasted,
    picture,
    shown,
    true_crop,
)
from helpers.pasting import Finish
from skimage import data

from vidrestore.api import restore_video
from vidrestore.common.profiles import load_settings
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.models.restorers import Restorer
from vidrestore.restoration.compositing import defocus

FACE = np.s_[130:200, 130:190]
STILL = (0.0, 0.0)


def blurred(plane: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(plane, (0, 0), sigma) if sigma else plane


@pytest.mark.parametrize("noise", [0, 4])
@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee"])
def test_the_width_of_edges_is_that_of_the_blur(name, noise):
    photo = getattr(data, name)().astype(np.float32) / 255
    small = cv2.resize(photo, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    random, found = np.random.default_rng(0), []
    for sigma in (0, 1, 2, 3, 4):
        grainy = blurred(small, sigma) + random.normal(0, noise / 255, small.shape)
        everywhere = np.ones(small.shape[:2], bool)
        found.append(defocus.width_px(grainy.astype(np.float32), everywhere))
    assert found == sorted(found)
    assert found[0] < 0.6
    for width, sigma in zip(found[2:], (2, 3, 4), strict=True):
        assert 0.75 * sigma < width < 1.1 * sigma


def test_a_flat_picture_has_no_edges():
    flat = np.full((50, 50, 3), 0.5, np.float32)
    noisy = flat + np.random.default_rng(0).normal(0, 0.01, flat.shape).astype(np.float32)
    for each in (flat, noisy, flat[:2]):
        assert defocus.width_px(each, np.ones(each.shape[:2], bool)) is None
    assert (
        defocus.blur_px(None, 3.0) == defocus.blur_px(1.0, None) == defocus.blur_px(2.0, 2.1) == 0
    )
    assert defocus.blur_px(1.0, 3.0) == pytest.approx(((3 / 1.1) ** 2 - 1) ** 0.5)


def sharpness(plane: np.ndarray, other: np.ndarray) -> float:
    """Amplitude of the gradient of the face against that of another picture of it."""
    energy = []
    for each in (plane, other):
        low = cv2.GaussianBlur(np.asarray(each, np.float64), (0, 0), 0.7)
        energy.append(sum((np.diff(low, axis=axis)[FACE] ** 2).mean() for axis in (0, 1)))
    return float(np.sqrt(energy[0] / energy[1]))


def both(source: np.ndarray, crop: torch.Tensor, track) -> list[np.ndarray]:
    """Of five frames the third, with and without focus."""
    results = []
    for finish in (Finish(focus=1.0), None):
        frames = [frame_of(torch.from_numpy(source)[None], i) for i in range(5)]
        results.append(pasted(frames, track, [crop] * 5, finish)[2])
    return results


@pytest.fixture(scope="module")
def scene():
    """(n, n) a sharp picture, the track of its face, and a perfectly restored crop."""
    large, track = picture(), moving_track(np.zeros((5, 2)))
    return shown(large, STILL)[0].numpy(), track, true_crop(large, track, 0, STILL)


@pytest.mark.parametrize("sigma", [1.5, 2.5, 4.0])
def test_a_face_out_of_focus_is_hardly_sharper_than_its_surroundings(scene, sigma):
    sharp, track, crop = scene
    soft = blurred(sharp, sigma)
    with_focus, without = both(soft, crop, track)
    # The whole picture was blurred alike, so its face was as sharp as the surroundings are.
    assert 0.9 <= sharpness(with_focus, 255 * soft) <= 1.2
    assert sharpness(without, 255 * soft) > 1.5


def around_the_face(size: float = 1.0) -> np.ndarray:
    """(n, n) 0 on the face, 1 away from it."""
    y, x = np.mgrid[:SIZE, :SIZE]
    inside = ((x - 160) / 75) ** 2 + ((y - 165) / 95) ** 2 < size**2
    return cv2.GaussianBlur(1 - inside.astype(np.float32), (0, 0), 4)


def test_a_face_in_focus_before_a_blurred_background_stays_sharp(scene):
    sharp, track, crop = scene
    away = around_the_face()
    source = away * blurred(sharp, 4) + (1 - away) * sharp
    np.testing.assert_array_equal(*both(source, crop, track))


def test_a_soft_face_in_sharp_surroundings_is_made_sharp(scene):
    """As those of face swaps are."""
    sharp, track, crop = scene
    away = around_the_face()
    source = away * sharp + (1 - away) * blurred(sharp, 3)
    np.testing.assert_array_equal(*both(source, crop, track))


def test_where_nothing_is_around_there_is_nothing_to_follow(scene):
    sharp, track, crop = scene
    away = around_the_face(0.5)
    source = away * 0.5 + (1 - away) * blurred(sharp, 3)
    np.testing.assert_array_equal(*both(source, crop, track))


class Sharpened(Restorer):
    """A restorer that makes every crop sharper."""

    name, size, reach_frames, template = "sharpened", None, 0, "gpen"

    def __call__(self, windows):
        planes = windows[0, 0].permute(1, 2, 0).numpy()
        sharper = planes + 3 * (planes - cv2.GaussianBlur(planes, (0, 0), 3))
        return torch.from_numpy(sharper).clamp(0.01, 0.99).permute(2, 0, 1)[None]


def test_the_setting_reaches_the_picture_and_is_off_for_tapes(scene, tmp_path):
    soft, track, _ = scene
    image = frame_of(torch.from_numpy(blurred(soft, 3))[None], 0).image.reformat(format="yuv420p")
    source = write_video(tmp_path / "source.mkv", [frame.image for frame in frames_of([image] * 5)])
    analysis = analysis_of_file(source, [replace(track, work_px=WORK_PX)])

    def painted(**options):
        settings = load_settings(options=AS_PAINTED | {"encode.codec": "ffv1", **options})
        target = tmp_path / "out.mkv"
        restore_video(source, target, settings, restorer=Sharpened(), analysis=analysis,
                      overwrite=True)  # fmt: skip
        return np.stack([planes_of(frame.image)[0] for frame in decode(target, DecodeErrors())])

    usual = painted()
    np.testing.assert_array_equal(usual, painted(**{"paste.focus": 0}))
    results = [usual, *(painted(**{"paste.focus": share}) for share in (0.5, 1))]
    spread = [float(np.diff(result[2][FACE].astype(float)).std()) for result in results]
    assert spread[0] > spread[1] > spread[2]
    assert load_settings().paste.focus == load_settings("home-video").paste.focus == 0
    assert load_settings("film").paste.focus == load_settings("face-swap").paste.focus == 1

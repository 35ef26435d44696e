"""What fusion takes out, what it leaves, and that it invents nothing.

Wear is stated in pixels of a 512 x 512 crop and drawn anew for every frame, as a camera does; the
least gains are those that the project promises over the source enlarged by bicubic interpolation.
"""

from functools import cache

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage import data

from vidrestore.imaging.geometry import template
from vidrestore.imaging.optical_flow import DenseFlow
from vidrestore.models.restorers.fusion import Fusion
from vidrestore.restoration.compositing.masks import face_mask
from vidrestore.review import metrics
from vidrestore.review.portrait import CROP_PX, clean_portrait, place_in_crop

REACH, SHARPNESS = Fusion.reach_frames, 0.5
FRAMES = 2 * REACH + 3  # three windows: as few as flicker can be told from


def psnr_db(a, b):
    return float(-10 * torch.log10(((a - b) ** 2).mean()))


def moving_face(count, side=128, seed=0, sigma=12 / 255):
    """Clean crops that shift by sub-pixels, and the same with fresh noise."""
    portrait = torch.from_numpy(data.astronaut()[20:220, 130:330].copy()).permute(2, 0, 1) / 255
    noise = np.random.default_rng(seed)
    clean = []
    for i in range(count):
        angle = 0.7 * i
        theta = torch.tensor([[[0.9, 0.01 * np.sin(angle), 0.02 * np.sin(angle)],
                               [0.0, 0.9, 0.015 * np.cos(angle)]]]).float()  # fmt: skip
        grid = F.affine_grid(theta, [1, 3, side, side], align_corners=False)
        clean.append(F.grid_sample(portrait[None], grid, mode="bicubic", align_corners=False)[0])
    truth = torch.stack(clean).clamp(0, 1)
    return truth, (truth + torch.from_numpy(noise.normal(0, sigma, truth.shape)).float()).clamp(
        0, 1
    )


@pytest.mark.parametrize("seed", range(3))
def test_fusion_takes_out_noise(seed):
    truth, noisy = moving_face(9, seed=seed)
    fused = Fusion(sharpness=0.0)(noisy[None])[0]
    assert psnr_db(fused, truth[4]) > psnr_db(noisy[4], truth[4]) + 3


def test_fusion_of_clean_frames_is_nearly_the_frame():
    truth, _ = moving_face(9)
    fused = Fusion(sharpness=0.0)(truth[None])[0]
    assert psnr_db(fused, truth[4]) > 33


def test_another_picture_within_reach_leaves_no_ghost():
    truth, _ = moving_face(9)
    window = truth.clone()
    window[5:] = torch.rand(3, 1, 1)  # a flash: everything after the middle is flat
    fused = Fusion(sharpness=0.0)(window[None])[0]
    alone = truth.clone()
    alone[5:] = truth[4]
    without = Fusion(sharpness=0.0)(alone[None])[0]
    assert (fused - without).abs().mean() < 0.01


def test_repeated_frames_add_no_weight():
    _, noisy = moving_face(9)
    ends = noisy.clone()
    ends[:4] = noisy[4]
    ends[5:] = noisy[4]
    fused = Fusion(sharpness=0.0)(ends[None])[0]
    torch.testing.assert_close(fused, noisy[4], atol=1e-6, rtol=0)


def test_each_window_of_a_batch_is_its_own():
    _, noisy = moving_face(10)
    fusion = Fusion(sharpness=0.8)
    both = fusion(torch.stack([noisy[:9], noisy[1:]]))
    torch.testing.assert_close(both[1], fusion(noisy[1:][None])[0])
    assert both.min() >= 0
    assert both.max() <= 1


@cache
def portrait_clip():
    """(n, 512, 512, 3): the portrait sways, trembles in the hand, turns and speaks."""
    picture, landmarks = clean_portrait()
    picture = np.ascontiguousarray(picture.permute(1, 2, 0).numpy())
    crop_from_picture = place_in_crop(landmarks, template("gpen"), CROP_PX)
    y, x = (np.mgrid[:CROP_PX, :CROP_PX] / CROP_PX).astype(np.float32)
    nose = np.clip(1 - ((x - 0.5) / 0.33) ** 2 - ((y - 0.55) / 0.41) ** 2, 0, None)
    mouth = np.exp(-(((x - 0.5) / 0.12) ** 2) - ((y - 0.78) / 0.08) ** 2)
    frames = []
    for i in range(FRAMES):
        t = i / 25
        right = 2 * np.sin(2.5 * t) + 0.6 * np.sin(25 * t) + 10 * np.sin(3 * t) * nose
        down = 1.5 * np.cos(2 * t) + 0.5 * np.sin(31 * t + 1) - 6 * np.sin(6 * t) ** 2 * mouth
        at = np.stack([x * CROP_PX + right, y * CROP_PX + down, np.ones_like(x)]).astype(np.float32)
        inverse = cv2.invertAffineTransform(np.asarray(crop_from_picture, np.float64))
        column, row = np.tensordot(inverse.astype(np.float32), at, axes=1)
        frames.append(cv2.remap(picture, column, row, cv2.INTER_CUBIC))
    return np.clip(np.stack(frames), 0, 1)


def worn(clip, smaller, noise_levels, jpeg_quality):
    """Soft, reduced, noisy, coded, and enlarged again by bicubic interpolation."""
    random = np.random.default_rng(31)
    frames = []
    for picture in 255 * clip:
        if smaller > 1:
            picture = cv2.GaussianBlur(picture, (0, 0), 1.5 * smaller / 4)
            picture = cv2.resize(
                picture, None, fx=1 / smaller, fy=1 / smaller, interpolation=cv2.INTER_AREA
            )
        picture = np.rint(picture + random.normal(0, noise_levels, picture.shape))
        picture = np.clip(picture, 0, 255).astype(np.uint8)
        if jpeg_quality:
            options = [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality]
            picture = cv2.imdecode(cv2.imencode(".jpg", picture, options)[1], cv2.IMREAD_COLOR)
        larger = cv2.resize(
            picture.astype(np.float32), (CROP_PX, CROP_PX), interpolation=cv2.INTER_CUBIC
        )
        frames.append(np.clip(larger / 255, 0, 1))
    return np.stack(frames)


def fused(clip, sharpness=SHARPNESS):
    """(n - 8, 512, 512, 3): what fusion makes of every frame that has all its neighbours."""
    frames = torch.from_numpy(clip).permute(0, 3, 1, 2)
    fusion = Fusion(sharpness=sharpness)
    windows = (frames[i : i + 2 * REACH + 1] for i in range(len(clip) - 2 * REACH))
    return torch.cat([fusion(w[None]) for w in windows]).permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize(
    ("smaller", "noise_levels", "jpeg_quality", "least_gain_db"),
    [
        pytest.param(4, 8, 30, 0.8, id="a quarter, noisy"),
        pytest.param(8, 4, 40, 0.2, id="an eighth"),
        pytest.param(2, 10, 40, 0.2, id="a half, noisy"),
        pytest.param(4, 2, 70, 0.2, id="a quarter, mild"),
        pytest.param(1, 10, None, 0.2, id="sharp, noisy"),
    ],
)
def test_fusion_gains_and_steadies(smaller, noise_levels, jpeg_quality, least_gain_db):
    clip, mask = portrait_clip(), face_mask(CROP_PX)[0].numpy()
    source = worn(clip, smaller, noise_levels, jpeg_quality)
    output = fused(source)
    inner = slice(REACH, -REACH)
    truth, source = clip[inner], source[inner]
    assert metrics.worst_gain_db(output, source, truth, mask) >= least_gain_db
    flows = metrics.flows_between(truth, DenseFlow(), blur_px=0)
    before, after = (
        metrics.rms(metrics.flicker(stack, truth, flows, mask)) for stack in (source, output)
    )
    assert after <= 0.5 * before
    shares = [metrics.ratio(metrics.true_detail(s, truth, mask)) for s in (source, output)]
    assert shares[0] - 0.05 <= shares[1] <= 1.05


def test_what_is_sharp_already_is_not_sharpened():
    clip = portrait_clip()[: 2 * REACH + 1]
    by_share = [fused(clip, sharpness) for sharpness in (0.0, 1.0)]
    np.testing.assert_allclose(*by_share, atol=0.004)
    blurred = np.stack([cv2.GaussianBlur(picture, (0, 0), 3) for picture in clip])
    plain, sharper = (fused(blurred, sharpness) for sharpness in (0.0, 1.0))
    assert np.abs(sharper - plain).max() > 0.02


def test_contours_get_no_rims():
    """Nothing is brighter or darker than the brightest and darkest of what stands around it."""
    edge = np.zeros((2 * REACH + 1, 128, 128, 3), np.float32)
    edge[:, :, 64:] = 0.8
    soft = np.stack([cv2.GaussianBlur(picture, (0, 0), 3) for picture in edge])
    plain, sharper = (fused(soft, sharpness) for sharpness in (0.0, 1.0))
    assert np.abs(sharper - plain).max() > 0.02
    assert sharper.min() >= 0
    assert sharper.max() <= plain.max() + 1e-6
    planes = torch.from_numpy(plain).permute(0, 3, 1, 2)
    brightest = F.max_pool2d(planes, 5, stride=1, padding=2).permute(0, 2, 3, 1).numpy()
    assert (sharper <= brightest + 1e-6).all()

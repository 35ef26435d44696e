import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage import data

from vidrestore.restorers.fusion import Fusion


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

"""Crops are reduced to small pictures evenly, whatever their side."""

import cv2
import numpy as np
import pytest
import torch

from vidrestore.imaging.optical_flow import reduced


@pytest.mark.parametrize("own", [320, 384, 512, 640, 768, 1280, 2048])
@pytest.mark.parametrize("side", [128, 256])
def test_a_small_picture_has_the_means_of_areas(own, side):
    crop = torch.from_numpy(np.random.default_rng(own).random((3, own, own), np.float32))
    levels = (crop * 4080).round().permute(1, 2, 0).numpy() / 16
    wanted = cv2.resize(levels, (side, side), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(reduced(crop, side), wanted, atol=1e-3)


@pytest.mark.parametrize("own", [320, 384, 640])
def test_the_sums_are_exact(own):
    """So their order, which devices choose, does not matter."""
    crop = torch.from_numpy(np.random.default_rng(own).random((3, own, own), np.float32))
    np.testing.assert_array_equal(reduced(crop, 256), reduced(crop.flip(2), 256)[:, ::-1])
    np.testing.assert_array_equal(
        reduced(crop, 256), reduced(crop.transpose(1, 2).contiguous(), 256).transpose(1, 0, 2)
    )

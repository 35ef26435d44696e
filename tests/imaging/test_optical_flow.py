"""Crops are reduced to small pictures evenly, whatever their side."""

import cv2
import numpy as np
import pytest
import torch

from vidrestore.imaging import fine_texture, optical_flow
from vidrestore.imaging.fine_texture import cell_px, with_texture
from vidrestore.imaging.geometry import Rect
from vidrestore.imaging.optical_flow import add_moved, enlarged, moved, reduced, within


def by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on torch works on crops, as on a device."""
    for module in (optical_flow, fine_texture):
        monkeypatch.setattr(module, "uses_opencv", lambda device: False)


def smooth(side: int, seed: int, sigma_px: float = 4.0) -> torch.Tensor:
    """(3, side, side) in [0, 1]."""
    noise = np.random.default_rng(seed).standard_normal((side, side, 3), np.float32)
    picture = cv2.GaussianBlur(noise, (0, 0), sigma_px)
    picture = np.clip(0.5 + 0.2 * picture / picture.std(), 0, 1)
    return torch.from_numpy(picture).permute(2, 0, 1).contiguous()


def flow_of(side: int) -> np.ndarray:
    """(side, side, 2) of some pixels, also across the border."""
    vectors = smooth(side, 5, side / 16).permute(1, 2, 0)[..., :2] - 0.5
    return np.ascontiguousarray(vectors.numpy() * np.float32(30))


def levels(difference: torch.Tensor) -> float:
    """Root mean square, in 8-bit levels."""
    return 255 * float(difference.square().mean().sqrt())


SIDES = [(64, 128), (128, 128), (320, 256), (512, 256)]


@pytest.mark.parametrize(("side", "small"), SIDES)
def test_crops_move_alike_on_every_device(monkeypatch, side, small):
    crop, flow = smooth(side, 0), flow_of(small)
    own = moved(crop, flow)
    by_torch(monkeypatch)
    other = moved(crop, flow)
    assert levels(own - crop) > 5
    assert levels(own - other) < 0.2
    assert 255 * abs(float((own - other).mean())) < 0.01


@pytest.mark.parametrize(("side", "small"), [pair for pair in SIDES if pair[0] >= pair[1]])
@pytest.mark.parametrize("gains", [None, (0.8, 1.0, 1.3)])
def test_a_share_of_a_moved_crop_is_added_alike(monkeypatch, side, small, gains):
    crop, flow = smooth(side, 0), flow_of(small)
    shares, gains = smooth(small, 1, 8).numpy()[0], gains and np.array(gains, np.float32)
    factors = torch.from_numpy(np.ones(3, np.float32) if gains is None else gains)[:, None, None]
    wanted = smooth(side, 2) + enlarged(shares, side, crop.device) * factors * moved(crop, flow)
    own = smooth(side, 2)
    add_moved(own, crop, flow, shares, gains=gains)
    assert levels(own - wanted) < 1e-3
    by_torch(monkeypatch)
    other = smooth(side, 2)
    add_moved(other, crop, flow, shares, gains=gains)
    assert levels(own - other) < 0.2


@pytest.mark.parametrize(("side", "small"), SIDES)
def test_planes_are_enlarged_alike(monkeypatch, side, small):
    planes = smooth(min(side, small), 3).numpy()
    own = enlarged(planes, side, torch.device("cpu"))
    by_torch(monkeypatch)
    assert levels(own - enlarged(planes, side, torch.device("cpu"))) < 1e-3


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize(("side", "small"), [(128, 128), (320, 128), (320, 256), (512, 64)])
@pytest.mark.parametrize("part", [Rect(3, 17, 110, 64), Rect(0, 0, 16, 8), Rect(90, 100, 128, 128)])
def test_a_part_is_that_of_the_whole(monkeypatch, side, small, part, on_device):
    if on_device:
        by_torch(monkeypatch)
    crop, flow, planes = smooth(side, 0), flow_of(small), smooth(small, 3, 8).numpy()
    total = smooth(side, 2)
    some = total[within(part)].clone()
    device = torch.device("cpu")
    assert levels(moved(crop, flow, part) - moved(crop, flow)[within(part)]) < 0.02
    large = enlarged(planes, side, device)
    assert levels(enlarged(planes, side, device, part) - large[within(part)]) < 1e-3
    add_moved(total, crop, flow, planes[0])
    add_moved(some, crop, flow, planes[0], part)
    assert levels(some - total[within(part)]) < 0.02


@pytest.mark.parametrize("on_device", [False, True])
def test_the_texture_of_a_part_is_that_of_the_whole(monkeypatch, on_device):
    if on_device:
        by_torch(monkeypatch)
    side, cell = 512, cell_px(512)
    part = Rect(8 * cell, 4 * cell, 100 * cell, 60 * cell)
    model = smooth(side, 4, 0.8)
    soft = torch.from_numpy(np.stack([cv2.GaussianBlur(p, (0, 0), 0.6) for p in model.numpy()]))
    some = with_texture(soft[within(part)].clone(), model[within(part)].clone(), 0.8, side=side)
    difference = (some - with_texture(soft, model, 0.8)[within(part)]).abs()
    # Where the part ends, the means of cells around are missing.
    assert 255 * difference[:, 4 * cell : -4 * cell, 4 * cell : -4 * cell].max() < 0.01
    assert 255 * difference.mean() < 0.1


@pytest.mark.parametrize("own", [64, 128, 192, 320, 384, 512, 640, 768])
@pytest.mark.parametrize("side", [128, 192, 256])
def test_every_device_reduces_to_the_same_bits(monkeypatch, own, side):
    crop = torch.from_numpy(np.random.default_rng(own).random((3, own, own), np.float32))
    found = reduced(crop, side)
    by_torch(monkeypatch)
    np.testing.assert_array_equal(found, reduced(crop, side))


@pytest.mark.parametrize("side", [32, 64, 160, 192, 320, 512, 640])
def test_texture_is_given_back_alike(monkeypatch, side):
    model = smooth(side, 4, 0.8)
    soft = torch.from_numpy(np.stack([cv2.GaussianBlur(p, (0, 0), 0.6) for p in model.numpy()]))
    own = with_texture(soft.clone(), model, 0.8)
    by_torch(monkeypatch)
    other = with_texture(soft.clone(), model, 0.8)
    assert levels(own - soft) > 0.5
    assert levels(own - other) < 0.01


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

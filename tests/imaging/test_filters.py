"""Blurs and the smooth step."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import vidrestore
from vidrestore.imaging.filters import box_blur, gaussian_blur, smoothstep
from vidrestore.imaging.luma import BT601, KR_KB, bt601_luma

PACKAGE = Path(vidrestore.__file__).parent


def picture(channels: int | None = None) -> np.ndarray:
    shape = (40, 60) if channels is None else (40, 60, channels)
    return np.random.default_rng(7).random(shape, np.float32)


def test_a_gaussian_has_its_width() -> None:
    point = np.zeros((81, 81), np.float32)
    point[40, 40] = 1
    blurred = gaussian_blur(point, (3.0, 5.0))
    offsets = np.arange(81) - 40.0
    across, down = blurred.sum(axis=0) @ offsets**2, blurred.sum(axis=1) @ offsets**2
    assert np.sqrt([across, down]) == pytest.approx([3, 5], rel=0.02)
    assert np.array_equal(gaussian_blur(point, 3.0), gaussian_blur(point, (3.0, 3.0)))


@pytest.mark.parametrize("blur", [lambda p: gaussian_blur(p, 1.5), lambda p: box_blur(p, 3, 5)])
def test_a_blur_keeps_shape_and_type(blur) -> None:
    for given in (picture(), picture(3), np.uint8(255 * picture(3)), picture().astype(float)):
        assert (blur(given).shape, blur(given).dtype) == (given.shape, given.dtype)
    assert np.allclose(blur(np.full((9, 9), 0.25, np.float32)), 0.25)


def test_borders_are_mirrored_or_repeated() -> None:
    ramp = np.tile(np.arange(30, dtype=np.float32), (30, 1))
    mirrored, repeated = gaussian_blur(ramp, 2.0), gaussian_blur(ramp, 2.0, border="repeat")
    assert mirrored[15, 0] > repeated[15, 0] > 0
    assert np.allclose(mirrored[:, 8:-8], ramp[:, 8:-8], atol=1e-4)


def test_a_box_is_a_mean() -> None:
    given = picture()
    assert box_blur(given, 3, 5)[10, 10] == pytest.approx(given[8:13, 9:12].mean(), rel=1e-5)


def test_the_smooth_step_is_level_at_both_ends() -> None:
    assert [smoothstep(x) for x in (0.0, 0.5, 1.0)] == [0, 0.5, 1]
    shares = np.linspace(0, 1, 101, dtype=np.float32)
    risen = smoothstep(shares)
    assert risen.dtype == np.float32
    assert np.all(np.diff(risen) > 0)
    assert np.abs(np.diff(risen)[[0, -1]]).max() < 4e-4
    assert np.array_equal(smoothstep(torch.from_numpy(shares)).numpy(), risen)


def test_weights_of_luma_sum_to_one_and_agree() -> None:
    assert sum(BT601) == pytest.approx(1)
    assert (BT601[0], BT601[2]) == KR_KB["bt601"]
    given = picture(3)
    assert bt601_luma(given) == pytest.approx(given @ np.float32(BT601))
    assert bt601_luma(given).dtype == np.float32


def test_each_is_defined_once() -> None:
    """Whoever needs one of them imports it."""
    definitions = {
        "imaging/luma.py": re.compile(r"0\.299|0\.2126|0\.2627"),
        "imaging/filters.py": re.compile(r"GaussianBlur|3(\.0)? - 2(\.0)? \*"),
    }
    for place, definition in definitions.items():
        files = [p for p in PACKAGE.rglob("*.py") if definition.search(p.read_text("utf-8"))]
        assert [p.relative_to(PACKAGE).as_posix() for p in files] == [place]

"""Of a small face its own features are not taken for noise of the camera."""

import av
import numpy as np
import pytest
from helpers.media import info_of

from vidrestore.imaging.frame import Frame
from vidrestore.restoration.compositing import grain
from vidrestore.restoration.compositing.appearance import noise_of, place_of

FRAME_PX = 320


def sigma_found(side_px):
    """Of noise that is everywhere, for a crop of that side in the middle of the frame."""
    levels = 128 + np.random.default_rng(5).normal(0, 6, (FRAME_PX, FRAME_PX))
    image = av.VideoFrame.from_ndarray(np.rint(levels).clip(0, 255).astype(np.uint8), "gray")
    corner = (FRAME_PX - side_px) / 2
    unit = np.array([[1, 0, 0.5 - corner], [0, 1, 0.5 - corner]], np.float32) / side_px
    found = noise_of(Frame(0, 0, image), place_of(unit, None), info_of(FRAME_PX, FRAME_PX))
    return grain.sigma_of(found[0])


@pytest.mark.parametrize("side_px", [46, 70, 102])
def test_a_face_with_few_blocks_gets_no_grain(side_px):
    assert sigma_found(side_px) == 0


def test_grain_fades_in_without_a_step():
    found = [sigma_found(side) for side in range(104, 134, 2)]
    assert found[-1] == pytest.approx(6, rel=0.2)
    assert max(np.diff(found)) < 1.0

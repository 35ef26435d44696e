"""Copies between the processor and a device, and what of a face crosses at all."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.media import info_of, planes_of
from helpers.moving_face import CPU, SIZE, frame_of, moving_track, picture, shown

import vidrestore
from vidrestore.common.settings import Deflicker, Grain, Guard, Paste, Restore
from vidrestore.imaging import fine_texture, optical_flow, resample
from vidrestore.imaging.device_copies import to_device, to_host
from vidrestore.models.restorers import Restorer
from vidrestore.restoration import crop_comparison, temporal
from vidrestore.restoration.batching import restore
from vidrestore.restoration.compositing import appearance
from vidrestore.restoration.compositing import paste as paste_stage
from vidrestore.restoration.crop import crop
from vidrestore.restoration.guard import SimilarityJudge, guard
from vidrestore.restoration.statistics import RestorationStats

CUDA = torch.device("cuda")
WORK_PX, LARGEST_SMALL_PX = 512, 256


class Half(Restorer):
    """Sharpens all but the lower part of a crop."""

    name = "half"

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        crops = windows[:, 0].clone()
        soft = F.avg_pool2d(crops, 5, 1, 2)
        rows = int(0.7 * crops.shape[-1])
        crops[:, :, :rows] = (0.95 * (2 * crops - soft))[:, :, :rows].clamp(0, 1)
        return crops


def test_nothing_crosses_on_a_processor() -> None:
    tensor = torch.rand(3, 4)
    assert to_host(tensor) is tensor
    assert to_device(tensor, torch.device("cpu")) is tensor


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_what_crosses_comes_back() -> None:
    tensor = torch.rand(3, 64, 64)[:, ::2].to(torch.float32)
    assert torch.equal(to_host(to_device(tensor, CUDA) * 2), tensor * 2)


def pass_two() -> np.ndarray:
    """The planes of some frames after all stages, the crops being larger than all that crosses."""
    offsets = 1.3 * np.arange(6)[:, None] * [1, 0]
    track = replace(moving_track(offsets), work_px=WORK_PX)
    large, info = picture(), info_of(SIZE, SIZE, "gray", full_range=True)
    frames = (frame_of(shown(large, offset), i) for i, offset in enumerate(offsets))
    tally = RestorationStats()
    faces = crop(frames, [track], info, largest_px=WORK_PX, device=CPU)
    faces = restore(faces, Half(), tally, Restore())
    faces = temporal.deflicker(faces, Deflicker())
    faces = guard(faces, SimilarityJudge(), tally, Guard(), tracks=[track])
    pasted = paste_stage.paste(faces, info, tally, Paste(), Grain(), tracks=[track])
    planes = np.stack([planes_of(frame.image)[0].astype(int) for frame in pasted])
    assert tally.faces == len(offsets)
    return planes


@pytest.mark.long
def test_whole_crops_stay_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    on_processor = pass_two()
    crossed: list[int] = []

    def counted(tensor: torch.Tensor) -> torch.Tensor:
        crossed.append(tensor.numel())
        return tensor

    # The processor stands in for a device.
    opencv_users = (
        optical_flow, resample, fine_texture, temporal, crop_comparison, appearance, paste_stage,
    )  # fmt: skip
    for module in opencv_users:
        monkeypatch.setattr(module, "uses_opencv", lambda device: False)
    for module in (optical_flow, crop_comparison, appearance, paste_stage):
        monkeypatch.setattr(module, "to_host", counted, raising=module is not appearance)
    on_device = pass_two()
    assert len(crossed) >= 6 * 4
    assert max(crossed) <= 3 * LARGEST_SMALL_PX**2
    # OpenCV rounds positions to 1/32 of a pixel, which shows at the steepest edges.
    assert np.abs(on_device - on_processor).max() <= 3
    assert np.abs(on_device - on_processor).mean() <= 0.05


def test_nothing_crosses_past_the_function_that_is_counted() -> None:
    package = Path(vidrestore.__file__).parent
    for folder in ("imaging", "restoration"):
        for path in sorted((package / folder).rglob("*.py")):
            if path.name != "device_copies.py":
                assert ".cpu()" not in path.read_text(encoding="utf-8"), path

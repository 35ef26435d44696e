"""A speck of dirt on an eye, in one frame of an old film, becomes no feature in any frame."""

import av
import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.media import write_video
from skimage import data

from vidrestore.api import restore_video
from vidrestore.common.profiles import load_settings
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.models.restorers import Restorer

FRAMES, DIRTY, RADIUS_PX = 17, 8, 6


class Sharp(Restorer):
    """A network to which dirt is a feature: it makes the most of every contrast."""

    name = "sharp"
    size = 256
    reach_frames = 0
    template = "gpen"

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        crops = windows[:, 0]
        around = F.pad(crops, (4,) * 4, mode="replicate")
        return (crops + 1.5 * (crops - F.avg_pool2d(around, 9, 1))).clamp(0, 1)


def eye_of(frame: int) -> tuple[int, int]:
    return int(122 - 0.7 * frame), int(90 - 0.3 * frame)


def film(path, *, dirty):
    random, photo, images = np.random.default_rng(0), data.astronaut()[0:360, 60:480], []
    for i in range(FRAMES):
        shift = np.array([[1, 0, 20 + 0.7 * i], [0, 1, 10 + 0.3 * i]])
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        picture = cv2.warpAffine(photo, shift, (320, 240), flags=flags)
        picture = cv2.GaussianBlur(picture, (0, 0), 1.5)
        picture = picture + random.normal(0, 2, picture.shape)
        if dirty and i == DIRTY:
            cv2.circle(picture, eye_of(i), RADIUS_PX, (10, 10, 10), -1, cv2.LINE_AA)
        rgb = np.clip(picture, 0, 255).astype(np.uint8)
        images.append(av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format="yuv444p"))
    return write_video(path, images)


def pictures(path):
    frames = [frame.image.to_ndarray(format="rgb24") for frame in decode(path, DecodeErrors())]
    return np.array(frames).astype(int)


@pytest.mark.long
def test_a_speck_on_an_eye_becomes_no_feature_and_its_neighbours_stay(tmp_path, shared):
    settings = load_settings(
        options={"detect.detector": "yunet", "weights.folder": shared / "models",
                 "encode.quality": "archive"}
    )  # fmt: skip
    found = {}
    for dirty in (False, True):
        source = film(tmp_path / f"{dirty}.mkv", dirty=dirty)
        target = tmp_path / f"clear {dirty}.mkv"
        summary = restore_video(source, target, settings, restorer=Sharp())
        assert summary.faces == FRAMES
        found[dirty] = pictures(source), pictures(target)
    x, y = eye_of(DIRTY)
    rows, columns = np.mgrid[:240, :320]
    away_px = np.hypot(columns - x, rows - y)
    near, speck = away_px < 25, away_px < RADIUS_PX - 1
    around = (away_px > RADIUS_PX + 2) & (away_px < RADIUS_PX + 10)
    (clean, clear), (dirt, clear_of_dirt) = found[False], found[True]
    usual = np.abs(clear - clean)[DIRTY]
    assert usual[near].mean() > 5
    assert np.abs(clear_of_dirt - dirt)[DIRTY][speck].mean() < 8
    apart = np.abs(clear_of_dirt - clear)
    assert apart[DIRTY][around].mean() < 0.5 * usual[around].mean()
    for frame in set(range(FRAMES)) - {DIRTY}:
        assert apart[frame][near].mean() < 1.5
        assert apart[frame].max() <= 15

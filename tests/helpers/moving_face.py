"""A face that moves by parts of pixels, and the crop that a perfect restorer would give."""

from dataclasses import replace

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from helpers.media import (
    info_of,
    mild_image,
    planes_of,
)
from helpers.pasting import paste
from skimage import data

from vidrestore.analysis.tracks import Track
from vidrestore.imaging import color
from vidrestore.imaging.frame import Frame
from vidrestore.imaging.geometry import apply, crop_matrix, invert, template
from vidrestore.imaging.resample import resample
from vidrestore.restoration.crop import crop
from vidrestore.restoration.statistics import RestorationStats

SIZE, SIDE_PX, WORK_PX = 320, 200.0, 256
CPU = torch.device("cpu")


def picture(side: int = 768) -> torch.Tensor:
    """(1, side, side) a face in fine surroundings, larger than it is shown."""
    grey = cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2GRAY)[:320, 64:384]
    large = cv2.resize(grey, (side, side), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    texture = np.random.default_rng(0).normal(0, 1, (side, side)).astype(np.float32)
    large += 8 * cv2.GaussianBlur(texture, (0, 0), 1.5) / 0.19
    return torch.from_numpy(np.clip(large / 255, 0.05, 0.95))[None]


def moving_track(offsets: np.ndarray) -> Track:
    """A face whose crop lies at (60, 60) plus each of the (n, 2) offsets."""
    n = len(offsets)
    matrices = np.zeros((n, 2, 3))
    matrices[:, 0, 0] = matrices[:, 1, 1] = 1 / SIDE_PX
    matrices[:, :, 2] = (0.5 - 60 - offsets) / SIDE_PX
    points = apply(invert(matrices), np.repeat(template("gpen")[None], n, axis=0))
    ones = np.ones(n, np.float32)
    return Track(0, 1, 0, WORK_PX, matrices.astype(np.float32), points.astype(np.float32), ones,
                 ones, np.ones(n, bool))  # fmt: skip


def shown(large: torch.Tensor, offset, height: int = SIZE, width: int = SIZE) -> torch.Tensor:
    """The picture moved by (x, y) pixels of the frame, as a camera takes it: each of its pixels is
    the mean over a square."""
    fine = 4
    step = large.shape[-1] / SIZE / fine
    matrix = np.array([[step, 0, (0.5 - offset[0] * fine) * step - 0.5],
                       [0, step, (0.5 - offset[1] * fine) * step - 0.5]])  # fmt: skip
    return F.avg_pool2d(resample(large, matrix, height * fine, width * fine)[None], fine)[0]


def frame_of(plane: torch.Tensor, index: int) -> Frame:
    image = mild_image(SIZE, SIZE, "gray", 0)
    color.plane(image, 0)[...] = (255 * plane[0]).round().clamp(0, 255).numpy()
    return Frame(index, 512 * index, image, 512)


def true_crop(large: torch.Tensor, track: Track, at: int, offset) -> torch.Tensor:
    """What a perfect restorer would give: the crop of the picture itself."""
    step = large.shape[-1] / SIZE
    to_frame = invert(crop_matrix(track.matrices[at], WORK_PX).astype(np.float64))
    to_frame[:, 2] += 0.5 - np.asarray(offset)
    matrix = to_frame * step
    matrix[:, 2] -= 0.5
    return resample(large, matrix, WORK_PX, WORK_PX).clamp(0, 1).expand(3, -1, -1).contiguous()


def pasted(frames, track, crops, finish=None):
    """(n, h, w) in 8-bit levels, with each of `crops` as what was restored."""
    info = info_of(SIZE, SIZE, "gray", full_range=True)
    given = []
    for frame, restored in zip(
        crop(iter(frames), [track], info, largest_px=2048, device=CPU), crops, strict=True
    ):
        given.append(frame.with_faces((replace(frame.faces[0], restored=restored),)))
    out = paste(iter(given), info, RestorationStats(), strength=1, tracks=[track], finish=finish)
    return np.stack([planes_of(frame.image)[0].astype(np.float64) for frame in out])

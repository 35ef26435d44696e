"""A short tape of three shots, and a restorer that boils."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from helpers.media import (
    analysis_of_file,
    mild_image,
    plain_track,
    planes_of,
    write_video,
)

from vidrestore.analysis.result import Analysis
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.models.restorers import Restorer

SIZE = (96, 64)
FRAMES = 180
SHOTS = ((0, 30), (30, 140), (140, 180))


class Boiling(Restorer):
    """Another picture for every frame, of which some values depend on the frame's content."""

    name = "boiling"
    cache_key = "boiling"
    size = None
    reach_frames = 0
    template = "gpen"

    def __init__(self, *, breaks_at: int | None = None) -> None:
        self.faces = 0
        self._breaks_at = breaks_at

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        self.faces += len(windows)
        if self._breaks_at is not None and self.faces > self._breaks_at:
            raise OSError("a defect of the restorer")
        crops = windows[:, 0]
        seed = int(crops.sum().item() * 1000) % 2**31
        noise = torch.rand(crops.shape, generator=torch.Generator().manual_seed(seed))
        return (0.7 * crops + 0.3 * noise).clamp(0, 1)


def make_tape(folder: Path) -> Path:
    """Every frame another one, cut at the edges of `SHOTS`."""
    images = []
    for index in range(FRAMES):
        image = mild_image(*SIZE, "yuv420p", next(i for i, s in enumerate(SHOTS) if index < s[1]))
        level = np.frombuffer(bytes(image.planes[0]), np.uint8) // 2 + index % 97
        image.planes[0].update(level.astype(np.uint8).tobytes())
        images.append(image)
    return write_video(folder / "tape.mkv", images)


def faces_of(tape: Path) -> Analysis:
    """One face through all shots."""
    tracks = [
        replace(plain_track(end - start, centre=(48, 32), side=32, track_id=i), first_frame=start)
        for i, (start, end) in enumerate(SHOTS)
    ]
    return replace(analysis_of_file(tape, tracks), shots=SHOTS)


def frames_of(path: Path) -> list[tuple[int, bytes]]:
    return [
        (frame.pts, b"".join(plane.tobytes() for plane in planes_of(frame.image)))
        for frame in decode(path, DecodeErrors())
    ]

"""A tape to be restored by workers, and a restorer that they are sent."""

from dataclasses import replace
from pathlib import Path

import torch
from helpers import sources
from helpers.media import (
    analysis_of_file,
    mild_image,
    packets,
    plain_track,
    planes_of,
    write_video,
)

from vidrestore.analysis.result import Analysis
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.media.probe import fingerprint
from vidrestore.models.restorers import Restorer

SIZE, FRAMES = (96, 64), 150


class Tinted(Restorer):
    """Another colour for every face, which depends on what it shows."""

    name = "tinted"
    cache_key = "tinted"
    size = None
    reach_frames = 1
    template = "gpen"

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        mean = windows.mean(dim=(1, 3, 4), keepdim=True)[:, 0]
        return (0.6 * windows[:, 1] + 0.4 * mean).clamp(0, 1)


def make_tape(folder: Path, times: int = 1) -> Path:
    """Picture and sound; so many times as large, which takes longer to restore."""
    width, height = SIZE[0] * times, SIZE[1] * times
    images = [mild_image(width, height, "yuv420p", index // 10) for index in range(FRAMES)]
    picture, tape = write_video(folder / "picture.mkv", images), folder / "tape.mkv"
    sources.ffmpeg("-i", picture, "-f lavfi -i sine=440:d=6 -c:v copy -c:a flac", tape)
    return tape


def faces_of(tape: Path, times: int = 1) -> Analysis:
    centre, side = (48.0 * times, 32.0 * times), 32.0 * times
    track = plain_track(FRAMES, centre=centre, side=side, work_px=64 * times)
    found = analysis_of_file(tape, [track])
    return replace(found, fingerprint=fingerprint(tape))


def frames_of(path: Path) -> list[tuple[int, list[bytes]]]:
    return [
        (frame.pts, [plane.tobytes() for plane in planes_of(frame.image)])
        for frame in decode(path, DecodeErrors())
    ]


def assert_same(target: Path, expected: Path) -> None:
    assert frames_of(target) == frames_of(expected)
    assert packets(target, 1) == packets(expected, 1)
    assert len(packets(target, 1)) > 10

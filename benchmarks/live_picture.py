"""What a live picture costs: processor time of one, and its share where one is made in 2 seconds.

python benchmarks/live_picture.py
"""

from __future__ import annotations

import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from vidrestore.imaging.frame import Frame, VideoInfo
from vidrestore.jobs.live_picture import LivePicture

_PICTURES = 20
_BETWEEN_SECONDS = 2.0
_HDR = {"transfer": "pq", "primaries": "bt2020", "matrix": "bt2020"}
_CASES: tuple[tuple[str, int, int, str, dict[str, Any]], ...] = (
    ("720 x 576", 720, 576, "yuv420p", {}),
    ("1920 x 1080", 1920, 1080, "yuv420p", {}),
    ("1920 x 1080, 10 bit", 1920, 1080, "yuv422p10le", {}),
    ("3840 x 2160, PQ", 3840, 2160, "yuv420p10le", _HDR),
)


def main() -> None:
    print("frame                  CPU of one   share of one core")
    with tempfile.TemporaryDirectory() as folder:
        for name, width, height, pixel_format, changes in _CASES:
            seconds = _seconds_of_one(Path(folder), width, height, pixel_format, changes)
            share = 100 * seconds / _BETWEEN_SECONDS
            print(f"{name:22} {1000 * seconds:6.1f} ms   {share:6.2f} %")


def _seconds_of_one(
    folder: Path, width: int, height: int, pixel_format: str, changes: dict[str, Any]
) -> float:
    noise = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    picture = av.VideoFrame.from_ndarray(noise.repeat(8, 0).repeat(8, 1), "rgb24")
    frame = Frame(0, 0, picture.reformat(format=pixel_format))
    info = VideoInfo(
        stream_index=0, codec="h264", width=width, height=height, time_base=Fraction(1, 25),
        frame_rate=Fraction(25), frame_count_from_header=0,
        duration_seconds_from_header=0.0, sample_aspect_ratio=Fraction(1),
        display_orientation=(1, 0, 0, 1), display_matrix=None, pixel_format=pixel_format,
        bit_depth=frame.image.format.components[0].bits,
        **{"matrix": "bt709", "full_range": False, "tags": (1, 1, 1, 1),
           "field_order": "progressive", **changes},
    )  # fmt: skip
    clock = iter(range(0, 1_000_000, 10))
    live = LivePicture(folder / "live.jpg", info, print, clock=lambda: float(next(clock)))
    live.offer(frame)  # the first one loads what it needs
    began = time.process_time()
    for _ in range(_PICTURES):
        assert live.offer(frame)
    return (time.process_time() - began) / _PICTURES


if __name__ == "__main__":
    main()

"""What pasting one face costs: processor time per frame of 1080p, by the finish that is asked for.

Two sizes of the square crop in the frame: 300 px, and 540 px, whose face is about 300 px wide.
Times are of the whole process with as many threads as the libraries take; the least of several
rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from fractions import Fraction

import av
import numpy as np
import torch.nn.functional as F

from vidrestore.analysis.tracks import Track
from vidrestore.common.settings import Grain, Paste
from vidrestore.imaging.frame import Frame, VideoInfo
from vidrestore.imaging.geometry import apply, crop_matrix, invert, template
from vidrestore.restoration.compositing.paste import paste
from vidrestore.restoration.faces import Face, FaceFrame
from vidrestore.restoration.statistics import RestorationStats
from vidrestore.review.portrait import clean_portrait

WIDTH, HEIGHT, FRAMES, ROUNDS = 1920, 1080, 15, 4
NOISE = 6.0
TARGET_MS = 12.0
NO_GRAIN = Grain(match=0)
FINISHES = {
    "mask alone": (Paste(occluders=False, color=0, sharpness=0), NO_GRAIN),
    "and occluders": (Paste(color=0, sharpness=0), NO_GRAIN),
    "and colour": (Paste(sharpness=0), NO_GRAIN),
    "and blur": (Paste(), NO_GRAIN),
    "and grain: as by default": (Paste(), Grain()),
}
INFO = VideoInfo(
    stream_index=0,
    codec="h264",
    width=WIDTH,
    height=HEIGHT,
    time_base=Fraction(1, 12800),
    frame_rate=Fraction(25),
    frame_count_from_header=0,
    duration_seconds_from_header=0.0,
    sample_aspect_ratio=Fraction(1),
    display_orientation=(1, 0, 0, 1),
    display_matrix=None,
    pixel_format="yuv420p",
    bit_depth=8,
    matrix="bt709",
    full_range=False,
    tags=(1, 1, 1, 1),
    field_order="progressive",
)


def main() -> None:
    print(
        f"{'ms per frame, noise of sigma 6':32}    300 px        540 px     target {TARGET_MS:.0f}"
    )
    print(f"{'':32}  still  moved   still  moved")
    sizes, motions = ((300, 512), (540, 1024)), (0.0, 4.0)
    scenes = [scene(*size, motion_px) for size in sizes for motion_px in motions]
    for name, finish in FINISHES.items():
        costs = [least_ms(make, track, finish) for make, track in scenes]
        print(f"{name:32}", *(f"{cost:6.1f}" for cost in costs))


def scene(
    side_px: int, work_px: int, motion_px: float = 0.0
) -> tuple[Callable[[], list[FaceFrame]], Track]:
    """What makes the frames anew, each with a restored face, and the track of that, which moves by
    so much in each frame."""
    picture, _ = clean_portrait()
    face = F.interpolate(picture[None], (work_px, work_px), mode="bicubic")[0].clamp(0, 1)
    corner = np.array([600.0, 300.0])
    unit = np.array([[1 / side_px, 0, 0], [0, 1 / side_px, 0]])
    moved = corner + motion_px * np.arange(FRAMES)[:, None] * [1, 0]
    units = np.repeat(unit[None], FRAMES, axis=0)
    units[:, :, 2] = (0.5 - moved) / side_px
    ones = np.ones(FRAMES, np.float32)
    track = Track(
        track_id=0,
        person_id=1,
        first_frame=0,
        work_px=work_px,
        matrices=units.astype(np.float32),
        landmarks=np.stack([apply(invert(each), template("gpen")) for each in units]).astype(
            np.float32
        ),
        score=ones,
        strength=ones,
        detected=np.ones(FRAMES, np.bool_),
    )
    drawn = np.random.default_rng(0)
    # New noise in each of three frames, which take turns.
    images = [
        np.clip(drawn.normal(120, NOISE, (HEIGHT, WIDTH, 3)), 0, 255).astype(np.uint8)
        for _ in range(3)
    ]
    soft = F.avg_pool2d(face[None], 5, 1, 2)[0]
    restored = face * 0.97 + 0.005

    def frames() -> list[FaceFrame]:
        return [
            FaceFrame(
                Frame(
                    i,
                    512 * i,
                    av.VideoFrame.from_ndarray(images[i % 3], format="rgb24").reformat(
                        format="yuv420p"
                    ),
                ),
                (Face(0, work_px, crop_matrix(units[i], work_px), soft, 1.0, restored),),
            )
            for i in range(FRAMES)
        ]

    return frames, track


def least_ms(
    make: Callable[[], list[FaceFrame]], track: Track, finish: tuple[Paste, Grain]
) -> float:
    return min(run_ms(make(), track, finish) for _ in range(ROUNDS))


def run_ms(frames: list[FaceFrame], track: Track, finish: tuple[Paste, Grain]) -> float:
    start = time.process_time()
    for _ in paste(iter(frames), INFO, RestorationStats(), *finish, tracks=[track]):
        pass
    return (time.process_time() - start) / len(frames) * 1e3


if __name__ == "__main__":
    main()

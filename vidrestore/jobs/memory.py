"""How much memory a job needs, compared with what the machine has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from av import VideoFormat

from vidrestore.analysis.result import Analysis
from vidrestore.common.errors import OutputError
from vidrestore.common.settings import Settings
from vidrestore.common.system import machine_memory
from vidrestore.imaging.frame import VideoInfo
from vidrestore.models.restorers import RestorerInfo
from vidrestore.restoration import guard, temporal
from vidrestore.restoration.compositing import paste
from vidrestore.restoration.upscaling import Scaling

_GIB = 2**30

# What encoders take at their usual presets, in frames of their input; measured at 1280 x 720.
_FRAMES_IN_ENCODER = {"h264": 140, "hevc": 190, "av1": 470}

_FRAMES_IN_OTHERS = 30

# Between decoding and scaling, each as deep as the settings say, plus one being made, one being
# used; the guard's is one deep.
_DEEP_QUEUES, _IN_HAND = 4, 2

# Of float32 and three channels, the picture on its way through a network, and its planes.
_BYTES_IN_NETWORK = 3 * 4 * 4

# A crop and what it became, of float32 and three channels.
_BYTES_OF_CROP_PX = 24

# What stages make of crops while they work, in such pairs; measured with crops of 1024 px.
_CROPS_IN_STAGES = 20

_ROOM = 0.9  # the share of a machine's memory that may be planned with


def memory_for_frames(
    info: VideoInfo, target: VideoInfo, scaling: Scaling, settings: Settings, codec: str
) -> int:
    """Bytes that pass two takes for whole pictures, about; not for faces and their networks."""
    depth = settings.job.queue_frames
    small = _DEEP_QUEUES * (depth + _IN_HAND) + settings.restore.max_waiting_frames
    large = 1 + _IN_HAND + 2 * paste.REACH_FRAMES + 1 + depth + _IN_HAND
    large += _FRAMES_IN_ENCODER.get(codec, _FRAMES_IN_OTHERS)
    in_network = 0
    if scaling.upscaler is not None:
        in_network = _BYTES_IN_NETWORK * target.width * target.height
    return small * _frame_bytes(info) + large * _frame_bytes(target) + in_network


def memory_for_faces(
    analysis: Analysis, settings: Settings, restorers: Sequence[tuple[int, RestorerInfo]]
) -> int:
    """Likewise for the crops of the faces that are in sight together."""
    waiting = 3 * (settings.job.queue_frames + _IN_HAND) + 2 * (1 + _IN_HAND) + _CROPS_IN_STAGES
    for stage in (temporal, guard, paste):
        waiting += 2 * stage.REACH_FRAMES + 1
    pixels = np.zeros(analysis.frame_count, np.int64)
    for track in analysis.tracks:
        sides = (min(track.work_px, restorer.size or track.work_px) for _, restorer in restorers)
        pixels[track.first_frame : track.end_frame] += max(sides) ** 2
    return waiting * _BYTES_OF_CROP_PX * int(pixels.max(initial=0))


def check_memory(needed: int, target: VideoInfo) -> str:
    """How much that is, for a person; OutputError where the machine has less."""
    there = machine_memory()
    said = f"about {needed / _GIB:.1f} GiB of memory"
    size = f"{target.width} x {target.height}"
    if there is not None and needed > _ROOM * there:
        raise OutputError(
            f"an output of {size} pixels takes {said}, and this machine has "
            f"{there / _GIB:.1f} GiB; use a smaller --scale, --codec prores or ffv1, which hold "
            "fewer frames, or a smaller job.queue_frames"
        )
    return f"frames of {size} pixels take {said}, beside faces and networks"


def _frame_bytes(info: VideoInfo) -> int:
    shape = VideoFormat(info.pixel_format, info.width, info.height)
    bits: int = shape.padded_bits_per_pixel
    return info.width * info.height * bits // 8

"""Estimate the memory that a job needs, and compare it with that of the machine."""

from __future__ import annotations

import numpy as np
from av import VideoFormat

from vidrestore.analysis.result import Analysis
from vidrestore.common.errors import OutputError
from vidrestore.common.settings import Settings
from vidrestore.common.system import machine_memory
from vidrestore.imaging.frame import VideoInfo
from vidrestore.jobs.image_output import MOST_WRITING
from vidrestore.models.restorers import RestorerInfo
from vidrestore.models.restorers.assignment import Assignment
from vidrestore.restoration import guard, key_frames, latent, temporal
from vidrestore.restoration.compositing import paste
from vidrestore.restoration.segments import side_px
from vidrestore.restoration.upscaling import Scaling

_GIB = 2**30

# Memory of encoders at their usual presets, in frames of their input; measured at 1280 x 720.
_FRAMES_IN_ENCODER = {"h264": 145, "hevc": 190, "av1": 470}
# Each thread of x264 codes a frame of its own; measured with 2 to 32 threads.
_FRAMES_OF_THREAD = {"h264": 10}

_FRAMES_IN_OTHERS = 30

# A picture that is written, as the decoder gives it, as samples, as a file, and while it is
# compressed.
_FRAMES_TO_WRITE = 4

# The number of queues between decoding and scaling. Each holds `job.queue_frames` frames, and two
# more are in use, one at each end. The queue of the guard holds one frame.
_DEEP_QUEUES, _IN_HAND = 4, 2

# Float32, three channels: the picture on its way through a network, and its planes.
_BYTES_IN_NETWORK = 3 * 4 * 4

# A crop and its restored picture, float32, three channels.
_BYTES_OF_CROP_PX = 24

# Copies of crops that stages hold while they work, in such pairs; measured at 1024 px.
_CROPS_IN_STAGES = 20

_ROOM = 0.9  # the share of a machine's memory that a job may need


def memory_for_frames(
    info: VideoInfo,
    target: VideoInfo,
    scaling: Scaling,
    settings: Settings,
    codec: str,
    *,
    pictures: int | None = None,
) -> int:
    """Estimate the memory of pass two for whole pictures, without faces and their networks.

    Args:
        info: The frames of the source.
        target: The frames of the output.
        scaling: How frames are enlarged.
        settings: `job.queue_frames`, `encode.threads`, `restore.max_waiting_frames` and
            `restore.key_frames` count.
        codec: The codec of the output, such as h264.
        pictures: The number of pictures, where the frames are written as pictures; default: they
            are the frames of a video, of any number.

    Returns:
        Bytes.
    """
    depth = settings.job.queue_frames
    small = _DEEP_QUEUES * (depth + _IN_HAND) + settings.restore.max_waiting_frames
    small += _frames_for_keys(settings)
    large = 1 + _IN_HAND + 2 * paste.REACH_FRAMES + 1 + depth + _IN_HAND
    large += _FRAMES_IN_ENCODER.get(codec, _FRAMES_IN_OTHERS)
    large += _FRAMES_OF_THREAD.get(codec, 0) * settings.encode.threads
    if pictures is not None:
        # They are written later, when no other stage runs.
        writing = _FRAMES_TO_WRITE * min(pictures, MOST_WRITING)
        small, large = min(small, pictures), max(min(large, 3 * pictures), writing)
    in_network = 0
    if scaling.upscaler is not None:
        in_network = _BYTES_IN_NETWORK * target.width * target.height
    return small * _frame_bytes(info) + large * _frame_bytes(target) + in_network


def memory_for_faces(
    analysis: Analysis, settings: Settings, restorers: Assignment[RestorerInfo]
) -> int:
    """Estimate the memory of pass two for the crops of faces that are visible together.

    Args:
        analysis: The analysis of the video.
        settings: `job.queue_frames`, `restore.key_frames` and `restore.latent` count.
        restorers: The properties of the restorers.

    Returns:
        Bytes.
    """
    waiting = 3 * (settings.job.queue_frames + _IN_HAND) + 2 * (1 + _IN_HAND)
    for stage in (temporal, guard, paste):
        waiting += 2 * stage.REACH_FRAMES + 1
    waiting += _frames_for_keys(settings)
    if settings.restore.latent == "shot":
        waiting += latent.REACH_FRAMES
    # No more frames wait than there are.
    crops = min(waiting, analysis.frame_count) + _CROPS_IN_STAGES
    pixels = np.zeros(analysis.frame_count, np.int64)
    for track in analysis.tracks:
        pixels[track.first_frame : track.end_frame] += side_px(track, restorers) ** 2
    return crops * _BYTES_OF_CROP_PX * int(pixels.max(initial=0))


def _frames_for_keys(settings: Settings) -> int:
    """Return the number of frames that wait while key frames are chosen and others made of them."""
    return 0 if settings.restore.key_frames == "off" else 3 * key_frames.REACH_FRAMES


def check_memory(needed: int, target: VideoInfo, *, of_pictures: bool = False) -> str:
    """Compare the memory that an output needs with that of the machine.

    Args:
        needed: Bytes.
        target: The frames of the output.
        of_pictures: Whether the frames are written as pictures; default: as a video.

    Returns:
        A notice for the user.

    Raises:
        OutputError: The machine has too little memory.
    """
    there = machine_memory()
    amount = f"about {needed / _GIB:.1f} GiB of memory"
    size = f"{target.width} x {target.height}"
    if there is not None and needed > _ROOM * there:
        advice = "use a smaller --scale"
        if not of_pictures:
            advice += (
                ", --codec prores or ffv1, which hold fewer frames, or a smaller job.queue_frames"
            )
        raise OutputError(
            f"an output of {size} pixels takes {amount}, and this machine has "
            f"{there / _GIB:.1f} GiB; {advice}"
        )
    return f"frames of {size} pixels take {amount}, without faces and networks"


def _frame_bytes(info: VideoInfo) -> int:
    """Return the bytes of a decoded frame."""
    shape = VideoFormat(info.pixel_format, info.width, info.height)
    bits: int = shape.padded_bits_per_pixel
    return info.width * info.height * bits // 8

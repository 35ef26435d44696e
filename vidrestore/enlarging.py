"""`--scale`: what goes with it, what it costs in memory, and the network it may be done by."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from av import VideoFormat

from vidrestore.config import Settings
from vidrestore.deinterlacing import Interlacing
from vidrestore.devices import choose_device
from vidrestore.errors import OutputError, UsageError, WeightsError
from vidrestore.frame import Analysis, VideoInfo
from vidrestore.restorers import Described
from vidrestore.scaling import Scaler, Scaling
from vidrestore.stages import deflicker, guard, paste
from vidrestore.upscaler import Upscaler
from vidrestore.weightfile import sha256_of

_GIB = 2**30
_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
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


def check_goes_with(
    settings: Settings, plate: Path | None, *, keep_job: bool, is_redo: bool
) -> None:
    """UsageError for what makes no sense together."""
    how = settings.scale
    if how.factor == 1:
        if how.upscaler is not None:
            raise UsageError(
                f"the upscaler {how.upscaler} is given, but nothing is to be enlarged; add "
                "--scale 2 or 4"
            )
        return
    if plate is not None:
        raise UsageError(
            f"the output is as large as the plate {plate}, so --scale {how.factor} cannot go with "
            "it; leave out one of them"
        )
    if keep_job or is_redo:
        option = "--redo-shots" if is_redo else "--keep-job"
        raise UsageError(
            f"single shots cannot be redone with --scale, so {option} cannot go with it; leave it "
            "out and restore the whole anew"
        )


def check_fields(source: Path, interlacing: Interlacing, *, factor: int) -> None:
    """UsageError where fields were to be woven into larger frames."""
    if factor > 1 and interlacing.mode == "keep":
        raise UsageError(
            f"{source} is {interlacing.found or 'interlaced'}, and larger frames cannot be woven "
            "of its fields; add --deinterlace bob to make a frame of each field"
        )


def unseen_fields(info: VideoInfo, interlacing: Interlacing) -> Iterator[str]:
    """What a person should know of frames of `info` that are enlarged as they are."""
    if info.is_interlaced and interlacing.mode == "off" and not interlacing.found:
        yield (
            "the file says that its frames are interlaced, and nobody looked whether they are; "
            "they were enlarged as whole pictures"
        )


def chosen_scaling(settings: Settings) -> Scaling | None:
    """What the settings ask for, its network tried; None where nothing is enlarged."""
    factor, upscaler = settings.scale.factor, settings.scale.upscaler
    if factor == 1:
        return None
    if upscaler is None:
        return Scaling(factor)
    if not upscaler.is_file():
        raise WeightsError(f"the upscaler {upscaler} does not exist; give the file of a network")
    Upscaler(upscaler, device=choose_device(settings.restore)).check(factor)
    return Scaling(factor, upscaler, sha256_of(upscaler))


def open_scaler(
    scaling: Scaling, info: VideoInfo, target: VideoInfo, device: torch.device
) -> Scaler:
    """WeightsError where the network is no longer the one that was chosen."""
    path = scaling.upscaler
    if path is None:
        return Scaler(info, target, None)
    if not path.is_file() or sha256_of(path) != scaling.upscaler_sha256:
        raise WeightsError(
            f"the upscaler {path} is not there or another file than when the run was started; "
            "share one file with all nodes, and do not change it meanwhile"
        )
    return Scaler(info, target, Upscaler(path, device=device))


def notice(scaling: Scaling, target: VideoInfo) -> str:
    """What is done to the picture, for a person."""
    how = "Lanczos" if scaling.upscaler is None else scaling.upscaler.name
    return f"the picture is enlarged to {target.width} x {target.height} pixels by {how}"


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
    analysis: Analysis, settings: Settings, restorers: Sequence[tuple[int, Described]]
) -> int:
    """Likewise for the crops of the faces that are in sight together."""
    waiting = 3 * (settings.job.queue_frames + _IN_HAND) + 2 * (1 + _IN_HAND) + _CROPS_IN_STAGES
    for stage in (deflicker, guard, paste):
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


def machine_memory() -> int | None:
    """Bytes that this machine has, or what it lets a container have; None where it does not say."""
    if not hasattr(os, "sysconf"):
        return None
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # not there, or "max"
            sizes.append(int(path.read_text()))
    return min(sizes)


def _frame_bytes(info: VideoInfo) -> int:
    shape = VideoFormat(info.pixel_format, info.width, info.height)
    bits: int = shape.padded_bits_per_pixel
    return info.width * info.height * bits // 8

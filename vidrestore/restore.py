"""Pass two, for one segment: decode -> crop -> restore -> paste -> encode."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vidrestore.config import Settings
from vidrestore.errors import InputError, UsageError
from vidrestore.frame import Analysis, Tally
from vidrestore.restorers import Restorer
from vidrestore.stages.crop import crop
from vidrestore.stages.decode import Damage, Span, decode
from vidrestore.stages.encode import VideoWriter
from vidrestore.stages.paste import paste
from vidrestore.stages.restore import restore
from vidrestore.threads import StageThreads

# Frames on which each boundary between threads may run ahead; see StageThreads for the memory.
_DEPTH = 4
_LARGEST_CROP_PX = 2048


def restore_segment(
    source: Path,
    target: Path,
    analysis: Analysis,
    restorer: Restorer,
    settings: Settings,
    *,
    codec: str,
    span: Span | None = None,
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> Tally:
    """Write the video stream alone, with its faces restored, to `target`.

    Leaves no file and no thread behind where it fails.
    """
    info, tally = analysis.info, Tally()
    device = choose_device(settings.restore.device)
    with _writer(target, analysis, settings, codec) as writer, StageThreads() as threads:
        frames = threads.background(decode(source, Damage(), span), depth=_DEPTH, name="decode")
        cropped = crop(
            frames,
            analysis.tracks,
            info,
            largest_px=restorer.size or _LARGEST_CROP_PX,
            device=device,
        )
        faces = threads.background(cropped, depth=_DEPTH, name="crop")
        restored = restore(
            faces,
            restorer,
            tally,
            batch_size=_batch_size(settings, device),
            max_waiting_frames=settings.restore.max_waiting_frames,
        )
        clear = threads.background(restored, depth=_DEPTH, name="restore")
        pasted = paste(clear, info, tally, strength=settings.paste.strength)
        for frame in threads.background(pasted, depth=_DEPTH, name="paste"):
            writer.write(frame)
            if on_event is not None:
                on_event(_progress(writer.frame_count, analysis))
        if writer.frame_count != analysis.frame_count:
            raise InputError(
                f"{source} gave {analysis.frame_count} frames in the first pass and "
                f"{writer.frame_count} in the second; it changed meanwhile or cannot be "
                "read reliably"
            )
    return tally


def choose_device(name: str) -> torch.device:
    """auto: the first CUDA device where there is one; UsageError for one that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"there is no device {name}: {torch.cuda.device_count()} CUDA devices are found; "
            "use --device cpu or --device auto"
        )
    return device


def _batch_size(settings: Settings, device: torch.device) -> int:
    """As asked for, else what suits the device: on a CPU batches cost memory and gain nothing."""
    return settings.restore.batch_size or (4 if device.type == "cuda" else 1)


def _writer(target: Path, analysis: Analysis, settings: Settings, codec: str) -> VideoWriter:
    how = settings.encode
    return VideoWriter(
        target, analysis.info, codec=codec, crf=how.crf, preset=how.preset, threads=how.threads
    )


def _progress(done: int, analysis: Analysis) -> dict[str, Any]:
    return {
        "event": "progress", "stage": "restore", "frame": done, "frames": analysis.frame_count,
    }  # fmt: skip

"""Pass two, for one segment: decode -> crop -> restore -> deflicker -> paste -> encode."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidrestore.codecs import Encoding
from vidrestore.config import Settings
from vidrestore.errors import InputError, UsageError
from vidrestore.frame import Analysis, FaceFrame, Frame
from vidrestore.parsing import Parser
from vidrestore.restorers import Restorer
from vidrestore.segments import Schedule, Segment, context
from vidrestore.stages import deflicker as deflicker_stage
from vidrestore.stages import paste as paste_stage
from vidrestore.stages.crop import crop
from vidrestore.stages.decode import Damage, Span, decode, decode_from
from vidrestore.stages.deflicker import deflicker
from vidrestore.stages.detect import checksum
from vidrestore.stages.encode import VideoWriter
from vidrestore.stages.paste import Finish, paste
from vidrestore.stages.restore import restore
from vidrestore.summary import Tally
from vidrestore.threads import StageThreads

# Frames on which each boundary between threads may run ahead; see StageThreads for the memory.
_DEPTH = 4
_LARGEST_CROP_PX = 2048
_FEW_FRAMES = 8
# How long before a frame to seek where the seek to it led elsewhere.
_EARLIER_SECONDS = (Fraction(0), Fraction(2), Fraction(10))


def restore_segment(
    source: Path,
    target: Path,
    analysis: Analysis,
    segment: Segment,
    restorers: Schedule,
    parser: Parser | None,
    settings: Settings,
    *,
    encoding: Encoding,
    header: Path | None = None,
    span: Span | None = None,
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> Tally:
    """Write the segment's part of the video stream, with its faces restored, to `target`.

    `restorers` are pairs (first frame, restorer), each from there to the next; the first from 0.
    `parser` says what is no face and stays as it was, where there is one.
    The frames are the same however the video is cut into segments: those around the segment on
    which its own depend are restored, too, and not written.
    Leaves no file and no thread behind where it fails.
    """
    info = analysis.info
    tally = Tally(frames=range(segment.first, segment.end))
    first, end = context(segment, analysis, reach_frames(restorers, settings))
    # Those of decoders are packets' durations, which follow the order of coding.
    durations = [*np.diff(analysis.pts).tolist(), last_duration(analysis)]
    device = choose_device(settings.restore.device)
    encoder_threads = settings.encode.threads
    if analysis.frame_count < _FEW_FRAMES:
        encoding = encoding.of_few_frames()
    with (
        VideoWriter(target, info, encoding, threads=encoder_threads, header=header) as writer,
        StageThreads() as threads,
    ):
        again = frames_again(source, analysis, span, first=first, end=end)
        frames = threads.background(again, depth=_DEPTH, name="decode")
        cropped = crop(
            frames,
            analysis.tracks,
            info,
            largest_px=max(restorer.size or _LARGEST_CROP_PX for _, restorer in restorers),
            device=device,
        )
        faces = threads.background(cropped, depth=_DEPTH, name="crop")
        restored = _restored(faces, restorers, tally, settings, device)
        clear = threads.background(restored, depth=_DEPTH, name="restore")
        steady = deflicker(
            clear,
            amount=_deflicker_amount(restorers, settings),
            detail=settings.deflicker.detail,
        )
        calm = threads.background(steady, depth=_DEPTH, name="deflicker")
        pasted = paste(
            calm,
            info,
            tally,
            strength=settings.paste.strength,
            tracks=analysis.tracks,
            finish=_finish(settings, parser),
        )
        for frame in threads.background(pasted, depth=_DEPTH, name="paste"):
            if segment.first <= frame.index < segment.end:
                writer.write(replace(frame, duration=durations[frame.index]))
                if on_event is not None:
                    on_event(_progress(frame.index + 1, analysis))
        if writer.frame_count != segment.frame_count:
            raise InputError(
                f"{source} gave {segment.frame_count} frames from frame {segment.first} on in the "
                f"first pass and {writer.frame_count} in the second; it changed meanwhile or "
                "cannot be read reliably"
            )
    return tally


def _restored(
    faces: Iterator[FaceFrame],
    restorers: Schedule,
    tally: Tally,
    settings: Settings,
    device: torch.device,
) -> Iterator[FaceFrame]:
    """The stretches of frames one after the other, each by its own restorer."""
    for restorer, stretch in groupby(faces, lambda face: _at(restorers, face.frame.index)):
        yield from restore(
            stretch,
            restorer,
            tally,
            batch_size=_batch_size(settings, device),
            max_waiting_frames=settings.restore.max_waiting_frames,
            repeats=settings.restore.repeats,
        )


def _finish(settings: Settings, parser: Parser | None) -> Finish:
    wanted = settings.paste
    regions = wanted.regions.model_dump()
    return Finish(
        occluders=wanted.occluders,
        color=wanted.color,
        grain=settings.grain.match,
        sharpness=wanted.sharpness,
        focus=wanted.focus,
        detail=wanted.detail,
        regions=regions if min(regions.values()) < 1 else {},
        parser=parser,
    )


def _at(restorers: Schedule, index: int) -> Restorer:
    return next(restorer for first, restorer in reversed(restorers) if first <= index)


def reach_frames(restorers: Schedule, settings: Settings) -> int:
    """How many frames to either side may have a part in what becomes of one."""
    reach = max(restorer.reach_frames for _, restorer in restorers) + paste_stage.REACH_FRAMES
    if _deflicker_amount(restorers, settings):
        reach += deflicker_stage.REACH_FRAMES
    return reach


def _deflicker_amount(restorers: Schedule, settings: Settings) -> float:
    """None where every restorer looks at several frames by itself."""
    is_needed = any(restorer.reach_frames == 0 for _, restorer in restorers)
    return settings.deflicker.amount if is_needed else 0.0


def frames_again(
    source: Path,
    analysis: Analysis,
    span: Span | None = None,
    *,
    first: int = 0,
    end: int | None = None,
) -> Iterator[Frame]:
    """Frames [first, end) of the analysis once more, with the times and checksums that they have
    there. `span` is the part of the source that was analysed.

    Begins at the exact frame: where a seek leads to another one, from further and further before
    it, in the end from the start. Several threads decode until a frame is another: some damage, of
    HEVC for one, shows only in that. The rest then comes from one thread, as in the analysis.
    InputError where that does not help: the file is no longer the one that was analysed.
    """
    end = analysis.frame_count if end is None else end
    given = first
    ends_with_source = end == analysis.frame_count and span is None
    for frames in _attempts(source, analysis, span, first):
        for frame in frames:
            if frame.index < given:
                continue
            if not ends_with_source and given == end:
                return
            if not _is_known(frame, analysis):
                break
            yield frame
            given += 1
        else:
            if given == end:
                return
    may_seek = not analysis.one_thread
    index = analysis.info.stream_index
    for frame in decode(
        source, Damage(), span, stream_index=index, one_thread=True, may_seek=may_seek
    ):
        if frame.index < given:
            continue
        if not ends_with_source and given == end:
            return
        if not _is_known(frame, analysis):
            raise InputError(
                f"frame {frame.index} of {source} is not the one of the first pass, so the file "
                "changed meanwhile or cannot be read reliably; run the command again"
            )
        yield frame
        given += 1


def _attempts(
    source: Path, analysis: Analysis, span: Span | None, first: int
) -> Iterator[Iterator[Frame]]:
    """Ways to read from frame `first` on, with indices of the analysis; the quickest first."""
    if analysis.one_thread:
        return
    info = analysis.info
    for earlier_seconds in _EARLIER_SECONDS if first else ():
        begin = int(analysis.pts[first]) - math.ceil(earlier_seconds / info.time_base)
        if begin <= analysis.pts[0]:
            break
        # Which of the frames it is that is met first, its time says.
        known = {int(pts): i for i, pts in enumerate(analysis.pts[: first + 1].tolist())}
        yield _numbered(decode_from(source, begin, stream_index=info.stream_index), known)
    yield decode(source, Damage(), span, stream_index=info.stream_index)


def _numbered(frames: Iterator[Frame], known: Mapping[int, int]) -> Iterator[Frame]:
    index = None
    for frame in frames:
        index = known.get(frame.pts) if index is None else index + 1
        if index is not None:
            yield replace(frame, index=index)


def _is_known(frame: Frame, analysis: Analysis) -> bool:
    at = frame.index
    if at >= analysis.frame_count or frame.pts != analysis.pts[at]:
        return False
    return checksum(frame.image) == int(analysis.crc32[at])


def last_duration(analysis: Analysis) -> int:
    """How many ticks the last frame lasts: until the end that the file states.

    An end that would hold it more than twice as long as any other belongs to frames that were
    lost, and none at all gives it the nominal rate.
    """
    pts, info = analysis.pts, analysis.info
    shown = int(pts[-1] - pts[0]) * info.time_base
    left = round((Fraction(info.duration_seconds_from_header) - shown) / info.time_base)
    nominal = max(1, round(1 / (info.frame_rate * info.time_base)))
    longest = int(np.diff(pts).max(initial=nominal))
    return left if 0 < left <= 2 * longest else nominal


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


def _progress(done: int, analysis: Analysis) -> dict[str, Any]:
    return {
        "event": "progress", "stage": "restore", "frame": done, "frames": analysis.frame_count,
    }  # fmt: skip

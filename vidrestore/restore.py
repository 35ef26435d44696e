"""Pass two, for one segment: decode -> crop -> restore -> deflicker -> guard -> paste -> encode."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from vidrestore.codecs import Encoding
from vidrestore.config import Settings
from vidrestore.crops import Crops
from vidrestore.devices import choose_device
from vidrestore.errors import InputError
from vidrestore.frame import Analysis, FaceFrame, Frame, VideoInfo
from vidrestore.likeness import Judge
from vidrestore.pairing import ALONE, Companion, Pairing, target_from_source
from vidrestore.parsing import Parser
from vidrestore.restorers import MOST_AT_ONCE, Described, Restorer, most_at_once
from vidrestore.segments import Schedule, Segment, context
from vidrestore.stages import deflicker as deflicker_stage
from vidrestore.stages import guard as guard_stage
from vidrestore.stages import paste as paste_stage
from vidrestore.stages.crop import crop, cut_out
from vidrestore.stages.decode import Damage, Span, decode, decode_from
from vidrestore.stages.deflicker import deflicker
from vidrestore.stages.detect import checksum
from vidrestore.stages.encode import VideoWriter
from vidrestore.stages.guard import guard
from vidrestore.stages.layer import LayerFiles, layer_writer
from vidrestore.stages.paste import Finish, paste
from vidrestore.stages.plate import onto_plate
from vidrestore.stages.restore import restore
from vidrestore.stages.swap import only_swapped
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
    judge: Judge,
    settings: Settings,
    *,
    parser: Parser | None = None,
    encoding: Encoding,
    header: Path | None = None,
    span: Span | None = None,
    pairing: Pairing = ALONE,
    layer: LayerFiles | None = None,
    crops: Crops | None = None,
    on_frames: Callable[[int], None] | None = None,
) -> Tally:
    """Write the segment's part of the video stream, with its faces restored, to `target`.

    `restorers` are pairs (first frame, restorer), each from there to the next; the first from 0.
    `judge` says whether what they made still is the same face; `parser` what is no face and stays
    as it was. With a plate in `pairing` the stream is the plate's, which `encoding` and `header`
    are for. `layer` are files for the restored faces by themselves; `crops` keeps what the
    restorers make.
    The frames are the same however the video is cut into segments: those around the segment on
    which its own depend are restored, too, and not written.
    `on_frames` is told how many frames of the segment are written.
    Leaves no file and no thread behind where it fails.
    """
    info, plate = analysis.info, pairing.plate
    # What the output is but for the faces.
    shown = analysis if plate is None else plate.analysis
    tally = Tally(frames=range(segment.first, segment.end))
    first, end = context(segment, analysis, reach_frames(restorers, settings))
    # Those of decoders are packets' durations, which follow the order of coding.
    durations = [*np.diff(shown.pts).tolist(), last_duration(shown)]
    device = choose_device(settings.restore)
    encoder_threads = settings.encode.threads
    if analysis.frame_count < _FEW_FRAMES:
        encoding = encoding.of_few_frames()
    with (
        VideoWriter(target, shown.info, encoding, threads=encoder_threads, header=header) as writer,
        _layer_writer(layer, shown.info, encoder_threads) as write_layer,
        StageThreads(caller="encode") as threads,
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
        if (before := pairing.before_swap) is not None:
            was = threads.background(
                _beside(before, first, end), depth=_DEPTH, name="decode before"
            )
            cropped = only_swapped(cropped, was, info, before.analysis.info, tally)
        faces = threads.background(cropped, depth=_DEPTH, name="crop")
        restored = _restored(faces, restorers, tally, settings, device, crops)
        clear = threads.background(restored, depth=_DEPTH, name="restore")
        steady = deflicker(
            clear,
            amount=_deflicker_amount(restorers, settings),
            detail=settings.deflicker.detail,
        )
        calm = threads.background(steady, depth=_DEPTH, name="deflicker")
        guarded = guard(
            calm,
            judge,
            tally,
            identity=settings.guard.identity,
            features=settings.guard.features,
            tracks=analysis.tracks,
        )
        # Each face that waits holds 24 W^2 bytes, of which the guard keeps some frames itself.
        sure = threads.background(guarded, depth=1, name="guard")
        if plate is not None:
            onto = threads.background(_beside(plate, first, end), depth=_DEPTH, name="decode plate")
            to_plate = target_from_source(shown.info, info)
            sure = onto_plate(sure, onto, shown.tracks, shown.info, to_plate, cut_out)
        pasted = paste(
            sure,
            shown.info,
            tally,
            strength=settings.paste.strength,
            tracks=shown.tracks,
            finish=_finish(settings, parser),
            layer=None if layer is None else layer.holds,
        )
        for frame in threads.background(pasted, depth=_DEPTH, name="paste"):
            if segment.first <= frame.index < segment.end:
                timed = replace(frame, duration=durations[frame.index])
                writer.write(timed)
                if write_layer is not None:
                    write_layer(timed)
                if on_frames is not None:
                    on_frames(writer.frame_count)
        if writer.frame_count != segment.frame_count:
            raise InputError(
                f"{source} gave {segment.frame_count} frames from frame {segment.first} on in the "
                f"first pass and {writer.frame_count} in the second; it changed meanwhile or "
                "cannot be read reliably"
            )
    tally.add_stages(threads.times)
    return tally


def _restored(
    faces: Iterator[FaceFrame],
    restorers: Schedule,
    tally: Tally,
    settings: Settings,
    device: torch.device,
    crops: Crops | None,
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
            crops=crops,
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


def _layer_writer(
    layer: LayerFiles | None, info: VideoInfo, threads: int
) -> AbstractContextManager[Callable[[Frame], None] | None]:
    if layer is None:
        return nullcontext()
    return layer_writer(layer, info, partial(VideoWriter, threads=threads))


def _beside(companion: Companion, first: int, end: int) -> Iterator[Frame]:
    return frames_again(companion.path, companion.analysis, companion.span, first=first, end=end)


def _at(restorers: Schedule, index: int) -> Restorer:
    return next(restorer for first, restorer in reversed(restorers) if first <= index)


def reach_frames(restorers: Sequence[tuple[int, Described]], settings: Settings) -> int:
    """How many frames to either side may have a part in what becomes of one."""
    reach = max(restorer.reach_frames for _, restorer in restorers) + paste_stage.REACH_FRAMES
    if _deflicker_amount(restorers, settings):
        reach += deflicker_stage.REACH_FRAMES
    if settings.guard.identity > 0 or settings.guard.features > 0:
        reach += guard_stage.REACH_FRAMES
    return reach


def _deflicker_amount(restorers: Sequence[tuple[int, Described]], settings: Settings) -> float:
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


def _batch_size(settings: Settings, device: torch.device) -> Callable[[Restorer], int]:
    """As asked for, else what suits the device: on a CPU batches cost memory and gain nothing."""
    if (asked := settings.restore.batch_size) is not None:
        return lambda network: asked
    usual = MOST_AT_ONCE if device.type == "cuda" else 1
    return lambda network: min(usual, most_at_once(network) or usual)

"""Another version of the video, read beside it frame by frame: as it was before a face swap, or
the plate onto which faces are pasted. What does not go with it is refused at the first mismatch.
The video enlarged is such a plate, too, made of its frames instead of read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from vidrestore.analysis.result import Analysis
from vidrestore.analysis.tracks import Track
from vidrestore.common.errors import InputError, UsageError
from vidrestore.common.events import OnEvent, Progress
from vidrestore.imaging.frame import VideoInfo
from vidrestore.imaging.geometry import Matrix, apply, compose, crop_side_px, invert, upright
from vidrestore.imaging.planes import checksum
from vidrestore.media.decode import DecodeErrors, TimeRange, decode
from vidrestore.media.probe import Probe
from vidrestore.media.source import open_source
from vidrestore.restoration.upscaling import Scaling, scaled_info

_LARGEST_WORK_PX = 2048


@dataclass(frozen=True, slots=True, eq=False)
class PairedVideo:
    """A video, and what is known of its frames."""

    path: Path
    analysis: Analysis
    """Its shots, faces and their numbers are those of the video that it goes with; places are in
    its own pixels, times in its own ticks."""
    span: TimeRange | None
    """The part of it that was analysed."""
    scaling: Scaling | None = None
    """How its frames are made of those of the video; None where they are its file's own."""

    def absolute(self) -> PairedVideo:
        """The same by names that hold in any folder."""
        scaling = self.scaling
        if scaling is not None and scaling.upscaler is not None:
            scaling = replace(scaling, upscaler=scaling.upscaler.absolute())
        return replace(self, path=self.path.absolute(), scaling=scaling)


@dataclass(frozen=True, slots=True, eq=False)
class Pairing:
    """What is read beside the source; frame n of each goes with frame n of the source."""

    before_swap: PairedVideo | None = None
    """Of the same size: only what differs from it is restored."""
    plate: PairedVideo | None = None
    """Of any size: faces are pasted into its frames, and the output is it but for the faces."""

    def analyses(self) -> Iterator[tuple[str, Analysis]]:
        """(what it is for, what is known of it)."""
        for role in ("before_swap", "plate"):
            companion = getattr(self, role)
            if companion is not None:
                yield role, companion.analysis

    def absolute(self) -> Pairing:
        """The same by names that hold in any folder."""
        return Pairing(*(
            companion and companion.absolute()
            for companion in (self.before_swap, self.plate)
        ))  # fmt: skip

    def companions(self) -> Iterator[PairedVideo]:
        yield from filter(None, (self.before_swap, self.plate))

    def notes(self) -> Iterator[str]:
        """What a person should know of damage."""
        for companion in self.companions():
            if companion.scaling is None and (count := companion.analysis.corrupt_frames):
                yield f"{count} frames are damaged in {companion.path}"


ALONE = Pairing()
"""Nothing is read beside the source."""


def check_before_swap(before: Probe, source: Path, info: VideoInfo) -> None:
    """UsageError where the picture of the video before the swap has another shape."""
    found = before.info
    shape, own = ((each.width, each.height, each.display_orientation) for each in (found, info))
    if shape != own:
        raise UsageError(
            f"{before.path}, the video before the face swap, {_shown(found)}, but {source} "
            f"{_shown(info)}; give it in the same size and rotation"
        )


def _shown(info: VideoInfo) -> str:
    turned = "" if info.display_orientation == (1, 0, 0, 1) else " and is turned when shown"
    return f"has {info.width} x {info.height} pixels{turned}"


def check_plate(plate: Probe, source: Path, info: VideoInfo) -> None:
    """UsageError where the plate's picture has another shape."""
    found = plate.info
    (width, height), (own_width, own_height) = _upright_size(found), _upright_size(info)
    if (
        abs(width * own_height / height - own_width) > 1
        and abs(own_width * height / own_height - width) > 1
    ):
        raise UsageError(
            f"the plate {plate.path} is shown as {width} x {height} pixels and {source} as "
            f"{own_width} x {own_height}, which is another shape; give one that shows the whole "
            "picture"
        )


def pair(
    source: Path,
    analysis: Analysis,
    span: TimeRange | None,
    *,
    before_swap: Probe | None,
    plate: Probe | None,
    scaling: Scaling | None = None,
    on_event: OnEvent | None = None,
) -> Pairing:
    """Read what goes with the analysed part of the source once, so that its frames are known.

    With `scaling` the plate is the source's own frames, enlarged, and nothing is read for it.
    InputError for the first frame that does not match:
    each must come as long after the first one as the source's does, to what their clocks can say.
    """
    info = analysis.info
    found: list[PairedVideo | None] = []
    for beside in (before_swap, plate):
        if beside is None:
            found.append(None)
            continue
        part = _part(span, source, analysis)
        known = _known(beside, source, analysis, part, on_event)
        found.append(PairedVideo(beside.path, _seen_in(beside.info, known, info), part))
    before, shown = found
    if scaling is not None:
        shown = enlarged(source, analysis, span, scaling)
    return Pairing(before, shown)


def enlarged(
    source: Path, analysis: Analysis, span: TimeRange | None, scaling: Scaling
) -> PairedVideo:
    """The analysed part of the source as a plate of its own."""
    larger = scaled_info(analysis.info, scaling.factor)
    return PairedVideo(source, _seen_in(larger, analysis, analysis.info), span, scaling)


def _seen_in(info: VideoInfo, analysis: Analysis, source: VideoInfo) -> Analysis:
    """The analysis, whose tracks are in pixels of `source`, of pictures of `info`."""
    tracks = tuple(_in_pixels_of(info, source, track) for track in analysis.tracks)
    return replace(analysis, info=info, tracks=tracks)


def with_room_for(analysis: Analysis, pairing: Pairing) -> Analysis:
    """The analysis with crops so large that none is enlarged in the plate."""
    if pairing.plate is None:
        return analysis
    sizes = {track.track_id: track.work_px for track in pairing.plate.analysis.tracks}
    tracks = [replace(track, work_px=sizes[track.track_id]) for track in analysis.tracks]
    return replace(analysis, tracks=tuple(tracks))


def target_from_source(target: VideoInfo, source: VideoInfo) -> Matrix:
    """(2, 3).

    Convention: frame pixel centres (x, y) of the source -> those of another picture of the same
    view; outer edges lead to outer edges. Exactly the identity for pictures of one shape.
    """
    size, own_size = _upright_size(target), _upright_size(source)
    views = [upright(each) for each in (target, source)]
    if (
        views[0].orientation == views[1].orientation
        and size == own_size
        and ((target.width, target.height) == (source.width, source.height))
    ):
        return np.eye(2, 3)
    across, down = (a / b for a, b in zip(size, own_size, strict=True))
    scale = np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2]])
    return compose(invert(views[0].matrix), compose(scale, views[1].matrix))


def _upright_size(info: VideoInfo) -> tuple[int, int]:
    """(width, height) as a person sees it, in square pixels."""
    view = upright(info)
    width, height = view.coded_size
    return (width, height) if view.orientation[0] else (height, width)


def _in_pixels_of(target: VideoInfo, source: VideoInfo, track: Track) -> Track:
    """The same face in another picture of the same view."""
    to_target = target_from_source(target, source)
    matrices = compose(track.matrices.astype(np.float64), invert(to_target))
    side, work_px = max(crop_side_px(matrix) for matrix in matrices), track.work_px
    while work_px < min(side, _LARGEST_WORK_PX):
        work_px *= 2
    landmarks = apply(to_target, track.landmarks.reshape(-1, 2).astype(np.float64))
    return replace(
        track,
        work_px=work_px,
        matrices=matrices.astype(np.float32),
        landmarks=landmarks.reshape(track.landmarks.shape).astype(np.float32),
    )


def _part(span: TimeRange | None, source: Path, analysis: Analysis) -> TimeRange | None:
    """The part that was analysed, half a frame longer at both ends, for another file's clock."""
    if span is None:
        return None
    info, pts = analysis.info, analysis.pts
    with open_source(source) as container:
        begin = int(container.streams[info.stream_index].start_time or 0)
    first, last = ((int(pts[i]) - begin) * info.time_base for i in (0, -1))
    return TimeRange(max(Fraction(0), first - _step(analysis, 1) / 2),
                last + _step(analysis, len(pts) - 1) / 2)  # fmt: skip


def _step(analysis: Analysis, index: int) -> Fraction:
    """Seconds from the frame before; the nominal ones where there is none."""
    pts, info = analysis.pts, analysis.info
    if not 0 < index < len(pts):
        return 1 / info.frame_rate
    return int(pts[index] - pts[index - 1]) * info.time_base


def _known(
    beside: Probe,
    source: Path,
    analysis: Analysis,
    span: TimeRange | None,
    on_event: OnEvent | None,
) -> Analysis:
    """What is known of its frames: all that `restore.frames_again` needs."""
    path, info, damage = beside.path, beside.info, DecodeErrors()
    seen = _matched(path, info, source, analysis, span, damage, on_event, may_seek=True)
    if damage.found and damage.by_seeking:
        damage = DecodeErrors()
        seen = _matched(path, info, source, analysis, span, damage, on_event, may_seek=False)
    pts, crc32 = zip(*seen, strict=True)
    return replace(
        analysis,
        info=info,
        pts=np.array(pts, np.int64),
        crc32=np.array(crc32, np.uint32),
        fingerprint=beside.fingerprint,
        corrupt_frames=damage.corrupt_frames,
        decode_errors=damage.decode_errors,
        repaired_times=damage.repaired_times,
        one_thread=damage.found,
    )


def _matched(
    path: Path,
    info: VideoInfo,
    source: Path,
    analysis: Analysis,
    span: TimeRange | None,
    damage: DecodeErrors,
    on_event: OnEvent | None,
    *,
    may_seek: bool,
) -> list[tuple[int, int]]:
    """(pts, crc32) of every frame, each of which matches one of the source."""
    seen: list[tuple[int, int]] = []
    wanted = [int(pts - analysis.pts[0]) * analysis.info.time_base for pts in analysis.pts]
    coarse = max(info.time_base, analysis.info.time_base)
    frames = decode(path, damage, span, stream_index=info.stream_index, one_thread=True,
                    may_seek=may_seek)  # fmt: skip
    for frame in frames:
        index = len(seen)
        time = (frame.pts - (seen[0][0] if seen else frame.pts)) * info.time_base
        if index >= len(wanted):
            raise InputError(
                f"{path} has a frame {index}, {_clock(time)} after its first, where {source} ends "
                f"after {len(wanted)} frames; both must show the same frames"
            )
        if abs(time - wanted[index]) > min(coarse, _step(analysis, index) / 2):
            raise InputError(
                f"frame {index} of {path} comes {_clock(time)} after its first, that of {source} "
                f"{_clock(wanted[index])}; both must show the same frames at the same times"
            )
        seen.append((frame.pts, checksum(frame.image)))
        if on_event is not None:
            on_event(Progress(f"read {path.name}", index + 1, len(wanted)))
    if len(seen) < len(wanted):
        raise InputError(
            f"{path} ends after {len(seen)} frames, where {source} has a frame {len(seen)}, "
            f"{_clock(wanted[len(seen)])} after its first; both must show the same frames"
        )
    return seen


def _clock(seconds: Fraction) -> str:
    return f"{float(seconds):.6f} s"

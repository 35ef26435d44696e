"""Companions: other versions of the video that are read frame by frame along with the source.

A companion is the video before a face swap, or the plate onto which faces are pasted. vidrestore
refuses one at the first frame that does not match. The enlarged video is also a plate, which is
made from the frames of the source instead of read from a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vidrestore.analysis.picture_changes import notices_of_changes
from vidrestore.analysis.replay import pictures_again
from vidrestore.analysis.result import Analysis, info_of_pictures, of_file
from vidrestore.analysis.tracks import Track, work_size
from vidrestore.common.counting import counted
from vidrestore.common.errors import InputError, UsageError
from vidrestore.common.events import OnEvent, Progress
from vidrestore.imaging.frame import Frame, VideoInfo
from vidrestore.imaging.geometry import Matrix, apply, compose, crop_side_px, invert, upright
from vidrestore.imaging.planes import checksum
from vidrestore.media.decode import DecodeErrors, TimeRange, decode
from vidrestore.media.fields import can_split
from vidrestore.media.fitting import ordered_changes
from vidrestore.media.probe import Probe
from vidrestore.media.source import open_source
from vidrestore.media.timeline import begin_pts
from vidrestore.restoration.upscaling import Scaling, scaled_info

_LARGEST_WORK_PX = 2048


@dataclass(frozen=True, slots=True, eq=False)
class PairedVideo:
    """A companion of the source, with the analysis of its frames."""

    path: Path
    """The file of the companion."""
    analysis: Analysis
    """The analysis of the companion: shots, faces and their numbers are those of the source;
    positions are in pixels of the companion, times in its own ticks.
    """
    span: TimeRange | None
    """The part of the companion that belongs to the analyzed part of the source; None: all of it.
    """
    scaling: Scaling | None = None
    """How the frames are made from those of the source; None where they are read from `path`."""

    def absolute(self) -> PairedVideo:
        """Return the same companion with absolute paths, which hold in any working directory."""
        scaling = self.scaling
        if scaling is not None and scaling.upscaler is not None:
            scaling = replace(scaling, upscaler=scaling.upscaler.absolute())
        return replace(self, path=self.path.absolute(), scaling=scaling)


@dataclass(frozen=True, slots=True, eq=False)
class Pairing:
    """The companions of the source; frame n of each belongs to frame n of the source."""

    before_swap: PairedVideo | None = None
    """The video before the face swap, of the same size: only what differs from it is restored."""
    plate: PairedVideo | None = None
    """The plate, of any size: faces are pasted into its frames, and the output equals it outside
    the faces.
    """

    def analyses(self) -> Iterator[tuple[str, Analysis]]:
        """Yield (role, analysis) for each companion."""
        for role in ("before_swap", "plate"):
            companion = getattr(self, role)
            if companion is not None:
                yield role, companion.analysis

    def absolute(self) -> Pairing:
        """Return the same companions with absolute paths, which hold in any working directory."""
        return Pairing(*(
            companion and companion.absolute()
            for companion in (self.before_swap, self.plate)
        ))  # fmt: skip

    def companions(self) -> Iterator[PairedVideo]:
        """Yield the companions that there are."""
        yield from filter(None, (self.before_swap, self.plate))

    def notes(self) -> Iterator[str]:
        """Yield notices for each companion with damaged frames or a picture that changes."""
        for companion in self.companions():
            if companion.scaling is not None:
                continue
            if count := companion.analysis.corrupt_frames:
                yield f"{counted(count, 'frame is', 'frames are')} damaged in {companion.path}"
            for notice in notices_of_changes(companion.analysis):
                yield f"in {companion.path}, {notice}"


ALONE = Pairing()
"""A source without companions."""


def check_before_swap(before: Probe, source: Path, info: VideoInfo, *, mode: str) -> None:
    """Check that the video before the swap can be compared with the source picture by picture.

    Args:
        before: The probe of the video before the swap.
        source: The path of the source, for the message.
        info: The properties of the source.
        mode: The way to process fields, which is the same for both videos; off: none.

    Raises:
        UsageError: The size or the rotation differs, or pictures of its fields cannot be made.
    """
    other = before.info
    shape, own = ((each.width, each.height, each.display_orientation) for each in (other, info))
    if shape != own:
        raise UsageError(
            f"{before.path}, the video before the face swap, {_size_text(other)}, but {source} "
            f"{_size_text(info)}; give it in the same size and rotation"
        )
    if mode != "off" and not can_split(other.pixel_format):
        raise UsageError(
            f"{source} is interlaced, and {before.path}, the video before the face swap, is in "
            f"{other.pixel_format}, in which pictures of fields cannot be made; convert it to "
            f"{info.pixel_format}, or add --deinterlace off"
        )


def _size_text(info: VideoInfo) -> str:
    """Describe the size and the rotation of a picture, for a message."""
    turned = "" if info.display_orientation == (1, 0, 0, 1) else " and a rotation for display"
    return f"has {info.width} x {info.height} pixels{turned}"


def check_plate(plate: Probe, source: Path, info: VideoInfo) -> None:
    """Check that the displayed picture of the plate has the aspect ratio of the source.

    Args:
        plate: The probe of the plate.
        source: The path of the source, for the message.
        info: The properties of the source.

    Raises:
        UsageError: The aspect ratios differ by more than rounding to whole pixels explains.
    """
    other = plate.info
    (width, height), (own_width, own_height) = _upright_size(other), _upright_size(info)
    if (
        abs(width * own_height / height - own_width) > 1
        and abs(own_width * height / own_height - width) > 1
    ):
        raise UsageError(
            f"the plate {plate.path} has a displayed size of {width} x {height} pixels and "
            f"{source} one of {own_width} x {own_height}, which is another aspect ratio; give "
            "a plate that shows the whole picture"
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
    """Read the companions of the analyzed part of the source once, and check that they match it.

    Every frame of a companion must come as long after its first frame as that of the source does,
    to the precision of both clocks. With `scaling` the plate is made of the frames of the source,
    and no plate is read.

    Args:
        source: The path of the source.
        analysis: The analysis of the source.
        span: The part of the source that was analyzed; None: all of it.
        before_swap: The probe of the video before the swap, or None.
        plate: The probe of the plate, or None.
        scaling: How the source is enlarged; default: not at all.
        on_event: The callback for progress events; default: none.

    Returns:
        The companions with their analyses.

    Raises:
        InputError: A frame does not match a frame of the source, or the numbers of frames differ.
    """
    companions: list[PairedVideo | None] = []
    for probe in (before_swap, plate):
        if probe is None:
            companions.append(None)
            continue
        part = _part(span, source, analysis)
        own = _analysis_of(probe, source, analysis, part, on_event)
        own = _in_pictures_of(own.info, own, analysis.info)
        companions.append(PairedVideo(probe.path, own, part))
    before, target = companions
    if scaling is not None:
        target = enlarged(source, analysis, span, scaling)
    return Pairing(before, target)


def enlarged(
    source: Path, analysis: Analysis, span: TimeRange | None, scaling: Scaling
) -> PairedVideo:
    """Return the enlarged source as a plate.

    Args:
        source: The path of the source.
        analysis: The analysis of the source.
        span: The part of the source that was analyzed; None: all of it.
        scaling: How the source is enlarged.

    Returns:
        The plate.
    """
    larger = scaled_info(analysis.info, scaling.factor)
    in_larger = _in_pictures_of(larger, analysis, analysis.info)
    return PairedVideo(source, replace(in_larger, decoded=analysis.info), span, scaling)


def _in_pictures_of(info: VideoInfo, analysis: Analysis, source: VideoInfo) -> Analysis:
    """Return the analysis, whose tracks are in pixels of `source`, for pictures of `info`."""
    tracks = tuple(_in_pixels_of(info, source, track) for track in analysis.tracks)
    return replace(analysis, info=info, tracks=tracks)


def with_room_for(analysis: Analysis, pairing: Pairing) -> Analysis:
    """Raise the crop sizes so that no crop is enlarged when it is pasted into the plate.

    Args:
        analysis: The analysis of the source.
        pairing: The companions of the source.

    Returns:
        The analysis with the crop sizes of the plate; `analysis` itself without a plate.
    """
    if pairing.plate is None:
        return analysis
    sizes = {track.track_id: track.work_px for track in pairing.plate.analysis.tracks}
    tracks = [replace(track, work_px=sizes[track.track_id]) for track in analysis.tracks]
    return replace(analysis, tracks=tuple(tracks))


def target_from_source(target: VideoInfo, source: VideoInfo) -> Matrix:
    """Return the matrix from one picture to another picture of the same view.

    Convention:
        Frame pixel centers (x, y) of the source -> frame pixel centers (x, y) of the target; outer
        edges map to outer edges. It is exactly the identity for pictures of the same shape.

    Args:
        target: The properties of the target.
        source: The properties of the source.

    Returns:
        (2, 3) float64.
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
    """Return (width, height) of the displayed picture in square pixels."""
    view = upright(info)
    width, height = view.coded_size
    return (width, height) if view.orientation[0] else (height, width)


def _in_pixels_of(target: VideoInfo, source: VideoInfo, track: Track) -> Track:
    """Return the track in pixels of another picture of the same view."""
    to_target = target_from_source(target, source)
    matrices = compose(track.matrices.astype(np.float64), invert(to_target))
    side = max(crop_side_px(matrix) for matrix in matrices)
    landmarks = apply(to_target, track.landmarks.reshape(-1, 2).astype(np.float64))
    return replace(
        track,
        work_px=max(track.work_px, work_size(min(side, _LARGEST_WORK_PX))),
        matrices=matrices.astype(np.float32),
        landmarks=landmarks.reshape(track.landmarks.shape).astype(np.float32),
    )


def _part(span: TimeRange | None, source: Path, analysis: Analysis) -> TimeRange | None:
    """Return the analyzed part, half a frame longer at both ends, since clocks of files differ."""
    if span is None:
        return None
    analysis = of_file(analysis)
    info, pts = analysis.info, analysis.pts
    with open_source(source) as container:
        begin = begin_pts(container.streams[info.stream_index], info.shifts)
    first, last = ((int(pts[i]) - begin) * info.time_base for i in (0, -1))
    return TimeRange(max(Fraction(0), first - _step(analysis, 1) / 2),
                last + _step(analysis, len(pts) - 1) / 2)  # fmt: skip


def _step(analysis: Analysis, index: int) -> Fraction:
    """Return the seconds from the frame before; those of the nominal rate where there is none."""
    pts, info = analysis.pts, analysis.info
    if not 0 < index < len(pts):
        return 1 / info.frame_rate
    return int(pts[index] - pts[index - 1]) * info.time_base


def _analysis_of(
    companion: Probe,
    source: Path,
    analysis: Analysis,
    span: TimeRange | None,
    on_event: OnEvent | None,
) -> Analysis:
    """Return the analysis of a companion: all that `frames_again` needs."""
    may_seek = True
    while True:
        damage = DecodeErrors()
        frames = _matched(companion, source, analysis, span, damage, on_event, may_seek=may_seek)
        own = _described(companion.info, frames, analysis)
        if not (may_seek and damage.found and damage.by_seeking):
            break
        may_seek = False
    return replace(
        own,
        fingerprint=companion.fingerprint,
        corrupt_frames=damage.corrupt_frames,
        decode_errors=damage.decode_errors,
        repaired_times=damage.repaired_times,
        changes=ordered_changes(damage.changes, companion.info, int(of_file(own).pts[0])),
        fitted_frames=damage.fitted_frames,
        reduced_frames=damage.reduced_frames,
        one_thread=damage.found,
    )


def _described(info: VideoInfo, frames: Iterator[Frame], analysis: Analysis) -> Analysis:
    """Return the analysis with the properties, times and checksums of the companion's frames.

    Where the source is analyzed in pictures of its fields, such pictures are made of the companion,
    too, from the same fields.
    """
    seen: list[tuple[int, int]] = []

    def recorded() -> Iterator[Frame]:
        for frame in frames:
            seen.append((frame.pts, checksum(frame.image)))
            yield frame

    def arrays() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
        pts, crc32 = zip(*seen, strict=True)
        return np.array(pts, np.int64), np.array(crc32, np.uint32)

    if (fields := analysis.fields) is None:
        for _ in recorded():
            pass
        pts, crc32 = arrays()
        return replace(analysis, info=info, pts=pts, crc32=crc32)
    made = pictures_again(recorded(), fields, analysis.pts, 0, analysis.frame_count)
    of_pictures = np.array([checksum(picture.image) for picture in made], np.uint32)
    for _ in recorded():
        pass  # film may end before the last frame, which has a time and a checksum as well
    pts, crc32 = arrays()
    shown = info_of_pictures(info, fields.mode)
    ticks = [round(int(t - analysis.pts[0]) * analysis.info.time_base / shown.time_base)
             for t in analysis.pts]  # fmt: skip
    begin = int(pts[0] * (info.time_base / shown.time_base))
    return replace(
        analysis,
        info=shown,
        pts=begin + np.array(ticks, np.int64),
        crc32=of_pictures,
        fields=replace(fields, info=info, pts=pts, crc32=crc32),
    )


def _matched(
    companion: Probe,
    source: Path,
    analysis: Analysis,
    span: TimeRange | None,
    damage: DecodeErrors,
    on_event: OnEvent | None,
    *,
    may_seek: bool,
) -> Iterator[Frame]:
    """Yield every frame of a companion, each of which matches a frame of the source's file."""
    path, info, analysis = companion.path, companion.info, of_file(analysis)
    index, begin = 0, 0
    wanted = [int(pts - analysis.pts[0]) * analysis.info.time_base for pts in analysis.pts]
    coarse = max(info.time_base, analysis.info.time_base)
    frames = decode(path, damage, span, stream_index=info.stream_index, shifts=info.shifts,
                    like=info, one_thread=True, may_seek=may_seek)  # fmt: skip
    for frame in frames:
        begin = begin if index else frame.pts
        time = (frame.pts - begin) * info.time_base
        if index >= len(wanted):
            raise InputError(
                f"{path} has a frame {index}, {_clock(time)} after its first frame, but {source} "
                f"ends after {counted(len(wanted), 'frame')}; both must show the same frames"
            )
        if abs(time - wanted[index]) > min(coarse, _step(analysis, index) / 2):
            raise InputError(
                f"frame {index} of {path} comes {_clock(time)} after its first frame, but that of "
                f"{source} {_clock(wanted[index])} after its own; both must show "
                "the same frames at the same times"
            )
        yield frame
        index += 1
        if on_event is not None:
            on_event(Progress(f"read {path.name}", index, len(wanted)))
    if index < len(wanted):
        raise InputError(
            f"{path} ends after {counted(index, 'frame')}, but {source} has a frame {index}, "
            f"{_clock(wanted[index])} after its first frame; both must show the same frames"
        )


def _clock(seconds: Fraction) -> str:
    return f"{float(seconds):.6f} s"

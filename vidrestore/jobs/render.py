"""Rendering: the new video stream, segment by segment, without those that are finished already."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from secrets import token_hex
from typing import Any, Protocol

import torch

from vidrestore.analysis.result import Analysis, frames_of_output, in_output
from vidrestore.common.counting import counted
from vidrestore.common.events import OnEvent, Progress, notify
from vidrestore.common.settings import Settings
from vidrestore.imaging.frame import Frame
from vidrestore.jobs.layer_output import LayerOutput
from vidrestore.jobs.live_picture import LivePicture
from vidrestore.jobs.work_folder import SegmentFile, WorkFolder, segment_file
from vidrestore.media.codecs import Encoding
from vidrestore.media.concat import join
from vidrestore.media.decode import TimeRange
from vidrestore.models.face_parser import Parser
from vidrestore.models.restorers import Restorer, RestorerInfo
from vidrestore.models.restorers.assignment import Assignment
from vidrestore.restoration.companion import Pairing
from vidrestore.restoration.crop_cache import CropCache, CropsUnderWay
from vidrestore.restoration.guard import SimilarityJudge
from vidrestore.restoration.pipeline import FaceWork, reach_frames, restore_segment
from vidrestore.restoration.segments import Segment, context, segment_key, without_cache_key
from vidrestore.restoration.statistics import RestorationStats


@dataclass(frozen=True, slots=True)
class RenderJob:
    """All that the rendering of a segment depends on, as values that can be sent to a process."""

    source: Path
    """The video whose faces are restored."""
    fingerprint: str
    """The fingerprint of the source (`vidrestore.media.probe.fingerprint`)."""
    folder: Path
    """The folder of the `WorkFolder`."""
    analysis: Analysis
    """The analysis of the source."""
    restorers: Assignment[str | None]
    """The names of the restorers. None as a name: `own_restorer`, else the restorer that the
    settings name."""
    own_restorer: Restorer | None
    """A restorer that the caller passed; None: the settings name it."""
    networks: Sequence[tuple[int, str]]
    """(number of the track, name of the network), as `networks_used` returns them. They depend on
    the weights on the machine that starts the run."""
    judge: str
    """The name of the similarity judge, which depends on whether there is a recognizer."""
    parser: str | None
    """The name of the face parser, which includes the hash of its file; None: no face parser."""
    settings: Settings
    """The settings of the run."""
    encoding: Encoding
    """The encoding of the video stream."""
    header: Path | None
    """An empty video in this encoding, from which decoders take the stream header; None: none is
    needed."""
    span: TimeRange | None
    """The part of the source to restore; None: all of it."""
    pairing: Pairing
    """The videos that are read together with the source."""
    layering: LayerOutput | None
    """The layer that the run writes; None: none."""
    key_framed: frozenset[int] = frozenset()
    """The numbers of the tracks of which the network restores key frames only."""

    @property
    def frames_of_output(self) -> Analysis:
        """The analysis of the frames of the output, without the cost of splitting tracks."""
        plate = self.pairing.plate
        return frames_of_output(self.analysis if plate is None else plate.analysis)


def render(
    work: RenderJob,
    restorers: Assignment[Restorer],
    judge: SimilarityJudge,
    parser: Parser | None,
    segment: Segment,
    on_frame: Callable[[int, Frame], None] | None = None,
) -> SegmentFile:
    """Write one segment to a temporary file in the work folder.

    Args:
        work: The job.
        restorers: The restorers, opened from `work.restorers`.
        judge: The similarity judge of the job, opened.
        parser: The face parser of the job, opened; None: none.
        segment: The frames to render.
        on_frame: Receives, after each frame, the number of frames that are written so far, and the
            frame; None: not called.

    Returns:
        The complete file, which is not registered in the work folder yet.

    Raises:
        VidrestoreError: The segment cannot be decoded, restored or encoded.
    """
    folder, name = WorkFolder(work.folder), name_of(segment)
    path = folder.place(name, work.encoding.suffix)
    layer = None
    if work.layering is not None:
        layer = work.layering.files(name, folder, work.frames_of_output.info)
    crops = _crops(work.settings, folder, restorers)
    faces = FaceWork(
        restorers, judge, work.settings, parser=parser, pairing=work.pairing, crops=crops,
        key_framed=work.key_framed,
    )  # fmt: skip
    stats = restore_segment(
        work.source,
        path,
        work.analysis,
        segment,
        faces,
        encoding=work.encoding,
        header=work.header,
        span=work.span,
        layer=layer,
        on_frame=on_frame,
    )
    if crops is not None and crops.note is not None:
        stats.notes["crops"] = crops.note
    _release_memory()
    return segment_file(
        path, stats.as_dict(), *(() if layer is None else (layer.fill, layer.matte))
    )


def _release_memory() -> None:
    """Return freed memory to the system.

    The C library of Linux keeps much of the memory that threads have freed. Without this call, the
    process grows for hours.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc; musl has none
        if trim is not None:
            trim(0)


def _crops(
    settings: Settings, folder: WorkFolder, restorers: Assignment[Restorer]
) -> CropCache | None:
    """Choose the cache of restored crops: a lasting one, or one for unfinished segments.

    None where no later run could use the crops.
    """
    how = settings.restore
    execution = how.device, how.number_format, how.engine, how.batch_size
    parameters = how.fusion_sharpness, how.codeformer_fidelity
    environment = repr((version("vidrestore"), torch.__version__, execution, parameters))
    if how.cache_crops:
        return CropCache(folder.crops, environment)
    if without_cache_key(restorers):
        return None
    return CropsUnderWay(folder.faces, environment)


def name_of(segment: Segment) -> str:
    """Return the name of a segment in the work folder.

    Args:
        segment: The segment.

    Returns:
        Its number with at least four digits, such as "0007".
    """
    return f"{segment.number:04}"


@dataclass(slots=True)
class FrameCounter:
    """Counts the finished frames of all segments and reports them; the reports never decrease."""

    frames: int
    """The number of frames of the output."""
    on_event: OnEvent | None
    """Receives the progress, as the stage "restore"; None: none."""
    _written: dict[int, int] = field(default_factory=dict)
    _done: int = 0
    _reported: int = 0

    def report(self, segment: Segment, written: int, picture: str | None = None) -> None:
        """Register how many frames of a segment are written, and report the sum if it has grown.

        Args:
            segment: The segment.
            written: The number of its frames that are written; fewer than before where another
                worker begins the segment again.
            picture: The file with a new live picture; default: None, there is no new one.
        """
        self._done += written - self._written.get(segment.number, 0)
        self._written[segment.number] = written
        if self._done > self._reported:
            self._reported = self._done
            if self.on_event is not None:
                self.on_event(Progress("restore", self._done, self.frames, picture))


class Renderer(Protocol):
    """Renders the segments of a job."""

    def render(
        self, work: RenderJob, segments: Sequence[Segment], progress: FrameCounter
    ) -> Generator[tuple[Segment, SegmentFile]]:
        """Render segments in any order.

        Closing the generator stops all unfinished segments.

        Args:
            work: The job.
            segments: The segments to render.
            progress: Receives the number of finished frames.

        Yields:
            (segment, file) of each segment, as `render` returns the file, as soon as it is
            complete.

        Raises:
            VidrestoreError: The rendering of a segment raised it.
        """
        ...


class Workers(Renderer, Protocol):
    """Processes on this machine or others that render several segments at a time."""

    def check(self, settings: Settings, own_restorer: Restorer | None) -> None:
        """Check, before any work, that the workers can carry out a request.

        Args:
            settings: The settings of the request.
            own_restorer: The restorer that the caller passed; None: none.

        Raises:
            UsageError: The workers do not have the device, or the restorer cannot be sent to them.
        """
        ...


@dataclass(frozen=True, slots=True)
class LocalRenderer:
    """Renders one segment after the other in this process."""

    restorers: Assignment[Restorer]
    """The restorers, opened."""
    judge: SimilarityJudge
    """The similarity judge, opened."""
    parser: Parser | None
    """The face parser, opened; None: none."""
    live: LivePicture | None = None
    """Writes live pictures; None: none are written."""

    def render(
        self, work: RenderJob, segments: Sequence[Segment], progress: FrameCounter
    ) -> Generator[tuple[Segment, SegmentFile]]:
        """Render segments in their order.

        Args:
            work: The job.
            segments: The segments to render.
            progress: Receives the number of finished frames.

        Yields:
            (segment, file) of each segment.

        Raises:
            VidrestoreError: The rendering of a segment raised it.
        """
        for segment in segments:
            on_frame = partial(self._report, progress, segment)
            yield segment, render(work, self.restorers, self.judge, self.parser, segment, on_frame)

    def _report(self, progress: FrameCounter, segment: Segment, written: int, frame: Frame) -> None:
        picture = None if self.live is None else self.live.offer(frame)
        progress.report(segment, written, picture)


@dataclass(frozen=True, slots=True)
class Rendering:
    """The rendering of the whole video stream of a job."""

    work: RenderJob
    """The job."""
    folder: WorkFolder
    """The work folder, locked."""
    segments: Sequence[Segment]
    """All segments of the output, in order."""
    taken: Mapping[int, str]
    """Number of a segment -> its key, for the segments that were copied from a finished output."""
    restorers: Assignment[RestorerInfo]
    """The properties of the restorers."""
    renderer: Renderer
    """Renders the segments that are not finished."""
    on_event: OnEvent | None
    """Receives progress and notices; None: none are sent."""

    def video(self) -> tuple[Path, list[Mapping[str, Any]]]:
        """Render the segments that are not finished, and join all of them into one stream.

        Where a segment cannot be rendered, the finished ones stay for the next run.

        Returns:
            The file of the whole stream in the work folder, and the counts of each segment (see
            `RestorationStats`).

        Raises:
            VidrestoreError: A segment cannot be rendered, or the segments cannot be joined.
        """
        segments = self.segments
        keys = list(self._segment_keys(segments))
        video_key = sha256("".join(keys).encode()).hexdigest()
        joined = self._find("video", video_key)
        if joined is not None and len(joined.counts["segments"]) != len(segments):
            joined = None
        if joined is None:
            parts = self._segments(segments, keys)
            counts = {"segments": [part.counts for part in parts]}
            whole = segment_file(self._join(segments, parts, keys, video_key), counts)
            joined = self.folder.finish("video", video_key, whole)
            self.folder.forget_segments()
        return joined.path, list(joined.counts["segments"])

    def _join(
        self,
        segments: Sequence[Segment],
        parts: Sequence[SegmentFile],
        keys: Sequence[str],
        video_key: str,
    ) -> Path:
        """Join the segments, and those of the layer; return the temporary file of the video."""
        layering, frames = self.work.layering, self.work.frames_of_output
        times = [frames.pts[slice(*self._in_output(segment))].tolist() for segment in segments]
        if layering is not None:
            named = [(name_of(s), key) for s, key in zip(segments, keys, strict=True)]
            layering.join(named, times, frames.info, video_key)
        whole = self.folder.place("video", self.work.encoding.suffix)
        if len(parts) == 1:
            parts[0].path.replace(whole)
        else:
            join([part.path for part in parts], whole, times, frames.info)
        return whole

    def _find(self, name: str, key: str) -> SegmentFile | None:
        """Return a finished part; None also where the run writes a layer and the part has none."""
        layering = self.work.layering
        if layering is not None and not layering.has(name, key):
            return None
        return self.folder.find(name, self.work.encoding.suffix, key)

    def _segments(self, segments: Sequence[Segment], keys: Sequence[str]) -> list[SegmentFile]:
        """Render the segments that are not finished; return the files of all."""
        spans = [self._in_output(segment) for segment in segments]
        progress = FrameCounter(sum(end - first for first, end in spans), self.on_event)
        done: dict[Segment, SegmentFile] = {}
        for segment, key in zip(segments, keys, strict=True):
            if (finished := self._find(name_of(segment), key)) is not None:
                done[segment] = finished
        notify(self.on_event, *filter(None, [self.folder.dropped()]))
        if done:
            of = f"of {counted(len(segments), 'segment')}"
            kept = counted(len(done), f"{of} is", f"{of} are")
            notify(self.on_event, f"{kept} done already")
        for segment in done:
            first, end = self._in_output(segment)
            progress.report(segment, end - first)
        left = [segment for segment in segments if segment not in done]
        needed = self._needed(left)
        self.folder.forget_faces(list(needed.values()))
        with closing(self.renderer.render(self.work, left, progress)) as rendered:
            for segment, part in rendered:
                name, key = name_of(segment), keys[segment.number]
                if self.work.layering is not None:
                    self.work.layering.finish(name, key, part.layer)
                done[segment] = self.folder.finish(name, key, part)
                needed.pop(segment, None)
                self.folder.forget_faces(list(needed.values()))
        return [done[segment] for segment in segments]

    def _needed(self, segments: Sequence[Segment]) -> dict[Segment, tuple[int, int]]:
        """Return [first, end) of the frames whose restored faces each segment needs."""
        reach = self._reach()
        return {segment: context(segment, self.work.analysis, reach) for segment in segments}

    def _in_output(self, segment: Segment) -> tuple[int, int]:
        """Return [first, end) of the frames of the output that a segment becomes."""
        return in_output(self.work.analysis, segment.first, segment.end)

    def _segment_keys(self, segments: Sequence[Segment]) -> Iterator[str]:
        """Yield the keys by which a later run finds the segments; random without a cache_key."""
        has_no_key = bool(without_cache_key(self.restorers))
        reach = self._reach()
        for segment in segments:
            if (taken := self.taken.get(segment.number)) is not None:
                yield taken
            elif has_no_key:
                yield token_hex(32)  # the next run may have another restorer, and cannot tell
            else:
                yield segment_key(
                    segment,
                    self.work.analysis,
                    reach,
                    self.restorers,
                    self.work.judge,
                    self.work.settings,
                    self.work.encoding,
                    self.work.pairing,
                    parser=self.work.parser,
                    span=self.work.span,
                    key_framed=self.work.key_framed,
                )

    def _reach(self) -> int:
        """Return the number of frames on either side on which a frame may depend."""
        work = self.work
        return reach_frames(self.restorers, work.settings, has_key_frames=bool(work.key_framed))


def sum_of(counts: Sequence[Mapping[str, Any]]) -> RestorationStats:
    """Add up the counts of segments.

    Args:
        counts: The counts of each segment, as `RestorationStats.as_dict` returns them.

    Returns:
        The sum.
    """
    stats = RestorationStats()
    for part in counts:
        stats.add(part)
    return stats

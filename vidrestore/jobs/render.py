"""The new video stream, segment by segment; what an earlier run finished is not done again."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
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
from vidrestore.common.events import OnEvent, Progress, notify
from vidrestore.common.settings import Settings
from vidrestore.jobs.layer_output import LayerOutput
from vidrestore.jobs.work_folder import SegmentFile, WorkFolder, segment_file
from vidrestore.media.codecs import Encoding
from vidrestore.media.concat import join
from vidrestore.media.decode import TimeRange
from vidrestore.models.face_parser import Parser
from vidrestore.models.restorers import Restorer, RestorerInfo, Schedule
from vidrestore.restoration.companion import Pairing
from vidrestore.restoration.crop_cache import CropCache, CropsUnderWay
from vidrestore.restoration.guard import SimilarityJudge
from vidrestore.restoration.pipeline import reach_frames, restore_segment
from vidrestore.restoration.segments import Segment, context, segment_key, without_cache_key
from vidrestore.restoration.statistics import RestorationStats


@dataclass(frozen=True, slots=True)
class RenderJob:
    """What the segments of a video are made from, as another process can be told it."""

    source: Path
    fingerprint: str
    folder: Path
    """Of the `WorkFolder`."""
    analysis: Analysis
    restorers: Sequence[tuple[int, str | None]]
    """(first frame, name) of the restorers; None: the one that the settings name, or the own."""
    own_restorer: Restorer | None
    networks: Sequence[tuple[int, str]]
    """As `networks_used` gives them, which depends on the weights that are here."""
    judge: str
    """Its name, which depends on whether there is a recogniser."""
    parser: str | None
    """The name of the face parser, by its content."""
    settings: Settings
    encoding: Encoding
    header: Path | None
    span: TimeRange | None
    pairing: Pairing
    layering: LayerOutput | None


def render(
    work: RenderJob,
    restorers: Schedule,
    judge: SimilarityJudge,
    parser: Parser | None,
    segment: Segment,
    on_frames: Callable[[int], None] | None = None,
) -> SegmentFile:
    """Write one segment to a place of its own in the work folder.

    `restorers`, `judge` and `parser` are those of the work, opened; `on_frames` is told how many
    frames are written.
    """
    folder, name = WorkFolder(work.folder), name_of(segment)
    path = folder.place(name, work.encoding.suffix)
    layer = None if work.layering is None else work.layering.files(name, folder)
    crops = _crops(work.settings, folder, restorers)
    tally = restore_segment(
        work.source,
        path,
        work.analysis,
        segment,
        restorers,
        judge,
        work.settings,
        parser=parser,
        encoding=work.encoding,
        header=work.header,
        span=work.span,
        pairing=work.pairing,
        layer=layer,
        crops=crops,
        on_frames=on_frames,
    )
    if crops is not None and crops.note is not None:
        tally.notes["crops"] = crops.note
    _give_back_memory()
    return segment_file(
        path, tally.as_dict(), *(() if layer is None else (layer.fill, layer.matte))
    )


def _give_back_memory() -> None:
    """Much of what threads have freed the C library of Linux keeps until it is told to let go;
    without this a process grows for hours."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc; musl has none
        if trim is not None:
            trim(0)


def _crops(settings: Settings, folder: WorkFolder, restorers: Schedule) -> CropCache | None:
    """Where restored faces are kept: for good, or until their segment is finished; None where no
    later run can use the segment."""
    how = settings.restore
    run_as = how.device, how.number_format, how.engine, how.batch_size
    with_what = how.fusion_sharpness, how.codeformer_fidelity
    made_by = repr((version("vidrestore"), torch.__version__, run_as, with_what))
    if how.cache_crops:
        return CropCache(folder.crops, made_by)
    if without_cache_key(restorers):
        return None
    return CropsUnderWay(folder.faces, made_by)


def name_of(segment: Segment) -> str:
    return f"{segment.number:04}"


@dataclass(slots=True)
class FrameCounter:
    """Frames done in all segments together, told as events; the count never goes back."""

    frames: int
    on_event: OnEvent | None
    _written: dict[int, int] = field(default_factory=dict)
    _done: int = 0
    _told: int = 0

    def tell(self, segment: Segment, written: int) -> None:
        """So many frames of the segment are written; fewer than before where it begins anew."""
        self._done += written - self._written.get(segment.number, 0)
        self._written[segment.number] = written
        if self._done > self._told:
            self._told = self._done
            if self.on_event is not None:
                self.on_event(Progress("restore", self._done, self.frames))


class Renderer(Protocol):
    """Whatever renders the segments of a work."""

    def render(
        self, work: RenderJob, segments: Sequence[Segment], progress: FrameCounter
    ) -> Generator[tuple[Segment, SegmentFile]]:
        """Every segment as `render` gives it, in any order, as soon as it is there.

        Closing it stops what is under way. An error in a segment is raised as it was there.
        """
        ...


class Workers(Renderer, Protocol):
    """Processes, here or elsewhere, that render segments side by side."""

    def check(self, settings: Settings, own_restorer: Restorer | None) -> None:
        """UsageError, before any work, for what they cannot be sent or do not have."""
        ...


@dataclass(frozen=True, slots=True)
class LocalRenderer:
    """Renders one segment after the other in this process."""

    restorers: Schedule
    judge: SimilarityJudge
    parser: Parser | None

    def render(
        self, work: RenderJob, segments: Sequence[Segment], progress: FrameCounter
    ) -> Generator[tuple[Segment, SegmentFile]]:
        for segment in segments:
            tell = partial(progress.tell, segment)
            yield segment, render(work, self.restorers, self.judge, self.parser, segment, tell)


@dataclass(frozen=True, slots=True)
class Rendering:
    """The whole stream of a work."""

    work: RenderJob
    folder: WorkFolder
    segments: Sequence[Segment]
    taken: Mapping[int, str]
    """Numbers of segments that lie in the folder already, as what: not to be rendered."""
    restorers: Sequence[tuple[int, RestorerInfo]]
    renderer: Renderer
    on_event: OnEvent | None

    def video(self) -> tuple[Path, list[Mapping[str, Any]]]:
        """The whole stream in one file, and what was counted in each segment (`RestorationStats`);
        what is done already is not redone.

        Where a segment cannot be finished, those that are stay for the next run.
        """
        segments = self.segments
        keys = [self._segment_key(segment) for segment in segments]
        video_key = sha256("".join(keys).encode()).hexdigest()
        joined = self._found("video", video_key)
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
        plate, layering = self.work.pairing.plate, self.work.layering
        shown = frames_of_output(self.work.analysis if plate is None else plate.analysis)
        times = [shown.pts[slice(*self._in_output(segment))].tolist() for segment in segments]
        if layering is not None:
            named = [(name_of(s), key) for s, key in zip(segments, keys, strict=True)]
            layering.join(named, times, shown.info, video_key)
        whole = self.folder.place("video", self.work.encoding.suffix)
        if len(parts) == 1:
            parts[0].path.replace(whole)
        else:
            join([part.path for part in parts], whole, times, shown.info)
        return whole

    def _found(self, name: str, key: str) -> SegmentFile | None:
        """A part that is done, with its layer where that is wanted, too."""
        layering = self.work.layering
        if layering is not None and not layering.has(name, key):
            return None
        return self.folder.find(name, self.work.encoding.suffix, key)

    def _segments(self, segments: Sequence[Segment], keys: Sequence[str]) -> list[SegmentFile]:
        spans = [self._in_output(segment) for segment in segments]
        progress = FrameCounter(sum(end - first for first, end in spans), self.on_event)
        done: dict[Segment, SegmentFile] = {}
        for segment, key in zip(segments, keys, strict=True):
            if (found := self._found(name_of(segment), key)) is not None:
                done[segment] = found
        notify(self.on_event, *filter(None, [self.folder.dropped()]))
        if done:
            notify(self.on_event, f"{len(done)} of {len(segments)} segments are done already")
        for segment in done:
            first, end = self._in_output(segment)
            progress.tell(segment, end - first)
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
        """[first, end) of the frames whose faces each segment needs."""
        reach = reach_frames(self.restorers, self.work.settings)
        return {segment: context(segment, self.work.analysis, reach) for segment in segments}

    def _in_output(self, segment: Segment) -> tuple[int, int]:
        return in_output(self.work.analysis, segment.first, segment.end)

    def _segment_key(self, segment: Segment) -> str:
        if (taken := self.taken.get(segment.number)) is not None:
            return taken
        if without_cache_key(self.restorers):
            return token_hex(32)  # it is not known what the next run's restorer would make
        return segment_key(
            segment,
            self.work.analysis,
            reach_frames(self.restorers, self.work.settings),
            self.restorers,
            self.work.judge,
            self.work.settings,
            self.work.encoding,
            self.work.pairing,
            parser=self.work.parser,
            span=self.work.span,
        )


def sum_of(counts: Sequence[Mapping[str, Any]]) -> RestorationStats:
    tally = RestorationStats()
    for part in counts:
        tally.add(part)
    return tally

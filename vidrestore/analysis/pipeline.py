"""The pipeline of pass one: decode, detect, track, align."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np

from vidrestore.analysis import cut_list
from vidrestore.analysis.alignment import align, broken
from vidrestore.analysis.borders import Margins
from vidrestore.analysis.detection import (
    Failures,
    FirstLook,
    Recognise,
    close_gaps,
    detect,
)
from vidrestore.analysis.interlacing import Inspection, Interlacing, probe_and_inspect
from vidrestore.analysis.mesh_tracking import MeshTracker
from vidrestore.analysis.motion import FaceMotionEstimator, follow
from vidrestore.analysis.part import no_frame_in_part
from vidrestore.analysis.people import join_people
from vidrestore.analysis.picture_changes import notices_of_changes
from vidrestore.analysis.result import NOT_A_FACE, Analysis, Fields, info_of_pictures
from vidrestore.analysis.shots import ShotFinder
from vidrestore.analysis.strength import with_strength
from vidrestore.analysis.tracking import gap_frames, min_frames, track
from vidrestore.analysis.tracks import Observation, Observations, RawTrack
from vidrestore.common.checksums import FileHashes
from vidrestore.common.counting import counted
from vidrestore.common.errors import (
    ChangedSourceError,
    InputError,
    UsageError,
)
from vidrestore.common.events import OnEvent, Progress, notify
from vidrestore.common.settings import Settings
from vidrestore.common.system import usable_cores
from vidrestore.common.threads import StageThreads, Stopwatch
from vidrestore.imaging.frame import BoolArray, Frame, TimeShift, VideoInfo
from vidrestore.imaging.planes import checksum
from vidrestore.media.decode import DecodeErrors, TimeRange, decode
from vidrestore.media.fields import pictures
from vidrestore.media.fitting import ordered_changes
from vidrestore.media.images import (
    is_pictures,
    pictures_of,
)
from vidrestore.media.probe import Probe, fingerprint
from vidrestore.media.pulldown import Matches, film_pictures
from vidrestore.media.source import open_source
from vidrestore.models.detectors import Detector, OneAtATime, check_detector
from vidrestore.models.factory import (
    chosen_detector,
    chosen_face_mesh,
    chosen_recognizer,
    with_models_here,
)
from vidrestore.models.recognizer import Embedder

# A detector takes about a hundred megabytes, and decoding is too slow for more than four.
_MOST_DETECTOR_THREADS = 4
# Faces at low frame rates are tracks after three frames.
_FARTHEST_APART = 3
_READ_AGAIN = (
    "the file is damaged; vidrestore reads it again from its beginning, so that every run gives "
    "the same result"
)


def analyze_video(
    source: str | Path,
    settings: Settings | None = None,
    *,
    span: TimeRange | None = None,
    detector: Detector | None = None,
    on_event: OnEvent | None = None,
) -> Analysis:
    """Analyze a video before its faces are restored: find shots, faces, tracks and people.

    Args:
        source: A video, a picture, or a pattern of numbered pictures.
        settings: The settings; default: `Settings()`.
        span: The part to look at; default: all.
        detector: A `vidrestore.Detector` of the caller, which looks at one picture at a time;
            default: the one that the settings name.
        on_event: Receives progress and notices; default: none are sent.

    Returns:
        The analysis. Where the footage is interlaced, it describes the pictures of its fields
        unless the settings say otherwise (see `vidrestore.analysis.result`).

    Raises:
        InputError: The source cannot be read as video, or `span` holds no frame of it.
        ConfigError: The list of cuts of the settings cannot be read or does not fit.
        ChangedSourceError: The source changed during the analysis.
        UsageError: `detector` does not inherit `vidrestore.Detector`, or a setting does not suit
            the source.
        WeightsError: The weights of the detector are missing.
    """
    settings = settings or Settings()
    if detector is not None:
        check_detector(detector)
    found, inspection = probe_and_inspect(Path(source), settings, span)
    notify(on_event, *filter(None, [inspection.interlacing.notice()]), *found.time_line.notes)
    return analyze(found, inspection, settings, span=span, detector=detector, on_event=on_event)


def analyze(
    probe: Probe,
    inspection: Inspection,
    settings: Settings,
    *,
    span: TimeRange | None = None,
    detector: Detector | None = None,
    hashes: FileHashes | None = None,
    on_event: OnEvent | None = None,
) -> Analysis:
    """Analyze a file that was probed and inspected already.

    The same source and settings give the same result, because one thread decodes. Where a part that
    was reached by a seek turns out to be damaged, the file is read again from its beginning, and a
    notice tells the user.

    Args:
        probe: The properties of the file.
        inspection: The measurements in its samples.
        settings: The settings.
        span: The part to look at; default: all.
        detector: A detector of the caller, which looks at one picture at a time; default: the one
            that the settings name.
        hashes: Hashes of the files that this run has read already; default: none.
        on_event: Receives progress and notices; default: none are sent.

    Returns:
        The analysis, as of `analyze_video`.

    Raises:
        InputError: The source cannot be decoded, or `span` holds no frame of it.
        ConfigError: The list of cuts of the settings cannot be read or does not fit.
        ChangedSourceError: The source changed during the analysis.
        WeightsError: The weights of the detector are missing.
    """
    if settings.shots.edl is not None:
        # It is used at the end, but a bad file is refused now.
        notice = cut_list.check_content(settings.shots.edl, probe.info.frame_rate)
        notify(on_event, *filter(None, [notice]))
    source, info = probe.path, probe.info
    interlacing, margins = inspection.interlacing, inspection.margins
    notify(on_event, *filter(None, [margins.notice()]))
    hashes = hashes or FileHashes()
    settings = with_models_here(settings, on_event, has_own_detector=detector is not None)
    if detector is None:
        at_once = _detector_threads(settings)
        each = max(1, usable_cores() // at_once)
        detectors = [
            chosen_detector(settings, on_event, threads=each, hashes=hashes)
            for _ in range(at_once + 1)
        ]
    else:
        detectors = [OneAtATime(detector)] * 2
    # A caller's detector may depend on the order of the frames.
    apart = _apart(settings, interlacing, info) if detector is None else 1
    # The detector of a caller decides by itself what a face is.
    mesh = chosen_face_mesh(settings, on_event, hashes) if detector is None else None
    if settings.detect.any_angle and mesh is None:
        raise UsageError(
            "detect.any_angle is on, which needs the face mesh and a detector of vidrestore; run "
            "vidrestore weights fetch face-mesh and set detect.mesh to auto, or switch "
            "detect.any_angle off"
        )
    recognizer = chosen_recognizer(settings, on_event, hashes)

    def observe(*, may_seek: bool) -> _ObservationCollector:
        every = settings.people.every_seconds
        recognise = None if recognizer is None else Embedder(recognizer, every_seconds=every)
        collector = _ObservationCollector(settings, info, interlacing)
        if span is not None and settings.shots.edl is not None:
            collector.begin = _first_time(source, info, collector.info)
        if mesh is not None:
            collector.meshes = MeshTracker(mesh, least_score=detectors[0].least_score)
        stage = _detection_stage(collector, detectors, recognise, settings, margins, apart)
        kept = inspection.kept.taken() if inspection.kept is not None else []
        _observe_frames(collector, source, stage, span, on_event, kept, may_seek=may_seek)
        return collector

    collector = observe(may_seek=True)
    if collector.damage.found and collector.damage.by_seeking:
        notify(on_event, _READ_AGAIN)
        collector = observe(may_seek=False)
    if fingerprint(source) != probe.fingerprint:
        raise ChangedSourceError(
            f"{source} changed during its analysis; run the command again once no program writes "
            "or copies the file"
        )
    if not collector.seen:
        raise no_frame_in_part(source, info)
    if combed := collector.film.combed:
        notify(
            on_event,
            f"{combed} of {counted(len(collector.seen), 'picture')} are made of fields that do not "
            "belong together, so parts of the source are not film; use --deinterlace bob for them",
        )
    if collector.failures.frames:
        notify(on_event, f"the detector failed first at {collector.failures.first}")
    analysis = replace(
        _build_analysis(collector, settings, detectors[0], has_mesh=mesh is not None),
        detector=settings.detect.detector if detector is None else type(detector).__name__,
        fingerprint=probe.fingerprint,
        margins=margins or None,
        people_are_joined=recognizer is not None,
    )
    check_all_decoded(source, analysis)
    notify(on_event, *notices_of_changes(analysis))
    return analysis


class _ObservationCollector:
    """Collects the observations of all frames, and what is needed to interpret them."""

    def __init__(self, settings: Settings, info: VideoInfo, interlacing: Interlacing) -> None:
        self.file = info
        """The properties of the file's own frames."""
        self._interlacing = interlacing
        self.info = info
        if interlacing.mode != "off":
            self.info = info_of_pictures(info, interlacing.mode)
        # The times and checksums of the file's own frames, if pictures of fields are analyzed.
        self._pts, self._crc32 = array("q"), array("L")
        self.film = Matches()
        self.seen, self.in_margins = Observations(), 0
        self.damage, self.failures = DecodeErrors(), Failures()
        self.meshes: MeshTracker | None = None
        self.begin: int | None = None
        """The time of the first frame of the file, where a part of it is analyzed and a list of
        cuts is given, which counts from there."""
        self._shots = ShotFinder(settings.shots)

    @property
    def shifts(self) -> Sequence[TimeShift]:
        """The shifts of the times of the file."""
        return self.file.shifts

    def add(self, observation: Observation) -> None:
        """Add the observation of the next frame."""
        assert observation.thumbnail is not None
        self._shots.add(observation.thumbnail)
        self.seen.append(observation)
        self.in_margins += observation.in_margins

    def pictures(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        """Return the frames of the file, or the pictures made from their fields."""
        how = self._interlacing
        if how.mode == "off":
            return frames
        if how.mode == "film":
            return film_pictures(self._recorded(frames), how.order, self.film)
        return pictures(self._recorded(frames), how.mode, how.order)

    def _recorded(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        """Pass frames of the file on, and keep their times and checksums."""
        for frame in frames:
            self._pts.append(frame.pts)
            self._crc32.append(checksum(frame.image))
            yield frame

    def fields(self) -> Fields | None:
        """Return the file's own frames, where pictures of their fields were analyzed."""
        how = self._interlacing
        if how.mode == "off":
            return None
        pts, crc32 = np.array(self._pts, np.int64), np.array(self._crc32, np.uint32)
        sources = np.array(self.film.sources, np.int64) if how.mode == "film" else None
        return Fields(how.mode, how.order, self.file, pts, crc32, sources)

    def shots(self, settings: Settings, info: VideoInfo) -> tuple[tuple[int, int], ...]:
        """Return the shots: those of the list of cuts, or those found in the thumbnails."""
        found = self._shots.shots()
        if settings.shots.edl is None:
            return found
        pts = np.array(self.seen.pts, np.int64)
        cuts = cut_list.read_cuts(
            settings.shots.edl, pts, info.time_base, self.file.frame_rate, self.begin
        )
        starts = cuts.starts(start for start, _ in found)
        return tuple(pairwise((*starts, len(self.seen))))


def _first_time(source: Path, file: VideoInfo, pictures: VideoInfo) -> int:
    """Return the time of the first frame of a file, in the ticks of the analyzed pictures."""
    with open_source(source) as container:
        begin = int(container.streams[file.stream_index].start_time or 0)
    return int(begin * (file.time_base / pictures.time_base))


_DetectionStage = Callable[[Iterator[Frame], StageThreads], Iterator[Observation]]


def _detection_stage(
    collector: _ObservationCollector,
    detectors: Sequence[Detector],
    recognise: Recognise | None,
    settings: Settings,
    margins: Margins,
    apart: int,
) -> _DetectionStage:
    """Build the stage from frames to observations; all detectors but the last run in parallel."""
    how, info = settings.detect, collector.info
    estimator = FaceMotionEstimator(
        info,
        carry_frames=gap_frames(settings.track, info.frame_rate, how.every),
        least_support=settings.align.least_support,
    )
    shared = [OneAtATime(each) if apart > 1 else each for each in detectors[:-1]]
    first = [FirstLook(each, info, how, margins=margins, apart=apart) for each in shared]

    def stage(frames: Iterator[Frame], threads: StageThreads) -> Iterator[Observation]:
        looks = threads.each(frames, first, depth=4, name="look")
        if apart > 1:
            closed = [each.closed for each in first]
            most_ticks = settings.track.min_seconds / float(info.time_base)
            needed = close_gaps(
                looks,
                most_ticks=most_ticks,
                cut=settings.shots.cut,
                follows=collector.meshes is not None,
            )
            looks = threads.each(needed, closed, depth=2, name="look again")
        found = detect(
            looks,
            detectors[-1],
            info,
            how,
            margins=margins,
            recognise=recognise,
            failures=collector.failures,
            meshes=collector.meshes,
        )
        observations = follow(threads.background(found, depth=4, name="detect"), estimator)
        return threads.background(observations, depth=8, name="follow")

    return stage


def _apart(settings: Settings, interlacing: Interlacing, info: VideoInfo) -> int:
    """Return the distance of the frames that the detector sees where nothing resembles a face.

    In units of `detect.every`. A face that is long enough for a track lies in one of them. A list
    of cuts may make shots that are shorter, and a track may fill a shot.
    """
    if settings.shots.edl is not None or settings.detect.detector == "haar":
        return 1
    rate = info.frame_rate * (2 if interlacing.mode in ("keep", "bob") else 1)
    least = min_frames(settings.track, rate, settings.detect.every)
    return max(1, min((least + 1) // 2, _FARTHEST_APART))


def _detector_threads(settings: Settings) -> int:
    return settings.detect.threads or min(usable_cores(), _MOST_DETECTOR_THREADS)


def _observe_frames(
    collector: _ObservationCollector,
    source: Path,
    stage: _DetectionStage,
    span: TimeRange | None,
    on_event: OnEvent | None,
    kept: list[Frame],
    *,
    may_seek: bool,
) -> None:
    """Observe every frame; stop early where a part that was reached by a seek is damaged."""
    damage = collector.damage
    watch = Stopwatch()
    with StageThreads(caller="collect") as threads:
        decoded = (
            _each_once(kept)
            if kept
            else decode(
                source,
                damage,
                span,
                shifts=collector.shifts,
                like=collector.file,
                one_thread=True,
                may_seek=may_seek,
            )
        )
        frames = threads.background(collector.pictures(decoded), depth=8, name="decode")
        for observation in stage(frames, threads):
            if damage.found and damage.by_seeking:
                break
            collector.add(observation)
            _report(on_event, collector.info, span, len(collector.seen))
    watch.report(on_event, "analyze", threads.times)


def _each_once(frames: list[Frame]) -> Iterator[Frame]:
    """Yield frames, and keep those no longer that were yielded."""
    frames.reverse()
    while frames:
        yield frames.pop()


def _build_analysis(
    collector: _ObservationCollector, settings: Settings, detector: Detector, *, has_mesh: bool
) -> Analysis:
    """Derive shots, tracks and geometry from the observations of all frames."""
    seen, damage, fields = collector.seen, collector.damage, collector.fields()
    begin = int(seen.pts[0] if fields is None else fields.pts[0])
    is_coarse = detector.coarse and not has_mesh
    info = replace(collector.info, frame_rate=_plausible_rate(collector.info, seen))
    shots = collector.shots(settings, info)
    rate, every = info.frame_rate, settings.detect.every
    raw, brief = track(
        seen,
        shots,
        settings.track,
        frame_rate=rate,
        every=every,
        similarity=settings.people.similarity,
    )
    least = min_frames(settings.track, rate, every)
    parts = broken(raw, settings.align)
    raw = [part for part in parts if _sightings(part) >= min(least, _shot_frames(part))]
    brief += sum(map(_sightings, parts)) - sum(map(_sightings, raw))
    aligned, reasons = with_strength(
        align(
            raw,
            info,
            settings.align,
            template_name=template_of(settings),
            coarse=is_coarse,
            repeats=_repeats(seen),
        ),
        raw,
        settings.align,
        template_name=template_of(settings),
        least_score=detector.least_score,
        frame_rate=rate,
        has_mesh=has_mesh,
    )
    kept = [(track, was) for track, was in zip(aligned, raw, strict=True) if track is not None]
    people = join_people([was for _, was in kept], similarity=settings.people.similarity)
    tracks = [
        replace(track, track_id=track_id, person_id=person, embedding=was.embedding)
        for track_id, ((track, was), person) in enumerate(zip(kept, people, strict=True))
    ]
    no_faces = 0 if collector.meshes is None else collector.meshes.no_faces
    skipped = {
        NOT_A_FACE: no_faces,
        "visible too briefly": brief,
        "seen in a border or in a tape's head-switching noise": collector.in_margins,
        **reasons,
    }
    return Analysis(
        info=info,
        pts=np.array(seen.pts, np.int64),
        crc32=np.array(seen.crc32, np.uint32),
        shots=shots,
        tracks=tuple(tracks),
        skipped={reason: count for reason, count in skipped.items() if count},
        corrupt_frames=damage.corrupt_frames,
        decode_errors=damage.decode_errors,
        repaired_times=damage.repaired_times,
        changes=ordered_changes(damage.changes, collector.file, begin),
        fitted_frames=damage.fitted_frames,
        reduced_frames=damage.reduced_frames,
        detector_errors=collector.failures.frames,
        one_thread=damage.found,
        coarse_landmarks=is_coarse,
        template=template_of(settings),
        fields=fields,
    )


def _sightings(track: RawTrack) -> int:
    return int(np.count_nonzero(np.isfinite(track.score)))


def _shot_frames(track: RawTrack) -> int:
    return track.shot[1] - track.shot[0]


def _plausible_rate(info: VideoInfo, seen: Observations) -> Fraction:
    """Return the nominal frame rate, or the typical one if the nominal one is over twice as high.

    A nominal rate that high is the rate of the clock of the file, not that of the frames.
    """
    if len(seen) < 2:
        return info.frame_rate
    steps = np.diff(seen.pts)
    typical = 1 / (int(np.median(steps)) * info.time_base)
    return typical if info.frame_rate > 2 * typical else info.frame_rate


def _repeats(seen: Observations) -> BoolArray:
    """Return (frames,) whether a frame has the same samples as the one before."""
    crc32 = np.array(seen.crc32, np.int64)
    return np.asarray(np.diff(crc32, prepend=-1) == 0)


def template_of(settings: Settings) -> str:
    """Return the template of the crops that the settings ask for.

    Args:
        settings: The settings; `align.template` counts here.

    Returns:
        "gpen" or "ffhq"; "gpen" for auto, where the caller did not choose a restorer.
    """
    return "gpen" if settings.align.template == "auto" else settings.align.template


def _report(on_event: OnEvent | None, info: VideoInfo, span: TimeRange | None, done: int) -> None:
    if on_event is not None:
        expected = max(frames_expected(info, span), done)
        on_event(Progress("analyze", done, expected))


def frames_expected(info: VideoInfo, span: TimeRange | None = None) -> int:
    """Estimate the number of frames from what the container states.

    Args:
        info: The properties of the video.
        span: The part of the video; default: all.

    Returns:
        The stated number of frames, or the product of duration and frame rate.
    """
    if span is None and info.frame_count_from_header:
        return info.frame_count_from_header
    whole = Fraction(info.duration_seconds_from_header)
    begin, end = (
        (Fraction(0), None) if span is None else (span.start_seconds or 0, span.end_seconds)
    )
    return round(((whole if end is None else min(end, whole)) - begin) * info.frame_rate)


def check_all_decoded(source: Path, analysis: Analysis) -> None:
    """Refuse numbered pictures of which one could not be decoded; do nothing for a video.

    Args:
        source: The source of the analysis.
        analysis: The analysis.

    Raises:
        InputError: A picture is missing from the analysis or is damaged. The message names the
            first missing one.
    """
    if not is_pictures(source):
        return
    paths = pictures_of(source).files
    decoded = set(analysis.pts.tolist())
    if (lost := next((i for i in range(len(paths)) if i not in decoded), None)) is not None:
        raise InputError(f"{paths[lost]} is damaged and cannot be decoded; replace the file")
    if analysis.corrupt_frames:
        raise InputError(
            f"{analysis.corrupt_frames} of the pictures {source} are damaged; replace the files"
        )

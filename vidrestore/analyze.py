"""Pass one: decode -> detect -> track -> align."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from vidrestore import weights
from vidrestore.config import Settings
from vidrestore.detectors import Detector, open_detector
from vidrestore.errors import InputError
from vidrestore.fetch import as_events
from vidrestore.frame import Analysis, Observation, OnEvent, RawTrack, Track, VideoInfo
from vidrestore.stages.align import align
from vidrestore.stages.decode import Damage, Span, decode, probe
from vidrestore.stages.detect import detect
from vidrestore.stages.track import find_shots, track
from vidrestore.threads import StageThreads


def analyze_video(
    source: str | Path,
    settings: Settings | None = None,
    *,
    span: Span | None = None,
    on_event: OnEvent | None = None,
) -> Analysis:
    """Everything that must be known of a video before a face is restored.

    Raises InputError where the source is not readable as video, WeightsError where the detector's
    weights are missing.
    """
    source, settings = Path(source), settings or Settings()
    info = probe(source)
    detector = _open_detector(settings, on_event)
    damage = Damage()
    seen: list[Observation] = []
    with StageThreads() as threads:
        frames = threads.background(decode(source, damage, span), depth=8, name="decode")
        observations = threads.background(
            detect(frames, detector, info, size_px=settings.detect.size_px), depth=8, name="detect"
        )
        for observation in observations:
            seen.append(observation)
            _report(on_event, info, span, len(seen))
    if not seen:
        raise InputError(f"no frame of {source} lies in the part that was asked for")
    return _understood(seen, info, settings, damage, coarse=detector.coarse)


def _understood(
    seen: list[Observation], info: VideoInfo, settings: Settings, damage: Damage, *, coarse: bool
) -> Analysis:
    """Shots, tracks and geometry from what was seen in every frame."""
    info = replace(info, frame_rate=_plausible_rate(info, seen))
    shots = find_shots(
        [o.thumbnail for o in seen],
        cut=settings.shots.cut,
        contrast=settings.shots.contrast,
    )
    raw, brief = track(
        seen,
        shots,
        overlap=settings.track.overlap,
        gap_frames=round(settings.track.gap_seconds * info.frame_rate),
        min_frames=round(settings.track.min_seconds * info.frame_rate),
    )
    tracks = _aligned(raw, info, settings, coarse=coarse)
    small = int(sum((t.strength == 0).sum() for t in tracks))
    skipped = {"seen too briefly to be sure of": brief, "too small": small}
    return Analysis(
        info=info,
        pts=np.array([o.pts for o in seen], np.int64),
        crc32=np.array([o.crc32 for o in seen], np.uint32),
        shots=shots,
        tracks=tuple(tracks),
        skipped={reason: count for reason, count in skipped.items() if count},
        corrupt_frames=damage.corrupt_frames,
        decode_errors=damage.decode_errors,
        repaired_times=damage.repaired_times,
        coarse_landmarks=coarse,
        template=_template(settings),
    )


def _plausible_rate(info: VideoInfo, seen: list[Observation]) -> Fraction:
    """The nominal rate, unless the frames are far apart: then it is the clock's, not theirs."""
    if len(seen) < 2:
        return info.frame_rate
    steps = np.diff([o.pts for o in seen])
    typical = 1 / (int(np.median(steps)) * info.time_base)
    return typical if info.frame_rate > 2 * typical else info.frame_rate


def _aligned(
    raw: list[RawTrack], info: VideoInfo, settings: Settings, *, coarse: bool
) -> list[Track]:
    how = settings.align
    return align(
        raw,
        info,
        template_name=_template(settings),
        smoothness=how.coarse_smoothness if coarse else how.smoothness,
        min_face_px=how.min_face_px,
        fade_seconds=how.fade_seconds,
    )


def _template(settings: Settings) -> str:
    """GPEN's where nobody said which restorer is to follow."""
    return "gpen" if settings.align.template == "auto" else settings.align.template


def _open_detector(settings: Settings, on_event: OnEvent | None) -> Detector:
    how = settings.detect
    return open_detector(
        how.detector,
        pack=how.pack,
        size_px=how.size_px,
        score=how.score,
        yunet_score=how.yunet_score,
        haar_neighbors=how.haar_neighbors,
        find_weights=weight_finder(settings, on_event),
    )


def weight_finder(settings: Settings, on_event: OnEvent | None) -> Callable[[str], Path]:
    """Leads from a weight's name to its file, fetched where it is missing and may be."""
    how = settings.weights
    folders = weights.search_folders(how.folder, how.also)

    def find(name: str) -> Path:
        path = weights.require(
            name,
            folders,
            target=weights.target_folder(how.folder),
            offline=how.offline,
            on_progress=as_events(name, on_event),
        )
        notice = weights.licence_notice(name, folders)
        if notice is not None and on_event is not None:
            on_event({"event": "notice", "message": notice})
        return path

    return find


def _report(on_event: OnEvent | None, info: VideoInfo, span: Span | None, done: int) -> None:
    if on_event is not None:
        expected = max(_frames_expected_in(span, info), done)
        on_event({"event": "progress", "stage": "analyze", "frame": done, "frames": expected})


def _frames_expected_in(span: Span | None, info: VideoInfo) -> int:
    if span is None:
        return frames_expected(info)
    whole = Fraction(info.duration_seconds_from_header)
    end = whole if span.end_seconds is None else min(span.end_seconds, whole)
    return round((end - (span.start_seconds or 0)) * info.frame_rate)


def frames_expected(info: VideoInfo) -> int:
    """Frames that the container claims, from its duration where it gives no count."""
    if info.frame_count_from_header:
        return info.frame_count_from_header
    return round(info.duration_seconds_from_header * info.frame_rate)

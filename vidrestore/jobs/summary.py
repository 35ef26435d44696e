"""What was done and what was not, counted."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from vidrestore.analysis.pipeline import frames_expected
from vidrestore.analysis.result import Analysis, frames_of_output, of_file
from vidrestore.jobs.verify import Verification
from vidrestore.restoration.statistics import RestorationStats


@dataclass(frozen=True, slots=True)
class TrackLikeness:
    """How like its source the restored face of a track was."""

    track: int
    person: int
    shot: int
    """From 1."""
    frames: int
    reduced_frames: int
    """In which less of it was used for that."""
    features: float
    """Mean correlation of eyes, mouth and face, at most 1; likewise, of what was used:"""
    features_used: float
    identity: float | None
    """Mean cosine to a recogniser; None where none could tell. Likewise, of what was used:"""
    identity_used: float | None


def likeness_by_track(tally: RestorationStats, analysis: Analysis) -> tuple[TrackLikeness, ...]:
    """In the order of the tracks, without those that nobody looked at."""
    found = []
    for track in analysis.tracks:
        if track.track_id not in tally.likeness:
            continue
        sums = tally.likeness_of(track.track_id)
        shot = sum(start <= track.first_frame for start, _ in analysis.shots)
        looks = sums.looks
        found.append(
            TrackLikeness(
                track.track_id,
                track.person_id,
                shot,
                sums.frames,
                sums.reduced,
                sums.features / sums.frames,
                sums.features_used / sums.frames,
                sums.identity / looks if looks else None,
                sums.identity_used / looks if looks else None,
            )
        )
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Summary:
    """What was done and what was not."""

    frames: int
    faces: int
    """(face, frame) pairs that were restored."""
    tracks: int
    people: int
    shots: int
    redone_shots: tuple[int, ...] = ()
    """Numbers, from 1, of those that were rendered; the rest is of the old output. Empty: all."""
    restorers: tuple[str, ...] = ()
    """Names of those that some face needed."""
    repeated: int = 0
    """Of `faces`, those that repeat the frame before and were not computed again."""
    kept: int = 0
    """Of `faces`, those that an earlier run restored, or this one for the segment before."""
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Reason -> how many (face, frame) pairs were left as they were."""
    likeness: tuple[TrackLikeness, ...] = ()
    """Of each track at which the guard looked."""
    corrupt_frames: int = 0
    missing_frames: int = 0
    """Frames that the file claims but that could not be decoded."""
    codec: str = ""
    """Of the new video stream."""
    enlarged: int = 1
    """How many times as high the output is; its samples are compared with the enlarged source's."""
    identical_frames: int | None = None
    """Frames of the finished file in which no sample differs from the source's; None where that
    was not looked at."""
    identical_outside: int | None = None
    """Likewise, frames in which no sample outside the faces differs."""
    psnr_outside_db: float | None = None
    """Of the samples outside the faces; None also where none differs."""
    warnings: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Pass -> wall seconds."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {name: _plain(getattr(self, name)) for name in self.__dataclass_fields__}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, TrackLikeness):
        return asdict(value)
    return value


def summarize(
    analysis: Analysis,
    tally: RestorationStats,
    losses: Sequence[str],
    seconds: Mapping[str, float],
    *,
    is_part: bool,
    fixity: Verification | None,
) -> Summary:
    """`losses` are sentences on what could not be kept; `seconds` those of each pass. Of a part of
    the source no frames are said to be missing. `fixity` is None where nothing was compared."""
    missing = 0 if is_part else _missing_frames(analysis)
    skipped = dict(analysis.skipped)
    for reason, count in tally.not_restored.items():
        skipped[reason] = skipped.get(reason, 0) + count
    summary = Summary(
        frames=frames_of_output(analysis).frame_count,
        faces=tally.faces,
        repeated=tally.repeated,
        kept=tally.kept,
        tracks=len(analysis.tracks),
        people=len({track.person_id for track in analysis.tracks}),
        shots=len(analysis.shots),
        skipped=skipped,
        likeness=likeness_by_track(tally, analysis),
        corrupt_frames=analysis.corrupt_frames,
        missing_frames=missing,
        warnings=(*_warnings(analysis, missing), *_unparsed(tally), *tally.notes.values(), *losses),
        seconds=seconds,
    )
    return summary if fixity is None else _with_fixity(summary, fixity)


def _with_fixity(summary: Summary, fixity: Verification) -> Summary:
    why_not = () if fixity.not_compared is None else (fixity.not_compared,)
    return replace(
        summary,
        identical_frames=fixity.identical_frames,
        identical_outside=fixity.identical_outside,
        psnr_outside_db=fixity.psnr_outside_db,
        warnings=(*summary.warnings, *why_not),
    )


def _unparsed(tally: RestorationStats) -> Iterator[str]:
    if tally.unparsed:
        yield (
            f"the face parser saw no face in {tally.unparsed} crops; there landmarks alone said "
            "what is face"
        )


def _missing_frames(analysis: Analysis) -> int:
    """Frames that the file claims beyond the last one that could be decoded.

    The header's count alone proves nothing: edit lists hide frames that it includes. So the
    time that is missing at the end decides, and the count only says how many.
    """
    analysis = of_file(analysis)
    info = analysis.info
    shown = int(analysis.pts[-1] - analysis.pts[0]) * info.time_base + 1 / info.frame_rate
    absent = info.duration_seconds_from_header - float(shown)
    if absent <= 2 / info.frame_rate and not analysis.decode_errors:
        return 0
    most = math.ceil(max(absent, 0) * info.frame_rate) + analysis.decode_errors
    return min(max(0, frames_expected(info) - analysis.frame_count), most)


def _warnings(analysis: Analysis, missing: int) -> Iterator[str]:
    if missing:
        yield f"{missing} frames that the file announces could not be decoded; they are missing"
    if analysis.corrupt_frames:
        yield f"{analysis.corrupt_frames} frames are damaged in the source"
    if analysis.repaired_times:
        yield f"{analysis.repaired_times} frames had no time of their own or a repeated one"
    if analysis.detector_errors:
        yield (
            f"the detector broke at {analysis.detector_errors} frames; faces may be missing there"
        )
    if not analysis.tracks:
        yield "no face was found; nothing was restored"
    elif analysis.coarse_landmarks:
        yield "landmarks were guessed from face boxes; a detector with weights aligns better"

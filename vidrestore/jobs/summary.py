"""The summary of a run: counts of what was restored, skipped, damaged and compared."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from operator import itemgetter
from typing import Any

from vidrestore.analysis.people import people_listed
from vidrestore.analysis.picture_changes import notices_of_changes
from vidrestore.analysis.pipeline import frames_expected
from vidrestore.analysis.result import NOT_A_FACE, Analysis, frames_of_output, of_file
from vidrestore.common.counting import counted
from vidrestore.jobs.verify import Verification
from vidrestore.restoration.statistics import RestorationStats


@dataclass(frozen=True, slots=True)
class TrackLikeness:
    """The similarity between the restored and the source face of one track."""

    track: int
    """The number of the track."""
    person: int
    """The number of the person."""
    shot: int
    """The number of the shot, from 1."""
    frames: int
    """The frames in which the guard compared the two faces."""
    reduced_frames: int
    """The frames in which less of the restored face was used because the two differed."""
    features: float
    """Mean correlation of eyes, mouth and face between source and restored crop, at most 1."""
    features_used: float
    """The same between the source and the mixture that was pasted."""
    identity: float | None
    """Mean cosine of the recognizer's embeddings; None where no face could be recognized."""
    identity_used: float | None
    """The same between the source and the mixture that was pasted."""
    expression_frames: int = 0
    """The frames in which an eye or the mouth was kept from the source, in full or in part, because
    the restored one had another expression."""


def likeness_by_track(stats: RestorationStats, analysis: Analysis) -> tuple[TrackLikeness, ...]:
    """Average the similarity of each track.

    Args:
        stats: The counts of the run.
        analysis: The analysis whose tracks were restored.

    Returns:
        One value for each track that the guard compared, in the order of the tracks.
    """
    values = []
    for track in analysis.tracks:
        if track.track_id not in stats.likeness:
            continue
        sums = stats.likeness_of(track.track_id)
        shot = bisect_right(analysis.shots, track.first_frame, key=itemgetter(0))
        comparisons = sums.comparisons
        values.append(
            TrackLikeness(
                track.track_id,
                track.person_id,
                shot,
                sums.frames,
                sums.reduced,
                sums.features / sums.frames,
                sums.features_used / sums.frames,
                sums.identity / comparisons if comparisons else None,
                sums.identity_used / comparisons if comparisons else None,
                sums.expressions,
            )
        )
    return tuple(values)


@dataclass(frozen=True, slots=True)
class NetworkUse:
    """The people whose faces a restorer restored."""

    restorer: str
    """The name of the restorer, or its file and the name of its person."""
    people: tuple[int, ...]
    """The numbers of the people."""
    faces: int
    """The number of (face, frame) pairs."""

    @property
    def whom(self) -> str:
        """Such as "12 faces of person 1", for users."""
        return f"{counted(self.faces, 'face')} of {people_listed(self.people)}"


def networks_by_people(
    labels: Mapping[int, str], stats: RestorationStats, analysis: Analysis
) -> tuple[NetworkUse, ...]:
    """List which restorer restored whom.

    Args:
        labels: Number of a track -> the name of the restorer of its faces.
        stats: The counts of the run.
        analysis: The analysis whose tracks were restored.

    Returns:
        One value for each restorer with a restored face, in the order of the tracks.
    """
    people, faces = dict[str, set[int]](), Counter[str]()
    for track in analysis.tracks:
        label, count = labels.get(track.track_id), stats.pasted[track.track_id]
        if label is not None and count:
            people.setdefault(label, set()).add(track.person_id)
            faces[label] += count
    return tuple(
        NetworkUse(label, tuple(sorted(own)), faces[label]) for label, own in people.items()
    )


@dataclass(frozen=True, slots=True)
class Summary:
    """The summary of a run: what it restored, what it skipped, and what the output lost."""

    frames: int
    """Frames in the output."""
    faces: int
    """(face, frame) pairs that were restored."""
    tracks: int
    """Tracks: faces followed through one shot each."""
    people: int
    """Distinct people among the tracks."""
    shots: int
    """Shots of the source."""
    redone_shots: tuple[int, ...] = ()
    """The numbers, from 1, of the shots that --redo-shots rendered; empty: all were."""
    detector: str = ""
    """The name of the detector that found the faces; empty: it is not known."""
    restorers: tuple[str, ...] = ()
    """The names of the restorers that were used."""
    networks: tuple[NetworkUse, ...] = ()
    """Which restorer restored whom."""
    repeated: int = 0
    """Faces, of `faces`, in repeated frames, which were restored once."""
    kept: int = 0
    """Faces, of `faces`, that were taken from the cache of restored crops."""
    between: int = 0
    """Faces that were made of restored key frames, without a run of the network."""
    fast: int = 0
    """Faces of tracks with key frames where these would save too little, since the face moves fast
    or is seen only briefly, so that the network restored every frame."""
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Reason -> number of (face, frame) pairs that were left unchanged."""
    likeness: tuple[TrackLikeness, ...] = ()
    """The similarity of each track that the guard compared."""
    corrupt_frames: int = 0
    """Frames that are damaged in the source."""
    missing_frames: int = 0
    """Frames that the header of the source announces and that could not be decoded."""
    codec: str = ""
    """The codec of the new video stream."""
    copied_frames: int = 0
    """Frames of the output whose packets are those of the source, byte for byte, since nothing was
    pasted into them."""
    enlarged: int = 1
    """The factor by which the output is enlarged; its samples are compared with the enlarged
    source."""
    identical_frames: int | None = None
    """Frames of the output in which no sample differs from the source; None: not compared."""
    identical_outside: int | None = None
    """Frames in which no sample outside the faces differs; None: not compared."""
    psnr_outside_db: float | None = None
    """PSNR of the samples outside the faces; None: not compared, or none differs."""
    warnings: tuple[str, ...] = ()
    """Sentences about what was lost, guessed, repaired or left out."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Pass (analyze, restore, check) -> wall seconds."""

    @property
    def told_networks(self) -> tuple[NetworkUse, ...]:
        """`networks` where they tell more than `restorers`: several, or one that is a file."""
        names = {use.restorer for use in self.networks}
        return self.networks if len(names) > 1 or names - {*self.restorers} else ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {name: _plain(getattr(self, name)) for name in self.__dataclass_fields__}


def _plain(value: Any) -> Any:
    """Convert a value of the summary to values that JSON can hold."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, TrackLikeness | NetworkUse):
        return asdict(value)
    return value


def summarize(
    analysis: Analysis,
    stats: RestorationStats,
    losses: Sequence[str],
    seconds: Mapping[str, float],
    *,
    is_part: bool,
    fixity: Verification | None,
) -> Summary:
    """Summarize a run.

    Args:
        analysis: The analysis whose faces were restored.
        stats: The counts of pass two.
        losses: Sentences about what the output could not keep.
        seconds: Pass -> wall seconds.
        is_part: Whether a part of the source was restored; missing frames are then not counted.
        fixity: The result of reading the output back; None: it was not compared.

    Returns:
        The summary.
    """
    missing = 0 if is_part else _missing_frames(analysis)
    skipped = dict(analysis.skipped)
    for reason, count in stats.not_restored.items():
        skipped[reason] = skipped.get(reason, 0) + count
    summary = Summary(
        frames=frames_of_output(analysis).frame_count,
        faces=stats.faces,
        repeated=stats.repeated,
        kept=stats.kept,
        between=stats.between,
        fast=stats.fast,
        tracks=len(analysis.tracks),
        people=len({track.person_id for track in analysis.tracks}),
        shots=len(analysis.shots),
        detector=analysis.detector,
        skipped=skipped,
        likeness=likeness_by_track(stats, analysis),
        corrupt_frames=analysis.corrupt_frames,
        missing_frames=missing,
        copied_frames=stats.copied,
        warnings=(*_warnings(analysis, missing), *_unparsed(stats), *stats.notes.values(), *losses),
        seconds=seconds,
    )
    return summary if fixity is None else _with_fixity(summary, fixity)


def _with_fixity(summary: Summary, fixity: Verification) -> Summary:
    """Add the result of reading the output back."""
    why_not = () if fixity.not_compared is None else (fixity.not_compared,)
    return replace(
        summary,
        identical_frames=fixity.identical_frames,
        identical_outside=fixity.identical_outside,
        psnr_outside_db=fixity.psnr_outside_db,
        warnings=(*summary.warnings, *why_not),
    )


def _unparsed(stats: RestorationStats) -> Iterator[str]:
    """Yield the warning about crops in which the face parser found no face, if any."""
    if stats.unparsed:
        yield (
            f"the face parser found no face in {counted(stats.unparsed, 'crop')}, whose masks were "
            "made from the landmarks alone"
        )


def _missing_frames(analysis: Analysis) -> int:
    """Count the announced frames behind the last one that could be decoded.

    The count in the header includes frames that edit lists hide. So the time that is missing at
    the end decides whether frames are missing, and the count decides how many.
    """
    analysis = of_file(analysis)
    info = analysis.info
    decoded = int(analysis.pts[-1] - analysis.pts[0]) * info.time_base + 1 / info.frame_rate
    absent = info.duration_seconds_from_header - float(decoded)
    if absent <= 2 / info.frame_rate and not analysis.decode_errors:
        return 0
    most = math.ceil(max(absent, 0) * info.frame_rate) + analysis.decode_errors
    return min(max(0, frames_expected(info) - analysis.frame_count), most)


def _warnings(analysis: Analysis, missing: int) -> Iterator[str]:
    """Yield the warnings about the source and its analysis."""
    if missing:
        yield f"{counted(missing, 'frame')} that the header announces could not be decoded"
    if analysis.corrupt_frames:
        yield f"{counted(analysis.corrupt_frames, 'frame is', 'frames are')} damaged in the source"
    if analysis.repaired_times:
        frames = counted(analysis.repaired_times, "frame")
        yield f"{frames} had no time or a repeated one; it was repaired"
    yield from notices_of_changes(analysis)
    if analysis.detector_errors:
        frames = counted(analysis.detector_errors, "frame")
        yield f"the detector failed in {frames}; faces may be missing there"
    if not analysis.tracks:
        is_left = any(count for reason, count in analysis.skipped.items() if reason != NOT_A_FACE)
        found = "every face that was found was left as it is" if is_left else "no face was found"
        yield f"{found}; nothing was restored"
    elif analysis.coarse_landmarks:
        yield "landmarks were guessed from face boxes; a detector with weights aligns better"

"""An analysis, changed by what a person asked for: whom to restore, where, and how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vidrestore.analysis import edl, shot_list
from vidrestore.analysis.alignment import align
from vidrestore.analysis.people import (
    chosen,
    large_people,
    like_reference,
    only,
    people_embeddings,
    wanted_people,
)
from vidrestore.analysis.result import Analysis
from vidrestore.analysis.shot_list import Shot, ShotList
from vidrestore.analysis.strength import with_strength
from vidrestore.analysis.tracks import RawTrack, Track, TracksByFrame
from vidrestore.common.errors import ConfigError, InputError, UsageError
from vidrestore.common.events import OnEvent, notify
from vidrestore.common.files import check_readable_kind
from vidrestore.common.settings import Settings
from vidrestore.common.text_files import read_toml
from vidrestore.imaging.frame import FloatArray
from vidrestore.imaging.geometry import apply, invert, landmarks_in_box, upright
from vidrestore.models.factory import reference_embedding

_MOST_FACE_PX = 65536
NOT_JOINED = (
    "nobody is recognised from one shot to the next, which needs the recognition model of an "
    "InsightFace pack; each track counts as a person of its own"
)


@dataclass(frozen=True, slots=True)
class Choice:
    """Whom to restore, and how in which shot."""

    people: str | None = None
    """Such as "1,3", or "-2" for all but that one."""
    reference: Path | None = None
    """A photo of who is to be restored."""
    shots: Path | None = None
    """A shots.toml."""
    min_face_px: float | None = None
    """Only those whose eyes are so far apart, in pixels of the frame."""

    def check(self) -> None:
        """Refuse, before any work, files that cannot be read.

        Raises:
            ConfigError, InputError: In a sentence that names the file.
        """
        if self.shots is not None:
            read_toml(self.shots, "the shots file")
        if self.reference is not None:
            check_readable_kind(self.reference, "the reference photo", InputError)

    def applied(
        self, analysis: Analysis, source: Path, settings: Settings, on_event: OnEvent | None
    ) -> tuple[Analysis, list[tuple[int, str | None]]]:
        """The analysis as chosen, and the restorer from which frame on; None: the usual one."""
        names: list[tuple[int, str | None]] = [(0, None)]
        if self.people is not None:
            if not analysis.people_are_joined:
                notify(on_event, NOT_JOINED)
            analysis = with_people(analysis, self.people)
        if self.reference is not None:
            embedding = reference_embedding(self.reference, settings, on_event)
            similarity = settings.people.similarity
            analysis = with_reference(analysis, embedding, similarity=similarity)
        if self.min_face_px is not None:
            if not 0 <= self.min_face_px <= _MOST_FACE_PX:  # nor what is not a number
                raise UsageError(
                    f"eyes are from 0 to {_MOST_FACE_PX} pixels apart, not {self.min_face_px:g}"
                )
            analysis = with_large(analysis, self.min_face_px)
        if self.shots is not None:
            asked = shot_list.read(self.shots, analysis.pts, analysis.info.time_base)
            if asked.fingerprint and asked.fingerprint != analysis.fingerprint:
                raise InputError(f"{self.shots} is of another video than {source}")
            analysis = with_shots(analysis, asked, settings)
            names = restorers_of(asked, analysis.frame_count)
        return analysis, names


EVERYONE = Choice()


def check_shots_path(path: Path) -> None:
    """UsageError for a name under which `write_shots` writes nothing."""
    if path.suffix.lower() not in (".toml", ".edl"):
        raise UsageError(f"the shots go into a .toml or an .edl file, not {path.name}")


def write_shots(analysis: Analysis, source: Path, path: Path) -> None:
    """The shots that were found, as TOML to be edited or as an edit decision list, by suffix."""
    check_shots_path(path)
    info = analysis.info
    if path.suffix.lower() == ".edl":
        shots, rate = analysis.shots, info.frame_rate
        edl.write_cuts(path, shots, analysis.pts, info.time_base, rate, source.stem)
    else:
        found = shot_list.of_analysis(analysis, source.name)
        shot_list.write(found, path, analysis.pts, info.time_base)


def with_people(analysis: Analysis, people: str) -> Analysis:
    """Only those whom `people` names ("1,3", or "-2" for all but that one) are restored.

    UsageError for someone who does not exist.
    """
    wanted = wanted_people(people)
    there = {track.person_id for track in analysis.tracks}
    tracks, left_out = only(analysis.tracks, chosen(wanted, there))
    return _with_left_out(analysis, tracks, "not chosen", left_out)


def with_reference(analysis: Analysis, reference: FloatArray, *, similarity: float) -> Analysis:
    """Only who looks like the face of a photo is restored; UsageError where nobody does."""
    tracks = analysis.tracks
    known = people_embeddings([t.person_id for t in tracks], [t.embedding for t in tracks])
    alike = like_reference(reference, known, similarity=similarity)
    kept, left_out = only(tracks, alike)
    return _with_left_out(analysis, kept, "not the one of the reference photo", left_out)


def with_large(analysis: Analysis, min_face_px: float) -> Analysis:
    """Only people whose faces are that large are restored; UsageError where nobody's is."""
    large = large_people(analysis.tracks, min_face_px=min_face_px, template_name=analysis.template)
    if analysis.tracks and not large:
        raise UsageError(
            f"nobody's eyes are {min_face_px:g} pixels apart; vidrestore analyze shows how large "
            "the faces are"
        )
    kept, left_out = only(analysis.tracks, large)
    return _with_left_out(analysis, kept, "smaller than asked for", left_out)


def with_shots(analysis: Analysis, asked: ShotList, settings: Settings) -> Analysis:
    """What `asked` says of each shot is obeyed; in frames of no shot nothing changes.

    Faces pointed at by hand become tracks of their own. ConfigError for people who do not exist.
    """
    there = {track.person_id for track in analysis.tracks}
    factors = [np.ones(len(track.matrices), np.float32) for track in analysis.tracks]
    by_frame = TracksByFrame(analysis.tracks)
    for shot in asked.shots:
        unknown = sorted(set(shot.people or ()) - there)
        if unknown:
            known = ", ".join(map(str, sorted(there))) or "nobody"
            raise ConfigError(f"the shots name person {unknown[0]}, but there is only {known}")
        for number in by_frame.within(shot.start, shot.end):
            track = analysis.tracks[number]
            frames = np.arange(max(shot.start, track.first_frame), min(shot.end, track.end_frame))
            own = _factors(shot, track.person_id, frames)
            factors[number][frames - track.first_frame] = own
    tracks = [
        replace(track, strength=track.strength * factor)
        for track, factor in zip(analysis.tracks, factors, strict=True)
    ]
    left_out = sum(
        int(np.count_nonzero(was.strength) - np.count_nonzero(now.strength))
        for was, now in zip(analysis.tracks, tracks, strict=True)
    )
    return _with_left_out(
        analysis, [*tracks, *_by_hand(analysis, asked, settings)], "left out by the shots", left_out
    )


def restorers_of(asked: ShotList, frame_count: int) -> list[tuple[int, str | None]]:
    """(first frame, name of the restorer) of each stretch; None: the usual one."""
    stretches: list[tuple[int, str | None]] = [(0, None)]
    for shot in asked.shots:
        for at, name in ((shot.start, shot.restorer), (shot.end, None)):
            if stretches[-1][0] == at:
                stretches[-1] = (at, name)
            elif at < frame_count:
                stretches.append((at, name))
    return [
        stretch
        for i, stretch in enumerate(stretches)
        if i == 0 or stretch[1] != stretches[i - 1][1]
    ]


def _factors(shot: Shot, person: int, frames: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    if shot.skip or (shot.people is not None and person not in shot.people):
        return np.zeros(len(frames), np.float32)
    if not shot.strength:
        return np.ones(len(frames), np.float32)
    at, values = zip(*shot.strength, strict=True)
    return np.asarray(np.interp(frames, at, values), np.float32)


def _by_hand(analysis: Analysis, asked: ShotList, settings: Settings) -> list[Track]:
    """Tracks of the faces pointed at; between two boxes the face is taken to move evenly."""
    info, how = analysis.info, settings.align
    to_frame = invert(upright(info).matrix)
    raw, strengths = [], []
    for shot in asked.shots:
        for face in () if shot.skip else shot.faces:
            if not shot.start <= face[0][0] < shot.end:
                raise ConfigError(f"a face by hand lies outside its shot, at frame {face[0][0]}")
            frames = np.arange(shot.start, min(shot.end, analysis.frame_count))
            at, boxes = zip(*face, strict=True)
            moving = np.stack([np.interp(frames, at, edge) for edge in zip(*boxes, strict=True)], 1)
            points = np.stack([apply(to_frame, landmarks_in_box(box)) for box in moving])
            certain = np.ones(len(frames), np.float32)
            raw.append(
                RawTrack(shot.start, (shot.start, shot.end), points.astype(np.float32), certain)
            )
            everyone = replace(shot, people=None)
            strengths.append(_factors(everyone, 0, frames))
    if not raw:
        return []
    tracks = align(raw, info, how, template_name=analysis.template, coarse=True)
    weighed, _ = with_strength(
        tracks,
        raw,
        how.model_copy(update={"min_face_px": 0.0}),
        template_name=analysis.template,
        least_score=0,
        frame_rate=info.frame_rate,
    )
    next_track = len(analysis.tracks)
    next_person = max((t.person_id for t in analysis.tracks), default=0) + 1
    return [
        replace(
            track,
            track_id=next_track + i,
            person_id=next_person + i,
            strength=track.strength * strength,
        )
        for i, (track, strength) in enumerate(zip(weighed, strengths, strict=True))
        if track is not None
    ]


def _with_left_out(
    analysis: Analysis, tracks: Sequence[Track], reason: str, left_out: int
) -> Analysis:
    skipped = dict(analysis.skipped)
    if left_out:
        skipped[reason] = skipped.get(reason, 0) + left_out
    return replace(analysis, tracks=tuple(tracks), skipped=skipped)

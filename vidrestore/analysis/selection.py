"""Selection: apply to an analysis the user's choice of whom to restore, where and how strongly."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vidrestore.analysis import edl, otio, shot_list
from vidrestore.analysis.alignment import align
from vidrestore.analysis.choice import Choice, wanted_people
from vidrestore.analysis.marked_faces import (
    NO_POINTS,
    Marked,
    faces_in_boxes,
    landmarks_of_marks,
)
from vidrestore.analysis.people import (
    chosen,
    large_people,
    like_reference,
    only,
    people_embeddings,
    people_listed,
)
from vidrestore.analysis.result import Analysis
from vidrestore.analysis.shot_list import Shot, ShotList
from vidrestore.analysis.strength import with_strength
from vidrestore.analysis.tracks import RawTrack, Track
from vidrestore.common.errors import ConfigError, InputError, UsageError
from vidrestore.common.events import OnEvent, notify
from vidrestore.common.settings import Settings
from vidrestore.imaging.frame import FloatArray
from vidrestore.imaging.geometry import apply, invert, upright
from vidrestore.media.decode import TimeRange
from vidrestore.models.factory import reference_embedding
from vidrestore.models.restorers.assignment import Assignment

NOT_JOINED = (
    "vidrestore does not recognize people from one shot to the next, because it has no recognition "
    "model of an InsightFace pack (vidrestore weights fetch buffalo_l brings one, for "
    "non-commercial use); each track counts as a person of its own"
)


def face_of_photo(
    choice: Choice, settings: Settings, on_event: OnEvent | None
) -> FloatArray | None:
    """Judge the reference photo, which takes seconds and needs no analysis.

    Args:
        choice: The choice of the user.
        settings: The settings.
        on_event: Receives the progress of a download and notices; None: none are sent.

    Returns:
        (d,) the embedding of the face of the photo, of unit length, for `applied`; None where
        the choice has no photo.

    Raises:
        UsageError: There is no recognizer, or the photo does not show one sharp face that is
            clearly the largest.
        InputError: The photo cannot be read.
        WeightsError: The weights of the detector are missing or damaged.
    """
    if choice.reference is None:
        return None
    return reference_embedding(choice.reference, settings, on_event)


def applied(
    choice: Choice,
    analysis: Analysis,
    source: Path,
    settings: Settings,
    on_event: OnEvent | None,
    *,
    face: FloatArray | None = None,
    span: TimeRange | None = None,
    may_be_empty: bool = False,
) -> tuple[Analysis, Assignment[str | None]]:
    """Apply the choice of the user to an analysis.

    Args:
        choice: The choice of the user.
        analysis: The analysis.
        source: The video, named in messages.
        settings: The settings.
        on_event: Receives notices; None: none are sent.
        face: The result of `face_of_photo`. Default: the function judges the photo.
        span: The part of the source that was analyzed. Default: all.
        may_be_empty: Whether the shots file may leave no one to restore, because only a
            part of its shots is restored. Default: False.

    Returns:
        (analysis, restorers): the changed analysis, and the names of the restorers; None: the
        restorer of the settings.

    Raises:
        UsageError: The choice names people who do not exist, leaves no one to restore, or has a
            size outside 0 to 65536; or there is no recognizer for the reference photo.
        ConfigError: The shots file is wrong, or leaves no one to restore.
        InputError: The shots file belongs to another video, or the reference photo or the
            source cannot be read.
        ChangedSourceError: The source has other frames than the analysis.
        WeightsError: The weights of the detector, which looks for the faces marked by hand, are
            missing or damaged.
    """
    names: Assignment[str | None] = Assignment([(0, None)])
    before = analysis
    if choice.people is not None:
        if not analysis.people_are_joined:
            notify(on_event, NOT_JOINED)
        analysis = with_people(analysis, choice.people)
    if choice.reference is not None:
        if face is None:
            face = face_of_photo(choice, settings, on_event)
        assert face is not None
        analysis = with_reference(analysis, face, similarity=settings.people.similarity)
    if choice.min_face_px is not None:
        analysis = with_large(analysis, choice.min_face_px)
    if before.face_count and not analysis.face_count:
        raise UsageError(_empty_choice(choice, before))
    if choice.shots is not None:
        wanted_shots = shot_list.read(choice.shots, analysis.pts, analysis.info.time_base)
        if wanted_shots.fingerprint and wanted_shots.fingerprint != analysis.fingerprint:
            raise InputError(
                f"{choice.shots} belongs to another video than {source}; give the file of this "
                "video"
            )
        chosen = analysis
        points = faces_in_boxes(wanted_shots, analysis, source, settings, span, on_event)
        analysis = with_shots(analysis, wanted_shots, settings, points)
        if chosen.face_count and not analysis.face_count and not may_be_empty:
            raise ConfigError(
                f"{choice.shots} leaves no person to restore in any shot, {_people_there(before)}; "
                "take back a skip, a strength of 0 or a list of people in it"
            )
        names = Assignment(
            restorers_of(wanted_shots, analysis.frame_count),
            _restorers_of_tracks(wanted_shots, analysis),
        )
    return analysis, names


def _empty_choice(choice: Choice, analysis: Analysis) -> str:
    """Return the sentence for a choice after which no face of an analysis is restored."""
    given = {
        "--people": choice.people,
        "--reference": choice.reference,
        "--min-face": choice.min_face_px,
    }
    options = [f"{name} {value}" for name, value in given.items() if value is not None]
    return (
        f"{' with '.join(options)} leaves no person to restore, {_people_there(analysis)}; "
        "vidrestore analyze lists the people"
    )


def write_shots(analysis: Analysis, source: Path, path: Path) -> None:
    """Write the detected shots as TOML to be edited, as an edit decision list or as a timeline.

    Args:
        analysis: The analysis with the shots.
        source: The video, whose name becomes the title.
        path: The file to write; its suffix, .toml, .edl or .otio, selects the format.

    Raises:
        UsageError: The name ends neither in .toml nor in .edl nor in .otio.
        ConfigError: A timeline needs OpenTimelineIO, which is not installed.
        OutputError: The file cannot be written.
    """
    shot_list.check_shots_path(path)
    info, shown, pts = analysis.info, analysis.shots, analysis.pts
    # Editing programs count the frames of the file, also where pictures of fields are analyzed.
    rate = (info if analysis.fields is None else analysis.fields.info).frame_rate
    if path.suffix.lower() == ".edl":
        edl.write_cuts(path, shown, pts, info.time_base, rate, source.stem)
    elif path.suffix.lower() == ".otio":
        counts = edl.nominal_counts(pts, info.time_base, rate)
        otio.write_cuts(path, shown, counts, rate, source)
    else:
        shots = shot_list.of_analysis(analysis, source.name)
        shot_list.write(shots, path, analysis.pts, info.time_base)


def with_people(analysis: Analysis, people: str) -> Analysis:
    """Restore only people chosen by their numbers.

    Args:
        analysis: The analysis.
        people: "1,3" for these people, or "-2" for all but that one.

    Returns:
        The analysis with strength 0 for all other people.

    Raises:
        UsageError: The text is wrong, or names a person who does not exist.
    """
    wanted = wanted_people(people)
    there = {track.person_id for track in analysis.tracks}
    tracks, left_out = only(analysis.tracks, chosen(wanted, there))
    return _with_left_out(analysis, tracks, "not chosen", left_out)


def with_reference(analysis: Analysis, reference: FloatArray, *, similarity: float) -> Analysis:
    """Restore only people who look like the face of a photo.

    Args:
        analysis: The analysis.
        reference: (d,) the embedding of the face of the photo, of unit length.
        similarity: The least cosine of two embeddings of one person.

    Returns:
        The analysis with strength 0 for all other people.

    Raises:
        UsageError: No person is similar enough.
    """
    tracks = analysis.tracks
    embeddings = people_embeddings([t.person_id for t in tracks], [t.embedding for t in tracks])
    alike = like_reference(reference, embeddings, similarity=similarity)
    kept, left_out = only(tracks, alike)
    return _with_left_out(analysis, kept, "not the person of the reference photo", left_out)


def with_large(analysis: Analysis, min_face_px: float) -> Analysis:
    """Restore only people whose faces are large enough.

    Args:
        analysis: The analysis.
        min_face_px: The least eye distance, in frame pixels, that a tenth of the frames of a person
            must reach.

    Returns:
        The analysis with strength 0 for all other people.

    Raises:
        UsageError: There are tracks, but no person is large enough.
    """
    large = large_people(analysis.tracks, min_face_px=min_face_px, template_name=analysis.template)
    if analysis.tracks and not large:
        raise UsageError(
            f"no person's eyes are {min_face_px:g} pixels apart; choose a smaller distance "
            "(vidrestore analyze shows how large the faces are)"
        )
    kept, left_out = only(analysis.tracks, large)
    return _with_left_out(analysis, kept, "smaller than the chosen size", left_out)


def with_shots(
    analysis: Analysis,
    wanted_shots: ShotList,
    settings: Settings,
    points: Mapping[Marked, FloatArray] = NO_POINTS,
) -> Analysis:
    """Apply a list of shots to an analysis; frames outside the listed shots do not change.

    Faces that the user marked by hand become tracks of people of their own.

    Args:
        analysis: The analysis.
        wanted_shots: The list of shots.
        settings: The settings; `align` counts for faces marked by hand.
        points: The landmarks of the faces inside boxes drawn by hand, a result of
            `faces_in_boxes`. Default: the landmarks are guessed from the boxes.

    Returns:
        The changed analysis.

    Raises:
        ConfigError: A shot names a person who does not exist, or a face marked by hand begins
            outside its shot.
    """
    there = {track.person_id for track in analysis.tracks}
    factors = [np.ones(len(track.matrices), np.float32) for track in analysis.tracks]
    by_frame = analysis.by_frame
    for shot in wanted_shots.shots:
        _check_people(shot.people or (), there, "change the people of that shot")
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
        analysis,
        [*tracks, *_marked_tracks(analysis, wanted_shots, settings, points)],
        "left out by the shots",
        left_out,
    )


def restorers_of(wanted_shots: ShotList, frame_count: int) -> list[tuple[int, str | None]]:
    """List the restorers that a list of shots asks for.

    Args:
        wanted_shots: The list of shots.
        frame_count: The number of frames of the video.

    Returns:
        (first frame, name of the restorer) of each part of the video, ordered; None: the restorer
        of the settings.
    """
    stretches: list[tuple[int, str | None]] = [(0, None)]
    for shot in wanted_shots.shots:
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


def _restorers_of_tracks(wanted_shots: ShotList, analysis: Analysis) -> dict[int, str]:
    """Return number of a track -> name of the restorer that the list names for its person."""
    restorers = wanted_shots.restorers
    _check_people(restorers, {track.person_id for track in analysis.tracks}, "correct the number")
    return {
        track.track_id: restorers[track.person_id]
        for track in analysis.tracks
        if track.person_id in restorers
    }


def _check_people(named: Collection[int], there: Collection[int], advice: str) -> None:
    """Raise ConfigError where a list of shots names a person who is not there."""
    if unknown := sorted(set(named).difference(there)):
        numbers = ", ".join(map(str, sorted(there)))
        existing = f"only {numbers}" if numbers else "no person"
        raise ConfigError(
            f"the shots name person {unknown[0]}, but the video has {existing}; {advice}"
        )


def _factors(shot: Shot, person: int, frames: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return the factor of the strength of a person in frames of a shot."""
    if shot.skip or (shot.people is not None and person not in shot.people):
        return np.zeros(len(frames), np.float32)
    if not shot.strength:
        return np.ones(len(frames), np.float32)
    at, values = zip(*shot.strength, strict=True)
    return np.asarray(np.interp(frames, at, values), np.float32)


def _marked_tracks(
    analysis: Analysis,
    wanted_shots: ShotList,
    settings: Settings,
    points: Mapping[Marked, FloatArray],
) -> list[Track]:
    """Make tracks of the faces marked by hand; between two boxes, a face moves linearly."""
    info, how = analysis.info, settings.align
    to_frame = invert(upright(info).matrix)
    raw, strengths, people = [], [], []
    next_person = max((t.person_id for t in analysis.tracks), default=0) + 1
    for shot in wanted_shots.shots:
        for face in () if shot.skip else shot.faces:
            if not shot.start <= face[0][0] < shot.end:
                raise ConfigError(
                    f"a face marked by hand begins at frame {face[0][0]}, outside its shot; "
                    "correct its first time"
                )
            frames = np.arange(shot.start, min(shot.end, analysis.frame_count))
            at = [frame for frame, _ in face]
            marked = landmarks_of_marks(face, points).reshape(len(face), -1)
            moving = np.stack([np.interp(frames, at, line) for line in marked.T], 1)
            moved = apply(to_frame, moving.reshape(-1, 2)).reshape(-1, 5, 2)
            certain = np.ones(len(frames), np.float32)
            factors = _factors(replace(shot, people=None), 0, frames)
            # A track lies within one shot, since the stages look at the frames around each.
            for start, end in _within_shots(analysis, shot.start, shot.start + len(frames)):
                part = slice(start - shot.start, end - shot.start)
                raw.append(
                    RawTrack(start, (start, end), moved[part].astype(np.float32), certain[part])
                )
                strengths.append(factors[part])
                people.append(next_person)
            next_person += 1
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
    next_track = max((t.track_id for t in analysis.tracks), default=-1) + 1
    return [
        replace(
            track, track_id=next_track + i, person_id=person, strength=track.strength * strength
        )
        for i, (track, person, strength) in enumerate(zip(weighed, people, strengths, strict=True))
        if track is not None
    ]


def _within_shots(analysis: Analysis, first: int, end: int) -> list[tuple[int, int]]:
    """Return the parts of the frames [first, end) that lie in one shot of the video each."""
    parts = [(max(first, start), min(end, stop)) for start, stop in analysis.shots]
    return [(start, stop) for start, stop in parts if start < stop]


def _people_there(analysis: Analysis) -> str:
    """Name the people of an analysis of whom some face would be restored without a choice."""
    there = sorted({track.person_id for track in analysis.tracks if track.strength.any()})
    return f"and the faces that can be restored are those of {people_listed(there)}"


def _with_left_out(
    analysis: Analysis, tracks: Sequence[Track], reason: str, left_out: int
) -> Analysis:
    skipped = dict(analysis.skipped)
    if left_out:
        skipped[reason] = skipped.get(reason, 0) + left_out
    return replace(analysis, tracks=tuple(tracks), skipped=skipped)

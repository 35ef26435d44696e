"""Single shots of a finished output, rendered anew; all else is taken from it packet by packet."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from vidrestore.analysis import storage
from vidrestore.analysis.result import Analysis, frames_of_output, in_output
from vidrestore.analysis.tracks import Track
from vidrestore.common.errors import InputError, UsageError
from vidrestore.common.quoting import quoted
from vidrestore.jobs.render import name_of
from vidrestore.jobs.work_folder import ANALYSIS, WorkFolder, has_sha256, segment_file
from vidrestore.media.codecs import Encoding
from vidrestore.media.concat import extract_segments
from vidrestore.media.probe import fingerprint
from vidrestore.models.restorers import RestorerInfo
from vidrestore.restoration.segments import Segment, restorers_used


@dataclass(frozen=True, slots=True)
class FinishedJob:
    """A finished job: what its output is made of, segment by segment, and what is to be redone."""

    analysis: Analysis
    """As it was restored, with all choices."""
    segments: list[Segment]
    restorers: tuple[tuple[str, ...], ...]
    """Names of those that each segment's faces needed."""
    strength: float
    """The greatest of all pasting in it."""
    encoding: Mapping[str, str]
    stream_index: int
    """Of the restored stream in the output."""
    sha256: str
    """Of the output."""
    counts: tuple[Mapping[str, Any], ...]
    """What was counted in each segment."""
    shots: frozenset[int]
    """Numbers, from 1, of the shots asked for."""


@dataclass(frozen=True, slots=True)
class Redo:
    """Which frames are rendered anew."""

    kept: FinishedJob
    analysis: Analysis
    """The new one in the shots that are redone, and the old one elsewhere."""
    frames: tuple[tuple[int, int], ...]
    """[first, end) of whole segments and whole shots."""
    shots: tuple[int, ...]
    """Their numbers, from 1."""
    notes: tuple[str, ...]

    def has(self, frame: int) -> bool:
        return _lies_in(frame, self.frames)


def kept_job(work: WorkFolder, source: Path, target: Path, shots: str) -> FinishedJob:
    """What the job that wrote `target` kept; `shots` are those to redo, such as "3,7-9".

    UsageError where nothing was kept, `target` is not what the job wrote, or there is no such shot;
    InputError where the source is another one.
    """
    note, before = work.kept(), work.source()
    if note is None or before is None:
        raise UsageError(
            f"nothing is known of how {target} was made; restore it with --keep-job, and then "
            "--redo-shots can follow"
        )
    if before != fingerprint(source):
        raise InputError(
            f"{target} was made from another video than {source}, or that one changed since; give "
            "the one it was made from"
        )
    analysis = storage.load(work.path / ANALYSIS, f"restore the whole of {source} with --keep-job")
    wanted = _numbers(shots, len(analysis.shots))
    if not has_sha256(target, note["sha256"]):
        raise UsageError(
            f"{target} is no longer the file that its job wrote, so nothing can be taken from it; "
            "restore the whole with --keep-job --overwrite"
        )
    parts = note["segments"]
    if parts[-1]["frames"][1] != analysis.frame_count:
        raise UsageError(
            f"what the job kept in {work.path} does not fit together: segments of "
            f"{parts[-1]['frames'][1]} frames and an analysis of {analysis.frame_count}; restore "
            "the whole with --keep-job --overwrite"
        )
    return FinishedJob(
        analysis=analysis,
        segments=[Segment(i, *part["frames"]) for i, part in enumerate(parts)],
        restorers=tuple(tuple(part["restorers"]) for part in parts),
        counts=tuple(part["counts"] for part in parts),
        strength=note["strength"],
        encoding=note["encoding"],
        stream_index=note["stream_index"],
        sha256=note["sha256"],
        shots=wanted,
    )


def note_job(
    work: WorkFolder,
    output: Path,
    analysis: Analysis,
    segments: Sequence[Segment],
    *,
    counts: Sequence[Mapping[str, Any]],
    restorers: Sequence[tuple[str, ...]],
    strength: float,
    encoding: Encoding,
    stream_index: int,
) -> None:
    """Note in the work folder what `kept_job` must know of the job that wrote `output`."""
    storage.save(analysis, work.path / ANALYSIS)
    parts = [
        {"frames": [segment.first, segment.end], "restorers": names, "counts": counted}
        for segment, names, counted in zip(segments, restorers, counts, strict=True)
    ]
    note = {"segments": parts, "strength": strength, "encoding": _described(encoding)}
    work.keep(output, note | {"stream_index": stream_index})


def check_encoding(kept: FinishedJob, encoding: Encoding, target: Path) -> None:
    """UsageError where new packets would not go with the old ones."""
    was, now = dict(kept.encoding), _described(encoding)
    if was != now:
        differ = [f"{k} {was[k]} and not {now[k]}" for k in was if was[k] != now[k]]
        raise UsageError(
            f"{target} was encoded with {', '.join(differ)}, and its shots can only be redone with "
            "the same; leave codec, quality and preset as they were"
        )


def plan_redo(kept: FinishedJob, analysis: Analysis, source: Path) -> Redo:
    """The frames between cuts at which a segment begins, around the shots asked for.

    `analysis` is the one under the settings and choices of now. UsageError where its frames or cuts
    are not those of the job.
    """
    old = kept.analysis
    if analysis.shots != old.shots:
        raise UsageError(
            f"under these settings {source} has other shots than when it was restored; leave what "
            "finds the cuts as it was"
        )
    if not (np.array_equal(analysis.pts, old.pts) and np.array_equal(analysis.crc32, old.crc32)):
        raise UsageError(
            f"under these settings {source} gives other frames than when it was restored; leave "
            "--start, --end and what decodes as they were"
        )
    file_info = analysis.info if analysis.fields is None else analysis.fields.info
    storage.check_picture(old, file_info, "what the job kept")
    cuts = {start for start, _ in old.shots}
    edges = [segment.first for segment in kept.segments if segment.first in cuts]
    asked = [old.shots[number - 1][0] for number in kept.shots]
    frames = tuple(
        (first, end)
        for first, end in pairwise([*edges, old.frame_count])
        if any(first <= start < end for start in asked)
    )
    shots = tuple(n for n, (start, _) in enumerate(old.shots, 1) if _lies_in(start, frames))
    tracks = [track for track in old.tracks if not _lies_in(track.first_frame, frames)]
    new = [track for track in analysis.tracks if _lies_in(track.first_frame, frames)]
    tracks += _numbered_apart(new, tracks)
    neighbours = [str(number) for number in shots if number not in kept.shots]
    notes: tuple[str, ...] = ()
    if neighbours:
        notes = (
            f"redone as well: shots {', '.join(neighbours)}, encoded in one piece with those asked "
            "for because some are too short for one of their own",
        )
    merged = replace(
        old, tracks=tuple(tracks), skipped=_skipped(old, analysis, frames),
        template=analysis.template, people_are_joined=analysis.people_are_joined,
    )  # fmt: skip
    return Redo(kept, merged, frames, shots, notes)


def take_segments(redo: Redo, work: WorkFolder, target: Path, suffix: str) -> dict[int, str]:
    """Put the segments that are not redone into the work folder, out of the finished `target`.

    Their numbers, and as what `WorkFolder.find` finds them.
    """
    kept = redo.kept
    left = [segment for segment in kept.segments if not redo.has(segment.first)]
    keys = {s.number: f"{kept.sha256} {s.first} {s.end}" for s in left}
    missing = [s for s in left if work.find(name_of(s), suffix, keys[s.number]) is None]
    places = [work.place(name_of(segment), suffix) for segment in missing]
    wanted = [
        (*in_output(redo.analysis, s.first, s.end), path)
        for s, path in zip(missing, places, strict=True)
    ]
    if not missing:
        return keys
    analysis = frames_of_output(redo.analysis)
    extract_segments(target, kept.stream_index, wanted, analysis.pts.tolist(), analysis.info)
    for segment, path in zip(missing, places, strict=True):
        number = segment.number
        work.finish(name_of(segment), keys[number], segment_file(path, kept.counts[number]))
    return keys


def restorers_of_segments(
    segments: Sequence[Segment],
    analysis: Analysis,
    restorers: Sequence[tuple[int, RestorerInfo]],
    redo: Redo | None,
) -> list[tuple[str, ...]]:
    """Of each segment, the names of the restorers that its faces needed."""
    names = []
    for segment in segments:
        if redo is not None and not redo.has(segment.first):
            names.append(redo.kept.restorers[segment.number])
        else:
            used = restorers_used(restorers, analysis, segment.first, segment.end)
            names.append(tuple(dict.fromkeys(restorer.name for _, restorer in used)))
    return names


def _numbered_apart(tracks: Sequence[Track], others: Sequence[Track]) -> list[Track]:
    """The tracks, those whose number one of the others has with another that is free: what was
    counted in the old segments goes by it."""
    taken = {track.track_id for track in others}
    free = count(max((track.track_id for track in (*tracks, *others)), default=0) + 1)
    return [
        replace(track, track_id=next(free)) if track.track_id in taken else track
        for track in tracks
    ]


def _skipped(old: Analysis, new: Analysis, frames: Sequence[tuple[int, int]]) -> Mapping[str, int]:
    """What the job left out, and what more is left out now where it is redone."""
    before, now = (
        sum(
            int(np.count_nonzero(track.strength))
            for track in analysis.tracks
            if _lies_in(track.first_frame, frames)
        )
        for analysis in (old, new)
    )
    more = {"left out where shots were redone": before - now} if now < before else {}
    return {**old.skipped, **more}


def _numbers(text: str, shots: int) -> frozenset[int]:
    """Those of "3,7-9"; UsageError for others than 1 to `shots`."""
    parts = [
        re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", part.strip()) for part in text.split(",")
    ]
    pairs = [(int(part[1]), int(part[2] or part[1])) for part in parts if part is not None]
    if len(pairs) < len(parts) or any(last < first for first, last in pairs):
        raise UsageError(
            f"shots to redo are written as numbers, such as 37 or 3,7-9, not {quoted(text)}"
        )
    wrong = [number for pair in pairs for number in pair if not 1 <= number <= shots]
    if wrong:
        allowed = f"shots 1 to {shots}" if shots > 1 else "only shot 1"
        raise UsageError(f"there is no shot {wrong[0]} to redo: the video has {allowed}")
    return frozenset(chain.from_iterable(range(first, last + 1) for first, last in pairs))


def _described(encoding: Encoding) -> dict[str, str]:
    return {
        "encoder": encoding.encoder,
        "pixels": encoding.pixel_format,
        "container": encoding.suffix,
        "options": " ".join(f"{k}={v}" for k, v in sorted(encoding.options.items())),
    }


def _lies_in(frame: int, frames: Sequence[tuple[int, int]]) -> bool:
    return any(first <= frame < end for first, end in frames)

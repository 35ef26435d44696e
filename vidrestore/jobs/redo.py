"""Render single shots of a finished output anew, and copy all other packets from that output."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from vidrestore.analysis import storage
from vidrestore.analysis.result import Analysis, frames_of_output, in_output
from vidrestore.analysis.tracks import Track
from vidrestore.common.checksums import sha256_of_file
from vidrestore.common.counting import counted
from vidrestore.common.errors import InputError, UsageError
from vidrestore.common.quoting import quoted
from vidrestore.common.settings import Extent
from vidrestore.imaging.frame import VideoInfo
from vidrestore.jobs.render import name_of
from vidrestore.jobs.work_folder import ANALYSIS, WorkFolder, segment_file
from vidrestore.media.codecs import Encoding
from vidrestore.media.concat import extract_segments
from vidrestore.media.probe import fingerprint
from vidrestore.models.restorers import RestorerInfo
from vidrestore.models.restorers.assignment import Assignment
from vidrestore.restoration.segments import Segment, restorers_used
from vidrestore.restoration.upscaling import Scaling

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class FinishedJob:
    """A finished job, segment by segment, and the shots of it that are to be rendered anew."""

    analysis: Analysis
    """The analysis of the finished job, with the choices of its user."""
    segments: list[Segment]
    restorers: tuple[tuple[str, ...], ...]
    """For each segment, the names of the restorers that its faces needed."""
    strength: float
    """The greatest strength of pasting in the output, 0 to 1."""
    extent: Extent
    """The greatest extent of pasting in the output."""
    encoding: Mapping[str, str]
    """The encoder of the video stream, its pixel format, container and options."""
    stream_index: int
    """The index of the restored stream in the output."""
    sha256: str
    """The hash of the whole output file."""
    counts: tuple[Mapping[str, Any], ...]
    """For each segment, the values of its `RestorationStats`."""
    shots: frozenset[int]
    """The numbers, from 1, of the shots that the user asked for."""
    scaling: tuple[int, str | None] | None = None
    """How the output was enlarged, as `Scaling.content`; None: it was not."""
    labels: Mapping[int, str] = field(default_factory=dict)
    """Number of a track -> the name of the restorer of its faces, for the summary; empty where an
    earlier version finished the job."""


@dataclass(frozen=True, slots=True)
class Redo:
    """The part of a finished job that is rendered anew."""

    kept: FinishedJob
    """The finished job."""
    analysis: Analysis
    """The new analysis in the shots that are redone, and the old one elsewhere."""
    frames: tuple[tuple[int, int], ...]
    """[first, end) of the frames that are rendered, in whole segments and whole shots."""
    shots: tuple[int, ...]
    """The numbers, from 1, of the shots that are rendered."""
    notes: tuple[str, ...]
    """Notices for the user, one sentence each."""
    numbers: Mapping[int, int]
    """Number of a track that is rendered anew -> its number in `analysis`."""

    def numbered(self, of_tracks: Mapping[int, Value]) -> dict[int, Value]:
        """Renumber values of tracks as the tracks are.

        Args:
            of_tracks: Number of a track in the analysis under the present settings -> a value.

        Returns:
            Number of the track in `analysis` -> the value, for the tracks that are rendered anew.
        """
        return {
            self.numbers[track]: value
            for track, value in of_tracks.items()
            if track in self.numbers
        }

    def labels_of_kept(self) -> dict[int, str]:
        """Return `FinishedJob.labels` of the tracks that are not rendered anew."""
        anew = set(self.numbers.values())
        return {track: label for track, label in self.kept.labels.items() if track not in anew}

    def has(self, frame: int) -> bool:
        """Tell whether a frame is rendered anew.

        Args:
            frame: The index of the frame, from 0.

        Returns:
            True where one of the ranges of `frames` includes it.
        """
        return _lies_in(frame, self.frames)


def kept_job(work: WorkFolder, source: Path, target: Path, shots: str) -> FinishedJob:
    """Read what the job that wrote `target` kept.

    Args:
        work: The work folder of that job.
        source: The video that the job restored.
        target: The output of the job.
        shots: The numbers, from 1, of the shots to redo, such as "3,7-9".

    Returns:
        The finished job.

    Raises:
        UsageError: The job kept nothing, `target` is not the file that it wrote, or the video has
            no such shot.
        InputError: The source is another video.
    """
    note, before = work.kept(), work.source()
    if note is None or before is None:
        raise UsageError(
            f"there is no kept job of {target}; restore the whole video with --keep-job before "
            "--redo-shots"
        )
    if before != fingerprint(source):
        raise InputError(
            f"{target} was made from another video than {source}, or {source} has changed since; "
            "give the video that the output was made from"
        )
    analysis = storage.load(work.path / ANALYSIS, f"restore the whole of {source} with --keep-job")
    wanted = _numbers(shots, len(analysis.shots))
    if sha256_of_file(target) != note["sha256"]:
        raise UsageError(
            f"{target} has changed since its job wrote it, so its shots cannot be copied; restore "
            "the whole video with --keep-job --overwrite"
        )
    parts = note["segments"]
    if parts[-1]["frames"][1] != analysis.frame_count:
        raise UsageError(
            f"the files of the kept job in {work.path} contradict each other: the segments have "
            f"{counted(parts[-1]['frames'][1], 'frame')} and the analysis {analysis.frame_count}; "
            "restore the whole video with --keep-job --overwrite"
        )
    return FinishedJob(
        analysis=analysis,
        segments=[Segment(i, *part["frames"]) for i, part in enumerate(parts)],
        restorers=tuple(tuple(part["restorers"]) for part in parts),
        counts=tuple(part["counts"] for part in parts),
        strength=note["strength"],
        extent=note["extent"],
        encoding=note["encoding"],
        stream_index=note["stream_index"],
        sha256=note["sha256"],
        shots=wanted,
        scaling=None if note.get("scaling") is None else tuple(note["scaling"].values()),
        labels={int(track): label for track, label in note.get("labels", {}).items()},
    )


def note_job(
    work: WorkFolder,
    output: Path,
    analysis: Analysis,
    segments: Sequence[Segment],
    *,
    counts: Sequence[Mapping[str, Any]],
    restorers: Sequence[tuple[str, ...]],
    labels: Mapping[int, str],
    strength: float,
    extent: Extent,
    encoding: Encoding,
    stream_index: int,
    scaling: Scaling | None,
) -> None:
    """Write into the work folder what `kept_job` reads.

    Args:
        work: The work folder of the job.
        output: The finished file.
        analysis: The analysis that the faces were restored with.
        segments: The segments of the output, in order.
        counts: For each segment, the values of its `RestorationStats`.
        restorers: For each segment, the names of its restorers.
        labels: Number of a track -> the name of the restorer of its faces, for the summary.
        strength: The greatest strength of pasting, 0 to 1.
        extent: The greatest extent of pasting.
        encoding: The encoding of the video stream.
        stream_index: The index of the restored stream in the output.
        scaling: How the frames were enlarged; None: they were not.
    """
    storage.save(analysis, work.path / ANALYSIS)
    parts = [
        {"frames": [segment.first, segment.end], "restorers": names, "counts": counted}
        for segment, names, counted in zip(segments, restorers, counts, strict=True)
    ]
    note = {"segments": parts, "strength": strength, "extent": extent}
    note["labels"] = {str(track): label for track, label in labels.items()}
    note |= {"encoding": _described(encoding), "stream_index": stream_index}
    if scaling is not None:
        factor, sha256 = scaling.content
        note["scaling"] = {"factor": factor, "upscaler_sha256": sha256}
    work.keep(output, note)


def check_encoding(kept: FinishedJob, encoding: Encoding, target: Path) -> None:
    """Check that new packets and the old ones can share one stream.

    Args:
        kept: The finished job.
        encoding: The encoding of the new packets.
        target: The output of the job, for the message.

    Raises:
        UsageError: Encoder, pixel format, container or options differ.
    """
    was, now = dict(kept.encoding), _described(encoding)
    if was != now:
        differ = [f"{k} {was[k]} and not {now[k]}" for k in was if was[k] != now[k]]
        raise UsageError(
            f"{target} was encoded with {', '.join(differ)}, and its shots can only be redone with "
            "the same encoding; give codec, quality, preset and encode.copy_untouched as before"
        )


def check_scaling(kept: FinishedJob, scaling: Scaling | None, target: Path) -> None:
    """Check that new frames are enlarged as the old ones were.

    Args:
        kept: The finished job.
        scaling: How the new frames are enlarged; None: they are not.
        target: The output of the job, for the message.

    Raises:
        UsageError: The factor or the network differs.
    """
    now = None if scaling is None else scaling.content
    if now != kept.scaling:
        raise UsageError(
            f"{target} is {_enlarged(kept.scaling)}, and its redone shots would be "
            f"{_enlarged(now)}; give --scale and --upscaler as before"
        )


def _enlarged(content: tuple[int, str | None] | None) -> str:
    """Describe an enlargement for a message."""
    if content is None:
        return "as large as its source"
    factor, sha256 = content
    how = "Lanczos" if sha256 is None else f"the network with the SHA-256 {sha256}"
    return f"{factor} times as large as its source, by {how}"


def plan_redo(kept: FinishedJob, analysis: Analysis, source: Path) -> Redo:
    """Choose the frames to render: the shots asked for, widened to whole segments.

    Args:
        kept: The finished job.
        analysis: The analysis under the present settings and choices.
        source: The video, for messages.

    Returns:
        The part that is rendered anew.

    Raises:
        UsageError: The frames or the cuts of `analysis` are not those of the job.
    """
    old = kept.analysis
    if analysis.shots != old.shots:
        raise UsageError(
            f"under these settings {source} has other shots than when it was restored; give the "
            "settings that detect cuts as before"
        )
    if not (np.array_equal(analysis.pts, old.pts) and np.array_equal(analysis.crc32, old.crc32)):
        raise UsageError(
            f"under these settings {source} gives other frames than when it was restored; give "
            "--start, --end and the settings of decoding as before"
        )
    file_info = analysis.info if analysis.fields is None else analysis.fields.info
    storage.check_picture(old, file_info, "what the job kept")
    cuts = {start for start, _ in old.shots}
    edges = [segment.first for segment in kept.segments if segment.first in cuts]
    asked = sorted(old.shots[number - 1][0] for number in kept.shots)
    frames = tuple(
        (first, end)
        for first, end in pairwise([*edges, old.frame_count])
        if bisect_left(asked, first) < bisect_left(asked, end)
    )
    shots = tuple(n for n, (start, _) in enumerate(old.shots, 1) if _lies_in(start, frames))
    tracks = [track for track in old.tracks if not _lies_in(track.first_frame, frames)]
    new = [track for track in analysis.tracks if _lies_in(track.first_frame, frames)]
    apart = _numbered_apart(new, tracks)
    numbers = {track.track_id: other.track_id for track, other in zip(new, apart, strict=True)}
    tracks += apart
    neighbors = [str(number) for number in shots if number not in kept.shots]
    notes: tuple[str, ...] = ()
    if neighbors:
        notes = (
            f"redone as well: shots {', '.join(neighbors)}, because they are in one segment with "
            "the requested shots",
        )
    merged = replace(
        old, tracks=tuple(tracks), skipped=_skipped(old, analysis, frames),
        template=analysis.template, people_are_joined=analysis.people_are_joined,
        detector=" and ".join(dict.fromkeys(filter(None, (old.detector, analysis.detector)))),
    )  # fmt: skip
    return Redo(kept, merged, frames, shots, notes, numbers)


def take_segments(
    redo: Redo, work: WorkFolder, target: Path, suffix: str, info: VideoInfo
) -> dict[int, str]:
    """Copy the segments that are not redone from the finished output into the work folder.

    Args:
        redo: The part that is rendered anew.
        work: The work folder.
        target: The finished output.
        suffix: The suffix of segment files, with its dot.
        info: The properties of the output's frames.

    Returns:
        Number of a segment -> the key by which `WorkFolder.find` finds it.
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
    times = frames_of_output(redo.analysis).pts.tolist()
    extract_segments(target, kept.stream_index, wanted, times, info)
    for segment, path in zip(missing, places, strict=True):
        number = segment.number
        work.finish(name_of(segment), keys[number], segment_file(path, kept.counts[number]))
    return keys


def restorers_of_segments(
    segments: Sequence[Segment],
    analysis: Analysis,
    restorers: Assignment[RestorerInfo],
    redo: Redo | None,
) -> list[tuple[str, ...]]:
    """Name the restorers that the faces of each segment need.

    Args:
        segments: The segments of the output, in order.
        analysis: The analysis of the whole video.
        restorers: The properties of the restorers.
        redo: The part that is rendered anew; None: all.

    Returns:
        For each segment, the names; those of a segment that is not redone are the finished job's.
    """
    names = []
    for segment in segments:
        if redo is not None and not redo.has(segment.first):
            names.append(redo.kept.restorers[segment.number])
        else:
            used = restorers_used(restorers, analysis, segment.first, segment.end)
            names.append(tuple(dict.fromkeys(restorer.name for _, restorer in used)))
    return names


def _numbered_apart(tracks: Sequence[Track], others: Sequence[Track]) -> list[Track]:
    """Give tracks whose number is taken a free one, since the old counts name tracks by number."""
    taken = {track.track_id for track in others}
    free = count(max((track.track_id for track in (*tracks, *others)), default=0) + 1)
    return [
        replace(track, track_id=next(free)) if track.track_id in taken else track
        for track in tracks
    ]


def _skipped(old: Analysis, new: Analysis, frames: Sequence[tuple[int, int]]) -> Mapping[str, int]:
    """Count what the job left out, and what is left out in addition where shots are redone."""
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
    """Read numbers such as "3,7-9"; UsageError for numbers that are not between 1 and `shots`."""
    parts = [
        re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", part.strip()) for part in text.split(",")
    ]
    pairs = [(int(part[1]), int(part[2] or part[1])) for part in parts if part is not None]
    if len(pairs) < len(parts) or any(last < first for first, last in pairs):
        raise UsageError(
            f"the shots to redo must be numbers, such as 37 or 3,7-9, not {quoted(text)}"
        )
    wrong = [number for pair in pairs for number in pair if not 1 <= number <= shots]
    if wrong:
        allowed = f"shots 1 to {shots}" if shots > 1 else "only shot 1"
        raise UsageError(f"there is no shot {wrong[0]} to redo: the video has {allowed}")
    return frozenset(chain.from_iterable(range(first, last + 1) for first, last in pairs))


def _described(encoding: Encoding) -> dict[str, str]:
    """Return the properties of an encoding that the packets of one stream must share."""
    return {
        "encoder": encoding.encoder,
        "pixels": encoding.pixel_format,
        "container": encoding.suffix,
        "options": " ".join(f"{k}={v}" for k, v in sorted(encoding.options.items())),
    }


def _lies_in(frame: int, frames: Sequence[tuple[int, int]]) -> bool:
    """Tell whether a frame is in one of the ranges [first, end), which are in order."""
    at = bisect_right(frames, frame, key=itemgetter(0)) - 1
    return at >= 0 and frame < frames[at][1]

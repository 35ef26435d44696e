"""What was done and what was not, counted."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, field
from typing import Any

from vidrestore.frame import Analysis, OnEvent
from vidrestore.threads import StageTime

STRETCH_FRAMES = 12
"""Frames whose likeness is summed, so that its course over time can be told in little room."""


@dataclass(slots=True)
class Likeness:
    """How like its source a restored face was, summed over frames of a track."""

    frames: int = 0
    reduced: int = 0
    """Of these, in how many less of it was used for that."""
    looks: int = 0
    """How often a recogniser could tell."""
    features: float = 0.0
    """Of the restored face; likewise, as the guard let it through:"""
    features_used: float = 0.0
    identity: float = 0.0
    """Cosines, of the restored face; likewise, as the guard let it through:"""
    identity_used: float = 0.0
    share: float = 0.0
    """How much of the restored face the guard let through, 1 being all."""

    def as_list(self) -> list[float]:
        """Its values in order, to the sixth decimal."""
        return [round(value, 6) for value in astuple(self)]

    def add(self, other: Likeness) -> None:
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(slots=True)
class Tally:
    """What pass two did, counted while it runs."""

    faces: int = 0
    """(face, frame) pairs pasted."""
    repeated: int = 0
    """(face, frame) pairs that show what the frame before showed, and have its result."""
    kept: int = 0
    """(face, frame) pairs whose result an earlier run or segment kept."""
    unparsed: int = 0
    """(face, frame) pairs in which the parser saw no face."""
    not_restored: Counter[str] = field(default_factory=Counter)
    """Reason -> (face, frame) pairs left as they were."""
    notes: dict[str, str] = field(default_factory=dict)
    """What a person should know, one sentence for each cause."""
    likeness: dict[int, dict[int, Likeness]] = field(default_factory=dict)
    """Track -> stretch of `STRETCH_FRAMES` frames, by number from 0 -> what the guard found."""
    stages: dict[str, StageTime] = field(default_factory=dict)
    """Where the time of each stage went, in order."""
    frames: range | None = None
    """Faces of frames outside do not count: they are only looked at; None: all count."""

    def counts(self, index: int) -> bool:
        """Whether the faces of that frame count."""
        return self.frames is None or index in self.frames

    def add_stages(self, times: Mapping[str, StageTime]) -> None:
        for name, own in times.items():
            self.stages.setdefault(name, StageTime()).add(own)

    def add_likeness(self, track: int, index: int, found: Likeness) -> None:
        """Of a face of frame `index`."""
        stretches = self.likeness.setdefault(track, {})
        stretches.setdefault(index // STRETCH_FRAMES, Likeness()).add(found)

    def likeness_of(self, track: int) -> Likeness:
        """Of all frames of a track."""
        whole = Likeness()
        for found in self.likeness.get(track, {}).values():
            whole.add(found)
        return whole

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "faces": self.faces,
            "repeated": self.repeated,
            "kept": self.kept,
            "unparsed": self.unparsed,
            "not_restored": dict(self.not_restored),
            "notes": dict(self.notes),
            "likeness": {
                str(track): {str(at): found.as_list() for at, found in stretches.items()}
                for track, stretches in self.likeness.items()
            },
            "stages": {name: asdict(own) for name, own in self.stages.items()},
        }

    def add(self, counts: Mapping[str, Any]) -> None:
        """What another part counted, as `as_dict` gives it."""
        self.faces += counts["faces"]
        self.repeated += counts["repeated"]
        self.kept += counts["kept"]
        self.unparsed += counts["unparsed"]
        self.not_restored.update(counts["not_restored"])
        self.notes.update(counts["notes"])
        for track, stretches in counts["likeness"].items():
            for at, found in stretches.items():
                self.add_likeness(int(track), int(at) * STRETCH_FRAMES, Likeness(*found))
        self.add_stages({name: StageTime(**own) for name, own in counts["stages"].items()})


class Stopwatch:
    """Of a pass, from where it is made."""

    def __init__(self) -> None:
        self._wall, self._processor = time.monotonic(), time.process_time()

    def report(self, on_event: OnEvent | None, name: str, stages: Mapping[str, StageTime]) -> None:
        """Tell as an event what each stage of the pass cost, and how busy this process was."""
        if on_event is not None:
            on_event({
                "event": "stages", "pass": name,
                "seconds": time.monotonic() - self._wall,
                "processor_seconds": time.process_time() - self._processor,
                "stages": {each: asdict(own) for each, own in stages.items()},
            })  # fmt: skip


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


def likeness_by_track(tally: Tally, analysis: Analysis) -> tuple[TrackLikeness, ...]:
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

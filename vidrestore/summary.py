"""What was done and what was not, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Tally:
    """What pass two did, counted while it runs."""

    faces: int = 0
    """(face, frame) pairs pasted."""
    repeated: int = 0
    """(face, frame) pairs that show what the frame before showed, and have its result."""
    not_restored: Counter[str] = field(default_factory=Counter)
    """Reason -> (face, frame) pairs left as they were."""
    notes: dict[str, str] = field(default_factory=dict)
    """What a person should know, one sentence for each cause."""
    frames: range | None = None
    """Faces of frames outside do not count: they are only looked at; None: all count."""

    def counts(self, index: int) -> bool:
        """Whether the faces of that frame count."""
        return self.frames is None or index in self.frames

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "faces": self.faces,
            "repeated": self.repeated,
            "not_restored": dict(self.not_restored),
            "notes": dict(self.notes),
        }

    def add(self, counts: Mapping[str, Any]) -> None:
        """What another part counted, as `as_dict` gives it."""
        self.faces += counts["faces"]
        self.repeated += counts["repeated"]
        self.not_restored.update(counts["not_restored"])
        self.notes.update(counts["notes"])


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
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Reason -> how many (face, frame) pairs were left as they were."""
    corrupt_frames: int = 0
    missing_frames: int = 0
    """Frames that the file claims but that could not be decoded."""
    codec: str = ""
    """Of the new video stream."""
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
    return value

"""What pass two counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from vidrestore.common.stage_times import StageTime

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


_Count = Annotated[int, Field(ge=0, le=2**53)]
_Seconds = Annotated[float, Field(ge=0, le=1e12)]
_Sum = Annotated[float, Field(ge=-1e12, le=1e12)]
# Of tracks and stretches, which JSON has as texts.
_Number = Annotated[str, Field(pattern="^(0|[1-9][0-9]{0,11})$")]


class _Checked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _Stage(_Checked):
    """As `asdict` gives a `StageTime`."""

    items: _Count
    busy_seconds: _Seconds
    processor_seconds: _Seconds
    starved_seconds: _Seconds
    held_seconds: _Seconds


# As `Likeness.as_list` gives them: frames, reduced, looks, and five sums. JSON has no tuples.
_LikenessValues = Annotated[
    tuple[
        Annotated[int, Field(ge=1, le=2**53)], _Count, _Count, _Sum, _Sum, _Sum, _Sum, _Sum,
    ],
    Field(strict=False),
]  # fmt: skip


class Counts(_Checked):
    """What `RestorationStats.as_dict` gives, once it comes from a disk; `RestorationStats.add`
    takes what fits this."""

    faces: _Count
    repeated: _Count
    kept: _Count
    unparsed: _Count
    not_restored: dict[str, _Count]
    notes: dict[str, str]
    likeness: dict[_Number, dict[_Number, _LikenessValues]]
    stages: dict[str, _Stage]


@dataclass(slots=True)
class RestorationStats:
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

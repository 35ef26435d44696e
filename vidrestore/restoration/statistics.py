"""Statistics: what the second pass counts while it runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from vidrestore.common.stage_times import StageTime

STRETCH_FRAMES = 12
"""The number of frames over which similarity is summed, so that its course over time takes little
room.
"""


@dataclass(slots=True)
class Likeness:
    """How similar restored faces are to their sources, summed over frames of a track."""

    frames: int = 0
    """The number of frames."""
    reduced: int = 0
    """The number of frames in which the guard used less of the restored face."""
    comparisons: int = 0
    """The number of frames in which the recognizer compared the faces."""
    features: float = 0.0
    """The sum of the correlations of features between the restored faces and their sources."""
    features_used: float = 0.0
    """The sum of the correlations of features between the faces that the guard let through and
    their sources.
    """
    identity: float = 0.0
    """The sum of the cosines of identity between the restored faces and their sources."""
    identity_used: float = 0.0
    """The sum of the cosines of identity between the faces that the guard let through and their
    sources.
    """
    share: float = 0.0
    """The sum of the shares of the restored faces that the guard let through; 1 for a frame is all.
    """
    expressions: int = 0
    """The number of frames in which the guard used less of an eye or the mouth."""

    def as_list(self) -> list[float]:
        """Return the values in the order of the fields, rounded to six decimals."""
        return [round(value, 6) for value in astuple(self)]

    def add(self, other: Likeness) -> None:
        """Add the sums of other frames to these.

        Args:
            other: The sums to add; it stays unchanged.
        """
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


_Count = Annotated[int, Field(ge=0, le=2**53)]
_Seconds = Annotated[float, Field(ge=0, le=1e12)]
_Sum = Annotated[float, Field(ge=-1e12, le=1e12)]
# JSON holds the numbers of tracks and stretches as strings.
_Number = Annotated[str, Field(pattern="^(0|[1-9][0-9]{0,11})$")]


class _Checked(BaseModel):
    """A model that refuses unknown keys, other types and numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _Stage(_Checked):
    """One `StageTime` in the form that `asdict` gives."""

    items: _Count
    busy_seconds: _Seconds
    processor_seconds: _Seconds
    starved_seconds: _Seconds
    held_seconds: _Seconds


# The values of `Likeness.as_list`: frames, reduced, looks, five sums, and expressions. JSON has no
# tuples.
_LikenessValues = Annotated[
    tuple[
        Annotated[int, Field(ge=1, le=2**53)], _Count, _Count, _Sum, _Sum, _Sum, _Sum, _Sum,
        _Count,
    ],
    Field(strict=False),
]  # fmt: skip


class Counts(_Checked):
    """The form of what `RestorationStats.as_dict` returns.

    vidrestore checks counts that it reads from a disk with this model before it gives them to
    `RestorationStats.add`.
    """

    faces: _Count
    """As `RestorationStats.faces`: (face, frame) pairs that were pasted."""
    repeated: _Count
    """As `RestorationStats.repeated`: pairs that share the result of the frame before."""
    kept: _Count
    """As `RestorationStats.kept`: pairs whose result an earlier run or segment had kept."""
    between: _Count
    """As `RestorationStats.between`: pairs whose crop was made of restored key frames."""
    fast: _Count
    """As `RestorationStats.fast`: pairs that key frames would not have saved enough of."""
    unparsed: _Count
    """As `RestorationStats.unparsed`: pairs in which the parser found no face."""
    pasted: dict[_Number, _Count] = Field(default_factory=dict)
    """As `RestorationStats.pasted`, with the numbers of tracks as strings; earlier versions counted
    none.
    """
    copied: _Count = 0
    """As `RestorationStats.copied`: frames with the packet of the source; earlier versions copied
    none.
    """
    not_restored: dict[str, _Count]
    """As `RestorationStats.not_restored`: pairs that stayed as they were, by reason."""
    notes: dict[str, str]
    """As `RestorationStats.notes`: one sentence for each cause."""
    likeness: dict[_Number, dict[_Number, _LikenessValues]]
    """The values of `Likeness.as_list` by track and stretch, whose numbers are strings."""
    stages: dict[str, _Stage]
    """The fields of `StageTime` by the name of the stage."""


@dataclass(slots=True)
class RestorationStats:
    """What the second pass did, counted while it runs."""

    faces: int = 0
    """The number of (face, frame) pairs that were pasted."""
    pasted: Counter[int] = field(default_factory=Counter)
    """The number of frames in which a face was pasted, by track."""
    repeated: int = 0
    """The number of (face, frame) pairs with the same crops as in the frame before, whose result
    they share.
    """
    kept: int = 0
    """The number of (face, frame) pairs whose result an earlier run or segment had kept."""
    between: int = 0
    """The number of (face, frame) pairs whose crop was made of restored key frames."""
    fast: int = 0
    """The number of (face, frame) pairs of tracks with key frames, in stretches of so fast a motion
    or so few frames that the network restored every frame.
    """
    unparsed: int = 0
    """The number of (face, frame) pairs in which the parser found no face."""
    copied: int = 0
    """The number of frames that have the packet of the source, since nothing was pasted."""
    not_restored: Counter[str] = field(default_factory=Counter)
    """The number of (face, frame) pairs that stayed as they were, by reason."""
    notes: dict[str, str] = field(default_factory=dict)
    """Notices for the user, one sentence for each cause."""
    likeness: dict[int, dict[int, Likeness]] = field(default_factory=dict)
    """The similarity by track, then by stretch of `STRETCH_FRAMES` frames, numbered from 0."""
    stages: dict[str, StageTime] = field(default_factory=dict)
    """The time of each stage by its name, in the order of the stages."""
    frames: range | None = None
    """The frames whose faces count; faces of other frames are only context. None: all frames count.
    """

    def counts(self, index: int) -> bool:
        """Return whether the faces of a frame count.

        Args:
            index: The index of the frame.

        Returns:
            True where the frame lies in `frames`, or where `frames` is None.
        """
        return self.frames is None or index in self.frames

    def add_stages(self, times: Mapping[str, StageTime]) -> None:
        """Add the times of stages to those counted so far.

        Args:
            times: The time of each stage by the name of the stage.
        """
        for name, time in times.items():
            self.stages.setdefault(name, StageTime()).add(time)

    def add_likeness(self, track: int, index: int, found: Likeness) -> None:
        """Add the similarity of a face of one frame.

        Args:
            track: The number of the track.
            index: The index of the frame.
            found: The similarity of the face.
        """
        stretches = self.likeness.setdefault(track, {})
        stretches.setdefault(index // STRETCH_FRAMES, Likeness()).add(found)

    def likeness_of(self, track: int) -> Likeness:
        """Sum the similarity over all frames of a track.

        Args:
            track: The number of the track.

        Returns:
            The sums; all zero where the track is not known.
        """
        whole = Likeness()
        for found in self.likeness.get(track, {}).values():
            whole.add(found)
        return whole

    def as_dict(self) -> dict[str, Any]:
        """Return the counts as plain values that JSON can hold."""
        return {
            "faces": self.faces,
            "pasted": {str(track): count for track, count in self.pasted.items()},
            "repeated": self.repeated,
            "kept": self.kept,
            "between": self.between,
            "fast": self.fast,
            "unparsed": self.unparsed,
            "copied": self.copied,
            "not_restored": dict(self.not_restored),
            "notes": dict(self.notes),
            "likeness": {
                str(track): {str(at): found.as_list() for at, found in stretches.items()}
                for track, stretches in self.likeness.items()
            },
            "stages": {name: asdict(own) for name, own in self.stages.items()},
        }

    def add(self, counts: Mapping[str, Any]) -> None:
        """Add what another part of the run counted.

        Args:
            counts: Counts as `as_dict` returns them. A value that may be damaged must have passed
                `Counts` before.
        """
        self.faces += counts["faces"]
        self.pasted.update({int(track): n for track, n in counts.get("pasted", {}).items()})
        self.repeated += counts["repeated"]
        self.kept += counts["kept"]
        self.between += counts["between"]
        self.fast += counts["fast"]
        self.unparsed += counts["unparsed"]
        self.copied += counts.get("copied", 0)
        self.not_restored.update(counts["not_restored"])
        self.notes.update(counts["notes"])
        for track, stretches in counts["likeness"].items():
            for at, found in stretches.items():
                self.add_likeness(int(track), int(at) * STRETCH_FRAMES, Likeness(*found))
        self.add_stages({name: StageTime(**own) for name, own in counts["stages"].items()})

"""The assignment of restorers to faces: by the frame, or by the track of a person."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Generic, TypeVar

Kind = TypeVar("Kind", covariant=True)
Other = TypeVar("Other")


@dataclass(frozen=True, slots=True)
class Assignment(Generic[Kind]):
    """Which restorer restores which face.

    The type of a restorer is that of its name, of its description, or of the open restorer.
    """

    stretches: Sequence[tuple[int, Kind]]
    """(first frame, restorer) of each stretch of frames, in order; the first begins at 0. The
    restorer of a stretch restores the faces of all tracks that have none of their own."""
    of_tracks: Mapping[int, Kind] = field(default_factory=dict)
    """Number of a track -> its own restorer, in all of its frames. Default: no track has one."""

    def at(self, frame: int) -> Kind:
        """Return the restorer of the tracks that have none of their own.

        Args:
            frame: The index of the frame.

        Returns:
            The restorer of the stretch that the frame lies in.
        """
        return self.stretches[self._place(frame)][1]

    def each(self) -> list[Kind]:
        """List all restorers.

        Returns:
            Those of the stretches in order, then those of the tracks; one that is assigned several
            times is there several times.
        """
        return [*(restorer for _, restorer in self.stretches), *self.of_tracks.values()]

    def within(self, first: int, end: int) -> Iterator[tuple[int, int, Kind]]:
        """List the stretches that overlap some frames.

        Args:
            first: The first frame.
            end: The frame after the last.

        Yields:
            (first frame, frame after the last, restorer) of each stretch, cut to [first, end).
        """
        stretches, at = self.stretches, self._place(first)
        while at < len(stretches) and stretches[at][0] < end:
            last = stretches[at + 1][0] if at + 1 < len(stretches) else end
            yield max(first, stretches[at][0]), min(end, last), stretches[at][1]
            at += 1

    def converted(self, convert: Callable[[Kind], Other]) -> Assignment[Other]:
        """Convert every restorer.

        Args:
            convert: Converts one restorer, such as a name to the open restorer.

        Returns:
            The assignment of the results to the same faces.
        """
        return Assignment(
            [(first, convert(restorer)) for first, restorer in self.stretches],
            {track: convert(restorer) for track, restorer in self.of_tracks.items()},
        )

    def _place(self, frame: int) -> int:
        """Return the index of the stretch that a frame lies in."""
        return max(0, bisect_right(self.stretches, frame, key=itemgetter(0)) - 1)

"""Reconstruction of film pictures from interlaced frames with 3:2 pulldown.

Four pictures of film last as long as five frames: their fields are shown twice, three times, twice,
three times. The earlier field of each frame therefore matches a later field of the same frame or of
a neighbor frame, and one of the five pictures joined this way repeats another one. `Matches`
records the fields of each picture, from which `rebuild_film_pictures` makes the same pictures from
any frame on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, repeat
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from vidrestore.imaging.frame import Frame
from vidrestore.imaging.planes import luma_8bit, plane

CYCLE, KEPT = 5, 4
# A sample that differs from the lines above and below by more than this, of 255, shows combing.
_COMB = 10
# The later field is taken from a neighbor frame only if combing falls below this share.
_CLEARLY = 0.75
# Share of samples with combing above which the two fields show different moments.
_COMBED = 0.003

_LATER_ROWS = {"tff": 1, "bff": 0}
Luma = npt.NDArray[np.int16]


@dataclass(slots=True)
class Matches:
    """The fields that make up each film picture; `film_pictures` appends to it while it is read."""

    sources: list[tuple[int, int]] = field(default_factory=list)
    """The indices of the frames that the earlier and the later field of each picture come from."""
    combed: int = 0
    """The number of pictures whose fields match no neighbor frame: these are not film."""


def film_pictures(frames: Iterator[Frame], order: str, matches: Matches) -> Iterator[Frame]:
    """Reconstruct four film pictures from each five frames.

    Reads ahead by `CYCLE` + 1 frames. Fewer than five frames at the end are all kept.

    Args:
        frames: Interlaced frames in planar formats, in order of presentation.
        order: The field order, tff or bff.
        matches: Gets the source frames of each picture.

    Yields:
        The pictures, numbered from 0 and evenly spaced; times are in quarter ticks of the clock of
        `frames`.
    """
    cycle: list[_Picture] = []
    number, before = 0, None
    for neighborhood in _with_neighbors(frames):
        picture = _matched(neighborhood, order)
        picture.change = 0.0 if before is None else _difference(before.luma, picture.luma)
        before = picture
        cycle.append(picture)
        if len(cycle) <= CYCLE:
            continue
        for at, kept in enumerate(_without_repeat(cycle[:CYCLE])):
            ticks = cycle[CYCLE].frame.pts - cycle[0].frame.pts
            yield _recorded(kept, number, 4 * cycle[0].frame.pts + at * ticks, ticks, matches)
            number += 1
        cycle = cycle[CYCLE:]
    if not cycle:
        return
    last = cycle[-1].frame
    step = last.duration or 1
    rest = _without_repeat(cycle) if len(cycle) == CYCLE else cycle
    duration = (last.pts + step - cycle[0].frame.pts) * 4 // len(rest)
    for at, kept in enumerate(rest):
        yield _recorded(kept, number, 4 * cycle[0].frame.pts + at * duration, duration, matches)
        number += 1


def rebuild_film_pictures(
    frames: Iterator[Frame],
    order: str,
    sources: npt.NDArray[np.int64],
    pts: npt.NDArray[np.int64],
    first: int,
    end: int,
) -> Iterator[Frame]:
    """Reconstruct film pictures again from the recorded source frames.

    Args:
        frames: Frames in order of presentation that include all sources of the pictures.
        order: The field order, tff or bff.
        sources: (n, 2) frame indices of the earlier and the later field of every picture.
        pts: (n,) times of every picture.
        first: The first picture to make.
        end: The picture after the last one to make.

    Yields:
        The pictures [first, end), without a duration.
    """
    held: dict[int, Frame] = {}
    for number in range(first, end):
        earlier, later = (int(at) for at in sources[number])
        for at in [at for at in held if at < min(earlier, later) - 1]:
            del held[at]
        while max(earlier, later) not in held:
            frame = next(frames)
            held[frame.index] = frame
        image = _joined(held[earlier].image, held[later].image, order)
        made = replace(held[earlier], index=number, pts=int(pts[number]), duration=0, image=image)
        yield replace(made, packet=None)


@dataclass(slots=True)
class _Picture:
    """A picture joined from two fields, and the measures by which it is judged."""

    frame: Frame
    """The frame of the earlier field."""
    later: Frame
    """The frame of the later field."""
    luma: Luma
    """Every other column of the 8-bit luma."""
    combs: float
    """The share of samples with combing."""
    order: str
    """The field order, tff or bff."""
    change: float = 0.0
    """The mean luma difference to the picture before, in 8-bit levels."""


def _with_neighbors(frames: Iterator[Frame]) -> Iterator[tuple[Frame | None, Frame, Frame | None]]:
    """Yield each frame with the frames before and after it, None where there is none."""
    before: Frame | None = None
    current: Frame | None = None
    for after in chain(frames, repeat(None, 1)):
        if current is not None:
            yield before, current, after
        before, current = current, after


def _matched(neighborhood: tuple[Frame | None, Frame, Frame | None], order: str) -> _Picture:
    """Join the earlier field of a frame with the later field, its own or a neighbor's."""
    _, current, _ = neighborhood
    best = None
    for other in (current, neighborhood[0], neighborhood[2]):
        if other is None:
            continue
        luma = _luma(current, other, order)
        combs = _combs(luma)
        if best is None or combs < _CLEARLY * best.combs:
            best = _Picture(current, other, luma, combs, order)
    assert best is not None
    return best


def _without_repeat(pictures: list[_Picture]) -> list[_Picture]:
    """Drop the picture that differs least from the one before it."""
    least = min(range(len(pictures)), key=lambda at: pictures[at].change)
    return [each for at, each in enumerate(pictures) if at != least]


def _recorded(picture: _Picture, number: int, pts: int, duration: int, matches: Matches) -> Frame:
    """Record the source frames of a picture and return it as a frame."""
    matches.sources.append((picture.frame.index, picture.later.index))
    matches.combed += picture.combs > _COMBED
    image = _joined(picture.frame.image, picture.later.image, picture.order)
    return replace(picture.frame, index=number, pts=pts, duration=duration, image=image)


def _joined(earlier: Any, later: Any, order: str) -> Any:
    """Join the earlier field of one picture and the later field of the other in a new picture."""
    image = av.VideoFrame(earlier.width, earlier.height, earlier.format.name)
    rows = _LATER_ROWS[order]
    for number in range(len(image.planes)):
        target = plane(image, number)
        target[...] = plane(earlier, number)
        target[rows::2] = plane(later, number)[rows::2]
    image.colorspace, image.color_range = earlier.colorspace, earlier.color_range
    return image


def _luma(earlier: Frame, later: Frame, order: str) -> Luma:
    """Return the 8-bit luma of the joined picture, every other column."""
    luma = luma_8bit(earlier.image)[:, ::2].astype(np.int16)
    rows = _LATER_ROWS[order]
    luma[rows::2] = luma_8bit(later.image)[rows::2, ::2]
    return luma


def _combs(luma: Luma) -> float:
    """Return the share of samples that exceed, or fall below, the lines above and below."""
    up, down = luma[1:-1] - luma[:-2], luma[1:-1] - luma[2:]
    return float(np.mean(np.minimum(up, down) > _COMB) + np.mean(np.maximum(up, down) < -_COMB))


def _difference(one: Luma, other: Luma) -> float:
    """Return the mean absolute difference, in 8-bit levels."""
    return float(np.abs(one - other).mean())

"""The choice of crops from which a network learns one person.

Good crops are large, sharp and nearly frontal, and differ from each other. A fifth of them is set
apart for judging. It is set apart in stretches of time, since neighboring frames show the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from vidrestore.common.counting import counted
from vidrestore.common.errors import UsageError
from vidrestore.imaging.frame import FloatArray
from vidrestore.personal.same_picture import SeenPictures

FEWEST_CROPS = 15
"""The least number of crops from which a network can learn and be judged."""

# The least side of a crop in the source, as a share of the side of the network.
_LEAST_SIDE = 0.5
# The widest edges, in pixels of a crop of 512 px: beyond, a face has no detail to learn from.
_WIDEST_EDGES_PX, _EDGES_SIDE_PX = 4.0, 512
_MOST_TURNED_DEGREES = 50.0
# Cosine with the mean embedding of the crops, below which a face is of another person; share of
# such faces from which on the crops are of two people.
_SAME_PERSON, _FEW_OTHERS = 0.3, 0.15
# Crops of one source that are nearer in time count as one stretch, whose parts are much alike.
_STRETCH_SECONDS = 1.0
_APART_SHARE = 0.2
# So many degrees of turning differ as much as expressions whose vectors have the distance 1. What
# differs by more than the second value counts the same, so that an outlier is not preferred.
_DEGREES, _MOST_DIFFERENCE = 15.0, 4.0
# Crops of one source that are so far apart, or of two sources, differ by 1: their light may.
_SECONDS = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A crop that may be chosen."""

    source: int
    """The index of its video or photograph."""
    seconds: float
    """Its time in its source, in seconds; 0 for a photograph."""
    side_px: float
    """The side of the crop in pixels of the source."""
    edges_px: float | None
    """The width of its edges in pixels of the source, see `defocus.width_px`; None: it has too
    few."""
    turned_degrees: float
    """How far the face is turned away, in degrees; signed, to one side and the other."""
    expression: FloatArray | None = None
    """(k,) expression, in units of a clear change, such as that of an open mouth; None: unknown."""
    embedding: FloatArray | None = None
    """(d,) unit embedding; None: not recognized."""
    thumbnail: FloatArray | None = None
    """The crop as `thumbnail_of` reduces it; None: unknown."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The crops that were chosen."""

    learned: tuple[int, ...]
    """Indices of the candidates for learning, in order."""
    apart: tuple[int, ...]
    """Indices of the candidates that are set apart, in order."""
    unclear: int
    """Number of candidates that are too small, too blurred or turned too far."""
    others: int
    """Number of candidates that show another person."""


def choose_crops(candidates: Sequence[Candidate], size_px: int, most: int) -> Choice:
    """Choose crops of one person.

    Args:
        candidates: The crops.
        size_px: Side of the network in pixels.
        most: Number of crops to choose at most, both parts together.

    Returns:
        The choice. No crop that is set apart is within a second of one for learning, or shows the
        same picture.

    Raises:
        UsageError: Too few crops are clear, or they show two people.
    """
    clear = [i for i, each in enumerate(candidates) if is_clear(each, size_px)]
    same = _of_one_person(candidates, clear)
    unclear, others = len(candidates) - len(clear), len(clear) - len(same)
    if len(same) >= FEWEST_CROPS:
        apart_at_least = max(round(_APART_SHARE * FEWEST_CROPS), 1)
        candidates = _at_first_appearance(candidates, same)
        learned, apart = _parted(candidates, same)
        learned = _most_varied(candidates, learned, round((1 - _APART_SHARE) * most))
        apart = _most_varied(candidates, apart, max(round(_APART_SHARE * most), apart_at_least))
        if len(apart) >= apart_at_least and len(learned) >= FEWEST_CROPS - apart_at_least:
            return Choice(tuple(sorted(learned)), tuple(sorted(apart)), unclear, others)
    raise UsageError(
        f"{counted(len(same), 'crop')} of {len(candidates)} can be learned from where at least "
        f"{FEWEST_CROPS} are needed, in stretches that are a second apart ({unclear} are too "
        f"small, too blurred or turned too far, {others} show another person); add videos or "
        "photographs in which the person is close and sharp"
    )


def is_clear(candidate: Candidate, size_px: int) -> bool:
    """Tell whether a network can learn from a crop.

    Args:
        candidate: The crop.
        size_px: Side of the network in pixels.

    Returns:
        Whether the face is large, sharp and not turned away.
    """
    if candidate.edges_px is None or abs(candidate.turned_degrees) > _MOST_TURNED_DEGREES:
        return False
    edges_px = candidate.edges_px / candidate.side_px * _EDGES_SIDE_PX
    return candidate.side_px >= _LEAST_SIDE * size_px and edges_px <= _WIDEST_EDGES_PX


def _of_one_person(candidates: Sequence[Candidate], clear: Sequence[int]) -> list[int]:
    """Return the clear candidates without those of others; UsageError where these are many."""
    known = [i for i in clear if candidates[i].embedding is not None]
    if not known:
        return list(clear)
    vectors = np.array([candidates[i].embedding for i in known], np.float64)
    # The one that is most like all others is of the person with the most crops.
    middle = vectors[int(np.median(vectors @ vectors.T, axis=1).argmax())]
    near = vectors @ middle >= _SAME_PERSON
    mean = vectors[near].mean(axis=0)
    cosines = vectors @ (mean / np.linalg.norm(mean))
    strangers = {i for i, cosine in zip(known, cosines, strict=True) if cosine < _SAME_PERSON}
    if len(strangers) > _FEW_OTHERS * len(known):
        raise UsageError(
            f"the crops show more than one person: {len(strangers)} of {len(known)} differ from "
            "the others; choose one person by --person or --reference"
        )
    return [i for i in clear if i not in strangers]


def _at_first_appearance(
    candidates: Sequence[Candidate], chosen: Sequence[int]
) -> Sequence[Candidate]:
    """Give candidates that show the same picture as one of an earlier source its place in time.

    A photograph may be a frame of a video, a video may be an excerpt of another one, and an album
    has several exposures of one moment.
    """
    placed = list(candidates)
    seen, known = SeenPictures(), list[int]()
    pictures = ((i, candidates[i].thumbnail) for i in chosen)
    shown = {i: picture for i, picture in pictures if picture is not None}
    by_source = sorted(shown, key=lambda i: candidates[i].source)
    for _, group in groupby(by_source, key=lambda i: candidates[i].source):
        own = list(group)
        for i in own:
            if (same := seen.find(shown[i])) is not None:
                first = placed[known[same]]
                placed[i] = replace(placed[i], source=first.source, seconds=first.seconds)
        for i in own:
            seen.add(shown[i])
        known += own
    return placed


def _parted(candidates: Sequence[Candidate], chosen: Sequence[int]) -> tuple[list[int], list[int]]:
    """Part candidates into those for learning and a fifth apart, a second of time between them."""
    order = sorted(chosen, key=lambda i: (candidates[i].source, candidates[i].seconds, i))
    stretches: list[list[int]] = []
    for i in order:
        last = stretches[-1][-1] if stretches else None
        if last is not None and _gap_seconds(candidates[last], candidates[i]) < _STRETCH_SECONDS:
            stretches[-1].append(i)
        else:
            stretches.append([i])
    wanted = max(round(_APART_SHARE * len(order)), 1)
    learned: list[int] = []
    apart: list[int] = []
    # Every fifth stretch, the shortest ones first, as long as that is not more than a fifth.
    for at, stretch in enumerate(sorted(stretches, key=len)):
        is_apart = at % round(1 / _APART_SHARE) == 0 and len(apart) + len(stretch) <= wanted
        (apart if is_apart else learned).extend(stretch)
    missing = wanted - len(apart)
    if missing > 0:
        longest = max(stretches, key=len)
        if longest[0] in learned:
            tail = longest[-missing:]
            begin = candidates[tail[0]]
            between = {
                i
                for i in longest[:-missing]
                if _gap_seconds(candidates[i], begin) < _STRETCH_SECONDS
            }
            learned = [i for i in learned if i not in between and i not in set(tail)]
            apart.extend(tail)
    return learned, apart


def _gap_seconds(first: Candidate, second: Candidate) -> float:
    """Return the time between two candidates, which is infinite for two sources."""
    if first.source != second.source:
        return float("inf")
    return abs(second.seconds - first.seconds)


def _most_varied(candidates: Sequence[Candidate], among: Sequence[int], most: int) -> list[int]:
    """Return those that differ most from each other, beginning with the sharpest one.

    Each next one is the farthest from those before (Gonzalez, Theoretical Computer Science 38,
    1985), where sharp ones count as farther.
    """
    if len(among) <= most:
        return list(among)
    sharpness = np.array([_resolution(candidates[i]) for i in among])
    weight = sharpness / sharpness.max()
    chosen = [int(weight.argmax())]
    nearest = np.full(len(among), np.inf)
    while len(chosen) < most:
        last = candidates[among[chosen[-1]]]
        away = np.array([_difference(last, candidates[i]) for i in among])
        nearest = np.minimum(nearest, away)
        merit = nearest * weight
        merit[chosen] = -1.0
        chosen.append(int(merit.argmax()))
    return [among[k] for k in chosen]


def _resolution(candidate: Candidate) -> float:
    """Return how many widths of its edges a crop is wide."""
    return candidate.side_px / max(candidate.edges_px or candidate.side_px, 1e-3)


def _difference(first: Candidate, second: Candidate) -> float:
    """Return how much two crops differ in turning, expression and time."""
    turned = abs(first.turned_degrees - second.turned_degrees) / _DEGREES
    changed = 0.0
    if first.expression is not None and second.expression is not None:
        changed = float(np.linalg.norm(first.expression - second.expression))
    later = min(_gap_seconds(first, second) / _SECONDS, 1.0)
    parts = min(turned, _MOST_DIFFERENCE), min(changed, _MOST_DIFFERENCE), later
    return float(np.linalg.norm(parts))

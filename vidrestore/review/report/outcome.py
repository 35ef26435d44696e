"""The verdict of a report: what became better or worse, how exact that is, and where to look."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vidrestore.analysis.result import Analysis, is_woven
from vidrestore.common.counting import counted
from vidrestore.restoration.statistics import RestorationStats
from vidrestore.review.error_bars import (
    Parts,
    error_of_change,
    error_of_mean,
    error_text,
    measured_shares,
    parts_of,
)
from vidrestore.review.face_metrics import Pair
from vidrestore.review.report.likeness import MeasuredLikeness, measured_likeness
from vidrestore.review.report.samples import SampleCollector, View
from vidrestore.review.verdict import Change, Verdict, blind_changes, verdict


@dataclass(frozen=True, slots=True)
class WorstMoment:
    """A moment at which an aspect is worst, with its pictures."""

    name: str
    """The name of its place in the page, unique."""
    view: View
    """The pictures."""
    text: str
    """What is wrong there, as a sentence."""


@dataclass(frozen=True, slots=True)
class Aspect:
    """One aspect of the verdict."""

    name: str
    """Such as "Flicker"."""
    word: str
    """better, same or worse."""
    figure: str
    """The measure, as text with its unit."""
    error: str
    """The error bar in the same unit, as text; empty where it is not known."""
    basis: str
    """In how many faces it was measured, as text."""
    moments: Sequence[WorstMoment]
    """Where it is worst, the worst first."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The verdict with its aspects."""

    verdict: Verdict
    """The verdict on all aspects together."""
    aspects: Sequence[Aspect]
    """The aspects that could be measured."""
    explained: Sequence[str]
    """How it was measured, as sentences."""


def outcome(
    analysis: Analysis,
    stats: RestorationStats,
    collector: SampleCollector,
    *,
    least_features: float,
) -> Outcome | None:
    """Reach the verdict on a run.

    Args:
        analysis: The analysis that was restored.
        stats: The statistics of the restoration.
        collector: The samples of the output.
        least_features: The least correlation of features that the guard accepts.

    Returns:
        The verdict; None where no face was measured.
    """
    likeness = measured_likeness(analysis, stats)
    pairs = {
        "flicker": _flicker(analysis, collector),
        "detail": _detail(analysis, collector),
        "identity" if likeness.by_identity else "features": _likeness(analysis, likeness),
    }
    changes = blind_changes(**pairs, least_features=least_features)
    if not changes:
        return None
    aspects = []
    for name, change in changes.items():
        if name == "flicker" and (flicker := pairs["flicker"]) is not None:
            aspects.append(_flicker_aspect(change, flicker, collector))
        elif name == "detail" and (detail := pairs["detail"]) is not None:
            aspects.append(_detail_aspect(change, detail, collector))
        elif (like := pairs.get("identity") or pairs.get("features")) is not None:
            aspects.append(_likeness_aspect(change, like, likeness, collector))
    explained = list(_explained(collector, likeness, list(filter(None, pairs.values()))))
    return Outcome(verdict(list(changes.values())), aspects, explained)


def _parts(frames: Sequence[int], analysis: Analysis, collector: SampleCollector) -> Parts:
    """Return the part of the video of each sample of the collector."""
    step = 2 if is_woven(analysis) else 1
    read = [(step * first, step * end) for first, end in collector.stretches]
    # All of a short video is one stretch.
    is_whole = read == [(0, analysis.frame_count)]
    return parts_of(frames, analysis.shots, stretches=() if is_whole else read)


def _flicker(analysis: Analysis, collector: SampleCollector) -> Pair | None:
    if not (samples := collector.flicker):
        return None
    weights, source, output = (
        np.array([getattr(one, name) for one in samples]) for name in ("weight", "source", "output")
    )
    parts = _parts([one.frame for one in samples], analysis, collector)
    measured = measured_shares(weights, collector.population)
    error = error_of_change(source, output, weights, parts, measured)
    before, after = (math.sqrt(np.average(each, weights=weights)) for each in (source, output))
    return Pair(after, before, error)


def _flicker_aspect(change: Change, flicker: Pair, collector: SampleCollector) -> Aspect:
    moments = [
        WorstMoment(
            f"worst-flicker-{number}", moment.view,
            f"Flicker rose from {moment.value[0]:.2f} to {moment.value[1]:.2f} levels.",
        )
        for number, moment in enumerate(collector.worst("flicker"), start=1)
    ]  # fmt: skip
    return Aspect(
        "Flicker",
        change.word,
        f"{flicker.source:.2f} to {flicker.output:.2f} levels",
        error_text(flicker.error, ".2f", " levels").strip(),
        _basis(len(collector.flicker), collector.population),
        moments,
    )


def _detail(analysis: Analysis, collector: SampleCollector) -> Pair | None:
    if not (samples := collector.details):
        return None
    weights, shares = (np.array([getattr(one, n) for one in samples]) for n in ("weight", "share"))
    parts = _parts([one.frame for one in samples], analysis, collector)
    measured = measured_shares(weights, collector.population)
    mean = float(np.average(shares, weights=weights))
    return Pair(mean, error=error_of_mean(shares, weights, parts, measured))


def _detail_aspect(change: Change, detail: Pair, collector: SampleCollector) -> Aspect:
    moments = [
        WorstMoment(
            f"worst-detail-{number}", moment.view,
            f"The face has {100 * moment.value[1]:.0f} % of the source's fine detail.",
        )
        for number, moment in enumerate(collector.worst("detail"), start=1)
    ]  # fmt: skip
    return Aspect(
        "Fine detail",
        change.word,
        f"{100 * detail.output:.0f} % of the source's",
        error_text(100 * detail.error, ".0f", " %").strip(),
        _basis(len(collector.details), collector.population),
        moments,
    )


def _likeness(analysis: Analysis, likeness: MeasuredLikeness) -> Pair | None:
    if not (rows := likeness.rows):
        return None
    used, weights = np.array([(row.used, row.weight) for row in rows], np.float64).T
    parts = parts_of([row.frame for row in rows], analysis.shots)
    # Of each stretch the recognizer compared every third face, features are compared in all.
    measured = min(1.0, float(weights.sum()) / max(1, likeness.faces))
    error = error_of_mean(used, weights, parts, measured)
    return Pair(float(np.average(used, weights=weights)), error=error)


def _likeness_aspect(
    change: Change, pair: Pair, likeness: MeasuredLikeness, collector: SampleCollector
) -> Aspect:
    moments = [
        WorstMoment(
            f"worst-likeness-{number}", view,
            "Around here the face is less like its source than anywhere else.",
        )
        for number, view in enumerate(collector.least_like, start=1)
    ]  # fmt: skip
    measured = sum(row.weight for row in likeness.rows)
    return Aspect(
        "Likeness", change.word, f"{pair.output:.3f}", error_text(pair.error, ".3f").strip(),
        _basis(measured, likeness.faces), moments,
    )  # fmt: skip


def _basis(measured: int, population: int) -> str:
    if measured >= population:
        return f"all {counted(measured, 'face')}" if measured > 1 else "the only face"
    return f"{measured:,} of {counted(population, 'face')}"


def _explained(
    collector: SampleCollector, likeness: MeasuredLikeness, pairs: Sequence[Pair]
) -> Iterator[str]:
    if collector.flicker:
        yield (
            "Flicker is the change from frame to frame that motion does not explain, in levels: "
            "steps of brightness, of which there are 256. The first value is that of the source, "
            "the second that of the output."
        )
        if collector.is_sample:
            yield (
                "vidrestore measured flicker and detail in some faces, spread over people and time."
            )
    if likeness.rows:
        how = (
            "a network that tells people apart compared them"
            if likeness.by_identity
            else "eyes, mouth and the whole face were compared"
        )
        yield (
            "Likeness is that of the source and of the restored face, before it was put into the "
            f"picture: {how}. 1 is the same."
        )
    if any(pair.error > 0 for pair in pairs):
        yield (
            "\N{PLUS-MINUS SIGN} tells how exact a value is that was measured in some of the "
            "faces: in about 95 of 100 videos, the value of all faces lies within it. A change "
            "that is smaller than that counts as the same."
        )
    if any(math.isnan(pair.error) for pair in pairs):
        yield "The error is not known where vidrestore read too small a part of the video."

"""The verdict of a report: what became better or worse, how exact that is, and where to look."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vidrestore.analysis.result import Analysis
from vidrestore.common.counting import counted
from vidrestore.restoration.statistics import RestorationStats
from vidrestore.review.error_bars import error_of_change, error_of_mean, parts_of
from vidrestore.review.report.likeness import MeasuredLikeness, measured_likeness
from vidrestore.review.report.samples import SampleCollector, View
from vidrestore.review.verdict import (
    Change,
    Verdict,
    detail_change,
    features_change,
    flicker_change,
    identity_change,
    verdict,
)


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
    found = [
        *_flicker(analysis, collector),
        *_detail(analysis, collector),
        *_likeness(analysis, likeness, collector, least_features),
    ]
    if not found:
        return None
    changes = [change for change, _ in found]
    return Outcome(
        verdict(changes), [aspect for _, aspect in found], list(_explained(collector, likeness))
    )


def _flicker(analysis: Analysis, collector: SampleCollector) -> Iterator[tuple[Change, Aspect]]:
    if not (samples := collector.flicker):
        return
    weights = np.array([one.weight for one in samples])
    source, output = (
        np.array([getattr(one, role) for one in samples]) for role in ("source", "output")
    )
    parts = parts_of([one.frame for one in samples], analysis.shots)
    error = error_of_change(source, output, weights, parts)
    before, after = (math.sqrt(np.average(each, weights=weights)) for each in (source, output))
    moments = [
        WorstMoment(
            f"worst-flicker-{number}", moment.view,
            f"Flicker rose from {moment.value[0]:.2f} to {moment.value[1]:.2f} levels.",
        )
        for number, moment in enumerate(collector.worst("flicker"), start=1)
    ]  # fmt: skip
    for change in flicker_change(before, after, error):
        yield (
            change,
            Aspect(
                "Flicker",
                change.word,
                f"{before:.2f} to {after:.2f} levels",
                _error(error, ".2f", " levels"),
                _basis(len(samples), collector.population),
                moments,
            ),
        )


def _detail(analysis: Analysis, collector: SampleCollector) -> Iterator[tuple[Change, Aspect]]:
    if not (samples := collector.details):
        return
    weights, shares = (np.array([getattr(one, n) for one in samples]) for n in ("weight", "share"))
    parts = parts_of([one.frame for one in samples], analysis.shots)
    error, mean = error_of_mean(shares, weights, parts), float(np.average(shares, weights=weights))
    moments = [
        WorstMoment(
            f"worst-detail-{number}", moment.view,
            f"The face has {100 * moment.value[1]:.0f} % of the source's fine detail.",
        )
        for number, moment in enumerate(collector.worst("detail"), start=1)
    ]  # fmt: skip
    for change in detail_change(1.0, mean, clean=False, error=error):
        yield (
            change,
            Aspect(
                "Fine detail",
                change.word,
                f"{100 * mean:.0f} % of the source's",
                _error(100 * error, ".0f", " %"),
                _basis(len(samples), collector.population),
                moments,
            ),
        )


def _likeness(
    analysis: Analysis,
    likeness: MeasuredLikeness,
    collector: SampleCollector,
    least_features: float,
) -> Iterator[tuple[Change, Aspect]]:
    if not (rows := likeness.rows):
        return
    used, weights = np.array([(row.used, row.weight) for row in rows], np.float64).T
    parts = parts_of([row.frame for row in rows], analysis.shots)
    error, mean = error_of_mean(used, weights, parts), float(np.average(used, weights=weights))
    if likeness.by_identity:
        changes = identity_change(math.nan, mean, error)
    else:
        changes = features_change(mean, least_features, error)
    moments = [
        WorstMoment(
            f"worst-likeness-{number}", view,
            "Around here the face is less like its source than anywhere else.",
        )
        for number, view in enumerate(collector.least_like, start=1)
    ]  # fmt: skip
    faces = int(weights.sum())
    for change in changes:
        yield change, Aspect(
            "Likeness", change.word, f"{mean:.3f}", _error(error, ".3f", ""),
            counted(faces, "face"), moments,
        )  # fmt: skip


def _error(error: float, form: str, unit: str) -> str:
    return "" if math.isnan(error) else f"\N{PLUS-MINUS SIGN} {error:{form}}{unit}"


def _basis(measured: int, population: int) -> str:
    if measured >= population:
        return counted(measured, "face")
    return f"{measured:,} of {counted(population, 'face')}"


def _explained(collector: SampleCollector, likeness: MeasuredLikeness) -> Iterator[str]:
    if collector.flicker:
        yield (
            "Flicker is the change from frame to frame that motion does not explain, in 8-bit "
            "levels, from the source to the output."
        )
        if collector.is_sample:
            yield (
                "vidrestore measured flicker and detail in some faces, spread over people and time."
            )
    if likeness.rows:
        what = "cosine of the embeddings" if likeness.by_identity else "correlation of the features"
        yield (
            f"Likeness is the mean {what} of the source and of the face that was used, before it "
            "was pasted; 1 is the same."
        )
    yield (
        "\N{PLUS-MINUS SIGN} is two standard errors, from the differences between parts of the "
        "video. A change that is smaller than that counts as the same."
    )

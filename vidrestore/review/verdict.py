"""The verdict on the faces of a restored video: better, the same or worse.

If one aspect is worse, the verdict is "worse", since no gain elsewhere removes a new fault. Else,
if one aspect is better, the verdict is "better". A change that is smaller than its error bar counts
as no change. The authors chose the thresholds; they were not measured on videos that people rated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vidrestore.review.face_metrics import Pair

# Flicker counts where it changed by at least this share, and by this many 8-bit levels.
_FLICKER_SHARE, _FLICKER_LEVELS = 0.05, 0.1
# Change of the distance from the true detail. Without a clean video, the threshold is a loss
# against the source. It is larger, since noise is a part of the source's detail.
_DETAIL, _DETAIL_LOST = 0.05, 0.3
_PSNR_DB = 0.2
# Change of the cosine to the true face. Without a clean video, the least cosine to the source.
_IDENTITY, _LEAST_IDENTITY = 0.05, 0.4

_WORDS: dict[int, Literal["better", "same", "worse"]] = {1: "better", 0: "same", -1: "worse"}

_Word = Literal["better", "same", "worse", "not known"]


@dataclass(frozen=True, slots=True)
class Change:
    """The change of one aspect from before to after the restoration."""

    text: str
    """What changed, as a sentence without its period."""
    sign: int
    """1 for better, 0 for the same, -1 for worse."""

    @property
    def word(self) -> Literal["better", "same", "worse"]:
        """The sign in a word."""
        return _WORDS[self.sign]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on all measured aspects together."""

    word: _Word
    """"better", "same", "worse", or "not known" where no aspect could be measured."""
    sentence: str
    """The verdict and its reasons as text for users, which begins with "Verdict: "."""


def verdict(changes: Sequence[Change]) -> Verdict:
    """Reach a verdict from the changes of several aspects.

    Args:
        changes: The changes that could be measured.

    Returns:
        "worse" if one aspect is worse, else "better" if one is better, else "same"; "not known"
        where there are no changes.
    """
    if not changes:
        return Verdict("not known", "Verdict: not known. No face could be measured.")
    worse, better = ([c.text for c in changes if c.sign == sign] for sign in (-1, 1))
    if worse:
        why = ". ".join(worse)
        return Verdict(
            "worse", f"Verdict: worse. {why}; use a lower --strength or another restorer."
        )
    if better:
        return Verdict("better", f"Verdict: better. {'. '.join(better)}.")
    return Verdict("same", "Verdict: same. The measures of the faces did not change enough.")


def blind_changes(
    *,
    flicker: Pair | None = None,
    detail: Pair | None = None,
    identity: Pair | None = None,
    features: Pair | None = None,
    least_features: float,
) -> dict[str, Change]:
    """Judge a restored video without a clean one; `evaluate` and the report both use this.

    Args:
        flicker: FLKb of source and output, in 8-bit levels; None, the default: not measured.
        detail: SHP of the output; default: not measured.
        identity: The cosine of the embeddings of output and source; default: not measured.
        features: The correlation of the features of output and source, which counts where there is
            no `identity`; default: not measured.
        least_features: The least correlation that the guard accepts.

    Returns:
        The changes that could be judged, by "flicker", "detail" and "likeness", in this order.
    """
    found: dict[str, list[Change]] = {}
    if flicker is not None:
        found["flicker"] = flicker_change(flicker.source, flicker.output, flicker.error)
    if detail is not None:
        found["detail"] = detail_change(1.0, detail.output, clean=False, error=detail.error)
    if identity is not None:
        found["likeness"] = identity_change(math.nan, identity.output, identity.error)
    elif features is not None:
        found["likeness"] = features_change(features.output, least_features, features.error)
    return {name: changes[0] for name, changes in found.items() if changes}


def flicker_change(source: float, output: float, error: float = 0.0) -> list[Change]:
    """Judge the change of the flicker.

    Args:
        source: FLK or FLKb of the source, in 8-bit levels.
        output: The same measure of the output, in 8-bit levels.
        error: The error bar of the difference, in 8-bit levels; default: 0. nan: it is not known,
            and counts as 0.

    Returns:
        One change; none where a value is nan.
    """
    if math.isnan(source) or math.isnan(output):
        return []
    least = max(_FLICKER_SHARE * source, _FLICKER_LEVELS)
    sign = _sign(source - output, least, error)
    how = "fell" if output < source else "rose"
    return [Change(f"Flicker of the faces {how} from {source:.1f} to {output:.1f} levels", sign)]


def detail_change(source: float, output: float, *, clean: bool, error: float = 0.0) -> list[Change]:
    """Judge the change of the fine detail.

    Without a clean video, the detail can get worse but not better, since SHP rises with noise.

    Args:
        source: DTL of the source where there is a clean video, else 1.
        output: DTL of the output where there is a clean video, else its SHP.
        clean: Whether there is a clean video.
        error: The error bar of the change, in the unit of both; default: 0.

    Returns:
        One change; none where a value is nan.
    """
    if math.isnan(source) or math.isnan(output):
        return []
    if clean:
        sign = _sign(abs(1 - source) - abs(1 - output), _DETAIL, error)
    else:
        sign = min(_sign(output - source, _DETAIL_LOST, error), 0)
    name = "True detail" if clean else "Fine detail"
    return [Change(f"{name} went from {100 * source:.0f} to {100 * output:.0f} %", sign)]


def psnr_change(source_db: float, output_db: float) -> list[Change]:
    """Judge the change of the PSNR against a clean video.

    Args:
        source_db: PSNR of the faces of the source, in dB; inf where they equal the clean video.
        output_db: PSNR of the faces of the output, in dB.

    Returns:
        One change, of sign 0 where both values are equal; none where a value is nan.
    """
    if math.isnan(source_db) or math.isnan(output_db):
        return []
    sign = 0 if source_db == output_db else _sign(output_db - source_db, _PSNR_DB, 0)
    text = f"Likeness to the clean video went from {source_db:.1f} to {output_db:.1f} dB"
    return [Change(text, sign)]


def identity_change(source: float, output: float, error: float = 0.0) -> list[Change]:
    """Judge the change of the likeness of the person.

    Args:
        source: Cosine of the embeddings of source and clean video; nan where there is no clean
            video.
        output: Cosine of the embeddings of output and clean video, or of output and source where
            `source` is nan.
        error: The error bar of `output`, or of the change where there is a clean video; default: 0.

    Returns:
        One change; none where `output` is nan.
    """
    if math.isnan(output):
        return []
    if math.isnan(source):
        sign = _below(output, _LEAST_IDENTITY, error)
        return [Change(f"Likeness of the person to the source is {output:.2f}", sign)]
    text = f"Likeness of the person went from {source:.2f} to {output:.2f}"
    return [Change(text, _sign(output - source, _IDENTITY, error))]


def features_change(output: float, least: float, error: float = 0.0) -> list[Change]:
    """Judge the likeness of features to the source, where no recognizer can tell people.

    Args:
        output: The mean correlation of the features of output and source.
        least: The least correlation that the guard accepts.
        error: The error bar of `output`; default: 0.

    Returns:
        One change, which is worse or the same; none where `output` is nan.
    """
    if math.isnan(output):
        return []
    text = f"Likeness of eyes, mouth and face to the source is {output:.2f}"
    return [Change(text, _below(output, least, error))]


def _sign(gain: float, least: float, error: float) -> int:
    least = max(least, 0.0 if math.isnan(error) else error)
    return 1 if gain > least else -1 if gain < -least else 0


def _below(value: float, least: float, error: float) -> int:
    return -1 if value + (0.0 if math.isnan(error) else error) < least else 0

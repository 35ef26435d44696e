"""Whether the faces of a restored video are better, the same or worse: the one rule for that.

One aspect that is worse decides, since no gain elsewhere takes a new fault away; else one that is
better does. The thresholds were chosen, not measured on videos that people rated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

# Flicker counts where it changed by this share and by as many 8-bit levels.
_FLICKER_SHARE, _FLICKER_LEVELS = 0.05, 0.1
# Distance of the detail from the true one; without a clean video, loss against the source of
# which noise is a part, so that more may go.
_DETAIL, _DETAIL_LOST = 0.05, 0.3
_PSNR_DB = 0.2
# Of the cosine to the true face; without a clean video, the least to the source.
_IDENTITY, _LEAST_IDENTITY = 0.05, 0.4

_Word = Literal["better", "same", "worse", "not known"]


@dataclass(frozen=True, slots=True)
class Change:
    """One aspect, before and after."""

    said: str
    """What changed, as a sentence without its period."""
    sign: int
    """1 better, 0 the same, -1 worse."""


@dataclass(frozen=True, slots=True)
class Verdict:
    word: _Word
    sentence: str
    """For people; begins with "Verdict: "."""


def verdict(changes: Sequence[Change]) -> Verdict:
    """What several aspects say together; "not known" where there is none."""
    if not changes:
        return Verdict("not known", "Verdict: not known. No face could be measured.")
    worse, better = ([c.said for c in changes if c.sign == sign] for sign in (-1, 1))
    if worse:
        why = "; ".join(worse)
        return Verdict(
            "worse", f"Verdict: worse. {why}; use a lower --strength or another restorer."
        )
    if better:
        return Verdict("better", f"Verdict: better. {'; '.join(better)}.")
    return Verdict("same", "Verdict: same. What was measured of the faces did not change enough.")


def flicker_change(source: float, output: float) -> list[Change]:
    """In 8-bit levels, FLK or FLKb; none where either is nan."""
    if math.isnan(source) or math.isnan(output):
        return []
    least = max(_FLICKER_SHARE * source, _FLICKER_LEVELS)
    sign = _sign(source - output, least)
    how = "fell" if output < source else "rose"
    return [Change(f"Flicker of the faces {how} from {source:.1f} to {output:.1f} levels", sign)]


def detail_change(source: float, output: float, *, clean: bool) -> list[Change]:
    """Shares: DTL of both where there is a `clean` video, else 1 and SHP; none where nan.

    SHP rises with noise as well, so without a clean video detail can be lost, but not gained.
    """
    if math.isnan(source) or math.isnan(output):
        return []
    if clean:
        sign = _sign(abs(1 - source) - abs(1 - output), _DETAIL)
    else:
        sign = min(_sign(output - source, _DETAIL_LOST), 0)
    name = "True detail" if clean else "Fine detail"
    return [Change(f"{name} went from {100 * source:.0f} to {100 * output:.0f} %", sign)]


def psnr_change(source_db: float, output_db: float) -> list[Change]:
    """Likeness to a clean video; none where it is nan, or both are the clean video itself."""
    if math.isnan(source_db) or math.isnan(output_db):
        return []
    sign = 0 if source_db == output_db else _sign(output_db - source_db, _PSNR_DB)
    said = f"Likeness to the clean video went from {source_db:.1f} to {output_db:.1f} dB"
    return [Change(said, sign)]


def identity_change(source: float, output: float) -> list[Change]:
    """Cosines; a nan `source` says that `output` is the likeness to the source itself."""
    if math.isnan(output):
        return []
    if math.isnan(source):
        sign = -1 if output < _LEAST_IDENTITY else 0
        return [Change(f"Likeness of the person to the source is {output:.2f}", sign)]
    said = f"Likeness of the person went from {source:.2f} to {output:.2f}"
    return [Change(said, _sign(output - source, _IDENTITY))]


def _sign(gain: float, least: float) -> int:
    return 1 if gain > least else -1 if gain < -least else 0

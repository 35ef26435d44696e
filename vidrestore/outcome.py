"""What a job did and what it did not, summed up for a person."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from vidrestore.analyze import frames_expected
from vidrestore.fixity import Fixity
from vidrestore.frame import Analysis
from vidrestore.interlace import frames_of_output, of_file
from vidrestore.summary import Summary, Tally, likeness_by_track


def summarize(
    analysis: Analysis,
    tally: Tally,
    losses: Sequence[str],
    seconds: Mapping[str, float],
    *,
    is_part: bool,
    fixity: Fixity | None,
) -> Summary:
    """`losses` are sentences on what could not be kept; `seconds` those of each pass. Of a part of
    the source no frames are said to be missing. `fixity` is None where nothing was compared."""
    missing = 0 if is_part else _missing_frames(analysis)
    skipped = dict(analysis.skipped)
    for reason, count in tally.not_restored.items():
        skipped[reason] = skipped.get(reason, 0) + count
    summary = Summary(
        frames=frames_of_output(analysis).frame_count,
        faces=tally.faces,
        repeated=tally.repeated,
        kept=tally.kept,
        tracks=len(analysis.tracks),
        people=len({track.person_id for track in analysis.tracks}),
        shots=len(analysis.shots),
        skipped=skipped,
        likeness=likeness_by_track(tally, analysis),
        corrupt_frames=analysis.corrupt_frames,
        missing_frames=missing,
        warnings=(*_warnings(analysis, missing), *_unparsed(tally), *tally.notes.values(), *losses),
        seconds=seconds,
    )
    return summary if fixity is None else _with_fixity(summary, fixity)


def _with_fixity(summary: Summary, fixity: Fixity) -> Summary:
    why_not = () if fixity.not_compared is None else (fixity.not_compared,)
    return replace(
        summary,
        identical_frames=fixity.identical_frames,
        identical_outside=fixity.identical_outside,
        psnr_outside_db=fixity.psnr_outside_db,
        warnings=(*summary.warnings, *why_not),
    )


def _unparsed(tally: Tally) -> Iterator[str]:
    if tally.unparsed:
        yield (
            f"the face parser saw no face in {tally.unparsed} crops; there landmarks alone said "
            "what is face"
        )


def _missing_frames(analysis: Analysis) -> int:
    """Frames that the file claims beyond the last one that could be decoded.

    The header's count alone proves nothing: edit lists hide frames that it includes. So the
    time that is missing at the end decides, and the count only says how many.
    """
    analysis = of_file(analysis)
    info = analysis.info
    shown = int(analysis.pts[-1] - analysis.pts[0]) * info.time_base + 1 / info.frame_rate
    absent = info.duration_seconds_from_header - float(shown)
    if absent <= 2 / info.frame_rate and not analysis.decode_errors:
        return 0
    most = math.ceil(max(absent, 0) * info.frame_rate) + analysis.decode_errors
    return min(max(0, frames_expected(info) - analysis.frame_count), most)


def _warnings(analysis: Analysis, missing: int) -> Iterator[str]:
    if missing:
        yield f"{missing} frames that the file announces could not be decoded; they are missing"
    if analysis.corrupt_frames:
        yield f"{analysis.corrupt_frames} frames are damaged in the source"
    if analysis.repaired_times:
        yield f"{analysis.repaired_times} frames had no time of their own or a repeated one"
    if analysis.detector_errors:
        yield (
            f"the detector broke at {analysis.detector_errors} frames; faces may be missing there"
        )
    if not analysis.tracks:
        yield "no face was found; nothing was restored"
    elif analysis.coarse_landmarks:
        yield "landmarks were guessed from face boxes; a detector with weights aligns better"

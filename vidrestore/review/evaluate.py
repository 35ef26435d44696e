"""How much a restored video gained, and whether it kept its frames and times.

PSNR and SSIM are those of the frames, R'G'B' in [0, 1], under the masks of all faces of a frame,
and means over the frames that show a face. All other measures are taken in the aligned crops of
each face, and are means over faces and frames. The formulas stand in `vidrestore.review.metrics`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vidrestore.analysis.pipeline import analyze_video
from vidrestore.analysis.result import Analysis
from vidrestore.analysis.tracks import Track, TracksByFrame
from vidrestore.common.errors import InputError
from vidrestore.common.events import OnEvent
from vidrestore.common.settings import Settings
from vidrestore.imaging import color
from vidrestore.imaging.frame import Frame, VideoInfo
from vidrestore.imaging.geometry import Rect, crop_matrix, shifted, warp
from vidrestore.media.decode import DecodeErrors, TimeRange, decode
from vidrestore.media.probe import probe
from vidrestore.media.source import open_source
from vidrestore.models.factory import chosen_recognizer
from vidrestore.restoration.compositing.masks import face_mask, mask_rect
from vidrestore.restoration.crop import crop
from vidrestore.restoration.faces import FaceFrame
from vidrestore.review import metrics
from vidrestore.review.face_metrics import FaceScores, Pair
from vidrestore.review.verdict import (
    Verdict,
    detail_change,
    flicker_change,
    identity_change,
    psnr_change,
    verdict,
)

_Picture = npt.NDArray[np.float32]
_MASK_PX = 128
# Of the crops that are measured; in smaller ones flow finds nothing.
_SMALLEST_PX, _LARGEST_PX = 64, 512


@dataclass(frozen=True, slots=True)
class Scores:
    """One video against another, inside and outside the faces."""

    face_psnr_db: float
    face_ssim: float
    outside_psnr_db: float
    """inf where not one sample differs."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    frames: int
    frames_with_faces: int
    frame_counts_equal: bool
    largest_time_error_seconds: float
    output: Scores
    """The output against the reference, or against the source where there is none."""
    source: Scores | None
    """The source against the reference."""
    measures: Mapping[str, Pair]
    """By name, those of the faces: WORST, FLK, FLKlo, DTL, Ewarp, tOF and BLINK where there is a
    reference, else FLKb, Ewarp, SHP, GEO and JIT; identity where there is a recogniser. Those that
    the faces gave no occasion for are left out or nan."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON, which knows neither inf nor nan: both become None."""
        return dict(_finite({**asdict(self), "verdict": self.verdict().word}))

    def verdict(self) -> Verdict:
        """Better, same or worse, by the rule of `vidrestore.review.verdict`."""
        clean, nothing = self.source is not None, Pair(math.nan)
        flicker = self.measures.get("FLK" if clean else "FLKb", nothing)
        detail = self.measures.get("DTL" if clean else "SHP", nothing)
        identity = self.measures.get("identity", nothing)
        changes = flicker_change(flicker.source, flicker.output)
        before = detail.source if clean else 1.0
        changes += detail_change(before, detail.output, clean=clean)
        if self.source is not None:
            changes += psnr_change(self.source.face_psnr_db, self.output.face_psnr_db)
        # With a clean video a face that only one of the two shows clearly says nothing.
        if not clean or not math.isnan(identity.source):
            changes += identity_change(identity.source, identity.output)
        return verdict(changes)


def evaluate(
    output: Path,
    source: Path,
    settings: Settings,
    *,
    reference: Path | None = None,
    analysis: Analysis | None = None,
    span: TimeRange | None = None,
    on_event: OnEvent | None = None,
) -> Evaluation:
    """Compare `output` with `source`, and both with the clean `reference` where there is one.

    Faces are those of `analysis`, else of a new pass over the source. `span` says which part of
    source and reference the output is a sample of. InputError where the pictures differ in size.
    """
    paths = [output, source] + ([reference] if reference is not None else [])
    for path in paths:
        with open_source(path):
            pass  # what cannot be read is refused before the work
    analysis = analysis or analyze_video(source, settings, span=span, on_event=on_event)
    infos = [_probed(path, analysis.info) for path in paths]
    spans = [None, span, span]
    videos = [
        _faces_of(path, part, analysis.tracks, info)
        for path, part, info in zip(paths, spans, infos, strict=False)
    ]
    of_output, of_source = _Mean(), _Mean()
    of_faces = FaceScores(
        analysis,
        chosen_recognizer(settings, None),
        recognise_seconds=settings.people.every_seconds,
    )
    tracks = TracksByFrame(analysis.tracks)
    clock = _Clock(starts_late=span is not None)
    frames, equal = 0, True
    for together in zip_longest(*videos):
        if any(video is None for video in together):
            equal = False
            break
        frames += 1
        of_faces.add(dict(zip(("output", "source", "truth"), together, strict=False)))
        whole = [video.frame for video in together]
        clock.add(whole, infos)
        pictures = [_rgb(f, info) for f, info in zip(whole, infos, strict=True)]
        index = whole[1].index
        mask = frame_mask(tracks.at(index), index, analysis.info)
        of_output.add(pictures[0], pictures[-1], mask)
        if reference is not None:
            of_source.add(pictures[1], pictures[-1], mask)
    if frames == 0:
        raise InputError(
            f"{output} and {source} have no frame in common; give what it was made from"
        )
    return Evaluation(
        frames,
        of_output.faces,
        equal,
        clock.largest_error_seconds,
        of_output.scores(),
        of_source.scores() if reference is not None else None,
        of_faces.result(),
    )


def _probed(path: Path, source: VideoInfo) -> VideoInfo:
    info = probe(path).info
    if (info.width, info.height) != (source.width, source.height):
        raise InputError(
            f"{path} has {info.width} x {info.height} pixels, the source "
            f"{source.width} x {source.height}; only equal sizes can be compared"
        )
    return info


def _faces_of(
    path: Path, span: TimeRange | None, tracks: tuple[Track, ...], info: VideoInfo
) -> Iterator[FaceFrame]:
    """Every frame with the crops that are measured."""
    measured = [replace(t, work_px=max(t.work_px, _SMALLEST_PX)) for t in tracks]
    frames, cpu = decode(path, DecodeErrors(), span), torch.device("cpu")
    return crop(frames, measured, info, largest_px=_LARGEST_PX, device=cpu)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def frame_mask(tracks: Sequence[Track], index: int, info: VideoInfo) -> _Picture:
    """(H, W) in [0, 1]: the largest of the masks of all faces that are restored in frame `index`;
    `tracks` are those with a face in it."""
    whole = np.zeros((info.height, info.width), np.float32)
    unit = face_mask(_MASK_PX)
    for track in tracks:
        at = index - track.first_frame
        if track.strength[at] == 0:
            continue
        matrix = crop_matrix(track.matrices[at], _MASK_PX)
        rect = mask_rect(matrix, _MASK_PX, info, (1, 1))
        if not rect.is_empty:
            part = warp(unit, shifted(matrix, rect), rect.height, rect.width, mode="bilinear")
            view = whole[rect.y0 : rect.y1, rect.x0 : rect.x1]
            np.maximum(view, part[0].numpy(), out=view)
    return whole


class _Mean:
    """Sums of the scores of frames."""

    def __init__(self) -> None:
        self.faces = 0
        self._psnr = self._ssim = 0.0
        self._outside_error, self._outside_count = 0.0, 0

    def add(self, picture: _Picture, truth: _Picture, mask: _Picture) -> None:
        error = metrics.squared_error(picture, truth)
        outside = mask == 0
        self._outside_error += float(error[outside].sum(dtype=np.float64))
        self._outside_count += int(outside.sum())
        if not mask.any():
            return
        self.faces += 1
        self._psnr += _decibel(float((error * mask).sum() / mask.sum()))
        self._ssim += float(metrics.ssim(picture[None], truth[None], mask)[0])

    def scores(self) -> Scores:
        n = max(self.faces, 1)
        outside = self._outside_error / max(self._outside_count, 1)
        return Scores(
            self._psnr / n if self.faces else math.nan,
            self._ssim / n if self.faces else math.nan,
            _decibel(outside),
        )


def _decibel(mean_squared_error: float) -> float:
    return math.inf if mean_squared_error == 0 else -10 * math.log10(mean_squared_error)


def _rgb(frame: Frame, info: VideoInfo) -> _Picture:
    whole = Rect(0, 0, info.width, info.height)
    rgb: torch.Tensor = color.region_rgb(frame.image, whole, info).clamp(0, 1)
    return np.ascontiguousarray(rgb.permute(1, 2, 0).numpy())


class _Clock:
    """How far the times of output and source are apart."""

    def __init__(self, *, starts_late: bool) -> None:
        """`starts_late`: the source's first time counts as zero, as that of a sample does."""
        self.largest_error_seconds = 0.0
        self._begin = None if starts_late else (Fraction(0), Fraction(0))

    def add(self, frames: Sequence[Frame], infos: Sequence[VideoInfo]) -> None:
        """Of output and source, in this order; what follows them is ignored."""
        output, source = (
            Fraction(frame.pts) * info.time_base
            for frame, info in zip(frames[:2], infos[:2], strict=True)
        )
        self._begin = self._begin or (output, source)
        error = (output - self._begin[0]) - (source - self._begin[1])
        self.largest_error_seconds = max(self.largest_error_seconds, float(abs(error)))


@dataclass(frozen=True, slots=True)
class Row:
    """A measure as people read it."""

    name: str
    source: str
    output: str
    better: str
    meaning: str


# Name, unit, decimals, which way is better, what it says.
_MEANINGS = (
    ("WORST", "dB", 2, "higher", "least gain in PSNR of any face in any frame"),
    ("FLK", "", 2, "lower", "flicker: error that changes with every frame, in 8-bit levels"),
    ("FLKlo", "", 2, "lower", "the same of light and colour over whole parts of the face"),
    ("FLKb", "", 2, "lower", "flicker as far as it shows without a clean video, in 8-bit levels"),
    ("DTL", "%", 0, "100", "share of the true fine detail that is there"),
    ("Ewarp", "e-3", 2, "lower", "change from frame to frame that motion does not explain"),
    ("tOF", "px", 2, "lower", "how far its motion is from the true motion"),
    ("BLINK", "dB", 2, "higher", "PSNR of the eyes while they blink"),
    ("SHP", "", 2, "1 or more", "fine detail and noise, times that of the source"),
    ("GEO", "px", 2, "lower", "wobble: bending from frame to frame that the source has not"),
    ("JIT", "px", 2, "lower", "trembling of the face within its aligned crop"),
    ("identity", "", 3, "higher", "likeness to the same person, as a recogniser sees it; most 1"),
)


def table_rows(result: Evaluation) -> Iterator[Row]:
    """What was measured, as text for people."""
    before, after = result.source, result.output
    against = "clean video" if before else "source"
    # That the faces differ from the source is what they were restored for.
    faces = "higher" if before else ""
    for name, attribute, form, better, meaning in (
        ("PSNR", "face_psnr_db", "{:.2f} dB", faces, f"likeness of the faces to the {against}"),
        ("SSIM", "face_ssim", "{:.4f}", faces, "the same, as structure; most 1"),
        ("PSNR outside", "outside_psnr_db", "{:.2f} dB", "higher", "of all but the faces"),
    ):
        old = _text(getattr(before, attribute), form) if before else ""
        yield Row(name, old, _text(getattr(after, attribute), form), better, meaning)
    for name, unit, decimals, better, meaning in _MEANINGS:
        pair = result.measures.get(name)
        if pair is not None and not math.isnan(pair.output):
            scale = 100 if unit == "%" else 1
            form = f"{{:.{decimals}f}} {unit}".rstrip()
            old = "" if math.isnan(pair.source) else _text(scale * pair.source, form)
            yield Row(name, old, _text(scale * pair.output, form), better, meaning)


def _text(value: float, form: str) -> str:
    if math.isnan(value):
        return "no face"
    return "identical" if math.isinf(value) else form.format(value)

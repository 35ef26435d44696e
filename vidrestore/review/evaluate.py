"""Evaluation of a restored video: quality measures, and whether it kept its frames and times.

PSNR and SSIM are measured in the frames, R'G'B' in [0, 1], under the masks of all faces of a frame,
and averaged over the frames that show a face. All other measures are taken in the aligned crops of
each face, and averaged over faces and frames. `vidrestore.review.metrics` has the formulas.
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
from vidrestore.analysis.tracks import Track
from vidrestore.common.errors import InputError
from vidrestore.common.events import OnEvent
from vidrestore.common.settings import Extent, Settings
from vidrestore.imaging import color
from vidrestore.imaging.frame import Frame, VideoInfo
from vidrestore.imaging.geometry import Rect, crop_matrix, shifted
from vidrestore.imaging.resample import warp
from vidrestore.media.decode import DecodeErrors, TimeRange, decode
from vidrestore.media.probe import probe
from vidrestore.media.source import open_source
from vidrestore.models.factory import chosen_recognizer
from vidrestore.restoration.compositing.masks import face_mask, mask_rect
from vidrestore.restoration.crop import crop
from vidrestore.restoration.faces import FaceFrame
from vidrestore.restoration.guard import SimilarityJudge
from vidrestore.review import metrics
from vidrestore.review.error_bars import error_text
from vidrestore.review.face_metrics import FaceScores, Pair
from vidrestore.review.verdict import (
    Verdict,
    blind_changes,
    detail_change,
    flicker_change,
    identity_change,
    psnr_change,
    verdict,
)

_Picture = npt.NDArray[np.float32]
_MASK_PX = 128
# Sides of the crops that are measured; the flow does not work in smaller ones.
_SMALLEST_PX, _LARGEST_PX = 64, 512


@dataclass(frozen=True, slots=True)
class Scores:
    """The likeness of one video to another, inside and outside the faces."""

    face_psnr_db: float
    """Mean PSNR of the faces, in dB; inf where a face is identical, nan without faces."""
    face_ssim: float
    """Mean SSIM of the faces, at most 1; nan without faces."""
    outside_psnr_db: float
    """PSNR outside the faces, in dB; inf where all samples are identical."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result of `evaluate`."""

    frames: int
    """Number of frames that were compared."""
    frames_with_faces: int
    """Number of the compared frames that show a restored face."""
    frame_counts_equal: bool
    """Whether all videos have the same number of frames."""
    largest_time_error_seconds: float
    """Largest difference between the times of a frame in output and source, in seconds."""
    output: Scores
    """The scores of the output against the reference, or against the source where there is no
    reference."""
    source: Scores | None
    """The scores of the source against the reference; None where there is no reference."""
    measures: Mapping[str, Pair]
    """The measures of the faces by name: WORST, FLK, FLKlo, DTL, Ewarp, tOF and BLINK where there
    is a reference, else FLKb, Ewarp, SHP, GEO and JIT; identity where there is a recognizer, else
    features where there is no reference. A measure that no face allows is missing or nan."""
    least_features: float
    """The least value of features that does not count as worse."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, with None for inf and nan, which JSON does not have."""
        plain = {**asdict(self), "verdict": self.verdict().word}
        del plain["least_features"]
        return dict(_finite(plain))

    def verdict(self) -> Verdict:
        """Reach the verdict on the output by the rule of `vidrestore.review.verdict`."""
        of = self.measures.get
        if self.source is None:
            changes = blind_changes(
                flicker=of("FLKb"), detail=of("SHP"), identity=of("identity"),
                features=of("features"), least_features=self.least_features,
            )  # fmt: skip
            return verdict(list(changes.values()))
        nothing = Pair(math.nan)
        flicker, detail, identity = (of(name, nothing) for name in ("FLK", "DTL", "identity"))
        found = flicker_change(flicker.source, flicker.output)
        found += detail_change(detail.source, detail.output, clean=True)
        found += psnr_change(self.source.face_psnr_db, self.output.face_psnr_db)
        if not math.isnan(identity.source):  # both cosines are needed for a comparison
            found += identity_change(identity.source, identity.output, identity.error)
        return verdict(found)


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
    """Compare a restored video with its source, and both with a clean video where there is one.

    Args:
        output: The restored video.
        source: The video from which `output` was made.
        settings: The settings of the analysis and of the recognizer.
        reference: The clean video. Default: none.
        analysis: The analysis of the source. Default: the function analyzes the source.
        span: The part of source and reference that `output` shows. Default: all of it.
        on_event: Receives the progress of the analysis. Default: none.

    Returns:
        The result.

    Raises:
        InputError: A file cannot be read, the pictures differ in size, or the videos have no
            frame in common.
        WeightsError: Weights for the analysis are missing or damaged.
    """
    paths = [output, source] + ([reference] if reference is not None else [])
    for path in paths:
        with open_source(path):
            pass  # so that a file that cannot be read fails before the long analysis
    analysis = analysis or analyze_video(source, settings, span=span, on_event=on_event)
    infos = [_probed(path, analysis.info) for path in paths]
    spans = [None, span, span]
    videos = [
        _faces_of(path, part, analysis.tracks, info)
        for path, part, info in zip(paths, spans, infos, strict=False)
    ]
    of_output, of_source = _Mean(), _Mean()
    recognizer = chosen_recognizer(settings, None)
    of_faces = FaceScores(
        analysis,
        recognizer,
        recognise_seconds=settings.people.every_seconds,
        judge=SimilarityJudge() if recognizer is None else None,
    )
    tracks = analysis.by_frame
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
        here = tracks.at(index)
        mask = frame_mask(here, index, analysis.info)
        outside = not_pasted(here, index, analysis.info, settings.paste.extent)
        of_output.add(pictures[0], pictures[-1], mask, outside)
        if reference is not None:
            of_source.add(pictures[1], pictures[-1], mask, outside)
    if frames == 0:
        raise InputError(
            f"{output} and {source} have no frame in common; give the video from which "
            f"{output.name} was made"
        )
    return Evaluation(
        frames,
        of_output.faces,
        equal,
        clock.largest_error_seconds,
        of_output.scores(),
        of_source.scores() if reference is not None else None,
        of_faces.result(),
        settings.guard.features,
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
    """Yield every frame with the crops that are measured."""
    measured = [replace(t, work_px=max(t.work_px, _SMALLEST_PX)) for t in tracks]
    frames = decode(path, DecodeErrors(), span, shifts=info.shifts, like=info, one_thread=True,
                    may_seek=True)  # fmt: skip
    cpu = torch.device("cpu")
    return crop(frames, measured, info, largest_px=_LARGEST_PX, device=cpu)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def frame_mask(tracks: Sequence[Track], index: int, info: VideoInfo) -> _Picture:
    """Compute the mask of all faces that are restored in a frame.

    Args:
        tracks: The tracks with a face in the frame.
        index: Index of the frame.
        info: The description of the video.

    Returns:
        (H, W) float32 in [0, 1], the maximum of the masks of the faces; 0 outside them.
    """
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


def not_pasted(
    tracks: Sequence[Track], index: int, info: VideoInfo, extent: Extent
) -> npt.NDArray[np.bool_]:
    """Return where pasting can have changed nothing in a frame.

    Args:
        tracks: The tracks with a face in the frame.
        index: Index of the frame.
        info: The description of the video.
        extent: What was pasted.

    Returns:
        (H, W) bool.
    """
    outside = np.ones((info.height, info.width), np.bool_)
    for track in tracks:
        at = index - track.first_frame
        if track.strength[at] > 0:
            matrix = crop_matrix(track.matrices[at], _MASK_PX)
            rect = mask_rect(matrix, _MASK_PX, info, (1, 1), extent)
            outside[rect.y0 : rect.y1, rect.x0 : rect.x1] = False
    return outside


class _Mean:
    """The means of the scores over frames."""

    def __init__(self) -> None:
        self.faces = 0
        self._psnr = self._ssim = 0.0
        self._outside_error, self._outside_count = 0.0, 0

    def add(
        self,
        picture: _Picture,
        truth: _Picture,
        mask: _Picture,
        outside: npt.NDArray[np.bool_],
    ) -> None:
        error = metrics.squared_error(picture, truth)
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
    """The largest difference between the times of output and source."""

    def __init__(self, *, starts_late: bool) -> None:
        """Start; with `starts_late`, the first frame of each video has the time zero."""
        self.largest_error_seconds = 0.0
        self._begin = None if starts_late else (Fraction(0), Fraction(0))

    def add(self, frames: Sequence[Frame], infos: Sequence[VideoInfo]) -> None:
        """Add a frame of output and source, in this order; further videos are ignored."""
        output, source = (
            Fraction(frame.pts) * info.time_base
            for frame, info in zip(frames[:2], infos[:2], strict=True)
        )
        self._begin = self._begin or (output, source)
        error = (output - self._begin[0]) - (source - self._begin[1])
        self.largest_error_seconds = max(self.largest_error_seconds, float(abs(error)))


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table of measures, as text."""

    name: str
    """Name of the measure."""
    source: str
    """Value of the source with its unit; empty where there is none."""
    output: str
    """Value of the output with its unit."""
    better: str
    """Which values are better, such as "higher"; empty where none are."""
    meaning: str
    """Explanation of the measure."""


# Name, unit, decimals, which values are better, meaning.
_MEANINGS = (
    ("WORST", "dB", 2, "higher", "least gain in PSNR of any face in any frame"),
    ("FLK", "", 2, "lower", "flicker: error that changes with every frame, in 8-bit levels"),
    ("FLKlo", "", 2, "lower", "flicker of light and color over whole parts of the face"),
    ("FLKb", "", 2, "lower", "flicker, estimated without a clean video, in 8-bit levels"),
    ("DTL", "%", 0, "100", "share of the true fine detail that the faces have"),
    ("Ewarp", "e-3", 2, "lower", "change from frame to frame that motion does not explain"),
    ("tOF", "px", 2, "lower", "distance between the motion of the face and the true motion"),
    ("BLINK", "dB", 2, "higher", "PSNR of the eyes while they blink"),
    ("SHP", "", 2, "1 or more", "fine detail and noise, as a multiple of the source's"),
    ("GEO", "px", 2, "lower", "wobble: bending from frame to frame that the source does not have"),
    ("JIT", "px", 2, "lower", "trembling of the face within its aligned crop"),
    ("identity", "", 3, "higher", "likeness of the person by the recognizer; at most 1"),
    ("features", "", 3, "higher", "likeness of eyes, mouth and face to the source; at most 1"),
)


def table_rows(result: Evaluation) -> Iterator[Row]:
    """Format the measures as the rows of a table.

    Args:
        result: The evaluation.

    Yields:
        The rows; measures without a value are left out.
    """
    before, after = result.source, result.output
    against = "clean video" if before else "source"
    # Restored faces should differ from the source, so no value is better without a clean video.
    faces = "higher" if before else ""
    for name, attribute, form, better, meaning in (
        ("PSNR", "face_psnr_db", "{:.2f} dB", faces, f"likeness of the faces to the {against}"),
        ("SSIM", "face_ssim", "{:.4f}", faces, "structural similarity of the faces; at most 1"),
        (
            "PSNR outside",
            "outside_psnr_db",
            "{:.2f} dB",
            "higher",
            "likeness outside the faces",
        ),
    ):
        old = _text(getattr(before, attribute), form) if before else ""
        yield Row(name, old, _text(getattr(after, attribute), form), better, meaning)
    for name, unit, decimals, better, meaning in _MEANINGS:
        pair = result.measures.get(name)
        if pair is not None and not math.isnan(pair.output):
            scale = 100 if unit == "%" else 1
            form = f"{{:.{decimals}f}} {unit}".rstrip()
            old = "" if math.isnan(pair.source) else _text(scale * pair.source, form)
            new = _text(scale * pair.output, form) + error_text(pair.error, f".{decimals}f")
            yield Row(name, old, new, better, meaning)


def _text(value: float, form: str) -> str:
    if math.isnan(value):
        return "no face"
    return "identical" if math.isinf(value) else form.format(value)

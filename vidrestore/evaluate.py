"""How much a restored video gained, and whether it kept its frames and times.

PSNR = 10 log10(1 / mse) over R'G'B' in [0, 1], mse weighted by the face mask.
SSIM by Wang et al. (IEEE TIP 13, 2004) on luma, Gaussian window of sigma 1.5, mean over the mask.
Both are means over the frames that show a face.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from skimage.metrics import structural_similarity

from vidrestore import color
from vidrestore.analyze import analyze_video
from vidrestore.config import Settings
from vidrestore.errors import InputError
from vidrestore.frame import Analysis, Frame, OnEvent, VideoInfo
from vidrestore.geometry import Rect, crop_matrix, shifted, warp
from vidrestore.stages.decode import Damage, Span, decode, probe
from vidrestore.stages.paste import face_mask, mask_rect

_Picture = npt.NDArray[np.float32]
_MASK_PX = 128
_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)


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

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON, which knows neither inf nor nan: both become None."""
        return dict(_finite(asdict(self)))


def evaluate(
    output: Path,
    source: Path,
    settings: Settings,
    *,
    reference: Path | None = None,
    analysis: Analysis | None = None,
    span: Span | None = None,
    on_event: OnEvent | None = None,
) -> Evaluation:
    """Compare `output` with `source`, and both with the clean `reference` where there is one.

    Faces are those of `analysis`, else of a new pass over the source. `span` says which part of
    source and reference the output is a sample of. InputError where the pictures differ in size.
    """
    analysis = analysis or analyze_video(source, settings, span=span, on_event=on_event)
    paths = [output, source] + ([reference] if reference is not None else [])
    infos = [probe(path) for path in paths]
    for path, info in zip(paths, infos, strict=True):
        if (info.width, info.height) != (analysis.info.width, analysis.info.height):
            raise InputError(
                f"{path} has {info.width} x {info.height} pixels, the source "
                f"{analysis.info.width} x {analysis.info.height}; only equal sizes can be compared"
            )
    of_output, of_source = _Mean(), _Mean()
    frames, equal, time_error = 0, True, 0.0
    spans = [None, span, span]
    videos = (decode(path, Damage(), part) for path, part in zip(paths, spans, strict=False))
    begin: list[Fraction] = []
    for together in zip_longest(*videos):
        if any(frame is None for frame in together):
            equal = False
            break
        frames += 1
        times = _times(together, infos)
        begin = begin or (times if span is not None else [Fraction(0), Fraction(0)])
        time_error = max(time_error, float(abs((times[0] - begin[0]) - (times[1] - begin[1]))))
        pictures = [_rgb(f, info) for f, info in zip(together, infos, strict=True)]
        mask = frame_mask(analysis, together[1].index)
        of_output.add(pictures[0], pictures[-1], mask)
        if reference is not None:
            of_source.add(pictures[1], pictures[-1], mask)
    if frames == 0:
        raise InputError(f"{output} and {source} have no frame in common")
    return Evaluation(
        frames,
        of_output.faces,
        equal,
        time_error,
        of_output.scores(),
        of_source.scores() if reference is not None else None,
    )


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def frame_mask(analysis: Analysis, index: int) -> _Picture:
    """(H, W) in [0, 1]: the largest of the masks of all faces that are restored in a frame."""
    info = analysis.info
    whole = np.zeros((info.height, info.width), np.float32)
    unit = face_mask(_MASK_PX)
    for track in analysis.tracks:
        at = index - track.first_frame
        if not 0 <= at < len(track.matrices) or track.strength[at] == 0:
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
        error = np.mean((picture - truth) ** 2, axis=-1)
        outside = mask == 0
        self._outside_error += float(error[outside].sum(dtype=np.float64))
        self._outside_count += int(outside.sum())
        if not mask.any():
            return
        self.faces += 1
        self._psnr += _decibel(float((error * mask).sum() / mask.sum()))
        self._ssim += _masked_ssim(picture @ _LUMA, truth @ _LUMA, mask)

    def scores(self) -> Scores:
        n = max(self.faces, 1)
        outside = self._outside_error / max(self._outside_count, 1)
        return Scores(
            self._psnr / n if self.faces else math.nan,
            self._ssim / n if self.faces else math.nan,
            _decibel(outside),
        )


def _masked_ssim(picture: _Picture, truth: _Picture, mask: _Picture) -> float:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    margin = 8  # the window's reach beyond the mask
    part = (
        slice(max(0, rows[0] - margin), rows[-1] + margin + 1),
        slice(max(0, columns[0] - margin), columns[-1] + margin + 1),
    )
    _, each = structural_similarity(
        picture[part], truth[part], data_range=1.0, gaussian_weights=True, full=True
    )
    return float((each * mask[part]).sum() / mask[part].sum())


def _decibel(mean_squared_error: float) -> float:
    return math.inf if mean_squared_error == 0 else -10 * math.log10(mean_squared_error)


def _rgb(frame: Frame, info: VideoInfo) -> _Picture:
    whole = Rect(0, 0, info.width, info.height)
    rgb: torch.Tensor = color.region_rgb(frame.image, whole, info).clamp(0, 1)
    return np.ascontiguousarray(rgb.permute(1, 2, 0).numpy())


def _times(frames: tuple[Frame, ...], infos: list[VideoInfo]) -> list[Fraction]:
    """The output's and the source's time of one frame, in seconds."""
    both = zip(frames[:2], infos[:2], strict=True)
    return [Fraction(f.pts) * info.time_base for f, info in both]


def table_rows(result: Evaluation) -> Iterator[tuple[str, str, str]]:
    """(what, source, output) as text, for people."""
    before, after = result.source, result.output
    for name, attribute, form in (
        ("face PSNR", "face_psnr_db", "{:.2f} dB"),
        ("face SSIM", "face_ssim", "{:.4f}"),
        ("PSNR outside the faces", "outside_psnr_db", "{:.2f} dB"),
    ):
        yield (
            name,
            _text(getattr(before, attribute), form) if before else "",
            _text(getattr(after, attribute), form),
        )


def _text(value: float, form: str) -> str:
    if math.isnan(value):
        return "no face"
    return "identical" if math.isinf(value) else form.format(value)

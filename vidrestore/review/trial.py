"""The trial of a restorer on the built-in portrait, which is degraded, restored and scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from vidrestore.common.errors import UsageError, WeightsError
from vidrestore.common.events import OnEvent, Progress
from vidrestore.common.files import check_new
from vidrestore.common.settings import Settings
from vidrestore.imaging.filters import gaussian_blur
from vidrestore.imaging.geometry import Matrix, apply, compose, invert, template
from vidrestore.imaging.luma import BT601_WEIGHTS
from vidrestore.imaging.optical_flow import DenseFlow
from vidrestore.models.devices import choose_device
from vidrestore.models.face_mesh import FaceMesh
from vidrestore.models.factory import chosen_face_mesh, chosen_restorer
from vidrestore.models.restorers import LatentRestorer, Restorer
from vidrestore.restoration.expression import PICTURE_PX, departures, softness_px
from vidrestore.review.drawing import write_picture
from vidrestore.review.latent_trial import CodeTrial, try_codes
from vidrestore.review.portrait import (
    CROP_PX,
    DEGRADATIONS,
    Picture,
    Points,
    as_picture,
    as_tensor,
    clean_portrait,
    common_template,
    cut,
    place_in_crop,
)

Template = Literal["gpen", "ffhq"]
TEMPLATES: tuple[Template, ...] = get_args(Template)
"""Names of the templates that a trial compares."""

# Least differences at which one template is better: in px, share of detail, dB.
_LEAST_PX, _LEAST_DETAIL, _LEAST_DB = 0.05, 0.005, 0.05
# Trained networks lose one or two dB against the degraded picture. A loss of more than this, in
# dB, shows that a network restores no faces.
_LOST_DB = 6.0
_LANDMARK_RADIUS_PX = 8
_TILE_PX = 288

_Plane = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Score:
    """The likeness of a face to the clean one, in one crop for both templates, under the face."""

    landmark_error_px: float
    """Mean distance of the five landmarks from their true places, in pixels at 512.

    It is the dense flow from the clean crop to this one at these places, so that no detector is
    needed. The flow has no meaning beyond about 30 px, or where the two crops show different
    things.
    """
    true_detail: float
    """Share of the true fine detail: sum h(O) h(G) / sum h(G)^2, h = Y - Gauss_2(Y).

    At 1, all fine detail is there. Detail that is invented or in the wrong place adds nothing.
    """
    psnr_db: float
    """PSNR against the clean face, in dB."""
    expression: float | None = None
    """Largest departure of an eye or the mouth from the clean face, by
    `restoration.expression.departures`: up to 1, noise and softness explain it. None where there is
    no face mesh."""


@dataclass(frozen=True, slots=True)
class Row:
    """The score of one degradation and one template."""

    degradation: str
    """Name of the degradation, from `portrait.DEGRADATIONS`."""
    template: Template | None
    """Name of the template; None for the degraded portrait itself, as a baseline."""
    score: Score
    """The score of the restored face, or of the degraded one."""


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """The result of a restorer on the portrait."""

    restorer: str
    """Name of the restorer."""
    own_template: str
    """Name of the template that the restorer asks for."""
    rows: tuple[Row, ...]
    """The scores: first those of the degraded portraits, then those of the restored faces."""
    sheet: Picture
    """(H, W, 3) uint8 R'G'B': the clean, degraded and restored faces in rows with their scores."""
    codes: CodeTrial | None = None
    """The comparison of latent codes; None: it was not made."""

    def wins(self, name: Template) -> int:
        """Count the comparisons in which a template is better than the other.

        Args:
            name: The template.

        Returns:
            The number, from 0 to 9: three degradations with three scores each.
        """
        (other,) = (t for t in TEMPLATES if t != name)
        scores = {(row.degradation, row.template): row.score for row in self.rows}
        pairs = [
            (scores[degradation, name], scores[degradation, other]) for degradation in DEGRADATIONS
        ]
        return sum(sum(_better(restored, other)) for restored, other in pairs)

    @property
    def restores(self) -> bool:
        """Whether the results are near enough to the portrait to be compared."""
        degraded = self._psnr_db(None)
        return max(self._psnr_db(name) for name in TEMPLATES) >= degraded - _LOST_DB

    @property
    def better_template(self) -> Template | None:
        """The template with more wins; None where both are equal or `restores` is False."""
        gpen, ffhq = (self.wins(name) for name in TEMPLATES)
        if gpen == ffhq or not self.restores:
            return None
        return "gpen" if gpen > ffhq else "ffhq"

    @property
    def verdict(self) -> str:
        """The conclusion as one sentence for users, with the setting that follows from it."""
        if not self.restores:
            return (
                "The results are further from the portrait than the degraded input, by more than "
                f"{_LOST_DB:.0f} dB, so these numbers mean nothing: the weights are untrained, or "
                "not those of a face restorer."
            )
        name = self.better_template
        if name is None:
            return (
                "Neither template is better, so look at the sheet; without a setting, vidrestore "
                f"uses {self.own_template}."
            )
        (other,) = (t for t in TEMPLATES if t != name)
        wins, losses = self.wins(name), self.wins(other)
        close = "; that is close, so look at the sheet" if wins - losses < 3 else ""
        default = ", as without a setting" if name == self.own_template else ""
        return (
            f"The template {name} is better in {wins} of {3 * len(DEGRADATIONS)} comparisons and "
            f"worse in {losses}{close}: --set align.template={name}{default}."
        )

    @property
    def about_expression(self) -> str:
        """What the face mesh found, as one sentence for users."""
        found = [
            row.score.expression
            for row in self.rows
            if row.template is not None and row.score.expression is not None
        ]
        if not found:
            return "The expression was not scored, because the face mesh is not used."
        if departed := sum(each > 1 for each in found):
            return (
                f"An eye or the mouth departs from the portrait in {departed} of {len(found)} "
                "results, by more than noise and softness explain."
            )
        return "The eyes and the mouth are those of the portrait in all results."

    def _psnr_db(self, name: Template | None) -> float:
        return float(np.mean([r.score.psnr_db for r in self.rows if r.template == name]))


def run_trial(
    settings: Settings,
    sheet: Path,
    *,
    overwrite: bool = False,
    on_event: OnEvent | None = None,
) -> Trial:
    """Try the restorer that the settings name, and write its results to a picture.

    Args:
        settings: The settings; `restore`, `weights` and `detect.mesh` matter. With
            `restore.latent` "shot" the latent codes of GPEN are compared, too.
        sheet: The .png or .jpg file to write.
        overwrite: Whether an existing file may be replaced. Default: False.
        on_event: Receives the progress and notices. Default: none.

    Returns:
        The result.

    Raises:
        UsageError: `sheet` has another suffix or exists, or one face does not fit into the memory
            of the device.
        WeightsError: The weights are missing, damaged or give results that are not finite.
        ConfigError: The settings name an unknown restorer.
        OutputError: `sheet` cannot be written.
    """
    if sheet.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise UsageError(f"the sheet {sheet} is not a .png or .jpg file; give it such a suffix")
    check_new(sheet, overwrite=overwrite)
    restorer = chosen_restorer(settings, on_event)
    device = choose_device(settings.restore)
    try:
        mesh = chosen_face_mesh(settings, on_event, without="the expression is not scored")
        result = try_restorer(restorer, device, on_event, mesh=mesh)
        if settings.restore.latent == "shot" and isinstance(restorer, LatentRestorer):
            result = replace(result, codes=try_codes(restorer, device))
    except MemoryError as error:
        raise UsageError(
            f"one face of {restorer.name} does not fit into the memory of {device.type}; use a "
            "smaller network or another --device"
        ) from error
    write_picture(sheet, result.sheet)
    return result


def try_restorer(
    restorer: Restorer,
    device: torch.device | None = None,
    on_event: OnEvent | None = None,
    *,
    mesh: FaceMesh | None = None,
) -> Trial:
    """Restore the portrait with each degradation in each template, and score the results.

    Args:
        restorer: The restorer.
        device: The device on which it runs. Default: the processor.
        on_event: Receives the progress. Default: none.
        mesh: The face mesh, which scores the expression. Default: none, and it is not scored.

    Returns:
        The result.

    Raises:
        WeightsError: A result is not finite.
        MemoryError: One face does not fit into the memory of the device.
    """
    device = device or torch.device("cpu")
    side = restorer.size or CROP_PX
    scored_px = min(side, CROP_PX)  # the clean portrait has no finer detail
    clean, landmarks = clean_portrait()
    scorer = _Scorer(clean, landmarks, scored_px, mesh)
    degraded = {
        name: as_tensor(degradation(as_picture(clean)))
        for name, degradation in DEGRADATIONS.items()
    }
    rows = [Row(name, None, scorer(picture, np.eye(2, 3))) for name, picture in degraded.items()]
    strips = [_heading(restorer.name)]
    cases = list(product(DEGRADATIONS, TEMPLATES))
    for done, (name, where) in enumerate(cases, start=1):
        matrix = place_in_crop(landmarks, template(where), side)
        source = cut(degraded[name], matrix, side)
        restored = _restored(restorer, source, device)
        reduced = F.adaptive_avg_pool2d(restored[None], scored_px)[0]
        score = scorer(reduced, place_in_crop(landmarks, template(where), scored_px))
        rows.append(Row(name, where, score))
        strips.append(_strip(rows[-1], [cut(clean, matrix, side), source, restored]))
        if on_event is not None:
            on_event(Progress("try", done, len(cases)))
    return Trial(restorer.name, restorer.template, tuple(rows), np.vstack(strips))


def _restored(restorer: Restorer, source: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Restore (3, S, S); a restorer that uses neighboring frames gets copies of the picture."""
    windows = source.to(device)[None, None].repeat(1, 2 * restorer.reach_frames + 1, 1, 1, 1)
    with torch.no_grad():
        restored = restorer(windows)[0].float().cpu()
    if not torch.isfinite(restored).all():
        raise WeightsError(
            f"{restorer.name} gives no finite result for the built-in portrait, so its file is "
            "damaged or not that of a face restorer; use another file"
        )
    return restored.clamp(0, 1)


class _Scorer:
    """Scores pictures against the clean one, in a crop that lies between the two templates."""

    def __init__(
        self, clean: torch.Tensor, landmarks: Points, side: int, mesh: FaceMesh | None
    ) -> None:
        self._side, self._mesh = side, mesh
        self._matrix = place_in_crop(landmarks, common_template(), side)
        self._clean = cut(clean, self._matrix, side).numpy()
        self._points = apply(self._matrix, landmarks)
        self._face = _face_mask(side)

    def __call__(self, picture: torch.Tensor, picture_from_portrait: Matrix) -> Score:
        matrix = compose(self._matrix, invert(picture_from_portrait))
        restored = cut(picture, matrix, self._side).numpy()
        error = float(np.mean((255 * (restored - self._clean)[:, self._face]) ** 2))
        psnr_db = float(10 * np.log10(255**2 / max(error, 1e-3)))
        return Score(
            self._landmark_error_px(restored),
            self._true_detail(restored),
            psnr_db,
            self._departure(restored),
        )

    def _departure(self, restored: _Plane) -> float | None:
        if self._mesh is None:
            return None
        # The clean face takes the part of a sharper version of the other one.
        own, clean = (_levels(picture) for picture in (restored, self._clean))
        landmarks = (self._points + 0.5) / self._side
        soft_px = softness_px(own, clean, landmarks)
        found = departures(self._mesh, own, clean, landmarks, soft_px)
        return max(found.values(), default=0.0)

    def _true_detail(self, restored: _Plane) -> float:
        own, true = (_fine_detail(_luma(x))[self._face] for x in (restored, self._clean))
        return float((own * true).sum() / (true * true).sum())

    def _landmark_error_px(self, restored: _Plane) -> float:
        flow = DenseFlow()(_gray(_luma(self._clean)), _gray(_luma(restored)))
        places = np.rint((self._points + 0.5) * (CROP_PX / self._side) - 0.5).astype(int)
        reach = _LANDMARK_RADIUS_PX
        around = [
            flow[y - reach : y + reach + 1, x - reach : x + reach + 1].reshape(-1, 2)
            for x, y in places
        ]
        return float(np.mean([np.linalg.norm(np.median(near, axis=0)) for near in around]))


def _face_mask(side: int) -> npt.NDArray[np.bool_]:
    """Return (S, S) bool, True in an ellipse from the brows to the chin."""
    v, u = (np.mgrid[:side, :side] + 0.5) / side
    return np.asarray(((u - 0.5) / 0.25) ** 2 + ((v - 0.56) / 0.33) ** 2 <= 1)


def _luma(picture: _Plane) -> _Plane:
    """Map (3, H, W) R'G'B' in [0, 1] to (H, W) luma in 8-bit levels, BT.601."""
    return np.asarray(np.tensordot(BT601_WEIGHTS, picture, 1) * 255, np.float32)


def _levels(picture: _Plane) -> _Plane:
    """Resize (3, H, W) R'G'B' in [0, 1] to (256, 256, 3) in 8-bit levels."""
    size = (PICTURE_PX, PICTURE_PX)
    levels = cv2.resize(picture.transpose(1, 2, 0) * 255, size, interpolation=cv2.INTER_AREA)
    return np.asarray(levels, np.float32)


def _fine_detail(luma: _Plane) -> _Plane:
    return np.asarray(luma - gaussian_blur(luma, 2), np.float32)


def _gray(luma: _Plane) -> npt.NDArray[np.uint8]:
    """Resize the luma to a side of 512, in whose pixels landmark errors are stated."""
    gray = cv2.resize(luma, (CROP_PX, CROP_PX), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(np.rint(gray), 0, 255), np.uint8)


def _better(one: Score, other: Score) -> Sequence[bool]:
    return (
        one.landmark_error_px < other.landmark_error_px - _LEAST_PX,
        one.true_detail > other.true_detail + _LEAST_DETAIL,
        one.psnr_db > other.psnr_db + _LEAST_DB,
    )


def _heading(name: str) -> Picture:
    return _text(f"{name}: clean, degraded, restored")


def _strip(row: Row, pictures: Sequence[torch.Tensor]) -> Picture:
    score = row.score
    numbers = (
        f"{score.landmark_error_px:.1f} px off, {score.true_detail:.2f} of the detail, "
        f"{score.psnr_db:.1f} dB"
    )
    if score.expression is not None:
        numbers += f", expression {score.expression:.2f} off"
    size = (_TILE_PX, _TILE_PX)
    tiles = [cv2.resize(as_picture(p), size, interpolation=cv2.INTER_AREA) for p in pictures]
    return np.vstack(
        [_text(f"{row.degradation}, template {row.template}: {numbers}"), np.hstack(tiles)]
    )


def _text(words: str) -> Picture:
    """Draw a line of text as wide as three pictures."""
    line = np.full((28, 3 * _TILE_PX, 3), 255, np.uint8)
    black = (0, 0, 0)
    cv2.putText(line, words, (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.55, black, 1, cv2.LINE_AA)
    return line

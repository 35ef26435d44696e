"""The report of a training: scores, losses, and the crops that were used, as one HTML page.

The faces are on the page alone, on the disk of the user. The file of the network holds none.
"""

from __future__ import annotations

import base64
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from vidrestore.common.counting import counted
from vidrestore.common.errors import reason_beneath
from vidrestore.common.events import OnEvent, notify
from vidrestore.common.files import output_file
from vidrestore.common.handled import log_handled
from vidrestore.common.html_templates import html_template
from vidrestore.common.settings import Settings
from vidrestore.common.timecode import duration_text
from vidrestore.models.gpen.network import GPEN
from vidrestore.personal.degradations import Pair, Picture
from vidrestore.personal.personal_file import gains
from vidrestore.personal.request import PersonalizeRequest
from vidrestore.personal.run import Trained
from vidrestore.personal.scores import tensor_of
from vidrestore.personal.trainer import TrainingRecord
from vidrestore.review.report.command import changed_settings
from vidrestore.review.report.page import Rows
from vidrestore.review.report.plots import MOST_POINTS, StepPanel, over_steps

_THUMBNAIL_PX, _EXAMPLE_PX = 96, 320
_MOST_THUMBNAILS, _MOST_EXAMPLES = 120, 4
_JPEG_QUALITY = 88
_CPU = torch.device("cpu")

# Attribute of the scores -> name, digits, and what it compares.
_SCORES = {
    "identity": ("Likeness", 3, "cosine of the embeddings of restored and clear face"),
    "detail": ("Fine detail", 3, "share of the true fine detail"),
    "psnr_db": ("PSNR", 2, "dB, all pixels"),
}


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """A score before and after the training."""

    name: str
    """Such as "Likeness"."""
    before: str
    """The score of the network before training, as text."""
    after: str
    """The score of the adapted network, as text."""
    word: str
    """better, same or worse."""
    explained: str
    """What the score compares."""


@dataclass(frozen=True, slots=True)
class Example:
    """A crop that was set apart, as JPEG files."""

    side_px: int
    """The side of the pictures in pixels."""
    degraded: bytes
    """The bad picture that both networks got."""
    before: bytes
    """What the network before training made of it."""
    after: bytes
    """What the adapted network made of it."""
    truth: bytes
    """The clear crop."""


@dataclass(frozen=True, slots=True)
class Shown:
    """The content of a page. Texts are plain, and the template escapes them; drawings are SVG."""

    target: Path
    """The file of the network."""
    base: str
    """The name of the network before training."""
    version: str
    """Version of vidrestore."""
    ended: datetime
    """Local time at which the training ended."""
    is_better: bool
    """Whether the network is better than before, so that it is written."""
    gains: str
    """By how much it is better."""
    scores: Sequence[ScoreRow]
    """The scores of the best look."""
    tiles: Rows
    """Figures of the training."""
    apart_count: int
    """Number of crops that were set apart."""
    scores_plot: str
    """The scores over the steps, as SVG."""
    losses_plot: str
    """The losses over the steps, as SVG."""
    examples: Sequence[Example]
    """Some of the crops that were set apart."""
    learned: Sequence[bytes]
    """Crops that were learned from, as JPEG files."""
    learned_more: int
    """Number of crops that were learned from and are not shown."""
    thumbnail_px: int
    """The side in pixels at which the page shows these crops."""
    how: Rows
    """Tools and numbers of the training."""
    asked: Rows
    """Settings that differ from the default."""


def write_training_page(
    request: PersonalizeRequest, trained: Trained, on_event: OnEvent | None = None
) -> None:
    """Write the page about a training. An error does not make the training fail.

    Args:
        request: The request, which names the report.
        trained: The training.
        on_event: Receives a notice with the path, or with what went wrong. Default: none is sent.
    """
    path = request.report
    assert path is not None
    try:
        text = training_page(_shown(request, trained))
        with output_file(path, "the report") as part:
            part.write_bytes(text.encode("utf-8", "backslashreplace"))
    except Exception as error:
        # The network took hours, and a page does not.
        log_handled(error)
        notify(on_event, f"the report {path} could not be written ({reason_beneath(error)})")
    else:
        notify(on_event, f"the report is in {path}")


def training_page(shown: Shown) -> str:
    """Render the page.

    Args:
        shown: The content.

    Returns:
        HTML text that needs no other file.
    """
    template = html_template(Path(__file__).parent / "templates" / "training.html.j2")
    word = "better" if shown.is_better else "not better"
    verdict = f"Verdict: for this person the network is {word} than {shown.base} ({shown.gains})."
    if not shown.is_better:
        verdict += " It was not written."
    return template.render(
        shown=shown,
        title=f"{shown.target.name}: what the training did",
        ended=shown.ended.strftime("%Y-%m-%d %H:%M"),
        verdict=verdict,
        base64=lambda data: base64.b64encode(data).decode(),
        counted=counted,
    )


def _shown(request: PersonalizeRequest, trained: Trained) -> Shown:
    record, planned = trained.record, trained.forecast
    crops = trained.training_set.crops
    spread = np.linspace(0, len(crops) - 1, min(_MOST_THUMBNAILS, len(crops))).astype(int)
    usual = Settings()
    return Shown(
        target=request.target,
        base=planned.base,
        version=version("vidrestore"),
        ended=datetime.now(),
        is_better=record.is_better,
        gains=gains(record.base, record.best.scores),
        scores=list(_score_rows(record)),
        tiles=[
            ("steps", f"{len(record.losses):,}"),
            ("best after", counted(record.best.step, "step")),
            ("crops learned from", f"{len(crops):,}"),
            ("crops set apart", f"{len(trained.pairs_apart):,}"),
            ("took", duration_text(record.seconds).replace(" ", "\N{NO-BREAK SPACE}")),
        ],
        apart_count=len(trained.pairs_apart),
        scores_plot=over_steps(_score_panels(record), "scores", "Scores over the steps."),
        losses_plot=over_steps(_loss_panels(record), "losses", "Losses over the steps."),
        examples=list(_examples(trained)),
        learned=[_jpeg(crops[i], _THUMBNAIL_PX) for i in spread.tolist()],
        learned_more=len(crops) - len(spread),
        thumbnail_px=_THUMBNAIL_PX,
        how=list(_how(trained)),
        asked=[
            (name, f"{value} (default: {attrgetter(name)(usual)})")
            for name, value in changed_settings(trained.settings, usual)
        ],
    )


def _score_rows(record: TrainingRecord) -> Iterator[ScoreRow]:
    for attribute, (name, digits, explained) in _SCORES.items():
        before, after = (getattr(own, attribute) for own in (record.base, record.best.scores))
        if before is None or after is None:
            continue
        was, now = (f"{value:.{digits}f}" for value in (before, after))
        word = "same" if was == now else "better" if after > before else "worse"
        yield ScoreRow(name, was, now, word, explained)


def _score_panels(record: TrainingRecord) -> Iterator[StepPanel]:
    steps = np.array([look.step for look in record.looks], np.float64)
    for attribute, (name, _, _) in _SCORES.items():
        level = getattr(record.base, attribute)
        if level is not None:
            values = [getattr(look.scores, attribute) for look in record.looks]
            yield StepPanel(name, steps, np.array(values, np.float64), level)


def _loss_panels(record: TrainingRecord) -> Iterator[StepPanel]:
    for name in dict.fromkeys(name for step in record.losses for name in step.losses):
        own = [(step.step, step.losses[name]) for step in record.losses if name in step.losses]
        parts = np.array_split(np.array(own, np.float64), min(MOST_POINTS, len(own)))
        steps, values = np.array([part.mean(axis=0) for part in parts]).T
        yield StepPanel(name, steps, values, None)


def _examples(trained: Trained) -> Iterator[Example]:
    pairs = trained.pairs_apart
    for i in np.linspace(0, len(pairs) - 1, min(_MOST_EXAMPLES, len(pairs))).astype(int).tolist():
        pair = pairs[i]
        before, after = (_restored(each, pair) for each in (trained.base, trained.network))
        side = min(_EXAMPLE_PX, len(pair.truth))
        pictures = (pair.degraded, before, after, pair.truth)
        yield Example(side, *(_jpeg(_levels(picture), side) for picture in pictures))


def _restored(network: GPEN, pair: Pair) -> Picture:
    with torch.no_grad():
        restored = network(tensor_of([pair.degraded], _CPU))[0]
    return np.asarray((restored.clamp(-1, 1).permute(1, 2, 0).numpy() + 1) / 2, np.float32)


def _levels(picture: Picture) -> npt.NDArray[np.uint8]:
    return np.asarray(np.clip(np.rint(255 * picture), 0, 255), np.uint8)


def _jpeg(rgb: npt.NDArray[np.uint8], side_px: int) -> bytes:
    """Encode (S, S, 3) R'G'B' as a JPEG file of another side."""
    interpolation = cv2.INTER_AREA if len(rgb) >= side_px else cv2.INTER_CUBIC
    bgr = cv2.resize(rgb[..., ::-1], (side_px, side_px), interpolation=interpolation)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return data.tobytes()


def _how(trained: Trained) -> Iterator[tuple[str, str]]:
    planned = trained.forecast
    yield "network before training", f"{planned.base}, {planned.size_px} px"
    yield "device", planned.device
    yield "faces in each step", str(planned.batch)
    yield "discriminator", "yes" if planned.has_discriminator else "no"
    yield "identity network", "yes" if planned.has_identity else "no"
    yield "faces of the videos that bad pictures imitate", str(trained.film_conditions)
    packages = ("vidrestore", "torch", "av", "opencv-python", "numpy")
    versions = [f"{package} {version(package)}" for package in packages]
    yield "versions", ", ".join([*versions, f"Python {platform.python_version()}"])
    yield "run on", f"{platform.system()}, {platform.machine()}"

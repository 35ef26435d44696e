"""`weights try`: does the score tell good restorers from bad ones, and templates apart?"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.expressions import closed, open_mesh

from vidrestore.common.errors import UsageError, WeightsError
from vidrestore.common.events import Progress
from vidrestore.common.profiles import load_settings
from vidrestore.imaging.geometry import apply, template
from vidrestore.models.face_mesh import FaceMesh, square_of_landmarks
from vidrestore.models.restorers import Restorer
from vidrestore.review.portrait import (
    CROP_PX,
    DEGRADATIONS,
    as_picture,
    as_tensor,
    clean_portrait,
    cut,
    place_in_crop,
)
from vidrestore.review.trial import (
    TEMPLATES,
    Row,
    Score,
    Template,
    Trial,
    run_trial,
    try_restorer,
)


class Fake(Restorer):
    """Does `change` to (B, 3, S, S)."""

    name, reach_frames, template = "fake", 0, "gpen"

    def __init__(self, change: Callable[[torch.Tensor], torch.Tensor], size: int = 256) -> None:
        self.change, self.size = change, size

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        return self.change(windows[:, 0])


def blurred(image: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(F.pad(image, (4,) * 4, mode="replicate"), 9, 1)


class Knowing(Fake):
    """Gives back the clean face, but only where it stands in its own template."""

    def __init__(self, own: Template) -> None:
        super().__init__(lambda image: image)
        clean, landmarks = clean_portrait()
        crops = {
            name: cut(clean, place_in_crop(landmarks, template(name), self.size), self.size)
            for name in TEMPLATES
        }
        self._clean, self._other = (
            crops[own],
            next(crop for name, crop in crops.items() if name != own),
        )

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        image = windows[0, 0]
        ours = (image - self._clean).square().mean() < (image - self._other).square().mean()
        return self._clean[None] if ours else blurred(image[None])


@pytest.fixture(scope="module")
def plain() -> Trial:
    return try_restorer(Fake(lambda image: image))


def mean(trial: Trial, value: Callable[[Score], float], where: Template | None) -> float:
    return float(np.mean([value(row.score) for row in trial.rows if row.template == where]))


def test_the_landmarks_stand_on_the_face() -> None:
    clean, landmarks = clean_portrait()
    grey = cv2.cvtColor(as_picture(clean), cv2.COLOR_RGB2GRAY)
    eyes = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_eye_tree_eyeglasses.xml")
    boxes = eyes.detectMultiScale(grey, minNeighbors=6)
    for x, y in landmarks[:2]:
        assert any(np.hypot(x - (u + w / 2), y - (v + h / 2)) < 12 for u, v, w, h in boxes)


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_crop_puts_them_where_the_template_says(name: Template) -> None:
    _, landmarks = clean_portrait()
    placed = apply(place_in_crop(landmarks, template(name), CROP_PX), landmarks)
    assert np.abs(placed - (template(name) * CROP_PX - 0.5)).max() < 20


@pytest.mark.parametrize("degradation", DEGRADATIONS)
def test_wear_wears_and_is_the_same_each_time(degradation: str, plain: Trial) -> None:
    picture = as_picture(clean_portrait()[0])
    once, again = DEGRADATIONS[degradation](picture), DEGRADATIONS[degradation](picture)
    assert np.array_equal(once, again)
    assert once.shape == picture.shape
    assert np.abs(once.astype(int) - picture).mean() > 2


def test_nothing_done_scores_as_the_worn_portrait(plain: Trial) -> None:
    assert [(row.degradation, row.template) for row in plain.rows] == [
        *((degradation, None) for degradation in DEGRADATIONS),
        *((degradation, name) for degradation in DEGRADATIONS for name in TEMPLATES),
    ]
    worn = mean(plain, lambda score: score.psnr_db, None)
    for name in TEMPLATES:
        assert mean(plain, lambda score: score.psnr_db, name) == pytest.approx(worn, abs=1.0)
        assert mean(plain, lambda score: score.landmark_error_px, name) < 0.5


def test_a_blurring_restorer_has_less_true_detail(plain: Trial) -> None:
    worse = try_restorer(Fake(blurred))
    for name in TEMPLATES:
        detail = [mean(each, lambda s: s.true_detail, name) for each in (worse, plain)]
        assert detail[0] < 0.5 * detail[1]


def test_a_shift_is_measured_in_pixels_at_512() -> None:
    shifted = try_restorer(Fake(lambda image: torch.roll(image, (3, 4), dims=(-2, -1)), CROP_PX))
    for name in TEMPLATES:
        error_px = mean(shifted, lambda score: score.landmark_error_px, name)
        assert error_px == pytest.approx(5.0, abs=0.7)


@pytest.mark.parametrize("own", TEMPLATES)
def test_the_template_that_the_restorer_knows_is_named(own: Template) -> None:
    trial = try_restorer(Knowing(own))
    assert trial.restores
    assert trial.better_template == own
    assert f"--set align.template={own}" in trial.verdict
    assert trial.verdict.startswith(f"The template {own} is better in ")
    clean = mean(trial, lambda score: score.true_detail, own)
    assert clean == pytest.approx(1.0, abs=0.15)


class Closing(Fake):
    """Gives back the clean face with an eye closed."""

    def __init__(self, mesh: FaceMesh) -> None:
        super().__init__(lambda image: image, CROP_PX)
        clean, landmarks = clean_portrait()
        self._faces = []
        for name in TEMPLATES:
            crop = cut(clean, place_in_crop(landmarks, template(name), CROP_PX), CROP_PX)
            bgr = np.ascontiguousarray(as_picture(crop)[..., ::-1])
            found = mesh.settle(bgr, square_of_landmarks(template(name) * CROP_PX - 0.5))
            self._faces.append((crop, as_tensor(closed(bgr, found, "left_eye")[..., ::-1].copy())))

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        image = windows[0, 0]
        return min(self._faces, key=lambda pair: float((image - pair[0]).square().mean()))[1][None]


def test_the_face_mesh_scores_the_expression(shared: Path, plain: Trial) -> None:
    mesh = open_mesh(shared)
    assert {row.score.expression for row in plain.rows} == {None}
    assert plain.about_expression.startswith("The expression was not scored")
    faithful, winking = (
        try_restorer(each, mesh=mesh) for each in (Fake(blurred, CROP_PX), Closing(mesh))
    )
    assert max(row.score.expression or 0 for row in faithful.rows) < 0.5
    assert faithful.about_expression == (
        "The eyes and the mouth are those of the portrait in all results."
    )
    for row in winking.rows:
        departs = (row.score.expression or 0) > 1
        assert departs == (row.template is not None)
    assert winking.about_expression.startswith("An eye or the mouth departs from the portrait in 6")


def test_numbers_of_untrained_weights_are_said_to_mean_nothing() -> None:
    trial = try_restorer(Fake(lambda image: torch.rand_like(image)))
    assert not trial.restores
    assert trial.better_template is None
    assert "mean nothing" in trial.verdict
    assert "align.template" not in trial.verdict


def scored(gpen: Score, ffhq: Score) -> Trial:
    rows = [Row(degradation, None, Score(0.2, 0.2, 28.0)) for degradation in DEGRADATIONS]
    rows += [Row(w, t, s) for w in DEGRADATIONS for t, s in (("gpen", gpen), ("ffhq", ffhq))]
    return Trial("fake", "gpen", tuple(rows), np.zeros((1, 1, 3), np.uint8))


def test_a_tie_names_no_template() -> None:
    trial = scored(Score(1.0, 0.5, 27.0), Score(1.01, 0.501, 27.01))
    assert trial.better_template is None
    assert "Neither" in trial.verdict


def test_the_verdict_counts_both_ways() -> None:
    trial = scored(Score(1.0, 0.5, 27.0), Score(0.5, 0.7, 26.0))
    assert (trial.wins("gpen"), trial.wins("ffhq")) == (3, 6)
    assert "ffhq is better in 6 of 9 comparisons and worse in 3" in trial.verdict


def test_what_is_not_finite_is_refused() -> None:
    with pytest.raises(WeightsError, match="no finite result"):
        try_restorer(Fake(lambda image: image * torch.nan))


@pytest.mark.long
def test_restorers_that_look_at_neighbours_get_them(tmp_path: Path) -> None:
    settings = load_settings(options={"restore.restorer": "fusion", "restore.device": "cpu"})
    events: list[Any] = []
    trial = run_trial(settings, tmp_path / "sheet.png", on_event=events.append)
    assert trial.restores
    shown = [event.frame for event in events if isinstance(event, Progress)]
    assert shown == [1, 2, 3, 4, 5, 6]
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet is not None
    assert np.array_equal(sheet[..., ::-1], trial.sheet)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sheet that cannot be is refused before anything is loaded."""

    def fail(*arguments: object) -> None:
        raise AssertionError("it came too late")

    monkeypatch.setattr("vidrestore.review.trial.chosen_restorer", fail)


@pytest.mark.parametrize(
    ("name", "reason"), [("a.txt", "is not a .png or .jpg file"), ("b.png", "--overwrite")]
)
@pytest.mark.usefixtures("no_network")
def test_a_sheet_that_cannot_be(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "b.png").write_bytes(b"a photo")
    with pytest.raises(UsageError, match=reason):
        run_trial(load_settings(), tmp_path / name)
    assert (tmp_path / "b.png").read_bytes() == b"a photo"

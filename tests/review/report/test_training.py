"""The page about a training: scores, losses and crops, without anything that runs or is loaded."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.markup import HOSTILE, Markup, is_harmless
from helpers.person_film import SIDE, Studio

from vidrestore import api
from vidrestore.common.events import Event, Notice
from vidrestore.review.report import training
from vidrestore.review.report.plots import StepPanel, over_steps
from vidrestore.review.report.training import Example, ScoreRow, Shown, training_page


def shown_of(text: str, **changes: Any) -> Shown:
    """A page in which all that is not fixed by the program is `text`."""
    shown = Shown(
        target=Path("/b") / text.replace("/", ""), base=text, version=text,
        ended=datetime(2026, 1, 2, 3, 4), is_better=True, gains=text,
        scores=[ScoreRow(text, text, text, "better", text)], tiles=[(text, text)], apart_count=3,
        scores_plot="<svg></svg>", losses_plot="<svg></svg>",
        examples=[Example(64, b"a", b"b", b"c", b"d")], learned=[b"e"], learned_more=2,
        thumbnail_px=96, how=[(text, text)], asked=[(text, text)],
    )  # fmt: skip
    return replace(shown, **changes)


def test_what_strangers_wrote_is_text() -> None:
    found, plain = Markup(training_page(shown_of(HOSTILE))), Markup(training_page(shown_of("a")))
    assert is_harmless(found, scripts=0)
    assert [tag for tag, _ in found.tags] == [tag for tag, _ in plain.tags]
    assert len([each for each in found.texts if HOSTILE in each]) >= 12
    assert not any(own.get("href") for _, own in found.tags)
    assert all((own["src"] or "").startswith("data:") for own in found.named("img"))
    (policy,) = [own for own in found.named("meta") if "http-equiv" in own]
    assert (policy["content"] or "").startswith("default-src 'none'")


def test_a_network_that_was_not_written_is_named() -> None:
    page = Markup(training_page(shown_of("a", is_better=False, asked=[], learned_more=0)))
    assert page.holds("Verdict: for this person the network is not better than a (a).")
    assert page.holds("It was not written.")
    assert not page.holds("Settings other than the defaults")
    assert not page.holds("not shown")


def test_the_page_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studio, path = Studio(tmp_path, monkeypatch), tmp_path / "anna.html"
    film, events = studio.film("film.mkv"), list[Event]()
    api.personalize(
        film, tmp_path / "anna.safetensors", studio.settings(), person=1, report=path,
        on_event=events.append,
    )  # fmt: skip
    page = Markup(path.read_text(encoding="utf-8"))
    assert page.holds("Verdict: for this person the network is better than base (PSNR +")
    assert page.holds("16 more") is False
    pictures = page.named("img")
    assert len(pictures) == 4 * 4 + 16  # crops that are set apart, and those learned from
    assert {own["width"] for own in pictures} == {str(SIDE), "96"}
    assert page.holds("train.decoder_rate")
    assert Notice(f"the report is in {path}") in events


def test_a_page_that_fails_does_not_lose_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio, events = Studio(tmp_path, monkeypatch), list[Event]()

    def fail(*_: object) -> str:
        raise ValueError("no plot today")

    monkeypatch.setattr(training, "over_steps", fail)
    record = api.personalize(
        studio.film("film.mkv"), tmp_path / "anna.safetensors", studio.settings(), person=1,
        report=tmp_path / "anna.html", on_event=events.append,
    )  # fmt: skip
    assert record.is_better
    assert (tmp_path / "anna.safetensors").exists()
    assert not (tmp_path / "anna.html").exists()
    assert any("could not be written (no plot today)" in str(event) for event in events)


def test_values_are_drawn_over_steps() -> None:
    steps = np.arange(1.0, 101)
    panels = [StepPanel("rising", steps, steps, 3.0), StepPanel("once", steps[:1], steps[:1], None)]
    drawing = over_steps(panels, "curves", "Two curves.")
    assert drawing.count('aria-label="Two curves."') == 1
    assert ">rising</text>" in drawing
    assert ">steps</text>" in drawing
    assert drawing.count("stroke-dasharray") >= 1

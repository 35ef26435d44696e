"""The report's template: names and sentences of strangers stay text, wherever they stand."""

import os
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import pytest
from helpers.markup import HOSTILE, Markup, is_harmless

from vidrestore.analysis.description import Person
from vidrestore.common.html_templates import html_template
from vidrestore.common.stage_times import StageTime
from vidrestore.jobs.summary import NetworkUse, Summary, TrackLikeness
from vidrestore.jobs.verify import Verification
from vidrestore.review.report.outcome import Aspect, Outcome, WorstMoment
from vidrestore.review.report.page import Run, ShownPerson, capital, page
from vidrestore.review.report.samples import View
from vidrestore.review.verdict import Verdict

_SCRIPTS = 2  # the page's own


def run_of(text: str, **changes: Any) -> Run:
    """A run in which all that is not fixed by the program is `text`."""
    likeness = TrackLikeness(0, 1, 1, 9, 4, 0.9, 0.95, None, None)
    summary = Summary(
        9, 9, 1, 1, 1, restorers=(text,), skipped={text: 3}, likeness=(likeness,), warnings=(text,),
        codec=text, seconds={"analyze": 1.0, text: 2.0}, repeated=1, kept=1, corrupt_frames=1,
    )  # fmt: skip
    person = Person(1, (1,), (0,), 1.0, 20.0, 0.0, 0.5, ((0.0, 1.0, 25),))
    rows, view = [(text, text)], View(1, 0, 64, b"a", b"b")
    moment = WorstMoment("worst-flicker-1", View(2, 3, 64, b"d", b"e"), text)
    aspect = Aspect(text, "worse", text, text, text, [moment])
    outcome = Outcome(Verdict("worse", text), [aspect], [text])
    run = Run(
        source=Path("/a") / text.replace("/", ""), target=Path("/b") / text.replace("/", ""),
        begun=datetime(2026, 1, 2, 3, 4), version=text, summary=summary,
        fixity=Verification(9, 1, 2, 40.5, 41.5, 3, 39.5), restorers=[(text, text)], how=rows,
        asked=rows, source_facts=rows, part=text, stages={text: {text: StageTime(1, 2.0)}},
        notices=[text], frame_seconds={0: 0.0, 3: 3.0}, frames_each=1, base=text,
        people=[ShownPerson(person, b"c", [view], "<svg></svg>", text)],
        measured=[text], unseen_people=1, untouched_people=2, timeline="<svg></svg>",
        timeline_says=text, outcome=outcome, broken=text, command=text, in_parallel=True,
        links=[(text, f"./{quote(os.fsencode(text))}")],
    )  # fmt: skip
    return replace(run, **changes)


def test_what_strangers_wrote_is_text():
    found = Markup(page(run_of(HOSTILE)))
    assert is_harmless(found, scripts=_SCRIPTS)
    plain = Markup(page(run_of("a")))
    assert [tag for tag, _ in found.tags] == [tag for tag, _ in plain.tags]
    assert len([each for each in found.texts if HOSTILE in each]) >= 20
    assert "49" not in "".join(found.texts).replace("{{ 7 * 7 }}", "")
    # A name that turns the order around does so within itself.
    name = HOSTILE.replace("/", "")
    assert found.isolated == [name, name, HOSTILE, f"/a/{name}", f"/b/{name}"]


def test_what_is_missing_is_left_out():
    bare = run_of(
        "a", fixity=None, people=[], timeline=None, outcome=None, command=None, restorers=[],
        asked=[], notices=[], stages={}, summary=Summary(9, 0, 0, 0, 1),
    )  # fmt: skip
    found = Markup(page(bare))
    for sentence in (
        "The finished file was not read back.",
        "None; all settings have their defaults.",
        "No detected face was left out.",
        "A Python program started this run with a restorer of its own, so no command repeats it.",
    ):
        assert found.holds(sentence), sentence
    for title in ("Person by person", "What to know", "Notices during the run", "Who is on screen",
                  "The worst moments", "Verdict"):  # fmt: skip
        assert not found.holds(title), title


def test_a_template_refuses_a_name_that_it_is_not_given(tmp_path):
    path = tmp_path / "a.html.j2"
    path.write_text("{{ given }} {{ missing }}")
    with pytest.raises(jinja2.UndefinedError, match="missing"):
        html_template(path).render(given="a")


def test_a_sentence_keeps_the_name_of_a_setting_at_its_beginning():
    assert capital("the face is small") == "The face is small"
    assert capital("restore.denoise has no effect") == "restore.denoise has no effect"


def test_it_is_told_which_restorer_restored_whom():
    uses = NetworkUse("anna.safetensors (Anna)", (1, 4), 1), NetworkUse("gpen-512", (2,), 12)
    title = "Which restorer restored whom"
    for networks, restorers, is_told in (
        (uses, ("gpen-512",), True),
        (uses[:1], ("gpen-512",), True),
        (uses[1:], ("gpen-512",), False),
        ((), (), False),
    ):
        summary = Summary(9, 9, 1, 1, 1, restorers=restorers, networks=networks)
        found = Markup(page(run_of("a", summary=summary)))
        assert found.holds(title) == is_told
        for use in networks if is_told else ():
            assert found.holds(use.restorer)
    assert [use.whom for use in uses] == ["1 face of people 1, 4", "12 faces of person 2"]

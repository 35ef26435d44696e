"""The page's own HTML: names and sentences of strangers stay text, wherever they stand."""

from pathlib import Path

import pytest
from helpers.markup import HOSTILE, Markup, is_harmless

from vidrestore.web import content
from vidrestore.web.queue import Job, StageProgress


def job_of(state: str) -> Job:
    """A job in which all that a command or a visitor says is hostile."""
    progress = StageProgress(HOSTILE, "frames", 50, 100, 0, 0.0)
    summary = {"faces": 1, "frames": 2, "skipped": {"a": 1}, "warnings": [HOSTILE]}
    return Job(
        1, "me", Path(HOSTILE), Path("/x"), ("restore",), state=state, progress=progress,
        notices=[f"{HOSTILE}!"], message=HOSTILE, outcome={"summary": summary},
    )  # fmt: skip


@pytest.mark.parametrize("state", ["waiting", "running", "stopping", "stopped", "failed", "done"])
def test_a_restoration_is_shown_as_text(state):
    target = Path("/x") / HOSTILE.replace("/", "")
    found = Markup(content.list_html([(job_of(state), target, '/result/"1')]))
    assert is_harmless(found, scripts=0)
    assert set(found.isolated) == {target.name}
    assert found.holds(f"{HOSTILE}!")
    links = found.named("a")
    assert [link["download"] for link in links] == ([target.name] if state == "done" else [])
    assert [link["href"] for link in links] == (['/result/"1'] if state == "done" else [])
    does = [button["data-does"] for button in found.named("button")]
    assert does == {
        "waiting": ["stop"], "running": ["stop"], "stopping": [], "stopped": ["resume", "remove"],
        "failed": ["resume", "remove"], "done": ["remove"],
    }[state]  # fmt: skip
    assert [bar["value"] for bar in found.named("progress")] == ["0.5000"] * (state == "running")


def test_a_sentence_and_a_heading_are_text():
    for html in (
        content.status_html(HOSTILE, is_wrong=True),
        content.status_html(HOSTILE, share=0.25),
        content.step(1, HOSTILE),
        content.step(None, HOSTILE),
    ):
        found = Markup(html)
        assert is_harmless(found, scripts=0)
        assert found.holds(HOSTILE)
    assert not Markup(content.status_html("a")).named("progress")


def test_a_link_does_not_leave_the_style_that_it_stands_in():
    html = content.faces_html(['/person/1/1.png"); } </style><script>', "/person/1/2.png"])
    found = Markup(html)
    assert is_harmless(found, scripts=0)
    assert html.count("</style>") == 1
    assert '#people label:nth-of-type(2) { --face: url("/person/1/2.png"); }' in html


def test_the_best_detector_is_offered_first_with_the_size_of_its_download(tmp_path):
    folders = (tmp_path,)
    (label, name), *_ = content.detector_choices(folders, offline=False)[0]
    assert (label, name) == ("The best that is installed (downloads 0.2 MB first)", "auto")
    # The value to begin with downloads nothing that the visitor did not choose.
    assert content.detector_choices(folders, offline=False)[1] == "haar"
    choices, first = content.detector_choices(folders, offline=True)
    assert [value for _, value in choices] == ["auto", "haar"]
    assert first == "auto"
    (tmp_path / "insightface/models/buffalo_l").mkdir(parents=True)
    choices, first = content.detector_choices(folders, offline=False)
    assert choices[0] == ("The best that is installed", "auto")
    assert first == "auto"

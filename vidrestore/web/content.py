"""The content of the page: choices with their labels, sentences, HTML and style."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from vidrestore.common.counting import counted
from vidrestore.common.html_templates import html_template
from vidrestore.common.profiles import profile_folder
from vidrestore.common.settings import Detect, Settings
from vidrestore.common.timecode import duration_text
from vidrestore.models.weights import Weight, find, load_table
from vidrestore.web.queue import Job
from vidrestore.web.session import NO_PROFILE

Choices = list[tuple[str, str]]
"""Choices of a control of the page, as (label, value)."""

_PROFILES = {
    "home-video": "Home video: tape, camcorder, phone, DVD",
    "film": "Film scan or master, to be archived",
    "face-swap": "Output of a face-swap program",
    "quick": "Quick: a slow network restores only some frames, where faces move calmly",
}
QUALITIES: Choices = [
    ("High: looks like yours", "high"),
    ("Small file", "small"),
    ("Archive: lossless, very large, .mkv", "archive"),
]
CONTAINERS: Choices = [
    (".mp4, plays nearly anywhere", ".mp4"),
    (".mov, for Apple programs", ".mov"),
    (".mkv, holds everything", ".mkv"),
]
_STAGES = {
    "analyze": "Looking for faces",
    "restore": "Restoring faces",
    "check": "Reading the result back and comparing it with your video",
}
_STATES = {
    "waiting": "Waiting for its turn",
    "running": "Starting",
    "stopping": "Stopping",
    "stopped": "Stopped. Finished work is kept; Continue goes on from there.",
}

CSS = """
.gradio-container { max-width: 820px !important; margin: 0 auto !important; }
.gradio-container h1 { font-size: 1.6rem; margin: .6rem 0 .2rem; }
.gradio-container h2 { font-size: 1.15rem; margin: 1rem 0 0; }
.foot { font-size: .9rem; opacity: .8; margin-top: 1rem; }
progress { width: 100%; height: .5rem; margin-top: .4rem; display: block; appearance: none;
  border: 0; border-radius: 4px; overflow: hidden; background: #8883; accent-color: #2563eb; }
progress::-webkit-progress-bar { background: #8883; }
progress::-webkit-progress-value { background: #2563eb; }
progress::-moz-progress-bar { background: #2563eb; }
.wrong { color: #b42318; font-weight: 600; }
.dark .wrong { color: #ff9b8f; }
.job { display: flex; flex-wrap: wrap; gap: .6rem; justify-content: space-between;
  border: 1px solid #8885; border-radius: 8px; padding: .7rem .9rem; margin-top: .6rem; }
.job > :first-child { flex: 1 1 20rem; }
.job button { border: 1px solid #8888; border-radius: 6px; padding: .25rem .8rem;
  margin-left: .4rem; background: none; cursor: pointer; }
.job button:hover { background: #8882; }
.job .name { font-weight: 600; overflow-wrap: anywhere; }
.job .note { font-size: .85rem; opacity: .8; margin-top: .2rem; }
.job a { display: inline-block; margin: .4rem 0 0; text-align: left; font-weight: 600;
  text-decoration: underline; }
#people [data-testid="checkbox-group"] { gap: .7rem; }
#people label { display: grid; grid-template-columns: auto 1fr; align-items: center;
  gap: .4rem; padding: .4rem; background: none; width: 130px; cursor: pointer; }
#people label span { margin: 0; }
#people label::before { content: ""; grid-column: 1 / 3; aspect-ratio: 1; border-radius: 6px;
  background: #8883 var(--face, none) center / cover; }
#people label:not(.selected)::before { filter: grayscale(1); opacity: .4; }
"""

BEFORE_AFTER = "Drag the handle: left of it is before, right of it is after."
HEADING = """<h1>Restore the faces in a video</h1>
<p>Everything else stays exactly as it was: picture, sound, times. Your video stays on the computer
that serves this page.</p>"""
FOOT = """<p class="foot">The program that serves this page removes all results when it ends, so
download what you want to keep. You can close the page: the work continues.</p>"""

# A script of the list, which tells the server which button of which job was pressed.
ON_BUTTONS = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-does]");
  if (button) trigger("click", { does: button.dataset.does, job: Number(button.dataset.job) });
});
"""

# A tab keeps its name while it is loaded again, and gives none to a copy of itself: the name is in
# the tab's storage, which a copy begins with, only between two loads.
NAME_OF_TAB = """
() => {
  const key = "vidrestore-tab";
  let name = sessionStorage.getItem(key);
  if (!/^[0-9a-f]{32}$/.test(name || "")) {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    name = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  }
  sessionStorage.removeItem(key);
  window.addEventListener("pagehide", () => sessionStorage.setItem(key, name));
  window.addEventListener("pageshow", () => sessionStorage.removeItem(key));
  return [name];
}
"""


@dataclass(frozen=True, slots=True)
class _Row:
    """A restoration in the list of the page."""

    job_id: int
    """The number of the job."""
    name: str
    """The name of the output file."""
    text: str
    """The progress or the result, in a sentence."""
    is_failed: bool
    """Whether the restoration failed."""
    share: float | None
    """The share that is done, from 0 to 1, for a bar; None: no bar."""
    link: str | None
    """The address of the output; None if there is no output yet."""
    size: str
    """The size of the output."""
    notes: Sequence[str]
    """Notices and warnings of the run."""
    buttons: Sequence[tuple[str, str]]
    """The buttons, as (action, label)."""


def step(number: int | None, title: str) -> str:
    """Return the heading of a step as HTML.

    Args:
        number: The number of the step; None for a heading without a number.
        title: The text of the heading.

    Returns:
        The HTML.
    """
    return _html("step", number, title)


def _html(macro: str, *given: Any) -> str:
    """Return a part of the page, made by a macro of the template."""
    template = html_template(Path(__file__).parent / "templates" / "page.html.j2")
    return str(getattr(template.module, macro)(*given))


def profile_choices() -> Choices:
    """List the named profiles, the most common one first, and the choice of no profile."""
    there = sorted(path.stem for path in profile_folder().glob("*.toml"))
    names = [*(name for name in _PROFILES if name in there),
             *(name for name in there if name not in _PROFILES)]  # fmt: skip
    return [*((_PROFILES.get(name, name), name) for name in names), ("Something else", NO_PROFILE)]


def restorer_choices(folders: Sequence[Path], *, offline: bool) -> tuple[Choices, str]:
    """List the restorers that can run here.

    Args:
        folders: The folders to search for weight files.
        offline: Whether to leave out restorers whose weights are missing.

    Returns:
        The choices, and the value to begin with, which never needs a download.
    """
    table = load_table()
    networks = {name: [name] for name, weight in table.items() if weight.kind == "gpen"}
    needs = {
        "fusion": [],
        "gpen-auto": list(networks),
        **networks,
    }
    labels = {
        "fusion": "Gentle: invents nothing",
        "gpen-auto": "Repaint, as finely as each face shows",
        **{name: f"Repaint at {name.removeprefix('gpen-')} pixels" for name in networks},
    }
    return _offered(labels, needs, folders, offline, Settings().restore.restorer, "fusion")


def detector_choices(folders: Sequence[Path], *, offline: bool) -> tuple[Choices, str]:
    """List the face detectors that can run here.

    Args:
        folders: The folders to search for weight files.
        offline: Whether to leave out detectors whose weights are missing.

    Returns:
        The choices, and the value to begin with, which needs no download if any detector needs
        none.
    """
    names = get_args(Detect.model_fields["detector"].annotation)
    pack = Settings().detect.pack
    without_download = offline or not _missing([pack], folders)
    known = {
        "auto": [] if without_download else ["yunet"],
        "insightface": [pack],
        "yunet": ["yunet"],
        "haar": [],
    }
    labels = {
        "auto": "The best that is installed",
        "insightface": "InsightFace: small, turned and dark faces too",
        "yunet": "YuNet: quick",
        "haar": "Haar: always there; misses turned faces",
    }
    own = {name: labels.get(name, name) for name in names}
    preferred = [name for name in names if _missing(known.get(name, []), folders) == []]
    return _offered(own, known, folders, offline, names[0], (preferred or names)[0])


def _offered(
    labels: Mapping[str, str],
    needs: Mapping[str, list[str]],
    folders: Sequence[Path],
    offline: bool,
    usual: str,
    otherwise: str,
) -> tuple[Choices, str]:
    """Return the choices with notes on downloads, and the value to begin with."""
    choices = []
    for name, label in labels.items():
        missing = _missing(needs[name], folders)
        if missing and offline:
            continue
        choices.append((f"{label} ({_fetching(missing)})" if missing else label, name))
    is_here = not _missing(needs[usual], folders)
    return choices, usual if is_here else otherwise


def _missing(names: Sequence[str], folders: Sequence[Path]) -> list[Weight]:
    table = load_table()
    return [table[name] for name in names if find(name, folders) is None]


def _fetching(weights: Sequence[Weight]) -> str:
    """Return the note on the download of missing weights, with its size if that is known."""
    size = sum(weight.bytes or 0 for weight in weights)
    known = size and all(weight.bytes for weight in weights)
    figure = f"{size / 1e6:.0f}" if size >= 1e6 else f"{size / 1e6:.1f}"
    words = f"downloads {figure} MB first" if known else "downloads its weights first"
    free = all("non-commercial" not in weight.licence for weight in weights)
    return words if free else f"{words}; for non-commercial use only"


def status_html(text: str, *, is_wrong: bool = False, share: float | None = None) -> str:
    """Return a line below a step as HTML.

    Args:
        text: The text of the line.
        is_wrong: Whether the text is an error.
        share: The length of a progress bar, from 0 to 1. None: no bar.

    Returns:
        The HTML, with the text escaped.
    """
    return _html("status", text, is_wrong, share)


def progress_text(job: Job) -> str:
    """Say what an unfinished job is doing.

    Args:
        job: The job.

    Returns:
        A phrase such as "Restoring faces: frame 10 of 250"; empty if nothing is known.
    """
    progress = job.progress
    if job.state != "running" or progress is None:
        return _STATES.get(job.state, "")
    stage = _STAGES.get(progress.stage)
    if progress.unit == "bytes":
        of = f" of {progress.total / 1e6:.0f}" if progress.total else ""
        return f"{stage or f'Fetching {progress.stage}'}: {progress.done / 1e6:.0f}{of} MB"
    of = f" of {progress.total}" if progress.total else ""
    left = progress.seconds_left(time.monotonic())
    eta = "" if left is None else f", about {duration_text(left)} left"
    return f"{stage or progress.stage}: frame {progress.done}{of}{eta}"


def share_done(job: Job) -> float | None:
    """Return how much of its present stage a job has done.

    Args:
        job: The job.

    Returns:
        A share from 0 to 1; None if the job is not running or the total is not known.
    """
    progress = job.progress
    if job.state != "running" or progress is None or not progress.total:
        return None
    return min(1.0, progress.done / progress.total)


def list_html(rows: Sequence[tuple[Job, Path, str]]) -> str:
    """Return the list of restorations as HTML.

    Args:
        rows: (job, its output file, the address of the output) for each restoration.

    Returns:
        The HTML.
    """
    if not rows:
        return status_html("Nothing yet.")
    return _html("jobs", [_row(*row) for row in rows])


def _row(job: Job, target: Path, link: str) -> _Row:
    is_done, is_failed = job.state == "done", job.state == "failed"
    if is_done:
        text = summary_text(job.outcome["summary"])
    else:
        text = sentence(job.message) if is_failed else progress_text(job)
    size = target.stat().st_size / 1e6 if is_done and target.exists() else 0
    notes = [*job.notices, *job.outcome.get("summary", {}).get("warnings", ())]
    return _Row(
        job.job_id,
        target.name,
        text,
        is_failed,
        share_done(job),
        link if is_done else None,
        f"{size:,.1f} MB",
        [sentence(note) for note in dict.fromkeys(notes)],
        _buttons(job),
    )


def _buttons(job: Job) -> Sequence[tuple[str, str]]:
    remove = ("remove", "Remove")
    if job.state in ("waiting", "running"):
        return [("stop", "Stop")]
    if job.state in ("stopped", "failed"):
        return [("resume", "Continue" if job.state == "stopped" else "Try again"), remove]
    return [remove] if job.is_over else []


def summary_text(summary: Mapping[str, Any]) -> str:
    """Say what a finished restoration did.

    Args:
        summary: The summary from the JSON output of `vidrestore restore`.

    Returns:
        One or two sentences.
    """
    skipped = sum(summary["skipped"].values())
    left = f" {counted(skipped, 'was', 'were')} left as they were." if skipped else ""
    faces, frames = counted(summary["faces"], "face"), counted(summary["frames"], "frame")
    return f"Done: {faces} in {frames} restored.{left}"


def people_text(analysis: Mapping[str, Any]) -> str:
    """Say how many people were found.

    Args:
        analysis: The analysis from the JSON output of `vidrestore analyze`.

    Returns:
        One or two sentences.
    """
    count, shots = len(analysis["people"]), len(analysis["shots"])
    if not count:
        return "no face was found, so there is nothing to restore."
    text = counted(count, "person was", "people were") + " found"
    text += "." if shots == 1 else f" in {shots} shots."
    if shots > 1 and not analysis["people_are_joined"]:
        text += (
            " People cannot be recognized across shots here, so the same person may appear "
            "several times."
        )
    return text


def people_choices(people: Sequence[Mapping[str, Any]]) -> Choices:
    """List people with their number and their time on screen.

    Args:
        people: The people of an analysis in JSON.

    Returns:
        The choices; the value of each is the number of the person.
    """
    return [
        (
            f"Person {person['person_id']}, {duration_text(person['seconds_on_screen'])}",
            str(person["person_id"]),
        )
        for person in people
    ]


def faces_html(links: Sequence[str]) -> str:
    """Return the style that shows the picture of each person above the person's checkbox.

    Args:
        links: The addresses of the pictures, in the order of the people.

    Returns:
        The HTML.
    """
    return _html("faces", links)


def nothing_to_restore(analysis_job: Job | None) -> str:
    """Say why nothing can be restored.

    Args:
        analysis_job: The job that analyzed the video; None if the video was removed.

    Returns:
        A sentence with what to do.
    """
    if analysis_job is None:
        return "The video is no longer here; choose it again above."
    return "No person is chosen; choose at least one person in step 2."


def sentence(text: str) -> str:
    """Make a message a sentence with a full stop and a capital letter.

    Args:
        text: The message.

    Returns:
        The sentence; a name of a setting or a file at its beginning stays as it is.
    """
    if "." not in text.partition(" ")[0]:
        text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."

"""The report of a run as one HTML page that needs no other file."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from vidrestore.analysis.description import Person
from vidrestore.common.html_templates import html_template
from vidrestore.common.stage_times import StageTime
from vidrestore.common.timecode import duration_text, time_text
from vidrestore.jobs.summary import Summary, TrackLikeness
from vidrestore.jobs.verify import Verification
from vidrestore.review.report.samples import View

Rows = Sequence[tuple[str, str]]


_MOST_ROWS = 40
"""Of a table that grows with the video."""
_PASSES = {"analyze": "analysis", "restore": "restoration", "check": "reading back, measuring"}


@dataclass(frozen=True, slots=True)
class ShownPerson:
    """Somebody who is shown by himself."""

    person: Person
    views: Sequence[View]
    """Largest first."""
    plot: str | None
    """SVG; None where there was too little to draw."""
    plot_says: str


@dataclass(frozen=True, slots=True)
class Run:
    """What a page tells of. Texts are plain, the template escapes them; drawings are SVG."""

    source: Path
    target: Path
    begun: datetime
    version: str
    summary: Summary
    fixity: Verification | None
    restorers: Sequence[tuple[str, str | None]]
    """Name, and SHA-256 of the file of weights where there is one."""
    how: Rows
    """What else it was made with."""
    asked: Rows
    """Options and settings that are not the default."""
    source_facts: Rows
    part: str | None
    """Which part of the source, if not all of it."""
    stages: Mapping[str, Mapping[str, StageTime]]
    """Of each pass."""
    notices: Sequence[str]
    frame_seconds: Mapping[int, float]
    """Of the frames that are named: when they are shown, from the first."""
    frames_each: int
    """Pictures in which faces were restored for each frame of the output."""
    base: str
    """Whose picture it is but for the faces: the source, the enlarged source or the plate."""
    people: Sequence[ShownPerson]
    measured: Sequence[str]
    """What the plots of people show."""
    unseen_people: int
    """How many more are not shown by themselves; and how many of whom no face was restored:"""
    untouched_people: int
    timeline: str | None
    timeline_says: str
    verdict: str | None
    """Better, same or worse; None where no face was measured."""
    broken: str | None
    """Why pictures and flicker are missing."""


@dataclass(frozen=True, slots=True)
class _PassRow:
    """A line of the table of a pass."""

    stage: str
    seconds: Sequence[str]
    """Busy, without input, without room."""
    bar_percent: float
    """Of the busiest stage."""


@dataclass(frozen=True, slots=True)
class _Pass:
    """What the stages of a pass cost."""

    name: str
    slowest: str
    """The stage that was busy for longest."""
    busy_percent: float
    """Of that stage's time."""
    rows: Sequence[_PassRow]


def page(run: Run) -> str:
    """The whole page."""
    done = run.summary
    reduced = sorted(
        (track for track in done.likeness if track.reduced_frames),
        key=lambda track: -track.reduced_frames,
    )
    template = html_template(Path(__file__).parent / "templates" / "report.html.j2")
    return template.render(
        run=run,
        done=done,
        title=f"{run.target.name}: what was restored",
        begun=run.begun.strftime("%Y-%m-%d %H:%M"),
        tiles=_tiles(done),
        lead=" ".join(_lead(run)),
        skipped=[(f"{count:,}", reason) for reason, count in done.skipped.items()],
        reduced=[_reduced(track) for track in reduced[:_MOST_ROWS]],
        reduced_more=len(reduced[_MOST_ROWS:]),
        fidelity=None if run.fixity is None else _fidelity(run.base, run.fixity),
        compared=[] if run.fixity is None else _compared(run, run.fixity),
        restorers=[(name, sha or "no file of weights is known") for name, sha in run.restorers],
        seconds=[(_PASSES.get(k, k), f"{seconds:,.1f} s") for k, seconds in done.seconds.items()],
        passes=[_pass(name, stages) for name, stages in run.stages.items() if stages],
        about=_about,
        time_of=lambda view: _time_of(run, view),
        base64=lambda data: base64.b64encode(data).decode(),
        counted=counted,
        sentence=sentence,
        capital=capital,
    )


def _tiles(done: Summary) -> Rows:
    left = sum(done.skipped.values())
    seconds = sum(done.seconds.values())
    return [
        ("frames", f"{done.frames:,}"),
        ("shots", f"{done.shots:,}"),
        ("people", f"{done.people:,}"),
        ("faces restored", f"{done.faces:,}"),
        ("faces left as they were", f"{left:,}"),
        ("outside the faces", _outside_tile(done)),
        ("took", duration_text(seconds).replace(" ", "\N{NO-BREAK SPACE}")),
    ]


def _lead(run: Run) -> Iterator[str]:
    done = run.summary
    if run.part:
        yield f"Only a part was asked for: {run.part}."
    if not done.tracks:
        yield (
            f"{counted(done.frames, 'frame')} in {counted(done.shots, 'shot')} show no face that "
            "could be restored, so no picture was changed but by the encoder."
        )
        return
    yield (
        f"{counted(done.frames, 'frame')} in {counted(done.shots, 'shot')} show "
        f"{counted(done.people, 'person', 'people')}."
    )
    names = listed([name for name, _ in run.restorers])
    by = f" with {names}" if names else ""
    yield f"{counted(done.faces, 'face was', 'faces were')} restored{by}."
    if left := sum(done.skipped.values()):
        yield f"{counted(left, 'face was', 'faces were')} left as they were."
    yield "A face counts once in each frame that shows it."
    if run.frames_each == 2:
        yield (
            "The frames are interlaced: faces were restored in both fields of each, and count "
            "once in each field."
        )
    if done.redone_shots:
        shots = listed([str(n) for n in done.redone_shots])
        yield (
            f"Of these, this run rendered shot{'s' if len(done.redone_shots) > 1 else ''} {shots}; "
            "all other packets are those of the output that was there."
        )


def _outside_tile(done: Summary) -> str:
    if done.identical_outside is None:
        return "not compared"
    if done.identical_outside == done.frames:
        return "identical"
    return "-" if done.psnr_outside_db is None else f"{done.psnr_outside_db:.1f} dB"


def _about(person: Person) -> str:
    return (
        f"In {_shots_text(person.shots)}, {duration_text(person.seconds_on_screen)} on screen; the "
        f"eyes are {person.eye_distance_px:.0f} pixels apart on average."
    )


def _time_of(run: Run, view: View) -> str:
    seconds = run.frame_seconds[view.index]
    return f"{time_text(seconds, 1, short=True)}, frame {view.index // run.frames_each:,}"


def _reduced(track: TrackLikeness) -> tuple[str, ...]:
    identity = track.identity is not None and track.identity_used is not None
    values = (track.identity, track.identity_used) if identity else (
        track.features, track.features_used)  # fmt: skip
    what = "identity" if identity else "features"
    before, after = (f"{value:.2f}" for value in values)
    return (
        str(track.person), str(track.shot), f"{track.frames:,}", f"{track.reduced_frames:,}",
        f"{before} ({what})", after,
    )  # fmt: skip


def _compared(run: Run, fixity: Verification) -> Rows:
    if fixity.not_compared is not None:
        return []
    rows = [
        ("frames that are identical, sample by sample", f"{fixity.identical_frames:,}"),
        ("frames that are identical outside the faces", f"{fixity.identical_outside:,}"),
    ]
    for name, value in (
        ("outside the faces", fixity.psnr_outside_db),
        ("of the luma alone", fixity.luma_psnr_outside_db),
    ):
        if value is not None:
            rows.append((f"PSNR {name}", f"{value:.2f} dB"))
    if fixity.worst_frame is not None and fixity.worst_frame_psnr_db is not None:
        at = time_text(run.frame_seconds[fixity.worst_frame * run.frames_each], 1, short=True)
        worst = f"{fixity.worst_frame_psnr_db:.2f} dB, frame {fixity.worst_frame:,} at {at}"
        rows.append(("lowest PSNR outside of any frame", worst))
    return rows


def _fidelity(base: str, fixity: Verification) -> str:
    if fixity.not_compared is not None:
        return sentence(fixity.not_compared)
    if fixity.identical_outside == fixity.frames:
        return f"Every sample outside the faces is that of {base}."
    return (
        f"Outside the faces it differs from {base} by what the encoder took; a lossless codec "
        "takes nothing."
    )


def _pass(name: str, stages: Mapping[str, StageTime]) -> _Pass:
    limit, slowest = max(stages.items(), key=lambda pair: pair[1].busy_seconds)
    most = max(slowest.busy_seconds, 1e-9)
    rows = [
        _PassRow(
            stage,
            [f"{s:,.1f} s" for s in (own.busy_seconds, own.starved_seconds, own.held_seconds)],
            100 * own.busy_seconds / most,
        )
        for stage, own in stages.items()
    ]
    busy = 100 * slowest.busy_seconds / max(slowest.seconds, 1e-9)
    return _Pass(_PASSES.get(name, name), limit, busy, rows)


def _shots_text(shots: Sequence[int]) -> str:
    if len(shots) > 8:
        return f"{len(shots)} shots"
    return f"shot{'s' if len(shots) != 1 else ''} {listed([str(n) for n in shots])}"


def listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def counted(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def sentence(text: str) -> str:
    return capital(text) if text.endswith((".", "!", "?")) else f"{capital(text)}."

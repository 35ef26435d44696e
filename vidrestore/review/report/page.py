"""The report of a run as one HTML page that needs no other file."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from vidrestore.analysis.description import Person
from vidrestore.common.counting import counted
from vidrestore.common.html_templates import html_template
from vidrestore.common.stage_times import StageTime
from vidrestore.common.timecode import duration_text, time_text
from vidrestore.jobs.summary import Summary, TrackLikeness
from vidrestore.jobs.verify import Verification
from vidrestore.review.report.outcome import Outcome
from vidrestore.review.report.samples import View

Rows = Sequence[tuple[str, str]]
"""(name, value) of each row of a table."""

_MOST_ROWS = 40
"""Most rows of a table that grows with the video."""
_PASSES = {"analyze": "analysis", "restore": "restoration", "check": "reading back, measuring"}


@dataclass(frozen=True, slots=True)
class ShownPerson:
    """A person with a section of the page."""

    person: Person
    """The person's number, shots and time on screen."""
    portrait: bytes | None
    """The clearest face of the person in the source, as a JPEG file; None where there is none."""
    views: Sequence[View]
    """The faces before and after, largest first."""
    plot: str | None
    """The plot of flicker and likeness as SVG; None where there are no values."""
    plot_says: str
    """The text below the plot; may be empty."""


@dataclass(frozen=True, slots=True)
class Run:
    """The content of a page. Texts are plain, and the template escapes them; drawings are SVG."""

    source: Path
    """The source video."""
    target: Path
    """The restored video."""
    begun: datetime
    """Local time at which the run began."""
    version: str
    """Version of vidrestore."""
    summary: Summary
    """The summary of the run."""
    fixity: Verification | None
    """The comparison of the output with its source; None where the run made none."""
    restorers: Sequence[tuple[str, str | None]]
    """Name of each restorer, and SHA-256 of its weight file; None where there is none."""
    how: Rows
    """Other tools of the run, such as the detector, the codec and versions."""
    asked: Rows
    """Options and settings that differ from the default."""
    source_facts: Rows
    """Facts about the source, such as its size and frame rate."""
    part: str | None
    """The restored part of the source; None for all of it."""
    stages: Mapping[str, Mapping[str, StageTime]]
    """Name of each pass -> name of each stage -> its times."""
    notices: Sequence[str]
    """Notices of the run that the summary does not repeat."""
    frame_seconds: Mapping[int, float]
    """Index of each frame that the page names -> its time from the first frame, in seconds."""
    frames_each: int
    """Number of pictures in which faces were restored for each frame of the output: 2 for
    interlaced video, else 1."""
    base: str
    """What the output shows outside the faces: the source, the enlarged source or the plate."""
    people: Sequence[ShownPerson]
    """The people with a section of the page."""
    measured: Sequence[str]
    """Explanations of the plots of people."""
    unseen_people: int
    """Number of people with restored faces but without a section of the page."""
    untouched_people: int
    """Number of people without any restored face."""
    timeline: str | None
    """The timeline as SVG; None where there is too little to draw."""
    timeline_says: str
    """The text below the timeline; may be empty."""
    outcome: Outcome | None
    """The verdict with its aspects; None where no face was measured."""
    broken: str | None
    """The reason why pictures and flicker are missing; None where they are not."""
    command: str | None
    """The command line that repeats the run; None where there is none."""
    in_parallel: bool
    """Whether several processes rendered the output, which the command does not repeat."""
    links: Sequence[tuple[str, str]]
    """(text, address) of the output and of its folder."""


@dataclass(frozen=True, slots=True)
class _PassRow:
    """A row of the table of a pass."""

    stage: str
    """Name of the stage."""
    seconds: Sequence[str]
    """Time that the stage was busy, waited for input and waited for room, each as text."""
    bar_percent: float
    """Busy time in percent of that of the busiest stage."""


@dataclass(frozen=True, slots=True)
class _Pass:
    """The times of the stages of a pass."""

    name: str
    """Name of the pass."""
    slowest: str
    """Name of the stage that was busy for the longest time."""
    busy_percent: float
    """Busy time of that stage in percent of its whole time."""
    rows: Sequence[_PassRow]
    """One row for each stage."""


def page(run: Run) -> str:
    """Render the page about a run.

    Args:
        run: The content.

    Returns:
        HTML text that needs no other file.
    """
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
        expressions=sum(track.expression_frames for track in done.likeness),
        fidelity=None if run.fixity is None else _fidelity(run.base, run.fixity),
        compared=[] if run.fixity is None else _compared(run, run.fixity),
        networks=[(use.restorer, use.whom) for use in done.told_networks],
        restorers=[(name, sha or "no weight file is known") for name, sha in run.restorers],
        seconds=[(_PASSES.get(k, k), f"{seconds:,.1f} s") for k, seconds in done.seconds.items()],
        passes=[_pass(name, stages) for name, stages in run.stages.items() if stages],
        about=_about,
        time_of=lambda view: _time_of(run, view),
        clock_of=lambda view: time_text(run.frame_seconds[view.index], 1, short=True),
        shown_people={shown.person.person_id for shown in run.people},
        in_parallel=run.in_parallel,
        moments=[]
        if run.outcome is None
        else [(aspect.name, moment) for aspect in run.outcome.aspects for moment in aspect.moments],
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
        yield f"vidrestore restored only a part of the video: {run.part}."
    if not done.tracks:
        yield (
            f"{counted(done.frames, 'frame')} in {counted(done.shots, 'shot')} show no face that "
            "could be restored, so only the encoder changed pictures."
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
            f"This run rendered only {'shot' if len(done.redone_shots) == 1 else 'shots'} {shots}; "
            "all other packets are those of the earlier output."
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
        f"eyes are {person.eye_distance_px:.0f} pixels apart on average, as seen from the front."
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
        ("frames that are identical in every pixel", f"{fixity.identical_frames:,}"),
        ("frames that are identical outside the faces", f"{fixity.identical_outside:,}"),
    ]
    for name, value in (
        ("outside the faces", fixity.psnr_outside_db),
        ("of the brightness alone", fixity.luma_psnr_outside_db),
    ):
        if value is not None:
            rows.append((f"PSNR {name}", f"{value:.2f} dB"))
    if fixity.worst_frame is not None and fixity.worst_frame_psnr_db is not None:
        at = time_text(run.frame_seconds[fixity.worst_frame * run.frames_each], 1, short=True)
        worst = f"{fixity.worst_frame_psnr_db:.2f} dB, frame {fixity.worst_frame:,} at {at}"
        rows.append(("lowest PSNR outside the faces", worst))
    return rows


def _fidelity(base: str, fixity: Verification) -> str:
    if fixity.not_compared is not None:
        return sentence(fixity.not_compared)
    if fixity.identical_outside == fixity.frames:
        return f"Every pixel outside the faces equals that of {base}."
    return (
        f"Outside the faces, the output differs from {base} by the loss of the encoder; a lossless "
        "codec has no loss."
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
        return counted(len(shots), "shot")
    return f"{'shot' if len(shots) == 1 else 'shots'} {listed([str(n) for n in shots])}"


def listed(names: Sequence[str]) -> str:
    """Join names for a sentence.

    Args:
        names: The names.

    Returns:
        Such as "a, b and c"; empty without names.
    """
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def capital(text: str) -> str:
    """Make the first letter of a text a capital.

    Args:
        text: The text; may be empty.

    Returns:
        The text with a capital; the name of a setting or a file at its beginning stays as it is.
    """
    return text if "." in text.partition(" ")[0] else text[:1].upper() + text[1:]


def sentence(text: str) -> str:
    """Make a text a sentence with a capital and a period.

    Args:
        text: The text; it may end in a period, "!" or "?" already.

    Returns:
        The sentence.
    """
    return capital(text) if text.endswith((".", "!", "?")) else f"{capital(text)}."

"""The report of a run as one HTML page that needs no other file."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path
from string import Template

from vidrestore.analysis.description import Person
from vidrestore.common.stage_times import StageTime
from vidrestore.common.timecode import duration_text
from vidrestore.jobs.summary import Summary, TrackLikeness
from vidrestore.jobs.verify import Verification
from vidrestore.review.report.plots import clock_text
from vidrestore.review.report.samples import View

Rows = Sequence[tuple[str, str]]


_MOST_ROWS = 40
"""Of a table that grows with the video."""


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
    """What a page tells of. All texts are plain, and are escaped here; drawings are SVG."""

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


def page(run: Run) -> str:
    """The whole page."""
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    sections = (
        _head(run), _to_know(run), _course(run), _pictures(run), _skipped(run),
        _rest(run), _made_with(run), _times(run), _end(run), _foot(run),
    )  # fmt: skip
    title = escape(f"{run.target.name}: what was restored")
    return Template(template).substitute(title=title, body="\n".join(filter(None, sections)))


def _head(run: Run) -> str:
    done = run.summary
    seconds = sum(done.seconds.values())
    when = run.begun.strftime("%Y-%m-%d %H:%M")
    left = sum(done.skipped.values())
    tiles = [
        ("frames", f"{done.frames:,}"),
        ("shots", f"{done.shots:,}"),
        ("people", f"{done.people:,}"),
        ("faces restored", f"{done.faces:,}"),
        ("faces left as they were", f"{left:,}"),
        ("outside the faces", _outside_tile(done)),
        ("took", duration_text(seconds).replace(" ", "\N{NO-BREAK SPACE}")),
    ]
    boxes = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in tiles)
    return (
        f'<h1>{escape(run.source.name)} <span class="arrow">&rarr;</span> '
        f"{escape(run.target.name)}</h1>\n"
        f'<p class="soft">Restored by vidrestore {escape(run.version)}, begun {escape(when)}.</p>\n'
        f'<p class="lead">{escape(" ".join(_lead(run)))}</p>\n<dl class="tiles">{boxes}</dl>'
    )


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


def _to_know(run: Run) -> str:
    if not run.summary.warnings:
        return ""
    items = "".join(f"<li>{escape(sentence(text))}</li>" for text in run.summary.warnings)
    return f'<h2>What to know</h2>\n<ul class="know">{items}</ul>'


def _pictures(run: Run) -> str:
    if not run.people:
        return ""
    parts = ["<h2>Person by person</h2>"]
    if any(shown.views for shown in run.people):
        parts.append(
            f"<p>{escape(capital(run.base))} is on the left, the output on the right; where a line "
            "parts them, drag it or use the arrow keys. Views are from different times, the "
            "largest first.</p>"
        )
    if any(shown.plot for shown in run.people):
        parts += [f'<p class="soft">{escape(text)}</p>' for text in run.measured]
    if run.broken is not None:
        parts.append(
            "<p>Pictures and flicker are missing here, since making them failed: "
            f"{escape(run.broken)}. The output is not touched by that.</p>"
        )
    parts += [_person(run, shown) for shown in run.people]
    if run.unseen_people:
        more = counted(run.unseen_people, "more person is", "more people are")
        parts.append(
            f"<p>To keep this page small, {more} not shown: fewer of their faces were restored.</p>"
        )
    if run.untouched_people:
        nobody = counted(run.untouched_people, "person is", "people are")
        parts.append(f"<p>{nobody} left as they were in every frame.</p>")
    return "\n".join(parts)


def _person(run: Run, shown: ShownPerson) -> str:
    person = shown.person
    about = (
        f"In {_shots_text(person.shots)}, {duration_text(person.seconds_on_screen)} on screen; the "
        f"eyes are {person.eye_distance_px:.0f} pixels apart on average."
    )
    views = "".join(_view(run, view) for view in shown.views)
    found = [f"<h3>Person {person.person_id}</h3>", f"<p>{escape(about)}</p>"]
    if views:
        found.append(f'<div class="views">{views}</div>')
    if shown.plot is not None:
        found.append(f'<div class="plot">{shown.plot}</div>')
        found.append(f'<p class="soft">{escape(shown.plot_says)}</p>')
    return "\n".join(found)


def _view(run: Run, view: View) -> str:
    seconds = run.frame_seconds[view.index]
    when = f"{clock_text(seconds, decimals=1)}, frame {view.index // run.frames_each:,}"
    name = f"person {view.person} at {when}"
    pictures = "".join(
        f'<figure class="{kind}"><img alt="{escape(f"{name}, {word}")}" width="{view.side_px}" '
        f'height="{view.side_px}" src="data:image/jpeg;base64,'
        f'{base64.b64encode(data).decode()}"><figcaption>{word}</figcaption></figure>'
        for kind, word, data in (("was", "before", view.before), ("now", "after", view.after))
    )
    label = escape(f"{name}: where the line between before and after is")
    return (
        f'<div class="view"><div class="pair">{pictures}<span class="grip"></span>'
        f'<input type="range" min="0" max="100" value="50" aria-label="{label}"></div>'
        f'<p class="when">{escape(when)}</p></div>'
    )


def _course(run: Run) -> str:
    if run.timeline is None:
        return ""
    return (
        "<h2>Who is on screen, and how strongly restored</h2>\n"
        f'<div class="plot">{run.timeline}</div>\n'
        '<p class="soft"><span class="key" style="background: var(--seen)"></span> on screen '
        '<span class="key" style="background: var(--after)"></span> how much of the restored face '
        f"was used, the full height being all of it. {escape(run.timeline_says)}</p>"
    )


def _skipped(run: Run) -> str:
    done = run.summary
    rows = [(f"{count:,}", reason) for reason, count in done.skipped.items()]
    parts = ["<h2>What was left as it was</h2>"]
    if rows:
        parts.append(table(("faces", "why"), rows, numbers=1))
    else:
        parts.append("<p>No face that was found was left out.</p>")
    if done.corrupt_frames:
        parts.append(f"<p>{counted(done.corrupt_frames, 'frame')} of the source are damaged.</p>")
    if done.missing_frames:
        parts.append(f"<p>{counted(done.missing_frames, 'frame')} could not be decoded.</p>")
    for count, why in (
        (done.repeated, "show what the frame before showed, bit by bit, and have its result"),
        (done.kept, "were restored by an earlier run, or for the segment before, and kept"),
    ):
        if count:
            parts.append(f"<p>{count:,} of the restored faces {why}.</p>")
    if reduced := [track for track in done.likeness if track.reduced_frames]:
        parts.append("<h3>Used less, since they did not look like the source</h3>")
        reduced.sort(key=lambda track: -track.reduced_frames)
        head = ("person", "shot", "faces", "used less", "likeness restored", "as used")
        parts.append(table(head, [_reduced(track) for track in reduced[:_MOST_ROWS]], numbers=6))
        if len(reduced) > _MOST_ROWS:
            parts.append(f"<p>{counted(len(reduced) - _MOST_ROWS, 'more track')} not listed.</p>")
    elif done.likeness:
        parts.append("<p>The guard found every restored face like its source.</p>")
    return "\n".join(parts)


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


def _rest(run: Run) -> str:
    fixity = run.fixity
    parts = ["<h2>Everything but the faces</h2>"]
    if fixity is None:
        return "\n".join([*parts, "<p>The finished file was not read back.</p>"])
    parts.append(
        f"<p>The finished file was read back: it holds all {counted(fixity.frames, 'frame')}, each "
        f"at its time. {escape(_fidelity(run.base, fixity))}</p>"
    )
    if fixity.not_compared is None:
        rows = [("frames that are identical, sample by sample", f"{fixity.identical_frames:,}"),
                ("frames that are identical outside the faces",
                 f"{fixity.identical_outside:,}")]  # fmt: skip
        for name, value in (("outside the faces", fixity.psnr_outside_db),
                            ("of the luma alone", fixity.luma_psnr_outside_db)):  # fmt: skip
            if value is not None:
                rows.append((f"PSNR {name}", f"{value:.2f} dB"))
        if fixity.worst_frame is not None and fixity.worst_frame_psnr_db is not None:
            at = clock_text(run.frame_seconds[fixity.worst_frame * run.frames_each], decimals=1)
            worst = f"{fixity.worst_frame_psnr_db:.2f} dB, frame {fixity.worst_frame:,} at {at}"
            rows.append(("lowest PSNR outside of any frame", worst))
        parts.append(facts(rows))
    return "\n".join(parts)


def _fidelity(base: str, fixity: Verification) -> str:
    if fixity.not_compared is not None:
        return sentence(fixity.not_compared)
    if fixity.identical_outside == fixity.frames:
        return f"Every sample outside the faces is that of {base}."
    return (
        f"Outside the faces it differs from {base} by what the encoder took; a lossless codec "
        "takes nothing."
    )


def _made_with(run: Run) -> str:
    parts = ["<h2>How it was made</h2>"]
    if run.restorers:
        parts.append("<h3>Restorers, and the SHA-256 of their files of weights</h3>")
        parts.append(
            facts([(name, sha or "no file of weights is known") for name, sha in run.restorers])
        )
    parts += ["<h3>With</h3>", facts(run.how), "<h3>Asked for, other than the defaults</h3>"]
    parts.append(facts(run.asked) if run.asked else "<p>Nothing; all settings are the usual.</p>")
    parts += ["<h3>The source</h3>", facts(run.source_facts)]
    if run.notices:
        items = "".join(f"<li>{escape(sentence(text))}</li>" for text in run.notices)
        parts.append(f"<h3>Said during the run</h3><ul>{items}</ul>")
    return "\n".join(parts)


def _times(run: Run) -> str:
    names = {"analyze": "analysis", "restore": "restoration", "check": "reading back, measuring"}
    rows = [(names.get(k, k), f"{seconds:,.1f} s") for k, seconds in run.summary.seconds.items()]
    parts = ["<h2>Where the time went</h2>", facts(rows)]
    if any(run.stages.values()):
        parts.append(
            "<p>Stages run side by side, so their times overlap. They are sums over all segments, "
            "also those of earlier runs and of workers.</p>"
        )
    for name, stages in run.stages.items():
        if stages:
            parts.append(_stage_table(names.get(name, name), stages))
    return "\n".join(parts)


def _stage_table(name: str, stages: Mapping[str, StageTime]) -> str:
    limit, slowest = max(stages.items(), key=lambda pair: pair[1].busy_seconds)
    busy = 100 * slowest.busy_seconds / max(slowest.seconds, 1e-9)
    most = max(slowest.busy_seconds, 1e-9)
    rows = "".join(
        f"<tr><th>{escape(stage)}</th>"
        + "".join(
            f'<td class="number">{seconds:,.1f} s</td>'
            for seconds in (own.busy_seconds, own.starved_seconds, own.held_seconds)
        )
        + f'<td class="bar"><span style="width: {100 * own.busy_seconds / most:.1f}%"></span></td>'
        "</tr>"
        for stage, own in stages.items()
    )
    head = "".join(
        f'<th class="number">{word}</th>' for word in ("busy", "without input", "without room")
    )
    return (
        f"<h3>Stages of the {escape(name)}</h3>"
        f"<p>The stage {escape(limit)} limits the speed: it was busy {busy:.0f} % of its time. "
        "</p>"
        f'<div class="scroll"><table><thead><tr><th>stage</th>{head}<th></th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _end(run: Run) -> str:
    return "" if run.verdict is None else f'<p class="lead">{escape(run.verdict)}</p>'


def _foot(run: Run) -> str:
    return (
        "<footer>This page holds all that it shows and loads nothing. Input: "
        f"<code>{escape(str(run.source))}</code>; output: <code>{escape(str(run.target))}</code>."
        "</footer>"
    )


def _shots_text(shots: Sequence[int]) -> str:
    if len(shots) > 8:
        return f"{len(shots)} shots"
    return f"shot{'s' if len(shots) != 1 else ''} {listed([str(n) for n in shots])}"


def facts(rows: Rows) -> str:
    cells = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows
    )
    return f'<table class="facts"><tbody>{cells}</tbody></table>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: int) -> str:
    """The first `numbers` columns are set to the right."""
    kinds = [' class="number"' if i < numbers else "" for i in range(len(head))]
    top = "".join(f"<th{k}>{escape(name)}</th>" for k, name in zip(kinds, head, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f"<td{k}>{escape(cell)}</td>" for k, cell in zip(kinds, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'
        "</div>"
    )


def listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def counted(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def sentence(text: str) -> str:
    return capital(text) if text.endswith((".", "!", "?")) else f"{capital(text)}."

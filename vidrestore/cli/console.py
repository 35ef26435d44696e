"""Tables and sentences that show results to people.

Results go to standard output, warnings to standard error.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, OverflowMethod
from rich.table import Column, Table
from rich.text import Text

from vidrestore.common.counting import counted
from vidrestore.common.quoting import printable

if TYPE_CHECKING:
    from vidrestore.analysis.result import Analysis
    from vidrestore.cli.doctor import Diagnosis
    from vidrestore.jobs.batch import Outcome
    from vidrestore.jobs.estimate import Estimate
    from vidrestore.jobs.summary import Summary, TrackLikeness
    from vidrestore.models.convert import Converted
    from vidrestore.models.weights import Checked, Row
    from vidrestore.personal.forecast import Forecast
    from vidrestore.personal.personal_file import Description
    from vidrestore.personal.trainer import TrainingRecord
    from vidrestore.review.comparison import Comparison
    from vidrestore.review.demo import Demo
    from vidrestore.review.evaluate import Evaluation
    from vidrestore.review.preview import Preview
    from vidrestore.review.proxy import Proxy
    from vidrestore.review.trial import Trial


def show_summary(summary: Summary, target: Path) -> None:
    """Print the summary of one restored file.

    Args:
        summary: What the run did.
        target: The restored file, which is the title of the table.
    """
    console = Console()
    table = Table(title=_cell(str(target)), show_header=False, title_justify="left")
    table.add_row("frames", str(summary.frames))
    if summary.copied_frames:
        row = f"{summary.copied_frames:,} of them have the very packets of the source"
        table.add_row("", row)
    table.add_row("faces restored", f"{summary.faces:,} in {counted(summary.tracks, 'track')}")
    if summary.repeated:
        row = f"{summary.repeated} of them repeat the frame before and were not restored again"
        table.add_row("", row)
    if summary.kept:
        row = f"{summary.kept} of them were kept from an earlier run and not restored again"
        table.add_row("", row)
    if summary.between:
        share = 1 - summary.between / max(summary.faces, summary.between)
        row = (
            f"{summary.between} of them were made of key frames: {share:.0%} of the faces went "
            "through the network"
        )
        table.add_row("", row)
    if summary.fast:
        row = (
            f"{summary.fast} of them are where key frames save too little, since the face moves "
            "fast or is seen only briefly, so the network restored every frame there"
        )
        table.add_row("", row)
    if summary.detector:
        table.add_row("faces found with", _cell(summary.detector))
    if summary.restorers:
        table.add_row("restored with", _cell(", ".join(summary.restorers)))
    for use in summary.told_networks:
        table.add_row("", _cell(f"{use.restorer}: {use.whom}"))
    table.add_row("shots", str(summary.shots))
    if summary.redone_shots:
        table.add_row("shots redone", ", ".join(map(str, summary.redone_shots)))
    for reason, count in summary.skipped.items():
        table.add_row("faces left as they were", f"{count}: {reason}")
    for track in summary.likeness:
        if track.reduced_frames:
            table.add_row("likeness", _reduced_likeness(track))
        if track.expression_frames:
            table.add_row("expression", _kept_expression(track))
    if summary.missing_frames:
        table.add_row("frames lost", str(summary.missing_frames))
    table.add_row("picture", _picture(summary))
    for stage, seconds in summary.seconds.items():
        table.add_row(stage, f"{seconds:.1f} s")
    console.print(table)
    _warn(summary.warnings)


def _reduced_likeness(track: TrackLikeness) -> str:
    """Return the sentence about a track whose restored face the guard uses less."""
    return (
        f"person {track.person} in shot {track.shot}: the restored face does not look like the "
        f"source in {counted(track.reduced_frames, 'frame')}, so vidrestore used less of it there"
    )


def _kept_expression(track: TrackLikeness) -> str:
    """Return the sentence about a track whose expression the restorer changed."""
    return (
        f"person {track.person} in shot {track.shot}: expression kept in "
        f"{counted(track.expression_frames, 'face')}; an eye or "
        "the mouth differs from the source, so vidrestore used less of it there"
    )


def _picture(summary: Summary) -> str:
    """Return the codec, and how exactly it kept the samples outside the faces."""
    if summary.identical_outside is None:
        return summary.codec
    if summary.identical_outside == summary.frames:
        whose = "the source's" if summary.enlarged == 1 else "the enlarged source's"
        return f"{summary.codec}; every sample outside the faces is {whose}"
    if summary.psnr_outside_db is None:
        return summary.codec
    return f"{summary.codec}; outside the faces {summary.psnr_outside_db:.1f} dB PSNR"


def show_analysis(analysis: Analysis, source: Path, cost: Estimate | str | None) -> None:
    """Print what an analysis found: facts of the file, people and tracks.

    Args:
        analysis: The analysis.
        source: The video, which is the title of the table.
        cost: The estimated time of a restoration, or a sentence that says why there is none.
            None: no estimate was asked for.
    """
    from vidrestore.analysis.description import facts_of
    from vidrestore.analysis.result import of_output
    from vidrestore.common.timecode import duration_text

    console = Console()
    facts = Table(title=_cell(str(source)), show_header=False, title_justify="left")
    for name, value in facts_of(analysis):
        facts.add_row(name, _cell(value))
    output = of_output(analysis)
    facts.add_row("frames", str(output.frame_count))
    facts.add_row("shots", str(len(output.shots)))
    ranges = ", ".join(f"{first}-{end - 1}" for first, end in output.shots)
    facts.add_row("frames of each shot", f"{ranges} (the first frame is 0)")
    tracks = counted(len(analysis.tracks), "track")
    facts.add_row("faces to restore", f"{analysis.face_count:,} in {tracks}")
    for reason, count in analysis.skipped.items():
        facts.add_row("faces left as they are", f"{count}: {reason}")
    if cost is not None and not isinstance(cost, str):
        facts.add_row(
            _cell(f"time with {cost.restorer}"),
            f"about {duration_text(cost.seconds)} on this machine ({cost.seconds_per_face:.3g} s "
            f"for a face, {cost.seconds_per_frame:.3g} s for the rest of a frame)",
        )
        if len(cost.networks) > 1:
            for each in cost.networks:
                own = f"{each.seconds_per_face:.3g} s for a face"
                facts.add_row("", _cell(f"{each.restorer}: {each.whom}, {own}"))
        if cost.seconds_with_key_frames is not None:
            facts.add_row(
                "time with key frames",
                f"about {duration_text(cost.seconds_with_key_frames)}, with --profile quick or "
                "--set restore.key_frames=auto",
            )
    console.print(facts)
    if isinstance(cost, str):
        _print_line(cost)
    if analysis.tracks:
        console.print(_people_table(analysis))
        console.print(_track_table(analysis))
    else:
        console.print("no face was found")
    if analysis.tracks and not analysis.people_are_joined and len(analysis.shots) > 1:
        from vidrestore.analysis.selection import NOT_JOINED

        _warn([NOT_JOINED])
    if analysis.coarse_landmarks:
        _warn(["landmarks were guessed from face boxes; a detector with weights aligns better"])


_SIZE = "eye distance,\nmean, frontal"
"""The heading of the sizes of faces; see `vidrestore.analysis.strength.eye_distances_px`."""


def _people_table(analysis: Analysis) -> Table:
    from vidrestore.analysis.description import people_of

    table = Table("person", "in shots", "seconds on screen", _SIZE, "turned away", "in tracks")
    table.title, table.title_justify = "People", "left"
    for person in people_of(analysis):
        table.add_row(
            str(person.person_id),
            ", ".join(map(str, person.shots)),
            f"{person.seconds_on_screen:.2f}",
            f"{person.eye_distance_px:.0f} px",
            f"{100 * person.share_turned_away:.0f} %",
            ", ".join(map(str, person.tracks)),
        )
    return table


def _track_table(analysis: Analysis) -> Table:
    from vidrestore.analysis.description import seconds_of_track
    from vidrestore.analysis.result import in_output
    from vidrestore.analysis.strength import eye_distances_px

    table = Table("track", "person", "frames", "seconds", _SIZE, "detected", "confidence")
    table.title, table.title_justify = "Tracks", "left"
    table.caption_justify = "left"
    table.caption = (
        "A track is one face from its first to its last frame within a shot. Detected: the share "
        "of these frames in which the detector found it; in the others it is interpolated."
    )
    for track in analysis.tracks:
        size_px = float(eye_distances_px(track, analysis.template).mean())
        first, last = in_output(analysis, track.first_frame, track.end_frame - 1)
        table.add_row(
            str(track.track_id),
            str(track.person_id),
            f"{first}-{last}",
            f"{seconds_of_track(analysis, track):.2f}",
            f"{size_px:.0f} px",
            f"{100 * float(track.detected.mean()):.0f} %",
            f"{float(track.score.mean()):.2f}",
        )
    return table


def show_preview(preview: Preview) -> None:
    """Print which files a preview wrote, and which faces it left as they were.

    Args:
        preview: The preview.
    """
    count = counted(preview.frames, "frame")
    _print_line(f"{', '.join(preview.files)}: {count} from {preview.at_seconds:.3f} s on")
    if not preview.faces:
        _print_line("no face was restored at this moment; try another one with --at")
    for reason, number in preview.not_restored.items():
        _print_line(f"faces left as they were: {number}: {reason}")


def show_proxy(proxy: Proxy, target: Path) -> None:
    """Print the size of a proxy.

    Args:
        proxy: The proxy.
        target: The file that holds it.
    """
    sound = "with sound" if proxy.has_sound else "without sound"
    count = counted(proxy.frames, "frame")
    _print_line(f"{target}: {count}, {proxy.width} x {proxy.height} pixels, {sound}")


def show_comparison(comparison: Comparison, target: Path) -> None:
    """Print how many frames a comparison has, and warn if one file is shorter.

    Args:
        comparison: The comparison.
        target: The file that holds it.
    """
    _print_line(f"{target}: {counted(comparison.frames, 'frame')}")
    if comparison.alone:
        _warn(
            [
                f"the second file ended {counted(comparison.alone, 'frame')} earlier; the "
                "comparison repeats its last picture"
            ]
        )


def show_forecast(planned: Forecast) -> None:
    """Print what a training will take.

    Args:
        planned: The forecast.
    """
    from vidrestore.common.timecode import duration_text

    table = Table(title="Training, by the shapes of the network", show_header=False)
    table.title_justify = "left"
    judges = {"discriminator": planned.has_discriminator, "identity": planned.has_identity}
    there = [name for name, is_there in judges.items() if is_there]
    for name, value in (
        ("network", f"{planned.base}, {planned.size_px} px"),
        ("device", planned.device),
        ("networks that judge", " and ".join(there) or "none"),
        ("faces in each step", str(planned.batch)),
        ("memory", f"{_gigabytes(planned.memory_bytes)} of {_gigabytes(planned.room_bytes)}"),
        ("crops, in the computer's memory", f"up to {_gigabytes(planned.crop_bytes)}"),
        ("disk, until training ends", _gigabytes(planned.state_bytes)),
        ("time", f"about {duration_text(planned.seconds)} for {planned.steps:,} steps"),
    ):
        table.add_row(name, _cell(value))
    Console().print(table)


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


def show_training(description: Description, record: TrainingRecord, target: Path) -> None:
    """Print what a training did, and by how much the network is better.

    Args:
        description: The description in the file.
        record: What the training did.
        target: The file of the network, which is the title of the table.
    """
    from vidrestore.common.timecode import duration_text
    from vidrestore.personal.personal_file import gains

    table = Table(title=_cell(str(target)), show_header=False, title_justify="left")
    table.add_row("adapted from", _cell(description.base))
    done = counted(len(record.losses), "step")
    table.add_row("best", f"after {description.steps:,} of {done}")
    crops = f"{description.learned} learned from, {description.apart} set apart"
    table.add_row("crops", crops)
    table.add_row("better by", gains(description.before, description.after))
    table.add_row("embedding", "left out" if description.embedding is None else "in the file")
    table.add_row("took", duration_text(record.seconds))
    Console().print(table)


def show_outcome(outcome: Outcome, number: int, of: int) -> None:
    """Print on standard error what became of one of many inputs.

    Args:
        outcome: The outcome.
        number: Its place among the inputs, from 1.
        of: The number of inputs.
    """
    result = outcome.message or outcome.status
    console = Console(stderr=True)
    _print_line(f"{number} of {of}: {outcome.source}: {result}", console)
    if outcome.summary is not None:
        _warn(outcome.summary.warnings)


def show_outcomes(outcomes: Sequence[Outcome], of: int, output: TextIO) -> None:
    """Print a table of what became of many inputs, and why some failed.

    Args:
        outcomes: The outcomes, in order of the inputs; fewer than inputs if the run was stopped.
        of: The number of inputs.
        output: The stream to print to.
    """
    console = Console(file=output)
    table = Table(Column("input", overflow="fold"), Column("output", overflow="fold"), "frames",
                  "faces", "result")  # fmt: skip
    for one in outcomes:
        done = one.summary
        counts = ("", "") if done is None else (str(done.frames), str(done.faces))
        table.add_row(_cell(str(one.source)), _cell(str(one.target)), *counts, one.status)
    console.print(table)
    failed = [one for one in outcomes if one.status == "failed"]
    for one in failed:
        _print_line(f"failed: {one.source}: {one.message}", console)
    if len(outcomes) < of:
        _print_line(
            f"{of - len(outcomes)} of {of} were not started; run the same command again to go on",
            console,
        )


def show_evaluation(result: Evaluation) -> None:
    """Print the measures of an evaluation, and its verdict.

    Args:
        result: The evaluation.
    """
    from vidrestore.review.evaluate import table_rows

    console = Console()
    table = Table("measure", "source", "output", "better", "meaning")
    for row in table_rows(result):
        table.add_row(row.name, row.source, row.output, row.better, row.meaning)
    console.print(table)
    same = "the same number of frames"
    if not result.frame_counts_equal:
        same = "DIFFERENT frame counts (for a sample, give the --start and --end of its run)"
    error = result.largest_time_error_seconds
    times = "the same times" if error == 0 else f"times that differ by up to {error * 1000:.3f} ms"
    console.print(
        f"{counted(result.frames, 'frame')} compared, {result.frames_with_faces:,} with faces; "
        f"{same}, {times}"
    )
    console.print(result.verdict().sentence, markup=False, highlight=False, soft_wrap=True)


def show_demo(demo: Demo) -> None:
    """Print what the demo gained, and the command to try next.

    Args:
        demo: The result of the demo.
    """
    console = Console()
    show_evaluation(demo.evaluation)
    sign = "gained" if demo.gain_db >= 0 else "LOST"
    console.print(f"The face {sign} {abs(demo.gain_db):.2f} dB in PSNR against its damaged source.")
    _print_line(
        f"Look at {demo.folder / 'compare.png'} and play {demo.folder / 'restored.mp4'}.", console
    )
    console.print("\nTo restore a video of your own, without any download:")
    console.print(
        "  vidrestore restore YOUR.mp4 CLEAR.mp4 --restorer fusion --detector haar",
        markup=False,
        highlight=False,
    )


def show_weights(rows: Sequence[Row], folders: Sequence[Path]) -> None:
    """Print a table of all weight files.

    Args:
        rows: The files, a row each.
        folders: The folders that were searched.
    """
    console = Console()
    table = Table("name", Column("where", overflow="fold"), "size", "license")
    for row in rows:
        size = f"{row.size_bytes / 1e6:.1f} MB" if row.size_bytes else ""
        where = row.message or (str(row.path) if row.path else "missing")
        table.add_row(row.name, _cell(where), size, row.licence)
    console.print(table)
    for row in rows:
        for other in row.others:
            _print_line(f"{row.name} is also here, and not used: {other}", console)
    _print_line("looked in: " + ", ".join(map(str, folders)), console)


def show_fetched(name: str, path: Path, licence: str, *, is_present: bool) -> None:
    """Print where a weight file is.

    Args:
        name: The name of the weight.
        path: Its file.
        licence: Its license in one line; empty if it is not known.
        is_present: Whether the file was there before, so that nothing was downloaded.
    """
    _print_line(f"{name} is {'here already' if is_present else 'here'}: {path}")
    if licence:
        _print_line(f"license: {licence}")


def show_verified(rows: Sequence[tuple[str, Sequence[Checked]]], folders: Sequence[Path]) -> None:
    """Print the state of each weight file; what is wrong is printed below the table, unbroken.

    Args:
        rows: (name, its files as they were checked) for each weight.
        folders: The folders that were searched.
    """
    table = Table("name", Column("path", overflow="fold"), "state")
    for name, checked in rows:
        for one in checked:
            table.add_row(name, _cell(str(one.path), overflow="fold"), one.state)
        if not checked:
            table.add_row(name, "", "missing")
    Console().print(table)
    for _, checked in rows:
        for one in checked:
            if one.message:
                _print_line(f"{one.state}: {one.message}")
    _print_line("looked in: " + ", ".join(map(str, folders)))


def show_converted(converted: Converted) -> None:
    """Print which file a conversion wrote, and how to use it.

    Args:
        converted: The result of the conversion.
    """
    _print_line(
        f"wrote {converted.path}: GPEN for faces of {converted.size_px} px, {converted.entries} "
        f"entries, {converted.parameters / 1e6:.1f} million parameters"
    )
    _print_line(f"use it: --restorer {converted.path}")


def show_trial(trial: Trial, sheet: Path) -> None:
    """Print the scores of a restorer on the built-in portrait.

    Args:
        trial: The scores.
        sheet: The picture that shows the restored portraits.
    """
    columns = ("damage", "template", "landmarks off", "expression off", "true detail", "PSNR")
    table = Table(*columns, title=_cell(trial.restorer))
    for row in sorted(
        trial.rows, key=lambda row: [r.degradation for r in trial.rows].index(row.degradation)
    ):
        score = row.score
        table.add_row(
            row.degradation,
            row.template or "(not restored)",
            f"{score.landmark_error_px:.2f} px",
            "-" if score.expression is None else f"{score.expression:.2f}",
            f"{100 * score.true_detail:.0f} %",
            f"{score.psnr_db:.2f} dB",
        )
    Console().print(table)
    _print_line(trial.verdict)
    _print_line(trial.about_expression)
    if trial.codes is not None:
        _print_line(trial.codes.verdict)
    _print_line(f"Look at {sheet}: clean, damaged, restored.")


def show_diagnosis(diagnosis: Diagnosis) -> None:
    """Print what `vidrestore doctor` found.

    Args:
        diagnosis: The findings.
    """
    table = Table("part", "state", "consequence")
    for finding in diagnosis.findings:
        cells = (finding.what, finding.found, finding.follows)
        table.add_row(*(_cell(cell, overflow="fold") for cell in cells))
    Console().print(table)
    for sentence in diagnosis.slow:
        _print_line(f"slow: {sentence}")
    for sentence in diagnosis.runs_now:
        _print_line(f"runs now: {sentence}")
    if not diagnosis.can_run:
        _print_line("Nothing can run until the parts marked BROKEN are repaired.")


def show_page(address: str, *, is_local: bool) -> None:
    """Print the address of the page.

    Args:
        address: The address with the secret token; no other output may show it.
        is_local: Whether only this machine can reach the page.
    """
    _print_line(f"The page is at {address}; Ctrl-C ends it.")
    _print_line("Keep the address to yourself: anyone who has it can use the page.")
    if not is_local:
        _warn(["the page and the token in its address are sent over the network unencrypted"])


def show_running_page(address: str) -> None:
    """Print the address of a page that runs already.

    Args:
        address: The address with the secret token; no other output may show it.
    """
    _print_line(f"The page is at {address}; it runs already, with the options of its own start.")
    _print_line("Keep the address to yourself: anyone who has it can use the page.")


def show_page_ended(folder: Path, unfinished: int) -> None:
    """Print where a page that has ended keeps its files.

    Args:
        folder: The folder of the page.
        unfinished: The number of restorations that the next page continues.
    """
    if unfinished:
        them = counted(unfinished, "restoration")
        _print_line(f"The page has ended; vidrestore ui continues {them}.")
    else:
        _print_line("The page has ended; vidrestore ui opens it again.")
    _print_line(f"Its list, uploads and copies are kept in {folder}.")


def _cell(text: str, overflow: OverflowMethod | None = None) -> Text:
    """Return a cell of a table without markup and without control characters."""
    return Text(printable(text), overflow=overflow)


def _print_line(line: str, console: Console | None = None) -> None:
    """Print one line, never broken or colored, so that paths can be copied."""
    (console or Console()).print(printable(line), markup=False, highlight=False, soft_wrap=True)


def _warn(messages: Sequence[str]) -> None:
    """Print warnings on standard error."""
    console = Console(stderr=True)
    for message in messages:
        console.print(
            f"warning: {printable(message)}", markup=False, highlight=False, soft_wrap=True
        )

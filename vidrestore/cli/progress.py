"""Events as they come: a bar for people, lines for a log, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from vidrestore.common.events import (
    DownloadProgress,
    Event,
    Notice,
    OnEvent,
    PassTimes,
)
from vidrestore.common.events import Progress as FrameProgress
from vidrestore.common.quoting import printable
from vidrestore.common.system import usable_cores
from vidrestore.common.timecode import time_text


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if speed is None or task.fields.get("unit") != "frames":
            return Text("")
        return Text(f"{speed:.1f} fps")


@contextmanager
def events(
    as_json: bool,
    console: Console | None = None,
    *,
    stage_times: bool = False,
    output: TextIO | None = None,
) -> Iterator[OnEvent]:
    """A receiver of events: JSON lines on standard output, or a progress bar for people.

    `output` is standard output as it was before a library that prints was kept from it.
    `stage_times` adds a table for each pass for people, what it cost by stage.
    """
    if as_json:
        lines = output or sys.stdout
        yield lambda event: print(json.dumps(event.as_dict()), file=lines, flush=True)
        return
    console = console or Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Speed(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as progress:
        receiver = _Receiver(progress, console)
        yield receiver
    if stage_times:
        for times in receiver.stages:
            show_stage_times(times, console)


class _Receiver:
    """Turns events into bars, one per stage; without a terminal, into one line per stage."""

    def __init__(self, progress: Progress, console: Console) -> None:
        self._progress = progress
        self._console = console
        self._tasks: dict[str, Any] = {}
        self._tenths: dict[str, int] = {}
        self.stages: list[PassTimes] = []

    def __call__(self, event: Event) -> None:
        match event:
            case PassTimes():
                self.stages.append(event)
            case Notice(message):
                self._console.print(
                    printable(message), markup=False, highlight=False, soft_wrap=True
                )
            case FrameProgress(stage, done, total):
                self._show(stage, done, total, "frames")
            case DownloadProgress(stage, done, total):
                self._show(stage, done, total, "bytes")

    def _show(self, stage: str, done: int, total: int | None, unit: str) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total, unit=unit)
        self._progress.update(self._tasks[stage], completed=done, total=total)
        if not self._console.is_terminal:
            self._say_tenths(stage, done, total, unit)

    def _say_tenths(self, stage: str, done: int, total: int | None, unit: str) -> None:
        """Ten lines in all, for a log; the first with what there is to do."""
        tenth = 10 * done // total if total else 0
        if stage not in self._tenths:
            self._console.print(f"{stage}: {total or '?'} {unit}")
        elif tenth > self._tenths[stage]:
            (task,) = (t for t in self._progress.tasks if t.id == self._tasks[stage])
            left = f", {time_text(task.time_remaining, 0)} left" if task.time_remaining else ""
            self._console.print(f"{stage}: {10 * tenth} %{left}")
        self._tenths[stage] = max(tenth, self._tenths.get(stage, 0))


def show_stage_times(times: PassTimes, console: Console) -> None:
    """Print the table of one pass; see `StageTime`."""
    stages = times.stages
    if not stages:
        return
    table = Table(
        "stage", "frames", "busy", "processor", "no input", "no room", title=times.pass_name
    )
    for name, own in stages.items():
        seconds = own.busy_seconds, own.processor_seconds, own.starved_seconds, own.held_seconds
        table.add_row(name, str(own.items or ""), *(f"{each:.2f} s" for each in seconds))
    console.print(table)
    name, slowest = max(stages.items(), key=lambda pair: pair[1].busy_seconds)
    share = slowest.busy_seconds / max(slowest.seconds, 1e-9)
    cores = usable_cores()
    used = times.processor_seconds / max(times.seconds, 1e-9)
    console.print(
        f"{name} limits: it was busy {100 * share:.0f} % of its time; this process kept {used:.2f} "
        f"of {cores} cores busy for {times.seconds:.1f} s"
    )

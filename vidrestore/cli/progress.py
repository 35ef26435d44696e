"""Output of events: a progress bar on a terminal, lines in a log, JSON for programs."""

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

from vidrestore.common.counting import counted
from vidrestore.common.events import (
    FRAMES,
    DownloadProgress,
    Event,
    Notice,
    OnEvent,
    PassTimes,
    TrainingProgress,
)
from vidrestore.common.events import Progress as FrameProgress
from vidrestore.common.quoting import printable
from vidrestore.common.system import usable_cores
from vidrestore.common.timecode import time_text


class _Speed(ProgressColumn):
    """A column with the frames per second of a task."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if speed is None or task.fields.get("unit") != FRAMES:
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
    """Open a receiver of events, which prints them as they come.

    Args:
        as_json: Whether to print each event as a line of JSON; else a progress bar is shown.
        console: Where the progress bar and notices are shown. None: standard error.
        stage_times: Whether to print, at the end, a table of the time of each stage for each pass.
            Not with `as_json`, whose lines have these times.
        output: Where lines of JSON are printed. None: standard output. A caller gives the stream
            of before if it has redirected standard output.

    Yields:
        The receiver.
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
    """Shows events as one bar for each stage; without a terminal, as lines of tenths."""

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
            case FrameProgress(stage, done, total, unit=unit):
                self._show(stage, done, total, unit)
            case DownloadProgress(stage, done, total):
                self._show(stage, done, total, "bytes")
            case TrainingProgress(step, steps):
                self._show("train", step, steps, "steps")

    def _show(self, stage: str, done: int, total: int | None, unit: str) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total, unit=unit)
        self._progress.update(self._tasks[stage], completed=done, total=total)
        if not self._console.is_terminal:
            self._print_tenths(stage, done, total, unit)

    def _print_tenths(self, stage: str, done: int, total: int | None, unit: str) -> None:
        """Print a line at the start of a stage, with its total, and one for each tenth of it."""
        tenth = 10 * done // total if total else 0
        if stage not in self._tenths:
            size = f"? {unit}" if not total else counted(total, unit.removesuffix("s"))
            self._console.print(f"{stage}: {size}")
        elif tenth > self._tenths[stage]:
            (task,) = (t for t in self._progress.tasks if t.id == self._tasks[stage])
            left = f", {time_text(task.time_remaining, 0)} left" if task.time_remaining else ""
            self._console.print(f"{stage}: {10 * tenth} %{left}")
        self._tenths[stage] = max(tenth, self._tenths.get(stage, 0))


def show_stage_times(times: PassTimes, console: Console) -> None:
    """Print the time of each stage of a pass, and which stage limits the speed.

    Args:
        times: The times of the pass; see `StageTime`.
        console: Where they are printed.
    """
    stages = times.stages
    if not stages:
        return
    table = Table("stage", "frames", "busy", "CPU", "no input", "queue full", title=times.pass_name)
    for name, own in stages.items():
        seconds = own.busy_seconds, own.processor_seconds, own.starved_seconds, own.held_seconds
        table.add_row(name, str(own.items or ""), *(f"{each:.2f} s" for each in seconds))
    console.print(table)
    name, slowest = max(stages.items(), key=lambda pair: pair[1].busy_seconds)
    share = slowest.busy_seconds / max(slowest.seconds, 1e-9)
    cores = usable_cores()
    used = times.processor_seconds / max(times.seconds, 1e-9)
    console.print(
        f"{name} limits the speed: it was busy {100 * share:.0f} % of its time; this process kept "
        f"{used:.2f} of {cores} cores busy for {times.seconds:.1f} s"
    )

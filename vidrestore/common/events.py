"""Events: reports to the user during the work, which are also the lines of `--json`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vidrestore.common.stage_times import StageTime

FRAMES = "frames"
"""What most stages count."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A stage has finished some of its frames, or of what else it counts."""

    stage: str
    """The name of the stage, such as "restore"."""
    frame: int
    """The number of frames that are finished."""
    frames: int | None
    """The number of all frames; None: unknown."""
    picture: str | None = None
    """The path of the file with a new live picture; None: there is no new one."""
    unit: str = FRAMES
    """What is counted, as a plural."""

    def as_dict(self) -> dict[str, Any]:
        """Return the object of the `--json` line.

        It names a picture only if there is one, and what is counted only if that is not frames.
        """
        line = {"event": "progress", "stage": self.stage, "frame": self.frame,
                "frames": self.frames}  # fmt: skip
        if self.unit != FRAMES:
            line["unit"] = self.unit
        return line if self.picture is None else {**line, "picture": self.picture}


@dataclass(frozen=True, slots=True)
class DownloadProgress:
    """A part of a file has been downloaded."""

    stage: str
    """The name of the download, for the user."""
    done_bytes: int
    """The number of bytes that are downloaded."""
    total_bytes: int | None
    """The size of the file in bytes; None: the server does not send it."""

    def as_dict(self) -> dict[str, Any]:
        """Return the object of the `--json` line."""
        return {"event": "progress", "stage": self.stage, "bytes": self.done_bytes,
                "of_bytes": self.total_bytes}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """A step of a training is done."""

    step: int
    """The number of steps that are done."""
    steps: int
    """The number of steps, at most."""
    losses: Mapping[str, float]
    """Name of a loss -> its value in this step."""

    def as_dict(self) -> dict[str, Any]:
        """Return the object of the `--json` line."""
        return {"event": "progress", "stage": "train", "step": self.step, "steps": self.steps,
                "losses": dict(self.losses)}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Notice:
    """A message for the user about something that was lost, guessed, repaired or left out."""

    message: str
    """The message, one sentence."""

    def as_dict(self) -> dict[str, Any]:
        """Return the object of the `--json` line."""
        return {"event": "notice", "message": self.message}


@dataclass(frozen=True, slots=True)
class PassTimes:
    """A pass has ended; the event holds the times of its stages."""

    pass_name: str
    """The name of the pass, such as "restore"."""
    seconds: float
    """The wall time of the pass, in seconds."""
    processor_seconds: float
    """The processor time of all threads of this process during the pass, in seconds."""
    stages: Mapping[str, StageTime]
    """Name of a stage -> its times, in the order of the pass."""

    def as_dict(self) -> dict[str, Any]:
        """Return the object of the `--json` line."""
        return {
            "event": "stages", "pass": self.pass_name, "seconds": self.seconds,
            "processor_seconds": self.processor_seconds,
            "stages": {name: asdict(own) for name, own in self.stages.items()},
        }  # fmt: skip


Event = Progress | DownloadProgress | TrainingProgress | Notice | PassTimes
"""An event that a receiver of events gets."""

OnEvent = Callable[[Event], None]
"""A receiver of events: a function that is called with each event."""


@dataclass(frozen=True, slots=True)
class FileOutcome:
    """A batch has finished one of its inputs; see `vidrestore.jobs.batch.Outcome`."""

    source: str
    """The path of the input."""
    target: str
    """The path of the output."""
    status: str
    """The result: "restored", "failed" or "there already"."""
    message: str
    """The reason of a failure, one sentence; empty where nothing failed."""
    summary: Mapping[str, Any] | None
    """The fields of the summary; None where the input was not restored."""

    def as_dict(self) -> dict[str, Any]:
        """Return the object of the `--json` line."""
        return {
            "event": "file", "source": self.source, "target": self.target, "status": self.status,
            "message": self.message, "summary": self.summary,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Failure:
    """The command has failed or was interrupted; this is its last line."""

    kind: str
    """The name of the error's class, or "interrupted"."""
    message: str
    """The message of the error, one sentence."""

    def as_dict(self) -> dict[str, Any]:
        """Return the object of the `--json` line."""
        return {"event": "error", "kind": self.kind, "message": self.message}


@dataclass(frozen=True, slots=True)
class Done:
    """The command has succeeded; this is its last line."""

    name: str
    """The name of the result: summary, files, analysis, preview, comparison, evaluation, proxy,
    weight, training or forecast."""
    result: Any
    """The result, as values that JSON can hold."""

    def as_dict(self) -> dict[str, Any]:
        """Return the object of the `--json` line."""
        return {"event": "done", self.name: self.result}


Line = Event | FileOutcome | Failure | Done
"""The content of a line of `--json`."""


def line_from_dict(fields: Mapping[str, Any]) -> Line | None:
    """Convert the object of a `--json` line to an event or a result.

    Args:
        fields: The object of the line.

    Returns:
        The event or the result; None for an unknown kind of line.

    Raises:
        LookupError: A key is missing.
        TypeError: A key has a value of another type, or the times of a stage have other keys.
        ValueError: A line of the kind "done" does not have exactly one result.
    """
    match fields.get("event"):
        case "progress" if "bytes" in fields:
            return DownloadProgress(str(fields["stage"]), fields["bytes"], fields["of_bytes"])
        case "progress" if "step" in fields:
            return TrainingProgress(fields["step"], fields["steps"], fields["losses"])
        case "progress":
            return Progress(
                str(fields["stage"]), fields["frame"], fields["frames"], fields.get("picture"),
                str(fields.get("unit", FRAMES)),
            )  # fmt: skip
        case "notice":
            return Notice(str(fields["message"]))
        case "stages":
            return PassTimes(
                str(fields["pass"]), fields["seconds"], fields["processor_seconds"],
                {name: StageTime(**own) for name, own in fields["stages"].items()},
            )  # fmt: skip
        case "file":
            return FileOutcome(**{name: fields[name] for name in FileOutcome.__dataclass_fields__})
        case "error":
            return Failure(str(fields["kind"]), str(fields["message"]))
        case "done":
            ((name, result),) = [(key, own) for key, own in fields.items() if key != "event"]
            return Done(name, result)
    return None


def notify(on_event: OnEvent | None, *messages: str) -> None:
    """Send each message as a notice, if there is a receiver.

    Args:
        on_event: The receiver; None: nothing is sent.
        *messages: The messages, one sentence each.
    """
    if on_event is not None:
        for message in messages:
            on_event(Notice(message))

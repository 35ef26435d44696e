"""Events: what the program reports to the user while it works, and as lines of `--json`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vidrestore.common.stage_times import StageTime


@dataclass(frozen=True, slots=True)
class Progress:
    """A stage has done some of its frames."""

    stage: str
    frame: int
    """How many frames are done."""
    frames: int | None
    """How many there are in all; None where that is unknown."""

    def as_dict(self) -> dict[str, Any]:
        """The line of `--json`."""
        return {"event": "progress", "stage": self.stage, "frame": self.frame,
                "frames": self.frames}  # fmt: skip


@dataclass(frozen=True, slots=True)
class DownloadProgress:
    """A part of a file has been fetched."""

    stage: str
    done_bytes: int
    total_bytes: int | None
    """None where the server does not say it."""

    def as_dict(self) -> dict[str, Any]:
        """The line of `--json`."""
        return {"event": "progress", "stage": self.stage, "bytes": self.done_bytes,
                "of_bytes": self.total_bytes}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Notice:
    """One sentence that the user should know."""

    message: str

    def as_dict(self) -> dict[str, Any]:
        """The line of `--json`."""
        return {"event": "notice", "message": self.message}


@dataclass(frozen=True, slots=True)
class PassTimes:
    """A pass has ended: what each of its stages cost."""

    pass_name: str
    seconds: float
    """By the clock, from the beginning of the pass to its end."""
    processor_seconds: float
    """Of this process, all threads together."""
    stages: Mapping[str, StageTime]
    """By name, in the order of the pass."""

    def as_dict(self) -> dict[str, Any]:
        """The line of `--json`."""
        return {
            "event": "stages", "pass": self.pass_name, "seconds": self.seconds,
            "processor_seconds": self.processor_seconds,
            "stages": {name: asdict(own) for name, own in self.stages.items()},
        }  # fmt: skip


Event = Progress | DownloadProgress | Notice | PassTimes
"""What a receiver of events is called with."""

OnEvent = Callable[[Event], None]
"""A receiver of events."""


@dataclass(frozen=True, slots=True)
class FileOutcome:
    """A batch is done with one of its inputs; see `vidrestore.jobs.batch.Outcome`."""

    source: str
    target: str
    status: str
    message: str
    """Why it failed, in one sentence; else empty."""
    summary: Mapping[str, Any] | None

    def as_dict(self) -> dict[str, Any]:
        """The line of `--json`."""
        return {
            "event": "file", "source": self.source, "target": self.target, "status": self.status,
            "message": self.message, "summary": self.summary,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Failure:
    """The command has failed or was interrupted; its last line."""

    kind: str
    """Name of the error's class, or "interrupted"."""
    message: str

    def as_dict(self) -> dict[str, Any]:
        """The line of `--json`."""
        return {"event": "error", "kind": self.kind, "message": self.message}


@dataclass(frozen=True, slots=True)
class Done:
    """The command has succeeded; its last line."""

    name: str
    """Of the result: summary, files, analysis, preview, comparison or evaluation."""
    result: Any
    """Plain values, for JSON."""

    def as_dict(self) -> dict[str, Any]:
        """The line of `--json`."""
        return {"event": "done", self.name: self.result}


Line = Event | FileOutcome | Failure | Done
"""What a line of `--json` says."""


def line_from_dict(fields: Mapping[str, Any]) -> Line | None:
    """What a line of `--json` says, from its keys and values.

    Args:
        fields: The object that the line holds.

    Returns:
        None where it is of a kind that is not known.

    Raises:
        LookupError, TypeError, ValueError: A key is missing, or holds a value of another type.
    """
    match fields.get("event"):
        case "progress" if "bytes" in fields:
            return DownloadProgress(str(fields["stage"]), fields["bytes"], fields["of_bytes"])
        case "progress":
            return Progress(str(fields["stage"]), fields["frame"], fields["frames"])
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
    """Report each message as a notice, if there is a receiver."""
    if on_event is not None:
        for message in messages:
            on_event(Notice(message))

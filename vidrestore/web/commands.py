"""The arguments of the commands, made from choices that were checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vidrestore.web.choices import NO_PROFILE, PICTURES, Choices

MOMENT = "moment"
"""The name of the loop before and after, without its endings."""
PROXY = "proxy.mp4"
"""The name of a copy that browsers play."""
LIVE = "live.jpg"
"""The name of the live picture of a restoration."""
ANALYSIS = "analysis.npz"
"""The name of the analysis of a video."""
REPORT = "report.html"
"""The name of the report of a restoration."""


@dataclass(frozen=True, slots=True)
class Engine:
    """Where all commands find weights, and whether they may download them."""

    weights: Path | None = None
    """A folder to search for weight files before all others; None: the usual folders."""
    offline: bool = False
    """Whether commands never download weights."""

    def arguments(self) -> list[str]:
        """Return the options of a command."""
        return [
            *(() if self.weights is None else ("--weights", str(self.weights))),
            *(("--offline",) if self.offline else ()),
        ]


def analyze(source: Path, folder: Path, choices: Choices, engine: Engine) -> list[str]:
    """Return the arguments that find the people in a video, and keep them and their portraits.

    Args:
        source: The video.
        folder: The folder for the analysis and the portraits.
        choices: What is chosen for the video.
        engine: The options of all commands.

    Returns:
        The arguments.
    """
    return [
        *("analyze", str(source), "-o", str(folder / ANALYSIS)),
        *("--contact-sheet", str(folder), "--no-estimate"),
        *_detection(choices, engine),
    ]


def estimate(source: Path, choices: Choices, engine: Engine) -> list[str]:
    """Return the arguments that estimate the time of a restoration.

    Args:
        source: The video.
        choices: What is chosen for the video.
        engine: The options of all commands.

    Returns:
        The arguments.
    """
    return [
        "analyze", str(source), "--restorer", choices.restorer, *_detection(choices, engine)
    ]  # fmt: skip


def preview(
    source: Path, folder: Path, at_seconds: float, choices: Choices, engine: Engine
) -> list[str]:
    """Return the arguments that show a moment before and after; a picture is restored as a whole.

    Args:
        source: The video or picture.
        folder: The folder for the files; see `moment_files`.
        at_seconds: The moment, in seconds from the start.
        choices: What is chosen for the video.
        engine: The options of all commands.

    Returns:
        The arguments.
    """
    if is_picture(source):
        _, after = moment_files(source, folder)
        options = ["--overwrite", *_restoration(choices, engine)]
        return ["restore", str(source), str(after), *options]
    target = folder / f"{MOMENT}.mp4"
    return [
        *("preview", str(source), "--at", f"{at_seconds:.3f}", "--apart", "-o", str(target)),
        *("--overwrite", *_restoration(choices, engine)),
    ]


def moment_files(source: Path, folder: Path) -> tuple[Path, Path]:
    """Return the files that show a moment.

    Args:
        source: The video or picture.
        folder: The folder for the files.

    Returns:
        (before, after); a picture itself is what was before.
    """
    if is_picture(source):
        return source, folder / f"{MOMENT}.after.png"
    suffix = ".mp4"
    return folder / f"{MOMENT}.before{suffix}", folder / f"{MOMENT}.after{suffix}"


def proxy(source: Path, folder: Path) -> list[str]:
    """Return the arguments that make a copy that browsers play.

    Args:
        source: The video.
        folder: The folder for the copy.

    Returns:
        The arguments.
    """
    return ["proxy", str(source), "-o", str(folder / PROXY)]


def restore(
    source: Path,
    target: Path,
    folder: Path,
    choices: Choices,
    engine: Engine,
    *,
    overwrite: bool,
) -> list[str]:
    """Return the arguments that restore a video.

    Args:
        source: The video or picture.
        target: The new file.
        folder: The folder for the report and the live picture. If it holds the analysis of the
            whole video, this is used, so that people have the numbers of the choices.
        choices: What is chosen for the video.
        engine: The options of all commands.
        overwrite: Whether a file at `target` is replaced.

    Returns:
        The arguments.
    """
    options = ["--report", str(folder / REPORT), "--live", str(folder / LIVE)]
    if not is_picture(target):
        options += ["--quality", choices.quality]
    if choices.start_seconds is not None:
        options += ["--start", f"{choices.start_seconds:.3f}"]
    if choices.end_seconds is not None:
        options += ["--end", f"{choices.end_seconds:.3f}"]
    if choices.key_frames:
        options += ["--set", "restore.key_frames=auto"]
    if (known := folder / ANALYSIS).is_file():
        options += ["--analysis", str(known)]
    if overwrite:
        options.append("--overwrite")
    return ["restore", str(source), str(target), *options, *_restoration(choices, engine)]


def fetch(name: str, engine: Engine) -> list[str]:
    """Return the arguments that download a weight.

    Args:
        name: The name of the weight.
        engine: The options of all commands.

    Returns:
        The arguments.
    """
    folder = () if engine.weights is None else ("--weights", str(engine.weights))
    return ["weights", "fetch", name, *folder]


def _restoration(choices: Choices, engine: Engine) -> list[str]:
    people: Sequence[int] | None = choices.people
    return [
        *("--restorer", choices.restorer, "--strength", f"{choices.strength:g}"),
        *(() if people is None else ("--people", ",".join(map(str, people)))),
        *(("--min-face", f"{choices.least_eye_px:g}") if choices.least_eye_px else ()),
        *_detection(choices, engine),
    ]


def _detection(choices: Choices, engine: Engine) -> list[str]:
    profile = () if choices.profile == NO_PROFILE else ("--profile", choices.profile)
    return [*profile, "--detector", choices.detector, *engine.arguments()]


def is_picture(path: Path) -> bool:
    """Tell by its name whether a file is a still picture.

    Args:
        path: The path of the file.

    Returns:
        True for a picture that vidrestore reads.
    """
    return path.suffix.lower() in PICTURES

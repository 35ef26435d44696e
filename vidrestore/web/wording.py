"""What the page says: stages, notices and errors in people's words.

The commands speak to people who use a terminal: they name options, settings and whole paths. The
page has none of these, so such parts of a message stay in the log.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vidrestore.common.counting import counted
from vidrestore.common.errors import UsageError
from vidrestore.common.quoting import printable
from vidrestore.common.timecode import time_text
from vidrestore.web.choices import NO_PROFILE, Choices, Offer, title_of, weight_title
from vidrestore.web.queue import Job

DEFECT = "vidrestore stopped because of an error of its own; the terminal that runs it shows more."
GONE = "This is no longer here; load the page again."
NOT_OFFERED = "The page does not offer this value; load the page again and choose another."
NO_VIDEO_HERE = "The file is no longer there, or its disk is not connected."

_log = logging.getLogger("vidrestore")


class RefusedError(UsageError):
    """A request that the page cannot carry out.

    Args:
        message: A sentence for the page.
        status: The status of the HTTP answer; default: 400.
        **fields: More fields of the answer.
    """

    def __init__(self, message: str, status: int = 400, **fields: Any) -> None:
        super().__init__(message)
        self.status = status
        """The status of the HTTP answer."""
        self.fields = fields
        """More fields of the answer."""


_STAGES = {
    "analyze": "Looking for faces",
    "restore": "Restoring faces",
    "check": "Comparing the result with the original",
    "proxy": "Making a copy that this browser plays",
    "preview": "Making the loop",
    "report": "Writing the report",
}
_STATES = {
    "waiting": "Waiting for its turn",
    "running": "Starting",
    "pausing": "Pausing",
    "paused": "Paused; finished work is kept",
}

# The first pattern that matches gives the sentence. Groups of the pattern are put into it.
_ERRORS: Sequence[tuple[str, str]] = (
    (r"no space is left in (?P<path>.+?);", "The disk is full; make room, then press Continue."),
    (r"No space left|[Dd]isk quota", "The disk is full; make room, then press Continue."),
    (r"there is not enough memory|needs more memory|does not fit into the memory|short of memory",
     "There is not enough memory; close other programs, or choose a smaller network."),
    (r"does not exist", "A file is no longer there, or its disk is not connected."),
    (r"is empty; copy it again", "The file is empty; copy it again from where it came from."),
    (r"exists already", "There is a file of this name already; choose another name."),
    (r"leaves no person to restore|no person's eyes are|there is no (person|people)",
     "Nobody is left to restore; choose more people or smaller faces."),
    (r"changed (meanwhile|during its analysis|in the meantime)|first pass",
     "The file changed while vidrestore read it; wait until it is copied whole, then try again."),
    (r"holds no video|no video stream|there is no video|not a video|Invalid data|cannot be read as",
     "There is no video in this file, or it is damaged."),
    (r"no frame of .* lies in the part", "The part that you chose has no frame; choose another."),
    (r"downloads are switched off|is in none of",
     "A file that this needs is not here; download it under More, or choose another way."),
    (r"could not be fetched", "The download failed; check the connection, then try again."),
    (r"cannot be written to|Permission denied|permission denied|[Rr]ead-only",
     "The folder of the result cannot be written to; choose another one."),
    (r"another run", "Another vidrestore works on this file; wait until it is done."),
    (r"has no picture at", "The video has no picture there; choose an earlier moment."),
    (r"time cannot be estimated without the weights (?P<weights>[\w-]+)",
     "The time is known once {weights} is downloaded."),
    (r"ended the work \((?P<signal>\w+)\)",
     "Another program ended the work; the computer may be short of memory."),
)  # fmt: skip

# What only a user of the terminal understands.
_OPTION = re.compile(r"(?<![\w-])--?[a-zA-Z][\w-]*")
_SETTING = re.compile(r"\b[a-z]+(_[a-z]+)*\.[a-z][a-z_0-9]*\b(?!\w)")
_FILE_NAME = re.compile(r"\.(mp4|mov|mkv|m4v|avi|png|jpe?g|tiff?|webm|webp|mpe?g|vob|dv|ts|toml)$")
_PATH = re.compile(r"(?<![\w/])(?:[A-Za-z]:[\\/]|/|~/|\\\\)[^\s;,:'\"()]*[^\s;,:'\".()]")
_WORDS = re.compile(
    r"\b(cache_key|ONNX|onnxruntime|OpenVINO|openvino|torch|Triton|CUDA|tensor|state dict|sha256|"
    r"initializers?|remux|traceback|stderr|JSON|TOML|pickle|float\d+|bfloat16|vidrestore "
    r"(weights|analyze|restore|preview|doctor)|the command|pip install|template|denoising|"
    r"recognizer|embedding|landmarks?|pixel format|cache|analysis of an earlier run|"
    r"the report is in|SIG[A-Z]+|status \d+)\b"
)


def sentence(text: str) -> str:
    """Make a message a sentence with a capital letter and a full stop.

    Args:
        text: The message.

    Returns:
        The sentence; the name of a file at its beginning stays as it is.
    """
    text = printable(text.strip())
    if "." not in text.partition(" ")[0]:
        text = text[:1].upper() + text[1:]
    return text if not text or text.endswith((".", "!", "?")) else f"{text}."


def plain(message: str) -> str:
    """Leave out of a message what only a user of the terminal understands.

    Args:
        message: The message of a command, one sentence.

    Returns:
        The sentence of those clauses that name no option, no setting and no path; empty if there
        is none.
    """
    text = _PATH.sub(lambda found: Path(found[0]).name or found[0], printable(message))
    clauses = text.split("; ")
    kept = []
    for clause in clauses:
        if _is_jargon(clause):
            break
        kept.append(clause)
    return sentence("; ".join(kept))


def _is_jargon(clause: str) -> bool:
    settings = (found[0] for found in _SETTING.finditer(clause))
    return bool(
        _OPTION.search(clause)
        or _WORDS.search(clause)
        or any(not _FILE_NAME.search(each) for each in settings)
    )


def notes(messages: Iterable[str]) -> list[str]:
    """Return the notices of a command that mean something to people.

    Args:
        messages: The notices.

    Returns:
        Sentences, each once; notices about options, settings and libraries are only in the log.
    """
    found = []
    for message in messages:
        words = plain(message)
        if words:
            found.append(words)
        else:
            _log.info("not shown on the page: %s", message)
    return list(dict.fromkeys(found))


def error(message: str) -> str:
    """Say in people's words why something failed.

    Args:
        message: The message of the command, one sentence; empty if there is none.

    Returns:
        A sentence.
    """
    if not message or message == DEFECT:
        return DEFECT
    for pattern, words in _ERRORS:
        if (found := re.search(pattern, message)) is not None:
            groups = {name: text or "" for name, text in found.groupdict().items()}
            if "weights" in groups:
                groups["weights"] = weight_title(groups["weights"])[0]
            return words.format(**groups)
    words = plain(message)
    if words:
        return words
    _log.warning("the page shows no reason for: %s", message)
    return "This did not work; the terminal that runs vidrestore shows why."


def progress(job: Job) -> str:
    """Say what a job is doing.

    Args:
        job: The job.

    Returns:
        A phrase such as "Restoring faces: 40 %"; empty for a job that is over.
    """
    now = job.progress
    if job.state != "running" or now is None:
        return _STATES.get(job.state, "")
    name = now.stage.removeprefix("fetch ")
    stage = _STAGES.get(now.stage) or f"Downloading {weight_title(name)[0]}"
    if now.unit == "frames" and now.stage not in _STAGES:
        stage = "Working"
    share = now.share
    if share is not None:
        return f"{stage}: {100 * share:.0f} %"
    return stage if now.unit == "frames" else f"{stage}: {now.done / 1e6:.0f} MB"


def found(analysis: Mapping[str, Any]) -> str:
    """Say who was found in a video.

    Args:
        analysis: The analysis from the JSON output of `vidrestore analyze`.

    Returns:
        One or two sentences.
    """
    people, shots = len(analysis["people"]), len(analysis["shots"])
    if not people:
        return "No face was found, so there is nothing to restore."
    text = counted(people, "person was", "people were") + " found"
    text += "." if shots == 1 else f" in {shots:,} shots."
    if shots > 1 and not analysis["people_are_joined"]:
        text += " The same person may appear several times, once for each shot."
    return text


def done(summary: Mapping[str, Any]) -> str:
    """Say what a finished restoration did.

    Args:
        summary: The summary from the JSON output of `vidrestore restore`.

    Returns:
        One or two sentences.
    """
    if not summary:
        return "Done."
    left = sum(summary.get("skipped", {}).values())
    kept = f" {counted(left, 'face was', 'faces were')} left as before." if left else ""
    faces, frames = counted(summary["faces"], "face"), counted(summary["frames"], "frame")
    return f"Done: {faces} restored in {frames}.{kept}"


def settings(choices: Choices, offer: Offer, names: Mapping[int, str]) -> str:
    """Describe the choices of a restoration in a line.

    Args:
        choices: The choices.
        offer: All that the page offers.
        names: The names of people, by their numbers.

    Returns:
        Such as "Home video, gentle, strength 0.7, 2 people".
    """
    restorer = title_of(offer.restorers, choices.restorer)
    parts = [restorer]
    if choices.profile != NO_PROFILE:
        restorer = restorer[:1].lower() + restorer[1:]
        parts = [title_of(offer.profiles, choices.profile), restorer]
    parts.append(f"strength {choices.strength:.2g}")
    if choices.people is not None:
        known = [names[person] for person in choices.people if names.get(person)]
        is_short = len(known) == len(choices.people) <= 3
        parts.append(" and ".join(known) if is_short else _count(choices.people))
    if choices.least_eye_px:
        parts.append(f"eyes at least {choices.least_eye_px:.0f} pixels apart")
    if choices.start_seconds is not None or choices.end_seconds is not None:
        first = time_text(choices.start_seconds or 0, 0, short=True)
        end = choices.end_seconds
        last = "the end" if end is None else time_text(end, 0, short=True)
        parts.append(f"from {first} to {last}")
    if choices.key_frames:
        parts.append("faster with key frames")
    return printable(", ".join(parts))


def not_yet_known(weights: Sequence[str]) -> str:
    """Say that the time of a restoration is not known without weights.

    Args:
        weights: The names of the weights that are missing.

    Returns:
        A sentence.
    """
    titles = " and ".join(weight_title(name)[0] for name in weights)
    return f"The time is known once {titles} {'is' if len(weights) == 1 else 'are'} downloaded."


def _count(people: Sequence[int]) -> str:
    return counted(len(people), "person", "people")

"""What the page says: stages, notices and errors in people's words.

The commands speak to people who use a terminal: they name options, settings and whole paths. The
page has none of these, so such parts of a message stay in the log.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vidrestore.common.counting import counted
from vidrestore.common.errors import UsageError
from vidrestore.common.quoting import printable
from vidrestore.common.timecode import time_text
from vidrestore.web.choices import NO_PROFILE, Choices, Offer, title_of, weight_title
from vidrestore.web.queue import DEFECT as _COMMAND_DEFECT
from vidrestore.web.queue import Job

DEFECT = "vidrestore stopped because of an error of its own; the terminal that runs it shows more."
GONE = "This is no longer here; load the page again."
NOT_OFFERED = "The page does not offer this value; load the page again and choose another."
UNEXPLAINED = "This did not work; the terminal that runs vidrestore shows why."
NO_VIDEO_HERE = "The file is no longer there, or its disk is not connected."


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

# The first pattern that matches gives the sentence.
_ERRORS: Sequence[tuple[str, str]] = (
    (r"no space is left|[Nn]o space left|[Dd]isk quota",
     "The disk is full; make room, then press Continue."),
    (r"there is not enough memory|needs more memory|does not fit into the memory|out of memory",
     "There is not enough memory; close other programs, or choose a smaller network."),
    (r"ended the work \(",
     "Another program ended the work; the computer may be short of memory."),
    (r"cannot be read as video|has no video stream|cannot decode the video",
     "There is no video in this file, or it is damaged."),
    (r"cannot be read: .*(permission|not permitted)", "You may not read this file."),
    (r"does not exist", "A file is no longer there, or its disk is not connected."),
    (r"is empty; copy it again", "The file is empty; copy it again from where it came from."),
    (r"exists? already", "There is a file of this name already; choose another name."),
    (r"leaves no person to restore|no person's eyes are|there is no (person|people)",
     "No person is left to restore; choose more people or smaller faces."),
    (r"changed (meanwhile|during its analysis|in the meantime)|first pass|of its analysis; the",
     "The file changed while vidrestore read it; wait until it is copied whole, then try again."),
    (r"no frame of .* lies in the part|the part from .* is empty",
     "The part that you chose has no frame; choose another."),
    (r"has no picture at", "The video has no picture there; choose an earlier moment."),
    (r"downloads are switched off|is in none of",
     "Something that this needs is not here; download it under More, or choose another way."),
    (r"could not be fetched", "The download failed; check the connection, then try again."),
    (r"cannot be written|[Pp]ermission denied|[Rr]ead-only",
     "The folder of the result cannot be written to; choose another one."),
    (r"another run|held by", "Another vidrestore works on this file; wait until it is done."),
    (r"is the input itself", "The result would replace the video; choose another name."),
    (r"[Nn]o encoder accepts|(?<!JPEG) cannot hold|cannot be encoded|no coding tools",
     "The picture cannot be stored in this kind of file; choose .mkv, or another quality."),
    (r"Dolby Vision of profile",
     "The picture is stored as Dolby Vision, whose colors come out wrong; convert it to HDR10 "
     "first."),
    (r"color matrix", "The colors of this video are stored in a way that vidrestore cannot read."),
    (r"finished file|joined file",
     "The finished file had a fault and was not kept; check the disk, then press Continue."),
    (r"\ba GPEN\b|\.(pth|onnx|tflite|safetensors|zip)\b|InsightFace pack|pack .* (is|cannot)"
     r"|Git LFS|holds a network for|is another network",
     "A network that this needs is damaged or of another kind; replace its file, or choose another "
     "way under More."),
)  # fmt: skip

# The first pattern that matches gives the sentence; an empty one leaves the notice out.
_NOTICES: Sequence[tuple[str, str]] = (
    (r"without (it: .*|the )face mesh|began with the face mesh|expressions of restored faces",
     "The network that checks each face is not here, so faces were restored without this check."),
    (r"Haar cascades|landmarks were guessed",
     "Only the simple way to find faces is used, which misses turned faces; choose another under "
     "More."),
    (r"this job began with|since this job began",
     "A network has changed since the work began, so the work began anew."),
    (r"the detector failed in (.+ frames?)", r"In \1, faces could not be looked for."),
    (r"networks run on the processor",
     "The graphics card cannot be used, so the work takes longer."),
    (r"numbers the people in the order",
     "The loop may show other people than those you chose; the list of people was not at hand."),
    (r"memory did not suffice for larger batches", "Memory was short, so the work took longer."),
    (r"too quick on this machine for key frames|looks at several frames itself",
     "“Faster” would not save time here, so every picture was restored."),
    (r"pictures of fields cannot be made",
     "The video is interlaced in a way that cannot be separated, so its frames were restored as "
     "they are."),
    (r"samples were not compared",
     "The result has another size or other colors than the video, so the two were not compared."),
    (r"vidrestore converts the picture from|vidrestore encodes the picture in",
     "The new file stores the picture in another form than the video."),
    (r"marks interlaced pictures only in the container",
     "Some players may not notice that the result is interlaced."),
    (r"damaged files in", "Some of the finished work was damaged and is made again."),
    (r"was written to during its analysis",
     "The file changed while vidrestore read it; if the result looks wrong, restore it again."),
    (r"subtitles.*which only an? (\S+) file can keep",
     r"Subtitles were left out; only an \1 file can keep them."),
    (r"left out of a sample",
     "A part of a video gets picture and sound only, so subtitles were left out."),
    (r"stream \d+ \([^)]*\) has .* keep",
     "Some of what the file states about its picture was left out; the picture itself is whole."),
    (r"stream \d+ \(.*(left out|which .* can keep|cannot keep)",
     "Something besides picture and sound was left out; an .mkv file keeps the most."),
    (r"fields that do not belong together", "Parts of the video are not film."),
    (r"live picture|does not recognize people|are kept in|^kept in|Deflate|face parser"
     r"|takes one face at a time|channels as the last axis|the first that is a picture"
     r"|; vidrestore converts it", ""),
)  # fmt: skip

# What only a user of the terminal understands.
_ASIDE = re.compile(r" \(--[^()]*\)|, for example with [^;]*")
_OPTION = re.compile(r"(?<![\w-])--?[a-zA-Z][\w-]*")
_DOTTED = re.compile(r"\b[a-z_]+(\.[a-z_0-9]+)+\b")
_FILE_NAME = re.compile(r"\.(mp4|mov|mkv|m4v|avi|png|jpe?g|tiff?|webm|webp|mpe?g|vob|dv|ts|mxf)$")
_PATH = re.compile(r"(?<![\w/])(?:[A-Za-z]:[\\/]|/|~/|\\\\)[^\s;,:'\"()]*[^\s;,:'\".()]")
_WORDS = re.compile(
    r"\b(cache|cache_key|CLI|command|config|CUDA|denoising|doctor|embeddings?|encode[rd]? with|"
    r"exact network|failed first at|ffmpeg|initializers?|is in tape|job folder|JSON|landmarks?|"
    r"ONNX|onnxruntime|openvino|OpenVINO|pickle|encoder|parameters|"
    r"pip install|pixel format|profile file|recognizer|"
    r"remux|sha256|SIG[A-Z]+|state dict|status \d+|segments?|stderr|streams? \d+|tensors?|template|"
    r"the report is in|TMPDIR|TOML|torch|traceback|Traceback|Triton|earlier run|"
    r"vidrestore (weights|analyze|restore|preview|ui)|b?float\d+|[A-Z_]{3,}=[A-Z]+)\b"
)


def sentence(text: str) -> str:
    """Make a message a sentence with a capital letter and a full stop.

    Args:
        text: The message.

    Returns:
        The sentence; the name of the program or of a file at its beginning stays as it is.
    """
    text = printable(text.strip())
    first = text.partition(" ")[0]
    if "." not in first and first != "vidrestore":
        text = text[:1].upper() + text[1:]
    return text if not text or text.endswith((".", "!", "?")) else f"{text}."


def plain(message: str, paths: Iterable[Path] = ()) -> str:
    """Leave out of a message what only a user of the terminal understands.

    Args:
        message: The message of a command, one sentence.
        paths: Paths that the message may name; people see only the names of files. Default: none;
            then a path with a space in it is recognized up to the space.

    Returns:
        The sentence of the first clauses that name no option, no setting and nothing technical;
        empty if there is none.
    """
    for path in sorted({path for each in paths for path in (each, each.parent)}, key=_length):
        if path.name:  # also where the path of something in this folder begins with it
            known = re.escape(str(path)) + r"(?:[/\\][^\s;,:\"]*)?(?![\w-])"
            message = re.sub(known, _last_part, message)
    text = _PATH.sub(_last_part, printable(_ASIDE.sub("", message)))
    kept = []
    for clause in text.split("; "):
        if _is_technical(clause):
            break
        kept.append(clause)
    return sentence("; ".join(kept))


def _last_part(found: re.Match[str]) -> str:
    """Return the last part of a path of any system, in quotes."""
    return '"' + re.split(r"[/\\]", found[0])[-1] + '"'


def _length(path: Path) -> int:
    return -len(str(path))


def _is_technical(clause: str) -> bool:
    unquoted = re.sub(r'"[^"]*"', "", clause)
    settings = (found[0] for found in _DOTTED.finditer(unquoted))
    return bool(
        _OPTION.search(unquoted)
        or _WORDS.search(unquoted)
        or any(not _FILE_NAME.search(each) for each in settings)
    )


def notes(messages: Iterable[str], paths: Iterable[Path] = ()) -> list[str]:
    """Return the notices of a command that mean something to people.

    Args:
        messages: The notices.
        paths: Paths that they may name; see `plain`.

    Returns:
        Sentences, each once.
    """
    known = [*paths]
    return [*dict.fromkeys(filter(None, (_notice(message, known) for message in messages)))]


def _notice(message: str, paths: Iterable[Path]) -> str:
    """Say a notice in people's words; return an empty text where it means nothing to them."""
    for pattern, words in _NOTICES:
        if (found := re.search(pattern, message)) is not None:
            return found.expand(words)
    return plain(message, paths)


def error(message: str, paths: Iterable[Path] = ()) -> str:
    """Say in people's words why something failed.

    Args:
        message: The message of the command, one sentence; empty if there is none.
        paths: Paths that it may name; see `plain`.

    Returns:
        A sentence; UNEXPLAINED if only a user of the terminal would understand the reason.
    """
    if message == _COMMAND_DEFECT:
        return DEFECT
    if (weight := re.search(r"without the weights ([\w-]+)", message)) is not None:
        return not_yet_known([weight[1]])
    for pattern, words in _ERRORS:
        if re.search(pattern, message):
            return words
    return plain(message, paths) or UNEXPLAINED


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
        return f"{stage}: {int(100 * share)} %"
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
        first = _time(choices.start_seconds or 0)
        last = "the end" if choices.end_seconds is None else _time(choices.end_seconds)
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


def _time(seconds: float) -> str:
    """Return a time with tenths of a second, unless these are 0."""
    text = time_text(seconds, 1, short=True)
    return text.removesuffix(".0")


def _count(people: Sequence[int]) -> str:
    return counted(len(people), "person", "people")

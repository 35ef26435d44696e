"""Reading and writing of CMX 3600 edit decision lists, the cuts of editing programs.

Time codes follow SMPTE ST 12-1. At 30000/1001 and 60000/1001 frames per second with "drop frame",
the first two or four numbers of every minute are left out, except in every tenth minute.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vidrestore.common.errors import ConfigError
from vidrestore.common.files import output_file
from vidrestore.common.quoting import printable
from vidrestore.common.text_files import read_text

# [0-9], since \d means the digits of every script. Frames have three digits above 100 per second.
_CODE = r"([0-9]{2}):([0-9]{2}):([0-9]{2})([:;.,])([0-9]{2,3})"
_EVENT = re.compile(
    r"\s*[0-9]+\s+\S+\s+(?P<track>\S+)\s+(?:C|[DWK]\S*(?:\s+[0-9]+)?)\s+"
    rf"{_CODE}\s+{_CODE}\s+{_CODE}\s+{_CODE}(?![0-9])"
)
# Each of the four time codes has hours, minutes, seconds, a mark and frames.
_SOURCE_IN, _SOURCE_OUT = slice(0, 5), slice(5, 10)
_RECORD_IN, _RECORD_OUT = slice(10, 15), slice(15, 20)
_WITH_PICTURE = re.compile(r"V|V\d+|B|.*/V")


def read_cuts(
    path: Path,
    pts: npt.NDArray[np.int64],
    time_base: Fraction,
    frame_rate: Fraction,
    begin: int | None = None,
) -> tuple[int, ...]:
    """Read the frames at which the events of an edit decision list begin.

    Args:
        path: The list, in the format CMX 3600.
        pts: (frames,) presentation times of all frames, in units of `time_base`.
        time_base: The time base in seconds.
        frame_rate: The nominal frame rate of the video in frames per second.
        begin: The presentation time of the first frame of the video, where `pts` are those of a
            part of it. Default: they are those of the whole video.

    Returns:
        Frame indices, ascending and without duplicates. The earliest event is the first frame of
        the video; events outside the part are left out.

    Raises:
        ConfigError: The file cannot be read or has no event with a picture; or a line has a time
            code that is impossible at this frame rate, ends before it begins, or lies after the end
            of the video. The message names the line.
    """
    found = _starts(path, frame_rate)
    earliest = min(count for count, _ in found)
    seconds = [((count - earliest) / frame_rate, where) for count, where in found]
    if begin is not None:
        first, last = ((int(each) - begin) * time_base for each in (pts[0], pts[-1]))
        seconds = [each for each in seconds if first <= each[0] <= last]
    zero = int(pts[0]) if begin is None else begin
    return tuple(sorted({_frame(at, zero, pts, time_base, frame_rate, w) for at, w in seconds}))


def check_content(path: Path, frame_rate: Fraction) -> None:
    """Check an edit decision list, as far as that can be told without the frames.

    Args:
        path: The list, in the format CMX 3600.
        frame_rate: The nominal frame rate of the video in frames per second.

    Raises:
        ConfigError: As of `read_cuts`, but where the events lie in the video is not known here.
    """
    _starts(path, frame_rate)


def _starts(path: Path, frame_rate: Fraction) -> list[tuple[int, str]]:
    """Return (frames since 00:00:00:00, line as a text) of the events; raise ConfigError."""
    text = read_text(path, "the edit decision list", errors="replace")
    drops = bool(re.search(r"^[ \t]*FCM:\s*DROP", text, re.MULTILINE | re.IGNORECASE))
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        event = _EVENT.match(line)
        if event is not None and _WITH_PICTURE.fullmatch(event["track"]):
            codes = event.groups()[1:]
            code = codes[_RECORD_IN]
            where = f"{path}, line {number}"
            _check_order("source", codes[_SOURCE_IN], codes[_SOURCE_OUT], where)
            _check_order("record", code, codes[_RECORD_OUT], where)
            found.append((_count(code, frame_rate, where, drops=drops), where))
    if not found:
        raise ConfigError(f"{path} has no video event, or is not a CMX 3600 edit decision list")
    return found


def _check_order(what: str, begin: Sequence[str], end: Sequence[str], where: str) -> None:
    """Raise ConfigError where a part ends before it begins; a source may run over midnight."""
    first, last = ([int(part) for part in (*code[:3], code[4])] for code in (begin, end))
    over_midnight = what == "source" and (first[0], last[0]) == (23, 0)
    if last < first and not over_midnight:
        texts = (f"{':'.join(code[:3])}{code[3]}{code[4]}" for code in (end, begin))
        raise ConfigError(f"{where}: the {what} ends before it begins, {' before '.join(texts)}")


def write_cuts(
    path: Path,
    shots: Sequence[tuple[int, int]],
    pts: npt.NDArray[np.int64],
    time_base: Fraction,
    frame_rate: Fraction,
    title: str,
) -> None:
    """Write an edit decision list with one event for each shot; `read_cuts` reads the starts back.

    Args:
        path: The file to write.
        shots: The shots, half-open [start, end) in frames.
        pts: (frames,) presentation times of all frames, in units of `time_base`.
        time_base: The time base in seconds.
        frame_rate: The nominal frame rate in frames per second.
        title: The title of the list.

    Raises:
        OutputError: The file cannot be written.
    """
    lines = _lines(shots, pts, time_base, frame_rate, title)
    with output_file(path, "the edit decision list") as part:
        part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _lines(
    shots: Sequence[tuple[int, int]],
    pts: npt.NDArray[np.int64],
    time_base: Fraction,
    frame_rate: Fraction,
    title: str,
) -> Iterator[str]:
    yield f"TITLE: {printable(' '.join(title.split()))}"
    yield "FCM: NON-DROP FRAME"
    yield ""
    rate, counts = max(1, round(frame_rate)), nominal_counts(pts, time_base, frame_rate)
    for number, (start, end) in enumerate(shots, 1):
        span = " ".join(_code(counts[frame], rate) for frame in (start, end))
        yield f"{number:03d}  AX       V     C        {span} {span}"


def nominal_counts(
    pts: npt.NDArray[np.int64], time_base: Fraction, frame_rate: Fraction
) -> list[int]:
    """Count the frames of the nominal rate before each frame of a video.

    Args:
        pts: (frames,) presentation times of all frames, in units of `time_base`.
        time_base: The time base in seconds.
        frame_rate: The nominal frame rate in frames per second.

    Returns:
        The number before each frame, and last that before the end, where the last frame lasts as
        long as the one before it.
    """
    first, last = int(pts[0]), int(pts[-1])
    step = last - int(pts[-2]) if len(pts) > 1 else 1 / (time_base * frame_rate)
    counts = [round((int(p) - first) * time_base * frame_rate) for p in pts]
    end = round((last + step - first) * time_base * frame_rate)
    return [*counts, max(end, counts[-1])]


def _code(count: int, rate: int) -> str:
    """Format a number of frames as a time code without drop frame."""
    seconds, frames = divmod(count, rate)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}:{frames:02d}"


def later(code: str, frames: int, frame_rate: Fraction) -> str:
    """Add frames to a time code.

    Args:
        code: The time code; ";" or "," before the frames marks drop frame.
        frames: The number of frames to add.
        frame_rate: The nominal frame rate in frames per second.

    Returns:
        The sum, after midnight from 00:00:00:00 on; `code` itself if it is not a time code.
    """
    match = re.fullmatch(_CODE, code.strip())
    rate = max(1, round(frame_rate))
    if match is None or int(match[5]) >= rate or int(match[2]) > 59 or int(match[3]) > 59:
        return code
    count = _count(match.groups(), frame_rate, code, drops=False) + frames
    mark = match[4]
    if mark in ";," and _is_ntsc(frame_rate):
        # Drop frame leaves out two or four numbers in each minute except every tenth.
        left_out = rate // 15
        tens, rest = divmod(count, 600 * rate - 9 * left_out)
        count += 9 * left_out * tens
        count += left_out * max(0, (rest - left_out) // (60 * rate - left_out))
    whole = _code(count % (24 * 3600 * rate), rate)
    return whole[:-3] + mark + whole[-2:]


def _is_ntsc(frame_rate: Fraction) -> bool:
    """Tell whether drop frame exists at a frame rate."""
    return frame_rate.denominator != 1 and round(frame_rate) in (30, 60)


def _count(code: Sequence[str], frame_rate: Fraction, where: str, *, drops: bool) -> int:
    """Return the number of frames since 00:00:00:00; raise ConfigError for an impossible code."""
    hours, minutes, seconds, mark, frames = code
    rate = max(1, round(frame_rate))
    if int(frames) >= rate or int(minutes) > 59 or int(seconds) > 59:
        text = f"{hours}:{minutes}:{seconds}{mark}{frames}"
        raise ConfigError(f"{where}: there is no time code {text} at {rate} frames per second")
    whole_minutes = int(hours) * 60 + int(minutes)
    count = (whole_minutes * 60 + int(seconds)) * rate + int(frames)
    if (drops or mark in ";,") and _is_ntsc(frame_rate):
        count -= rate // 15 * (whole_minutes - whole_minutes // 10)
    return count


def _frame(
    seconds: Fraction,
    begin: int,
    pts: npt.NDArray[np.int64],
    time_base: Fraction,
    frame_rate: Fraction,
    where: str,
) -> int:
    """Return the frame nearest to a time since the first frame, whose time is `begin`."""
    ticks = begin + seconds / time_base
    nearest = int(np.abs(pts - float(ticks)).argmin())
    if ticks - int(pts[-1]) > 1 / frame_rate / time_base:
        raise ConfigError(f"{where}: the event begins after the end of the video")
    return nearest

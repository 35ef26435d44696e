"""What a person asks for, shot by shot: shots.toml, and cuts from edit decision lists."""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vidrestore.errors import ConfigError, OutputError, unknown_name
from vidrestore.frame import Analysis, TracksByFrame

_TIME = re.compile(r"(?:(\d{1,6}):)?(\d{1,2}):(\d{1,2}(?:\.\d{1,9})?)")
_KEYS = ("start", "end", "people", "strength", "restorer", "skip", "faces")
_TOP_KEYS = ("video", "fingerprint", "shot")
_MICROSECONDS = 1_000_000
_HEAD = """\
# The shots of {video}, for: vidrestore restore --shots FILE
# Times count from the first frame. Leave lines out, change them, or add to a [[shot]]:
#   people = [1, 3]            only these; none: []
#   strength = 0.5             of what would be used; over time: [["0:00:01", 0.2], ["0:00:03", 1]]
#   restorer = "gpen-512"      another one than for the rest
#   skip = true                leave the shot as it is
#   faces = [[["0:00:01", 10, 20, 90, 120]]]   by hand: time, left, top, right, bottom as shown

video = {quoted}
fingerprint = "{fingerprint}"
"""


@dataclass(frozen=True, slots=True)
class Shot:
    """One shot, half-open [start, end) in frames, and what is asked for in it."""

    start: int
    end: int
    people: tuple[int, ...] | None = None
    """None: all."""
    strength: tuple[tuple[int, float], ...] = ()
    """(frame, factor in [0, 1]) in order; between them linear in frames, outside constant."""
    restorer: str | None = None
    skip: bool = False
    faces: tuple[tuple[tuple[int, tuple[float, ...]], ...], ...] = ()
    """For each face pointed at by hand: (frame, x1 y1 x2 y2 in pixels of the upright picture)."""


@dataclass(frozen=True, slots=True)
class ShotList:
    shots: tuple[Shot, ...]
    video: str = ""
    fingerprint: str = ""


def of_analysis(analysis: Analysis, video: str) -> ShotList:
    """The shots that were found, with the people seen in each."""
    shots, by_frame = [], TracksByFrame(analysis.tracks)
    for start, end in analysis.shots:
        seen = {analysis.tracks[number].person_id for number in by_frame.within(start, end)}
        shots.append(Shot(start, end, tuple(sorted(seen))))
    return ShotList(tuple(shots), video, analysis.fingerprint)


def write(shots: ShotList, path: Path, pts: npt.NDArray[np.int64], time_base: Fraction) -> None:
    """Write `path` as TOML that `read` gives back equal. `pts` are those of all frames."""
    clock = _Clock(pts, time_base)
    quoted = _quoted(shots.video)
    head = _HEAD.format(video=shots.video, quoted=quoted, fingerprint=shots.fingerprint)
    text = "\n".join([head, *("\n".join(_lines(shot, clock)) + "\n" for shot in shots.shots)])
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OutputError(f"the shots {path} cannot be written: {reason}") from error


def read(path: Path, pts: npt.NDArray[np.int64], time_base: Fraction) -> ShotList:
    """The shots in a file that `write` or a person wrote.

    ConfigError, naming the line, for what is no shot, and where times overlap or run backwards.
    """
    try:
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except FileNotFoundError as error:
        raise ConfigError(f"the shots file {path} does not exist") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"the shots file {path} cannot be read: {error}") from error
    for key in table:
        if key not in _TOP_KEYS:
            raise ConfigError(unknown_name(f"entry in {path}:", key, _TOP_KEYS))
    lines = [n for n, line in enumerate(text.splitlines(), 1) if re.match(r"\s*\[\[shot\]\]", line)]
    entries = table.get("shot", [])
    if not isinstance(entries, list) or len(entries) != len(lines):
        raise ConfigError(f"the shots file {path} must list its shots under [[shot]] headings")
    clock, shots = _Clock(pts, time_base), list[Shot]()
    for entry, line in zip(entries, lines, strict=True):
        where = f"{path}, the shot in line {line}"
        shot = _shot(entry, clock, where)
        if shot.end <= shot.start:
            raise ConfigError(f"{where}: its end does not lie after its start")
        if shots and shot.start < shots[-1].end:
            before = lines[len(shots) - 1]
            raise ConfigError(f"{where}: it begins before the shot in line {before} ends")
        shots.append(shot)
    return ShotList(tuple(shots), str(table.get("video", "")), str(table.get("fingerprint", "")))


class _Clock:
    """Frames as times from the first one, and back."""

    def __init__(self, pts: npt.NDArray[np.int64], time_base: Fraction) -> None:
        self._ticks = [int(p) - int(pts[0]) for p in pts]
        self._time_base = time_base

    def text(self, frame: int) -> str:
        if frame < len(self._ticks):
            ticks = self._ticks[frame]
        else:
            last = self._ticks[-1]
            ticks = last + (last - self._ticks[-2] if len(self._ticks) > 1 else 1)
        total = round(ticks * self._time_base * _MICROSECONDS)
        seconds, micro = divmod(total, _MICROSECONDS)
        minutes, seconds = divmod(seconds, 60)
        tail = f".{micro:06d}".rstrip("0").rstrip(".")
        return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}{tail}"

    def frame(self, text: object, where: str) -> int:
        """The frame nearest to a time; one past the last where the time lies beyond it."""
        match = _TIME.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise ConfigError(f'{where}: a time is written "H:MM:SS.fff", not {text!r}')
        hours, minutes, seconds = match.groups()
        ticks = (int(hours or 0) * 3600 + int(minutes) * 60 + Fraction(seconds)) / self._time_base
        after = bisect_left(self._ticks, ticks)
        if after == len(self._ticks):
            step = self._ticks[-1] - self._ticks[-2] if after > 1 else 1
            return after if ticks - self._ticks[-1] > Fraction(step, 2) else after - 1
        if after and ticks - self._ticks[after - 1] < self._ticks[after] - ticks:
            return after - 1
        return after


def _lines(shot: Shot, clock: _Clock) -> Iterator[str]:
    yield "[[shot]]"
    yield f'start = "{clock.text(shot.start)}"'
    yield f'end = "{clock.text(shot.end)}"'
    if shot.people is not None:
        yield f"people = {list(shot.people)}"
    if len(shot.strength) == 1 and shot.strength[0][0] == shot.start:
        yield f"strength = {shot.strength[0][1]!r}"
    elif shot.strength:
        keys = ", ".join(f'["{clock.text(frame)}", {value!r}]' for frame, value in shot.strength)
        yield f"strength = [{keys}]"
    if shot.restorer is not None:
        yield f"restorer = {_quoted(shot.restorer)}"
    if shot.skip:
        yield "skip = true"
    if shot.faces:
        yield f"faces = [{', '.join(_face_text(face, clock) for face in shot.faces)}]"


def _face_text(face: Sequence[tuple[int, tuple[float, ...]]], clock: _Clock) -> str:
    keys = (f'["{clock.text(f)}", {", ".join(map(repr, box))}]' for f, box in face)
    return f"[{', '.join(keys)}]"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in escaped) + '"'


def _shot(entry: Mapping[str, Any], clock: _Clock, where: str) -> Shot:
    for key in entry:
        if key not in _KEYS:
            raise ConfigError(f"{where}: {unknown_name('entry', key, _KEYS)}")
    for key in ("start", "end"):
        if key not in entry:
            raise ConfigError(f"{where}: it has no {key}")
    start, end = clock.frame(entry["start"], where), clock.frame(entry["end"], where)
    people, restorer = entry.get("people"), entry.get("restorer")
    if people is not None and not _is_list_of(people, int):
        raise ConfigError(f"{where}: people must be numbers such as [1, 3], not {people!r}")
    if not isinstance(restorer, str | None):
        raise ConfigError(f"{where}: restorer must be a name in quotes, not {restorer!r}")
    if not isinstance(entry.get("skip", False), bool):
        raise ConfigError(f"{where}: skip must be true or false, not {entry['skip']!r}")
    return Shot(
        start,
        end,
        None if people is None else tuple(people),
        _strength(entry.get("strength"), start, clock, where),
        restorer,
        entry.get("skip", False),
        _faces(entry.get("faces", []), clock, where),
    )


def _is_list_of(value: object, kind: type | tuple[type, ...]) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, kind) and not isinstance(item, bool) for item in value
    )


def _strength(value: Any, start: int, clock: _Clock, where: str) -> tuple[tuple[int, float], ...]:
    if value is None:
        return ()
    keys = value if isinstance(value, list) else [[None, value]]
    found = []
    for key in keys:
        if not (isinstance(key, list) and len(key) == 2 and _is_list_of(key[1:], (int, float))):
            raise ConfigError(f'{where}: strength must be a number or [["0:00:01", 0.5], ...]')
        if not 0 <= key[1] <= 1:
            raise ConfigError(f"{where}: strength must be within 0 and 1, not {key[1]}")
        found.append((start if key[0] is None else clock.frame(key[0], where), float(key[1])))
    if [frame for frame, _ in found] != sorted({frame for frame, _ in found}):
        raise ConfigError(f"{where}: the times of strength must run forward")
    return tuple(found)


def _faces(
    value: Any, clock: _Clock, where: str
) -> tuple[tuple[tuple[int, tuple[float, ...]], ...], ...]:
    faces = []
    for face in value if isinstance(value, list) else [None]:
        keys = face if isinstance(face, list) and face else [None]
        boxes = []
        for key in keys:
            if not (isinstance(key, list) and len(key) == 5 and _is_list_of(key[1:], (int, float))):
                raise ConfigError(
                    f'{where}: a face by hand is [["0:00:01", left, top, right, bottom], ...]'
                )
            box = tuple(float(edge) for edge in key[1:])
            if box[2] <= box[0] or box[3] <= box[1]:
                raise ConfigError(f"{where}: the box {list(box)} is empty")
            boxes.append((clock.frame(key[0], where), box))
        if [frame for frame, _ in boxes] != sorted({frame for frame, _ in boxes}):
            raise ConfigError(f"{where}: the times of a face by hand must run forward")
        faces.append(tuple(boxes))
    return tuple(faces)

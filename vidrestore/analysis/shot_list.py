"""The list of shots that a user edits (shots.toml): what to restore in each shot, and how."""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tomlkit
from tomlkit.items import Table

from vidrestore.analysis import otio
from vidrestore.analysis.result import Analysis
from vidrestore.common.errors import ConfigError, OutputError, UsageError, unknown_name
from vidrestore.common.files import output_file
from vidrestore.common.quoting import printable, quoted, shortened
from vidrestore.common.text_files import read_toml
from vidrestore.common.timecode import seconds_of, time_text
from vidrestore.common.toml import is_utf8, toml_item

_HEADING = re.compile(r"""[ \t]*\[\[[ \t]*(?:shot|"shot"|'shot')[ \t]*\]\]""")
_KEYS = ("start", "end", "people", "strength", "restorer", "skip", "faces")
_TOP_KEYS = ("video", "video_bytes", "fingerprint", "people", "shot")
_MOST_PEOPLE = 999_999
_FARTHEST_PX = 65536
_HEAD = """\
The shots of {video}, for: vidrestore restore --shots FILE
Times count from the first frame. Leave lines out, change them, or add to a [[shot]]:
  people = [1, 3]            only these; none: []
  strength = 0.5             of what would be used; over time: [["0:00:01", 0.2], ["0:00:03", 1]]
  restorer = "gpen-512"      another one than for the rest
  skip = true                leave the shot as it is
  faces = [[["0:00:01", 10, 20, 90, 120]]]   by hand: time, left, top, right, bottom as shown
Under a heading [people.1], restorer = "anna.safetensors" is for person 1 in all shots.
"""


@dataclass(frozen=True, slots=True)
class Shot:
    """One shot, and what the user asks for in it."""

    start: int
    """The first frame of the shot."""
    end: int
    """The frame after the last frame of the shot."""
    people: tuple[int, ...] | None = None
    """The numbers of the people to restore; None: all."""
    strength: tuple[tuple[int, float], ...] = ()
    """(frame, factor in [0, 1]) in order; linear between these frames and constant outside them.

    Empty: the factor is 1.
    """
    restorer: str | None = None
    """The name of the restorer; None: the restorer of the settings."""
    skip: bool = False
    """Whether to leave the shot unchanged."""
    faces: tuple[tuple[tuple[int, tuple[float, ...]], ...], ...] = ()
    """For each face marked by hand: (frame, (x1, y1, x2, y2) in pixels of the upright picture)."""


@dataclass(frozen=True, slots=True)
class ShotList:
    """The shots of a video."""

    shots: tuple[Shot, ...]
    """The shots, ordered and without overlap."""
    video: str = ""
    """The file name of the video; may be empty."""
    fingerprint: str = ""
    """The fingerprint of the video; empty: the list may be used for any video."""
    restorers: Mapping[int, str] = field(default_factory=dict)
    """Number of a person -> the name of the restorer for that person in all shots."""


def of_analysis(analysis: Analysis, video: str) -> ShotList:
    """List the detected shots, with the people seen in each.

    Args:
        analysis: The analysis.
        video: The file name of the video.

    Returns:
        The list of shots.
    """
    shots, by_frame = [], analysis.by_frame
    for start, end in analysis.shots:
        seen = {analysis.tracks[number].person_id for number in by_frame.within(start, end)}
        shots.append(Shot(start, end, tuple(sorted(seen))))
    return ShotList(tuple(shots), video, analysis.fingerprint)


def check_shots_path(path: Path) -> None:
    """Refuse a file name under which `selection.write_shots` cannot write.

    Args:
        path: The file to write.

    Raises:
        UsageError: The name ends neither in .toml nor in .edl nor in .otio.
        ConfigError: A timeline needs OpenTimelineIO, which is not installed.
    """
    if path.suffix.lower() == ".otio":
        otio.library()
    if path.suffix.lower() not in (".toml", ".edl", ".otio"):
        raise UsageError(f"the list of shots must be a .toml, .edl or .otio file, not {path.name}")


def write(shots: ShotList, path: Path, pts: npt.NDArray[np.int64], time_base: Fraction) -> None:
    """Write a list of shots as TOML, from which `read` returns an equal list.

    Args:
        shots: The list of shots.
        path: The file to write.
        pts: (frames,) presentation times of all frames, in units of `time_base`.
        time_base: The time base in seconds.

    Raises:
        OutputError: The file cannot be written, or the name of a restorer is not UTF-8.
    """
    clock = _Clock(pts, time_base)
    document = tomlkit.document()
    for line in _HEAD.format(video=printable(shots.video)).splitlines():
        document.add(tomlkit.comment(line))
    document.add(tomlkit.nl())
    # TOML cannot hold bytes that are not UTF-8.
    is_text = is_utf8(shots.video)
    document.add("video", toml_item(shots.video if is_text else printable(shots.video)))
    if not is_text:
        document.add("video_bytes", toml_item(os.fsencode(shots.video).hex()))
    document.add("fingerprint", toml_item(shots.fingerprint))
    people = tomlkit.table(is_super_table=True)
    for number, name in shots.restorers.items():
        people.add(str(number), _filled({"restorer": _in_utf8(name)}))
    if shots.restorers:
        document.add(tomlkit.nl())
        document.add("people", people)
    headings = tomlkit.aot()
    for shot in shots.shots:
        headings.append(_table(shot, clock))
    document.add(tomlkit.nl())
    document.add("shot", headings)
    text = tomlkit.dumps(document).rstrip("\n") + "\n"
    with output_file(path, "the shots") as part:
        part.write_text(text, encoding="utf-8")


def read(path: Path, pts: npt.NDArray[np.int64], time_base: Fraction) -> ShotList:
    """Read a list of shots that `write` or a user wrote.

    Args:
        path: The TOML file.
        pts: (frames,) presentation times of all frames, in units of `time_base`.
        time_base: The time base in seconds.

    Returns:
        The list of shots. Each time is rounded to the nearest frame.

    Raises:
        ConfigError: The file cannot be read, has an unknown or a wrong entry, or has shots that
            overlap or are out of order. The message names the line of the shot.
    """
    table, text = read_toml(path, "the shots file")
    for key in table:
        if key not in _TOP_KEYS:
            raise ConfigError(unknown_name(f"entry in {path}:", key, _TOP_KEYS))
    # Only a line feed ends a line of TOML.
    lines = [n for n, line in enumerate(text.split("\n"), 1) if _HEADING.match(line)]
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
    return ShotList(
        tuple(shots), _video(table, path), _text(table, "fingerprint", path),
        _restorers_of_people(table.get("people", {}), path),
    )  # fmt: skip


def _restorers_of_people(people: object, path: Path) -> dict[int, str]:
    """Convert the tables [people.1], [people.2] and so on."""
    if not isinstance(people, dict):
        raise ConfigError(f"the shots file {path} must name people by headings such as [people.1]")
    restorers = {}
    for number, entry in people.items():
        where = f"{path}, [people.{shortened(number, 40)}]"
        if not re.fullmatch(r"[1-9][0-9]{0,5}", number):
            raise ConfigError(f"{where}: a person must be a number from 1 to {_MOST_PEOPLE}")
        if not isinstance(entry, dict):
            raise ConfigError(f"{where}: it must be a heading with entries below it")
        for key in entry:
            if key != "restorer":
                raise ConfigError(f"{where}: {unknown_name('entry', key, ('restorer',))}")
        name = _restorer(entry, where)
        if name is None:
            raise ConfigError(f"{where}: it has no restorer")
        restorers[int(number)] = name
    return restorers


def _restorer(entry: Mapping[str, Any], where: str) -> str | None:
    """Return the entry `restorer`; None where it is missing."""
    restorer = entry.get("restorer")
    if not isinstance(restorer, str | None) or "\0" in (restorer or ""):
        raise ConfigError(f"{where}: restorer must be a name in quotes, not {quoted(restorer)}")
    return restorer


def _video(table: Mapping[str, Any], path: Path) -> str:
    """Return the file name; `video_bytes` holds its bytes in hexadecimal if they are not UTF-8."""
    name, coded = _text(table, "video", path), _text(table, "video_bytes", path)
    if "\0" in name:
        raise ConfigError(f"{path}: video must be the name of a file, not {quoted(name)}")
    try:
        content = bytes.fromhex(coded)
        if b"\0" in content:
            raise ConfigError(
                f"{path}: video_bytes must be the bytes of the name of a file, not {quoted(coded)}"
            )
        return os.fsdecode(content) if coded else name
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(
            f"{path}: video_bytes must be hexadecimal digits, not {quoted(coded)}"
        ) from error


def _text(table: Mapping[str, Any], key: str, path: Path) -> str:
    """Return an entry that must be text; empty where it is missing."""
    value = table.get(key, "")
    if not isinstance(value, str):
        raise ConfigError(f"{path}: {key} must be a text in quotes, not {quoted(value)}")
    return value


class _Clock:
    """Converts frames to times since the first frame, and back."""

    def __init__(self, pts: npt.NDArray[np.int64], time_base: Fraction) -> None:
        self._ticks = [int(p) - int(pts[0]) for p in pts]
        self._time_base = time_base

    def text(self, frame: int) -> str:
        """Format the time of a frame."""
        if frame < len(self._ticks):
            ticks = self._ticks[frame]
        else:
            last = self._ticks[-1]
            ticks = last + (last - self._ticks[-2] if len(self._ticks) > 1 else 1)
        return time_text(ticks * self._time_base, 6).rstrip("0").rstrip(".")

    def frame(self, text: object, where: str) -> int:
        """Return the frame nearest to a time; one past the last frame for a time after the end."""
        if not isinstance(text, str):
            raise ConfigError(
                f'{where}: a time must be written in quotes, such as "0:01:15.5", '
                f"not {quoted(text)}"
            )
        try:
            ticks = seconds_of(text) / self._time_base
        except UsageError as error:
            raise ConfigError(f"{where}: {error}") from error
        after = bisect_left(self._ticks, ticks)
        if after == len(self._ticks):
            step = self._ticks[-1] - self._ticks[-2] if after > 1 else 1
            return after if ticks - self._ticks[-1] > Fraction(step, 2) else after - 1
        if after and ticks - self._ticks[after - 1] < self._ticks[after] - ticks:
            return after - 1
        return after


def _table(shot: Shot, clock: _Clock) -> Table:
    """Convert a shot to the table under one [[shot]]."""
    values: dict[str, Any] = {"start": clock.text(shot.start), "end": clock.text(shot.end)}
    if shot.people is not None:
        values["people"] = shot.people
    if len(shot.strength) == 1 and shot.strength[0][0] == shot.start:
        values["strength"] = shot.strength[0][1]
    elif shot.strength:
        values["strength"] = [(clock.text(frame), share) for frame, share in shot.strength]
    if shot.restorer is not None:
        values["restorer"] = _in_utf8(shot.restorer)
    if shot.skip:
        values["skip"] = True
    if shot.faces:
        values["faces"] = [
            [(clock.text(frame), *box) for frame, box in face] for face in shot.faces
        ]
    return _filled(values)


def _filled(values: Mapping[str, Any]) -> Table:
    table = tomlkit.table()
    for key, value in values.items():
        table.add(key, toml_item(value))
    return table


def _in_utf8(restorer: str) -> str:
    """Return the name of a restorer; raise OutputError where TOML cannot hold it."""
    if not is_utf8(restorer):
        raise OutputError(
            f"a list of shots cannot hold the restorer {quoted(restorer)}, whose bytes are not "
            "UTF-8; rename the file"
        )
    return restorer


def _shot(entry: Mapping[str, Any], clock: _Clock, where: str) -> Shot:
    """Convert the table under one [[shot]]; `where` begins the messages of errors."""
    for key in entry:
        if key not in _KEYS:
            raise ConfigError(f"{where}: {unknown_name('entry', key, _KEYS)}")
    for key in ("start", "end"):
        if key not in entry:
            raise ConfigError(f"{where}: it has no {key}")
    start, end = clock.frame(entry["start"], where), clock.frame(entry["end"], where)
    people, restorer = entry.get("people"), _restorer(entry, where)
    if people is not None and not (
        _is_list_of(people, int) and all(0 <= number <= _MOST_PEOPLE for number in people)
    ):
        raise ConfigError(f"{where}: people must be numbers such as [1, 3], not {quoted(people)}")
    if not isinstance(entry.get("skip", False), bool):
        raise ConfigError(f"{where}: skip must be true or false, not {quoted(entry['skip'])}")
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
    """Convert the entry `strength`: a number, or pairs of a time and a number."""
    if value is None:
        return ()
    keys = value if isinstance(value, list) else [[None, value]]
    if not keys:
        raise ConfigError(
            f"{where}: strength is empty; give a number, such as 0.5, or leave it out"
        )
    factors = []
    for key in keys:
        if not (isinstance(key, list) and len(key) == 2 and _is_list_of(key[1:], (int, float))):
            raise ConfigError(f'{where}: strength must be a number or [["0:00:01", 0.5], ...]')
        if not 0 <= key[1] <= 1:
            raise ConfigError(f"{where}: strength must be within 0 and 1, not {quoted(key[1])}")
        factors.append((start if key[0] is None else clock.frame(key[0], where), float(key[1])))
    if [frame for frame, _ in factors] != sorted({frame for frame, _ in factors}):
        raise ConfigError(f"{where}: the times of strength must run forward")
    return tuple(factors)


def _faces(
    value: Any, clock: _Clock, where: str
) -> tuple[tuple[tuple[int, tuple[float, ...]], ...], ...]:
    """Convert the entry `faces`: for each face, lists of a time and the edges of a box."""
    faces = []
    for face in value if isinstance(value, list) else [None]:
        keys = face if isinstance(face, list) and face else [None]
        boxes = []
        for key in keys:
            if not (isinstance(key, list) and len(key) == 5 and _is_list_of(key[1:], (int, float))):
                raise ConfigError(
                    f"{where}: a face marked by hand must be "
                    '[["0:00:01", left, top, right, bottom], ...]'
                )
            if not all(abs(edge) <= _FARTHEST_PX for edge in key[1:]):  # also refuses NaN
                raise ConfigError(
                    f"{where}: the edges of a face marked by hand must be pixels from "
                    f"{-_FARTHEST_PX} to {_FARTHEST_PX}, not {quoted(key[1:])}"
                )
            box = tuple(float(edge) for edge in key[1:])
            if box[2] <= box[0] or box[3] <= box[1]:
                raise ConfigError(f"{where}: the box {list(box)} is empty")
            boxes.append((clock.frame(key[0], where), box))
        if [frame for frame, _ in boxes] != sorted({frame for frame, _ in boxes}):
            raise ConfigError(f"{where}: the times of a face marked by hand must run forward")
        faces.append(tuple(boxes))
    return tuple(faces)

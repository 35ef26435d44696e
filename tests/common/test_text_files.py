"""What people and other programs write beside a video: any damage is one sentence, or a value."""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

from vidrestore.analysis import edl, shot_list
from vidrestore.analysis.shot_list import Shot, ShotList
from vidrestore.common.errors import ConfigError, OutputError, VidrestoreError
from vidrestore.common.profiles import as_toml, load_profile, load_settings
from vidrestore.common.quoting import printable
from vidrestore.common.settings import Settings
from vidrestore.imaging.curves import read_cube

PTS, TIME_BASE, RATE = np.arange(90) * 3600, Fraction(1, 90000), Fraction(25)
SHOTS = """video = "tape.mp4"
fingerprint = "abc"

[[shot]]
start = "0:00:00"
end = "0:00:01"
people = [1, 2]
strength = [["0:00:00", 0.25], ["0:00:00.5", 1]]
restorer = "gpen-512"

[[shot]]
start = "0:00:01"
end = "0:00:03"
skip = false
strength = 0.5
faces = [[["0:00:01", 10, 20, 90.5, 120], ["0:00:02", 10, 20, 90.5, 120]]]
"""
PROFILE = as_toml(Settings())
LIST = """TITLE: REEL 1
FCM: NON-DROP FRAME

001  AX       V     C        00:00:00:00 00:00:01:00 01:00:00:00 01:00:01:00
002  BX       V     D    024 00:00:10:00 00:00:12:00 01:00:01:00 01:00:02:00
"""
CUBE = """TITLE "lift"
LUT_1D_SIZE 4
DOMAIN_MIN 0 0 0
DOMAIN_MAX 1.0 1.0 1.0
0.0 0.01 0.0
0.5 0.40 0.3
0.8 0.70 0.6
1.0 0.99 0.9
"""


def shots_in(path: Path) -> ShotList:
    return shot_list.read(path, PTS, TIME_BASE)


def cuts_in(path: Path) -> tuple[int, ...]:
    return edl.read_cuts(path, PTS, TIME_BASE, RATE)


READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "shots.toml": (SHOTS, shots_in),
    "profile.toml": (PROFILE, load_profile),
    "cuts.edl": (LIST, cuts_in),
    "curve.cube": (CUBE, read_cube),
}
PIECES = [
    b"nan", b"-inf", b"+inf", b"1e400", b"-1e400", b"9" * 4301, b"0x" + b"f" * 5000, b"-1", b"0",
    b"1e30", b"[" * 3000, b"]" * 3000, b"{a=" * 2000, b"a." * 3000, b"\x00", b"\xff", b"\r",
    b"\xef\xbb\xbf", b"\n", b"\x1b[31m", b'"', b"'''", b"\\u0000", b"\\ud800", b"\xd9\xa3",
    b"\xe2\x80\xa8", b"0:99:99", b"#", b"=", b"[[shot]]\n", b"LUT_3D_SIZE 2\n", b"{}", b" ",
    b'[weights]\nfolder="\\u0000"\n', b"99:99:99:99", b"true", b"1979-05-27T07:32:00Z",
    b"1" * 400, b".", b"[]",
]  # fmt: skip


def damaged(good: bytes, how: random.Random) -> bytes:
    """One to three changes: a flipped bit, something cut out or doubled, or a nasty piece."""
    data = bytearray(good)
    for _ in range(how.randint(1, 3)):
        at = how.randrange(len(data) + 1)
        end = min(len(data), at + how.choice((1, 1, 4, 40)))
        kind = how.randrange(5)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << how.randrange(8)
        elif kind == 1:
            del data[at:end]
        elif kind == 2:
            data[at:at] = data[at:end]
        elif kind == 3:
            data[at:end] = how.choice(PIECES)
        else:  # in the place of a value
            places = [i for i, byte in enumerate(data) if byte in b" =[,"] or [0]
            start = how.choice(places) + 1
            stop = start
            while stop < len(data) and data[stop] not in b" ,]\n":
                stop += 1
            data[start:stop] = how.choice(PIECES)
    return bytes(data)


def numbers(value: object) -> Iterator[float]:
    """Every number in a value, however deep."""
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, tuple | list):
        for each in value:
            yield from numbers(each)
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from numbers(getattr(value, name))
    elif is_dataclass(value):
        for field in fields(value):
            yield from numbers(getattr(value, field.name))


def check_sentence(error: VidrestoreError) -> None:
    assert len(str(error)) < 700
    assert "\n" not in str(error)
    assert "Traceback" not in str(error)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("seed", range(5))
def test_damage_ends_in_a_value_or_in_one_sentence(tmp_path: Path, name: str, seed: int) -> None:
    good, read = READERS[name]
    path, how = tmp_path / name, random.Random(f"{name} {seed}")
    path.write_text(good, encoding="utf-8")
    read(path)
    ends = {"value": 0, "sentence": 0}
    for _ in range(120):
        path.write_bytes(damaged(good.encode(), how))
        try:
            value = read(path)
        except VidrestoreError as error:
            check_sentence(error)
            ends["sentence"] += 1
        else:
            assert all(map(math.isfinite, numbers(value)))
            assert all(abs(number) < 1 << 53 for number in numbers(value))
            ends["value"] += 1
    assert min(ends.values()) > 0, f"proves little: {ends}"


@pytest.mark.parametrize("name", READERS)
def test_a_byte_order_mark_is_no_content(tmp_path: Path, name: str) -> None:
    good, read = READERS[name]
    path = tmp_path / name
    path.write_text(good, encoding="utf-8")
    expected = read(path)
    path.write_text(good, encoding="utf-8-sig")
    assert read(path) == expected


@pytest.mark.parametrize("order", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", READERS)
def test_text_may_be_in_utf_16_as_windows_programs_write_it(
    tmp_path: Path, name: str, order: str
) -> None:
    good, read = READERS[name]
    path = tmp_path / name
    path.write_text(good, encoding="utf-8")
    expected = read(path)
    text = good.replace("\n", "\r\n")
    path.write_bytes(f"\ufeff{text}".encode(order))
    assert read(path) == expected
    path.write_bytes(f"\ufeff{text}".encode(order)[:-1] + b"\xd8\x00\xd8")
    try:
        read(path)
    except VidrestoreError as error:
        check_sentence(error)


@pytest.mark.parametrize("name", READERS)
def test_what_cannot_be_a_text_file_is_one_sentence(tmp_path: Path, name: str) -> None:
    _, read = READERS[name]
    folder, large = tmp_path / name, tmp_path / "sub" / name
    folder.mkdir()
    large.parent.mkdir()
    large.write_bytes(b"# \n" * (6 << 20))
    for path, part in (
        (folder, "folder|directory|does not exist"),
        (large, "larger than 16 MiB"),
        (large.parent / "no.toml", "exist"),
    ):
        with pytest.raises(ConfigError, match=part) as raised:
            read(path)
        check_sentence(raised.value)


HOSTILE = {
    "nan": "nan", "infinity": "inf", "beyond doubles": "1e400", "many digits": "9" * 5000,
    "many hexadecimal digits": "0x" + "f" * 9000, "beyond 64 bits": str(1 << 64),
    "deep lists": "[" * 5000 + "]" * 5000, "deep tables": "{a=" * 5000 + "1" + "}" * 5000,
    "rather deep lists": "[" * 60 + "]" * 60, "long text": '"' + "x" * 100_000 + '"',
}  # fmt: skip


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("key", ["people", "strength", "restorer", "skip", "faces", "other"])
def test_no_value_of_a_shot_is_repeated_at_length(tmp_path: Path, key: str, value: str) -> None:
    path = tmp_path / "shots.toml"
    path.write_text(f'[[shot]]\nstart = "0:00:00"\nend = "0:00:01"\n{key} = {value}\n')
    if key == "restorer" and value.startswith('"'):
        return  # a name, which is looked for later
    with pytest.raises(ConfigError) as raised:
        shots_in(path)
    check_sentence(raised.value)


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize(
    "key",
    ["paste.strength", "encode.threads", "encode.codec", "scale.factor", "encode.quality",
     "shots.edl", "weights.also", "paste", "no.key"],
)  # fmt: skip
def test_no_setting_is_repeated_at_length(tmp_path: Path, key: str, value: str) -> None:
    path = tmp_path / "profile.toml"
    path.write_text(f"{key} = {value}\n")
    if key == "shots.edl" and value.startswith('"'):
        return
    with pytest.raises(ConfigError) as raised:
        load_profile(path)
    check_sentence(raised.value)
    if "." in key:
        with pytest.raises(ConfigError) as raised:
            load_settings(None, [f"{key}={value}"])
        check_sentence(raised.value)


def test_every_number_among_the_settings_has_a_range() -> None:
    """So that no profile can ask for what no machine can do."""

    def free(model: type[BaseModel], where: str) -> Iterator[str]:
        for name, field in model.model_fields.items():
            kind = field.annotation
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from free(kind, f"{where}{name}.")
            elif kind in (int, float, int | None, float | None):
                names = {type(each).__name__ for each in field.metadata}
                if not (names & {"Ge", "Gt"} and names & {"Le", "Lt"}):
                    yield f"{where}{name}"

    assert list(free(Settings, "")) == []


@pytest.mark.parametrize("key", ["shots.edl", "paste.parser", "weights.folder", "restore.restorer",
                                 "detect.pack", "decode.input_curve"])  # fmt: skip
def test_no_name_of_a_file_holds_nul(tmp_path: Path, key: str) -> None:
    path = tmp_path / "profile.toml"
    path.write_text(f'{key} = "a\\u0000.cube"\n')
    with pytest.raises(ConfigError, match=f"(?i){key} cannot be .*NUL"):
        load_profile(path)


@pytest.mark.parametrize(
    ("value", "part"),
    [("inf", "numbers from"), ("-inf", "numbers from"), ("1e400", "numbers from"),
     ("1e30", "numbers from"), ("+nan", "numbers from"), ("nan", "numbers from")],
)  # fmt: skip
def test_a_curve_has_only_values_that_a_picture_can_have(
    tmp_path: Path, value: str, part: str
) -> None:
    path = tmp_path / "curve.cube"
    path.write_text(CUBE.replace("1.0 0.99 0.9", f"{value} {value} {value}"))
    with pytest.raises(VidrestoreError, match=part):
        read_cube(path)


@pytest.mark.parametrize("size", ["1", "0", "-4", "65537", "9" * 4000, "9" * 5000, "٤", "4.0"])
def test_the_size_of_a_curve_is_that_of_its_rows(tmp_path: Path, size: str) -> None:
    path = tmp_path / "curve.cube"
    path.write_text(CUBE.replace("LUT_1D_SIZE 4", f"LUT_1D_SIZE {size}"))
    with pytest.raises(VidrestoreError) as raised:
        read_cube(path)
    check_sentence(raised.value)


NAMES = {
    "line break": "a\nb.mp4", "carriage return": "a\r[[shot]].mp4", "escape": "\x1b[31mred.mp4",
    "delete": "\x7f\x85\x9f.mp4", "beyond the first plane": "\U000e0001\U0001f3ac.mp4",
    "quotes": "'''\"\"\"\\.mp4", "no UTF-8": "caf\udce9\udcff.mp4", "both": "\udcff\n\u2028.mp4",
    "nul-like": "\\x00\\udcff", "none": "",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_any_name_of_a_video_comes_back_from_a_list_of_shots(tmp_path: Path, name: str) -> None:
    path = tmp_path / "shots.toml"
    asked = ShotList((Shot(0, 20, (1,)), Shot(20, 90)), name, "abc")
    shot_list.write(asked, path, PTS, TIME_BASE)
    assert shots_in(path) == asked
    text = path.read_text(encoding="utf-8")
    assert all(printable(line) == line for line in text.split("\n"))
    edl.write_cuts(tmp_path / "cuts.edl", ((0, 20), (20, 90)), PTS, TIME_BASE, RATE, name)
    assert cuts_in(tmp_path / "cuts.edl") == (0, 20)


def test_a_restorer_whose_name_no_list_can_hold(tmp_path: Path) -> None:
    asked = ShotList((Shot(0, 20, restorer="mine\udcff.onnx"),))
    with pytest.raises(OutputError, match=r"mine\\xff.onnx"):
        shot_list.write(asked, tmp_path / "shots.toml", PTS, TIME_BASE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["xyz", "f", "0g"])
def test_bytes_of_a_name_that_are_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "shots.toml"
    path.write_text(f'video_bytes = "{text}"\n')
    with pytest.raises(ConfigError, match="video_bytes must be hexadecimal"):
        shots_in(path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [('video_bytes = "00"', "video_bytes must be the bytes of the name of a file, not '00'"),
     ('video_bytes = "6100"', "video_bytes must be the bytes of the name of a file, not '6100'"),
     ('video = "a\\u0000"', "video must be the name of a file, not "),
     ('[[shot]]\nstart = "0"\nend = "1"\nstrength = []', "strength is empty; give a number")],
)  # fmt: skip
def test_values_of_a_list_of_shots_that_make_no_sense(
    tmp_path: Path, text: str, sentence: str
) -> None:
    path = tmp_path / "shots.toml"
    path.write_text(f"{text}\n")
    with pytest.raises(ConfigError) as raised:
        shots_in(path)
    assert sentence in str(raised.value)
    check_sentence(raised.value)


@pytest.mark.parametrize(
    ("was", "now", "sentence"),
    [("00:00:10:00 00:00:12:00", "00:00:10:00 00:00:09:24",
      "line 5: the source ends before it begins, 00:00:09:24 before 00:00:10:00"),
     ("01:00:01:00 01:00:02:00", "01:00:01:00 00:59:02:00",
      "line 5: the record ends before it begins, 00:59:02:00 before 01:00:01:00"),
     ("01:00:00:00 01:00:01:00", "23:00:00:00 00:00:01:00",
      "line 4: the record ends before it begins, 00:00:01:00 before 23:00:00:00")],
)  # fmt: skip
def test_an_event_that_ends_before_it_begins(
    tmp_path: Path, was: str, now: str, sentence: str
) -> None:
    path = tmp_path / "cuts.edl"
    assert was in LIST
    path.write_text(LIST.replace(was, now))
    with pytest.raises(ConfigError) as raised:
        cuts_in(path)
    assert str(raised.value) == f"{path}, {sentence}"


def test_an_event_without_length_and_a_source_over_midnight_are_events(tmp_path: Path) -> None:
    path, text = tmp_path / "cuts.edl", LIST
    text = text.replace("00:00:10:00 00:00:12:00", "23:59:59:00 00:00:01:00")
    path.write_text(text.replace("00:00:00:00 00:00:01:00", "00:00:00:00 00:00:00:00"))
    assert cuts_in(path) == (0, 25)


@pytest.mark.parametrize("heading", ["[[shot]]", "[[ shot ]]", '  [["shot"]]', "[['shot']] # one"])
def test_a_heading_may_be_written_as_toml_allows(tmp_path: Path, heading: str) -> None:
    path = tmp_path / "shots.toml"
    path.write_text(f'# a\x0bb\n{heading}\nstart = "0"\nend = "1"\n'.replace("\x0b", "\u2028"))
    assert shots_in(path).shots == (Shot(0, 25),)


@pytest.mark.parametrize("rate", [Fraction(1, 5), Fraction(120), Fraction(999)])
def test_cuts_at_rates_of_no_television_come_back(tmp_path: Path, rate: Fraction) -> None:
    path, pts, time_base = tmp_path / "cuts.edl", np.arange(300), 1 / rate
    edl.write_cuts(path, ((0, 119), (119, 300)), pts, time_base, rate, "x")
    assert edl.read_cuts(path, pts, time_base, rate) == (0, 119)


@pytest.mark.parametrize("line_ends", ["\n", "\r\n", "\r"])
def test_lines_of_a_list_of_cuts_end_as_on_any_system(tmp_path: Path, line_ends: str) -> None:
    path = tmp_path / "cuts.edl"
    path.write_bytes(LIST.replace("\n", line_ends).encode())
    assert cuts_in(path) == (0, 25)


def test_a_list_of_cuts_of_blank_lines_is_read_at_once(tmp_path: Path) -> None:
    path = tmp_path / "cuts.edl"
    path.write_text("\n" * 300_000)
    with pytest.raises(ConfigError, match="no video event"):
        cuts_in(path)

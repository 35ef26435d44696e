"""Times as people write them: one function reads them all."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from helpers.videos import Command, MakeVideo

from vidrestore.common.errors import UsageError
from vidrestore.common.timecode import exact_seconds, seconds_of, time_text
from vidrestore.media.decode import TimeRange

TIMES = {
    "0": 0, "75.5": Fraction(151, 2), "1:15.5": Fraction(151, 2), "0:01:15.5": Fraction(151, 2),
    "90:00": 5400, "999999:59:59": 3_599_999_999, "1:2:3": 3723, "00:00:00.000000001":
    Fraction(1, 10**9), "999999999": 999_999_999,
}  # fmt: skip
NO_TIMES = (
    "", " ", "soon", "-1", "-0:00:01", "+1", "nan", "inf", "Infinity", "1e3", "1e400", "1_0", "0x1",
    "0:99:99", "0:00:99", "0:60:00", "1:60", "1:", ":1", "1::1", "1:00:00:00", "1.5:00", "1.", ".5",
    "٣", "1:٣", "\uff11", "1\n", " 1", "1 ", "1:1\x00", "9" * 10, "9" * 5000, "1." + "9" * 5000,
    "9" * 5000 + ":00", None, 1, 1.5, True, [1],
)  # fmt: skip


@pytest.mark.parametrize("text", TIMES)
def test_a_time_is_exact(text: str) -> None:
    assert seconds_of(text) == TIMES[text]


@pytest.mark.parametrize("text", NO_TIMES, ids=lambda text: repr(text)[:20])
def test_what_is_no_time_is_refused_in_a_short_sentence(text: object) -> None:
    with pytest.raises(
        UsageError, match="a time must have the form seconds, M:SS or H:MM:SS"
    ) as raised:
        seconds_of(text)
    assert len(str(raised.value)) < 200
    assert str(raised.value).isprintable()


def test_times_that_are_shown_can_be_typed() -> None:
    for millis in (0, 999, 1000, 59_999, 60_000, 3_599_999, 3_600_000, 86_399_999):
        assert seconds_of(time_text(Fraction(millis, 1000))) == Fraction(millis, 1000)


@pytest.mark.parametrize(
    ("seconds", "decimals", "short", "text"),
    [
        (75.5, 3, False, "0:01:15.500"),
        (Fraction(1, 3), 6, False, "0:00:00.333333"),
        (59.9996, 3, False, "0:01:00.000"),
        (65, 0, False, "0:01:05"),
        (65, 0, True, "1:05"),
        (3725.26, 1, True, "1:02:05.3"),
        (59.96, 1, True, "1:00.0"),
        (360000, 0, False, "100:00:00"),
    ],
)
def test_a_time_in_text(seconds: float | Fraction, decimals: int, short: bool, text: str) -> None:
    assert time_text(seconds, decimals, short=short) == text


@pytest.mark.parametrize("time", [float("nan"), float("inf"), -1, -1e-9, 1e30, 10**400])
def test_a_number_that_is_no_time(time: float) -> None:
    with pytest.raises(UsageError, match="the moment must be a number of seconds from 0 on"):
        exact_seconds(time, "the moment")


@pytest.mark.parametrize(
    "option",
    ["restore --start", "restore --end", "preview --at", "compare --start", "compare --at",
     "evaluate --end"],
)  # fmt: skip
def test_every_command_refuses_the_same(
    option: str, make_video: MakeVideo, command: Command, tmp_path: Path
) -> None:
    source, (name, flag) = make_video(frames=2), option.split()
    files = {
        "restore": [source, tmp_path / "out.mp4"], "preview": [source, "-o", tmp_path / "out.png"],
        "compare": [source, source, "-o", tmp_path / f"out{'.png' if flag == '--at' else '.mp4'}"],
        "evaluate": [source, "--source", source],
    }[name]  # fmt: skip
    for text in ("0:99:99", "1:60", ""):
        found = command(name, *files, flag, text)
        assert found.status == 2
        assert "a time must have the form seconds, M:SS or H:MM:SS" in found.said
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


@pytest.mark.parametrize("ends", [(float("nan"), 1), (0, float("nan")), (0, float("inf")),
                                  (float("inf"), None), (-1, None)])  # fmt: skip
def test_a_part_lies_between_numbers(ends: tuple[Any, Any]) -> None:
    with pytest.raises(UsageError, match="the part from"):
        TimeRange(*ends)


def test_preview_refuses_a_moment_that_is_no_number(make_video: MakeVideo, tmp_path: Path) -> None:
    from vidrestore.review.preview import write_preview

    for time in (float("nan"), float("inf"), -1.0):
        with pytest.raises(UsageError, match="must be a number of seconds from 0 on"):
            write_preview(make_video(frames=2), time, tmp_path / "out.png")

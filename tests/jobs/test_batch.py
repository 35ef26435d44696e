"""Many inputs with one command: what fails, what is there already, and how outputs are called."""

import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import pytest
from helpers.videos import Command, MakeVideo
from rich.console import Console

from vidrestore.cli.progress import events
from vidrestore.common.errors import InputError, OutputError, UsageError
from vidrestore.common.events import OnEvent, Progress
from vidrestore.common.profiles import as_toml, load_profile, load_settings
from vidrestore.jobs.batch import USUAL_NAME, expanded, restore_all, targets_in
from vidrestore.jobs.summary import Summary

QUICK = ("--restorer", "fusion", "--detector", "haar")


@pytest.fixture
def inputs(make_video: MakeVideo, tmp_path: Path) -> list[Path]:
    """A good video, what is none, and another good one."""
    good = [make_video("a.mp4", frames=6), make_video("c.mov", frames=4)]
    bad = tmp_path / "b.mp4"
    bad.write_text("no video")
    return [good[0], bad, good[1]]


def test_one_that_fails_does_not_stop_the_rest(
    command: Command, inputs: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "out" / "deep"
    found = command("restore", *inputs, "--output-dir", out, *QUICK)
    assert found.status == 1
    assert sorted(path.name for path in out.iterdir()) == ["a.mp4", "c.mov"]
    assert found.out.count("restored") == 2
    assert found.out.splitlines()[-1].startswith(f"failed: {inputs[1]}: the file")
    assert "3 of 3" in found.said


def test_the_same_command_goes_on_with_what_is_missing(
    command: Command, inputs: list[Path], tmp_path: Path
) -> None:
    good, out = [inputs[0], inputs[2]], tmp_path / "out"
    command("restore", good[0], "--output-dir", out, *QUICK)
    before = (out / "a.mp4").stat()
    found = command("restore", *good, "--output-dir", out, "--json", *QUICK)
    told = [json.loads(line) for line in found.out.splitlines()]
    assert found.status == 0
    assert [(each["status"]) for each in told if each["event"] == "file"] == [
        "there already",
        "restored",
    ]
    assert told[-1]["event"] == "done"
    assert [each["target"] for each in told[-1]["files"]] == [
        str(out / name) for name in ("a.mp4", "c.mov")
    ]
    assert (out / "a.mp4").stat().st_mtime_ns == before.st_mtime_ns
    assert (out / "a.mp4").stat().st_ino == before.st_ino


def test_overwrite_makes_them_again(command: Command, inputs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    for _ in range(2):
        found = command("restore", inputs[0], "--output-dir", out, "--overwrite", *QUICK)
        assert found.status == 0
        assert "restored" in found.out


def test_a_pattern_stands_for_files_where_no_shell_has_read_it(
    command: Command, inputs: list[Path], tmp_path: Path
) -> None:
    inputs[1].unlink()
    found = command(
        "restore", tmp_path / "*.m*", "--output-dir", tmp_path / "out",
        "--name", "{number} {name} clear{suffix}", *QUICK,
    )  # fmt: skip
    assert found.status == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["1 a clear.mp4", "2 c clear.mov"]
    with pytest.raises(InputError, match=r"no file matches .*\.avi"):
        expanded([tmp_path / "*.avi"])


def test_names_are_left_alone_that_are_no_patterns(tmp_path: Path) -> None:
    odd = tmp_path / "a[1].mp4"
    odd.touch()
    given = [odd, tmp_path / "missing.mp4", tmp_path / "scan_%06d.tif"]
    assert expanded(given) == given


@pytest.mark.parametrize(
    ("source", "change", "suffix"),
    [
        ("a.mp4", "", ".mp4"),
        ("a.MOV", "", ".MOV"),
        ("a.avi", "", ".mkv"),
        ("a.dv", "", ".mkv"),
        ("a", "", ".mkv"),
        ("a.mp4", "encode.quality=archive", ".mkv"),
        ("a.mp4", "encode.codec=ffv1", ".mkv"),
        ("a.tif", "", ".tif"),
    ],
)
def test_an_output_has_the_suffix_of_what_can_hold_it(
    source: str, change: str, suffix: str, tmp_path: Path
) -> None:
    settings = load_settings(None, [change] if change else [])
    ((_, target),) = targets_in(tmp_path, [Path(source)], USUAL_NAME, settings)
    assert target == tmp_path / f"a{suffix}"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{nam}{suffix}", "did you mean name"),
        ("clear.mp4", "add {name}"),
        ("../{name}", "give the folder with --output-dir"),
        ("{name", "cannot be read"),
        ("", "not a file name"),
    ],
)
def test_a_pattern_that_is_none(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        targets_in(tmp_path, [Path("a.mp4")], name, load_settings())


def test_two_inputs_never_become_one_output(tmp_path: Path) -> None:
    same = [Path("one/a.mp4"), Path("two/a.mp4")]
    with pytest.raises(UsageError, match=r"one/a.mp4 and two/a.mp4 would both become .*\{number\}"):
        targets_in(tmp_path / "out", same, USUAL_NAME, load_settings())
    assert len(targets_in(tmp_path / "out", same, "{number}{suffix}", load_settings())) == 2


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be made"):
        targets_in(tmp_path / "file" / "out", [Path("a.mp4")], USUAL_NAME, load_settings())


def test_a_defect_met_with_one_says_nothing_of_the_others(tmp_path: Path) -> None:
    def restore(source: Path, target: Path) -> Summary:
        if source.name == "b":
            raise ZeroDivisionError("division by zero")
        return Summary(frames=1, faces=0, tracks=0, people=0, shots=1)

    pairs = [(Path(name), tmp_path / name) for name in "abc"]
    found = list(restore_all(pairs, restore, overwrite=False))
    assert [each.status for each in found] == ["restored", "failed", "restored"]
    assert "ZeroDivisionError" in found[1].message


def test_an_interruption_stops_all_and_says_what_is_left(
    command: Command, inputs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> Summary:
        raise KeyboardInterrupt

    monkeypatch.setattr("vidrestore.api.run", interrupted)
    found = command("restore", *inputs, "--output-dir", tmp_path / "out", *QUICK)
    assert found.status == 130
    assert "3 of 3 were not started" in " ".join(found.out.split())


@contextmanager
def printing_workers(*_: object) -> Iterator[None]:
    """Like Ray, it prints, and is kept from standard output."""
    with redirect_stdout(sys.stderr):
        print("a line of Ray")
        yield None


def test_results_stay_on_standard_output_while_workers_are_kept_from_it(
    command: Command, inputs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidrestore.jobs.ray_cluster.open_workers", printing_workers)
    one = command("restore", inputs[0], tmp_path / "one.mp4", "--json", *QUICK)
    many = command("restore", inputs[0], "--output-dir", tmp_path / "out", "--json", *QUICK)
    for found in (one, many):
        told = [json.loads(line)["event"] for line in found.out.splitlines()]
        assert "progress" in told
        assert told[-1] == "done"
        assert "{" not in found.err
    table = command("restore", inputs[2], "--output-dir", tmp_path / "out", *QUICK)
    assert "restored" in table.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.mp4"], "1 path was given"),
        (["a.mp4", "b.mp4", "c.mp4"], "add --output-dir DIR"),
        (["a.mp4", "b.mp4", "--name", "{name}"], "give --output-dir"),
        (["--output-dir", "out"], "no INPUT was named"),
        (["a.mp4", "--output-dir", "out", "--people", "1"], "--people cannot apply to several"),
        (["a.mp4", "--output-dir", "out", "--plate", "p", "--layer", "l"], "--plate and --layer"),
    ],
)
def test_what_does_not_go_together(
    arguments: list[str], message: str, command: Command, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    found = command("restore", *arguments, *QUICK)
    assert found.status == 2
    assert message in found.said


@pytest.mark.parametrize("profile", [None, "film", "home-video", "face-swap", "quick"])
def test_printed_settings_are_a_profile_that_gives_them(
    profile: str | None, command: Command, tmp_path: Path
) -> None:
    given = [] if profile is None else ["--profile", profile]
    odd = tmp_path / 'weights "and\\ more'
    found = command(
        "restore", *given, "--print-config", "--set", "paste.strength=0.25", "--weights", odd
    )
    assert found.status == 0
    path = tmp_path / "mine.toml"
    path.write_text(found.out, encoding="utf-8")
    expected = load_settings(
        profile, ["paste.strength=0.25"], options={"weights.folder": odd, "paste.strength": None}
    )
    assert load_profile(path) == expected
    assert as_toml(load_profile(path)) == found.out


def test_a_log_gets_ten_lines_for_a_stage() -> None:
    text = io.StringIO()
    with events(False, Console(file=text, width=80)) as tell:
        _tell(tell, 1000)
    lines = text.getvalue().splitlines()
    assert lines[0] == "restore: 1,000 frames"
    assert [line.split(",")[0] for line in lines[1:]] == [
        f"restore: {10 * tenth} %" for tenth in range(1, 11)
    ]


def _tell(tell: OnEvent, frames: int) -> None:
    for done in range(1, frames + 1):
        tell(Progress("restore", done, frames))

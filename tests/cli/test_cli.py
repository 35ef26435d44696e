"""The command line: what is refused and how, what a sample holds, what --json says."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path

import av
import numpy as np
import pytest
from helpers.videos import Command, MakeVideo, Result, write_video

PLAIN = ("--restorer", "fusion", "--detector", "haar", "--set", "detect.mesh=off")

# Runs each list of arguments. Root may do everything, so it becomes nobody first; what is needed
# is loaded before that, for nobody may not be able to read root's interpreter.
_WITHOUT_RIGHTS = """
import contextlib, io, json, os, sys
import vidrestore.cli.console, vidrestore.jobs.run, vidrestore.models.detectors.haar
from vidrestore.cli import main
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        with contextlib.redirect_stderr(io.StringIO()) as err:
            try:
                main(arguments)
            except SystemExit as leaving:
                status = leaving.code
    print(json.dumps([status, out.getvalue(), err.getvalue()]))
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a good video, what is none, and the output of an earlier run."""
    place = tmp_path / "place"
    (place / "folder.mp4").mkdir(parents=True)
    write_video(place / "good.mp4")
    write_video(place / "sound.mp4", frames=0, audio=True)
    (place / "empty.mp4").touch()
    (place / "text.mp4").write_text("a letter to my grandmother\n" * 50)
    (place / "there.mp4").write_bytes(b"of an earlier run")
    (place / "link.mp4").symlink_to("good.mp4")
    (place / "broken.toml").write_text("[paste\nstrength = 1")
    monkeypatch.chdir(place)
    return place


def contents(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def assert_refused(result: Result, status: int, *parts: str) -> None:
    """One sentence that says what was wrong, and the status that goes with it."""
    assert result.status == status, result.err
    assert "Traceback" not in result.err
    assert "--debug" not in result.err, "it was taken for a defect"
    assert len(result.err.splitlines()) == 1, result.err
    assert result.err.startswith("vidrestore: ")
    for part in parts:
        assert part in result.err
    assert result.out == ""


SOURCES = {
    "no such file": ("absent.mp4", "absent.mp4 does not exist"),
    "a folder": ("folder.mp4", "folder.mp4 is a folder"),
    "an empty file": ("empty.mp4", "empty.mp4 is empty"),
    "a text": ("text.mp4", "text.mp4 cannot be read as video"),
    "sound alone": ("sound.mp4", "sound.mp4 has no video"),
}


@pytest.mark.parametrize("overwrite", [False, True], ids=["new", "over another"])
@pytest.mark.parametrize(("source", "reason"), SOURCES.values(), ids=SOURCES.keys())
def test_a_source_that_is_no_video(
    place: Path, command: Command, source: str, reason: str, overwrite: bool
) -> None:
    before = contents(place)
    more = ("there.mp4", "--overwrite") if overwrite else ("new.mp4",)
    assert_refused(command("restore", source, *more, *PLAIN), 1, reason)
    assert_refused(command("analyze", source, *PLAIN[2:]), 1, reason)
    assert contents(place) == before


OUTPUTS = {
    "folder missing": (["no/such/out.mp4"], 1, "no/such", "does not exist", "create it"),
    "is the input": (["good.mp4"], 2, "is the input itself"),
    "is the input, overwriting": (["good.mp4", "--overwrite"], 2, "is the input itself"),
    "is the input by a link": (["link.mp4", "--overwrite"], 2, "is the input itself"),
    "is the input by a detour": (
        ["folder.mp4/../good.mp4", "--overwrite"], 2, "is the input itself",
    ),
    "is there": (["there.mp4"], 2, "there.mp4 exists already", "--overwrite"),
    "is a folder": (["folder.mp4", "--overwrite"], 2, "folder.mp4 is a folder"),
    "unknown suffix": (["out.avi"], 2, "out.avi", ".mp4, .m4v, .mov, .mkv"),
    "no suffix": (["out"], 2, "must end in one of"),
    "ffv1 in mp4": (["out.mp4", "--set", "encode.codec=ffv1"], 1, "ffv1", "out.mkv"),
}  # fmt: skip


@pytest.mark.parametrize("case", OUTPUTS.values(), ids=OUTPUTS.keys())
def test_an_output_that_cannot_be(
    place: Path, command: Command, case: tuple[list[str], int, str]
) -> None:
    before = contents(place)
    more, status, *parts = case
    assert_refused(command("restore", "good.mp4", *more, *PLAIN), status, *parts)
    assert contents(place) == before


def test_the_input_through_an_absolute_path(place: Path, command: Command) -> None:
    before = contents(place)
    result = command("restore", "good.mp4", place / "good.mp4", "--overwrite", *PLAIN)
    assert_refused(result, 2, "is the input itself")
    assert contents(place) == before


SETTINGS = {
    "profile": (["--profile", "flim"], "profile 'flim'", "did you mean film?"),
    "profile file": (["--profile", "broken.toml"], "broken.toml is not valid TOML"),
    "section": (["--set", "restor.batch_size=1"], "section of settings 'restor'", "mean restore?"),
    "key": (["--set", "restore.batchsize=1"], "'batchsize'", "did you mean batch_size?"),
    "detector": (["--detector", "hair"], "detector 'hair'", "did you mean haar?"),
    "restorer": (["--restorer", "fuson"], "restorer 'fuson'", "did you mean fusion?"),
    "number too large": (["--strength", "1.5"], "--strength", "1.5"),
    "number too small": (["--batch-size", "0"], "--batch-size", "0"),
    "no quality": (["--set", "encode.quality=good"], "encode.quality", "archive"),
    "no change": (["--set", "encode.threads"], "SECTION.KEY=VALUE", "'encode.threads'"),
    "preset": (["--set", "encode.preset=slowly"], "preset 'slowly'", "did you mean slow"),
    "device": (["--device", "gpu"], "--device cannot be", "'gpu'"),
    "device not there": (["--device", "cuda:99"], "cuda:99", "--device cpu"),
    "a bound on nothing": (["--device", "cpu", "--max-vram", "6"], "--max-vram 6", "--device cpu"),
}


@pytest.mark.parametrize("case", SETTINGS.values(), ids=SETTINGS.keys())
def test_a_setting_that_is_none(place: Path, command: Command, case: tuple[list[str], str]) -> None:
    before = contents(place)
    given, *parts = case
    result = command("restore", "good.mp4", "there.mp4", "--overwrite", *PLAIN, *given)
    assert_refused(result, 2, *parts)
    assert contents(place) == before


TIMES = {
    "a word": (["--start", "soon"], "'soon'", "1:15.5"),
    "negative": (["--start", "-1"], "'-1'"),
    "days": (["--end", "1:00:00:00"], "'1:00:00:00'"),
    "backwards": (["--start", "0.3", "--end", "0.2"], "0.3 s to 0.2 s", "after the start"),
    "nothing": (["--start", "0.2", "--end", "0.2"], "the end must lie after the start"),
}


@pytest.mark.parametrize("case", TIMES.values(), ids=TIMES.keys())
def test_a_time_that_is_none(place: Path, command: Command, case: tuple[list[str], str]) -> None:
    before = contents(place)
    given, *parts = case
    assert_refused(command("restore", "good.mp4", "out.mp4", *PLAIN, *given), 2, *parts)
    assert contents(place) == before


def test_a_part_beyond_the_end(place: Path, command: Command) -> None:
    before = contents(place)
    result = command("restore", "good.mp4", "out.mp4", *PLAIN, "--start", "60")
    assert_refused(result, 1, "no frame of good.mp4 lies in the part")
    assert contents(place) == before


@pytest.mark.parametrize(
    ("detector", "file"),
    [("insightface", "buffalo_l.zip"), ("yunet", "face_detection_yunet_2023mar.onnx")],
)
def test_weights_that_are_missing(place: Path, command: Command, detector: str, file: str) -> None:
    before = contents(place)
    given = ("--restorer", "fusion", "--detector", detector, "--weights", "mine", "--offline")
    result = command("restore", "good.mp4", "out.mp4", *given, "--set", "detect.mesh=off")
    assert (result.status, result.out) == (1, "")
    missing, get, without = result.err.splitlines()
    assert missing.startswith(f"vidrestore: {file} is in none of the folders")
    assert missing.endswith("(--offline)")
    assert str(place / "mine") in get
    assert "--restorer fusion --detector haar" in without
    assert contents(place) == before


@pytest.mark.parametrize(
    ("given", "part"),
    [
        (["restore", "good.mp4"], "OUTPUT"),
        (["restore", "good.mp4", "out.mp4", "--detectr", "haar"], "--detector"),
        (["restorr"], "restore"),
    ],
)
def test_a_command_that_is_none(place: Path, command: Command, given: list[str], part: str) -> None:
    result = command(*given)
    assert result.status == 2
    assert part in result.err
    assert "Traceback" not in result.err


NO_RIGHTS = {
    "output folder": (
        "good.mp4",
        "closed/new.mp4",
        "the folder closed for the output cannot be written to",
    ),
    "output there": (
        "good.mp4",
        "closed/there.mp4",
        "the folder closed for the output cannot be written to",
    ),
    "output folder not entered": ("good.mp4", "hidden/new.mp4", "hidden/new.mp4"),
    "output folder below": ("good.mp4", "hidden/below/new.mp4", "hidden/below/new.mp4"),
    "source": ("secret.mp4", "new.mp4", "secret.mp4 cannot be read"),
    "source folder": ("hidden/good.mp4", "new.mp4", "hidden/good.mp4 cannot be reached"),
}


@pytest.fixture(scope="module")
def without_rights() -> dict[str, Result]:
    """What is answered to a user without rights, who leaves everything as it is."""
    place = Path(tempfile.mkdtemp())  # not pytest's own folder, which others may not enter
    place.chmod(0o755)
    modes = {"closed": 0o555, "hidden": 0o600, "secret.mp4": 0o000}
    (place / "closed").mkdir()
    (place / "closed/there.mp4").write_bytes(b"of an earlier run")
    (place / "hidden").mkdir()
    for name in ("good.mp4", "secret.mp4", "hidden/good.mp4"):
        write_video(place / name)
    before = contents(place)
    for name, mode in modes.items():
        (place / name).chmod(mode)
    given = [["restore", s, t, *PLAIN, "--overwrite"] for s, t, _ in NO_RIGHTS.values()]
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_RIGHTS, json.dumps(given)],
        cwd=place,
        env=os.environ | {"HOME": str(place), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    for name in modes:
        (place / name).chmod(0o755)
    after = contents(place)
    shutil.rmtree(place)
    assert done.returncode == 0, done.stderr
    assert after == before
    return dict(
        zip(NO_RIGHTS, (Result(*json.loads(x)) for x in done.stdout.splitlines()), strict=True)
    )


@pytest.mark.parametrize("case", NO_RIGHTS)
def test_a_file_or_folder_without_the_right_to_it(
    without_rights: dict[str, Result], case: str
) -> None:
    assert_refused(without_rights[case], 1, NO_RIGHTS[case][-1], "permission denied")


CUT_SHORT = {"mp4": {"movflags": "faststart"}, "mkv": {}}


@pytest.mark.parametrize("suffix", CUT_SHORT)
def test_a_video_that_breaks_off(
    tmp_path: Path, make_video: MakeVideo, command: Command, suffix: str
) -> None:
    whole = make_video(
        f"whole.{suffix}",
        frames=60,
        size=(160, 120),
        audio=True,
        container_options=CUT_SHORT[suffix],
    )
    source = tmp_path / f"source.{suffix}"
    source.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    target = tmp_path / f"out.{suffix}"

    result = command("restore", source, target, *PLAIN)

    assert result.status == 0, result.err
    assert "Traceback" not in result.err
    written = times(target)
    assert 20 < len(written) < 50, "it is not cut where this test believes"
    assert written == times(whole)[: len(written)]
    said = re.search(r"(\d+) frames that the header announces could not be decoded", result.said)
    # Matroska announces no count, and its duration is that of the sound.
    assert abs(int(said[1]) - (60 - len(written))) <= (suffix == "mkv")
    assert not target.with_name(target.name + ".vidrestore").exists()


def test_a_whole_video_is_not_said_to_lack_anything(
    tmp_path: Path, make_video: MakeVideo, command: Command
) -> None:
    result = command("restore", make_video(audio=True), tmp_path / "out.mp4", *PLAIN)
    assert result.status == 0
    assert "could not be decoded" not in result.said
    assert "no face was found" in result.said


@pytest.mark.parametrize("audio", [False, True], ids=["silent", "with sound"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov"])
def test_all_frames_times_and_sound_are_kept(
    tmp_path: Path, make_video: MakeVideo, command: Command, suffix: str, audio: bool
) -> None:
    source, target = make_video(audio=audio), tmp_path / f"out.{suffix}"
    assert command("restore", source, target, *PLAIN).status == 0
    assert times(target) == times(source)
    if audio:
        assert sound_packets(target) == sound_packets(source)


def test_metadata_is_kept_wherever_the_video_stands(
    tmp_path: Path, make_video: MakeVideo, command: Command
) -> None:
    """In a file whose sound comes first, the program that joins sees its inputs the other way."""
    plain, source, target = make_video(audio=True), tmp_path / "swapped.mkv", tmp_path / "out.mkv"
    with av.open(str(plain)) as read, av.open(str(source), "w") as written:
        written.metadata["title"] = "Summer"
        streams = {
            stream.index: written.add_stream_from_template(stream)
            for stream in (read.streams.audio[0], read.streams.video[0])
        }
        for packet in read.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream_index]
                written.mux(packet)
    assert command("restore", source, target, *PLAIN).status == 0
    with av.open(str(target)) as container:
        assert container.metadata["title"] == "Summer"
        assert [stream.type for stream in container.streams] == ["audio", "video"]


def times(path: Path) -> list[Fraction]:
    """Of the frames of the video stream, in seconds."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [frame.pts * Fraction(stream.time_base) for frame in container.decode(stream)]


def sound_packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        return [bytes(packet) for packet in container.demux(stream) if packet.size]


def greys(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [
            round(frame.to_ndarray(format="gray").mean()) for frame in container.decode(video=0)
        ]


def grey_steps(index: int) -> np.ndarray:
    """A picture that says by its brightness which one it is."""
    return np.full((64, 96, 3), 4 * index, np.uint8)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize(
    ("given", "first", "end"),
    [
        (["--start", "0.4", "--end", "1.2"], 10, 30),
        (["--start", "0:00:01.21"], 31, 50),  # between two frames: the next one is the first
        (["--end", "0.5"], 0, 13),
    ],
)
def test_a_sample_is_the_part_that_was_asked_for(
    tmp_path: Path,
    make_video: MakeVideo,
    command: Command,
    suffix: str,
    given: list[str],
    first: int,
    end: int,
) -> None:
    source = make_video(frames=50, picture=grey_steps, audio=True)
    target = tmp_path / f"out.{suffix}"
    result = command("restore", source, target, *PLAIN, *given)
    assert result.status == 0, result.err

    shown = greys(target)
    expected = greys(source)[first:end]
    assert len(shown) == end - first
    assert np.abs(np.subtract(shown, expected)).max() <= 1
    assert times(target) == [Fraction(i, 25) for i in range(end - first)]
    begins, ends = sound_span(target)
    assert abs(begins) < 0.05
    assert abs(ends - (end - first) / 25) < 0.05
    assert "could not be decoded" not in result.said


def sound_span(path: Path) -> tuple[float, float]:
    """When sound is first and last heard, in seconds."""
    with av.open(str(path)) as container:
        frames = [
            (float(frame.pts * frame.time_base), frame.samples / frame.sample_rate)
            for frame in container.decode(audio=0)
        ]
    return frames[0][0], sum(frames[-1])


def test_json_is_one_event_per_line_and_ends_with_done(
    tmp_path: Path, make_video: MakeVideo, command: Command
) -> None:
    result = command("restore", make_video(frames=8), tmp_path / "out.mp4", *PLAIN, "--json")
    assert result.status == 0
    events = [json.loads(line) for line in result.out.splitlines()]
    kinds = [event["event"] for event in events]
    frames = ["progress"] * 8
    assert kinds == [*frames, "stages", *frames, "stages", *frames, "done"]
    progress = [event for event in events if event["event"] == "progress"]
    for place, stage in enumerate(("analyze", "restore", "check")):
        seen = progress[8 * place : 8 * place + 8]
        assert [(e["stage"], e["frame"], e["frames"]) for e in seen] == [
            (stage, done, 8) for done in range(1, 9)
        ]
    assert events[-1]["summary"]["frames"] == 8
    assert "no face was found; nothing was restored" in events[-1]["summary"]["warnings"]


def test_json_counts_the_frames_of_a_sample(
    tmp_path: Path, make_video: MakeVideo, command: Command
) -> None:
    given = ("--start", "0.2", "--end", "0.6", "--json")
    result = command("restore", make_video(frames=20), tmp_path / "out.mp4", *PLAIN, *given)
    events = [json.loads(line) for line in result.out.splitlines()]
    totals = [event["frames"] for event in events if event["event"] == "progress"]
    assert totals == [10] * 30


def test_json_ends_with_the_error(place: Path, command: Command) -> None:
    result = command("restore", "text.mp4", "out.mp4", *PLAIN, "--json")
    assert result.status == 1
    (line,) = result.out.splitlines()
    event = json.loads(line)
    assert (event["event"], event["kind"]) == ("error", "InputError")
    assert "text.mp4" in event["message"]
    assert result.err == ""


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("vidrestore re", ["restore"]),
        ("vidrestore restore --prof", ["--profile"]),
        ("vidrestore restore --profile f", ["face-swap", "film"]),
        ("vidrestore preview --restorer gpen-2", ["gpen-2048", "gpen-256"]),
        ("vidrestore analyze --detector y", ["yunet"]),
        ("vidrestore restore --deinterlace f", ["frame", "film"]),
        ("vidrestore restore --codec ", ["auto", "h264", "hevc", "av1", "prores", "dnxhr", "ffv1"]),
        ("vidrestore restore --scale ", ["1", "2", "4"]),
        ("vidrestore weights f", ["fetch"]),
    ],
)
def test_a_shell_is_told_how_a_word_may_end(
    words: str, offered: list[str], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_VIDRESTORE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    found = command()
    assert found.status == 0
    assert sorted(found.out.split()) == sorted(offered)


def test_verbose_shows_the_log(command: Command, make_video: MakeVideo, tmp_path: Path) -> None:
    source = make_video()
    quick = ("--restorer", "fusion", "--detector", "haar")
    quiet = command("restore", source, tmp_path / "a.mkv", *quick)
    shown = command("restore", source, tmp_path / "b.mkv", "--verbose", *quick)
    assert (quiet.status, shown.status) == (0, 0)
    assert "DEBUG running" not in quiet.err
    assert "DEBUG running" in shown.err
    assert "DEBUG running" not in command("restore", source, tmp_path / "c.mkv", *quick).err


def test_options_of_restore_stand_in_groups_in_this_order(command: Command) -> None:
    found = command("restore", "--help").out
    groups = (
        "Input and output", "Whom to restore", "How to restore", "Picture", "File", "Long jobs",
        "Diagnostics",
    )  # fmt: skip
    places = [found.find(f"─ {group} ─") for group in groups]
    assert -1 not in places
    assert places == sorted(places)


@pytest.mark.parametrize("words", ["", "restore", "preview", "ui", "weights", "weights convert"])
def test_the_help_of_a_flag_names_no_type(words: str, command: Command) -> None:
    found = command(*words.split(), "--help").out
    assert "--help" in found
    assert "<bool>" not in found


def test_the_version_names_what_it_runs_on(command: Command) -> None:
    plain = command("--version")
    assert plain.out == f"vidrestore {version('vidrestore')}\n"
    for arguments in (("--version", "--verbose"), ("--verbose", "--version")):
        found = command(*arguments)
        assert (found.status, found.err) == (0, "")
        first, *rest = found.out.splitlines()
        assert first == plain.out.strip()
        parts = dict(line.split(": ", 1) for line in rest)
        assert version("torch").partition("+")[0] in parts["torch"]
        assert {"Python", "av", "ffmpeg", "CUDA device", "processor"} <= parts.keys()

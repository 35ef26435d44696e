"""What a command cannot write, or would write over what it reads, is refused before any work."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers.videos import Command, MakeVideo

LONG = "x" * 300
# Command line with OUT and IN, suffix of OUT.
WRITING = {
    "restore": ("restore IN OUT", ".mp4"),
    "framemd5": ("restore IN FREE.mp4 --framemd5 OUT", ".txt"),
    "report": ("restore IN FREE.mp4 --report OUT", ".html"),
    "preview": ("preview IN -o OUT", ".png"),
    "preview of two seconds": ("preview IN -o OUT", ".mp4"),
    "compare": ("compare IN IN -o OUT", ".png"),
    "compare videos": ("compare IN IN -o OUT", ".mp4"),
    "analysis": ("analyze IN -o OUT", ".npz"),
    "shots": ("analyze IN --shots OUT", ".toml"),
    "cuts": ("analyze IN --shots OUT", ".edl"),
    "contact sheet": ("analyze IN --contact-sheet OUT", ".png"),
    "sheet": ("weights try gpen-512 -o OUT", ".png"),
    "weights": ("weights convert IN -o OUT", ".pth"),
}  # fmt: skip
WORK = (
    "vidrestore.api.run", "vidrestore.review.preview.write_preview",
    "vidrestore.review.comparison.write_comparison", "vidrestore.analysis.cache.find_analysis",
    "vidrestore.review.trial.chosen_restorer", "vidrestore.models.convert._read",
)  # fmt: skip


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where work is begun, of which there must be none."""
    begun: list[str] = []

    def begin(*_: object, **__: object) -> None:
        begun.append("work")
        raise AssertionError("work was begun")

    for name in WORK:
        monkeypatch.setattr(name, begin)
    return begun


def arguments(case: tuple[str, str], source: Path, target: Path) -> Sequence[object]:
    free = str(source.with_name("free"))
    names = {"IN": source, "OUT": target}
    return [names.get(word, word.replace("FREE", free)) for word in case[0].split()]


@pytest.mark.parametrize("case", WRITING.values(), ids=WRITING.keys())
def test_an_output_is_looked_at_before_any_work(
    case: tuple[str, str], make_video: MakeVideo, command: Command, tmp_path: Path, idle: list[str]
) -> None:
    source, suffix = make_video(frames=2), case[1]
    folder = tmp_path / f"folder{suffix}"
    folder.mkdir()
    bad = [tmp_path / "missing" / f"x{suffix}", tmp_path / f"{LONG}{suffix}", source / f"x{suffix}"]
    if "--contact-sheet" not in case[0]:
        bad.append(folder)
    if "--shots" in case[0] or "sheet" in case[0] or ("-o" in case[0] and "analyze" not in case[0]):
        bad.append(tmp_path / "x.gif")
    if suffix == ".mp4":
        bad.append(source)
    before = source.read_bytes()
    for target in bad:
        found = command(*arguments(case, source, target))
        assert found.status in (1, 2), target
        assert found.err.startswith("vidrestore: "), found.err
        assert "Error:" not in found.err, found.err
        assert idle == []
    assert source.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([source.name, folder.name])


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
@pytest.mark.parametrize("case", WRITING.values(), ids=WRITING.keys())
def test_a_folder_that_is_closed(
    case: tuple[str, str], make_video: MakeVideo, command: Command, tmp_path: Path, idle: list[str]
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    found = command(*arguments(case, make_video(frames=2), closed / f"x{case[1]}"))
    assert found.status == 1
    assert idle == []


@pytest.mark.parametrize(
    "given",
    ["compare IN IN -o IN --overwrite", "preview IN -o IN --overwrite", "analyze IN -o IN",
     "restore IN IN --overwrite"],
)  # fmt: skip
def test_nothing_is_written_over_what_is_read(
    given: str, make_video: MakeVideo, command: Command, idle: list[str]
) -> None:
    source = make_video(frames=2)
    before = source.read_bytes()
    found = command(*(str(source) if word == "IN" else word for word in given.split()))
    assert found.status == 2
    assert source.read_bytes() == before
    assert idle == []


def test_two_files_of_one_name(
    make_video: MakeVideo, command: Command, tmp_path: Path, idle: list[str]
) -> None:
    shots = tmp_path / "x.toml"
    found = command("analyze", make_video(frames=2), "-o", shots, "--shots", shots)
    assert found.status == 2
    assert "written twice" in found.said
    assert idle == []


def test_a_folder_of_many_is_not_made_for_what_is_refused(
    make_video: MakeVideo, command: Command, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    found = command("restore", make_video(frames=2), "--output-dir", out, "--people", "1")
    assert found.status == 2
    assert not out.exists()


@pytest.mark.parametrize("start", ["100", "0:01:00"])
@pytest.mark.parametrize("suffix", [".mp4", ".png"])
def test_a_comparison_past_the_end(
    start: str, suffix: str, make_video: MakeVideo, command: Command, tmp_path: Path
) -> None:
    source, target = make_video(frames=3), tmp_path / f"out{suffix}"
    flag = "--at" if suffix == ".png" else "--start"
    found = command("compare", source, source, "-o", target, flag, start)
    assert "Traceback" not in found.err
    assert found.status == 1
    assert "no picture at that time" in found.said
    assert sorted(p.name for p in tmp_path.iterdir()) == [source.name]


@pytest.mark.parametrize(
    "given",
    ["restore LONG.mp4 --output-dir out", "restore LONG.mp4 o.mp4", "restore IN o.mp4 --shots LONG",
     "restore IN o.mp4 --analysis LONG", "restore IN o.mp4 --plate LONG.mp4",
     "restore IN o.mp4 --profile LONG.toml", "restore IN o.mp4 --input-curve LONG.cube",
     "analyze IN --cuts LONG.edl", "compare LONG.mp4 IN -o o.mp4", "demo LONG"],
)  # fmt: skip
def test_a_name_that_is_too_long_is_one_sentence(
    given: str, make_video: MakeVideo, command: Command, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    source = make_video(frames=2)
    words = given.replace("LONG", LONG).replace("IN", str(source)).split()
    if words[0] in ("restore", "analyze"):
        words += ["--detector", "haar", *(["--restorer", "fusion"] * (words[0] == "restore"))]
    found = command(*words)
    assert found.status in (1, 2)
    assert "Error:" not in found.err
    assert "Error:" not in found.out


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "1e9"])
def test_a_size_of_faces_that_is_none(
    value: str, make_video: MakeVideo, command: Command, tmp_path: Path
) -> None:
    found = command("restore", make_video(frames=2), tmp_path / "o.mp4", "--restorer", "fusion",
                    "--detector", "haar", "--min-face", value)  # fmt: skip
    assert found.status == 2
    assert "pixels apart" in found.said

"""The output and what is written with it get their names together, or none of them does."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from helpers.media import (
    AS_PAINTED,
    Painter,
    analysis_of_file,
    mild_image,
    plain_track,
    write_video,
)

from vidrestore.analysis.result import Analysis
from vidrestore.api import restore_video
from vidrestore.common.errors import OutputError
from vidrestore.common.profiles import load_settings
from vidrestore.jobs.summary import Summary
from vidrestore.review.drawing import write_picture

FRAMES = 3
SETTINGS = load_settings(options={"encode.codec": "ffv1", **AS_PAINTED})
PICTURES = load_settings(options=AS_PAINTED)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".vidrestore" not in str(path)
    }


def fail_to_rename(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    """To that place, once."""
    rename, left = Path.replace, [place]

    def failing(self: Path, target: Path) -> Path:
        if Path(target) in left:
            left.remove(place)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", failing)


@pytest.fixture
def tape(tmp_path: Path) -> tuple[Path, Analysis]:
    images = [mild_image(160, 128, "yuv420p", index) for index in range(FRAMES)]
    source = write_video(tmp_path / "tape.mkv", images)
    face = plain_track(FRAMES, centre=(62, 64), side=100, work_px=128)
    return source, analysis_of_file(source, [face])


def restored(tape: tuple[Path, Analysis], out: Path, *, overwrite: bool = False) -> Summary:
    source, analysis = tape
    return restore_video(
        source, out / "out.mkv", SETTINGS, restorer=Painter(), analysis=analysis,
        layer=out / "layer", framemd5=out / "md5.txt", overwrite=overwrite,
    )  # fmt: skip


@pytest.mark.parametrize("there", [False, True], ids=["new", "over another"])
@pytest.mark.parametrize("name", ["out.mkv", "md5.txt", "layer/tape.matte.mov"])
def test_a_layer_and_a_listing_come_with_the_output_or_not_at_all(
    tmp_path: Path, tape: tuple[Path, Analysis], monkeypatch: pytest.MonkeyPatch, name: str,
    there: bool,
) -> None:  # fmt: skip
    out, old = tmp_path / "out", [f"layer/tape.{side}.mov" for side in ("fill", "matte")]
    (out / "layer").mkdir(parents=True)
    if there:
        for each in ("out.mkv", "md5.txt", *old):
            (out / each).write_bytes(b"of an earlier run")
    before = contents(out)
    with monkeypatch.context() as during:
        fail_to_rename(during, out / name)
        with pytest.raises(OutputError, match="no space is left in "):
            restored(tape, out, overwrite=there)
    assert contents(out) == before
    again = restored(tape, out, overwrite=there)
    assert again.faces == FRAMES
    after = contents(out)
    assert sorted(after) == sorted(["out.mkv", "md5.txt", *old])
    assert b"of an earlier run" not in after.values()


@pytest.mark.parametrize("there", [False, True], ids=["new", "over others"])
def test_numbered_pictures_come_all_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    out, noise = tmp_path / "out", np.random.default_rng(2)
    out.mkdir()
    for index in range(FRAMES):
        picture = noise.integers(0, 256, (64, 96, 3), np.uint8)
        write_picture(tmp_path / f"in_{index:02}.png", picture)
        if there:
            (out / f"out_{index:02}.png").write_bytes(b"of an earlier run")
    source, before = tmp_path / "in_%02d.png", contents(out)
    analysis = analysis_of_file(source, [])
    options = {"analysis": analysis, "restorer": Painter(), "overwrite": there}
    with monkeypatch.context() as during:
        fail_to_rename(during, out / "out_02.png")
        with pytest.raises(OutputError, match="no space is left in "):
            restore_video(source, out / "out_%02d.png", PICTURES, **options)
    assert contents(out) == before
    restore_video(source, out / "out_%02d.png", PICTURES, **options)
    expected = [(tmp_path / f"in_{index:02}.png").read_bytes() for index in range(FRAMES)]
    assert [value for _, value in sorted(contents(out).items())] == expected

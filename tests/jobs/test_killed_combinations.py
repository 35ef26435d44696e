"""A job killed while it enlarges, restores fields or redoes a shot goes on where it was.

As a script it is such a job: `test_killed_combinations.py NAME FOLDER` kills itself half-way.
"""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers import footage, media
from helpers.processes import environment
from helpers.scans import write_scans
from skimage import data

from vidrestore.api import restore_video
from vidrestore.common.profiles import load_settings
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.models import factory

pytestmark = pytest.mark.long

SIZE = (160, 120)
LENGTH = 60
OPTIONS = media.AS_PAINTED | {
    "encode.check": False, "deflicker.amount": 0, "detect.detector": "haar",
    "detect.remember": False, "people.recognise": False, "job.segment_frames": 48,
}  # fmt: skip


class Own(media.Painter):
    """A face in which its own is seen; the first colour where the video is made that is redone."""

    def __init__(self, rgb: tuple[float, float, float] = (0.2, 0.7, 0.4), kills_at: int = 0):
        super().__init__(rgb)
        self.faces, self._kills_at = 0, kills_at

    def __call__(self, windows: Any) -> Any:
        self.faces += len(windows)
        if self._kills_at and self.faces >= self._kills_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return (0.5 * windows[:, 0] + 0.5 * super().__call__(windows)).clamp(0, 1)


@dataclass(frozen=True)
class Kind:
    """A combination of options."""

    faces: int
    """That a whole run restores."""
    source: str = "tape.mkv"
    target: str = "out.mkv"
    options: tuple[tuple[str, Any], ...] = ()
    beside: tuple[tuple[str, str], ...] = ()
    keep_job: bool = False
    redo_shots: str | None = None

    @property
    def is_video(self) -> bool:
        return self.target.endswith(".mkv")


SCALE = (("scale.factor", 2),)
KINDS = {
    "larger": Kind(2 * LENGTH, options=SCALE, keep_job=True),
    "a larger shot": Kind(LENGTH, options=SCALE, keep_job=True, redo_shots="2"),
    "larger pictures": Kind(2 * LENGTH, "in/scan_%06d.png", "out_%06d.tif", SCALE),
    "layer of fields": Kind(
        4 * LENGTH, "fields.mkv", options=(("layer.format", "tiff"),), beside=(("layer", "layer"),)
    ),
    "swap in fields": Kind(4 * LENGTH, "fields.mkv", beside=(("before_swap", "before.mkv"),)),
}


def make_sources(folder: Path) -> None:
    shots = [footage.pan(2 * LENGTH, *SIZE, photo=photo) for photo in (None, data.astronaut())]
    rgb = [picture for shot in shots for picture in shot]
    frames = footage.images(rgb[::2], "yuv420p")
    footage.film(folder / "tape.mkv", frames, flag="progressive", lossless=True)
    write_scans(folder / "in", range(2 * LENGTH), ".png", bits=8)
    for name, shift in (("before", 0), ("fields", 60)):
        pictures = [picture.copy() for picture in rgb]
        for picture in pictures:
            picture[30:90, 50:110] = 255 - picture[30:90, 50:110] // 2 - shift
        woven = footage.woven_by_hand(footage.images(pictures, "yuv444p"), "tff")
        footage.film(folder / f"{name}.mkv", woven, flag="tff", lossless=True)


def restored(folder: Path, kind: Kind, restorer: Own, *, redo: bool = True) -> None:
    factory.open_detector = lambda *_, **__: media.OneFace()
    codec = {"encode.codec": "ffv1"} if kind.is_video else {}
    restore_video(
        folder / kind.source,
        folder / "made" / kind.target,
        load_settings(options=OPTIONS | dict(kind.options) | codec),
        restorer=restorer,
        keep_job=kind.keep_job,
        redo_shots=kind.redo_shots if redo else None,
        **{
            name: folder / ("made" if name == "layer" else ".") / path for name, path in kind.beside
        },
    )


def contents(folder: Path, kind: Kind) -> dict[str, Any]:
    """All that a job made, but for what it keeps; of a video the frames."""
    made = folder / "made"
    found: dict[str, Any] = {
        str(path.relative_to(made)): path.read_bytes()
        for path in sorted(made.rglob("*"))
        if path.is_file() and path.suffix in (".tif", ".tiff")
    }
    if kind.is_video:
        found["packets"] = media.packets(made / kind.target, 0)
        for frame in decode(made / kind.target, DecodeErrors()):
            found[str(frame.pts)] = [plane.tobytes() for plane in media.planes_of(frame.image)]
    return found


@pytest.mark.parametrize("name", KINDS)
def test_a_killed_job_goes_on_and_makes_the_same(tmp_path, monkeypatch, name):
    monkeypatch.setattr(factory, "open_detector", factory.open_detector)
    kind, found = KINDS[name], []
    for place in ("whole", "killed"):
        folder = tmp_path / place
        (folder / "made").mkdir(parents=True)
        make_sources(folder)
        if kind.redo_shots:
            restored(folder, kind, Own((0.9, 0.1, 0.1)), redo=False)
        if place == "killed":
            before = contents(folder, kind) if kind.redo_shots else None
            run = subprocess.run(
                [sys.executable, __file__, name, folder],
                capture_output=True, text=True, check=False, timeout=600, env=environment(),
            )  # fmt: skip
            assert run.returncode == -signal.SIGKILL, run.stderr
            if before is not None:
                assert contents(folder, kind) == before
            else:
                assert not [path for path in folder.glob("made/*") if path.is_file()]
                assert not list(folder.glob("made/layer/*.tif"))
        again = Own()
        restored(folder, kind, again)
        assert again.faces == kind.faces if place == "whole" else 0 < again.faces < kind.faces
        found.append(contents(folder, kind))
        kept = [path.name for path in (folder / "made").glob("*.vidrestore")]
        assert kept == ([kind.target + ".vidrestore"] if kind.keep_job else [])
    assert len(found[0]) >= LENGTH
    assert found[0] == found[1]


if __name__ == "__main__":
    chosen = KINDS[sys.argv[1]]
    restored(Path(sys.argv[2]), chosen, Own(kills_at=round(0.9 * chosen.faces)))

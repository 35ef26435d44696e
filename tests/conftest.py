"""What every test stands on: its own empty home, no thread left over, small videos."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from vidrestore.cli import main

_STAGE_NAMES = {
    "decode",
    "detect",
    "follow",
    "crop",
    "restore",
    "paste",
    "decode source",
    "decode output",
}
_SOUND_RATE = 48000

MakeVideo = Callable[..., Path]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real clips and models, which is not part of the project."""
    beside = Path(__file__).parents[2] / "shared"
    folder = Path(os.environ.get("VIDRESTORE_SHARED") or beside)
    if not (folder / "clips").is_dir():
        pytest.skip(f"{folder} holds no clips; VIDRESTORE_SHARED may name the folder that does")
    return folder


@pytest.fixture(scope="session", autouse=True)
def own_ray_token() -> Iterator[None]:
    """Ray reads its secret once in a process; by default from the home, which each test changes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN", "f" * 64)
        yield


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees what this machine's user has set or downloaded."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    for name in ("VIDRESTORE_WEIGHTS", "VIDRESTORE_FFMPEG", "MODELSCOPE_CACHE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    yield
    assert not (left := stage_threads()), f"these threads outlived the test: {left}"


def stage_threads() -> list[threading.Thread]:
    """The living threads that are ours; libraries keep pools of their own."""
    return [thread for thread in threading.enumerate() if _is_ours(thread)]


def _is_ours(thread: threading.Thread) -> bool:
    runs = getattr(getattr(thread, "_target", None), "__qualname__", "")
    return thread.name in _STAGE_NAMES or runs.startswith("StageThreads.")


@pytest.fixture
def make_video(tmp_path: Path) -> MakeVideo:
    """Writes small videos into `tmp_path`; see `write_video`."""
    return lambda name="source.mp4", **options: write_video(tmp_path / name, **options)


def write_video(
    path: Path,
    *,
    frames: int = 10,
    size: tuple[int, int] = (96, 64),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rate: int = 25,
    audio: bool = False,
    picture: Callable[[int], np.ndarray] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """A video of seeded noise, or of the RGB pictures that `picture` gives by frame index.

    `audio` adds a tone in aac; with `frames=0` nothing but the tone is there, one second of it.
    """
    with av.open(str(path), "w", container_options=container_options or {}) as container:
        options = {"g": "5"}  # short groups, so that a seek and a cut have somewhere to land
        video: Any = container.add_stream(codec, rate=rate, options=options) if frames else None
        sound: Any = container.add_stream("aac", rate=_SOUND_RATE, layout="mono") if audio else None
        if frames:
            video.width, video.height = size
            video.pix_fmt = pix_fmt
        tone = _tone(Fraction(frames or rate, rate))
        for index in range(frames or rate):
            if frames:
                container.mux(video.encode(_image(index, size, picture)))
            if audio:
                _mux_sound(container, sound, tone, Fraction(index + 1, rate))
        for stream in filter(None, (video, sound)):
            container.mux(stream.encode(None))
    return path


def _image(
    index: int, size: tuple[int, int], picture: Callable[[int], np.ndarray] | None
) -> av.VideoFrame:
    if picture is not None:
        return av.VideoFrame.from_ndarray(picture(index), "rgb24")
    noise = np.random.default_rng(index).integers(0, 256, (size[1] // 4, size[0] // 4, 3), np.uint8)
    return av.VideoFrame.from_ndarray(noise.repeat(4, axis=0).repeat(4, axis=1), "rgb24")


def _tone(seconds: Fraction) -> Iterator[av.AudioFrame]:
    samples = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * _SOUND_RATE)) / _SOUND_RATE)
    for start in range(0, len(samples), 1024):
        part = samples[None, start : start + 1024].astype(np.float32)
        frame = av.AudioFrame.from_ndarray(part, "fltp", "mono")
        frame.sample_rate, frame.pts = _SOUND_RATE, start
        frame.time_base = Fraction(1, _SOUND_RATE)
        yield frame


def _mux_sound(container: Any, sound: Any, tone: Iterator[av.AudioFrame], until: Fraction) -> None:
    """As much of the tone as the picture has come to, so that the two lie side by side."""
    for frame in tone:
        container.mux(sound.encode(frame))
        if (frame.pts + frame.samples) >= until * _SOUND_RATE:
            return


@dataclass
class Result:
    status: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """Standard error as one line: where it is broken depends on the terminal."""
        return " ".join(self.err.split())


Command = Callable[..., Result]


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Runs the command line in this process; libraries' own words to stderr are seen too."""
    handler = signal.getsignal(signal.SIGTERM)

    def run(*arguments: object) -> Result:
        with pytest.raises(SystemExit) as leaving:
            main([str(argument) for argument in arguments])
        return Result(int(leaving.value.code or 0), *capfd.readouterr())

    yield run
    signal.signal(signal.SIGTERM, handler)

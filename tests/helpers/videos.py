"""Small videos, results of commands, and threads that tests look for."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

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


def stage_threads() -> list[threading.Thread]:
    """The living threads that are ours; libraries keep pools of their own."""
    return [thread for thread in threading.enumerate() if _is_ours(thread)]


def _is_ours(thread: threading.Thread) -> bool:
    runs = getattr(getattr(thread, "_target", None), "__qualname__", "")
    return thread.name in _STAGE_NAMES or runs.startswith("StageThreads.")


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

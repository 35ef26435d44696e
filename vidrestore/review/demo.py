"""The demonstration: a small degraded video with a known clean original, restored and measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
from skimage import data

from vidrestore.analysis.pipeline import analyze_video
from vidrestore.common.events import OnEvent
from vidrestore.common.files import check_new, make_output_folder, output_file
from vidrestore.common.profiles import load_settings
from vidrestore.common.settings import Settings
from vidrestore.imaging.filters import gaussian_blur
from vidrestore.jobs.request import RestoreRequest
from vidrestore.jobs.run import run
from vidrestore.jobs.summary import Summary
from vidrestore.review.drawing import write_picture
from vidrestore.review.evaluate import Evaluation, evaluate
from vidrestore.review.portrait import bleed_chroma

_WIDTH, _HEIGHT = 640, 480
_FRAMES, _RATE = 100, 25
_SIDE_BY_SIDE = "compare.png"
_SAMPLE_RATE = 48000
_FACE_PX = (225.0, 118.0)  # where the face stands in the 512 x 512 portrait
_NOISE_SIGMA = 10.0

_Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Demo:
    """The folder of the demonstration, and its results."""

    folder: Path
    """The folder with source.mp4, truth.mp4, restored.mp4 and compare.png."""
    summary: Summary
    """The summary of the restoration."""
    evaluation: Evaluation
    """The comparison of restored.mp4 and source.mp4 with truth.mp4."""

    @property
    def gain_db(self) -> float:
        """The gain in PSNR of the faces by the restoration, in dB."""
        assert self.evaluation.source is not None
        return self.evaluation.output.face_psnr_db - self.evaluation.source.face_psnr_db


def run_demo(folder: Path, on_event: OnEvent | None = None) -> Demo:
    """Make a degraded video, restore it, and compare it with its clean original.

    The function writes source.mp4, truth.mp4, restored.mp4 and compare.png over existing files. It
    downloads nothing, since it uses the restorer "fusion" and the detector "haar". The picture is
    the portrait of Eileen Collins by NASA, in the public domain, which scikit-image contains.

    Args:
        folder: The folder for the files; it is made where it is missing.
        on_event: Receives the progress and notices. Default: none.

    Returns:
        The results.

    Raises:
        OutputError: A file cannot be written.
    """
    make_output_folder(folder)
    source, truth, restored = (folder / f"{n}.mp4" for n in ("source", "truth", "restored"))
    for path in (source, truth, restored, folder / _SIDE_BY_SIDE):
        check_new(path, overwrite=True)
    pictures = list(_moving_portrait())
    _write(truth, iter(pictures), crf=4)
    _write(source, _degraded(pictures), crf=20)
    settings = demo_settings()
    analysis = analyze_video(source, settings, on_event=on_event)
    request = RestoreRequest(source, restored, settings, analysis=analysis, overwrite=True)
    summary = run(request, on_event)
    evaluation = evaluate(restored, source, settings, reference=truth, analysis=analysis)
    _write_comparison(folder / _SIDE_BY_SIDE, [source, restored, truth])
    return Demo(folder, summary, evaluation)


def demo_settings() -> Settings:
    """Return the settings with which vidrestore needs no weight file."""
    return load_settings(
        options={
            "restore.restorer": "fusion",
            "detect.detector": "haar",
            "detect.mesh": "off",  # so that the result does not depend on what is installed
        }
    )


def _moving_portrait() -> Iterator[_Picture]:
    """Yield (480, 640, 3) RGB of a slow, hand-held pan, zoom and roll over the portrait."""
    portrait = data.astronaut()
    for i in range(_FRAMES):
        t = i / _RATE
        zoom = 1.25 + 0.12 * np.sin(0.9 * t)
        roll_degrees = 3.0 * np.sin(1.1 * t + 0.4)
        x = _FACE_PX[0] + 14 * np.sin(0.8 * t) + 0.7 * np.sin(11 * t)
        y = _FACE_PX[1] + 10 * np.cos(0.6 * t) + 0.5 * np.sin(13 * t)
        matrix = cv2.getRotationMatrix2D((x, y), roll_degrees, zoom)
        matrix[:, 2] += (_WIDTH / 2 - x, 0.36 * _HEIGHT - y)
        yield np.asarray(
            cv2.warpAffine(
                portrait,
                matrix,
                (_WIDTH, _HEIGHT),
                flags=cv2.INTER_CUBIC,
                borderMode=cv2.BORDER_REFLECT_101,
            ),
            np.uint8,
        )


def _degraded(pictures: list[_Picture]) -> Iterator[_Picture]:
    """Degrade like a tape: blur, chroma shifted to the right, new noise in each frame."""
    noise = np.random.default_rng(20)
    for picture in pictures:
        soft = gaussian_blur(picture, 1.1).astype(np.float32)
        bled = bleed_chroma(soft, (2.5, 0.5), 1.5)
        grainy = bled + noise.normal(0, _NOISE_SIGMA, bled.shape)
        yield np.clip(np.rint(grainy), 0, 255).astype(np.uint8)


def _write(path: Path, pictures: Iterator[_Picture], *, crf: int) -> None:
    """Write an H.264 file with the pictures and four seconds of a quiet chord."""
    with output_file(path) as part, av.open(str(part), "w") as container:
        video: Any = container.add_stream(
            "libx264", rate=_RATE, options={"crf": str(crf), "preset": "veryfast"}
        )
        video.width, video.height, video.pix_fmt = _WIDTH, _HEIGHT, "yuv420p"
        context: Any = video.codec_context
        context.thread_count = 2
        # swscale converts RGB to BT.601 with limited range by default, so the stream states that.
        context.colorspace, context.color_range = 6, 1
        audio: Any = container.add_stream("aac", rate=_SAMPLE_RATE, layout="mono")
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(video.encode(frame.reformat(format="yuv420p", dst_colorspace="ITU601")))
        container.mux(video.encode(None))
        sound = av.AudioFrame.from_ndarray(_chord()[None], format="fltp", layout="mono")
        sound.sample_rate = _SAMPLE_RATE
        sound.time_base = Fraction(1, _SAMPLE_RATE)
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))


def _chord() -> npt.NDArray[np.float32]:
    t = np.arange(_FRAMES * _SAMPLE_RATE // _RATE) / _SAMPLE_RATE
    tones = sum(np.sin(2 * np.pi * f * t) for f in (220.0, 277.18, 329.63))
    return (0.05 * np.asarray(tones) * np.minimum(1, 4 - t)).astype(np.float32)


def _write_comparison(path: Path, videos: list[Path]) -> None:
    """Write the face of the middle frame of each video, at twice its size, side by side."""
    tiles = []
    for video in videos:
        with av.open(str(video)) as container:
            for i, frame in enumerate(container.decode(video=0)):
                if i == _FRAMES // 2:
                    picture = frame.to_ndarray(format="bgr24")
        height, width = 240, 210
        x, y = (_WIDTH - width) // 2, int(0.36 * _HEIGHT) - height // 2
        face = cv2.resize(
            picture[y : y + height, x : x + width], None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC
        )
        label = np.full((36, face.shape[1], 3), 255, np.uint8)
        cv2.putText(
            label, video.stem, (8, 26), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (0, 0, 0), 1, cv2.LINE_AA
        )
        tiles.append(np.vstack([label, face]))
    write_picture(path, np.hstack(tiles)[..., ::-1])

"""Small pictures, faces and streams that tests make for themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import torch

from vidrestore.analysis.result import Analysis
from vidrestore.analysis.shots import ShotFinder
from vidrestore.analysis.tracks import Track
from vidrestore.common.settings import Shots
from vidrestore.imaging import color
from vidrestore.imaging.frame import Frame, VideoInfo
from vidrestore.imaging.geometry import Rect, apply, invert, template
from vidrestore.imaging.planes import checksum
from vidrestore.media.decode import DecodeErrors, TimeRange, decode
from vidrestore.media.probe import probe
from vidrestore.models.detectors import Detection, Detector, detection
from vidrestore.models.restorers import Restorer
from vidrestore.restoration.faces import Face

PLANAR_FORMATS = (
    "yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuv411p", "gray", "yuv420p10le", "yuv422p10le",
    "yuv444p12le", "yuva420p", "gbrp",
)  # fmt: skip


# Under these settings a face comes out as it was painted, whatever that may be.
AS_PAINTED = {
    "guard.identity": 0, "guard.features": 0, "paste.occluders": False, "paste.color": 0,
    "paste.sharpness": 0, "grain.match": 0,
}  # fmt: skip


def info_of(width: int, height: int, pixel_format: str = "yuv420p", **changes: Any) -> VideoInfo:
    """A stream's description without the stream."""
    info = VideoInfo(
        stream_index=0,
        codec="h264",
        width=width,
        height=height,
        time_base=Fraction(1, 12800),
        frame_rate=Fraction(25),
        frame_count_from_header=0,
        duration_seconds_from_header=0.0,
        sample_aspect_ratio=Fraction(1),
        display_orientation=(1, 0, 0, 1),
        display_matrix=None,
        pixel_format=pixel_format,
        bit_depth=av.VideoFormat(pixel_format, 16, 16).components[0].bits,
        matrix="bt709",
        full_range=pixel_format.startswith("yuvj"),
        tags=(0, 2, 2, 2),
        field_order="progressive",
    )
    return replace(info, **changes)


def random_image(width: int, height: int, pixel_format: str, seed: int) -> Any:
    """An av.VideoFrame whose samples are all random."""
    random = np.random.default_rng(seed)
    image = av.VideoFrame(width, height, pixel_format)
    for index in range(len(image.planes)):
        view = color.plane(image, index)
        view[...] = random.integers(0, 2 ** image.format.components[0].bits, view.shape)
    return image


def mild_image(width: int, height: int, pixel_format: str, seed: int) -> Any:
    """Random samples whose colours all lie between black and white."""
    random = np.random.default_rng(seed)
    image = av.VideoFrame(width, height, pixel_format)
    step = 2 ** (image.format.components[0].bits - 8)
    for index in range(len(image.planes)):
        view = color.plane(image, index)
        is_chroma = index in (1, 2) and not pixel_format.startswith("gbr")
        low, high = (116, 140) if is_chroma else (90, 160)
        view[...] = random.integers(low * step, high * step, view.shape)
    return image


def planes_of(image: Any) -> list[npt.NDArray[Any]]:
    """Copies of all planes, without padding."""
    return [color.plane(image, i).copy() for i in range(len(image.planes))]


def frames_of(images: Sequence[Any]) -> Iterator[Frame]:
    for index, image in enumerate(images):
        yield Frame(index, 512 * index, image, 512)


def plain_track(
    frame_count: int,
    *,
    centre: tuple[float, float],
    side: float,
    first_frame: int = 0,
    track_id: int = 0,
    work_px: int = 64,
) -> Track:
    """A face that stands still: an upright square crop around `centre`."""
    x, y = centre[0] - side / 2, centre[1] - side / 2
    matrix = np.array([[1 / side, 0, (0.5 - x) / side], [0, 1 / side, (0.5 - y) / side]])
    points = apply(invert(matrix), template("gpen"))
    return Track(
        track_id=track_id,
        person_id=track_id + 1,
        first_frame=first_frame,
        work_px=work_px,
        matrices=np.repeat(matrix[None], frame_count, axis=0).astype(np.float32),
        landmarks=np.repeat(points[None], frame_count, axis=0).astype(np.float32),
        score=np.ones(frame_count, np.float32),
        strength=np.ones(frame_count, np.float32),
        detected=np.ones(frame_count, np.bool_),
    )


def analysis_of(info: VideoInfo, frame_count: int, tracks: Sequence[Track]) -> Analysis:
    return Analysis(
        info=info,
        pts=np.arange(frame_count, dtype=np.int64) * 512,
        crc32=np.zeros(frame_count, np.uint32),
        shots=((0, frame_count),),
        tracks=tuple(tracks),
    )


def analysis_of_file(
    path: Path, tracks: Sequence[Track] = (), span: TimeRange | None = None
) -> Analysis:
    """One shot with the given tracks, of the file's own frames."""
    info = probe(path).info
    frames = decode(path, DecodeErrors(), span, like=info)
    seen = [(frame.pts, checksum(frame.image)) for frame in frames]
    pts, crc32 = np.array(seen, np.int64).reshape(-1, 2).T
    known = analysis_of(info, len(pts), tracks)
    return replace(known, pts=pts, crc32=crc32.astype(np.uint32))


def plain_face(source: torch.Tensor, *, track_id: int = 0, strength: float = 1.0) -> Face:
    side = source.shape[-1]
    matrix = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    return Face(track_id, side, matrix, source, strength)


class Painter(Restorer):
    """A restorer that paints one colour over everything."""

    name = "painter"
    size: int | None = None
    reach_frames = 0
    template = "gpen"

    def __init__(self, rgb: tuple[float, float, float] = (0.2, 0.7, 0.4)) -> None:
        self.rgb = torch.tensor(rgb)[:, None, None]
        self.cache_key = f"painter of {rgb}"
        self.batches: list[int] = []

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(windows))
        return self.rgb.expand(len(windows), 3, *windows.shape[-2:]).clone()


class Unchanged(Restorer):
    """A restorer that returns what it was given."""

    name = "unchanged"
    size: int | None = None
    reach_frames = 0
    template = "gpen"

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        return windows[:, self.reach_frames].clone()


def write_video(
    path: Path,
    images: Sequence[Any],
    *,
    codec: str = "ffv1",
    pts: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 12800),
    options: dict[str, str] | None = None,
    prepare: Any = None,
) -> Path:
    """A file with one video stream of the given frames and times; `prepare(stream)` sets more."""
    times = list(pts) if pts is not None else [512 * i for i in range(len(images))]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height = images[0].width, images[0].height
        stream.pix_fmt = images[0].format.name
        stream.codec_context.time_base = time_base
        stream.codec_context.thread_count = 1
        if prepare is not None:
            prepare(stream)
        for image, time in zip(images, times, strict=True):
            image.pts, image.time_base = time, time_base
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    return path


def packets(path: Path, stream_index: int) -> list[tuple[float, bytes]]:
    """(seconds, payload) of every packet of a stream."""
    with av.open(str(path)) as container:
        stream = container.streams[stream_index]
        return [(float(p.pts * p.time_base), bytes(p)) for p in container.demux(stream) if p.size]


def frame_times(path: Path) -> list[Fraction]:
    """Exact times of the frames of the best video stream, in seconds."""
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        assert stream is not None
        return [f.pts * Fraction(stream.time_base) for f in container.decode(stream)]


class OneFace(Detector):
    """A detector that sees the same face in every picture, of 160 x 120 pixels for one."""

    coarse = False

    def __init__(self) -> None:
        self.pictures = 0

    def __call__(self, picture: Any) -> list[Detection]:
        self.pictures += 1
        points = [[65, 50], [95, 50], [80, 65], [68, 80], [92, 80]]
        return [detection([45, 25, 115, 95], points, 0.9)]


def find_shots(
    thumbnails: Iterable[Any], *, cut: float, contrast: float
) -> tuple[tuple[int, int], ...]:
    """Shots of these small pictures; see `ShotFinder`."""
    finder = ShotFinder(Shots(cut=cut, contrast=contrast))
    for thumbnail in thumbnails:
        finder.add(thumbnail)
    return finder.shots()


def rgb_of(image: av.VideoFrame, info: VideoInfo) -> np.ndarray:
    """(h, w, 3) R'G'B' in [0, 1]."""
    whole = Rect(0, 0, image.width, image.height)
    return color.region_rgb(image, whole, info).permute(1, 2, 0).numpy().astype(np.float64)


def all_rgb(path: Path) -> list[np.ndarray]:
    """R'G'B' of all frames."""
    info = probe(path).info
    return [rgb_of(frame.image, info) for frame in decode(path, DecodeErrors())]

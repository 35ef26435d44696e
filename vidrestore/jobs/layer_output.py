"""`--layer`: the restored faces and their matte beside the output, segment by segment."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from vidrestore.analysis.edl import later
from vidrestore.analysis.result import Analysis
from vidrestore.common.errors import OutputError, UsageError
from vidrestore.imaging.frame import LayerRange, VideoInfo
from vidrestore.imaging.planes import layout, plane
from vidrestore.jobs.work_folder import Part, WorkFolder, sealed
from vidrestore.media.codecs import Encoding
from vidrestore.media.concat import join
from vidrestore.media.decode import Damage, decode
from vidrestore.media.ffmpeg import run_ffmpeg
from vidrestore.media.source import open_source
from vidrestore.restoration.compositing.layers import LayerFiles

_STREAMS = ("fill", "matte")
_PICTURE = re.compile(r"(fill|matte)_\d{6,}\.tif")
_DEFLATE = 8  # libtiff's COMPRESSION_ADOBE_DEFLATE
# ProRes has no number for how finely it codes, but for how many bits of a macroblock it may use:
# with so many, and no frequency coded more coarsely than another, it is as fine as it gets: of ten
# bits half a code value off, by the root of the mean square.
_PRORES = {"profile": "4444xq", "bits_per_mb": "8192", "quant_mat": "default"}
_LOSSY = (
    "the layer is in ProRes, which is lossy: with it the source comes to the output but for two "
    "code values of 8 bits or six of 10; --set layer.format=tiff gives it to one"
)
# Ten bits of narrow range, but for the codes of synchronisation.
_PRORES_HOLDS = LayerRange(219 * 4, -0.06, 1.08)
_TIFF_HOLDS = LayerRange(2**16 - 1, 0.0, 1.0)
_FFV1 = {"level": "3", "g": "1", "slicecrc": "1"}


@dataclass(frozen=True, slots=True)
class Layering:
    """The streams of the fill and of the matte, in parts that lie beside those of the video."""

    folder: Path
    """Where they go once they are whole."""
    stem: str
    """Of the names of the files there."""
    form: str
    """prores or tiff: see the setting."""
    work: WorkFolder

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user must know of the files, in sentences."""
        return (_LOSSY,) if self.form == "prores" else ()

    def files(self, part: str, work: WorkFolder) -> LayerFiles:
        """For a try at a part of the video, by its name in the work folder."""
        fill, matte = (work.place(f"{part}.{stream}", self._suffix) for stream in _STREAMS)
        if self.form == "prores":
            # In narrow range, as editing programs take every ProRes file to be.
            one = Encoding("prores", "prores_ks", "yuv444p10le", ".mov", _PRORES)
            return LayerFiles(fill, matte, (one, one), _PRORES_HOLDS)
        color, gray = (
            Encoding("ffv1", "ffv1", name, ".mkv", _FFV1) for name in ("gbrp16le", "gray16le")
        )
        return LayerFiles(fill, matte, (color, gray), _TIFF_HOLDS)

    def has(self, part: str, origin: str) -> bool:
        """Whether both streams of a part are done."""
        return all(self._find(part, stream, origin) is not None for stream in _STREAMS)

    def finish(self, part: str, origin: str, streams: Sequence[Part]) -> None:
        """Both streams of the part, in the order of `files`, are those of that name."""
        for stream, written in zip(_STREAMS, streams, strict=True):
            self.work.finish(f"{part}.{stream}", self._origin(origin), written)

    def join(
        self,
        parts: Sequence[tuple[str, str]],
        times: Sequence[Sequence[int]],
        info: VideoInfo,
        all_origin: str,
    ) -> None:
        """Make one stream of all parts, which are given by name and origin, with their pts."""
        wholes = []
        for stream in _STREAMS:
            found = [self._find(name, stream, origin) for name, origin in parts]
            paths = [path for path in found if path is not None]
            whole = self.work.place(f"video.{stream}", self._suffix)
            if len(paths) == 1:
                paths[0].replace(whole)
            else:
                join(paths, whole, times, info)
            wholes.append(sealed(whole, {}))
        self.finish("video", all_origin, wholes)

    def deliver(self, source: Path, analysis: Analysis, *, is_part: bool) -> None:
        """Write the files into the folder, from the joined streams.

        `source` is what they lie over, of which the frames of `analysis` are the whole, or a part;
        the times of a part begin at zero, as those of the output do.
        """
        paths = [self.work.path / f"video.{stream}{self._suffix}" for stream in _STREAMS]
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            if self.form == "prores":
                code = _timecode(source, analysis)
                for stream, path in zip(_STREAMS, paths, strict=True):
                    target = self.folder / f"{self.stem}.{stream}.mov"
                    _remux(path, target, code, is_part=is_part)
                return
            for old in self._pictures():
                old.unlink()
            for stream, path in zip(_STREAMS, paths, strict=True):
                _write_pictures(path, self.folder, stream)

    def check(self, target: Path, others: Sequence[Path], *, overwrite: bool) -> None:
        """Refuse, before any work, a folder that cannot be used or holds such files already."""
        with _writing(self.folder):
            if self.folder.exists() and not self.folder.is_dir():
                raise UsageError(f"the layer {self.folder} is a file; give a folder")
            if not self.folder.exists() and not self.folder.absolute().parent.is_dir():
                raise OutputError(
                    f"the folder {self.folder.parent} for the layer does not exist; create it"
                )
            if self.folder.is_dir() and not os.access(self.folder, os.W_OK | os.X_OK):
                raise OutputError(
                    f"the folder {self.folder} for the layer cannot be written to; choose another"
                )
            movies = [self.folder / f"{self.stem}.{stream}.mov" for stream in _STREAMS]
            known = {path.resolve() for path in (target, *others)}
            if self.form == "prores" and known.intersection(path.resolve() for path in movies):
                raise UsageError(
                    f"the layer would be written over a file of this run in {self.folder}; "
                    "choose another folder"
                )
            there = movies if self.form == "prores" else list(self._pictures())
            if not overwrite and (old := next((p for p in there if p.exists()), None)):
                raise UsageError(f"the layer {old} exists already; add --overwrite to replace it")

    def _pictures(self) -> Iterator[Path]:
        if self.folder.is_dir():
            yield from (p for p in self.folder.iterdir() if _PICTURE.fullmatch(p.name))

    @property
    def _suffix(self) -> str:
        return ".mov" if self.form == "prores" else ".mkv"

    def _origin(self, origin: str) -> str:
        return f"{origin}-{self.form}"

    def _find(self, part: str, stream: str, origin: str) -> Path | None:
        done = self.work.find(f"{part}.{stream}", self._suffix, self._origin(origin))
        return None if done is None else done.path


def _timecode(source: Path, analysis: Analysis) -> str | None:
    """Of the first frame; None where the source has no time code."""
    with open_source(source) as container:
        tags = [container.metadata, *(stream.metadata for stream in container.streams)]
        stream = container.streams[analysis.info.stream_index]
        begin = int(stream.start_time or 0)
    code = next((tag["timecode"] for tag in tags if "timecode" in tag), None)
    rate, clock = analysis.info.frame_rate, analysis.info.time_base
    frames = round((int(analysis.pts[0]) - begin) * clock * rate)
    return None if code is None else later(code, frames, rate)


def _remux(video: Path, target: Path, timecode: str | None, *, is_part: bool) -> None:
    part = target.with_name(f".{target.stem}.part.mov")
    code = [] if timecode is None else ["-timecode", timecode]
    times = [] if is_part else ["-copyts"]
    status, said = run_ffmpeg(
        ["-v", "error", "-y", "-i", str(video.absolute()), "-map", "0:v:0", "-c", "copy", *times,
         *code, "-movie_timescale", "90000", str(part.absolute())]
    )  # fmt: skip
    if status:
        part.unlink(missing_ok=True)
        raise OutputError(f"the layer {target} cannot be written: {said.strip()}")
    part.replace(target)


def _write_pictures(video: Path, folder: Path, stream: str) -> None:
    """A TIFF of 16 bits, full range, for each frame, numbered from 0."""
    for frame in decode(video, Damage()):
        # OpenCV has its colours in the order blue, green, red.
        order = layout(frame.image).planes[::-1]
        picture = np.dstack([plane(frame.image, index) for index in order])
        target = folder / f"{stream}_{frame.index:06d}.tif"
        part = folder / f".{stream}.part.tif"
        if not cv2.imwrite(str(part), picture, [cv2.IMWRITE_TIFF_COMPRESSION, _DEFLATE]):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(target))
        part.replace(target)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """OutputError, in one sentence, for what the file system refuses."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OutputError(f"the layer {folder} cannot be written: {reason}") from error

"""Output of pictures in place of a video: the checks before the work, and the writing of the files.

Both passes treat pictures as the frames of a video, which the work folder holds in a lossless
codec. In the end vidrestore writes a file for each frame that changed, and copies the file of the
source for each other frame.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vidrestore.analysis.result import Analysis
from vidrestore.common.counting import counted
from vidrestore.common.errors import InputError, OutputError, not_written
from vidrestore.common.files import output_place, sync_file
from vidrestore.common.settings import Settings
from vidrestore.common.system import usable_cores
from vidrestore.common.threads import StageThreads
from vidrestore.imaging.color import region_rgb
from vidrestore.imaging.frame import Frame, VideoInfo
from vidrestore.imaging.geometry import Rect
from vidrestore.imaging.planes import checksum, layout, plane
from vidrestore.media.codecs import Encoding, plan_encoding
from vidrestore.media.containers import RemuxPlan
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.media.images import (
    Pictures,
    dpx,
    exr,
    files,
    jpeg,
    kind_of,
    numbered,
    pictures_of,
)
from vidrestore.media.images.header import Header, Samples
from vidrestore.media.source import PICTURES_PER_SECOND

MOST_WRITING = 4
"""The greatest number of pictures that are written at once."""
_JPEG_LEVELS = {"high": (1, 98), "small": (5, 86)}
"""Level -> (quantizer of the encoder for Y'CbCr, quality of the encoder for R'G'B')."""


@dataclass(frozen=True, slots=True)
class Job:
    """The conversion of the restored frames to files."""

    source: Pictures
    """The pictures of the source."""
    target: Path
    """The output: a file, or a pattern of numbered files."""
    header: Header
    """The header of the first picture of the source."""
    quality: str
    """The setting `encode.quality`."""
    factor: int
    """The factor from the sides of the source's pictures to those of the output's, 1, 2 or 4."""
    notes: tuple[str, ...]
    """Notices for the user about what the output cannot keep, one sentence each."""

    @property
    def kind(self) -> str:
        """The format of the output, such as "png"."""
        return kind_of(self.target)

    def write(self, video: Path, folder: Path, analysis: Analysis) -> Path:
        """Write the frames of a lossless video as pictures.

        Where a frame is equal to its source frame and both have one format, the picture is a copy
        of the source file.

        Args:
            video: The restored frames, in a lossless codec.
            folder: The folder for the pictures, which this method creates; it must not exist.
            analysis: The analysis of the output's frames, with the checksums of the source's.

        Returns:
            The file in `folder`, or the pattern of the files there.

        Raises:
            OutputError: A picture cannot be written, or the video has another number of frames.
        """
        folder.mkdir()
        sources, targets = self.source.files, self._targets(folder)
        several = min(usable_cores(), MOST_WRITING)

        def write(frame: Frame) -> int:
            was, now = sources[frame.index], targets[frame.index]
            may_be_copied = self.factor == 1 and kind_of(was) == self.kind
            if may_be_copied and checksum(frame.image) == int(analysis.crc32[frame.index]):
                shutil.copyfile(was, now)
            else:
                now.write_bytes(self._file(was, frame, analysis.info))
            sync_file(now)
            return frame.index

        try:
            with StageThreads() as threads:
                frames = threads.background(decode(video, DecodeErrors()), depth=2, name="decode")
                done = list(threads.each(frames, [write] * several, depth=1, name="write"))
        except OSError as error:
            raise not_written("writing the pictures", self.target.parent, error) from error
        if done != list(range(len(targets))):
            raise OutputError(
                f"the work folder gave {len(done)} of {counted(len(targets), 'picture')}; run the "
                "command again with --no-resume"
            )
        return folder / self.target.name

    def moves(self, folder: Path) -> list[tuple[Path, Path]]:
        """List the pictures that `write` wrote, with their final places.

        Args:
            folder: The folder of the pictures.

        Returns:
            (picture, place) for each.

        Raises:
            UsageError: There is something at a place that must not be replaced; see
                `vidrestore.common.files.output_place`.
        """
        places = [
            output_place(target, "the output") for target in self._targets(self.target.parent)
        ]
        return list(zip(self._targets(folder), places, strict=True))

    def _targets(self, folder: Path) -> list[Path]:
        """List the paths of all pictures in a folder."""
        path = folder / self.target.name
        if self.source.numbers is None:
            return [path]
        return [numbered(path, number) for number in self.source.numbers]

    def _file(self, was: Path, frame: Frame, info: VideoInfo) -> bytes:
        """Encode a frame, with the metadata of the source file `was`."""
        image = frame.image
        if self.kind != "jpeg":
            samples = samples_of(image, self.header, info)
            return files.with_samples(was, samples, self.kind, self.factor)
        quantizer, quality = _jpeg_level(self.quality)
        if (encoded := jpeg.encode(image, quantizer)) is None:
            samples = samples_of(image, self.header, info)
            how = [
                *(cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1),
                *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
            ]
            _, data = cv2.imencode(".jpg", samples[..., ::-1], how)
            encoded = data.tobytes()
        return files.with_jpeg(was, encoded, self.factor)


def plan_pictures(source: Path, target: Path, info: VideoInfo, settings: Settings) -> Job:
    """Plan the output of pictures, and check, before any work, that it can be written.

    Args:
        source: A picture, or a pattern of numbered pictures.
        target: The output, of the same kind.
        info: The properties of the source's frames.
        settings: `encode.quality` and `scale.factor` count.

    Returns:
        The plan.

    Raises:
        OutputError: The format of the output cannot hold the pictures, or the quality does not
            suit the format.
        InputError: The source has an encoding that vidrestore cannot write.
    """
    pictures, kind, quality = pictures_of(source), kind_of(target), settings.encode.quality
    factor = settings.scale.factor
    first = pictures.files[0]
    header, own = files.read_header(first), kind_of(source)
    if kind == "jpeg" and (header.bits > 8 or header.channels in (2, 4)):
        raise OutputError(
            f"a JPEG cannot hold {header.shape}, which {first.name} has; name the output .png or "
            ".tif"
        )
    if kind != own and {"dpx", "exr"} & {kind, own}:
        raise OutputError(
            f"vidrestore cannot convert {own} pictures to {kind}; name the output .{own}"
        )
    if kind in ("dpx", "exr"):
        _check_held(first, header, info)
    longest_px = factor * max(header.width, header.height)
    if kind == "jpeg" and longest_px > jpeg.LONGEST_SIDE_PX:
        raise OutputError(
            f"a JPEG cannot have a side of {longest_px} pixels, only of {jpeg.LONGEST_SIDE_PX}; "
            "use a smaller --scale, or name the output .png or .tif"
        )
    if kind == "jpeg" and quality == "archive":
        raise OutputError(
            "a JPEG is never lossless; name the output .png for encode.quality archive"
        )
    if kind == "jpeg":
        _jpeg_level(quality)
    elif quality not in ("high", "archive"):
        raise OutputError(f"{kind} pictures are lossless; remove encode.quality {quality}")
    # Each JPEG can lose other metadata, so all files are checked.
    checked = pictures.files if "jpeg" in (kind, own) else [first]
    changes = chain.from_iterable(files.metadata_changes(path, kind, factor) for path in checked)
    notes = list(dict.fromkeys(changes))
    if kind == "jpeg":
        notes.append(
            "pictures with restored faces are encoded as JPEG anew, which is lossy: pixels outside "
            "the faces change a little; .png or .tif keeps them"
        )
    return Job(pictures, target, header, quality, factor, tuple(notes))


def _check_held(path: Path, header: Header, info: VideoInfo) -> None:
    """Raise InputError for a file that cannot be written again from its decoded pixels."""
    frame = next(decode(path, DecodeErrors()))
    samples = samples_of(frame.image, header, info)
    with files.open_picture(path) as data:
        if header.kind == "dpx" and not dpx.matches_pixels(data, samples):
            raise InputError(
                f"{path} stores its pixels in a way that vidrestore cannot write; save it as "
                "R'G'B' of 10 bits in filled words, or of 16 bits"
            )
        if header.kind == "exr" and not exr.matches_pixels(data, samples):
            raise InputError(
                f"the decoder and the OpenEXR library read different pixels from {path}; save it "
                "in scan lines of half floats with ZIP compression"
            )


def lossless_ways(info: VideoInfo, settings: Settings) -> tuple[Encoding, ...]:
    """Choose the lossless encodings for the frames in the work folder.

    Args:
        info: The properties of the output's frames.
        settings: `encode.preset` and `encode.threads` count.

    Returns:
        The encodings, the preferred one first.
    """
    how = settings.encode
    return plan_encoding(
        info, Path("video.mkv"), codec="ffv1", quality="high", preset=how.preset,
        threads=how.threads, hardware=False, pixel_format="source",
    )  # fmt: skip


def streams_of_pictures(info: VideoInfo) -> RemuxPlan:
    """Plan the streams of the lossless video: the frames alone.

    Args:
        info: The properties of the output's frames.

    Returns:
        The plan.
    """
    return RemuxPlan("matroska", (info.stream_index,), {}, {}, {})


def at_own_clock(analysis: Analysis) -> Analysis:
    """Give an analysis of pictures the time base in which picture files are read.

    Args:
        analysis: The analysis.

    Returns:
        The same analysis in that time base; the ticks stay as they are.
    """
    clock = Fraction(1, PICTURES_PER_SECOND)
    return replace(analysis, info=replace(analysis.info, time_base=clock))


def samples_of(image: Any, header: Header, info: VideoInfo) -> Samples:
    """Extract the samples of a decoded picture; Y'CbCr becomes R'G'B' of 8 bits.

    Args:
        image: The decoded picture, an `av.VideoFrame`.
        header: The header of the file; its number of channels counts.
        info: The properties of the frame, such as its color matrix.

    Returns:
        (height, width, channels) samples in the order R, G, B, alpha or gray, alpha.
    """
    how = layout(image)
    if how.is_rgb:
        order = [*how.planes, *([3] if header.channels == 4 else [])]
    elif header.channels <= 2:
        order = [0, 3][: header.channels]
    else:
        whole = Rect(0, 0, image.width, image.height)
        rgb = region_rgb(image, whole, info).numpy() * 255
        return np.ascontiguousarray(np.rint(rgb).clip(0, 255).astype(np.uint8).transpose(1, 2, 0))
    return np.dstack([plane(image, index) for index in order])


def _jpeg_level(quality: str) -> tuple[int, int]:
    """Return the quantizer, 1 (best) to 31, and the about equal quality, 100 (best) to 1."""
    if quality in _JPEG_LEVELS:
        return _JPEG_LEVELS[quality]
    quantizer = int(quality)
    if not 1 <= quantizer <= 31:
        raise OutputError(f"the quality of JPEG must be from 1 (best) to 31, not {quality}")
    return quantizer, max(1, 101 - 3 * quantizer)

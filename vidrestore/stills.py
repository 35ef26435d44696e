"""Pictures in place of a video: what is refused, how they are probed, and how they are written.

They go through both passes as the frames of a video, which is encoded without loss in the work
folder. In the end each frame that changed becomes a file again; of the others the file is copied.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vidrestore import logcurves
from vidrestore.codecs import Encoding, plan_encoding
from vidrestore.color import region_rgb
from vidrestore.config import Settings
from vidrestore.containers import RemuxPlan
from vidrestore.errors import InputError, OutputError, UsageError, not_written
from vidrestore.frame import Analysis, Frame, VideoInfo
from vidrestore.framemd5 import check_listing_path
from vidrestore.geometry import Rect
from vidrestore.opening import PICTURES_PER_SECOND
from vidrestore.pictures import (
    Pictures,
    dpx,
    exr,
    files,
    is_pattern,
    is_pictures,
    jpeg,
    kind_of,
    numbered,
    numbers_of,
    pictures_of,
)
from vidrestore.pictures.header import Header, Samples
from vidrestore.pictures.tags import turn_of
from vidrestore.planes import layout, plane
from vidrestore.processors import usable_cores
from vidrestore.stages.decode import Damage, decode, probe
from vidrestore.stages.detect import checksum
from vidrestore.threads import StageThreads

_USUAL_FPS = 24
_CLOCK = 1001  # the largest denominator of a rate, as 24000/1001 has it
_MOST_WRITING = 4
_JPEG_LEVELS = {"high": (1, 98), "small": (5, 86)}
"""Quantiser of the encoder of Y'CbCr, quality of that of R'G'B'."""


def probed(source: Path, settings: Settings) -> VideoInfo:
    """`probe`, and of pictures, which are all looked at, what only their files or nobody says.

    InputError, naming the file, for one that is not like the first or cannot be written again.
    """
    if settings.decode.fps is not None and not is_pattern(source):
        raise UsageError(f"--fps is for numbered pictures, such as name_%06d.tif, not for {source}")
    if not is_pictures(source):
        return _with_curve(probe(source), settings.decode.input_curve)
    pictures = pictures_of(source)
    header = files.check_alike(pictures)
    if (is_light := kind_of(source) == "exr") and settings.decode.input_curve:
        raise UsageError(
            f"{source.name} holds light itself, not light in a curve; leave --input-curve out"
        )
    info = _with_curve(probe(source), settings.decode.input_curve)
    if is_light:
        info = replace(info, transfer="table", curve=exr.display_table())
    rate = Fraction(settings.decode.fps or _USUAL_FPS).limit_denominator(_CLOCK)
    count = len(pictures.files)
    return replace(
        info,
        time_base=1 / rate,
        frame_rate=rate,
        frame_count_from_header=count,
        duration_seconds_from_header=float(count / rate),
        display_orientation=turn_of(header.orientation),
        sample_aspect_ratio=Fraction(1),
        field_order="progressive",
    )


def _with_curve(info: VideoInfo, name: str) -> VideoInfo:
    if not name:
        return info
    if name in logcurves.NAMES:
        return replace(info, transfer=name)
    return replace(info, transfer="table", curve=logcurves.read_cube(Path(name)))


def check_picture_paths(
    source: Path, target: Path, framemd5: Path | None, *, overwrite: bool
) -> None:
    """Refuse before any work what could harm a file or cannot end well."""
    if source.is_dir():
        raise InputError(
            f"{source} is a folder; name the pictures in it by a pattern, such as "
            f"{source / 'name_%06d.tif'}"
        )
    for path, other in ((source, target), (target, source)):
        if not is_pictures(path):
            raise UsageError(
                f"{path.name} is no picture and {other.name} is one; pictures become pictures, "
                "in .tif, .png, .jpg, .dpx or .exr, and videos become videos"
            )
        kind_of(path)
    if is_pattern(source) != is_pattern(target):
        one = source if is_pattern(source) else target
        raise UsageError(
            f"{one.name} names many pictures and the other path one; give both with a number, "
            "such as name_%06d.tif, or none"
        )
    pictures = pictures_of(source)
    if framemd5 is not None:
        if is_pictures(framemd5):
            raise UsageError(f"the listing {framemd5} has the name of a picture; name it .txt")
        check_listing_path(framemd5, source, target, overwrite=overwrite)
    if target.is_dir():
        raise UsageError(f"the output {target} is a folder; give a file name in it")
    if not target.parent.is_dir():
        raise OutputError(f"the folder {target.parent} for the output does not exist; create it")
    if pictures.numbers is None:
        if target.exists() and target.samefile(source):
            raise UsageError(f"the output {target} is the input itself; choose another name")
        if target.exists() and not overwrite:
            raise UsageError(f"the output {target} exists already; add --overwrite to replace it")
        return
    names = {numbered(target, number).name for number in pictures.numbers}
    if target.parent.samefile(source.parent) and names & {path.name for path in pictures.files}:
        raise UsageError(f"the output {target} is the input itself; choose another folder or name")
    if not (there := numbers_of(target)):
        return
    example = numbered(target, there[0])
    if not overwrite:
        raise UsageError(
            f"{len(there)} pictures of the output exist already, such as {example}; add "
            "--overwrite to replace them"
        )
    if others := set(there).difference(pictures.numbers):
        raise UsageError(
            f"{numbered(target, min(others))} has the name of an output and no picture of the "
            "input has that number; remove it or choose another folder"
        )


def check_options(settings: Settings, given: dict[str, Any]) -> None:
    """UsageError for what is asked for and makes no sense of pictures; `given` are options by
    name, those with a value being asked for."""
    encode = settings.encode
    given = given | {
        "--codec": encode.codec != "auto",
        "encode.hardware": encode.hardware,
        "encode.pixel_format": encode.pixel_format != "source",
        "--scale": settings.scale.factor > 1,
    }
    if asked := [name for name, value in given.items() if value]:
        raise UsageError(f"{' and '.join(asked)} cannot go with pictures; leave it out")


@dataclass(frozen=True, slots=True)
class Job:
    """How the frames become files again."""

    source: Pictures
    target: Path
    header: Header
    quality: str
    notes: tuple[str, ...]
    """What a person should know before the work begins."""

    @property
    def kind(self) -> str:
        return kind_of(self.target)

    def write(self, video: Path, folder: Path, analysis: Analysis) -> Path:
        """Write all pictures of the lossless `video` into the empty `folder`, and give their path
        there; one that shows what its source shows is a copy of that file, where the kinds agree.

        OutputError where one cannot be written.
        """
        folder.mkdir()
        sources, targets = self.source.files, self._targets(folder)
        several = min(usable_cores(), _MOST_WRITING)

        def write(frame: Frame) -> int:
            was, now = sources[frame.index], targets[frame.index]
            unchanged = checksum(frame.image) == int(analysis.crc32[frame.index])
            if unchanged and kind_of(was) == self.kind:
                shutil.copyfile(was, now)
            else:
                now.write_bytes(self._file(was, frame, analysis.info))
            with now.open("rb+") as file:
                os.fsync(file.fileno())
            return frame.index

        try:
            with StageThreads() as threads:
                frames = threads.background(decode(video, Damage()), depth=2, name="decode")
                done = list(threads.each(frames, [write] * several, depth=1, name="write"))
        except OSError as error:
            raise not_written("writing the pictures", self.target.parent, error) from error
        if done != list(range(len(targets))):
            raise OutputError(
                f"{len(done)} of {len(targets)} pictures came out of the work folder; run the "
                "command again with --no-resume"
            )
        return folder / self.target.name

    def deliver(self, folder: Path) -> None:
        """Bring the pictures under their names; all of them are whole."""
        for part, target in zip(self._targets(folder), self._targets(self.target.parent),
                                strict=True):  # fmt: skip
            part.replace(target)

    def _targets(self, folder: Path) -> list[Path]:
        path = folder / self.target.name
        if self.source.numbers is None:
            return [path]
        return [numbered(path, number) for number in self.source.numbers]

    def _file(self, was: Path, frame: Frame, info: VideoInfo) -> bytes:
        image = frame.image
        if self.kind != "jpeg":
            return files.with_samples(was, samples_of(image, self.header, info), self.kind)
        quantiser, quality = _jpeg_level(self.quality)
        if (encoded := jpeg.encoded_of(image, quantiser)) is None:
            samples = samples_of(image, self.header, info)
            how = [
                *(cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1),
                *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
            ]
            _, found = cv2.imencode(".jpg", samples[..., ::-1], how)
            encoded = found.tobytes()
        return files.with_jpeg(was, encoded)


def plan_pictures(source: Path, target: Path, info: VideoInfo, settings: Settings) -> Job:
    """OutputError, before any work, for what the output cannot hold."""
    pictures, kind, quality = pictures_of(source), kind_of(target), settings.encode.quality
    first = pictures.files[0]
    header, own = files.read_header(first), kind_of(source)
    if kind == "jpeg" and (header.bits > 8 or header.channels in (2, 4)):
        raise OutputError(
            f"a JPEG cannot hold {header.shape}, which {first.name} has; name the output .png or "
            ".tif"
        )
    if kind != own and {"dpx", "exr"} & {kind, own}:
        raise OutputError(f"{own} pictures do not become {kind} ones here; name the output .{own}")
    if kind in ("dpx", "exr"):
        _check_held(first, header, info)
    if kind == "jpeg" and quality == "archive":
        raise OutputError(
            "a JPEG is never lossless; name the output .png for encode.quality archive"
        )
    if kind == "jpeg":
        _jpeg_level(quality)
    elif quality not in ("high", "archive"):
        raise OutputError(f"{kind} pictures are lossless; leave encode.quality {quality} out")
    # What is lost is looked for in all of them.
    looked_at = pictures.files if "jpeg" in (kind, own) else [first]
    found = chain.from_iterable(files.changes_beside(path, kind) for path in looked_at)
    notes = list(dict.fromkeys(found))
    if kind == "jpeg":
        notes.append(
            "pictures with restored faces are encoded as JPEG anew, which is lossy: pixels outside "
            "the faces change a little; .png or .tif keeps them"
        )
    return Job(pictures, target, header, quality, tuple(notes))


def _check_held(path: Path, header: Header, info: VideoInfo) -> None:
    """Refuse a file that its decoded pixels do not give again."""
    frame = next(decode(path, Damage()))
    samples = samples_of(frame.image, header, info)
    with files.opened(path) as data:
        if header.kind == "dpx" and not dpx.holds(data, samples):
            raise InputError(
                f"{path} holds its pixels in a way that is not written here; save it as R'G'B' of "
                "10 bits in filled words, or of 16 bits"
            )
        if header.kind == "exr" and not exr.holds(data, samples):
            raise InputError(
                f"{path} is decoded to other pixels than the OpenEXR library reads in it; save it "
                "in scan lines of half floats with ZIP compression"
            )


def lossless_ways(info: VideoInfo, settings: Settings) -> tuple[Encoding, ...]:
    """How the frames are kept in the work folder."""
    how = settings.encode
    return plan_encoding(
        info, Path("video.mkv"), codec="ffv1", quality="high", preset=how.preset,
        threads=how.threads, hardware=False, pixel_format="source",
    )  # fmt: skip


def streams_of_pictures(info: VideoInfo) -> RemuxPlan:
    return RemuxPlan("matroska", (info.stream_index,), {}, {}, {})


def at_own_clock(analysis: Analysis) -> Analysis:
    """With the times that the files have as they are read."""
    clock = Fraction(1, PICTURES_PER_SECOND)
    return replace(analysis, info=replace(analysis.info, time_base=clock))


def check_all_decoded(source: Path, analysis: Analysis) -> None:
    """InputError, naming the first, where a picture was left out or is damaged."""
    if not is_pictures(source):
        return
    paths = pictures_of(source).files
    known = set(analysis.pts.tolist())
    if (lost := next((i for i in range(len(paths)) if i not in known), None)) is not None:
        raise InputError(f"{paths[lost]} is damaged and cannot be decoded; put a whole one there")
    if analysis.corrupt_frames:
        raise InputError(
            f"{analysis.corrupt_frames} of the pictures {source} are damaged; put whole ones there"
        )


def samples_of(image: Any, header: Header, info: VideoInfo) -> Samples:
    """Of a decoded picture whose header is given; Y'CbCr becomes R'G'B' of 8 bits."""
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
    """Quantiser, 1 the best to 31; and the quality that is about the same, 100 the best."""
    if quality in _JPEG_LEVELS:
        return _JPEG_LEVELS[quality]
    quantiser = int(quality)
    if not 1 <= quantiser <= 31:
        raise OutputError(f"the quality of JPEG cannot be {quality}; allowed is 1 (best) to 31")
    return quantiser, max(1, 101 - 3 * quantiser)

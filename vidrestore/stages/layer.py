"""The layers of frames become two streams: a fill that is not premultiplied, and a matte."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import av
import numpy as np

from vidrestore.codecs import Encoding
from vidrestore.frame import Frame, VideoInfo
from vidrestore.layers import picture_of
from vidrestore.parts import Layer, LayerRange

# ISO/IEC 23091-2.
_NARROW, _FULL = 1, 2
_MATRIX_TAGS = {"bt709": 1, "bt601": 6, "bt2020": 9}


@dataclass(frozen=True, slots=True)
class LayerFiles:
    """Where the two streams of a part of the video are written, and how."""

    fill: Path
    matte: Path
    encodings: tuple[Encoding, Encoding]
    holds: LayerRange


class Writer(Protocol):
    """What takes the frames of one stream."""

    def write(self, frame: Frame) -> None: ...


OpenWriter = Callable[[Path, VideoInfo, Encoding], AbstractContextManager[Writer]]


@contextmanager
def layer_writer(
    files: LayerFiles, info: VideoInfo, open_writer: OpenWriter
) -> Iterator[Callable[[Frame], None]]:
    """Gives what writes the layer of a frame, of which `info` is, at the frame's own time.

    Where a frame has no layer the fill and the matte are black.
    """
    shown = [_coded(info, encoding) for encoding in files.encodings]
    # Only how R'G'B' becomes samples counts here, and not which light it means.
    plain = [replace(each, transfer="sdr", primaries="bt709") for each in shown]
    nothing = Layer((0, 0), np.zeros((3, 1, 1), np.float32), np.zeros((1, 1), np.float32))
    with (
        open_writer(files.fill, shown[0], files.encodings[0]) as fills,
        open_writer(files.matte, shown[1], files.encodings[1]) as mattes,
    ):

        def write(frame: Frame) -> None:
            layer = frame.layer or nothing
            gray = np.repeat(layer.matte[None], 3, axis=0)
            for writer, picture, how in ((fills, layer.fill, plain[0]), (mattes, gray, plain[1])):
                image = picture_of(
                    picture.clip(files.holds.least, files.holds.most), layer.corner_px, how
                )
                writer.write(replace(frame, image=image))

        yield write


def _coded(info: VideoInfo, encoding: Encoding) -> VideoInfo:
    """The stream as the encoding holds it: R'G'B' and gray in full range, Y'CbCr in narrow."""
    form = av.VideoFormat(encoding.pixel_format)
    is_full = form.is_rgb or len(form.components) == 1
    _, _, primaries, transfer = info.tags
    matrix = 0 if form.is_rgb else _MATRIX_TAGS[info.matrix]
    return replace(
        info,
        pixel_format=encoding.pixel_format,
        bit_depth=form.components[0].bits,
        full_range=is_full,
        tags=(_FULL if is_full else _NARROW, matrix, primaries, transfer),
    )

"""Layers: the pasted part of a frame alone, as a fill that is not premultiplied and a matte.

out = in + (fill - in) * matte, in the R'G'B' of the stream with chroma at every pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import av
import numpy as np
import torch

from vidrestore.imaging import color, transfer
from vidrestore.imaging.frame import (
    FloatArray,
    Frame,
    Layer,
    LayerRange,
    Pasted,
    PastedFace,
    VideoInfo,
)
from vidrestore.imaging.geometry import Rect
from vidrestore.imaging.planes import layout, plane
from vidrestore.media.codecs import Encoding
from vidrestore.media.fields import FieldMarker

# ISO/IEC 23091-2.
_NARROW, _FULL = 1, 2

_MATRIX_TAGS = {"bt709": 1, "bt601": 6, "bt2020": 9}


# The error of the layer, in code values, that is allowed where the matte is small: it keeps the
# rounding of the output out of the fill, where a small matte would multiply it.
_SLACK = 0.75
# Groups of chroma samples around the faces that their chroma is interpolated into.
_MARGIN = 2


def with_layers(frames: Iterator[Frame], info: VideoInfo, holds: LayerRange) -> Iterator[Frame]:
    """Give every frame with pasted faces the layer that leads from the frame before to it.

    The matte is the weight of the faces. It is higher where that weight is too small for any fill
    that the files can hold, as where chroma reaches beyond the face. The fill is the pasted faces,
    shifted until the layer gives the output: exactly where the matte is 1, and to a code value
    where it is small. Colors that the files cannot hold are clipped in the frames, too.

    Args:
        frames: The frames of the output, in order.
        info: The properties of the frames.
        holds: The values that the files of the layer can hold.

    Yields:
        The frames with their layers; a frame without pasted faces as it is.
    """
    for frame in frames:
        if frame.pasted is None:
            yield frame
        else:
            layer = _Composition(frame.image, frame.pasted, info, holds).layer()
            yield replace(frame, pasted=None, layer=layer, packet=None)


class _Composition:
    """The pasting of faces into one frame."""

    def __init__(
        self, image: av.VideoFrame, pasted: Pasted, info: VideoInfo, holds: LayerRange
    ) -> None:
        self._image, self._pasted, self._info, self._holds = image, pasted, info, holds

    def layer(self) -> Layer:
        """Return the layer that leads from the frame before pasting to the frame."""
        steps, rect = self._holds.matte_steps, self._rect()
        was, now = (self._clipped_rgb(each, rect) for each in (self._pasted.before, self._image))
        fill, weight = self._merged_faces(rect, was)
        code = 1 / (2 ** layout(self._image).bits - 1)
        need = now - was
        least = self._least_matte(was, _beyond(need, _SLACK * code))
        matte = np.round(weight * steps)
        matte = np.maximum(matte, np.ceil(least * np.float32(steps))).clip(0, steps) / steps
        lacking = need - (fill - was) * matte
        lacking = _beyond(lacking, _SLACK * code * (1 - matte))
        fill = np.where(matte > 0, fill + lacking / np.maximum(matte, 1 / steps), 0)
        return Layer((rect.x0, rect.y0), fill.astype(np.float32), matte.astype(np.float32))

    def _clipped_rgb(self, image: av.VideoFrame, rect: Rect) -> FloatArray:
        """Return (3, h, w) R'G'B' of a rectangle, clipped to what the files can hold."""
        rgb = color.region_rgb(image, rect, self._info).numpy()
        return np.asarray(rgb.clip(self._holds.least, self._holds.most), np.float32)

    def _least_matte(self, was: FloatArray, need: FloatArray) -> FloatArray:
        """Return the (h, w) least matte with which some fill changes (3, h, w) `was` by `need`."""
        room = np.where(need > 0, self._holds.most - was, was - self._holds.least)
        share = np.abs(need) / np.maximum(room, np.abs(need) + np.float32(1e-6))
        return np.asarray(share.max(axis=0).clip(0, 1), np.float32)

    def _rect(self) -> Rect:
        """Return the rectangle around all faces, with a margin for chroma."""
        x, y = (_MARGIN * step for step in layout(self._image).grid)
        rects = [_rect_of(face) for face in self._pasted.faces]
        return Rect(
            max(0, min(rect.x0 for rect in rects) - x),
            max(0, min(rect.y0 for rect in rects) - y),
            min(self._info.width, max(rect.x1 for rect in rects) + x),
            min(self._info.height, max(rect.y1 for rect in rects) + y),
        )

    def _merged_faces(self, rect: Rect, was: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return (3, h, w) R'G'B' and (h, w) weight of all faces; R'G'B' of the frame elsewhere."""
        color_sum, weight_sum = np.zeros_like(was), np.zeros(was.shape[1:], np.float32)
        for face in self._pasted.faces:
            part = _rect_of(face)
            at = np.s_[part.y0 - rect.y0 : part.y1 - rect.y0, part.x0 - rect.x0 : part.x1 - rect.x0]
            own = transfer.from_display(torch.from_numpy(face.rgb), self._info).float().numpy()
            color_sum[:, *at] += (own - color_sum[:, *at]) * face.weight
            weight_sum[at] += (1 - weight_sum[at]) * face.weight
        seen = weight_sum > 0
        fill = np.where(seen, color_sum / np.where(seen, weight_sum, 1), was)
        return fill.astype(np.float32), weight_sum


def _rect_of(face: PastedFace) -> Rect:
    """Return the rectangle of a face in pixels of the frame."""
    (x, y), (height, width) = face.corner_px, face.weight.shape
    return Rect(x, y, x + width, y + height)


def _beyond(values: FloatArray, slack: FloatArray | float) -> FloatArray:
    """Reduce the magnitude of each value by `slack`, down to 0."""
    return np.asarray(np.sign(values) * np.maximum(np.abs(values) - slack, 0), np.float32)


def picture_of(rgb: FloatArray, corner: tuple[int, int], info: VideoInfo) -> av.VideoFrame:
    """Draw a picture into a black frame.

    Args:
        rgb: (3, h, w) float32 R'G'B'.
        corner: The position (x, y) of the top left pixel.
        info: The properties of the frame, whose format is 4:4:4, RGB or gray.

    Returns:
        The frame.
    """
    image = av.VideoFrame(info.width, info.height, info.pixel_format)
    how = layout(image)
    black = 0 if info.full_range else 16 * 2 ** (how.bits - 8)
    for index in range(len(image.planes)):
        is_chroma = index in how.planes[1:] and not how.is_rgb
        plane(image, index)[...] = 2 ** (how.bits - 1) if is_chroma else black
    (x, y), (height, width) = corner, rgb.shape[1:]
    whole = torch.ones((1, height, width))
    color.blend_rgb(image, Rect(x, y, x + width, y + height), torch.from_numpy(rgb), whole, info)
    return image


@dataclass(frozen=True, slots=True)
class LayerFiles:
    """The files of the fill and the matte of a part of the video."""

    fill: Path
    """The path of the stream of the fill."""
    matte: Path
    """The path of the stream of the matte."""
    encodings: tuple[Encoding, Encoding]
    """The encodings of the fill and of the matte."""
    holds: LayerRange
    """The values that the files can hold."""


class Writer(Protocol):
    """A writer of the frames of one stream."""

    def write(self, frame: Frame) -> None:
        """Write one frame.

        Args:
            frame: The frame, later than the frames before it.
        """


OpenWriter = Callable[[Path, VideoInfo, Encoding], AbstractContextManager[Writer]]
"""A function that opens a writer of a stream with given properties and encoding at a path."""


@contextmanager
def layer_writer(
    files: LayerFiles, info: VideoInfo, open_writer: OpenWriter
) -> Iterator[Callable[[Frame], None]]:
    """Open the two files of a layer.

    A frame without a layer gives a black fill and a black matte.

    Args:
        files: The files and their encodings.
        info: The properties of the frames.
        open_writer: The function that opens a writer of a stream.

    Yields:
        A function that writes the layer of a frame, at the time of the frame.
    """
    streams = [_coded(info, encoding) for encoding in files.encodings]
    # Only the conversion of R'G'B' to samples matters here, and not the light that it stands for.
    plain = [replace(each, transfer="sdr", primaries="bt709") for each in streams]
    markers = [FieldMarker(info.field_order) for _ in streams]
    nothing = Layer((0, 0), np.zeros((3, 1, 1), np.float32), np.zeros((1, 1), np.float32))
    with (
        open_writer(files.fill, streams[0], files.encodings[0]) as fills,
        open_writer(files.matte, streams[1], files.encodings[1]) as mattes,
    ):

        def write(frame: Frame) -> None:
            layer = frame.layer or nothing
            gray = np.repeat(layer.matte[None], 3, axis=0)
            for writer, picture, how, mark in (
                (fills, layer.fill, plain[0], markers[0]),
                (mattes, gray, plain[1], markers[1]),
            ):
                image = picture_of(
                    picture.clip(files.holds.least, files.holds.most), layer.corner_px, how
                )
                writer.write(replace(frame, image=mark(image), layer=None))

        yield write


def _coded(info: VideoInfo, encoding: Encoding) -> VideoInfo:
    """Return the stream as encoded: R'G'B' and gray in full range, Y'CbCr in narrow range."""
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

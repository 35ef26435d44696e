"""Fits pictures of another size or pixel format into the shape of the others.

In recordings of calls and of broadcasts the picture changes its shape. The output has one shape, so
pictures of another one are scaled, with black bars where their aspect ratio differs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import av
import av.filter

from vidrestore.common.counting import counted
from vidrestore.common.handled import log_handled
from vidrestore.common.timecode import time_text
from vidrestore.imaging.frame import PictureChange, VideoInfo
from vidrestore.media.side_data import side_data_of

# MatrixCoefficients of ISO/IEC 23091-2 -> their names in ffmpeg's filter scale.
_MATRICES = {1: "bt709", 4: "fcc", 5: "smpte170m", 6: "smpte170m", 7: "smpte240m", 9: "bt2020"}
_MATRIX_OF_INFO = {"bt601": "smpte170m", "bt709": "bt709", "bt2020": "bt2020"}
_TAGS: dict[str, dict[int, str]] = {
    "range": {1: "limited", 2: "full"},
    "matrix": _MATRICES,
    "primaries": {1: "bt709", 5: "bt470bg", 6: "smpte170m", 9: "bt2020", 12: "p3"},
    "transfer": {1: "bt709", 6: "smpte170m", 13: "srgb", 14: "bt2020-10", 16: "PQ", 18: "HLG"},
}
_CONVERTED = ("range", "matrix")  # where a picture is fitted
_FULL_RANGE = 2
_UNSTATED = (0, 2)  # of a range, 2 means full
# The same samples for every processor.
# The codecs whose frames may state what the first one does not, and what that is, by libavutil's
# names. Some of it differs in each frame.
_STATING_CODECS = ("h264", "hevc", "av1", "vp9", "mpeg2video")
_OF_EACH_FRAME = {
    "DYNAMIC_HDR_PLUS": "HDR10+ metadata",
    "DYNAMIC_HDR_VIVID": "HDR Vivid metadata",
    "DOVI_METADATA": "Dolby Vision",
    "A53_CC": "closed captions",
    "FILM_GRAIN_PARAMS": "film grain parameters",
}
_SIDE_DATA = _OF_EACH_FRAME | {
    "MASTERING_DISPLAY_METADATA": "the colors of the mastering display",
    "CONTENT_LIGHT_LEVEL": "light levels",
    "AMBIENT_VIEWING_ENVIRONMENT": "the ambient light of its viewing environment",
    "DISPLAYMATRIX": "a rotation or a flip",
    "STEREO3D": "stereo 3D",
    "SPHERICAL": "a projection",
    "AFD": "an active format description",
}
_SCALING = "bicubic+accurate_rnd+full_chroma_int+bitexact"
# The rounding errors of the sizes of a picture, in pixels, that do not count as another aspect.
_ROUNDING_PX = 2
_MOST_NAMED = 3
# A decoder tells of another aspect ratio up to some frames before or after the frame that has it.
_SAME_CHANGE_SECONDS = Fraction(1, 2)


@dataclass(frozen=True, slots=True)
class PictureShape:
    """The shape that all pictures of a stream have, or get."""

    width: int
    """The width in pixels."""
    height: int
    """The height in pixels."""
    pixel_format: str
    """The pixel format by ffmpeg's name."""
    sample_aspect_ratio: Fraction
    """Width of a pixel divided by its height."""
    matrix: str | None = None
    """The color matrix by the name of ffmpeg's filter scale; None: it is not known."""
    full_range: bool | None = None
    """Whether code values use the full range; None: it is not known."""

    @property
    def text(self) -> str:
        """Size and pixel format in words."""
        return shape_text(self)


def shape_of(info: VideoInfo) -> PictureShape:
    """Return the shape of the pictures of a stream.

    Args:
        info: The properties of the stream.

    Returns:
        The shape.
    """
    return PictureShape(
        info.width,
        info.height,
        info.pixel_format,
        info.sample_aspect_ratio,
        _MATRIX_OF_INFO[info.matrix],
        info.full_range,
    )


def shape_of_picture(image: av.VideoFrame, sample_aspect_ratio: Fraction) -> PictureShape:
    """Return the shape of a picture.

    Args:
        image: The picture.
        sample_aspect_ratio: Width of a pixel divided by its height.

    Returns:
        The shape.
    """
    return PictureShape(
        image.width,
        image.height,
        image.format.name,
        sample_aspect_ratio,
        _MATRICES.get(int(image.colorspace or 0)),
    )


def shape_text(picture: av.VideoFrame | PictureShape) -> str:
    """Return size and pixel format of a picture in words."""
    form = picture.pixel_format if isinstance(picture, PictureShape) else picture.format.name
    return f"{picture.width} x {picture.height} in {form}"


def aspect_text(ratio: Fraction) -> str:
    """Return an aspect ratio in words."""
    return f"{ratio.numerator}:{ratio.denominator}"


def other_colors(before: Any, stream: Any) -> str | None:
    """Compare the color tags in the headers of two streams.

    Args:
        before: The decoder of the first stream.
        stream: The decoder of the second one.

    Returns:
        The tags that the second one states, and the first one does not state so, in words; None
        where there are none.
    """
    was, now = _color_tags(before), _color_tags(stream)
    stated = [
        f"{name} {names.get(now[name], now[name])}"
        for name, names in _TAGS.items()
        if name in now and was.get(name) != now[name]
    ]
    return " and ".join(stated) or None


def _color_tags(picture: Any) -> dict[str, int]:
    """Return the color tags that a picture or a decoder states."""
    tags = picture.color_range, picture.colorspace, picture.color_primaries, picture.color_trc
    stated = zip(_TAGS, (int(tag or 0) for tag in tags), strict=True)
    return {n: tag for n, tag in stated if tag not in _UNSTATED[: 2 - (n == "range")]}


class StatedColors:
    """The color tags that the frames of a stream state, and their changes."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def changed(self, image: av.VideoFrame, *, is_fitted: bool) -> str | None:
        """Compare the tags of the next frame with those before.

        Args:
            image: The frame.
            is_fitted: Whether the frame is fitted, by which its range and matrix are converted.

        Returns:
            The new tags in words; None where none changes. A tag that is not stated is no change.
        """
        change = []
        for name, tag in _color_tags(image).items():
            if is_fitted and name in _CONVERTED:
                continue
            if self._last.get(name, tag) != tag:
                change.append(f"{name} {_TAGS[name].get(tag, tag)}")
            self._last[name] = tag
        return " and ".join(change) or None


class StatedSideData:
    """What the frames of a stream state of the picture besides its colors, and the changes."""

    def __init__(self, codec: str) -> None:
        """Begin a stream; in codecs of other kinds, frames state nothing that changes.

        Args:
            codec: The codec by ffmpeg's name.
        """
        # Frames of other codecs may hold color profiles, whose side data make PyAV 18 crash later.
        self._is_read = codec in _STATING_CODECS
        self._last: dict[str, bytes] | None = None

    def changed(self, image: av.VideoFrame) -> str | None:
        """Compare the side data of the next frame with those before.

        Args:
            image: The frame.

        Returns:
            What the frame states that none before it stated, or stated otherwise, in words; None
            where there is no such thing.
        """
        if not self._is_read:
            return None
        try:
            entries = list(side_data_of(image))
        except ValueError as error:  # PyAV fails if it has no name for a kind
            log_handled(error, "reading the side data of frames")
            self._is_read = False
            return None
        stated = {
            entry.type.name: b"" if entry.type.name in _OF_EACH_FRAME else bytes(entry)
            for entry in entries
            if entry.type.name in _SIDE_DATA
        }
        if self._last is None:
            self._last = stated
            return None
        new = [kind for kind, data in stated.items() if self._last.get(kind) != data]
        self._last |= stated
        return " and ".join(_SIDE_DATA[kind] for kind in new) or None


class PictureFitter:
    """Fits pictures into a shape. Their samples are the same on every machine."""

    def __init__(self, shape: PictureShape) -> None:
        """Store the shape.

        Args:
            shape: The shape of the results.
        """
        self.shape = shape
        """The shape of the results."""
        self._graph: Any = None
        self._key: tuple[object, ...] = ()

    def __call__(self, image: av.VideoFrame, *, states_aspect: bool) -> av.VideoFrame:
        """Scale a picture.

        Args:
            image: The picture.
            states_aspect: Whether the coded stream states the aspect ratio of pixels; else it is
                that of the shape.

        Returns:
            The picture in the shape, with the time and the marks of `image`.
        """
        key = (
            image.width, image.height, image.format.name, int(image.colorspace or 0),
            int(image.color_range or 0), bool(image.interlaced_frame), states_aspect,
        )  # fmt: skip
        if key != self._key:
            self._graph, self._key = self._new_graph(image, states_aspect=states_aspect), key
        self._graph.push(image)
        fitted: av.VideoFrame = self._graph.pull()
        return fitted

    def _new_graph(self, image: av.VideoFrame, *, states_aspect: bool) -> Any:
        """Make the filter graph for pictures of one kind."""
        graph: Any = av.filter.Graph()
        graph.threads = 1
        shape = self.shape
        source = graph.add_buffer(
            width=image.width,
            height=image.height,
            format=image.format,
            time_base=image.time_base or Fraction(1, 1000),
        )
        steps = [
            graph.add("scale", self._scaling(image, states_aspect=states_aspect)),
            graph.add("format", f"pix_fmts={shape.pixel_format}"),
            graph.add(
                "pad",
                f"w={shape.width}:h={shape.height}:x=(ow-iw)/2:y={self._bar(image)}:color=black:"
                "eval=frame",
            ),
            graph.add("buffersink"),
        ]
        graph.link_nodes(source, *steps)
        graph.configure()
        return graph

    def _bar(self, image: av.VideoFrame) -> str:
        """Return the height of the upper bar, as an expression of the filter pad.

        In interlaced pictures, the lines of both fields keep their places, also those of chroma.
        """
        return "4*floor((oh-ih)/8)" if image.interlaced_frame else "(oh-ih)/2"

    def _scaling(self, image: av.VideoFrame, *, states_aspect: bool) -> str:
        """Return the options of the filter scale, which computes the size of each picture.

        Only the filter sees the aspect ratio of the pixels of each picture.
        """
        shape = self.shape
        width, height = shape.width, shape.height
        wanted = shape.sample_aspect_ratio * Fraction(width, height)
        sides = (width, height, image.width, image.height)
        slack = Fraction(_ROUNDING_PX, min(sides))
        lines = 4 if image.interlaced_frame else 2
        own = "dar" if states_aspect else f"(a*{float(shape.sample_aspect_ratio)!r})"
        narrow, wide = float(wanted * (1 - slack)), float(wanted * (1 + slack))
        ratio = f"{own}/{float(wanted)!r}"
        options = {
            "w": f"if(lt({own},{narrow!r}),max(2,2*round({width / 2!r}*{ratio})),{width})",
            "h": f"if(gt({own},{wide!r}),max({lines},{lines}*round({height / lines!r}/({ratio}))),"
            f"{height})",
            "flags": _SCALING,
            "eval": "frame",
        }
        matrix = _MATRICES.get(int(image.colorspace or 0), shape.matrix)
        if matrix is not None:
            options["in_color_matrix"] = matrix
            options["out_color_matrix"] = shape.matrix or matrix
        is_full = image.color_range == _FULL_RANGE if image.color_range else shape.full_range
        if shape.full_range is not None:
            options["in_range"] = "full" if is_full else "limited"
            options["out_range"] = "full" if shape.full_range else "limited"
        if image.interlaced_frame:
            options["interl"] = "1"
        return ":".join(f"{name}={value}" for name, value in options.items())


def ordered_changes(
    changes: Sequence[PictureChange], info: VideoInfo, begin: int
) -> tuple[PictureChange, ...]:
    """Bring the changes that a decoder noted into order.

    Args:
        changes: The changes.
        info: The properties of the stream.
        begin: The time of the first frame that is used, in ticks of the time base of `info`.

    Returns:
        The changes in order of time. Those of the aspect ratio that come with another size are left
        out, since fitting takes the ratio into account; so is a return to the first ratio after
        them.
    """
    shape, aspect = shape_of(info).text, None
    sizes_pts = [change.pts for change in changes if change.kind == "shape"]
    near_ticks = _SAME_CHANGE_SECONDS / info.time_base
    kept = []
    for change in sorted(changes, key=lambda each: (each.pts, each.kind != "shape")):
        own = replace(change, pts=max(change.pts, begin))
        if change.kind == "shape":
            shape = change.form
        elif change.kind == "pixel aspect":
            first = aspect_text(info.sample_aspect_ratio)
            comes_with_size = any(abs(change.pts - pts) <= near_ticks for pts in sizes_pts)
            is_fitted = comes_with_size or shape != shape_of(info).text
            if is_fitted or change.form == (aspect or first):
                continue
            aspect = change.form
        kept.append(own)
    return tuple(kept)


def change_notices(
    changes: Sequence[PictureChange], info: VideoInfo, begin: int, fitted: int, reduced: int
) -> Iterator[str]:
    """Describe the changes of a picture for the user.

    Args:
        changes: The changes, in order.
        info: The properties of the output's source.
        begin: The time of the first frame, in ticks of the time base of `info`.
        fitted: The number of frames that were scaled or converted.
        reduced: The number of those that had more pixels.

    Yields:
        A sentence for each kind of change.
    """
    advice = "to keep it, cut the video there and restore the parts"
    for kind in ("shape", "pixel aspect", "colors", "side data"):
        own = [change for change in changes if change.kind == kind]
        if not own:
            continue
        # The pixel format is named only where it changes.
        same = f" in {info.pixel_format}"
        has_one = all(each.form.endswith(same) for each in own)
        places = []
        for each in own[:_MOST_NAMED]:
            at = time_text(max(each.pts - begin, 0) * info.time_base)
            form = each.form.removesuffix(same if has_one else "")
            places.append(f"{'' if kind == 'side data' else 'to '}{form} at {at}")
        if (more := len(own) - len(places)) > 0:
            places.append(f"{more} more times" if more > 1 else "once more")
        named = ", ".join(places)
        if kind == "shape":
            scaled = counted(fitted, "frame is", "frames are")
            lost = f", by which {counted(reduced, 'frame')} lost detail" if reduced else ""
            shape = shape_of(info).text.removesuffix(same if has_one else "")
            yield (
                f"the picture changes {named}; {scaled} fitted into {shape}, with "
                f"black bars where the aspect ratio differs{lost}; {advice}"
            )
        elif kind == "pixel aspect":
            yield (
                f"the pixel aspect changes {named}, but the output states "
                f"{aspect_text(info.sample_aspect_ratio)} throughout, so players show the picture "
                f"too wide or too narrow there; {advice}"
            )
        elif kind == "side data":
            yield (
                f"the video states {named}, after its first frame; the output states what the "
                "first frame does, and its encoder keeps closed captions alone, in H.264 and HEVC; "
                f"{advice}"
            )
        else:
            yield (
                f"the colors that the video states change {named}, but the output states those of "
                f"the beginning throughout; {advice}"
            )

"""What a file states of its picture besides codec, size and color, and what the output can keep.

Stereo 3D, projections, clean apertures and ambient light are statements of the container. As the
output has the same picture, it can make the same statements. Metadata of single frames and Dolby
Vision belong to the old coded stream, and are lost with it.

The layouts of structures are those of libavutil, whose fields keep their places: AVStereo3D,
AVSphericalMapping and AVAmbientViewingEnvironment.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from vidrestore.common.errors import InputError
from vidrestore.media.boxes import box, full_box

if TYPE_CHECKING:
    import av

_UNKNOWN_STEREO = 8
# AVStereo3DType -> its name in messages.
_STEREO_NAMES = {1: "side by side", 2: "top and bottom", 3: "frame by frame", 4: "checkerboard",
                 5: "side by side, quincunx", 6: "line by line", 7: "column by column",
                 _UNKNOWN_STEREO: "in several layers, of which one is read"}  # fmt: skip
# AVStereo3DType -> Matroska's StereoMode by ffmpeg's name, with the left view and the right first.
_STEREO_MODES = {1: ("left_right", "right_left"), 2: ("top_bottom", "bottom_top"),
                 3: ("block_lr", "block_rl"), 4: ("checkerboard_lr", "checkerboard_rl"),
                 6: ("row_interleaved_lr", "row_interleaved_rl"),
                 7: ("col_interleaved_lr", "col_interleaved_rl")}  # fmt: skip
_ST3D_MODES = {1: 2, 2: 1}
_PACKINGS = {1: b"side", 2: b"over"}
_INVERTED = 1
# AVSphericalProjection.
_EQUIRECTANGULAR, _CUBEMAP, _TILE, _HALF, _RECTILINEAR, _FISHEYE = range(6)
_PROJECTION_NAMES = {
    _EQUIRECTANGULAR: "equirectangular", _CUBEMAP: "cube map", _TILE: "part of an equirectangular",
    _HALF: "half equirectangular", _FISHEYE: "fisheye",
}  # fmt: skip
_APPLE_PROJECTIONS = {_HALF: b"hequ", _FISHEYE: b"fish"}
# What `VideoInfo` holds, and what is of the old coded stream alone.
_BY_OWN_FIELDS = ("display matrix", "mastering display", "content light level", "cpb properties")
_IN_FRAMES = {
    "DYNAMIC_HDR_PLUS": "HDR10+ metadata",
    "DYNAMIC_HDR_VIVID": "HDR Vivid metadata",
    "A53_CC": "closed captions inside the picture's stream",
    "AFD": "an active format description",
    "FILM_GRAIN_PARAMS": "film grain parameters",
}
_OTHERS = {"ICC Profile": "a color profile (ICC)"}
_CROP = "the edges that the file hides (clean aperture)"
_CAPTIONS = "A53_CC"
# The encoders that write what frames state of it into the coded stream.
_WRITE_CAPTIONS = ("libx264", "libx265", "h264_nvenc", "hevc_nvenc", "h264_videotoolbox",
                   "hevc_videotoolbox")  # fmt: skip
_WRITE_STEREO = ("libx264",)


@dataclass(frozen=True, slots=True)
class SideData:
    """What a file states of its picture besides codec, size and color."""

    stereo: tuple[int, bool] | None = None
    """How the picture holds two views: the number of libavutil's AVStereo3DType, and whether the
    right view is first; None: it holds one view."""
    stereo_is_in_container: bool = False
    """Whether the container states `stereo`; else the coded stream does."""
    view_degrees: Fraction | None = None
    """The horizontal field of view of each eye; None: the file does not state it."""
    stereo_mode: str | None = None
    """Matroska's StereoMode by ffmpeg's name, as the file has it; None: it has none."""
    projection: tuple[int, ...] | None = None
    """A picture for all directions: the number of libavutil's AVSphericalProjection; yaw, pitch and
    roll in 1/65536 degree; the left, top, right and bottom bounds in 1/2**32 of the picture; the
    padding of a cube map in pixels. None: an ordinary picture."""
    crop_px: tuple[int, int, int, int] | None = None
    """The pixels (left, right, top, bottom) that the container hides; None: it hides none."""
    ambient: tuple[Fraction, Fraction, Fraction] | None = None
    """The ambient light of the viewing environment: lux, x, y (CIE 1931); None:
    the file does not state it."""
    dolby_vision: tuple[int, int] | None = None
    """Dolby Vision: its profile and the compatibility of its base layer; None: there is none."""
    in_frames: frozenset[str] = frozenset()
    """The kinds of metadata of single frames, by libavutil's names."""
    others: tuple[str, ...] = ()
    """Other statements, by libavformat's names."""


NONE = SideData()
"""An ordinary picture."""


def side_data_of(image: av.VideoFrame) -> Any:
    """Return what a frame states besides its picture.

    A frame would keep what its attribute `side_data` returns, which keeps the frame: such a picture
    stays in memory until Python looks for cycles, which may be thousands of frames later.

    Args:
        image: The frame.

    Returns:
        PyAV's sequence of side data, which also maps kinds to them.

    Raises:
        ValueError: PyAV has no name for a kind.
    """
    # Not at the top: a refusal needs this module, and loads no PyAV.
    from av.sidedata.sidedata import SideDataContainer

    make: Any = SideDataContainer  # PyAV's stubs leave its argument out
    return make(image)


def read_side_data(printed: str, stream_index: int, of_frame: Mapping[str, bytes]) -> SideData:
    """Read what a file states of its picture.

    Args:
        printed: The description of the file that libavformat prints.
        stream_index: The index of the stream.
        of_frame: The side data of its first frame: kind by libavutil's name -> bytes.

    Returns:
        The statements.
    """
    stated = _stated(printed, stream_index)
    stereo = view = projection = ambient = None
    if (raw := of_frame.get("STEREO3D")) is not None:
        kind, flags, *_, degrees, scale = struct.unpack_from("<4iI4i", raw)
        stereo = (kind, bool(flags & _INVERTED)) if kind in _STEREO_NAMES else None
        view = Fraction(degrees, scale) if degrees > 0 and scale > 0 else None
    if (raw := of_frame.get("SPHERICAL")) is not None:
        projection = struct.unpack_from("<4i5I", raw)
    if (raw := of_frame.get("AMBIENT_VIEWING_ENVIRONMENT")) is not None:
        numbers = struct.unpack_from("<6i", raw)
        if all(numbers[1::2]):
            lux, x, y = map(Fraction, numbers[::2], numbers[1::2])
            ambient = lux, x, y
    crop = re.fullmatch(r"(\d+)/(\d+)/(\d+)/(\d+)", stated.pop("Frame Cropping", ""))
    vision = stated.pop("DOVI configuration record", "")
    profile = re.search(r"\bprofile: (\d+)", vision)
    compatible = re.search(r"\bcompatibility id: (\d+)", vision)
    is_in_container = stated.pop("Stereo 3D", None) is not None
    for known in ("Spherical Mapping", "Ambient viewing environment"):
        stated.pop(known, None)
    left, right, top, bottom = map(int, crop.groups()) if crop else (0, 0, 0, 0)
    return SideData(
        stereo=stereo,
        stereo_is_in_container=is_in_container and stereo is not None,
        view_degrees=view,
        stereo_mode=_stereo_mode(printed, stream_index),
        projection=projection,
        crop_px=(left, right, top, bottom) if any((left, right, top, bottom)) else None,
        ambient=ambient,
        dolby_vision=(
            (int(profile[1]), int(compatible[1]) if compatible else 0) if profile else None
        ),
        in_frames=frozenset(_IN_FRAMES.keys() & of_frame.keys()),
        others=tuple(name for name in stated if not name.lower().startswith(_BY_OWN_FIELDS)),
    )


def stated_rotation(printed: str, stream_index: int) -> str | None:
    """Return how players turn the picture of a stream.

    Args:
        printed: The description of the file that libavformat prints.
        stream_index: The index of the stream.

    Returns:
        The words of libavformat, such as "rotation of -90.00 degrees"; None where the file does not
        state it.
    """
    return _stated(printed, stream_index).get("Display Matrix")


def _lines_of(printed: str, stream_index: int) -> list[str]:
    """Return the lines that libavformat prints about a stream."""
    parts = re.split(r"^  Stream #0:(\d+)", printed, flags=re.MULTILINE)
    about = dict(zip(parts[1::2], parts[2::2], strict=True))
    return about.get(str(stream_index), "").splitlines()


def _stated(printed: str, stream_index: int) -> dict[str, str]:
    """Map the names of the side data that libavformat prints of a stream to their texts."""
    lines = _lines_of(printed, stream_index)
    if "    Side data:" not in lines:
        return {}
    stated = {}
    for line in lines[lines.index("    Side data:") + 1 :]:
        if not line.startswith("      "):
            break
        name, _, text = line.strip().partition(": ")
        stated[name.removesuffix(":")] = text
    return stated


def _stereo_mode(printed: str, stream_index: int) -> str | None:
    """Return the tag in which libavformat keeps Matroska's StereoMode."""
    for line in _lines_of(printed, stream_index):
        name, _, text = line.partition(":")
        if name.strip() == "stereo_mode":
            return text.strip()
    return None


def check_base_layer(side_data: SideData, name: str) -> None:
    """Check that the picture has its colors without Dolby Vision, which the output loses.

    Args:
        side_data: What the file states.
        name: The name of the file, for the message.

    Raises:
        InputError: Only a decoder for Dolby Vision gives the picture its colors.
    """
    if side_data.dolby_vision is not None and side_data.dolby_vision[1] == 0:
        profile = side_data.dolby_vision[0]
        raise InputError(
            f"{name} has Dolby Vision of profile {profile}, whose picture has false colors in "
            "every other decoder; convert it to HDR10 or SDR first"
        )


def states_stereo(side_data: SideData, container: str, encoder: str) -> bool:
    """Tell whether the container of the output states stereo 3D.

    Then the coded stream must not, since ffmpeg refuses to play a file that states it twice.

    Args:
        side_data: What the source states.
        container: mp4, mov or matroska.
        encoder: The encoder by ffmpeg's name.

    Returns:
        True where the container states it; False where the coded stream does, or nothing.
    """
    if not side_data.stereo_is_in_container and _writes_stereo(side_data, encoder):
        return False
    if container == "matroska":
        return stereo_tag(side_data) is not None
    return _st3d(side_data) != b"" or _packing(side_data) is not None


def _writes_stereo(side_data: SideData, encoder: str) -> bool:
    """Tell whether the encoder writes the stereo 3D of the frames into the coded stream."""
    if side_data.stereo is None or encoder not in _WRITE_STEREO:
        return False
    kind, is_inverted = side_data.stereo
    return kind != _UNKNOWN_STEREO and not is_inverted


def stereo_tag(side_data: SideData) -> str | None:
    """Return Matroska's StereoMode for the output, by ffmpeg's name; None: it gets none."""
    if side_data.stereo_mode is not None:
        return side_data.stereo_mode
    if side_data.stereo is None or side_data.stereo[0] not in _STEREO_MODES:
        return None
    kind, is_inverted = side_data.stereo
    return _STEREO_MODES[kind][is_inverted]


def boxes_of(side_data: SideData, width: int, height: int) -> bytes:
    """Return the boxes by which mp4 and mov state what the source does.

    Args:
        side_data: What the source states.
        width: The width of the coded picture in pixels.
        height: Its height in pixels.

    Returns:
        The boxes, for the sample entry of the stream; empty where there is nothing to state.
    """
    boxes = [_st3d(side_data), _sv3d(side_data), _vexu(side_data)]
    if (crop := side_data.crop_px) is not None:
        left, right, top, bottom = crop
        sides = width - left - right, 1, height - top - bottom, 1
        boxes.append(box(b"clap", struct.pack(">4I4i", *sides, left - right, 2, top - bottom, 2)))
    if side_data.ambient is not None:
        lux, x, y = side_data.ambient
        numbers = round(lux * 10000), round(x * 50000), round(y * 50000)
        boxes.append(box(b"amve", struct.pack(">IHH", *numbers)))
    return b"".join(boxes)


def _st3d(side_data: SideData) -> bytes:
    """Return the box for two views side by side, or one over the other."""
    if side_data.stereo is None or side_data.stereo[1] or side_data.stereo[0] not in _ST3D_MODES:
        return b""
    return full_box(b"st3d", bytes([_ST3D_MODES[side_data.stereo[0]]]))


def _sv3d(side_data: SideData) -> bytes:
    """Return the box for a projection, by the Spherical Video V2 document."""
    if side_data.projection is None:
        return b""
    kind, yaw, pitch, roll, left, top, right, bottom, padding = side_data.projection
    if kind == _CUBEMAP:
        shape = full_box(b"cbmp", struct.pack(">2I", 0, padding))
    elif kind in (_EQUIRECTANGULAR, _TILE):
        shape = full_box(b"equi", struct.pack(">4I", top, bottom, left, right))
    else:
        return b""
    pose = full_box(b"prhd", struct.pack(">3i", yaw, pitch, roll))
    return box(b"sv3d", full_box(b"svhd", b"\0"), box(b"proj", pose, shape))


def _packing(side_data: SideData) -> bytes | None:
    """Return Apple's name for the way in which the picture holds two views; None: not needed."""
    if side_data.stereo is None or side_data.stereo[0] not in _PACKINGS:
        return None
    kind, is_inverted = side_data.stereo
    is_apple = side_data.projection is not None and side_data.projection[0] in _APPLE_PROJECTIONS
    return _PACKINGS[kind] if is_inverted or is_apple else None


def _vexu(side_data: SideData) -> bytes:
    """Return Apple's box for what the other boxes cannot state."""
    inside = []
    if (packing := _packing(side_data)) is not None:
        assert side_data.stereo is not None
        eyes = 0b1011 if side_data.stereo[1] else 0b0011
        inside += [box(b"eyes", full_box(b"stri", bytes([eyes]))),
                   box(b"pack", full_box(b"pkin", packing))]  # fmt: skip
    if side_data.projection is not None and side_data.projection[0] in _APPLE_PROJECTIONS:
        shape = _APPLE_PROJECTIONS[side_data.projection[0]]
        inside.append(box(b"proj", full_box(b"prji", shape)))
    if not inside:
        return b""
    degrees = side_data.view_degrees
    view = b"" if degrees is None else box(b"hfov", struct.pack(">I", round(1000 * degrees)))
    return box(b"vexu", *inside) + view


def enlarged(
    side_data: SideData, before: tuple[int, int], after: tuple[int, int]
) -> tuple[SideData, tuple[str, ...]]:
    """Convert the statements to a larger picture.

    Args:
        side_data: What the source states.
        before: The (width, height) of its picture in pixels.
        after: That of the output.

    Returns:
        The statements for the output, and the names of those that it cannot make.
    """
    lost: list[str] = []
    across, down = (Fraction(new, old) for new, old in zip(after, before, strict=True))
    if (crop := side_data.crop_px) is not None:
        moved = [side * (across, across, down, down)[i] for i, side in enumerate(crop)]
        if any(side.denominator != 1 for side in moved):
            side_data, lost = replace(side_data, crop_px=None), [*lost, _CROP]
        else:
            left, right, top, bottom = map(int, moved)
            side_data = replace(side_data, crop_px=(left, right, top, bottom))
    if side_data.projection is not None and side_data.projection[0] == _CUBEMAP:
        *shape, padding = side_data.projection
        if (padding * across).denominator != 1 or across != down:
            side_data, lost = replace(side_data, projection=None), [*lost, "a cube map"]
        else:
            side_data = replace(side_data, projection=(*shape, int(padding * across)))
    return side_data, tuple(lost)


def losses(
    side_data: SideData, container: str, encoder: str, *, has_new_frames: bool
) -> Iterator[tuple[str, str]]:
    """List what the output cannot state or hold.

    Args:
        side_data: What the source states, for the picture of the output.
        container: mp4, mov or matroska.
        encoder: The encoder by ffmpeg's name.
        has_new_frames: Whether the frames of the output have none of the metadata of those of the
            source.

    Yields:
        (what is lost, the containers that can keep it, as the end of a sentence, or empty).
    """
    if side_data.stereo is not None or (side_data.stereo_mode or "mono") != "mono":
        yield from _lost_stereo(side_data, container, encoder)
    if (projection := side_data.projection) is not None:
        is_apple = projection[0] in _APPLE_PROJECTIONS
        is_held = projection[0] in (_EQUIRECTANGULAR, _CUBEMAP, _TILE, _RECTILINEAR)
        if not (is_held or (is_apple and container != "matroska")):
            name = _PROJECTION_NAMES.get(projection[0], "unknown")
            yield f"a projection ({name})", "an .mp4 or .mov file" if is_apple else ""
    if side_data.ambient is not None and container == "matroska":
        yield "the ambient light of its viewing environment", "an .mp4 or .mov file"
    if side_data.dolby_vision is not None:
        yield f"Dolby Vision (profile {side_data.dolby_vision[0]})", ""
    for kind in sorted(side_data.in_frames):
        if kind != _CAPTIONS or has_new_frames or encoder not in _WRITE_CAPTIONS:
            yield _IN_FRAMES[kind], ""
    for name in side_data.others:
        yield _OTHERS.get(name, f"side data of the kind {name}"), ""


def _lost_stereo(side_data: SideData, container: str, encoder: str) -> Iterator[tuple[str, str]]:
    """Yield stereo 3D where neither the container nor the coded stream of the output states it."""
    if states_stereo(side_data, container, encoder) or _writes_stereo(side_data, encoder):
        return
    kind = (side_data.stereo or (0, False))[0]
    name = _STEREO_NAMES.get(kind) or (side_data.stereo_mode or "").replace("_", " ")
    is_for_mkv = container != "matroska" and stereo_tag(side_data) is not None
    yield f"stereo 3D ({name})", "only an .mkv file" if is_for_mkv else ""

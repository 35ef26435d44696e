"""What each video codec can hold, and which codec and options encode a given picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import av

from vidrestore.common.errors import OutputError
from vidrestore.imaging.frame import VideoInfo
from vidrestore.media.containers import container_of, suffix_for

FULL_RANGE_NAMES = {"yuvj420p": "yuv420p", "yuvj422p": "yuv422p", "yuvj444p": "yuv444p",
                    "yuvj440p": "yuv440p", "yuvj411p": "yuv411p"}  # fmt: skip
_SUBSAMPLED = ("yuv420p", "yuv422p", "yuv444p")
_EIGHT_AND_TEN = frozenset(f"{f}{depth}" for f in _SUBSAMPLED for depth in ("", "10le"))
_DEEP = ("", "10le", "12le")
# x264's names of presets -> the numbers of SVT-AV1.
_AV1_PRESETS = {
    "ultrafast": 12, "superfast": 11, "veryfast": 10, "faster": 9, "fast": 8,
    "medium": 6, "slow": 5, "slower": 4, "veryslow": 3, "placebo": 2,
}  # fmt: skip
# FFV1 takes 8-bit R'G'B' only in packed formats.
_INTERLEAVED_IN_FFV1 = {"gbrp": "bgr0", "gbrap": "bgra"}
# Pixel format -> a similar one that more codecs take, for advice in messages.
_NEAR_FORMATS = {"yuv411p": "yuv422p", "yuv410p": "yuv420p", "yuva444p12le": "yuva444p10le",
                 "gbrp16le": "gbrp12le", "yuv440p": "yuv444p"}  # fmt: skip
_HARDWARE_FORMATS = {"yuv420p10le": "p010le"}


@dataclass(frozen=True, slots=True)
class Codec:
    """A codec and the encoder that vidrestore uses for it."""

    encoder: str
    """The encoder by ffmpeg's name."""
    containers: frozenset[str]
    """The containers that can hold the codec: mp4, mov, matroska."""
    formats: frozenset[str]
    """The pixel formats that the codec preserves."""
    largest_number: int | None = None
    """The greatest number of the quality scale, which starts at 0; None for a codec without a
    scale.
    """
    even_sides: bool = False
    """Whether a subsampled picture must have even sides."""
    codes_fields: bool = True
    """Whether the codec has coding tools for interlaced pictures."""
    says_light_levels: bool = False
    """Whether the coded stream itself can carry HDR10 metadata."""
    least_size: tuple[int, int] = (1, 1)
    """The least (width, height) in pixels."""
    hardware: tuple[str, ...] = ()
    """The encoders for this codec that need a hardware device, in order of preference."""


def codecs() -> dict[str, Codec]:
    """Return all codecs that vidrestore can write, by their names in the settings."""
    anywhere = frozenset({"mp4", "mov", "matroska"})
    return {
        "h264": Codec(
            "libx264", anywhere, _EIGHT_AND_TEN, 51, even_sides=True, says_light_levels=True,
            hardware=("h264_nvenc", "h264_videotoolbox"),
        ),
        "hevc": Codec(
            "libx265",
            anywhere,
            frozenset(f"{f}{depth}" for f in (*_SUBSAMPLED, "gbrp", "gray") for depth in _DEEP),
            51,
            even_sides=True,
            codes_fields=False,
            says_light_levels=True,
            hardware=("hevc_nvenc", "hevc_videotoolbox"),
        ),
        "av1": Codec(
            "libsvtav1", frozenset({"mp4", "matroska"}), frozenset({"yuv420p", "yuv420p10le"}), 63,
            codes_fields=False, says_light_levels=True, least_size=(4, 4), hardware=("av1_nvenc",),
        ),
        "prores": Codec(
            "prores_ks", frozenset({"mov", "matroska"}),
            frozenset({"yuv422p10le", "yuv444p10le", "yuva444p10le"}),
        ),
        "dnxhr": Codec(
            "dnxhd", frozenset({"mov", "matroska"}),
            frozenset({"yuv422p", "yuv422p10le", "yuv444p10le", "gbrp10le"}),
            codes_fields=False, least_size=(256, 120),
        ),
        "ffv1": Codec(
            "ffv1", frozenset({"matroska"}), _formats_of("ffv1") | _INTERLEAVED_IN_FFV1.keys()
        ),
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Encoding:
    """The way to encode the restored video stream, decided before the work begins."""

    codec: str
    """The codec by its name in the settings."""
    encoder: str
    """The encoder by ffmpeg's name."""
    pixel_format: str
    """The pixel format in which the encoder takes its frames."""
    suffix: str
    """The suffix of the file that holds the encoded stream alone; mp4 and mov keep every time
    exactly.
    """
    options: dict[str, str] = field(default_factory=dict)
    """The options of the encoder."""
    is_lossless: bool = False
    """Whether the decoded stream equals the encoded frames."""
    has_field_flags: bool = False
    """Whether the encoder is set to code fields."""
    needs_light_header: bool = False
    """Whether the container must state the HDR10 metadata because the coded stream cannot."""
    without_stereo: bool = False
    """Whether frames lose what they state of stereo 3D, since the container of the output states
    it."""
    copied: bytes | None = None
    """What the packets of the source state that are copied where a frame was not changed, by
    `media.coded_frames.stated`; None: every frame is encoded.
    """
    notes: tuple[str, ...] = ()
    """Notices for the user, one sentence each."""

    def of_few_frames(self) -> Encoding:
        """Return the encoding without B-frames if the encoder is x265.

        In a stream shorter than the delay of x265, B-frames would leave times undefined.
        """
        if self.encoder != "libx265":
            return self
        parameters = self.options["x265-params"] + ":bframes=0"
        return replace(self, options=self.options | {"x265-params": parameters})


def plan_encoding(
    info: VideoInfo,
    target: Path,
    *,
    codec: str,
    quality: str,
    preset: str,
    threads: int,
    hardware: bool,
    pixel_format: str,
) -> tuple[Encoding, ...]:
    """Choose a codec and its options for a stream, before the work begins.

    Args:
        info: The stream.
        target: The output, whose suffix names the container.
        codec: The codec by its name in the settings, or "auto": the codec of the source if
            possible.
        quality: "high", "small", "archive" (FFV1), or a number on the scale of the codec.
        preset: The preset of x264, x265 or SVT-AV1 by x264's names.
        threads: The number of threads of the encoder.
        hardware: Whether to encode on a hardware device.
        pixel_format: The pixel format of the output, or "source".

    Returns:
        The possible encodings, best first.

    Raises:
        OutputError: The chosen codec, or no codec for "auto", can hold the picture in the
            container; the codec does not know the quality; or no hardware encodes the codec.
    """
    check_choice(codec, quality, target)
    stored = FULL_RANGE_NAMES.get(info.pixel_format, info.pixel_format)
    wanted = stored if pixel_format == "source" else pixel_format
    name, notes = _chosen(info, target, wanted, codec, quality)
    entry = codecs()[name]
    _check_quality(name, entry, quality)  # of the codec that "auto" stands for
    if wanted != stored:
        notes.append(f"vidrestore converts the picture from {info.pixel_format} to {wanted}")
    if info.is_interlaced and not entry.codes_fields:
        notes.append(f"{name} marks interlaced pictures only in the container")
    has_light = info.mastering_display is not None or info.content_light is not None
    software = Encoding(
        codec=name,
        encoder=entry.encoder,
        pixel_format=_INTERLEAVED_IN_FFV1.get(wanted, wanted) if name == "ffv1" else wanted,
        suffix={"ffv1": ".mkv", "prores": ".mov", "dnxhr": ".mov"}.get(name, ".mp4"),
        options=_options(name, info, wanted, quality, preset, threads),
        is_lossless=name == "ffv1",
        has_field_flags=info.is_interlaced and entry.codes_fields,
        needs_light_header=has_light and not entry.says_light_levels,
        notes=tuple(notes),
    )
    if hardware:
        if not entry.hardware:
            raise OutputError(
                f"vidrestore has no hardware encoder for {name}; turn encode.hardware off"
            )
        return tuple(_in_hardware(software, encoder, quality) for encoder in entry.hardware)
    if name == "ffv1":
        # Very small pictures cannot be divided into 24 slices.
        whole = {k: v for k, v in software.options.items() if k != "slices"}
        return software, replace(software, options=whole)
    return (software,)


def _chosen(
    info: VideoInfo, target: Path, pixel_format: str, codec: str, quality: str
) -> tuple[str, list[str]]:
    """Return the codec, and a notice if it is not the first candidate."""
    container = container_of(target)
    candidates = _candidates(info) if codec == "auto" else [codec]
    if quality == "archive":
        candidates = ["ffv1"]
    objections: list[str] = []
    for name in candidates:
        objection = _objection(name, info, container, pixel_format)
        if objection is None and codec == "auto" and quality != "archive" and info.is_interlaced:
            objection = _fields_objection(name, info)
        if objection is None:
            notices = (
                [f"vidrestore encodes the picture in {name}: {objections[0]}"] if objections else []
            )
            return name, notices
        objections.append(objection)
    raise OutputError(f"{objections[0]}; {_remedy(info, target, pixel_format, codec, quality)}")


def _candidates(info: VideoInfo) -> list[str]:
    """Return the candidates for `auto`: the codec of the source, then codecs of high quality."""
    own = {"dnxhd": "dnxhr"}.get(info.codec, info.codec)
    order = [own] if own in codecs() else []
    return [*dict.fromkeys([*order, "hevc", "h264", "prores", "ffv1"])]


def _objection(name: str, info: VideoInfo, container: str, pixel_format: str) -> str | None:
    """Return why a codec cannot hold the picture in the container; None if it can."""
    codec = codecs()[name]
    shape = f"{info.width} x {info.height} pixels in {pixel_format}"
    if pixel_format not in codec.formats:
        return f"{name} cannot hold {shape} unchanged"
    grid = _grid(pixel_format)
    if codec.even_sides and (info.width % grid[0] or info.height % grid[1]):
        return f"{name} cannot hold {shape} unchanged"
    if info.width < codec.least_size[0] or info.height < codec.least_size[1]:
        least = " x ".join(map(str, codec.least_size))
        return f"{name} cannot hold {shape}: it needs at least {least}"
    if name == "h264" and info.is_interlaced and info.height % (2 * grid[1]):
        return f"{name} cannot hold fields of {shape}"
    if name == "dnxhr" and (info.matrix != "bt709" or info.full_range):
        return f"players always read {name} as bt709 in limited range"
    if container not in codec.containers:
        return f"{suffix_for(container)} files cannot hold {name}"
    return None


def _fields_objection(name: str, info: VideoInfo) -> str | None:
    """Return why `auto` skips a codec for an interlaced picture; None: it does not."""
    if codecs()[name].codes_fields or name == info.codec:
        return None
    return f"{name} has no coding tools for interlaced pictures"


def _remedy(info: VideoInfo, target: Path, pixel_format: str, codec: str, quality: str) -> str:
    """Return advice for the end of an error message."""
    if _objection("ffv1", info, "matroska", pixel_format) is not None:
        return "choose another encode.pixel_format, or convert the video to a common one first"
    if codec not in ("auto", "ffv1") and quality != "archive":
        return "set --codec to auto, or use ffv1 and an .mkv file"
    near = _NEAR_FORMATS.get(pixel_format)
    choose = f"convert it with --set encode.pixel_format={near}" if near else "use another format"
    return f"name the output {target.stem}.mkv, or {choose}"


def check_choice(codec: str, quality: str, target: Path) -> None:
    """Check that codec, quality and container fit together, whatever the picture is.

    Args:
        codec: The name of a codec, or "auto".
        quality: The quality, as for `plan_encoding`.
        target: The output; its suffix names the container.

    Raises:
        OutputError: The codec does not know the quality, or the container cannot hold the codec.
    """
    if quality == "archive" and codec not in ("auto", "ffv1"):
        raise OutputError(f"the quality archive needs ffv1, not {codec}; set encode.codec to auto")
    name, container = "ffv1" if quality == "archive" else codec, container_of(target)
    if name == "auto":
        return
    _check_quality(name, codecs()[name], quality)
    if container not in codecs()[name].containers:
        advice = "set --codec to auto, or use ffv1 and an .mkv file"
        if name == "ffv1":
            advice = f"name the output {target.stem}.mkv, or use another format"
        raise OutputError(f"{suffix_for(container)} files cannot hold {name}; {advice}")


def _check_quality(name: str, codec: Codec, quality: str) -> None:
    """Raise OutputError for a number that is not on the quality scale of the codec."""
    if not quality.isdigit():
        return
    if codec.largest_number is None:
        raise OutputError(f"{name} has no quality scale in numbers; give high instead of {quality}")
    if int(quality) > codec.largest_number:
        raise OutputError(
            f"the quality of {name} must be from 0 (best) to {codec.largest_number}, not {quality}"
        )


def _options(
    name: str, info: VideoInfo, pixel_format: str, quality: str, preset: str, threads: int
) -> dict[str, str]:
    """Return the options of the encoder."""
    if name == "ffv1":
        # Version 3, intra only, with a checksum for every slice, as archives require.
        options = {"level": "3", "g": "1", "slices": "24", "slicecrc": "1"}
    elif name == "prores":
        profile = {"high": "hq", "small": "lt"}[quality]
        options = {"profile": profile if pixel_format.startswith("yuv422") else "4444"}
        options |= {"alpha_bits": "16"} if pixel_format.startswith("yuva") else {}
    elif name == "dnxhr":
        options = {"profile": f"dnxhr_{_dnxhr_profile(pixel_format, quality)}"}
    else:
        factor = {"h264": {"high": "16", "small": "23"}, "hevc": {"high": "16", "small": "24"},
                  "av1": {"high": "16", "small": "32"}}[name].get(quality, quality)  # fmt: skip
        options = {"crf": factor, "preset": preset} | _parameters(name, info, threads)
        if name == "av1":
            options["preset"] = str(_AV1_PRESETS[preset])
    is_known = "chroma location" not in info.guessed
    if name in ("h264", "hevc", "ffv1") and is_known and _grid(pixel_format) != (1, 1):
        options["chroma_sample_location"] = info.chroma_location
    return options


def _dnxhr_profile(pixel_format: str, quality: str) -> str:
    """Return the DNxHR profile for a pixel format."""
    if "422" not in pixel_format:
        return "444"
    if pixel_format == "yuv422p":
        return {"high": "hq", "small": "sq"}[quality]
    return "hqx"


def _parameters(name: str, info: VideoInfo, threads: int) -> dict[str, str]:
    """Return the options that ffmpeg passes through to the library of the encoder."""
    if name == "av1":
        return {"svtav1-params": ":".join([f"lp={threads}", *_av1_light(info)])}
    light = list(_light(info))
    if name == "h264":
        if info.is_interlaced:
            light.append(f"{info.field_order}=1")
        return {"x264-params": ":".join(light)} if light else {}
    # The output of x265 depends on its thread pools, whose size depends on the machine by default.
    parameters = ["log-level=error", f"pools={threads}", "frame-threads=2"]
    if light:
        parameters += ["hdr10=1", "repeat-headers=1"]
        light = [entry.replace("mastering-display", "master-display") for entry in light]
        light = [entry.replace("cll=", "max-cll=") for entry in light]
    return {"x265-params": ":".join([*parameters, *light]), "a53cc": "1"}


def _light(info: VideoInfo) -> Iterator[str]:
    """Format HDR10 metadata for x264 and x265: chromaticity in 0.00002, light in 0.0001 cd/m2."""
    if (m := info.mastering_display) is not None:
        points = [f"({round(m[i] * 50000)},{round(m[i + 1] * 50000)})" for i in (0, 2, 4, 6)]
        light = f"L({round(m[9] * 10000)},{round(m[8] * 10000)})"
        red, green, blue, white = points
        yield f"mastering-display=G{green}B{blue}R{red}WP{white}{light}"
    if info.content_light is not None:
        yield "cll={},{}".format(*info.content_light)


def _av1_light(info: VideoInfo) -> Iterator[str]:
    """Format HDR10 metadata for SVT-AV1, in decimal numbers."""
    if (m := info.mastering_display) is not None:
        points = [f"({float(m[i]):.5f},{float(m[i + 1]):.5f})" for i in (0, 2, 4, 6)]
        red, green, blue, white = points
        light = f"L({float(m[9]):.4f},{float(m[8]):.4f})"
        yield f"mastering-display=G{green}B{blue}R{red}WP{white}{light}"
    if info.content_light is not None:
        yield "content-light={},{}".format(*info.content_light)


def _in_hardware(plain: Encoding, encoder: str, quality: str) -> Encoding:
    """Return the encoding for a hardware encoder, which takes no parameters of x264 or x265."""
    level = {"high": 18, "small": 27}.get(quality) or int(quality)
    if encoder.endswith("_nvenc"):
        options = {"rc": "vbr", "cq": str(level), "b": "0", "preset": "p6"}
    else:
        options = {"global_quality": str(round(118 * (100 - 1.5 * level)))}
    return replace(
        plain,
        encoder=encoder,
        pixel_format=_HARDWARE_FORMATS.get(plain.pixel_format, plain.pixel_format),
        options=options,
        has_field_flags=False,
    )


def _grid(pixel_format: str) -> tuple[int, int]:
    """Return the number of luma pixels per chroma sample, (x, y)."""
    shape = av.VideoFormat(pixel_format, 64, 64)
    if len(shape.components) < 3:
        return 1, 1
    return 64 // shape.chroma_width(64), 64 // shape.chroma_height(64)


def _formats_of(encoder: str) -> frozenset[str]:
    """Return the pixel formats that an encoder takes."""
    return frozenset(f.name for f in av.codec.Codec(encoder, "w").video_formats or ())


def container_options(path: Path) -> dict[str, str]:
    """Return the muxer options for a file that holds only the restored video stream.

    Args:
        path: The file, whose suffix names the container.

    Returns:
        The options by name.
    """
    # mp4 and mov keep the first pts in an edit list, in units of the movie's time scale.
    return {"movie_timescale": "90000"} if path.suffix in (".mp4", ".mov") else {}

"""The choice of an encoding whose frames can stand among packets of the source.

With an intra-only codec, a frame that was not changed can keep the very packet of the source. It
then loses nothing by another encoding, and takes no time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import av
import av.error

from vidrestore.common.errors import InputError, OutputError
from vidrestore.common.handled import log_handled
from vidrestore.imaging.frame import Frame, VideoInfo
from vidrestore.imaging.planes import checksum
from vidrestore.media.codecs import Encoding
from vidrestore.media.coded_frames import (
    INTRA_ONLY,
    alpha_bits_of_prores,
    compression_id_of_dnxhr,
    ffv1_slices,
    field_order_of_prores,
    stated,
)
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.media.encode import VideoWriter
from vidrestore.media.fields import bobbed, woven
from vidrestore.media.source import open_source

_log = logging.getLogger("vidrestore")

_FRAMES_TO_TRY = 100
# Profiles from the least data rate on. The first one is for offline editing, so restored faces
# would suffer in it.
_PRORES_PROFILES = {
    "apco": "proxy", "apcs": "lt", "apcn": "standard", "apch": "hq", "ap4h": "4444",
    "ap4x": "4444xq",
}  # fmt: skip
_DNXHR_PROFILES = {1274: "lb", 1273: "sq", 1272: "hq", 1271: "hqx", 1270: "444"}
_OFFLINE = ("proxy", "dnxhr_lb")
# How FFV1 codes differences: ffmpeg's default for the bit depth, and the others.
_FFV1_CODERS: tuple[dict[str, str], ...] = (
    {}, {"coder": "range_def"}, {"coder": "range_tab"}, {"coder": "rice"},
)  # fmt: skip
_FFV1_CONTEXTS: tuple[dict[str, str], ...] = ({}, {"context": "1"})


def encoding_like_source(
    encoding: Encoding,
    source: Path,
    info: VideoInfo,
    folder: Path,
    *,
    quality: str,
    woven_order: str | None,
    threads: int,
) -> Encoding | str:
    """Adapt an encoding so that its frames can stand in one stream with packets of the source.

    The first frame of the source is encoded as a trial, and both packets are decoded as one stream.

    Args:
        encoding: The best encoding for the output.
        source: The source.
        info: The stream of the source.
        folder: A folder for the trial file, which is removed.
        quality: The setting `encode.quality`.
        woven_order: The measured order of fields, tff or bff, where the frames of the output are
            woven from fields; None: they are not.
        threads: The number of threads of the encoder.

    Returns:
        The encoding, with `copied`; or the reason in words why packets cannot be copied; empty
        where the codec of the source or of the output is not intra-only, or these differ.
    """
    if INTRA_ONLY.get(encoding.codec) != info.codec:
        return ""
    frame = _first_kept(encoding.codec, source, info)
    if frame is None or frame.packet is None:
        return "its first frames do not stand alone"
    said = stated(encoding.codec, frame.packet)
    if said is None:
        return "it is DNxHD" if encoding.codec == "dnxhr" else "its frames are of another kind"
    tag, extradata = _header_of(source, info.stream_index)
    like = _with_profile(encoding, frame.packet, tag, extradata, info, quality)
    if isinstance(like, str):
        return like
    like = replace(like, copied=said)
    trial = folder / f"trial{like.suffix}"
    try:
        reason = _tried(like, frame, trial, info, woven_order, threads)
        if reason is None and not _has_header(trial, like.codec, tag, extradata):
            reason = "the header of its stream differs from that which the encoder writes"
    except (OutputError, InputError, ValueError, av.error.FFmpegError) as error:
        log_handled(error, "the trial of copied packets")
        reason = f"the trial failed: {error}"
    finally:
        trial.unlink(missing_ok=True)
    return like if reason is None else reason


def _first_kept(codec: str, source: Path, info: VideoInfo) -> Frame | None:
    """Return the first frame with a packet that stands alone, if it comes soon.

    One that states nothing, as a damaged packet does that the decoder accepted, or other fields
    than the stream does, is taken only where there is no better one.
    """
    frames = decode(
        source, DecodeErrors(), stream_index=info.stream_index, shifts=(), like=info,
        one_thread=True, keep_packets=True,
    )  # fmt: skip
    first = None
    for frame in islice(frames, _FRAMES_TO_TRY):
        if frame.packet is None:
            continue
        if stated(codec, frame.packet) is not None and (
            codec != "prores" or field_order_of_prores(frame.packet) == info.field_order
        ):
            return frame
        first = first or frame
    return first


def _header_of(path: Path, stream_index: int) -> tuple[str, bytes]:
    """Return the codec tag of a stream, and the header of its coded frames."""
    with open_source(path) as container:
        context = container.streams[stream_index].codec_context
        return str(context.codec_tag), context.extradata or b""


def _has_header(trial: Path, codec: str, tag: str, extradata: bytes) -> bool:
    """Whether a trial file states of its coded frames what the source does."""
    own_tag, own_extradata = _header_of(trial, 0)
    # The tag names the profile of ProRes; DNxHR names it in each frame.
    return {"prores": own_tag == tag, "ffv1": own_extradata == extradata}.get(codec, True)


def _with_profile(
    encoding: Encoding, packet: bytes, tag: str, extradata: bytes, info: VideoInfo, quality: str
) -> Encoding | str:
    """Give an encoding the profile of the source, or return why it cannot have that."""
    if encoding.codec == "ffv1":
        return _with_ffv1_header(encoding, packet, extradata, info)
    options = dict(encoding.options)
    if encoding.codec == "prores":
        profile = _PRORES_PROFILES.get(tag)
        if (alpha_bits := alpha_bits_of_prores(packet)) > 0 and "alpha_bits" in options:
            options["alpha_bits"] = str(alpha_bits)
    else:
        name = _DNXHR_PROFILES.get(compression_id_of_dnxhr(packet))
        profile = None if name is None else f"dnxhr_{name}"
    if profile is None:
        return "its profile is not stated, or not known"
    if profile != options["profile"] and (quality != "high" or profile in _OFFLINE):
        return f"its profile is {profile}, and encode.quality {quality} means {options['profile']}"
    return replace(encoding, options=options | {"profile": profile})


def _with_ffv1_header(
    encoding: Encoding, packet: bytes, extradata: bytes, info: VideoInfo
) -> Encoding | str:
    """Find the options with which the encoder of FFV1 writes the header of the source."""
    slices = {"slices": str(ffv1_slices(packet))}
    for coder in _FFV1_CODERS:
        for context in _FFV1_CONTEXTS:
            like = replace(encoding, options=encoding.options | slices | coder | context)
            if _ffv1_header(like, info) == extradata:
                return like
    return (
        "it is not FFV1 of version 3 with key frames only and checksums, or it was coded in a way "
        "that the encoder does not know"
    )


def _ffv1_header(encoding: Encoding, info: VideoInfo) -> bytes | None:
    """Return the header that the encoder writes with some options; None where it refuses them."""
    context: Any = av.CodecContext.create(encoding.encoder, "w")
    context.width, context.height = info.width, info.height
    context.pix_fmt, context.time_base = encoding.pixel_format, info.time_base
    context.options = encoding.options
    try:
        context.open()
    except (av.error.FFmpegError, ValueError) as error:
        _log.info("the encoder of FFV1 does not take %s: %s", encoding.options, error)
        return None
    return bytes(context.extradata or b"")


def _tried(
    encoding: Encoding,
    frame: Frame,
    trial: Path,
    info: VideoInfo,
    woven_order: str | None,
    threads: int,
) -> str | None:
    """Write a frame encoded and copied; return why the two cannot stand in one stream, if so."""
    expected, lasts = checksum(frame.image), max(1, frame.duration)
    copied = replace(frame, pts=frame.pts + lasts, duration=lasts)
    with VideoWriter(trial, info, encoding, threads=threads) as writer:
        for new in _as_output(frame, woven_order, info):
            writer.write(replace(new, pts=frame.pts, duration=lasts, packet=None))
        writer.write(copied)
        if writer.copied_count != 1:
            return "the encoder holds frames back"
    damage = DecodeErrors()
    frames = list(decode(trial, damage, one_thread=True, keep_packets=True))
    if damage.found or damage.changes or len(frames) != 2:
        return "an encoded frame and a packet of the source do not make one stream"
    encoded, again = frames
    if encoded.packet is None or again.packet is None:
        return "its packets, or those of the encoder, do not stand alone"
    if again.packet != frame.packet or checksum(again.image) != expected:
        return "its packets do not give the same picture in the stream of the output"
    if stated(encoding.codec, encoded.packet) != encoding.copied:
        return "its frames state other properties than those of the encoder"
    if encoding.codec == "prores":
        own, others = map(field_order_of_prores, (encoded.packet, again.packet))
        if own != others:
            return f"its frames are marked as {others}, and the encoder marks them as {own}"
    if _properties(encoded.image) != _properties(again.image):
        return "its frames have other properties than those of the encoder"
    return None


def _as_output(frame: Frame, woven_order: str | None, info: VideoInfo) -> Iterator[Frame]:
    """Return a frame as the output has it where nothing was pasted."""
    if woven_order is None:
        return iter([frame])
    pictures = bobbed(iter([frame]), woven_order)
    return woven(pictures, woven_order, flagged_order=info.field_order)


def _properties(image: Any) -> tuple[object, ...]:
    """Return what a decoder says of a frame."""
    return (
        image.format.name, image.interlaced_frame, image.color_range, image.colorspace,
        image.color_primaries, image.color_trc,
    )  # fmt: skip

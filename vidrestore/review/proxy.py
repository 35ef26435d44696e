"""Proxies: copies of videos that browsers play, with the times of the source."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from av.stream import Disposition

from vidrestore.analysis.interlacing import Interlacing, probe_and_inspect
from vidrestore.analysis.pipeline import frames_expected
from vidrestore.common.errors import InputError, OutputError
from vidrestore.common.events import OnEvent, Progress, notify
from vidrestore.common.files import output_file
from vidrestore.common.settings import Settings
from vidrestore.common.temporary import temporary_folder
from vidrestore.imaging.frame import VideoInfo
from vidrestore.imaging.geometry import upright
from vidrestore.imaging.transfer import is_display, to_display
from vidrestore.media.ffmpeg import FFmpegRun, check_room, reason_of, run_ffmpeg_watched
from vidrestore.media.probe import Probe, StreamInfo
from vidrestore.media.remux import packet_count
from vidrestore.media.source import open_source
from vidrestore.review.drawing import MOST_SIDE_PX
from vidrestore.review.file_names import check_proxy_path

MOST_HEIGHT_PX = 1080
"""Height to which the picture of a proxy is reduced, in pixels."""
# The clock of transport streams, which also holds the times of all usual frame rates.
_TICKS = 90_000
_KEY_FRAMES = "expr:if(isnan(prev_forced_t),1,gte(t,prev_forced_t+1))"
_TABLE_STEPS = 33
_SOUND_RATE, _SOUND_BITS = 48_000, 160_000
# Gaps become silence, since the sound of an mp4 file cannot have any.
_SOUND_FILTER = "aresample=async=1"
# No browser plays these formats, and their clocks begin anywhere.
_ANY_CLOCK = ("mpegts", "mpeg")


@dataclass(frozen=True, slots=True)
class Proxy:
    """The properties of a proxy."""

    frames: int
    """Number of frames."""
    width: int
    """Width of the picture, in pixels."""
    height: int
    """Height of the picture, in pixels."""
    has_sound: bool
    """Whether the proxy has the sound of the source."""
    first_seconds: float
    """Time of the first frame on the clock that players show, in seconds."""
    seconds: float
    """Time from the start of the first frame to the end of the last one, in seconds."""

    def as_dict(self) -> dict[str, Any]:
        """Return the attributes as plain values, for JSON."""
        return asdict(self)


def write_proxy(
    source: str | Path,
    target: str | Path,
    settings: Settings | None = None,
    *,
    most_height_px: int = MOST_HEIGHT_PX,
    on_event: OnEvent | None = None,
) -> Proxy:
    """Write a copy of a video that browsers play: H.264 in 8-bit 4:2:0, and AAC in stereo.

    Every frame has the time that it has in the source, as players show it, and the sound keeps its
    place. In a copy of an MPEG transport or program stream, times count from the start of the file.
    The picture is upright, has square pixels and is never larger than that of the source.
    Interlaced footage becomes one progressive picture for each frame. HDR and log footage is mapped
    to what an ordinary display shows, as in previews. There is a key frame in each second.

    Args:
        source: The video.
        target: The file to write, .mp4.
        settings: The settings; `decode.input_curve` and `fields.deinterlace` count: with "off",
            interlaced frames stay as they are. Default: `Settings()`.
        most_height_px: The picture is reduced to this height, in pixels. Default: 1080.
        on_event: Receives the progress and notices. Default: none.

    Returns:
        The properties of the copy.

    Raises:
        UsageError: The source is a picture, or the target has another suffix.
        InputError: The source cannot be read.
        OutputError: The copy cannot be encoded or written.
    """
    source, target, settings = Path(source), Path(target), settings or Settings()
    check_proxy_path(source, target)
    # The sampled frames tell about fields; the margins in which faces are ignored do not matter.
    detect = settings.detect.model_copy(update={"margins": False})
    probed, inspection = probe_and_inspect(source, settings.model_copy(update={"detect": detect}))
    info, sound = probed.info, _sound(probed)
    size = _size(info, most_height_px)
    expected = frames_expected(info) or None

    def on_frame(frames: int) -> None:
        if on_event is not None:
            on_event(Progress("proxy", frames, expected and max(expected, frames)))

    on_frame(0)
    with temporary_folder() as folder, output_file(target, is_last=True) as part:
        table = None if is_display(info) else _write_table(folder / "display.cube", info)
        filters = _filters(info, inspection.interlacing, size, table)
        done = _encoded(source, part, info, filters, sound, on_frame)
        if done.status and sound is not None:
            reason, sound = reason_of(done), None
            done = _encoded(source, part, info, filters, None, on_frame)
            if not done.status:
                notify(on_event, f"the sound of {source} is left out: {reason}")
        if done.status:
            raise OutputError(f"the proxy of {source} cannot be made: {reason_of(done)}")
        frames = packet_count(part, 0)
        if frames == 0:
            raise InputError(f"{source} has no picture that can be decoded")
        if done.printed:
            notify(
                on_event,
                f"{source} is damaged, and its proxy may lack pictures or sound there: "
                f"{reason_of(done)}",
            )
        with open_source(part) as made:
            video = made.streams.video[0]
            clock = Fraction(video.time_base)
            begin, lasts = ((ticks or 0) * clock for ticks in (video.start_time, video.duration))
    return Proxy(
        frames, *size, has_sound=sound is not None,
        first_seconds=float(begin), seconds=float(lasts),
    )  # fmt: skip


def _sound(source: Probe) -> StreamInfo | None:
    """Return the default stream of sound, else the first one that can be decoded."""
    known = [each for each in source.streams if each.type == "audio" and each.codec is not None]
    marked = [each for each in known if each.disposition & Disposition.default]
    return next(iter(marked or known), None)


def _size(info: VideoInfo, most_height_px: int) -> tuple[int, int]:
    """Return (width, height) of the upright picture; even, as 4:2:0 needs it."""
    view = upright(info)
    width, height = view.coded_size if view.orientation[0] else view.coded_size[::-1]
    scale = min(1.0, most_height_px / height, MOST_SIDE_PX / width)
    return _even(width * scale), _even(height * scale)


def _even(length_px: float) -> int:
    return max(2, round(length_px) // 2 * 2)


def _filters(
    info: VideoInfo, interlacing: Interlacing, size: tuple[int, int], table: Path | None
) -> list[str]:
    """Return the filters of the picture, in their order.

    Fields are joined before the picture is turned, since they are rows of the coded picture.
    """
    a, b, c, d = info.display_orientation
    coded = size if a else size[::-1]
    value_range = "pc" if info.full_range else "tv"
    scale = (
        f"scale={coded[0]}:{coded[1]}:flags=bicubic+accurate_rnd+full_chroma_int:"
        f"in_color_matrix={info.matrix}:in_range={value_range}"
    )
    to_video = "out_color_matrix=bt709:out_range=tv"
    filters = []
    if interlacing.mode != "off":
        filters.append(f"bwdif=mode=send_frame:parity={interlacing.order}:deint=all")
    if table is None:
        filters.append(f"{scale}:{to_video}")
    else:
        # The table holds R'G'B' of the stream in more than 8 bits, so that HDR shows no bands.
        filters += [
            f"{scale}:out_range=pc", "format=gbrp16le",
            f"lut3d=file={_escaped(str(table))}:interp=tetrahedral", f"scale={to_video}",
        ]  # fmt: skip
    filters.append("format=yuv420p")
    if not a:
        filters.append("transpose=cclock_flip")
    x_sign, y_sign = (a, d) if a else (b, c)
    filters += [name for name, sign in (("hflip", x_sign), ("vflip", y_sign)) if sign < 0]
    tags = ":".join(f"{name}=bt709" for name in ("color_primaries", "color_trc", "colorspace"))
    return [
        *filters, "setsar=1", "sidedata=mode=delete:type=DISPLAYMATRIX",
        f"setparams={tags}:range=tv:field_mode=prog", f"settb=1/{_TICKS}",
    ]  # fmt: skip


def _escaped(text: str) -> str:
    """Quote a value of a filter, first for the filter and then for the list of filters."""
    value = re.sub(r"([\\':])", r"\\\1", text)
    return re.sub(r"([\\'\[\],;])", r"\\\1", value)


def _write_table(path: Path, info: VideoInfo) -> Path:
    """Write the conversion to display values as a table (.cube), in which red changes fastest."""
    steps = torch.linspace(0, 1, _TABLE_STEPS, dtype=torch.float64)
    blue, green, red = torch.meshgrid(steps, steps, steps, indexing="ij")
    signals = torch.stack([red, green, blue]).reshape(3, _TABLE_STEPS, -1)
    values = to_display(signals, info).clamp(0, 1).reshape(3, -1).T.numpy()
    with path.open("w", encoding="ascii") as file:
        file.write(f"LUT_3D_SIZE {_TABLE_STEPS}\n")
        np.savetxt(file, values, fmt="%.6f")
    return path


def _encoded(
    source: Path,
    target: Path,
    info: VideoInfo,
    filters: Sequence[str],
    sound: StreamInfo | None,
    on_frame: Callable[[int], None],
) -> FFmpegRun:
    """Encode the copy; the picture alone where `sound` is None."""
    with open_source(source) as container:
        clock = [] if container.format.name in _ANY_CLOCK else ["-copyts"]
    streams = ["-map", f"0:{info.stream_index}"]
    if sound is not None:
        streams += ["-map", f"0:{sound.index}", "-c:a", "aac", "-ac", "2", "-ar",
                    str(_SOUND_RATE), "-b:a", str(_SOUND_BITS), "-af", _SOUND_FILTER]  # fmt: skip
    done = run_ffmpeg_watched(
        ["-v", "error", "-y", *clock, "-noautorotate", "-protocol_whitelist", "file",
         "-i", str(source.absolute()), *streams,
         "-vf", ",".join(filters), "-fps_mode", "vfr", "-enc_time_base", f"1:{_TICKS}",
         "-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-pix_fmt", "yuv420p",
         "-force_key_frames", _KEY_FRAMES,
         "-map_metadata", "-1", "-map_chapters", "-1", "-sn", "-dn",
         "-video_track_timescale", str(_TICKS), "-movie_timescale", str(_TICKS),
         "-movflags", "+faststart", "-f", "mp4", str(target.absolute())],
        on_frame,
    )  # fmt: skip
    check_room(done, target)
    return done

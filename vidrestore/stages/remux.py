"""The restored stream and everything else of the source become the output."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import ffmpeg
from av.stream import Disposition

from vidrestore.errors import OutputError, UsageError
from vidrestore.frame import VideoInfo

_CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
_TEXT_SUBTITLES = {"mov_text", "subrip", "srt", "ass", "ssa", "webvtt", "text"}
_ERROR_LINES = 3
_NO_STREAM = "9999?"  # names no stream, and "?" lets that pass


@dataclass(frozen=True, slots=True)
class RemuxPlan:
    """What becomes of each stream of the source."""

    container: str
    kept: tuple[int, ...]
    """Stream indices of the source in their order; the restored one among them."""
    codecs: dict[int, str]
    """Source stream index -> codec, where a stream cannot be copied as it is."""
    lost: tuple[str, ...] = ()
    """What the container cannot hold, one sentence each."""
    restored_metadata: dict[str, str] = field(default_factory=dict)
    restored_disposition: str = "0"


def container_of(target: Path) -> str:
    """The output's container by its suffix."""
    container = _CONTAINERS.get(target.suffix.lower())
    if container is None:
        raise UsageError(
            f"the output {target.name} must end in one of {', '.join(_CONTAINERS)}; .mkv holds most"
        )
    return container


def plan_streams(
    source: Any, info: VideoInfo, target: Path, codec: str, *, whole: bool
) -> RemuxPlan:
    """Decide before the work begins what is copied, converted or lost.

    `source` is the opened container; only sound goes with a part of it that is not `whole`.
    OutputError where the restored stream itself does not fit.
    """
    container = container_of(target)
    if codec == "ffv1" and container != "matroska":
        raise OutputError(f"ffv1 belongs into an .mkv file; name the output {target.stem}.mkv")
    kept, codecs, lost = [], {}, []
    for stream in source.streams:
        change, loss = _fate(stream, container)
        if not whole and stream.type != "audio":
            loss = f"{_named(stream)} is left out of a sample, which has picture and sound only"
        if stream.index == info.stream_index or loss is None:
            kept.append(stream.index)
            if change is not None:
                codecs[stream.index] = change
        else:
            lost.append(loss)
    restored = source.streams[info.stream_index]
    return RemuxPlan(
        container,
        tuple(kept),
        codecs,
        tuple(lost),
        {k: v for k, v in restored.metadata.items() if k.lower() in ("language", "title")},
        _disposition(restored.disposition),
    )


def remux(
    video: Path,
    source: Path,
    target: Path,
    plan: RemuxPlan,
    info: VideoInfo,
    *,
    ffmpeg_program: str,
    part_seconds: tuple[Fraction, Fraction] | None = None,
) -> None:
    """Write `target` from the restored `video` and the other streams of `source`, none re-encoded.

    Times are the source's own. With `part_seconds`, [start, end) from the start of the source file,
    only that part of the other streams is taken, and times begin at zero with the first frame.
    OutputError where ffmpeg fails.
    """
    restored = ffmpeg.input(_name(video))
    window = dict(zip(("ss", "to"), part_seconds, strict=True)) if part_seconds else {}
    others = ffmpeg.input(_name(source), **{k: f"{float(v):.6f}" for k, v in window.items()})
    mapped = [
        restored["v:0"] if index == info.stream_index else others[str(index)] for index in plan.kept
    ]
    # Metadata and chapters come from the source, also where no stream does.
    mapped.append(others[_NO_STREAM])
    run = ffmpeg.output(
        *mapped, _name(target), **_arguments(plan, info, whole=part_seconds is None)
    )
    _run(run.overwrite_output().global_args("-nostdin"), ffmpeg_program, source, target)


def _run(command: Any, ffmpeg_program: str, source: Path, target: Path) -> None:
    """Run ffmpeg, which does not outlive an interruption."""
    try:
        process = command.run_async(cmd=ffmpeg_program, quiet=True)
    except OSError as error:
        raise OutputError(f"{ffmpeg_program} cannot be run: {error.strerror}") from error
    try:
        said = process.communicate()[1]
    except BaseException:
        process.kill()
        process.wait()
        raise
    if b"No space left on device" in said:
        raise OSError(errno.ENOSPC, "no space left on device")
    if process.returncode:
        raise OutputError(
            f"the streams of {source} cannot be joined in {target.name}: {_tail(said)}"
        )


def try_remux(
    source: Path, trial: Path, plan: RemuxPlan, info: VideoInfo, *, ffmpeg_program: str
) -> None:
    """Join a moment of the other streams into `trial`, to learn before the work if they fit.

    OutputError, naming a container that holds more, where they do not.
    """
    others = [index for index in plan.kept if index != info.stream_index]
    if not others:
        return
    whole = ffmpeg.input(_name(source), t="0.2")
    arguments: dict[str, Any] = {"f": plan.container, "c": "copy", "loglevel": "error"}
    arguments |= {f"c:{others.index(index)}": codec for index, codec in plan.codecs.items()}
    run = ffmpeg.output(*(whole[str(index)] for index in others), _name(trial), **arguments)
    try:
        _run(run.overwrite_output().global_args("-nostdin"), ffmpeg_program, source, trial)
    except OutputError as error:
        raise OutputError(
            f"{error}; an .mkv file holds more" if plan.container != "matroska" else str(error)
        ) from error
    finally:
        trial.unlink(missing_ok=True)


def packet_count(path: Path, stream_index: int) -> int:
    """How many packets one stream of a finished file holds."""
    with av.open(_name(path)) as container:
        stream = container.streams[stream_index]
        return sum(1 for packet in container.demux(stream) if packet.size)


def _fate(stream: Any, container: str) -> tuple[str | None, str | None]:
    """(codec to convert to, or None to copy; what to say if it is lost, or None)."""
    name, where = _codec_name(stream), _named(stream)
    if stream.type == "subtitle":
        if container == "matroska":
            return ("srt" if name == "mov_text" else None), None
        if name in _TEXT_SUBTITLES:
            return (None if name == "mov_text" else "mov_text"), None
        return None, f"{where} holds subtitles as pictures, which only an .mkv file can keep"
    if stream.type == "attachment" and container != "matroska":
        return None, f"{where} is an attached file, which only an .mkv file can keep"
    if stream.type not in ("video", "audio", "subtitle", "attachment"):
        return None, f"{where} holds data that no player shows; it is left out"
    return None, None


def _name(path: Path) -> str:
    """As ffmpeg takes it for a file whatever its name: "-o.mp4" and "12:30.mp4" are no options."""
    return str(path.absolute())


def _codec_name(stream: Any) -> str | None:
    return stream.codec_context.name if stream.codec_context else None


def _named(stream: Any) -> str:
    return f"stream {stream.index} ({_codec_name(stream) or stream.type})"


def _arguments(plan: RemuxPlan, info: VideoInfo, *, whole: bool) -> dict[str, Any]:
    at = plan.kept.index(info.stream_index)
    # Inputs are numbered as their streams are first mapped.
    source_input = "1" if at == 0 else "0"
    arguments: dict[str, Any] = {
        "f": plan.container,
        "c": "copy",
        "map_metadata": source_input,
        "map_chapters": source_input,
        "loglevel": "warning",
        f"disposition:{at}": plan.restored_disposition,
        f"metadata:s:{at}": [f"{k}={v}" for k, v in plan.restored_metadata.items()],
    }
    for index, codec in plan.codecs.items():
        arguments[f"c:{plan.kept.index(index)}"] = codec
    if plan.container != "matroska":
        # Start times are rounded to the movie's clock, which is otherwise a thousandth of a second.
        arguments |= {"movie_timescale": "90000", "movflags": "+faststart"}
    elif info.sample_aspect_ratio != 1:
        # Matroska has it from the stream alone, where not every codec repeats it.
        aspect = info.sample_aspect_ratio * Fraction(info.width, info.height)
        arguments[f"aspect:{at}"] = f"{aspect.numerator}:{aspect.denominator}"
    if whole:
        # Without it each input is moved to start at zero by itself, and sound and picture part.
        # For a part that is just what is wanted: both inputs start where the part does.
        arguments["copyts"] = None
    else:
        others = (i for i in range(len(plan.kept)) if i != at)
        arguments |= {f"copypriorss:{i}": "0" for i in others}
    return {key: value for key, value in arguments.items() if value != []}


def _disposition(flags: Disposition) -> str:
    names = [flag.name for flag in Disposition if flag.name and flag & flags]
    return "+".join(names) or "0"


def _tail(stderr: bytes) -> str:
    lines: Sequence[str] = stderr.decode(errors="replace").strip().splitlines()
    return " / ".join(line.strip() for line in lines[-_ERROR_LINES:])

"""Joins the restored video stream and the other streams of the source in the output."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import ffmpeg

from vidrestore.common.errors import OutputError
from vidrestore.imaging.frame import VideoInfo
from vidrestore.media.boxes import copy_with_boxes
from vidrestore.media.containers import RemuxPlan, fourcc_of, suffix_for
from vidrestore.media.extraction import DELAY_SECONDS, extracted, needed_streams
from vidrestore.media.ffmpeg import check_room, ffmpeg_program, reason_of, run_ffmpeg
from vidrestore.media.probe import Probe
from vidrestore.media.timeline import NOTHING_TO_REPAIR

_log = logging.getLogger("vidrestore")

_NO_STREAM = "9999?"  # maps no stream: "?" makes a missing one no error
_TRIAL_SECONDS, _TRIAL_PACKETS = 0.2, 8
# A stream named hvc1 has its parameter sets in the header alone (ISO/IEC 14496-15).
_WITHOUT_PARAMETER_SETS = "filter_units=remove_types=32-34"
_PATH = "path in hexadecimal:"
_PROVENANCE_KEY = "vidrestore"


def remux(
    video: Path,
    source: Path,
    target: Path,
    plan: RemuxPlan,
    info: VideoInfo,
    *,
    codec: str,
    last_frame: tuple[Fraction, Fraction],
    provenance: str | None = None,
    part_seconds: tuple[Fraction, Fraction] | None = None,
) -> None:
    """Write the output from the restored video and the other streams of the source.

    No stream is encoded again. Times are those of the source.

    Args:
        video: The file with the restored video stream.
        source: The source.
        target: The output; an existing file is replaced.
        plan: The streams to keep and what becomes of each.
        info: The restored stream of the source.
        codec: The codec of `video` by ffmpeg's name.
        last_frame: The time of the last frame and its duration, in seconds.
        provenance: A text for the tags of the file; None: no text.
        part_seconds: [start, end) from the start of the source file, in seconds; only that part of
            the other streams is copied, and times begin at 0 with the first frame. None: all.

    Raises:
        OutputError: ffmpeg cannot be run or fails.
        OSError: The disk is full.
    """
    if plan.boxes and plan.container == "matroska":
        video = _with_boxes(video, plan.boxes)
    restored = _Input(video, {})
    others = _Input(source, _window(part_seconds))
    line = plan.time_line or NOTHING_TO_REPAIR
    needed = needed_streams(line, {*plan.kept} - {info.stream_index})
    at = plan.kept.index(info.stream_index)
    with extracted(source, needed, line, video.parent) as own:
        # The extracted files have the times of the source's clock, and not from its start.
        late = plan.start + DELAY_SECONDS
        window = _window(part_seconds, late) | {"seek_timestamp": "1"}
        options = window if part_seconds else {"itsoffset": str(-DELAY_SECONDS)}
        files = {index: _Input(path, options) for index, path in own.files.items()}
        mapped = [
            (restored, "v:0")
            if index == info.stream_index
            else (files[index], "0")
            if index in files
            else (others, str(index))
            for index in plan.kept
        ]
        # Metadata and chapters come from the source, also where no stream does.
        mapped.append((others, _NO_STREAM))
        # Inputs are numbered as their streams are first mapped.
        number = list(dict.fromkeys(each for each, _ in mapped)).index(others)
        covers = _write_covers(source, plan, video.parent)
        arguments = _arguments(plan, info, number, whole=part_seconds is None)
        own_tags, repeated = _tags_and_covers(plan, provenance, covers)
        arguments |= _container_arguments(plan, info, codec, has_own_tags=own_tags)
        filters = []
        if (fourcc := fourcc_of(codec, plan.container)) is not None:
            arguments[f"tag:{at}"] = fourcc
            filters += [_WITHOUT_PARAMETER_SETS] if fourcc == "hvc1" else []
        if part_seconds is None:
            filters.append(_durations(*last_frame))
        if filters:
            arguments[f"bsf:{at}"] = ",".join(filters)
        plain = target
        if plan.boxes and plan.container != "matroska":
            plain = target.with_name(f"{target.stem}.part{target.suffix}")
        _run(_command(mapped, plain, arguments, repeated), source, target)
    if plain != target:
        copy_with_boxes(plain, target, plan.boxes, at)
        plain.unlink()


def _window(
    part_seconds: tuple[Fraction, Fraction] | None, later: Fraction = Fraction(0)
) -> dict[str, str]:
    """Return the options of an input of which a part is read; `later` is added to the times."""
    if part_seconds is None:
        return {}
    return {
        key: f"{float(time + later):.6f}"
        for key, time in zip(("ss", "to"), part_seconds, strict=True)
    }


def _with_boxes(video: Path, boxes: bytes) -> Path:
    """Copy the restored stream with boxes from which ffmpeg makes Matroska's elements."""
    copy = video.with_name(f"{video.stem}.boxes.part.mov")
    if video.suffix == ".mkv":
        plain = video.with_name(f"{video.stem}.plain.part.mov")
        arguments = {"f": "mov", "c": "copy", "copyts": None, "loglevel": "error"}
        _run(_command([(_Input(video, {}), "v:0")], plain, arguments), video, plain)
        video = plain
    copy_with_boxes(video, copy, boxes, 0)
    return copy


def _durations(last_seconds: Fraction, lasts_seconds: Fraction) -> str:
    """Return a bitstream filter that ends the stream where its last frame ends.

    Without it, the container takes the end from the last packet in coding order, which may be that
    of another frame.
    """
    # Half a microsecond is less than any tick and more than the rounding error of the expression.
    is_last = f"gte(PTS*TB,{float(last_seconds) - 5e-7!r})"
    end = float(last_seconds + lasts_seconds)
    lasts = f"round({float(lasts_seconds)!r}/TB)"
    others = f"min(DURATION,round({end!r}/TB)-PTS)"
    return f"setts=pts=PTS:dts=DTS:duration=if({is_last},{lasts},{others})".replace(",", "\\,")


def trial_remux(probe: Probe, trial: Path, plan: RemuxPlan) -> RemuxPlan:
    """Join a moment of the other streams before the work begins, and adapt the plan to the result.

    Streams that no container takes, for example because their headers are damaged, leave the plan.

    Args:
        probe: The source.
        trial: A path for the trial file, which is removed.
        plan: The streams to keep.

    Returns:
        `plan`, or a plan without the streams that cannot be joined and with a notice about them.

    Raises:
        OutputError: The container cannot hold sound, or another video, that another container can
            hold, or the ffmpeg program cannot be run.
    """
    ffmpeg_program()  # it joins the output also where no other stream is tried here
    source = probe.path
    others = [index for index in plan.kept if index != probe.info.stream_index]
    needed = needed_streams(probe.time_line, others)
    with extracted(
        source, needed, probe.time_line, trial.parent, most_packets=_TRIAL_PACKETS
    ) as own:
        if own.failures:
            reason = next(iter(own.failures.values()))
            plan = plan.without(own.failures, _left_out(probe, [*own.failures], reason))
            others = [index for index in others if index not in own.failures]
        return _tried(probe, trial, plan, others, own.files)


def _tried(
    probe: Probe, trial: Path, plan: RemuxPlan, others: Sequence[int], files: Mapping[int, Path]
) -> RemuxPlan:
    """Adapt a plan to trials; `files` has the streams that are not read from the source."""
    source = probe.path
    part = _Input(source, {"t": str(_TRIAL_SECONDS)})
    inputs = {i: (_Input(files[i], {}), "0") if i in files else (part, str(i)) for i in others}
    if not others or _fits(source, trial, plan, inputs, plan.container) is None:
        return plan
    reasons = {i: _fits(source, trial, plan, {i: inputs[i]}, plan.container) for i in others}
    rejected = [index for index, reason in reasons.items() if reason is not None] or others
    streams = {each.index: each for each in probe.streams}
    # A file is refused for its sound and other videos, not for its subtitles.
    needed = [index for index in rejected if streams[index].type in ("video", "audio")]
    for group in filter(None, (needed, [index for index in rejected if index not in needed])):
        reason = next(filter(None, (reasons[i] for i in group)), "they do not fit together")
        named = _named_in(probe, group)
        own = {index: inputs[index] for index in group}
        for other in ("matroska", "mov", "mp4") if group is needed else ():
            if other != plan.container and _fits(source, trial, plan, own, other) is None:
                raise OutputError(
                    f"{suffix_for(plan.container)} cannot hold stream {named} of {source}, but an "
                    f"{suffix_for(other)} file can: {reason}"
                )
        holder = "no container that vidrestore writes"
        if group is not needed:
            holder = f"no {suffix_for(plan.container)} file"
        why = f"{holder} can hold stream {named}, so it is left out: {reason}"
        plan = plan.without(group, why)
    return plan


def _named_in(probe: Probe, streams: Sequence[int]) -> str:
    """Return how messages name streams."""
    codecs = {each.index: each.codec for each in probe.streams}
    return ", ".join(f"{i} ({codecs[i] or 'unknown codec'})" for i in streams)


def _left_out(probe: Probe, streams: Sequence[int], reason: str) -> str:
    """Return the notice about streams that no container holds."""
    named = _named_in(probe, streams)
    return (
        f"no container that vidrestore writes can hold stream {named}, so it is left out: {reason}"
    )


def _fits(
    source: Path,
    trial: Path,
    plan: RemuxPlan,
    inputs: Mapping[int, tuple[_Input, str]],
    container: str,
) -> str | None:
    """Return why these streams cannot be joined in such a container, or None if they can."""
    arguments: dict[str, Any] = {"f": container, "c": "copy", "loglevel": "error"}
    if container == plan.container:
        arguments |= {f"c:{at}": plan.codecs[i] for at, i in enumerate(inputs) if i in plan.codecs}
    try:
        _run(_command([*inputs.values()], trial, arguments), source, trial)
    except OutputError as error:
        _log.info("a trial failed: %s", error)
        return str(error).partition(": ")[2]
    finally:
        trial.unlink(missing_ok=True)
    return None


def packet_count(path: Path, stream_index: int) -> int:
    """Count the packets of one stream of a finished file.

    Args:
        path: The file.
        stream_index: The index of the stream.

    Returns:
        The number of packets that are not empty.
    """
    with av.open(str(path.absolute())) as container:
        stream = container.streams[stream_index]
        return sum(1 for packet in container.demux(stream) if packet.size)


def _write_covers(source: Path, plan: RemuxPlan, folder: Path) -> list[tuple[Path, str, str]]:
    """Write the cover pictures that become attachments; return (file, name, media type) of each."""
    covers = []
    for index, (name, media_type) in plan.attached.items():
        with av.open(str(source.absolute())) as container:
            packets = container.demux(container.streams[index])
            picture = next((bytes(p) for p in packets if p.size), None)
        if picture is not None:
            path = folder / f"cover{index}"
            path.write_bytes(picture)
            covers.append((path, name, media_type))
    return covers


def _arguments(
    plan: RemuxPlan, info: VideoInfo, source_input: int, *, whole: bool
) -> dict[str, Any]:
    """Return the options of the output that depend on the streams."""
    at = plan.kept.index(info.stream_index)
    arguments: dict[str, Any] = {
        "f": plan.container,
        "c": "copy",
        "map_metadata": str(source_input),
        "map_chapters": str(source_input),
        "loglevel": "warning",
    }
    for place, index in enumerate(plan.kept):
        arguments[f"disposition:{place}"] = plan.dispositions[index]
        if index in plan.codecs:
            arguments[f"c:{place}"] = plan.codecs[index]
        if index in plan.fourccs:
            arguments[f"tag:{place}"] = plan.fourccs[index]
    if whole:
        # Without copyts, ffmpeg shifts each input to start at zero, and sound and picture lose
        # their synchrony. For a part that shift is right: both inputs start with the part.
        arguments["copyts"] = None
    else:
        others = (i for i in range(len(plan.kept)) if i != at)
        arguments |= {f"copypriorss:{i}": "0" for i in others}
    return arguments


def _tags_and_covers(
    plan: RemuxPlan, provenance: str | None, covers: Sequence[tuple[Path, str, str]]
) -> tuple[bool, list[str]]:
    """Return (whether tags need an extension of mp4 and mov, options that stand more than once)."""
    options: list[str] = []
    for path, _, _ in covers:
        options += ["-attach", str(path.absolute())]
    for place, index in enumerate(plan.kept):
        options += _metadata(f"s:{place}", plan.tags[index])
    for place, (_, name, media_type) in enumerate(covers, start=len(plan.kept)):
        options += _metadata(f"s:{place}", {"filename": name, "mimetype": media_type})
    if provenance is None:
        return plan.has_own_tags, options
    plain = plan.container != "matroska" and not plan.has_comment
    key = "comment" if plain else _PROVENANCE_KEY
    return plan.has_own_tags or not plain, options + _metadata("g", {key: provenance})


def _metadata(where: str, tags: Mapping[str, str]) -> list[str]:
    """Return ffmpeg's options that set tags; `where` names the file (g) or a stream (s:0)."""
    return [word for k, v in tags.items() for word in (f"-metadata:{where}", f"{k}={v}")]


def _container_arguments(
    plan: RemuxPlan, info: VideoInfo, codec: str, *, has_own_tags: bool
) -> dict[str, Any]:
    """Return the options of the output that depend on the container."""
    at = plan.kept.index(info.stream_index)
    if plan.container == "matroska":
        # The muxer would otherwise mark the first track of each kind as the default.
        arguments = {"default_mode": "passthrough"}
        if info.sample_aspect_ratio != 1 or codec == "ffv1":
            # The muxer takes the aspect ratio from the stream, and not every codec states it there.
            # Copied frames of FFV1 may state another one, which counts where the file states none.
            aspect = info.sample_aspect_ratio * Fraction(info.width, info.height)
            arguments[f"aspect:{at}"] = f"{aspect.numerator}:{aspect.denominator}"
        return arguments
    flags = "+faststart"
    if has_own_tags and plan.can_have_own_tags:
        flags += "+use_metadata_tags"
    # Start times are rounded to the movie's clock, whose default is a thousandth of a second.
    return {"movie_timescale": "90000", "movflags": flags}


@dataclass(frozen=True, slots=True, eq=False)
class _Input:
    """A file that ffmpeg reads, and the options that stand before it."""

    path: Path
    options: Mapping[str, str]


def _command(
    mapped: Sequence[tuple[_Input, str]],
    target: Path,
    options: Mapping[str, Any],
    repeated: Sequence[str] = (),
) -> list[str]:
    """What ffmpeg is called with to copy streams into one file; ffmpeg-python is used here alone.

    Args:
        mapped: The streams of the file in their order: an input, and which stream of it.
        target: The file, which is replaced.
        options: Options of the output; None as the value of one that takes none.
        repeated: Options of the output that stand more than once, which a mapping cannot hold.

    Returns:
        The arguments. Inputs are numbered as their streams are first mapped.
    """
    opened = {each: ffmpeg.input(_named(each.path), **each.options) for each, _ in mapped}
    streams = [opened[each][stream] for each, stream in mapped]
    *arguments, name = ffmpeg.output(*streams, _named(target), **options).get_args()
    return ["-y", *map(_decoded, arguments), *repeated, _decoded(name)]


def _run(command: Sequence[str], source: Path, target: Path) -> None:
    done = run_ffmpeg(command)
    check_room(done, target)
    if done.status:
        raise OutputError(
            f"the streams of {source} cannot be joined in {target.name}: {reason_of(done)}"
        )


def _named(path: Path) -> str:
    """Encode a path for ffmpeg-python, which takes UTF-8 text; a path may hold any bytes."""
    return f"{_PATH}{os.fsencode(path.absolute()).hex()}"


def _decoded(argument: str) -> str:
    """Decode a path that `_named` encoded; return other arguments unchanged."""
    if not argument.startswith(_PATH):
        return argument
    return os.fsdecode(bytes.fromhex(argument.removeprefix(_PATH)))

"""The second pass of one segment: decode, crop, restore, deflicker, guard, paste and encode."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from vidrestore.analysis.replay import frames_again, last_duration
from vidrestore.analysis.result import Analysis, frames_of_output, in_output, is_woven
from vidrestore.analysis.tracks import Track
from vidrestore.common.counting import counted
from vidrestore.common.errors import ChangedSourceError
from vidrestore.common.settings import Deflicker, Settings
from vidrestore.common.system import usable_cores
from vidrestore.common.threads import StageThreads
from vidrestore.imaging.frame import Frame, VideoInfo
from vidrestore.imaging.planes import with_chroma
from vidrestore.media.codecs import Encoding
from vidrestore.media.decode import TimeRange, decoding_device
from vidrestore.media.encode import VideoWriter
from vidrestore.media.fields import woven
from vidrestore.models.devices import picture_device
from vidrestore.models.face_parser import Parser
from vidrestore.models.restorers import Restorer, RestorerInfo
from vidrestore.models.restorers.assignment import Assignment
from vidrestore.models.restorers.denoise import Denoise
from vidrestore.restoration import guard as guard_stage
from vidrestore.restoration import key_frames as key_frames_stage
from vidrestore.restoration import latent as latent_codes
from vidrestore.restoration import temporal as deflicker_stage
from vidrestore.restoration.batching import restore
from vidrestore.restoration.companion import ALONE, PairedVideo, Pairing, target_from_source
from vidrestore.restoration.compositing import paste as paste_stage
from vidrestore.restoration.compositing.layers import LayerFiles, layer_writer, with_layers
from vidrestore.restoration.compositing.paste import paste
from vidrestore.restoration.crop import crop, cut_out
from vidrestore.restoration.crop_cache import CropCache
from vidrestore.restoration.faces import FaceFrame
from vidrestore.restoration.guard import SimilarityJudge, guard
from vidrestore.restoration.plate import enlarged, onto_plate
from vidrestore.restoration.segments import Segment, context, side_px, tracks_within
from vidrestore.restoration.statistics import RestorationStats
from vidrestore.restoration.swap import only_swapped
from vidrestore.restoration.temporal import averaged, prepared
from vidrestore.restoration.upscaling import open_scaler

_FEW_FRAMES = 8
# More threads would only hold more frames: the other stages are slower then.
_MOST_THREADS = 4


@dataclass(frozen=True, slots=True)
class FaceWork:
    """What the stages between the decoder and the encoder of a run work with."""

    restorers: Assignment[Restorer]
    """Which restorer restores which face."""
    judge: SimilarityJudge
    """Compares restored faces with their source."""
    settings: Settings
    """All settings."""
    _: KW_ONLY
    parser: Parser | None = None
    """Finds the parts that are not face and stay unchanged; None: such parts are not looked for."""
    pairing: Pairing = ALONE
    """The companions of the source."""
    crops: CropCache | None = None
    """Keeps the results of restorers; None: they are not kept."""
    key_framed: Collection[int] = ()
    """The numbers of the tracks of which the network restores key frames only."""


def restore_segment(
    source: Path,
    target: Path,
    analysis: Analysis,
    segment: Segment,
    work: FaceWork,
    *,
    encoding: Encoding,
    header: Path | None = None,
    span: TimeRange | None = None,
    layer: LayerFiles | None = None,
    on_frame: Callable[[int, Frame], None] | None = None,
) -> RestorationStats:
    """Write the part of the video stream that belongs to a segment, with its faces restored.

    The frames do not depend on how the video is split into segments: the frames around the segment
    on which its frames depend are restored, too, and not written. With a plate in `work.pairing`
    the stream is that of the plate, which may be the enlarged source. A failure leaves no file and
    no thread behind.

    Args:
        source: The path of the source.
        target: The path of the file to write.
        analysis: The analysis of the source.
        segment: The segment.
        work: The restorers and what else the stages for faces need.
        encoding: The encoding of the output stream.
        header: A file whose container has the HDR10 metadata that the codec lacks; default: none.
        span: The part of the source that was analyzed; default: all of it.
        layer: The files for a layer of the restored faces alone; default: no layer.
        on_frame: The callback that receives, after each frame of the segment, the number of those
            that are written, and the frame; default: none.

    Returns:
        The statistics of the segment.

    Raises:
        ChangedSourceError: A companion or the source gives other frames than in the first pass.
    """
    settings, pairing = work.settings, work.pairing
    info, plate = analysis.info, pairing.plate
    # The frames of the output, apart from the faces; they may be woven from the restored frames.
    output_analysis = analysis if plate is None else plate.analysis
    output = frames_of_output(output_analysis)
    stats = RestorationStats(frames=range(segment.first, segment.end))
    reach = reach_frames(work.restorers, settings, has_key_frames=bool(work.key_framed))
    first, end = context(segment, analysis, reach)
    # The other tracks would cost every segment time in proportion to the whole video.
    tracks = tracks_within(analysis, first, end)
    # Decoders give the durations of packets, which follow the order of coding.
    durations = [*np.diff(output.pts).tolist(), last_duration(output)]
    encoder_threads, depth = settings.encode.threads, settings.job.queue_frames
    colorizes = any(restorer.colorizes for restorer in work.restorers.each())
    if analysis.frame_count < _FEW_FRAMES:
        encoding = encoding.of_few_frames()
    with (
        VideoWriter(
            target, output.info, encoding, threads=encoder_threads, header=header
        ) as writer,
        _layer_writer(layer, output.info, encoder_threads) as write_layer,
        StageThreads(caller="encode") as threads,
    ):
        decoder = _decoder(source, info, settings, stats)
        copies = encoding.copied is not None
        decoded_frames = frames_again(
            source, analysis, span, first=first, end=end, device=decoder,
            keep_packets=copies and plate is None,
        )  # fmt: skip
        frames = threads.background(decoded_frames, depth=depth, name="decode")
        pasted: Iterator[Frame] = frames
        # Without faces, the other stages would only hand every frame on from thread to thread.
        is_changed = pairing.before_swap is not None or plate is not None or colorizes
        has_stages = bool(tracks) or is_changed or layer is not None or is_woven(analysis)
        if has_stages:
            pasted = _with_faces(
                frames, threads, analysis, (first, end), tracks, work, stats,
                keep_packets=copies, keep_pasted=layer is not None,
            )  # fmt: skip
        written = _woven((f for f in pasted if segment.first <= f.index < segment.end), analysis)
        if layer is not None:
            written = with_layers(written, output.info, layer.holds)
        if has_stages:
            written = threads.background(written, depth=depth, name="paste")
        for frame in written:
            timed = replace(frame, duration=durations[frame.index])
            writer.write(timed)
            if write_layer is not None:
                write_layer(timed)
            if on_frame is not None:
                on_frame(writer.frame_count, timed)
        begin, stop = in_output(analysis, segment.first, segment.end)
        if writer.frame_count != stop - begin:
            raise ChangedSourceError(
                f"{source} gave {counted(stop - begin, 'frame')} from frame {begin} on in the "
                f"first pass and {writer.frame_count} in the second; it changed meanwhile or "
                "cannot be read reliably"
            )
        stats.copied = writer.copied_count
    stats.add_stages(threads.times)
    return stats


def _with_faces(
    frames: Iterator[Frame],
    threads: StageThreads,
    analysis: Analysis,
    span: tuple[int, int],
    tracks: list[Track],
    work: FaceWork,
    stats: RestorationStats,
    *,
    keep_packets: bool,
    keep_pasted: bool,
) -> Iterator[Frame]:
    """Run the stages from the crop to the paste for the frames [first, end) of `span`."""
    restorers, settings, pairing = work.restorers, work.settings, work.pairing
    (first, end), info, plate = span, analysis.info, pairing.plate
    output_analysis, output_tracks = analysis, tracks
    if plate is not None:
        output_analysis, output_tracks = plate.analysis, tracks_within(plate.analysis, first, end)
    device, depth = picture_device(settings.restore), settings.job.queue_frames
    cropped = crop(
        frames,
        [replace(track, work_px=side_px(track, restorers)) for track in tracks],
        info,
        device=device,
        extent=settings.paste.extent if plate is None else None,
    )
    if (before := pairing.before_swap) is not None:
        before_frames = threads.background(
            _companion_frames(before, first, end), depth=depth, name="decode before"
        )
        cropped = only_swapped(
            cropped,
            before_frames,
            info,
            before.analysis.info,
            stats,
            order=analysis.fields.order if analysis.fields and is_woven(analysis) else None,
        )
    faces = threads.background(cropped, depth=depth, name="crop")
    margin = _reach_of_restorers(restorers, settings) + _reach_of_codes(settings)
    key_reach = key_frames_stage.KEY_REACH_FRAMES if work.key_framed else 0
    if work.key_framed:
        chosen = key_frames_stage.choose(faces, tracks, of=work.key_framed)
        faces = threads.background(chosen, depth=depth, name="key frames")
    needed = _needed(first, end, analysis, margin + key_reach)
    restored = _restored(faces, work, stats, device, needed)
    restored_faces = threads.background(restored, depth=depth, name="restore")
    if work.key_framed:
        wanted = _needed(first, end, analysis, margin + key_frames_stage.REACH_FRAMES)
        filled = key_frames_stage.fill(restored_faces, stats, needed=wanted)
        restored_faces = threads.background(filled, depth=depth, name="frames between")
    deflickered_faces = _deflickered(
        restored_faces, _deflicker(restorers, settings), threads, device
    )
    guarded = guard(deflickered_faces, work.judge, stats, settings.guard, tracks=tracks)
    # Depth 1: a face that waits takes 24 W^2 bytes, and the guard already keeps some frames.
    guarded_faces = threads.background(guarded, depth=1, name="guard")
    if plate is not None:
        if plate.scaling is not None:
            larger = open_scaler(plate.scaling, info, output_analysis.info, settings.restore)
            pairs = threads.background(enlarged(guarded_faces, larger), depth=1, name="scale")
        else:
            decoded = _companion_frames(plate, first, end, keep_packets=keep_packets)
            plate_frames = threads.background(decoded, depth=depth, name="decode plate")
            pairs = zip(guarded_faces, plate_frames, strict=True)
        guarded_faces = onto_plate(
            pairs,
            output_tracks,
            output_analysis.info,
            target_from_source(output_analysis.info, info),
            cut_out,
            may_be_graded=plate.scaling is None,
        )
    if any(restorer.colorizes for restorer in restorers.each()):
        guarded_faces = (_with_chroma(frame) for frame in guarded_faces)
    return paste(
        guarded_faces,
        output_analysis.info,
        stats,
        settings.paste,
        settings.grain,
        parser=work.parser,
        tracks=output_tracks,
        keep_pasted=keep_pasted,
        single_fields=analysis.fields is not None and analysis.fields.mode in ("keep", "bob"),
    )


def _restored(
    faces: Iterator[FaceFrame],
    work: FaceWork,
    stats: RestorationStats,
    device: torch.device,
    needed: range,
) -> Iterator[FaceFrame]:
    """Restore the stretches of frames in order, each by its restorer and those of tracks."""
    restorers, how = work.restorers, work.settings.restore
    amount = how.denoise
    denoiser = Denoise(amount) if amount > 0 else None
    for restorer, stretch in groupby(faces, lambda face: restorers.at(face.frame.index)):
        yield from restore(
            stretch,
            restorer,
            stats,
            how,
            own=restorers.of_tracks,
            device=device,
            crops=work.crops,
            denoiser=denoiser,
            needed=needed,
        )


def _deflickered(
    faces: Iterator[FaceFrame], how: Deflicker, threads: StageThreads, device: torch.device
) -> Iterator[FaceFrame]:
    """Deflicker in several threads: the faces of a frame at once, and several frames at once."""
    if how.amount == 0:
        return faces
    # The work of a device is done by the device.
    count = 1 if device.type == "cuda" else min(usable_cores(), _MOST_THREADS)
    run_each = threads.together(count - 1, name="deflicker, faces")
    ready = threads.background(
        prepared(faces, how, run_each=run_each), depth=1, name="deflicker, motion"
    )
    return threads.each(ready, [averaged] * count, depth=1, name="deflicker")


def _with_chroma(frame: FaceFrame) -> FaceFrame:
    """Return the frame with planes for the colors that its faces get."""
    own = frame.frame
    if (image := with_chroma(own.image)) is own.image:
        return frame
    return replace(frame, frame=replace(own, image=image, packet=None))


def _woven(frames: Iterator[Frame], analysis: Analysis) -> Iterator[Frame]:
    """Return the frames of the output: these, or frames that are woven from these as fields."""
    if not is_woven(analysis) or (fields := analysis.fields) is None:
        return frames
    return woven(frames, fields.order, flagged_order=fields.info.field_order)


def _layer_writer(
    layer: LayerFiles | None, info: VideoInfo, threads: int
) -> AbstractContextManager[Callable[[Frame], None] | None]:
    if layer is None:
        return nullcontext()
    return layer_writer(layer, info, partial(VideoWriter, threads=threads))


def _companion_frames(
    companion: PairedVideo, first: int, end: int, *, keep_packets: bool = False
) -> Iterator[Frame]:
    """Decode the frames [first, end) of a companion."""
    return frames_again(
        companion.path, companion.analysis, companion.span,
        first=first, end=end, keep_packets=keep_packets,
    )  # fmt: skip


def _needed(first: int, end: int, analysis: Analysis, reach: int) -> range:
    """Return the frames of the context [first, end) whose faces later stages use.

    The `reach` frames at its ends only fill the windows of others and are left out, unless a shot
    ends there.
    """
    starts, ends = zip(*analysis.shots, strict=True)
    return range(first if first in starts else first + reach, end if end in ends else end - reach)


def _reach_of_restorers(restorers: Assignment[RestorerInfo], settings: Settings) -> int:
    """Return the number of frames on either side in the windows of the restorers."""
    before = Denoise.reach_frames if settings.restore.denoise > 0 else 0
    return max(restorer.reach_frames or before for restorer in restorers.each())


def _reach_of_codes(settings: Settings) -> int:
    """Return the number of frames on either side whose latent codes enter that of a frame."""
    return latent_codes.REACH_FRAMES if settings.restore.latent == "shot" else 0


def reach_frames(
    restorers: Assignment[RestorerInfo],
    settings: Settings,
    *,
    has_key_frames: bool = False,
) -> int:
    """Return the number of frames before and after a frame on which its result may depend.

    Args:
        restorers: Which restorer restores which face.
        settings: All settings.
        has_key_frames: Whether the network restores key frames only on some tracks; default:
            False.

    Returns:
        The number of frames on either side.
    """
    reach = _reach_of_restorers(restorers, settings) + _reach_of_codes(settings)
    reach += paste_stage.REACH_FRAMES
    if has_key_frames:
        reach += key_frames_stage.REACH_FRAMES
    if _deflicker(restorers, settings).amount:
        reach += deflicker_stage.REACH_FRAMES
    how = settings.guard
    if max(how.identity, how.features, how.expression) > 0:
        reach += guard_stage.REACH_FRAMES
    return reach


def _deflicker(restorers: Assignment[RestorerInfo], settings: Settings) -> Deflicker:
    """Return the section of settings, with amount 0 where every restorer uses several frames."""
    is_needed = any(restorer.reach_frames == 0 for restorer in restorers.each())
    how = settings.deflicker
    return how if is_needed else how.model_copy(update={"amount": 0.0})


def _decoder(
    source: Path, info: VideoInfo, settings: Settings, stats: RestorationStats
) -> str | None:
    """Return the device that decodes; None for the CPU."""
    if not settings.decode.hardware:
        return None
    device = decoding_device(source, info.stream_index)
    if device is None:
        stats.notes["decoder"] = (
            "decode.hardware is set, but no device of this machine decodes the pictures of this "
            "video; the CPU decoded them"
        )
    return device

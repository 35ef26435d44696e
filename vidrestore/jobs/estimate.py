"""Estimate how long a restoration takes on this machine, from a short trial."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidrestore.analysis.interlacing import interlacing_of
from vidrestore.analysis.part import first_in_file, frames_of
from vidrestore.analysis.result import Analysis, of_file
from vidrestore.common.errors import VidrestoreError
from vidrestore.common.events import OnEvent
from vidrestore.common.settings import Restore, Settings
from vidrestore.common.temporary import temporary_folder
from vidrestore.jobs.exclusions import check_exclusions, given_by_fields
from vidrestore.jobs.key_frames import plan_key_frames
from vidrestore.jobs.plan import ways_to_encode
from vidrestore.media.decode import TimeRange
from vidrestore.media.encode import choose_encoding
from vidrestore.models import weights
from vidrestore.models.devices import choose_device
from vidrestore.models.factory import chosen_parser, chosen_restorer, weights_needed
from vidrestore.models.restorers import Restorer
from vidrestore.models.restorers.assignment import Assignment
from vidrestore.restoration.companion import ALONE, Pairing, enlarged, with_room_for
from vidrestore.restoration.guard import chosen_judge
from vidrestore.restoration.latent import restored_alone
from vidrestore.restoration.pipeline import FaceWork, restore_segment
from vidrestore.restoration.segments import Segment, restorers_used
from vidrestore.restoration.upscaling import Scaling, chosen_scaling

_log = logging.getLogger("vidrestore")

_PROBED_FRAMES = 24
# The restorer runs once to warm up, then until either limit is reached.
_ENOUGH_SECONDS, _MOST_RUNS = 2.0, 3
# Key frames are offered where the whole takes at most so much of the time.
_WORTH_OFFERING = 0.9


@dataclass(frozen=True, slots=True)
class Estimate:
    """The wall time of the second pass."""

    restorer: str
    """The names of the restorers, joined by commas."""
    seconds: float
    """The time of the whole pass."""
    seconds_per_face: float
    """The time of the restorer alone, for one face."""
    seconds_per_frame: float
    """The time of all other stages, for one frame: decode, crop, paste, encode."""
    network_share: float = 1.0
    """The share of the faces that go through the network; below 1 with key frames."""
    seconds_with_key_frames: float | None = None
    """The time of the whole pass with restore.key_frames=auto; None where the settings ask for key
    frames, or where they would not save a tenth of the time."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def estimate(
    source: Path, analysis: Analysis, settings: Settings, on_event: OnEvent | None = None
) -> Estimate | str:
    """Estimate how long the restoration of an analyzed video takes.

    24 frames from the first face on pass through all stages with a restorer that returns its input.
    Then the real restorer runs alone on a few crops. The stages run in parallel later, so a run
    usually takes less. No weights are fetched.

    Args:
        source: The video.
        analysis: The analysis of the video.
        settings: The settings of the run.
        on_event: Receives notices; default: None, and no notices are sent.

    Returns:
        The estimate, or a sentence that tells why there is none.
    """
    how = settings.weights
    folders = weights.search_folders(how.folder, how.also)
    try:
        scaling = chosen_scaling(settings)
        fields = given_by_fields(interlacing_of(analysis).mode)
        check_exclusions(fields | {"--scale": settings.scale.factor > 1})
    except VidrestoreError as error:
        _log.info("the time is not estimated: %s", error)
        return f"the time cannot be estimated: {error}"
    analysis = with_room_for(analysis, _pairing(source, analysis, None, scaling))
    given = settings.restore.key_frames
    for name in weights_needed(settings, _faces_by_side(analysis)):
        if weights.find(name, folders) is None:
            return (
                f"the time cannot be estimated without the weights {name}; run vidrestore weights "
                f"fetch {name} to download them"
            )
    here_only = settings.weights.model_copy(update={"offline": True})
    try:
        restorer = chosen_restorer(settings.model_copy(update={"weights": here_only}), on_event)
        per_frame, _ = _seconds_per_frame(source, analysis, settings, scaling)
        per_face = _seconds_per_face(restorer, analysis, settings)
        keyed = plan_key_frames(
            analysis, Assignment([(0, restorer)]), _may_have_key_frames(settings), {}
        ).tracks
        per_keyed_frame, share = per_frame, 1.0
        if keyed:
            per_keyed_frame, share = _seconds_per_frame(source, analysis, settings, scaling, keyed)
    except VidrestoreError as error:
        _log.info("the time is not estimated: %s", error)
        return f"the time cannot be estimated: {error}"
    total = analysis.frame_count * per_frame + analysis.face_count * per_face
    spared = (1 - share) * sum(
        int(np.count_nonzero(track.strength))
        for track in analysis.tracks
        if track.track_id in keyed
    )
    with_keys = analysis.frame_count * per_keyed_frame + (analysis.face_count - spared) * per_face
    offered = None
    if given != "off":
        total, per_frame = with_keys, per_keyed_frame
    elif with_keys < _WORTH_OFFERING * total:
        offered = with_keys
    through = 1.0
    if given != "off" and analysis.face_count:
        through = 1 - spared / analysis.face_count
    used = restorers_used(Assignment([(0, restorer)]), analysis, 0, analysis.frame_count)
    names = dict.fromkeys(each.name for _, each in used) or (restorer.name,)
    return Estimate(", ".join(names), total, per_face, per_frame, through, offered)


def _may_have_key_frames(settings: Settings) -> Settings:
    """Return the settings with key frames where they save time, unless they are on in any case."""
    if settings.restore.key_frames != "off":
        return settings
    how = settings.restore.model_copy(update={"key_frames": "auto"})
    return settings.model_copy(update={"restore": how})


class _Identity(Restorer):
    """A restorer that returns its input, changed so little that no sample differs."""

    name = "identity"

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        # Pasting skips a face whose restored values equal its own.
        return windows[:, 0] + 1e-4


def _pairing(
    source: Path, analysis: Analysis, span: TimeRange | None, scaling: Scaling | None
) -> Pairing:
    """Return the pairing of a run that enlarges the source, or does not."""
    return ALONE if scaling is None else Pairing(plate=enlarged(source, analysis, span, scaling))


def _seconds_per_frame(
    source: Path,
    analysis: Analysis,
    settings: Settings,
    scaling: Scaling | None,
    key_framed: Collection[int] = (),
) -> tuple[float, float]:
    """Measure the mean time of all stages but the restorer for one frame.

    Also return the share of the faces of the tracks `key_framed` that the restorer gets.
    """
    part, span = _part(analysis)
    pairing = _pairing(source, part, span, scaling)
    info = part.info if pairing.plate is None else pairing.plate.analysis.info
    with temporary_folder() as folder:
        ways = ways_to_encode(info, folder / "probe.mkv", settings)
        threads = settings.encode.threads
        encoding, header = choose_encoding(ways, source, folder, info, threads=threads)
        target = folder / f"probe{encoding.suffix}"
        work = FaceWork(
            Assignment([(0, _Identity())]), chosen_judge(settings, None), settings,
            parser=chosen_parser(settings), pairing=pairing, key_framed=key_framed,
        )  # fmt: skip
        started = time.monotonic()
        stats = restore_segment(
            source,
            target,
            part,
            Segment(0, 0, part.frame_count),
            work,
            encoding=encoding,
            header=header,
            span=span,
        )
        seconds = (time.monotonic() - started) / part.frame_count
        faces = sum(
            int(np.count_nonzero(t.strength)) for t in part.tracks if t.track_id in key_framed
        )
        return seconds, 1 - stats.between / max(faces, 1)


def _part(analysis: Analysis) -> tuple[Analysis, TimeRange]:
    """Cut the trial's frames out of the analysis, and return them with their time range."""
    starts = (t.first_frame + int(np.argmax(t.strength > 0)) for t in analysis.tracks)
    file = of_file(analysis)
    first = min(first_in_file(analysis, min(starts, default=0)), file.frame_count - 1)
    end = min(first + _PROBED_FRAMES, file.frame_count)
    clock, pts = file.info.time_base, file.pts
    begin, last = (int(pts[i] - pts[0]) * clock for i in (first, end - 1))
    # Half a tick more at either end, so that rounding loses no frame.
    span = TimeRange(max(begin - clock / 2, Fraction(0)), last + clock / 2)
    return frames_of(analysis, first, end), span


def _seconds_per_face(restorer: Restorer, analysis: Analysis, settings: Settings) -> float:
    """Measure the mean time of the restorer for one face, on noise."""
    if not analysis.face_count:
        return 0.0
    # The time of a network does not depend on the size of the crop; that of other restorers does.
    runs: dict[tuple[str, int], tuple[Restorer, int]] = {}
    for work_px, count in _faces_by_side(analysis).items():
        network = restorer.for_crop_size(work_px)
        key = network.name, network.size or work_px
        runs[key] = network, count + (runs[key][1] if key in runs else 0)
    how, device = settings.restore, choose_device(settings.restore)
    total = sum(
        count * _seconds_of(network, side, device, how)
        for (_, side), (network, count) in runs.items()
    )
    return total / analysis.face_count


def _faces_by_side(analysis: Analysis) -> dict[int, int]:
    """Count (face, frame) pairs by the side of the crop in pixels."""
    faces = Counter[int]()
    for track in analysis.tracks:
        faces[track.work_px] += int(np.count_nonzero(track.strength))
    return +faces


def _seconds_of(network: Restorer, side: int, device: torch.device, how: Restore) -> float:
    """Measure the time for one face."""
    window = torch.rand(1, 2 * network.reach_frames + 1, 3, side, side, device=device)
    restored_alone(network, window, how)
    runs, started = 0, time.monotonic()
    while runs < _MOST_RUNS and time.monotonic() - started < _ENOUGH_SECONDS:
        restored_alone(network, window, how).cpu()
        runs += 1
    return (time.monotonic() - started) / runs

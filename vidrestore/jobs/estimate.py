"""Estimate how long a restoration takes on this machine, from a short trial."""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from vidrestore.analysis.choice import EVERYONE, Choice
from vidrestore.analysis.interlacing import interlacing_of
from vidrestore.analysis.part import first_in_file, frames_of
from vidrestore.analysis.result import Analysis, of_file
from vidrestore.analysis.selection import applied
from vidrestore.analysis.tracks import Track
from vidrestore.common.errors import VidrestoreError
from vidrestore.common.events import OnEvent, notify
from vidrestore.common.settings import Restore, Settings
from vidrestore.common.temporary import temporary_folder
from vidrestore.jobs.exclusions import check_exclusions, given_by_fields
from vidrestore.jobs.key_frames import plan_key_frames
from vidrestore.jobs.personal_networks import (
    assigned,
    check_recognition,
    check_shots,
    labels_of,
    personal_networks,
    with_base_network,
)
from vidrestore.jobs.plan import ways_to_encode, with_template
from vidrestore.jobs.summary import NetworkUse
from vidrestore.media.decode import TimeRange
from vidrestore.media.encode import choose_encoding
from vidrestore.models import weights
from vidrestore.models.devices import choose_device
from vidrestore.models.factory import (
    chosen_parser,
    chosen_restorer,
    chosen_restorers,
    weights_needed,
)
from vidrestore.models.restorers import Restorer
from vidrestore.models.restorers.assignment import Assignment
from vidrestore.restoration.companion import ALONE, Pairing, enlarged, with_room_for
from vidrestore.restoration.guard import chosen_judge
from vidrestore.restoration.latent import restored_alone
from vidrestore.restoration.pipeline import FaceWork, restore_segment
from vidrestore.restoration.segments import Segment, side_px, tracks_within
from vidrestore.restoration.upscaling import Scaling, chosen_scaling

Kind = TypeVar("Kind")

_log = logging.getLogger("vidrestore")

_PROBED_FRAMES = 24
# The restorer runs once to warm up, then until either limit is reached.
_ENOUGH_SECONDS, _MOST_RUNS = 2.0, 3
# Key frames are offered where the whole takes at most so much of the time.
_WORTH_OFFERING = 0.9


@dataclass(frozen=True, slots=True)
class NetworkCost(NetworkUse):
    """The people whose faces a restorer will restore, and the time that this takes."""

    seconds_per_face: float
    """The time for one face."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The wall time of the second pass."""

    restorer: str
    """The names of the restorers, joined by commas."""
    seconds: float
    """The time of the whole pass."""
    seconds_per_face: float
    """The mean time of the restorers alone, for one face."""
    seconds_per_frame: float
    """The time of all other stages, for one frame: decode, crop, paste, encode."""
    network_share: float = 1.0
    """The share of the faces that go through the network; below 1 with key frames."""
    seconds_with_key_frames: float | None = None
    """The time of the whole pass with restore.key_frames=auto; None where the settings ask for key
    frames, or where they would not save a tenth of the time."""
    networks: tuple[NetworkCost, ...] = ()
    """The restorers that have faces to restore."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def estimate(
    source: Path,
    analysis: Analysis,
    settings: Settings,
    on_event: OnEvent | None = None,
    *,
    choice: Choice = EVERYONE,
) -> Estimate | str:
    """Estimate how long the restoration of an analyzed video takes.

    24 frames from the first face on pass through all stages with a restorer that returns its input.
    Then each real restorer runs alone on a few crops, and the faces of each person count with the
    time of the restorer that they get. The stages run in parallel later, so a run usually takes
    less. No weights are fetched.

    Args:
        source: The video.
        analysis: The analysis of the video.
        settings: The settings of the run.
        on_event: Receives notices; default: None, and no notices are sent.
        choice: The people and shots to restore, and their restorers. Default: everyone.

    Returns:
        The estimate, or a sentence that tells why there is none.
    """
    try:
        scaling = chosen_scaling(settings)
        fields = given_by_fields(interlacing_of(analysis).mode)
        check_exclusions(fields | {"--scale": settings.scale.factor > 1})
        settings = with_base_network(settings, choice)
        here_only = settings.weights.model_copy(update={"offline": True})
        offline = settings.model_copy(update={"weights": here_only})
        analysis, names = _selected(source, analysis, offline, choice, on_event)
        analysis = with_room_for(analysis, _pairing(source, analysis, None, scaling))
        if missing := _first_missing(names, analysis, settings):
            return (
                f"the time cannot be estimated without the weights {missing}; run vidrestore "
                f"weights fetch {missing} to download them"
            )
        usual = chosen_restorer(offline, on_event)
        offline = with_template(offline, usual)
        restorers = chosen_restorers(names, usual, offline, on_event)
        per_frame, _ = _seconds_per_frame(source, analysis, settings, scaling)
        of_tracks = _seconds_of_tracks(restorers, analysis, settings.restore)
        keyed = plan_key_frames(analysis, restorers, _may_have_key_frames(settings), {}).tracks
        per_keyed_frame, share = per_frame, 1.0
        if keyed:
            per_keyed_frame, share = _seconds_per_frame(source, analysis, settings, scaling, keyed)
    except VidrestoreError as error:
        _log.info("the time is not estimated: %s", error)
        return f"the time cannot be estimated: {error}"
    for_faces = sum(of_tracks.values())
    total = analysis.frame_count * per_frame + for_faces
    spared_seconds = (1 - share) * sum(of_tracks[number] for number in keyed)
    with_keys = analysis.frame_count * per_keyed_frame + for_faces - spared_seconds
    offered, through = None, 1.0
    if (given := settings.restore.key_frames) != "off":
        total, per_frame = with_keys, per_keyed_frame
    elif with_keys < _WORTH_OFFERING * total:
        offered = with_keys
    faces = max(analysis.face_count, 1)
    if given != "off":
        spared = [track for track in analysis.tracks if track.track_id in keyed]
        through -= (1 - share) * _face_count(*spared) / faces
    networks = _networks(restorers, labels_of(names, analysis, settings, None), analysis, of_tracks)
    return Estimate(
        restorer=", ".join(each.restorer for each in networks) or usual.name,
        seconds=total,
        seconds_per_face=for_faces / faces,
        seconds_per_frame=per_frame,
        network_share=through,
        seconds_with_key_frames=offered,
        networks=networks,
    )


def _selected(
    source: Path,
    analysis: Analysis,
    settings: Settings,
    choice: Choice,
    on_event: OnEvent | None,
) -> tuple[Analysis, Assignment[str | None]]:
    """Select the faces of a run, and return the names of their restorers, too."""
    check_recognition(settings, recognizes=analysis.people_are_joined)
    personal = personal_networks(settings, on_event)
    analysis, names = applied(choice, analysis, source, settings, on_event)
    check_shots(names, choice)
    names, notes = assigned(names, analysis, personal, similarity=settings.people.similarity)
    notify(on_event, *notes)
    return analysis, names


def _faces_of(
    assigned_to: Assignment[Kind], analysis: Analysis
) -> Iterator[tuple[Track, Kind, int]]:
    """Yield (track, what restores, number of faces) for each stretch and track with such faces."""
    for begin, end, usual in assigned_to.within(0, analysis.frame_count):
        for track in tracks_within(analysis, begin, end):
            frames = slice(*(max(0, at - track.first_frame) for at in (begin, end)))
            if count := int(np.count_nonzero(track.strength[frames])):
                yield track, assigned_to.of_tracks.get(track.track_id, usual), count


def _first_missing(
    names: Assignment[str | None], analysis: Analysis, settings: Settings
) -> str | None:
    """Return the name of weights that the restorers need and that are not here; None: none."""
    how = settings.weights
    folders = weights.search_folders(how.folder, how.also)
    for name in dict.fromkeys(names.each()):
        sides = {track.work_px for track, own, _ in _faces_of(names, analysis) if own == name}
        update = {} if name is None else {"restorer": name}
        own = settings.model_copy(update={"restore": settings.restore.model_copy(update=update)})
        for each in weights_needed(own, sides):
            if weights.find(each, folders) is None:
                return each
    return None


def _face_count(*tracks: Track) -> int:
    return sum(int(np.count_nonzero(track.strength)) for track in tracks)


def _networks(
    restorers: Assignment[Restorer],
    labels: Mapping[int, str],
    analysis: Analysis,
    seconds: Mapping[int, float],
) -> tuple[NetworkCost, ...]:
    """Return the cost of each restorer, under the name that the summary has for it."""
    people, faces, total = dict[str, set[int]](), Counter[str](), defaultdict[str, float](float)
    named = {
        track.track_id: own.for_crop_size(track.work_px).name
        for track, own, _ in _faces_of(restorers, analysis)
    } | dict(labels)
    for track in analysis.tracks:
        if track.track_id in seconds:
            label = named[track.track_id]
            people.setdefault(label, set()).add(track.person_id)
            faces[label] += _face_count(track)
            total[label] += seconds[track.track_id]
    return tuple(
        NetworkCost(label, tuple(sorted(own)), faces[label], total[label] / faces[label])
        for label, own in people.items()
    )


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
        faces = _face_count(*(track for track in part.tracks if track.track_id in key_framed))
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


def _seconds_of_tracks(
    restorers: Assignment[Restorer], analysis: Analysis, how: Restore
) -> dict[int, float]:
    """Measure, on noise, the time of the restorers for all faces of each track that has some."""
    device = choose_device(how)
    # The time of a network does not depend on the size of the crop; that of other restorers does.
    known, seconds = dict[tuple[Restorer, int], float](), defaultdict[int, float](float)
    for track, own, count in _faces_of(restorers, analysis):
        network = own.for_crop_size(track.work_px)
        side = network.size or side_px(track, restorers)
        if (network, side) not in known:
            known[network, side] = _seconds_of(network, side, device, how)
        seconds[track.track_id] += count * known[network, side]
    return dict(seconds)


def _seconds_of(network: Restorer, side: int, device: torch.device, how: Restore) -> float:
    """Measure the time for one face."""
    window = torch.rand(1, 2 * network.reach_frames + 1, 3, side, side, device=device)
    restored_alone(network, window, how)
    runs, started = 0, time.monotonic()
    while runs < _MOST_RUNS and time.monotonic() - started < _ENOUGH_SECONDS:
        restored_alone(network, window, how).cpu()
        runs += 1
    return (time.monotonic() - started) / runs

"""All of a job that is settled before the first face is restored."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from vidrestore.analysis import storage
from vidrestore.analysis.cache import find_analysis
from vidrestore.analysis.interlacing import (
    NOT_INTERLACED,
    Inspection,
    inspect_samples,
    interlacing_of,
)
from vidrestore.analysis.result import Analysis, info_of_pictures, of_output
from vidrestore.common.checksums import FileHashes
from vidrestore.common.errors import UsageError
from vidrestore.common.events import OnEvent, notify
from vidrestore.common.settings import Settings
from vidrestore.imaging.frame import VideoInfo
from vidrestore.jobs.exclusions import FIELDS, check_exclusions
from vidrestore.jobs.image_output import Job, lossless_ways, plan_pictures, streams_of_pictures
from vidrestore.jobs.layer_output import LayerOutput
from vidrestore.jobs.memory import check_memory, memory_for_faces, memory_for_frames
from vidrestore.jobs.redo import (
    FinishedJob,
    Redo,
    check_encoding,
    kept_job,
    plan_redo,
    restorers_of_segments,
    take_segments,
)
from vidrestore.jobs.render import LocalRenderer, Rendering, RenderJob
from vidrestore.jobs.request import (
    RestoreRequest,
    check_fields,
)
from vidrestore.jobs.work_folder import WorkFolder
from vidrestore.media.codecs import Encoding, plan_encoding
from vidrestore.media.containers import RemuxPlan, plan_streams
from vidrestore.media.encode import first_that_opens
from vidrestore.media.images import is_pictures
from vidrestore.media.probe import Probe, probe
from vidrestore.media.remux import plan_that_fits
from vidrestore.models.factory import chosen_parser, chosen_restorer, chosen_restorers
from vidrestore.models.restorers import Restorer, RestorerInfo, cache_key_of
from vidrestore.restoration.companion import (
    PairedVideo,
    check_before_swap,
    check_plate,
    pair,
    with_room_for,
)
from vidrestore.restoration.guard import chosen_judge
from vidrestore.restoration.segments import networks_used, plan_segments, without_cache_key
from vidrestore.restoration.upscaling import chosen_scaling, notice, scaled_info, unseen_fields


@dataclass(frozen=True, slots=True)
class Plan:
    """How it will be done."""

    rendering: Rendering
    streams: RemuxPlan
    pictures: Job | None
    """How they are written, where the output is pictures and no video."""
    info: VideoInfo
    """Of the output's picture."""
    base: PairedVideo
    """Whose frames the output has but for the faces."""
    container_start: Fraction
    redo: Redo | None
    losses: tuple[str, ...]
    """What could not be kept, in sentences."""
    restorers: list[tuple[str, ...]]
    """Of each segment, the names of those that its faces need."""
    has_kept_analysis: bool
    """Whether its analysis is that of an earlier run; see `vidrestore.analysis.cache`."""

    @property
    def job(self) -> RenderJob:
        return self.rendering.work

    @property
    def strength(self) -> float:
        """The greatest of all pasting in the output."""
        before = 0.0 if self.redo is None else self.redo.kept.strength
        return max(self.job.settings.paste.strength, before)


def plan_job(
    request: RestoreRequest, work: WorkFolder, on_event: OnEvent | None, *, may_be_kept: bool = True
) -> Plan:
    """Probe, choose codec, streams and networks, analyze where nobody did, and cut in segments.

    `may_be_kept` is False where the analysis of an earlier run turned out to be of other frames.
    Anything that may be refused is looked at before what takes long.
    """
    source, target, settings, span = (
        request.source, request.target, request.settings, request.span,
    )  # fmt: skip
    kept = None
    if request.redo_shots is not None:
        kept = kept_job(work, source, target, request.redo_shots)
    found = probe(source, settings)
    inspection = _inspected(request, found, on_event)
    interlacing = NOT_INTERLACED if inspection is None else inspection.interlacing
    if request.analysis is not None:
        interlacing = interlacing_of(request.analysis)
    layering = _layering(request, work)
    before_swap, plate = _probed_beside(request, found.info)
    base = plate or found
    info = base.info
    if (lost := work.begin(found.fingerprint, resume=request.resume)) is not None:
        notify(on_event, lost)
    if interlacing.mode in ("bob", "frame", "film"):
        info = info_of_pictures(info, interlacing.mode)
    scaling = chosen_scaling(settings)
    needed_bytes, losses = 0, tuple[str, ...]()
    if scaling is not None:
        losses = tuple(unseen_fields(info, interlacing))
        small, info = info, scaled_info(info, scaling.factor)
        codec = ways_to_encode(info, target, settings)[0].codec
        needed_bytes = memory_for_frames(small, info, scaling, settings, codec)
        notify(on_event, notice(scaling, info), check_memory(needed_bytes, info))
    output = _plan_output(request, work, base, info, kept)
    losses = (*losses, *output.encoding.notes, *output.streams.lost)
    if output.pictures is not None:
        losses = output.pictures.notes
    notify(on_event, *losses)
    hashes = FileHashes()
    usual = request.restorer or chosen_restorer(settings, on_event, hashes)
    parser = chosen_parser(settings)
    settings = with_template(settings, usual)
    if (analysis := request.analysis) is not None:
        _check_analysis(analysis, found, usual, settings)
        has_kept = False
    else:
        known = find_analysis(
            found, settings,
            span=span, inspection=inspection, may_be_kept=may_be_kept, on_event=on_event,
        )  # fmt: skip
        analysis, has_kept = known.analysis, known.is_kept
    analysis, names = request.choice.applied(analysis, source, settings, on_event)
    restorers = chosen_restorers(names, usual, settings, on_event, hashes)
    judge = chosen_judge(settings, on_event)
    redo = None if kept is None else plan_redo(kept, analysis, source)
    if redo is not None:
        notify(on_event, *redo.notes)
        losses, analysis = (*losses, *redo.notes), redo.analysis
    pairing = pair(
        source, analysis, span,
        before_swap=before_swap, plate=plate, scaling=scaling, on_event=on_event,
    )  # fmt: skip
    analysis, losses = with_room_for(analysis, pairing), (*losses, *pairing.notes())
    if layering is not None:
        notify(on_event, *layering.notes)
        losses = (*losses, *layering.notes)
    described = [(first, _described(each)) for first, each in restorers]
    if unknown := without_cache_key(described):
        work.keep_results_apart()
        notify(on_event, (
            f"{' and '.join(unknown)} has no cache_key, so this run takes no restored face from an "
            "earlier one, and nothing of it is kept if it is interrupted; give the restorer one "
            "that names its weights and options"
        ))  # fmt: skip
    if scaling is not None:
        check_memory(needed_bytes + memory_for_faces(analysis, settings, described), info)
    job = RenderJob(
        source=source.absolute(),
        fingerprint=found.fingerprint,
        folder=work.path.absolute(),
        analysis=analysis,
        restorers=names,
        own_restorer=request.restorer,
        networks=networks_used(restorers, analysis, 0, analysis.frame_count),
        judge=judge.name,
        parser=None if parser is None else parser.name,
        settings=settings,
        encoding=output.encoding,
        header=output.header and output.header.absolute(),
        span=span,
        pairing=pairing.absolute(),
        layering=layering,
    )
    if redo is None:
        segments = plan_segments(
            analysis, most_frames=settings.job.segment_frames, at_every_cut=request.keep_job
        )
        taken = dict[int, str]()
    else:
        segments = redo.kept.segments
        taken = take_segments(redo, work, target, output.encoding.suffix)
    # With workers, which open their own, nothing here holds on to the networks.
    renderer = request.workers or LocalRenderer(restorers, judge, parser)
    return Plan(
        rendering=Rendering(job, work, segments, taken, described, renderer, on_event),
        streams=output.streams,
        pictures=output.pictures,
        info=info,
        base=pairing.plate or PairedVideo(source, of_output(analysis), span),
        container_start=output.container_start,
        redo=redo,
        losses=losses,
        restorers=restorers_of_segments(segments, analysis, described, redo),
        has_kept_analysis=has_kept,
    )


def _inspected(
    request: RestoreRequest, found: Probe, on_event: OnEvent | None
) -> Inspection | None:
    """What sampled frames say, where no analysis is given; what cannot be done with fields is
    refused."""
    factor = request.settings.scale.factor
    if (analysis := request.analysis) is not None:
        check_fields(request.source, interlacing_of(analysis), factor=factor)
        return None
    inspection = inspect_samples(found, request.settings, request.span)
    interlacing = inspection.interlacing
    if interlacing.mode != "off":
        check_exclusions(request.options() | {FIELDS: True})
        check_fields(request.source, interlacing, factor=factor)
    notify(on_event, *filter(None, [interlacing.notice()]))
    return inspection


@dataclass(frozen=True, slots=True)
class _Output:
    encoding: Encoding
    header: Path | None
    streams: RemuxPlan
    container_start: Fraction
    pictures: Job | None = None


def _plan_output(
    request: RestoreRequest,
    work: WorkFolder,
    base: Probe,
    info: VideoInfo,
    kept: FinishedJob | None,
) -> _Output:
    """`base` is the file whose streams are carried over; `info` is of the output's picture."""
    target, threads = request.target, request.settings.encode.threads
    if is_pictures(target):
        pictures = plan_pictures(request.source, target, info, request.settings)
        ways = lossless_ways(info, request.settings)
        encoding, header = first_that_opens(ways, base.path, work.path, info, threads=threads)
        return _Output(encoding, header, streams_of_pictures(info), Fraction(0), pictures)
    ways = ways_to_encode(info, target, request.settings)
    plan = plan_streams(base, target, whole=request.span is None)
    encoding, header = first_that_opens(ways, base.path, work.path, info, threads=threads)
    if kept is not None:
        check_encoding(kept, encoding, target)
    plan = plan_that_fits(base, work.path / f"trial{target.suffix}", plan)
    return _Output(encoding, header, plan, base.start)


def _layering(request: RestoreRequest, work: WorkFolder) -> LayerOutput | None:
    if request.layer is None:
        return None
    layering = LayerOutput(request.layer, request.source.stem, request.settings.layer.format, work)
    layering.check(request.target, (request.source, request.base), overwrite=request.overwrite)
    return layering


def _probed_beside(request: RestoreRequest, info: VideoInfo) -> tuple[Probe | None, Probe | None]:
    """The videos beside the source, before the swap and the plate, seen to go with it."""
    before_swap = plate = None
    if request.before_swap is not None:
        before_swap = probe(request.before_swap)
        check_before_swap(before_swap, request.source, info)
    if request.plate is not None:
        plate = probe(request.plate)
        check_plate(plate, request.source, info)
    return before_swap, plate


def _check_analysis(
    analysis: Analysis, source: Probe, restorer: Restorer, settings: Settings
) -> None:
    storage.check_source(analysis, source, "the given analysis")
    storage.check_picture(analysis, source.info, "the given analysis")
    if analysis.template != settings.align.template:
        raise UsageError(
            f"the analysis was made for the template {analysis.template} and {restorer.name} "
            f"wants {settings.align.template}; analyze with align.template set to that"
        )


def ways_to_encode(info: VideoInfo, target: Path, settings: Settings) -> tuple[Encoding, ...]:
    how = settings.encode
    return plan_encoding(
        info,
        target,
        codec=how.codec,
        quality=how.quality,
        preset=how.preset,
        threads=how.threads,
        hardware=how.hardware,
        pixel_format=how.pixel_format,
    )


@dataclass(slots=True)
class _Description:
    name: str
    size: int | None
    reach_frames: int
    template: str
    weights_sha256: str | None
    cache_key: str | None


def _described(restorer: Restorer) -> RestorerInfo:
    """It without its network; itself where it chooses one by the face, and opens none before."""
    if hasattr(restorer, "for_side"):
        return restorer
    sha256 = getattr(restorer, "weights_sha256", None)
    return _Description(
        restorer.name, restorer.size, restorer.reach_frames, restorer.template, sha256,
        cache_key_of(restorer),
    )  # fmt: skip


def with_template(settings: Settings, restorer: Restorer) -> Settings:
    """The settings, with the restorer's template where none was asked for."""
    if settings.align.template != "auto":
        return settings
    align = settings.align.model_copy(update={"template": restorer.template})
    return settings.model_copy(update={"align": align})

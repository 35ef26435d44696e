"""What is decided before the first face is restored, in four steps with a value each:

inspect the source, choose the output, analyze and select, assemble.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from vidrestore.analysis import storage
from vidrestore.analysis.cache import find_analysis
from vidrestore.analysis.interlacing import (
    Inspection,
    Interlacing,
    interlacing_of,
    probe_and_inspect,
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
from vidrestore.jobs.request import RestoreRequest, check_fields
from vidrestore.jobs.work_folder import WorkFolder
from vidrestore.media.codecs import Encoding, plan_encoding
from vidrestore.media.containers import RemuxPlan, plan_streams
from vidrestore.media.encode import choose_encoding
from vidrestore.media.images import is_pictures
from vidrestore.media.probe import Probe, probe
from vidrestore.media.remux import trial_remux
from vidrestore.models.face_parser import Parser
from vidrestore.models.factory import chosen_parser, chosen_restorer, chosen_restorers
from vidrestore.models.restorers import Restorer, RestorerInfo, Schedule
from vidrestore.restoration.companion import (
    PairedVideo,
    check_before_swap,
    check_plate,
    pair,
    with_room_for,
)
from vidrestore.restoration.guard import SimilarityJudge, chosen_judge
from vidrestore.restoration.segments import networks_used, plan_segments, without_cache_key
from vidrestore.restoration.upscaling import (
    Scaling,
    chosen_scaling,
    notice,
    scaled_info,
    unseen_fields,
)


@dataclass(frozen=True, slots=True)
class InspectedSource:
    """The files of a request, as they were found."""

    probe: Probe
    """Of the source."""
    inspection: Inspection | None
    """What sampled frames of the source say; None where the analysis is given."""
    interlacing: Interlacing
    before_swap: Probe | None
    plate: Probe | None
    kept: FinishedJob | None
    """The job whose output this request changes, where it redoes shots."""

    @property
    def base(self) -> Probe:
        """The file whose pictures and other streams the output has."""
        return self.plate or self.probe


@dataclass(frozen=True, slots=True)
class OutputPlan:
    """The form of the output file."""

    encoding: Encoding
    header: Path | None
    """An empty video of this encoding, for decoders."""
    streams: RemuxPlan
    pictures: Job | None
    """How the pictures are written, where the output is pictures and no video."""
    info: VideoInfo
    """Of the output's picture."""
    container_start: Fraction
    """The start of the file whose streams are carried over, in seconds."""
    scaling: Scaling | None
    needed_bytes: int
    """Memory for enlarged frames; 0 where nothing is enlarged."""
    layering: LayerOutput | None
    losses: tuple[str, ...]
    """What cannot be kept, in sentences."""


@dataclass(frozen=True, slots=True)
class SelectedFaces:
    """The faces to restore, and the networks that do it."""

    analysis: Analysis
    """Of the selected people."""
    has_kept_analysis: bool
    settings: Settings
    """Those of the request, with the template that was chosen."""
    restorers: Schedule
    names: Sequence[tuple[int, str | None]]
    """(first frame, name) of the restorers."""
    described: Sequence[tuple[int, RestorerInfo]]
    """(first frame, properties) of the restorers."""
    judge: SimilarityJudge
    parser: Parser | None
    redo: Redo | None
    losses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """All that the rendering, the joining and the summary of a run need."""

    rendering: Rendering
    output: OutputPlan
    base: PairedVideo
    """The video whose frames the output has but for the faces."""
    redo: Redo | None
    losses: tuple[str, ...]
    """What could not be kept, in sentences."""
    restorers: list[tuple[str, ...]]
    """For each segment, the names of the restorers that its faces need."""
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
    """Inspect the source, choose the output, analyze and select, and cut the work into segments.

    What may be refused is checked before what takes long.

    Args:
        request: A valid request.
        work: The work folder of the output.
        on_event: Receives progress and notices.
        may_be_kept: Whether the analysis of an earlier run may be used; False where it turned out
            to be of other frames.

    Returns:
        The plan.

    Raises:
        VidrestoreError: The request cannot be fulfilled.
    """
    source = inspect_source(request, work, on_event)
    output = choose_output(request, work, source, on_event)
    faces = analyze_and_select(request, source, on_event, may_be_kept=may_be_kept)
    return assemble(request, work, source, output, faces, on_event)


def inspect_source(
    request: RestoreRequest, work: WorkFolder, on_event: OnEvent | None
) -> InspectedSource:
    """Probe all files of the request; nothing is written."""
    settings, kept = request.settings, None
    if request.redo_shots is not None:
        kept = kept_job(work, request.source, request.target, request.redo_shots)
    if request.analysis is not None:
        found, inspection = probe(request.source, settings), None
        interlacing = interlacing_of(request.analysis)
    else:
        found, inspection = probe_and_inspect(request.source, settings, request.span)
        interlacing = inspection.interlacing
        if interlacing.mode != "off":
            check_exclusions(request.options() | {FIELDS: True})
        notify(on_event, *filter(None, [interlacing.notice()]))
    check_fields(request.source, interlacing, factor=settings.scale.factor)
    before_swap = plate = None
    if request.before_swap is not None:
        before_swap = probe(request.before_swap)
        check_before_swap(before_swap, request.source, found.info)
    if request.plate is not None:
        plate = probe(request.plate)
        check_plate(plate, request.source, found.info)
    return InspectedSource(found, inspection, interlacing, before_swap, plate, kept)


def choose_output(
    request: RestoreRequest, work: WorkFolder, source: InspectedSource, on_event: OnEvent | None
) -> OutputPlan:
    """Begin the work folder, choose codec and streams, and try that both can be written."""
    settings, target, base = request.settings, request.target, source.base
    layering = _layering(request, work)
    if (lost := work.begin(source.probe.fingerprint, resume=request.resume)) is not None:
        notify(on_event, lost)
    info, mode = base.info, source.interlacing.mode
    if mode in ("bob", "frame", "film"):
        info = info_of_pictures(info, mode)
    needed_bytes, losses = 0, list[str]()
    if (scaling := chosen_scaling(settings)) is not None:
        losses += unseen_fields(info, source.interlacing)
        small, info = info, scaled_info(info, scaling.factor)
        codec = ways_to_encode(info, target, settings)[0].codec
        needed_bytes = memory_for_frames(small, info, scaling, settings, codec)
        notify(on_event, notice(scaling, info), check_memory(needed_bytes, info))
    if is_pictures(target):
        pictures = plan_pictures(request.source, target, info, settings)
        ways, start = lossless_ways(info, settings), Fraction(0)
        streams, losses = streams_of_pictures(info), list(pictures.notes)
    else:
        pictures, start = None, base.start
        ways = ways_to_encode(info, target, settings)
        streams = plan_streams(base, target, whole=request.span is None)
    encoding, header = choose_encoding(
        ways, base.path, work.path, info, threads=settings.encode.threads
    )
    if pictures is None:
        if source.kept is not None:
            check_encoding(source.kept, encoding, target)
        streams = trial_remux(base, work.path / f"trial{target.suffix}", streams)
        losses += [*encoding.notes, *streams.lost]
    notify(on_event, *losses)
    return OutputPlan(
        encoding, header, streams, pictures, info, start, scaling, needed_bytes, layering,
        tuple(losses),
    )  # fmt: skip


def analyze_and_select(
    request: RestoreRequest,
    source: InspectedSource,
    on_event: OnEvent | None,
    *,
    may_be_kept: bool,
) -> SelectedFaces:
    """Open the networks, analyze the source, and select the faces that are to be restored."""
    hashes = FileHashes()
    usual = request.restorer or chosen_restorer(request.settings, on_event, hashes)
    parser = chosen_parser(request.settings)
    settings = with_template(request.settings, usual)
    if (analysis := request.analysis) is not None:
        _check_analysis(analysis, source.probe, usual, settings)
        has_kept = False
    else:
        known = find_analysis(
            source.probe, settings,
            span=request.span, inspection=source.inspection, may_be_kept=may_be_kept,
            on_event=on_event,
        )  # fmt: skip
        analysis, has_kept = known.analysis, known.is_kept
    analysis, names = request.choice.applied(analysis, request.source, settings, on_event)
    restorers = chosen_restorers(names, usual, settings, on_event, hashes)
    judge = chosen_judge(settings, on_event)
    redo = None if source.kept is None else plan_redo(source.kept, analysis, request.source)
    losses = () if redo is None else tuple(redo.notes)
    notify(on_event, *losses)
    return SelectedFaces(
        analysis=analysis if redo is None else redo.analysis,
        has_kept_analysis=has_kept,
        settings=settings,
        restorers=restorers,
        names=names,
        described=[(first, each.described()) for first, each in restorers],
        judge=judge,
        parser=parser,
        redo=redo,
        losses=losses,
    )


def assemble(
    request: RestoreRequest,
    work: WorkFolder,
    source: InspectedSource,
    output: OutputPlan,
    faces: SelectedFaces,
    on_event: OnEvent | None,
) -> Plan:
    """Cut the work into segments, and put together what those who render them need."""
    settings, redo, parser = faces.settings, faces.redo, faces.parser
    pairing = pair(
        request.source, faces.analysis, request.span,
        before_swap=source.before_swap, plate=source.plate, scaling=output.scaling,
        on_event=on_event,
    )  # fmt: skip
    analysis = with_room_for(faces.analysis, pairing)
    losses = (*output.losses, *faces.losses, *pairing.notes())
    if output.layering is not None:
        notify(on_event, *output.layering.notes)
        losses = (*losses, *output.layering.notes)
    if unknown := without_cache_key(faces.described):
        work.keep_results_apart()
        notify(on_event, (
            f"{' and '.join(unknown)} has no cache_key, so this run takes no restored face from an "
            "earlier one, and nothing of it is kept if it is interrupted; give the restorer one "
            "that names its weights and options"
        ))  # fmt: skip
    if output.scaling is not None:
        needed_bytes = memory_for_faces(analysis, settings, faces.described)
        check_memory(output.needed_bytes + needed_bytes, output.info)
    job = RenderJob(
        source=request.source.absolute(),
        fingerprint=source.probe.fingerprint,
        folder=work.path.absolute(),
        analysis=analysis,
        restorers=faces.names,
        own_restorer=request.restorer,
        networks=networks_used(faces.restorers, analysis, 0, analysis.frame_count),
        judge=faces.judge.name,
        parser=None if parser is None else parser.name,
        settings=settings,
        encoding=output.encoding,
        header=output.header and output.header.absolute(),
        span=request.span,
        pairing=pairing.absolute(),
        layering=output.layering,
    )
    if redo is None:
        segments = plan_segments(
            analysis, most_frames=settings.job.segment_frames, at_every_cut=request.keep_job
        )
        taken = dict[int, str]()
    else:
        segments = redo.kept.segments
        taken = take_segments(redo, work, request.target, output.encoding.suffix)
    # With workers, which open their own, nothing here holds on to the networks.
    renderer = request.workers or LocalRenderer(faces.restorers, faces.judge, parser)
    return Plan(
        rendering=Rendering(job, work, segments, taken, faces.described, renderer, on_event),
        output=output,
        base=pairing.plate or PairedVideo(request.source, of_output(analysis), request.span),
        redo=redo,
        losses=losses,
        restorers=restorers_of_segments(segments, analysis, faces.described, redo),
        has_kept_analysis=faces.has_kept_analysis,
    )


def _layering(request: RestoreRequest, work: WorkFolder) -> LayerOutput | None:
    if request.layer is None:
        return None
    layering = LayerOutput(request.layer, request.source.stem, request.settings.layer.format, work)
    layering.check(request.target, (request.source, request.base), overwrite=request.overwrite)
    return layering


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


def with_template(settings: Settings, restorer: Restorer) -> Settings:
    """The settings, with the restorer's template where none was asked for."""
    if settings.align.template != "auto":
        return settings
    align = settings.align.model_copy(update={"template": restorer.template})
    return settings.model_copy(update={"align": align})

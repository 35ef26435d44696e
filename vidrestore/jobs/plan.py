"""The plan of a job, made in four steps: inspect the source, choose the output, analyze, assemble.

Each step returns one value, which the later steps take.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from vidrestore.analysis import storage
from vidrestore.analysis.cache import OTHER_FRAMES, Known, find_analysis
from vidrestore.analysis.interlacing import (
    Inspection,
    Interlacing,
    interlacing_of,
    probe_and_inspect,
)
from vidrestore.analysis.part import part_within
from vidrestore.analysis.result import Analysis, info_of_pictures, is_woven, of_output
from vidrestore.analysis.selection import applied, face_of_photo
from vidrestore.common.checksums import FileHashes
from vidrestore.common.errors import ChangedSourceError, UsageError
from vidrestore.common.events import OnEvent, notify
from vidrestore.common.handled import log_handled
from vidrestore.common.settings import Extent, Settings
from vidrestore.imaging.frame import VideoInfo
from vidrestore.imaging.planes import format_with_chroma
from vidrestore.jobs.exclusions import check_exclusions, given_by_fields
from vidrestore.jobs.image_output import Job, lossless_ways, plan_pictures, streams_of_pictures
from vidrestore.jobs.key_frames import plan_key_frames
from vidrestore.jobs.layer_output import LayerOutput
from vidrestore.jobs.live_picture import LivePicture
from vidrestore.jobs.memory import check_memory, memory_for_faces, memory_for_frames
from vidrestore.jobs.personal_networks import (
    assigned,
    check_recognition,
    check_shots,
    labels_of,
    personal_networks,
    with_base_network,
)
from vidrestore.jobs.redo import (
    FinishedJob,
    Redo,
    check_encoding,
    check_scaling,
    kept_job,
    plan_redo,
    restorers_of_segments,
    take_segments,
)
from vidrestore.jobs.render import LocalRenderer, Rendering, RenderJob
from vidrestore.jobs.request import RestoreRequest
from vidrestore.jobs.work_folder import WorkFolder
from vidrestore.media.codecs import Encoding, plan_encoding
from vidrestore.media.containers import RemuxPlan, plan_streams, with_side_data
from vidrestore.media.encode import choose_encoding
from vidrestore.media.images import is_pictures
from vidrestore.media.packet_copy import encoding_like_source
from vidrestore.media.probe import Probe, probe
from vidrestore.media.remux import trial_remux
from vidrestore.media.side_data import check_base_layer, states_stereo
from vidrestore.models.face_parser import Parser
from vidrestore.models.factory import (
    chosen_parser,
    chosen_restorer,
    chosen_restorers,
    models_of,
    with_models_here,
)
from vidrestore.models.restorers import Restorer, RestorerInfo
from vidrestore.models.restorers.assignment import Assignment
from vidrestore.models.restorers.colorize import NAME as COLORIZER
from vidrestore.restoration.colorization import check_holds_color, check_is_gray
from vidrestore.restoration.companion import (
    PairedVideo,
    check_before_swap,
    check_plate,
    pair,
    with_room_for,
)
from vidrestore.restoration.guard import SimilarityJudge, chosen_judge
from vidrestore.restoration.segments import (
    networks_used,
    plan_segments,
    restorers_used,
    without_cache_key,
)
from vidrestore.restoration.upscaling import (
    Scaling,
    chosen_scaling,
    notice,
    scaled_info,
    unseen_fields,
)

_log = logging.getLogger("vidrestore")


@dataclass(frozen=True, slots=True)
class InspectedSource:
    """The properties of the files of a request."""

    probe: Probe
    """The properties of the source."""
    inspection: Inspection | None
    """The measurements in sampled frames of the source; None where the request has an analysis."""
    interlacing: Interlacing
    """How the source is interlaced, and how vidrestore treats its fields."""
    before_swap: Probe | None
    """The properties of the video before faces were swapped; None: the request has none."""
    plate: Probe | None
    """The properties of the plate; None: the request has none."""
    kept: FinishedJob | None
    """The job whose output this request changes; None: the request does not redo shots."""

    @property
    def base(self) -> Probe:
        """The file whose pictures and other streams the output has."""
        return self.plate or self.probe


@dataclass(frozen=True, slots=True)
class OutputPlan:
    """The form of the output file."""

    encoding: Encoding
    """The encoding of the video stream."""
    header: Path | None
    """An empty video in this encoding, from which decoders take the stream header; None: none is
    needed."""
    streams: RemuxPlan
    """The streams that the output takes over from the base."""
    pictures: Job | None
    """The conversion of the frames to picture files; None: the output is a video."""
    info: VideoInfo
    """The properties of the output's frames."""
    container_start: Fraction
    """The start of the file whose streams the output takes over, in seconds."""
    scaling: Scaling | None
    """How frames are enlarged; None: they are not."""
    needed_bytes: int
    """The memory for enlarged frames, in bytes; 0 where nothing is enlarged."""
    layering: LayerOutput | None
    """The layer that the run writes; None: none."""
    losses: tuple[str, ...]
    """Notices for the user about what the output cannot keep, one sentence each."""


@dataclass(frozen=True, slots=True)
class SelectedFaces:
    """The faces to restore, and the networks that restore them."""

    analysis: Analysis
    """The analysis, with the selected people only."""
    has_kept_analysis: bool
    """Whether the analysis is that of an earlier run; see `vidrestore.analysis.cache`."""
    settings: Settings
    """The settings of the request, with the template that the restorer wants."""
    restorers: Assignment[Restorer]
    """The restorers, opened."""
    names: Assignment[str | None]
    """The names of the restorers; None: the one of the settings or of the caller."""
    described: Assignment[RestorerInfo]
    """The properties of the restorers."""
    judge: SimilarityJudge
    """The similarity judge, opened."""
    parser: Parser | None
    """The face parser, opened; None: none."""
    redo: Redo | None
    """The part of a finished job that is rendered anew; None: everything is rendered."""
    losses: tuple[str, ...]
    """Notices for the user about people who were not found and shots that are redone, one sentence
    each."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All that the rendering, the joining and the summary of a run need."""

    rendering: Rendering
    """The rendering of the video stream."""
    output: OutputPlan
    """The form of the output file."""
    base: PairedVideo
    """The video whose frames the output has, except for the faces: the plate, else the source."""
    redo: Redo | None
    """The part of a finished job that is rendered anew; None: everything is rendered."""
    labels: Mapping[int, str]
    """Number of a track -> the name of the restorer of its faces, for the summary."""
    losses: tuple[str, ...]
    """Notices for the user about what the output cannot keep, one sentence each."""
    restorers: list[tuple[str, ...]]
    """For each segment, the names of the restorers that its faces need."""
    has_kept_analysis: bool
    """Whether the analysis is that of an earlier run; see `vidrestore.analysis.cache`."""

    @property
    def job(self) -> RenderJob:
        """All that the rendering of a segment depends on."""
        return self.rendering.work

    @property
    def strength(self) -> float:
        """The greatest strength of pasting in the output, 0 to 1."""
        before = 0.0 if self.redo is None else self.redo.kept.strength
        return max(self.job.settings.paste.strength, before)

    @property
    def extent(self) -> Extent:
        """The greatest extent of pasting in the output."""
        before = "face" if self.redo is None else self.redo.kept.extent
        return "head" if "head" in (before, self.job.settings.paste.extent) else "face"


def plan_job(
    request: RestoreRequest, work: WorkFolder, on_event: OnEvent | None, *, may_be_kept: bool = True
) -> Plan:
    """Inspect the source, choose the output, analyze, select faces, and cut the work into segments.

    Checks that may refuse the request come before work that takes long.

    Args:
        request: A valid request.
        work: The work folder of the output.
        on_event: Receives progress and notices; None: none are sent.
        may_be_kept: Whether the analysis of an earlier run may be used; False where the run found
            that it has other frames.

    Returns:
        The plan.

    Raises:
        VidrestoreError: The request cannot be fulfilled.
    """
    source = inspect_source(request, work, on_event)
    output = choose_output(request, work, source, on_event)
    faces = analyze_and_select(request, work, source, on_event, may_be_kept=may_be_kept)
    return assemble(request, work, source, output, faces, on_event)


def inspect_source(
    request: RestoreRequest, work: WorkFolder, on_event: OnEvent | None
) -> InspectedSource:
    """Probe all files of a request; nothing is written.

    Args:
        request: A valid request.
        work: The work folder of the output.
        on_event: Receives notices; None: none are sent.

    Returns:
        The properties of the files.

    Raises:
        InputError: A file cannot be read as video.
        UsageError: The files do not belong together, options exclude each other, or a redo of
            shots has no kept job.
    """
    settings, kept = request.settings, None
    if request.redo_shots is not None:
        kept = kept_job(work, request.source, request.target, request.redo_shots)
    if request.analysis is not None:
        found, inspection = probe(request.source, settings), None
        interlacing = interlacing_of(request.analysis)
    else:
        found, inspection = probe_and_inspect(request.source, settings, request.span)
        interlacing = inspection.interlacing
    check_exclusions(request.options() | given_by_fields(interlacing.mode))
    if inspection is not None:
        notify(on_event, *filter(None, [interlacing.notice()]))
    before_swap = plate = None
    if request.before_swap is not None:
        before_swap = probe(request.before_swap)
        check_before_swap(before_swap, request.source, found.info, mode=interlacing.mode)
    if request.plate is not None:
        plate = probe(request.plate)
        check_plate(plate, request.source, found.info)
    for each in filter(None, (found, before_swap, plate)):
        check_base_layer(each.side_data, str(each.path))
    return InspectedSource(found, inspection, interlacing, before_swap, plate, kept)


def choose_output(
    request: RestoreRequest, work: WorkFolder, source: InspectedSource, on_event: OnEvent | None
) -> OutputPlan:
    """Begin the work folder, choose codec and streams, and check by a trial that both work.

    Args:
        request: A valid request.
        work: The work folder of the output.
        source: The value of `inspect_source`.
        on_event: Receives notices; None: none are sent.

    Returns:
        The form of the output.

    Raises:
        OutputError: The output cannot be encoded or written, or the machine has too little memory.
        UsageError: The layer cannot be written, or a redo of shots has another encoding than the
            finished job.
    """
    settings, target, base = request.settings, request.target, source.base
    layering = _layering(request, work)
    if (reason := work.begin(source.probe.fingerprint, resume=request.resume)) is not None:
        notify(on_event, reason)
    info, mode = base.info, source.interlacing.mode
    if mode in ("bob", "frame", "film"):
        info = info_of_pictures(info, mode)
    if _colorizes(request):
        info = _with_colors(info, target)
    small, scaling = info, chosen_scaling(settings, on_event)
    if source.kept is not None:
        check_scaling(source.kept, scaling, target)
    if scaling is not None:
        info = scaled_info(small, scaling.factor)
    losses = [*dict.fromkeys((*source.probe.time_line.notes, *base.time_line.notes))]
    if is_pictures(target):
        pictures = plan_pictures(request.source, target, small, settings)
        ways, start = lossless_ways(info, settings), Fraction(0)
        streams = streams_of_pictures(info)
        losses += pictures.notes
    else:
        pictures, start = None, base.start
        ways = ways_to_encode(info, target, settings)
        if scaling is None and mode in ("keep", "off") and not _colorizes(request):
            ways, note = _like_source(ways, source, work.path, settings)
            losses += note
        streams = plan_streams(base, target, whole=request.span is None)
    needed_bytes = 0
    if scaling is not None:
        losses += unseen_fields(small, source.interlacing)
        count = None if pictures is None else len(pictures.source.files)
        codec = ways[0].codec
        needed_bytes = memory_for_frames(small, info, scaling, settings, codec, pictures=count)
        told = check_memory(needed_bytes, info, of_pictures=pictures is not None)
        notify(on_event, notice(scaling, info), told)
    encoding, header = choose_encoding(
        ways, base.path, work.path, info, threads=settings.encode.threads
    )
    if pictures is None:
        if source.kept is not None:
            check_encoding(source.kept, encoding, target)
        streams = trial_remux(base, work.path / f"trial{target.suffix}", streams)
        streams = with_side_data(
            streams, base.side_data, base.info, info, encoding.encoder,
            has_new_frames=mode == "film",
        )  # fmt: skip
        if states_stereo(base.side_data, streams.container, encoding.encoder):
            encoding = replace(encoding, without_stereo=True)
        losses += [*encoding.notes, *streams.lost]
    notify(on_event, *losses)
    return OutputPlan(
        encoding, header, streams, pictures, info, start, scaling, needed_bytes, layering,
        tuple(losses),
    )  # fmt: skip


def analyze_and_select(
    request: RestoreRequest,
    work: WorkFolder,
    source: InspectedSource,
    on_event: OnEvent | None,
    *,
    may_be_kept: bool,
) -> SelectedFaces:
    """Open the networks, analyze the source, and select the faces to restore.

    Args:
        request: A valid request.
        work: The work folder, begun; it keeps what finds the faces.
        source: The value of `inspect_source`.
        on_event: Receives progress and notices; None: none are sent.
        may_be_kept: Whether the analysis of an earlier run may be used.

    Returns:
        The faces, and the networks that restore them.

    Raises:
        WeightsError: A weight file is missing or damaged.
        InputError: The source cannot be decoded, or a given analysis belongs to another video.
        UsageError: The choice of people or shots does not fit the analysis.
    """
    if request.restorer is None:
        request = replace(request, settings=with_base_network(request.settings, request.choice))
    hashes, settings, face = FileHashes(), request.settings, None
    begun = work.begun_with(source.probe.fingerprint) if request.analysis is None else None
    photos = [request.choice.reference, *(person.reference for person in settings.person)]
    is_early = any(photos) or (request.analysis is None and bool(settings.person))
    if is_early:  # photos are judged before large weights are fetched
        settings = _with_models(request, work, source, on_event)
        _check_recognition(settings, request.analysis)
        face = face_of_photo(request.choice, settings, on_event)
    personal = personal_networks(settings, on_event)
    usual = request.restorer or chosen_restorer(settings, on_event, hashes)
    parser = chosen_parser(settings, on_event)
    if request.analysis is None and not is_early:
        settings = _with_models(request, work, source, on_event)
    settings = with_template(settings, usual)
    if (given := request.analysis) is not None:
        work.note_models(source.probe.fingerprint, None)
        _check_analysis(given, source.probe, usual, settings)
        if request.span is not None:
            given = part_within(given, source.probe.path, request.span)

    def analyzed(*, may_be_kept: bool) -> Known:
        if given is not None:
            return Known(given, is_kept=False, settings=settings)
        return find_analysis(
            source.probe, settings,
            span=request.span, inspection=source.inspection, may_be_kept=may_be_kept,
            hashes=hashes, on_event=on_event,
        )  # fmt: skip

    def selected(analysis: Analysis) -> tuple[Analysis, Assignment[str | None]]:
        _check_recognition(settings, analysis)
        return applied(
            request.choice, analysis, request.source, settings, on_event,
            face=face, span=request.span,
            may_be_empty=source.kept is not None or request.span is not None,
        )  # fmt: skip

    match = analyzed(may_be_kept=may_be_kept)
    try:
        analysis, names = selected(match.analysis)
    except ChangedSourceError as error:  # frames with faces marked by hand were read again
        if not match.is_kept:
            raise
        log_handled(error)
        notify(on_event, OTHER_FRAMES)
        match = analyzed(may_be_kept=False)
        analysis, names = selected(match.analysis)
    check_shots(names, request.choice)
    names, losses = assigned(names, analysis, personal, similarity=settings.people.similarity)
    redo = None if source.kept is None else plan_redo(source.kept, analysis, request.source)
    if redo is not None:
        names = Assignment(names.stretches, redo.numbered(names.of_tracks))
        losses += redo.notes
    notify(on_event, *losses)
    restorers = chosen_restorers(names, usual, settings, on_event, hashes)
    check_is_gray(request.source, analysis, request.span, restorers)
    judge = chosen_judge(settings, on_event, hashes)
    notify(on_event, *_unchecked(settings, judge))
    was_told = begun is not None and begun != models_of(settings)
    changed = work.note_judge(source.probe.fingerprint, _networks_asked_for(request, judge))
    if changed is not None and not was_told:
        notify(on_event, changed)
    return SelectedFaces(
        analysis=analysis if redo is None else redo.analysis,
        has_kept_analysis=match.is_kept,
        settings=settings,
        restorers=restorers,
        names=names,
        described=restorers.converted(lambda each: each.described()),
        judge=judge,
        parser=parser,
        redo=redo,
        losses=tuple(losses),
    )


def assemble(
    request: RestoreRequest,
    work: WorkFolder,
    source: InspectedSource,
    output: OutputPlan,
    faces: SelectedFaces,
    on_event: OnEvent | None,
) -> Plan:
    """Cut the work into segments, and collect all that their rendering needs.

    Args:
        request: A valid request.
        work: The work folder, in which the results are kept apart where no later run can use them.
        source: The value of `inspect_source`.
        output: The value of `choose_output`.
        faces: The value of `analyze_and_select`.
        on_event: Receives notices; None: none are sent.

    Returns:
        The plan.

    Raises:
        OutputError: The machine has too little memory for the output.
        VidrestoreError: A companion video, or the segments of a finished output, cannot be read.
    """
    settings, redo, parser = faces.settings, faces.redo, faces.parser
    pairing = pair(
        request.source, faces.analysis, request.span,
        before_swap=source.before_swap, plate=source.plate, scaling=output.scaling,
        on_event=on_event,
    )  # fmt: skip
    analysis = with_room_for(faces.analysis, pairing)
    losses = (*output.losses, *faces.losses, *pairing.notes())
    encoding, shown = output.encoding, pairing.plate
    check_holds_color(encoding.pixel_format, faces.described)
    if shown is not None and shown.scaling is None:
        check_is_gray(shown.path, shown.analysis, shown.span, faces.described)
    if encoding.copied is not None and (analysis if shown is None else shown.analysis).changes:
        encoding = replace(encoding, copied=None)
        anew = _encoded_anew(source.base, encoding, settings, "its picture changes midway")
        notify(on_event, *anew)
        losses = (*losses, *anew)
    if output.layering is not None:
        notify(on_event, *output.layering.notes)
        losses = (*losses, *output.layering.notes)
    if unknown := without_cache_key(faces.described):
        work.keep_results_apart()
        notify(on_event, (
            f"{' and '.join(unknown)} has no cache_key, so this run uses no restored face of an "
            "earlier run, and keeps nothing if it is interrupted; give the restorer a cache_key "
            "that names its weights and options"
        ))  # fmt: skip
    begun = work.key_frames_noted(source.probe.fingerprint)
    keyed = plan_key_frames(analysis, faces.restorers, settings, begun)
    if keyed.saves_time != begun:
        work.note_key_frames(source.probe.fingerprint, keyed.saves_time)
    notify(on_event, *keyed.notes)
    losses = (*losses, *keyed.notes)
    if output.scaling is not None:
        needed_bytes = memory_for_faces(analysis, settings, faces.described)
        needed_bytes += output.needed_bytes
        check_memory(needed_bytes, output.info, of_pictures=output.pictures is not None)
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
        encoding=encoding,
        header=output.header and output.header.absolute(),
        span=request.span,
        pairing=pairing.absolute(),
        layering=output.layering,
        key_framed=keyed.tracks,
    )
    if redo is None:
        segments = plan_segments(
            analysis, most_frames=settings.job.segment_frames, at_every_cut=request.keep_job
        )
        taken = dict[int, str]()
    else:
        segments = redo.kept.segments
        taken = take_segments(redo, work, request.target, output.encoding.suffix, output.info)
    # Workers open the networks themselves, so with workers nothing here keeps them in memory.
    live = _live_picture(request, output, analysis, on_event)
    renderer = request.workers or LocalRenderer(faces.restorers, faces.judge, parser, live)
    return Plan(
        rendering=Rendering(job, work, segments, taken, faces.described, renderer, on_event),
        output=output,
        base=pairing.plate or PairedVideo(request.source, of_output(analysis), request.span),
        redo=redo,
        labels=_labels(faces, analysis, request.restorer),
        losses=losses,
        restorers=restorers_of_segments(segments, analysis, faces.described, redo),
        has_kept_analysis=faces.has_kept_analysis,
    )


def _colorizes(request: RestoreRequest) -> bool:
    """Return whether the restorer of the whole request gives colors to gray faces."""
    if request.restorer is not None:
        return request.restorer.colorizes
    return request.settings.restore.restorer == COLORIZER


def _with_colors(info: VideoInfo, target: Path) -> VideoInfo:
    """Return the properties of frames that can hold the colors that faces get."""
    wanted = format_with_chroma(info.pixel_format, info.width, info.height)
    if is_pictures(target) and wanted != info.pixel_format:
        raise UsageError(
            f"the output {target} would hold gray pictures, as the source does, and no colors; "
            "save the source as R'G'B' pictures first"
        )
    return replace(info, pixel_format=wanted)


def _with_models(
    request: RestoreRequest, work: WorkFolder, source: InspectedSource, on_event: OnEvent | None
) -> Settings:
    """Choose what finds the faces: what the job began with, else the best that is here."""
    fingerprint = source.probe.fingerprint
    begun = work.begun_with(fingerprint) if request.resume else None
    if begun is not None and (request.choice.reference is not None or request.settings.person):
        begun = replace(begun, recognizes=True)  # a photo or a person needs the recognizer
    settings = with_models_here(request.settings, on_event, begun=begun)
    if request.analysis is None and (models := models_of(settings)) is not None:
        work.note_models(fingerprint, models)
    return settings


def _check_recognition(settings: Settings, analysis: Analysis | None) -> None:
    """Refuse networks of single people where nothing recognizes these people."""
    recognizes = settings.people.recognise if analysis is None else analysis.people_are_joined
    check_recognition(settings, recognizes=recognizes)


def _unchecked(settings: Settings, judge: SimilarityJudge) -> Iterator[str]:
    """Yield a notice for each check of faces that was asked for and cannot be made."""
    how = settings.guard
    given = how.model_fields_set
    if how.expression > 0 and "expression" in given and not judge.sees_expression:
        yield "guard.expression has no effect, because the face mesh is not used"
    if how.identity > 0 and "identity" in given and not judge.knows_people:
        yield "guard.identity has no effect, because no recognizer is used"


def _networks_asked_for(request: RestoreRequest, judge: SimilarityJudge) -> dict[str, str]:
    """Return the networks that the judge is to use: what each is -> its file, or an empty text."""
    settings, here = request.settings, judge.parts()
    asked = {
        "the face mesh": settings.guard.expression > 0 and settings.detect.mesh != "off",
        "the recognizer": settings.guard.identity > 0 and settings.people.recognise,
    }
    return {name: here.get(name, "") for name, is_asked in asked.items() if is_asked}


def _labels(faces: SelectedFaces, analysis: Analysis, own: Restorer | None) -> dict[int, str]:
    """Return number of a track -> the name of its restorer, for the summary."""
    used = restorers_used(faces.described, analysis, 0, analysis.frame_count)
    labels = {track: restorer.name for track, restorer in used}
    labels |= labels_of(faces.names, analysis, faces.settings, own)
    if faces.redo is not None:
        labels |= faces.redo.labels_of_kept()
    return labels


def _live_picture(
    request: RestoreRequest, output: OutputPlan, analysis: Analysis, on_event: OnEvent | None
) -> LivePicture | None:
    """Return the writer of the live pictures that the request asks for."""
    if request.live is None:
        return None
    order = None
    if is_woven(analysis) and analysis.fields is not None:
        order = analysis.fields.order
    return LivePicture(request.live, output.info, on_event, order=order)


def _layering(request: RestoreRequest, work: WorkFolder) -> LayerOutput | None:
    """Return the layer that the request asks for, after a check of its folder."""
    if request.layer is None:
        return None
    layering = LayerOutput(request.layer, request.source.stem, request.settings.layer.format, work)
    layering.check(request.target, (request.source, request.base), overwrite=request.overwrite)
    return layering


def _check_analysis(
    analysis: Analysis, source: Probe, restorer: Restorer, settings: Settings
) -> None:
    """Raise an error where an analysis of the request is of another video or template."""
    storage.check_source(analysis, source, "the given analysis")
    storage.check_picture(analysis, source.info, "the given analysis")
    if analysis.template != settings.align.template:
        raise UsageError(
            f"the analysis was made for the template {analysis.template} and {restorer.name} "
            f"wants {settings.align.template}; analyze again with "
            f"--set align.template={settings.align.template}"
        )


def _like_source(
    ways: tuple[Encoding, ...], source: InspectedSource, folder: Path, settings: Settings
) -> tuple[tuple[Encoding, ...], list[str]]:
    """Put an encoding first whose frames can stand among packets of the base, if there is one.

    Returns:
        The encodings, and a notice for the user where frames lose a generation for want of one.
    """
    how, base = settings.encode, source.base
    if not how.copy_untouched:
        return ways, []
    found = encoding_like_source(
        ways[0], base.path, base.info, folder,
        quality=how.quality,
        woven_order=source.interlacing.order if source.interlacing.mode == "keep" else None,
        threads=how.threads,
    )  # fmt: skip
    if isinstance(found, Encoding):
        return (found, *ways), []
    return ways, _encoded_anew(base, ways[0], settings, found) if found else []


def _encoded_anew(base: Probe, encoding: Encoding, settings: Settings, reason: str) -> list[str]:
    """Return the notice that no packets are copied, if frames lose a generation by that."""
    note = (
        "frames without a restored face are encoded again, too, because packets of "
        f"{base.path.name} cannot be copied: {reason}"
    )
    _log.info("%s", note)
    wanted, own = settings.encode.pixel_format, base.info.pixel_format
    # The encoder of ProRes takes 10 bits at most, and copied frames keep their 12.
    is_unchanged = wanted == "source" or (encoding.codec, wanted) == ("prores", _in_10_bits(own))
    return [note] if is_unchanged and not encoding.is_lossless else []


def _in_10_bits(pixel_format: str) -> str:
    """Return the pixel format of 10 bits that corresponds to one of 12."""
    return pixel_format.replace("p12", "p10")


def ways_to_encode(info: VideoInfo, target: Path, settings: Settings) -> tuple[Encoding, ...]:
    """List the encodings that the settings allow for an output.

    Args:
        info: The properties of the output's frames.
        target: The output, whose suffix decides on the container.
        settings: The section `encode` counts.

    Returns:
        The encodings, the preferred one first.

    Raises:
        OutputError: No encoding can hold the frames under these settings.
    """
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
    """Replace the template "auto" by the one that the restorer wants.

    Args:
        settings: The settings.
        restorer: The restorer.

    Returns:
        The settings with `align.template` "gpen" or "ffhq".
    """
    if settings.align.template != "auto":
        return settings
    align = settings.align.model_copy(update={"template": restorer.template})
    return settings.model_copy(update={"align": align})

"""The key of a segment: it changes with all that its frames depend on, and with nothing else."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args, get_origin

import numpy as np
import pytest
from helpers.media import analysis_of, info_of, plain_track
from pydantic import BaseModel, ValidationError

from vidrestore.analysis.result import Analysis, Fields
from vidrestore.analysis.tracks import Track
from vidrestore.common.profiles import load_settings
from vidrestore.common.settings import Settings
from vidrestore.imaging.frame import TimeShift, VideoInfo
from vidrestore.jobs.render import Rendering, RenderJob
from vidrestore.jobs.request import RestoreRequest
from vidrestore.jobs.work_folder import WorkFolder
from vidrestore.media.codecs import Encoding
from vidrestore.media.decode import TimeRange
from vidrestore.models.face_mesh import SHAPE_POINTS
from vidrestore.models.restorers import RestorerInfo
from vidrestore.models.restorers.assignment import Assignment
from vidrestore.restoration.companion import PairedVideo, Pairing
from vidrestore.restoration.segments import NOT_IN_KEY, Segment, leaves, side_px
from vidrestore.restoration.upscaling import Scaling

FRAMES = 60
SEGMENT = Segment(0, 10, 40)


class Known(RestorerInfo):
    """A restorer that is known by its key."""

    name, size, reach_frames, template, cache_key = "known", None, 0, "gpen", "one"


def work_of(**changes: Any) -> RenderJob:
    track = plain_track(FRAMES, centre=(48, 32), side=32)
    work = RenderJob(
        source=Path("tape.mkv"), fingerprint="tape", folder=Path("out.vidrestore"),
        analysis=replace(analysis_of(info_of(96, 64), FRAMES, [track]), fingerprint="tape"),
        restorers=Assignment([(0, None)]), own_restorer=None, networks=[(0, "known")],
        judge="features", parser=None, settings=Settings(),
        encoding=Encoding("ffv1", "ffv1", "yuv420p", ".mkv"),
        header=None, span=None, pairing=Pairing(), layering=None,
    )  # fmt: skip
    return replace(work, **changes)


def key(work: RenderJob, restorers: Any = None, segment: Segment = SEGMENT) -> str:
    known = Assignment([(0, Known())]) if restorers is None else restorers
    rendering = Rendering(work, WorkFolder(work.folder), [segment], {}, known, None, None)
    return next(rendering._segment_keys([segment]))


USUAL = key(work_of())


def test_the_key_of_the_same_is_the_same():
    assert key(work_of()) == USUAL


# Values of settings that no rule below finds.
OTHER: Mapping[str, object] = {
    "decode.input_curve": "slog3",
    "shots.edl": "cuts.edl",
    "person": ({"name": "Anna", "restorer": "anna.safetensors"},),
    "detect.pack": "antelopev2",
    "restore.restorer": "fusion",
    "restore.device": "cpu",
    "paste.parser": "parser.onnx",
    "scale.upscaler": "net.onnx",
    "encode.quality": "small",
    "encode.pixel_format": "yuv444p",
    "train.base": "gpen-2048",
    "weights.folder": "elsewhere",
    "weights.also": ("elsewhere",),
}


def annotations(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from annotations(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field.annotation


ANNOTATIONS = dict(annotations(Settings))


def candidates(name: str, value: object) -> Iterator[object]:
    if name in OTHER:
        yield OTHER[name]
        return
    kinds = [ANNOTATIONS[name], *get_args(ANNOTATIONS[name])]
    for kind in kinds:
        if "Literal" in str(get_origin(kind)):
            yield from get_args(kind)
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield from (value / 2, value + 1, value + 32, value * 2)
    elif value is None:
        yield from (2, 0.5)


def changed(name: str) -> Settings:
    """The default settings, but for this one."""
    value = dict(leaves(Settings()))[name]
    for other in candidates(name, value):
        tree: Any = other
        for part in reversed(name.split(".")):
            tree = {part: tree}
        try:
            settings = Settings.model_validate(tree)
        except ValidationError:
            continue
        if dict(leaves(settings))[name] != value:
            return settings
    raise AssertionError(f"no other value of {name} is known; give one in OTHER")


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_every_setting_is_in_the_key_or_cannot_matter(name):
    is_in = key(work_of(settings=changed(name))) != USUAL
    if name in NOT_IN_KEY:
        assert not is_in, f"{name} is in the key; take it out of NOT_IN_KEY"
        assert len(NOT_IN_KEY[name].split()) > 3
    else:
        assert is_in


def test_the_list_of_settings_that_cannot_matter_names_no_others():
    assert set(NOT_IN_KEY) <= set(ANNOTATIONS)


# Of a request, what enters by a field of the work, or why it does not matter.
REQUEST = {
    "source": "fingerprint", "settings": "settings", "restorer": "own_restorer",
    "analysis": "analysis", "span": "span", "choice": "analysis", "before_swap": "pairing",
    "plate": "pairing", "layer": "layering",
}  # fmt: skip
REQUEST_NOT = {
    "target": "the folder of the work lies beside it, and its kind is in the encoding",
    "framemd5": "it is written from the finished file",
    "report": "it is written from the finished file",
    "overwrite": "it says whether the finished file may take a place",
    "resume": "it says whether keys are compared at all",
    "keep_job": "where segments begin is in the key",
    "redo_shots": "the shots not asked for have keys of their own",
    "workers": "they give the frames of a run without",
    "live": "people look at it during the work",
}
WORK_NOT = {
    "source": "it goes by its content, whatever its name",
    "fingerprint": "it is that of the analysis, which is in the key",
    "folder": "where the work is done",
    "restorers": "names, of which the opened restorers are in the key by their cache_key",
    "own_restorer": "it is among the opened restorers, by its cache_key",
    "networks": "names for people, of the opened restorers in the key",
    "header": "it is what the encoder writes for the encoding, which is in the key",
    "layering": "its streams are found by keys of their own beside the segment's",
}


def test_every_field_of_a_request_is_in_the_work_or_cannot_matter():
    assert {f.name for f in fields(RestoreRequest)} == REQUEST.keys() | REQUEST_NOT.keys()
    assert not REQUEST.keys() & REQUEST_NOT.keys()
    assert set(REQUEST.values()) <= {f.name for f in fields(RenderJob)}


def large() -> PairedVideo:
    return PairedVideo(Path("plate.mkv"), replace(analysis_of(info_of(192, 128), FRAMES, []),
                                                fingerprint="plate"), None)  # fmt: skip


WORK: dict[str, list[Any]] = {
    "analysis": [replace(work_of().analysis, fingerprint="another")],
    "judge": ["w600k"],
    "parser": ["0123"],
    "settings": [load_settings(options={"paste.strength": 0.5})],
    "encoding": [Encoding("h264", "libx264", "yuv420p", ".mp4")],
    "span": [TimeRange(Fraction(1), None)],
    "key_framed": [frozenset({0})],
    "pairing": [
        Pairing(before_swap=large()),
        Pairing(plate=large()),
        Pairing(plate=replace(large(), scaling=Scaling(2))),
        Pairing(plate=replace(large(), scaling=Scaling(2, Path("a"), "0123"))),
        Pairing(plate=replace(large(), analysis=analysis_of(info_of(192, 96), FRAMES, []))),
    ],
}


def test_every_field_of_the_work_is_in_the_key_or_cannot_matter():
    assert {f.name for f in fields(RenderJob)} == WORK.keys() | WORK_NOT.keys()
    keys = [key(work_of(**{name: value})) for name, values in WORK.items() for value in values]
    assert len({USUAL, *keys}) == 1 + len(keys)


def test_another_restorer_makes_another_key_and_one_without_makes_none_twice():
    other, none = Known(), Known()
    other.cache_key, none.cache_key = "two", None
    schedules = ([(0, other)], [(0, Known()), (20, other)], [(0, Known()), (21, other)])
    assert len({USUAL, *(key(work_of(), Assignment(each)) for each in schedules)}) == 4
    assert key(work_of(), Assignment([(0, Known()), (50, other)])) == USUAL
    assert key(work_of(), Assignment([(0, none)])) != key(work_of(), Assignment([(0, none)]))
    own = Assignment([(0, Known())], {0: other})
    assert key(work_of(), own) not in (USUAL, key(work_of(), Assignment([(0, other)])))
    assert key(work_of(), Assignment([(0, Known())], {9: other})) == USUAL
    larger = Known()
    larger.size = 16
    assert key(work_of(), Assignment([(0, larger)])) != USUAL


ENCODING_NOT = {"notes"}  # sentences
ENCODING = {
    "codec": "h264", "encoder": "x", "pixel_format": "yuv422p", "suffix": ".mp4",
    "options": {"g": "1"}, "is_lossless": True, "has_field_flags": True,
    "needs_light_header": True, "without_stereo": True, "copied": b"",
}  # fmt: skip


def test_every_part_of_an_encoding_is_in_the_key():
    assert {f.name for f in fields(Encoding)} == ENCODING.keys() | ENCODING_NOT
    usual = work_of().encoding
    keys = [key(work_of(encoding=replace(usual, **{n: v}))) for n, v in ENCODING.items()]
    assert len({USUAL, *keys}) == 1 + len(keys)


INFO: dict[str, Any] = {
    "stream_index": 1, "codec": "hevc", "width": 98, "height": 66, "time_base": Fraction(1, 90000),
    "frame_rate": Fraction(24), "frame_count_from_header": 1, "duration_seconds_from_header": 1.0,
    "sample_aspect_ratio": Fraction(4, 3), "display_orientation": (0, 1, -1, 0),
    "display_matrix": (1,) * 9, "pixel_format": "yuv422p", "bit_depth": 10, "matrix": "bt601",
    "full_range": True, "tags": (1, 2, 2, 2), "field_order": "tff", "chroma_location": "center",
    "transfer": "pq", "curve": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), "primaries": "bt2020",
    "mastering_display": (Fraction(1),) * 10, "content_light": (1, 1),
    "guessed": frozenset({"matrix"}), "joins_seconds": (1.0,), "shifts": (TimeShift(3, 40),),
}  # fmt: skip


def with_analysis(**changes: Any) -> str:
    return key(work_of(analysis=replace(work_of().analysis, **changes)))


def test_all_that_is_known_of_the_picture_is_in_the_key():
    assert {f.name for f in fields(VideoInfo)} == INFO.keys()
    usual = work_of().analysis.info
    keys = [with_analysis(info=replace(usual, **{name: value})) for name, value in INFO.items()]
    assert len({USUAL, *keys}) == 1 + len(keys)


def woven_of(mode: str = "keep", order: str = "tff", **changes: Any) -> Fields:
    of_file = analysis_of(info_of(96, 64, field_order=order), FRAMES, [])
    return replace(Fields(mode, order, of_file.info, of_file.pts, of_file.crc32), **changes)


def test_a_segment_of_woven_fields_is_not_taken_for_one_of_single_fields():
    later = woven_of().crc32 + np.uint32(1)
    pulled = np.repeat(np.arange(FRAMES), 2).reshape(-1, 2)
    keys = [
        with_analysis(fields=each)
        for each in (
            *(woven_of(mode) for mode in ("keep", "bob", "frame", "film")),
            woven_of(order="bff"),
            woven_of(pts=woven_of().pts + 1),
            woven_of(crc32=later),
            woven_of("film", sources=pulled),
            woven_of("film", sources=pulled[:, ::-1] + 1),
        )
    ]
    assert len({USUAL, *keys}) == 1 + len(keys)
    assert {f.name for f in fields(Fields)} == {"mode", "order", "info", "pts", "crc32", "sources"}


ANALYSIS_NOT = {
    "skipped": "a count", "corrupt_frames": "a count", "decode_errors": "a count",
    "repaired_times": "a count; the times themselves are in the key", "detector_errors": "a count",
    "coarse_landmarks": "the landmarks are in the key", "detector": "its faces are in the key",
    "people_are_joined": "who is restored is in the strength of the tracks",
    "margins": "no face is taken from them, and the faces are in the key",
    "_by_frame": "an index of the tracks",
    "changes": "notices tell them; the pictures are in the key", "fitted_frames": "a count",
    "reduced_frames": "a count", "decoded": "how the picture is enlarged is in the key",
}  # fmt: skip
TRACK_NOT = {
    "person_id": "who is restored is in the strength",
    "score": "the strength follows from it", "detected": "the strength follows from it",
    "embedding": "the strength follows from it",
    "angles_degrees": "the strength follows from them",
}  # fmt: skip


def test_every_part_of_the_analysis_is_in_the_key_or_cannot_matter():
    usual = work_of().analysis
    (track,) = usual.tracks
    analysis: dict[str, Any] = {
        "info": replace(usual.info, width=98), "pts": usual.pts + 1,
        "crc32": usual.crc32 + np.uint32(1), "shots": ((0, 41), (41, FRAMES)), "tracks": (),
        "one_thread": True, "template": "ffhq", "fingerprint": "another", "fields": woven_of(),
    }  # fmt: skip
    tracks: dict[str, Any] = {
        "track_id": 7, "first_frame": 1, "work_px": 2 * track.work_px,
        "matrices": track.matrices + np.float32(1), "landmarks": track.landmarks + np.float32(1),
        "strength": track.strength * np.float32(0.5),
        "shapes": np.zeros((len(track.matrices), len(SHAPE_POINTS), 2), np.float16),
    }  # fmt: skip
    assert {f.name for f in fields(Analysis)} == analysis.keys() | ANALYSIS_NOT.keys()
    assert {f.name for f in fields(Track)} == tracks.keys() | TRACK_NOT.keys()
    keys = [with_analysis(**{name: value}) for name, value in analysis.items()]
    angles = np.zeros((len(track.matrices), 2), np.float32)
    more = {"shapes": {"angles_degrees": angles}}
    keys += [
        with_analysis(tracks=(replace(track, **{n: v}, **more.get(n, {})),))
        for n, v in tracks.items()
    ]
    assert len({USUAL, *keys}) == 1 + len(keys)


def test_what_lies_far_from_a_segment_is_not_in_its_key():
    pts, crc32 = work_of().analysis.pts.copy(), work_of().analysis.crc32.copy()
    pts[-1] += 1
    crc32[-1] += 1
    assert with_analysis(pts=pts, crc32=crc32) == USUAL
    after = work_of().analysis.pts.copy()
    after[SEGMENT.end] += 1  # by which the last frame lasts longer
    assert with_analysis(pts=after) != USUAL


class Large(Known):
    size, cache_key = 128, "two"


def test_where_another_restorer_begins_near_the_segment_is_in_the_key():
    """The frames beside a segment enter its own, such as through the deflickering."""
    begins = [Assignment([(0, Known()), (at, Large())]) for at in (42, 43, FRAMES - 1)]
    assert len({key(work_of(), each) for each in begins}) == 3


def test_the_size_of_the_crops_of_a_track_is_in_the_key_and_other_tracks_are_not():
    track = plain_track(FRAMES, centre=(48, 32), side=32, work_px=256)
    far = plain_track(5, centre=(48, 32), side=32, work_px=256, first_frame=100, track_id=7)
    analysis = replace(analysis_of(info_of(96, 64), 200, [track, far]), fingerprint="tape")
    work = work_of(analysis=analysis)

    def of(size: int | None, **more: Any) -> Assignment[RestorerInfo]:
        usual = Known()
        usual.size = size
        return Assignment([(0, usual)], **more)

    assert [side_px(track, of(size)) for size in (None, 64, 512)] == [256, 64, 256]
    assert side_px(track, of(64, of_tracks={0: Large()})) == 128
    assert side_px(track, of(64, of_tracks={7: Large()})) == 64
    assert side_px(track, Assignment([(0, Known()), (30, Large()), (FRAMES, Known())])) == 256
    assert side_px(far, Assignment([(0, Known()), (30, Large())])) == 128
    assert key(work, of(64)) == key(work, of(64, of_tracks={7: Large()}))
    assert key(work, of(64)) != key(work, of(64, of_tracks={0: Large()}))

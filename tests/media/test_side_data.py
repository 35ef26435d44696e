"""What a file states of its picture besides codec, size and color: kept where it stays true."""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import av
import av.logging
import pytest
from helpers import statements
from helpers.compare import contents, differences
from helpers.media import AS_PAINTED, Unchanged, analysis_of_file
from helpers.sources import ffmpeg, hevc, picture, tone
from helpers.statements import AMVE, clap, cube_map, dvvc, st3d, stating, sv3d, tile, vexu

from vidrestore.api import restore_video
from vidrestore.common.errors import InputError
from vidrestore.common.profiles import load_settings
from vidrestore.jobs.summary import Summary

SIZE = (96, 64)
H264 = "-c:v libx264 -preset ultrafast"
SIDE_BY_SIDE = "Stereo 3D: side by side, view: packed, primary eye: none"
OVER = "Stereo 3D: top and bottom, view: packed, primary eye: none"
CROP = clap(SIZE, left=10, right=6, top=4, bottom=2)
QUARTER = 1 << 30
LIGHT = (
    "Ambient viewing environment: ambient_illuminance=314.000000, ambient_light_x=0.312700, "
    "ambient_light_y=0.329000"
)
_HDR = (
    "hdr10=1:repeat-headers=1:bframes=0:max-cll=1000,400:range=limited:colorprim=bt2020:"
    "transfer=smpte2084:colormatrix=bt2020nc:"
    "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
)

Make = Callable[[str, str], Path]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A file of a name, made by arguments of ffmpeg when it is first asked for."""
    folder = tmp_path_factory.mktemp("stating")

    @cache
    def make(name: str, arguments: str) -> Path:
        ffmpeg(picture(), arguments, folder / name)
        return folder / name

    return make


@pytest.fixture
def plain(made: Make) -> Path:
    """A picture with sound."""
    return made("plain.mp4", f"{tone()} {H264} -c:a aac")


def run(source: Path, target: Path, **options: object) -> Summary:
    quick = {"encode.preset": "ultrafast", "fields.deinterlace": "off"}
    settings = load_settings(options=AS_PAINTED | quick | options)
    analysis = analysis_of_file(source)
    summary = restore_video(source, target, settings, restorer=Unchanged(), analysis=analysis)
    ffmpeg("-xerror -i", target, "-f null -")
    return summary


def losses(summary: Summary) -> list[str]:
    return [warning for warning in summary.warnings if warning.startswith("stream 0")]


def stated(path: Path) -> set[str]:
    """What two independent readers say of the first video stream, which must agree."""
    by_program = _about(ffmpeg("-v info -i", path, "-t 0 -f null -").decode())
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)
    with av.open(str(path)) as container:
        by_library = _about(container.dumps_format())
    av.logging.set_level(level)
    assert by_library == by_program
    return by_program


def _about(printed: str) -> set[str]:
    about = re.split(r"Stream #0:\d", printed)[1]
    if "Side data:" not in about:
        return set()
    lines = about.partition("Side data:\n")[2].splitlines()
    inside = [line.strip() for line in lines if line.startswith("      ")]
    return {line for line in inside if not line.lower().startswith(("mastering", "content"))}


KEPT = {
    "side by side": (st3d(2), {SIDE_BY_SIDE}, {".mp4", ".mov", ".mkv"}),
    "one over the other": (st3d(1), {OVER}, {".mp4", ".mov", ".mkv"}),
    "all around": (sv3d(), {"Spherical Mapping: equirectangular"}, {".mp4", ".mov", ".mkv"}),
    "all around, twice": (st3d(1) + sv3d(), {OVER, "Spherical Mapping: equirectangular"},
                          {".mp4", ".mov", ".mkv"}),
    "a part, turned": (
        sv3d(tile(QUARTER, QUARTER, QUARTER, QUARTER), pose=(90 << 16, -5 << 16, 1 << 15)),
        {"Spherical Mapping: tiled equirectangular (90.000000/-5.000000/0.500000) "
         "[49, 33, 47, 31]"},
        {".mp4", ".mov", ".mkv"},
    ),
    "a cube": (sv3d(cube_map(8)), {"Spherical Mapping: cubemap [pad 8]"}, {".mp4", ".mov", ".mkv"}),
    "Apple's half spheres": (
        vexu(), {f"{SIDE_BY_SIDE}, horizontal_field_of_view: 180.000",
                 "Spherical Mapping: half equirectangular"}, {".mp4", ".mov"},
    ),
    "hidden edges": (CROP, {"Frame Cropping: 10/6/4/2"}, {".mp4", ".mov", ".mkv"}),
    "ambient light": (AMVE, {LIGHT}, {".mp4", ".mov"}),
    "everything": (st3d(2) + sv3d() + CROP + AMVE,
                   {SIDE_BY_SIDE, "Spherical Mapping: equirectangular",
                    "Frame Cropping: 10/6/4/2", LIGHT}, {".mp4", ".mov"}),
}  # fmt: skip


INTO = [
    ("side by side", ".mov"), ("one over the other", ".mp4"), ("all around", ".mkv"),
    ("all around, twice", ".mov"), ("a part, turned", ".mp4"), ("a part, turned", ".mkv"),
    ("a cube", ".mkv"), ("Apple's half spheres", ".mov"), ("Apple's half spheres", ".mkv"),
    ("hidden edges", ".mkv"), ("ambient light", ".mkv"), ("everything", ".mp4"),
    ("everything", ".mov"), ("everything", ".mkv"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "suffix"), INTO)
def test_statements_that_stay_true_are_kept_or_named(
    tmp_path: Path, plain: Path, name: str, suffix: str
) -> None:
    boxes, words, holders = KEPT[name]
    source, target = stating(plain, tmp_path / "source.mp4", boxes), tmp_path / f"out{suffix}"
    assert stated(source) == words
    summary = run(source, target)
    if suffix in holders:
        assert stated(target) == words
        assert losses(summary) == []
    else:
        missing = words - stated(target)
        assert missing
        assert len(losses(summary)) == 1
        assert "which an .mp4 or .mov file can keep" in losses(summary)[0]
    lacking = differences(contents(source), contents(target), suffix, "h264")
    assert [str(each) for each in lacking if each.what != "shape"] == []


@pytest.mark.parametrize(
    ("codec", "suffix", "has_light"),
    [("ffv1", ".mkv", True), ("ffv1", ".mkv", False), ("prores", ".mov", True),
     ("prores", ".mkv", True), ("hevc", ".mp4", True)],
)  # fmt: skip
def test_statements_are_kept_whatever_the_codec(
    tmp_path: Path, made: Make, codec: str, suffix: str, has_light: bool
) -> None:
    """HDR10 metadata come from a header that ffmpeg writes, in which nothing else may stand."""
    form = "yuv422p10le" if codec == "prores" else "yuv420p10le"
    plain = made(f"{has_light}-{form}.mp4", hevc(_HDR if has_light else "", form))
    source = stating(plain, tmp_path / "source.mp4", st3d(2) + sv3d() + CROP)
    target = tmp_path / f"out{suffix}"
    summary = run(source, target, **{"encode.codec": codec})
    words = {SIDE_BY_SIDE, "Spherical Mapping: equirectangular", "Frame Cropping: 10/6/4/2"}
    assert stated(target) == words
    assert losses(summary) == []
    light = contents(target).picture["content light"]
    assert light == ((1000, 400) if has_light else None)


@pytest.mark.parametrize(
    ("mode", "suffix", "is_kept"),
    [("left_right", ".mkv", True), ("left_right", ".mp4", True), ("right_left", ".mov", True),
     ("bottom_top", ".mkv", True), ("bottom_top", ".mp4", True), ("mono", ".mp4", True),
     ("checkerboard_rl", ".mkv", True), ("checkerboard_rl", ".mp4", False),
     ("anaglyph_cyan_red", ".mkv", True), ("anaglyph_cyan_red", ".mov", False)],
)  # fmt: skip
def test_stereo_modes_of_matroska(
    tmp_path: Path, made: Make, mode: str, suffix: str, is_kept: bool
) -> None:
    source = made(f"{mode}.mkv", f"{H264} -metadata:s:v stereo_mode={mode}")
    target = tmp_path / f"out{suffix}"
    summary = run(source, target, **{"encode.codec": "hevc"})
    if is_kept:
        assert stated(target) == (set() if mode == "mono" else stated(source))
        assert losses(summary) == []
    else:
        (said,) = losses(summary)
        assert "stereo 3D" in said
        assert "only an .mkv file can keep" in said
    with av.open(str(target)) as container:
        tags = container.streams.video[0].metadata
        assert tags.get("stereo_mode") == (mode if suffix == ".mkv" else None)


def test_stereo_of_the_coded_stream_is_stated_once(tmp_path: Path, made: Make) -> None:
    """ffmpeg does not play a file whose container and coded stream both state it."""
    plain = made("no_b.mp4", f"{H264} -bf 0")
    source = statements.with_messages(
        plain, tmp_path / "source.mp4", 45, statements.frame_packing()
    )
    assert stated(source) == set()
    for codec, suffix in (("h264", ".mkv"), ("hevc", ".mkv"), ("hevc", ".mp4")):
        target = tmp_path / f"{codec}{suffix}"
        summary = run(source, target, **{"encode.codec": codec})
        assert losses(summary) == []
        assert stated(target) == (set() if codec == "h264" else {SIDE_BY_SIDE})
        assert first_kinds(target) >= {"STEREO3D"}


def first_kinds(path: Path) -> set[str]:
    with av.open(str(path)) as container:
        return {entry.type.name for entry in next(container.decode(video=0)).side_data}


@pytest.mark.parametrize(("codec", "is_kept"), [("h264", True), ("hevc", True), ("ffv1", False)])
def test_captions_in_the_coded_stream(
    tmp_path: Path, made: Make, codec: str, is_kept: bool
) -> None:
    plain = made("no_b.mp4", f"{H264} -bf 0")
    source = statements.with_messages(plain, tmp_path / "source.mp4", 4, statements.CAPTIONS)
    target = tmp_path / "out.mkv"
    summary = run(source, target, **{"encode.codec": codec})
    assert ("A53_CC" in first_kinds(target)) == is_kept
    assert ["closed captions" in loss for loss in losses(summary)] == [True] * (not is_kept)


def test_what_belongs_to_the_old_coded_stream_is_named_once(tmp_path: Path, made: Make) -> None:
    plain = made("hdr.mp4", hevc(_HDR, "yuv420p10le") + " -tag:v hvc1")
    plus = statements.with_messages(plain, tmp_path / "plus.mp4", 4, statements.hdr10_plus())
    source = stating(plus, tmp_path / "source.mp4", dvvc(8, 1))
    assert "DYNAMIC_HDR_PLUS" in first_kinds(source)
    target = tmp_path / "out.mp4"
    summary = run(source, target)
    assert losses(summary) == [
        "stream 0 (hevc) has Dolby Vision (profile 8), which the output cannot keep",
        "stream 0 (hevc) has HDR10+ metadata, which the output cannot keep",
    ]
    assert stated(target) == set()


def test_a_picture_that_needs_dolby_vision_is_refused_before_the_work(
    tmp_path: Path, made: Make
) -> None:
    plain = made("deep.mp4", hevc("", "yuv420p10le") + " -tag:v hvc1")
    source = stating(plain, tmp_path / "source.mp4", dvvc(5, 0))
    with pytest.raises(InputError, match=r"Dolby Vision of profile 5.*convert it"):
        run(source, tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["source.mp4"]


def test_statements_in_pixels_grow_with_the_picture(tmp_path: Path, plain: Path) -> None:
    source = stating(plain, tmp_path / "source.mp4", CROP + sv3d(cube_map(8)))
    target = tmp_path / "out.mp4"
    assert losses(run(source, target, **{"scale.factor": 2})) == []
    assert stated(target) == {"Frame Cropping: 20/12/8/4", "Spherical Mapping: cubemap [pad 16]"}

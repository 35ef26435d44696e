"""The file comes back whole: many kinds of sources, restored and compared with what they were."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from av.stream import Disposition
from helpers import sources
from helpers.compare import Contents, contents, differences
from helpers.media import (
    AS_PAINTED,
    Painter,
    Unchanged,
    analysis_of_file,
    plain_track,
    random_image,
    write_video,
)
from helpers.sources import SOURCES

from vidrestore.analysis.result import Analysis
from vidrestore.api import restore_video
from vidrestore.common.errors import InputError, OutputError
from vidrestore.common.profiles import load_settings
from vidrestore.imaging.geometry import Rect, crop_matrix
from vidrestore.jobs.summary import Summary
from vidrestore.restoration.compositing.masks import mask_rect

# B frames and lookahead as by default, but not the search for the smallest file.
QUICK = {"encode.preset": "veryfast"}
WORK_PX = 32
PIXEL_FORMATS = (
    "yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuv411p", "yuv410p", "gray", "gray10le",
    "yuv420p10le", "yuv422p10le", "yuv444p10le", "yuv420p12le", "yuv422p12le", "yuv444p12le",
    "yuva420p", "yuva444p10le", "gbrp", "gbrp10le",
)  # fmt: skip
# The short run of the tests takes each source into the first of its containers.
INTO = [
    pytest.param(name, suffix, id=f"{name}-into-{suffix}", marks=pytest.mark.long if at else ())
    for name, source in SOURCES.items()
    for at, suffix in enumerate(source.into)
]
# Sources that differ from another one by what surrounds the samples.
SAME_SAMPLES = ("dv_480i_avi", "dv_576i_mov", "late_audio_mkv", "late_video_mp4", "mirrored_mp4",
                "rich_mkv", "rotated_180_mp4", "rotated_270_mp4", "vfr_mkv")  # fmt: skip

Find = Callable[[str], Path]


class EveryOtherPainter(Painter):
    """Paints the first face, returns the second as it was given, and so on."""

    seen = 0

    def __call__(self, windows):
        done = super().__call__(windows)
        for at, window in enumerate(windows[:, self.reach_frames]):
            if (self.seen + at) % 2:
                done[at] = window
        self.seen += len(windows)
        return done


@pytest.fixture(autouse=True, scope="module")
def one_thread_of_torch() -> Iterator[None]:
    """More would only wait for each other over crops of this size."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def find(tmp_path_factory: pytest.TempPathFactory) -> Find:
    """The source of a name; made when it is first asked for."""
    folder = tmp_path_factory.mktemp("sources")
    return cache(lambda name: sources.build(name, folder))


@pytest.fixture(scope="session")
def held(find: Find) -> Callable[[str], Contents]:
    """What the source of a name holds."""
    return cache(lambda name: contents(find(name)))


@pytest.fixture(scope="session")
def analysed(find: Find) -> Callable[[str], Analysis]:
    """The analysis of the source of a name."""
    return cache(lambda name: with_a_face(find(name)))


def with_a_face(path: Path) -> Analysis:
    """A face stands still beside the middle of the picture."""
    bare = analysis_of_file(path)
    centre = (0.4 * bare.info.width, 0.55 * bare.info.height)
    side = 0.6 * bare.info.height
    track = plain_track(bare.frame_count, centre=centre, side=side, work_px=WORK_PX)
    return replace(bare, tracks=(track,))


def run(source: Path, target: Path, analysis: Analysis, restorer=None, **options) -> Summary:
    settings = load_settings(options=AS_PAINTED | QUICK | options)
    return restore_video(
        source, target, settings, restorer=restorer or Unchanged(), analysis=analysis
    )


def check_whole(source: Contents, target: Path, codec: str, summary: Summary) -> None:
    """The output lacks only what its container cannot hold, and of that a warning says it."""
    lacking = differences(source, contents(target), target.suffix, codec)
    unsaid = [str(d) for d in lacking if not d.is_announced(target.suffix, summary.warnings)]
    assert not unsaid, f"{unsaid}, and it was said: {summary.warnings}"


def samples(path: Path) -> list[list[np.ndarray]]:
    """The planes of every frame of the main video stream; packed RGB is taken apart."""
    with av.open(str(path)) as container:
        covers = Disposition.attached_pic
        stream = next(s for s in container.streams.video if not s.disposition & covers)
        return [planes_of(frame) for frame in container.decode(stream)]


def planes_of(frame: av.VideoFrame) -> list[np.ndarray]:
    if frame.format.name == "bgr0":
        frame = frame.reformat(format="gbrp")
    dtype = np.dtype(np.uint8 if frame.format.components[0].bits == 8 else "<u2")
    return [
        np.frombuffer(p, dtype).reshape(p.height, -1)[:, : p.width].copy() for p in frame.planes
    ]


def check_samples(source: Path, target: Path, analysis: Analysis) -> None:
    """The samples of every second frame are those of the source, of the others outside the mask."""
    before, after = samples(source), samples(target)
    assert len(before) == len(after) == analysis.frame_count > 1
    matrix = crop_matrix(analysis.tracks[0].matrices[0], WORK_PX)
    box = mask_rect(matrix, WORK_PX, analysis.info, chroma_grid(analysis.info.pixel_format))
    assert 0 < box.width * box.height < 0.5 * before[0][0].size
    for index, (was, now) in enumerate(zip(before, after, strict=True)):
        assert [plane.shape for plane in was] == [plane.shape for plane in now]
        is_painted = index % 2 == 0
        assert (was[0] != now[0]).any() == is_painted
        for number, (a, b) in enumerate(zip(was, now, strict=True)):
            differing = int((a != b)[outside(box if is_painted else None, a, was[0])].sum())
            assert not differing, f"{differing} samples of plane {number} of frame {index} differ"


def outside(box: Rect | None, plane: np.ndarray, luma: np.ndarray) -> np.ndarray:
    """True for the samples of a plane that are not in the box, given in pixels; all for None."""
    chosen = np.ones(plane.shape, bool)
    if box is not None:
        y, x = (-(-a // b) for a, b in zip(luma.shape, plane.shape, strict=True))
        chosen[box.y0 // y : -(-box.y1 // y), box.x0 // x : -(-box.x1 // x)] = False
    return chosen


def chroma_grid(pixel_format: str) -> tuple[int, int]:
    shape = av.VideoFormat(pixel_format, 64, 64)
    if len(shape.components) < 3 or pixel_format.startswith("gbr"):
        return 1, 1
    return 64 // shape.chroma_width(64), 64 // shape.chroma_height(64)


# A change in copying a file, and the word by which it must be noticed.
HARMS = [
    ("rich_mkv", "-map -0:a:1", "audio streams"),
    ("rich_mkv", "-map -0:t", "attachment"),
    ("rich_mkv", "-map_chapters -1", "chapters"),
    ("rich_mkv", "-metadata:s:a:1 language=ita", "language"),
    ("rich_mkv", "-metadata:s:a:1 title=Kommentar", "title"),
    ("rich_mkv", "-disposition:s:1 0", "flags"),
    ("rich_mkv", "-metadata camera=", "camera"),
    ("phone_mov", "-metadata creation_time=", "creation_time"),
    ("prores_mov", "-map -0:d -metadata:s:v:0 timecode=", "timecode"),
    ("vfr_mp4", r"-bsf:v 'setts=pts=PTS+eq(N\,5)'", "frame"),
    ("vfr_mp4", r"-bsf:a 'noise=drop=eq(n\,7)'", "packets"),
    ("late_audio_mp4", "-bsf:a setts=ts=TS+10", "against the picture"),
    ("wide_480i_mp4", "-aspect 4:3", "shape"),
    ("wide_480i_mp4", "-bsf:v h264_metadata=matrix_coefficients=1", "matrix"),
    ("wide_480i_mp4", "-bsf:v h264_metadata=chroma_sample_loc_type=2", "chroma location"),
    ("hdr10_mp4", "-bsf:v hevc_metadata=transfer_characteristics=1", "transfer"),
]


@pytest.mark.parametrize(("name", "change", "word"), HARMS)
def test_the_comparison_notices_every_harm(tmp_path, find, held, name, change, word):
    target = tmp_path / f"out{find(name).suffix}"
    sources.ffmpeg(
        "-copyts -i", find(name), f"-map 0 -c copy -movie_timescale 90000 {change}", target
    )
    codec = held(name).picture["codec"]
    noticed = [str(d) for d in differences(held(name), contents(target), target.suffix, codec)]
    assert any(word in text for text in noticed), noticed


@pytest.mark.parametrize(("name", "suffix"), INTO)
def test_everything_of_the_source_is_in_the_output(tmp_path, find, held, analysed, name, suffix):
    target = tmp_path / f"out{suffix}"
    summary = run(find(name), target, analysed(name))
    check_whole(held(name), target, SOURCES[name].codec, summary)
    assert summary.frames == len(held(name).times)
    sources.ffmpeg("-xerror -i", target, "-map 0:v -map 0:a? -f null -")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.long if n in SAME_SAMPLES else ()) for n in SOURCES],
)
def test_ffv1_gives_every_sample_outside_the_face_back(tmp_path, find, held, analysed, name):
    target = tmp_path / "out.mkv"
    # The painter does another thing each time, also where a frame repeats the one before.
    options = {"encode.codec": "ffv1", "restore.repeats": False}
    summary = run(find(name), target, analysed(name), EveryOtherPainter(), **options)
    check_samples(find(name), target, analysed(name))
    check_whole(held(name), target, "ffv1", summary)
    assert summary.faces == summary.frames


@pytest.mark.parametrize("pixel_format", PIXEL_FORMATS)
def test_ffv1_holds_every_pixel_format(tmp_path, pixel_format):
    images = [random_image(96, 64, pixel_format, seed) for seed in range(4)]
    # Those that FFV1 knows by another name come from a codec that does not.
    codec = {"yuvj420p": "mjpeg", "gbrp": "utvideo"}.get(pixel_format, "ffv1")
    source = tmp_path / f"source{'.mkv' if codec == 'ffv1' else '.avi'}"
    write_video(source, images, codec=codec)
    target, analysis = tmp_path / "out.mkv", with_a_face(source)
    run(source, target, analysis, EveryOtherPainter(), **{"encode.codec": "ffv1"})
    stored = {"gbrp": "bgr0"}.get(pixel_format, pixel_format.replace("yuvj", "yuv"))
    assert contents(target).picture["pixel format"] == stored
    check_samples(source, target, analysis)


# Where a picture or a stream has no place, no work is begun and what has one is named.
REFUSED = [
    ("odd_ffv1_mkv", ".mp4", {}, r"ffv1.*out\.mkv"),
    ("odd_ffv1_mkv", ".mkv", {"encode.codec": "hevc"}, r"97 x 65 pixels in yuv420p.*ffv1"),
    ("odd_av1_mp4", ".mkv", {"encode.codec": "h264"}, r"97 x 65 pixels in yuv420p10le.*ffv1"),
    ("alpha_ffv1_mkv", ".mp4", {}, r"ffv1.*out\.mkv"),
    ("alpha_ffv1_mkv", ".mkv", {"encode.codec": "hevc"}, r"yuva420p.*ffv1"),
    ("alpha_prores_mov", ".mov", {}, r"yuva444p12le.*out\.mkv"),
    ("dv_480i", ".mp4", {}, r"yuv411p.*out\.mkv"),
    ("dv_480i_avi", ".mov", {}, r"yuv411p.*out\.mkv"),
    ("prores_mov", ".mp4", {"encode.codec": "prores"}, r"\.mp4.*(\.mov|\.mkv)"),
    ("vfr_mp4", ".mov", {"encode.codec": "av1"}, r"\.mov.*(\.mp4|\.mkv)"),
    ("gray_mkv", ".mp4", {"encode.codec": "ffv1"}, r"\.mp4.*out\.mkv"),
    ("rich_mkv", ".mov", {}, r"flac.*\.mkv"),
    ("wmv", ".mp4", {}, r"wmav2.*\.mkv"),
    ("h263_amr_3gp", ".mp4", {}, r"amr.*\.(mov|mkv)"),
]


@pytest.mark.parametrize(
    ("name", "suffix", "options", "sentence"),
    REFUSED,
    ids=[
        "-".join([name, *options.values(), "into", suffix]) for name, suffix, options, _ in REFUSED
    ],
)
def test_what_does_not_fit_is_refused_before_the_work_and_a_way_is_shown(
    tmp_path, find, analysed, name, suffix, options, sentence
):
    painter = Painter()
    with pytest.raises(OutputError, match=sentence):
        run(find(name), tmp_path / f"out{suffix}", analysed(name), painter, **options)
    assert painter.batches == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "suffix", "codec"),
    [("prores_mov", ".mp4", "hevc"), ("dnxhr_mov", ".mp4", "hevc"), ("gray_mkv", ".mp4", "hevc"),
     ("hdr10_av1_mp4", ".mov", "hevc")],
)  # fmt: skip
def test_another_codec_than_the_sources_own_is_announced(
    tmp_path, find, held, analysed, name, suffix, codec
):
    target = tmp_path / f"out{suffix}"
    summary = run(find(name), target, analysed(name))
    assert any(codec in warning for warning in summary.warnings)
    check_whole(held(name), target, codec, summary)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("vfr_mp4", ".mp4"), ("hdr10_mkv", ".mkv"), ("rich_mkv", ".mkv"), ("rich_mp4", ".mp4"),
     ("rich_mp4", ".mkv"), ("phone_mov", ".mov"), ("prores_mov", ".mov"), ("wmv", ".mkv")],
)  # fmt: skip
def test_where_nothing_is_lost_nothing_is_announced(tmp_path, find, analysed, name, suffix):
    assert run(find(name), tmp_path / f"out{suffix}", analysed(name)).warnings == ()


def test_transparency_that_a_decoder_drops_is_not_lost_in_silence(tmp_path):
    """VP9 keeps it beside the picture, where the usual decoder does not look."""
    source, target = tmp_path / "source.webm", tmp_path / "out.mkv"
    sources.ffmpeg(sources.picture(), "-c:v libvpx-vp9 -cpu-used 8 -pix_fmt yuva420p", source)
    try:
        said = " ".join(run(source, target, with_a_face(source)).warnings)
    except (InputError, OutputError) as error:
        said = str(error)
    is_kept = target.exists() and contents(target).picture["pixel format"].startswith("yuva")
    assert is_kept or "alpha" in said or "transparen" in said, said


NAMES = {"hevc": "hvc1", "h264": "avc1", "av1": "av01", "prores": "apch", "dnxhr": "AVdh"}
HOLDERS = [("hevc", ".mp4"), ("hevc", ".mov"), ("h264", ".mp4"), ("h264", ".mov"), ("av1", ".mp4"),
           ("prores", ".mov"), ("dnxhr", ".mov")]  # fmt: skip


@pytest.mark.parametrize(("codec", "suffix"), HOLDERS)
def test_coded_streams_have_the_names_that_players_know(tmp_path, codec, suffix):
    form = "yuv422p10le" if codec in ("prores", "dnxhr") else "yuv420p"
    images = [random_image(256, 128, form, seed) for seed in range(3)]
    source, target = tmp_path / "source.mkv", tmp_path / f"out{suffix}"
    write_video(source, images, prepare=say_bt709)
    settings = load_settings(options={"encode.codec": codec, "encode.check": False})
    restore_video(source, target, settings, restorer=Unchanged(), analysis=analysis_of_file(source))
    with av.open(str(target)) as container:
        (stream,) = container.streams
        assert stream.codec_context.codec_tag == NAMES[codec]
        packets = [bytes(packet) for packet in container.demux(stream) if packet.size]
    assert len(packets) == 3
    if codec == "hevc":  # hvc1 has its parameter sets in the header alone
        kinds = {kind for packet in packets for kind in hevc_units(packet)}
        assert kinds
        assert kinds.isdisjoint({32, 33, 34})


def say_bt709(stream: Any) -> None:
    context = stream.codec_context
    context.color_range = context.colorspace = context.color_primaries = context.color_trc = 1


def hevc_units(packet: bytes) -> Iterator[int]:
    """The types of the units of a packet, each of which follows its size."""
    at = 0
    while at < len(packet):
        yield packet[at + 4] >> 1 & 63
        at += 4 + int.from_bytes(packet[at : at + 4], "big")

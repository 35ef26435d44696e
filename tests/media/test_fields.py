"""Interlaced footage: what it is, its fields restored and woven again, and other outputs of it."""

import re
from fractions import Fraction
from itertools import islice

import numpy as np
import pytest
from av.video.reformatter import Interpolation
from helpers import footage, sources
from helpers.events import messages
from helpers.media import (
    AS_PAINTED,
    PLANAR_FORMATS,
    Painter,
    Unchanged,
    frame_times,
    frames_of,
    packets,
    planes_of,
    random_image,
)
from skimage import data

from vidrestore.analysis import storage
from vidrestore.analysis.interlacing import inspect_samples
from vidrestore.analysis.pipeline import analyze_video
from vidrestore.analysis.replay import frames_again
from vidrestore.analysis.result import of_output
from vidrestore.api import restore_video
from vidrestore.cli import console
from vidrestore.common.errors import OutputError, UsageError
from vidrestore.common.profiles import load_settings
from vidrestore.imaging.planes import checksum
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.media.fields import _Graph, bobbed, can_split, scan, woven
from vidrestore.media.probe import probe
from vidrestore.models.detectors import Detector, detection

SIZES = {"480i": (360, 480), "576i": (360, 576)}  # half as wide, which costs less
FRAMES = 30


class FaceInTheMiddle(Detector):
    """A detector that sees one face in every picture, whatever its size."""

    coarse = False

    def __call__(self, picture):
        height, width = picture.shape[:2]
        points = np.array([[0.43, 0.4], [0.57, 0.4], [0.5, 0.5], [0.44, 0.6], [0.56, 0.6]])
        box = np.array([0.35, 0.25, 0.65, 0.75]) * [width, height, width, height]
        return [detection(box, points * [width, height], 0.9)]


@pytest.fixture
def a_face(monkeypatch):
    monkeypatch.setattr(
        "vidrestore.models.factory.open_detector", lambda *a, **k: FaceInTheMiddle()
    )


def restored(source, target, mode, restorer, **more):
    settings = load_settings(
        options={"detect.detector": "haar", "fields.deinterlace": mode,
                 "encode.quality": "archive", "deflicker.amount": 0, **AS_PAINTED, **more}
    )  # fmt: skip
    return restore_video(source, target, settings, restorer=restorer, overwrite=True)


def judged(path):
    found = inspect_samples(probe(path), load_settings()).interlacing
    return "progressive" if found.mode == "off" else found.order


def kinds(size):
    """Name -> (frames, flag in the stream, what it is)."""
    width, height = SIZES[size]
    pictures = footage.images(footage.pan(2 * FRAMES, width, height), "yuv420p")
    still = [pictures[0]] * FRAMES
    whole = pictures[:FRAMES]
    for order in ("tff", "bff"):
        other = {"tff": "bff", "bff": "tff"}[order]
        fields = footage.woven_by_hand(pictures, order)
        yield f"{order}, flagged so", fields, order, order
        yield f"{order}, flagged {other}", fields, other, order
        yield f"{order}, flagged progressive", fields, "progressive", order
        yield f"progressive, flagged {order}", whole, order, "progressive"
        yield f"still, flagged {order}", still, order, order
        mixed = [*whole[: FRAMES // 2], *fields[FRAMES // 2 :]]
        yield f"half of it {order}", mixed, "progressive", order
        yield f"3:2 pulldown, {order}", pulled_down(whole[:24], order), order, order
    yield "progressive", whole, "progressive", "progressive"
    yield "still", still, "progressive", "progressive"


@pytest.mark.long
@pytest.mark.parametrize("size", ["480i", pytest.param("576i", marks=pytest.mark.long)])
def test_what_footage_is_its_pictures_tell_and_not_its_flags(tmp_path, size):
    wrong = {}
    for name, frames, flag, truth in kinds(size):
        path = footage.film(tmp_path / "clip.mkv", frames, flag=flag)
        if (found := judged(path)) != truth:
            wrong[name] = found
    assert not wrong


def test_pulldown_is_called_so(tmp_path):
    (frames, flag) = next((f, flag) for n, f, flag, _ in kinds("480i") if n.startswith("3:2"))
    path = footage.film(tmp_path / "clip.mkv", frames, flag=flag)
    assert "pulldown" in inspect_samples(probe(path), load_settings()).interlacing.found


@pytest.mark.parametrize(
    ("name", "truth"),
    [("derived_interlaced_h264.mp4", "tff"), ("hamilton_short.mp4", "progressive"),
     ("lp_s18.mp4", "progressive"), ("vrt_1.mp4", "progressive"),
     ("intel_asl_thanks.mkv", "progressive"), ("torchcodec_nasa.mp4", "progressive")],
)  # fmt: skip
def test_real_clips_are_judged_right(shared, name, truth):
    assert judged(shared / "clips" / name) == truth


def with_doubled_chroma(images, pixel_format):
    """4:2:0 as other formats, each of its chroma samples repeated."""
    for image in images:
        yield image.reformat(format=pixel_format, interpolation=Interpolation.POINT)


@pytest.mark.parametrize("pixel_format", ["yuv422p", "yuv444p", "yuv444p10le", "gbrp"])
def test_chroma_that_was_doubled_is_not_taken_for_fields(pixel_format):
    pictures = footage.images(footage.pan(2 * FRAMES, 360, 480, speed_px=1.0), "yuv420p")
    seen = scan(with_doubled_chroma(pictures[:FRAMES], pixel_format))
    assert (seen.tff, seen.bff) == (0, 0)
    assert seen.progressive > 0
    for order in ("tff", "bff"):
        fields = footage.images(footage.pan(2 * FRAMES, 360, 480), pixel_format)
        seen = scan(footage.woven_by_hand(fields, order))
        assert getattr(seen, order) == seen.frames > 0


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p", "gbrp"])
def test_a_real_clip_whose_chroma_was_doubled_is_progressive(shared, pixel_format):
    path = shared / "real-restorers" / "ed2_lq.mp4"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    images = (frame.image for frame in islice(decode(path, DecodeErrors()), 240))
    seen = scan(with_doubled_chroma(images, pixel_format))
    assert (seen.tff, seen.bff) == (0, 0)
    assert seen.progressive > 100


def test_the_flags_that_are_counted_are_the_streams():
    """And not those that the filter sets by what it sees."""
    pictures = footage.images(footage.pan(2 * FRAMES, 360, 480), "yuv420p")
    assert scan(footage.woven_by_hand(pictures, "tff")).flagged == 0
    marked = [
        next(iter(_Graph(image, "setfield", "tff").through(image))) for image in pictures[:FRAMES]
    ]
    seen = scan(marked)
    assert seen.flagged == seen.frames == seen.progressive


@pytest.mark.parametrize("order", ["tff", "bff"])
@pytest.mark.parametrize("pixel_format", PLANAR_FORMATS)
def test_weaving_undoes_the_pictures_of_fields(order, pixel_format):
    assert can_split(pixel_format)
    pictures = [random_image(64, 48, pixel_format, seed) for seed in range(5)]
    before = [[plane.copy() for plane in planes_of(image)] for image in pictures]
    pairs = bobbed(frames_of(pictures), order)
    for frame, was in zip(woven(pairs, order, flagged_order=order), before, strict=True):
        assert all(map(np.array_equal, planes_of(frame.image), was))
        assert frame.image.interlaced_frame


def test_a_format_that_has_no_fields_is_taken_as_it_is(tmp_path, a_face):
    assert not can_split("gray12le")
    pictures = footage.images(footage.pan(2 * FRAMES, 160, 96), "gray12le")
    frames = footage.woven_by_hand(pictures, "tff")
    source = footage.write_video(tmp_path / "clip.mkv", frames)
    said = []
    analysis = analyze_video(source, load_settings(options={"detect.detector": "haar"}),
                             on_event=said.append)  # fmt: skip
    assert analysis.fields is None
    assert any("gray12le" in message for message in messages(said))


@pytest.mark.parametrize("order", ["tff", "bff"])
def test_one_frame_has_two_fields(order):
    (picture,) = footage.images(footage.pan(1, 96, 64), "yuv420p")
    assert len(list(bobbed(frames_of([picture]), order))) == 2


@pytest.mark.long
@pytest.mark.parametrize(
    ("order", "pixel_format", "codec"),
    [("tff", "yuv420p", "mpeg2"), ("bff", "yuv420p", "dv"), ("bff", "yuv411p", "dv"),
     ("tff", "yuv420p", "h264")],
)  # fmt: skip
def test_a_restorer_that_changes_nothing_changes_no_sample(
    tmp_path, a_face, order, pixel_format, codec
):
    size = (720, 480) if pixel_format == "yuv411p" else (720, 576)
    pictures = footage.images(footage.pan(24, *size), pixel_format)
    plain = footage.write_video(tmp_path / "plain.mkv", footage.woven_by_hand(pictures, order))
    flags = "-flags +ildct+ilme"
    source, how = {
        "mpeg2": (tmp_path / "a.mpg", f"-c:v mpeg2video -q:v 3 {flags}"),
        "dv": (tmp_path / "a.avi", f"-c:v dvvideo {'-r 30000/1001' if size[1] == 480 else ''}"),
        "h264": (tmp_path / "a.mp4", f"-c:v libx264 {flags} -x264-params {order}=1"),
    }[codec]
    sources.ffmpeg("-i", plain, f"-vf setfield={order} {how}", source)
    summary = restored(source, tmp_path / "out.mkv", "keep", Unchanged())
    was = [checksum(frame.image) for frame in decode(source, DecodeErrors())]
    assert [checksum(frame.image) for frame in decode(tmp_path / "out.mkv", DecodeErrors())] == was
    assert summary.faces == 2 * len(was)
    assert summary.identical_frames == summary.frames == len(was)


def combs(frame):
    """How far the lines of one field lie from those of the other in the middle of the face."""
    middle = planes_of(frame.image)[0][140:150, 175:185].astype(int)
    return np.abs(middle[0::2] - middle[1::2]).mean()


@pytest.mark.long
@pytest.mark.parametrize("order", ["tff", "bff"])
def test_a_painted_face_has_no_combs_and_the_rest_is_untouched(tmp_path, a_face, order):
    pictures = footage.images(footage.pan(2 * FRAMES, 360, 288, speed_px=5), "yuv420p")
    source = footage.film(tmp_path / "clip.mkv", footage.woven_by_hand(pictures, order), flag=order)
    target = tmp_path / "out.mkv"
    assert max(map(combs, decode(source, DecodeErrors()))) > 50
    summary = restored(source, target, "keep", Painter((0.8, 0.4, 0.3)))
    assert summary.identical_outside == FRAMES
    assert summary.identical_frames == 0
    assert probe(target).info.field_order == order
    for frame in decode(target, DecodeErrors()):
        assert frame.image.interlaced_frame
        assert combs(frame) < 1


@pytest.mark.long
def test_the_frames_do_not_depend_on_segments(tmp_path, a_face):
    pictures = footage.images(footage.pan(2 * 70, 160, 96), "yuv420p")
    source = footage.film(tmp_path / "clip.mkv", footage.woven_by_hand(pictures, "bff"), flag="bff")
    found = []
    for most in (300, 49):
        target = tmp_path / f"{most}.mkv"
        restored(source, target, "keep", Painter(), **{"job.segment_frames": most})
        found.append([(f.pts, checksum(f.image)) for f in decode(target, DecodeErrors())])
    assert found[0] == found[1]


class Green(Painter):
    """Breaks at a face."""

    cache_key = "green"

    def __init__(self, breaks_at=None):
        super().__init__()
        self._breaks_at = breaks_at

    def __call__(self, windows):
        if len(self.batches) == self._breaks_at:
            raise OSError("a defect of the restorer")
        return super().__call__(windows)


@pytest.mark.long
@pytest.mark.parametrize(("first", "second"), [("keep", "bob"), ("bob", "keep")])
def test_segments_of_one_mode_are_not_joined_with_those_of_another(tmp_path, a_face, first, second):
    pictures = footage.images(footage.pan(2 * 70, 160, 96), "yuv420p")
    source = footage.film(tmp_path / "clip.mkv", footage.woven_by_hand(pictures, "tff"), flag="tff")
    target, plain = tmp_path / "out.mkv", tmp_path / "plain.mkv"
    short = {"job.segment_frames": 49}
    with pytest.raises(OutputError, match="a defect"):
        restored(source, target, first, Green(110), **short)
    assert len(list((tmp_path / "out.mkv.vidrestore" / "segments").glob("*.json"))) == 2
    restored(source, target, second, Green(), **short)
    restored(source, plain, second, Green(), **short)
    frames = [
        [(f.pts, checksum(f.image)) for f in decode(p, DecodeErrors())] for p in (target, plain)
    ]
    assert frames[0] == frames[1]
    assert len(frames[0]) == {"keep": 70, "bob": 140}[second]


@pytest.mark.long
@pytest.mark.parametrize("mode", ["keep", "bob"])
def test_one_shot_can_be_redone(tmp_path, a_face, mode):
    shots = [footage.pan(60, 160, 96), footage.pan(60, 160, 96, photo=data.astronaut())]
    pictures = footage.images([*shots[0], *shots[1]], "yuv420p")
    source = footage.film(tmp_path / "clip.mkv", footage.woven_by_hand(pictures, "tff"), flag="tff")
    target = tmp_path / "out.mkv"
    settings = load_settings(
        options={"detect.detector": "haar", "fields.deinterlace": mode, "deflicker.amount": 0,
                 "encode.quality": "archive", **AS_PAINTED}
    )  # fmt: skip
    restore_video(source, target, settings, restorer=Painter(), keep_job=True)
    before = [(f.pts, checksum(f.image)) for f in decode(target, DecodeErrors())]
    summary = restore_video(source, target, settings, restorer=Painter((0.9, 0.9, 0.1)),
                            redo_shots="2", keep_job=True)  # fmt: skip
    after = [(f.pts, checksum(f.image)) for f in decode(target, DecodeErrors())]
    assert summary.redone_shots == (2,)
    assert summary.shots == 2
    assert len(after) == len(before) == summary.frames
    assert after[: len(after) // 2] == before[: len(after) // 2]
    assert all(a != b for a, b in zip(after, before, strict=True) if a[0] > before[-20][0])


def test_bobbed_frames_come_once_more_from_anywhere(tmp_path, a_face):
    pictures = footage.images(footage.pan(2 * FRAMES, 160, 96), "yuv420p")
    source = footage.film(tmp_path / "clip.mkv", footage.woven_by_hand(pictures, "tff"), flag="tff")
    for mode in ("keep", "bob", "frame"):
        settings = load_settings(options={"detect.detector": "haar", "fields.deinterlace": mode})
        analysis = analyze_video(source, settings)
        count = FRAMES if mode == "frame" else 2 * FRAMES
        assert analysis.frame_count == count
        known = list(zip(analysis.pts.tolist(), analysis.crc32.tolist(), strict=True))
        for first, end in ((0, count), (7, 8), (count // 2 + 1, count), (4, 11)):
            again = frames_again(source, analysis, first=first, end=end)
            assert [(f.pts, checksum(f.image)) for f in again] == known[first:end]


def test_the_analysis_of_fields_is_kept_exactly_and_speaks_of_frames(tmp_path, a_face, capsys):
    pictures = footage.images(footage.pan(2 * FRAMES, 160, 96), "yuv420p")
    source = footage.film(tmp_path / "clip.mkv", footage.woven_by_hand(pictures, "tff"), flag="tff")
    analysis = analyze_video(source, load_settings(options={"detect.detector": "haar"}))
    storage.save(analysis, tmp_path / "a.npz")
    loaded = storage.load(tmp_path / "a.npz")
    for one, other in ((analysis, loaded), (analysis.fields, loaded.fields)):
        assert (one.info, one.pts.tolist(), one.crc32.tolist()) == (
            other.info, other.pts.tolist(), other.crc32.tolist()
        )  # fmt: skip
    assert (loaded.fields.mode, loaded.fields.order) == ("keep", "tff")
    console.show_analysis(analysis, source, None)
    shown = capsys.readouterr().out
    assert re.search(rf"frames .*{FRAMES}", shown)
    assert f"0-{FRAMES - 1}" in shown
    assert f"0-{2 * FRAMES - 1}" not in shown
    (track,) = analysis.tracks
    early, late = of_output(loaded).tracks
    np.testing.assert_array_equal(early.matrices, track.matrices[0::2])
    np.testing.assert_array_equal(late.matrices, track.matrices[1::2])


def face_psnr(frame, truth):
    error = (
        planes_of(frame)[0][72:216, 108:252].astype(float) - planes_of(truth)[0][72:216, 108:252]
    )
    return 10 * np.log10(255**2 / np.mean(error**2))


@pytest.mark.long
def test_bob_gives_the_motion_that_frames_do_not(tmp_path, a_face):
    face = data.astronaut()[20:260, 100:400]
    truth = footage.images(footage.pan(2 * FRAMES, 360, 288, speed_px=3, photo=face), "yuv420p")
    source = footage.film(tmp_path / "clip.mkv", footage.woven_by_hand(truth, "tff"), flag="tff")
    with_sound = tmp_path / "sound.mp4"
    sources.ffmpeg("-i", source, sources.tone(FRAMES / 25), "-c:v copy -c:a aac", with_sound)
    target = tmp_path / "out.mp4"
    restored(with_sound, target, "bob", Unchanged(), **{"encode.quality": "5"})
    shown = [frame.image for frame in decode(target, DecodeErrors())]
    frames = [frame.image for frame in decode(with_sound, DecodeErrors())]
    assert len(shown) == 2 * FRAMES
    bob = np.mean([face_psnr(one, true) for one, true in zip(shown, truth, strict=True)])
    plain = np.mean([face_psnr(frames[i // 2], true) for i, true in enumerate(truth)])
    assert bob >= plain + 3
    times = frame_times(target)
    begin = frame_times(with_sound)[0]
    assert times == [begin + Fraction(i, 50) for i in range(2 * FRAMES)]
    assert probe(target).info.field_order == "progressive"
    assert packets(target, 1) == packets(with_sound, 1)


def test_frame_gives_one_whole_picture_of_each(tmp_path, a_face):
    truth = footage.images(footage.pan(2 * FRAMES, 160, 96), "yuv420p")
    frames = footage.woven_by_hand(truth, "bff")
    source = footage.film(tmp_path / "clip.mkv", frames, flag="bff")
    target = tmp_path / "out.mkv"
    summary = restored(source, target, "frame", Unchanged())
    assert summary.frames == FRAMES
    assert frame_times(target) == frame_times(source)
    for frame, was in zip(
        decode(target, DecodeErrors()), decode(source, DecodeErrors()), strict=True
    ):
        for now, before in zip(planes_of(frame.image), planes_of(was.image), strict=True):
            np.testing.assert_array_equal(now[1::2], before[1::2])  # the earlier field's own lines


def pulled_down(film, order):
    """Frames of 3:2 pulldown: of A B C D the frames A, B, B/C, C/D, D."""
    pictures = [each for a, b, c, d in zip(*[iter(film)] * 4, strict=True)
                for each in (a, a, b, b, b, c, c, d, d, d)]  # fmt: skip
    return footage.woven_by_hand(pictures, order)


@pytest.mark.long
@pytest.mark.parametrize(("order", "skipped"), [("tff", 0), ("bff", 0), ("tff", 2)])
def test_film_comes_back_as_it_was_before_pulldown(tmp_path, a_face, order, skipped):
    film = footage.images(footage.pan(40, 240, 192), "yuv420p")
    source = tmp_path / "clip.mkv"
    footage.film(source, pulled_down(film, order)[skipped:], flag=order, rate=30, lossless=True)
    frames = len(list(decode(source, DecodeErrors())))
    target = tmp_path / "out.mkv"
    summary = restored(source, target, "film", Unchanged(), **{"job.segment_frames": 48})
    shown = list(decode(target, DecodeErrors()))
    assert len(shown) == summary.frames == frames * 4 // 5 + (frames % 5 > 0)
    assert summary.faces == summary.frames  # each picture of the film once
    assert summary.identical_frames == summary.frames
    known = {checksum(image) for image in film}
    whole = sum(checksum(frame.image) in known for frame in shown)
    assert whole >= len(shown) - 2  # at both ends a field has no other half
    assert len({checksum(frame.image) for frame in shown}) >= len(shown) - 1
    times = np.diff([float(time) for time in frame_times(target)])
    np.testing.assert_allclose(
        times[: len(shown) // 4 * 4 - 4], 1 / 24, atol=0.0011
    )  # matroska counts milliseconds
    assert probe(target).info.field_order == "progressive"


def test_times_of_film_are_exact_where_the_clock_allows(tmp_path, a_face):
    film = footage.images(footage.pan(40, 160, 96), "yuv420p")
    source = footage.film(tmp_path / "clip.mp4", pulled_down(film, "tff"), flag="tff",
                          rate=Fraction(30000, 1001))  # fmt: skip
    target = tmp_path / "out.mp4"
    restored(source, target, "film", Unchanged(), **{"encode.quality": "high"})
    times = frame_times(target)
    assert len(times) == 40
    assert set(np.diff(times)) == {Fraction(1001, 24000)}


def test_film_is_made_again_from_any_frame(tmp_path, a_face):
    film = footage.images(footage.pan(40, 160, 96), "yuv420p")
    source = footage.film(tmp_path / "clip.mkv", pulled_down(film, "tff"), flag="tff", rate=30)
    settings = load_settings(options={"detect.detector": "haar", "fields.deinterlace": "film"})
    analysis = analyze_video(source, settings)
    known = list(zip(analysis.pts.tolist(), analysis.crc32.tolist(), strict=True))
    for first, end in ((0, 40), (7, 8), (21, 40)):
        again = frames_again(source, analysis, first=first, end=end)
        assert [(f.pts, checksum(f.image)) for f in again] == known[first:end]


def test_film_is_not_looked_for_where_there_is_none(tmp_path):
    pictures = footage.images(footage.pan(2 * FRAMES, 160, 96), "yuv420p")
    fields = footage.woven_by_hand(pictures, "tff")
    source = footage.film(tmp_path / "clip.mkv", fields, flag="tff")
    settings = load_settings(options={"detect.detector": "haar", "fields.deinterlace": "film"})
    with pytest.raises(UsageError, match="pulldown"):
        analyze_video(source, settings)

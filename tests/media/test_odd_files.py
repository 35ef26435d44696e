"""Files that are whole and yet mislead about their rate, length, start, or sound."""

import json
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from helpers.media import Painter, Unchanged, analysis_of_file, mild_image, plain_track, write_video
from helpers.recordings import frames_shown
from helpers.sources import ffmpeg, picture

from vidrestore.analysis.pipeline import analyze_video
from vidrestore.api import restore_video
from vidrestore.cli import main
from vidrestore.common.errors import InputError, OutputError, UsageError
from vidrestore.common.profiles import load_settings
from vidrestore.media.decode import DecodeErrors, TimeRange, decode
from vidrestore.media.probe import probe
from vidrestore.models.detectors import Detection, Detector
from vidrestore.review.evaluate import evaluate

HAAR = load_settings(options={"detect.detector": "haar", "restore.restorer": "fusion"})


@pytest.mark.parametrize("suffix", [".ts", ".mpg", ".mp4", ".avi", ".mkv"])
@pytest.mark.parametrize("start", [0, Fraction(3, 2), Fraction(29, 10)])
def test_a_part_begins_on_its_exact_frame_in_every_container(tmp_path, suffix, start):
    """Key frames four seconds apart; MPEG streams have no index to seek by."""
    codec = "mpeg2video" if suffix in (".ts", ".mpg") else "libx264"
    if suffix == ".avi":
        codec = "mpeg4"
    base = Fraction(1, 25)
    images = [mild_image(64, 48, "yuv420p", i) for i in range(100)]
    source = write_video(tmp_path / f"source{suffix}", images, codec=codec, time_base=base,
                         pts=range(100), options={"g": "100", "bf": "0"})  # fmt: skip
    whole = [f.pts for f in decode(source, DecodeErrors())]
    assert len(whole) == 100
    info = probe(source).info
    first = whole[0] + start / info.time_base
    wanted = [p for p in whole if first <= p < first + Fraction(1, 2) / info.time_base]
    span = TimeRange(Fraction(start) or None, start + Fraction(1, 2))
    got = [f.pts for f in decode(source, DecodeErrors(), span)]
    assert len(got) >= 10
    assert got == wanted


class OneFace(Detector):
    """Sees the same face in every whole picture, but for one."""

    coarse = False
    POINTS = np.array([[24, 20], [40, 20], [32, 28], [26, 36], [38, 36]], np.float32)

    def __init__(self):
        self.seen = 0

    def __call__(self, picture):
        if picture.shape[:2] != (48, 64):
            return []
        self.seen += 1
        box = np.array([16, 10, 48, 44], np.float32)
        return [] if self.seen == 40 else [Detection(box, self.POINTS, 0.9)]


class Trembling(OneFace):
    """Sees it a little beside its place, and now and then its nose far beside."""

    def __init__(self):
        super().__init__()
        self.random = np.random.default_rng(0)

    def __call__(self, picture):
        self.seen += 1
        points = self.POINTS + np.float32(self.random.normal(0, 0.2, (5, 2)))
        points[2, 0] += 20 * (self.seen % 9 == 5)
        return [Detection(np.array([16, 10, 48, 44], np.float32), points, 0.9)]


TWO_PARTS = [*range(30), *range(5000, 5030)]


@pytest.mark.parametrize(
    ("rate", "times"),
    [(rate, range(30)) for rate in (Fraction(1, 60), 1, 10_000, 90_000, 1_000_000)]
    + [(rate, TWO_PARTS) for rate in (1, 25, 90_000)],
)
def test_a_face_is_followed_at_any_frame_rate(tmp_path, monkeypatch, rate, times):
    """One part of a video may lie far behind the other."""
    images = [mild_image(64, 48, "yuv420p", 0) for _ in times]

    def at_rate(stream):
        stream.codec_context.framerate = Fraction(rate)

    source = write_video(tmp_path / "source.mp4", images, codec="libx264", pts=times,
                         time_base=1 / Fraction(rate), prepare=at_rate)  # fmt: skip
    monkeypatch.setattr("vidrestore.models.factory.open_detector", lambda *a, **k: Trembling())
    analysis = analyze_video(source, HAAR)
    (found,) = analysis.tracks
    assert found.strength.all()
    assert np.median(np.abs(found.landmarks - OneFace.POINTS)) < 0.5


def test_a_rate_that_is_only_the_clocks_is_not_believed(tmp_path, monkeypatch):
    """Recorders that stamp milliseconds make a nominal rate of 1000."""
    random = np.random.default_rng(0)
    pts = np.cumsum(random.integers(28, 42, 90)).tolist()
    images = [mild_image(64, 48, "yuv420p", 0) for _ in pts]

    def at_1000(stream):
        stream.codec_context.framerate = Fraction(1000)

    source = write_video(tmp_path / "source.mkv", images, codec="libx264", pts=pts,
                         time_base=Fraction(1, 1000), prepare=at_1000)  # fmt: skip
    detector = OneFace()
    monkeypatch.setattr("vidrestore.models.factory.open_detector", lambda *a, **k: detector)
    analysis = analyze_video(source, HAAR)
    assert 25 < analysis.info.frame_rate < 40
    assert [len(track.score) for track in analysis.tracks] == [90]
    assert detector.seen == 90
    assert not analysis.tracks[0].detected.all()


def with_sound(path, codec, seconds=2, rate=44100, sample_format="s16", frames=25):
    """One second of picture and `seconds` of sound."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream(codec, rate=rate, layout="mono")
        for i in range(frames):
            image = mild_image(64, 48, "yuv420p", i)
            image.pts, image.time_base = i, Fraction(1, 25)
            container.mux(video.encode(image))
        container.mux(video.encode(None))
        silence = np.full((1, seconds * rate), 128 if sample_format == "u8" else 0)
        samples = av.AudioFrame.from_ndarray(
            silence.astype(np.uint8 if sample_format == "u8" else np.int16),
            format=sample_format, layout="mono",
        )  # fmt: skip
        samples.sample_rate, samples.pts, samples.time_base = rate, 0, Fraction(1, rate)
        container.mux(sound.encode(samples))
        container.mux(sound.encode(None))
    return path


def test_sound_that_lasts_longer_is_no_missing_picture(tmp_path):
    source = with_sound(tmp_path / "source.mkv", "pcm_s16le", seconds=5)
    summary = restore_video(
        source, tmp_path / "out.mkv", restorer=Unchanged(),
        analysis=analysis_of_file(source),
    )  # fmt: skip
    assert summary.missing_frames == 0


def test_sound_that_the_output_cannot_hold_is_said_before_the_work(tmp_path):
    source = with_sound(tmp_path / "source.mkv", "pcm_u8", sample_format="u8")
    painter = Painter()
    track = plain_track(25, centre=(30, 20), side=30)
    with pytest.raises(OutputError, match=r"stream 1 \(pcm_u8\).*an \.mkv file can"):
        restore_video(source, tmp_path / "out.mp4", restorer=painter,
                      analysis=analysis_of_file(source, [track]))  # fmt: skip
    assert painter.batches == []
    assert [p.name for p in tmp_path.iterdir()] == ["source.mkv"]


@pytest.mark.parametrize("has_sound", [True, False], ids=["sound", "silent"])
def test_an_ffmpeg_that_is_not_there_is_said_before_the_work(tmp_path, monkeypatch, has_sound):
    source = tmp_path / "source.mkv"
    if has_sound:
        with_sound(source, "pcm_s16le")
    else:
        write_video(source, [mild_image(64, 48, "yuv420p", i) for i in range(25)])
    monkeypatch.setenv("VIDRESTORE_FFMPEG", str(tmp_path / "nowhere"))
    track = plain_track(25, centre=(30, 20), side=30)
    painter = Painter()
    with pytest.raises(OutputError, match="VIDRESTORE_FFMPEG"):
        restore_video(source, tmp_path / "out.mkv", restorer=painter,
                      analysis=analysis_of_file(source, [track]))  # fmt: skip
    assert painter.batches == []


@pytest.mark.parametrize("name", ["12:30.mkv", "-i.mkv", "[bold]x.mkv", "Ü ö.mkv"])
def test_names_that_mean_something_to_libraries_are_just_names(tmp_path, name, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    images = [mild_image(64, 48, "yuv420p", i) for i in range(3)]
    source = write_video(tmp_path / "plain.mkv", images, codec="libx264")
    source.rename(tmp_path / name)
    with pytest.raises(SystemExit) as left:
        main(["restore", "--restorer", "fusion", "--detector", "haar", "--", name, f"o{name}"])
    assert left.value.code == 0, capsys.readouterr().err
    assert (tmp_path / f"o{name}").is_file()
    assert f"o{name}" in capsys.readouterr().out.replace("\n", "")


def test_an_analysis_for_another_template_is_refused(tmp_path):
    source = with_sound(tmp_path / "source.mkv", "pcm_s16le")
    restorer = Unchanged()
    restorer.template = "ffhq"
    with pytest.raises(UsageError, match=r"template gpen .* wants ffhq"):
        restore_video(source, tmp_path / "out.mkv", restorer=restorer,
                      analysis=analysis_of_file(source))  # fmt: skip


def test_debug_keeps_the_exit_status_and_json_stays_json(tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        main(["restore", "absent.mp4", str(tmp_path / "o.mp4"), "--debug", "--json"])
    assert left.value.code == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["kind"] == "InputError"
    assert "Traceback" in said.err


def test_evaluate_says_identical_in_strict_json(tmp_path, capsys):
    images = [mild_image(64, 48, "yuv420p", i) for i in range(3)]
    source = write_video(tmp_path / "a.mkv", images, codec="ffv1")
    with pytest.raises(SystemExit) as left:
        main(["evaluate", str(source), "--source", str(source), "--detector", "haar", "--json"])
    assert left.value.code == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    result = json.loads(last, parse_constant=lambda name: pytest.fail(name))["evaluation"]
    assert result["output"]["outside_psnr_db"] is None
    assert result["frame_counts_equal"]


def test_what_is_no_video_is_called_what_it_is(tmp_path):
    for kind in (".png", ".jpg"):
        picture = cv2.imencode(kind, np.zeros((40, 60, 3), np.uint8))[1]
        (tmp_path / f"photo{kind}.mp4").write_bytes(picture.tobytes())
    (tmp_path / "letter.txt").write_text("Dear all,\n" * 40)
    for name in ("photo.png.mp4", "photo.jpg.mp4"):
        with pytest.raises(InputError, match=rf"{name} is a picture"):
            probe(tmp_path / name)
    # Some text is what ffmpeg knows how to draw on a terminal.
    with pytest.raises(InputError, match=r"letter\.txt (is text|cannot be read as video)"):
        probe(tmp_path / "letter.txt")


@pytest.mark.parametrize("name", ["raw.mjpeg", "raw.mjpg", "raw.avi"])
def test_a_bare_stream_of_motion_jpeg_is_a_video(tmp_path, name):
    source = tmp_path / name
    ffmpeg(picture(frames=12), "-c:v mjpeg -q:v 3 -f mjpeg", source)
    frames = list(decode(source, DecodeErrors()))
    info = probe(source).info
    assert [f.pts * info.time_base for f in frames] == [time for time, _ in frames_shown(source)]
    summary = restore_video(source, tmp_path / "out.mkv", restorer=Unchanged(),
                            analysis=analysis_of_file(source))  # fmt: skip
    assert summary.frames == 12
    assert len(summary.warnings) == 1  # no face was found


def test_other_pictures_without_a_container_are_told_what_they_are(tmp_path):
    source = tmp_path / "raw.mkv"
    ffmpeg(picture(frames=5), "-c:v png -f image2pipe", source)
    with pytest.raises(InputError, match=r"a series of pictures.*-c copy OUTPUT\.mkv"):
        probe(source)
    made = tmp_path / "made.mkv"
    ffmpeg("-i", source, "-c copy", made)
    assert len(list(decode(made, DecodeErrors()))) == 5


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_sample_of_a_file_with_many_streams_has_its_picture_and_sound(shared, tmp_path, suffix):
    source = shared / "clips" / "torchcodec_nasa.mp4"
    span = TimeRange(Fraction(6), Fraction(7))
    frames = list(decode(source, DecodeErrors(), span))
    made = analysis_of_file(source, span=span)
    target = tmp_path / f"sample{suffix}"
    summary = restore_video(source, target, restorer=Unchanged(), analysis=made, span=span)
    assert summary.frames == len(frames) == 30
    assert sum("left out of a sample" in warning for warning in summary.warnings) == 3
    with av.open(str(target)) as container:
        assert [s.type for s in container.streams] == ["audio", "video", "audio"]
        times = {s.index: [] for s in container.streams}
        for packet in container.demux():
            if packet.size:
                times[packet.stream.index].append(float(packet.pts * packet.time_base))
    assert min(times[1]) == 0
    assert len(times[1]) == 30
    for index in (0, 2):
        assert -0.1 < min(times[index]) < 0.15
        assert 0.8 < max(times[index]) < 1.1


def test_a_sample_is_evaluated_against_its_own_part(tmp_path):
    images = [mild_image(64, 48, "yuv420p", i) for i in range(50)]
    base = Fraction(1, 1000)
    source = write_video(tmp_path / "a.mkv", images, pts=range(0, 2000, 40), time_base=base)
    sample = write_video(tmp_path / "b.mkv", images[25:], pts=range(0, 1000, 40), time_base=base)
    result = evaluate(sample, source, HAAR, span=TimeRange(Fraction(1)))
    assert result.frames == 25
    assert result.frame_counts_equal
    assert result.largest_time_error_seconds == 0
    assert result.output.outside_psnr_db == float("inf")
    assert not evaluate(sample, source, HAAR).frame_counts_equal


@pytest.mark.parametrize("hours", ["9" * 400, "9" * 40])
def test_a_forged_duration_counts_as_missing(tmp_path, hours):
    """NUT keeps such a tag; the first is infinite as a float, the second too long for a seek."""
    source = tmp_path / "source.nut"
    with av.open(source, "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.metadata["DURATION"] = f"{hours}:00:00"
        for index in range(10):
            container.mux(stream.encode(mild_image(64, 48, "yuv420p", index)))
        container.mux(stream.encode(None))
    assert probe(source).info.duration_seconds_from_header == 0
    assert analyze_video(source, HAAR).frame_count == 10

"""What a report shows: strength, flicker and faces of every kind of run, and how much of it."""

import base64
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import cv2
import numpy as np
import pytest
import torch
from helpers import footage
from helpers.media import (
    analysis_of,
    analysis_of_file,
    info_of,
    plain_track,
    random_image,
    write_video,
)
from helpers.reports import (
    FRAMES,
    TARGET,
    Brighter,
    Made,
    Page,
    pictures,
    run,
    settings_of,
    write_tape,
)
from helpers.scans import OneFaceInBright, restored, write_scans
from skimage import data

from vidrestore.analysis.choice import EVERYONE
from vidrestore.common.profiles import load_settings
from vidrestore.imaging.frame import Frame
from vidrestore.imaging.geometry import compose
from vidrestore.jobs.plan import Plan
from vidrestore.jobs.summary import Summary
from vidrestore.models.restorers.assignment import Assignment
from vidrestore.restoration.crop import cut_out
from vidrestore.restoration.statistics import STRETCH_FRAMES, Likeness, RestorationStats
from vidrestore.review import report
from vidrestore.review.evaluate import evaluate
from vidrestore.review.report import samples as views
from vidrestore.review.report.plots import MOST_POINTS, Curve
from vidrestore.review.report.samples import (
    MOST_FACES,
    MOST_PEOPLE,
    Detail,
    Flicker,
    SampleCollector,
)
from vidrestore.review.report.sampling import chosen_sample, stretches, used_strength


@pytest.mark.long
def test_the_verdict_and_its_measures_are_those_of_evaluate(tmp_path, monkeypatch):
    """Of a video so short that the report measures every face, as `evaluate` always does."""
    (tape, known), kept = write_tape(tmp_path), []

    def collect(*given, **more):
        kept.append(SampleCollector(*given, **more))
        return kept[0]

    monkeypatch.setattr(report, "SampleCollector", collect)
    made = run(tape, tmp_path, known)
    target = tmp_path / TARGET
    found = evaluate(target, tape, settings_of(**{"people.recognise": False}), analysis=known)
    flicker = kept[0].flicker
    assert len(flicker) == FRAMES - 4
    for role in ("source", "output"):
        rms = np.sqrt(np.mean([getattr(one, role) for one in flicker]))
        assert rms == pytest.approx(getattr(found.measures["FLKb"], role), rel=0.01)
    assert "It was measured in every frame" in made.page.text
    shares = [one.share for one in kept[0].details]
    assert np.mean(shares) == pytest.approx(found.measures["SHP"].output, rel=0.02)
    assert found.verdict().sentence in made.page.text
    # The guard compares a face before it is pasted and stored.
    likeness = re.search(r"Likeness \w+ ([\d.]+) in all 56 faces", made.page.text)
    assert likeness is not None
    assert float(likeness[1]) == pytest.approx(found.measures["features"].output, abs=0.03)


def test_faces_too_dark_to_see_are_shown_brighter_before_and_after(tmp_path):
    pictures = [np.full((120, 160, 3), 25, np.uint8) for _ in range(3)]
    tape = write_video(tmp_path / "in.mkv", footage.images(pictures, "yuv420p"))
    known = analysis_of_file(tape, [plain_track(3, centre=(80, 60), side=60)])
    page = run(tape, tmp_path, known, target="out.mkv").page
    assert "Both are shown brighter." in page.text
    shown = [base64.b64decode(each["src"].partition(",")[2]) for each in page.shown("person")]
    levels = [cv2.imdecode(np.frombuffer(jpeg, np.uint8), 0)[60, 60] for jpeg in shown[:2]]
    assert levels[0] == pytest.approx(0.3 * 255, abs=3)
    assert levels[0] < levels[1] < levels[0] + 10  # what the restorer added still shows


def larger(folder: Path) -> Made:
    tape = write_video(folder / "in.mkv", pictures()[:6])
    track = plain_track(6, centre=(90, 80), side=96)
    return run(tape, folder, analysis_of_file(tape, [track]), target="out.mkv",
               **{"scale.factor": 2})  # fmt: skip


def onto_plate(folder: Path) -> Made:
    tape = write_video(folder / "in.mkv", pictures()[:6])
    plate = [image.reformat(width=384, height=288) for image in pictures()[:6]]
    track = plain_track(6, centre=(90, 80), side=96)
    return run(tape, folder, analysis_of_file(tape, [track]), target="out.mkv",
               plate=write_video(folder / "plate.mkv", plate))  # fmt: skip


def interlaced(folder: Path) -> Made:
    frames = footage.woven_by_hand(footage.images(footage.pan(24, 160, 120), "yuv420p"), "bff")
    source, target = footage.film(folder / "in.mkv", frames, flag="bff"), folder / "out.mkv"
    return plainly(source, target, **{"encode.quality": "archive"})


def scans(folder: Path) -> Made:
    (folder / "out").mkdir()
    return plainly(write_scans(folder / "in", range(7, 11)), folder / "out" / "x_%06d.tif")


def one_picture(folder: Path) -> Made:
    pattern = write_scans(folder / "in", [7], ".png")
    return plainly(pattern.with_name(pattern.name % 7), folder / "x.png")


def plainly(source: Path, target: Path, **more) -> Made:
    page = target.with_name("report.html")
    return Made(target.parent, restored(source, target, report=page, **more), Page(page))


KINDS: dict[str, tuple[Callable[[Path], Made], int, list[str]]] = {
    "enlarged": (larger, 3, ["The enlarged source is on the left", "enlarged 2 times",
                             "Every pixel outside the faces equals that of the enlarged source"]),
    "a plate": (onto_plate, 3, ["The plate is on the left", "--plate"]),
    "interlaced": (interlaced, 3, [
        "12 frames in 1 shot show 1 person. 24 faces were restored",
        "faces were restored in both fields of each", "in every frame of their earlier fields",
    ]),
    "scans": (scans, 3, ["4 frames in 1 shot", "4 faces were restored", "tiff"]),
    "one picture": (one_picture, 1, ["1 frame in 1 shot show 1 person"]),
}  # fmt: skip


@pytest.mark.parametrize(("make", "views", "said"), KINDS.values(), ids=KINDS)
def test_every_kind_of_run_has_its_page(tmp_path, monkeypatch, make, views, said):
    monkeypatch.setattr(
        "vidrestore.models.factory.open_detector", lambda *a, **k: OneFaceInBright()
    )
    made = make(tmp_path)
    assert made.summary.faces > 0
    for sentence in said:
        assert sentence in made.page.text
    assert len(made.page.shown("person")) == 2 * views
    assert len(made.page.portraits) == 1
    assert "are missing here" not in made.page.text


def test_strength_is_what_the_guard_let_through():
    track, tally = plain_track(40, centre=(8, 8), side=8, first_frame=6), RestorationStats()
    planned = np.where(np.arange(40) < 20, 0.5, 1.0).astype(np.float32)
    track = replace(track, strength=planned)
    np.testing.assert_allclose(used_strength(track, tally, 0.8), 0.8 * planned)
    for frame in range(6, 30):
        tally.add_likeness(0, frame, Likeness(frames=1, share=0.25 if frame < 12 else 1.0))
    used = used_strength(track, tally, 1.0)
    edges = [n - 6 for n in (STRETCH_FRAMES, 2 * STRETCH_FRAMES, 3 * STRETCH_FRAMES)]
    np.testing.assert_allclose(used[: edges[0]], 0.125)
    np.testing.assert_allclose(used[edges[0] : edges[1]], planned[edges[0] : edges[1]])
    np.testing.assert_allclose(used[edges[1] : edges[2]], planned[edges[1] : edges[2]] / 2)
    np.testing.assert_allclose(used[edges[2] :], 0)


def test_curves_are_binned():
    seconds = np.linspace(5, 605, 9000)
    curve = Curve(seconds, np.full(9000, 9.0)).binned((5, 605), squares=True)
    assert len(curve.values) == MOST_POINTS
    assert (curve.values == 3).all()


def faces(*runs: tuple[int, int, int]) -> tuple[np.ndarray, list[int]]:
    """(frame, track) of every face, and the person of each track; runs are (person, first, end)."""
    places = [(at, i) for i, (_, first, end) in enumerate(runs) for at in range(first, end)]
    return np.array(places, np.int64), [person for person, _, _ in runs]


def test_few_faces_are_all_measured():
    places, people = faces((1, 0, 40), (2, 10, 30))
    sample = chosen_sample(places, people, most=60)
    assert (sample.places == places).all()
    assert sample.weights == pytest.approx(1 / 60)
    assert sample.population == 60


def test_a_sample_is_spread_over_people_and_time_and_stands_for_all():
    """Person 1 is on screen nearly always, person 2 for a moment, and a crowd each for a second."""
    crowd = [(10 + i, 50 * i, 50 * i + 25) for i in range(100)]
    places, people = faces((1, 0, 5000), (2, 700, 800), *crowd)
    sample = chosen_sample(places, people, most=300, shown=[1, 2], least_each=12)
    again = chosen_sample(places, people, most=300, shown=[1, 2], least_each=12)
    assert (sample.places == again.places).all()
    assert len(np.unique(sample.places, axis=0)) == len(sample.places) == 300
    assert sample.weights.sum() == pytest.approx(1)
    assert sample.population == len(places)
    of = np.array(people)[sample.places[:, 1]]
    assert np.count_nonzero(of == 2) == 12
    for group, size in ((of == 1, 5000), (of == 2, 100), (of > 2, 2500)):
        assert sample.weights[group].sum() == pytest.approx(size / len(places))
        frames = sample.places[group, 0]
        gaps = np.diff(np.sort(frames))
        assert gaps.max() < 4 * np.ptp(frames) / len(frames)
        # No rhythm: the places within the parts differ.
        assert len(np.unique(gaps)) > 3


def test_a_sample_measures_what_all_faces_would_as_exactly_as_an_even_one():
    """Of values that drift, jump at cuts and have a rhythm of their own, over many videos."""
    random, errors = np.random.default_rng(0), {"ours": [], "even": []}
    for _ in range(200):
        count = 6000
        drift = np.cumsum(random.normal(0, 0.02, count))
        cuts = np.repeat(random.normal(0, 0.5, 60), 100)
        values = np.exp(drift + cuts + 0.3 * np.sin(np.arange(count) * 2 * np.pi / 20)
                        + random.normal(0, 0.3, count))  # fmt: skip
        places, people = faces((1, 0, count))
        sample = chosen_sample(places, people, most=300)
        even = np.linspace(0, count - 1, 300).round().astype(int)
        errors["ours"].append(float(sample.weights @ values[sample.places[:, 0]]) / values.mean())
        errors["even"].append(values[even].mean() / values.mean())
    off = {name: np.sqrt(np.mean((np.array(one) - 1) ** 2)) for name, one in errors.items()}
    assert off["ours"] < 0.03
    assert off["ours"] < off["even"]


def test_where_little_is_read_it_is_spread_over_the_segments_with_faces():
    segments = [(300 * i, 300 * (i + 1)) for i in range(30)]
    track = plain_track(300, centre=(8, 8), side=8)
    tracks = [replace(track, first_frame=300 * i + 40, track_id=i) for i in range(0, 29, 2)]
    used = [np.ones(300) for _ in tracks]
    parts = stretches(segments, tracks, used, 1, is_damaged=False)
    assert len(parts) == 12
    assert all(end - first == 24 for first, end in parts)
    assert parts[0] == (40, 64)
    assert all(a[1] <= b[0] for a, b in pairwise(parts))
    assert parts[-1][0] >= 300 * 28
    assert stretches(segments[:2], tracks, used, 1, is_damaged=False) == [(0, 600)]
    assert stretches(segments, tracks, used, 1, is_damaged=True) == [(0, 300)]
    nothing = [np.zeros(300) for _ in tracks]
    assert stretches(segments, tracks, nothing, 1, is_damaged=False) == []


def test_a_large_face_costs_no_more_and_is_measured_as_by_evaluate(tmp_path):
    """Reduced by areas before it is cut out, at any angle and in any format."""
    photo = cv2.resize(data.astronaut()[0:256, 96:352], (1500, 1500), interpolation=cv2.INTER_CUBIC)
    for pixel_format in ("yuv420p", "yuv422p10le", "gray", "gbrp"):
        (image,) = footage.images([photo], pixel_format)
        info = info_of(1500, 1500, pixel_format)
        track = plain_track(1, centre=(740, 730), side=1100, work_px=512)
        turned = np.array([[np.cos(0.3), -np.sin(0.3), 0], [np.sin(0.3), np.cos(0.3), 0]])
        unit = compose(track.matrices[0].astype(np.float64), turned)
        picture = views._Tracked(
            Frame(0, 0, image), info, [replace(track, matrices=unit[None].astype(np.float32))]
        )
        small = picture.crop(0, 0, 256)
        whole = cut_out(picture.frame, unit, info, 1024, torch.device("cpu"))
        wanted = cv2.resize(
            whole.permute(1, 2, 0).numpy(), (256, 256), interpolation=cv2.INTER_AREA
        )
        assert small.shape == wanted.shape
        assert np.abs(small - wanted)[4:-4, 4:-4].max() < 0.1
        assert np.abs(small - wanted).mean() < 0.004


@pytest.mark.long
def test_portraits_and_worst_moments_are_kept(tmp_path, monkeypatch):
    """In the second half of the tape the restorer adds noise, and in one frame it blurs."""
    tape, known = write_tape(tmp_path)
    made = run(tape, tmp_path, known, restorer=Noisy())
    text = made.page.text
    assert "Verdict: worse. Flicker of the faces rose from" in text
    links = [each["href"] for each in made.page.all("a") if each["href"].startswith("#worst")]
    ids = [own["id"] for _, own in made.page.tags if own.get("id", "").startswith("worst")]
    assert len(links) == len(ids) >= 3
    assert {link.removeprefix("#") for link in links} == set(ids)
    assert "worst-flicker-1" in ids
    assert re.search(r"Flicker rose from \d\.\d\d to \d\.\d\d levels", text)
    assert len(made.page.portraits) == 2


class Noisy(Brighter):
    """New noise in every face, and most of all where the face is that of the second shot."""

    name = "noisy"

    def __init__(self):
        self._random = torch.Generator().manual_seed(0)

    def __call__(self, windows):
        noise = torch.randn(windows[:, 0].shape, generator=self._random)
        return (windows[:, 0] + 0.05 * noise).clamp(0, 1)


@pytest.mark.long
def test_the_page_of_ten_minutes_stays_small(tmp_path, monkeypatch):
    """Of 15000 frames, 30 people in 120 shots, and pictures that nothing can compress."""
    monkeypatch.setattr(views, "MOST_FACES", 20)
    info, frames, shots = info_of(960, 540), 15_000, 120
    each = frames // shots
    tracks = [
        replace(
            plain_track(each, centre=(300 + 300 * k, 270), side=512, first_frame=i * each,
                        track_id=2 * i + k),
            person_id=(7 * i + k) % 30 + 1,
        )
        for i in range(shots) for k in (0, 1)
    ]  # fmt: skip
    analysis = replace(analysis_of(info, frames, tracks),
                       shots=tuple((i * each, (i + 1) * each) for i in range(shots)))  # fmt: skip
    tally = RestorationStats(faces=2 * frames)
    for track in tracks:
        for frame in range(track.first_frame, track.end_frame, 3):
            share = (frame % 50) / 50
            found = Likeness(3, 3, 1, 2.4, 2.7, 0.5 * share, 0.9 * share, 3 * share)
            tally.add_likeness(track.track_id, frame, found)
    onlooker = SampleCollector(analysis, analysis, tally, 1.0)
    noise = [random_image(960, 540, "yuv420p", seed) for seed in range(2)]
    for index in range(frames):
        pair = [Frame(index, 512 * index, image) for image in noise]
        onlooker(*pair)
    assert onlooker.broken is None
    assert len(onlooker.people) == MOST_PEOPLE
    assert onlooker.is_sample
    assert len(onlooker._middles) == MOST_PEOPLE * views._LEAST_EACH
    random = np.random.default_rng(0)
    for index in np.linspace(0, frames - 1, MOST_FACES).astype(int).tolist():
        values = random.random(2).tolist()
        onlooker.flicker += [Flicker(person, index, *values) for person in onlooker.people]
    onlooker.details += [Detail(1, index, 0.9, 1.0) for index in range(0, frames, 200)]
    settings = load_settings()
    plan = SimpleNamespace(
        job=SimpleNamespace(analysis=analysis, settings=settings, judge="features", parser=None,
                            encoding=SimpleNamespace(pixel_format="yuv420p"), span=None),
        base=SimpleNamespace(analysis=analysis, scaling=None), strength=1.0, redo=None,
        rendering=SimpleNamespace(restorers=Assignment([(0, Brighter())])),
    )  # fmt: skip
    request = SimpleNamespace(
        source=Path("a.mkv"), target=Path("b.mkv"), settings=settings, choice=EVERYONE,
        **dict.fromkeys(("before_swap", "plate", "layer", "framemd5", "redo_shots", "keep_job",
                         "workers", "restorer", "span", "report")),
    )  # fmt: skip
    reporter = report.Reporter(tmp_path / "page.html", request, None)
    reporter._collector = onlooker
    summary = Summary(frames, 2 * frames, len(tracks), 30, shots)
    assert reporter.finished(cast(Plan, plan), tally, summary, None) is summary
    page = Page(tmp_path / "page.html")
    assert len(page.shown("person")) == 2 * 3 * MOST_PEOPLE
    assert len(page.portraits) == MOST_PEOPLE
    assert (tmp_path / "page.html").stat().st_size < 17e6
    assert "6 more" in page.text
    assert len(onlooker.flicker) >= MOST_FACES * MOST_PEOPLE
    assert f"in a sample of {len(onlooker.flicker)} faces" in page.text

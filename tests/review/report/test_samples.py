"""What a report shows: strength, flicker and faces of every kind of run, and how much of it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
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

from vidrestore.analysis.choice import EVERYONE
from vidrestore.common.profiles import load_settings
from vidrestore.imaging.frame import Frame
from vidrestore.jobs.plan import Plan
from vidrestore.jobs.summary import Summary
from vidrestore.restoration.statistics import STRETCH_FRAMES, Likeness, RestorationStats
from vidrestore.review import report
from vidrestore.review.evaluate import evaluate
from vidrestore.review.report import samples as views
from vidrestore.review.report.plots import MOST_POINTS, Curve
from vidrestore.review.report.samples import (
    MOST_PEOPLE,
    MOST_TRIPLES,
    Flicker,
    SampleCollector,
    used_strength,
)


def test_flicker_is_what_evaluate_measures(tmp_path, monkeypatch):
    (tape, known), kept = write_tape(tmp_path), []

    def collect(*given):
        kept.append(SampleCollector(*given))
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
                             "Every sample outside the faces equals that of the enlarged source"]),
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
    assert len(made.page.all("img")) == 2 * views
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


@pytest.mark.long
def test_the_page_of_ten_minutes_stays_small(tmp_path, monkeypatch):
    """Of 15000 frames, 30 people in 120 shots, and pictures that nothing can compress."""
    monkeypatch.setattr(views, "MOST_TRIPLES", 20)
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
    assert len(onlooker._middles) == 20
    random = np.random.default_rng(0)
    for index in np.linspace(0, frames - 1, MOST_TRIPLES).astype(int).tolist():
        values = random.random(2).tolist()
        onlooker.flicker += [Flicker(person, index, *values) for person in onlooker.people]
    settings = load_settings()
    plan = SimpleNamespace(
        job=SimpleNamespace(analysis=analysis, settings=settings, judge="features", parser=None,
                            encoding=SimpleNamespace(pixel_format="yuv420p"), span=None),
        base=SimpleNamespace(analysis=analysis, scaling=None), strength=1.0, redo=None,
        rendering=SimpleNamespace(restorers=[(0, Brighter())]),
    )  # fmt: skip
    request = SimpleNamespace(
        source=Path("a.mkv"), target=Path("b.mkv"), settings=settings, choice=EVERYONE,
        **dict.fromkeys(("before_swap", "plate", "layer", "framemd5", "redo_shots", "keep_job",
                         "workers", "restorer")),
    )  # fmt: skip
    reporter = report.Reporter(tmp_path / "page.html", request, None)
    reporter._collector = onlooker
    summary = Summary(frames, 2 * frames, len(tracks), 30, shots)
    assert reporter.finished(cast(Plan, plan), tally, summary, None) is summary
    page = Page(tmp_path / "page.html")
    assert len(page.all("img")) == 2 * 3 * MOST_PEOPLE
    assert (tmp_path / "page.html").stat().st_size < 15e6
    assert "6 more" in page.text
    assert "in a sample of 300 faces" in page.text

"""The page about a run: what it says is what was done, and it needs nothing but itself."""

import re

import pytest
from helpers.media import Unchanged, analysis_of_file, mild_image, plain_track, write_video
from helpers.page_in_browser import DESKTOP, PHONE, chromium
from helpers.reports import (
    FRAMES,
    SOURCE,
    TARGET,
    Brighter,
    Made,
    Page,
    run,
    settings_of,
    write_tape,
)

from vidrestore.api import restore_video
from vidrestore.cli import main
from vidrestore.common.errors import OutputError, UsageError
from vidrestore.jobs import run as run_of_a_job
from vidrestore.media import decode
from vidrestore.review import report
from vidrestore.review.report import samples
from vidrestore.web.access import REPORT_POLICY


@pytest.fixture(scope="module")
def taped(tmp_path_factory):
    return write_tape(tmp_path_factory.mktemp("tape"))


@pytest.fixture(scope="module")
def made(taped, tmp_path_factory) -> Made:
    tape, known = taped
    return run(tape, tmp_path_factory.mktemp("made"), known)


def test_the_numbers_are_those_of_the_summary(made):
    summary, text = made.summary, made.page.text
    assert summary.faces == 56
    assert summary.identical_outside == FRAMES
    for sentence in (
        "56 frames in 2 shots show 3 people. 56 faces were restored with brighter.",
        "7 faces were left as they were.",
        "faces restored 56",
        "7 too <small>",
        "it holds all 56 frames, each at its time. Every pixel outside the faces equals that of",
        f"brighter {'ab' * 32}",
        "ffv1, yuv420p",
        "guard.identity 0.0 (default: 0.2)",
        "Every restored face that was compared looks like its source.",
        "1 person is left as they were in every frame.",
        "own restorer brighter",
        "The stage",
    ):
        assert sentence in text, sentence
    for name, seconds in summary.seconds.items():
        assert f"{seconds:.1f} s" in text, name
    # The verdict stands before all numbers, with the basis of each aspect.
    assert text.index("Verdict: ") < text.index("56 frames in 2 shots")
    for aspect in (
        r"Flicker (better|same|worse) \d\.\d\d to \d\.\d\d levels in all 52 faces",
        r"Fine detail (better|same|worse) \d+ % of the source's in all 52 faces",
        r"Likeness same 0\.9\d\d in all 56 faces worst at 0:0\d\.\d",
    ):
        assert re.search(aspect, text), aspect
    stages = ("decode", "crop", "restore", "guard", "paste", "encode")  # nothing is deflickered
    assert all(f"{stage} " in text for stage in stages)


def test_everybody_is_shown_before_and_after_the_largest_first(made):
    images = made.page.shown("person")
    others = len(made.page.all("img")) - len(made.page.portraits) - len(images)
    assert len(made.page.all("input")) == 6 + others / 2
    assert [image["alt"].split(",")[-1] for image in images] == [" before", " after"] * 6
    shown = [(image["alt"][:8], int(image["width"])) for image in images]
    assert [name for name, _ in shown] == ["person 1"] * 6 + ["person 3"] * 6
    labels = re.findall(r'aria-label="([^"]*)"', made.page.source)
    assert labels.count("Flicker and likeness over time.") == 2
    for unit in ("levels", "likeness of", "features", "0:00.5", "person 1", "shots"):
        assert unit in made.page.text, unit


def test_nothing_is_loaded_and_names_do_not_become_markup(made):
    page = made.page
    assert not re.search(r"https?:", page.source)
    assert not re.search(r"@import|url\((?!#)", page.source)
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "base", "b")
        assert not any(name.startswith("on") for name in attributes)
        assert (attributes.get("src") or "data:").startswith("data:")
        assert (attributes.get("href") or "#").startswith(("#", "./"))
    assert SOURCE in page.text
    assert TARGET in page.text
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(names) == len(set(names))
    used = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page.source)
    assert {a or b for a, b in used} <= set(names)


@pytest.mark.long
def test_it_leads_to_the_output_from_where_it_lies(taped, tmp_path):
    tape, known = taped
    (tmp_path / "a page").mkdir()
    summary = restore_video(
        tape, tmp_path / "ä #1.mkv", settings_of(), restorer=Brighter(), analysis=known,
        report=tmp_path / "a page" / "it.html",
    )  # fmt: skip
    assert not summary.warnings
    page = Page(tmp_path / "a page" / "it.html")
    to_file, to_folder = (each["href"] for each in page.all("a")[:2])
    assert to_file == "./../%C3%A4%20%231.mkv"
    assert to_folder == "./../"
    assert "ä #1.mkv or its folder ." in page.text
    assert "started this run with a restorer of its own" in page.text


@pytest.mark.long
@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_without_a_check_only_samples_are_read(tmp_path, monkeypatch, suffix):
    """Of 1300 frames with one face all along, in segments of 100; the source has long groups."""
    images = [mild_image(96, 64, "yuv420p", seed) for seed in range(20)]
    pictures = [images[i % 20] for i in range(1300)]
    tape = write_video(tmp_path / f"in{suffix}", pictures, codec="libx264",
                       options={"g": "30", "preset": "ultrafast"})  # fmt: skip
    known = analysis_of_file(tape, [plain_track(1300, centre=(48, 32), side=40)])
    decoded = 0
    planar = decode._planar

    def counted(image):
        nonlocal decoded
        decoded += 1
        return planar(image)

    read = run_of_a_job.read_samples

    def reading(*given, **more):
        monkeypatch.setattr(decode, "_planar", counted)
        read(*given, **more)
        monkeypatch.setattr(decode, "_planar", planar)

    monkeypatch.setattr(run_of_a_job, "read_samples", reading)
    made = run(tape, tmp_path, known, target=f"out{suffix}", **{
        "encode.check": False, "encode.codec": "h264", "job.segment_frames": 100,
    })  # fmt: skip
    text = made.page.text
    assert 0 < decoded < 1300  # source and output have 2600 frames
    assert "The finished file was not read back" in text
    assert re.search(r"Flicker (better|same|worse) .* \u00b1 .* in 150 of 1,298 faces", text)
    assert len(made.page.shown("person")) == 6
    assert len(made.page.portraits) == 1
    assert not made.summary.warnings


@pytest.mark.long
def test_shots_that_are_redone_stand_beside_those_that_were_done_before(taped, tmp_path):
    tape, known = taped
    how = {"encode.codec": "ffv1", "job.segment_frames": 48}
    restore_video(tape, tmp_path / "out.mkv", settings_of(**how), restorer=Brighter(),
                  analysis=known, keep_job=True)  # fmt: skip
    made = run(tape, tmp_path, known, target="out.mkv", restorer=Unchanged(), redo_shots="2",
               keep_job=True, **how)  # fmt: skip
    assert made.summary.redone_shots == (2,)
    text = made.page.text
    assert "This run rendered only shot 2; all other packets" in text
    assert "brighter no weight file is known" in text
    assert "--redo-shots 2" in text
    # Likeness of the shot that was not rendered now, too.
    assert len(re.findall("the whole face were compared, without", text)) == 2


def test_a_part_in_which_nobody_is(tmp_path, capfd):
    source = write_video(tmp_path / "in.mkv", [mild_image(96, 64, "yuv420p", i) for i in range(9)])
    page_at = tmp_path / "a.html"
    with pytest.raises(SystemExit) as leaving:
        main(["restore", str(source), str(tmp_path / "out.mkv"), "--restorer", "fusion",
              "--detector", "haar", "--start", "0.1", "--report", str(page_at)])  # fmt: skip
    assert not leaving.value.code
    assert f"the report is in {page_at}" in " ".join(capfd.readouterr().err.split())
    page = Page(page_at)
    assert "6 frames in 1 shot show no face that could be restored" in page.text
    assert "vidrestore restored only a part of the video: from 0:00.1." in page.text
    assert "No face was found; nothing was restored." in page.text
    assert "Person by person" not in page.text
    assert "Stages of the analysis" in page.text


@pytest.mark.parametrize(
    ("name", "error", "reason"),
    [
        ("page.txt", UsageError, "must end in .html, and 'page.txt' does not"),
        ("none/page.html", OutputError, "for the report does not exist"),
        ("there.html", UsageError, "there.html exists already; add --overwrite"),
        ("folder.html", UsageError, "is a folder"),
        ("tape.html", UsageError, "is the input itself"),
        ("md5.html", UsageError, "the report and the listing are both"),
    ],
)
def test_a_page_that_cannot_be_is_refused_before_any_work(tmp_path, taped, name, error, reason):
    tape, _ = taped
    (tmp_path / "there.html").write_text("of an earlier run")
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "tape.html").symlink_to(tape)
    with pytest.raises(error, match=re.escape(reason)):
        restore_video(tape, tmp_path / "out.mkv", report=tmp_path / name, overwrite="tape" in name,
                      framemd5=tmp_path / "md5.html")  # fmt: skip
    assert not (tmp_path / "out.mkv").exists()
    assert (tmp_path / "there.html").read_text() == "of an earlier run"
    assert not list(tmp_path.glob("*.vidrestore"))


@pytest.mark.long
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_where_the_page_cannot_be_written_the_output_stays(tmp_path, taped, monkeypatch,
                                                           error):  # fmt: skip
    tape, known = taped

    def fail(path, text):
        raise error

    monkeypatch.setattr(report, "_write", fail)
    said = []
    summary = restore_video(tape, tmp_path / "out.mkv", settings_of(), restorer=Brighter(),
                            analysis=known, report=tmp_path / "a.html",
                            on_event=said.append)  # fmt: skip
    (sentence,) = summary.warnings
    why = "no space left on device" if isinstance(error, OSError) else "interrupted"
    assert f"could not be written ({why}); the output is whole" in sentence
    assert [path.name for path in tmp_path.iterdir()] == ["out.mkv"]


def test_pictures_that_cannot_be_made_cost_nothing_but_themselves(tmp_path, taped,
                                                                  monkeypatch):  # fmt: skip
    tape, known = taped

    def fail(*given):
        raise ValueError("no <picture>")

    monkeypatch.setattr(samples, "cut_out", fail)
    made = run(tape, tmp_path, known)
    assert made.summary.identical_outside == FRAMES
    assert "since vidrestore could not make them: ValueError: no <picture>." in made.page.text
    assert not made.page.all("img")


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened.chromium


def test_in_a_browser_it_asks_for_nothing_and_the_slider_moves(made, browser):
    asked, said = [], []
    for scripts in (True, False):
        context = browser.new_context(java_script_enabled=scripts, color_scheme="dark")
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto((made.folder / "report.html").as_uri())
        before, after = (page.locator(f".person .pair .{kind} img").first for kind in
                         ("was", "now"))  # fmt: skip
        boxes = before.bounding_box(), after.bounding_box()
        if not scripts:  # both, side by side
            assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
            continue
        assert boxes[0] == boxes[1]
        widths = page.eval_on_selector_all("img", "all => all.map(i => i.naturalWidth)")
        assert len(widths) == len(made.page.all("img"))
        assert min(widths) > 0
        pair, slide = (page.locator(f".person .pair{part}").first for part in ("", " input"))
        at = "pair => getComputedStyle(pair.querySelector('.now')).clipPath"
        assert "50%" in pair.evaluate(at)
        slide.focus()
        page.keyboard.press("ArrowRight")
        assert "51%" in pair.evaluate(at)
        slide.click(position={"x": 0.2 * boxes[0]["width"], "y": 40})
        share = float(re.search(r"([\d.]+)%", pair.evaluate(at))[1])
        assert share == pytest.approx(20, abs=3)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert not said
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}


def test_the_local_page_shows_it_without_links_that_lead_nowhere(made, browser):
    page = browser.new_page()
    text = (made.folder / "report.html").read_text()
    headers = {"content-type": "text/html", "content-security-policy": REPORT_POLICY}
    page.route("**/report", lambda route: route.fulfill(body=text, headers=headers))
    page.goto("http://127.0.0.1:9/media/report")
    assert "Open" not in page.locator("h1 + p").inner_text()
    assert page.locator("a[target]").count() == 0
    page.locator(".verdict a").first.click()  # the worst moments are on the page itself
    assert page.locator(":target").count() == 1
    page.goto((made.folder / "report.html").as_uri())
    assert page.locator("h1 + p a[target]").count() == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_only_the_drawings_scroll_and_say_so(made, browser, scheme):
    width, height = PHONE
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    page.goto((made.folder / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == width
    drawing, hint = page.locator(".plot").first, page.locator(".plot + .hint").first
    hidden = "plot => plot.scrollWidth - plot.clientWidth"
    assert drawing.evaluate(hidden) > 100
    assert hint.is_visible()
    assert "sideways" in hint.inner_text()
    # The shadow at an edge tells that there is more, which the end of the drawing covers.
    assert drawing.evaluate("plot => getComputedStyle(plot).backgroundImage").count("gradient") == 4
    drawing.focus()  # so that the arrow keys scroll it
    assert page.evaluate("document.activeElement.className") == "plot"
    assert drawing.evaluate("plot => { plot.scrollLeft = 90; return plot.scrollLeft; }") == 90
    page.set_viewport_size({"width": DESKTOP[0], "height": DESKTOP[1]})
    assert drawing.evaluate(hidden) == 0
    assert not hint.is_visible()


@pytest.mark.long
def test_on_paper_headings_stay_with_what_follows_and_pictures_stand_side_by_side(made, browser):
    page = browser.new_context().new_page()
    page.goto((made.folder / "report.html").as_uri())
    page.emulate_media(media="print")
    style = "all => [...new Set(all.map(each => getComputedStyle(each).{}))]"
    assert page.eval_on_selector_all("h2, h3, .head", style.format("breakAfter")) == ["avoid"]
    for kept in (".view", ".plot", "tr", ".verdict"):
        assert page.eval_on_selector_all(kept, style.format("breakInside")) == ["avoid"], kept
    before, after = (page.locator(f".person .{kind} img").first for kind in ("was", "now"))
    left, right = before.bounding_box(), after.bounding_box()
    assert left["x"] + left["width"] <= right["x"]
    assert page.locator(".plot + .hint").first.is_hidden()
    assert page.pdf(format="A4").startswith(b"%PDF")

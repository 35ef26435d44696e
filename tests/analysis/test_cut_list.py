"""Lists of cuts as editing programs write them: the same edit, the same cuts; or one sentence."""

import json
import os
import random
import subprocess
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from helpers import footage, timelines
from helpers.events import messages
from helpers.media import write_video
from helpers.timelines import CERTAIN, DOUBTFUL, FORMS, LENGTH, RATES
from skimage import data

from vidrestore.analysis import cache, cut_list, edl, otio, timeline
from vidrestore.analysis.cut_list import CutList, read_cuts
from vidrestore.analysis.pipeline import analyze_video
from vidrestore.analysis.selection import write_shots
from vidrestore.common import xml_files
from vidrestore.common.errors import ConfigError, OutputError
from vidrestore.common.profiles import load_settings
from vidrestore.imaging.planes import plane
from vidrestore.media.decode import TimeRange
from vidrestore.models.detectors import Detector

PAL = RATES["25"]


def clock(rate: Fraction, count: int = LENGTH, first: int = 500) -> tuple[Any, Fraction, Fraction]:
    """Times, time base and rate of a video of constant rate."""
    return first + np.arange(count) * rate.denominator, Fraction(1, rate.numerator), rate


def read(folder: Path, text: str, suffix: str = ".fcpxml", rate: Fraction = PAL, **more: Any):
    path = folder / f"edit{suffix}"
    path.write_text(text, encoding="utf-8")
    return read_cuts(path, *clock(rate, **more))


def refused(folder: Path, text: str, suffix: str = ".fcpxml", **more: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        read(folder, text, suffix, **more)
    sentence = str(raised.value)
    assert sentence.isprintable()
    assert str(folder / f"edit{suffix}") in sentence
    return sentence


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("form", FORMS)
def test_one_edit_has_the_same_cuts_in_every_form(tmp_path, form, rate):
    suffix, write = FORMS[form]
    found = read(tmp_path, write(RATES[rate]), suffix, RATES[rate])
    assert found.frames == CERTAIN
    assert found.doubtful == tuple((at - 1, at + 1) for at in DOUBTFUL)


@pytest.mark.parametrize("order", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    ("suffix", "text"),
    [(".fcpxml", timelines.fcpxml(PAL)), (".xml", timelines.xmeml(PAL)),
     (".otio", timelines.otio(PAL))],
)  # fmt: skip
def test_timelines_may_be_in_utf_16(tmp_path, suffix, text, order):
    expected = read(tmp_path, text, suffix)
    wide = f"\ufeff{text.replace('UTF-8', 'UTF-16')}"
    path = tmp_path / f"wide{suffix}"
    path.write_bytes(wide.encode(order))
    cut_list.check_readable(path)
    assert read_cuts(path, *clock(PAL)) == expected


def test_the_pictures_decide_where_a_list_cannot_tell():
    found = CutList((20, 40), ((29, 31), (45, 60), (47, 48), (70, 72)))
    assert found.starts([0]) == (0, 20, 40)
    assert found.starts([0, 10, 21, 30, 41, 44, 45, 60, 61, 71]) == (0, 20, 30, 40, 45, 60, 71)
    assert CutList(()).starts([0, 5]) == (0,)


SPINE = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE fcpxml>
<fcpxml version="1.11"><resources>
<format id="r1" frameDuration="{frame}"/>
<asset id="a" name="a" start="{start}" duration="600s" hasVideo="1"><media-rep src="a.mov"/></asset>
<asset id="still" name="s" start="0s" duration="0s" hasVideo="1"><media-rep src="s.mov"/></asset>
<asset id="png" name="p" start="0s" duration="5s" hasVideo="1"><media-rep src="p.PNG"/></asset>
<asset id="sound" name="w" start="0s" duration="600s" hasAudio="1"/>
{resources}</resources><library><event name="E"><project name="P">
<sequence format="r1" tcStart="0s"><spine>{spine}</spine></sequence>
</project></event></library></fcpxml>"""


def spine(elements: str, resources: str = "", frame: str = "1/25s", start: str = "0s") -> str:
    return SPINE.format(spine=elements, resources=resources, frame=frame, start=start)


def one(at: int, length: int, more: str = "", inside: str = "", ref: str = "a") -> str:
    """A clip of whole seconds."""
    return (f'<asset-clip ref="{ref}" name="c{at}" offset="{at}s" duration="{length}s" {more}>'
            f"{inside}</asset-clip>")  # fmt: skip


MULTICAM = """<media id="mc"><multicam format="r1" tcStart="10s">
<mc-angle name="1" angleID="one"><asset-clip ref="a" offset="10s" duration="60s"/></mc-angle>
<mc-angle name="2" angleID="two"><asset-clip ref="a" offset="10s" duration="3s"/><gap offset="13s"
 duration="1s"/><asset-clip ref="a" offset="14s" duration="9s"/></mc-angle></multicam></media>"""
NESTED = """<media id="n"><sequence format="r1" tcStart="100s"><spine>
<asset-clip ref="a" offset="100s" duration="2s"/><asset-clip ref="a" offset="102s" duration="2s"/>
<asset-clip ref="a" offset="104s" duration="2s"/></spine></sequence></media>"""
UP = 'lane="1"'
ELEMENTS: dict[str, tuple[str, str, tuple[float, ...], tuple[float, ...]]] = {
    "clips without offsets follow each other": (
        '<asset-clip ref="a" duration="2s"/><asset-clip ref="a" duration="1s"/>'
        '<asset-clip ref="a" duration="3s"/>', "", (2, 3), ()),
    "a gap first is black at the start": (
        '<gap offset="0s" duration="2s"/>' + one(2, 3), "", (2,), ()),
    "a fade in and a fade out": (
        '<transition offset="0s" duration="1s"/>' + one(0, 4)
        + '<transition offset="3s" duration="1s"/><gap offset="4s" duration="2s"/>' + one(6, 2),
        "", (3, 6), ()),
    "a transition without an offset lies in the middle": (
        one(0, 4) + '<transition duration="2s"/>' + one(4, 4), "", (3,), ()),
    "a clip that is switched off leaves black": (
        one(0, 2) + one(2, 2, 'enabled="0"') + one(4, 2), "", (2, 4), ()),
    "sound only is no picture": (
        one(0, 2) + one(2, 2, ref="sound") + one(4, 2, 'srcEnable="audio"') + one(6, 1),
        "", (2, 6), ()),
    "titles and stills over a clip cover a part of it": (
        one(0, 9, "", f'<title {UP} offset="1s" duration="1s"/>'
            f'<video ref="still" {UP} offset="3s" duration="1s"/>'
            + one(5, 1, UP, ref="png") + f'<video ref="no" {UP} offset="7s" duration="1s"/>'),
        "", (), (1, 2, 3, 4, 5, 6, 7, 8)),
    "a title alone is a picture": (
        one(0, 2) + '<title offset="2s" duration="2s"/>' + one(4, 2), "", (2, 4), ()),
    "what is anchored to a gap": (
        '<gap offset="0s" start="3600s" duration="6s">' + one(3602, 2, UP) + "</gap>" + one(6, 2),
        "", (2, 4, 6), ()),
    "a storyline beside the first": (
        one(0, 9, "", f'<spine {UP} offset="2s">' + one(0, 2) + one(2, 2) + "</spine>"),
        "", (2, 4, 6), ()),
    "beneath the first storyline": (
        one(0, 9, "", one(2, 2, 'lane="-1"')), "", (), (2, 4)),
    "the active clip of an audition": (
        one(0, 2) + '<audition offset="2s">' + one(0, 3) + one(0, 5) + "</audition>" + one(5, 2),
        "", (2, 5), ()),
    "a synchronized clip is one": (
        one(0, 2) + '<sync-clip offset="2s" duration="3s"><spine>' + one(0, 1) + one(1, 2)
        + "</spine></sync-clip>" + one(5, 2), "", (2, 5), ()),
    "an older clip holds its picture": (
        '<clip offset="0s" duration="2s"><video ref="a"/></clip><clip offset="2s" duration="1s">'
        '<audio ref="sound"/></clip><clip offset="3s" duration="2s"><video ref="a"/></clip>',
        "", (2, 3), ()),
    "the angle of a multicam clip": (
        one(0, 2) + '<mc-clip ref="mc" offset="2s" start="12s" duration="4s">'
        '<mc-source angleID="one" srcEnable="audio"/><mc-source angleID="two" srcEnable="video"/>'
        "</mc-clip>" + one(6, 2), MULTICAM, (2, 3, 4, 6), ()),
    "a compound clip, trimmed": (
        one(0, 1) + '<ref-clip ref="n" offset="1s" start="101s" duration="4s"/>' + one(5, 2),
        NESTED, (1, 2, 4, 5), ()),
    "a compound clip from its start": (
        one(0, 1) + '<ref-clip ref="n" offset="1s" duration="6s"/>', NESTED, (1, 3, 5), ()),
    "a compound clip twice as fast": (
        one(0, 1) + '<ref-clip ref="n" offset="1s" start="0s" duration="3s"><timeMap>'
        '<timept time="0s" value="100s"/><timept time="3s" value="106s"/></timeMap></ref-clip>',
        NESTED, (1, 2, 3), ()),
    "a clip whose own time is that of its file": (
        one(0, 9, "", one(3602, 2, UP)), "", (2, 4), ()),
}  # fmt: skip


@pytest.mark.parametrize("case", ELEMENTS)
def test_the_elements_of_fcpxml(tmp_path, case):
    elements, resources, certain, doubtful = ELEMENTS[case]
    start = "3600s" if "3602s" in elements and "gap" not in elements else "0s"
    found = read(tmp_path, spine(elements, resources, start=start), count=25 * 20)
    assert found.frames == tuple(25 * at for at in certain)
    assert found.doubtful == tuple((25 * at - 1, 25 * at + 1) for at in doubtful)


@pytest.mark.parametrize("what", ["a ramp", "another media", "no media", "no angle"])
def test_cuts_of_nested_timelines_that_are_not_known_are_left_to_the_pictures(tmp_path, what):
    clip = {
        "a ramp": '<ref-clip ref="n" offset="2s" duration="4s"><timeMap><timept time="0s" value='
        '"0s"/><timept time="1s" value="3s"/><timept time="4s" value="4s"/></timeMap></ref-clip>',
        "another media": '<ref-clip ref="a" offset="2s" duration="4s"/>',
        "no media": '<ref-clip ref="none" offset="2s" duration="4s"/>',
        "no angle": '<mc-clip ref="mc" offset="2s" duration="4s"><mc-source angleID="x"/>'
        "</mc-clip>",
    }[what]
    text = spine(one(0, 2) + clip + one(6, 2), NESTED + MULTICAM)
    found = read(tmp_path, text, count=25 * 20)
    assert found == CutList((50, 150), ((49, 151),))
    assert found.starts([0, 75, 100, 160]) == (0, 50, 75, 100, 150)


# Rates and times.


def two_clips(rate: Fraction, first: int = 60, last: int = 60) -> str:
    tick = f"{rate.denominator}/{rate.numerator}s"
    times = [f"{n * rate.denominator}/{rate.numerator}s" for n in (first, last)]
    return spine(
        f'<asset-clip ref="a" duration="{times[0]}"/><asset-clip ref="a" duration="{times[1]}"/>',
        frame=tick,
    )


@pytest.mark.parametrize(
    ("rate", "own", "frame"),
    [("24", "23.976", 60), ("23.976", "24", 60), ("29.97", "59.94", 120), ("50", "25", 30),
     ("25", "50", 120)],
)  # fmt: skip
def test_rates_of_the_same_frames_go_together(tmp_path, rate, own, frame):
    found = read(tmp_path, two_clips(RATES[rate]), rate=RATES[own])
    assert found.frames == (frame,)


@pytest.mark.parametrize(("rate", "own"), [("25", "29.97"), ("24", "25"), ("23.976", "29.97")])
def test_a_timeline_of_another_rate_is_refused(tmp_path, rate, own):
    sentence = refused(tmp_path, two_clips(RATES[rate]), rate=RATES[own])
    assert f"has {rate} frames per second and the video {own}," in sentence


def test_frames_of_variable_rate_are_found_by_their_times(tmp_path):
    path = tmp_path / "edit.fcpxml"
    path.write_text(two_clips(PAL, first=50))
    pts = np.cumsum(np.tile([20, 90, 33, 41], 40))
    found = read_cuts(path, pts, Fraction(1, 1000), Fraction(1000, 46))
    assert found.frames == (int(np.abs(pts - pts[0] - 2000).argmin()),)


def test_a_format_that_states_no_rate_counts_by_time(tmp_path):
    text = two_clips(PAL).replace('frameDuration="1/25s"', 'name="FFVideoFormatRateUndefined"')
    assert read(tmp_path, text, rate=RATES["50"]).frames == (120,)


def test_a_cut_between_two_frames_is_at_the_later_one(tmp_path):
    text = spine(
        '<asset-clip ref="a" duration="1001/500s"/><asset-clip ref="a" duration="1s"/>'
    )  # fmt: skip
    assert read(tmp_path, text).frames == (51,)
    assert read(tmp_path, text.replace("1001/500s", "100001/50000s")).frames == (50,)


def test_the_end_of_a_timeline_is_no_cut_but_one_beyond_the_video_is_refused(tmp_path):
    assert read(tmp_path, two_clips(PAL, 60, 140)).frames == (60,)
    text = spine(one(0, 4) + '<gap offset="4s" duration="4s"/>' + one(8, 1))
    assert read(tmp_path, text, count=226).frames == (100, 200)
    sentence = refused(tmp_path, text, count=150)
    assert "has a cut at 0:00:08.000, after the end of the video at 0:00:06.000" in sentence
    # Black after the last picture, and sound that goes on.
    text = spine(one(0, 4) + '<gap offset="4s" duration="9s"/>' + one(4, 9, ref="sound"))
    assert read(tmp_path, text, count=100).frames == ()


def test_a_part_of_a_video_has_the_cuts_that_lie_in_it(tmp_path):
    path, listing = tmp_path / "edit.otio", tmp_path / "cuts.edl"
    path.write_text(timelines.otio(PAL))
    pts, time_base, rate = clock(PAL)
    edl.write_cuts(listing, ((0, 20), (20, 75), (75, 130), (130, 200)), pts, time_base, rate, "x")
    part = slice(60, 140)
    found = read_cuts(path, pts[part], time_base, rate, begin=500)
    assert found.frames == tuple(at - 60 for at in CERTAIN if 60 <= at < 140)
    assert found.starts([0, 3]) == (0, 10, 20, 30, 40, 60, 70)
    assert read_cuts(listing, pts[part], time_base, rate, begin=500).frames == (15, 70)


# XML of Final Cut Pro 7.


def xmeml(tracks: str, more: str = "") -> str:
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE xmeml>
<xmeml version="5"><sequence id="s"><name>S</name>
<rate><timebase>25</timebase><ntsc>FALSE</ntsc></rate>
<media><video>{tracks}</video></media></sequence>{more}</xmeml>"""


def item(start: int, end: int, inside: str = "<file><pathurl>a.mov</pathurl></file>") -> str:
    return f"<clipitem><start>{start}</start><end>{end}</end><in>0</in>{inside}</clipitem>"


INNER = (
    '<sequence id="n"><rate><timebase>50</timebase></rate><media><video><track>'
    f"{item(0, 40)}{item(40, 120)}{item(120, 300)}</track></video></media></sequence>"
)
TRACKS = {
    "tracks and clips that are switched off": (
        f"<track>{item(0, 30)}{item(30, 60, '<enabled>FALSE</enabled>')}{item(60, 90)}</track>"
        f"<track>{item(0, 44)}<enabled>FALSE</enabled></track>", (30, 60), ()),
    "both ends of a clip in transitions": (
        f"<track>{item(0, -1)}<transitionitem><start>20</start><end>30</end></transitionitem>"
        f"{item(-1, -1)}<transitionitem><start>50</start><end>60</end></transitionitem>"
        f"{item(-1, 90)}</track>", (20, 50), ()),
    "a fade out before black": (
        f"<track>{item(0, -1)}<transitionitem><start>20</start><end>30</end><alignment>end-black"
        f"</alignment></transitionitem>{item(60, 90)}</track>", (20, 60), ()),
    "a nested sequence of twice the rate": (
        f"<track>{item(0, 30)}{item(30, 90, INNER)}</track>", (30, 50), ()),
    "a nested sequence at half speed": (
        f"<track>{item(0, 30)}" + item(30, 190, INNER + "<filter><effect><effectid>timeremap"
        "</effectid><parameter><parameterid>speed</parameterid><value>50</value></parameter>"
        "</effect></filter>") + "</track>", (30, 70, 150), ()),
    "stills, slugs and generators over a clip": (
        f"<track>{item(0, 190)}</track><track>"
        + item(10, 20, "<file><pathurl>file://localhost/a%20b/logo.psd</pathurl></file>")
        + item(30, 40, "<file><mediaSource>Slug</mediaSource></file>")
        + "<generatoritem><start>50</start><end>60</end></generatoritem></track>",
        (), (10, 20, 30, 40, 50, 60)),
}  # fmt: skip


@pytest.mark.parametrize("case", TRACKS)
def test_the_elements_of_the_xml_of_final_cut_7(tmp_path, case):
    tracks, certain, doubtful = TRACKS[case]
    found = read(tmp_path, xmeml(tracks), ".xml")
    assert found.frames == certain
    assert found.doubtful == tuple((at - 1, at + 1) for at in doubtful)


@pytest.mark.parametrize(
    "remap", ["<parameterid>variablespeed</parameterid><value>1</value>",
              "<parameterid>reverse</parameterid><value>TRUE</value>"],
)  # fmt: skip
def test_a_nested_sequence_that_changes_its_speed_is_left_to_the_pictures(tmp_path, remap):
    effect = f"<effectid>timeremap</effectid><parameter>{remap}</parameter>"
    inside = f"{INNER}<filter><effect>{effect}</effect></filter>"
    found = read(tmp_path, xmeml(f"<track>{item(0, 30)}{item(30, 90, inside)}</track>"), ".xml")
    assert found == CutList((30,), ((29, 91),))


def test_a_sequence_that_is_nested_elsewhere_is_not_taken_for_the_edit(tmp_path):
    nested = INNER.replace('id="n"', 'id="n" explodedTracks="true"')
    inside = '<sequence id="n"/>'
    track = f"<track>{item(0, 30)}{item(30, 90, inside)}</track>"
    assert read(tmp_path, xmeml(track, nested), ".xml").frames == (30, 50)


# OpenTimelineIO.


def test_a_timeline_of_scripts_is_read(tmp_path):
    """Clips without ranges of their own, a trimmed track, and a clip beside the tracks."""
    import opentimelineio

    schema, time = opentimelineio.schema, opentimelineio.opentime

    def span(start, length, rate=25):
        return time.TimeRange(time.RationalTime(start, rate), time.RationalTime(length, rate))

    def clip(length, **more):
        return schema.Clip(
            media_reference=schema.ExternalReference("a.mov", span(0, length)), **more
        )

    inner = schema.Track(kind="Video", source_range=span(10, 60))
    inner.extend([clip(30), clip(30), clip(40)])
    track = schema.Track(kind="Video", source_range=span(20, 140))
    off = clip(20)
    off.enabled = False
    track.extend([clip(40), off, inner, clip(60)])
    edit = schema.Timeline("t")
    edit.tracks.append(track)
    hidden = schema.Track(kind="Video")
    hidden.enabled = False
    hidden.append(clip(33))
    edit.tracks.append(hidden)
    collection = schema.SerializableCollection("bin", [clip(5), edit])
    for found in (edit, collection):
        text = opentimelineio.core.serialize_json_to_string(found)
        # 40 - 20; off to 40; the inner track shows 10 to 70 of its own, with cuts at 30 and 60.
        assert read(tmp_path, text, ".otio").frames == (20, 40, 60, 90, 100)


@pytest.mark.parametrize(
    ("change", "doubtful"),
    [({"OTIO_SCHEMA": "FreezeFrame.1", "time_scalar": 0}, ((119, 161),)),
     ({"OTIO_SCHEMA": "TimeEffect.1"}, ((119, 161),)),
     ({"OTIO_SCHEMA": "LinearTimeWarp.1", "time_scalar": -1.0}, ((119, 161),))],
)  # fmt: skip
def test_nested_timelines_of_unknown_speed_are_left_to_the_pictures(tmp_path, change, doubtful):
    edit = json.loads(timelines.otio(PAL))
    nested = edit["tracks"]["children"][0]["children"][5]
    nested["effects"] = [{"name": "", "effect_name": "", "metadata": {}, **change}]
    assert doubtful[0] in read(tmp_path, json.dumps(edit), ".otio").doubtful


def test_an_empty_nested_timeline_is_left_to_the_pictures(tmp_path):
    edit = json.loads(timelines.otio(PAL))
    edit["tracks"]["children"][0]["children"][5]["children"] = []
    found = read(tmp_path, json.dumps(edit), ".otio")
    assert (119, 161) in found.doubtful
    assert 130 not in found.frames


def test_shots_come_back_from_the_timeline_that_was_written(tmp_path):
    import opentimelineio

    shots, path = ((0, 20), (20, 41), (41, 66), (66, 90)), tmp_path / "cuts.otio"
    for rate in RATES.values():
        pts, time_base, _ = clock(rate, 90)
        counts = edl.nominal_counts(pts, time_base, rate)
        otio.write_cuts(path, shots, counts, rate, tmp_path / "my tape.mov")
        assert read_cuts(path, pts, time_base, rate).starts(()) == (0, 20, 41, 66)
        edit = opentimelineio.core.deserialize_json_from_file(str(path))
        clips = list(edit.find_clips())
        assert [clip.name for clip in clips] == [f"my tape {n}" for n in (1, 2, 3, 4)]
        assert clips[2].media_reference.target_url.endswith("/my%20tape.mov")
        assert clips[2].source_range.start_time.value == 41
    with pytest.raises(OutputError, match="cannot be written: no such file or directory"):
        otio.write_cuts(tmp_path / "no" / "cuts.otio", shots, counts, PAL, tmp_path / "a.mov")


# What cannot be read.

BOMB = '<!DOCTYPE fcpxml [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefghi", "bcdefghij", strict=True)
) + "]>"  # fmt: skip
TYPE = "<!DOCTYPE fcpxml>"
HOSTILE = {
    "entities that multiply": spine("&j;").replace(TYPE, BOMB),
    "an entity of another file": spine("&x;").replace(
        TYPE, '<!DOCTYPE fcpxml [<!ENTITY x SYSTEM "file:///etc/passwd">]>'),
    "an entity of another host": spine("&x;").replace(
        TYPE, '<!DOCTYPE fcpxml [<!ENTITY % x SYSTEM "http://192.0.2.1/x.dtd"> %x;]>'),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_document_type_of_its_own_is_refused(tmp_path, case):
    sentence = refused(tmp_path, HOSTILE[case])
    assert "declares a document type fcpxml of its own, which vidrestore does not read" in sentence


def test_a_document_type_elsewhere_is_not_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("connected"))
    for system in ("http://192.0.2.1/fcpxml.dtd", "/etc/passwd", str(tmp_path / "a.dtd")):
        (tmp_path / "a.dtd").write_text('<!ENTITY x "<gap/>">')
        text = spine(one(0, 2) + one(2, 2)).replace(TYPE, f'<!DOCTYPE fcpxml SYSTEM "{system}">')
        assert read(tmp_path, text).frames == (50,)


def nesting(count: int, each: int) -> str:
    """Media that show each other, so that the last is shown each ** count times."""
    media = "".join(
        f'<media id="m{n}"><sequence format="r1"><spine>'
        + f'<ref-clip ref="m{n + 1}" duration="{each ** (count - n)}s"/>' * each
        + "</spine></sequence></media>"
        for n in range(count)
    )
    last = (
        f'<media id="m{count}"><sequence><spine>{one(0, 1)}{one(1, 1)}</spine></sequence></media>'
    )
    return spine(f'<ref-clip ref="m0" duration="{each**count}s"/>', media + last)


WRONG: dict[str, tuple[str, str, str]] = {
    "a text": (".fcpxml", "hello", "is not valid XML: syntax error in line 1, column 1"),
    "nothing": (".xml", "", "is not valid XML: no element found"),
    "half": (".fcpxml", spine(one(0, 1))[:500], "is not valid XML: "),
    "an unknown entity": (".xml", "<xmeml>&x;</xmeml>", "valid XML: undefined entity in line 1"),
    "another document": (".xml", "<html/>", "nor the XML of Final Cut Pro 7, but a document html"),
    "elements that nest": (".xml", "<a>" * 300 + "</a>" * 300, "its elements more than 200 deep"),
    "no project": (".fcpxml", "<fcpxml version='1.9'/>", "holds no project with a sequence"),
    "two projects": (
        ".fcpxml", timelines.fcpxml(PAL).replace("</event>", '<project name="Two"><sequence>'
        "<spine/></sequence></project></event>"),
        "holds 2 projects, such as 'Edit', 'Two'; export one of them"),
    "no storyline": (
        ".fcpxml", "<fcpxml><project><sequence/></project></fcpxml>",
        "has an element sequence without a spine"),
    "no picture": (".fcpxml", spine('<gap duration="9s"/>'), "shows no picture"),
    "no time": (".fcpxml", spine('<asset-clip ref="a" duration="two"/>'), "has 'two' for duration"),
    "no duration": (".fcpxml", spine('<clip name="x"/>'), "has the clip 'x' without a duration"),
    "a division by 0": (".fcpxml", spine('<title duration="1/0s"/>'), "has '1/0s' for duration"),
    "a clip of negative length": (
        ".fcpxml", spine('<asset-clip duration="-5s"/>'), "element asset-clip that ends before"),
    "a lane that is none": (
        ".fcpxml", spine(one(0, 2, "", '<title lane="x" duration="1s"/>')), "has 'x' for a lane"),
    "an audition of nothing": (".fcpxml", spine("<audition/>"), "has an audition without clips"),
    "no rate": (
        ".fcpxml", spine(one(0, 2), frame="0s"), "states '0s' for the duration of a frame"),
    "media that show themselves": (
        ".fcpxml", spine('<ref-clip ref="m" duration="1s"/>', '<media id="m"><sequence><spine>'
        '<ref-clip ref="m" duration="1s"/></spine></sequence></media>'),
        "nests its timelines more than 16 deep"),
    "media that multiply": (".fcpxml", nesting(12, 10), "has more than 50,000 cuts"),
    "no sequence": (".xml", "<xmeml/>", "holds no sequence; export the sequence itself"),
    "two sequences": (
        ".xml", xmeml(f"<track>{item(0, 9)}</track>", INNER),
        "holds 2 sequences, such as 'S', ''; export one"),
    "no rate of a sequence": (
        ".xml", "<xmeml><sequence><name>S</name><media/></sequence></xmeml>",
        "has the sequence 'S' without a rate"),
    "a rate of 0": (
        ".xml", xmeml("").replace(">25<", ">0<"), "has '0' for a timebase, which is no rate"),
    "a place that is no frame": (
        ".xml", xmeml(f"<track>{item(0, 9).replace('>9<', '>x<')}</track>"),
        "has an element clipitem whose end is 'x', not a frame"),
    "a clip before its sequence": (
        ".xml", xmeml(f"<track>{item(-7, 9)}</track>"), "whose start is -7, before its sequence"),
    "a start in no transition": (
        ".xml", xmeml(f"<track>{item(-1, 9)}</track>"), "that begins in no transition"),
    "an end in no transition": (
        ".xml", xmeml(f"<track>{item(0, -1)}{item(20, 30)}</track>"), "that ends in no transition"),
    "a last end in no transition": (
        ".xml", xmeml(f"<track>{item(0, -1)}</track>"), "of a track that ends in no transition"),
    "an end before the start": (
        ".xml", xmeml(f"<track>{item(20, 9)}</track>"), "clipitem that ends before it begins"),
    "a sequence in itself": (
        ".xml", xmeml(item(0, 9, '<sequence id="s"/>')), "holds no sequence"),
    "JSON that is none": (".otio", "{", "is not valid JSON: "),
    "another object": (".otio", "{}", "holds no timeline; export the timeline itself"),
    "a list": (".otio", "[1, 2]", "holds no timeline"),
    "no JSON object": (".otio", "null", "holds no timeline"),
    "JSON of a number": (".otio", "5", "holds no timeline"),
    "JSON of a text": (".otio", '"Timeline.1"', "holds no timeline"),
    "objects that nest": (".otio", '{"a":' * 5000 + "1" + "}" * 5000, "nested too deeply"),
    "lists that nest": (".otio", "[" * 100_000 + "]" * 100_000, "nested too deeply"),
    "lists that nest a little": (".otio", "[" * 400 + "]" * 400, "its objects more than 250 deep"),
    "a schema of the future": (
        ".otio", timelines.otio(PAL).replace("Clip.2", "Clip.99"),
        "cannot be read by OpenTimelineIO: unsupported schema version"),
    "an unknown schema": (
        ".otio", timelines.otio(PAL).replace("Gap.1", "Hole.1"), "cannot be read by OpenTimeline"),
    "a text for a number": (
        ".otio", timelines.otio(PAL).replace('"value": 40.0', '"value": "x"'), "type mismatch"),
    "no rate of a time": (
        ".otio", timelines.otio(PAL).replace('"rate": 25.0', '"rate": 0'), "states 0 frames per"),
    "a rate that is none": (
        ".otio", timelines.otio(PAL).replace('"rate": 25.0', '"rate": NaN'), "states nan frames"),
    "a time that is none": (
        ".otio", timelines.otio(PAL).replace('"value": 40.0', '"value": NaN'), "time of nan fram"),
    "a time without end": (
        ".otio", timelines.otio(PAL).replace('"value": 40.0', '"value": 1e300'), "time of 1e+300"),
    "a clip of negative time": (
        ".otio", timelines.otio(PAL).replace('"value": 40.0', '"value": -40.0'), "negative length"),
    "tracks that are none": (
        ".otio", '{"OTIO_SCHEMA": "Timeline.1", "tracks": null}', "has no tracks"),
    "a timeline in itself": (
        ".otio", '{"OTIO_SCHEMA": "Timeline.1", "tracks": {"OTIO_SCHEMA": "Stack.1", "OTIO_REF_ID":'
        ' "S", "children": [{"OTIO_SCHEMA": "SerializableObjectRef.1", "id": "S"}]}}', "16 deep"),
    "two timelines": (
        ".otio", json.dumps({"OTIO_SCHEMA": "SerializableCollection.1", "children": [
            json.loads(timelines.otio(PAL)), json.loads(timelines.otio(PAL))]}),
        "holds 2 timelines, such as 'Edit', 'Edit'; export one of them"),
    "a clip without a length": (
        ".otio", timelines.otio(PAL).replace('"source_range": {', '"source_range_": {'),
        "without a length"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_read_is_one_sentence(tmp_path, case):
    suffix, text, words = WRONG[case]
    assert words in refused(tmp_path, text, suffix)


def test_media_that_nest_as_deep_as_editors_do_are_read(tmp_path):
    assert read(tmp_path, nesting(9, 1)).frames == ()
    assert read(tmp_path, spine(one(0, 2) + one(2, 1)) + "\n" * 9).frames == (50,)


@pytest.mark.parametrize("suffix", [".fcpxml", ".otio"])
def test_a_file_that_is_too_large_or_no_text_is_refused(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(cut_list, "_MOST_BYTES", 1 << 20)
    path = tmp_path / f"edit{suffix}"
    path.write_bytes(b" " * ((1 << 20) + 1))
    with pytest.raises(ConfigError, match="is larger than 1 MiB, so it is another kind of file"):
        read_cuts(path, *clock(PAL))
    path.write_bytes(("ä" + spine(one(0, 1))).encode("latin-1"))
    with pytest.raises(ConfigError, match="is not text in UTF-8; save it in UTF-8"):
        read_cuts(path, *clock(PAL))


@pytest.mark.parametrize("form", ["Resolve, FCPXML 1.10", "Premiere, XML", "Resolve, OTIO"])
def test_too_many_clips_are_refused(tmp_path, monkeypatch, form):
    suffix, write = FORMS[form]
    for most in (20, 8):
        monkeypatch.setattr(timeline, "MOST_CUTS", most)
        if most == 8:
            assert "has more than 8 cuts or clips" in refused(tmp_path, write(PAL), suffix)
        else:
            assert read(tmp_path, write(PAL), suffix).frames == CERTAIN


def test_too_many_elements_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(xml_files, "_MOST_ELEMENTS", 5)
    assert "has more than 5 elements" in refused(tmp_path, spine(one(0, 1)))


def test_a_bundle_of_final_cut_is_read(tmp_path):
    bundle = tmp_path / "edit.fcpxmld"
    bundle.mkdir()
    with pytest.raises(ConfigError, match=r"edit\.fcpxmld/Info\.fcpxml does not exist"):
        read_cuts(bundle, *clock(PAL))
    (bundle / "Info.fcpxml").write_text(timelines.fcpxml(PAL))
    assert read_cuts(bundle, *clock(PAL)).frames == CERTAIN
    cut_list.check_readable(bundle)
    assert cut_list.check_content(bundle, PAL) is None


def test_a_timeline_without_the_library_says_how_to_get_it(tmp_path, monkeypatch):
    path = tmp_path / "edit.otio"
    path.write_text(timelines.otio(PAL))
    monkeypatch.setitem(sys.modules, "opentimelineio", None)
    for check in (cut_list.check_readable, lambda path: cut_list.check_content(path, PAL)):
        with pytest.raises(ConfigError, match=r"run pip install 'vidrestore\[otio\]'"):
            check(path)
    # The others need nothing.
    assert read(tmp_path, timelines.xmeml(PAL), ".xml").frames == CERTAIN


CHILD = """
import sys
from pathlib import Path
from fractions import Fraction
import numpy as np
from vidrestore.analysis.cut_list import read_cuts
from vidrestore.common.errors import ConfigError

clock = np.arange(200), Fraction(1, 25), Fraction(25)
for name in sys.argv[1:]:
    try:
        print(name, read_cuts(Path(name), *clock).frames)
    except ConfigError as error:
        print(name, str(error))
print("opentimelineio" in sys.modules)
"""


def child(*paths: Path, **environment: str) -> list[str]:
    """What a new process prints that reads these lists."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *map(str, paths)],
        env=os.environ | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.returncode, done.stdout[-500:], done.stderr[-500:])
    return done.stdout.splitlines()


def test_no_code_that_the_environment_names_is_run(tmp_path):
    plugin, ran = tmp_path / "bad.py", tmp_path / "ran"
    plugin.write_text(f"open({str(ran)!r}, 'w').close()\n")
    named = {"name": "bad", "filepath": str(plugin)}
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({
        "OTIO_SCHEMA": "PluginManifest.1",
        "adapters": [{"OTIO_SCHEMA": "Adapter.1", "suffixes": ["otio", "xml"], **named}],
        "schemadefs": [{"OTIO_SCHEMA": "SchemaDef.1", **named}],
        "media_linkers": [{"OTIO_SCHEMA": "MediaLinker.1", **named}],
        "hook_scripts": [{"OTIO_SCHEMA": "HookScript.1", **named}],
        "hooks": {"post_adapter_read": ["bad"], "pre_adapter_write": ["bad"]},
    }))  # fmt: skip
    path = tmp_path / "edit.otio"
    path.write_text(timelines.otio(PAL).replace('"Resolve_OTIO": {', '"a": {"OTIO_SCHEMA": "Bad.1"'
                                                ', "b": 1}, "Resolve_OTIO": {'))  # fmt: skip
    printed = child(path, OTIO_PLUGIN_MANIFEST_PATH=str(manifest), OTIO_DEFAULT_MEDIA_LINKER="bad")
    assert printed == [f"{path} {CERTAIN}", "True"]
    assert not ran.exists()


def test_only_a_timeline_of_opentimelineio_loads_the_library(tmp_path):
    paths = [tmp_path / name for name in ("a.fcpxml", "a.xml", "a.edl")]
    paths[0].write_text(timelines.fcpxml(PAL))
    paths[1].write_text(timelines.xmeml(PAL))
    edl.write_cuts(paths[2], ((0, 20), (20, 41)), *clock(PAL), "x")
    assert child(*paths)[-1] == "False"


PIECES = [
    "NaN", "-1", "1e400", "9" * 400, "0", "null", "[]", "{}", '"', "<", "&a;", "\0", "s", "/",
    "-1/0s", "1/99999999999999999999s", "lane='9'", "<spine>", "</spine>", "<!--", "]]>", "x" * 999,
    '"OTIO_REF_ID": "a", ', '{"OTIO_SCHEMA": "SerializableObjectRef.1", "id": "a"}', "Stack.1",
    "Track.1", "Transition.1", "enabled='0'", "<sequence id='sequence-1'/>", "\ud7ff", "\n",
]  # fmt: skip


def damaged(text: str, how: random.Random) -> str:
    for _ in range(how.randint(1, 4)):
        at = how.randrange(len(text))
        end = at + how.choice((0, 1, 4, 60))
        text = text[:at] + how.choice([*PIECES, text[at:end] * 2, ""]) + text[end:]
    return text


@pytest.mark.parametrize("form", ["Final Cut Pro, FCPXML 1.11", "Premiere, XML", "Resolve, OTIO"])
def test_damaged_files_are_read_or_refused_in_a_sentence(tmp_path, form):
    """In another process, which a fault of a library would end."""
    suffix, write = FORMS[form]
    how, good = random.Random(form), write(PAL)
    paths = [tmp_path / f"{number}{suffix}" for number in range(150)]
    for path in paths:
        path.write_text(damaged(good, how), encoding="utf-8")
    printed = child(*paths)
    assert len(printed) == len(paths) + 1
    assert len({line.partition(" ")[2] for line in printed}) > 10


# In the analysis of a video.


class NoFaces(Detector):
    """A detector that sees nothing."""

    coarse = False

    def __call__(self, picture):
        return []


def levels(*shots: tuple[int, int]) -> list[Any]:
    """Pictures of one gray level for each (length, level)."""
    images = []
    for length, level in shots:
        image = av.VideoFrame(64, 48, "gray")
        plane(image, 0)[...] = level
        plane(image, 0)[::7] = 128
        images += [image] * length
    return images


def shots_of(source: Path, listing: Path | None, mode: str = "off", **more: Any) -> tuple[Any, ...]:
    settings = load_settings(options={
        "shots.edl": None if listing is None else str(listing), "fields.deinterlace": mode,
        "detect.remember": False, "people.recognise": False,
    })  # fmt: skip
    return analyze_video(source, settings, detector=NoFaces(), **more).shots


def test_a_hidden_cut_counts_where_the_pictures_show_it(tmp_path):
    """Here F is a small picture, beside which the cut at 160 is seen and that at 155 is not."""
    listing = tmp_path / "edit.fcpxml"
    listing.write_text(timelines.fcpxml(PAL))
    shown = [(40, 20), (40, 90), (80, 200), (40, 40)]  # cuts at 40, 80 and 160
    source = write_video(tmp_path / "tape.mkv", levels(*shown))
    assert [start for start, _ in shots_of(source, None)] == [0, 40, 80, 160]
    starts = [start for start, _ in shots_of(source, listing)]
    assert starts == sorted({0, *CERTAIN, 160})


def test_a_list_counts_from_the_start_of_the_video_also_for_a_part_of_it(tmp_path):
    source = write_video(tmp_path / "tape.mkv", levels((200, 90)), pts=[512 * i + 9000 for i in
                                                                        range(200)])  # fmt: skip
    pts, time_base, rate = clock(PAL)
    listings = [tmp_path / name for name in ("edit.otio", "cuts.edl")]
    listings[0].write_text(timelines.otio(PAL))
    bounds = (0, *CERTAIN, 200)
    edl.write_cuts(listings[1], tuple(pairwise(bounds)), pts, time_base, rate, "x")
    span = TimeRange(Fraction(3), Fraction("5.2"))
    for listing in listings:
        assert shots_of(source, listing) == tuple(pairwise(bounds))
        part = shots_of(source, listing, span=span)
        assert [start + 75 for start, _ in part] == [75, *(at for at in CERTAIN if 75 < at < 130)]


@pytest.mark.parametrize(
    ("mode", "each"), [("keep", 2), ("bob", 2), ("frame", 1), ("off", 1)]
)  # fmt: skip
def test_lists_count_the_frames_of_interlaced_footage_and_not_its_fields(tmp_path, mode, each):
    pictures = footage.images(footage.pan(80, 160, 96), "yuv420p")
    source = footage.film(tmp_path / "tape.mkv", footage.woven_by_hand(pictures, "tff"), flag="tff")
    listings = [tmp_path / name for name in ("cuts.edl", "cuts.otio", "edit.xml")]
    pts, time_base, rate = clock(PAL, 40)
    shots = ((0, 9), (9, 30), (30, 40))
    edl.write_cuts(listings[0], shots, pts, time_base, rate, "x")
    counts = edl.nominal_counts(pts, time_base, rate)
    otio.write_cuts(listings[1], shots, counts, rate, source)
    listings[2].write_text(xmeml(f"<track>{item(0, 9)}{item(9, 30)}{item(30, 40)}</track>"))
    for listing in listings:
        found = shots_of(source, listing, mode)
        assert [start for start, _ in found] == [0, 9 * each, 30 * each]


@pytest.mark.parametrize("suffix", [".edl", ".otio"])
@pytest.mark.parametrize("mode", ["keep", "off"])
def test_the_shots_that_are_written_are_read_again(tmp_path, mode, suffix):
    shots = [footage.pan(40, 160, 96), footage.pan(40, 160, 96, photo=data.astronaut())]
    pictures = footage.images([*shots[0], *shots[1]], "yuv420p")
    source = footage.film(tmp_path / "tape.mkv", footage.woven_by_hand(pictures, "tff"), flag="tff")
    settings = load_settings(options={"fields.deinterlace": mode, "people.recognise": False})
    analysis = analyze_video(source, settings, detector=NoFaces())
    assert len(analysis.shots) == 2
    listing = tmp_path / f"cuts{suffix}"
    write_shots(analysis, source, listing)
    assert shots_of(source, listing, mode) == analysis.shots
    if suffix == ".edl":  # at the rate of the file
        assert "00:00:00:20 00:00:01:15" in listing.read_text()


class Watched(NoFaces):
    """A detector that must not be asked."""

    def __call__(self, picture):
        pytest.fail("the pictures were looked at")


IMPOSSIBLE = "001  AX  V  C  00:00:00:00 00:00:00:29 00:00:00:00 00:00:01:00\n"
IMPOSSIBLE += "002  AX  V  C  00:00:00:00 00:00:01:00 00:00:01:29 00:00:02:00\n"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("edit.fcpxml", "<fcpxml/>", "holds no project"),
        ("edit.edl", "a project of another program", "has no video event, or is not a CMX 3600"),
        ("edit.prproj", "\0\1", "has no video event, or is not a CMX 3600"),
        ("edit.edl", IMPOSSIBLE, "line 2: there is no time code 00:00:01:29 at 25 frames"),
        ("deep.xml", xmeml(f"<track>{item(10, 5)}</track>"), "ends before it begins"),
    ],
)
def test_a_bad_list_is_refused_before_the_analysis(tmp_path, name, text, words):
    source = write_video(tmp_path / "tape.mkv", levels((4, 90)))
    listing = tmp_path / name
    listing.write_text(text)
    settings = load_settings(options={"shots.edl": str(listing), "people.recognise": False})
    with pytest.raises(ConfigError, match=words):
        analyze_video(source, settings, detector=Watched())


@pytest.mark.parametrize("varies", [False, True])
def test_a_timeline_of_another_rate_is_said_before_the_analysis(tmp_path, varies):
    pts = [512 * i + (2000 if varies and i > 100 else 0) + 300 * (varies and i % 2) for i in
           range(210)]  # fmt: skip
    source = write_video(tmp_path / "tape.mkv", levels((210, 90)), pts=pts)
    listing, told = tmp_path / "edit.otio", []
    listing.write_text(timelines.otio(Fraction(30000, 1001)))

    class Late(NoFaces):
        def __call__(self, picture):
            assert any("has 29.97 frames per second" in text for text in messages(told))
            return super().__call__(picture)

    settings = load_settings(options={
        "shots.edl": str(listing), "people.recognise": False, "detect.remember": False,
    })  # fmt: skip
    if varies:
        assert len(analyze_video(source, settings, detector=Late(), on_event=told.append).shots) > 5
    else:
        with pytest.raises(ConfigError, match=r"export the timeline at the rate of the video"):
            analyze_video(source, settings, detector=Late(), on_event=told.append)
    assert sum("unless its frames have no constant rate" in text for text in messages(told)) == 1


def test_an_analysis_belongs_to_the_content_of_a_bundle(tmp_path):
    bundle = tmp_path / "edit.fcpxmld"
    bundle.mkdir()
    settings = load_settings(options={"shots.edl": str(bundle)})
    found = set()
    for text in (timelines.fcpxml(PAL), spine(one(0, 1)), None):
        if text is None:
            (bundle / "Info.fcpxml").unlink()
        else:
            (bundle / "Info.fcpxml").write_text(text)
        found.add(cache._settings_hash(settings, None))
    assert len(found) == 3

"""One edit, written as several editing programs write theirs, at any rate.

    frames     0      34  40  46     70   80  90 100   120     150  160 165  170 180   200
    V3                                                                         title
    V2                                         E               F--------F
    V1         A------[dissolve]B----gap      C---------|nested-----|D-----------------

C runs twice as fast. The nested timeline is shown from its frame 10 on, and has cuts at 20 and 45,
which lie at 130 and 155 of the edit. F hides the cuts at 155 and 160; the title covers D in part.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from typing import Any

LENGTH = 200
CERTAIN = (34, 70, 80, 90, 100, 120, 130, 150, 165)
DOUBTFUL = (155, 160, 170, 180)

RATES = {
    "23.976": Fraction(24000, 1001),
    "24": Fraction(24),
    "25": Fraction(25),
    "29.97": Fraction(30000, 1001),
    "50": Fraction(50),
    "59.94": Fraction(60000, 1001),
}


def is_drop(rate: Fraction) -> bool:
    return round(rate) in (30, 60) and rate.denominator > 1


def hour(rate: Fraction) -> int:
    """The frames before time code 01:00:00:00, or 01:00:00;00 with drop frame."""
    whole = 3600 * round(rate)
    return whole - round(rate) // 15 * 54 if is_drop(rate) else whole


# FCPXML


def seconds(frames: int, rate: Fraction, *, slashed: bool = False) -> str:
    """As Final Cut Pro writes a time; DaVinci Resolve writes whole seconds as a fraction, too."""
    time = frames / rate
    if time.denominator == 1:
        return f"{time.numerator}/1s" if slashed else f"{time.numerator}s"
    return f"{frames * rate.denominator}/{rate.numerator}s"


def fcpxml(rate: Fraction, *, version: str = "1.11", resolve: bool = False) -> str:
    begin = hour(rate)
    tick = 1 / rate

    def t(frames: int) -> str:
        return seconds(frames, rate, slashed=resolve)

    on = ' enabled="1"' if resolve else ""
    numbers = tuple(map(int, version.split(".")))
    reps = numbers >= (1, 9)
    src = "" if reps else ' src="file:///media/a.mov"'
    rep = '<media-rep kind="original-media" src="file:///media/a.mov"/>' if reps else ""
    form = 'tcFormat="DF"' if is_drop(rate) else 'tcFormat="NDF"'

    def clip(name: str, at: int, length: int, start: int, inside: str = "", more: str = "") -> str:
        timing = f'offset="{t(at)}" start="{t(start)}" duration="{t(length)}"'
        return f'<asset-clip name="{name}" ref="r2" {timing} {form}{on}{more}>{inside}</asset-clip>'

    dissolve = f'<transition name="Cross Dissolve" offset="{t(begin + 34)}" duration="{t(12)}"/>'
    source = 1000
    upper = clip("E", source + 10, 10, 50, more=' lane="1"')
    sound = f'<asset-clip name="S" ref="r5" lane="-1" offset="{t(source)}" duration="{t(5)}"/>'
    retime = (f'<timeMap><timept time="0s" value="0s" interp="linear"/>'
              f'<timept time="{t(500)}" value="{t(1000)}" interp="linear"/></timeMap>')  # fmt: skip
    broll = clip("F", 10 + 30, 15, 70, more=' lane="1"')
    title = (f'<title name="T" ref="r3" lane="2" offset="{t(source + 10)}" start="{t(90_000)}" '
             f'duration="{t(10)}"><text>Name</text></title>')  # fmt: skip
    spine = "".join([
        clip("A", begin, 40, source), dissolve, clip("B", begin + 40, 30, source),
        f'<gap name="Gap" offset="{t(begin + 70)}" start="{t(begin)}" duration="{t(10)}"/>',
        clip("C", begin + 80, 40, source, retime + upper + sound),
        f'<ref-clip name="N" ref="r4" offset="{t(begin + 120)}" start="{t(10)}" '
        f'duration="{t(40)}"{on}>{broll}</ref-clip>',
        clip("D", begin + 160, 40, source, title),
    ])  # fmt: skip
    inner = "".join(
        clip(name, at, length, 300)
        for name, at, length in (("n1", 0, 20), ("n2", 20, 25), ("n3", 45, 60))
    )
    frame = f"{tick.numerator}/{tick.denominator}s"
    sequence = f'<sequence format="r1" duration="{t(LENGTH)}" tcStart="{t(begin)}" {form}>'
    project = f'<project name="Edit">{sequence}<spine>{spine}</spine></sequence></project>'
    library = f'<library><event name="Day 1">{project}</event></library>'
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE fcpxml>

<fcpxml version="{version}">
    <resources>
        <format id="r1" name="FFVideoFormat1080p" frameDuration="{frame}" width="1920"/>
        <asset id="r2" name="a" start="0s" duration="3600s" hasVideo="1"{src}>{rep}</asset>
        <effect id="r3" name="Basic Title" uid=".../Titles.localized/Basic Title.moti"/>
        <media id="r4" name="N"><sequence format="r1" duration="{t(105)}" tcStart="0s">
            <spine>{inner}</spine></sequence></media>
        <asset id="r5" name="s" start="0s" duration="60s" hasAudio="1" audioSources="1"/>
    </resources>
    {library if numbers >= (1, 3) else project}
</fcpxml>
"""


# XML of Final Cut Pro 7


def xmeml(rate: Fraction, *, program: str = "premiere") -> str:
    timebase = f"<timebase>{round(rate)}</timebase>"
    ntsc = "TRUE" if rate.denominator > 1 else "FALSE"
    rate_xml = f"<rate>{timebase}<ntsc>{ntsc}</ntsc></rate>"
    version = {"premiere": 4, "resolve": 5, "final cut": 5}[program]
    files = set[str]()

    def file(name: str) -> str:
        if name in files:
            return f'<file id="file-{name}"/>'
        files.add(name)
        path = f"<pathurl>file://localhost/media/{name}.mov</pathurl>"
        return f'<file id="file-{name}"><name>{name}.mov</name>{path}{rate_xml}</file>'

    def clip(name: str, start: int, end: int, inside: str | None = None, begin: int = 100) -> str:
        length = 40 if -1 in (start, end) else end - start
        own = f"<in>{begin}</in><out>{begin + length}</out>"
        shown = file(name[0].lower()) if inside is None else inside
        return (f'<clipitem id="clipitem-{name}"><name>{name}</name><enabled>TRUE</enabled>'
                f"<duration>5000</duration>{rate_xml}<start>{start}</start><end>{end}</end>{own}"
                f"{shown}</clipitem>")  # fmt: skip

    remap = (f"{file('c')}<filter><effect><name>Time Remap</name><effectid>timeremap</effectid>"
             "<effecttype>motion</effecttype><parameter><parameterid>variablespeed</parameterid>"
             "<value>0</value></parameter><parameter><parameterid>speed</parameterid><value>200"
             "</value></parameter></effect></filter>")  # fmt: skip
    alignment = "<alignment>center</alignment>"
    dissolve = (f"<transitionitem><start>34</start><end>46</end>{alignment}{rate_xml}<effect>"
                "<name>Cross Dissolve</name><effectid>Cross Dissolve</effectid></effect>"
                "</transitionitem>")  # fmt: skip
    inner = "".join([clip("n1", 0, 20), clip("n2", 20, 45), clip("n3", 45, 105)])
    nested = (f'<sequence id="sequence-2"><name>N</name><duration>105</duration>{rate_xml}<media>'
              f"<video><track>{inner}</track></video></media></sequence>")  # fmt: skip
    title = ("<generatoritem><name>T</name><enabled>TRUE</enabled><duration>3600</duration>"
             f"{rate_xml}<start>170</start><end>180</end><in>0</in><out>10</out><effect><name>Text"
             "</name><effectid>Text</effectid><effecttype>generator</effecttype></effect>"
             "</generatoritem>")  # fmt: skip
    if program == "premiere":  # a title there is a clip of a file that is not on the disk
        title = clip("T", 170, 180, '<file id="file-t"><name>T</name><mediaSource>GraphicAndType'
                     "</mediaSource></file>")  # fmt: skip
    first = clip("A", 0, -1) + dissolve + clip("B", -1, 70)
    if program == "resolve":  # it states both ends of every clip
        first = clip("A", 0, 40) + dissolve + clip("B", 40, 70)
    one = first + "".join([
        clip("C", 80, 120, remap), clip("N", 120, 160, nested, begin=10), clip("D", 160, 200),
    ])  # fmt: skip
    switches = "<enabled>TRUE</enabled><locked>FALSE</locked>"
    tracks = "".join(
        f"<track>{items}{switches}</track>"
        for items in (one, clip("E", 90, 100) + clip("F", 150, 165), title)
    )
    count, drop = hour(rate), is_drop(rate)
    text, form = ("01:00:00;00", "DF") if drop else ("01:00:00:00", "NDF")
    code = (f"<timecode>{rate_xml}<string>{text}</string><frame>{count}</frame>"
            f"<displayformat>{form}</displayformat></timecode>")  # fmt: skip
    sound = f"<audio><track>{clip('S', 0, 77)}</track></audio>"
    media = f"<media><video><format/>{tracks}</video>{sound}</media>"
    sequence = (f'<sequence id="sequence-1"><name>Edit</name><duration>{LENGTH}</duration>'
                f"{rate_xml}{code}{media}</sequence>")  # fmt: skip
    if program == "final cut":
        sequence = f"<project><name>P</name><children>{sequence}</children></project>"
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE xmeml>
<xmeml version="{version}">
{sequence}
</xmeml>
"""


# OpenTimelineIO


def otio(rate: Fraction, *, program: str = "resolve") -> str:
    """`program`: resolve, premiere (rounded rates), or python (older schemas)."""
    number = round(float(rate), 3) if program == "premiere" else float(rate)
    key = {"resolve": "Resolve_OTIO", "premiere": "PremierePro_OTIO", "python": "own"}[program]

    def time(value: float) -> dict[str, Any]:
        return {"OTIO_SCHEMA": "RationalTime.1", "rate": number, "value": float(value)}

    def span(start: float, length: float) -> dict[str, Any]:
        return {
            "OTIO_SCHEMA": "TimeRange.1", "start_time": time(start), "duration": time(length),
        }  # fmt: skip

    def effect(name: str) -> dict[str, Any]:
        metadata = {key: {"Effect Name": name, "Enabled": True, "Parameters": [], "Type": 2}}
        return {"OTIO_SCHEMA": "Effect.1", "name": "", "effect_name": name, "metadata": metadata}

    def file() -> dict[str, Any]:
        return {
            "OTIO_SCHEMA": "ExternalReference.1", "name": "a.mov", "metadata": {},
            "target_url": "/media/a.mov", "available_range": span(hour(rate), 90_000),
        }  # fmt: skip

    def clip(name: str, length: int, *more: Any, media: Any = None, start: int = 0) -> Any:
        found = {
            "metadata": {key: {}}, "name": name, "source_range": span(hour(rate) + start, length),
            "effects": [effect("Transform"), effect("Cropping"), *more], "markers": [],
        }  # fmt: skip
        media = file() if media is None else media
        if program == "python":
            return {"OTIO_SCHEMA": "Clip.1", **found, "media_reference": media}
        return {
            "OTIO_SCHEMA": "Clip.2", **found, "enabled": True, "color": None,
            "media_references": {"DEFAULT_MEDIA": media},
            "active_media_reference_key": "DEFAULT_MEDIA",
        }  # fmt: skip

    def gap(length: int) -> dict[str, Any]:
        name = "Filler.1" if program == "python" else "Gap.1"
        return {"OTIO_SCHEMA": name, "name": "", "source_range": span(0, length), "metadata": {}}

    def track(kind: str, *children: Any) -> dict[str, Any]:
        name = "Sequence.1" if program == "python" else "Track.1"
        return {"OTIO_SCHEMA": name, "kind": kind, "name": kind, "children": list(children),
                "source_range": None, "effects": [], "markers": [], "metadata": {}}  # fmt: skip

    def stack(*children: Any, **more: Any) -> dict[str, Any]:
        return {"OTIO_SCHEMA": "Stack.1", "name": "s", "children": list(children), "effects": [],
                "source_range": None, "markers": [], "metadata": {}, **more}  # fmt: skip

    dissolve = {
        "OTIO_SCHEMA": "Transition.1", "name": "Cross Dissolve", "metadata": {key: {}},
        "transition_type": "SMPTE_Dissolve", "in_offset": time(6), "out_offset": time(6),
    }  # fmt: skip
    warp = {"OTIO_SCHEMA": "LinearTimeWarp.1", "name": "", "effect_name": "LinearTimeWarp",
            "metadata": {}, "time_scalar": 2.0}  # fmt: skip
    missing = {"OTIO_SCHEMA": "MissingReference.1", "name": "", "metadata": {},
               "available_range": None}  # fmt: skip
    generator = {"OTIO_SCHEMA": "GeneratorReference.1", "name": "", "metadata": {},
                 "generator_kind": "Title", "parameters": {}, "available_range": None}  # fmt: skip
    inner = track("Video", clip("n1", 20), clip("n2", 25), clip("n3", 60))
    one = track(
        "Video", clip("A", 40), dissolve, clip("B", 30), gap(10), clip("C", 40, warp),
        stack(inner, source_range=span(10, 40)), clip("D", 40),
    )  # fmt: skip
    two = track("Video", gap(90), clip("E", 10), gap(50), clip("F", 15))
    three = track(
        "Video", gap(170), clip("T", 10, media=generator if program == "premiere" else missing)
    )
    sound = track("Audio", clip("S", 77), clip("S", 20))
    begin = time(hour(rate)) if program != "python" else None
    return json.dumps({
        "OTIO_SCHEMA": "Timeline.1", "name": "Edit", "global_start_time": begin,
        "metadata": {key: {"Resolve OTIO Meta Version": "1.0"}},
        "tracks": stack(one, two, three, sound),
    }, indent=4)  # fmt: skip


FORMS: dict[str, tuple[str, Callable[[Fraction], str]]] = {
    "Final Cut Pro X, FCPXML 1.1": (".fcpxml", lambda rate: fcpxml(rate, version="1.1")),
    "Final Cut Pro, FCPXML 1.5": (".fcpxml", lambda rate: fcpxml(rate, version="1.5")),
    "Final Cut Pro, FCPXML 1.8": (".fcpxml", lambda rate: fcpxml(rate, version="1.8")),
    "Final Cut Pro, FCPXML 1.11": (".fcpxml", fcpxml),
    "Final Cut Pro, FCPXML 1.13": (".fcpxml", lambda rate: fcpxml(rate, version="1.13")),
    "Resolve, FCPXML 1.3": (".fcpxml", lambda rate: fcpxml(rate, version="1.3", resolve=True)),
    "Resolve, FCPXML 1.10": (".fcpxml", lambda rate: fcpxml(rate, version="1.10", resolve=True)),
    "Final Cut Pro 7": (".xml", lambda rate: xmeml(rate, program="final cut")),
    "Premiere, XML": (".xml", xmeml),
    "Resolve, XML": (".xml", lambda rate: xmeml(rate, program="resolve")),
    "Resolve, OTIO": (".otio", otio),
    "Premiere, OTIO": (".otio", lambda rate: otio(rate, program="premiere")),
    "Python, OTIO": (".otio", lambda rate: otio(rate, program="python")),
}
"""Program and format -> the suffix, and what writes the edit at a rate."""

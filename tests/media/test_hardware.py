"""Decoding on a device: what it gives is checked, and where it differs the processor goes on.

No device is needed: files opened in place of the source stand in for what one would give.
"""

from contextlib import contextmanager

import pytest
from helpers import sources
from helpers.media import AS_PAINTED, Painter, analysis_of_file, packets, plain_track

from vidrestore.analysis.replay import frames_again
from vidrestore.api import restore_video
from vidrestore.common.errors import InputError
from vidrestore.common.profiles import load_settings
from vidrestore.imaging.planes import checksum
from vidrestore.media import decode as stage
from vidrestore.media.decode import decoding_device

FRAMES = 40


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.mp4"
    sources.ffmpeg(sources.picture("160x120", FRAMES), "-c:v libx264 -g 10", path)
    return path


@pytest.fixture
def device_gives(monkeypatch):
    """Files in place of those that a device is to decode; the list of what it was asked for."""

    def prepare(other):
        opened, asked = stage.open_source, []

        @contextmanager
        def opening(path, device=None):
            if device is None:
                with opened(path) as container:
                    yield container
                return
            asked.append(path)
            if other is None:
                raise InputError(
                    f"the file {path} cannot be read as video: operation not permitted"
                )
            with opened(other) as container:
                yield container

        monkeypatch.setattr(stage, "open_source", opening)
        return asked

    return prepare


@pytest.mark.parametrize("first", [0, 17])
@pytest.mark.parametrize("fault", ["none", "other pictures", "fewer frames", "no device"])
def test_the_frames_are_those_of_pass_one_whatever_the_device_gives(
    tmp_path, clip, device_gives, fault, first
):
    analysis = analysis_of_file(clip, [])
    other = tmp_path / "other.mp4"
    if fault == "other pictures":  # from frame 25 on
        spoilt = sources.picture("160x120", FRAMES) + " -vf negate=enable=trunc(n/25)"
        sources.ffmpeg(spoilt, "-c:v libx264 -g 10", other)
    elif fault == "fewer frames":
        sources.ffmpeg(sources.picture("160x120", 23), "-c:v libx264 -g 10", other)
    asked = device_gives({"none": clip, "no device": None}.get(fault, other))
    again = list(frames_again(clip, analysis, first=first, device="cuda"))
    assert asked
    assert [(f.index, f.pts, checksum(f.image)) for f in again] == [
        (i, int(analysis.pts[i]), int(analysis.crc32[i])) for i in range(first, FRAMES)
    ]


def test_a_device_is_used_only_if_it_decodes_the_picture_of_the_processor(
    tmp_path, clip, monkeypatch, device_gives
):
    monkeypatch.setattr(stage, "hwdevices_available", lambda: ("cuda",))
    other = tmp_path / "other.mp4"
    sources.ffmpeg(sources.picture("160x120", FRAMES) + " -vf negate", "-c:v libx264", other)
    for given in (clip, other, None):  # the processor decoded the first: no device took it
        device_gives(given)
        assert decoding_device(clip, 0) is None


def test_the_devices_of_this_machine_do_no_harm(clip):
    assert decoding_device(clip, 0) in (None, *stage.hwdevices_available())


def test_without_a_device_the_processor_decodes_and_it_is_said(tmp_path, clip, monkeypatch):
    monkeypatch.setattr(stage, "hwdevices_available", lambda: ())
    track = plain_track(FRAMES, centre=(80, 60), side=60)
    analysis, written = analysis_of_file(clip, [track]), {}
    for hardware in (False, True):
        target = tmp_path / f"{hardware}.mkv"
        settings = load_settings(
            options={
                "decode.hardware": hardware,
                "encode.quality": "archive",
                "deflicker.amount": 0,
                **AS_PAINTED,
            }
        )
        summary = restore_video(
            clip, target, settings, restorer=Painter((0.8, 0.5, 0.4)), analysis=analysis
        )
        assert any("decode.hardware" in each for each in summary.warnings) == hardware
        written[hardware] = packets(target, 0)
    assert written[True] == written[False]

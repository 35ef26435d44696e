"""How often the frames of a source are decoded before its faces are restored."""

from collections import Counter
from fractions import Fraction

import pytest

from vidrestore.analysis import sampling
from vidrestore.analysis.pipeline import analyze_video
from vidrestore.common.settings import Settings
from vidrestore.media import decode
from vidrestore.media.decode import TimeRange

_GLANCES = 9
"""The pictures at three places of a video that tell which size most of it has."""


@pytest.fixture
def decoded(monkeypatch):
    """The number of pictures that left the decoder, by the file."""
    found: Counter[str] = Counter()
    real = decode._decoded

    def counted(container, *arguments, **more):
        for image in real(container, *arguments, **more):
            found[container.name] += 1
            yield image

    monkeypatch.setattr(decode, "_decoded", counted)
    return found


def settings(**changes) -> Settings:
    sections = {"detect": {"detector": "haar", "mesh": "off", "remember": False}} | changes
    return Settings.model_validate(sections)


def test_a_short_video_is_decoded_once(decoded, make_video):
    source = make_video(frames=48)
    assert analyze_video(source, settings()).frame_count == 48
    assert decoded == {str(source): 48 + _GLANCES}


def test_the_beginning_of_a_short_video_is_decoded_once(decoded, make_video):
    source = make_video(frames=48)
    span = TimeRange(None, Fraction(1))
    count = analyze_video(source, settings(), span=span).frame_count
    assert 20 < count < 48
    assert count <= sum(decoded.values()) <= count + 4 + _GLANCES


@pytest.mark.parametrize("most_bytes", [0, 1 << 16])
def test_of_a_large_video_no_frames_are_kept(decoded, make_video, monkeypatch, most_bytes):
    monkeypatch.setattr(sampling, "_MOST_KEPT_BYTES", most_bytes)
    source = make_video(frames=48)
    analyze_video(source, settings())
    assert decoded == {str(source): 96 + _GLANCES}


@pytest.mark.long
def test_of_a_long_video_a_sample_is_decoded_besides(decoded, make_video):
    source = make_video(frames=600)
    assert analyze_video(source, settings()).frame_count == 600
    assert 600 < sum(decoded.values()) < 900


def test_kept_frames_give_the_analysis_of_decoded_ones(make_video, monkeypatch):
    source = make_video(frames=48)
    kept = analyze_video(source, settings())
    monkeypatch.setattr(sampling, "_MOST_KEPT_BYTES", 0)
    again = analyze_video(source, settings())
    assert (kept.crc32 == again.crc32).all()
    assert (kept.pts == again.pts).all()
    assert kept.one_thread == again.one_thread

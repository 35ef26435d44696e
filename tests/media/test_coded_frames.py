"""What packets of intra-only codecs state, whether they are whole, and which frames they give."""

import random
from fractions import Fraction

import pytest
from helpers import intra_sources
from helpers.intra_sources import COPIED, FRAMES
from helpers.media import packets

from vidrestore.media.coded_frames import ffv1_slices, stated
from vidrestore.media.decode import DecodeErrors, TimeRange, decode, decode_from

SOURCES = {"prores": "prores hq", "dnxhr": "dnxhr hq", "ffv1": "ffv1 of 9 slices"}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    made = {}
    for codec, name in SOURCES.items():
        made[codec] = intra_sources.write(tmp_path_factory.mktemp(codec), COPIED[name])
    return made


@pytest.mark.parametrize("codec", SOURCES)
def test_all_frames_of_a_stream_state_the_same(sources, codec):
    found = {stated(codec, data) for _, data in packets(sources[codec], 0)}
    assert len(found) == 1
    assert None not in found


@pytest.mark.parametrize("codec", SOURCES)
def test_a_packet_that_is_cut_short_states_nothing(sources, codec):
    data = packets(sources[codec], 0)[0][1]
    for length in (0, 1, 27, 100, len(data) - 1 if codec != "dnxhr" else 0x27F):
        assert stated(codec, data[:length]) is None


@pytest.mark.parametrize(("codec", "other"), [(a, b) for a in SOURCES for b in SOURCES if a != b])
def test_a_packet_of_another_codec_states_nothing(sources, codec, other):
    assert stated(codec, packets(sources[other], 0)[0][1]) is None


def test_any_changed_byte_of_an_ffv1_packet_is_found(sources):
    data = packets(sources["ffv1"], 0)[3][1]
    assert ffv1_slices(data) == 9
    chance = random.Random(0)
    for place in (0, len(data) - 1, *chance.sample(range(len(data)), 200)):
        changed = bytearray(data)
        changed[place] ^= 1 << chance.randrange(8)
        assert ffv1_slices(bytes(changed)) == 0


@pytest.mark.parametrize("codec", SOURCES)
@pytest.mark.parametrize("one_thread", [True, False])
@pytest.mark.parametrize("start", [None, Fraction(3, 25)])
def test_frames_keep_their_packets_where_that_is_asked_for(sources, codec, one_thread, start):
    span = TimeRange(start, None)
    frames = decode(
        sources[codec], DecodeErrors(), span, one_thread=one_thread, keep_packets=True,
        may_seek=True,
    )  # fmt: skip
    expected = [data for _, data in packets(sources[codec], 0)][3 if start else 0 :]
    assert [frame.packet for frame in frames] == expected


@pytest.mark.parametrize("codec", SOURCES)
def test_frames_after_a_seek_keep_their_packets(sources, codec):
    first = list(decode(sources[codec], DecodeErrors()))
    assert {frame.packet for frame in first} == {None}
    frames = decode_from(sources[codec], first[4].pts, stream_index=0, keep_packets=True)
    by_time = {frame.pts: frame.packet for frame in frames}
    expected = [data for _, data in packets(sources[codec], 0)]
    assert by_time.items() >= {first[i].pts: expected[i] for i in range(4, FRAMES)}.items()


def test_frames_that_need_others_have_no_packet(tmp_path):
    source = intra_sources.write(tmp_path, intra_sources.ANEW["ffv1 with other frames"])
    frames = decode(source, DecodeErrors(), keep_packets=True)
    assert [frame.packet is not None for frame in frames] == [True, False, False, False] * 2

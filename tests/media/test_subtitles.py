"""Subtitles of every kind are copied, converted or named; no file is refused for them."""

import struct
from collections.abc import Callable
from pathlib import Path

import av
import pytest
from helpers.compare import contents
from helpers.media import Unchanged, analysis_of_file
from helpers.sources import display_set, ffmpeg, picture, tone

from vidrestore.api import restore_video
from vidrestore.jobs.summary import Summary

SRT = "1\n00:00:00,040 --> 00:00:00,200\nGood morning.\n\n"
# Pop-on captions: "Hi!" is loaded, shown and cleared.
SCC = (
    "Scenarist_SCC V1.0\n\n00:00:00:00\t9420 9420 94ae 94ae 9470 9470 c8e9 a180 942f 942f\n\n"
    "00:00:00:08\t942c 942c\n\n"
)
_POLYNOMIAL = 0x04C11DB7
_SUBTITLING, _TELETEXT = 0x59, 0x56


def with_subtitles(path: Path, *arguments: str | Path) -> Path:
    ffmpeg(picture(), tone(), *arguments, "-map 0 -map 1 -map 2 -c:v libx264 -preset ultrafast",
           "-c:a aac", path)  # fmt: skip
    return path


def captions_mov(folder: Path) -> Path:
    """CEA-608 as a track."""
    (folder / "captions.scc").write_text(SCC)
    return with_subtitles(folder / "captions.mov", "-i", folder / "captions.scc", "-c:s copy")


def ttml_mp4(folder: Path) -> Path:
    (folder / "plain.srt").write_text(SRT)
    return with_subtitles(folder / "ttml.mp4", "-i", folder / "plain.srt", "-c:s ttml")


def dvb_ts(folder: Path) -> Path:
    """Subtitles as pictures, as broadcasts have them."""
    pgs = folder / "subtitles.sup"
    pgs.write_bytes(display_set(0.08, visible=True) + display_set(0.24, visible=False))
    return with_subtitles(folder / "dvb.ts", "-i", pgs, "-c:s dvbsub")


def teletext_ts(folder: Path) -> Path:
    """A track that its descriptor calls teletext."""
    data = bytearray(dvb_ts(folder).read_bytes())
    changed = 0
    for at in range(0, len(data), 188):
        packet = data[at : at + 188]
        if packet[1] & 0x40 and packet[4:6] == b"\0\x02":  # the table of the program's streams
            end = 8 + int.from_bytes(packet[6:8], "big") % 0x1000
            table = packet[5:end]
            descriptor = table.index(bytes([_SUBTITLING, 8]))
            table[descriptor] = _TELETEXT
            table[descriptor + 5 : descriptor + 7] = b"\x10\x88"  # subtitles, page 888
            table[-4:] = struct.pack(">I", crc32_of_mpeg(table[:-4]))
            data[at + 5 : at + end] = table
            changed += 1
    assert changed
    path = folder / "teletext.ts"
    path.write_bytes(data)
    return path


def crc32_of_mpeg(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1) ^ (_POLYNOMIAL if value & 0x80000000 else 0)
        value &= 0xFFFFFFFF
    return value


def restored(source: Path, suffix: str) -> tuple[Path, Summary]:
    target = source.with_name(f"out{suffix}")
    analysis = analysis_of_file(source)
    summary = restore_video(source, target, restorer=Unchanged(), analysis=analysis)
    ffmpeg("-xerror -i", target, "-map 0 -c copy -f null -")
    return target, summary


def payloads(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        (stream,) = container.streams.subtitles
        return [bytes(packet) for packet in container.demux(stream) if packet.size]


@pytest.mark.parametrize(
    ("make", "suffix"),
    [(captions_mov, ".mov"), (ttml_mp4, ".mp4"), (ttml_mp4, ".mov"), (dvb_ts, ".mkv")],
)
def test_subtitles_that_the_container_can_hold_are_copied(
    tmp_path: Path, make: Callable[[Path], Path], suffix: str
) -> None:
    source = make(tmp_path)
    target, summary = restored(source, suffix)
    assert payloads(target) == payloads(source) != []
    assert "stream" not in "".join(summary.warnings)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_captions_of_a_track_become_text(tmp_path: Path, suffix: str) -> None:
    target, summary = restored(captions_mov(tmp_path), suffix)
    ((_, _, text),) = contents(target).cues[2]
    assert text == "Hi!"
    (said,) = (warning for warning in summary.warnings if "stream 2" in warning)
    assert "eia_608" in said
    assert "styling" in said


@pytest.mark.parametrize(
    ("make", "suffix", "sentence"),
    [
        (ttml_mp4, ".mkv", "stream 2 (ttml) holds subtitles, which an .mp4 or .mov file can keep"),
        (dvb_ts, ".mp4",
         "stream 2 (dvb_subtitle) holds subtitles as pictures, which only an .mkv file can keep"),
        *((teletext_ts, suffix,
           "stream 2 (dvb_teletext) holds subtitles of a kind that no container that vidrestore "
           "writes can hold, so it is left out") for suffix in (".mp4", ".mov", ".mkv")),
    ],
)  # fmt: skip
def test_subtitles_that_cannot_be_kept_are_left_out_for_their_true_reason(
    tmp_path: Path, make: Callable[[Path], Path], suffix: str, sentence: str
) -> None:
    target, summary = restored(make(tmp_path), suffix)
    assert sentence in summary.warnings
    with av.open(str(target)) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]
    assert len(contents(target).times) == summary.frames == 10


def test_subtitles_whose_header_is_damaged_cost_no_file(tmp_path: Path) -> None:
    """Sound that does not fit beside them is still refused, for itself."""
    source = dvb_ts(tmp_path)
    mkv = tmp_path / "source.mkv"
    ffmpeg("-i", source, "-map 0 -c copy", mkv)
    mkv.write_bytes(mkv.read_bytes().replace(b"S_DVBSUB", b"S_DVBSUX"))
    target, summary = restored(mkv, ".mkv")
    assert any("stream 2" in warning and "left out" in warning for warning in summary.warnings)
    assert len(contents(target).times) == 10

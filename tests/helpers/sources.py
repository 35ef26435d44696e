"""Small videos of the kinds people have, made by the ffmpeg program alone.

`SOURCES` names them all, `build` writes one. Nothing of the product is used, so that the files are
what other programs would have made.
"""

from __future__ import annotations

import shlex
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import imageio_ffmpeg

FONT = b"\x00\x01\x00\x00" + bytes(range(256))
CREATED = "2021-06-05T04:03:02.000000Z"
LOCATION = "+48.8584+002.2945/"

_SUBTITLES = """1
00:00:00,040 --> 00:00:00,200
Good morning.

2
00:00:00,240 --> 00:00:00,360
Two lines
of text
"""
_STYLED = """[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, Bold, Alignment
Style: Default,Arial,20,&H0000FFFF,1,2

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Dialogue: 0,0:00:00.08,0:00:00.24,Default,,0,0,0,,{\\i1}Bonjour{\\i0}
"""
_CHAPTERS = """;FFMETADATA1
[CHAPTER]
TIMEBASE=1/1000
START=0
END=160
title=Arrival
[CHAPTER]
TIMEBASE=1/1000
START=160
END=400
title=Dinner
"""


@dataclass(frozen=True)
class Source:
    suffix: str
    codec: str
    """What the setting `auto` must encode into."""
    into: tuple[str, ...]
    """The containers that hold it, its own or the nearest first."""
    write: Callable[[Path], object]


def ffmpeg(*arguments: str | Path) -> bytes:
    """Run the ffmpeg program; what it writes to its standard output, or else says.

    A text holds as many arguments as a shell would see in it, a path is one.
    """
    command = [imageio_ffmpeg.get_ffmpeg_exe(), *["-nostdin", "-y", "-v", "error"]]
    for words in arguments:
        command += [str(words)] if isinstance(words, Path) else shlex.split(words)
    done = subprocess.run(command, capture_output=True)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout or done.stderr


def picture(size: str = "96x64", frames: int = 10) -> str:
    """An input of so many moving pictures at 25 a second."""
    kind = "testsrc" if "97" in size else "testsrc2"  # the better one makes every size even
    return f"-f lavfi -i {kind}=size={size}:rate=25,trim=end_frame={frames}"


def fields(size: str, order: str, frames: int = 5) -> str:
    """An input of frames whose two fields differ; `order` is tff or bff."""
    rate = "60000/1001" if size.endswith("480") else "50"
    weave = {"tff": "interleave_top", "bff": "interleave_bottom"}[order]
    return (
        f"-f lavfi -i testsrc2=size={size}:rate={rate},trim=end_frame={2 * frames},"
        f"tinterlace=mode={weave},setfield={order}"
    )


def tone(seconds: float = 0.4, rate: int = 48000) -> str:
    """An input of sound."""
    return f"-f lavfi -i sine=sample_rate={rate}:duration={seconds}"


def hevc(parameters: str = "", pixel_format: str = "yuv420p") -> str:
    said = ":".join(filter(None, ["log-level=error:pools=1:frame-threads=1", parameters]))
    return f"-c:v libx265 -preset ultrafast -pix_fmt {pixel_format} -x265-params '{said}'"


# Quick, and by its B frames one that reorders.
_H264 = "-c:v libx264 -preset ultrafast -bf 3 -g 6"
_H264_FIELDS = f"{_H264} -flags +ildct+ilme -x264-params tff=1"
_AV1 = "-c:v libsvtav1 -preset 12 -pix_fmt yuv420p10le"
_MPEG2_FIELDS = "-c:v mpeg2video -flags +ildct+ilme -bf 2 -b:v 4M -aspect 4:3"
_PRORES = "-c:v prores_ks -profile:v hq -pix_fmt yuv422p10le"
_DV = "-c:v dvvideo -pix_fmt"
_TONE_AAC = f"{tone()} -c:a aac"
_EXACT_START = "-movie_timescale 90000"
_VARIABLE = (
    r"-vf 'settb=1/90000,setpts=N*3600+1700*mod(N\,3)' -fps_mode passthrough"
    " -enc_time_base 1/90000"
)
_SD_TAGS = "setparams=color_primaries=smpte170m:color_trc=smpte170m:colorspace=smpte170m"
_HD_TAGS = "setparams=color_primaries=bt709:color_trc=bt709:colorspace=bt709"
_HDR10 = hevc(
    "hdr10=1:repeat-headers=1:chromaloc=2:max-cll=1000,400:range=limited:colorprim=bt2020:"
    "transfer=smpte2084:colormatrix=bt2020nc:"
    "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)",
    "yuv420p10le",
)
_HDR10_AV1 = (
    "-vf format=yuv420p10le,setparams=range=tv:color_primaries=bt2020:color_trc=smpte2084:"
    f"colorspace=bt2020nc {_AV1} -svtav1-params 'mastering-display="
    "G(0.265,0.69)B(0.15,0.06)R(0.68,0.32)WP(0.3127,0.329)L(1000.0,0.005):content-light=1000,400'"
)
_HLG = hevc(
    "colorprim=bt2020:transfer=arib-std-b67:colormatrix=bt2020nc:range=limited", "yuv420p10le"
)

# Name: suffix, codec, containers (see `Source`), and the arguments that make it.
_PLAIN = {
    "vfr_mp4": (".mp4", "h264", ".mp4 .mov .mkv",
        f"{picture()} {_TONE_AAC} {_VARIABLE} {_H264} -video_track_timescale 90000"),
    "vfr_mkv": (".mkv", "h264", ".mkv .mp4", f"{picture()} {_TONE_AAC} {_VARIABLE} {_H264}"),
    # Times begin at half a second; with a DVD's navigation packets.
    "dvd_480i_mpg": (".mpg", "h264", ".mp4 .mkv",
        f"{fields('720x480', 'tff')} {tone(0.2)} -vf {_SD_TAGS} {_MPEG2_FIELDS}"
        " -c:a mp2 -f dvd"),
    "dvd_576i_vob": (".vob", "h264", ".mp4 .mkv",
        f"{fields('720x576', 'tff')} {tone(0.2)} {_MPEG2_FIELDS} -c:a ac3 -f vob"),
    "wide_480i_mp4": (".mp4", "h264", ".mp4 .mkv",
        f"{fields('720x480', 'tff')} -vf setsar=32/27,{_SD_TAGS} {_H264_FIELDS}"),
    # A camcorder's own stream, the sound within.
    "dv_576i": (".dv", "h264", ".mov .mkv",
        f"{fields('720x576', 'bff')} {tone(0.2)} {_DV} yuv420p -aspect 4:3 -ac 2"),
    "dv_576i_mov": (".mov", "h264", ".mov .mkv",
        f"{fields('720x576', 'bff')} {tone(0.2)} {_DV} yuv420p -aspect 16:9 -c:a pcm_s16le"
        " -timecode 00:59:59:20"),
    # 4:1:1, which FFV1 alone takes.
    "dv_480i": (".dv", "ffv1", ".mkv",
        f"{fields('720x480', 'bff')} {tone(0.2)} {_DV} yuv411p -aspect 4:3 -ac 2"),
    "dv_480i_avi": (".avi", "ffv1", ".mkv",
        f"{fields('720x480', 'bff')} {tone(0.2)} {_DV} yuv411p -aspect 16:9 -c:a pcm_s16le"),
    "hdr10_mp4": (".mp4", "hevc", ".mp4 .mov .mkv",
        f"{picture()} {_TONE_AAC} {_HDR10} -tag:v hvc1"),
    "hdr10_mkv": (".mkv", "hevc", ".mkv .mp4", f"{picture()} {tone()} -c:a flac {_HDR10}"),
    "hdr10_av1_mp4": (".mp4", "av1", ".mp4 .mkv", f"{picture()} {_HDR10_AV1}"),
    "hlg_mp4": (".mp4", "hevc", ".mp4 .mkv", f"{picture()} {_HLG}"),
    "late_audio_mp4": (".mp4", "h264", ".mp4 .mov .mkv",
        f"{picture(frames=15)} -itsoffset 0.25 {tone(0.3)} {_H264} -c:a aac {_EXACT_START}"),
    "late_audio_mkv": (".mkv", "h264", ".mkv .mp4",
        f"{picture(frames=15)} -itsoffset 0.25 {tone(0.3)} {_H264} -c:a flac"),
    "late_video_mp4": (".mp4", "h264", ".mp4 .mov .mkv",
        f"-itsoffset 0.5 {picture()} {tone(0.9)} {_H264} -c:a aac {_EXACT_START}"),
    "full_range_mp4": (".mp4", "h264", ".mp4 .mkv",
        f"{picture()} {_H264} -pix_fmt yuvj420p -color_range pc -colorspace bt709"),
    "mjpeg_mov": (".mov", "hevc", ".mov .mkv",
        f"{picture()} {tone()} -c:v mjpeg -pix_fmt yuvj420p -c:a pcm_s16le"),
    "odd_ffv1_mkv": (".mkv", "ffv1", ".mkv", f"{picture('97x65')} -c:v ffv1 -pix_fmt yuv420p"),
    "odd_av1_mp4": (".mp4", "av1", ".mp4 .mkv", f"{picture('97x65')} {_TONE_AAC} {_AV1}"),
    "odd_444_mkv": (".mkv", "h264", ".mkv .mp4", f"{picture('97x65')} {_H264} -pix_fmt yuv444p"),
    "prores_mov": (".mov", "prores", ".mov .mkv",
        f"{picture()} {tone()} -vf {_HD_TAGS} {_PRORES} -c:a pcm_s24le -timecode 01:00:00:00"),
    "prores_480i_mov": (".mov", "prores", ".mov .mkv",
        f"{fields('720x480', 'tff')} -vf setsar=8/9 {_PRORES} -flags +ildct"),
    "dnxhr_mov": (".mov", "dnxhd", ".mov .mkv",
        f"{picture('256x128')} {tone()} -c:v dnxhd -profile:v dnxhr_hqx -pix_fmt yuv422p10le"
        " -c:a pcm_s16le"),
    "gray_mkv": (".mkv", "ffv1", ".mkv", f"{picture()} -c:v ffv1 -pix_fmt gray"),
    "alpha_ffv1_mkv": (".mkv", "ffv1", ".mkv", f"{picture()} -c:v ffv1 -pix_fmt yuva420p"),
    # Decoded at 12 bits, of which ffmpeg's own ProRes encoder takes 10.
    "alpha_prores_mov": (".mov", "ffv1", ".mkv",
        f"{picture()} {tone()} -c:v prores_ks -profile:v 4444 -pix_fmt yuva444p10le"
        " -c:a pcm_s16le"),
    "deep_hevc_mp4": (".mp4", "hevc", ".mp4 .mkv",
        f"{picture()} {_TONE_AAC} {hevc('', 'yuv420p12le')}"),
    "xvid_mp3_avi": (".avi", "hevc", ".mp4 .mkv",
        f"{picture()} {tone()} -c:v mpeg4 -vtag XVID -bf 2 -c:a libmp3lame"),
    "xvid_pcm_avi": (".avi", "hevc", ".mp4 .mkv",
        f"{picture()} {tone()} -c:v libxvid -c:a pcm_s16le -metadata title='Tape 3'"),
    "wmv": (".wmv", "hevc", ".mkv",
        f"{picture()} {tone()} -c:v wmv2 -c:a wmav2 -metadata title='Tape 4'"),
    "flv": (".flv", "hevc", ".mp4 .mkv",
        f"{picture()} {tone(rate=44100)} -c:v flv -c:a libmp3lame"),
    "h263_amr_3gp": (".3gp", "hevc", ".mov .mkv",
        f"{picture('176x144')} {tone(rate=8000)} -c:v h263 -c:a libopencore_amrnb"),
    "mpeg4_aac_3gp": (".3gp", "hevc", ".mp4 .mkv", f"{picture()} {_TONE_AAC} -c:v mpeg4"),
    # AVCHD; times begin far from zero.
    "camcorder_m2ts": (".m2ts", "h264", ".mp4 .mkv",
        f"{fields('352x288', 'tff')} {tone(0.2)} {_H264_FIELDS} -c:a ac3"
        " -metadata:s:a:0 language=fra -mpegts_m2ts_mode 1 -f mpegts"),
    # With AAC, which a transport stream frames in a way of its own.
    "broadcast_ts": (".ts", "h264", ".mp4 .mkv",
        f"{picture()} {_TONE_AAC} {_H264} -metadata:s:a:0 language=deu"),
    "vp9_webm": (".webm", "hevc", ".mkv .mp4",
        f"{picture()} {tone()} -c:v libvpx-vp9 -cpu-used 8 -c:a libopus -metadata title=Clip"),
}  # fmt: skip


def _turned(path: Path, how: str) -> None:
    upright = path.with_name("upright.mp4")
    ffmpeg(picture(), _TONE_AAC, _H264, upright)
    ffmpeg(how, "-i", upright, "-map 0 -c copy", path)


_TURNED = {
    "rotated_90_mp4": "-display_rotation 90",
    "rotated_180_mp4": "-display_rotation 180",
    "rotated_270_mp4": "-display_rotation 270",
    "mirrored_mp4": "-display_hflip",
}


def _extras(folder: Path) -> tuple[Path, Path, Path, Path]:
    """Plain and styled subtitles, chapters and a cover."""
    plain, styled, chapters = folder / "plain.srt", folder / "styled.ass", folder / "chapters.txt"
    plain.write_text(_SUBTITLES)
    styled.write_text(_STYLED)
    chapters.write_text(_CHAPTERS)
    (folder / "font.ttf").write_bytes(FONT)
    ffmpeg("-f lavfi -i testsrc2=size=40x40 -frames:v 1", folder / "cover.jpg")
    return plain, styled, chapters, folder / "cover.jpg"


def rich_mkv(path: Path) -> None:
    """Whatever Matroska holds."""
    plain, styled, chapters, cover = _extras(path.parent)
    ffmpeg(
        picture(), tone(), tone(), "-i", plain, "-i", styled, "-i", chapters,
        "-map 0 -map 1 -map 2 -map 3 -map 4 -map_chapters 5", _H264,
        "-c:a:0 aac -c:a:1 flac -c:s:0 srt -c:s:1 ass",
        "-attach", path.with_name("font.ttf"), "-metadata:s:t:0 mimetype=application/x-font-ttf",
        "-attach", cover, "-metadata:s:t:1 mimetype=image/jpeg",
        "-metadata:s:v:0 title=Camera -metadata:s:v:0 language=eng",
        "-metadata:s:a:0 title=Stereo -metadata:s:a:0 language=eng",
        "-metadata:s:a:1 title=Commentaire -metadata:s:a:1 language=fra",
        "-metadata:s:s:0 title=Full -metadata:s:s:0 language=eng",
        "-metadata:s:s:1 title=Signs -metadata:s:s:1 language=deu",
        "-disposition:v:0 default -disposition:a:0 default -disposition:a:1 comment",
        "-disposition:s:0 hearing_impaired -disposition:s:1 forced",
        "-metadata title=Holiday -metadata comment='In the garden' -metadata camera=VX2000",
        f"-metadata creation_time={CREATED}", path,
    )  # fmt: skip


def rich_mp4(path: Path) -> None:
    """Whatever mp4 holds; an edit list, since all begins half a second late."""
    plain, _, chapters, cover = _extras(path.parent)
    late = "-itsoffset 0.5"
    ffmpeg(
        late, picture(), late, tone(), late, tone(), "-i", plain, "-i", cover, "-i", chapters,
        "-map 0 -map 1 -map 2 -map 3 -map 4 -map_chapters 5", _H264,
        "-c:a aac -c:s mov_text -c:v:1 copy -disposition:v:1 attached_pic",
        "-metadata:s:v:0 timecode=10:00:00:05 -metadata:s:a:0 language=eng",
        "-metadata:s:a:1 language=fra -metadata:s:a:1 title=Commentaire",
        "-metadata:s:s:0 language=deu -disposition:a:0 default -disposition:a:1 0",
        "-metadata title=Holiday -metadata comment='In the garden'",
        f"-metadata creation_time={CREATED} -metadata location={LOCATION}",
        "-movie_timescale 90000", path,
    )  # fmt: skip


def phone_mov(path: Path) -> None:
    """Of a telephone: turned; its make and place stand under names of the maker's own."""
    upright = path.with_name("upright.mov")
    ffmpeg(picture(), _TONE_AAC, _H264, upright)
    ffmpeg("-display_rotation 270 -i", upright, "-map 0 -c copy -movflags use_metadata_tags",
           "-metadata com.apple.quicktime.make=Apple",
           "-metadata com.apple.quicktime.model='iPhone 12'",
           f"-metadata com.apple.quicktime.location.ISO6709={LOCATION}",
           "-metadata com.apple.quicktime.creationdate=2021-06-05T06:03:02+0200",
           path)  # fmt: skip
    # The time stands in the movie's header alone, where ffmpeg would have written it twice.
    data = bytearray(path.read_bytes())
    since_1904 = datetime.fromisoformat(CREATED) - datetime(1904, 1, 1, tzinfo=UTC)
    struct.pack_into(">I", data, data.index(b"mvhd") + 8, int(since_1904.total_seconds()))
    path.write_bytes(data)


def cut_mp4(path: Path) -> None:
    """Cut without encoding: the edit list hides the pictures and sound before the cut."""
    uncut = path.with_name("uncut.mp4")
    ffmpeg(picture(frames=20), tone(0.8), "-c:a aac", _H264, "-g 30", uncut)
    ffmpeg("-ss 0.32 -i", uncut, "-map 0 -c copy", path)


def pgs_mkv(path: Path) -> None:
    """With the subtitles of a Blu-ray disc, which are pictures."""
    pgs = path.with_name("subtitles.sup")
    pgs.write_bytes(pgs(0.08, visible=True) + pgs(0.24, visible=False))
    ffmpeg(picture(), "-i", pgs, "-map 0 -map 1", _H264, "-c:s copy -metadata:s:s:0 language=eng",
           path)  # fmt: skip


def pgs(seconds: float, *, visible: bool) -> bytes:
    """One display set: a grey square of 8 x 8 pixels on a picture of 96 x 64, or nothing."""
    shown = struct.pack(">HBBHH", 0, 0, 0, 8, 8) if visible else b""
    size_and_rows = struct.pack(">HH", 8, 8) + (b"\x01" * 8 + b"\x00\x00") * 8
    composition = struct.pack(">HHBHBBBB", 96, 64, 16, 0, 0x80, 0, 0, visible) + shown
    window = struct.pack(">BBHHHH", 1, 0, 8, 8, 8, 8)
    palette = bytes([0, 0, 1, 235, 128, 128, 255])
    square = struct.pack(">HBBBH", 0, 0, 0xC0, 0, len(size_and_rows)) + size_and_rows
    segments = [(0x16, composition), (0x17, window), (0x80, b"")]
    if visible:
        segments[2:2] = [(0x14, palette), (0x15, square)]
    head = struct.pack(">2sII", b"PG", round(seconds * 90000), 0)
    return b"".join(head + struct.pack(">BH", kind, len(body)) + body for kind, body in segments)


def _sources() -> dict[str, Source]:
    made = {
        "rich_mkv": Source(".mkv", "h264", (".mkv", ".mp4"), rich_mkv),
        "rich_mp4": Source(".mp4", "h264", (".mp4", ".mov", ".mkv"), rich_mp4),
        "phone_mov": Source(".mov", "h264", (".mov", ".mp4", ".mkv"), phone_mov),
        "cut_mp4": Source(".mp4", "h264", (".mp4", ".mkv"), cut_mp4),
        "pgs_mkv": Source(".mkv", "h264", (".mkv", ".mp4"), pgs_mkv),
    }
    for name, how in _TURNED.items():
        made[name] = Source(".mp4", "h264", (".mp4", ".mov", ".mkv"), partial(_turned, how=how))
    for name, (suffix, codec, into, arguments) in _PLAIN.items():
        made[name] = Source(suffix, codec, tuple(into.split()), partial(ffmpeg, arguments))
    return made


SOURCES = _sources()


def build(name: str, folder: Path) -> Path:
    """Write the source of that name into a folder of its own below `folder`; its path."""
    path = folder / name / f"source{SOURCES[name].suffix}"
    path.parent.mkdir()
    SOURCES[name].write(path)
    return path

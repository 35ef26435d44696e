"""Small videos of codecs that code each frame by itself, made by ffmpeg, and their packets."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import NamedTuple

import imageio_ffmpeg
from helpers.sources import ffmpeg, fields, picture

FRAMES = 8
_SMALL, _WIDE = picture("160x120", FRAMES), picture("256x128", FRAMES)
_ODD, _TFF = picture("161x121", FRAMES), fields("192x128", "tff", FRAMES)
_TIMES = r"-vf 'settb=1/600,setpts=N*24+9*mod(N\,3)' -fps_mode passthrough -enc_time_base 1/600"
_TAGS = "-vf setparams=color_primaries=bt709:color_trc=bt709:colorspace=bt709:range=tv"
_PRORES = "-c:v prores_ks -pix_fmt yuv422p10le -profile:v"
_ALPHA = (
    f"{_SMALL} -vf 'format=yuva444p10le,geq=lum(X\\,Y):cb(X\\,Y):cr(X\\,Y):a=900-4*X' "
    "-c:v prores_ks -profile:v 4444 -pix_fmt yuva444p10le -alpha_bits"
)
_DNXHR = "-c:v dnxhd -profile:v dnxhr"
_FFV1 = "-c:v ffv1 -level 3 -g 1"


class Intra(NamedTuple):
    """A source."""

    suffix: str
    arguments: str
    """That make it."""
    into: str
    """The suffix of an output that can have its packets."""


# The profile is that of the source.
COPIED = {
    "prores hq": Intra(".mov", f"{_SMALL} {_TAGS} {_PRORES} hq", ".mov"),
    "prores standard": Intra(".mov", f"{_SMALL} {_PRORES} standard", ".mkv"),
    "prores lt in mkv": Intra(".mkv", f"{_SMALL} {_PRORES} lt", ".mkv"),
    "prores in mxf": Intra(".mxf", f"{_SMALL} {_PRORES} hq", ".mov"),
    "prores of odd sides": Intra(".mov", f"{_ODD} {_PRORES} hq", ".mov"),
    "prores of variable rate": Intra(".mov", f"{_SMALL} {_TIMES} {_PRORES} hq", ".mov"),
    "prores with pixels of 8:9": Intra(".mov", f"{_SMALL} -vf setsar=8/9 {_PRORES} hq", ".mov"),
    "prores tff": Intra(".mov", f"{_TFF} {_PRORES} hq -flags +ildct", ".mov"),
    "prores of several field orders": Intra(
        ".mov", f"{_WIDE} -vf telecine -frames:v {FRAMES} {_PRORES} hq -flags +ildct", ".mov"
    ),
    "dnxhr hq": Intra(".mov", f"{_WIDE} {_DNXHR}_hq -pix_fmt yuv422p", ".mov"),
    "dnxhr sq in mxf": Intra(".mxf", f"{_WIDE} {_DNXHR}_sq -pix_fmt yuv422p", ".mov"),
    "dnxhr hqx": Intra(".mov", f"{_WIDE} {_DNXHR}_hqx -pix_fmt yuv422p10le", ".mkv"),
    "dnxhr 444": Intra(".mov", f"{_WIDE} {_DNXHR}_444 -pix_fmt yuv444p10le", ".mov"),
    "ffv1": Intra(".mkv", f"{_SMALL} {_FFV1} -pix_fmt yuv420p", ".mkv"),
    "ffv1 of 9 slices": Intra(".mkv", f"{_SMALL} {_FFV1} -slices 9 -pix_fmt yuv420p", ".mkv"),
    "ffv1 of 10 bits": Intra(".mkv", f"{_ODD} {_FFV1} -context 1 -pix_fmt yuv422p10le", ".mkv"),
    "ffv1 with a table": Intra(
        ".mkv", f"{_SMALL} {_FFV1} -coder range_tab -pix_fmt yuv420p", ".mkv"
    ),
    "ffv1 with alpha": Intra(".mkv", f"{_SMALL} {_FFV1} -pix_fmt yuva420p", ".mkv"),
    "ffv1 of 10-bit r'g'b'": Intra(".mkv", f"{_SMALL} {_FFV1} -pix_fmt gbrp10le", ".mkv"),
    "ffv1 of 8-bit r'g'b'": Intra(".mkv", f"{_SMALL} {_FFV1} -pix_fmt bgr0", ".mkv"),
    "ffv1 in avi": Intra(".avi", f"{_SMALL} {_FFV1} -pix_fmt yuv420p", ".mkv"),
    "ffv1 of variable rate": Intra(
        ".mkv", f"{_SMALL} {_TIMES} {_FFV1} -pix_fmt yuv420p", ".mkv"
    ),
    "ffv1 tff": Intra(".mkv", f"{_TFF} {_FFV1} -flags +ildct -pix_fmt yuv422p10le", ".mkv"),
}  # fmt: skip
# ffmpeg's decoder gives 12 bits.
ALPHA = {bits: Intra(".mov", f"{_ALPHA} {bits}", ".mov") for bits in (8, 16)}
ANEW = {
    "prores proxy": Intra(".mov", f"{_SMALL} {_PRORES} proxy", ".mov"),
    "dnxhr lb": Intra(".mov", f"{_WIDE} {_DNXHR}_lb -pix_fmt yuv422p", ".mov"),
    "dnxhd": Intra(
        ".mov", f"{picture('1280x720', 2)} -c:v dnxhd -b:v 90M -pix_fmt yuv422p", ".mov"
    ),
    "ffv1 with other frames": Intra(
        ".mkv", f"{_SMALL} -c:v ffv1 -level 3 -g 4 -pix_fmt yuv420p", ".mkv"
    ),
    "ffv1 without checksums": Intra(
        ".mkv", f"{_SMALL} {_FFV1} -slicecrc 0 -pix_fmt yuv420p", ".mkv"
    ),
    "ffv1 of version 1": Intra(
        ".mkv", f"{_SMALL} -c:v ffv1 -level 1 -g 1 -pix_fmt yuv420p", ".mkv"
    ),
}


def write(folder: Path, source: Intra) -> Path:
    """Write a source; its path."""
    path = folder / f"source{source.suffix}"
    ffmpeg(source.arguments, path)
    return path


def packet_hashes(path: Path) -> list[str]:
    """The hashes of the packets of the first video stream, as the ffmpeg program reads them."""
    return _hashes(ffmpeg("-i", path, "-map 0:v:0 -c copy -f framemd5 -"))


def picture_hashes(path: Path) -> list[str]:
    """The hashes of the decoded frames, as the ffmpeg program decodes them without any error."""
    arguments = shlex.split("-map 0:v:0 -fps_mode passthrough -f framemd5 -")
    quiet = ["-nostdin", "-v", "error", "-xerror"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), *quiet, "-i", path, *arguments]
    done = subprocess.run(command, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    return _hashes(done.stdout)


def _hashes(listing: bytes) -> list[str]:
    lines = listing.decode().splitlines()
    return [line.split(",")[-1].strip() for line in lines if not line.startswith("#")]

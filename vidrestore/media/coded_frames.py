"""Coded frames of codecs that code each frame by itself: what the header of a frame states.

A stream may hold frames of several encoders if all of its frames state the same. Sources: SMPTE RDD
36 (ProRes), SMPTE ST 2019-1 (VC-3, which includes DNxHR), RFC 9043 (FFV1).
"""

from __future__ import annotations

import struct
import zlib

INTRA_ONLY = {"prores": "prores", "dnxhr": "dnxhd", "ffv1": "ffv1"}
"""The codecs that code each frame by itself, by their names in the settings -> ffmpeg's names."""

_UNSPECIFIED = 2
_PRORES_LEAST_BYTES = 28
_DNXHR_PREFIX, _DNXHR_LEAST_BYTES = 3, 0x280
_FFV1_FOOTER_BYTES = 8  # size of the slice (3), error status (1), checksum (4)
_BITS_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_CRC_OF_ZERO = 0xFFFFFFFF


def stated(codec: str, packet: bytes) -> bytes | None:
    """Return what a coded frame states of its picture besides the samples.

    Args:
        codec: The codec by its name in the settings, one of `INTRA_ONLY`.
        packet: The packet of the frame. FFV1 must be of version 3, with checksums.

    Returns:
        What all frames of a stream must share, such as size and colors; None where the packet is
        damaged, or is of another kind of the codec. Interlacing is no part of it, since each frame
        of ProRes and FFV1 states its own. The header of FFV1 frames is not read: the rest of it
        but for the pixel aspect is the same in all frames of a stream.
    """
    if codec == "prores":
        return _stated_by_prores(packet)
    if codec == "dnxhr":
        return _stated_by_dnxhr(packet)
    return b"ffv1" if ffv1_slices(packet) else None


def _stated_by_prores(packet: bytes) -> bytes | None:
    """Return size, chroma format, colors and kind of alpha.

    Aspect ratio and frame rate are left out: the encoder states none, and the container does.
    """
    if len(packet) < _PRORES_LEAST_BYTES or packet[4:8] != b"icpf":
        return None
    if int.from_bytes(packet[:4]) > len(packet):
        return None
    header = packet[8:_PRORES_LEAST_BYTES]
    colors = bytes(value or _UNSPECIFIED for value in header[14:17])
    return header[8:12] + bytes([header[12] & 0xC0]) + colors + bytes([header[17] & 0x0F])


def field_order_of_prores(packet: bytes) -> str:
    """Return the order of the fields of a ProRes frame.

    Args:
        packet: A packet for which `stated` returns a value.

    Returns:
        tff, bff or progressive.
    """
    return {1: "tff", 2: "bff"}.get(packet[8 + 12] >> 2 & 3, "progressive")


def alpha_bits_of_prores(packet: bytes) -> int:
    """Return the number of bits of the alpha channel of a ProRes frame.

    Args:
        packet: A packet for which `stated` returns a value.

    Returns:
        8 or 16; 0 where the frame has no alpha.
    """
    return {1: 8, 2: 16}.get(packet[8 + 17] & 0x0F, 0)


def _stated_by_dnxhr(packet: bytes) -> bytes | None:
    """Return kind, fields, alpha, size, depth, compression ID and colors."""
    if len(packet) < _DNXHR_LEAST_BYTES or packet[4] != _DNXHR_PREFIX:
        return None
    flags = bytes([packet[5] & 3, packet[6] & 0x20, packet[7] & 3, packet[0x21] >> 5])
    return packet[:5] + flags + packet[0x18:0x1C] + packet[0x28:0x2D]


def compression_id_of_dnxhr(packet: bytes) -> int:
    """Return the compression ID of a DNxHR frame, which names its profile.

    Args:
        packet: A packet for which `stated` returns a value.

    Returns:
        The ID, such as 1272 for DNxHR HQ.
    """
    return int.from_bytes(packet[0x28:0x2C])


def ffv1_slices(packet: bytes) -> int:
    """Count the slices of an FFV1 frame and verify the checksum of each.

    Args:
        packet: A packet of version 3 with checksums.

    Returns:
        The number of slices; 0 where one is damaged, or the packet is of another kind.
    """
    count, end = 0, len(packet)
    while end:
        begin = end - _FFV1_FOOTER_BYTES
        if begin < 0:
            return 0
        size, status = struct.unpack_from(">IB", b"\0" + packet[begin : begin + 4])
        begin -= size
        if begin < 0 or status or not _has_checksum(packet[begin:end]):
            return 0
        count, end = count + 1, begin
    return count


def _has_checksum(slice_bytes: bytes) -> bool:
    """Whether the CRC-32 of a slice, which ends with its checksum, is 0.

    FFV1 takes the bits of a byte from the highest on and zlib from the lowest on.
    """
    crc = zlib.crc32(slice_bytes.translate(_BITS_REVERSED), _CRC_OF_ZERO)
    return crc == _CRC_OF_ZERO

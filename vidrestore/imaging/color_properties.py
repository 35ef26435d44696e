"""The color properties of a stream, from the tags of its file; what is missing is guessed."""

from __future__ import annotations

from dataclasses import dataclass

from vidrestore.common.errors import InputError

# MatrixCoefficients of ISO/IEC 23091-2: the unsupported ones, then the supported ones.
_OTHER_MATRICES = {8: "YCgCo", 10: "BT.2020 with constant luminance", 11: "ST 2085",
                   12: "derived from primaries", 13: "derived from primaries, constant luminance",
                   14: "ICtCp", 15: "IPT-C2", 16: "YCgCo-Re", 17: "YCgCo-Ro"}  # fmt: skip
_MATRIX_OF_TAG = {1: "bt709", 4: "bt601", 5: "bt601", 6: "bt601", 7: "bt709", 9: "bt2020"}
_TRANSFER_OF_TAG = {16: "pq", 18: "hlg"}
_PRIMARIES_OF_TAG = {9: "bt2020", 11: "p3", 12: "p3"}
# Prefixes of the names of pixel formats that are full range unless the file states otherwise.
_FULL_RANGE_NAMES = (
    "yuvj",
    "gray",
    "gbr",
    "rgb",
    "bgr",
    "argb",
    "abgr",
    "0rgb",
    "0bgr",
    "pal8",
    "x2",
)


@dataclass(frozen=True, slots=True)
class Meaning:
    """The color properties of a stream. Each field means the same as in `VideoInfo`."""

    matrix: str
    """bt601, bt709 or bt2020: the constants of the conversion between R'G'B' and Y'CbCr."""
    full_range: bool
    """Whether code values use the full range."""
    transfer: str
    """The transfer curve: sdr, pq or hlg."""
    primaries: str
    """The primaries: bt709, bt2020 or p3."""
    guessed: frozenset[str]
    """The names of the properties that the file does not state: range, matrix."""


def resolve(
    *, pixel_format: str, codec: str, width: int, height: int, tags: tuple[int, int, int, int]
) -> Meaning:
    """Determine the color properties of a stream from its tags, guessing what is missing.

    Range is guessed from the pixel format and the codec; the matrix is bt601 up to 1024 x 576
    pixels, else bt709.

    Args:
        pixel_format: The pixel format by ffmpeg's name.
        codec: The codec by ffmpeg's canonical name.
        width: The width in pixels.
        height: The height in pixels.
        tags: Range, matrix, primaries and transfer as numbers of ISO/IEC 23091-2; 0 or 2 where
            missing.

    Returns:
        The resolved properties.

    Raises:
        InputError: vidrestore does not support the matrix of the stream.
    """
    range_tag, matrix_tag, primaries_tag, transfer_tag = tags
    guessed = set()
    if range_tag in (1, 2):
        full = range_tag == 2
    else:
        full = pixel_format.startswith(_FULL_RANGE_NAMES) or codec == "mjpeg"
        guessed.add("range")
    if matrix_tag in _OTHER_MATRICES:
        raise InputError(
            f"vidrestore does not support the color matrix of this video, "
            f"{_OTHER_MATRICES[matrix_tag]}; convert the video to bt709 or bt2020 first"
        )
    matrix = _MATRIX_OF_TAG.get(matrix_tag)
    if matrix is None:
        # Untagged SD material was made for SD equipment.
        matrix = "bt601" if height <= 576 and width <= 1024 else "bt709"
        guessed.add("matrix")
    transfer = _TRANSFER_OF_TAG.get(transfer_tag, "sdr")
    primaries = _PRIMARIES_OF_TAG.get(primaries_tag, "bt709")
    return Meaning(matrix, full, transfer, primaries, frozenset(guessed))

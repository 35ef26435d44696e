"""Pictures instead of a video: one picture, or numbered ones named by a pattern such as %06d."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from vidrestore.common.errors import InputError, UsageError
from vidrestore.common.files import check_path, check_readable_kind
from vidrestore.media.images.animation import check_no_animation

KIND_OF_SUFFIX = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png", ".tif": "tiff", ".tiff": "tiff",
                  ".dpx": "dpx", ".exr": "exr"}  # fmt: skip
_NOT_SUPPORTED = {".heic", ".heif", ".avif", ".webp", ".bmp", ".gif", ".jp2", ".dng",
                  ".cr2", ".nef", ".arw", ".psd", ".tga", ".cin"}  # fmt: skip
_PLACE = re.compile(r"%(?:0(\d+))?d")


@dataclass(frozen=True, slots=True)
class Pictures:
    """Picture files that are read as the frames of a video, one after the other."""

    path: Path
    """The path of the one picture, or the pattern."""
    numbers: tuple[int, ...] | None
    """The numbers in the file names, without gaps; None for one picture."""

    @property
    def files(self) -> list[Path]:
        """The paths of the pictures in order."""
        if self.numbers is None:
            return [self.path]
        return [numbered(self.path, number) for number in self.numbers]

    @property
    def demuxer_options(self) -> dict[str, str]:
        """The options for libavformat's demuxer image2."""
        if self.numbers is None:
            return {"pattern_type": "none"}
        return {"pattern_type": "sequence", "start_number": str(self.numbers[0])}

    @property
    def address(self) -> str:
        """The path or the pattern in the syntax of libavformat's demuxer image2."""
        path = self.path.absolute()
        if self.numbers is None:
            return str(path)
        place = _PLACE.search(path.name)
        assert place is not None
        before, after = path.name[: place.start()], path.name[place.end() :]
        folder = str(path.parent / "x")[:-1]
        return "".join([*(part.replace("%", "%%") for part in (folder, before)), place[0],
                        after.replace("%", "%%")])  # fmt: skip


def is_pictures(path: Path) -> bool:
    """Return whether a path names a picture or a pattern of pictures, by its suffix alone.

    Args:
        path: The path; the file need not exist.

    Returns:
        True also for kinds of pictures that vidrestore does not support.
    """
    return path.suffix.lower() in (*KIND_OF_SUFFIX, *_NOT_SUPPORTED)


def is_openexr(path: Path) -> bool:
    """Return whether a path names OpenEXR pictures, by its suffix alone.

    Args:
        path: The path; the file need not exist.

    Returns:
        True for .exr in upper or lower case.
    """
    return KIND_OF_SUFFIX.get(path.suffix.lower()) == "exr"


def is_pattern(path: Path) -> bool:
    """Return whether a path names numbered pictures.

    Args:
        path: The path.

    Returns:
        False where a file with this very name exists, or where the name has no placeholder.
    """
    return is_pictures(path) and _PLACE.search(path.name) is not None and not path.is_file()


def kind_of(path: Path) -> str:
    """Return the kind of a picture by its suffix.

    Args:
        path: The path; the file need not exist.

    Returns:
        jpeg, png, tiff, dpx or exr.

    Raises:
        UsageError: vidrestore does not support this kind of picture.
    """
    suffix = path.suffix.lower()
    if suffix in _NOT_SUPPORTED:
        raise UsageError(
            f"vidrestore does not support {suffix} pictures; use .tif, .png, .jpg, .dpx or .exr"
        )
    return KIND_OF_SUFFIX[suffix]


def numbered(pattern: Path, number: int) -> Path:
    """Insert a number into a pattern.

    Args:
        pattern: A path with one placeholder, such as %06d, in its name.
        number: The number.

    Returns:
        The path of the numbered picture.
    """
    place = _PLACE.search(pattern.name)
    assert place is not None
    digits = f"{number:0{int(place[1] or 1)}d}"
    return pattern.with_name(pattern.name[: place.start()] + digits + pattern.name[place.end() :])


def pictures_of(path: Path) -> Pictures:
    """List the picture files that a path names.

    Args:
        path: A picture, or a pattern.

    Returns:
        The file, or all files of the pattern in order of their numbers.

    Raises:
        InputError: No such file exists, or a number is missing between the first and the last.
        UsageError: vidrestore does not support the kind of picture, or the pattern is not valid.
    """
    check_path(path)
    check_no_animation(path)
    kind_of(path)
    if not is_pattern(path):
        check_readable_kind(path, "the picture", InputError)
        if not path.exists():
            raise InputError(f"the file {path} does not exist")
        return Pictures(path, None)
    numbers = numbers_of(path)
    if not numbers:
        raise InputError(
            f"no file in {path.parent} has a name like {path.name}; check the folder, the pattern "
            "and its number of digits"
        )
    for number, following in pairwise(numbers):
        if following != number + 1:
            missing = numbered(path, number + 1).name
            raise InputError(
                f"{path.parent} lacks {missing}, the first of "
                f"{numbers[-1] - numbers[0] + 1 - len(numbers)} missing between "
                f"{numbered(path, numbers[0]).name} and {numbered(path, numbers[-1]).name}; add "
                "the missing pictures, or number the parts separately"
            )
    pictures = Pictures(path, tuple(numbers))
    for each in pictures.files:
        check_readable_kind(each, "the picture", InputError)
    return pictures


def numbers_of(pattern: Path) -> list[int]:
    """Return the numbers of the existing files that a pattern names.

    Args:
        pattern: A path with one placeholder, such as %06d, in its name.

    Returns:
        The numbers in rising order.

    Raises:
        UsageError: The name does not have exactly one placeholder.
    """
    places = list(_PLACE.finditer(pattern.name))
    if len(places) != 1:
        raise UsageError(
            f"{pattern.name} must hold one placeholder, such as %06d for six digits, and no more"
        )
    before, after = pattern.name[: places[0].start()], pattern.name[places[0].end() :]
    shape = re.compile(re.escape(before) + r"(\d{1,9})" + re.escape(after))
    if not pattern.parent.is_dir():
        return []
    names = {entry.name for entry in pattern.parent.iterdir()}
    numbers = sorted({int(match[1]) for match in map(shape.fullmatch, names) if match})
    # Names with another number of digits belong to another sequence.
    return [number for number in numbers if numbered(pattern, number).name in names]

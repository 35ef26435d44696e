"""The user's choice of whom to restore, as given, before there is an analysis to apply it to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from vidrestore.common.errors import InputError, UsageError
from vidrestore.common.files import check_file_is_there
from vidrestore.common.quoting import quoted
from vidrestore.common.text_files import read_toml

_MOST_EYE_DISTANCE_PX = 65536


@dataclass(frozen=True, slots=True)
class Choice:
    """The user's choice of whom to restore, and how in which shot."""

    people: str | None = None
    """The people to restore, such as "1,3", or "-2" for all but person 2; None: all."""
    reference: Path | None = None
    """A photo of the person to restore; None: all."""
    shots: Path | None = None
    """A file shots.toml; None: the same for all shots."""
    min_face_px: float | None = None
    """The least eye distance of the people to restore, in frame pixels; None: no limit."""

    def check(self) -> None:
        """Refuse, before any work, files that cannot be read and values that make no sense.

        Raises:
            ConfigError: The shots file cannot be read or is not TOML.
            InputError: The reference photo does not exist or is no file.
            UsageError: The people are not named by numbers, or no eyes can be so far apart.
        """
        if self.min_face_px is not None and not 0 <= self.min_face_px <= _MOST_EYE_DISTANCE_PX:
            raise UsageError(
                f"the distance between eyes must be from 0 to {_MOST_EYE_DISTANCE_PX} pixels, not "
                f"{self.min_face_px:g}"
            )
        if self.shots is not None:
            read_toml(self.shots, "the shots file")
        if self.reference is not None:
            check_photo(self.reference)
        if self.people is not None:
            wanted_people(self.people)


def check_photo(photo: Path) -> None:
    """Refuse, before any work, a reference photo that does not exist or is no file.

    Args:
        photo: The path of the photo.

    Raises:
        InputError: There is no such file, or it cannot be reached.
    """
    check_file_is_there(photo, "the reference photo", InputError)


EVERYONE = Choice()


@dataclass(frozen=True, slots=True)
class Wanted:
    """The people that the option --people names."""

    ids: frozenset[int]
    """The numbers of the named people."""
    all_but: bool = False
    """Whether the named people are left out instead of restored."""


def wanted_people(text: str) -> Wanted:
    """Parse the value of the option --people.

    Args:
        text: Numbers from 1 with commas: "1,3" names these people, "-2,-4" all but these.

    Returns:
        The named people.

    Raises:
        UsageError: The text is anything else, or mixes both forms.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"-?[1-9][0-9]{0,5}", part) for part in parts):
        raise UsageError(
            f"people are named by numbers from 1, such as 1,3 for these or -2 for all but that "
            f"one, not {quoted(text)}"
        )
    numbers = [int(part) for part in parts]
    if len({number > 0 for number in numbers}) > 1:
        raise UsageError(
            f"{quoted(text)} names people to restore and people to leave out; give only numbers "
            "with a minus sign, or only numbers without one"
        )
    return Wanted(frozenset(map(abs, numbers)), all_but=numbers[0] < 0)

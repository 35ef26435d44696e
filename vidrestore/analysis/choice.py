"""The user's choice of whom to restore, as given, before there is an analysis to apply it to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vidrestore.common.errors import InputError
from vidrestore.common.files import check_readable_kind
from vidrestore.common.text_files import read_toml


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
        """Refuse, before any work, files that cannot be read.

        Raises:
            ConfigError: The shots file cannot be read or is not TOML.
            InputError: The reference photo cannot be read.
        """
        if self.shots is not None:
            read_toml(self.shots, "the shots file")
        if self.reference is not None:
            check_readable_kind(self.reference, "the reference photo", InputError)


EVERYONE = Choice()

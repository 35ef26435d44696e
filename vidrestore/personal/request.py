"""The request to adapt a network to one person, and the checks of it before any work.

The checks load no library for pictures, videos or networks, so that a refusal comes at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from vidrestore.analysis.choice import Choice
from vidrestore.common.errors import ConfigError, InputError, OutputError, UsageError, system_reason
from vidrestore.common.files import check_new, check_page_name, check_video_file
from vidrestore.common.settings import RESTORERS, Settings
from vidrestore.media.images import is_pictures, pictures_of
from vidrestore.models.restorers import check_restorer_name

NETWORK = "the network"
"""The kind of the file, for messages."""
SUFFIX = ".safetensors"
"""The suffix of the file of an adapted network."""
BASES = ("gpen-2048", "gpen-1024", "gpen-512", "gpen-256")
"""The named networks that can be adapted; a file of weights is another choice."""


@dataclass(frozen=True, slots=True)
class PersonalizeRequest:
    """A request to adapt a GPEN to one person in videos and photographs."""

    sources: tuple[Path, ...]
    """The inputs: videos and pictures that show the person."""
    target: Path
    """The .safetensors file for the network. It appears when training has ended and the network is
    better than before."""
    settings: Settings = field(default_factory=Settings)
    """The settings; `train` says how to train. Default: `Settings()`."""
    person: int | None = None
    """The number of the person in the first input, as `analyze` lists it. None: `reference`."""
    reference: Path | None = None
    """A photograph of the person. None: `person`."""
    photos: Path | None = None
    """A folder of photographs that show the person, alone or with others. None: no such folder."""
    keeps_embedding: bool = True
    """Whether the mean embedding of the person stands in the file, by which `restore` knows the
    person again."""
    report: Path | None = None
    """The .html file for the report about the training; None: none. Only `vidrestore.personalize`
    writes it."""
    overwrite: bool = False
    """Whether an output that exists may be replaced."""

    def validate(self) -> None:
        """Check the request before any work.

        Raises:
            UsageError: The request contradicts itself, or a path names the wrong kind of file or
                one that must not be replaced.
            InputError: An input does not exist or cannot be read.
            ConfigError: The settings name no GPEN that can be adapted.
            WeightsError: The settings name a weight file that does not exist.
            OutputError: The output cannot be written.
        """
        if not self.sources:
            raise UsageError("no INPUT was named; give at least one video or picture")
        if (self.person is None) == (self.reference is None):
            given = "neither was" if self.person is None else "both were"
            raise UsageError(
                f"the person is chosen by --person or by --reference, and {given} given; give one "
                "of the two"
            )
        check_network_name(self.target)
        base = self.settings.train.base
        if base in RESTORERS and base not in BASES:
            raise ConfigError(
                f"{base} is no network that restores faces by its own weights, so it cannot be "
                f"adapted; choose {', '.join(BASES)} or a file of a GPEN as the base"
            )
        check_restorer_name(base)
        Choice(reference=self.reference).check()
        try:
            self._check_files()
        except OSError as error:  # permissions, or a name that is too long
            inputs = map(str, filter(None, (*self.sources, self.reference, self.photos)))
            kind = InputError if error.filename in inputs else OutputError
            reason = system_reason(error)
            raise kind(f"{error.filename} cannot be reached: {reason}") from error

    def _check_files(self) -> None:
        for source in self.sources:
            if is_pictures(source):
                pictures_of(source)
            else:
                check_video_file(source)
        if self.photos is not None and not photographs_in(self.photos):
            raise InputError(f"the folder {self.photos} holds no photograph; give another folder")
        base = self.settings.train.base
        own_base = [] if base in RESTORERS else [Path(base)]
        read = [*self.sources, *filter(None, [self.reference]), *own_base]
        check_new(self.target, overwrite=self.overwrite, what=NETWORK, inputs=read)
        if self.report is not None:
            check_page_name(self.report)
            check_new(
                self.report, overwrite=self.overwrite, what="the report", inputs=read,
                outputs=[self.target],
            )  # fmt: skip


def photographs_in(folder: Path) -> list[Path]:
    """List the photographs in a folder, by their suffixes; those in folders within are left out.

    Args:
        folder: The folder.

    Returns:
        The files in order of their names. Hidden ones, such as those that macOS keeps beside each
        file, are left out.

    Raises:
        InputError: It is no folder, or cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder of photographs; give the name of a folder")
    try:
        names = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be read: {system_reason(error)}") from error
    return [path for path in names if is_pictures(path) and not path.name.startswith(".")]


def check_network_name(path: Path) -> None:
    """Check the name of a file for an adapted network.

    Args:
        path: The file.

    Raises:
        UsageError: The name does not end in .safetensors.
    """
    if path.suffix.lower() != SUFFIX:
        raise UsageError(f"the network {path} must end in {SUFFIX}; choose such a name")

"""What the page offers to choose from, and what is chosen for one video."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field

from vidrestore.common.profiles import load_settings
from vidrestore.common.settings import Detect, Settings
from vidrestore.models.weights import Weight, is_present, load_table

NO_PROFILE = "none"
LOSSLESS = "archive"
HOLDS_ALL = ".mkv"
"""The only container that holds lossless video."""
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dpx", ".exr")
"""Suffixes of still pictures that the page takes."""
VIDEOS = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".m2v", ".vob", ".ts",
    ".m2ts", ".mts", ".wmv", ".asf", ".flv", ".3gp", ".3g2", ".dv", ".mxf", ".ogv", ".mod", ".tod",
    ".mjpeg", ".mjpg", ".qt", ".y4m",
)  # fmt: skip
"""Suffixes of videos that the page lists."""

_LONGEST_SECONDS = 10**7
_MOST_PEOPLE = 10_000
_MOST_EYE_PX = 4096

_PROFILES = {
    "home-video": (
        "Home video",
        "Tape, camcorder, DVD or phone: clearer faces that still look like the person. An "
        "interlaced tape gets a frame for each field, so it has twice the frames.",
    ),
    "film": (
        "Film scan or master",
        "For an archive: half of the restored face, with the film's grain and focus. The file is "
        "lossless and very large.",
    ),
    "face-swap": (
        "Face swap",
        "For the soft face of a face-swap program: more of the restored face, as sharp as the head "
        "around it.",
    ),
    NO_PROFILE: (
        "Something else",
        "The restored face in full, and every frame as it is stored. The strongest change.",
    ),
}
_QUALITIES = {
    "high": ("High", "Looks like the original."),
    "small": ("Small file", "For sharing; about a third of the size."),
    LOSSLESS: ("Archive", "Lossless and very large; only in an .mkv file."),
}
_CONTAINERS = {
    ".mp4": (".mp4", "Plays nearly anywhere."),
    ".mov": (".mov", "For Apple programs and editors."),
    HOLDS_ALL: (".mkv", "Holds every sound track and subtitle."),
}
_DETECTORS = {
    "auto": ("The best that is here", "InsightFace if it is here, else YuNet."),
    "insightface": (
        "InsightFace",
        "Finds small, turned and dark faces too, and knows people again in other shots.",
    ),
    "yunet": ("YuNet", "Quick, and good at faces that look at the camera."),
    "haar": ("Haar", "Needs no download; misses turned faces."),
}
_WEIGHTS = {
    "gpen-2048": ("GPEN 2048", "Repaints faces at 2048 pixels: the finest and the slowest."),
    "gpen-1024": ("GPEN 1024", "Repaints faces at 1024 pixels."),
    "gpen-512": ("GPEN 512", "Repaints faces at 512 pixels; two to three times as fast as 2048."),
    "gpen-256": ("GPEN 256", "Repaints faces at 256 pixels: the fastest, for small faces."),
    "yunet": ("YuNet", "Finds faces quickly."),
    "face-mesh": ("Face mesh", "Checks each face, and measures its outline and angle."),
    "buffalo_l": (
        "InsightFace, large",
        "Finds small, turned and dark faces, and knows people again in other shots.",
    ),
    "buffalo_sc": ("InsightFace, small", "Finds faces; smaller and faster than the large one."),
}
_REPAINTS = "A network paints the face anew at {} pixels; it may invent details."


class Choices(BaseModel):
    """What is chosen for one video."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    profile: str = "home-video"
    """The name of the profile; NO_PROFILE: none."""
    restorer: str = "fusion"
    """The name of the restorer."""
    detector: str = "auto"
    """The name of the face detector."""
    people: list[int] | None = None
    """The numbers of the people to restore; None: all."""
    strength: float = Field(1.0, ge=0, le=1)
    """The share of the restored face, from 0 to 1."""
    least_eye_px: float = Field(0, ge=0, le=_MOST_EYE_PX)
    """The least distance between the eyes of a person, in pixels; 0: any."""
    quality: str = "high"
    """The quality of the new file."""
    container: str = HOLDS_ALL
    """The suffix of the new file, with its dot."""
    start_seconds: float | None = Field(None, ge=0, le=_LONGEST_SECONDS)
    """The start of the part to restore, in seconds; None: that of the video."""
    end_seconds: float | None = Field(None, ge=0, le=_LONGEST_SECONDS)
    """The end of the part to restore, in seconds; None: that of the video."""
    key_frames: bool = False
    """Whether the network restores key frames only, where that saves time."""

    @property
    def analysis_key(self) -> str:
        """The choices that decide which faces are found; the numbers of people depend on it."""
        return f"{self.profile} {self.detector}"


Seconds = Annotated[float, Field(ge=0, le=_LONGEST_SECONDS)]


class Change(BaseModel):
    """A change of choices, as a request brings it; what is not in it stays as it is."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    profile: Annotated[str, Field(max_length=40)] = ""
    """See `Choices`."""
    restorer: Annotated[str, Field(max_length=40)] = ""
    """See `Choices`."""
    detector: Annotated[str, Field(max_length=40)] = ""
    """See `Choices`."""
    people: Annotated[list[Annotated[int, Field(ge=1, le=_MOST_PEOPLE)]], Field(
        max_length=_MOST_PEOPLE)] | None = None  # fmt: skip
    """See `Choices`."""
    strength: Annotated[float, Field(ge=0, le=1)] = 0
    """See `Choices`."""
    least_eye_px: Annotated[float, Field(ge=0, le=_MOST_EYE_PX)] = 0
    """See `Choices`."""
    quality: Annotated[str, Field(max_length=40)] = ""
    """See `Choices`."""
    container: Annotated[str, Field(max_length=40)] = ""
    """See `Choices`."""
    start_seconds: Seconds | None = None
    """See `Choices`."""
    end_seconds: Seconds | None = None
    """See `Choices`."""
    key_frames: bool = False
    """See `Choices`."""


@dataclass(frozen=True, slots=True)
class Option:
    """One of several values to choose from."""

    id: str
    """The value."""
    title: str
    """The name of the value for people."""
    text: str
    """What it does and costs, in a sentence or two."""
    missing: tuple[str, ...] = ()
    """The names of the weights that it needs and that are not here."""
    containers: tuple[str, ...] = ()
    """The kinds of file that a quality fits into; empty for other options."""

    def as_dict(self) -> dict[str, Any]:
        """Return the attributes as plain values, for JSON."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, slots=True)
class Offer:
    """All that the page offers to choose from."""

    profiles: tuple[Option, ...]
    """The profiles, the most common one first."""
    restorers: tuple[Option, ...]
    """The restorers."""
    detectors: tuple[Option, ...]
    """The face detectors."""
    qualities: tuple[Option, ...]
    """The qualities of the new file."""
    containers: tuple[Option, ...]
    """The kinds of file."""

    def first_choices(self) -> Choices:
        """Return the choices for a new video; they need no download if any choice needs none."""
        usual, detector = Settings().restore.restorer, Settings().detect.detector
        return Choices(
            restorer=_here_or(self.restorers, usual, "fusion"),
            detector=_here_or(self.detectors, detector, "haar"),
            **_of_profile("home-video"),
        )

    def wrong_in(self, choices: Choices, but_not: Choices | None = None) -> str | None:
        """Find a value that the page does not offer.

        Args:
            choices: The choices to check.
            but_not: Choices whose values pass; they may come from a page that offered more.

        Returns:
            The value; None if all values are offered.
        """
        offered = {
            "profile": self.profiles, "restorer": self.restorers, "detector": self.detectors,
            "quality": self.qualities, "container": self.containers,
        }  # fmt: skip
        for name, options in offered.items():
            value: str = getattr(choices, name)
            if but_not is not None and value == getattr(but_not, name):
                continue
            if all(option.id != value for option in options):
                return value
        return None


def changed(choices: Choices, change: Change) -> Choices:
    """Apply a change to choices.

    A change of the profile alone also brings the profile's strength, quality and key frames.
    Lossless quality brings the container that can hold it. People have other numbers with another
    profile or detector, so all are chosen then.

    Args:
        choices: The choices so far.
        change: The change.

    Returns:
        The new choices, which may hold values that the page does not offer.
    """
    given = change.model_dump(exclude_unset=True)
    profile = given.get("profile", choices.profile)
    if profile != choices.profile and profile in _PROFILES:
        usual = _of_profile(profile)
        given |= {
            name: value
            for name, value in usual.items()
            if given.get(name, getattr(choices, name)) == getattr(choices, name)
        }
    new = choices.model_copy(update=given)
    if new.quality == LOSSLESS and new.container != HOLDS_ALL:
        new = new.model_copy(update={"container": HOLDS_ALL})
    if new.analysis_key != choices.analysis_key:
        new = new.model_copy(update={"people": None})
    if new.people is not None:
        new = new.model_copy(update={"people": sorted(set(new.people))})
    return new


def _of_profile(profile: str) -> dict[str, Any]:
    """Return the choices that a profile brings."""
    settings = load_settings(None if profile == NO_PROFILE else profile)
    quality = settings.encode.quality
    return {
        "profile": profile,
        "strength": settings.paste.strength,
        "quality": quality,
        "container": HOLDS_ALL if quality == LOSSLESS else ".mp4",
        "key_frames": settings.restore.key_frames != "off",
    }


def offer(here: Collection[str], *, offline: bool) -> Offer:
    """List what can be chosen here.

    Args:
        here: The names of the weights that are here.
        offline: Whether to leave out what needs weights that are missing.

    Returns:
        The options.
    """
    networks = [name for name, weight in load_table().items() if weight.kind == "gpen"]
    restorers = {
        "fusion": ("Gentle", "Combines neighboring frames and invents nothing.", []),
        "gpen-auto": (
            "Repaint, to the size of each face",
            "A network paints each face anew, as finely as it can show; it may invent details.",
            networks,
        ),
    } | {
        name: (f"Repaint at {size}", _REPAINTS.format(size), [name])
        for name in networks
        for size in [name.removeprefix("gpen-")]
    }
    pack = Settings().detect.pack
    either = [] if pack in here and not offline else ["yunet"]
    needs = {"auto": either, "insightface": [pack], "yunet": ["yunet"]}
    names = get_args(Detect.model_fields["detector"].annotation)
    detectors = {name: (*_DETECTORS.get(name, (name, "")), needs.get(name, [])) for name in names}
    return Offer(
        _plain(_PROFILES),
        _offered(restorers, here, offline),
        _offered(detectors, here, offline),
        tuple(
            Option(name, title, text, containers=(HOLDS_ALL,) if name == LOSSLESS else fits)
            for fits in [tuple(_CONTAINERS)]
            for name, (title, text) in _QUALITIES.items()
        ),
        _plain(_CONTAINERS),
    )


def _plain(options: Mapping[str, tuple[str, str]]) -> tuple[Option, ...]:
    return tuple(Option(name, title, text) for name, (title, text) in options.items())


def _offered(
    options: Mapping[str, tuple[str, str, Sequence[str]]], here: Collection[str], offline: bool
) -> tuple[Option, ...]:
    found = (
        Option(name, title, text, tuple(each for each in needed if each not in here))
        for name, (title, text, needed) in options.items()
    )
    return tuple(option for option in found if not (offline and option.missing))


def _here_or(options: Sequence[Option], usual: str, otherwise: str) -> str:
    """Return the usual option if nothing is missing for it, else the other one."""
    is_here = any(option.id == usual and not option.missing for option in options)
    return usual if is_here else otherwise


def weights_here(folders: Sequence[Path]) -> frozenset[str]:
    """Find the weights that are here.

    Args:
        folders: The folders to search.

    Returns:
        Their names.
    """
    return frozenset(name for name in weights_offered() if is_present(name, folders))


def weights_offered() -> dict[str, Weight]:
    """Return the weights that the page's choices may need, by name."""
    return {name: weight for name, weight in load_table().items() if name in _WEIGHTS}


def weight_title(name: str) -> tuple[str, str]:
    """Return the name of a weight for people, and what it is for.

    Args:
        name: The name of the weight.

    Returns:
        (title, sentence).
    """
    return _WEIGHTS.get(name, (name, ""))


def title_of(options: Sequence[Option], value: str) -> str:
    """Return the name of a value for people.

    Args:
        options: The options.
        value: The value of one of them.

    Returns:
        The title; the value itself if no option has it.
    """
    return next((option.title for option in options if option.id == value), value)

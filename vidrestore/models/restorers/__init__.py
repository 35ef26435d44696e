"""The base classes of restorers, and the checks of a restorer that a caller gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vidrestore.common.checksums import FileHashes
from vidrestore.common.errors import (
    ConfigError,
    UsageError,
    VidrestoreError,
    WeightsError,
    unknown_name,
)
from vidrestore.common.files import check_file_is_there
from vidrestore.common.settings import RESTORERS
from vidrestore.models.admission import ran_out_of_memory
from vidrestore.models.weight_file import SUFFIXES

if TYPE_CHECKING:
    import torch

MOST_AT_ONCE = 4
"""Number of faces in one batch on a CUDA device, where the settings give no other number."""
FILES = SUFFIXES
"""Suffixes of the weight files that vidrestore can open."""
TEMPLATES = ("gpen", "ffhq")
"""Names of the templates: the places of the five landmarks of a face in a crop."""


class RestorerInfo:
    """The description of a restorer, for plans, notes and keys, where it does not run."""

    name: str = ""
    """The name that summaries, reports and notices show. It has no default: every restorer sets
    it, on the class or on the instance."""
    size: int | None = None
    """Side S of the square crops that it takes, in pixels. None, the default: it takes a crop at
    any size, a multiple of 16."""
    reach_frames: int = 0
    """How many frames before and after the restored one it looks at. 0, the default: it sees one
    picture."""
    template: str = "ffhq"
    """Where the five landmarks stand in the crops that it takes: "gpen" or "ffhq" (the default,
    which most networks need)."""
    colorizes: bool = False
    """Whether it gives colors to the faces of gray footage. Then only the chroma of its results is
    pasted, and footage with colors is refused. Default: False."""

    # A subclass may replace these two, as `most_at_once`, by an attribute or by a property.
    @cached_property
    def cache_key(self) -> str | None:
        """Names all that a restored face depends on besides the window: the content of the
        weights, the options, the versions of the code that runs them. None, the default: no
        restored face is taken from an earlier run or a cache, and an interrupted run starts
        anew."""
        return None

    @cached_property
    def weights_sha256(self) -> str | None:
        """The SHA-256 of the file of weights in hexadecimal digits, for notes and reports. None,
        the default: there is no such file."""
        return None

    @property
    def cache_name(self) -> str:
        """The name, with a hash where there is a file of weights: another file is another
        network."""
        sha256 = self.weights_sha256
        return self.name if sha256 is None else f"{self.name} {sha256[:16]}"

    def for_crop_size(self, work_px: int) -> RestorerInfo:
        """Return the restorer for crops of a given size.

        Args:
            work_px: Side of the crops, in pixels.

        Returns:
            This object, unless a class overrides the method.
        """
        return self


class Restorer(RestorerInfo, ABC):
    """The base class of restorers.

    A subclass sets `name` and defines `__call__`. All other attributes of this class and of
    `RestorerInfo` have defaults, which a subclass may override. Each may be set on the class or on
    the instance, or be a property.
    """

    is_cheap: bool = False
    """True where a face takes less time to restore than to write to the disk, so that the restored
    faces of an unfinished segment are not kept. Default: False."""

    @cached_property
    def most_at_once(self) -> int | None:
        """How many faces the memory of the device holds at once. None, the default: the restorer
        gives no limit. It is read before each batch, and reading it may open the network."""
        return None

    @abstractmethod
    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Restore several faces at once.

        Args:
            windows: (B, 2 * reach_frames + 1, 3, S, S) float32, R'G'B' in [0, 1], on the CUDA
                device where networks run, else on the CPU. The middle of each window is the face
                to restore. Where its track ends within reach, the nearest frame of the track is
                repeated.

        Returns:
            (B, 3, S, S) float32, R'G'B' in [0, 1]. A face without a result is NaN. The same window
            gives the same result.

        Raises:
            MemoryError: The batch is too large for the device. It is run again in halves.
        """

    def for_crop_size(self, work_px: int) -> Restorer:
        """Return the restorer for crops of a given size.

        Args:
            work_px: Side of the crops, in pixels: a multiple of 16, the same all through a
                track.

        Returns:
            The restorer that runs. Default: this one.
        """
        return self

    def release(self) -> None:
        """Free the memory that is kept between calls; the next call takes it again.

        Default: nothing is kept.
        """

    def described(self) -> RestorerInfo:
        """Return a description of the restorer, for plans, notes and keys.

        Returns:
            A copy of the description, which does not keep the network in memory; the restorer
            itself where its class overrides `for_crop_size`.

        Raises:
            ConfigError: See `cache_key_of`.
        """
        if type(self).for_crop_size is not Restorer.for_crop_size:
            return self
        return _Description(
            self.name,
            self.size,
            self.reach_frames,
            self.template,
            cache_key_of(self),
            self.weights_sha256,
            self.colorizes,
        )


class FileRestorer(Restorer):
    """The base class of restorers whose network comes from a file.

    Args:
        path: The weight file.
        hashes: Hashes of the files that this run has read already. None, the default: none.
    """

    def __init__(self, path: Path, hashes: FileHashes | None = None) -> None:
        self._path, self._hashes = path, hashes or FileHashes()

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 of the weight file, 64 hexadecimal digits."""
        return self._hashes.sha256(self._path)


class LatentRestorer(Restorer):
    """A restorer of single pictures that draws a face from its details and from a latent code.

    The code describes the face as a whole. A caller may give a face the code of other frames.
    """

    @abstractmethod
    def codes(self, windows: torch.Tensor) -> torch.Tensor:
        """Compute the latent codes of faces.

        Args:
            windows: As for `__call__`.

        Returns:
            (B, D) codes of a floating-point type, on the device of the windows.

        Raises:
            MemoryError: The batch is too large for the device.
        """

    @abstractmethod
    def with_codes(self, windows: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Restore several faces at once with given latent codes.

        Args:
            windows: As for `__call__`.
            codes: (B, D) codes as those of `codes`.

        Returns:
            As for `__call__`, which is the same as with the codes of the faces themselves.

        Raises:
            MemoryError: The batch is too large for the device.
        """


@dataclass(slots=True)
class _Description(RestorerInfo):
    name: str
    size: int | None
    reach_frames: int
    template: str
    cache_key: str | None
    weights_sha256: str | None
    colorizes: bool


class Denoiser(Protocol):
    """Removes noise from the window of a restorer that sees one frame, before it runs."""

    name: str
    """The name that reports and keys show."""
    reach_frames: int
    """How many frames before and after the middle one it uses."""

    @property
    def cache_key(self) -> str:
        """A text that names everything that the results depend on besides the window."""
        ...

    def __call__(self, window: torch.Tensor) -> torch.Tensor:
        """Remove noise from the frame in the middle of a window.

        Args:
            window: (2 * reach_frames + 1, 3, W, W) float32, R'G'B' in [0, 1]: crops of
                consecutive frames.

        Returns:
            (3, W, W) float32, R'G'B' in [0, 1].
        """
        ...


def check_restorer_name(name: str) -> None:
    """Check, before any work, that a name is that of a restorer or of a weight file.

    Args:
        name: One of `RESTORERS`, or the path of a weight file.

    Raises:
        ConfigError: The name is neither of them.
        WeightsError: There is no such file, or it cannot be reached.
    """
    if name in RESTORERS:
        return
    if Path(name).suffix.lower() not in FILES:
        message = unknown_name("restorer", name, RESTORERS)
        raise ConfigError(f"{message}; or a {', '.join(FILES)} file")
    check_file_is_there(Path(name), "the weight file", WeightsError, "check its name")


def check_restorer(restorer: object) -> None:
    """Check, before any work, that an object is a restorer with usable attributes.

    Args:
        restorer: The object that a caller gave as a restorer.

    Raises:
        UsageError: The object does not inherit `Restorer`.
        ConfigError: One of its attributes has no usable value.
    """
    if not isinstance(restorer, Restorer):
        raise UsageError(
            f"the restorer is {_kind(restorer)}; it must be an instance of a class that inherits "
            "vidrestore.Restorer"
        )
    own = type(restorer).__name__
    if not isinstance(restorer.name, str) or not restorer.name.strip():
        raise ConfigError(
            f"the name of the restorer {own} is {restorer.name!r}; it must be a text that is not "
            "empty"
        )
    if restorer.template not in TEMPLATES:
        raise ConfigError(
            f"the template of the restorer {restorer.name} is {restorer.template!r}; it must be "
            f"{' or '.join(TEMPLATES)}"
        )
    for name, value, least in (
        ("size", restorer.size, 1),
        ("reach_frames", restorer.reach_frames, 0),
    ):
        if value is None and name == "size":
            continue
        if not isinstance(value, Integral) or int(value) < least:
            raise ConfigError(
                f"the {name} of the restorer {restorer.name} is {value!r}; it must be a whole "
                f"number of at least {least}"
            )
    cache_key_of(restorer)


def _kind(given: object) -> str:
    if isinstance(given, type):
        return f"the class {given.__name__} itself"
    return f"an object of the class {type(given).__name__}"


def cache_key_of(restorer: RestorerInfo) -> str | None:
    """Read and check the `cache_key` of a restorer.

    Args:
        restorer: The restorer.

    Returns:
        The key; None where the restorer has none.

    Raises:
        ConfigError: The key cannot be read, or is neither None nor a text that is not blank.
        VidrestoreError: Any other error of vidrestore that reading the key raises, unchanged.
    """
    try:
        key: object = restorer.cache_key
    except VidrestoreError:
        raise
    except Exception as error:
        raise ConfigError(
            f"the cache_key of the restorer {restorer.name} cannot be read "
            f"({type(error).__name__}: {error}); it must be a text that names all that the "
            "restored faces depend on, or None"
        ) from error
    if key is None:
        return None
    if not isinstance(key, str) or not key.strip():
        raise ConfigError(
            f"the cache_key of the restorer {restorer.name} is {key!r}; it must be a text that "
            "names all that the restored faces depend on, or None"
        )
    return key


def all_finite(faces: torch.Tensor) -> torch.Tensor:
    """Find the faces whose values are all finite.

    The function looks at the sum of each face, which takes one pass: a value that is not finite
    makes the sum so, and values below 10^31 do not overflow it.

    Args:
        faces: (B, 3, S, S), of any floating type.

    Returns:
        (B,) bool, True where all values of the face are finite.
    """
    import torch  # the descriptions of restorers are used without it

    return torch.isfinite(faces.sum(dim=(1, 2, 3), dtype=torch.float32))


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn the out-of-memory errors of torch and onnxruntime into MemoryError.

    Yields:
        Nothing.

    Raises:
        MemoryError: The code within ran out of memory; other errors pass unchanged.
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        if ran_out_of_memory(error):
            raise MemoryError(str(error)) from error
        raise


@contextmanager
def fits_into_memory(path: Path) -> Iterator[None]:
    """Turn errors of memory while a network of the user's is opened into WeightsError.

    Args:
        path: The file of the network.

    Yields:
        Nothing.

    Raises:
        WeightsError: The code within ran out of memory.
    """
    try:
        with memory_errors():
            yield
    except MemoryError as error:
        raise WeightsError(
            f"the network in {path} does not fit into the memory; use a smaller one"
        ) from error

"""The contract of a restorer, and how one is opened by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

import torch

from vidrestore.common.errors import ConfigError, WeightsError, unknown_name
from vidrestore.common.files import check_readable_kind
from vidrestore.common.settings import RESTORERS

MOST_AT_ONCE = 4
"""Faces on a CUDA device where nothing else was asked for."""
FILES = (".pth", ".pt", ".safetensors", ".onnx")


class RestorerInfo(Protocol):
    """What must be known of a restorer where it does not work itself."""

    name: str
    size: int | None
    """Side S of the square it works on; None: it takes the crops at any size."""
    reach_frames: int
    """How many frames before and after it looks at; 0 for a network that sees one picture."""
    template: str
    """Where it wants the landmarks: "gpen" or "ffhq"."""

    @property
    def cache_key(self) -> str | None:
        """Names all that its results depend on besides the windows: the content of its weights, its
        options, the version of its code. None, or no such attribute: what it makes is never taken
        from an earlier run, so nothing of an interrupted run is used again."""
        ...


class Restorer(RestorerInfo, Protocol):
    """Makes aligned faces clear, several at once.

    It may have `is_cheap`: True where a face costs less than a file of it on the disk is worth, so
    that restored faces of an unfinished segment are not kept.
    """

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """(B, 2 * reach_frames + 1, 3, S, S) -> (B, 3, S, S), RGB in [0, 1], float32.

        The middle of each window is the face to restore. Where the track ends within reach, its
        nearest frame is repeated. Raises MemoryError where the batch is too large for the device.
        A face for which it has no answer comes back as NaN. The same window gives the same.
        """
        ...


class Denoiser(Protocol):
    """Prepares what a restorer that sees one frame is shown."""

    name: str
    reach_frames: int

    @property
    def cache_key(self) -> str:
        """Names all that its results depend on besides the window."""
        ...

    def __call__(self, window: torch.Tensor) -> torch.Tensor:
        """(2 * reach_frames + 1, 3, W, W) -> (3, W, W), of the frame in the middle; as restorers
        take and give them."""
        ...


def cache_name(restorer: RestorerInfo) -> str:
    """Its name, with a hash where it has a file of weights: another file is another network."""
    sha256 = getattr(restorer, "weights_sha256", None)
    return restorer.name if sha256 is None else f"{restorer.name} {sha256[:16]}"


def cache_key_of(restorer: RestorerInfo) -> str | None:
    """The restorer's `cache_key`; None where it has none.

    Raises:
        ConfigError: The key is neither a text that says something nor None.
    """
    key: object = getattr(restorer, "cache_key", None)
    if key is None:
        return None
    if not isinstance(key, str) or not key.strip():
        raise ConfigError(
            f"the cache_key of the restorer {restorer.name} is {key!r}; it must be a text that "
            "names all that the restored faces depend on, or None"
        )
    return key


def is_cheap(restorer: RestorerInfo) -> bool:
    """Whether the restorer declares its results not worth a file each."""
    return bool(getattr(restorer, "is_cheap", False))


_Any = TypeVar("_Any", bound=RestorerInfo)


def restorer_for(restorer: _Any, work_px: int) -> _Any:
    """What restores crops of that side: itself, or what its `for_side` gives where it has one."""
    choose: Callable[[int], _Any] | None = getattr(restorer, "for_side", None)
    return restorer if choose is None else choose(work_px)


def most_at_once(restorer: Restorer) -> int | None:
    """How many faces there is memory for, where it says so; this may open its network."""
    most: int | None = getattr(restorer, "most_at_once", None)
    return most


def all_finite(faces: torch.Tensor) -> torch.Tensor:
    """(B, 3, S, S) -> (B,) of bool.

    By their sums, which one pass gives: what is not finite stays so in them, and what is overflows
    in none below 10^31.
    """
    return torch.isfinite(faces.sum(dim=(1, 2, 3), dtype=torch.float32))


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turns the out-of-memory errors of torch and onnxruntime into MemoryError."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(str(error)) from error
    except Exception as error:
        text = str(error)
        if "can't allocate memory" in text or "Failed to allocate memory" in text:
            raise MemoryError(text) from error
        raise


def open_restorer(
    name: str,
    *,
    device: torch.device,
    number_format: str,
    engine: str,
    cache_folder: Path,
    fusion_sharpness: float,
    codeformer_fidelity: float,
    find_weights: Callable[[str], Path],
    on_notice: Callable[[str], None] = lambda message: None,
) -> Restorer:
    """The restorer `name`, or the network in a file of that name.

    `find_weights` leads from a weight's name to its file; `on_notice` is told what a person should
    know. ConfigError where there is no such restorer, WeightsError where its file is no good.
    """
    if name == "fusion":
        from vidrestore.models.restorers.fusion import Fusion

        return Fusion(sharpness=fusion_sharpness)
    if name in RESTORERS and name != "gpen-auto":
        path, expected_size = find_weights(name), int(name.removeprefix("gpen-"))
    elif Path(name).suffix.lower() in FILES:
        path, expected_size = Path(name), None
        check_readable_kind(path, "the weight file", WeightsError)
        if not path.is_file():
            raise WeightsError(f"the weight file {path} does not exist")
    else:
        known = unknown_name("restorer", name, RESTORERS)
        raise ConfigError(f"{known}; or a {', '.join(FILES)} file")

    from vidrestore.models.restorers.gpen import Gpen

    def gpen() -> Gpen:
        return Gpen(
            path,
            expected_size=expected_size,
            device=device,
            number_format=number_format,
            engine=engine,
            cache_folder=cache_folder,
            on_notice=on_notice,
        )

    if path.suffix.lower() != ".onnx":
        return gpen()
    return _from_onnx(path, expected_size, gpen, device, codeformer_fidelity, on_notice)


def _from_onnx(
    path: Path,
    expected_size: int | None,
    gpen: Callable[[], Restorer],
    device: torch.device,
    codeformer_fidelity: float,
    on_notice: Callable[[str], None],
) -> Restorer:
    """The exact network where the file holds its weights unchanged, else onnxruntime."""
    from vidrestore.models.restorers.gpen import holds_gpen
    from vidrestore.models.restorers.onnx import Onnx

    if holds_gpen(path):
        exact = gpen()
        on_notice(f"{path.name} holds the weights of {exact.name}, which runs as the exact network")
        return exact
    on_notice(f"{path.name} runs through onnxruntime")
    known_template = None if expected_size is None else "gpen"
    restorer = Onnx(
        path,
        device=device,
        fidelity=codeformer_fidelity,
        template=known_template,
        on_notice=on_notice,
    )
    if expected_size not in (None, restorer.size):
        raise WeightsError(
            f"{path} holds a network for {restorer.size} px where one for {expected_size} px is "
            "wanted"
        )
    return restorer


Schedule = Sequence[tuple[int, Restorer]]

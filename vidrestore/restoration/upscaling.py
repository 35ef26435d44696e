"""Upscaling: whole pictures are enlarged by Lanczos resampling of each plane or by a network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import Interpolation

from vidrestore.analysis.interlacing import Interlacing
from vidrestore.common.checksums import sha256_of_file
from vidrestore.common.errors import WeightsError
from vidrestore.common.events import OnEvent, notify
from vidrestore.common.files import check_file_is_there
from vidrestore.common.settings import Restore, Settings
from vidrestore.imaging.color import chroma_site, region_rgb, write_rgb
from vidrestore.imaging.frame import FloatArray, VideoInfo
from vidrestore.imaging.geometry import Rect
from vidrestore.imaging.lanczos import Axis, edge_to_edge, resampled, strips
from vidrestore.imaging.planes import codes_of_halves, halves_of_codes, layout, plane
from vidrestore.models.devices import choose_devices
from vidrestore.models.restorers import fits_into_memory
from vidrestore.models.upscaler import Upscaler
from vidrestore.models.weights import sha256_of_own

_MOST_LIGHT = 65504.0  # the greatest half float
# ISO/IEC 23091-2 MatrixCoefficients.
_TAG_OF_MATRIX = {"bt709": 1, "bt601": 6, "bt2020": 9}


@dataclass(frozen=True, slots=True)
class Scaling:
    """How pictures are enlarged, in a form that can be passed to another process."""

    factor: int
    """The factor of the height, 2 or 4."""
    upscaler: Path | None = None
    """The file of the network; None for Lanczos."""
    upscaler_sha256: str | None = None
    """The SHA-256 of the file of the network; None for Lanczos."""

    @property
    def content(self) -> tuple[int, str | None]:
        """All that the enlarged pictures depend on: the factor and the SHA-256 of the network."""
        return self.factor, self.upscaler_sha256


def scaled_info(info: VideoInfo, factor: int) -> VideoInfo:
    """Return the properties of enlarged pictures.

    They are `factor` times as high, have square pixels and an even width, and are progressive. A
    matrix that vidrestore guessed is written into the tags, since players guess it by the size of
    the picture.

    Args:
        info: The properties of the pictures.
        factor: The factor of the height.

    Returns:
        The properties of the enlarged pictures.
    """
    width = 2 * max(1, round(info.width * info.sample_aspect_ratio * factor / 2))
    value_range, matrix, primaries, transfer = info.tags
    if "matrix" in info.guessed and not info.pixel_format.startswith("gbr"):
        matrix = _TAG_OF_MATRIX[info.matrix]
    return replace(
        info,
        width=width,
        height=factor * info.height,
        sample_aspect_ratio=Fraction(1),
        display_matrix=_moved(info, Fraction(width, info.width), factor),
        tags=(value_range, matrix, primaries, transfer),
        field_order="progressive",
    )


def _moved(info: VideoInfo, across: Fraction, down: int) -> tuple[int, ...] | None:
    """Return the display matrix, whose shift (x, y) is in pixels of the displayed picture."""
    if info.display_matrix is None:
        return None
    numbers = list(info.display_matrix)
    is_upright = info.display_orientation[0] != 0
    for at, factor in ((6, across if is_upright else down), (7, down if is_upright else across)):
        numbers[at] = round(numbers[at] * factor)
    return tuple(numbers)


class Scaler:
    """Enlarges pictures of one size to another size that `scaled_info` returned.

    Without a network every plane is resampled separately, at the bit depth of the stream, and
    chroma samples keep their places between those of luma. Half floats are resampled as the light
    that they state, not as their codes. With a network, R'G'B' passes through it, and only alpha is
    resampled.
    """

    def __init__(self, info: VideoInfo, target: VideoInfo, upscaler: Upscaler | None) -> None:
        """Make a scaler.

        Args:
            info: The properties of the pictures.
            target: The properties of the enlarged pictures, as `scaled_info` returned them.
            upscaler: The network, or None for Lanczos.
        """
        self._info, self._target, self._upscaler = info, target, upscaler
        self._factor = target.height // info.height
        self._unflag: Any = None

    def __call__(self, image: av.VideoFrame) -> av.VideoFrame:
        """Enlarge a picture.

        Args:
            image: The picture.

        Returns:
            A new picture with the time and the side data of `image`, never flagged as interlaced.
        """
        target = self._target
        # Samples are overwritten below; `reformat` copies other data of a frame, such as captions.
        larger = image.reformat(
            width=target.width,
            height=target.height,
            format=image.format.name,
            interpolation=Interpolation.POINT,
            threads=1,
        )
        if larger.interlaced_frame:
            larger = self._without_fields(larger)
        larger.colorspace = image.colorspace  # swscale changes 5 to 6; both mean BT.601
        larger.make_writable()
        how = layout(image)
        rest = range(len(image.planes))
        if self._upscaler is not None:
            write_rgb(larger, self._through(self._upscaler, image), target)
            rest = range(len(how.planes), len(image.planes))
        for index in rest:
            is_chroma = not how.is_rgb and index in how.planes[1:]
            self._resample(image, larger, index, how.grid if is_chroma else (1, 1), how.bits)
        return larger

    def _without_fields(self, image: av.VideoFrame) -> av.VideoFrame:
        """Return the picture without its interlaced flag, which PyAV cannot clear itself."""
        if self._unflag is None:
            graph = av.filter.Graph()
            graph.threads = 1
            begin = graph.add_buffer(
                width=image.width,
                height=image.height,
                format=image.format,
                time_base=self._info.time_base,
            )
            ends = graph.add("setfield", "prog"), graph.add("buffersink")
            graph.link_nodes(begin, *ends).configure()
            self._unflag = graph
        self._unflag.push(image)
        unflagged: av.VideoFrame = self._unflag.pull()
        return unflagged

    def _resample(
        self,
        image: av.VideoFrame,
        larger: av.VideoFrame,
        index: int,
        grid: tuple[int, int],
        bits: int,
    ) -> None:
        """Resample one plane of `image` into the same plane of `larger`."""
        info, target = self._info, self._target
        samples, into = plane(image, index), plane(larger, index)
        site = (0.0, 0.0) if grid == (1, 1) else chroma_site(info, grid)
        columns, rows = (
            _axis(length, wanted, grid[at], site[at], lengths)
            for at, length, wanted, lengths in (
                (0, info.width, target.width, (samples.shape[1], into.shape[1])),
                (1, info.height, target.height, (samples.shape[0], into.shape[0])),
            )
        )
        if info.codec == "exr":  # the planes hold codes of half floats
            for at, strip in strips(_light(samples), rows, columns):
                into[at] = _codes(strip)
            return
        for at, strip in strips(samples, rows, columns):
            np.rint(strip, out=strip)
            np.copyto(into[at], strip.clip(0, 2**bits - 1, out=strip), casting="unsafe")

    def _through(self, upscaler: Upscaler, image: av.VideoFrame) -> FloatArray:
        """Return (3, height, width) R'G'B' of the target, as the network gives it."""
        info, target = self._info, self._target
        rgb = region_rgb(image, Rect(0, 0, info.width, info.height), info).numpy()
        larger = upscaler(rgb, self._factor)
        if larger.shape[2] == target.width:
            return larger
        rows = edge_to_edge(target.height, target.height)
        columns = edge_to_edge(larger.shape[2], target.width)
        return np.stack([resampled(each, rows, columns) for each in larger]).astype(np.float32)


def _light(codes: npt.NDArray[Any]) -> FloatArray:
    """Return the light that codes of half floats state; infinity becomes the greatest half float.

    NaN becomes 0, since it would spread to its neighbors.
    """
    light = halves_of_codes(codes).view(np.float16).astype(np.float32)
    return np.nan_to_num(light, copy=False, nan=0, posinf=_MOST_LIGHT, neginf=-_MOST_LIGHT)


def _codes(light: npt.NDArray[np.float64]) -> npt.NDArray[np.uint16]:
    """Return the codes of the half floats that are nearest to light."""
    halves = (light.clip(-_MOST_LIGHT, _MOST_LIGHT) + 0.0).astype(np.float16)  # no zero is negative
    return codes_of_halves(halves.view(np.uint16))


def _axis(
    length: int, target_length: int, step: int, site: float, samples: tuple[int, int]
) -> Axis:
    """Return the resampling of samples that are `step` luma pixels apart, the first at `site`.

    Pixel X of the target lies at (X + 1/2) length / target_length - 1/2.
    """
    scale, first = Fraction(length, target_length), Fraction(site)
    start = (first + Fraction(1, 2)) * scale - Fraction(1, 2)
    return Axis(*samples, first=(start - first) / step, step=scale)


def unseen_fields(info: VideoInfo, interlacing: Interlacing) -> Iterator[str]:
    """Tell the user of frames that may be interlaced and are enlarged as whole pictures.

    Args:
        info: The properties of the frames.
        interlacing: The result of the analysis of interlacing.

    Yields:
        A notice, where the file flags its frames as interlaced and the analysis did not check them.
    """
    if info.is_interlaced and interlacing.mode == "off" and not interlacing.found:
        yield (
            "the file says that its frames are interlaced, and vidrestore did not check that; "
            "it enlarged them as whole pictures"
        )


def chosen_scaling(settings: Settings, on_event: OnEvent | None = None) -> Scaling | None:
    """Return the scaling that the settings ask for, and check that its network works.

    Args:
        settings: The settings; `scale` and `restore` are used.
        on_event: Receives a notice where a device does not run the network. None, the default: to
            receive none.

    Returns:
        The scaling; None where the factor is 1.

    Raises:
        WeightsError: The file of the network is missing or is not the file of an upscaler.
        UsageError: The network enlarges less than the factor, the device does not run it, or the
            extra that runs it is not installed.
    """
    factor, upscaler = settings.scale.factor, settings.scale.upscaler
    if factor == 1:
        return None
    if upscaler is None:
        return Scaling(factor)
    check_file_is_there(upscaler, "the upscaler", WeightsError, "give the file of a network")
    opened_upscaler(upscaler, settings.restore, on_event).check(factor)
    return Scaling(factor, upscaler, sha256_of_own(upscaler))


def opened_upscaler(path: Path, how: Restore, on_event: OnEvent | None = None) -> Upscaler:
    """Open the network that enlarges, on the device that the settings name.

    Args:
        path: The file of the network.
        how: The settings; `device` and `max_vram_gb` count.
        on_event: Receives a notice where a device does not run the network. None, the default: to
            receive none.

    Returns:
        The network.

    Raises:
        WeightsError: The file does not hold an upscaler.
        UsageError: The device does not run it, or the extra that runs it is not installed.
    """
    device, *others = choose_devices(how)
    with fits_into_memory(path):
        return Upscaler(
            path,
            device=device,
            others=others,
            is_auto=how.device == "auto",
            on_notice=lambda message: notify(on_event, message),
        )


def open_scaler(scaling: Scaling, info: VideoInfo, target: VideoInfo, how: Restore) -> Scaler:
    """Open the scaler that was chosen.

    Args:
        scaling: The scaling.
        info: The properties of the pictures.
        target: The properties of the enlarged pictures, as `scaled_info` returned them.
        how: The settings; `device` and `max_vram_gb` count.

    Returns:
        The scaler.

    Raises:
        WeightsError: The file of the network is missing, or its content changed since it was
            chosen.
    """
    path = scaling.upscaler
    if path is None:
        return Scaler(info, target, None)
    if not path.is_file() or sha256_of_file(path) != scaling.upscaler_sha256:
        raise WeightsError(
            f"the upscaler {path} is missing or has changed since the run started; give all nodes "
            "the same file, and do not change it during the run"
        )
    return Scaler(info, target, opened_upscaler(path, how))


def notice(scaling: Scaling, target: VideoInfo) -> str:
    """Describe the scaling for the user.

    Args:
        scaling: The scaling.
        target: The properties of the enlarged pictures.

    Returns:
        A sentence without a final period.
    """
    how = "Lanczos" if scaling.upscaler is None else scaling.upscaler.name
    return f"the picture is enlarged to {target.width} x {target.height} pixels by {how}"

"""Storage of analyses: files that hold every value of an `Analysis` exactly.

The file is a NumPy .npz archive whose entry "header" is JSON, followed by a checksum. Loading runs
no code from the file and checks every value in it, so a damaged file is refused.
"""

from __future__ import annotations

import hashlib
import io
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from vidrestore.analysis.borders import Margins
from vidrestore.analysis.result import Analysis, Fields
from vidrestore.analysis.tracks import PER_FRAME, Track
from vidrestore.common.checksums import (
    ChecksumError,
    checked_content,
    checksum_line,
    has_checksum_line,
)
from vidrestore.common.errors import InputError, system_reason
from vidrestore.common.files import check_readable_kind, output_file
from vidrestore.imaging.frame import PictureChange, VideoInfo
from vidrestore.imaging.geometry import Matrix, compose, invert, upright
from vidrestore.media.probe import Probe

_VERSION = 6
# The attributes of a track that have one row for each of its frames; those of its mesh may be None.
_OF_MESH = ("shapes", "angles_degrees")
_PER_FRAME = tuple(name for name in PER_FRAME if name not in _OF_MESH)
_PER_TRACK = ("track_id", "person_id", "first_frame", "work_px")
_SMALLEST_WORK_PX, _LARGEST_WORK_PX = 1 << 3, 1 << 14
_LARGEST_SIDE_PX = 1 << 17
_MOST = 1 << 62
# The greatest distance of a face from the picture and its greatest size, in diagonals of the
# picture; its least size in pixels.
_FAR, _SMALL_PX = 100.0, 1e-3
_UNIT_LENGTH = 1e-3
# The points of a mesh lie nearer to its crop, in sides of the crop.
_FAR_SHAPE = 100.0
# The tolerances for matrices, which are rounded to float32.
_MOST_SHEARED, _SINGULAR = 1e-3, 1e-9


class _Stored(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


def _checked_info(info: VideoInfo) -> VideoInfo:
    _must(max(info.width, info.height) <= _LARGEST_SIDE_PX, "its picture is too large")
    _must(min(info.stream_index, info.frame_count_from_header) >= 0, "a count is negative")
    _must(1 <= info.bit_depth <= 32, "its bit depth is impossible")
    fractions = (
        info.time_base, info.frame_rate, info.sample_aspect_ratio, *(info.mastering_display or ()),
    )  # fmt: skip
    whole = (
        info.stream_index, info.frame_count_from_header, *info.tags, *(info.display_matrix or ()),
        *(info.content_light or ()), *(f.numerator for f in fractions),
        *(f.denominator for f in fractions), *(n for s in info.shifts for n in (s.packet, s.ticks)),
    )  # fmt: skip
    _must(max(map(abs, whole)) <= _MOST, "a number is too large")
    a, b, c, d = info.display_orientation
    turns = abs(a * d - b * c) == 1 and sorted(map(abs, (a, b, c, d))) == [0, 0, 1, 1]
    _must(turns, "its orientation is no turn")
    return info


def _checked_margins(margins: Margins) -> Margins:
    _must(min(asdict(margins).values()) >= 0, "a margin is negative")
    return margins


_Count = Annotated[int, Field(ge=0, le=_MOST)]
_Info = Annotated[VideoInfo, AfterValidator(_checked_info)]


class _StoredFields(_Stored):
    """`Fields` without its arrays."""

    mode: Literal["keep", "bob", "frame", "film"]
    order: Literal["tff", "bff"]
    info: _Info


class _Header(_Stored):
    """All of an `Analysis` except its arrays."""

    version: Literal[6]
    info: _Info
    margins: Annotated[Margins, AfterValidator(_checked_margins)] | None
    fields: _StoredFields | None
    skipped: dict[str, _Count]
    shots: tuple[tuple[int, int], ...]
    corrupt_frames: _Count
    decode_errors: _Count
    repaired_times: _Count
    changes: tuple[PictureChange, ...] = ()
    fitted_frames: _Count = 0
    reduced_frames: _Count = 0
    detector_errors: _Count
    one_thread: bool
    coarse_landmarks: bool
    detector: str
    template: Literal["gpen", "ffhq"]
    fingerprint: str
    people_are_joined: bool

    @model_validator(mode="after")
    def _check_consistency(self) -> _Header:
        _must(all(0 <= start < end for start, end in self.shots), "a shot has no frame")
        if (margins := self.margins) is not None:
            own = self.info if self.fields is None else self.fields.info
            fits = margins.left_px + margins.right_px < own.width
            fits &= margins.top_px + margins.bottom_px < own.height
            _must(fits, "its margins leave no picture")
        return self


class _AnyVersion(BaseModel):
    version: Annotated[int, Field(strict=True)]


# Fields of `Analysis` that the header holds as they are.
_PLAIN = tuple(name for name in _Header.model_fields if name not in ("version", "fields"))


def save(analysis: Analysis, path: Path, *, key: str = "") -> None:
    """Write an analysis to a file, which appears only when it is complete.

    Args:
        analysis: The analysis.
        path: The file to write.
        key: A text that `load` must be given too; default: none.

    Raises:
        OutputError: The file cannot be written.
    """
    own = analysis.fields
    # Not validated here, because `load` refuses impossible values.
    plain: dict[str, Any] = {name: getattr(analysis, name) for name in _PLAIN}
    plain |= {"version": _VERSION, "fields": None}
    if own is not None:
        stored: dict[str, Any] = {"mode": own.mode, "order": own.order, "info": own.info}
        plain["fields"] = _StoredFields.model_construct(**stored)
    header = _Header.model_construct(**plain)
    arrays: dict[str, Any] = {"pts": analysis.pts, "crc32": analysis.crc32}
    if own is not None:
        arrays |= {"file_pts": own.pts, "file_crc32": own.crc32}
        if own.sources is not None:
            arrays["file_sources"] = own.sources
    tracks = analysis.tracks
    arrays["lengths"] = np.array([len(t.matrices) for t in tracks], np.int64)
    for name in _PER_TRACK:
        arrays[name] = np.array([getattr(t, name) for t in tracks], np.int64)
    for name in _PER_FRAME if tracks else ():
        arrays[name] = np.concatenate([getattr(t, name) for t in tracks])
    has_mesh = [t.shapes is not None for t in tracks]
    arrays["has_mesh"] = np.array(has_mesh, np.bool_)
    for name in _OF_MESH if any(has_mesh) else ():
        arrays[name] = np.concatenate([getattr(t, name) for t in tracks if t.shapes is not None])
    has_embedding = [t.embedding is not None for t in tracks]
    arrays["has_embedding"] = np.array(has_embedding, np.bool_)
    if any(has_embedding):
        arrays["embedding"] = np.stack([t.embedding for t in tracks if t.embedding is not None])
    packed = io.BytesIO()
    np.savez_compressed(packed, header=np.array(header.model_dump_json()), **arrays)
    with output_file(path, "the analysis") as part, part.open("wb") as file:
        file.write(packed.getbuffer())
        file.write(checksum_line(packed.getbuffer(), key))


def load(path: Path, remedy: str = "analyze again", *, key: str = "") -> Analysis:
    """Read an analysis that `save` wrote, with every value equal to the last bit.

    Args:
        path: The file.
        remedy: What the user can do if the file cannot be used, as the end of a sentence.
        key: The key with which the analysis was saved; default: none.

    Returns:
        The analysis.

    Raises:
        InputError: The file does not exist, cannot be read, is damaged, is of another version, or
            holds values that no analysis has.
    """
    check_readable_kind(path, "the analysis", InputError)
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"the analysis {path} does not exist") from error
    except OSError as error:
        reason = system_reason(error)
        raise InputError(f"the analysis {path} cannot be read: {reason}; {remedy}") from error
    damaged = f"{path} is not an analysis, or is damaged; {remedy}"
    another = f"the analysis {path} was written by another version of vidrestore; {remedy}"
    try:
        content = checked_content(data, key)
    except ChecksumError as error:
        raise InputError(another if _has_no_checksum(data) else damaged) from error
    # The checksum does not prove that vidrestore wrote the content, and the exceptions of numpy and
    # zipfile for other content are not a closed list.
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            text = str(stored["header"])
            if _AnyVersion.model_validate_json(text).version != _VERSION:
                raise InputError(another)
            header = _Header.model_validate_json(text)
            analysis = _analysis(header, {name: stored[name] for name in stored.files})
        with np.errstate(all="ignore"):  # an overflow gives infinity, which is refused
            _check_arrays(analysis)
    except InputError:
        raise
    except Exception as error:
        logging.getLogger("vidrestore").info("the analysis %s is refused: %r", path, error)
        why = _reason(error)
        sentence = f"the analysis {path} makes no sense, {why}; {remedy}" if why else damaged
        raise InputError(sentence) from error
    return analysis


def _has_no_checksum(data: bytes) -> bool:
    """Tell whether a file begins and ends as a zip does, as analyses of old versions do."""
    return (
        data.startswith(b"PK")
        and data[-22:].startswith(b"PK\x05\x06")
        and not has_checksum_line(data)
    )


def _reason(error: Exception) -> str | None:
    """Describe the impossible value as a part of a sentence; None for an unknown error."""
    if isinstance(error, _NonsenseError):
        return str(error)
    if not isinstance(error, ValidationError):
        return None
    first = error.errors(include_url=False, include_input=False)[0]
    if (cause := first.get("ctx", {}).get("error")) is not None:
        return str(cause)
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}".removeprefix(": ")


def check_picture(analysis: Analysis, info: VideoInfo, where: str) -> None:
    """Refuse an analysis of pictures of another size, pixel format or stream.

    Args:
        analysis: The analysis.
        info: The properties of the video.
        where: The name of the analysis in messages.

    Raises:
        InputError: The analysis and the video differ.
    """
    own = analysis.info if analysis.fields is None else analysis.fields.info
    was, now = (
        f"{i.width} x {i.height} in {i.pixel_format}, stream {i.stream_index}" for i in (own, info)
    )
    if was != now:
        raise InputError(
            f"{where} belongs to a video with {was}, and this video has {now}; analyze it again"
        )
    if own.shifts != info.shifts:
        raise InputError(
            f"{where} has other times than this video, whose times vidrestore repairs; analyze it "
            "again"
        )


def check_source(analysis: Analysis, source: Probe, where: str) -> None:
    """Refuse an analysis, or another file made with it, of another video.

    Args:
        analysis: The analysis.
        source: The video.
        where: The name of the analysis or of the other file in messages.

    Raises:
        InputError: The fingerprints differ.
    """
    if analysis.fingerprint and analysis.fingerprint != source.fingerprint:
        raise InputError(f"{where} belongs to another video than {source.path}; analyze that video")


def cached(source: Probe, folder: Path, settings_hash: str) -> Path:
    """Return where the cache keeps the analysis of a source under given settings.

    The name depends on the modification time of the source too, because a fingerprint covers only
    some of the content.

    Args:
        source: The video.
        folder: The folder of the cache.
        settings_hash: The hash of the settings in hexadecimal.

    Returns:
        The path of the file.
    """
    digest = hashlib.sha256(source.fingerprint.encode())
    digest.update(str(source.mtime_ns).encode())
    return folder / f"{digest.hexdigest()[:32]}-{settings_hash[:16]}.npz"


def _analysis(header: _Header, arrays: Mapping[str, Any]) -> Analysis:
    """Build the analysis from the header and the arrays of a file."""
    fields = None
    if (own := header.fields) is not None:
        pts, crc32 = arrays["file_pts"], arrays["file_crc32"]
        fields = Fields(own.mode, own.order, own.info, pts, crc32, arrays.get("file_sources"))
    lengths = arrays["lengths"]
    _check_rows(arrays, lengths)
    ends = np.cumsum(lengths)
    embeddings = iter(arrays.get("embedding", ()))
    of_mesh = 0
    tracks = []
    for i, end in enumerate(ends):
        rows = slice(int(end - lengths[i]), int(end))
        values: dict[str, Any] = {name: int(arrays[name][i]) for name in _PER_TRACK}
        values |= {name: arrays[name][rows] for name in _PER_FRAME}
        if arrays["has_mesh"][i]:
            rows = slice(of_mesh, of_mesh + int(lengths[i]))
            of_mesh = rows.stop
            values |= {name: arrays[name][rows] for name in _OF_MESH}
        track = Track(**values)
        if arrays["has_embedding"][i]:
            track = replace(track, embedding=next(embeddings))
        tracks.append(track)
    plain: dict[str, Any] = {name: getattr(header, name) for name in _PLAIN}
    return Analysis(
        pts=arrays["pts"], crc32=arrays["crc32"], tracks=tuple(tracks), fields=fields, **plain
    )


def _check_rows(arrays: Mapping[str, Any], lengths: npt.NDArray[Any]) -> None:
    """Raise ValueError unless each track has one value, and each of its frames one row."""
    count = len(lengths)
    if lengths.dtype != np.int64 or lengths.ndim != 1 or (count and lengths.min() < 1):
        raise ValueError("tracks have lengths from 1 on")
    for name in ("has_embedding", "has_mesh"):
        if arrays[name].dtype != np.bool_ or arrays[name].ndim != 1:
            raise ValueError(f"{name} is True or False")
    wanted = dict.fromkeys((*_PER_TRACK, "has_embedding", "has_mesh"), count)
    wanted |= {name: int(lengths.sum()) for name in _PER_FRAME if count}
    if count == len(arrays["has_mesh"]):
        wanted |= dict.fromkeys(_OF_MESH, int(lengths[arrays["has_mesh"]].sum()))
    wanted["embedding"] = int(np.count_nonzero(arrays["has_embedding"]))
    for name, rows in wanted.items():
        if len(arrays.get(name, ())) != rows:
            raise ValueError(f"{name} does not have {rows} rows")
    for name in _PER_TRACK:
        if arrays[name].dtype != np.int64 or arrays[name].ndim != 1:
            raise ValueError(f"{name} is one whole number for each track")


class _NonsenseError(ValueError):
    """An error about an impossible value, whose message is a part of a sentence."""


def _must(condition: bool, reason: str) -> None:
    """Raise _NonsenseError with the reason unless the condition holds."""
    if not condition:
        raise _NonsenseError(reason)


def _check_arrays(analysis: Analysis) -> None:
    """Raise _NonsenseError for numbers that no analysis has."""
    _check_times(analysis.pts, analysis.crc32)
    if analysis.fields is not None:
        _check_fields(analysis.fields, analysis.frame_count)
    numbers = [track.track_id for track in analysis.tracks]
    _must(len(set(numbers)) == len(numbers), "two tracks have one number")
    for track in analysis.tracks:
        _check_track(track, analysis.frame_count, analysis.info)


def _check_times(pts: npt.NDArray[Any], crc32: npt.NDArray[Any]) -> None:
    _must(pts.ndim == crc32.ndim == 1, "its times are no list")
    _must(pts.dtype == np.int64 and crc32.dtype == np.uint32, "a value has another type")
    _must(len(pts) > 0, "it has no frame")
    _must(len(pts) == len(crc32), "it has another number of times than of frames")
    _must(bool((pts[1:] > pts[:-1]).all()), "its times do not run forward")


def _check_fields(fields: Fields, frame_count: int) -> None:
    _check_times(fields.pts, fields.crc32)
    n, sources = len(fields.pts), fields.sources
    _must((sources is not None) == (fields.mode == "film"), "its fields have no sources")
    if sources is not None:
        _must(sources.dtype == np.int64, "a value has another type")
        _must(sources.shape == (frame_count, 2), "its pictures have other sources")
        _must(sources.min() >= 0 and sources.max() < n, "a field is from no frame")
        earlier, later = sources.T
        _must(bool((earlier[1:] > earlier[:-1]).all()), "its pictures are not in order")
        _must(abs(later - earlier).max() <= 1, "the fields of a picture are far apart")
    else:
        each = 1 if fields.mode == "frame" else 2
        _must(frame_count == each * n, "it has another number of fields than of frames")


def _check_track(track: Track, frame_count: int, info: VideoInfo) -> None:
    whose = f"track {track.track_id}"
    _must(track.track_id >= 0 and track.person_id >= 1, "a track has no number")
    is_inside = track.first_frame >= 0 and track.end_frame <= frame_count
    _must(is_inside, f"{whose} has frames that the video does not have")
    _must(track.work_px >= _SMALLEST_WORK_PX, f"{whose} is too small")
    _must(track.work_px <= _LARGEST_WORK_PX, f"{whose} is too large")
    for name in ("matrices", "landmarks", "score", "strength"):
        is_finite = bool(np.isfinite(getattr(track, name)).all())
        _must(is_finite, f"{name} of {whose} are no numbers")
    _must(track.strength.min() >= 0 and track.strength.max() <= 1, f"{whose} is too strong")
    scores = track.score.min(), track.score.max()
    _must(scores[0] >= 0 and scores[1] <= 1, f"a score of {whose} is not from 0 to 1")
    far_px = _FAR * math.hypot(info.width, info.height)
    _must(np.abs(track.landmarks).max() < far_px, f"{whose} is far outside the picture")
    _check_crops(track.matrices.astype(np.float64), info, far_px, whose)
    if track.shapes is not None and track.angles_degrees is not None:
        is_near = bool((np.abs(track.shapes.astype(np.float64)) < _FAR_SHAPE).all())  # NaN is not
        _must(is_near, f"the mesh of {whose} is far outside its crop")
        is_angle = bool((np.abs(track.angles_degrees) <= 180).all())
        _must(is_angle, f"an angle of {whose} is impossible")
    if (embedding := track.embedding) is not None:
        _must(embedding.dtype == np.float32 and embedding.ndim == 1, "a value has another type")
        length = float(np.linalg.norm(embedding))
        _must(abs(length - 1) < _UNIT_LENGTH, f"the embedding of {whose} is no direction")


def _check_crops(matrices: Matrix, info: VideoInfo, far_px: float, whose: str) -> None:
    wrong = f"the crop of {whose} is impossible"
    linear = matrices[:, :, :2]
    # The inverse must exist in floating point. The limit is relative to the entries, because pixels
    # may be tiny.
    largest = np.abs(linear).max(axis=(1, 2))
    _must(bool((np.abs(np.linalg.det(linear)) > _SINGULAR * largest**2).all()), wrong)
    to_frame = invert(matrices)
    sides_px = np.linalg.norm(to_frame[:, :, :2], axis=1)
    is_right = bool(np.isfinite(to_frame).all()) and sides_px.min() > _SMALL_PX
    is_right = is_right and max(sides_px.max(), np.abs(to_frame[:, :, 2]).max()) < far_px
    _must(bool(is_right), wrong)
    # In the upright view with square pixels, a crop is only turned, scaled and shifted.
    upright_to_unit = compose(matrices, invert(upright(info).matrix))
    (a, b), (c, d) = np.moveaxis(upright_to_unit[:, :, :2], 0, -1)
    sheared = np.hypot(a - d, b + c) / np.hypot(a, c)
    _must(bool(sheared.max() <= _MOST_SHEARED), f"the crop of {whose} is sheared")

"""Analyses on disk: saved and loaded exactly, and found again by what they are an analysis of.

A file of an analysis is one of numpy's .npz and the SHA-256 of that. It is read with nothing of it
run, and every value in it is checked, so that a damaged one is known for what it is.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from vidrestore.analysis.borders import Margins
from vidrestore.analysis.result import Analysis, Fields
from vidrestore.analysis.tracks import Track
from vidrestore.common.errors import InputError
from vidrestore.common.files import check_readable_kind, output_file
from vidrestore.imaging.frame import VideoInfo
from vidrestore.imaging.geometry import invert
from vidrestore.media.probe import Probe

_VERSION = 4
_SEAL = b"\nsha256 "
_SEAL_BYTES = len(_SEAL) + 64
# Of a track, what has one row for each of its frames.
_PER_FRAME = ("matrices", "landmarks", "score", "strength", "detected")
_PER_TRACK = ("track_id", "person_id", "first_frame", "work_px")
_PLAIN = (
    "skipped", "shots", "corrupt_frames", "decode_errors", "repaired_times", "detector_errors",
    "one_thread", "coarse_landmarks", "template", "fingerprint", "people_are_joined",
)  # fmt: skip
_TEMPLATES = ("gpen", "ffhq")
_SMALLEST_WORK_PX, _LARGEST_WORK_PX = 1 << 3, 1 << 14
_LARGEST_SIDE_PX = 1 << 17
# How far from the picture a face may be, and how large, in its diagonals; how small, in pixels.
_FAR, _SMALL_PX = 100.0, 1e-3
_UNIT_LENGTH = 1e-3


def save(analysis: Analysis, path: Path, *, key: str = "") -> None:
    """Write `path`, which appears only when it is whole. OutputError where that cannot be done.

    With a `key`, only `load` with the same one takes it for an analysis.
    """
    header: dict[str, Any] = {name: _as_json(getattr(analysis, name)) for name in _PLAIN}
    header["version"] = _VERSION
    header["info"] = _info_as_json(analysis.info)
    if analysis.margins is not None:
        header["margins"] = asdict(analysis.margins)
    arrays: dict[str, Any] = {"pts": analysis.pts, "crc32": analysis.crc32}
    if (own := analysis.fields) is not None:
        header["fields"] = {"mode": own.mode, "order": own.order, "info": _info_as_json(own.info)}
        arrays |= {"file_pts": own.pts, "file_crc32": own.crc32}
        if own.sources is not None:
            arrays["file_sources"] = own.sources
    tracks = analysis.tracks
    arrays["lengths"] = np.array([len(t.matrices) for t in tracks], np.int64)
    for name in _PER_TRACK:
        arrays[name] = np.array([getattr(t, name) for t in tracks], np.int64)
    for name in _PER_FRAME if tracks else ():
        arrays[name] = np.concatenate([getattr(t, name) for t in tracks])
    has_embedding = [t.embedding is not None for t in tracks]
    arrays["has_embedding"] = np.array(has_embedding, np.bool_)
    if any(has_embedding):
        arrays["embedding"] = np.stack([t.embedding for t in tracks if t.embedding is not None])
    packed = io.BytesIO()
    np.savez_compressed(packed, header=np.array(json.dumps(header)), **arrays)
    with output_file(path, "the analysis") as part, part.open("wb") as file:
        file.write(packed.getbuffer())
        file.write(_seal(packed.getbuffer(), key))


def load(path: Path, remedy: str = "analyze again", *, key: str = "") -> Analysis:
    """What `save` wrote, equal to the last bit.

    Args:
        path: The file.
        remedy: What a user can do where it is of no use, as the end of a sentence.
        key: That with which it was saved.

    Raises:
        InputError: It does not exist, cannot be read, is damaged, of another version, or holds
            values that no analysis has.
    """
    check_readable_kind(path, "the analysis", InputError)
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"the analysis {path} does not exist") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"the analysis {path} cannot be read: {reason}; {remedy}") from error
    content, seal = data[:-_SEAL_BYTES], data[-_SEAL_BYTES:]
    if not hmac.compare_digest(seal, _seal(content, key)):
        if data.startswith(b"PK") and not seal.startswith(_SEAL) and _is_of_before(data):
            raise InputError(
                f"the analysis {path} was written by another version of vidrestore; {remedy}"
            )
        raise InputError(f"{path} is no analysis, or a damaged one; {remedy}")
    # Whoever wrote the seal may have written anything before it, and what numpy and zipfile raise
    # for that is no closed list.
    try:
        analysis = _unpacked(content)
    except Exception as error:
        logging.getLogger("vidrestore").info("the analysis %s is refused: %r", path, error)
        raise InputError(f"{path} is no analysis, or a damaged one; {remedy}") from error
    if analysis is None:
        raise InputError(
            f"the analysis {path} was written by another version of vidrestore; {remedy}"
        )
    if (why := _nonsense(analysis)) is not None:
        raise InputError(f"the analysis {path} makes no sense, {why}; {remedy}")
    return analysis


def _seal(content: bytes | memoryview, key: str) -> bytes:
    digest = hashlib.sha256(key.encode())
    digest.update(content)
    return _SEAL + digest.hexdigest().encode()


def _is_of_before(data: bytes) -> bool:
    """Whether this was written when analyses had no seal: it begins and ends as a zip does."""
    return data[-22:].startswith(b"PK\x05\x06")


def _unpacked(content: bytes) -> Analysis | None:
    """None of another version."""
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        header = json.loads(str(stored["header"]))
        if header["version"] != _VERSION:
            return None
        arrays = {name: stored[name] for name in stored.files}
    return _analysis(header, arrays)


def check_picture(analysis: Analysis, info: VideoInfo, where: str) -> None:
    """InputError if the analysis is of other pictures than those that `info` describes."""
    own = analysis.info if analysis.fields is None else analysis.fields.info
    was, now = (
        f"{i.width} x {i.height} in {i.pixel_format}, stream {i.stream_index}" for i in (own, info)
    )
    if was != now:
        raise InputError(f"{where} is of a video of {was}, and this one has {now}; analyze again")


def check_source(analysis: Analysis, source: Probe, where: str) -> None:
    """InputError if the analysis, or what else stands in `where`, is of another video."""
    if analysis.fingerprint and analysis.fingerprint != source.fingerprint:
        raise InputError(f"{where} is of another video than {source.path}; analyze that one")


def cached(source: Probe, folder: Path, settings_hash: str) -> Path:
    """Where the analysis of a source under given settings is kept, as long as nobody writes to the
    source: a fingerprint covers only some of its content."""
    known = hashlib.sha256(source.fingerprint.encode())
    known.update(str(source.mtime_ns).encode())
    return folder / f"{known.hexdigest()[:32]}-{settings_hash[:16]}.npz"


def _analysis(header: Mapping[str, Any], arrays: Mapping[str, Any]) -> Analysis:
    info = _info_from_json(header["info"])
    fields = None
    if (own := header.get("fields")) is not None:
        of_file = _info_from_json(own["info"])
        pts, crc32 = arrays["file_pts"], arrays["file_crc32"]
        sources = arrays.get("file_sources")
        fields = Fields(own["mode"], own["order"], of_file, pts, crc32, sources)
    lengths = arrays["lengths"]
    _check_rows(arrays, lengths)
    ends = np.cumsum(lengths)
    embeddings = iter(arrays.get("embedding", ()))
    tracks = []
    for i, end in enumerate(ends):
        rows = slice(int(end - lengths[i]), int(end))
        known: dict[str, Any] = {name: int(arrays[name][i]) for name in _PER_TRACK}
        known |= {name: arrays[name][rows] for name in _PER_FRAME}
        track = Track(**known)
        if arrays["has_embedding"][i]:
            track = replace(track, embedding=next(embeddings))
        tracks.append(track)
    plain: dict[str, Any] = {name: _from_json(header[name]) for name in _PLAIN}
    return Analysis(
        info=info,
        pts=arrays["pts"],
        crc32=arrays["crc32"],
        tracks=tuple(tracks),
        margins=Margins(**header["margins"]) if "margins" in header else None,
        fields=fields,
        **plain,
    )


def _check_rows(arrays: Mapping[str, Any], lengths: npt.NDArray[Any]) -> None:
    """ValueError unless there is one value for each track, and one row for each of its frames."""
    count = len(lengths)
    if lengths.dtype != np.int64 or lengths.ndim != 1 or (count and lengths.min() < 1):
        raise ValueError("tracks have lengths from 1 on")
    if arrays["has_embedding"].dtype != np.bool_:
        raise ValueError("has_embedding is True or False")
    wanted = dict.fromkeys((*_PER_TRACK, "has_embedding"), count)
    wanted |= {name: int(lengths.sum()) for name in _PER_FRAME if count}
    wanted["embedding"] = int(np.count_nonzero(arrays["has_embedding"]))
    for name, rows in wanted.items():
        if len(arrays.get(name, ())) != rows:
            raise ValueError(f"{name} does not have {rows} rows")
    for name in _PER_TRACK:
        if arrays[name].dtype != np.int64 or arrays[name].ndim != 1:
            raise ValueError(f"{name} is one whole number for each track")


def _nonsense(analysis: Analysis) -> str | None:
    """What no analysis can have, as a part of a sentence; None where all may be true."""
    try:
        with np.errstate(all="ignore"):  # what overflows is not finite, which is looked for
            _check_values(analysis)
    except (ValueError, np.linalg.LinAlgError) as error:
        logging.getLogger("vidrestore").info("an analysis is refused: %r", error)
        first_line = str(error).partition("\n")[0]
        return first_line if isinstance(error, _NonsenseError) else "a value has another type"
    return None


class _NonsenseError(ValueError):
    """Its message is a part of a sentence."""


def _must(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise _NonsenseError(otherwise)


def _check_values(analysis: Analysis) -> None:
    """ValueError for values that no analysis has."""
    hints = get_type_hints(Analysis, localns={"Margins": Margins})
    for name in _PLAIN:
        TypeAdapter(hints[name]).validate_python(getattr(analysis, name), strict=True)
    n, info = analysis.frame_count, analysis.info
    _check_info(info)
    _check_times(analysis.pts, analysis.crc32)
    _must(all(start < end for start, end in analysis.shots), "a shot has no frame")
    _must(analysis.template in _TEMPLATES, "its template is unknown")
    _must(all(count >= 0 for count in analysis.skipped.values()), "a count is negative")
    counts = (analysis.corrupt_frames, analysis.decode_errors, analysis.repaired_times,
              analysis.detector_errors)  # fmt: skip
    _must(min(counts) >= 0, "a count is negative")
    if (margins := analysis.margins) is not None:
        sizes = list(asdict(margins).values())
        TypeAdapter(list[int]).validate_python(sizes, strict=True)
        _must(min(sizes) >= 0, "a margin is negative")
        own = info if analysis.fields is None else analysis.fields.info
        fits = margins.left_px + margins.right_px < own.width
        fits &= margins.top_px + margins.bottom_px < own.height
        _must(fits, "its margins leave no picture")
    if (fields := analysis.fields) is not None:
        _check_fields(fields, n)
    numbers = [track.track_id for track in analysis.tracks]
    _must(len(set(numbers)) == len(numbers), "two tracks have one number")
    for track in analysis.tracks:
        _check_track(track, n, math.hypot(info.width, info.height))


def _check_info(info: VideoInfo) -> None:
    for name, hint in get_type_hints(VideoInfo).items():
        TypeAdapter(hint).validate_python(getattr(info, name), strict=True)
    _must(max(info.width, info.height) <= _LARGEST_SIDE_PX, "its picture is too large")
    _must(math.isfinite(info.duration_seconds_from_header), "its duration is no number")
    _must(min(info.stream_index, info.frame_count_from_header) >= 0, "a count is negative")
    _must(1 <= info.bit_depth <= 32, "its bit depth is impossible")
    a, b, c, d = info.display_orientation
    turns = abs(a * d - b * c) == 1 and sorted(map(abs, (a, b, c, d))) == [0, 0, 1, 1]
    _must(turns, "its orientation is no turn")
    _must(bool(np.isfinite(np.array(info.curve, np.float64)).all()), "its curve has no numbers")


def _check_times(pts: npt.NDArray[Any], crc32: npt.NDArray[Any]) -> None:
    _must(pts.ndim == crc32.ndim == 1, "its times are no list")
    _must(pts.dtype == np.int64 and crc32.dtype == np.uint32, "a value has another type")
    _must(len(pts) > 0, "it has no frame")
    _must(len(pts) == len(crc32), "it has another number of times than of frames")
    _must(bool((pts[1:] > pts[:-1]).all()), "its times do not run forward")


def _check_fields(fields: Fields, frame_count: int) -> None:
    _must(fields.mode in ("keep", "bob", "frame", "film"), "its kind of fields is unknown")
    _must(fields.order in ("tff", "bff"), "its order of fields is unknown")
    _check_info(fields.info)
    _check_times(fields.pts, fields.crc32)
    n, sources = len(fields.pts), fields.sources
    _must((sources is not None) == (fields.mode == "film"), "its fields have no sources")
    if sources is not None:
        _must(sources.dtype == np.int64, "a value has another type")
        _must(sources.shape == (frame_count, 2), "its pictures have other sources")
        _must(sources.min() >= 0 and sources.max() < n, "a field is from no frame")
    else:
        each = 1 if fields.mode == "frame" else 2
        _must(frame_count == each * n, "it has another number of fields than of frames")


def _check_track(track: Track, frame_count: int, diagonal_px: float) -> None:
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
    far_px = _FAR * diagonal_px
    _must(np.abs(track.landmarks).max() < far_px, f"{whose} is far outside the picture")
    # Of a similarity, but for the pixels' aspect ratio: how large the crop is in the frame.
    to_frame = invert(track.matrices.astype(np.float64))
    sides_px = np.linalg.norm(to_frame[:, :, :2], axis=1)
    is_right = bool(np.isfinite(to_frame).all()) and sides_px.min() > _SMALL_PX
    is_right = is_right and max(sides_px.max(), np.abs(to_frame[:, :, 2]).max()) < far_px
    _must(bool(is_right), f"the crop of {whose} is impossible")
    if (embedding := track.embedding) is not None:
        _must(embedding.dtype == np.float32 and embedding.ndim == 1, "a value has another type")
        length = float(np.linalg.norm(embedding))
        _must(abs(length - 1) < _UNIT_LENGTH, f"the embedding of {whose} is no direction")


def _info_as_json(info: VideoInfo) -> dict[str, Any]:
    return {name: _as_json(getattr(info, name)) for name in info.__dataclass_fields__}


def _info_from_json(stored: Mapping[str, Any]) -> VideoInfo:
    return VideoInfo(**{name: _from_json(value) for name, value in stored.items()})


def _as_json(value: Any) -> Any:
    """Plain JSON, in which fractions, tuples and sets say what they are."""
    if isinstance(value, Fraction):
        return {"fraction": str(value)}
    if isinstance(value, tuple):
        return {"tuple": [_as_json(item) for item in value]}
    if isinstance(value, frozenset):
        return {"set": sorted(value)}
    if isinstance(value, Mapping):
        return {"mapping": dict(value)}
    return value


def _from_json(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "fraction":
        return Fraction(content)
    if kind == "tuple":
        return tuple(_from_json(item) for item in content)
    return frozenset(content) if kind == "set" else content

"""Analyses on disk: saved and loaded exactly, and found again by what they are an analysis of."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from vidrestore.errors import InputError, OutputError
from vidrestore.frame import Analysis, Fields, Track, VideoInfo
from vidrestore.margins import Margins
from vidrestore.pictures import is_pattern, pictures_of

_VERSION = 3
_SAMPLE_BYTES = 1 << 20
# Of a track, what has one row for each of its frames.
_PER_FRAME = ("matrices", "landmarks", "score", "strength", "detected")
_PER_TRACK = ("track_id", "person_id", "first_frame", "work_px")
_PLAIN = (
    "skipped", "shots", "corrupt_frames", "decode_errors", "repaired_times", "detector_errors",
    "one_thread", "coarse_landmarks", "template", "fingerprint", "people_are_joined",
)  # fmt: skip


def fingerprint(source: Path) -> str:
    """Of a file's content, whatever its name: its size and its first, middle and last MiB.

    Of a sequence of pictures: that of the first, and of all their sizes and times.
    """
    digest = hashlib.sha256()
    try:
        if is_pattern(source):
            first, *others = pictures_of(source).files
            for path in (first, *others):
                known = path.stat()
                digest.update(f"{known.st_size} {known.st_mtime_ns}\n".encode())
            source = first
        size = source.stat().st_size
        digest.update(str(size).encode())
        with source.open("rb") as file:
            for start in (0, (size - _SAMPLE_BYTES) // 2, size - _SAMPLE_BYTES):
                file.seek(max(0, start))
                digest.update(file.read(_SAMPLE_BYTES))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"the file {source} cannot be read: {reason}") from error
    return digest.hexdigest()


def save(analysis: Analysis, path: Path) -> None:
    """Write `path`, which appears only when it is whole. OutputError where that cannot be done."""
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
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            np.savez_compressed(file, header=np.array(json.dumps(header)), **arrays)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OutputError(f"the analysis {path} cannot be written: {reason}") from error
    finally:
        part.unlink(missing_ok=True)


def load(path: Path) -> Analysis:
    """What `save` wrote, equal to the last bit. InputError for whatever else it is."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        header = json.loads(str(arrays["header"]))
        if header["version"] != _VERSION:
            raise InputError(
                f"the analysis {path} was written by another version of vidrestore; analyze again"
            )
        return _analysis(header, arrays)
    except FileNotFoundError as error:
        raise InputError(f"the analysis {path} does not exist") from error
    except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError, BadZipFile) as error:
        raise InputError(f"{path} is no analysis, or a damaged one; analyze again") from error


def check_source(analysis: Analysis, source: Path, where: str) -> None:
    """InputError if the analysis, or what else stands in `where`, is of another video."""
    if analysis.fingerprint and analysis.fingerprint != fingerprint(source):
        raise InputError(f"{where} is of another video than {source}; analyze that one")


def cached(source: Path, folder: Path, settings_hash: str) -> Path:
    """Where the analysis of a source under given settings is kept."""
    return folder / f"{fingerprint(source)[:32]}-{settings_hash[:16]}.npz"


def _analysis(header: Mapping[str, Any], arrays: Mapping[str, Any]) -> Analysis:
    info = _info_from_json(header["info"])
    fields = None
    if (own := header.get("fields")) is not None:
        of_file = _info_from_json(own["info"])
        pts, crc32 = arrays["file_pts"], arrays["file_crc32"]
        sources = arrays.get("file_sources")
        fields = Fields(own["mode"], own["order"], of_file, pts, crc32, sources)
    ends = np.cumsum(arrays["lengths"])
    embeddings = iter(arrays.get("embedding", ()))
    tracks = []
    for i, end in enumerate(ends):
        rows = slice(int(end - arrays["lengths"][i]), int(end))
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

"""What can be known of a weight file: from its bytes, and from its first use.

Nothing in a file is ever run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, BinaryIO

from vidrestore.errors import WeightsError


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_kind(path: Path, name: str) -> None:
    """Raise WeightsError unless `path` begins, and as far as is cheap ends, as `name` says.

    `name` gives the suffix: .onnx, .pth, .pt, .safetensors or .zip; with others only emptiness and
    the usual accidents (a web page, a Git LFS pointer) are found.
    """
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise WeightsError(f"{path} is empty")
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        raise WeightsError(f"{path} is a web page, not a weight file")
    if head.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{path} is a Git LFS pointer, not the file it points to")
    suffix = PurePath(name).suffix.lower()
    if suffix == ".onnx":
        count_outputs(path)
    elif suffix in (".pth", ".pt", ".zip"):
        if head.startswith(b"PK\x03\x04"):
            if not zipfile.is_zipfile(path):
                raise WeightsError(f"{path} is cut short")
        elif suffix == ".zip" or not head.startswith(b"\x80"):  # pickle's first byte
            raise WeightsError(f"{path} is not a {suffix} file: it begins with {head[:8]!r}")
    elif suffix == ".safetensors":
        header_bytes = int.from_bytes(head[:8], "little")
        if head[8:9] != b"{" or 8 + header_bytes > path.stat().st_size:
            raise WeightsError(f"{path} is not a whole .safetensors file")


def check_pack(folder: Path) -> None:
    """Raise WeightsError unless `folder` holds whole .onnx files, one of them a face detector.

    A detector is told as InsightFace tells it: by five outputs or more. InsightFace itself takes
    any folder for a pack, and fails on an empty one with an error that has no message.
    """
    files = sorted(folder.glob("*.onnx"))
    if not files:
        raise WeightsError(f"{folder} holds no .onnx file, so the pack was never fully unpacked")
    counts = []
    for file in files:
        check_kind(file, file.name)
        counts.append(count_outputs(file))
    if max(counts) < 5:
        names = ", ".join(file.name for file in files)
        raise WeightsError(f"{folder} holds no face detector, only {names}")


def count_outputs(path: Path) -> int:
    """Outputs of an ONNX graph, walking over the fields without reading what is in them.

    Raises WeightsError when the file is not ONNX or ends early.
    """
    model_graph, graph_output = 7, 12  # field numbers of onnx.proto
    outputs = None
    try:
        with path.open("rb") as file:
            for field, end in _fields(file, path.stat().st_size):
                if field == model_graph:
                    outputs = sum(inner == graph_output for inner, _ in _fields(file, end))
    except ValueError as error:
        raise WeightsError(f"{path} is not a whole ONNX file: {error}") from error
    if not outputs:
        raise WeightsError(f"{path} is not an ONNX file: it has no graph with an output")
    return outputs


def _fields(file: BinaryIO, end: int) -> Iterator[tuple[int, int]]:
    """Number and end of each protobuf field up to `end`; the file stands at its contents."""
    while file.tell() < end:
        tag = _varint(file)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            _varint(file)
            continue
        if wire_type not in (1, 2, 5) or number == 0:
            raise ValueError(f"no field can begin with {tag:#x}")
        length = {1: 8, 5: 4}.get(wire_type) or _varint(file)
        field_end = file.tell() + length
        if field_end > end:
            raise ValueError(f"{field_end - end} bytes are missing")
        yield number, field_end
        file.seek(field_end)


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise ValueError("it ends in the middle of a number")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("a number is too long")


def check_state_dict(path: Path, entries: int | None, parameters: int | None) -> None:
    """Raise WeightsError unless the checkpoint at `path` is a state dict of that size.

    None means any size. A wrapped dict (g_ema, params_ema, state_dict) is looked into. Entries
    ending in `.kernel` are fixed blur filters and count as entries, not as parameters.
    """
    state = _read_state_dict(path)
    found_entries = len(state)
    found_parameters = sum(
        value.numel() for key, value in state.items() if not key.endswith(".kernel")
    )
    if entries not in (None, found_entries) or parameters not in (None, found_parameters):
        raise WeightsError(
            f"{path} is another network: {found_entries} entries and {found_parameters} parameters "
            f"instead of {entries} and {parameters}"
        )


def _read_state_dict(path: Path) -> dict[str, Any]:
    import torch

    with path.open("rb") as file:
        is_safetensors = file.read(9)[8:] == b"{"
    try:
        if is_safetensors:
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds, depending on what the file is not
        first_line = next(iter(str(error).splitlines()), type(error).__name__)
        raise WeightsError(f"{path} cannot be read as a checkpoint ({first_line})") from error
    for wrapper in ("g_ema", "params_ema", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not (
        isinstance(state, dict)
        and state
        and all(isinstance(value, torch.Tensor) for value in state.values())
    ):
        raise WeightsError(f"{path} holds no state dict, that is, no names with tensors")
    return state


class Notes:
    """Hashes and licences seen before, as JSON in `path`.

    {"files": {path: {"sha256": ..., "bytes": ..., "mtime_ns": ...}}, "licences": {name: ...}}.
    What cannot be read is forgotten, and noted anew; where nothing can be written, nothing is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def sha256_noted(self, path: Path) -> str | None:
        """The hash that `path` had; None if it is new."""
        entry = self._entry(path)
        return entry["sha256"] if entry else None

    def is_unchanged(self, path: Path) -> bool:
        """True if size and time of change are those noted, so that hashing can be saved."""
        state, entry = path.stat(), self._entry(path)
        return entry is not None and (entry["bytes"], entry["mtime_ns"]) == (
            state.st_size,
            state.st_mtime_ns,
        )

    def note_file(self, path: Path) -> str:
        """Note the sha256 of `path` and return it."""
        state = path.stat()
        sha256 = sha256_of(path)
        entry = {"sha256": sha256, "bytes": state.st_size, "mtime_ns": state.st_mtime_ns}
        self._write("files", str(path.absolute()), entry)
        return sha256

    def note_licence(self, name: str, licence: str) -> bool:
        """True the first time."""
        if name in _read_notes(self.path)["licences"]:
            return False
        self._write("licences", name, licence)
        return True

    def _entry(self, path: Path) -> dict[str, Any] | None:
        entry: dict[str, Any] | None = _read_notes(self.path)["files"].get(str(path.absolute()))
        return entry

    def _write(self, section: str, key: str, value: Any) -> None:
        content = _read_notes(self.path)
        content[section][key] = value
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=".hashes-")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(content, file, indent=1)
            Path(temporary).replace(self.path)


def _read_notes(path: Path) -> dict[str, dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        files, licences = dict(content["files"]), dict(content["licences"])
        known = {"sha256", "bytes", "mtime_ns"}
        return {
            "files": {key: entry for key, entry in files.items() if known <= entry.keys()},
            "licences": licences,
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {"files": {}, "licences": {}}

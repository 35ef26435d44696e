"""What can be known of a weight file: from its bytes, and from its first use.

Nothing in a file is ever run.
"""

from __future__ import annotations

import errno
import json
import logging
import pickle
import pickletools
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from vidrestore.common.checksums import checksum_of_fields, sha256_of_file
from vidrestore.common.errors import WeightsError
from vidrestore.common.files import held, written_atomically

if TYPE_CHECKING:
    import torch

_logger = logging.getLogger("vidrestore")
_CHUNK_BYTES = 1 << 20
_WRAPPERS = ("g_ema", "params_ema", "params", "state_dict")
# torch's old format is so many pickles, one after another, and then the numbers.
_LEGACY_PICKLES = 5
# A tensor takes about 4 tuples and 40 steps, a large checkpoint has a thousand of them.
_MOST_TUPLES, _MOST_STEPS = 20_000, 1_000_000
_NAMED_KEYS, _SHOWN_CHARACTERS = 3, 200


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
            try:
                whole = zipfile.is_zipfile(path)
            except zipfile.BadZipFile as error:
                raise WeightsError(f"{path} is damaged: {error}") from error
            if not whole:
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


def names_in_graph(path: Path) -> list[str]:
    """Names of the nodes and weights of an ONNX graph, without reading the weights.

    Raises WeightsError when the file is not ONNX or ends early.
    """
    model_graph, name_fields = 7, {1: 3, 5: 8}  # NodeProto.name, TensorProto.name
    names = []
    try:
        with path.open("rb") as file:
            for field, end in _fields(file, path.stat().st_size):
                parts = _fields(file, end) if field == model_graph else ()
                for part, part_end in parts:
                    inner_fields = _fields(file, part_end) if part in name_fields else ()
                    for inner, inner_end in inner_fields:
                        if inner == name_fields[part]:
                            text = file.read(inner_end - file.tell())
                            names.append(text.decode(errors="replace"))
    except ValueError as error:
        raise WeightsError(f"{path} is not a whole ONNX file: {error}") from error
    return names


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


def check_state_dict(
    path: Path, entries: int | None, parameters: int | None, name: str | None = None
) -> None:
    """Raise WeightsError unless the checkpoint at `path` is a state dict of that size.

    None means any size; `name` is as of `read_checkpoint`. Entries ending in `.kernel` are fixed
    blur filters and count as entries, not as parameters.
    """
    state = read_checkpoint(path, name)
    found_entries = len(state)
    found_parameters = sum(
        value.numel() for key, value in state.items() if not key.endswith(".kernel")
    )
    if entries not in (None, found_entries) or parameters not in (None, found_parameters):
        raise WeightsError(
            f"{path} is another network: {found_entries} entries and {found_parameters} parameters "
            f"instead of {entries} and {parameters}"
        )


def read_checkpoint(path: Path, name: str | None = None) -> dict[str, torch.Tensor]:
    """Return the tensors of a weight file by name, on the CPU; the one reader of checkpoints.

    A state dict as .pth, .pt or .safetensors, plain or under g_ema, params_ema, params or
    state_dict, or the initializers of an .onnx. Of a .pth that is a zip, as torch writes them, the
    sums of all members are checked; the other formats hold none.

    Args:
        path: The file.
        name: Its name where it stands under a temporary one; the suffix says the format.

    Returns:
        Tensors that are dense and no larger than the file.

    Raises:
        WeightsError: The file is damaged, of another kind, or would run code.
        OSError: The file cannot be read.
    """
    name = name or path.name
    readers: dict[str, Callable[[Path], dict[str, torch.Tensor]]] = {
        ".pth": _read_torch,
        ".pt": _read_torch,
        ".safetensors": _read_safetensors,
        ".onnx": _read_onnx,
    }
    suffix = PurePath(name).suffix.lower()
    if suffix not in readers:
        raise WeightsError(f"{path} ends in {suffix!r} where weights end in {', '.join(readers)}")
    check_kind(path, name)
    with _one_sentence(path):
        return readers[suffix](path)


def check_sums(path: Path) -> None:
    """Raise WeightsError where a weight file holds sums of its content, as a .pth that is a zip
    does, and they are wrong. Nothing is loaded."""
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
    if zipped:
        with _one_sentence(path):
            _check_zip(path)


@contextmanager
def _one_sentence(path: Path) -> Iterator[None]:
    """Turns whatever a damaged or odd file makes of its readers into WeightsError."""
    try:
        yield
    except WeightsError:
        raise
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # a place that no file can have is damage
            raise
        raise WeightsError(f"{path} is damaged: {_reason(error)}") from error
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        named = f" ({wanted[1]})" if wanted else ""
        raise WeightsError(
            f"{path} was not loaded: it is damaged or would run code{named} where only tensors "
            "are allowed"
        ) from error
    except Exception as error:  # whatever a damaged file makes of zipfile, pickle, torch and onnx
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise WeightsError(
                f"{path} asks for more memory than there is, so it is damaged or too large for "
                "this machine"
            ) from error
        raise WeightsError(f"{path} is damaged: {_reason(error)}") from error


def _read_torch(path: Path) -> dict[str, torch.Tensor]:
    import torch

    with path.open("rb") as file:
        zipped = file.peek(2).startswith(b"PK")
        if not zipped:
            for _ in range(_LEGACY_PICKLES):
                if file.peek(1):
                    _check_pickle(path, file)
    if zipped:
        _check_zip(path)
    with warnings.catch_warnings():
        # Torch says what it finds odd in a pickle; what cannot be read raises all the same.
        warnings.simplefilter("ignore")
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    state = _unwrapped(path, loaded)
    file_bytes = path.stat().st_size
    for key, value in state.items():
        if (
            value.layout is not torch.strided
            or value.device.type != "cpu"
            or value.is_quantized
            or value.numel() * value.element_size() > value.untyped_storage().nbytes()
            or value.untyped_storage().nbytes() > file_bytes
        ):
            raise WeightsError(
                f"{path} holds no plain numbers for {key[:_SHOWN_CHARACTERS]}, of shape "
                f"{tuple(value.shape)}"
            )
    return state


def _check_zip(path: Path) -> None:
    """Raise WeightsError unless the zip's directory and the sums of its members are right, and each
    has a name of its own: of two of one name it is not known which torch reads."""
    with zipfile.ZipFile(path) as archive:
        names = Counter(archive.namelist())
        if twice := [name for name, count in names.items() if count > 1]:
            raise WeightsError(f"{path} is damaged: it holds {some_of(twice)} more than once")
        for member in archive.infolist():
            if member.filename.endswith("/constants.pkl"):
                raise WeightsError(f"{path} is a TorchScript program where a state dict is wanted")
            if member.compress_type != zipfile.ZIP_STORED:
                raise WeightsError(f"{path} is a compressed zip, which torch.save never writes")
            with archive.open(member) as file:
                while file.read(_CHUNK_BYTES):
                    pass
        for member in archive.infolist():
            if member.filename.endswith("data.pkl"):
                with archive.open(member) as file:
                    _check_pickle(path, file)


def _check_pickle(path: Path, file: IO[bytes]) -> None:
    """Raise WeightsError for a pickle of more steps than the weights of a network need.

    Tuples within tuples overflow the stack of the interpreter, which no exception follows.
    """
    tuples = 0
    for step, (opcode, _, _) in enumerate(pickletools.genops(file)):
        tuples += "TUPLE" in opcode.name
        if tuples > _MOST_TUPLES or step > _MOST_STEPS:
            raise WeightsError(f"{path} was not loaded: its pickle is not that of a state dict")


def _unwrapped(path: Path, loaded: Any) -> dict[str, torch.Tensor]:
    import torch

    for wrapper in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping):
        raise WeightsError(
            f"{path} holds an object of type {type(loaded).__name__} where a state dict is wanted"
        )
    others = [
        str(key)[:_SHOWN_CHARACTERS]
        for key, value in loaded.items()
        if not (isinstance(key, str) and isinstance(value, torch.Tensor))
    ]
    if others or not loaded:
        raise WeightsError(
            f"{path} holds no state dict: {some_of(others) or 'nothing'} where names of tensors or "
            f"one of {', '.join(_WRAPPERS)} are wanted"
        )
    return dict(loaded)


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return _unwrapped(path, load_file(path))


def _read_onnx(path: Path) -> dict[str, torch.Tensor]:
    import onnx
    import torch
    from onnx import numpy_helper

    initializers = onnx.load(path).graph.initializer
    return {each.name: torch.tensor(numpy_helper.to_array(each)) for each in initializers}


def some_of(keys: Iterable[str]) -> str:
    """The first few of `keys`, for a message, and how many more there are."""
    keys = list(keys)
    more = f" and {len(keys) - _NAMED_KEYS} more" if len(keys) > _NAMED_KEYS else ""
    return ", ".join(keys[:_NAMED_KEYS]) + more


def _reason(error: Exception) -> str:
    first = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return first[:_SHOWN_CHARACTERS]


class Notes:
    """Hashes and licences seen before, as JSON in `path`.

    {"files": {path: {"sha256": ..., "bytes": ..., "mtime_ns": ..., "sum": ...}}, "licences":
    {name: ...}}, where "sum" is of the other three and the path. What cannot be read or does not
    fit its sum is forgotten, and noted anew; where nothing can be written, nothing is. Processes
    write one after another.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def sha256_noted(self, path: Path) -> str | None:
        """The hash that `path` had; None if it is new."""
        entry = self._entry(path)
        return entry["sha256"] if entry else None

    def looks_unchanged(self, path: Path) -> bool:
        """True if size and time of change are those noted; a disk may still have lost a bit."""
        state, entry = path.stat(), self._entry(path)
        return entry is not None and (entry["bytes"], entry["mtime_ns"]) == (
            state.st_size,
            state.st_mtime_ns,
        )

    def note_file(self, path: Path, sha256: str | None = None) -> str:
        """Note the sha256 of `path`, read from it where it is not given, and return it."""
        state = path.stat()
        sha256 = sha256 or sha256_of_file(path)
        key = str(path.absolute())
        entry = {"sha256": sha256, "bytes": state.st_size, "mtime_ns": state.st_mtime_ns}
        self._write("files", key, entry | {"sum": _sum_of(key, entry)})
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
        folder = self.path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with held(folder / ".hashes.lock", wait=True):
                for left_behind in folder.glob(".hashes-*"):  # by an earlier version
                    left_behind.unlink(missing_ok=True)
                content = _read_notes(self.path)
                content[section][key] = value
                with written_atomically(self.path) as part:
                    part.write_text(json.dumps(content, indent=1), encoding="utf-8")
        except OSError as error:
            _logger.info("%s was not noted in %s: %s", key, self.path, error)


def _read_notes(path: Path) -> dict[str, dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {
            "files": {key: e for key, e in dict(content["files"]).items() if _is_sound(key, e)},
            "licences": dict(content["licences"]),
        }
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        _logger.info("%s is begun anew: %s", path, error)
    return {"files": {}, "licences": {}}


def _is_sound(key: str, entry: Any) -> bool:
    """The entry has what it needs, and, where it holds a sum, is as it was written."""
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("sha256"), str)
        and re.fullmatch(r"[0-9a-f]{64}", entry["sha256"]) is not None
        and all(type(entry.get(number)) is int for number in ("bytes", "mtime_ns"))
        and entry.get("sum", _sum_of(key, entry)) == _sum_of(key, entry)
    )


def _sum_of(key: str, entry: Mapping[str, Any]) -> str:
    own = {name: entry[name] for name in ("sha256", "bytes", "mtime_ns")}
    return checksum_of_fields(own | {"path": key})

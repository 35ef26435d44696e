"""Reading weight files safely, checking that they are whole, and noting their hashes.

No code that a file contains is ever run.
"""

from __future__ import annotations

import errno
import json
import logging
import pickle
import pickletools
import re
import sys
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path, PurePath
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from vidrestore.common.checksums import checksum_of_fields, sha256_of_file
from vidrestore.common.errors import WeightsError
from vidrestore.common.files import held, written_atomically
from vidrestore.common.handled import log_handled
from vidrestore.common.quoting import first_line, shortened
from vidrestore.models.known_networks import identified

if TYPE_CHECKING:
    import torch

_logger = logging.getLogger("vidrestore")
_CHUNK_BYTES = 1 << 20
TORCH_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin")
"""Suffixes of the files that torch writes."""
SUFFIXES = (*TORCH_SUFFIXES, ".safetensors", ".onnx")
"""Suffixes of the files that `read_checkpoint` reads."""
# Names under which training programs keep a network: averaged weights first, a discriminator last.
_WRAPPERS = ("g_ema", "params_ema", "params", "state_dict", "g", "generator", "model", "d")
_MOST_WRAPPERS = 4
# A tensor of ONNX has 14 kinds of fields, of which only the sides repeat.
_MOST_TENSOR_FIELDS = 64
# torch's old format is this many pickles, one after another, and then the numbers.
_LEGACY_PICKLES = 5
# A tensor takes about 4 tuples and 40 steps, and a large checkpoint has a thousand tensors.
_MOST_TUPLES, _MOST_STEPS = 20_000, 1_000_000
_LISTED_KEYS, _MOST_CHARACTERS = 3, 200
# A pickled module of torch has these; a state dict has none of them.
_MODULE_ATTRIBUTES = frozenset({"_parameters", "_buffers", "_modules"})
# Of the standard library, in the pickles of modules.
_HARMLESS_MODULES = ("collections", "_codecs")
_HARMLESS_TYPES = ("set", "frozenset", "slice", "bytes", "bytearray", "complex", "object")


def check_kind(path: Path, name: str) -> None:
    """Check that a file has the format that its suffix names, without reading all of it.

    For other suffixes than those of weights and .zip, the function recognizes only empty files, web
    pages and Git LFS pointers. Except for files in torch's old format, it also recognizes a file
    that is cut short.

    Args:
        path: The file.
        name: A name with the suffix that counts, since the file may have a temporary name.

    Raises:
        WeightsError: The file is empty, of another format, or cut short.
        OSError: The file cannot be read.
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
        check_is_one_file(path)
    elif suffix in (*TORCH_SUFFIXES, ".zip"):
        if head.startswith(b"PK\x03\x04"):
            try:
                is_whole = zipfile.is_zipfile(path)
            except zipfile.BadZipFile as error:
                raise WeightsError(f"{path} is damaged: {error}") from error
            if not is_whole:
                raise WeightsError(f"{path} is cut short")
        elif suffix == ".zip" or not head.startswith(b"\x80"):  # pickle's first byte
            raise WeightsError(
                f"{path} is not a {suffix} file: it begins with {head[:8]!r}"
                f"{_looks_like(head, suffix)}"
            )
    elif suffix == ".safetensors":
        header_bytes = int.from_bytes(head[:8], "little")
        if head[8:9] != b"{" or 8 + header_bytes > path.stat().st_size:
            raise WeightsError(
                f"{path} is not a whole .safetensors file{_looks_like(head, suffix)}"
            )


def _looks_like(head: bytes, own: str) -> str:
    """Return a clause that names another format than the suffix does; empty where none is seen."""
    for suffix, fits in (
        (".safetensors", head[8:9] == b"{"),
        (".pth", head.startswith((b"PK\x03\x04", b"\x80\x02"))),
        (".onnx", head.startswith(b"\x08") and head[2:3] in (b"\x12", b"\x3a")),
    ):
        if fits and suffix != own:
            return f"; it looks like a {suffix} file, so give it that suffix"
    return ""


def check_pack(folder: Path) -> None:
    """Check that a folder holds whole .onnx files, one of them a face detector.

    A network with five outputs or more counts as a detector, as in InsightFace. InsightFace itself
    accepts any folder as a pack, and fails on an empty one with an error that has no message.

    Args:
        folder: The folder of the pack.

    Raises:
        WeightsError: A file is damaged, or the folder holds no .onnx file or no detector.
        OSError: A file cannot be read.
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
    """Count the outputs of an ONNX graph from the file's fields, without reading their contents.

    Args:
        path: The .onnx file.

    Returns:
        The number of outputs, 1 or more.

    Raises:
        WeightsError: The file is not ONNX or is cut short.
        OSError: The file cannot be read.
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
    """List the names of the nodes and weights of an ONNX graph, without reading the weights.

    Args:
        path: The .onnx file.

    Returns:
        The names in the order of the file.

    Raises:
        WeightsError: The file is not ONNX or is cut short.
        OSError: The file cannot be read.
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


def check_is_one_file(path: Path) -> None:
    """Check that no weight of an ONNX graph lies in another file.

    The hash of the file would not cover it, so that results of earlier weights would be used again.

    Args:
        path: The .onnx file.

    Raises:
        WeightsError: A weight lies in another file, or the file is not ONNX or is cut short.
        OSError: The file cannot be read.
    """
    model_graph, graph_initializer = 7, 5  # field numbers of onnx.proto
    try:
        with path.open("rb") as file:
            for field, end in _fields(file, path.stat().st_size):
                for part, part_end in _fields(file, end) if field == model_graph else ():
                    if part == graph_initializer and _lies_elsewhere(file, part_end):
                        raise WeightsError(
                            f"{path} keeps weights in other files; make it one file with these "
                            "lines of Python",
                            "import onnx",
                            f"onnx.save(onnx.load({str(path)!r}), "
                            f"{str(path.with_suffix('.whole.onnx'))!r})",
                        )
    except ValueError as error:
        raise WeightsError(f"{path} is not a whole ONNX file: {error}") from error


def _lies_elsewhere(file: BinaryIO, end: int) -> bool:
    """Return whether the tensor up to `end` has its values in another file."""
    tensor_external = 13
    try:
        first = islice(_fields(file, end), _MOST_TENSOR_FIELDS)
        return any(field == tensor_external for field, _ in first)
    except ValueError as error:  # which the reader of the tensor tells
        log_handled(error)
        return False


def _fields(file: BinaryIO, end: int) -> Iterator[tuple[int, int]]:
    """Yield number and end of each protobuf field up to `end`, the file at the field's content."""
    while file.tell() < end:
        tag = _varint(file)
        number, wire_type = tag >> 3, tag & 7
        if wire_type not in (0, 1, 2, 5) or number == 0:
            raise ValueError(f"no field can begin with {tag:#x}")
        if wire_type == 0:
            _varint(file)
            yield number, file.tell()
            continue
        length = {1: 8, 5: 4}.get(wire_type) or _varint(file)
        field_end = file.tell() + length
        if field_end > end:
            raise ValueError(f"{field_end - end} bytes are missing")
        yield number, field_end
        file.seek(field_end)


def _varint(file: BinaryIO) -> int:
    """Read a variable-length integer of protobuf; ValueError where there is none."""
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
    path: Path,
    entries: int | None,
    parameters: int | None,
    name: str | None = None,
    kind: str | None = None,
) -> None:
    """Check that a checkpoint has the expected number of entries and parameters.

    Entries whose name ends in `.kernel` are fixed blur filters, and their values do not count as
    parameters.

    Args:
        path: The file.
        entries: Expected number of tensors; None for any.
        parameters: Expected number of values; None for any.
        name: A name with the suffix that counts, see `read_checkpoint`.
        kind: The kind of a `KnownNetwork` whose weights the file must hold; None (default) for any.

    Raises:
        WeightsError: The numbers or the kind differ, or the file cannot be loaded; see
            `read_checkpoint`.
        OSError: The file cannot be read.
    """
    state = read_checkpoint(path, name)
    entry_count = len(state)
    parameter_count = sum(
        value.numel() for key, value in state.items() if not key.endswith(".kernel")
    )
    if entries not in (None, entry_count) or parameters not in (None, parameter_count):
        raise WeightsError(
            f"{path} is another network: {entry_count} entries and {parameter_count} parameters "
            f"instead of {entries} and {parameters}"
        )
    if kind is not None and ((network := identified(state)) is None or network.kind != kind):
        found = f"holds {network.name}" if network else f"has the weights {some_of(state)}"
        raise WeightsError(f"{path} is another network: it {found}")


def read_checkpoint(path: Path, name: str | None = None) -> dict[str, torch.Tensor]:
    """Read the tensors of a weight file. All checkpoints are read here.

    The file is a state dict as .pth, .pt, .ckpt, .bin or .safetensors, or an .onnx, of which the
    initializers are read. The state dict may stand under a name that training programs give it,
    such as g_ema, params, state_dict, g, generator or model; of several, averaged weights are read
    first. Its values may be tensors or NumPy arrays. Where a file of torch is a zip, the checksums
    of all members are checked. The other formats have no checksums.

    Args:
        path: The file.
        name: A name whose suffix gives the format, for a file with a temporary name; None for the
            file's own name.

    Returns:
        Dense tensors by name, on the CPU. Each storage is no larger than the file.

    Raises:
        WeightsError: The file is damaged, of another format, or would run code.
        OSError: The file cannot be read.
    """
    name = name or path.name
    readers: dict[str, Callable[[Path], dict[str, torch.Tensor]]] = {
        ".safetensors": _read_safetensors,
        ".onnx": _read_onnx,
    }
    suffix = PurePath(name).suffix.lower()
    if suffix not in SUFFIXES:
        raise WeightsError(
            f"{path} ends in {suffix!r} where weights end in {', '.join(SUFFIXES)}; use such a file"
        )
    check_kind(path, name)
    with _one_sentence(path):
        return readers.get(suffix, _read_torch)(path)


def check_sums(path: Path) -> None:
    """Check the checksums of a .pth that is a zip, without loading it; accept other files.

    Args:
        path: The file.

    Raises:
        WeightsError: A checksum is wrong, or the zip is damaged.
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
    if zipped:
        with _one_sentence(path):
            _check_zip(path)


@contextmanager
def _one_sentence(path: Path) -> Iterator[None]:
    """Turn every error that a damaged or odd file causes in its reader into WeightsError."""
    try:
        yield
    except WeightsError:
        raise
    except OSError as error:
        # A damaged file makes its reader seek to an impossible position, which gives EINVAL.
        if error.errno not in (None, errno.EINVAL):
            raise
        raise WeightsError(f"{path} is damaged: {first_line(error)}") from error
    except pickle.UnpicklingError as error:
        match = re.search(r"GLOBAL ([\w.]+)", str(error))
        code_name = f" ({match[1]})" if match else ""
        raise WeightsError(
            f"{path} was not loaded: it is damaged or would run code{code_name} where only tensors "
            "are allowed; get it from a source that you trust"
        ) from error
    except Exception as error:  # zipfile, pickle, torch and onnx raise many kinds
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise WeightsError(
                f"{path} needs more memory than is free: the file is damaged, or it is too large "
                "for this machine"
            ) from error
        raise WeightsError(f"{path} is damaged: {first_line(error)}") from error


def _read_torch(path: Path) -> dict[str, torch.Tensor]:
    """Read a file in torch's zip format or in its old one, with `weights_only`."""
    import torch

    from vidrestore.models.pickled_arrays import allowed

    with path.open("rb") as file:
        zipped = file.peek(2).startswith(b"PK")
        if not zipped:
            for _ in range(_LEGACY_PICKLES):
                if file.peek(1):
                    _check_pickle(path, file)
    if zipped:
        _check_zip(path)
    with warnings.catch_warnings(), allowed():
        # Torch warns of oddities in a pickle; content that it cannot read still raises.
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
                f"{path} holds no plain numbers for {some_of([key])}, of shape "
                f"{tuple(value.shape)}; get the file again"
            )
    return state


def _check_zip(path: Path) -> None:
    """Raise WeightsError for a damaged zip, wrong checksums, or names that occur twice.

    Where two members have one name, it is undefined which of them torch reads.
    """
    with zipfile.ZipFile(path) as archive:
        names = Counter(archive.namelist())
        if repeated := [name for name, count in names.items() if count > 1]:
            raise WeightsError(f"{path} is damaged: it holds {some_of(repeated)} more than once")
        if any(name.endswith("/constants.pkl") for name in names):
            raise WeightsError(
                f"{path} is a TorchScript program where a state dict is needed; use the network's "
                "state dict"
            )
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise WeightsError(
                    f"{path} is a compressed zip, which torch.save never writes; get the file again"
                )
            with archive.open(member) as file:
                while file.read(_CHUNK_BYTES):
                    pass
        for member in archive.infolist():
            if member.filename.endswith("data.pkl"):
                with archive.open(member) as file:
                    _check_pickle(path, file)


def _check_pickle(path: Path, file: IO[bytes]) -> None:
    """Raise WeightsError for a whole network, and for a pickle of more steps than weights need.

    Deeply nested tuples overflow the stack of the interpreter, which ends without an exception.
    """
    tuples, texts, names = 0, set(), set()
    for step, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        tuples += "TUPLE" in opcode.name
        if tuples > _MOST_TUPLES or step > _MOST_STEPS:
            raise WeightsError(
                f"{path} was not loaded: its pickle is not that of a state dict; use a state dict"
            )
        if isinstance(argument, str):
            if opcode.name in ("GLOBAL", "INST"):
                names.add(argument)
            elif argument in _MODULE_ATTRIBUTES:
                texts.add(argument)
        elif opcode.name == "STACK_GLOBAL":  # torch never writes it
            names.add("sys")
    if texts == _MODULE_ATTRIBUTES and not any(map(_may_do_harm, names)):
        raise WeightsError(*_whole_network(path))


def _whole_network(path: Path) -> tuple[str, str, str]:
    """Return the lines that tell how to make a state dict of a pickled network."""
    return (
        f"{path} holds a whole network, not a state dict, and loading that would run code; if you "
        "trust it, write its state dict with these two lines of Python, where its program runs",
        f"network = torch.load({str(path)!r}, map_location='cpu', weights_only=False)",
        f"torch.save(network.state_dict(), {str(path.with_suffix('.state.pth'))!r})",
    )


def _may_do_harm(name: str) -> bool:
    """Return whether a name in a pickle, "module name", is one that no network needs."""
    module, _, own = name.partition(" ")
    top = module.partition(".")[0]
    if top in ("builtins", "__builtin__"):
        return own not in _HARMLESS_TYPES
    return top in sys.stdlib_module_names and top not in _HARMLESS_MODULES


def _unwrapped(path: Path, loaded: Any) -> dict[str, torch.Tensor]:
    """Return the state dict itself, taken out of the dicts that training programs put around it."""
    import torch

    from vidrestore.models.pickled_arrays import PickledArray

    for _ in range(_MOST_WRAPPERS):
        inner = [
            loaded[wrapper]
            for wrapper in (_WRAPPERS if isinstance(loaded, Mapping) else ())
            if isinstance(loaded.get(wrapper), Mapping)
        ]
        if not inner:
            break
        loaded = inner[0]
    if not isinstance(loaded, Mapping):
        raise WeightsError(
            f"{path} holds an object of type {type(loaded).__name__} where a state dict is needed; "
            "use the network's state dict"
        )
    others = [
        str(key)
        for key, value in loaded.items()
        if not (isinstance(key, str) and isinstance(value, torch.Tensor | PickledArray))
    ]
    if others or not loaded:
        raise WeightsError(
            f"{path} holds no state dict: it has {some_of(others) or 'nothing'} where names of "
            f"tensors or one of {', '.join(_WRAPPERS)} are needed; use the network's state dict"
        )
    arrays_bytes = sum(
        value.size_bytes for value in loaded.values() if isinstance(value, PickledArray)
    )
    if arrays_bytes > path.stat().st_size:
        raise WeightsError(f"{path} is damaged: its arrays are larger than the file")
    return {
        key: value.tensor() if isinstance(value, PickledArray) else value
        for key, value in loaded.items()
    }


def without_prefix(state: Mapping[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """Take one network out of a state dict in which its weights have a prefix, such as "module.".

    Where several networks are there, such as "g." and "g_ema.", averaged weights are taken first.

    Args:
        state: The state dict.
        name: The name of a weight that every state dict of this kind of network has.

    Returns:
        The weights of the network with their own names; all of `state` where none has the name.
    """
    prefixes = [key.removesuffix(name) for key in state if key == name or key.endswith(f".{name}")]

    def rank(prefix: str) -> int:
        parts = prefix.split(".")
        return min((_WRAPPERS.index(part) for part in parts if part in _WRAPPERS),
                   default=len(_WRAPPERS))  # fmt: skip

    prefix = min(prefixes, key=rank, default="")
    return {
        key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)
    }


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
    """List the first keys for a message, and the number of the others.

    Args:
        keys: The keys.

    Returns:
        Such as "a, b, c and 5 more"; empty where there are no keys.
    """
    keys = list(keys)
    more = f" and {len(keys) - _LISTED_KEYS} more" if len(keys) > _LISTED_KEYS else ""
    return ", ".join(shortened(key, _MOST_CHARACTERS) for key in keys[:_LISTED_KEYS]) + more


class Notes:
    """The hashes of weight files and the licenses that the user was shown, in a JSON file.

    The content is {"files": {path: {"sha256": ..., "bytes": ..., "mtime_ns": ..., "sum": ...}},
    "licences": {name: ...}}, where "sum" is a checksum of the path and the other three values.
    Entries that cannot be read or do not match their checksum are dropped and noted again. A note
    that cannot be written is logged and dropped. Processes write one after another.

    Args:
        path: The JSON file; it may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def sha256_noted(self, path: Path) -> str | None:
        """Return the hash that was noted for a file.

        Args:
            path: The file.

        Returns:
            64 hexadecimal digits; None where none was noted.
        """
        entry = self._entry(path)
        return entry["sha256"] if entry else None

    def looks_unchanged(self, path: Path) -> bool:
        """Return whether a file has the size and the time of change that were noted.

        Its content may still differ, where the disk damaged it.

        Args:
            path: The file.

        Returns:
            False where they differ or none were noted.

        Raises:
            OSError: The file does not exist or cannot be examined.
        """
        state, entry = path.stat(), self._entry(path)
        return entry is not None and (entry["bytes"], entry["mtime_ns"]) == (
            state.st_size,
            state.st_mtime_ns,
        )

    def note_file(self, path: Path, sha256: str | None = None) -> str:
        """Note the hash, size and time of change of a file.

        Args:
            path: The file.
            sha256: Its hash, 64 hexadecimal digits; None to compute it.

        Returns:
            The hash.

        Raises:
            OSError: The file cannot be read.
        """
        state = path.stat()
        sha256 = sha256 or sha256_of_file(path)
        key = str(path.absolute())
        entry = {"sha256": sha256, "bytes": state.st_size, "mtime_ns": state.st_mtime_ns}
        self._write("files", key, entry | {"sum": _sum_of(key, entry)})
        return sha256

    def note_licence(self, name: str, licence: str) -> bool:
        """Note that the user was shown the license of a weight.

        Args:
            name: Name of the weight.
            licence: Its license.

        Returns:
            True the first time for this name.
        """
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
                for left_behind in folder.glob(".hashes-*"):  # from an earlier version
                    left_behind.unlink(missing_ok=True)
                content = _read_notes(self.path)
                content[section][key] = value
                with written_atomically(self.path) as part:
                    part.write_text(json.dumps(content, indent=1), encoding="utf-8")
        except OSError as error:
            _logger.info("%s was not noted in %s: %s", key, self.path, error)


def _read_notes(path: Path) -> dict[str, dict[str, Any]]:
    """Read the notes that are sound; empty where the file is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {
            "files": {key: e for key, e in dict(content["files"]).items() if _is_sound(key, e)},
            "licences": dict(content["licences"]),
        }
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        _logger.info("%s cannot be read and is written again: %s", path, error)
    return {"files": {}, "licences": {}}


def _is_sound(key: str, entry: Any) -> bool:
    """Return whether an entry has all values, and matches its checksum if it has one."""
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("sha256"), str)
        and re.fullmatch(r"[0-9a-f]{64}", entry["sha256"]) is not None
        and all(type(entry.get(number)) is int for number in ("bytes", "mtime_ns"))
        and entry.get("sum", _sum_of(key, entry)) == _sum_of(key, entry)
    )


def _sum_of(key: str, entry: Mapping[str, Any]) -> str:
    """Return the checksum of an entry."""
    own = {name: entry[name] for name in ("sha256", "bytes", "mtime_ns")}
    return checksum_of_fields(own | {"path": key})

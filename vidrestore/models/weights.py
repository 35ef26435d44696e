"""Finding, downloading and verifying the weight files of the table of weights.

Each network loads its own file.
"""

from __future__ import annotations

import logging
import os
import re
import tomllib
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any, Literal

import platformdirs

from vidrestore.common.checksums import FileHashes, sha256_of_file
from vidrestore.common.errors import ConfigError, WeightsError, system_reason, unknown_name
from vidrestore.common.files import no_ordinary_file
from vidrestore.common.handled import log_handled
from vidrestore.common.profiles import resource_folder
from vidrestore.common.quoting import quoted
from vidrestore.models.download import (
    Progress,
    fetch_file,
    one_at_a_time,
    put_in_place,
    remove_parts,
    unpack,
)
from vidrestore.models.weight_file import (
    SUFFIXES,
    TORCH_SUFFIXES,
    Notes,
    check_kind,
    check_pack,
    check_state_dict,
    check_sums,
)

_log = logging.getLogger("vidrestore")

CHECKPOINTS = ("gpen", "gpen-task", "discriminator", "identity", "parser")
"""The kinds of weights whose files are checkpoints of torch."""

Table = Mapping[str, "Weight"]
"""Name -> weight, as `load_table` returns it."""

WITHOUT_DOWNLOAD = "--restorer fusion --detector haar"
"""Options of the command line with which vidrestore needs no weights."""

MIRROR = "VIDRESTORE_WEIGHTS_URL"
"""The environment variable with the address of a folder that is asked instead of the publishers."""

# Where ComfyUI, the WebUI, a checkout of GPEN, FaceFusion and VisoMaster keep models below their
# own folder, or below their folder of models.
_COMFYUI = ("models", "models/facerestore_models", "facerestore_models", "models/GPEN", "GPEN")
_REACTOR = "custom_nodes/comfyui-reactor-node/models/facerestore_models"
MODEL_FOLDERS = ("", *_COMFYUI, _REACTOR, "weights", ".assets/models", "model_assets")
"""Subfolders of another application's folder in which weights may lie, in the order of search."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """One entry of weights/manifest.toml."""

    name: str
    """The name of the weight in settings and on the command line."""
    kind: Literal[
        "gpen", "gpen-task", "discriminator", "identity", "parser", "yunet", "face-mesh", "pack"
    ]
    """The kind of network, or "pack" for the zip of an InsightFace pack. "gpen-task" is a GPEN that
    does something else than restore faces; "identity" compares the people in two pictures."""
    file: str
    """The name under which vidrestore stores the file; for a pack, the name of its zip."""
    other_names: tuple[str, ...] = ()
    """Other names and relative paths under which users may have the file, preferred ones
    first."""
    bytes: int | None = None
    """The size of the published file, in bytes; None where none is published."""
    sha256: str | None = None
    """The SHA-256 of the published file in hexadecimal digits; None where none is published."""
    entries: int | None = None
    """The number of entries of the state dict, fixed kernels included; None where unknown."""
    parameters: int | None = None
    """The number of parameters of the state dict, fixed kernels not counted; None where
    unknown."""
    licence: str
    """The license of the file, as a sentence for users."""
    urls: tuple[str, ...] = ()
    """The addresses of the file, in the order in which `fetch` tries them; empty where none is
    known."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names that the file, or the zip of a pack, may have, preferred ones first."""
        file = PurePath(self.file)
        # Without .onnx, which holds a network of any inputs and outputs.
        forms = SUFFIXES[:-1] if file.suffix in TORCH_SUFFIXES else ()
        names = (self.file, *self.other_names, *(f"{file.stem}{suffix}" for suffix in forms))
        return tuple(dict.fromkeys(names))


@dataclass(frozen=True, slots=True)
class Checked:
    """The result of `verify` for one file."""

    path: Path
    """The file, or the folder of a damaged pack."""
    state: Literal["good", "recorded", "changed", "damaged"]
    """"good": the file has the expected hash. "recorded": no hash was known, and vidrestore noted
    that of the file. "changed": the file differs from its noted hash. "damaged": its size,
    structure or published hash is wrong."""
    message: str
    """What is wrong with the file, or which hash was noted; empty for a good file."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of `vidrestore weights list`."""

    name: str
    """The name of the weight."""
    path: Path | None
    """The file, or the folder of a pack; None where it is missing."""
    size_bytes: int | None
    """The size on the disk, in bytes; the published size of a missing file; None where
    unknown."""
    licence: str
    """The license of the file, as a sentence for users."""
    message: str
    """What is wrong with the file; empty for a good file and for a missing one."""
    others: tuple[Path, ...] = ()
    """Further files of the same weight, which are not used, in the order of search."""


@cache
def load_table() -> Table:
    """Read the table of weights from weights/manifest.toml, in its order, once in a process."""
    path = resource_folder("weights") / "manifest.toml"
    entries = tomllib.loads(path.read_text(encoding="utf-8"))
    table = {}
    for name, entry in entries.items():
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()
        }
        table[name] = Weight(name=name, **fields)
    return MappingProxyType(table)


def user_cache() -> Path:
    """Return the user's own folder for weight files, which may not exist yet."""
    return platformdirs.user_cache_path("vidrestore", appauthor=False) / "weights"


def cache_variable(platform: str) -> str:
    """Name the environment variable that moves the caches of the user to another folder.

    Args:
        platform: The platform, as `sys.platform` names it.

    Returns:
        The name of the variable.
    """
    return "WIN_PD_OVERRIDE_LOCAL_APPDATA" if platform == "win32" else "XDG_CACHE_HOME"


def search_folders(explicit: Path | None, also: Sequence[Path] = ()) -> tuple[Path, ...]:
    """List the folders in which vidrestore looks for weights, in order.

    They are `explicit`, VIDRESTORE_WEIGHTS, an existing ./weights and the user cache, then the
    existing folders of other programs: ModelScope, `also`, InsightFace.

    Args:
        explicit: The folder that the user named; None for none.
        also: Folders of applications, or their model folders. Default: none.

    Returns:
        Absolute paths, each once. Downloaded files go to the first one.
    """
    folders = [explicit] if explicit else []
    if os.environ.get("VIDRESTORE_WEIGHTS"):
        folders.append(Path(os.environ["VIDRESTORE_WEIGHTS"]))
    if Path("weights").is_dir():
        folders.append(Path("weights"))
    folders.append(user_cache())
    modelscope = Path(os.environ.get("MODELSCOPE_CACHE") or Path.home() / ".cache/modelscope")
    below = (
        "hub/damo",
        "hub/models/damo",
        "hub/iic",
        "hub/models/iic",
        "models/damo",
        "models/iic",
        "damo",  # older versions, where MODELSCOPE_CACHE takes the place of the folder "hub"
        "iic",
    )
    others = [(expanded(modelscope), name) for name in below]
    others += [(expanded(folder), name) for folder in also for name in MODEL_FOLDERS]
    others.append((Path.home(), ".insightface"))
    folders += [path for folder, name in others for path in _subfolders(folder, name)]
    return tuple(dict.fromkeys(expanded(folder).absolute() for folder in folders))


def expanded(path: Path) -> Path:
    """Put the home folder in the place of "~" at the beginning of a path.

    Args:
        path: The path.

    Returns:
        The path with the home folder; `path` itself where there is no such user.
    """
    try:
        return path.expanduser()
    except RuntimeError as error:
        log_handled(error, f"finding {path}")
        return path


def _subfolders(folder: Path, name: str) -> list[Path]:
    """Return the subfolders of a name, then those of the same name in another case."""
    found = [folder]
    for part in PurePath(name).parts:
        found = [path / own for path in found for own in _spellings(path, part)]
    return [path for path in found if _is_folder(path)]


def _spellings(folder: Path, name: str) -> list[str]:
    """Return a name as a folder has it, in any case, the exact one first."""
    own = [each for each in names_in(folder) if each.lower() == name.lower()]
    return sorted(own, key=lambda each: (each != name, each)) or [name]


def names_in(folder: Path) -> list[str]:
    """List the names in a folder.

    Args:
        folder: The folder.

    Returns:
        The names; none where the folder does not exist or cannot be read, which the log tells.
    """
    try:
        return [path.name for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:  # ValueError: NUL in the name
        _log.info("%s is not searched for weights: %s", folder, error)
        return []


def target_folder(explicit: Path | None) -> Path:
    """Return the folder that receives downloaded files.

    It is `explicit`, else VIDRESTORE_WEIGHTS, else an existing ./weights, else the user cache.

    Args:
        explicit: The folder that the user named; None for none.

    Returns:
        The absolute path; the folder may not exist yet.
    """
    return search_folders(explicit)[0]


def pack_folder(target: Path, name: str) -> Path:
    """Return the folder into which vidrestore unpacks an InsightFace pack.

    InsightFace's `FaceAnalysis(root=target / "insightface")` finds the pack there.

    Args:
        target: The folder that receives downloaded files.
        name: Name of the pack.

    Returns:
        The path; the folder may not exist yet.
    """
    return target / "insightface" / "models" / name


def find(name: str, folders: Sequence[Path], *, table: Table | None = None) -> Path | None:
    """Find the file of a weight, or the folder of a pack, without looking at its content.

    The file may have any of the weight's names, so its suffix tells its format: a GPEN may be a
    .pth, .safetensors or .onnx file. Of the files of a folder, one with a name of the table comes
    first, then one with such a name in another case, or with the number that browsers add to a
    second copy, as in "GPEN-BFR-512 (1).pth". `require` also checks the content.

    Args:
        name: Name of the weight.
        folders: The folders to search, in order; see `search_folders`.
        table: The table of weights. Default: that of weights/manifest.toml.

    Returns:
        The path in the first folder that has it; None where no folder has it.

    Raises:
        ConfigError: `name` is neither in the table nor the name of a pack in `folders`.
    """
    return _located(_named(name, folders, table), folders)


def named_as(path: Path) -> str | None:
    """Return the name of the weight whose file has the name of a path; None: there is none."""
    return next((each.name for each in load_table().values() if path.name in each.names), None)


def is_present(name: str, folders: Sequence[Path]) -> bool:
    """Tell whether `require` finds a weight without a download.

    Args:
        name: Name of the weight.
        folders: The folders to search, in order; see `search_folders`.

    Returns:
        True where a folder holds the file, or a pack as a folder or as a zip.

    Raises:
        ConfigError: `name` is neither in the table nor the name of a pack in `folders`.
    """
    weight = _named(name, folders, None)
    return _located(weight, folders) is not None or (
        weight.kind == "pack" and _first_file(folders, (weight.file,)) is not None
    )


def obstacle(name: str, folders: Sequence[Path], *, table: Table | None = None) -> str | None:
    """Describe what lies in the place of a weight and is of another kind.

    Args:
        name: Name of the weight.
        folders: The folders to search, in order; see `search_folders`.
        table: The table of weights. Default: that of weights/manifest.toml.

    Returns:
        A clause such as "PATH is a folder"; None where no folder holds such a thing.

    Raises:
        ConfigError: `name` is neither in the table nor the name of a pack in `folders`.
    """
    return _obstacle(_named(name, folders, table), folders)


def _obstacle(weight: Weight, folders: Sequence[Path]) -> str | None:
    """Describe a folder, a pipe or a dangling link in the place of a weight; see `obstacle`."""
    if weight.kind == "pack":
        for place in _pack_places(weight, folders):
            if _leads_nowhere(place):
                return f"{place} is a link to a folder that does not exist"
            if _is_there(place) and not _is_folder(place):
                return f"{place} is not a folder"
    for place in _file_places(folders, weight.names):
        if _leads_nowhere(place):
            return f"{place} is a link to a file that does not exist"
        if _is_there(place) and (fault := no_ordinary_file(place)) is not None:
            return f"{place} {fault}"
    return None


def _asked(question: Callable[[], bool], path: Path) -> bool:
    """Return the answer; False where a folder on the way cannot be searched."""
    try:
        return question()
    except OSError as error:
        log_handled(error, f"{path} is not looked at")
        return False


def _is_file(path: Path) -> bool:
    return _asked(path.is_file, path)


def _is_folder(path: Path) -> bool:
    return _asked(path.is_dir, path)


def _is_there(path: Path) -> bool:
    return _asked(path.exists, path)


def _leads_nowhere(path: Path) -> bool:
    """Return whether a path is a link to nothing, or one in a circle."""
    return _asked(path.is_symlink, path) and not _is_there(path)


def _named(name: str, folders: Sequence[Path], table: Table | None) -> Weight:
    """Return the entry of the table, or a new one for a pack of the user's own."""
    entries = table or load_table()
    if name in entries:
        return entries[name]
    licence = (
        "an InsightFace pack of your own; the packs of InsightFace are for non-commercial use only"
    )
    own = Weight(name=name, kind="pack", file=f"{name}.zip", licence=licence)
    if Path(name).name == name and _located(own, folders):
        return own
    raise ConfigError(unknown_name("weight or InsightFace pack", name, entries))


def _located(weight: Weight, folders: Sequence[Path]) -> Path | None:
    if weight.kind == "pack":
        return next((place for place in _pack_places(weight, folders) if _is_folder(place)), None)
    return _first_file(folders, weight.names)


def _pack_places(weight: Weight, folders: Sequence[Path]) -> list[Path]:
    """Return the places of the folder of a pack, in the order of search."""
    return [
        place
        for folder in folders
        for place in (pack_folder(folder, weight.name), folder / "models" / weight.name)
    ]


def _file_places(folders: Sequence[Path], names: Sequence[str]) -> Iterator[Path]:
    """Yield the places of a file, in the order of search."""
    return (folder / name for folder in folders for name in names)


def _files_there(folders: Sequence[Path], names: Sequence[str]) -> Iterator[Path]:
    """Yield the files with one of the names, as `find` accepts them, in the order of search."""
    below: dict[str, list[PurePath]] = {}
    for name in map(PurePath, names):
        below.setdefault(str(name.parent), []).append(name)
    for folder in folders:
        exact = [place for place in _file_places((folder,), names) if _is_file(place)]
        yield from exact
        for parent, own in below.items():
            for subfolder in _subfolders(folder, parent):
                yield from (p for p in _similar(subfolder, own) if p not in exact)


def _similar(folder: Path, names: Sequence[PurePath]) -> list[Path]:
    """Return the files with a name in another case, or of a second copy: "NAME (1).pth"."""
    found = []
    for own in names_in(folder):
        match = re.fullmatch(r"(.+?)(?: ?\((\d{1,3})\))?(\.\w+)", own)
        if match is not None:
            plain = (match[1] + match[3]).lower()
            ranks = [rank for rank, name in enumerate(names) if name.name.lower() == plain]
            found += [(rank, int(match[2] or 0), own) for rank in ranks[:1]]
    return [place for *_, own in sorted(found) if _is_file(place := folder / own)]


def _first_file(folders: Sequence[Path], names: Sequence[str]) -> Path | None:
    return next(_files_there(folders, names), None)


def addresses(weight: Weight) -> tuple[str, ...]:
    """Return the addresses from which a weight is downloaded.

    Args:
        weight: The weight.

    Returns:
        Where VIDRESTORE_WEIGHTS_URL is set, the address below that mirror and no other; else those
        of the table. Empty where there is none.

    Raises:
        ConfigError: The variable holds no address of HTTP, or one with a password.
    """
    mirror = os.environ.get(MIRROR, "").strip()
    if not mirror:
        return weight.urls
    try:
        parts = urllib.parse.urlsplit(mirror)
        is_usable = parts.scheme.lower() in ("http", "https") and bool(parts.hostname)
        has_password = parts.username is not None
    except ValueError as error:  # such as a port that is no number
        _log.info("%s cannot be used: %s", MIRROR, error)
        is_usable = has_password = False
    if has_password:
        raise ConfigError(
            f"the address in {MIRROR} holds a name or a password, which vidrestore does not send; "
            "use an address without them"
        )
    if not is_usable:
        raise ConfigError(
            f"{MIRROR} is {quoted(mirror)}; it must be an address that begins with https:// or http://"
        )
    path = f"{parts.path.rstrip('/')}/{urllib.parse.quote(weight.file)}"
    return (urllib.parse.urlunsplit(parts._replace(path=path, fragment="")),)


def require(
    name: str,
    folders: Sequence[Path],
    *,
    target: Path,
    offline: bool,
    on_progress: Progress | None = None,
    table: Table | None = None,
    hashes: FileHashes | None = None,
) -> Path:
    """Find the file of a weight, check it, and download it if it is missing.

    A pack whose zip lies in one of `folders` is unpacked into `target`. The first use of a file
    notes its SHA-256, and each later use reads the file in full and compares. That takes 0.16 s
    for the 285 MB of a GPEN-2048 on one core of 2026, and the file is in memory when its network
    loads it.

    Args:
        name: Name of the weight.
        folders: The folders to search, in order; see `search_folders`.
        target: The folder that receives a downloaded file or an unpacked pack.
        offline: Whether downloads are forbidden.
        on_progress: Receives the progress of a download, in bytes. Default: none.
        table: The table of weights. Default: that of weights/manifest.toml.
        hashes: Hashes of the files that this run has read already, which are not read again.
            Default: none.

    Returns:
        The file, or the folder of a pack.

    Raises:
        WeightsError: The weight is missing and cannot be downloaded, is damaged, or has changed
            since its first use.
        ConfigError: `name` is neither in the table nor the name of a pack in `folders`.
    """
    weight = _named(name, folders, table)
    path = _located(weight, folders)
    if path is None and weight.kind == "pack":
        path = _unpack_by_hand(weight, folders, target)
    if path is None:
        if offline or not addresses(weight):
            raise WeightsError(*_missing(weight, folders, offline))
        return fetch(name, target, on_progress=on_progress, table=table)
    if problem := _problem(weight, path):
        raise WeightsError(f"{problem}; remove it, then {_fetch(weight, target)}")
    for file in _files(path):
        _check_content(weight, file, hashes or FileHashes())
    return path


def _missing(weight: Weight, folders: Sequence[Path], offline: bool) -> tuple[str, ...]:
    """Return the lines of the message for a weight that is not here and is not downloaded."""
    if (found := _obstacle(weight, folders)) is not None:
        get = _fetch(weight, folders[0])
        return (f"{found}, in the place of {weight.name}; move it away, then {get}",)
    reason = "downloads are switched off (--offline)" if offline else "no address is known for it"
    get = f"put it into {folders[0]}"
    if offline and addresses(weight):
        get += f", or run once without --offline: vidrestore weights fetch {weight.name}"
    return (
        f"{weight.file} is in none of the folders of vidrestore weights list, and {reason}",
        get,
        f"or {_without(weight)}",
    )


def _by_hand(weight: Weight, folder: Path) -> str:
    unset = f", unset {MIRROR}" if os.environ.get(MIRROR) else ""
    return f"put {weight.file} into {folder}{unset}, or {_without(weight)}"


def _fetch(weight: Weight, folder: Path) -> str:
    """Tell how to get a weight again, or to go on without it."""
    if not addresses(weight):
        return _by_hand(weight, folder)
    return f"run vidrestore weights fetch {weight.name}, or {_without(weight)}"


def _without(weight: Weight) -> str:
    if weight.kind == "face-mesh":
        return "work without it with --set detect.mesh=off"
    return f"use {WITHOUT_DOWNLOAD}, which need no download"


def _unpack_by_hand(weight: Weight, folders: Sequence[Path], target: Path) -> Path | None:
    """Unpack the zip of a pack that the user put into one of the folders; None without one."""
    archive = _first_file(folders, (weight.file,))
    if archive is None:
        return None
    check_kind(archive, archive.name)
    with one_at_a_time(target):
        if not (place := pack_folder(target, weight.name)).is_dir():  # else another run unpacked it
            unpack(archive, place, check_pack)
    return place


def check_structure(path: Path, weight: Weight) -> None:
    """Check that a checkpoint has the kind, the entries and the parameters that the table lists.

    The function reads the whole file with torch. It checks only the checkpoints of torch, and
    leaves an ONNX file to onnxruntime.

    Args:
        path: The file.
        weight: Its entry in the table.

    Raises:
        WeightsError: The file cannot be loaded, or is of another kind, or the numbers differ.
    """
    if weight.kind in CHECKPOINTS and path.suffix.lower() != ".onnx":
        name = weight.file if path.suffix == ".part" else path.name
        kind = None if weight.kind in ("gpen", "gpen-task") else weight.kind
        check_state_dict(path, weight.entries, weight.parameters, name, kind)


def fetch(
    name: str,
    target: Path,
    *,
    on_progress: Progress | None = None,
    structure: Callable[[Path, Weight], None] = check_structure,
    table: Table | None = None,
    timeout_seconds: float = 30.0,
) -> Path:
    """Download a weight, unless a good copy is in the folder already.

    The function tries the addresses of the table in turn, or that of a mirror, see `addresses`. A
    download that breaks off resumes where it stopped, in this call or a later one. Size, SHA-256,
    structure and the members of a zip are checked before the file gets its name, so that a file
    with that name is whole. Its hash is noted.

    Args:
        name: Name of the weight.
        target: The folder that receives the file.
        on_progress: Receives the progress, in bytes. Default: none.
        structure: Raises WeightsError for a file with a wrong structure. Default:
            `check_structure`.
        table: The table of weights. Default: that of weights/manifest.toml.
        timeout_seconds: How long a connection may be silent, in seconds. Default: 30.

    Returns:
        The file, or the folder of a pack.

    Raises:
        WeightsError: No address gave the file; the message names each address and its reason.
        ConfigError: `name` is neither in the table nor the name of a pack in `target`.
    """
    weight = _named(name, (target,), table)
    place = pack_folder(target, name) if weight.kind == "pack" else target / weight.file
    if (found := _obstacle(weight, (target,))) is not None:
        raise WeightsError(
            f"{found}, in the place of {name}; move it away and run the same command again"
        )

    def accept(part: Path) -> None:
        _check_file(weight, part, weight.file)
        if weight.sha256 and weight.sha256 != (sha256 := sha256_of_file(part)):
            raise WeightsError(f"its sha256 is {sha256} instead of {weight.sha256}")
        if weight.kind == "pack":
            unpack(part, place, check_pack)
        else:
            structure(part, weight)
            put_in_place(part, place)

    with one_at_a_time(target):
        if _problem(weight, place):
            if not (urls := addresses(weight)):
                raise WeightsError(*_missing(weight, (target,), offline=False))
            fetch_file(
                urls,
                target,
                weight.file,
                accept,
                otherwise=_by_hand(weight, target),
                size_bytes=weight.bytes,
                on_progress=on_progress,
                timeout_seconds=timeout_seconds,
            )
            for file in _files(place):
                record(file)
        remove_parts(target, weight.file)
    return place


def _problem(weight: Weight, place: Path) -> str:
    """Return what is wrong with a file or a pack; empty if nothing is."""
    try:
        _check(weight, place)
    except (WeightsError, OSError) as error:
        _log.info("%s is not used: %s", place, error)
        return str(error)
    return ""


def _check(weight: Weight, path: Path) -> None:
    if weight.kind == "pack":
        check_pack(path)
    else:
        _check_file(weight, path, path.name)


def _check_file(weight: Weight, path: Path, name: str) -> None:
    check_kind(path, name)
    size_bytes = path.stat().st_size
    if weight.bytes not in (None, size_bytes) and _is_published_form(weight, name):
        raise WeightsError(f"{path} has {size_bytes} bytes instead of {weight.bytes}")


def _is_published_form(weight: Weight, name: str) -> bool:
    """Return whether the file has the published format, so that size and hash must match."""
    return Path(name).suffix.lower() == Path(weight.file).suffix


def _files(path: Path) -> list[Path]:
    return sorted(path.glob("*.onnx")) if path.is_dir() else [path]


def record(path: Path, sha256: str | None = None) -> str:
    """Note the SHA-256 of a file, which later uses of the file are compared with.

    Args:
        path: The file.
        sha256: Its SHA-256 in hexadecimal digits. Default: the function computes it.

    Returns:
        The SHA-256.

    Raises:
        OSError: The file cannot be read.
    """
    return _notes().note_file(path, sha256)


def sha256_of_own(path: Path, hashes: FileHashes | None = None) -> str:
    """Compute the SHA-256 of a file that the user names by its path, and compare it with the noted.

    Users replace files of their own, so another hash means damage only where the size and the time
    of change are the same as before.

    Args:
        path: The file.
        hashes: Hashes of the files that this run has read already. Default: none.

    Returns:
        The SHA-256 in hexadecimal digits.

    Raises:
        WeightsError: The file is damaged or cannot be read.
    """
    sha256, notes = _read_sha256(path, hashes or FileHashes()), _notes()
    noted = notes.sha256_noted(path)
    if noted == sha256 and notes.looks_unchanged(path):
        return sha256
    if noted not in (None, sha256) and notes.looks_unchanged(path):
        raise WeightsError(f"{_damaged(path, noted, sha256)}; put a good copy in its place")
    check_sums(path)
    return record(path, sha256)


def _check_content(weight: Weight, path: Path, hashes: FileHashes) -> None:
    sha256, notes = _read_sha256(path, hashes), _notes()
    if message := _difference(weight, path, sha256):
        raise WeightsError(message)
    if notes.sha256_noted(path) == sha256 and notes.looks_unchanged(path):
        return
    check_sums(path)  # so that no hash of a damaged file is noted as that of a good one
    record(path, sha256)


def _read_sha256(path: Path, hashes: FileHashes) -> str:
    try:
        return hashes.sha256(path)
    except OSError as error:
        reason = system_reason(error)
        raise WeightsError(f"{path} cannot be read: {reason}") from error


def _damaged(path: Path, noted: str | None, sha256: str) -> str:
    return (
        f"{path} is damaged: its sha256 was {noted} and is {sha256}, though its size and its time "
        "of change are the same as before"
    )


def _difference(weight: Weight, path: Path, sha256: str) -> str:
    """Return what is wrong with the hash of a file; empty if nothing is."""
    if weight.kind != "pack" and weight.sha256 and _is_published_form(weight, path.name):
        if sha256 == weight.sha256:
            return ""
        return (
            f"{path} is not {weight.name}: its sha256 is {sha256} instead of the published "
            f"{weight.sha256}; remove it, then {_fetch(weight, path.parent)}"
        )
    notes = _notes()
    noted = notes.sha256_noted(path)
    if noted and noted != sha256:
        if notes.looks_unchanged(path):
            return f"{_damaged(path, noted, sha256)}; remove it, and vidrestore downloads it again"
        return (
            f"{path} has changed since its first use: its sha256 was {noted} and is {sha256}; "
            f"remove it, and vidrestore downloads it again, or, if you replaced it yourself, "
            f"remove its entry from {notes.path}"
        )
    return ""


def verify(
    name: str,
    folders: Sequence[Path],
    *,
    structure: Callable[[Path, Weight], None] = check_structure,
    table: Table | None = None,
) -> list[Checked]:
    """Read every file of a weight in full, and check its size, structure and hash.

    The function notes the hash of a good file. It raises no error for a bad file.

    Args:
        name: Name of the weight.
        folders: The folders to search, in order; see `search_folders`.
        structure: Raises WeightsError for a file with a wrong structure. Default:
            `check_structure`.
        table: The table of weights. Default: that of weights/manifest.toml.

    Returns:
        One result for each file, or one for a damaged pack; empty where the weight is missing.

    Raises:
        ConfigError: `name` is neither in the table nor the name of a pack in `folders`.
    """
    weight = _named(name, folders, table)
    path = _located(weight, folders)
    if path is None:
        return []
    try:
        _check(weight, path)
        if weight.kind != "pack":
            structure(path, weight)
    except (WeightsError, OSError) as error:
        _log.info("%s is damaged: %s", path, error)
        return [Checked(path, "damaged", str(error))]
    return [_checked(weight, file) for file in _files(path)]


def _checked(weight: Weight, path: Path) -> Checked:
    noted = _notes().sha256_noted(path)
    sha256 = sha256_of_file(path)
    if message := _difference(weight, path, sha256):
        return Checked(path, "changed" if noted else "damaged", message)
    record(path, sha256)
    if noted or weight.sha256 == sha256:
        return Checked(path, "good", "")
    return Checked(
        path, "recorded", f"no hash was known; vidrestore noted {sha256} for the next check"
    )


def licence_notice(name: str, folders: Sequence[Path], *, table: Table | None = None) -> str | None:
    """Return the license of a weight the first time that this function is called for it.

    Args:
        name: Name of the weight.
        folders: The folders to search for a pack that is not in the table.
        table: The table of weights. Default: that of weights/manifest.toml.

    Returns:
        The license; None where an earlier call has returned it, in this run or an earlier one.

    Raises:
        ConfigError: `name` is neither in the table nor the name of a pack in `folders`.
    """
    licence = _named(name, folders, table).licence
    return licence if _notes().note_licence(name, licence) else None


def list_weights(folders: Sequence[Path], *, table: Table | None = None) -> list[Row]:
    """List every weight of the table with its place, size, license and faults.

    Args:
        folders: The folders to search, in order; see `search_folders`.
        table: The table of weights. Default: that of weights/manifest.toml.

    Returns:
        One row for each weight, in the order of the table.
    """
    rows = []
    for weight in (table or load_table()).values():
        if weight.kind == "pack":
            found = [place for place in _pack_places(weight, folders) if _is_folder(place)]
        else:
            found = list(_files_there(folders, weight.names))
        places = _distinct(found)
        path = places[0] if places else None
        size_bytes, message = weight.bytes, ""
        if path is None:
            message = _obstacle(weight, folders) or ""
        if path is not None:
            size_bytes = sum(file.stat().st_size for file in _files(path))
            message = _problem(weight, path)
        others = tuple(places[1:])
        rows.append(Row(weight.name, path, size_bytes, weight.licence, message, others))
    return rows


def _distinct(paths: Iterable[Path]) -> list[Path]:
    """Return the paths without those that lead to a file or folder that stands before."""
    first: dict[tuple[int, int] | Path, Path] = {}
    for path in paths:
        try:
            state = path.stat()
        except OSError as error:
            log_handled(error)
            first.setdefault(path, path)
        else:
            first.setdefault((state.st_dev, state.st_ino), path)
    return list(first.values())


def _notes() -> Notes:
    """Open the notes in the user cache, since other programs may own the folders of weights."""
    return Notes(user_cache() / "hashes.json")

"""The table of weight files: find, fetch, verify. Loading one is left to its network."""

from __future__ import annotations

import logging
import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import platformdirs

from vidrestore.common.checksums import FileHashes, sha256_of_file
from vidrestore.common.errors import ConfigError, WeightsError, system_reason, unknown_name
from vidrestore.common.profiles import resource_folder
from vidrestore.models.download import (
    Progress,
    fetch_file,
    one_at_a_time,
    put_in_place,
    remove_parts,
    unpack,
)
from vidrestore.models.weight_file import (
    Notes,
    check_kind,
    check_pack,
    check_state_dict,
    check_sums,
)

_log = logging.getLogger("vidrestore")

Table = Mapping[str, "Weight"]

WITHOUT_DOWNLOAD = "--restorer fusion --detector haar"

# Where ComfyUI and the WebUI, FaceFusion and VisoMaster keep models below their own folder.
_COMFYUI = ("models", "models/facerestore_models", "facerestore_models")
MODEL_FOLDERS = ("", *_COMFYUI, ".assets/models", "model_assets")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """One entry of weights/manifest.toml; None where nothing is published."""

    name: str
    kind: Literal["gpen", "yunet", "pack"]
    file: str
    """Name under which it is stored; of a pack, its zip."""
    other_names: tuple[str, ...] = ()
    """Names and relative paths under which people already have it, preferred ones first."""
    bytes: int | None = None
    sha256: str | None = None
    entries: int | None = None
    """Of the state dict, fixed kernels included."""
    parameters: int | None = None
    """Of the state dict, fixed kernels not counted."""
    licence: str
    urls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Checked:
    """What `verify` found of one file."""

    path: Path
    state: Literal["good", "recorded", "changed", "damaged"]
    """recorded: nothing was known of it until now, so its hash was noted for the next time."""
    message: str
    """Empty when good."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of `vidrestore weights list`."""

    name: str
    path: Path | None
    size_bytes: int | None
    """On the disk; of a missing file what is published; None where unknown."""
    licence: str
    message: str
    """What is wrong with the file; empty when nothing is, or it is missing."""


def load_table() -> dict[str, Weight]:
    """Every weight of weights/manifest.toml by name, in its order."""
    path = resource_folder("weights") / "manifest.toml"
    entries = tomllib.loads(path.read_text(encoding="utf-8"))
    table = {}
    for name, entry in entries.items():
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()
        }
        table[name] = Weight(name=name, **fields)
    return table


def user_cache() -> Path:
    """The user's own folder for weight files; it may not exist yet."""
    return platformdirs.user_cache_path("vidrestore", appauthor=False) / "weights"


def cache_variable(platform: str) -> str:
    """The environment variable that moves the user's caches elsewhere.

    Args:
        platform: As `sys.platform` names it.
    """
    return "WIN_PD_OVERRIDE_LOCAL_APPDATA" if platform == "win32" else "XDG_CACHE_HOME"


def search_folders(explicit: Path | None, also: Sequence[Path] = ()) -> tuple[Path, ...]:
    """Where weights are looked for, in order; fetched files go to the first one.

    `explicit`, VIDRESTORE_WEIGHTS, an existing ./weights, the user cache, then where others keep
    theirs: ModelScope, `also` (an application's folder or its model folder), InsightFace.
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
    )
    others = [modelscope / name for name in below]
    others += [folder.expanduser() / name for folder in also for name in MODEL_FOLDERS]
    others.append(Path.home() / ".insightface")
    folders += [folder for folder in others if folder.is_dir()]
    return tuple(dict.fromkeys(folder.expanduser().absolute() for folder in folders))


def target_folder(explicit: Path | None) -> Path:
    """Where fetched files go: `explicit`, VIDRESTORE_WEIGHTS, an existing ./weights, the cache."""
    return search_folders(explicit)[0]


def pack_folder(target: Path, name: str) -> Path:
    """Where an InsightFace pack is unpacked, and where FaceAnalysis(root=...) looks for it."""
    return target / "insightface" / "models" / name


def find(name: str, folders: Sequence[Path], *, table: Table | None = None) -> Path | None:
    """The file, or of a pack the folder, in the first of `folders` that has it; None if none has.

    What is found may have any of the weight's names, so look at the suffix: GPEN may come as .pth,
    .pt, .safetensors or .onnx. Its contents are not looked at; `require` does that.

    Raises ConfigError for a name that is neither in the table nor that of a pack in `folders`.
    """
    return _located(_named(name, folders, table), folders)


def _named(name: str, folders: Sequence[Path], table: Table | None) -> Weight:
    known = table or load_table()
    if name in known:
        return known[name]
    licence = "an InsightFace pack of your own: InsightFace's are for non-commercial use only"
    own = Weight(name=name, kind="pack", file=f"{name}.zip", licence=licence)
    if Path(name).name == name and _located(own, folders):
        return own
    raise ConfigError(unknown_name("weight or InsightFace pack", name, known))


def _located(weight: Weight, folders: Sequence[Path]) -> Path | None:
    if weight.kind == "pack":
        places = [
            place
            for folder in folders
            for place in (pack_folder(folder, weight.name), folder / "models" / weight.name)
        ]
        return next((place for place in places if place.is_dir()), None)
    return _first_file(folders, (weight.file, *weight.other_names))


def _first_file(folders: Sequence[Path], names: Sequence[str]) -> Path | None:
    places = (folder / name for folder in folders for name in names)
    return next((place for place in places if place.is_file()), None)


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
    """Like `find`, but checked, and fetched into `target` when missing, unless `offline`.

    A pack whose zip lies in one of `folders` is unpacked into `target`. The first use of a file
    notes its sha256, and each later one reads it in full and compares: 0.16 s for the 285 MB of a
    GPEN-2048 on one core of 2026, and what is read then is in memory when it is loaded. `hashes`
    are those of the run, where a file that was read already is not read again.

    Raises WeightsError when the weight is missing, damaged or changed since its first use.
    """
    weight = _named(name, folders, table)
    path = _located(weight, folders)
    if path is None and weight.kind == "pack":
        path = _unpack_by_hand(weight, folders, target)
    if path is None:
        if offline or not weight.urls:
            raise WeightsError(_missing(weight, folders, offline))
        return fetch(name, target, on_progress=on_progress, table=table)
    if problem := _problem(weight, path):
        raise WeightsError(f"{problem}; remove it, then {_by_hand(weight, target)}")
    for file in _files(path):
        _check_content(weight, file, hashes or FileHashes())
    return path


def _missing(weight: Weight, folders: Sequence[Path], offline: bool) -> str:
    reason = "downloads are switched off (--offline)" if offline else "no address is known for it"
    places = ", ".join(str(folder) for folder in folders)
    return f"{weight.file} is in none of {places}, and {reason}; {_by_hand(weight, folders[0])}"


def _by_hand(weight: Weight, folder: Path) -> str:
    return f"put {weight.file} into {folder}, or use {WITHOUT_DOWNLOAD}, which need no download"


def _unpack_by_hand(weight: Weight, folders: Sequence[Path], target: Path) -> Path | None:
    archive = _first_file(folders, (weight.file,))
    if archive is None:
        return None
    check_kind(archive, archive.name)
    with one_at_a_time(target):
        if not (place := pack_folder(target, weight.name)).is_dir():  # by a run that came first
            unpack(archive, place, check_pack)
    return place


def check_structure(path: Path, weight: Weight) -> None:
    """Raise WeightsError unless the checkpoint has the entries and parameters of the table.

    Reads the whole file, with torch; an ONNX file is left to those who run it.
    """
    if weight.kind == "gpen" and path.suffix.lower() != ".onnx":
        name = weight.file if path.suffix == ".part" else path.name
        check_state_dict(path, weight.entries, weight.parameters, name)


def fetch(
    name: str,
    target: Path,
    *,
    on_progress: Progress | None = None,
    structure: Callable[[Path, Weight], None] = check_structure,
    table: Table | None = None,
    timeout_seconds: float = 30.0,
) -> Path:
    """Download a weight into `target` and return its file or pack folder; at once if it is there.

    The addresses of the table are tried in turn. A broken download goes on where it stopped, now
    or in a later call. Size, sha256, `structure` and the zip's members are checked before the file
    gets its name, so that what stands under the name is whole. Its hash is noted.

    Raises WeightsError, which names every address and why it did not do.
    """
    weight = _named(name, (target,), table)
    place = pack_folder(target, name) if weight.kind == "pack" else target / weight.file

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
            if not weight.urls:
                raise WeightsError(_missing(weight, (target,), offline=False))
            fetch_file(
                weight.urls,
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
    """False for the same weights in another format, of which size and hash say nothing."""
    return Path(name).suffix == Path(weight.file).suffix


def _files(path: Path) -> list[Path]:
    return sorted(path.glob("*.onnx")) if path.is_dir() else [path]


def record(path: Path, sha256: str | None = None) -> str:
    """Note the sha256 of `path`, to be compared from now on, and return it."""
    return _notes().note_file(path, sha256)


def sha256_of_own(path: Path, hashes: FileHashes | None = None) -> str:
    """The sha256 of a file that the user names by its path, compared with that of its last use.

    Users replace files of their own, so another hash is damage only where size and time of change
    are as they were.

    Args:
        path: The file.
        hashes: Those of the run; default: none are known.

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
        "of change are as they were"
    )


def _difference(weight: Weight, path: Path, sha256: str) -> str:
    """What is wrong with the hash of a file; empty if nothing is."""
    if weight.kind != "pack" and weight.sha256 and _is_published_form(weight, path.name):
        if sha256 == weight.sha256:
            return ""
        return (
            f"{path} is not {weight.name}: its sha256 is {sha256} instead of the published "
            f"{weight.sha256}; remove it and run vidrestore weights fetch {weight.name}"
        )
    notes = _notes()
    noted = notes.sha256_noted(path)
    if noted and noted != sha256:
        if notes.looks_unchanged(path):
            return f"{_damaged(path, noted, sha256)}; remove it to have it fetched anew"
        return (
            f"{path} has changed since its first use: its sha256 was {noted} and is {sha256}; "
            f"remove it to have it fetched anew, or if you replaced it yourself take its entry "
            f"out of {notes.path}"
        )
    return ""


def verify(
    name: str,
    folders: Sequence[Path],
    *,
    structure: Callable[[Path, Weight], None] = check_structure,
    table: Table | None = None,
) -> list[Checked]:
    """Read every file of a weight in full and compare it with all that is known of it.

    An empty list means that the weight is missing. Nothing is raised for a bad file.
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
    return Checked(path, "recorded", f"no hash was known; noted {sha256} for the next time")


def licence_notice(name: str, folders: Sequence[Path], *, table: Table | None = None) -> str | None:
    """The licence, the first time that this is asked for this weight, else None."""
    licence = _named(name, folders, table).licence
    return licence if _notes().note_licence(name, licence) else None


def list_weights(folders: Sequence[Path], *, table: Table | None = None) -> list[Row]:
    """Every weight of the table: where it is, its size, its licence, what is wrong with it."""
    rows = []
    for weight in (table or load_table()).values():
        path = _located(weight, folders)
        size_bytes, message = weight.bytes, ""
        if path is not None:
            size_bytes = sum(file.stat().st_size for file in _files(path))
            message = _problem(weight, path)
        rows.append(Row(weight.name, path, size_bytes, weight.licence, message))
    return rows


def _notes() -> Notes:
    """In the user cache: the folders of weights may be shared, or belong to other programs."""
    return Notes(user_cache() / "hashes.json")

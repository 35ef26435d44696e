"""Every setting, its default and its meaning. No other file states a default."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vidrestore.errors import ConfigError, unknown_name

Preset = Literal[
    "ultrafast", "superfast", "veryfast", "faster", "fast",
    "medium", "slow", "slower", "veryslow", "placebo",
]  # fmt: skip


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Detect(Section):
    """Finding faces in the upright, square-pixel picture."""

    detector: Literal["insightface", "yunet", "haar"] = "insightface"
    pack: str = "buffalo_l"
    """Folder of an InsightFace pack under weights/insightface/models."""
    size_px: int = Field(640, ge=64, le=4096, multiple_of=32)
    """Longer side of the picture in which faces are looked for."""
    score: float = Field(0.5, ge=0, le=1)
    """insightface: least confidence of a face."""
    yunet_score: float = Field(0.7, ge=0, le=1)
    haar_neighbors: int = Field(6, ge=1)
    """haar: how many overlapping windows must agree."""


class Shots(Section):
    """Cuts between shots."""

    cut: float = Field(12.0, gt=0)
    """Least mean change of a small grey picture, in 8-bit levels."""
    contrast: float = Field(3.0, gt=1)
    """How many times the changes around it a cut must stand out."""


class Tracking(Section):
    """Joining the faces of successive frames."""

    overlap: float = Field(0.3, gt=0, le=1)
    """Least intersection over union with the predicted box."""
    gap_seconds: float = Field(0.4, ge=0)
    """Longest miss of the detector that is bridged."""
    min_seconds: float = Field(0.2, ge=0)
    """Shorter tracks are taken for false alarms, unless they last as long as their shot."""


class Align(Section):
    """From landmarks to a crop that does not tremble."""

    template: Literal["auto", "gpen", "ffhq"] = "auto"
    """Where the five points stand in the crop: the GPEN authors' place, or that of FFHQ.

    auto: where the restorer wants them.
    """
    smoothness: float = Field(0.2, gt=0)
    """Weight of the third difference against the landmarks, at 25 frames per second."""
    coarse_smoothness: float = Field(20.0, gt=0)
    """The same where the detector only guesses landmarks from a box."""
    min_face_px: float = Field(12.0, ge=0)
    """Distance of the eyes at which a face gets half the strength; below 0.8 of it, none."""
    fade_seconds: float = Field(0.2, ge=0)
    """Over which strength rises and falls where a track begins or ends inside a shot."""


class Restore(Section):
    """The network, or what stands in for it."""

    restorer: str = "gpen-2048"
    """gpen-2048, gpen-1024, gpen-512, gpen-256, fusion, or a .pth, .safetensors or .onnx file."""
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N"
    )
    batch_size: int | None = Field(None, ge=1)
    """Faces at once; None: 4 on a GPU, 1 on a CPU, where more only cost memory."""
    number_format: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Of the network's convolutions; auto: the fastest that is safe on this machine."""
    engine: Literal["auto", "torch", "openvino"] = "auto"
    """What runs GPEN; auto: on a CPU OpenVINO where it is installed and agrees, else torch."""
    codeformer_fidelity: float = Field(0.7, ge=0, le=1)
    """The second input of CodeFormer files: 0 invents more, 1 keeps more."""
    max_waiting_frames: int = Field(16, ge=1)
    """Bound on frames held back while a batch fills."""
    fusion_sharpness: float = Field(0.5, ge=0, le=1)
    """fusion: share of the back-projection step that undoes its own blur."""


class Paste(Section):
    """Bringing the restored face back into the picture."""

    strength: float = Field(1.0, ge=0, le=1)


class Encode(Section):
    """The new video stream."""

    codec: Literal["auto", "h264", "hevc", "ffv1"] = "auto"
    """auto: the source's own where it is one of these, else hevc."""
    crf: int = Field(16, ge=0, le=51)
    """h264 and hevc: constant rate factor; lower is better and larger."""
    preset: Preset = "medium"
    """h264 and hevc: how long the encoder looks for what makes the file smaller."""
    threads: int = Field(4, ge=1)
    """Fixed, because the output of x264 depends on it."""


class Weights(Section):
    folder: Path | None = None
    """Where weight files are; None: VIDRESTORE_WEIGHTS, ./weights, then the user cache."""
    also: tuple[Path, ...] = ()
    """Further folders to look in, such as the model folder of another program."""
    offline: bool = False
    """Never fetch a missing file."""


class Settings(Section):
    detect: Detect = Detect()
    shots: Shots = Shots()
    track: Tracking = Tracking()
    align: Align = Align()
    restore: Restore = Restore()
    paste: Paste = Paste()
    encode: Encode = Encode()
    weights: Weights = Weights()


def load_settings(
    profile: str | Path | None = None,
    changes: Sequence[str] = (),
    *,
    options: Mapping[str, Any] | None = None,
) -> Settings:
    """Defaults, then the profile, then `options`, then `changes`; the last one wins.

    `options` are values by dotted name, None meaning "not given"; `changes` are texts such as
    "restore.batch_size=4". Raises ConfigError naming the nearest allowed names.
    """
    values = read_profile(profile) if profile is not None else {}
    for key, value in (options or {}).items():
        section, _, name = key.partition(".")
        if value is not None:
            _merge(values, {section: {name: value}})
    for change in changes:
        _merge(values, _parse_change(change))
    return _validated(values)


def load_profile(name: str | Path) -> Settings:
    """The settings of a named profile or of a TOML file."""
    return load_settings(name)


def profile_folder() -> Path:
    """`configs/`: inside an installed package, beside it in a checkout."""
    return resource_folder("configs")


def resource_folder(name: str) -> Path:
    """A top-level folder of the checkout that an installed copy carries inside the package."""
    package = Path(__file__).parent
    installed = package / name
    return installed if installed.is_dir() else package.parent / name


def read_profile(name: str | Path) -> dict[str, Any]:
    known = {path.stem: path for path in profile_folder().glob("*.toml")}
    path = known.get(str(name), Path(name))
    if not path.is_file():
        if Path(name).suffix:
            raise ConfigError(f"the profile file {name} does not exist")
        raise ConfigError(unknown_name("profile", str(name), known))
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the profile {path} is not valid TOML: {error}") from error


def _parse_change(change: str) -> dict[str, Any]:
    key, equals, text = change.partition("=")
    section, dot, name = key.strip().partition(".")
    if not (equals and dot and section and name):
        raise ConfigError(f"a setting is written SECTION.KEY=VALUE, not {change!r}")
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()  # a bare word is a string, so that quotes are not needed in a shell
    return {section: {name: value}}


def _merge(values: dict[str, Any], change: dict[str, Any]) -> None:
    for section, entries in change.items():
        if not isinstance(values.setdefault(section, {}), dict):
            raise ConfigError(
                f"{section} is a section of settings, not the value {values[section]!r}"
            )
        values[section].update(entries)


def _validated(values: dict[str, Any]) -> Settings:
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_sentence(error.errors()[0])) from error


def _sentence(problem: Any) -> str:
    path = [str(part) for part in problem["loc"]]
    if problem["type"] == "extra_forbidden":
        kind = "section of settings" if len(path) == 1 else f"setting in section {path[0]}:"
        return unknown_name(kind, path[-1], _model_at(path[:-1]).model_fields)
    if problem["type"] == "literal_error":
        allowed = get_args(_model_at(path[:-1]).model_fields[path[-1]].annotation)
        return unknown_name(path[-1], str(problem["input"]), allowed)
    if problem["type"] == "string_pattern_mismatch":
        allowed_text = _model_at(path[:-1]).model_fields[path[-1]].description
        return f"{'.'.join(path)} cannot be {problem['input']!r}; allowed is {allowed_text}"
    return f"{'.'.join(path)} cannot be {problem['input']!r}: {problem['msg'].lower()}"


def _model_at(path: Sequence[str]) -> type[BaseModel]:
    model: type[BaseModel] = Settings
    for part in path:
        model = type(model.model_fields[part].get_default())
    return model

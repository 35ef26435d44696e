"""Profiles: settings from TOML files, options and single changes, with messages for mistakes."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from vidrestore.common.errors import ConfigError, unknown_name
from vidrestore.common.handled import log_handled
from vidrestore.common.quoting import not_a_value, quoted, shortened
from vidrestore.common.settings import Settings
from vidrestore.common.text_files import can_be_found, parsed_toml, read_toml

_DEEPEST_SETTING = 4


def load_settings(
    profile: str | Path | None = None,
    changes: Sequence[str] = (),
    *,
    options: Mapping[str, Any] | None = None,
    names: Mapping[str, str] | None = None,
) -> Settings:
    """Combine the defaults, a profile, options and single changes; a later one wins.

    Args:
        profile: The name of a profile in `configs/`, or a TOML file; default: None, no profile.
        changes: Texts such as "restore.batch_size=4"; default: none.
        options: Dotted name of a setting -> its value; None as a value: not given. Default: none.
        names: Dotted name of a setting -> the name for messages, such as the option that the user
            gave. Default: the dotted names.

    Returns:
        The settings.

    Raises:
        ConfigError: A profile, a name or a value is not allowed; the message suggests similar
            names.
    """
    values = read_profile(profile) if profile is not None else {}
    for key, value in (options or {}).items():
        section, _, name = key.partition(".")
        if value is not None:
            _merge(values, {section: {name: value}})
    for change in changes:
        _merge(values, _parse_change(change))
    return _validated(values, names or {})


def load_profile(name: str | Path) -> Settings:
    """Load a named profile or a TOML file.

    Args:
        name: The name of a profile in `configs/`, or a TOML file.

    Returns:
        The settings; the defaults where the profile has no value.

    Raises:
        ConfigError: There is no such profile, or it is not valid.
    """
    return load_settings(name)


def as_toml(settings: Settings) -> str:
    """Write settings as a profile.

    Args:
        settings: The settings.

    Returns:
        The text of the profile, in TOML. Settings without a value are comments in it.

    Raises:
        ConfigError: The name of a file is not valid UTF-8, so TOML cannot hold it.
    """
    from vidrestore.common.toml import is_utf8, toml_text  # this loads tomlkit, which takes long

    values = settings.model_dump(mode="json")
    # An empty list would forbid to add a heading [[person]].
    text = toml_text({name: None if value == [] else value for name, value in values.items()})
    for line in text.splitlines():
        if not is_utf8(line):
            raise ConfigError(
                f"a profile cannot hold {shortened(line)}, which is not UTF-8; rename the file"
            )
    return text


def profile_folder() -> Path:
    """Return `configs/`, which is inside an installed package and next to it in a checkout."""
    return resource_folder("configs")


def resource_folder(name: str) -> Path:
    """Find a top-level folder of the checkout, which an installed package has inside.

    Args:
        name: The name of the folder, such as "configs".

    Returns:
        The folder inside the package where there is one, else the one in the checkout.
    """
    package = Path(__file__).parents[1]
    installed = package / name
    return installed if installed.is_dir() else package.parent / name


def read_profile(name: str | Path) -> dict[str, Any]:
    """Read a profile without a check of its settings.

    Args:
        name: The name of a profile in `configs/`, or a TOML file.

    Returns:
        Section -> name -> value, as the file has them.

    Raises:
        ConfigError: There is no such profile, or the file cannot be read as TOML.
    """
    profiles = {path.stem: path for path in profile_folder().glob("*.toml")}
    path = profiles.get(str(name), Path(name))
    if not can_be_found(path):
        if Path(name).suffix:
            raise ConfigError(f"the profile file {name} does not exist")
        raise ConfigError(unknown_name("profile", str(name), profiles))
    return read_toml(path, "the profile")[0]


def _parse_change(change: str) -> dict[str, Any]:
    """Parse a change such as "restore.batch_size=4" into nested tables."""
    key, equals, text = change.partition("=")
    names = key.strip().split(".")
    is_whole = names[0] in Settings.model_fields and not _is_section(names[0])
    if not (equals and 1 < len(names) + is_whole <= _DEEPEST_SETTING and all(names)):
        raise ConfigError(f"a setting must have the form SECTION.KEY=VALUE, not {quoted(change)}")
    value = _value(text.strip(), key.strip())
    for name in reversed(names[1:]):
        value = {name: value}
    return {names[0]: value}


def _value(text: str, name: str) -> Any:
    """Parse a TOML value; a bare word is a text, so that a shell needs no quotes."""
    try:
        table = parsed_toml(f"value = {text}")
        return table["value"] if table.keys() == {"value"} else text
    except ConfigError as error:
        if isinstance(error.__cause__, tomllib.TOMLDecodeError):
            log_handled(error)
            return text
        raise ConfigError(f"{name} cannot be {quoted(text)}: {error}") from error


def _merge(values: dict[str, Any], change: dict[str, Any], where: str = "") -> None:
    """Merge nested tables into `values`; `where` is the path to them, for messages."""
    for name, entry in change.items():
        if not isinstance(entry, dict):
            values[name] = entry
        elif isinstance(values.setdefault(name, {}), dict):
            _merge(values[name], entry, f"{where}{name}.")
        else:
            raise ConfigError(_no_section(f"{where}{name}", values[name], next(iter(entry))))


def _no_section(name: str, value: object, setting: str) -> str:
    """Compose the message for a value in place of a section, with a setting of that section."""
    return (
        f"{name} is a section of settings, not the value {quoted(value)}; name a setting in it, "
        f"such as {name}.{setting}"
    )


def _validated(values: dict[str, Any], names: Mapping[str, str]) -> Settings:
    """Create the settings; raise ConfigError for the first wrong one."""
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_sentence(error.errors()[0], names)) from error


def _sentence(problem: Any, names: Mapping[str, str]) -> str:
    """Compose the message for an error of pydantic."""
    path = [str(part) for part in problem["loc"]]
    name = _name_of(problem["loc"], names)
    if problem["type"] == "missing":
        return f"{_name_of(problem['loc'][:-1], names)} has no {path[-1]}; add {path[-1]} = ..."
    if problem["type"] == "model_type":
        return _no_section(name, problem["input"], next(iter(_model_at(path).model_fields)))
    if problem["type"] == "extra_forbidden":
        kind = (
            "section of settings"
            if len(path) == 1
            else f"setting in section {_name_of(problem['loc'][:-1], names)}:"
        )
        return unknown_name(kind, path[-1], _model_at(path[:-1]).model_fields)
    if problem["type"] == "literal_error":
        allowed = get_args(_model_at(path[:-1]).model_fields[path[-1]].annotation)
        return unknown_name(path[-1], problem["input"], allowed)
    if problem["type"] == "string_pattern_mismatch":
        allowed_text = _model_at(path[:-1]).model_fields[path[-1]].description
        return f"{name} cannot be {quoted(problem['input'])}; allowed is {allowed_text}"
    return not_a_value(name, problem)


def _name_of(location: Sequence[str | int], names: Mapping[str, str]) -> str:
    """Name a setting in messages; sections of a list are counted from 1, as people are."""
    path = ".".join(str(part + 1 if isinstance(part, int) else part) for part in location)
    return names.get(path, path)


def _model_at(path: Sequence[str]) -> type[BaseModel]:
    """Return the section of settings at a path."""
    model: type[BaseModel] = Settings
    for part in path:
        if part.isdecimal():  # the place in a list of sections
            continue
        kind = model.model_fields[part].annotation
        sections = [each for each in (kind, *get_args(kind)) if isinstance(each, type)]
        model = next(each for each in sections if issubclass(each, BaseModel))
    return model


def _is_section(name: str) -> bool:
    """Tell whether a setting at the top is one section, not a list of sections."""
    return isinstance(Settings.model_fields[name].get_default(), BaseModel)

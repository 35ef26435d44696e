"""Settings: which one wins, how they are written, and what is said of a wrong one."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from vidrestore.common.errors import ConfigError
from vidrestore.common.profiles import (
    as_toml,
    load_profile,
    load_settings,
    profile_folder,
    read_profile,
    resource_folder,
)
from vidrestore.common.settings import Settings

PROFILES = sorted(path.stem for path in profile_folder().glob("*.toml"))


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text("[paste]\nstrength = 0.1\n[encode]\nquality = 1\nthreads = 1\n")
    return path


def test_the_last_one_wins(profile: Path) -> None:
    """Defaults, then the profile, then options, then --set."""
    options = {"paste.strength": 0.2, "encode.quality": 2}
    settings = load_settings(profile, ["paste.strength=0.3"], options=options)
    assert settings.encode.preset == Settings().encode.preset
    assert settings.encode.threads == 1
    assert settings.encode.quality == "2"
    assert settings.paste.strength == 0.3


def test_the_last_of_several_changes_wins() -> None:
    assert (
        load_settings(None, ["encode.quality=1", "encode.quality=small"]).encode.quality == "small"
    )


def test_an_option_that_was_not_given_changes_nothing(profile: Path) -> None:
    assert load_settings(profile, options={"paste.strength": None}).paste.strength == 0.1


def test_nothing_given_is_the_default() -> None:
    assert load_settings() == Settings()


@pytest.mark.parametrize(
    ("change", "section", "key", "value"),
    [
        ("encode.quality=20", "encode", "quality", "20"),
        ("encode.threads = 20 ", "encode", "threads", 20),
        ("paste.strength=1", "paste", "strength", 1.0),
        ("encode.codec=ffv1", "encode", "codec", "ffv1"),
        ('encode.codec="ffv1"', "encode", "codec", "ffv1"),
        ("weights.offline=true", "weights", "offline", True),
        ("detect.pack=det=only", "detect", "pack", "det=only"),
        ("weights.folder=/a/b c", "weights", "folder", Path("/a/b c")),
        ('weights.also=["/a", "/b"]', "weights", "also", (Path("/a"), Path("/b"))),
    ],
)
def test_a_change_is_read(change: str, section: str, key: str, value: object) -> None:
    read = getattr(getattr(load_settings(None, [change]), section), key)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    "change", ["", "quality", "quality=1", "encode.quality", "encode.=1", ".quality=1", "=1"]
)
def test_a_change_that_is_not_one(change: str) -> None:
    with pytest.raises(ConfigError, match=r"SECTION\.KEY=VALUE"):
        load_settings(None, [change])


@pytest.mark.parametrize(
    ("change", "near"),
    [
        ("encoder.quality=1", "did you mean encode or decode?"),
        ("encode.qualty=1", "did you mean quality?"),
        ("encode.codec=h265", "only auto, av1, dnxhr, ffv1, h264, hevc, prores"),
        ("align.template=gpn", "did you mean gpen?"),
        ("zzz.quality=1", "only align, decode, deflicker"),
    ],
)
def test_the_nearest_names_are_offered(change: str, near: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_settings(None, [change])
    assert near in str(raised.value)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ("paste.strength=2", ("paste.strength", "2", "at most 1")),
        ("encode.threads=1.5", ("encode.threads", "1.5", "a whole number")),
        ("restore.device=cuda:x", ("restore.device", "'cuda:x'")),
        ("detect.size_px=650", ("detect.size_px", "650", "multiple of 32")),
        ("encode.quality.deep=1", ("encode",)),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(change: str, parts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as raised:
        load_settings(None, [change])
    for part in parts:
        assert part in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "part"),
    [("paste = 1", "paste"), ("strength = 1", "'strength'"), ("[paste", "not valid TOML")],
)
def test_a_profile_that_is_wrong(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load_settings(path, ["paste.strength=1"])
    assert part in str(raised.value)


def test_an_unknown_profile_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="home-video") as raised:
        load_profile("flim")
    assert "did you mean film?" in str(raised.value)
    for name in PROFILES:
        assert name in str(raised.value)


def test_the_profiles_are_those_that_are_promised() -> None:
    assert PROFILES == ["face-swap", "film", "home-video", "quick"]


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_lists_only_what_it_changes(name: str) -> None:
    loaded, default = load_profile(name), Settings()
    assert loaded != default
    for section, entries in read_profile(name).items():
        for key in entries:
            changed = getattr(getattr(loaded, section), key)
            assert changed != getattr(getattr(default, section), key), f"{section}.{key}"


def sections() -> dict[str, BaseModel]:
    values = {name: getattr(Settings(), name) for name in Settings.model_fields}
    return {name: value for name, value in values.items() if isinstance(value, BaseModel)}


@pytest.mark.parametrize("section", sections().values(), ids=sections().keys())
def test_defaults_are_valid_and_frozen(section: BaseModel) -> None:
    values = section.model_dump()
    assert type(section).model_validate(values) == section
    for key, value in values.items():
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, key, value)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().encode = Settings().encode


def test_a_profile_survives_being_written_down() -> None:
    """What --set takes is what a profile holds, so one can be turned into the other."""
    table: dict[str, Any] = tomllib.loads("[encode]\nthreads = 3\n[paste]\nstrength = 0.5")
    changes = [f"{s}.{k}={v}" for s, entries in table.items() for k, v in entries.items()]
    assert load_settings(None, changes) == Settings.model_validate(table)


def test_resources_are_found_in_the_checkout() -> None:
    assert (resource_folder("weights") / "manifest.toml").is_file()


@pytest.mark.parametrize(("text", "amount"), [("off", 0), ("0.25", 0.25), ("0", 0), ("1", 1)])
def test_deflicker_is_switched_off_by_its_name(text: str, amount: float) -> None:
    assert load_settings(None, [f"deflicker.amount={text}"]).deflicker.amount == amount


def test_a_section_within_a_section_is_reached_and_checked() -> None:
    settings = load_settings(None, ["paste.regions.mouth=0.2", "paste.strength=0.5"])
    assert settings.paste.regions.mouth == 0.2
    assert settings.paste.regions.eyes == 1
    with pytest.raises(ConfigError, match=r"paste\.regions.*did you mean mouth"):
        load_settings(None, ["paste.regions.mouht=0.2"])
    with pytest.raises(ConfigError, match="is a section of settings"):
        load_settings(None, ["paste.regions=1", "paste.regions.mouth=1"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "scale = 2",
            r"scale is a section of settings, not the value 2; name .* as scale\.factor$",
        ),
        ("paste.regions = 1", r"paste\.regions is a section .* such as paste\.regions\.eyes$"),
        ("detect.size_px = 1e30", r"detect\.size_px cannot be 1e\+30; it must be a smaller whole"),
    ],
)
def test_a_value_of_another_kind_is_refused_in_the_words_of_settings(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "own.toml"
    path.write_text(f"{text}\n")
    with pytest.raises(ConfigError, match=f"^{message}"):
        load_settings(path)


def test_people_of_a_profile_are_read_checked_and_written(tmp_path: Path) -> None:
    path = tmp_path / "family.toml"
    path.write_text('[[person]]\nname = "Anna"\nreference = "anna.jpg"\nrestorer = "a.pth"\n')
    settings = load_settings(path)
    (anna,) = settings.person
    assert (anna.name, anna.reference, anna.restorer) == ("Anna", Path("anna.jpg"), "a.pth")
    path.write_text(as_toml(settings))
    assert load_settings(path) == settings
    assert load_settings(None, ['person=[{name="Anna", reference="anna.jpg", restorer="a.pth"}]'])
    for text, part in (
        ('[[person]]\nname = "Anna"\n', r"^person\.1 has no restorer; add restorer = \.\.\.$"),
        ('[[person]]\nname = ""\nrestorer = "a"\n', r"^person\.1\.name .* at least 1 character"),
        ("person = [3]\n", r"^person\.1 is a section of settings, not the value 3; name"),
        ('[[person]]\nnmae = "Anna"\nname = "Anna"\nrestorer = "a.pth"\n', "did you mean name"),
        ("person = 3\n", "person cannot be 3; it must be a list"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=part):
            load_settings(path)

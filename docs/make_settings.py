"""Writes docs/reference/settings.md from the settings and the profiles; see `make docs`."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MultipleOf
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from vidrestore.common import settings
from vidrestore.common.profiles import profile_folder
from vidrestore.common.settings import Settings

TARGET = Path(__file__).parent / "reference" / "settings.md"
_HEAD = """# Settings

Every setting, with its default, its allowed values and its meaning. Change one with
`--set SECTION.KEY=VALUE`, which may be given several times, or many with a TOML file and
`--profile FILE`. `vidrestore restore --print-config` prints the settings that a command would use.
If several places give a setting, vidrestore uses the last one in this order: the default, the
profile, the option, `--set`. `make docs` writes this page from `vidrestore/common/settings.py`.

"""


def main() -> None:
    TARGET.write_text(page(), encoding="utf-8")


def page() -> str:
    return _HEAD + "\n".join([*profiles(), *sections("", type(Settings()))]) + "\n"


def profiles() -> Iterator[str]:
    yield "## Profiles\n"
    for path in sorted(profile_folder().glob("*.toml")):
        text = path.read_text(encoding="utf-8")
        tomllib.loads(text)
        about, _, rest = text.partition("\n")
        yield f"`--profile {path.stem}`: {about.removeprefix('# ')}\n"
        yield "| setting | why |\n|---|---|"
        section = ""
        for line in rest.splitlines():
            if line.startswith("["):
                section = line.strip("[]")
            elif line:
                change, _, why = line.partition("  # ")
                yield f"| `{section}.{change}` | {why} |"
        yield ""


def sections(prefix: str, model: type[BaseModel]) -> Iterator[str]:
    own, nested = [], []
    for name, field in model.model_fields.items():
        inner = section_in(field)
        if inner is None:
            own.append((name, field))
        else:
            nested.append((f"[[{name}]]" if isinstance(field.default, tuple) else name, inner))
    if own:
        meanings = _docstrings()[model.__name__]
        yield f"## {prefix}\n\n{_one_line(str(model.__doc__))}\n"
        yield "| key | default | allowed | meaning |\n|---|---|---|---|"
        for name, field in own:
            default = "must be given" if field.is_required() else _value(field.default)
            cells = (f"`{name}`", default, allowed(field), meanings[name])
            yield f"| {' | '.join(cells)} |"
        yield ""
    for name, inner in nested:
        yield from sections(f"{prefix}.{name}" if prefix else name, inner)


def section_in(field: FieldInfo) -> type[BaseModel] | None:
    """Return the section that a field holds, alone or in a list; None where it is a value."""
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def allowed(field: FieldInfo) -> str:
    if field.description:
        return field.description.replace("|", "\\|")
    kinds = [
        kind for kind in get_args(field.annotation) or [field.annotation] if kind is not NoneType
    ]
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{value}`" for value in kinds)
    if bool in kinds:
        return "`true`, `false`"
    if str in kinds:
        return "a text"
    bounds = [_bound(rule) for rule in field.metadata]
    words = " ".join(filter(None, bounds))
    return words or {Path: "a path", tuple: "paths"}.get(kinds[0], "paths")


def _bound(rule: Any) -> str:
    for kind, word in ((Ge, "from"), (Gt, "above"), (Le, "to"), (Lt, "below")):
        if isinstance(rule, kind):
            return f"{word} {getattr(rule, kind.__name__.lower()):g}"
    return f"in steps of {rule.multiple_of}" if isinstance(rule, MultipleOf) else ""


def _value(default: Any) -> str:
    if default is None:
        return "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default}`" if default not in ("", ()) else "empty"


def _docstrings() -> dict[str, dict[str, str]]:
    """Class -> key -> its docstring, which Python itself does not keep."""
    tree = ast.parse(Path(settings.__file__).read_text(encoding="utf-8"))
    found: dict[str, dict[str, str]] = {}
    for node in tree.body:
        if not isinstance(node, ast.ClassDef):
            continue
        texts = found[node.name] = {}
        for at, line in enumerate(node.body):
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                after = node.body[at + 1] if at + 1 < len(node.body) else None
                texts[line.target.id] = _text(after)
    return found


def _text(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return _one_line(str(node.value.value)).replace("|", "\\|")
    return ""


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    main()

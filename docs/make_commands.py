"""Writes docs/reference/command-line.md from the parser of the command line; see `make docs`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from vidrestore.cli import _build

TARGET = Path(__file__).parent / "reference" / "command-line.md"
_HEAD = """# Command line

Every command with its arguments and options. `make docs` writes this page from the commands
themselves, so `--help` shows the same texts. [Settings](settings.md) lists what `--set` can change,
and [JSON and exit codes](json.md) says what a program gets.
"""
# Typer gives these options to every application; `--help` shows them.
_PARSER_OPTIONS = {"--install-completion", "--show-completion", "--help"}


def main() -> None:
    """Write the page."""
    TARGET.write_text(page(), encoding="utf-8")


def page() -> str:
    """Return the page in Markdown."""
    root: Any = typer.main.get_command(_build())
    return "\n".join([_HEAD, *_command("vidrestore", root)]).rstrip() + "\n"


def _command(path: str, command: Any) -> Iterator[str]:
    """Yield the section of a command, then the sections of its subcommands."""
    yield f"## {path}\n"
    about, _, examples = (command.help or "").partition("Examples:")
    yield _one_line(about) + "\n"
    words = [path, *map(_usage, command.params)]
    children = sorted(getattr(command, "commands", {}).items())
    if not children:
        yield f"```text\n{' '.join(filter(None, [*words, '[OPTIONS]']))}\n```\n"
    if examples:
        yield "\n".join(f"    {line.strip()}" for line in examples.splitlines() if line.strip())
        yield ""
    if arguments := [*_parameters(command, "argument")]:
        yield "| argument | meaning |\n|---|---|"
        yield from (f"| `{_cell(each.metavar)}` | {_text(each.help)} |" for each in arguments)
        yield ""
    groups: dict[str, list[Any]] = {}
    for option in _parameters(command, "option"):
        groups.setdefault(option.rich_help_panel or "Options", []).append(option)
    for name, options in sorted(groups.items(), key=lambda group: group[0] != "Options"):
        yield f"| {name.lower()} | value | meaning |\n|---|---|---|"
        for option in options:
            names = ", ".join(f"`{each}`" for each in option.opts)
            value = f"`{_cell(option.metavar)}`" if option.metavar else ""
            yield f"| {names} | {value} | {_text(option.help)} |"
        yield ""
    for name, child in children:
        yield from _command(f"{path} {name}", child)


def _parameters(command: Any, kind: str) -> Iterator[Any]:
    """Yield the parameters of a command that are of one kind, "argument" or "option"."""
    for each in command.params:
        if each.param_type_name == kind and not set(each.opts) & _PARSER_OPTIONS:
            yield each


def _usage(each: Any) -> str:
    """Return how an argument, or an option that must be given, stands in the usage line."""
    if each.param_type_name == "argument":
        # `restore` has one argument for INPUT and OUTPUT, which --print-config does without.
        return str(each.metavar) if each.required or " " in each.metavar else f"[{each.metavar}]"
    return f"{each.opts[0]} {each.metavar}" if each.required else ""


def _text(text: str | None) -> str:
    """Return a help text as the cell of a table; names of placeholders are no HTML."""
    return re.sub(r"([<>])", r"\\\1", _one_line(text or "")).replace("|", "\\|")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    main()

"""Arguments in, tables and progress out, exit status. Heavy modules load where needed."""

from __future__ import annotations

import json
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from vidrestore.cli_look import analyze, compare, evaluate, preview
from vidrestore.cli_options import WeightsFolder
from vidrestore.cli_restore import restore
from vidrestore.cli_ui import ui
from vidrestore.cli_weights import weights_app
from vidrestore.errors import VidrestoreError
from vidrestore.wording import printable

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and leave with its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [a for a in given if a != "--debug"]
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        # Typer turns an interruption into a status that it returns, and raises other failures.
        status = int(_build()(given, prog_name="vidrestore", standalone_mode=False) or 0)
        if status == _INTERRUPTED:
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        status = _fail("interrupted", "interrupted; no output was written", _INTERRUPTED, given)
    except VidrestoreError as error:
        if debug:
            traceback.print_exc()
        status = _fail(type(error).__name__, str(error), error.exit_status, given)
    except (typer.Exit, SystemExit) as leaving:
        status = int(getattr(leaving, "exit_code", getattr(leaving, "code", 0)) or 0)
    except Exception as error:
        status = _unexpected(error, given, debug=debug)
    sys.exit(status)


def _unexpected(error: Exception, given: Sequence[str], *, debug: bool) -> int:
    """A usage error of the parser, which knows how to show itself; else a defect."""
    show = getattr(error, "show", None)
    if show is not None:
        show()
        return int(getattr(error, "exit_code", 2))
    if type(error).__name__ == "Abort":
        return _fail("interrupted", "interrupted; no output was written", _INTERRUPTED, given)
    if debug:
        traceback.print_exception(error)
    message = f"{type(error).__name__}: {error}; run again with --debug and report what it prints"
    return _fail(type(error).__name__, message, 1, given)


def _fail(kind: str, message: str, status: int, given: Sequence[str]) -> int:
    if "--json" in given:
        print(json.dumps({"event": "error", "kind": kind, "message": message}), flush=True)
    else:
        print(f"vidrestore: {printable(message)}", file=sys.stderr)
    return status


def _interrupt(signal_number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _build() -> typer.Typer:
    app = typer.Typer(
        callback=_version,
        invoke_without_command=True,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        help="Makes the faces in a video clear and leaves everything else exactly as it was.",
        epilog="--debug, anywhere, shows the traceback of an error.",
    )
    for command in (restore, preview, analyze, compare, evaluate, demo, doctor, ui):
        app.command()(command)
    app.add_typer(weights_app(), name="weights")
    return app


def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        print(f"vidrestore {installed('vidrestore')}")
        raise typer.Exit


def demo(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the files go.")] = Path(
        "demo"
    ),
) -> None:
    """Make a small worn video, restore it, and show what was gained; nothing is downloaded."""
    from vidrestore import console
    from vidrestore.demo import run_demo
    from vidrestore.progress import events

    with events(False) as on_event:
        result = run_demo(folder, on_event)
    console.show_demo(result)


def doctor(weights: WeightsFolder = None) -> None:
    """Say what this machine has and lacks, what will be slow, and what runs right now."""
    from vidrestore import console
    from vidrestore.doctor import diagnose

    diagnosis = diagnose(weights)
    console.show_diagnosis(diagnosis)
    if not diagnosis.can_run:
        raise typer.Exit(1)

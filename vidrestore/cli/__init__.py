"""The command line: its entry point, its commands and its exit status.

Heavy modules are imported inside the commands that need them, so that `--help` answers at once. The
docstring of a command is its help, and the help of each argument is in its annotation.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from vidrestore.cli.inspect import analyze, compare, evaluate, preview, proxy
from vidrestore.cli.options import Command, CommandGroup, Offline, WeightsFolder
from vidrestore.cli.personalize import personalize
from vidrestore.cli.restore import restore
from vidrestore.cli.weights import weights_app
from vidrestore.common.ending import failed, interrupted
from vidrestore.common.errors import VidrestoreError, is_disk_full
from vidrestore.common.interruption import STATUS, Interruption
from vidrestore.common.quoting import not_a_value

_log = logging.getLogger("vidrestore")


def main(
    arguments: Sequence[str] | None = None, interruption: Interruption | None = None
) -> NoReturn:
    """Run one command and exit with its status.

    Args:
        arguments: The arguments after the program's name. None: those of the process.
        interruption: The handler of signals, if the caller installed one; `main` settles it once
            the result is decided. None: one that is not installed.

    Raises:
        SystemExit: Always, with the exit status of the command.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    interruption = interruption or Interruption()
    try:
        status = _run(given, interruption)
        interruption.settle()
    except KeyboardInterrupt:  # raised once at most
        interruption.settle()
        status = interrupted(given)
    sys.exit(status)


def _run(given: Sequence[str], interruption: Interruption) -> int:
    """Run one command and return its exit status; errors are printed here."""
    debug, verbose = "--debug" in given, "--verbose" in given
    given = [a for a in given if a not in ("--debug", "--verbose")]
    try:
        if given[:1] == ["--version"]:
            given, verbose = ["--version", *(["--verbose"] if verbose else [])], False
        with _log_to_stderr() if verbose else nullcontext():
            # Typer turns an interruption into a status that it returns, and raises other failures.
            status = int(_build()(given, prog_name="vidrestore", standalone_mode=False) or 0)
        if status == STATUS:
            raise KeyboardInterrupt
        return status
    except VidrestoreError as error:
        interruption.settle()
        if debug:
            traceback.print_exc()
        kind = type(error).__name__
        return failed(kind, str(error), error.exit_status, given, error.lines)
    except (typer.Exit, SystemExit) as leaving:
        return int(getattr(leaving, "exit_code", getattr(leaving, "code", 0)) or 0)
    except Exception as error:
        interruption.settle()
        if interruption.was_raised:
            return interrupted(given)
        return _unexpected(error, given, debug=debug)


@contextmanager
def _log_to_stderr() -> Iterator[None]:
    """Write the program's log to standard error."""
    log, handler = logging.getLogger("vidrestore"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def _unexpected(error: Exception, given: Sequence[str], *, debug: bool) -> int:
    """Print an error that is no VidrestoreError, and return the exit status.

    A usage error of the parser becomes one sentence; any other exception is a defect.
    """
    show = getattr(error, "show", None)
    if type(error).__name__ == "NoArgsIsHelpError" and show is not None:
        show()
        return int(getattr(error, "exit_code", 2))
    if show is not None:
        status = int(getattr(error, "exit_code", 2))
        return failed("UsageError", _usage_sentence(error), status, given)
    if type(error).__name__ == "Abort":
        return interrupted(given)
    if debug:
        traceback.print_exception(error)
    message = f"{type(error).__name__}: {error}; run again with --debug and report what it prints"
    if is_disk_full(error):  # such as that of a file that the shell writes the output to
        message = "no space is left on a disk; make room and run the same command again"
    return failed(type(error).__name__, message, 1, given)


def _usage_sentence(error: Any) -> str:
    """Return the parser's error as one sentence; the parser itself would print three lines."""
    param, problems = getattr(error, "param", None), getattr(error.__cause__, "errors", None)
    if param is not None and problems is not None:
        name = next((o for o in param.opts if o.startswith("--")), param.opts[0])
        return not_a_value(name, problems()[0])
    text = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    command = "vidrestore" if context is None else context.command_path
    return f"{text[:1].lower()}{text[1:]}; {command} --help shows what there is"


def _build() -> typer.Typer:
    """Return the parser with all commands."""
    app = typer.Typer(
        cls=CommandGroup,
        callback=_version,
        invoke_without_command=True,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        help="Restore the faces in a video and leave everything else exactly as it was.",
        epilog="Every command takes --verbose, which prints the log, and --debug, which prints the "
        "traceback of an error.",
    )
    for command in (restore, preview, analyze, compare, evaluate, proxy, personalize, demo, ui):
        app.command(cls=Command)(command)
    app.command("doctor", cls=Command)(diagnose_machine)
    app.add_typer(weights_app(), name="weights")
    return app


def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            help="Print the log of a command; with --version also the versions of torch, ffmpeg "
            "and other libraries, and the devices.",
        ),
    ] = False,
) -> None:
    if not version:
        return
    from importlib.metadata import version as installed

    print(f"vidrestore {installed('vidrestore')}")
    if verbose:
        from vidrestore.cli.doctor import versions

        for finding in versions():
            print(f"{finding.what}: {finding.found}")
    raise typer.Exit


def demo(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Write the files to this folder.")
    ] = Path("demo"),
) -> None:
    """Make a small damaged video, restore it, and measure the gain. Downloads nothing."""
    from vidrestore.cli import console
    from vidrestore.cli.progress import events
    from vidrestore.review.demo import run_demo

    with events(False) as on_event:
        result = run_demo(folder, on_event)
    console.show_demo(result)


def diagnose_machine(weights: WeightsFolder = None) -> None:
    """Show what this machine has and lacks, what will be slow, and what runs without downloads."""
    from vidrestore.cli import console
    from vidrestore.cli.doctor import diagnose

    diagnosis = diagnose(weights)
    console.show_diagnosis(diagnosis)
    if not diagnosis.can_run:
        raise typer.Exit(1)


def ui(
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            show_default=False,
            help="Serve the page at this address. Default: 127.0.0.1, which only this machine "
            "can reach.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            max=65535,
            show_default=False,
            help="Serve the page at this port. Default: that of the last time, or a free one.",
        ),
    ] = None,
    no_browser: Annotated[
        bool,
        typer.Option("--no-browser", help="Print the address, and do not open a browser."),
    ] = False,
    max_upload: Annotated[
        float,
        typer.Option(
            "--max-upload",
            metavar="GB",
            min=0.001,
            max=100_000,
            show_default=False,
            help="Accept uploads of up to this size, in GB (10^9 bytes). Default: 50.",
        ),
    ] = 50,
    folders: Annotated[
        list[Path] | None,
        typer.Option(
            "--folder",
            metavar="DIR",
            readable=False,
            help="Let the page list the videos below this folder; may be given several times. "
            "Default: the home folder.",
        ),
    ] = None,
    weights: WeightsFolder = None,
    offline: Offline = None,
) -> None:
    """Serve a local web page on which to choose videos, choose people, and restore.

    The page keeps its list, uploads and results. Started again, it continues them. If it runs
    already, its address is printed and opened.
    """
    from vidrestore.cli import console
    from vidrestore.web.server import ServerOptions, serve

    folder = None if weights is None else weights.absolute()
    listed = tuple(each.absolute() for each in folders or ())
    serving = ServerOptions(host, port, max_upload, folder, bool(offline), listed)

    def ready(address: str, folder: Path) -> None:
        console.show_page(address, is_local=serving.is_local)
        if not no_browser:
            _open(address, folder)

    def running(address: str, folder: Path) -> None:
        console.show_running_page(address)
        if not no_browser:
            _open(address, folder)

    ended = serve(serving, ready, running)
    if ended is not None:
        console.show_page_ended(ended.folder, ended.unfinished)


def _open(address: str, folder: Path) -> None:
    """Open the page in a graphical browser; a text browser would take over the terminal.

    Every user of the machine can read the arguments of a process. So the browser gets the name of
    a file that only this user can read, and that file redirects to the address.
    """
    import webbrowser

    from vidrestore.web.server import write_redirect

    try:
        browser = webbrowser.get()
    except webbrowser.Error as error:
        _log.info("no browser is opened: %s", error)
        return
    if type(browser) is not webbrowser.GenericBrowser:
        browser.open(write_redirect(address, folder).as_uri())

"""The request of the user, and the checks of it before any work.

The checks load no library for pictures, videos or networks, so that a refusal comes at once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from vidrestore.analysis.choice import EVERYONE, Choice, check_photo
from vidrestore.analysis.cut_list import check_readable
from vidrestore.common.counting import counted
from vidrestore.common.errors import (
    InputError,
    OutputError,
    UsageError,
    WeightsError,
    system_reason,
)
from vidrestore.common.files import (
    check_file_is_there,
    check_new,
    check_page_name,
    check_path,
    check_video_file,
    is_same_file,
    no_path,
    output_place,
)
from vidrestore.common.quoting import quoted
from vidrestore.common.settings import Settings
from vidrestore.common.text_files import can_be_found, read_text
from vidrestore.jobs.exclusions import OPENEXR, PICTURES, check_exclusions
from vidrestore.jobs.notes import KEPT, work_path
from vidrestore.media.containers import container_of
from vidrestore.media.images import (
    is_openexr,
    is_pattern,
    is_pictures,
    kind_of,
    numbered,
    numbers_of,
    pictures_of,
)
from vidrestore.media.images.animation import check_no_animation
from vidrestore.models.restorers import Restorer, check_restorer, check_restorer_name

if TYPE_CHECKING:
    from vidrestore.analysis.result import Analysis
    from vidrestore.jobs.render import Workers
    from vidrestore.media.decode import TimeRange

_OUTPUT, _LISTING = "the output", "the listing"


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """A request to restore the faces in one video, one picture or one sequence of pictures."""

    source: Path
    """The input: a video, a picture, or a pattern of numbered pictures such as name_%06d.tif."""
    target: Path
    """The output. It appears when it is complete. Until then, and after any error, a file that was
    there before stays."""
    settings: Settings = field(default_factory=Settings)
    """The settings of the run; default: `Settings()`."""
    restorer: Restorer | None = None
    """A restorer of the caller (a `vidrestore.Restorer`); None: the one that the settings name."""
    analysis: Analysis | None = None
    """The analysis of the source, with the same settings, of the whole or of the same part; None:
    vidrestore analyzes the source or uses the analysis of an earlier run."""
    span: TimeRange | None = None
    """The part of the source to restore; None: all of it."""
    choice: Choice = EVERYONE
    """The people to restore, and the choices for single shots; default: everyone, everywhere."""
    before_swap: Path | None = None
    """The same video before faces were swapped in it. vidrestore restores only what differs from
    it. None: all faces."""
    plate: Path | None = None
    """A larger or graded version of the source, onto which vidrestore pastes the faces. The output
    has all other pixels and streams of the plate. None: the source."""
    layer: Path | None = None
    """The folder for the layer: files with the restored faces alone, and a matte; None: none."""
    framemd5: Path | None = None
    """The text file for the listing: hashes of each frame, and the box of what changed in it; None:
    none."""
    report: Path | None = None
    """The .html file for the report about the run; None: none. Only `vidrestore.restore` and
    `vidrestore.restore_video` write it."""
    live: Path | None = None
    """The .jpg file for a live picture: at most every two seconds it is replaced by the newest
    restored frame, upright and at most 640 pixels wide. It stays after the end. None: none."""
    overwrite: bool = False
    """Whether an output that exists may be replaced."""
    resume: bool = True
    """Whether to use what an interrupted run of the same request finished."""
    keep_job: bool = False
    """Whether to keep, in the folder next to the output, the data that `redo_shots` needs."""
    redo_shots: str | None = None
    """The shots to render anew with these settings, such as "3,7-9", counted from 1. All other
    packets are copied from `target`. None: all shots are rendered."""
    workers: Workers | None = None
    """Processes that render segments in parallel (`vidrestore.jobs.ray_cluster`), with the same
    frames as a result. None: this process renders."""

    @property
    def base(self) -> Path:
        """The video whose pixels and streams the output has, except for the faces: the plate, else
        the source."""
        return self.plate or self.source

    def options(self) -> dict[str, object]:
        """Return the options that may exclude each other: name on the command line -> value."""
        encode, scale = self.settings.encode, self.settings.scale
        return {
            PICTURES: is_pictures(self.source),
            OPENEXR: is_openexr(self.source),
            "--plate": self.plate,
            "--before-swap": self.before_swap,
            "--layer": self.layer,
            "--start or --end": self.span,
            "--keep-job": self.keep_job,
            "--redo-shots": self.redo_shots,
            "--live": self.live,
            "--workers or --cluster": self.workers,
            "--codec": encode.codec != "auto",
            "encode.hardware": encode.hardware,
            "encode.pixel_format": encode.pixel_format != "source",
            "--scale": scale.factor > 1,
            "--upscaler": scale.upscaler,
        }

    def validate(self) -> None:
        """Check the request before any work.

        Raises:
            UsageError: The request contradicts itself, or a path names the wrong kind of file or
                one that must not be replaced.
            InputError: An input does not exist or cannot be read.
            ConfigError: The settings name no known restorer, or a text file that cannot be read.
            WeightsError: The settings name a file of a network that does not exist.
            OutputError: The output cannot be written.
        """
        if self.restorer is not None:
            check_restorer(self.restorer)
        check_exclusions(self.options())
        self.choice.check()
        scale = self.settings.scale
        if scale.upscaler is not None and scale.factor == 1:
            raise UsageError(
                f"the upscaler {scale.upscaler} has no effect without a larger output; add "
                "--scale 2 or 4"
            )
        self.check_paths()
        if self.layer is not None:
            check_layer_folder(self.layer)
        if self.restorer is None:
            check_restorer_name(self.settings.restore.restorer)
        for person in self.settings.person:
            check_restorer_name(person.restorer)
            if person.reference is not None:
                check_photo(person.reference)
        _check_files_of_settings(self.settings)
        self._check_none_is_replaced()
        encode = self.settings.encode
        if (encode.codec, encode.quality) != ("auto", "high") and not is_pictures(self.target):
            from vidrestore.media.codecs import check_choice  # this loads PyAV

            check_choice(encode.codec, encode.quality, self.target)
        if self.redo_shots is not None:
            check_kept(self.target)
        if self.workers is not None:
            self.workers.check(self.settings, self.restorer)

    def check_paths(self) -> None:
        """Check all paths of the request, as they are now; see the function `check_paths`.

        Raises:
            VidrestoreError: A path is wrong, or a file exists that may not be replaced.
        """
        check_paths(
            self.source,
            self.target,
            self.framemd5,
            report=self.report,
            live=self.live,
            overwrite=self.overwrite,
            beside=(self.before_swap, self.plate),
            is_redo=self.redo_shots is not None,
        )

    def _check_none_is_replaced(self) -> None:
        """Raise UsageError where an output would replace a file that this run reads."""
        named, people = self.settings, self.settings.person
        texts = named.restore.restorer, *(each.restorer for each in people)
        paths = (
            *(self.choice.reference, self.choice.shots, named.shots.edl),
            *(named.paste.parser, named.scale.upscaler),
            *(each.reference for each in people),
            *(Path(text) for text in (*texts, named.decode.input_curve)),
        )
        read = [path for path in paths if path is not None and can_be_found(path)]
        for path, what in (
            (self.target, _OUTPUT),
            (self.framemd5, _LISTING),
            (self.report, "the report"),
            (self.live, "the live picture"),
        ):
            if path is not None and any(is_same_file(path, each) for each in read):
                raise UsageError(f"{what} {path} is a file that the run reads; choose another name")


def check_layer_folder(folder: Path) -> None:
    """Check that the folder of a layer can be made, or written to.

    Args:
        folder: The folder.

    Raises:
        UsageError: The path names something else.
        OutputError: The folder cannot be created or written to.
        OSError: The path cannot be reached.
    """
    if (folder.exists() or folder.is_symlink()) and not folder.is_dir():
        raise UsageError(f"the layer {folder} is not a folder; give the name of a folder")
    if not folder.exists() and not folder.absolute().parent.is_dir():
        raise OutputError(f"the folder {folder.parent} for the layer does not exist; create it")
    if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"the folder {folder} for the layer cannot be written to; choose another")


def check_kept(target: Path) -> None:
    """Check that an earlier run kept what a redo of shots needs; the content is not read.

    Args:
        target: The output of that run.

    Raises:
        UsageError: There is no note of a kept job.
    """
    note = work_path(output_place(target, _OUTPUT)) / KEPT
    if not (note.exists() or note.is_symlink()):
        raise UsageError(
            f"there is no kept job of {target}; restore the whole video with --keep-job before "
            "--redo-shots"
        )


def _check_files_of_settings(settings: Settings) -> None:
    """Check that the files that settings name exist and are what their names say."""
    networks = (
        (settings.paste.parser, "the face parser", "set paste.parser to its file"),
        (settings.scale.upscaler, "the upscaler", "give the file of a network"),
    )
    for path, what, advice in networks:
        if path is not None:
            check_file_is_there(path, what, WeightsError, advice)
    if settings.shots.edl is not None:
        check_readable(settings.shots.edl)
    if (curve := Path(settings.decode.input_curve)).suffix == ".cube":
        read_text(curve, "the curve")


def check_picture_paths(
    source: Path, target: Path, framemd5: Path | None, *, overwrite: bool
) -> None:
    """Check the paths of a request for pictures before any work.

    Args:
        source: The input: a picture, or a pattern of numbered pictures.
        target: The output, of the same kind.
        framemd5: The listing; None: none.
        overwrite: Whether files that exist may be replaced.

    Raises:
        UsageError: The two paths are of different kinds, a file would replace an input, or a file
            exists and `overwrite` is False.
        InputError: The input is a folder, or cannot be read.
        OutputError: The output cannot be written.
        OSError: A path cannot be reached.
    """
    if source.is_dir():
        raise InputError(
            f"{source} is a folder; name the pictures in it by a pattern, such as "
            f"{source / 'name_%06d.tif'}"
        )
    for path, other in ((source, target), (target, source)):
        if not is_pictures(path):
            raise UsageError(
                f"{path.name} is not a picture and {other.name} is one; pictures become pictures, "
                "in .tif, .png, .jpg, .dpx or .exr, and videos become videos"
            )
        kind_of(path)
    if is_pattern(source) != is_pattern(target):
        one = source if is_pattern(source) else target
        raise UsageError(
            f"{one.name} names many pictures and the other path one; give both paths with a "
            "number, such as name_%06d.tif, or neither"
        )
    pictures = pictures_of(source)
    if framemd5 is not None:
        if is_pictures(framemd5):
            raise UsageError(f"the listing {framemd5} has the name of a picture; name it .txt")
        check_new(framemd5, overwrite=overwrite, what=_LISTING, inputs=[source], outputs=[target])
    check_new(target, overwrite=overwrite, what=_OUTPUT, inputs=[source])
    if pictures.numbers is None:
        return
    names = {numbered(target, number).name for number in pictures.numbers}
    if target.parent.samefile(source.parent) and names & {path.name for path in pictures.files}:
        raise UsageError(f"the output {target} is the input itself; choose another folder or name")
    if not (there := numbers_of(target)):
        return
    for number in there:
        output_place(numbered(target, number), _OUTPUT)
    example = numbered(target, there[0])
    if not overwrite:
        raise UsageError(
            f"{counted(len(there), 'picture')} of the output exist already, such as {example}; add "
            "--overwrite to replace them"
        )
    if others := set(there).difference(pictures.numbers):
        raise UsageError(
            f"{numbered(target, min(others))} has the name of an output and no picture of the "
            "input has that number; remove it or choose another folder"
        )


def check_paths(
    source: Path,
    target: Path,
    framemd5: Path | None = None,
    *,
    report: Path | None = None,
    live: Path | None = None,
    overwrite: bool,
    beside: Sequence[Path | None] = (),
    is_redo: bool = False,
) -> None:
    """Check all paths of a request before any work.

    Args:
        source: The input.
        target: The output.
        framemd5: The listing; default: None.
        report: The report; default: None.
        live: The live picture; default: None.
        overwrite: Whether files that exist may be replaced.
        beside: The other inputs; None entries are skipped; default: none.
        is_redo: Whether the run redoes shots. A redo needs an existing output and replaces it;
            default: False.

    Raises:
        UsageError: A path names the wrong kind of file, a file would replace an input or another
            output, a file exists and may not be replaced, or a redo has no output.
        InputError: An input does not exist or cannot be read.
        OutputError: The output cannot be written, or its container is not known.
    """
    try:
        if report is not None:
            read = (source, *filter(None, beside))
            _check_report(report, read, target, framemd5, overwrite=overwrite)
        for each in (source, *filter(None, beside)):
            check_path(each)
        if no_path(target) is not None:
            output_place(target)  # raises an error
        if live is not None:
            _check_live(live, (source, *filter(None, beside)), target)
        if is_pictures(source) or is_pictures(target):
            check_no_animation(source)
            check_picture_paths(source, target, framemd5, overwrite=overwrite)
            return
        if not target.is_dir():
            container_of(target)
        for each in (source, *filter(None, beside)):
            _check_files(each, target, overwrite=overwrite or is_redo)
            if framemd5 is not None:
                check_new(
                    framemd5, overwrite=overwrite, what=_LISTING, inputs=[each], outputs=[target]
                )
        if is_redo and not target.exists():
            raise UsageError(
                f"the output {target} does not exist, so none of its shots can be redone; restore "
                "it with --keep-job first"
            )
    except OSError as error:  # permissions, or a name that is too long
        inputs = map(str, (source, *filter(None, beside)))
        kind = InputError if error.filename in inputs else OutputError
        reason = system_reason(error)
        raise kind(f"{error.filename} cannot be reached: {reason}") from error


def _check_report(
    report: Path, inputs: Sequence[Path], target: Path, framemd5: Path | None, *, overwrite: bool
) -> None:
    """Raise UsageError where the report has a wrong name or would replace another file."""
    check_page_name(report)
    if framemd5 is not None and os.path.realpath(report) == os.path.realpath(framemd5):
        raise UsageError(f"the report and the listing are both {report}; give them different names")
    check_new(report, overwrite=overwrite, what="the report", inputs=inputs, outputs=[target])


def _check_live(live: Path, inputs: Sequence[Path], target: Path) -> None:
    """Raise UsageError where the live picture has a wrong name or would replace another file.

    A folder that is missing or cannot be written to is no reason to refuse the run.
    """
    if live.suffix.lower() not in (".jpg", ".jpeg"):
        raise UsageError(
            f"the name of the live picture must end in .jpg, and {live.name!r} does not"
        )
    for others, role in ((inputs, "input"), ((target,), "output")):
        if any(_is_of(live, other) for other in others):
            raise UsageError(f"the live picture {live} is the {role} itself; choose another name")
    output_place(live, "the live picture")


def _is_of(path: Path, other: Path) -> bool:
    """Tell whether a path is that of a file, or of one of numbered pictures."""
    if is_pictures(other) and is_pattern(other):
        return any(is_same_file(path, numbered(other, number)) for number in numbers_of(other))
    return is_same_file(path, other)


def _check_files(source: Path, target: Path, *, overwrite: bool) -> None:
    """Raise an error where an input cannot be read or the output cannot be written."""
    check_video_file(source)
    if not os.access(source, os.R_OK):
        raise InputError(f"the file {source} cannot be read: permission denied")
    check_new(target, overwrite=overwrite, what=_OUTPUT, inputs=[source])


def check_address(address: str) -> tuple[str, int] | None:
    """Check the address of a cluster.

    Args:
        address: The text of the user.

    Returns:
        (host, port); None: the cluster of this machine ("auto").

    Raises:
        UsageError: The text is no address.
    """
    host = re.fullmatch(r"([^:/]+):([0-9]{1,5})", address)
    if host is None and address != "auto":
        raise UsageError(
            f"the address of a cluster must be HOST:PORT or auto, not {quoted(address)}"
        )
    return None if host is None else (host[1], int(host[2]))

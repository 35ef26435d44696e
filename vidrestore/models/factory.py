"""Opening the detector, recognizer, face parser and restorers that the settings name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vidrestore.common.checksums import FileHashes
from vidrestore.common.errors import ConfigError, UsageError, WeightsError
from vidrestore.common.events import OnEvent, notify
from vidrestore.common.files import check_file_is_there
from vidrestore.common.handled import log_handled
from vidrestore.common.settings import RESTORERS, Detect, People, Restore, Settings
from vidrestore.imaging.frame import FloatArray
from vidrestore.models import weights
from vidrestore.models.detectors import DetectionModels, Detector
from vidrestore.models.download import as_events
from vidrestore.models.onnx_session import can_use_devices
from vidrestore.models.recognizer import Recognizer, embedding_of_photo, find_recognizer
from vidrestore.models.restorers import (
    Restorer,
    check_restorer_name,
    fits_into_memory,
    memory_errors,
)
from vidrestore.models.restorers.assignment import Assignment

if TYPE_CHECKING:
    import torch

    from vidrestore.models.face_mesh import FaceMesh
    from vidrestore.models.face_parser import Parser

_log = logging.getLogger("vidrestore")

_MESH = "face-mesh"
_NOT_FOR_THIS = "nothing is downloaded for this detector"
_FETCH_MESH = f"get it with vidrestore weights fetch {_MESH} (1.2 MB, free for any use)"
_ANEW = "the faces are found anew, and what earlier runs of this job finished is rendered again"


def open_detector(
    how: Detect,
    *,
    find_weights: Callable[[str], Path],
    threads: int | None = None,
    device: torch.device | None = None,
    is_auto: bool = False,
    on_notice: Callable[[str], None] = lambda message: None,
) -> Detector:
    """Open a detector.

    Args:
        how: The settings that name the detector, which is not "auto", and its thresholds.
        find_weights: Maps the name of weights to their file or folder.
        threads: Number of threads that one detection may use; "haar" does not heed it.
            Default: one for each core that this process may use.
        device: Device on which "insightface" runs if the rule of `admission` admits it; the other
            detectors run on the processor. None, the default: the processor.
        is_auto: Whether the user left the choice of the device open, so that a provider of
            onnxruntime for another kind of device may be used. Default: False.
        on_notice: Receives a notice where a device does not run the detector. Default: none is
            sent.

    Returns:
        The detector.

    Raises:
        WeightsError: The weights of the detector are missing or damaged.
    """
    if how.detector == "insightface":
        from vidrestore.models.detectors.insightface import InsightFace

        pack_folder = find_weights(how.pack)
        return InsightFace(
            pack_folder,
            size_px=how.size_px,
            score=how.score,
            threads=threads,
            device=device,
            is_auto=is_auto,
            on_notice=on_notice,
        )
    if how.detector == "yunet":
        from vidrestore.models.detectors.yunet import YuNet

        return YuNet(find_weights("yunet"), score=how.yunet_score, threads=threads)
    from vidrestore.models.detectors.haar import Haar

    return Haar(neighbors=how.haar_neighbors)


def chosen_detector(
    settings: Settings,
    on_event: OnEvent | None,
    *,
    threads: int | None = None,
    hashes: FileHashes | None = None,
) -> Detector:
    """Open the detector that the settings name; missing weights are downloaded if allowed.

    For the detector "auto", see `with_models_here`.

    Args:
        settings: The settings; `detect`, `restore` (for the device) and `weights` matter.
        on_event: Receives the progress of a download and notices; None to receive none.
        threads: Number of threads that one detection may use. Default: one for each core that
            this process may use.
        hashes: Hashes of the files that this run has read already. Default: none.

    Returns:
        The detector.

    Raises:
        WeightsError: The weights are missing or damaged.
        ConfigError: The settings name an unknown pack of weights.
        UsageError: The settings name a device that cannot be used.
    """
    if settings.detect.detector == "auto":
        settings = _with(settings, detector=_best_detector(settings, on_event))
    return open_detector(
        settings.detect,
        threads=threads,
        device=_device_for_detection(settings),
        is_auto=settings.restore.device == "auto",
        on_notice=lambda message: notify(on_event, message),
        find_weights=weight_finder(settings, on_event, hashes),
    )


def with_models_here(
    settings: Settings,
    on_event: OnEvent | None,
    *,
    begun: DetectionModels | None = None,
    has_own_detector: bool = False,
) -> Settings:
    """Replace what is "auto" in the settings of detection by what this machine has.

    The key of a cached analysis is made from the result, which names the detector. The function
    downloads YuNet and the face mesh where they are missing and may be downloaded. One notice tells
    about each that is missing. For the result of the function, the function changes nothing.

    Args:
        settings: The settings; `detect`, `people` and `weights` matter.
        on_event: Receives the progress of a download and notices; None to receive none.
        begun: What an earlier run of the same job used, which this run uses too; a notice tells
            where it would choose otherwise now. Default: there was no such run.
        has_own_detector: Whether the caller has a detector of its own, with which the mesh is not
            used, so that nothing is downloaded. Default: False.

    Returns:
        The settings with a `detect.detector` other than "auto", unless the caller has a detector;
        with `detect.mesh` "auto" only where the mesh is here; and with `people.recognise` only
        where the pack is here.

    Raises:
        ConfigError: The settings name an unknown pack of weights.
    """
    name: str = settings.detect.detector
    mesh: str = settings.detect.mesh
    recognise = settings.people.recognise
    passed_over = []
    if name == "auto" and not has_own_detector:
        name = "auto" if begun is None else _detector_of(begun, settings, on_event)
        if name == "auto":
            name = _best_detector(settings, on_event)
        elif (better := _best_here(settings)) != name:
            passed_over.append(f"the detector {better}")
    settings = _with(settings, detector=name)
    if has_own_detector:
        mesh = "off"
    if mesh == "auto":
        not_fetched = _NOT_FOR_THIS if name == "haar" else None
        is_kept_off = begun is not None and not begun.has_mesh
        without = "vidrestore works without the face mesh"
        if is_kept_off:
            not_fetched = "the job began without it"
        elif begun is not None:
            without = f"this job began with the face mesh and goes on without it: {_ANEW}"
        if not _has_mesh(settings, on_event, not_fetched, without):
            mesh = "off"
        elif is_kept_off:
            mesh = "off"
            passed_over.append("the face mesh")
    if recognise:
        # Opening the detector downloads the pack, or unpacks its zip.
        recognise = name == "insightface" or recognizer_folder(settings) is not None
        if recognise and begun is not None and not begun.recognizes:
            recognise = False
            passed_over.append("the recognizer")
        elif not recognise and begun is not None and begun.recognizes:
            notify(
                on_event,
                "this job began with the recognizer of an InsightFace pack, which is missing now: "
                f"{_ANEW}; put the pack {settings.detect.pack} back to go on as before",
            )
    if passed_over and begun is not None:
        notify(
            on_event,
            f"this run goes on with the detector {name}, as the job began, and without "
            f"{' and '.join(passed_over)}, which an earlier run did not use; add --no-resume to "
            "start over with what is installed now",
        )
    if not recognise:
        settings = _without_recognition(settings, on_event)
    return _with(settings, detector=name, mesh=mesh, recognise=recognise)


def _without_recognition(settings: Settings, on_event: OnEvent | None) -> Settings:
    """Reset the settings of recognition; a notice names those that were set and have no effect."""
    people = settings.people
    given = people.model_fields_set - ({"recognise"} if not people.recognise else set())
    if given:
        why = "no InsightFace pack is used" if people.recognise else "people.recognise is off"
        names = " and ".join(f"people.{name}" for name in sorted(given))
        have = "has" if len(given) == 1 else "have"
        notify(on_event, f"{names} {have} no effect, because {why}")
    return settings.model_copy(update={"people": People(recognise=False)})


def models_of(settings: Settings) -> DetectionModels | None:
    """Describe the result of `with_models_here`, for the work folder of a job.

    Args:
        settings: The settings.

    Returns:
        The description; None where the detector is still to be chosen.
    """
    how = settings.detect
    if how.detector == "auto":
        return None
    return DetectionModels(how.detector, how.mesh == "auto", settings.people.recognise)


def _with(
    settings: Settings, *, detector: str, mesh: str | None = None, recognise: bool | None = None
) -> Settings:
    """Return settings with another detector, mesh and recognition; None changes nothing."""
    mesh = settings.detect.mesh if mesh is None else mesh
    detect = settings.detect.model_copy(update={"detector": detector, "mesh": mesh})
    people = settings.people
    if recognise not in (None, people.recognise):  # else it would count as a setting of the user's
        people = people.model_copy(update={"recognise": recognise})
    return settings.model_copy(update={"detect": detect, "people": people})


def _folders(settings: Settings) -> tuple[Path, ...]:
    return weights.search_folders(settings.weights.folder, settings.weights.also)


def _best_here(settings: Settings) -> str:
    """Return the name of the best detector that needs no download."""
    folders = _folders(settings)
    if weights.is_present(settings.detect.pack, folders):
        return "insightface"
    return "yunet" if weights.is_present("yunet", folders) else "haar"


def _best_detector(settings: Settings, on_event: OnEvent | None) -> str:
    """Return the name of the detector that "auto" stands for; YuNet is downloaded if allowed."""
    if (name := _best_here(settings)) != "haar":
        return name
    if (why_not := _why_not_fetched("yunet", settings, on_event)) is None:
        return "yunet"
    notify(
        on_event,
        "faces are found by the Haar cascades of OpenCV, which miss turned faces and only estimate "
        "landmarks, because no InsightFace pack is installed and YuNet "
        f"{_state('yunet', settings)}: {why_not}; get it with vidrestore weights fetch yunet "
        "(0.2 MB, free for any use)",
    )
    return "haar"


def _detector_of(begun: DetectionModels, settings: Settings, on_event: OnEvent | None) -> str:
    """Return the detector of an earlier run; "auto" where it can no longer be used."""
    name = begun.detector
    if name == "haar":
        return name
    if name == "insightface":
        if weights.is_present(settings.detect.pack, _folders(settings)):
            return name
        why_not: str | None = f"the pack {settings.detect.pack} is missing"
    elif (why_not := _why_not_fetched(name, settings, on_event)) is None:
        return name
    notify(
        on_event,
        f"this job began with the detector {name} and cannot go on with it: {why_not}; the faces "
        "are found anew with another detector",
    )
    return "auto"


def _state(name: str, settings: Settings) -> str:
    """Return the end of a clause that tells why there is no file of a weight."""
    found = weights.obstacle(name, _folders(settings))
    return "is missing" if found is None else f"cannot be used ({found})"


def _why_not_fetched(name: str, settings: Settings, on_event: OnEvent | None) -> str | None:
    """Download a weight if it is missing; return why it stays missing, or None."""
    if weights.is_present(name, _folders(settings)):
        return None
    target = weights.target_folder(settings.weights.folder)
    in_the_place = weights.obstacle(name, (target,))
    if in_the_place is None and settings.weights.offline:
        in_the_place = weights.obstacle(name, _folders(settings))
    if in_the_place is not None:
        return "move that away"
    if settings.weights.offline:
        return "downloads are switched off (--offline)"
    try:
        weight_finder(settings, on_event)(name)
    except WeightsError as error:
        _log.info("%s is not fetched: %s", name, error)
        return "its download failed (--verbose shows the reason)"
    return None


def _has_mesh(
    settings: Settings, on_event: OnEvent | None, not_fetched: str | None, without: str
) -> bool:
    """Tell whether the face mesh is here, after a download if allowed; if not, send a notice.

    `not_fetched` is the reason why it must not be downloaded; None: it may be. The notice begins
    with `without`, which tells what follows from the lack of the mesh.
    """
    if weights.is_present(_MESH, _folders(settings)):
        return True
    why_not = not_fetched or _why_not_fetched(_MESH, settings, on_event)
    if why_not is None:
        return True
    notify(
        on_event,
        f"{without}, because its file {_state(_MESH, settings)}: {why_not}; {_FETCH_MESH}",
    )
    return False


def chosen_face_mesh(
    settings: Settings,
    on_event: OnEvent | None,
    hashes: FileHashes | None = None,
    *,
    without: str = "vidrestore works without the face mesh",
) -> FaceMesh | None:
    """Open the face mesh; a missing file is downloaded as for `with_models_here`.

    Args:
        settings: The settings; `detect` and `weights` matter.
        on_event: Receives the progress of a download and notices; None to receive none.
        hashes: Hashes of the files that this run has read already. Default: none.
        without: The clause of the notice that tells what follows from the lack of the mesh.
            Default: vidrestore works without it.

    Returns:
        The mesh; None where `detect.mesh` is off, or where the file is missing and cannot be
        downloaded, about which a notice tells.

    Raises:
        WeightsError: The file is damaged, or onnxruntime cannot load it.
    """
    how = settings.detect
    not_fetched = _NOT_FOR_THIS if how.detector == "haar" else None
    if how.mesh == "off" or not _has_mesh(settings, on_event, not_fetched, without):
        return None
    from vidrestore.models.face_mesh import FaceMesh

    hashes = hashes or FileHashes()
    return FaceMesh(weight_finder(settings, on_event, hashes)(_MESH), hashes)


def _device_for_detection(settings: Settings) -> torch.device | None:
    """Return the device for "insightface"; None: the processor, which needs no torch."""
    if settings.detect.detector == "insightface" and can_use_devices():
        from vidrestore.models.devices import choose_device

        return choose_device(settings.restore)
    return None


def chosen_recognizer(
    settings: Settings, on_event: OnEvent | None, hashes: FileHashes | None = None
) -> Recognizer | None:
    """Open the recognizer of the InsightFace pack, whichever detector the settings name.

    The function downloads no pack that is missing. Where the pack is damaged, it sends a notice
    and recognizes no people.

    Args:
        settings: The settings; `people.recognise`, `detect.pack` and `weights` matter.
        on_event: Receives the notice; None to receive none.
        hashes: Hashes of the files that this run has read already. Default: none.

    Returns:
        The recognizer; None where it is switched off, or the pack is missing, damaged or has none.
    """
    folder = recognizer_folder(settings) if settings.people.recognise else None
    if folder is None:
        return None
    try:
        model = find_recognizer(weight_finder(settings, on_event, hashes)(settings.detect.pack))
        return None if model is None else Recognizer(model)
    except WeightsError as error:
        notify(on_event, f"vidrestore does not recognize people from one shot to the next: {error}")
        return None


def recognizer_folder(settings: Settings) -> Path | None:
    """Find the folder of the InsightFace pack whose recognizer would be used.

    Args:
        settings: The settings; `detect.pack` and `weights` matter.

    Returns:
        The folder; None where the pack is missing.
    """
    how = settings.weights
    try:
        return weights.find(settings.detect.pack, weights.search_folders(how.folder, how.also))
    except ConfigError as error:  # neither in the table of weights nor in a folder
        _log.debug("no recognizer is used: %s", error)
        return None


def reference_embedding(photo: Path, settings: Settings, on_event: OnEvent | None) -> FloatArray:
    """Compute the embedding of the face in a reference photo; see `embedding_of_photo`.

    Args:
        photo: Path of the photo.
        settings: The settings; `detect`, `people`, `restore` (for the device) and `weights`
            matter.
        on_event: Receives the progress of a download and notices; None to receive none.

    Returns:
        (d,) float32 of unit length.

    Raises:
        UsageError: No recognizer is available, or the photo does not show a face that is clearly
            the largest and sharp enough.
        InputError: The photo cannot be read.
        WeightsError: The weights of the detector are missing or damaged.
    """
    hashes = FileHashes()
    detector = chosen_detector(settings, on_event, hashes=hashes)
    recognizer = chosen_recognizer(settings, on_event, hashes)
    if recognizer is None:
        raise UsageError(
            f"a reference photo needs the recognizer of an InsightFace pack, but the pack "
            f"{settings.detect.pack} is missing or has no recognizer; choose people by their "
            "numbers with --people instead"
        )
    return embedding_of_photo(
        photo, detector, recognizer, lambda message: notify(on_event, message)
    )


def open_restorer(
    name: str,
    how: Restore,
    *,
    device: torch.device,
    others: Sequence[torch.device] = (),
    cache_folder: Path,
    exact_folder: Path | None = None,
    find_weights: Callable[[str], Path],
    on_notice: Callable[[str], None] = lambda message: None,
    hashes: FileHashes | None = None,
) -> Restorer:
    """Open a restorer by its name, or the network in a weight file.

    Args:
        name: One of `RESTORERS` except "gpen-auto", or the path of a weight file.
        how: Number format, engine and the options of single restorers; `how.restorer` is ignored.
        device: Device on which the restorer runs, if the rule of `admission` admits it.
        others: The devices that follow where it does not; default: none, so that it is an error.
        cache_folder: Folder that keeps compiled networks.
        exact_folder: Folder that keeps the processor's results, to which devices are compared.
            None, the default: they are not kept.
        find_weights: Maps the name of weights to their file.
        on_notice: Receives notices for the user, each one sentence. Default: they are dropped.
        hashes: Hashes of the files that this run has read already. Default: none.

    Returns:
        The restorer.

    Raises:
        ConfigError: `name` is neither a restorer nor the name of a weight file.
        WeightsError: The file is missing, damaged or of another kind.
        UsageError: The device does not run the network as the processor does, or an extra that
            runs it is not installed.
        MemoryError: The network does not fit into the memory of the device.
    """
    if name == "fusion":
        from vidrestore.models.restorers.fusion import Fusion

        return Fusion(sharpness=how.fusion_sharpness)
    check_restorer_name(name)
    from vidrestore.models.restorers import colorize
    from vidrestore.models.restorers.gpen import Gpen

    kind, expected_size = Gpen, None
    path = find_weights(name) if name in RESTORERS else Path(name)
    if name == colorize.NAME:
        kind = colorize.Colorizer
    elif name not in RESTORERS and weights.named_as(path) == colorize.NAME:
        on_notice(
            f"{path.name} is the name of GPEN's colorization network, which runs as a usual "
            f"restorer here; --restorer {colorize.NAME} uses it for colors"
        )
    elif name in RESTORERS:
        expected_size = int(name.removeprefix("gpen-"))

    def gpen() -> Gpen:
        return kind(
            path,
            expected_size=expected_size,
            device=device,
            others=others,
            number_format=how.number_format,
            engine=_engine(how),
            cache_folder=cache_folder,
            exact_folder=exact_folder,
            on_notice=on_notice,
            hashes=hashes,
        )

    if path.suffix.lower() == ".onnx":
        return _from_onnx(path, expected_size, gpen, device, how, on_notice, hashes)
    try:
        return gpen()
    except WeightsError as error:
        if name in RESTORERS or (other := _other_family(path)) is None:
            raise
        log_handled(error)
    from vidrestore.models.restorers.spandrel import Spandrel

    state, family, extra = other
    return Spandrel(
        path,
        state,
        family,
        extra,
        device=device,
        others=others,
        number_format=how.number_format,
        fidelity=how.codeformer_fidelity,
        exact_folder=exact_folder,
        on_notice=on_notice,
        hashes=hashes,
    )


def _engine(how: Restore) -> str:
    """Return the engine of GPEN, which is torch where it gets latent codes."""
    if how.latent == "frame":
        return how.engine
    if how.engine == "openvino":
        raise UsageError(
            "the engine openvino runs GPEN as a whole, without a latent code; use --set "
            "restore.engine=torch or --set restore.latent=frame"
        )
    return "torch"


def _other_family(path: Path) -> tuple[dict[str, torch.Tensor], str, str] | None:
    """Return the weights of a file, their family, and the extra that runs it; None: no family."""
    from vidrestore.models.spandrel_networks import restorer_family
    from vidrestore.models.weight_file import read_checkpoint

    try:
        state = read_checkpoint(path)
    except WeightsError as error:  # it cannot be read, which the caller has an error for
        log_handled(error)
        return None
    found = restorer_family(state)
    return None if found is None else (state, *found)


def _from_onnx(
    path: Path,
    expected_size: int | None,
    gpen: Callable[[], Restorer],
    device: torch.device,
    how: Restore,
    on_notice: Callable[[str], None],
    hashes: FileHashes | None,
) -> Restorer:
    """Open the exact GPEN where the file holds its unchanged weights, else use onnxruntime."""
    from vidrestore.models.restorers.gpen import holds_gpen
    from vidrestore.models.restorers.onnx import Onnx

    if holds_gpen(path):
        exact = gpen()
        on_notice(f"{path.name} holds the weights of {exact.name}, which runs as the exact network")
        return exact
    on_notice(f"{path.name} runs through onnxruntime")
    known_template = None if expected_size is None else "gpen"
    restorer = Onnx(
        path,
        device=device,
        is_auto=how.device == "auto",
        fidelity=how.codeformer_fidelity,
        template=known_template,
        on_notice=on_notice,
        hashes=hashes,
    )
    if expected_size not in (None, restorer.size):
        raise WeightsError(
            f"{path} holds a network for faces of {restorer.size} px, but its name stands for "
            f"{expected_size} px; put the file for {expected_size} px in its place"
        )
    return restorer


def chosen_restorer(
    settings: Settings, on_event: OnEvent | None, hashes: FileHashes | None = None
) -> Restorer:
    """Open the restorer that the settings name; missing weights are downloaded if allowed.

    The restorer "gpen-auto" opens a network when the first face needs it.

    Args:
        settings: The settings; `restore` and `weights` matter.
        on_event: Receives the progress of a download and notices; None to receive none.
        hashes: Hashes of the files that this run has read already. Default: none.

    Returns:
        The restorer.

    Raises:
        ConfigError: The settings name no known restorer or weight file.
        WeightsError: The weights are missing or damaged, or do not fit into the memory of the
            device.
        UsageError: The settings name a device that cannot be used.
    """
    # Restorers load torch, which the opening of detectors does without.
    from vidrestore.models.devices import choose_devices, has_room, what_fits
    from vidrestore.models.restorers import adaptive

    how, hashes = settings.restore, hashes or FileHashes()
    find_weights = weight_finder(settings, on_event, hashes)

    def send_notice(message: str) -> None:
        notify(on_event, message)

    device, *others = choose_devices(how, send_notice)

    def open_by_name(name: str) -> Restorer:
        if name not in RESTORERS:
            check_restorer_name(name)
            weights.sha256_of_own(Path(name), hashes)
        try:
            with memory_errors():
                return open_restorer(
                    name,
                    how,
                    device=device,
                    others=others,
                    cache_folder=weights.user_cache() / "openvino",
                    exact_folder=weights.user_cache() / "float32",
                    find_weights=find_weights,
                    on_notice=send_notice,
                    hashes=hashes,
                )
        except MemoryError as error:
            raise WeightsError(
                f"{name} does not fit into the memory of the device; use {what_fits(how, device)}"
            ) from error

    if how.restorer != adaptive.NAME:
        return open_by_name(how.restorer)
    from vidrestore.models.restorers.gpen import run_as

    return adaptive.AdaptiveGpen(
        open_by_name,
        find_weights=find_weights,
        is_available=lambda name: _is_available(name, settings),
        has_room=lambda name: has_room(name, how, device),
        on_notice=send_notice,
        run_as=run_as(device, how.number_format, _engine(how)),
        is_cheap=device.type != "cpu",
        needs_codes=how.latent == "shot",
        hashes=hashes,
    )


def chosen_parser(settings: Settings, on_event: OnEvent | None = None) -> Parser | None:
    """Open the face parser that the settings name.

    The SHA-256 of its file serves as its name in keys and notes.

    Args:
        settings: The settings; `paste.parser` and `restore` (for the device) matter.
        on_event: Receives a notice where a device does not run the parser. None, the default: to
            receive none.

    Returns:
        The parser; None where the settings name none.

    Raises:
        WeightsError: The file is missing, damaged or no face parser.
        UsageError: The settings name a device that cannot be used.
    """
    path = settings.paste.parser
    if path is None:
        return None
    from vidrestore.models.devices import choose_device
    from vidrestore.models.face_parser import Parser

    check_file_is_there(path, "the face parser", WeightsError, "set paste.parser to its file")
    with fits_into_memory(path):
        return Parser(
            path,
            device=choose_device(settings.restore),
            is_auto=settings.restore.device == "auto",
            name=weights.sha256_of_own(path),
            on_notice=lambda message: notify(on_event, message),
        )


def weights_needed(settings: Settings, sides_px: Iterable[int]) -> list[str]:
    """List the weights that the restorer needs for crops of given sizes.

    Args:
        settings: The settings; `restore` and `weights` matter.
        sides_px: Sides of the crops, in pixels; only "gpen-auto" heeds them.

    Returns:
        Names from the table of weights, each once; empty where the restorer needs none of them.

    Raises:
        UsageError: The settings name a device that cannot be used.
    """
    from vidrestore.models.devices import choose_device, has_room
    from vidrestore.models.restorers import adaptive

    name = settings.restore.restorer
    if name == adaptive.NAME:
        device = choose_device(settings.restore)
        chosen = (
            adaptive.tier_for(
                side,
                lambda each: _is_available(each, settings),
                lambda each: has_room(each, settings.restore, device),
            )
            for side in sorted(sides_px)
        )
        return list(dict.fromkeys(chosen))
    return [name] if name in weights.load_table() else []


def _is_available(name: str, settings: Settings) -> bool:
    """Return whether the file of a weight is here or may be downloaded."""
    how = settings.weights
    if weights.find(name, weights.search_folders(how.folder, how.also)) is not None:
        return True
    return not how.offline and bool(weights.addresses(weights.load_table()[name]))


def chosen_restorers(
    names: Assignment[str | None],
    usual: Restorer,
    settings: Settings,
    on_event: OnEvent | None,
    hashes: FileHashes | None = None,
) -> Assignment[Restorer]:
    """Open the restorers that are assigned to faces, each restorer once.

    Args:
        names: The names of the restorers; None stands for `usual`.
        usual: The restorer of the job, already open.
        settings: The settings; `align.template`, `restore` and `weights` matter.
        on_event: Receives the progress of a download and notices; None to receive none.
        hashes: Hashes of the files that this run has read already. Default: none.

    Returns:
        The restorers, assigned to the same faces.

    Raises:
        UsageError: A restorer needs another template for its crops than `align.template`.
        ConfigError: A name is neither a restorer nor a weight file.
        WeightsError: Weights are missing or damaged, or do not fit into the memory.
    """
    opened: dict[str | None, Restorer] = {None: usual}
    for name in names.each():
        if name not in opened:
            how = settings.restore.model_copy(update={"restorer": name})
            other = chosen_restorer(settings.model_copy(update={"restore": how}), on_event, hashes)
            if other.template != settings.align.template:
                raise UsageError(
                    f"{usual.name} needs the template {settings.align.template} and {other.name} "
                    f"needs {other.template}; one run cannot mix them, so run them one by one"
                )
            opened[name] = other
    return names.converted(opened.__getitem__)


def weight_finder(
    settings: Settings, on_event: OnEvent | None, hashes: FileHashes | None = None
) -> Callable[[str], Path]:
    """Make a function that maps the name of weights to their checked file or folder.

    The function downloads missing weights unless the settings forbid it. The first time that it
    uses weights, it sends a notice with their license.

    Args:
        settings: The settings; `weights` matters.
        on_event: Receives the progress of a download and notices; None to receive none.
        hashes: Hashes of the files that this run has read already. Default: none.

    Returns:
        The function. It raises WeightsError where weights are missing or damaged, and ConfigError
        for an unknown name.
    """
    how = settings.weights
    folders = weights.search_folders(how.folder, how.also)

    def find(name: str) -> Path:
        path = weights.require(
            name,
            folders,
            target=weights.target_folder(how.folder),
            offline=how.offline,
            on_progress=as_events(name, on_event),
            hashes=hashes,
        )
        notice = weights.licence_notice(name, folders)
        if notice is not None:
            notify(on_event, notice)
        return path

    return find

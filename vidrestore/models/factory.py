"""What the settings name, opened: detector, recogniser and restorer, with the weights they need."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch

from vidrestore.common.checksums import FileHashes
from vidrestore.common.errors import ConfigError, UsageError, WeightsError, unknown_name
from vidrestore.common.events import OnEvent, notify
from vidrestore.common.files import check_readable_kind
from vidrestore.common.settings import RESTORERS, Detect, Restore, Settings
from vidrestore.imaging.frame import FloatArray
from vidrestore.models import weights
from vidrestore.models.detectors import Detector
from vidrestore.models.devices import choose_device, has_room, what_fits
from vidrestore.models.download import as_events
from vidrestore.models.face_parser import Parser
from vidrestore.models.onnx_session import can_use_cuda
from vidrestore.models.recognizer import Recognizer, embedding_of_photo, find_recognizer
from vidrestore.models.restorers import FILES, Restorer, Schedule, adaptive

_CPU = torch.device("cpu")


def open_detector(
    how: Detect,
    *,
    find_weights: Callable[[str], Path],
    threads: int | None = None,
    device: torch.device = _CPU,
) -> Detector:
    """Open a detector.

    Args:
        how: Which, and with which thresholds.
        find_weights: Leads from the name of weights to their file or folder.
        threads: Threads that one look may take, where the detector lets that be chosen; default:
            one for each core that may be used.
        device: Where it runs, where the detector lets that be chosen; default: the processor.

    Returns:
        The detector.

    Raises:
        WeightsError: Its file is missing or damaged.
    """
    if how.detector == "insightface":
        from vidrestore.models.detectors.insightface import InsightFace

        pack_folder = find_weights(how.pack)
        return InsightFace(
            pack_folder, size_px=how.size_px, score=how.score, threads=threads, device=device
        )
    if how.detector == "yunet":
        from vidrestore.models.detectors.yunet import YuNet

        return YuNet(find_weights("yunet"), score=how.yunet_score)
    from vidrestore.models.detectors.haar import Haar

    return Haar(neighbors=how.haar_neighbors)


_log = logging.getLogger("vidrestore")


def chosen_detector(
    settings: Settings,
    on_event: OnEvent | None,
    *,
    threads: int | None = None,
    hashes: FileHashes | None = None,
) -> Detector:
    """Open the detector that the settings name, its weights fetched where they are missing."""
    return open_detector(
        settings.detect,
        threads=threads,
        device=_device_for_looking(settings),
        find_weights=weight_finder(settings, on_event, hashes),
    )


def _device_for_looking(settings: Settings) -> torch.device:
    if settings.detect.detector == "insightface" and can_use_cuda():
        return choose_device(settings.restore)
    return torch.device("cpu")


def chosen_recognizer(
    settings: Settings, on_event: OnEvent | None, hashes: FileHashes | None = None
) -> Recognizer | None:
    """That of the InsightFace pack, whichever detector is used; None where there is none.

    Nothing is fetched for it; that it is broken is said.
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
    """Where the pack is whose recogniser would be used."""
    how = settings.weights
    try:
        return weights.find(settings.detect.pack, weights.search_folders(how.folder, how.also))
    except ConfigError as error:  # neither in the table of weights nor in a folder
        _log.debug("no recognizer is used: %s", error)
        return None


def reference_embedding(photo: Path, settings: Settings, on_event: OnEvent | None) -> FloatArray:
    """Of the one face in a photo; UsageError where there is no recogniser to tell it by."""
    hashes = FileHashes()
    detector = chosen_detector(settings, on_event, hashes=hashes)
    recognizer = chosen_recognizer(settings, on_event, hashes)
    if recognizer is None:
        raise UsageError(
            f"a reference photo needs the recogniser of an InsightFace pack, and the pack "
            f"{settings.detect.pack} is not here or has none; choose by --people instead"
        )
    return embedding_of_photo(photo, detector, recognizer)


def open_restorer(
    name: str,
    how: Restore,
    *,
    device: torch.device,
    cache_folder: Path,
    find_weights: Callable[[str], Path],
    on_notice: Callable[[str], None] = lambda message: None,
    hashes: FileHashes | None = None,
) -> Restorer:
    """Open a restorer by its name, or the network in a file.

    Args:
        name: One of `RESTORERS` but gpen-auto, or the path of a file of weights.
        how: Number format, engine and the options of single restorers; its own `restorer` does
            not count.
        device: Where it runs.
        cache_folder: Where compiled networks are kept.
        find_weights: Leads from the name of weights to their file.
        on_notice: Receives notices for the user, in sentences; default: none are sent.
        hashes: The hashes of files that the run has read already; default: none.

    Returns:
        The restorer.

    Raises:
        ConfigError: There is no such restorer.
        WeightsError: The file is missing, damaged or of another kind.
    """
    if name == "fusion":
        from vidrestore.models.restorers.fusion import Fusion

        return Fusion(sharpness=how.fusion_sharpness)
    if name in RESTORERS and name != "gpen-auto":
        path, expected_size = find_weights(name), int(name.removeprefix("gpen-"))
    elif Path(name).suffix.lower() in FILES:
        path, expected_size = Path(name), None
        check_readable_kind(path, "the weight file", WeightsError)
        if not path.is_file():
            raise WeightsError(f"the weight file {path} does not exist")
    else:
        known = unknown_name("restorer", name, RESTORERS)
        raise ConfigError(f"{known}; or a {', '.join(FILES)} file")

    from vidrestore.models.restorers.gpen import Gpen

    def gpen() -> Gpen:
        return Gpen(
            path,
            expected_size=expected_size,
            device=device,
            number_format=how.number_format,
            engine=how.engine,
            cache_folder=cache_folder,
            on_notice=on_notice,
            hashes=hashes,
        )

    if path.suffix.lower() != ".onnx":
        return gpen()
    return _from_onnx(path, expected_size, gpen, device, how.codeformer_fidelity, on_notice, hashes)


def _from_onnx(
    path: Path,
    expected_size: int | None,
    gpen: Callable[[], Restorer],
    device: torch.device,
    codeformer_fidelity: float,
    on_notice: Callable[[str], None],
    hashes: FileHashes | None,
) -> Restorer:
    """The exact network where the file holds its weights unchanged, else onnxruntime."""
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
        fidelity=codeformer_fidelity,
        template=known_template,
        on_notice=on_notice,
        hashes=hashes,
    )
    if expected_size not in (None, restorer.size):
        raise WeightsError(
            f"{path} holds a network for {restorer.size} px where one for {expected_size} px is "
            "wanted"
        )
    return restorer


def chosen_restorer(
    settings: Settings, on_event: OnEvent | None, hashes: FileHashes | None = None
) -> Restorer:
    """The restorer that the settings name, its weights fetched where they are missing.

    Of gpen-auto, no network is opened before a face needs it. `hashes` are those of files that the
    run has read already.
    """
    how, hashes = settings.restore, hashes or FileHashes()
    find_weights = weight_finder(settings, on_event, hashes)

    def say(message: str) -> None:
        notify(on_event, message)

    device = choose_device(how, say)

    def opened(name: str) -> Restorer:
        if Path(name).suffix.lower() in FILES and Path(name).is_file():
            weights.sha256_of_own(Path(name), hashes)
        try:
            return open_restorer(
                name,
                how,
                device=device,
                cache_folder=weights.user_cache() / "openvino",
                find_weights=find_weights,
                on_notice=say,
                hashes=hashes,
            )
        except MemoryError as error:
            raise WeightsError(
                f"{name} does not fit into the memory of the device; use {what_fits(how, device)}"
            ) from error

    if how.restorer != adaptive.NAME:
        return opened(how.restorer)
    from vidrestore.models.restorers.gpen import run_as

    return adaptive.AdaptiveGpen(
        opened,
        find_weights=find_weights,
        is_to_be_had=lambda name: _is_to_be_had(name, settings),
        has_room=lambda name: has_room(name, how, device),
        on_notice=say,
        run_as=run_as(device, how.number_format, how.engine),
        is_cheap=device.type != "cpu",
        hashes=hashes,
    )


def chosen_parser(settings: Settings) -> Parser | None:
    """The face parser that the settings name, told from others by the content of its file."""
    path = settings.paste.parser
    if path is None:
        return None
    check_readable_kind(path, "the face parser", WeightsError)
    if not path.is_file():
        raise WeightsError(f"the face parser {path} does not exist; set paste.parser to its file")
    return Parser(path, device=choose_device(settings.restore), name=weights.sha256_of_own(path))


def weights_needed(settings: Settings, sides_px: Iterable[int]) -> list[str]:
    """Names of the weights that the settings' restorer needs for crops of these sides."""
    name = settings.restore.restorer
    if name == adaptive.NAME:
        device = choose_device(settings.restore)
        chosen = (
            adaptive.tier_for(
                side,
                lambda each: _is_to_be_had(each, settings),
                lambda each: has_room(each, settings.restore, device),
            )
            for side in sorted(sides_px)
        )
        return list(dict.fromkeys(chosen))
    return [name] if name in weights.load_table() else []


def _is_to_be_had(name: str, settings: Settings) -> bool:
    """Its file is here, or there is an address from which it may be fetched."""
    how = settings.weights
    if weights.find(name, weights.search_folders(how.folder, how.also)) is not None:
        return True
    return not how.offline and bool(weights.load_table()[name].urls)


def chosen_restorers(
    names: Sequence[tuple[int, str | None]],
    usual: Restorer,
    settings: Settings,
    on_event: OnEvent | None,
    hashes: FileHashes | None = None,
) -> Schedule:
    """The restorers of stretches of frames, each opened once; None stands for the usual one.

    UsageError where they want their crops framed differently.
    """
    opened: dict[str | None, Restorer] = {None: usual}
    for _, name in names:
        if name not in opened:
            how = settings.restore.model_copy(update={"restorer": name})
            other = chosen_restorer(settings.model_copy(update={"restore": how}), on_event, hashes)
            if other.template != settings.align.template:
                raise UsageError(
                    f"{usual.name} wants the template {settings.align.template} and {other.name} "
                    f"wants {other.template}; one run cannot mix them, run them one by one"
                )
            opened[name] = other
    return [(first, opened[name]) for first, name in names]


def weight_finder(
    settings: Settings, on_event: OnEvent | None, hashes: FileHashes | None = None
) -> Callable[[str], Path]:
    """Leads from a weight's name to its file, fetched where it is missing and may be."""
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

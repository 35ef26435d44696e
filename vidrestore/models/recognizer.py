"""Face recognition with the recognition network of an InsightFace pack, in few of the frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from vidrestore.common.counting import counted
from vidrestore.common.errors import InputError, UsageError, WeightsError, system_reason
from vidrestore.common.files import check_readable_kind
from vidrestore.imaging.frame import FloatArray
from vidrestore.imaging.geometry import fit_similarity, overlaps, template
from vidrestore.models.detectors import Detection, Detector, look_from_afar, moved
from vidrestore.models.onnx_session import import_onnxruntime
from vidrestore.models.weight_file import count_outputs

_SIDE = 112
_FEWEST_NUMBERS, _MOST_NUMBERS = 128, 512
_OPEN = 0
# Nodes in which InsightFace searches for a normalization of the input in the graph itself.
_FIRST_NODES = 8
# Darker crops are brightened until their brightest pixels have this level, by at most this factor:
# networks that were trained on photographs see no features in the dark.
_BRIGHT, _MOST_GAIN = 220.0, 5.0
# Flat BGR crops, which show no face.
_FLAT_CROPS = ((128, 128, 128), (0, 0, 0), (100, 130, 180), (20, 25, 35))
# Cosine with the mean vector of flat crops. Clear faces reach 0.1 at most. From 0.3 on, faces are
# so blurred that those of different people resemble each other.
_MOST_FLATNESS = 0.3
_PHOTO_SEARCH_PX = 640
# How many times as tall as the others the face of the person in a photo must be.
_CLEARLY_LARGER = 1.5


class Recognition(Protocol):
    """The interface of a recognizer that `Embedder` needs."""

    def __call__(
        self, picture: npt.NDArray[np.uint8], faces: Sequence[Detection]
    ) -> list[FloatArray | None]:
        """Map faces to unit vectors, see `Recognizer`."""
        ...


class Recognizer:
    """Maps faces to unit vectors, whose cosines measure whether two faces are of one person.

    The method is that of ArcFace (Deng et al., CVPR 2019): the five landmarks are mapped to fixed
    places of a 112 x 112 crop, which a network maps to a vector. The network runs on the CPU.

    Args:
        model: The .onnx file.
        threads: Threads that one run of the network may use. Default 1.

    Raises:
        WeightsError: The file is damaged or does not hold such a network.
    """

    def __init__(self, model: Path, *, threads: int = 1) -> None:
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        options.log_severity_level = 3
        try:
            if not _is_recognizer(graph := _graph(model)):
                raise WeightsError("it does not map a face of 112 x 112 pixels to a vector")
            self._session = onnxruntime.InferenceSession(
                str(model), options, providers=["CPUExecutionProvider"]
            )
            self._input = self._session.get_inputs()[0]
            self._mean, self._scale = (0.0, 1.0) if _normalizes(graph) else (127.5, 1 / 127.5)
            flat = np.array(_FLAT_CROPS, np.float32)[:, None, None]
            vectors = _unit(self._run(np.broadcast_to(flat, (len(_FLAT_CROPS), _SIDE, _SIDE, 3))))
        except Exception as error:
            raise WeightsError(
                f"the recognition model {model} cannot be used ({error or type(error).__name__}); "
                "fetch its pack again"
            ) from error
        self._flat_vector = _unit(vectors.mean(axis=0))
        self.name = f"{model.parent.name}/{model.name}"

    @property
    def dimension(self) -> int:
        """Length d of the vectors."""
        return len(self._flat_vector)

    def __call__(
        self, picture: npt.NDArray[np.uint8], faces: Sequence[Detection]
    ) -> list[FloatArray | None]:
        """Map faces to unit vectors.

        Args:
            picture: (H, W, 3) uint8 BGR.
            faces: Faces, with landmarks in pixels of the picture.

        Returns:
            For each face a vector (d,) float32 of unit length; None where the face is too blurred
            to tell it from the faces of other people.
        """
        if not faces:
            return []
        crops = np.stack([_brightened(_aligned(picture, face.landmarks)) for face in faces])
        vectors = _unit(self._run(crops))
        return [None if v @ self._flat_vector >= _MOST_FLATNESS else v for v in vectors]

    def _run(self, crops: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Map crops (n, 112, 112, 3) float32 BGR in [0, 255] to vectors (n, d)."""
        rgb = np.ascontiguousarray(crops[..., ::-1].transpose(0, 3, 1, 2))
        blob = (rgb - np.float32(self._mean)) * np.float32(self._scale)
        step = 1 if self._input.shape[0] == 1 else len(blob)
        parts = [
            self._session.run(None, {self._input.name: blob[i : i + step]})[0]
            for i in range(0, len(blob), step)
        ]
        return np.concatenate(parts).astype(np.float32)


def find_recognizer(pack_folder: Path) -> Path | None:
    """Find the recognition network of an InsightFace pack by the shapes of its input and output.

    Args:
        pack_folder: Folder of the pack.

    Returns:
        The .onnx file; None where the pack has none.

    Raises:
        WeightsError: A file of the pack is damaged.
    """
    for file in sorted(pack_folder.glob("*.onnx")):
        if count_outputs(file) == 1 and _is_recognizer(_graph(file)):
            return file
    return None


def embedding_of_photo(
    path: Path,
    detector: Detector,
    recognizer: Recognition,
    on_notice: Callable[[str], None] = lambda message: None,
) -> FloatArray:
    """Compute the embedding of the face that a photo shows.

    Of several faces the function takes the largest, if it is at least 1.5 times as tall as the
    second, and tells that it ignored the others.

    Args:
        path: The photo.
        detector: Finds the face.
        recognizer: Maps the face to its vector.
        on_notice: Receives the notice about other faces, one sentence. Default: it is dropped.

    Returns:
        (d,) float32 of unit length.

    Raises:
        InputError: The file cannot be read as a picture.
        UsageError: The photo shows no face, or several of which none is clearly the largest, or the
            face is too blurred.
    """
    picture = _read_photo(path)
    faces = sorted(_faces_of_photo(picture, detector), key=_height_px, reverse=True)
    if not faces:
        raise UsageError(
            f"no face was found in the reference photo {path}; take one that shows it clearly"
        )
    if len(faces) > 1:
        if _height_px(faces[0]) < _CLEARLY_LARGER * _height_px(faces[1]):
            raise UsageError(
                f"{len(faces)} faces were found in the reference photo {path}, and the largest is "
                f"not {_CLEARLY_LARGER} times as tall as the next one; crop it to the face that "
                "you mean"
            )
        others = counted(len(faces) - 1, "smaller face")
        on_notice(
            f"the largest face in the reference photo {path} is taken, and {others} in it ignored"
        )
    (embedding,) = recognizer(picture, faces[:1])
    if embedding is None:
        raise UsageError(
            f"the face in the reference photo {path} is too small or too blurred to recognize "
            "the person in the video; take a sharper photo"
        )
    return embedding


@dataclass(frozen=True, slots=True)
class _RecognizedFace:
    """A face of the frame before, and when the network last recognized it."""

    box: FloatArray
    seconds: float
    times: int


class Embedder:
    """Adds embeddings to some of the detections of successive frames.

    The network recognizes a face at once where the frame before has no sure predecessor of it, or
    where the picture changed as at a cut. It recognizes the face again soon after, then every
    `every_seconds`, and more often while its box overlaps another.

    Args:
        recognizer: Maps faces to vectors.
        every_seconds: Usual time between two recognitions of a face, in seconds.
    """

    # Share of `every_seconds` between the first recognitions, and while two boxes overlap.
    _EARLY, _TOUCHING = 0.25, 0.15
    _EARLY_TIMES = 3
    _SURE_OVERLAP, _OTHER_OVERLAP = 0.4, 0.1
    # Mean change of the reduced picture, in 8-bit levels, from which it may be a cut.
    _CHANGE = 8.0

    def __init__(self, recognizer: Recognition, *, every_seconds: float) -> None:
        self._recognizer = recognizer
        self._every_seconds = every_seconds
        self._before: list[_RecognizedFace] = []
        self._small: npt.NDArray[Any] | None = None

    def __call__(
        self, picture: npt.NDArray[np.uint8], faces: Sequence[Detection], seconds: float
    ) -> list[Detection]:
        """Add embeddings to the faces of a frame that are due.

        Args:
            picture: (H, W, 3) uint8 BGR.
            faces: All faces of the frame, in its pixels.
            seconds: Time of the frame in seconds, not before that of the last call.

        Returns:
            The faces in the same order, some with an embedding.
        """
        recognized = self._predecessors(picture, faces)
        touching = overlaps(_boxes(faces), _boxes(faces)) > 0
        np.fill_diagonal(touching, False)
        due = [
            i
            for i, before in enumerate(recognized)
            if before is None or self._is_due(before, seconds, touching=bool(touching[i].any()))
        ]
        result = list(faces)
        for i, vector in zip(
            due, self._recognizer(picture, [faces[i] for i in due]) if due else [], strict=True
        ):
            result[i] = replace(faces[i], embedding=vector)
            before = recognized[i]
            recognized[i] = _RecognizedFace(
                faces[i].box, seconds, before.times + 1 if before else 1
            )
        self._before = [
            replace(before, box=d.box)
            for d, before in zip(faces, recognized, strict=True)
            if before
        ]
        return result

    def _predecessors(
        self, picture: npt.NDArray[np.uint8], faces: Sequence[Detection]
    ) -> list[_RecognizedFace | None]:
        """Return for each face its predecessor in the frame before; None where it is not sure."""
        small = cv2.resize(picture, (32, 18), interpolation=cv2.INTER_AREA).astype(np.float32)
        before, self._small = self._small, small
        if before is None or not self._before or np.abs(small - before).mean() > self._CHANGE:
            return [None] * len(faces)
        shared = overlaps(_boxes(faces), _boxes(self._before))
        sure: list[_RecognizedFace | None] = []
        for row in shared:
            best = int(row.argmax())
            rivals = np.append(np.delete(row, best), np.sort(shared[:, best])[:-1])
            is_sure = row[best] >= self._SURE_OVERLAP and (rivals < self._OTHER_OVERLAP).all()
            sure.append(self._before[best] if is_sure else None)
        return sure

    def _is_due(self, before: _RecognizedFace, seconds: float, *, touching: bool) -> bool:
        share = self._EARLY if before.times < self._EARLY_TIMES else 1.0
        if touching:
            share = self._TOUCHING
        return seconds - before.seconds >= share * self._every_seconds


def _boxes(faces: Sequence[Detection | _RecognizedFace]) -> FloatArray:
    return np.array([face.box for face in faces], np.float32).reshape(-1, 4)


def _graph(path: Path) -> Any:
    """Read an ONNX graph; WeightsError where that fails."""
    import onnx

    try:
        return onnx.load(str(path), load_external_data=False).graph
    except Exception as error:
        raise WeightsError(f"{path} cannot be read as ONNX: {error}") from error


def _is_recognizer(graph: Any) -> bool:
    """Return whether a graph maps pictures of 112 x 112 pixels to vectors of 128 to 512 numbers."""
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [_shape(value) for value in graph.input if value.name not in weights]
    outputs = [_shape(value) for value in graph.output]
    return (
        len(inputs) == len(outputs) == 1
        and inputs[0][:1] in ([_OPEN], [1])
        and inputs[0][1:] == [3, _SIDE, _SIDE]
        and len(outputs[0]) == 2
        and (outputs[0][1] == _OPEN or _FEWEST_NUMBERS <= outputs[0][1] <= _MOST_NUMBERS)
    )


def _shape(value: Any) -> list[int]:
    """Return a value's shape, with `_OPEN` for dimensions that the file leaves open."""
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def _normalizes(graph: Any) -> bool:
    """Return whether the graph normalizes its input itself, as InsightFace's older exports do."""
    names = [node.name for node in graph.node[:_FIRST_NODES]]
    return any(n.startswith(("Sub", "_minus")) for n in names) and any(
        n.startswith(("Mul", "_mul")) for n in names
    )


def _aligned(picture: npt.NDArray[np.uint8], landmarks: FloatArray) -> npt.NDArray[np.float32]:
    """Cut out the crop (112, 112, 3) float32 that has the landmarks at ArcFace's places.

    Convention: picture -> crop, (x, y) order, pixel centers at integers, black beyond the border.
    """
    # The middle 112 pixels of GPEN's crop, which is 168 pixels wide at the same scale.
    target = template("gpen") * 168 - 28
    points = landmarks.astype(np.float64)
    matrix = fit_similarity(points[None], target)[0]
    scale = float(np.hypot(*matrix[:, 0]))
    if scale < 0.5:
        # Reduced by area first, since bilinear sampling alone would alias.
        small = cv2.resize(picture, None, fx=2 * scale, fy=2 * scale, interpolation=cv2.INTER_AREA)
        factor = np.array([small.shape[1] / picture.shape[1], small.shape[0] / picture.shape[0]])
        picture = np.asarray(small, np.uint8)
        matrix = fit_similarity(((points + 0.5) * factor - 0.5)[None], target)[0]
    crop = cv2.warpAffine(picture, matrix, (_SIDE, _SIDE), flags=cv2.INTER_LINEAR)
    return np.asarray(crop, np.float32)


def _brightened(crop: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return a dark crop brightened, and others unchanged."""
    brightest = max(float(np.percentile(crop.max(axis=-1), 98)), 1.0)
    gain = min(max(_BRIGHT / brightest, 1.0), _MOST_GAIN)
    return np.asarray(np.clip(crop * np.float32(gain), 0, 255))


def _unit(vectors: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Scale vectors, along the last axis, to unit length."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-9), np.float32)


def _read_photo(path: Path) -> npt.NDArray[np.uint8]:
    check_readable_kind(path, "the reference photo", InputError)
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise InputError(
            f"the reference photo {path} cannot be read: {system_reason(error)}"
        ) from error
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if picture is None:
        raise InputError(
            f"the reference photo {path} is not a picture that can be read; take a JPEG or PNG"
        )
    return np.asarray(picture, np.uint8)


def _height_px(face: Detection) -> float:
    return float(face.box[3] - face.box[1])


def _faces_of_photo(picture: npt.NDArray[np.uint8], detector: Detector) -> list[Detection]:
    """Return the faces in pixels of the picture; without any, search again for a large one."""
    scale = min(1.0, _PHOTO_SEARCH_PX / max(picture.shape[:2]))
    size = [max(1, round(side * scale)) for side in picture.shape[1::-1]]
    small = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    faces = detector(small) or look_from_afar(small, detector)
    larger = np.array([picture.shape[1] / size[0], picture.shape[0] / size[1]])
    matrix = np.column_stack([np.diag(larger), 0.5 * larger - 0.5])
    return [moved(face, matrix) for face in faces]

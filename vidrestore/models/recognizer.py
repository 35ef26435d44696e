"""Whose face it is: the recognition network of an InsightFace pack, used sparingly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

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
# Nodes that InsightFace looks at for a graph's own normalisation of its input.
_FIRST_NODES = 8
# A crop that is darker is lifted to this level at its brightest, by at most the factor: networks
# that were trained on photographs see no features in the dark.
_BRIGHT, _MOST_LIFT = 220.0, 5.0
# Flat BGR crops, which show nobody.
_NOBODY = ((128, 128, 128), (0, 0, 0), (100, 130, 180), (20, 25, 35))
# Cosine with what the network says of nobody. Clear faces measure 0.1 at most; from 0.3 on, faces
# are so blurred that those of different people resemble each other.
_LIKE_NOBODY = 0.3
_PHOTO_SEARCH_PX = 640


class Recognition(Protocol):
    """What `Embedder` needs of a recogniser."""

    def __call__(
        self, picture: npt.NDArray[np.uint8], faces: Sequence[Detection]
    ) -> list[FloatArray | None]: ...


class Recognizer:
    """Maps faces to unit vectors: the cosine of two says whether they are of one person.

    After ArcFace (Deng et al., CVPR 2019): the five landmarks are brought to fixed places of a
    112 x 112 crop, which a network maps to a vector. Raises WeightsError for a file that is broken
    or is no such network.
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
            self._mean, self._scale = (0.0, 1.0) if _normalises(graph) else (127.5, 1 / 127.5)
            flat = np.array(_NOBODY, np.float32)[:, None, None]
            nobody = _unit(self._run(np.broadcast_to(flat, (len(_NOBODY), _SIDE, _SIDE, 3))))
        except Exception as error:
            raise WeightsError(
                f"the recognition model {model} cannot be used ({error or type(error).__name__}); "
                "fetch its pack again"
            ) from error
        self._nobody = _unit(nobody.mean(axis=0))
        self.name = f"{model.parent.name}/{model.name}"

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return len(self._nobody)

    def __call__(
        self, picture: npt.NDArray[np.uint8], faces: Sequence[Detection]
    ) -> list[FloatArray | None]:
        """(H, W, 3) uint8 BGR and faces in its pixels -> (d,) float32 of unit length for each.

        None where a face is too blurred to tell it from another.
        """
        if not faces:
            return []
        crops = np.stack([_lifted(_aligned(picture, face.landmarks)) for face in faces])
        vectors = _unit(self._run(crops))
        return [None if v @ self._nobody >= _LIKE_NOBODY else v for v in vectors]

    def _run(self, crops: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(n, 112, 112, 3) float32 BGR -> (n, d); one by one where the batch size is fixed."""
        rgb = np.ascontiguousarray(crops[..., ::-1].transpose(0, 3, 1, 2))
        blob = (rgb - np.float32(self._mean)) * np.float32(self._scale)
        step = 1 if self._input.shape[0] == 1 else len(blob)
        parts = [
            self._session.run(None, {self._input.name: blob[i : i + step]})[0]
            for i in range(0, len(blob), step)
        ]
        return np.concatenate(parts).astype(np.float32)


def find_recognizer(pack_folder: Path) -> Path | None:
    """The recognition model of an InsightFace pack, told by its shapes; None where it has none.

    Raises WeightsError for a file that is not whole.
    """
    for file in sorted(pack_folder.glob("*.onnx")):
        if count_outputs(file) == 1 and _is_recognizer(_graph(file)):
            return file
    return None


def embedding_of_photo(path: Path, detector: Detector, recognizer: Recognition) -> FloatArray:
    """The embedding of the one face that a photo shows.

    Raises InputError where the file is no picture, UsageError unless exactly one face is found.
    """
    picture = _read_photo(path)
    found = _faces_of_photo(picture, detector)
    if len(found) != 1:
        count = f"{len(found)} faces were" if found else "no face was"
        remedy = (
            "cut it down to the one that is meant" if found else "take one that shows it clearly"
        )
        raise UsageError(
            f"{count} found in the reference photo {path}, which must show exactly one; {remedy}"
        )
    (embedding,) = recognizer(picture, found)
    if embedding is None:
        raise UsageError(
            f"the face in the reference photo {path} is too small or too blurred to recognise "
            "anybody by; take a sharper one"
        )
    return embedding


@dataclass(frozen=True, slots=True)
class _Seen:
    """A face of the frame before, and when it was last recognised."""

    box: FloatArray
    seconds: float
    times: int


class Embedder:
    """Adds embeddings to the detections of successive frames, to few of them.

    A face is recognised when it has no sure predecessor in the frame before or the picture changed
    at once, soon after that, then every `every_seconds`, and often while its box touches another.
    """

    # Of `every_seconds`: between the first few times, and while two faces touch.
    _EARLY, _TOUCHING = 0.25, 0.15
    _EARLY_TIMES = 3
    _SURE_OVERLAP, _OTHER_OVERLAP = 0.4, 0.1
    # Mean change of a small picture, in 8-bit levels, that may be a cut.
    _CHANGE = 8.0

    def __init__(self, recognizer: Recognition, *, every_seconds: float) -> None:
        self._recognizer = recognizer
        self._every_seconds = every_seconds
        self._seen: list[_Seen] = []
        self._small: npt.NDArray[Any] | None = None

    def __call__(
        self, picture: npt.NDArray[np.uint8], found: Sequence[Detection], seconds: float
    ) -> list[Detection]:
        """The detections in the order given, some with an embedding; `seconds` is the frame's."""
        seen = self._predecessors(picture, found)
        touching = overlaps(_boxes(found), _boxes(found)) > 0
        np.fill_diagonal(touching, False)
        due = [
            i
            for i, before in enumerate(seen)
            if before is None or self._is_due(before, seconds, touching=bool(touching[i].any()))
        ]
        result = list(found)
        for i, vector in zip(
            due, self._recognizer(picture, [found[i] for i in due]) if due else [], strict=True
        ):
            result[i] = replace(found[i], embedding=vector)
            before = seen[i]
            seen[i] = _Seen(found[i].box, seconds, before.times + 1 if before else 1)
        self._seen = [
            replace(before, box=d.box) for d, before in zip(found, seen, strict=True) if before
        ]
        return result

    def _predecessors(
        self, picture: npt.NDArray[np.uint8], found: Sequence[Detection]
    ) -> list[_Seen | None]:
        """For each face the one that it surely was in the frame before."""
        small = cv2.resize(picture, (32, 18), interpolation=cv2.INTER_AREA).astype(np.float32)
        before, self._small = self._small, small
        if before is None or not self._seen or np.abs(small - before).mean() > self._CHANGE:
            return [None] * len(found)
        shared = overlaps(_boxes(found), _boxes(self._seen))
        sure: list[_Seen | None] = []
        for row in shared:
            best = int(row.argmax())
            rivals = np.append(np.delete(row, best), np.sort(shared[:, best])[:-1])
            is_sure = row[best] >= self._SURE_OVERLAP and (rivals < self._OTHER_OVERLAP).all()
            sure.append(self._seen[best] if is_sure else None)
        return sure

    def _is_due(self, before: _Seen, seconds: float, *, touching: bool) -> bool:
        share = self._EARLY if before.times < self._EARLY_TIMES else 1.0
        if touching:
            share = self._TOUCHING
        return seconds - before.seconds >= share * self._every_seconds


def _boxes(faces: Sequence[Detection | _Seen]) -> FloatArray:
    return np.array([face.box for face in faces], np.float32).reshape(-1, 4)


def _graph(path: Path) -> Any:
    import onnx

    try:
        return onnx.load(str(path), load_external_data=False).graph
    except Exception as error:
        raise WeightsError(f"{path} cannot be read as ONNX: {error}") from error


def _is_recognizer(graph: Any) -> bool:
    """Square pictures of 112 pixels in, as many vectors of 128 to 512 numbers out."""
    weights = {tensor.name for tensor in graph.initializer}
    given = [_shape(value) for value in graph.input if value.name not in weights]
    made = [_shape(value) for value in graph.output]
    return (
        len(given) == len(made) == 1
        and given[0][:1] in ([_OPEN], [1])
        and given[0][1:] == [3, _SIDE, _SIDE]
        and len(made[0]) == 2
        and (made[0][1] == _OPEN or _FEWEST_NUMBERS <= made[0][1] <= _MOST_NUMBERS)
    )


def _shape(value: Any) -> list[int]:
    """`_OPEN` for a dimension that the file leaves open."""
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def _normalises(graph: Any) -> bool:
    """Whether the graph takes pixels as they are, as InsightFace's older exports do."""
    names = [node.name for node in graph.node[:_FIRST_NODES]]
    return any(n.startswith(("Sub", "_minus")) for n in names) and any(
        n.startswith(("Mul", "_mul")) for n in names
    )


def _aligned(picture: npt.NDArray[np.uint8], landmarks: FloatArray) -> npt.NDArray[np.float32]:
    """(112, 112, 3) float32 with the landmarks where ArcFace has them; black beyond the picture."""
    # Of GPEN's crop, which is 168 of the same units wide, the middle 112.
    target = template("gpen") * 168 - 28
    points = landmarks.astype(np.float64)
    matrix = fit_similarity(points[None], target)[0]
    scale = float(np.hypot(*matrix[:, 0]))
    if scale < 0.5:
        # Bilinear sampling alone would alias.
        small = cv2.resize(picture, None, fx=2 * scale, fy=2 * scale, interpolation=cv2.INTER_AREA)
        factor = np.array([small.shape[1] / picture.shape[1], small.shape[0] / picture.shape[0]])
        picture = np.asarray(small, np.uint8)
        matrix = fit_similarity(((points + 0.5) * factor - 0.5)[None], target)[0]
    crop = cv2.warpAffine(picture, matrix, (_SIDE, _SIDE), flags=cv2.INTER_LINEAR)
    return np.asarray(crop, np.float32)


def _lifted(crop: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    brightest = max(float(np.percentile(crop.max(axis=-1), 98)), 1.0)
    lift = min(max(_BRIGHT / brightest, 1.0), _MOST_LIFT)
    return np.asarray(np.clip(crop * np.float32(lift), 0, 255))


def _unit(vectors: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
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
        raise InputError(f"the reference photo {path} is not a picture that can be read")
    return np.asarray(picture, np.uint8)


def _faces_of_photo(picture: npt.NDArray[np.uint8], detector: Detector) -> list[Detection]:
    """Faces in pixels of the picture; where there is none, a second look sees a large one."""
    scale = min(1.0, _PHOTO_SEARCH_PX / max(picture.shape[:2]))
    size = [max(1, round(side * scale)) for side in picture.shape[1::-1]]
    small = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    found = detector(small) or look_from_afar(small, detector)
    larger = np.array([picture.shape[1] / size[0], picture.shape[0] / size[1]])
    back = np.column_stack([np.diag(larger), 0.5 * larger - 0.5])
    return [moved(face, back) for face in found]

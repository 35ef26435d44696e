"""The face mesh: 468 points of one face in three dimensions, and whether a face is there at all.

The network is MediaPipe's face landmark model (Kartynnik et al., "Real-time Facial Surface Geometry
from Monocular Video on Mobile GPUs", 2019), which onnxruntime runs. It looks at a square around the
face in which the eyes are level; the mesh that it returns gives a better square. The square is
settled when its angle no longer changes.

Convention, everywhere: points are (x, y) in pixels of a picture, (0, 0) at the center of the
top-left pixel. z has the same unit and grows away from the camera. An angle of roll turns clockwise
in the picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vidrestore.common.checksums import FileHashes
from vidrestore.common.errors import WeightsError
from vidrestore.common.quoting import first_line
from vidrestore.imaging.frame import FloatArray, _check
from vidrestore.imaging.geometry import Matrix, apply, fit_similarity, invert, template
from vidrestore.models.onnx_session import processor_session
from vidrestore.models.tflite import onnx_of_tflite

POINTS = 468
"""The number of points of a mesh."""
NO_DOUBT_LOGIT = 20.0
"""From this logit on, the mesh has settled on a face at its angle. Clear faces lie between 15 and
50; where the mesh settled upside down it reaches 11, and where it settled askew, 16."""
UNLIKELY_LOGIT = -3.0
"""Below this logit, further rounds hardly find a face."""

INPUT_PX = 192
"""The side of the picture that the network looks at, in pixels."""
_OUTPUTS = ("conv2d_21", "conv2d_31")
# The side of the square over the longer side of the box of the points.
_MARGIN = 1.5
# The square has settled when its angle, and its center as a share of its side, change by less; a
# cold start takes up to this number of rounds.
_SETTLED_DEGREES, _SETTLED_SHARE, _MOST_ROUNDS = 0.3, 0.01, 12
# The side of the settled square over that of the crop with the template "gpen", on average.
_SIDE_OF_CROP = 0.87
# Angles from which the search begins again where the logit stays low.
_OTHER_STARTS_DEGREES = (45.0, -45.0, 90.0, -90.0, 180.0)
_ROUNDS_OF_A_TRIAL = 2
# The rounds of a cold start, so that it does not depend on where the detector saw the face: it may
# have seen an ear. Then the rounds of looks at several squares.
_FINE_ROUNDS, _ROUNDS_AROUND = 20, 5
# A face of the frame before is looked at again where the square changed by more, as multiples of
# `_SETTLED_DEGREES` and `_SETTLED_SHARE`; up to the second multiple, the looks are mixed, so that
# the result moves smoothly with the square of the frame before.
_LOOKS_OF_FOLLOWING, _LOOK_AGAIN = 3, (2.5, 3.5)
# A mesh that still changes then is settled finely if its logit is at least the first number: weak
# ones seldom settle. Settling ends where no face is seen after the second number of rounds.
_WORTH_SETTLING_LOGIT, _ROUNDS_BEFORE_GIVING_UP = 6.0, 3
# The squares that the network looks at lie on a grid: of degrees, of steps of the side per factor
# of 2, and of the center, as a share of the side that becomes a power of 2. Else the mesh would
# differ by pixels with how the face was found, since the network turns the least difference of its
# input into others. The grid looks alike in a picture that is turned by a right angle.
_GRID_DEGREES, _SIDES_PER_OCTAVE, _GRID_SHARE = 1.0, 32, 1 / 128
# Larger parts of the picture are reduced before they are turned, so that nothing aliases.
_LARGEST_STEP = 1.5

# The network sees dark faces worse: crops whose middle has a lower mean level are brightened, up to
# the factor. Of 14 faces, two dark ones near profile had logits of 3 without it and of 7 with it.
_LEAST_LEVEL, _MOST_BRIGHTENING, _FACE_PART = 110.0, 4.0, slice(30, 162)

# Numbers of points of the mesh. Left and right are those of the picture of an upright face.
LEFT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
RIGHT_EYE = (362, 382, 381, 380, 374, 373, 390, 249, 263, 466, 388, 387, 386, 385, 384, 398)
LEFT_BROW = (46, 53, 52, 65, 55, 107, 66, 105, 63, 70)
RIGHT_BROW = (276, 283, 282, 295, 285, 336, 296, 334, 293, 300)
LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
INNER_LIPS = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80,
              191)  # fmt: skip
OVAL = (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
        152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67,
        109)  # fmt: skip
# The points of the ridge of the nose and of its wings, and of the cheeks beside them.
NOSE = (168, 6, 195, 4, 48, 278)
CHEEKS = (50, 280, 205, 425, 117, 346, 187, 411)
# Every other point of the eyes, the lips and the brows.
SHAPE_POINTS = (*OVAL, *NOSE, *CHEEKS, *LEFT_EYE[::2], *RIGHT_EYE[::2], *LIPS[::2],
                *LEFT_BROW[::2], *RIGHT_BROW[::2])  # fmt: skip
"""The points of the mesh that pass one keeps: 86, which the mask needs."""
OUTLINE_POINTS = len(OVAL) + len(NOSE) + len(CHEEKS)
"""So many of `SHAPE_POINTS`, the first ones, are the outline, the nose and the cheeks; the others
are eyes, lips and brows."""
_LEFT_SIDE, _RIGHT_SIDE, _FOREHEAD, _CHIN, _NOSE_TIP = 234, 454, 10, 152, 1
_EYE_CORNERS, _MOUTH_CORNERS = ((33, 133), (362, 263)), (61, 291)
# Where these five points lie in GPEN's own results, from the template "gpen", in pixels at 512.
_OFFSETS_512 = np.array([[0, 5.0], [0, 5.0], [-1.6, 13.3], [1.0, 0], [1.0, 0]])


def places_in_shape(numbers: Sequence[int]) -> list[int]:
    """Return where a shape holds a feature, of which it has every second point.

    Args:
        numbers: The numbers of the feature's points in a mesh.

    Returns:
        The places in `SHAPE_POINTS`.
    """
    return [SHAPE_POINTS.index(number) for number in numbers[::2]]


@dataclass(frozen=True, slots=True, eq=False)
class Mesh:
    """The mesh of one face in one picture."""

    points: FloatArray
    """(468, 3) float32 x, y in pixels of the picture; z in the same unit, growing away from the
    camera."""
    logit: float
    """The network's logit that a face is there: positive for a face, and mostly above 15."""

    def __post_init__(self) -> None:
        _check("points", self.points, (POINTS, 3), np.float32)

    @property
    def is_face(self) -> bool:
        """Whether the network rather sees a face than none."""
        return self.logit > 0

    @property
    def roll_degrees(self) -> float:
        """The angle of the line of the eyes in the picture, in (-180, 180], clockwise."""
        (a, b), (c, d) = _EYE_CORNERS
        across = (self.points[c] + self.points[d]) - (self.points[a] + self.points[b])
        return math.degrees(math.atan2(across[1], across[0]))

    @property
    def yaw_degrees(self) -> float:
        """The turn of the head about its axis from chin to crown: positive where the nose points to
        the right side of the upright picture."""
        across = self.points[_RIGHT_SIDE] - self.points[_LEFT_SIDE]
        return float(np.degrees(np.arctan2(across[2], np.hypot(across[0], across[1]))))

    @property
    def pitch_degrees(self) -> float:
        """The nod of the head: positive where the face looks up."""
        down = self.points[_CHIN] - self.points[_FOREHEAD]
        return float(np.degrees(np.arctan2(-down[2], np.hypot(down[0], down[1]))))

    def landmarks(self) -> FloatArray:
        """Compute the five landmarks that align the face with the template "gpen".

        The means of the eye corners, the tip of the nose and the corners of the mouth are shifted,
        so that a similarity that fits the result to the template gives the crop of GPEN's authors.

        Returns:
            (5, 2) float32 x, y in pixels, in the order of `Detection.landmarks`.

        Convention:
            A similarity picture -> crop of 512 x 512 is fitted and inverted.
        """
        flat = self.points[:, :2].astype(np.float64)
        five = np.array(
            [
                *(flat[list(pair)].mean(axis=0) for pair in _EYE_CORNERS),
                flat[_NOSE_TIP],
                *flat[list(_MOUTH_CORNERS)],
            ]
        )
        to_crop = fit_similarity(five[None], template("gpen") * 512 + _OFFSETS_512)[0]
        shifted = apply(to_crop, five) - _OFFSETS_512
        return apply(invert(to_crop), shifted).astype(np.float32)

    def box(self) -> FloatArray:
        """Compute the box of the points.

        Returns:
            (4,) float32 x1, y1, x2, y2 in pixels.
        """
        flat = self.points[:, :2]
        return np.concatenate([flat.min(axis=0), flat.max(axis=0)])

    def shape(self) -> FaceShape:
        """Reduce the mesh to what the mask needs.

        Returns:
            The shape, in the crop of `landmarks`.

        Convention:
            A similarity picture -> unit crop is fitted to the template "gpen".
        """
        landmarks = self.landmarks().astype(np.float64)
        to_unit = fit_similarity(landmarks[None], template("gpen"))[0]
        flat = self.points[list(SHAPE_POINTS), :2].astype(np.float64)
        return FaceShape(
            apply(to_unit, flat).astype(np.float16),
            self.yaw_degrees,
            self.pitch_degrees,
            self.logit,
        )

    def moved(self, matrix: Matrix) -> Mesh:
        """Map the mesh to another picture.

        Args:
            matrix: (2, 3), whose linear part is a similarity, or close to one.

        Returns:
            The mesh, its depth scaled along.

        Convention:
            `matrix` maps pixel centers (x, y) of this picture -> pixel centers of the other one.
        """
        flat = apply(matrix, self.points[:, :2].astype(np.float64))
        scale = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
        points = np.column_stack([flat, self.points[:, 2] * scale])
        return Mesh(points.astype(np.float32), self.logit)


@dataclass(frozen=True, slots=True, eq=False)
class FaceShape:
    """The part of a mesh that is kept for each face: its outline and features, and its angles."""

    points: npt.NDArray[np.float16]
    """(86, 2) float16, the points `SHAPE_POINTS` of the mesh.

    Convention: (x, y) in the unit crop that the five landmarks of the face give with the template
    "gpen"; its outer edges lie at 0 and 1.
    """
    yaw_degrees: float
    """The yaw of the mesh: positive where the nose points to the right of the upright picture."""
    pitch_degrees: float
    """The pitch of the mesh: positive where the face looks up."""
    logit: float
    """The logit of the mesh."""

    def __post_init__(self) -> None:
        _check("points", self.points, (len(SHAPE_POINTS), 2), np.float16)


@dataclass(frozen=True, slots=True)
class Square:
    """A square of a picture that the network looks at."""

    center: tuple[float, float]
    """The center (x, y) in pixels of the picture."""
    side_px: float
    """The side in pixels of the picture."""
    degrees: float
    """The angle of its upper edge in the picture, clockwise."""

    @property
    def matrix(self) -> npt.NDArray[np.float64]:
        """The (2, 3) matrix to the network's picture.

        Convention:
            Pixel centers (x, y) of the picture -> pixel centers of the 192 x 192 picture.
        """
        scale, angle = INPUT_PX / self.side_px, math.radians(self.degrees)
        cos, sin = scale * math.cos(angle), scale * math.sin(angle)
        (x, y), middle = self.center, (INPUT_PX - 1) / 2
        return np.array(
            [[cos, sin, middle - cos * x - sin * y], [-sin, cos, middle + sin * x - cos * y]]
        )


def square_of_landmarks(landmarks: npt.NDArray[Any]) -> Square:
    """Return the square in which to look first for a face that a detector found.

    Args:
        landmarks: (5, 2) landmarks (x, y) in pixels, in the order of `Detection.landmarks`.

    Returns:
        The square that fits an average face whose landmarks these are, at the angle of its eyes.
    """
    unit = fit_similarity(np.asarray(landmarks, np.float64)[None], template("gpen"))[0]
    side = 1 / float(np.sqrt(abs(np.linalg.det(unit[:, :2]))))
    across = np.asarray(landmarks[1] - landmarks[0], np.float64)
    angle = float(np.degrees(np.arctan2(across[1], across[0])))
    center = apply(invert(unit), np.array([[0.5, 0.58]]))[0]
    return Square((float(center[0]), float(center[1])), _SIDE_OF_CROP * side, angle)


def square_of_mesh(mesh: Mesh) -> Square:
    """Return the square in which to look next: around the points, with level eyes.

    Args:
        mesh: The mesh of the face in this picture, or in the one before.

    Returns:
        The square, 1.5 times as large as the longer side of the box of the points.
    """
    degrees = mesh.roll_degrees
    angle = np.radians(degrees)
    right, down = (
        np.array([np.cos(angle), np.sin(angle)]),
        np.array([-np.sin(angle), np.cos(angle)]),
    )
    flat = mesh.points[:, :2].astype(np.float64)
    along = np.column_stack([flat @ right, flat @ down])
    low, high = along.min(axis=0), along.max(axis=0)
    center = (low + high) / 2 @ np.array([right, down])
    return Square(
        (float(center[0]), float(center[1])), _MARGIN * float((high - low).max()), degrees
    )


class FaceMesh:
    """The network that finds the mesh of a face. Only one thread may use an instance at a time."""

    def __init__(self, model: Path, hashes: FileHashes | None = None) -> None:
        """Open the network.

        Args:
            model: The .tflite file.
            hashes: Hashes of the files that this run has read already. Default: none.

        Raises:
            WeightsError: The file cannot be loaded as a face mesh.
        """
        try:
            self._session = processor_session(onnx_of_tflite(model.read_bytes()), threads=1)
            self._input = self._session.get_inputs()[0].name
            missing = {*_OUTPUTS} - {each.name for each in self._session.get_outputs()}
            if missing:
                raise ValueError(f"it has no output {min(missing)}")
        except Exception as error:  # neither onnx nor onnxruntime has a base class for its errors
            raise WeightsError(
                f"the file {model} cannot be loaded as a face mesh ({first_line(error)}); "
                "remove it, then "
                "run vidrestore weights fetch face-mesh, or work without it with "
                "--set detect.mesh=off"
            ) from error
        self.sha256 = (hashes or FileHashes()).sha256(model)
        """The SHA-256 of the file, on which all results depend."""

    def look(self, picture: npt.NDArray[np.uint8], square: Square) -> Mesh:
        """Run the network once.

        Args:
            picture: (H, W, 3) uint8, BGR, square pixels.
            square: Where to look.

        Returns:
            The mesh, whether or not there is a face.
        """
        square = _on_grid(square)
        crop = _cut(picture, square)
        scale = _brightening(crop) / 255
        blob = cv2.dnn.blobFromImage(crop, scale, (INPUT_PX, INPUT_PX), swapRB=True)
        if scale > 1 / 255:
            np.minimum(blob, 1, out=blob)
        values, logit = self._session.run(_OUTPUTS, {self._input: blob})
        points = np.asarray(values, np.float64).reshape(POINTS, 3)
        points[:, :2] = apply(invert(square.matrix), points[:, :2])
        points[:, 2] *= square.side_px / INPUT_PX
        return Mesh(points.astype(np.float32), float(logit.item()))

    def settle(
        self,
        picture: npt.NDArray[np.uint8],
        square: Square,
        most_rounds: int = _MOST_ROUNDS,
        *,
        first: Mesh | None = None,
    ) -> Mesh:
        """Run the network until the angle of the face stands still.

        Args:
            picture: (H, W, 3) uint8, BGR, square pixels.
            square: Where to begin.
            most_rounds: The largest number of runs; default: 12.
            first: The mesh of a look at `square`. Default: the first run is that look.

        Returns:
            The last mesh.
        """
        mesh = first or self.look(picture, square)
        for _ in range(most_rounds - 1):
            following = square_of_mesh(mesh)
            if mesh.logit < UNLIKELY_LOGIT or _change(square, following) < 1:
                break
            square = following
            mesh = self.look(picture, square)
        return mesh

    def hold(
        self,
        picture: npt.NDArray[np.uint8],
        square: Square,
        rounds: int,
        *,
        least_logit: float = UNLIKELY_LOGIT,
        first: Mesh | None = None,
    ) -> Mesh:
        """Run the network in squares of one size, each around the points that the one before gave.

        Near profile, most of all in the dark, each mesh may be smaller than the one before, until
        the network sees no face. The size of the first square keeps it from that.

        Args:
            picture: (H, W, 3) uint8, BGR, square pixels.
            square: Where to begin, and the size.
            rounds: The largest number of runs.
            least_logit: The logit below which there is no further run; default: -3.
            first: The mesh of a look at `square`. Default: the first run is that look.

        Returns:
            The last mesh.
        """
        mesh = first or self.look(picture, square)
        for _ in range(rounds - 1):
            if mesh.logit < least_logit:
                break
            square = replace(square_of_mesh(mesh), side_px=square.side_px)
            mesh = self.look(picture, square)
        return mesh

    def follow(self, picture: npt.NDArray[np.uint8], square: Square) -> Mesh:
        """Find the mesh of a face of the frame before.

        It goes on settling in the next frame, so one run is enough for a face that hardly moves.

        Args:
            picture: (H, W, 3) uint8, BGR, square pixels.
            square: The square of its mesh in the frame before.

        Returns:
            The mesh, whether or not the face is still there.
        """
        mesh = self.look(picture, square)
        low, high = _LOOK_AGAIN
        for _ in range(_LOOKS_OF_FOLLOWING - 1):
            following = square_of_mesh(mesh)
            share = (_change(square, following) - low) / (high - low)
            if share <= 0:
                break
            mesh = _mixed(mesh, self.look(picture, following), min(share, 1.0))
            if share < 1:
                break
            square = following
        else:  # as after a cut, or where a head turns very quickly
            following = square_of_mesh(mesh)
            if mesh.logit >= _WORTH_SETTLING_LOGIT and _change(square, following) > high:
                mesh = self._settle_finely(picture, following)
        return mesh

    def find(
        self, picture: npt.NDArray[np.uint8], square: Square, *, first: Mesh | None = None
    ) -> Mesh | None:
        """Find the mesh of a face that a detector claims to have seen.

        Where the network sees no face at the square's angle, it looks again at other angles.

        Args:
            picture: (H, W, 3) uint8, BGR, square pixels.
            square: Where the detector saw the face.
            first: The mesh of a look at `square`. Default: the first run is that look.

        Returns:
            The settled mesh; None where there is no face.
        """
        mesh = self.settle(picture, square, _ROUNDS_OF_A_TRIAL, first=first)
        if mesh.logit < NO_DOUBT_LOGIT:
            trials = [mesh]
            for turned in _OTHER_STARTS_DEGREES:
                start = Square(square.center, square.side_px, _turn(square.degrees + turned))
                trials.append(self.settle(picture, start, _ROUNDS_OF_A_TRIAL))
                if trials[-1].logit >= NO_DOUBT_LOGIT:
                    break
            mesh = max(trials, key=lambda each: each.logit)
            if mesh.logit < UNLIKELY_LOGIT:
                return None
        mesh = self._settle_finely(picture, square_of_mesh(mesh))
        return mesh if mesh.is_face else None

    def _settle_finely(self, picture: npt.NDArray[np.uint8], square: Square) -> Mesh:
        """Settle so precisely that the result hardly depends on where it began.

        One square of the grid may lead to itself or several alternate, and which ones depends on
        the beginning. Where the mean of looks at the squares around settles hardly does.
        """
        looked: dict[Square, Mesh] = {}
        while (place := _on_grid(square)) not in looked and len(looked) < _FINE_ROUNDS:
            looked[place] = mesh = self.look(picture, place)
            if len(looked) > _ROUNDS_BEFORE_GIVING_UP and not mesh.is_face:
                return mesh
            square = square_of_mesh(mesh)
        places = list(looked)
        first = places.index(place) if place in looked else len(places) // 2
        mesh = _mean([looked[each] for each in places[first:]])
        # Squares that lie around two middles, or on the way, are looked at once.
        middles: list[Square] = []
        while mesh.logit >= _WORTH_SETTLING_LOGIT and len(middles) < _ROUNDS_AROUND:
            middles.append(_on_grid(square_of_mesh(mesh)))
            if middles[-1] in middles[:-1]:
                break
            around = [_on_grid(each) for each in _around(middles[-1])]
            for each in around:
                if each not in looked:
                    looked[each] = self.look(picture, each)
            mesh = _mean([looked[each] for each in around])
        return mesh


def _turned_back(
    picture: npt.NDArray[np.uint8], square: Square, quarters: int
) -> tuple[npt.NDArray[np.uint8], Square]:
    """Return a view of a picture turned counterclockwise by right angles, and the square in it."""
    x, y = square.center
    height, width = picture.shape[:2]
    centers = {1: (y, width - 1 - x), 2: (width - 1 - x, height - 1 - y), 3: (height - 1 - y, x)}
    degrees = _turn(square.degrees - 90 * quarters)
    return np.rot90(picture, quarters), Square(centers[quarters], square.side_px, degrees)


def _change(square: Square, following: Square) -> float:
    """Return how far the square still changes; below 1 it has settled."""
    turned = abs(_turn(following.degrees - square.degrees)) / _SETTLED_DEGREES
    shift = float(np.hypot(*np.subtract(following.center, square.center))) / square.side_px
    return max(turned, shift / _SETTLED_SHARE)


def _around(square: Square) -> Iterator[Square]:
    """Yield a square, and those that lie a step of the grid away in one respect."""
    yield square
    (x, y), side, degrees = square.center, square.side_px, square.degrees
    for step in (-1, 1):
        shift = step * _GRID_SHARE * side
        yield Square((x + shift, y), side, degrees)
        yield Square((x, y + shift), side, degrees)
        yield Square((x, y), side * 2 ** (step / _SIDES_PER_OCTAVE), degrees)
        yield Square((x, y), side, _turn(degrees + step * _GRID_DEGREES))


def _mixed(mesh: Mesh, other: Mesh, share: float) -> Mesh:
    """Return a mesh that is this share of the way from one to another."""
    points = mesh.points + np.float32(share) * (other.points - mesh.points)
    return Mesh(points, mesh.logit + share * (other.logit - mesh.logit))


def _mean(meshes: Sequence[Mesh]) -> Mesh:
    points = np.mean([mesh.points for mesh in meshes], axis=0)
    return Mesh(np.asarray(points, np.float32), float(np.mean([mesh.logit for mesh in meshes])))


def _turn(degrees: float) -> float:
    """Return an angle in [-180, 180)."""
    return (degrees + 180) % 360 - 180


def _on_grid(square: Square) -> Square:
    """Return the nearest square of the grid."""
    size = math.log2(max(square.side_px, 1.0))
    step = 2.0 ** round(size + math.log2(_GRID_SHARE))
    # From the outer edges, so that the grid ends at both, where the step divides the length.
    x, y = (step * round((at + 0.5) / step) - 0.5 for at in square.center)
    side = 2 ** (round(size * _SIDES_PER_OCTAVE) / _SIDES_PER_OCTAVE)
    degrees = _GRID_DEGREES * round(square.degrees / _GRID_DEGREES)
    return Square((x, y), side, _turn(degrees))


def _brightening(crop: npt.NDArray[np.uint8]) -> float:
    """Return the factor by which the levels of a (192, 192, 3) crop are multiplied."""
    level = float(crop[_FACE_PART, _FACE_PART].mean())
    return min(max(_LEAST_LEVEL / max(level, 1.0), 1.0), _MOST_BRIGHTENING)


def _cut(picture: npt.NDArray[np.uint8], square: Square) -> npt.NDArray[np.uint8]:
    """Return the square as (192, 192, 3); black beyond the picture.

    The picture is first turned by the right angle that leaves the least turn, which is exact. So a
    head that lies in one picture gives the same pixels as upright in the turned picture.
    """
    if quarters := round(square.degrees / 90) % 4:
        picture, square = _turned_back(picture, square, quarters)
    matrix = square.matrix
    step = square.side_px / INPUT_PX
    if quarters or step > _LARGEST_STEP:
        half = 0.75 * square.side_px
        height, width = picture.shape[:2]
        x, y = square.center
        x0, x1 = (int(np.clip(v, 0, width)) for v in (x - half, x + half + 1))
        y0, y1 = (int(np.clip(v, 0, height)) for v in (y - half, y + half + 1))
        if x1 - x0 < 2 or y1 - y0 < 2:
            return np.zeros((INPUT_PX, INPUT_PX, 3), np.uint8)
        picture = np.ascontiguousarray(picture[y0:y1, x0:x1])
        sx = sy = 1.0
        if step > _LARGEST_STEP:
            size = (max(1, round((x1 - x0) / step)), max(1, round((y1 - y0) / step)))
            picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
            sx, sy = (x1 - x0) / size[0], (y1 - y0) / size[1]
        # Part -> picture, then picture -> square.
        back = np.array([[sx, 0, x0 + (sx - 1) / 2], [0, sy, y0 + (sy - 1) / 2]])
        linear = matrix[:, :2] @ back[:, :2]
        matrix = np.column_stack([linear, matrix[:, :2] @ back[:, 2] + matrix[:, 2]])
    crop = cv2.warpAffine(picture, matrix, (INPUT_PX, INPUT_PX), flags=cv2.INTER_LINEAR)
    return np.asarray(crop, np.uint8)

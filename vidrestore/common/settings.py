"""The settings, with their defaults and meanings. No other file states a default."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

Preset = Literal["ultrafast", "superfast", "veryfast", "faster", "fast",
                 "medium", "slow", "slower", "veryslow", "placebo"]  # fmt: skip
RESTORERS = ("gpen-2048", "gpen-1024", "gpen-512", "gpen-256", "gpen-auto", "fusion")


def _off_is_zero(value: object) -> object:
    """Convert "off" and false to 0."""
    return 0 if value == "off" or value is False else value


class Section(BaseModel):
    """The base of all sections of settings: frozen, without unknown names, infinity or NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _names_a_file(cls, value: object) -> object:
        """Raise ValueError for a text with NUL, which no name of a file can have."""
        for each in value if isinstance(value, list | tuple) else [value]:
            if isinstance(each, str | Path) and "\0" in str(each):
                raise ValueError("a text must not hold the character NUL")
        return value

    def as_text(self) -> str:
        """Return all values as JSON in ASCII, for keys; names of files may not be UTF-8."""
        return json.dumps(self.model_dump(mode="json"))


class Decode(Section):
    """Reading the source."""

    hardware: bool = False
    """Decode on a GPU in pass two. From the first frame that differs from that of pass one, the
    processor decodes."""
    input_curve: str = Field(
        "", pattern=r"^(|cineon|slog3|.+\.cube)$", description="cineon, slog3 or a .cube file"
    )
    """The transfer curve of the pictures, where the file does not name it; only detectors and
    networks use it."""
    fps: float | None = Field(None, ge=0.01, le=1000)
    """The frame rate of numbered pictures, to which all settings in seconds refer; none: 24."""


class Fields(Section):
    """Interlaced footage. vidrestore measures whether frames are interlaced and ignores the flags
    of the file."""

    deinterlace: Literal["keep", "bob", "frame", "film", "off"] = "keep"
    """keep: restore the faces in every field and weave the fields again; twice as many faces are
    restored, and everything else stays as it is. bob: make a frame of each field. frame: make one
    frame of each frame, from its earlier field. film: undo 3:2 pulldown, which gives four frames
    for each five. off: use the frames as they are, and do not measure."""


class Detect(Section):
    """Detection of faces, in the upright picture with square pixels."""

    detector: Literal["insightface", "yunet", "haar"] = "insightface"
    """insightface: SCRFD of the pack. yunet: a small network with a free license. haar: a cascade
    without landmarks, which vidrestore then guesses; it needs no file."""
    margins: bool = True
    """Measure black borders and the noise of head switching on tapes. vidrestore takes no face from
    them and covers the noise for the detector. The output has them as they are. Pictures are not
    measured."""
    pack: str = "buffalo_l"
    """The folder of an InsightFace pack in weights/insightface/models."""
    size_px: int = Field(640, ge=64, le=4096, multiple_of=32)
    """The longer side of the picture that the detector receives, in pixels."""
    score: float = Field(0.5, ge=0, le=1)
    """insightface: the least confidence of a face."""
    yunet_score: float = Field(0.7, ge=0, le=1)
    """yunet: the least confidence of a face."""
    haar_neighbors: int = Field(6, ge=1, le=1000)
    """haar: the least number of overlapping windows in which the cascade finds the face."""
    every: int = Field(1, ge=1, le=25)
    """Detect faces in each N-th frame. In the frames between, vidrestore follows them by their
    pixels."""
    again_seconds: float = Field(0.5, gt=0, le=3600)
    """The interval of a second detection for faces that are too large or too small for the first,
    in seconds."""
    threads: int | None = Field(None, ge=1, le=64)
    """The number of frames in which vidrestore detects faces at the same time; none: one for each
    core, at most four."""
    remember: bool = True
    """Keep analyses in the user cache, and use them for later runs with the same video and
    settings."""


class Shots(Section):
    """Cuts between shots."""

    cut: float = Field(12.0, gt=0, le=255)
    """The least mean change of a small gray picture at a cut, in 8-bit levels."""
    contrast: float = Field(3.0, gt=1, le=1000)
    """The least ratio of the change at a cut to the changes around it."""
    edl: Path | None = None
    """A CMX 3600 edit decision list, whose cuts vidrestore uses; none: vidrestore detects cuts."""


class Tracking(Section):
    """Tracking: joining the faces of successive frames."""

    overlap: float = Field(0.3, gt=0, le=1)
    """The least intersection over union of a face with the predicted box."""
    gap_seconds: float = Field(0.4, ge=0, le=60)
    """The longest gap in the detections that a track bridges, in seconds."""
    min_seconds: float = Field(0.2, ge=0, le=3600)
    """The shortest track, in seconds. vidrestore drops shorter ones as false detections, unless
    they last as long as their shot."""


class People(Section):
    """Recognition of people, where the InsightFace pack has a recognizer."""

    recognise: bool = True
    """Join the tracks of a person across shots."""
    every_seconds: float = Field(0.5, gt=0, le=3600)
    """The interval at which a clearly visible face is recognized, in seconds."""
    similarity: float = Field(0.45, gt=0, lt=1)
    """The least cosine of two embeddings of one person."""


class Align(Section):
    """Alignment: from landmarks to a steady crop."""

    template: Literal["auto", "gpen", "ffhq"] = "auto"
    """The places of the five landmarks in the crop: those of GPEN or those of FFHQ.

    auto: those that the restorer wants.
    """
    smoothness: float = Field(0.2, gt=0, le=1e6)
    """The weight of the third difference of the landmarks against their error, at 25 frames per
    second."""
    coarse_smoothness: float = Field(20.0, gt=0, le=1e6)
    """The value in place of `smoothness` where landmarks are guessed from a box."""
    motion_smoothness: float = Field(300.0, gt=0, le=1e6)
    """The stiffness of the path that remains of the landmarks after their measured motion is
    removed."""
    least_support: float = Field(0.3, ge=0, le=1)
    """The share of the tracked points that must agree on a motion, so that vidrestore uses it."""
    break_eyes: float = Field(0.5, gt=0, le=100)
    """The jump, in eye distances, at which a track ends if its pixels do not support the jump."""
    min_face_px: float = Field(12.0, ge=0, le=4096)
    """The distance of the eyes, in pixels, at which a face gets half the strength. Below 0.8 of it,
    the strength is 0."""
    fade_seconds: float = Field(0.2, ge=0, le=60)
    """The time in which the strength rises and falls where a track begins or ends inside a shot, in
    seconds."""


class Restore(Section):
    """The restorer, which is a network or the method fusion, and how it runs."""

    restorer: str = "gpen-2048"
    """gpen-2048, gpen-1024, gpen-512, gpen-256, fusion, or a .pth, .safetensors or .onnx file.

    gpen-auto: for each track, the smallest GPEN whose detail the size of the face can show."""
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|cuda(:[0-9]{1,3})?)$", description="auto, cpu, cuda or cuda:N"
    )
    """The device on which networks run; auto: a CUDA device that works, else the processor, with a
    notice."""
    batch_size: int | None = Field(None, ge=1, le=1024)
    """The number of faces that a network restores at once; none: up to 4 on a GPU, depending on its
    memory, and 1 on a CPU, where more only need memory."""
    max_vram_gb: float | None = Field(None, ge=0.1, le=10000)
    """The most memory of a GPU that torch uses in a process, in GB (10^9 bytes); none: all of
    it."""
    number_format: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """The number format of the network's convolutions; auto: the fastest that is safe on this
    machine."""
    engine: Literal["auto", "torch", "openvino"] = "auto"
    """The library that runs GPEN; auto: on a CPU OpenVINO, if it is installed and its result agrees
    with that of torch; else torch."""
    denoise: Annotated[float, BeforeValidator(_off_is_zero)] = Field(0.0, ge=0, le=1)
    """The share of a tape's noise that vidrestore removes from the input of a network, with the
    help of the frames around it. The output keeps its noise. 0 or off: none. fusion ignores this
    setting, since it removes noise itself."""
    codeformer_fidelity: float = Field(0.7, ge=0, le=1)
    """The second input of CodeFormer files: 0 invents more, 1 keeps more."""
    repeats: bool = True
    """Do not restore a face again if its pixels are identical to those of the frame before."""
    cache_crops: bool = False
    """Keep every restored crop in the folder next to the output, so that the settings of later
    stages can be changed without running the network again. A crop of W x W pixels takes 12 W^2
    bytes for each face and frame. The crops stay until the user deletes the folder."""
    max_waiting_frames: int = Field(16, ge=1, le=4096)
    """The most frames that wait while a batch fills."""
    fusion_sharpness: float = Field(0.5, ge=0, le=1)
    """fusion: the share of the back-projection step that reverses the blur of the method."""


class Deflicker(Section):
    """Reduction of flicker in restored faces, by comparison with the frames around them."""

    amount: Annotated[float, BeforeValidator(_off_is_zero)] = Field(1.0, ge=0, le=1)
    """The share of unsteady position and texture that is removed; 0 or off: none.

    It has no effect where every restorer uses several frames, as fusion does."""
    detail: float = Field(0.5, ge=0, le=1)
    """The share of the lost fine contrast that is restored."""


class Guard(Section):
    """Protection of likeness: where a restored face does not resemble its source, less of it is
    used, down to nothing."""

    identity: Annotated[float, BeforeValidator(_off_is_zero)] = Field(0.2, ge=0, le=0.8)
    """The least cosine between the embeddings of both faces, by the recognizer of `detect.pack`, if
    it has one and `people.recognise` is true. From 0.15 above this value on, all of the face is
    used. 0 or off: the recognizer is not used."""
    features: Annotated[float, BeforeValidator(_off_is_zero)] = Field(0.7, ge=0, le=0.95)
    """The least correlation of the eyes, the mouth and the face of both at low frequencies. From
    2/3 of the way between this value and 1 on, all of the face is used. 0 or off: not compared."""


class Regions(Section):
    """The share of the restored face in each region; `paste.strength` multiplies each."""

    eyes: float = Field(1.0, ge=0, le=1)
    """The share in the eyes."""
    brows: float = Field(1.0, ge=0, le=1)
    """The share in the brows."""
    mouth: float = Field(1.0, ge=0, le=1)
    """The share in the mouth."""
    skin: float = Field(1.0, ge=0, le=1)
    """The share in the rest of the face."""


class Paste(Section):
    """Pasting of the restored face into the picture."""

    strength: float = Field(1.0, ge=0, le=1)
    """The share of the restored face in the result; the rest is the source."""
    regions: Regions = Regions()
    detail: float = Field(1.0, ge=0, le=1)
    """The share of the restored fine detail in the result; the rest is the detail of the source."""
    occluders: bool = True
    """Keep the source where a hand, a microphone or glasses cover the face."""
    parser: Path | None = None
    """An ONNX face-parsing network with the 19 classes of CelebAMask-HQ, such as BiSeNet. Where it
    finds hair, hats, ears, necks and glasses, with what is visible through them, the source
    stays."""
    color: float = Field(1.0, ge=0, le=1)
    """The share by which broad colors are matched to those of the source; film without colors stays
    without colors."""
    sharpness: float = Field(1.0, ge=0, le=1)
    """The share of the source's motion blur that is applied to the restored face.

    The blur is measured along the motion of the face, against its edges across the motion. So a
    face that is soft for another reason, such as a tape, is not blurred further."""
    focus: float = Field(0.0, ge=0, le=1)
    """The share of the blur that limits the restored face to 1.2 times the sharpness of the source,
    on the face or around it.

    It is for film and camera originals, where soft parts are out of focus. It is not the default,
    since tapes and enlarged files are soft everywhere, and it would blur restored faces again."""


class Grain(Section):
    """Noise of the source that is added to the restored face."""

    match: float = Field(0.5, ge=0, le=1)
    """The share of the noise around a face that is added to the face; 0: no noise is added."""


class Scale(Section):
    """Enlargement of the picture, in square pixels; faces keep the detail of their crops."""

    factor: Literal[1, 2, 4] = 1
    """The factor for the width and the height."""
    upscaler: Path | None = None
    """An ONNX network of the kind of Real-ESRGAN for everything but the faces; none: Lanczos."""


class Layer(Section):
    """The layer (`--layer`): files with the restored faces alone, and a matte."""

    format: Literal["prores", "tiff"] = "prores"
    """prores: two .mov files in ProRes 4444 XQ, with ten bits, lossy. tiff: two pictures with
    sixteen bits for each frame, from which the output can be reproduced to one code value."""


class Encode(Section):
    """The new video stream."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    codec: Literal["auto", "h264", "hevc", "av1", "prores", "dnxhr", "ffv1"] = "auto"
    """auto: the codec of the source if it is in the list, else hevc. If that codec cannot hold the
    picture, vidrestore uses the next one that can, and sends a notice."""
    quality: str = Field(
        "high",
        pattern=r"^(archive|high|small|[0-9]{1,2})$",
        description="archive (lossless ffv1), high, small, or the codec's own number (0 is best)",
    )
    """archive: lossless. high: visually identical to the source. small: for sharing."""
    preset: Preset = "medium"
    """h264, hevc and av1: the effort of the encoder; slower presets make smaller files."""
    threads: int = Field(4, ge=1, le=128)
    """The number of threads of the encoder. It does not depend on the machine, because the output
    of x264 depends on it."""
    hardware: bool = False
    """Encode on a GPU, which is faster and makes larger files of the same quality."""
    pixel_format: str = "source"
    """The pixel format of the output, for a codec that cannot hold that of the source. Another
    format converts the whole picture."""
    provenance: bool = True
    """State in the tags of the output that faces were restored, and by which restorers."""
    check: bool = True
    """Read the finished file back, and compare its frames and times with those of the source."""


class Job(Section):
    """The division of a long video into segments, which an interrupted run does not lose."""

    segment_frames: int = Field(300, ge=48, le=1_000_000)
    """The most frames of a segment; a segment begins at a cut where that is possible."""
    queue_frames: int = Field(4, ge=1, le=64)
    """The number of frames by which a stage of pass two may run ahead of the next stage; more
    frames need more memory."""


class Weights(Section):
    """The files of the networks."""

    folder: Path | None = None
    """The folder of the weight files; none: VIDRESTORE_WEIGHTS, then ./weights, then the user
    cache."""
    also: tuple[Path, ...] = ()
    """More folders to search, such as the model folder of another program."""
    offline: bool = False
    """Never download a missing file."""


class Settings(Section):
    """All settings of a run, by section."""

    decode: Decode = Decode()
    fields: Fields = Fields()
    detect: Detect = Detect()
    shots: Shots = Shots()
    track: Tracking = Tracking()
    people: People = People()
    align: Align = Align()
    restore: Restore = Restore()
    deflicker: Deflicker = Deflicker()
    guard: Guard = Guard()
    paste: Paste = Paste()
    grain: Grain = Grain()
    scale: Scale = Scale()
    layer: Layer = Layer()
    encode: Encode = Encode()
    job: Job = Job()
    weights: Weights = Weights()

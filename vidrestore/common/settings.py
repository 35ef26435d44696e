"""Every setting, its default and its meaning. No other file states a default."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

Preset = Literal["ultrafast", "superfast", "veryfast", "faster", "fast",
                 "medium", "slow", "slower", "veryslow", "placebo"]  # fmt: skip
RESTORERS = ("gpen-2048", "gpen-1024", "gpen-512", "gpen-256", "gpen-auto", "fusion")


def _off_is_zero(value: object) -> object:
    return 0 if value == "off" or value is False else value


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _names_a_file(cls, value: object) -> object:
        """The one character that no name of a file can have, and no other text needs."""
        for each in value if isinstance(value, list | tuple) else [value]:
            if isinstance(each, str | Path) and "\0" in str(each):
                raise ValueError("a text must not hold the character NUL")
        return value

    def as_text(self) -> str:
        """All values in ASCII, for keys: names of files may hold bytes that are no UTF-8."""
        return json.dumps(self.model_dump(mode="json"))


class Decode(Section):
    """Reading the source."""

    hardware: bool = False
    """Pass two decodes on a GPU; from a frame that is not that of pass one, the processor does."""
    input_curve: str = Field(
        "", pattern=r"^(|cineon|slog3|.+\.cube)$", description="cineon, slog3 or a .cube file"
    )
    """How the pictures code light, where the file does not say: for detectors and networks only."""
    fps: float | None = Field(None, ge=0.01, le=1000)
    """Of numbered pictures, by which all that is set in seconds goes; None: 24."""


class Fields(Section):
    """Interlaced footage, which is measured, whatever the file says."""

    deinterlace: Literal["keep", "bob", "frame", "film", "off"] = "keep"
    """keep: restore the picture of every field and weave them again: twice the faces, and all else
    stays as it is. bob: a frame for each field. frame: one for each frame, from its earlier field.
    film: the film that 3:2 pulldown spread over them, four pictures from each five frames.
    off: take frames as they are, and do not measure."""


class Detect(Section):
    """Finding faces in the upright, square-pixel picture."""

    detector: Literal["insightface", "yunet", "haar"] = "insightface"
    """insightface: SCRFD of the pack; yunet: small and free; haar: guesses, and needs no file."""
    margins: bool = True
    """Measure black borders and the noise of a tape's head switching: no face is taken from them,
    and the noise is covered for the detector. The output has them as they are. Not of pictures."""
    pack: str = "buffalo_l"
    """Folder of an InsightFace pack under weights/insightface/models."""
    size_px: int = Field(640, ge=64, le=4096, multiple_of=32)
    """Longer side of the picture in which faces are looked for."""
    score: float = Field(0.5, ge=0, le=1)
    """insightface: least confidence of a face."""
    yunet_score: float = Field(0.7, ge=0, le=1)
    """yunet: least confidence of a face."""
    haar_neighbors: int = Field(6, ge=1, le=1000)
    """haar: how many overlapping windows must agree."""
    every: int = Field(1, ge=1, le=25)
    """Look for faces in each N-th frame; in between they are followed by their pixels."""
    again_seconds: float = Field(0.5, gt=0, le=3600)
    """How often a second look is taken for faces too large or too small for the first."""
    threads: int | None = Field(None, ge=1, le=64)
    """How many frames are looked at at once; None: one for each core, four at most."""
    remember: bool = True
    """Keep analyses in the user cache, and use them again for the same video and settings."""


class Shots(Section):
    """Cuts between shots."""

    cut: float = Field(12.0, gt=0, le=255)
    """Least mean change of a small grey picture, in 8-bit levels."""
    contrast: float = Field(3.0, gt=1, le=1000)
    """How many times the changes around it a cut must stand out."""
    edl: Path | None = None
    """A CMX 3600 edit decision list, whose cuts are taken instead of looking for them."""


class Tracking(Section):
    """Joining the faces of successive frames."""

    overlap: float = Field(0.3, gt=0, le=1)
    """Least intersection over union with the predicted box."""
    gap_seconds: float = Field(0.4, ge=0, le=60)
    """Longest miss of the detector that is bridged."""
    min_seconds: float = Field(0.2, ge=0, le=3600)
    """Shorter tracks are taken for false alarms, unless they last as long as their shot."""


class People(Section):
    """Telling whose face it is, where the InsightFace pack holds a recogniser."""

    recognise: bool = True
    """Join the tracks of a person across shots."""
    every_seconds: float = Field(0.5, gt=0, le=3600)
    """How often a face in plain sight is looked at again."""
    similarity: float = Field(0.45, gt=0, lt=1)
    """Least cosine of two embeddings of one person."""


class Align(Section):
    """From landmarks to a crop that does not tremble."""

    template: Literal["auto", "gpen", "ffhq"] = "auto"
    """Where the five points stand in the crop: the GPEN authors' place, or that of FFHQ.

    auto: where the restorer wants them.
    """
    smoothness: float = Field(0.2, gt=0, le=1e6)
    """Weight of the third difference against the landmarks, at 25 frames per second."""
    coarse_smoothness: float = Field(20.0, gt=0, le=1e6)
    """The same where the detector only guesses landmarks from a box."""
    motion_smoothness: float = Field(300.0, gt=0, le=1e6)
    """Stiffness of what is left of the landmarks once their measured motion is taken out."""
    least_support: float = Field(0.3, ge=0, le=1)
    """Share of the followed points that must agree on a motion for it to be used."""
    break_eyes: float = Field(0.5, gt=0, le=100)
    """Jump, in eye distances, at which a track ends where its pixels do not support it either."""
    min_face_px: float = Field(12.0, ge=0, le=4096)
    """Distance of the eyes at which a face gets half the strength; below 0.8 of it, none."""
    fade_seconds: float = Field(0.2, ge=0, le=60)
    """Over which strength rises and falls where a track begins or ends inside a shot."""


class Restore(Section):
    """The network, or what stands in for it."""

    restorer: str = "gpen-2048"
    """gpen-2048, gpen-1024, gpen-512, gpen-256, fusion, or a .pth, .safetensors or .onnx file.

    gpen-auto: for each track the smallest GPEN that the size of its face can show."""
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|cuda(:[0-9]{1,3})?)$", description="auto, cpu, cuda or cuda:N"
    )
    """Where networks run; auto: a CUDA device that can be used, else the processor, which is "
    "said."""
    batch_size: int | None = Field(None, ge=1, le=1024)
    """Faces at once; None: at most 4 on a GPU, as its memory allows, and 1 on a CPU, where more
    only cost memory."""
    max_vram_gb: float | None = Field(None, ge=0.1, le=10000)
    """Most that torch takes of a GPU's memory in a process, in GB (10^9 bytes); None: all there
    is."""
    number_format: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Of the network's convolutions; auto: the fastest that is safe on this machine."""
    engine: Literal["auto", "torch", "openvino"] = "auto"
    """What runs GPEN; auto: on a CPU OpenVINO where it is installed and agrees, else torch."""
    denoise: Annotated[float, BeforeValidator(_off_is_zero)] = Field(0.0, ge=0, le=1)
    """Share of a tape's noise that is taken out of what a network is shown, by the frames around
    it; the output keeps its own. 0 or off: none. Not for fusion, which takes noise out anyway."""
    codeformer_fidelity: float = Field(0.7, ge=0, le=1)
    """The second input of CodeFormer files: 0 invents more, 1 keeps more."""
    repeats: bool = True
    """A face that shows, bit by bit, what the frame before showed is not computed again."""
    cache_crops: bool = False
    """Keep every restored crop beside the output, 12 W^2 bytes a face and frame, so that whatever
    comes after the network can be changed without it. Stays there until the folder is deleted."""
    max_waiting_frames: int = Field(16, ge=1, le=4096)
    """Bound on frames held back while a batch fills."""
    fusion_sharpness: float = Field(0.5, ge=0, le=1)
    """fusion: share of the back-projection step that undoes its own blur."""


class Deflicker(Section):
    """Steadying restored faces over time, against the frames around them."""

    amount: Annotated[float, BeforeValidator(_off_is_zero)] = Field(1.0, ge=0, le=1)
    """How much of wobble and boiling texture is taken away; 0 or off: none.

    Not where every restorer looks at several frames by itself, as fusion does."""
    detail: float = Field(0.5, ge=0, le=1)
    """Share of the fine contrast lost by that which is given back."""


class Guard(Section):
    """Using less of a restored face, down to nothing, where it does not look like its source."""

    identity: Annotated[float, BeforeValidator(_off_is_zero)] = Field(0.2, ge=0, le=0.8)
    """Least cosine of both to the recogniser of `detect.pack`, where it has one and
    `people.recognise` is on; 0.15 above, all is used. 0 or off: it is not asked."""
    features: Annotated[float, BeforeValidator(_off_is_zero)] = Field(0.7, ge=0, le=0.95)
    """Least correlation of their eyes, mouths and faces at low frequencies; from 2/3 of the way to
    1 on, all is used. 0 or off: not looked at."""


class Regions(Section):
    """How much of the restored face is used where, each times `paste.strength`."""

    eyes: float = Field(1.0, ge=0, le=1)
    """Of the eyes."""
    brows: float = Field(1.0, ge=0, le=1)
    """Of the brows."""
    mouth: float = Field(1.0, ge=0, le=1)
    """Of the mouth."""
    skin: float = Field(1.0, ge=0, le=1)
    """Of all else."""


class Paste(Section):
    """Bringing the restored face back into the picture."""

    strength: float = Field(1.0, ge=0, le=1)
    """How much of the restored face is used; the rest is the source's."""
    regions: Regions = Regions()
    detail: float = Field(1.0, ge=0, le=1)
    """Share of the restored fine detail that is used; the rest is the source's own."""
    occluders: bool = True
    """Keep the source where a hand, a microphone or glasses cover the face."""
    parser: Path | None = None
    """An ONNX face-parsing network with the 19 classes of CelebAMask-HQ, such as BiSeNet. Its hair,
    hats, ears, necks and glasses, with what is seen through them, stay the source's."""
    color: float = Field(1.0, ge=0, le=1)
    """How far broad colours follow the source's; film without colours stays so."""
    sharpness: float = Field(1.0, ge=0, le=1)
    """Share of the source's blur by motion that the restored face is given.

    Measured along the way the face goes, against its edges across it, so what is soft for another
    reason, a tape say, is not blurred further."""
    focus: float = Field(0.0, ge=0, le=1)
    """Share of the blur after which the restored face is at most 1.2 times as sharp as the source
    is, on the face or around it.

    For film and camera originals, where what is soft is out of focus. Not the default: tapes and
    enlarged files are soft everywhere, and what was restored would be blurred again."""


class Grain(Section):
    """Noise of the source, for the restored face."""

    match: float = Field(0.5, ge=0, le=1)
    """Share of the noise around a face that is given to it; 0 where the result shall be clean."""


class Scale(Section):
    """A larger picture, in square pixels; faces keep the detail of their crops."""

    factor: Literal[1, 2, 4] = 1
    """How many times as wide and high."""
    upscaler: Path | None = None
    """An ONNX network of the Real-ESRGAN kind for all but the faces; None: Lanczos."""


class Layer(Section):
    """The restored faces by themselves, where `--layer` asks for them."""

    format: Literal["prores", "tiff"] = "prores"
    """prores: two .mov files in ProRes 4444 XQ, of ten bits and lossy; tiff: two pictures of
    sixteen bits for each frame, which give the output to the code value."""


class Encode(Section):
    """The new video stream."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    codec: Literal["auto", "h264", "hevc", "av1", "prores", "dnxhr", "ffv1"] = "auto"
    """auto: the source's own where it is one of these, else hevc; where that cannot hold the
    picture, the next that can, which is said."""
    quality: str = Field(
        "high",
        pattern=r"^(archive|high|small|[0-9]{1,2})$",
        description="archive (lossless ffv1), high, small, or the codec's own number (0 is best)",
    )
    """high: visually the same as the source; small: for sharing."""
    preset: Preset = "medium"
    """h264, hevc and av1: how long the encoder looks for what makes the file smaller."""
    threads: int = Field(4, ge=1, le=128)
    """Fixed, because the output of x264 depends on it."""
    hardware: bool = False
    """Encode on a GPU: faster, and larger at the same quality."""
    pixel_format: str = "source"
    """Another than the source's, for a codec that cannot hold that; converts the whole picture."""
    provenance: bool = True
    """Say in the output's tags that faces were restored, and with what."""
    check: bool = True
    """Read the finished file back and compare its frames and times with the source's."""


class Job(Section):
    """A long video in segments, so that what is done survives."""

    segment_frames: int = Field(300, ge=48, le=1_000_000)
    """Most frames of a segment; it begins at a cut where that is possible."""
    queue_frames: int = Field(4, ge=1, le=64)
    """Frames by which a stage of pass two may run ahead of the next; more of them take memory."""


class Weights(Section):
    folder: Path | None = None
    """Where weight files are; None: VIDRESTORE_WEIGHTS, ./weights, then the user cache."""
    also: tuple[Path, ...] = ()
    """Further folders to look in, such as the model folder of another program."""
    offline: bool = False
    """Never fetch a missing file."""


class Settings(Section):
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

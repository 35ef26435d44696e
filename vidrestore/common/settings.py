"""Every setting, its default and its meaning. No other file states a default."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

Preset = Literal["ultrafast", "superfast", "veryfast", "faster", "fast",
                 "medium", "slow", "slower", "veryslow", "placebo"]  # fmt: skip
RESTORERS = ("gpen-2048", "gpen-1024", "gpen-512", "gpen-256", "gpen-auto", "gpen-colorize",
             "fusion")  # fmt: skip


def _off_is_zero(value: object) -> object:
    return 0 if value == "off" or value is False else value


class Section(BaseModel):
    """A group of settings, which cannot be changed once made."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _names_a_file(cls, value: object) -> object:
        """Refuse the character NUL, which no file name can have and no other text needs."""
        for each in value if isinstance(value, list | tuple) else [value]:
            if isinstance(each, str | Path) and "\0" in str(each):
                raise ValueError("a text must not hold the character NUL")
        return value

    def as_text(self) -> str:
        """All values as JSON in ASCII, for keys: file names may hold bytes that are not UTF-8."""
        return json.dumps(self.model_dump(mode="json"))


class Decode(Section):
    """How vidrestore reads the source."""

    hardware: bool = False
    """Whether pass two decodes on a GPU. From the first frame that differs from pass one, the CPU
    decodes."""
    input_curve: str = Field(
        "", pattern=r"^(|cineon|slog3|.+\.cube)$", description="cineon, slog3 or a .cube file"
    )
    """Log curve of the source, if the file does not state its transfer curve. vidrestore converts
    pictures with it for detectors and networks only. Empty: the transfer curve that the file
    states."""
    fps: float | None = Field(None, ge=0.01, le=1000)
    """Frame rate of a numbered sequence of pictures, in frames per second; settings in seconds
    depend on it. None: 24."""


class Fields(Section):
    """How vidrestore treats interlaced footage, which it recognizes by measuring the pictures."""

    deinterlace: Literal["keep", "bob", "frame", "film", "off"] = "keep"
    """keep: restore both fields of a frame and weave them into a frame again; this takes twice the
    faces and leaves the rest of the frame as it is. bob: make a frame from each field. frame:
    make one frame from each pair of fields, from the earlier one. film: undo 3:2 pulldown, which
    gives four pictures from each five frames. off: treat all frames as progressive, without
    measuring."""


class Detect(Section):
    """How vidrestore finds faces in the upright picture with square pixels."""

    detector: Literal["auto", "insightface", "yunet", "haar"] = "auto"
    """insightface: SCRFD from an InsightFace pack. yunet: a small network with a free license.
    haar: OpenCV's cascades, which need no file and only estimate landmarks. auto: insightface if
    its pack is installed, else yunet, which vidrestore downloads if it is missing, and haar only
    if that is impossible."""
    mesh: Literal["auto", "off"] = "auto"
    """auto: use the face mesh, a small network with a free license, if its file is there. If it is
    missing, vidrestore downloads it, except with haar, which downloads nothing. off: never use
    it."""
    margins: bool = True
    """Whether to measure black borders and the noise of a tape's head switching. No face is taken
    from them, and the detector does not see the noise; the output keeps both. Pictures are not
    measured."""
    pack: str = "buffalo_l"
    """Folder of the InsightFace pack below weights/insightface/models."""
    size_px: int = Field(640, ge=64, le=4096, multiple_of=32)
    """Longer side, in pixels, of the picture that the detector gets."""
    score: float = Field(0.5, ge=0, le=1)
    """Lowest confidence of a face from insightface."""
    yunet_score: float = Field(0.7, ge=0, le=1)
    """Lowest confidence of a face from yunet."""
    haar_neighbors: int = Field(6, ge=1, le=1000)
    """Number of overlapping windows that must agree on a face from haar."""
    every: int = Field(1, ge=1, le=25)
    """Distance, in frames, between frames in which faces are detected; in between, faces are
    tracked by their pixels."""
    again_seconds: float = Field(0.5, gt=0, le=3600)
    """Time, in seconds, between searches for faces that are too large or too small for the usual
    search."""
    any_angle: bool = False
    """Whether to search for turned faces also in frames with upright ones, twice a second; needs
    the face mesh. Without this, turned faces are searched for in frames in which no face is
    found."""
    threads: int | None = Field(None, ge=1, le=64)
    """Number of frames in which faces are detected at the same time. None: one for each core, at
    most 4."""
    remember: bool = True
    """Whether to keep analyses in the user cache, and to use them again for the same video and
    settings."""


class Shots(Section):
    """How vidrestore finds the cuts between shots."""

    cut: float = Field(12.0, gt=0, le=255)
    """Lowest mean change of a small gray picture at a cut, in 8-bit levels."""
    contrast: float = Field(3.0, gt=1, le=1000)
    """Lowest ratio of the change at a cut to the changes around it."""
    edl: Path | None = None
    """A list of cuts: a CMX 3600 edit decision list (.edl), a timeline of OpenTimelineIO (.otio),
    FCPXML (.fcpxml, .fcpxmld) or the XML of Final Cut Pro 7 (.xml). None: vidrestore finds cuts in
    the pictures."""


class Tracking(Section):
    """How vidrestore joins the faces of successive frames into tracks."""

    overlap: float = Field(0.3, gt=0, le=1)
    """Lowest intersection over union of a face with the box that its track predicts."""
    gap_seconds: float = Field(0.4, ge=0, le=60)
    """Longest time, in seconds, for which a track may lose its face and still continue."""
    min_seconds: float = Field(0.2, ge=0, le=3600)
    """Shortest duration of a track, in seconds. A shorter one counts as a false detection,
    unless it lasts as long as its shot."""


class People(Section):
    """How vidrestore recognizes people, if the InsightFace pack has a recognizer."""

    recognise: bool = True
    """Whether to join the tracks of a person across shots."""
    every_seconds: float = Field(0.5, gt=0, le=3600)
    """Time, in seconds, between two embeddings of a face that is fully visible."""
    similarity: float = Field(0.45, gt=0, lt=1)
    """Lowest cosine of two embeddings of the same person."""


class Person(Section):
    """A person with a restorer of their own, such as a network that was adapted to them. A profile
    has a heading `[[person]]` for each. The restorer is for the faces of the video that a
    recognizer surely takes for the person."""

    name: str = Field(min_length=1, max_length=255)
    """Name of the person in messages and in the summary."""
    reference: Path | None = None
    """A photo of the person. None: the embedding that the file of an adapted network has."""
    restorer: str
    """The restorer, as for `restore.restorer`."""


class Align(Section):
    """How vidrestore computes a steady crop from landmarks."""

    template: Literal["auto", "gpen", "ffhq"] = "auto"
    """Position of the five landmarks in the crop: gpen, the positions of GPEN's authors, or ffhq,
    those of the FFHQ data set. auto: the template that the restorer needs."""
    smoothness: float = Field(0.2, gt=0, le=1e6)
    """Weight of the third difference against the landmarks, at 25 frames per second."""
    coarse_smoothness: float = Field(20.0, gt=0, le=1e6)
    """Weight in place of `align.smoothness` for a detector that estimates landmarks from a box."""
    motion_smoothness: float = Field(300.0, gt=0, le=1e6)
    """Weight in place of `align.smoothness` for what remains of the landmarks after their measured
    motion is subtracted."""
    least_support: float = Field(0.3, ge=0, le=1)
    """Lowest share of the tracked points that must agree on a motion before it is used."""
    break_eyes: float = Field(0.5, gt=0, le=100)
    """Jump of the landmarks, in eye distances, at which a track ends if its pixels do not confirm
    the jump."""
    min_face_px: float = Field(12.0, ge=0, le=4096)
    """Eye distance, in pixels, from which a face gets all of its strength. Below two thirds of this
    distance it gets none. The distance is that of the face seen from the front."""
    fade_seconds: float = Field(0.2, ge=0, le=60)
    """Time, in seconds, over which strength rises and falls where a track begins or ends inside a
    shot."""


class Restore(Section):
    """The restorer, and how it runs."""

    restorer: str = "gpen-2048"
    """gpen-2048, gpen-1024, gpen-512, gpen-256, fusion, or a .pth, .safetensors or .onnx file.
    gpen-auto: for each track the smallest GPEN that can show a face of its size in full.
    gpen-colorize: gives colors to the faces of gray film, and changes nothing else."""
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|mps|xpu|cuda(:[0-9]{1,3})?)$",
        description="auto, cpu, cuda, cuda:N, mps or xpu",
    )
    """Device on which networks run: cuda (NVIDIA, or AMD by ROCm), mps (Apple), xpu (Intel). auto:
    the first that gives what the CPU gives, else the CPU; a notice says why a device is not
    used."""
    batch_size: int | None = Field(None, ge=1, le=1024)
    """Number of faces in a batch. None: on a GPU up to 4, as its memory allows; on a CPU 1, because
    larger batches only take memory there."""
    max_vram_gb: float | None = Field(None, ge=0.1, le=10000)
    """Largest GPU memory that torch takes in a process, in GB (10^9 bytes). None: no limit."""
    number_format: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Number format of the network's convolutions. auto: the fastest format that is safe on this
    machine."""
    engine: Literal["auto", "torch", "openvino"] = "auto"
    """Library that runs GPEN. auto: on a CPU OpenVINO, if it is installed and faster there, and its
    results agree with torch, else torch."""
    denoise: Annotated[float, BeforeValidator(_off_is_zero)] = Field(0.0, ge=0, le=1)
    """Share of a tape's noise that vidrestore removes, by averaging neighboring frames, from the
    picture that a network gets; the output keeps its own noise. 0 or off: none. fusion ignores
    it, because it removes noise itself."""
    codeformer_fidelity: float = Field(0.7, ge=0, le=1)
    """Second input of CodeFormer files: 0 invents more, 1 keeps more of the source."""
    key_frames: Literal["off", "auto", "on"] = "off"
    """Whether the network restores only the key frames of a track. vidrestore then makes the frames
    between them by warping the restored key frames along the motion of the source. off: the network
    restores every frame. auto: vidrestore uses key frames if a measurement at the start of the run
    shows that they save time on this machine. on: it always uses them. The restorer still restores
    every frame where faces move fast, or if it uses several frames itself, as fusion does."""
    latent: Literal["frame", "shot"] = "frame"
    """Which latent code GPEN gets; the code describes a face as a whole. frame: the code of the
    frame. shot: a robust mean of the codes of the same track, from 8 frames before to 8 frames
    after, so that the restored face changes less over time. This takes a second run of the encoder
    for each face, and torch as the engine. Restorers without a latent code ignore it."""
    repeats: bool = True
    """Whether to reuse the restored face of the frame before if the face is the same bit by bit."""
    cache_crops: bool = False
    """Whether to keep every restored crop, 12 W^2 bytes for each face and frame, in the folder
    OUTPUT.vidrestore/crops, so that a later run with other settings of later stages needs no
    network. The folder stays until the user deletes it."""
    max_waiting_frames: int = Field(16, ge=1, le=4096)
    """Largest number of frames that wait while a batch fills."""
    fusion_sharpness: float = Field(0.5, ge=0, le=1)
    """Share of the back-projection step by which fusion undoes its own blur."""


class Deflicker(Section):
    """How vidrestore steadies restored faces over time."""

    amount: Annotated[float, BeforeValidator(_off_is_zero)] = Field(1.0, ge=0, le=1)
    """Share of the wobble and of the flicker of texture that is removed. 0 or off: none. It does
    nothing if every restorer looks at several frames itself, as fusion does."""
    detail: float = Field(1.0, ge=0, le=1)
    """Share of the fine contrast lost by the averaging that is restored afterwards."""


class Guard(Section):
    """When vidrestore uses less of a restored face, down to nothing, because it does not look like
    its source."""

    identity: Annotated[float, BeforeValidator(_off_is_zero)] = Field(0.2, ge=0, le=0.8)
    """Lowest cosine of the embeddings of the restored face and its source; from 0.15 above it, the
    face is used in full. It needs a recognizer in `detect.pack` and `people.recognise`. 0 or
    off: not checked."""
    features: Annotated[float, BeforeValidator(_off_is_zero)] = Field(0.9, ge=0, le=0.95)
    """Lowest correlation of eyes, mouth and whole face between the restored face and its source, at
    low frequencies; from two thirds of the way to 1, the face is used in full. On a source too poor
    to tell, the value is lowered. 0 or off: not checked."""
    expression: Annotated[float, BeforeValidator(_off_is_zero)] = Field(1.0, ge=0, le=5)
    """How far an eye or the mouth may depart from the source, in multiples of what noise and
    softness of the source explain; from 1.75 times that, the eye or the mouth stays the source's.
    It needs the face mesh. 0 or off: not checked."""


class Regions(Section):
    """Shares of the restored face by region, each multiplied by `paste.strength`."""

    eyes: float = Field(1.0, ge=0, le=1)
    """Share in the eyes."""
    brows: float = Field(1.0, ge=0, le=1)
    """Share in the brows."""
    mouth: float = Field(1.0, ge=0, le=1)
    """Share in the mouth."""
    skin: float = Field(1.0, ge=0, le=1)
    """Share in the rest of the face."""


Extent = Literal["face", "head"]
"""What is pasted of a restored crop."""


class Paste(Section):
    """How vidrestore pastes the restored face into the picture."""

    strength: float = Field(1.0, ge=0, le=1)
    """Share of the restored face; the rest is the source's."""
    extent: Extent = "face"
    """face: the face up to the hair line. head: also hair and ears, as far as the crop shows them;
    with `paste.parser`, only what the parser takes for head. Use it where a sharp face in soft hair
    is visible."""
    regions: Regions = Regions()
    detail: float = Field(1.0, ge=0, le=1)
    """Share of the restored fine detail; the rest is the source's."""
    occluders: bool = True
    """Whether to keep the source where a hand, a microphone or glasses cover the face."""
    parser: Path | None = None
    """A face-parsing network with the 19 classes of CelebAMask-HQ: ParseNet as .pth, or another,
    such as BiSeNet, as .onnx. Hair, hats, ears, necks and glasses, with what is seen through them,
    keep the source. None: no network; vidrestore finds covered parts by itself."""
    color: float = Field(1.0, ge=0, le=1)
    """Share by which broad colors follow the source. Film without colors stays without colors."""
    sharpness: float = Field(1.0, ge=0, le=1)
    """Share of the source's motion blur that the restored face gets. vidrestore compares the edges
    along the motion with those across it, so softness of another kind, such as a tape's, adds no
    blur."""
    focus: float = Field(0.0, ge=0, le=1)
    """Share of a blur that makes the restored face at most 1.2 times as sharp as the source, on the
    face or around it. Use it for film and camera originals, where soft means out of focus. Tapes
    and enlarged files are soft everywhere, so it would blur their restored faces again."""


class Grain(Section):
    """How much of the source's noise the restored face gets."""

    match: float = Field(0.5, ge=0, le=1)
    """Share of the noise around a face that the face gets. 0: a clean face."""


class Scale(Section):
    """How vidrestore enlarges the picture. Pixels become square, and faces keep the detail of their
    crops."""

    factor: Literal[1, 2, 4] = 1
    """Factor of width and height."""
    upscaler: Path | None = None
    """A network of the Real-ESRGAN kind that enlarges all but the faces: an ONNX file, or with the
    extra spandrel a .pth or .safetensors file. None: a Lanczos filter."""


class Layer(Section):
    """How `--layer` writes the restored faces and their matte."""

    format: Literal["prores", "tiff"] = "prores"
    """prores: two .mov files in ProRes 4444 XQ, 10 bits, lossy. tiff: two 16-bit pictures for each
    frame, which give the output to the code value."""


class Encode(Section):
    """How vidrestore encodes the video stream."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    codec: Literal["auto", "h264", "hevc", "av1", "prores", "dnxhr", "ffv1"] = "auto"
    """auto: the source's codec if the list has it, else hevc, or h264 for interlaced pictures.
    If that codec cannot hold the picture, vidrestore takes the next one that can, and a notice
    says so."""
    quality: str = Field(
        "high",
        pattern=r"^(archive|high|small|[0-9]{1,2})$",
        description="archive (lossless ffv1), high, small, or the codec's own number (0 is best)",
    )
    """archive: lossless. high: visually the same as the source. small: for sharing."""
    preset: Preset = "medium"
    """Effort of the encoders of h264, hevc and av1: a slower preset gives a smaller file."""
    threads: int = Field(4, ge=1, le=128)
    """Number of threads of the encoder. It is fixed because the output of x264 depends on it."""
    hardware: bool = False
    """Whether to encode on a GPU, which is faster and gives larger files at the same quality."""
    pixel_format: str = "source"
    """Pixel format of the output, for a codec that cannot hold the source's; another format than
    the source's converts the whole picture. source: the same as the source."""
    copy_untouched: bool = True
    """Whether a frame into which nothing was pasted keeps the packet of the source, byte for byte,
    instead of another encoding; for ProRes, DNxHR and FFV1 that code every frame by itself. The
    encoder then takes the profile of the source."""
    provenance: bool = True
    """Whether the output's tags state that faces were restored, and with what."""
    check: bool = True
    """Whether to read the finished file back and compare its frames and times with the source."""


class Job(Section):
    """How vidrestore divides a long video into segments, so that an interrupted run keeps finished
    ones."""

    segment_frames: int = Field(300, ge=48, le=1_000_000)
    """Largest number of frames in a segment. A segment begins at a cut if possible."""
    queue_frames: int = Field(4, ge=1, le=64)
    """Number of frames by which a stage of pass two may run ahead of the next stage; more frames
    take more memory."""


class Weights(Section):
    """Where vidrestore finds weight files."""

    folder: Path | None = None
    """Folder of weight files. None: VIDRESTORE_WEIGHTS, ./weights, then the user cache."""
    also: tuple[Path, ...] = ()
    """More folders to search, such as the model folder of another program."""
    offline: bool = False
    """Whether vidrestore never downloads a missing file."""


class Train(Section):
    """How a GPEN is adapted to a person. The weights of losses and their intervals are those of
    GPEN's authors."""

    base: str = "gpen-512"
    """The network to adapt: gpen-2048, gpen-1024, gpen-512, gpen-256, or a .pth, .safetensors or
    .onnx file of a GPEN."""
    crops: int = Field(200, ge=15, le=10_000)
    """Number of crops of the person at most. A fifth of them is set apart for judging."""
    seed: int = Field(0, ge=0, le=1_000_000_000)
    """Seed of everything random. The same seed gives the same file on one machine."""
    steps: int = Field(2000, ge=1, le=10_000_000)
    """Number of steps, at most."""
    minutes: float | None = Field(None, gt=0, le=1_000_000)
    """Time, in minutes, after which training ends; None: no limit. With a limit, the result depends
    on the speed of the machine."""
    batch: int = Field(4, ge=1, le=64)
    """Number of pairs of each step."""
    optimizer: Literal["muon", "adam"] = "muon"
    """How the network learns: `muon` orthogonalizes the steps of its matrices, and in our tests
    reached the same likeness in a sixth of the steps; `adam` is what GPEN's authors take. A
    discriminator always learns by Adam."""
    decoder_rate: float = Field(5e-4, gt=0, le=1)
    """Learning rate of the decoder: about the root mean square of the steps of its weights. In the
    second half of the steps, or of the time, all rates fall evenly to zero."""
    encoder_rate: float = Field(1e-4, gt=0, le=1)
    """Learning rate of the encoder."""
    discriminator_rate: float = Field(5e-4, gt=0, le=1)
    """Learning rate of the discriminator."""
    pixel_weight: float = Field(1.0, ge=0, le=1e6)
    """Weight of the smooth L1 distance of pixels."""
    identity_weight: float = Field(1.0, ge=0, le=1e6)
    """Weight of the distance of embeddings; of no effect without an identity network."""
    adversarial_weight: float = Field(1.0, ge=0, le=1e6)
    """Weight of the discriminator's judgment; of no effect without a discriminator."""
    r1_weight: float = Field(10.0, ge=0, le=1e6)
    """Weight of the R1 penalty of the discriminator."""
    r1_every: int = Field(16, ge=1, le=1_000_000)
    """Distance, in steps, between steps with the R1 penalty."""
    path_weight: float = Field(2.0, ge=0, le=1e6)
    """Weight of the regularization of path lengths; 0: none. Only with a discriminator."""
    path_every: int = Field(4, ge=1, le=1_000_000)
    """Distance, in steps, between steps with the regularization of path lengths."""
    half_life_images: float = Field(10_000, gt=0, le=1e9)
    """Number of images after which the share of a step in the averaged weights has halved; at most
    a twentieth of all images of the training."""
    save_memory: bool = True
    """Whether to compute the maps of a layer a second time for its gradients instead of keeping
    them; this takes a third more time."""
    check_every: int = Field(100, ge=1, le=1_000_000)
    """Distance, in steps, between looks at the crops that are set apart. Each look also writes the
    state, with which a killed training goes on."""
    patience: int = Field(5, ge=1, le=1_000_000)
    """Number of looks in a row without a better result after which training ends."""


class Settings(Section):
    """All settings, a section for each attribute."""

    decode: Decode = Decode()
    fields: Fields = Fields()
    detect: Detect = Detect()
    shots: Shots = Shots()
    track: Tracking = Tracking()
    people: People = People()
    person: tuple[Person, ...] = ()
    """The people with a restorer of their own."""
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
    train: Train = Train()

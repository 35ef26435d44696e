"""Does a GPEN that was adapted to one person restore that person better?

A small GPEN (128 px) is trained from scratch by the trainer of `vidrestore personalize`, on faces
of the clips and pictures in the folder that VIDRESTORE_SHARED names, ../shared by default, without
those of the two persons below. From this base two networks go on, for as many steps and with the
same settings. One learns from clear crops of the person from one shot, and in half of the steps'
pictures from the faces of the base; the other, the control, from those alone. All restore
frames of the person that were made bad by the kind of degradation that GPEN's authors train with.
The only loss is smooth L1: there are no weights of IR-SE-50 or of a discriminator for 128 px.

    python benchmarks/personal.py --sheet sheet.png

The frames that are restored play no part in choosing crops or the best state of a training. PSNR
and cosine are those of `personal.scores`: PSNR over the whole crop, the cosine of the recognizer's
embeddings (MobileFaceNet) of the restored and the true face; a face that the recognizer refuses
counts as 0. "oval" is the PSNR in the oval of the face alone. --folder keeps the states of all
trainings: a later run with the same data and settings finds them, and one that was stopped goes on.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from multiprocessing import get_context, parent_process
from pathlib import Path

import cv2
import numpy as np
import torch
from platformdirs import user_cache_path
from rich.console import Console
from rich.table import Table

from vidrestore.analysis.pipeline import analyze_video
from vidrestore.analysis.tracks import Track
from vidrestore.common.profiles import load_settings
from vidrestore.common.settings import Settings, Train
from vidrestore.imaging.geometry import crop_side_px
from vidrestore.media.decode import DecodeErrors, TimeRange, decode
from vidrestore.models.gpen.network import GPEN
from vidrestore.models.recognizer import Recognizer, find_recognizer
from vidrestore.personal.crop_choice import Candidate, choose_crops
from vidrestore.personal.degradations import BlindDegradation, Pair
from vidrestore.personal.identity import judge_of
from vidrestore.personal.objectives import Judges
from vidrestore.personal.scores import Scores, score, tensor_of
from vidrestore.personal.trainer import Crops, Look, Trainer, TrainingRecord, TrainingSet
from vidrestore.restoration.compositing.defocus import width_px
from vidrestore.restoration.crop import cut_out
from vidrestore.restoration.crop_comparison import face_ellipse

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
SIDE = 128
NARROW, CHANNEL_MULTIPLIER, STYLE_DIM, MAPPING_LAYERS = 0.125, 1, 128, 4
BASE = Train(
    steps=1500, batch=4, decoder_rate=2e-3, encoder_rate=2e-3, save_memory=False, check_every=100,
    patience=100,
)  # fmt: skip
# In the same time of the processor, more steps with one picture each teach better than fewer steps
# with four.
FURTHER = Train(
    steps=3000, batch=1, decoder_rate=2e-3, encoder_rate=2e-3, save_memory=False, check_every=500,
    patience=100,
)  # fmt: skip
# Crops become 32 to 64 px wide, as faces are in wide shots. From smaller ones the recognizer knows
# few of the restored faces.
DEGRADATION = BlindDegradation(
    sigma_px=(0.5, 2.0), taps=13, reduction=(2.0, 4.0), noise_levels=(0.0, 10.0)
)
# The frames that are restored are neither mirrored nor gray, and each is made bad so many times.
JUDGED = replace(DEGRADATION, mirrored_share=0.0, gray_share=0.0)
DRAWS = 3
SEEDS = (0, 1, 2)
# At most so many crops of one track, and the least side of a crop in the source.
MOST_CROPS, LEAST_PX = 48, 100
# Of other people, the end of each track is set apart, at most so many crops of it.
APART_SHARE, GAP_SECONDS, MOST_APART, FRAMES_PER_SECOND = 0.2, 1.0, 8, 25
MOST_CHOSEN, ON_SHEET = 200, 6
# In a personal training, one of so many crops is of the base's faces, so that the network keeps
# what it knows of others.
MIXED = 2
GOALS = "+1.0 dB and +0.05 over base and control, others at most -0.3 dB"
# The other clips: file, seconds from its beginning, and the part of the picture to take faces from.
CLIPS = (
    ("clips/hamilton_short.mp4", None, (0.0, 1.0)),
    ("clips/intel_asl_thanks.mkv", None, (0.0, 1.0)),
    ("clips/lp_s18.mp4", 5, (0.0, 1.0)),
    ("clips/vrt_1.mp4", None, (0.0, 1.0)),
    ("real-restorers/ed2_lq.mp4", 2, (0.0, 1.0)),
    ("real-restorers/keep_s3_ours.mp4", 4, (0.0, 1.0)),
    ("real-restorers/pgt_017.mp4", None, (0.5, 1.0)),
)


@dataclass(frozen=True)
class Person:
    """A person, where the network learns the face, and where it is restored."""

    name: str
    clip: str
    learned: tuple[int, int]
    """Frames of the shot for learning, half-open."""
    restored: tuple[int, int]
    """Frames to restore, half-open."""


Judge = Callable[[torch.Tensor], torch.Tensor]
PERSONS = (
    Person("singer, another shot", "clips/hamilton_short.mp4", (82, 211), (0, 20)),
    # The folder holds no second person who is clear in two shots; this is the rest of one take.
    Person("man, later in the same take", "clips/vrt_1.mp4", (0, 60), (90, 135)),
)


@dataclass(frozen=True, eq=False)
class Faces:
    """Crops of one track."""

    clip: str
    track: Track
    frames: tuple[int, ...]
    crops: Crops


def shared() -> Path:
    return Path(os.environ.get("VIDRESTORE_SHARED") or ROOT.parent / "shared")


def settings() -> Settings:
    return load_settings(
        options={
            "weights.folder": shared() / "models",
            "weights.offline": True,
            "detect.detector": "insightface",
            "detect.pack": "det_rec",
            "detect.every": 3,
            "restore.restorer": "fusion",
            "fields.deinterlace": "off",
        }
    )


def faces_of(clip: str, seconds: int | None, across: tuple[float, float]) -> list[Faces]:
    """All faces of a clip in a part of its pictures, by track."""
    path = shared() / clip
    span = None if seconds is None else TimeRange(Fraction(0), Fraction(seconds))
    analysis = analyze_video(path, settings(), span=span)
    width = analysis.info.width
    tracks = [
        track
        for track in analysis.tracks
        if across[0] <= track.landmarks[:, :, 0].mean() / width < across[1]
    ]
    found: dict[int, list[tuple[int, np.ndarray]]] = {track.track_id: [] for track in tracks}
    for frame in decode(path, DecodeErrors()):
        if frame.index >= analysis.frame_count:
            break
        for track in analysis.by_frame.at(frame.index):
            if track.track_id not in found:
                continue
            at = frame.index - track.first_frame
            crop = cut_out(frame, track.matrices[at], analysis.info, SIDE, CPU)
            if crop is not None:
                rgb = np.rint(255 * crop.permute(1, 2, 0).numpy()).astype(np.uint8)
                found[track.track_id].append((frame.index, rgb))
    return [
        Faces(clip, track, tuple(i for i, _ in own), np.stack([rgb for _, rgb in own]))
        for track in tracks
        if (own := found[track.track_id])
    ]


def judge() -> Judge:
    """The recognizer's embeddings of crops."""
    model = find_recognizer(shared() / "models" / "insightface" / "models" / "det_rec")
    if model is None:
        sys.exit(f"{shared()} holds no recognizer, which scores the likeness")
    return judge_of(Recognizer(model))


@dataclass(frozen=True)
class Material:
    """All that is trained on and restored."""

    base: TrainingSet
    others: Sequence[Pair]
    """Other frames of the people of the base, which no training has seen."""
    own: Sequence[TrainingSet]
    """The person's clear crops, for each person."""
    restored: Sequence[Sequence[Pair]]
    """The person's frames, for each person."""


def material(embed: Judge) -> Material:
    tracks = [faces for clip in CLIPS for faces in faces_of(*clip)]
    own = [of_person(person, tracks) for person in PERSONS]
    stills = photographs()
    learned, apart = [np.delete(stills, np.s_[::8], axis=0)], [stills[::8]]
    for faces in tracks:
        sides = [crop_side_px(unit) for unit in faces.track.matrices]
        if any(faces in each for each in own) or np.mean(sides) < LEAST_PX:
            continue
        # The end of each track is set apart, with a second before it that is not used.
        begin = round(len(faces.crops) * (1 - APART_SHARE))
        gap = min(round(GAP_SECONDS * FRAMES_PER_SECOND), begin // 2)
        learned.append(spread(faces.crops[: begin - gap], MOST_CROPS))
        apart.append(spread(faces.crops[begin:], MOST_APART))
    held = np.concatenate(apart)
    return Material(
        TrainingSet(np.concatenate(learned), held[::2], (DEGRADATION,)),
        pairs(held[1::2], draws=2),
        [
            clear_crops(each, person.learned, embed)
            for each, person in zip(own, PERSONS, strict=True)
        ],
        [
            pairs(within(each, person.restored)[1], draws=DRAWS)
            for each, person in zip(own, PERSONS, strict=True)
        ],
    )


def of_person(person: Person, tracks: Sequence[Faces]) -> list[Faces]:
    """All tracks of the one person of a clip who is in both shots."""
    here = [faces for faces in tracks if faces.clip == person.clip]
    for number in sorted({faces.track.person_id for faces in here}):
        own = [faces for faces in here if faces.track.person_id == number]
        if all(len(within(own, span)[0]) for span in (person.learned, person.restored)):
            return own
    sys.exit(f"{person.clip} shows no person both in {person.learned} and {person.restored}")


def within(own: Sequence[Faces], span: tuple[int, int]) -> tuple[list[tuple[Track, int]], Crops]:
    """The faces in some frames: their tracks and frames, and their crops."""
    found = [
        (faces.track, index, crop)
        for faces in own
        for index, crop in zip(faces.frames, faces.crops, strict=True)
        if span[0] <= index < span[1]
    ]
    crops = np.stack([crop for _, _, crop in found]) if found else np.zeros((0, SIDE, SIDE, 3))
    return [(track, index) for track, index, _ in found], crops


def clear_crops(own: Sequence[Faces], span: tuple[int, int], embed: Judge) -> TrainingSet:
    """The clear crops of a person in some frames, a fifth of them set apart."""
    places, crops = within(own, span)
    candidates = []
    for (track, index), crop in zip(places, crops, strict=True):
        at = index - track.first_frame
        side = crop_side_px(track.matrices[at])
        picture = crop.astype(np.float32) / 255
        edges = width_px(picture, face_ellipse(SIDE))
        yaw = 0.0 if track.angles_degrees is None else float(track.angles_degrees[at, 0])
        seconds = index / FRAMES_PER_SECOND
        candidates.append(
            Candidate(
                0, seconds, side, None if edges is None else edges * side / SIDE, yaw,
                embedding=embed(tensor_of([picture], CPU))[0].numpy(),
            )
        )  # fmt: skip
    chosen = choose_crops(candidates, SIDE, MOST_CHOSEN)
    print(
        f"{len(chosen.learned)} crops to learn, {len(chosen.apart)} apart, of {len(crops)} "
        f"({chosen.unclear} unclear, {chosen.others} of others)"
    )
    return TrainingSet(crops[list(chosen.learned)], crops[list(chosen.apart)], (DEGRADATION,))


def mixed(own: TrainingSet, base: TrainingSet) -> TrainingSet:
    """A person's crops, repeated, and the crops of the base; see `MIXED`."""
    times = round((MIXED - 1) * len(base.crops) / len(own.crops))
    return replace(own, crops=np.concatenate([np.repeat(own.crops, times, axis=0), base.crops]))


def photographs() -> Crops:
    """GPEN's own restorations of the 29 faces of a group photograph, by its template."""
    paths = sorted((shared() / "real-restorers" / "solvay").glob("face*.jpg"))
    crops = [cv2.imread(str(path))[:, 512:, ::-1] for path in paths]
    return np.stack(
        [cv2.resize(crop, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for crop in crops]
    )


def spread(crops: Crops, most: int) -> Crops:
    """At most so many of the crops, evenly spread."""
    return crops[np.unique(np.linspace(0, len(crops) - 1, most).round().astype(int))]


def pairs(crops: Crops, draws: int) -> list[Pair]:
    """Crops and bad pictures of them, always the same."""
    return [
        JUDGED(crop.astype(np.float32) / 255, np.random.default_rng((index, draw)))
        for index, crop in enumerate(crops)
        for draw in range(draws)
    ]


def trained(
    base: GPEN, training_set: TrainingSet, how: Train, seed: int, state: Path
) -> tuple[GPEN, TrainingRecord]:
    """Train, or go on, or find what was trained before."""
    trainer = Trainer(base, training_set, how, seed=seed, state_path=state)
    began = time.monotonic()
    for event in trainer.run():
        if isinstance(event, Look):
            print(
                f"{state.stem}: step {event.step}, {event.scores.psnr_db:.2f} dB apart, "
                f"{time.monotonic() - began:.0f} s",
                flush=True,
            )
    return trainer.network, trainer.record


def end_with_parent() -> None:
    """End this process as soon as the benchmark ends, by whatever signal."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def further(
    folder: Path, base: GPEN, training_set: TrainingSet, how: Train, name: str, seed: int
) -> GPEN:
    torch.set_num_threads(1)
    state = folder / f"{name}-{seed}-{how.steps}.state"
    network, record = trained(base, training_set, how, seed, state)
    before, best = record.base.psnr_db, record.best
    print(
        f"{state.stem}: {before:.2f} dB apart before, {best.scores.psnr_db:.2f} dB at step "
        f"{best.step}, {record.seconds:.0f} s",
        flush=True,
    )
    return network


@dataclass(frozen=True)
class Result:
    """How a network restores the person, and other people."""

    own: Scores
    oval_db: float
    others: Scores


def result(
    network: torch.nn.Module, own: Sequence[Pair], others: Sequence[Pair], embed: Judge
) -> Result:
    judges = Judges(compare=embed)
    where = face_ellipse(SIDE)
    errors = [np.square(restored(network, pair) - pair.truth)[where].mean() for pair in own]
    return Result(
        score(network, own, judges, CPU),
        -10 * math.log10(float(np.mean(errors))),
        score(network, others, judges, CPU),
    )


def restored(network: torch.nn.Module, pair: Pair) -> np.ndarray:
    with torch.no_grad():
        picture = network(tensor_of([pair.degraded], CPU)).clamp(-1, 1)
    return (picture[0].permute(1, 2, 0).numpy() + 1) / 2


def sheet(rows: Sequence[tuple[Pair, Sequence[GPEN]]]) -> np.ndarray:
    """Rows of: bad, by base, control and personal network, true."""
    lines = [
        np.hstack([pair.degraded, *(restored(each, pair) for each in networks), pair.truth])
        for pair, networks in rows
    ]
    return np.rint(255 * np.vstack(lines)).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--folder", type=Path, help="keeps the states; default: the user cache",
        default=user_cache_path("vidrestore", appauthor=False) / "benchmarks" / "personal",
    )  # fmt: skip
    parser.add_argument("--base-steps", type=int, default=BASE.steps)
    parser.add_argument("--steps", type=int, default=FURTHER.steps, help="of all other trainings")
    parser.add_argument("--processes", type=int, default=2, help="trainings at once; default 2")
    parser.add_argument("--sheet", type=Path, help="a PNG with restored faces")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    embed = judge()
    found = material(embed)
    print(
        f"base: {len(found.base.crops)} crops, {len(found.base.apart)} apart; others: "
        f"{len(found.others)} pairs; {time.monotonic() - began:.0f} s",
        flush=True,
    )
    torch.set_num_threads(arguments.processes)
    torch.manual_seed(0)
    first = BASE.model_copy(update={"steps": arguments.base_steps})
    how = FURTHER.model_copy(update={"steps": arguments.steps})
    start = GPEN(SIDE, STYLE_DIM, MAPPING_LAYERS, CHANNEL_MULTIPLIER, NARROW)
    base_state = arguments.folder / f"base-{first.steps}.state"
    base, record = trained(start, found.base, first, 0, base_state)
    print(f"base: {record.seconds:.0f} s, best step {record.best.step}", flush=True)
    sets = {"control": found.base} | {
        f"person-{number}": mixed(own, found.base) for number, own in enumerate(found.own, start=1)
    }
    with ProcessPoolExecutor(arguments.processes, get_context("spawn"), end_with_parent) as pool:
        jobs = {
            (name, seed): pool.submit(further, arguments.folder, base, own, how, name, seed)
            for seed in SEEDS
            for name, own in sets.items()
        }
        networks = {key: job.result() for key, job in jobs.items()}
    table = Table(title=f"Frames of a person, made bad and restored; goals: {GOALS}")
    for column in ("", "seed", "network", "dB", "oval dB", "cosine", "others, dB", "met"):
        table.add_column(column)
    rows = []
    for number, person in enumerate(PERSONS, start=1):
        own = found.restored[number - 1]
        bad = result(torch.nn.Identity(), own, found.others, embed)
        add(table, person.name, "", "none", bad)
        before = result(base, own, found.others, embed)
        add(table, "", "", "base", before)
        for seed in SEEDS:
            pair_of = networks["control", seed], networks[f"person-{number}", seed]
            control, personal = (result(each, own, found.others, embed) for each in pair_of)
            add(table, "", str(seed), "control", control)
            add(table, "", str(seed), "personal", personal, is_met(personal, before, control))
        few = np.linspace(0, len(own) - 1, ON_SHEET).astype(int)
        shown = base, networks["control", SEEDS[0]], networks[f"person-{number}", SEEDS[0]]
        rows += [(own[index], shown) for index in few]
    Console(width=120).print(table)
    print(f"{time.monotonic() - began:.0f} s in all")
    if arguments.sheet is not None:
        cv2.imwrite(str(arguments.sheet), sheet(rows)[..., ::-1])


def is_met(personal: Result, base: Result, control: Result) -> bool:
    gains = all(
        personal.own.psnr_db >= other.own.psnr_db + 1.0
        and (personal.own.identity or 0) >= (other.own.identity or 0) + 0.05
        for other in (base, control)
    )
    return gains and personal.others.psnr_db >= base.others.psnr_db - 0.3


def add(
    table: Table, name: str, seed: str, network: str, found: Result, met: bool | None = None
) -> None:
    table.add_row(
        name, seed, network, f"{found.own.psnr_db:.2f}", f"{found.oval_db:.2f}",
        f"{found.own.identity:.3f}", f"{found.others.psnr_db:.2f}",
        "" if met is None else "yes" if met else "no",
    )  # fmt: skip


if __name__ == "__main__":
    main()

"""The file of an adapted network: readable as a GPEN, described, and only if it is better."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from vidrestore.common.errors import UsageError, VidrestoreError, WeightsError
from vidrestore.models.gpen import load_gpen
from vidrestore.models.gpen.network import GPEN
from vidrestore.personal.personal_file import read_description, write_personal_file
from vidrestore.personal.scores import Scores
from vidrestore.personal.trainer import Look, TrainingRecord

BEFORE = Scores(30.0, 0.4, 0.7)
COUNTS = {"base": "gpen-512", "learned": 20, "apart": 5}


def network() -> GPEN:
    return GPEN(16, style_dim=8, n_mlp=1, narrow=0.0625)


def record(after: Scores) -> TrainingRecord:
    best = Look(40, after, True)
    return TrainingRecord(BEFORE, best, (best,), (), 12.5)


def test_the_file_is_a_gpen_with_a_description(tmp_path: Path) -> None:
    gpen, path = network(), tmp_path / "anna.safetensors"
    embedding = np.full(16, 0.25, np.float32)
    after = Scores(31.25, 0.5, 0.75)
    written = write_personal_file(path, gpen, record(after), embedding=embedding, **COUNTS)
    read = read_description(path)
    assert read is not None
    assert np.array_equal(read.embedding, embedding)
    assert (read.base, read.steps, read.learned, read.apart) == ("gpen-512", 40, 20, 5)
    assert (read.before, read.after) == (BEFORE, after) == (written.before, written.after)
    image = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(load_gpen(path)(image), gpen(image))
    again = tmp_path / "again.safetensors"
    write_personal_file(again, gpen, record(after), embedding=embedding, **COUNTS)
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        (Scores(31.0, 0.39, 0.8), r"fine detail -0\.010"),
        (Scores(31.0, 0.5, 0.7), r"identity \+0\.000"),
        (Scores(29.0, 0.5, 0.8), r"PSNR -1\.00 dB"),
    ],
)
def test_a_network_that_is_not_better_is_not_written(
    tmp_path: Path, after: Scores, reason: str
) -> None:
    path = tmp_path / "anna.safetensors"
    with pytest.raises(VidrestoreError, match=rf"not better than gpen-512 .*{reason}"):
        write_personal_file(path, network(), record(after), **COUNTS)
    assert list(tmp_path.iterdir()) == []


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"must end in \.safetensors"):
        write_personal_file(tmp_path / "a.pth", network(), record(Scores(31, 1, 1)), **COUNTS)


def test_other_files_have_no_description(tmp_path: Path) -> None:
    save_file(network().state_dict(), tmp_path / "plain.safetensors")
    torch.save(network().state_dict(), tmp_path / "plain.pth")
    assert read_description(tmp_path / "plain.safetensors") is None
    assert read_description(tmp_path / "plain.pth") is None


@pytest.mark.parametrize(
    "change",
    [
        {"embedding": [1.0, 1.0]},
        {"embedding": [float("nan"), 1.0]},
        {"embedding": [[1.0]]},
        {"embedding": [10**400]},  # no float
        {"embedding": [1e300]},  # no float32
        {"embedding": [1.0] + [0.0] * 10_000},
        {"steps": "3"},
        {"steps": -1},
        {"steps": 10**300},
        {"before": {}},
        {"before": {"psnr_db": "\x1b[2J", "detail": 1.0, "identity": None}},
        {"base": 1},
        {"base": "x" * 10**6},
    ],
)
def test_a_damaged_description_is_named(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "anna.safetensors"
    write_personal_file(path, network(), record(Scores(31.0, 0.5, 0.8)), **COUNTS)
    with safe_open(path, framework="pt") as file:
        fields = json.loads(file.metadata()["vidrestore"]) | change
    save_file(load_file(path), path, {"vidrestore": json.dumps(fields)})
    with pytest.raises(WeightsError, match=r"the description in .* is damaged") as refused:
        read_description(path)
    told = str(refused.value)
    assert len(told) < len(str(path)) + 250
    assert told.isprintable()


@pytest.mark.parametrize("entry", ["", "null", "[" * 100_000, '{"embedding":' + "1" * 5000 + "}"])
def test_a_description_that_is_no_json_of_ours_is_named(tmp_path: Path, entry: str) -> None:
    save_file(network().state_dict(), tmp_path / "anna.safetensors", {"vidrestore": entry})
    with pytest.raises(WeightsError, match=r"damaged \((it is no JSON|it lacks one)[^)]*\); make"):
        read_description(tmp_path / "anna.safetensors")


def test_half_a_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "anna.safetensors"
    save_file(network().state_dict(), path, {"vidrestore": "{}"})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WeightsError, match=r"anna\.safetensors is damaged: "):
        read_description(path)

"""The rule by which a device runs a network, with stand-ins that are wrong, slow, full or fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import gpen_formula

from vidrestore.common.errors import UsageError, WeightsError
from vidrestore.models import admission
from vidrestore.models.admission import (
    Exact,
    Form,
    first_admitted,
    kept_exact,
    psnr_db_of,
    ran_out_of_memory,
)
from vidrestore.models.gpen.inference import InferenceGPEN
from vidrestore.models.gpen.variants import WITHOUT_FLOAT64
from vidrestore.models.restorers import gpen as gpen_module
from vidrestore.models.restorers.gpen import Gpen, float32_result, psnr_to_float32_db

PICTURE = np.linspace(-1, 1, 300, dtype=np.float32).reshape(1, 3, 10, 10)
EXACT = Exact(PICTURE, seconds=0.05)
Run = Callable[[], Any]


def sound() -> Any:
    return PICTURE + 1e-4


def wrong() -> Any:
    return PICTURE + 0.01  # 46 dB


def not_finite() -> Any:
    return np.full_like(PICTURE, np.nan)


def of_another_shape() -> Any:
    return PICTURE[..., :5]


class Clock:
    """Goes on only for who says so; that of a busy machine goes on for everyone."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def perf_counter(self) -> float:
        return self.seconds


CLOCK = Clock()


@pytest.fixture(autouse=True)
def own_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "time", CLOCK)


def slow() -> Any:
    CLOCK.seconds += 0.06
    return PICTURE


def failing() -> Any:
    raise RuntimeError("no kernel for this operation\nand a second line")


def full() -> Any:
    raise RuntimeError("MPS backend out of memory (MPS allocated: 3.9 GB)")


def damaged() -> Any:
    raise WeightsError("the file is damaged")


def chosen(
    *runs: Run, otherwise: str | None = "the processor runs it", least_db: float = 60.0
) -> tuple[str | None, list[str]]:
    notices: list[str] = []
    forms = [Form(f"form {i}", lambda: "network", lambda network, run=run: run(), least_db)
             for i, run in enumerate(runs)]  # fmt: skip
    admitted = first_admitted(
        "net", forms, lambda: EXACT, otherwise=otherwise, on_notice=notices.append
    )
    return (None if admitted is None else admitted[0].name), notices


def test_a_device_that_gives_what_the_processor_gives_is_used_without_a_word() -> None:
    assert chosen(sound, wrong) == ("form 0", [])
    assert chosen(sound, otherwise=None) == ("form 0", [])


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (wrong, "the PSNR of its result to the processor's in float32 is 46 dB, less than 60 dB"),
        (not_finite, "is -inf dB, less than 60 dB"),
        (of_another_shape, "is -inf dB, less than 60 dB"),
        (failing, "it fails (no kernel for this operation)"),
        (full, "it does not fit into the memory (MPS backend out of memory (MPS allocated: 3.9 GB"),
        (slow, "s for a picture and the processor 0.05 s"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_what_is_wrong_slow_or_fails_gives_way_with_a_notice(run: Run, reason: str) -> None:
    name, notices = chosen(run, sound)
    assert name == "form 1"
    assert len(notices) == 1
    assert notices[0].startswith("net does not run in form 0, because ")
    assert reason in notices[0]
    assert notices[0].endswith("; form 1 is tried")
    name, notices = chosen(run, run)
    assert name is None
    assert len(notices) == 2
    assert notices[1].endswith("; the processor runs it")
    assert not any("\n" in each for each in notices)


def test_a_device_that_the_user_named_is_refused_or_is_slow_as_asked() -> None:
    with pytest.raises(UsageError) as error:
        chosen(failing, wrong, otherwise=None)
    assert str(error.value) == (
        "net cannot run in form 1: the PSNR of its result to the processor's in float32 is 46 dB, "
        "less than 60 dB; use --device cpu or --device auto"
    )
    name, notices = chosen(slow, otherwise=None)
    assert name == "form 0"
    assert notices[0].startswith("net runs in form 0 as asked, though it takes ")


def test_what_does_not_fit_anywhere_is_an_error_of_memory_that_names_the_reason() -> None:
    assert chosen(full, sound, otherwise=None)[0] == "form 1"
    with pytest.raises(MemoryError, match="MPS backend out of memory"):
        chosen(wrong, full, otherwise=None)
    with pytest.raises(UsageError, match="46 dB"):
        chosen(full, wrong, otherwise=None)


def test_a_damaged_file_is_no_matter_of_the_device() -> None:
    with pytest.raises(WeightsError, match="the file is damaged"):
        chosen(damaged, sound)


def test_a_number_format_that_the_user_named_has_a_limit_of_its_own() -> None:
    assert chosen(wrong, otherwise=None, least_db=38.0)[0] == "form 0"


def test_out_of_memory_is_known_by_its_kind_its_text_or_its_cause() -> None:
    hidden = RuntimeError("capture was invalidated")
    hidden.__context__ = torch.OutOfMemoryError("no room")
    for error in (MemoryError(), torch.OutOfMemoryError("no room"), hidden,
                  RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
                  RuntimeError("XPU out of memory. Tried to allocate 2 GiB")):  # fmt: skip
        assert ran_out_of_memory(error)
    assert not ran_out_of_memory(RuntimeError("no kernel"))


def test_the_result_of_the_processor_is_kept_and_measured_again_where_damaged(
    tmp_path: Path,
) -> None:
    measured = []

    def measure() -> Exact:
        measured.append(1)
        return EXACT

    folder = tmp_path / "float32"
    for _ in range(2):
        kept = kept_exact(folder, "net, weights 1", measure)
        assert psnr_db_of(kept.result, EXACT) > 80
        assert (kept.seconds, kept.span) == (EXACT.seconds, EXACT.span)
    assert len(measured) == 1
    kept_exact(folder, "net, weights 2", measure)
    assert len(measured) == 2
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:-100])
    assert np.array_equal(kept_exact(folder, "net, weights 1", measure).result, PICTURE)
    assert len(measured) == 3
    first, second = folder.iterdir()
    second.write_bytes(first.read_bytes())  # one in the place of another
    for key in ("net, weights 1", "net, weights 2"):
        kept_exact(folder, key, measure)
    assert len(measured) > 3
    for i in range(12):
        kept_exact(folder, f"net, weights {i}", measure)
    assert len(list(folder.iterdir())) == 8


MPS, XPU = torch.device("mps"), torch.device("xpu")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "GPEN-64.pth"
    torch.save(gpen_formula.build("gpen-64").state_dict(), path)
    return path


class Devices:
    """Stands in for devices: computes on the processor, after what `does` to the result."""

    def __init__(self, patch: pytest.MonkeyPatch, does: Callable[[str, str, Any], Any]) -> None:
        self.tried: list[str] = []
        patch.setattr(gpen_module, "to_device", lambda tensor, device: tensor)

        def prepared(own: Gpen, gpen: Any, dtype: Any, device: Any, batch: Any = None) -> Any:
            network = InferenceGPEN(gpen, torch.float32, WITHOUT_FLOAT64)
            name = str(dtype).removeprefix("torch.")
            self.tried.append(f"{name} on {device}")
            return lambda image: does(device.type, name, network(image))

        patch.setattr(Gpen, "_prepared", prepared)


def test_gpen_takes_the_next_number_format_and_the_next_device(
    weights: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def does(device: str, number_format: str, result: Any) -> Any:
        if device == "mps":
            raise RuntimeError("the operator is not implemented for MPS")
        return result + 0.1 if number_format == "float16" else result

    devices, notices = Devices(monkeypatch, does), list[str]()
    monkeypatch.setattr(gpen_module, "kept_exact",
                        lambda *given: Exact(given[2]().result, seconds=100.0))  # fmt: skip
    monkeypatch.setattr(gpen_module, "run_as", lambda device, *how: str(device))
    restorer = Gpen(weights, device=MPS, others=(XPU, CPU), number_format="auto",
                    exact_folder=tmp_path, on_notice=notices.append)  # fmt: skip
    assert devices.tried == ["float16 on mps", "bfloat16 on mps", "float32 on mps",
                             "float16 on xpu", "bfloat16 on xpu"]  # fmt: skip
    assert restorer.dtype == torch.bfloat16
    assert len(notices) == 4
    assert "xpu" in restorer.cache_key
    assert restorer.is_cheap
    windows = torch.rand(2, 1, 3, 64, 64)
    assert restorer(windows).shape == (2, 3, 64, 64)


def test_gpen_keeps_the_time_of_the_processor_for_the_form_that_it_runs(
    weights: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Devices(monkeypatch, lambda *given: given[2])
    monkeypatch.setattr(gpen_module, "run_as", lambda device, *how: str(device))
    for capability, kept in (("DEFAULT", 1), ("AVX2", 2), ("AVX512", 2)):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda at=capability: at)
        Gpen(weights, device=XPU, others=(CPU,), exact_folder=tmp_path)
        assert len(list(tmp_path.glob("*.exact"))) == kept


def test_gpen_runs_on_the_processor_where_no_device_is_right(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices, notices = Devices(monkeypatch, lambda *given: given[2] * 0.9), list[str]()
    restorer = Gpen(weights, device=XPU, others=(CPU,), on_notice=notices.append)
    assert len(devices.tried) == 3
    assert notices[-1].endswith("; the processor runs it")
    assert not restorer.is_cheap
    assert "xpu" not in restorer.cache_key
    with pytest.raises(UsageError, match=r"gpen-64 cannot run in float32 on xpu: the PSNR"):
        Gpen(weights, device=XPU, number_format="float32")


def test_gpen_that_does_not_fit_runs_on_the_next_device_unless_the_user_named_it(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def does(device: str, number_format: str, result: Any) -> Any:
        if device == "mps":
            return result
        raise torch.OutOfMemoryError("XPU out of memory. Tried to allocate 2 GiB")

    devices, notices = Devices(monkeypatch, does), list[str]()
    monkeypatch.setattr(gpen_module, "kept_exact",
                        lambda *given: Exact(given[2]().result, seconds=100.0))  # fmt: skip
    restorer = Gpen(weights, device=XPU, others=(MPS, CPU), on_notice=notices.append)
    assert restorer.is_cheap
    assert devices.tried[-2:] == ["float32 on xpu", "float16 on mps"]
    assert len(notices) == 3
    assert all("it does not fit into the memory (XPU out of memory" in each for each in notices)
    assert not Gpen(weights, device=XPU, others=(CPU,)).is_cheap
    with pytest.raises(MemoryError, match="XPU out of memory"):
        Gpen(weights, device=XPU)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_device_without_float64_can_be_admitted(dtype: torch.dtype) -> None:
    gpen = gpen_formula.build("gpen-64")
    network = InferenceGPEN(gpen, dtype, WITHOUT_FLOAT64)
    held: Sequence[Any] = [*network.buffers()]
    assert not any(each.dtype == torch.float64 for each in held)
    assert psnr_to_float32_db(network, float32_result(gpen)) > 65

"""Where networks run, what is said of a device that cannot be used, and what fits into it."""

import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import gpen_formula
from helpers.media import plain_face, random_image
from helpers.stand_in_networks import Shelf

from vidrestore.common.errors import ConfigError, UsageError, WeightsError
from vidrestore.common.profiles import load_settings
from vidrestore.common.settings import Restore
from vidrestore.imaging.frame import Frame
from vidrestore.models import devices, factory
from vidrestore.models.devices import (
    choose_device,
    choose_devices,
    has_room,
    picture_device,
    what_fits,
)
from vidrestore.models.restorers import Restorer, all_finite
from vidrestore.models.restorers.adaptive import AdaptiveGpen, tier_for
from vidrestore.models.restorers.gpen import Gpen
from vidrestore.restoration.batching import restore
from vidrestore.restoration.faces import FaceFrame
from vidrestore.restoration.statistics import RestorationStats

CUDA = torch.device("cuda")
GB = 10**9


class Machine:
    """What torch.cuda says of a machine; one 8 GB card with a driver that suits, as it is."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.patch = patch
        self.share: dict[int, float] = {}
        patch.setattr(torch.version, "cuda", "12.8")
        self.says(
            is_available=lambda: True,
            device_count=lambda: 1,
            get_device_properties=lambda index: SimpleNamespace(total_memory=8 * GB),
            mem_get_info=lambda index: (7 * GB, 8 * GB),
            memory_allocated=lambda index: 0,
            memory_reserved=lambda index: 0,
            get_per_process_memory_fraction=lambda index: self.share.get(index, 1.0),
            set_per_process_memory_fraction=lambda share, index: self.share.update({index: share}),
        )
        patch.setattr(torch, "zeros", lambda *shape, **how: torch.ones(1))
        patch.setattr(devices.shutil, "which", lambda name: None)

    def says(self, **answers: Any) -> None:
        for name, answer in answers.items():
            self.patch.setattr(torch.cuda, name, answer)

    def has_nvidia_smi(self) -> None:
        self.patch.setattr(devices.shutil, "which", lambda name: f"/usr/bin/{name}")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def how(**values: Any) -> Restore:
    return Restore(**values)


def refused(wanted: Restore) -> str:
    with pytest.raises(UsageError) as error:
        choose_device(wanted)
    return str(error.value)


def test_auto_takes_the_card_and_bounds_its_memory(machine: Machine) -> None:
    assert choose_device(how()) == CUDA
    assert machine.share == {0: 1.0}
    assert choose_device(how(max_vram_gb=6)) == CUDA
    assert machine.share == {0: 0.75}
    assert choose_device(how(device="cuda:0", max_vram_gb=24)).index == 0
    assert machine.share == {0: 1.0}
    assert choose_device(how(device="cpu")).type == "cpu"


def test_a_card_that_is_not_there_is_named(machine: Machine) -> None:
    assert refused(how(device="cuda:7")) == (
        "there is no device cuda:7: the number of CUDA devices is 1; "
        "use --device cpu or --device auto"
    )


def test_a_driver_that_is_too_old_is_told_in_one_sentence(machine: Machine) -> None:
    def is_available() -> bool:
        found = "The NVIDIA driver on your system is too old (found version 11040)."
        warnings.warn(f"CUDA initialization: {found}\n(Triggered internally)", stacklevel=1)
        return False

    machine.says(is_available=is_available)
    machine.has_nvidia_smi()
    said = refused(how(device="cuda"))
    assert "driver on your system is too old (found version 11040)" in said
    assert "\n" not in said
    told: list[str] = []
    assert choose_device(how(max_vram_gb=6), told.append).type == "cpu"
    assert len(told) == 2
    assert told[0].endswith("; networks run on the processor")
    assert told[1].startswith("--max-vram 6 has no effect")
    machine.says(is_available=lambda: False)
    assert "the driver may be too old" in refused(how(device="cuda"))


def test_a_card_that_fails_at_first_use_is_not_used(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*shape: int, **where: Any) -> None:
        raise RuntimeError("CUDA error: no kernel image is available\nCUDA kernel errors might")

    monkeypatch.setattr(torch, "zeros", fails)
    machine.has_nvidia_smi()
    assert "fails at its first computation (CUDA error: no kernel image is available)" in refused(
        how(device="cuda")
    )
    told: list[str] = []
    assert choose_device(how(), told.append).type == "cpu"
    assert len(told) == 1


def test_a_torch_for_processors_says_so(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    told: list[str] = []
    assert choose_device(how(), told.append).type == "cpu"
    assert told == []  # nothing is amiss
    machine.has_nvidia_smi()
    choose_device(how(), told.append)
    assert "built for processors only, though nvidia-smi is installed" in told[0]


def test_auto_lists_the_devices_of_all_kinds(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kinds(**values: Any) -> list[str]:
        return [device.type for device in choose_devices(how(**values))]

    assert kinds() == ["cuda", "cpu"]
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.xpu, "is_available", lambda: True)
    assert kinds() == ["cuda", "mps", "xpu", "cpu"]
    assert kinds(device="mps") == ["mps"]
    assert picture_device(how()) == CUDA
    machine.says(is_available=lambda: False)
    assert kinds() == ["mps", "xpu", "cpu"]
    # The stages around the network use what those devices lack.
    assert picture_device(how()).type == picture_device(how(device="xpu")).type == "cpu"
    assert has_room("gpen-2048", how(), torch.device("mps"))
    assert what_fits(how(), torch.device("xpu")).endswith("--restorer gpen-512 or --device cpu")

    def fails(*shape: int, **where: Any) -> None:
        raise RuntimeError("the driver is too old for this torch")

    monkeypatch.setattr(torch, "zeros", fails)
    told: list[str] = []
    assert [device.type for device in choose_devices(how(), told.append)] == ["cpu"]
    assert [each.split(" (")[0] for each in told] == [
        "mps fails at its first computation", "xpu fails at its first computation",
    ]  # fmt: skip
    assert all(each.endswith("; networks run on the processor") for each in told)


def test_a_device_of_another_kind_that_is_missing_is_refused() -> None:
    for name in ("mps", "xpu"):
        assert refused(how(device=name)).startswith(f"there is no device {name}: torch ")
        assert f"--device {name} is none; leave out one" in refused(how(device=name, max_vram_gb=6))
    for name in ("mps:1", "tpu", "cuda:"):
        with pytest.raises(ConfigError, match=r"restore\.device"):
            load_settings(None, [f"restore.device={name}"])


def test_a_bound_that_bounds_nothing_is_refused() -> None:
    assert "leave out one of them" in refused(how(device="cpu", max_vram_gb=6))
    with pytest.raises(ConfigError, match=r"restore\.max_vram_gb"):
        load_settings(None, ["restore.max_vram_gb=-1"])


def test_what_fits_is_named(machine: Machine) -> None:
    assert has_room("gpen-2048", how(), CUDA)
    assert not has_room("gpen-2048", how(number_format="float32", max_vram_gb=3), CUDA)
    assert not has_room("gpen-2048", how(max_vram_gb=1.8), CUDA)
    assert has_room("gpen-2048", how(max_vram_gb=1.8), torch.device("cpu"))
    bounded = how(max_vram_gb=1.8)
    choose_device(bounded)
    assert what_fits(bounded, CUDA) == "--restorer gpen-1024 or a larger --max-vram or --device cpu"
    machine.says(mem_get_info=lambda index: (GB // 10, 8 * GB))
    assert what_fits(how(), CUDA) == "--device cpu"


def test_a_network_that_does_not_fit_is_one_sentence(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any, **options: Any) -> None:
        raise MemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(factory, "open_restorer", full)
    settings = load_settings(None, ["restore.max_vram_gb=1.8"])
    with pytest.raises(WeightsError) as error:
        factory.chosen_restorer(settings, None)
    assert str(error.value) == (
        "gpen-2048 does not fit into the memory of the device; use --restorer gpen-1024 or a "
        "larger --max-vram or --device cpu"
    )


def test_a_face_gets_the_largest_tier_that_has_room() -> None:
    here = {"gpen-256", "gpen-512", "gpen-2048"}.__contains__
    fits = {"gpen-256", "gpen-512", "gpen-1024"}.__contains__
    assert [tier_for(side, here, fits) for side in (200, 512, 700)] == [
        "gpen-256", "gpen-512", "gpen-512",
    ]  # fmt: skip
    assert tier_for(700, here, lambda name: False) == "gpen-2048"  # whose opening says what is
    shelf = Shelf(256, 512, 1024, 2048)
    tiers = AdaptiveGpen(shelf.open, find_weights=shelf.find, is_available=shelf.here.__contains__,
                  has_room=fits, on_notice=shelf.told.append)  # fmt: skip
    assert tiers.for_crop_size(2048).name == "gpen-1024"
    assert shelf.told == [
        "gpen-2048 does not fit into the device's memory; gpen-1024 restores its faces"
    ]


def test_tiers_make_room_for_one_another() -> None:
    class Greedy(Restorer):
        """Takes all the memory until it is released."""

        reach_frames, template = 0, "gpen"
        holder: Any = None

        def __init__(self, name: str) -> None:
            self.name, self.size = name, int(name.removeprefix("gpen-"))
            self.most_at_once = 3

        def __call__(self, windows: torch.Tensor) -> torch.Tensor:
            if Greedy.holder not in (None, self):
                raise torch.OutOfMemoryError("no room")
            Greedy.holder = self
            return windows[:, 0].clone()

        def release(self) -> None:
            if Greedy.holder is self:
                Greedy.holder = None

    shelf = Shelf(256, 512)
    tiers = AdaptiveGpen(Greedy, find_weights=shelf.find, is_available=shelf.here.__contains__)
    for side in (256, 512, 256):
        window = torch.rand(1, 1, 3, side, side)
        assert torch.equal(tiers(window), window[:, 0])
    assert tiers.for_crop_size(512).most_at_once == 3


def test_batches_are_as_large_as_memory_allows() -> None:
    sizes = []

    class Noting(Restorer):
        name, size, reach_frames, template = "noting", None, 0, "gpen"
        most_at_once = 2

        def __call__(self, windows: torch.Tensor) -> torch.Tensor:
            sizes.append(len(windows))
            return windows[:, 0].clone()

    def run(**settings: Any) -> list[int]:
        sizes.clear()
        own = {"max_waiting_frames": 4, "repeats": False} | settings
        wanted = load_settings(options={f"restore.{k}": v for k, v in own.items()})
        frame = Frame(0, 0, random_image(32, 32, "yuv420p", 0))
        faces = tuple(plain_face(torch.rand(3, 16, 16), track_id=i) for i in range(6))
        list(restore(iter([FaceFrame(frame, faces)]), Noting(), RestorationStats(),
                     wanted.restore, device=CUDA))  # fmt: skip
        return list(sizes)

    assert run() == [2, 2, 2]
    assert run(batch_size=3) == [3, 3]


def test_what_did_not_fit_is_not_tried_again(tmp_path: Any) -> None:
    path = tmp_path / "GPEN-64.pth"
    torch.save(gpen_formula.build("gpen-64").state_dict(), path)
    gpen = Gpen(path, device=torch.device("cpu"), number_format="float32")
    assert gpen.most_at_once is None

    def full(image: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("no room")

    gpen._network = full
    with pytest.raises(torch.OutOfMemoryError):
        gpen(torch.zeros(4, 1, 3, 64, 64))
    assert gpen.most_at_once == 2


def test_a_face_is_finite_as_a_whole() -> None:
    faces = torch.rand(4, 3, 8, 8).to(memory_format=torch.channels_last)
    faces[1, 2, 3, 4] = float("nan")
    faces[2, 0, 0, 0], faces[2, 1, 1, 1] = float("inf"), float("-inf")
    assert all_finite(faces).tolist() == [True, False, False, True]

"""GPEN on a CUDA device; and on none, what recording does when it works, fails or has no room.

Needs torch, numpy and pytest alone, so that it runs on a machine that is only lent.
"""

import pickle
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import gpen_formula as formula
from torch import Tensor

from vidrestore.models.gpen import cuda, variants
from vidrestore.models.gpen.cuda import CudaGPEN
from vidrestore.models.gpen.inference import InferenceGPEN, Workspace
from vidrestore.models.gpen.memory import batch_that_fits, bytes_needed, free_bytes, weight_bytes
from vidrestore.models.gpen.network import GPEN, GPENConfig

HALF = torch.float16
DEVICE = torch.device("cuda", 0)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


class Recording:
    """Stands in for torch.cuda on a CPU: what is recorded is computed again at each replay."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.failures: list[Exception] = []
        self.recorded: list[int] = []
        self._at: Any = None
        compute = InferenceGPEN.compute

        def noted(
            network: InferenceGPEN,
            image: Tensor,
            workspace: Workspace,
            latent: Tensor | None = None,
        ) -> Tensor:
            result = compute(network, image, workspace, latent)
            if self._at is not None:
                self.recorded.append(len(image))
                self._at.replay = lambda: result.copy_(compute(network, image, workspace))
            return result

        patch.setattr(InferenceGPEN, "compute", noted)
        stream = SimpleNamespace(
            wait_event=lambda event: None, wait_stream=lambda other: None, synchronize=lambda: None
        )
        event = SimpleNamespace(record=lambda stream: None)
        for name, stand_in in {
            "device": lambda device: nullcontext(),
            "stream": lambda stream: nullcontext(),
            "current_stream": lambda device=None: stream,
            "set_stream": lambda stream: None,
            "Stream": lambda device: stream,
            "Event": lambda: event,
            "graph_pool_handle": lambda: (0, 1),
            "CUDAGraph": SimpleNamespace,
            "graph": self._graph,
            "empty_cache": lambda: None,
        }.items():
            patch.setattr(torch.cuda, name, stand_in)

    @contextmanager
    def _graph(self, graph: Any, **how: Any) -> Iterator[None]:
        assert how["capture_error_mode"] == "thread_local"
        if self.failures:
            raise self.failures.pop(0)
        self._at = graph
        yield
        self._at = None


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> Recording:
    return Recording(monkeypatch)


@pytest.fixture(scope="module")
def small() -> InferenceGPEN:
    return InferenceGPEN(formula.build("gpen-64"))


def faces(count: int, size: int = 64) -> Tensor:
    random = torch.Generator().manual_seed(count)
    return torch.rand(count, 3, size, size, generator=random) * 2 - 1


def test_each_batch_size_is_recorded_once(recording: Recording, small: InferenceGPEN) -> None:
    network = CudaGPEN(small, batch=3)
    first = network(faces(2))
    for count in (2, 3, 1, 2):
        assert torch.equal(network(faces(count)), small(faces(count)))
    assert torch.equal(first, small(faces(2)))  # the caller's own, whatever came after
    assert recording.recorded == [2, 3, 1]
    network(faces(4))  # more than was reserved
    network(faces(2))
    assert recording.recorded == [2, 3, 1, 4, 2]
    network.release()
    assert torch.equal(network(faces(2)), small(faces(2)))


def test_where_recording_fails_it_is_said_once(recording: Recording, small: InferenceGPEN) -> None:
    recording.failures = [RuntimeError("operation not permitted\nwhen capturing")]
    told: list[str] = []
    network = CudaGPEN(small, on_notice=told.append)
    for _ in range(2):
        assert torch.equal(network(faces(1)), small(faces(1)))
    assert not network.uses_graphs
    assert len(told) == 1
    assert "(operation not permitted)" in told[0]


def test_where_there_is_no_room_smaller_batches_still_go(
    recording: Recording, small: InferenceGPEN
) -> None:
    hidden = RuntimeError("capture was invalidated")
    hidden.__context__ = torch.OutOfMemoryError("no room")
    recording.failures = [hidden]
    told: list[str] = []
    network = CudaGPEN(small, batch=4, on_notice=told.append)
    with pytest.raises(torch.OutOfMemoryError):
        network(faces(4))
    assert torch.equal(network(faces(2)), small(faces(2)))
    # With other sizes held there may be room once they are gone.
    recording.failures = [torch.OutOfMemoryError("no room")]
    assert torch.equal(network(faces(1)), small(faces(1)))
    assert recording.recorded == [2, 1]
    assert network.uses_graphs
    assert told == []


def test_a_copy_for_another_process_records_its_own(
    recording: Recording, small: InferenceGPEN
) -> None:
    network = CudaGPEN(small, on_notice=print)
    wanted = network(faces(1))
    assert torch.equal(pickle.loads(pickle.dumps(network))(faces(1)), wanted)
    assert recording.recorded == [1, 1]


def test_a_wrong_shape_is_named(small: InferenceGPEN) -> None:
    with pytest.raises(ValueError, match=r"\(B, 3, 64, 64\), got \(1, 3, 32, 32\)"):
        CudaGPEN(small)(faces(1, 32))


def test_blurs_folded_or_not_give_the_same() -> None:
    gpen, image = formula.build("gpen-64"), formula.inputs("gpen-64")
    plain = InferenceGPEN(gpen)(image)
    for form in (variants.InferenceForm(64, 8), variants.InferenceForm(8192, 8192)):
        assert formula.relative_rms(InferenceGPEN(gpen, form=form)(image), plain) <= 5e-6


def test_what_triton_cannot_do_torch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    found = cuda.triton_kernels(torch.device("cpu"), told.append)
    assert found is None
    assert len(told) <= 1  # none where triton is not installed
    module = SimpleNamespace(TritonKernels=Wrong)
    monkeypatch.setitem(__import__("sys").modules, "vidrestore.models.gpen.triton_kernels", module)
    assert cuda.triton_kernels(torch.device("cpu"), told.append) is None
    assert told[-1].startswith("Triton cannot be used (its kernel is wrong by ")


class Wrong:
    def activate(self, y: Tensor, bias: Tensor, out: Tensor) -> None:
        out.fill_(3)

    def join(self, y: Tensor, feature: Tensor, out: Tensor, **how: Any) -> None:
        out.fill_(3)


def test_memory_is_taken_from_shapes() -> None:
    small = InferenceGPEN(formula.build("gpen-256"), HALF)
    held = sum(each.numel() * each.element_size() for each in small.buffers())
    assert held <= weight_bytes(small.config, HALF) <= 1.5 * held
    needed = {
        size: bytes_needed(GPENConfig(size), HALF, 1) / 1e9 for size in (256, 512, 1024, 2048)
    }
    assert list(needed.values()) == sorted(needed.values())
    assert 0.9 < needed[2048] < 3
    full = GPENConfig(2048)
    assert bytes_needed(full, torch.float32, 1) > 1.5 * bytes_needed(full, HALF, 1)
    batches = [batch_that_fits(gb * 1e9, full, HALF, 4) for gb in (1, 3, 6, 8, 24)]
    assert batches == [0, 1, 3, 4, 4]


@pytest.fixture(scope="module")
def pictures() -> GPEN:
    """Formula weights whose output spreads as pictures do."""
    gpen = formula.build("gpen-256")
    for name, parameter in gpen.named_parameters():
        if ".to_rgb" in name and name.endswith("conv.weight"):
            parameter.mul_(0.25)
    return gpen


def on_cuda(gpen: GPEN, dtype: torch.dtype = HALF, **how: Any) -> CudaGPEN:
    return CudaGPEN(InferenceGPEN(gpen, dtype, cuda.form_for(DEVICE)).to(DEVICE), **how)


@needs_cuda
def test_a_graph_gives_what_launching_gives_bit_for_bit(pictures: GPEN) -> None:
    told: list[str] = []
    graphs = on_cuda(pictures, batch=3, on_notice=told.append)
    eager = on_cuda(pictures, use_graphs=False)
    for count in (2, 1, 3, 2):
        image = faces(count, 256).to(DEVICE)
        assert torch.equal(graphs(image), eager(image))
    assert graphs.uses_graphs, told


@needs_cuda
def test_a_batch_is_its_faces(pictures: GPEN) -> None:
    network, image = on_cuda(pictures, batch=2), faces(2, 256).to(DEVICE)
    alone = torch.cat([network(one[None]) for one in image])
    assert formula.relative_rms(network(image).cpu(), alone.cpu()) <= 1e-3


@needs_cuda
@pytest.mark.parametrize("name", ["gpen-64", "gpen-256", "gpen-512", "gpen-2048"])
def test_float16_stays_close_to_float32(name: str) -> None:
    gpen, image = formula.build(name), formula.inputs(name).to(DEVICE)
    exact = on_cuda(gpen, torch.float32)(image).cpu()
    assert formula.relative_rms(on_cuda(gpen)(image).cpu(), exact) <= 1.5e-3
    torch.cuda.empty_cache()
    wanted, measured = formula.expected(name), formula.measured(name, exact)
    assert formula.relative_rms(measured["strided"], wanted["strided"]) <= 5e-5


@needs_cuda
def test_a_picture_is_that_of_the_processor(pictures: GPEN) -> None:
    image = formula.inputs("gpen-256")
    wanted = InferenceGPEN(pictures)(image).clamp(-1, 1) / 2
    got = on_cuda(pictures)(image.to(DEVICE)).cpu().clamp(-1, 1) / 2
    off = (got - wanted).abs().numpy() * 255
    assert off.mean() <= 1
    assert np.quantile(off, 0.999) <= 3


@needs_cuda
def test_several_threads_get_their_own(pictures: GPEN) -> None:
    network = on_cuda(pictures, batch=3)
    images = [faces(count, 256).to(DEVICE) for count in (1, 2, 3)]
    wanted = [network(image) for image in images]
    wrong: list[int] = []

    def work(i: int) -> None:
        with torch.cuda.stream(torch.cuda.Stream(DEVICE)):
            for _ in range(20):
                if not torch.equal(network(images[i]), wanted[i]):
                    wrong.append(i)

    torch.cuda.synchronize()
    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@needs_cuda
def test_six_gigabytes_suffice_for_2048() -> None:
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(DEVICE).total_memory
    gpen = formula.build("gpen-2048")
    try:
        torch.cuda.set_per_process_memory_fraction(6e9 / total, 0)
        torch.cuda.reset_peak_memory_stats()
        batch = batch_that_fits(free_bytes(DEVICE), gpen.config, HALF, 4)
        assert batch >= 1
        network = on_cuda(gpen, batch=batch)
        assert network(faces(batch, 2048).to(DEVICE)).isfinite().all()
        assert network.uses_graphs
        assert torch.cuda.max_memory_reserved() <= 6e9
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, 0)

"""A prepared GPEN on a CUDA device: recorded once for each batch size, then replayed.

A face takes some 200 launches, more than the device needs to run them below 1024 px; a CUDA graph
is one.  See "CUDA Graphs" in torch's notes on CUDA semantics for what recording demands.
"""

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from vidrestore.models.gpen import ops, variants
from vidrestore.models.gpen.inference import InferenceGPEN, Workspace

WARM_UPS = 2  # before recording: libraries choose and load what they run, Triton compiles
# Sides in px; not measured on any GPU (benchmarks/gpen_cuda.py prints both ways for each level).
FOLD_UP_FROM = 256
FOLD_DOWN_FROM = 512
PROBE_SIDE, PROBE_CHANNELS = 8, 16
PROBE_TOLERANCE = 4e-3  # of float16, on values of about one

OnNotice = Callable[[str], None]


def form_for(
    device: torch.device, on_notice: OnNotice = lambda message: None
) -> variants.InferenceForm:
    """The form for a CUDA device: with Triton's kernels where they are there and right."""
    return variants.InferenceForm(FOLD_UP_FROM, FOLD_DOWN_FROM, triton_kernels(device, on_notice))


def triton_kernels(device: torch.device, on_notice: OnNotice) -> variants.Kernels | None:
    """None where Triton is not installed, or, which is said, does not do what torch does."""
    try:
        from vidrestore.models.gpen.triton_kernels import TritonKernels
    except ImportError:
        return None
    try:
        kernels = TritonKernels()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a compiler's, to programmers
            error = _probe_error(kernels, device)
    except Exception as problem:  # a compiler or driver that is missing may raise anything
        lines = str(problem).strip().splitlines() or [type(problem).__name__]
        on_notice(f"Triton cannot be used here ({lines[0]}); torch does its part, more slowly")
        return None
    if not error <= PROBE_TOLERANCE:
        on_notice(f"Triton's kernels are {error:.1g} off here; torch does their part, more slowly")
        return None
    return kernels


def _probe_error(kernels: variants.Kernels, device: torch.device) -> float:
    """Largest difference of `join` from the same in torch, on a small layer."""
    shape = (1, PROBE_CHANNELS, PROBE_SIDE, PROBE_SIDE)
    random = torch.Generator().manual_seed(0)
    y, feature = (
        torch.randn(shape, generator=random).to(device, torch.float16)
        .contiguous(memory_format=torch.channels_last)
        for _ in range(2)
    )  # fmt: skip
    bias = torch.linspace(-1, 1, PROBE_CHANNELS, device=device, dtype=torch.float16)
    room = torch.empty(
        1, PROBE_SIDE, PROBE_SIDE, 2 * PROBE_CHANNELS, dtype=torch.float16, device=device
    )
    kernels.join(y, feature, room, bias=bias, feature_bias=bias, feature_gain=0.5)
    both = torch.cat((y, 0.5 * feature), dim=1) + torch.cat((bias, bias))[:, None, None]
    wanted = torch.nn.functional.leaky_relu(both, ops.LEAKY_SLOPE)
    return float((room.permute(0, 3, 1, 2) - wanted).abs().max())


@contextmanager
def repeatable_convolutions() -> Iterator[None]:
    """float32 is float32, not TensorFloat-32, and the same input gives the same result."""
    with warnings.catch_warnings():
        # Some versions of torch announce another name for allow_tf32, which older ones lack.
        warnings.filterwarnings("ignore", message=".*TF32")
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        ):
            yield


class CudaGPEN:
    """Runs an `InferenceGPEN` that lies on a CUDA device, with its contract.

    The first call with a batch size records it.  Where that fails `on_notice` is told once and
    each call launches by itself from then on.  May be called from several threads and streams: one
    runs after the other, and what is returned is the caller's own.

    Args:
        network: the network, on its device.
        batch: the largest batch to come; a larger one is taken, and all is recorded again.
        use_graphs: False launches each call by itself.
    """

    def __init__(
        self,
        network: InferenceGPEN,
        *,
        batch: int = 1,
        use_graphs: bool = True,
        on_notice: OnNotice = lambda message: None,
    ) -> None:
        self.config, self.dtype = network.config, network.dtype
        self._network, self._say = network, on_notice
        self._most = batch
        self._use_graphs = use_graphs
        self._recorder: _Recorder | None = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Callable[[], "CudaGPEN"], tuple[()]]:
        """What is recorded stays in its process; a worker's copy records its own."""
        again = partial(CudaGPEN, self._network, use_graphs=self._use_graphs, on_notice=self._say)
        return again, ()

    @property
    def uses_graphs(self) -> bool:
        """False once recording has failed."""
        return self._use_graphs

    def __call__(self, image: Tensor) -> Tensor:
        """Restore `image` (B, 3, S, S), RGB in [-1, 1], on the network's device.

        Returns float32 of the same shape, channels last in memory, not clamped.

        Raises:
            ValueError: `image` has another shape.
            torch.OutOfMemoryError: the device cannot hold the batch; what was held is freed.
        """
        self._network.check(image)
        with self._lock, torch.cuda.device(image.device):
            graph = self._graph(image) if self._use_graphs else None
            if graph is not None:
                return graph(image)
            try:
                with repeatable_convolutions():
                    restored: Tensor = self._network(image)
            except torch.OutOfMemoryError:
                self._network.release()
                raise
            return restored

    def release(self) -> None:
        """Free all memory but the weights'; the next call records anew."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        self._recorder = None
        self._network.release()
        torch.cuda.empty_cache()

    def _graph(self, image: Tensor) -> "_Graph | None":
        """None where recording failed, now or before."""
        reason, is_full = "", False
        for held in (self._recorder is not None, False):
            if self._recorder is not None and self._recorder.most < len(image):
                self._drop()  # before its successor is made
            try:
                return self._recorded(image)
            except Exception as error:  # a driver or a library may refuse in any way
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                is_full = is_out_of_memory(error)
            # Out of the handler, whose traceback holds on to the memory.
            self._drop()
            if not (is_full and held):  # else with room where other batch sizes were
                break
        if is_full:
            raise torch.OutOfMemoryError(reason)
        self._use_graphs = False
        self._say(f"CUDA graphs cannot be used here ({reason}); GPEN runs without, more slowly")
        return None

    def _recorded(self, image: Tensor) -> "_Graph":
        stream = torch.cuda.current_stream(image.device)
        try:
            if self._recorder is None:
                # What was too large once is not reserved again.
                most, self._most = max(self._most, len(image)), 1
                self._recorder = _Recorder(self._network, most, image.device)
            return self._recorder.graph(len(image))
        finally:
            # An error on leaving torch.cuda.graph skips its return to this stream.
            torch.cuda.set_stream(stream)


class _Recorder:
    """The memory that the graphs of all batch sizes work in, one at a time."""

    def __init__(self, network: InferenceGPEN, most: int, device: torch.device) -> None:
        self.most = most
        self._network = network
        size = network.config.size
        self._image = torch.zeros(most, 3, size, size, device=device)
        self._workspace = Workspace(network.config, most, network.dtype, device)
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._is_free = torch.cuda.Event()
        self._graphs: dict[int, _Graph] = {}

    def graph(self, batch: int) -> "_Graph":
        if batch not in self._graphs:
            self._graphs[batch] = self._recorded(batch)
        return self._graphs[batch]

    def _recorded(self, batch: int) -> "_Graph":
        image, workspace = self._image[:batch], self._workspace.first_images(batch)
        current = torch.cuda.current_stream()
        current.wait_event(self._is_free)
        self._stream.wait_stream(current)
        graph = torch.cuda.CUDAGraph()
        with repeatable_convolutions():
            with torch.cuda.stream(self._stream):
                for _ in range(WARM_UPS):
                    self._network.compute(image, workspace)
            current.wait_stream(self._stream)
            # thread_local: that other threads copy and allocate meanwhile does not harm this graph.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                restored = self._network.compute(image, workspace)
        return _Graph(graph, image, restored, self._is_free)


class _Graph:
    """One batch size: copies its input in, replays, copies the result out."""

    def __init__(
        self,
        graph: torch.cuda.CUDAGraph,
        image: Tensor,
        restored: Tensor,
        is_free: torch.cuda.Event,
    ) -> None:
        self._graph, self._image, self._restored, self._is_free = graph, image, restored, is_free

    def __call__(self, image: Tensor) -> Tensor:
        stream = torch.cuda.current_stream(image.device)
        stream.wait_event(self._is_free)  # another stream may still be at it
        self._image.copy_(image, non_blocking=True)
        self._graph.replay()
        result = self._restored.clone()
        self._is_free.record(stream)
        return result


def is_out_of_memory(error: BaseException | None) -> bool:
    """It is, or came of, an allocation that failed: errors while recording hide others."""
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False

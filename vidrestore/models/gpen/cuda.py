"""A prepared GPEN on a CUDA device: recorded once for each batch size, then replayed.

A face takes some 200 kernel launches. Below 1024 px they take longer than the kernels themselves; a
CUDA graph takes one launch. See "CUDA Graphs" in torch's notes on CUDA semantics for the
conditions of recording.
"""

import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from vidrestore.common.errors import UsageError
from vidrestore.models.gpen import variants
from vidrestore.models.gpen.inference import InferenceGPEN, Workspace
from vidrestore.models.gpen.kernel_forms import (
    FORMS,
    TOLERANCES,
    CheckedKernels,
    KernelForm,
    relative_error,
)

_log = logging.getLogger("vidrestore")

# Runs before recording, in which libraries choose and load their kernels, and Triton compiles.
WARM_UPS = 2
# Sides in pixels, measured level by level on an H200 (benchmarks/gpen_cuda.py): cuDNN's depthwise
# blur makes an unfolded level of the encoder 8 to 15 times slower, while Triton blurs the decoder's
# maps in the pass that joins them.
FOLD_UP_FROM = 2048
FOLD_UP_FROM_WITHOUT_TRITON = 256
FOLD_DOWN_FROM = 128

OnNotice = Callable[[str], None]


def is_plain() -> bool:
    """Return whether the environment switches hand-written kernels and CUDA graphs off.

    Returns:
        True where VIDRESTORE_CUDA is "plain".

    Raises:
        UsageError: VIDRESTORE_CUDA is something else.
    """
    value = os.environ.get("VIDRESTORE_CUDA", "")
    if value not in ("", "plain"):
        raise UsageError(
            f"VIDRESTORE_CUDA is {value!r}; set it to plain, which uses torch alone on a CUDA "
            "device, or unset it"
        )
    return bool(value)


def form_for(
    device: torch.device,
    on_notice: OnNotice = lambda message: None,
    dtype: torch.dtype = torch.float16,
) -> variants.InferenceForm:
    """Return the variant of GPEN for a CUDA device.

    Args:
        device: The CUDA device.
        on_notice: Receives the reason where installed Triton kernels cannot be used.
        dtype: Type of the maps. Default: float16.

    Returns:
        A form with Triton's kernels where `triton_kernels` has them.
    """
    kernels = triton_kernels(device, on_notice, dtype)
    blurs_by_triton = kernels is not None and all(
        form in kernels.right for form in FORMS if form.source == "blurred"
    )
    fold_up_from = FOLD_UP_FROM if blurs_by_triton else FOLD_UP_FROM_WITHOUT_TRITON
    return variants.InferenceForm(fold_up_from, FOLD_DOWN_FROM, kernels)


def triton_kernels(
    device: torch.device, on_notice: OnNotice, dtype: torch.dtype = torch.float16
) -> CheckedKernels | None:
    """Return Triton's kernels in those forms that work on the device.

    The function runs every form on made-up maps and compares its result with torch's.

    Args:
        device: The CUDA device.
        on_notice: Receives the reason where Triton is installed and cannot be used, and each form
            that is left to torch.
        dtype: Type of the maps. Default: float16.

    Returns:
        The kernels; None where Triton is not installed or switched off, or no form is right.
    """
    if is_plain():
        return None
    try:
        from vidrestore.models.gpen.triton_kernels import TritonKernels
    except ImportError:
        return None
    kernels, problems = TritonKernels(), dict[KernelForm, str]()
    for form in FORMS:
        if (problem := _problem(kernels, form, device, dtype)) is not None:
            problems[form] = problem
    if len(problems) == len(FORMS):
        reason = next(iter(problems.values()))
        on_notice(f"Triton cannot be used (its kernel {reason}); torch is used, which is slower")
        return None
    for form, problem in problems.items():
        on_notice(
            f"Triton's kernel {form.name} is not used, because it {problem}; torch computes it, "
            "which is slower"
        )
    return CheckedKernels(kernels, frozenset(FORMS) - frozenset(problems))


def _problem(
    kernels: variants.Kernels, form: KernelForm, device: torch.device, dtype: torch.dtype
) -> str | None:
    """Return why a form is not used, as the end of a clause; None where it is right."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings of the compiler are for programmers
            error = relative_error(kernels, form, device, dtype)
    except Exception as problem:  # a compiler or driver that is missing may raise anything
        lines = str(problem).strip().splitlines() or [type(problem).__name__]
        _log.info("Triton's kernel %s fails: %s", form.name, lines[0])
        return f"fails: {lines[0]}"
    return None if error <= TOLERANCES[dtype] else f"is wrong by {error:.1g}"


@contextmanager
def repeatable_convolutions() -> Iterator[None]:
    """Make cuDNN compute float32 without TensorFloat-32, and the same input give the same result.

    Yields:
        Nothing; the settings hold within the context.
    """
    with warnings.catch_warnings():
        # Some versions of torch warn of a new name for allow_tf32, which older versions lack.
        warnings.filterwarnings("ignore", message=".*TF32")
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        ):
            yield


class CudaGPEN:
    """Runs an `InferenceGPEN` that is on a CUDA device, with CUDA graphs.

    The first call with a batch size records its graph. Where recording fails, `on_notice` receives
    the reason once, and all later calls launch their kernels one by one. Several threads and
    streams may call it; their calls run one after another. The caller owns the tensor that a call
    returns.

    Args:
        network: The network, on its device.
        batch: Largest batch to expect. A larger batch works, and makes all graphs be recorded
            again. Default 1.
        use_graphs: False launches the kernels of each call one by one. Default True.
        on_notice: Receives the reason where recording fails.
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
        self._network, self._notify = network, on_notice
        self._most = batch
        self._use_graphs = use_graphs
        self._recorder: _Recorder | None = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Callable[[], "CudaGPEN"], tuple[()]]:
        """Pickle the network without its graphs, which a copy in another process records again."""
        rebuild = partial(
            CudaGPEN, self._network, use_graphs=self._use_graphs, on_notice=self._notify
        )
        return rebuild, ()

    @property
    def uses_graphs(self) -> bool:
        """Whether calls replay graphs; False once recording has failed."""
        return self._use_graphs

    def __call__(self, image: Tensor, latent: Tensor | None = None) -> Tensor:
        """Restore faces.

        Args:
            image: (B, 3, S, S) RGB in [-1, 1], of a floating-point type, on the network's device.
            latent: (B, D) mapped latent codes, as those of `latent`, with which no graph is
                replayed. Default: those of the image.

        Returns:
            (B, 3, S, S) float32 RGB, nominally in [-1, 1] and not clamped, channels last in memory.

        Raises:
            ValueError: `image` has another shape.
            torch.OutOfMemoryError: The device cannot hold the batch. The network's working memory
                has been freed.
        """
        self._network.check(image)
        with self._lock, torch.cuda.device(image.device):
            graph = self._graph(image) if self._use_graphs and latent is None else None
            if graph is not None:
                return graph(image)
            with self._launched():
                restored: Tensor = self._network(image, latent)
            return restored

    def latent(self, image: Tensor) -> Tensor:
        """Compute the mapped latent codes of faces, see `InferenceGPEN.latent`.

        Args:
            image: (B, 3, S, S) RGB in [-1, 1], of a floating-point type, on the network's device.

        Returns:
            (B, D) codes.

        Raises:
            ValueError: `image` has another shape.
            torch.OutOfMemoryError: The device cannot hold the batch.
        """
        with self._lock, torch.cuda.device(image.device), self._launched():
            return self._network.latent(image)

    @contextmanager
    def _launched(self) -> Iterator[None]:
        """Launch kernels one by one, and free the working memory where it does not suffice."""
        try:
            with repeatable_convolutions():
                yield
        except torch.OutOfMemoryError:
            self._network.release()
            raise

    def release(self) -> None:
        """Free all memory except that of the weights; the next call records its graph again."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        self._recorder = None
        self._network.release()
        torch.cuda.empty_cache()

    def _graph(self, image: Tensor) -> "_Graph | None":
        """Return the graph for this batch size; None where recording fails."""
        reason, is_full = "", False
        for had_graphs in (self._recorder is not None, False):
            if self._recorder is not None and self._recorder.most < len(image):
                self._drop()  # before the next recorder allocates its memory
            try:
                return self._recorded(image)
            except Exception as error:  # drivers and libraries have no common base class of errors
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                _log.info("a CUDA graph was not recorded: %s", reason)
                is_full = is_out_of_memory(error)
            # Outside of the handler, whose traceback keeps references to the memory.
            self._drop()
            if not (is_full and had_graphs):  # else again, in the memory of the other batch sizes
                break
        if is_full:
            raise torch.OutOfMemoryError(reason)
        self._use_graphs = False
        self._notify(
            f"CUDA graphs cannot be used here ({reason}); GPEN runs without them, more slowly"
        )
        return None

    def _recorded(self, image: Tensor) -> "_Graph":
        stream = torch.cuda.current_stream(image.device)
        try:
            if self._recorder is None:
                # A batch that was too large once is not reserved again.
                most, self._most = max(self._most, len(image)), 1
                self._recorder = _Recorder(self._network, most, image.device)
            return self._recorder.graph(len(image))
        finally:
            # Where torch.cuda.graph raises on exit, it does not return to this stream itself.
            torch.cuda.set_stream(stream)


class _Recorder:
    """Records the graphs of all batch sizes, which share one working memory."""

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
            # thread_local: other threads may copy and allocate during the recording.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                restored = self._network.compute(image, workspace)
        return _Graph(graph, image, restored, self._is_free)


class _Graph:
    """The graph of one batch size: copies its input in, replays, copies the result out."""

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
        stream.wait_event(self._is_free)  # another stream may still use the memory
        self._image.copy_(image, non_blocking=True)
        self._graph.replay()
        result = self._restored.clone()
        self._is_free.record(stream)
        return result


def is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether an error is a failed allocation or was raised because of one.

    An error during the recording of a graph hides the error that caused it.

    Args:
        error: The error; its causes and contexts are examined, too.

    Returns:
        True where the chain of errors contains torch.OutOfMemoryError.
    """
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False

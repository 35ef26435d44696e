"""The rule by which a device runs a network: it must give what the processor gives in float32.

A built-in picture runs through the network on the device. Where the result is too far from that of
the processor in float32, where the device is slower than the processor, where its memory does not
suffice, or where it fails, the next form of the network is tried: another number format, then
another device.
"""

from __future__ import annotations

import io
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from vidrestore.common.checksums import checked_content, checksum_line
from vidrestore.common.errors import UsageError, WeightsError
from vidrestore.common.files import written_atomically
from vidrestore.common.handled import log_handled
from vidrestore.common.quoting import first_line

_log = logging.getLogger("vidrestore")

LEAST_DB = 60.0
"""Smallest PSNR to the processor's result in float32, in decibels."""
LEAST_BFLOAT16_DB = 38.0
"""The same where the user chose bfloat16, whose rounding alone costs more than `LEAST_DB` allows:
sound weights reach about 45 dB."""
# Of one network at its largest size 25 MB.
_MOST_KEPT = 8

N = TypeVar("N")
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Form(Generic[N]):
    """One way to run a network: on a device, in a number format."""

    name: str
    """The name for messages, such as "float16 on mps"."""
    open: Callable[[], N]
    """Makes the network ready to run."""
    run: Callable[[N], FloatArray]
    """Runs the network on the built-in picture; returns the result on the processor."""
    least_db: float = LEAST_DB
    """Smallest PSNR with which the form is used, in decibels."""


@dataclass(frozen=True, slots=True)
class Exact:
    """What the processor gives in float32."""

    result: FloatArray
    """The result for the built-in picture."""
    seconds: float
    """The time that it took."""
    span: float = 2.0
    """The width of the range of results, to which the PSNR refers; default: that of [-1, 1]."""

    @classmethod
    def measured(cls, run: Callable[[], FloatArray], span: float = 2.0) -> Exact:
        """Run the network on the processor and take the time.

        Args:
            run: Runs it on the built-in picture.
            span: The width of the range of results. Default: that of [-1, 1].

        Returns:
            The result and the time.
        """
        started = time.perf_counter()
        result = run()
        return cls(result, time.perf_counter() - started, span)


class NotAdmittedError(Exception):
    """A form of a network is not used; the text is the reason, without a period."""


def first_admitted(
    subject: str,
    forms: Sequence[Form[N]],
    exact: Callable[[], Exact],
    *,
    otherwise: str | None,
    on_notice: Callable[[str], None],
) -> tuple[Form[N], N] | None:
    """Open the first form of a network that gives what the processor gives, and is not slower.

    Each form that is passed over is told in a notice.

    Args:
        subject: The name of the network, for messages.
        forms: The forms, the preferred one first.
        exact: Returns the result of the processor; it is called once, and only with forms to try.
        otherwise: What happens where no form is admitted, such as "the processor runs it"; None:
            the last reason is raised, and a form that is only slow is used, with a notice.
        on_notice: Receives the notices.

    Returns:
        The form and its open network; None where none is admitted.

    Raises:
        UsageError: No form is admitted, and `otherwise` is None.
        WeightsError: The file of the network cannot be used on any device.
        MemoryError: No form is admitted, `otherwise` is None, and the network does not fit into
            the memory in the last form; or the processor lacks the memory for its own result.
    """
    wanted: Exact | None = None
    for number, form in enumerate(forms, start=1):
        wanted = wanted or exact()
        then = f"{forms[number].name} is tried" if number < len(forms) else otherwise
        try:
            network, slowness = _opened(form, wanted)
        except NotAdmittedError as error:
            if then is None:
                if ran_out_of_memory(error):
                    raise MemoryError(str(error)) from error
                raise UsageError(
                    f"{subject} cannot run in {form.name}: {error}; use --device cpu or "
                    "--device auto"
                ) from error
            log_handled(error)
            on_notice(f"{subject} does not run in {form.name}, because {error}; {then}")
            continue
        if slowness is None:
            return form, network
        if otherwise is None:
            on_notice(f"{subject} runs in {form.name} as asked, though {slowness}")
            return form, network
        on_notice(f"{subject} does not run in {form.name}, because {slowness}; {then}")
        del network  # before the next one takes its memory
    return None


def _opened(form: Form[N], exact: Exact) -> tuple[N, str | None]:
    """Open a form; return the network, and the reason where it is too slow.

    Raises NotAdmittedError where it is wrong, does not fit into the memory or fails.
    """
    try:
        network = form.open()
        result = form.run(network)
        started = time.perf_counter()
        form.run(network)  # without what is done once: compiling, choosing kernels
        seconds = time.perf_counter() - started
    except WeightsError:
        raise
    except Exception as error:  # drivers and libraries have no common base class of errors
        is_full = ran_out_of_memory(error)
        reason = "it does not fit into the memory" if is_full else "it fails"
        raise NotAdmittedError(f"{reason} ({first_line(error)})") from error
    psnr_db = psnr_db_of(result, exact)
    if not psnr_db >= form.least_db:
        raise NotAdmittedError(
            f"the PSNR of its result to the processor's in float32 is {psnr_db:.0f} dB, less than "
            f"{form.least_db:.0f} dB"
        )
    _log.info("%s: %.1f dB, %.3f s; processor %.3f s", form.name, psnr_db, seconds, exact.seconds)
    if seconds > exact.seconds:
        return network, (
            f"it takes {seconds:.2g} s for a picture and the processor {exact.seconds:.2g} s"
        )
    return network, None


def psnr_db_of(result: FloatArray, exact: Exact) -> float:
    """Measure the PSNR of a result to the processor's, in decibels.

    Args:
        result: The result.
        exact: The processor's result.

    Returns:
        The PSNR; infinite where both are equal, minus infinity where the result has another shape
        or values that are not finite.
    """
    if result.shape != exact.result.shape:
        return -math.inf
    error = float(np.mean(np.square((result - exact.result) / exact.span), dtype=np.float64))
    if not math.isfinite(error):
        return -math.inf
    return math.inf if error == 0 else -10 * math.log10(error)


def ran_out_of_memory(error: BaseException | None) -> bool:
    """Return whether an error is a failed allocation or was raised because of one.

    Args:
        error: The error; its causes and contexts are examined, too.

    Returns:
        True where the chain of errors contains a MemoryError, torch.OutOfMemoryError, or a message
        with which torch's devices and onnxruntime report the same.
    """
    while error is not None:
        text = str(error).lower()
        if (
            isinstance(error, MemoryError)
            or type(error).__name__ == "OutOfMemoryError"
            or "out of memory" in text
            or "allocate memory" in text
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def kept_exact(folder: Path | None, key: str, measure: Callable[[], Exact]) -> Exact:
    """Read the processor's result from a cache, or measure and keep it.

    In float32 the processor takes seconds for a large network, and each opening on a device needs
    its result. It is kept in float16, which changes it by -89 dB.

    Args:
        folder: The folder of the cache, which may not exist yet; None: nothing is kept.
        key: Names the network, its weights and the version of the library that runs it.
        measure: Measures the result.

    Returns:
        The result.
    """
    if folder is None:
        return measure()
    path = folder / f"{checksum_line(b'', key)[-16:].decode()}.exact"
    try:
        with np.load(io.BytesIO(checked_content(path.read_bytes(), key))) as kept:
            return Exact(
                kept["result"].astype(np.float32), float(kept["seconds"]), float(kept["span"])
            )
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError) as error:  # damaged: it is measured again
        log_handled(error, f"reading {path}")
    exact = measure()
    content = io.BytesIO()
    np.savez(
        content, result=exact.result.astype(np.float16), seconds=exact.seconds, span=exact.span
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with written_atomically(path) as unfinished:
            unfinished.write_bytes(content.getvalue() + checksum_line(content.getvalue(), key))
        _remove_oldest(folder)
    except OSError as error:
        log_handled(error, f"writing {path}")
    return exact


def _remove_oldest(folder: Path) -> None:
    """Keep the newest results of the processor."""
    found = sorted(folder.glob("*.exact"), key=lambda each: each.stat().st_mtime, reverse=True)
    for old in found[_MOST_KEPT:]:
        old.unlink(missing_ok=True)

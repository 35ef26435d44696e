"""Workers with Ray: on this machine, or on the nodes of a cluster."""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vidrestore.common.errors import ClusterError, UsageError, system_reason
from vidrestore.common.temporary import temporary_folder
from vidrestore.jobs.request import check_address
from vidrestore.jobs.workers import WorkerPool

_CONNECT_SECONDS = 5.0
# A network may fail for a moment. Ray itself gives up after a minute.
_ATTEMPTS, _ATTEMPT_SECONDS = 4, 2.0
# vidrestore sends one analysis. Without a limit, Ray reserves a third of the memory.
_STORE_BYTES = 256 << 20
# The system limits the length of the path of a socket, so a long TMPDIR cannot be used.
_LONGEST_FOLDER = 60
# The bytes that the temporary folder of vidrestore and the names that Ray appends take.
_NAMES = 33


class _HealthCheck:
    """Detects that a process of Ray itself no longer answers.

    Without such a process, Ray ends the process that calls it, at once or after a minute, and
    writes the reason only to its log.

    Args:
        ray: The module `ray`, connected to a cluster.
        attempts: The number of attempts in a row that must fail.
        seconds: The least time between two attempts, in seconds.
    """

    def __init__(self, ray: Any, *, attempts: int, seconds: float) -> None:
        context = ray.get_runtime_context()
        host, port = context.gcs_address.rsplit(":", 1)
        self._places = {"the head of Ray (gcs_server)": (host.strip("[]"), int(port))}
        for node in ray.nodes():
            if node["NodeID"] == context.get_node_id():
                place = node["NodeManagerAddress"], int(node["NodeManagerPort"])
                self._places["Ray's process on this machine (raylet)"] = place
        self._failed = dict.fromkeys(self._places, 0)
        self._attempts, self._seconds = attempts, seconds
        self._checked_at = time.monotonic()

    def __call__(self) -> str | None:
        """Return a description of the process that does not answer; None where all answer."""
        if time.monotonic() - self._checked_at >= self._seconds:
            self._checked_at = time.monotonic()
            for name, place in self._places.items():
                self._failed[name] = 0 if _answers(place) else self._failed[name] + 1
        for name, count in self._failed.items():
            if count >= self._attempts:
                host, port = self._places[name]
                return f"{name} at {host}:{port} has ended or is out of reach"
        return None


def _answers(place: tuple[str, int]) -> bool:
    """Tell whether a (host, port) accepts a connection."""
    try:
        socket.create_connection(place, timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        logging.getLogger("vidrestore").warning("%s:%d does not answer: %s", *place, error)
        return False
    return True


@contextmanager
def local(count: int) -> Iterator[WorkerPool]:
    """Start workers on this machine, which share its GPUs, or its processor where it has no GPU.

    Args:
        count: The number of workers, at least 1.

    Yields:
        The workers. They end when the scope ends.

    Raises:
        UsageError: Ray is not installed, or this process uses Ray already.
        ClusterError: Ray cannot be started.
    """
    surroundings = {
        # Otherwise Ray replaces 127.0.0.1 by the address of the network, and listens there.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # Threads of several workers share cores, so they must not spin while they wait.
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    usual = Path(tempfile.gettempdir())
    above = usual if len(os.fsencode(usual)) + _NAMES <= _LONGEST_FOLDER else Path("/tmp")
    gpus = torch.cuda.device_count()
    with (
        temporary_folder(above) as temporary,
        _ray("--workers", surroundings) as (ray, connect),
    ):
        connect(
            address="local",
            num_cpus=count,
            num_gpus=gpus,
            include_dashboard=False,
            object_store_memory=_STORE_BYTES,
            _node_ip_address="127.0.0.1",
            _temp_dir=str(temporary / "r"),  # Ray opens this folder to every user
        )
        share = min(1.0, 1 / math.ceil(count / gpus)) if gpus else 0
        yield WorkerPool(count, cpus=1, gpus=share, fault=_HealthCheck(ray, attempts=1, seconds=0))


@contextmanager
def connected(address: str, count: int | None = None) -> Iterator[WorkerPool]:
    """Join a Ray cluster and start workers on its nodes.

    Every node needs the source and the folder of the output under the same absolute paths.

    Args:
        address: The head of the cluster, as "HOST:PORT". "auto": the cluster that this machine
            belongs to.
        count: The number of workers, at least 1. None: one for each GPU. In a cluster without
            GPUs, None means: on every node, as many as the node has cores for, where one worker
            takes as many cores as a run on this machine, and at least one.

    Yields:
        The workers. They end when the scope ends.

    Raises:
        UsageError: The address is not valid, Ray is not installed, or this process uses Ray
            already.
        ClusterError: The cluster does not answer, cannot be joined, or has no GPU and no CPU.
    """
    place = check_address(address)
    with _ray("--cluster", _token_mode()) as (ray, connect):
        if place is not None:
            _check_reachable(*place)
        connect(address=address)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        health_check = _HealthCheck(ray, attempts=_ATTEMPTS, seconds=_ATTEMPT_SECONDS)
        yield replace(_pool(nodes, count), fault=health_check)


@contextmanager
def open_workers(count: int | None, address: str | None) -> Iterator[WorkerPool | None]:
    """Start the workers that a command asks for.

    Inside the scope, standard output goes to standard error, because Ray prints there about lost
    nodes.

    Args:
        count: The number of workers; None: the default of `connected`.
        address: The head of a Ray cluster, as for `connected`; None: this machine.

    Yields:
        The workers; None where both arguments are None.

    Raises:
        UsageError: See `local` and `connected`.
        ClusterError: See `local` and `connected`.
    """
    if count is None and address is None:
        yield None
        return
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(sys.stderr))
        if address is not None:
            yield stack.enter_context(connected(address, count))
        elif count is not None:
            yield stack.enter_context(local(count))


def _pool(nodes: Sequence[dict[str, float]], count: int | None) -> WorkerPool:
    """Choose the number of workers and what each reserves, from the resources of the nodes."""
    gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    if gpus:
        each = min(1.0, 1 / math.ceil((count or gpus) / gpus))
        return WorkerPool(count or gpus, cpus=0, gpus=each)
    cores = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
    if not cores:
        raise ClusterError(
            "no node of the cluster has a GPU or a CPU for workers; start one with at least one CPU"
        )
    cpus = min(torch.get_num_threads(), *cores)
    return WorkerPool(count or sum(each // cpus for each in cores), cpus=cpus, gpus=0)


def _token_mode() -> dict[str, str]:
    """Return the environment variables by which Ray uses the token of the user, if there is one.

    `ray start` asks for the token by itself; a process that joins does so only with the variable.
    """
    if "RAY_AUTH_MODE" in os.environ:
        return {}
    token_file = os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token"
    has_token = bool(os.environ.get("RAY_AUTH_TOKEN")) or Path(token_file).is_file()
    return {"RAY_AUTH_MODE": "token"} if has_token else {}


def _check_reachable(host: str, port: int) -> None:
    """Raise ClusterError where no process accepts a connection at the address."""
    try:
        socket.create_connection((host, port), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        reason = system_reason(error)
        raise ClusterError(
            f"no Ray cluster answers at {host}:{port} ({reason}); start one with ray start --head, "
            "and give the address that it prints"
        ) from error


@contextmanager
def _ray(option: str, surroundings: dict[str, str]) -> Iterator[tuple[Any, Callable[..., None]]]:
    """Yield Ray, and a function that starts or joins it; the end of the scope shuts Ray down.

    `surroundings` are environment variables inside the scope. The end of the scope also removes
    the variables that Ray itself set.
    """
    with ExitStack() as stack:
        stack.callback(_restore_environment, dict(os.environ))
        os.environ.update(surroundings, RAY_USAGE_STATS_ENABLED="0")
        try:
            import ray  # reads some of the variables when it is imported
        except ImportError as error:
            raise UsageError(
                f"{option} needs the extra: pip install 'vidrestore[cluster]'"
            ) from error
        if ray.is_initialized():
            raise UsageError("this process already uses Ray; call ray.shutdown() first")

        def connect(**how: Any) -> None:
            handler = signal.getsignal(signal.SIGTERM)
            try:
                ray.init(log_to_driver=False, logging_level=logging.ERROR, **how)
            except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise ClusterError(f"Ray cannot be started or joined: {reason}") from error
            except SystemExit as leaving:  # raised by the handler that Ray installs
                raise KeyboardInterrupt from leaving
            finally:
                # Ray installs a handler that ends the process.
                if threading.current_thread() is threading.main_thread():
                    signal.signal(signal.SIGTERM, handler)

        logger = logging.getLogger("ray")
        stack.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.ERROR)
        stack.callback(ray.shutdown)
        yield ray, connect


def _restore_environment(before: Mapping[str, str]) -> None:
    """Give the environment variables the values of `before`, and remove all others."""
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)

"""Workers with Ray: on this machine, or on the nodes of a cluster."""

from __future__ import annotations

import logging
import math
import os
import re
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
from vidrestore.common.quoting import quoted
from vidrestore.common.temporary import temporary_folder
from vidrestore.jobs.workers import WorkerPool

_CONNECT_SECONDS = 5.0
# A network may fail for a moment; after a minute Ray itself gives up.
_LOOKS, _LOOK_SECONDS = 4, 2.0
# What is sent is one analysis; Ray takes a third of the memory unless told otherwise.
_STORE_BYTES = 256 << 20
# Sockets have short names only, so that a long TMPDIR cannot be used.
_LONGEST_FOLDER = 60
# Of ours: the name of the user's, that of its own, and Ray's in it.
_NAMES = 33


class _Watch:
    """Says what of Ray itself no longer answers.

    Ray ends the process that calls it then, by itself or after a minute, and only its log says why.

    Args:
        ray: Which is connected.
        looks: So many in a row have to fail.
        seconds: At least so many are between two of them.
    """

    def __init__(self, ray: Any, *, looks: int, seconds: float) -> None:
        context = ray.get_runtime_context()
        host, port = context.gcs_address.rsplit(":", 1)
        self._places = {"the head of Ray (gcs_server)": (host.strip("[]"), int(port))}
        for node in ray.nodes():
            if node["NodeID"] == context.get_node_id():
                place = node["NodeManagerAddress"], int(node["NodeManagerPort"])
                self._places["Ray's process on this machine (raylet)"] = place
        self._failed = dict.fromkeys(self._places, 0)
        self._looks, self._seconds = looks, seconds
        self._looked_at = time.monotonic()

    def __call__(self) -> str | None:
        if time.monotonic() - self._looked_at >= self._seconds:
            self._looked_at = time.monotonic()
            for name, place in self._places.items():
                self._failed[name] = 0 if _answers(place) else self._failed[name] + 1
        for name, count in self._failed.items():
            if count >= self._looks:
                host, port = self._places[name]
                return f"{name} at {host}:{port} has ended or is out of reach"
        return None


def _answers(place: tuple[str, int]) -> bool:
    try:
        socket.create_connection(place, timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        logging.getLogger("vidrestore").warning("%s:%d does not answer: %s", *place, error)
        return False
    return True


@contextmanager
def local(count: int) -> Iterator[WorkerPool]:
    """`count` workers on this machine, which share its GPUs, or its processor where it has none."""
    surroundings = {
        # Else Ray puts the address of the network in the place of 127.0.0.1, and listens there.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # Threads of several workers on the same cores must not spin while they wait.
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
            _temp_dir=str(temporary / "r"),  # which Ray opens to every user
        )
        share = min(1.0, 1 / math.ceil(count / gpus)) if gpus else 0
        yield WorkerPool(count, cpus=1, gpus=share, fault=_Watch(ray, looks=1, seconds=0))


@contextmanager
def connected(address: str, count: int | None = None) -> Iterator[WorkerPool]:
    """Workers on the Ray cluster whose head is at `address` ("HOST:PORT", or "auto": the one that
    this machine belongs to): `count`, or one for each GPU, or without any GPU as many as find the
    cores that a run on this machine uses, and at least one on every node.

    Every node needs the source and the folder of the output under the same absolute paths.
    """
    host = re.fullmatch(r"([^:/]+):([0-9]{1,5})", address)
    if host is None and address != "auto":
        raise UsageError(f"the address of a cluster is HOST:PORT or auto, not {quoted(address)}")
    with _ray("--cluster", _token_mode()) as (ray, connect):
        if host is not None:
            _knock(host[1], int(host[2]))
        connect(address=address)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        watch = _Watch(ray, looks=_LOOKS, seconds=_LOOK_SECONDS)
        yield replace(_crew(nodes, count), fault=watch)


@contextmanager
def open_crew(count: int | None, address: str | None) -> Iterator[WorkerPool | None]:
    """The workers that a command asks for; None where it asks for none.

    What Ray prints of lost nodes goes to standard error meanwhile.
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


def _crew(nodes: Sequence[dict[str, float]], count: int | None) -> WorkerPool:
    gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    if gpus:
        each = min(1.0, 1 / math.ceil((count or gpus) / gpus))
        return WorkerPool(count or gpus, cpus=0, gpus=each)
    cores = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
    if not cores:
        raise ClusterError("the cluster has no node with a GPU or a CPU to give")
    cpus = min(torch.get_num_threads(), *cores)
    return WorkerPool(count or sum(each // cpus for each in cores), cpus=cpus, gpus=0)


def _token_mode() -> dict[str, str]:
    """`ray start` asks for the user's token where there is one; to join, that must be said."""
    if "RAY_AUTH_MODE" in os.environ:
        return {}
    named = os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token"
    has_one = bool(os.environ.get("RAY_AUTH_TOKEN")) or Path(named).is_file()
    return {"RAY_AUTH_MODE": "token"} if has_one else {}


def _knock(host: str, port: int) -> None:
    try:
        socket.create_connection((host, port), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        reason = system_reason(error)
        raise ClusterError(
            f"no Ray cluster answers at {host}:{port} ({reason}); start one by ray start --head, "
            "and give the address that it prints"
        ) from error


@contextmanager
def _ray(option: str, surroundings: dict[str, str]) -> Iterator[tuple[Any, Callable[..., None]]]:
    """Ray, and a function that starts or joins it; leaving the scope stops or leaves it.

    `surroundings` are environment variables meanwhile; those that Ray itself sets go, too.
    """
    with ExitStack() as stack:
        stack.callback(_restore_environment, dict(os.environ))
        os.environ.update(surroundings, RAY_USAGE_STATS_ENABLED="0")
        try:
            import ray  # which reads some of them at once
        except ImportError as error:
            raise UsageError(
                f"{option} needs the extra: pip install 'vidrestore[cluster]'"
            ) from error
        if ray.is_initialized():
            raise UsageError("this process uses Ray already; leave that first, by ray.shutdown()")

        def connect(**how: Any) -> None:
            handler = signal.getsignal(signal.SIGTERM)
            try:
                ray.init(log_to_driver=False, logging_level=logging.ERROR, **how)
            except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise ClusterError(f"Ray cannot be started or joined: {reason}") from error
            except SystemExit as leaving:  # by the handler that is put away below
                raise KeyboardInterrupt from leaving
            finally:
                # Ray puts one there that ends the process.
                if threading.current_thread() is threading.main_thread():
                    signal.signal(signal.SIGTERM, handler)

        logger = logging.getLogger("ray")
        stack.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.ERROR)
        stack.callback(ray.shutdown)
        yield ray, connect


def _restore_environment(before: Mapping[str, str]) -> None:
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)

"""Spread work over the machines of a Ray cluster, which share a folder.

Ray starts its workers in folders of its own. They go to that of the caller first, so that relative
paths lead to the same files on every machine. A machine that is lost is replaced: Ray starts its
tasks again on others.
"""

import logging
import os
import re
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, redirect_stdout
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TextIO, TypeVar

from faceswap.errors import DeviceError, FaceswapError, InputError, SettingsError
from faceswap.files import reason

T = TypeVar("T")
R = TypeVar("R")

RETRIES = 8  # of a task whose machine was lost
AHEAD = 2  # items per core that are on their way
MAX_BYTES = 2 << 30  # limit for arrays in pending arguments; their items may need as much again


def connect() -> Any:
    """Connect to the Ray cluster that ``RAY_ADDRESS`` in the environment names, or that runs here.

    Returns:
        The module ``ray``.

    Raises:
        InputError: If no cluster is running there.
        SettingsError: If Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise SettingsError("--cluster needs Ray: pip install 'faceswap[cluster]'") from error
    if ray.is_initialized():
        return ray
    address = os.environ.get("RAY_ADDRESS", "auto")
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        where = "here" if address == "auto" else f"at {address}"
        raise InputError(
            f"no Ray cluster can be reached {where} ({reason(error)}): start one with ray start "
            "--head, or name one in RAY_ADDRESS"
        ) from error
    finally:
        # Ray's own handler would end the program without a message, with exit code 15.
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
    return ray


def machines() -> list[dict[str, float]]:
    """Return the resources of each machine of the cluster, such as {"CPU": 8, "GPU": 1}."""
    return [node["Resources"] for node in connect().nodes() if node["Alive"]]


def remote(work: Callable[..., R], cores: float = 1, gpus: float = 0) -> Callable[..., Any]:
    """Return a function that calls another one on some machine, and returns Ray's reference to it.

    Args:
        work: A function that can be imported on every machine.
        cores: Cores that it takes.
        gpus: GPUs that it takes.
    """
    task = connect().remote(
        num_cpus=cores, num_gpus=gpus, max_retries=RETRIES, scheduling_strategy="SPREAD"
    )(_call)
    folder = Path.cwd()
    return lambda *arguments: task.remote(folder, work, arguments)


def _call(folder: Path, work: Callable[..., R], arguments: tuple[Any, ...]) -> R:
    """Call a function in the caller's folder."""
    import cv2

    cv2.setNumThreads(1)
    try:
        os.chdir(folder)
    except OSError as error:
        raise InputError(
            f"{folder} does not exist on {socket.gethostname()}: the machines of a cluster must "
            "share the folder"
        ) from error
    return work(*arguments)


def result_of(reference: Any) -> Any:
    """Wait for the result of a call.

    Raises:
        DeviceError: If machines are lost again and again, or memory runs out.
        FaceswapError: What the function raised; any other exception of it is passed on, too.
        SettingsError: If faceswap or a library is missing on a machine.
    """
    ray = connect()
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, FaceswapError):
            raise error.cause from error
        if missing := _missing(error):
            raise SettingsError(
                f"a machine of the cluster cannot run faceswap ({missing}): install the same "
                "versions of faceswap and its libraries on all machines, with pip install "
                "'faceswap[cluster]'"
            ) from error
        raise
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError,
            ray.exceptions.OutOfMemoryError, ray.exceptions.ObjectLostError) as error:  # fmt: skip
        raise DeviceError(f"the cluster lost the machines that did the work: {error}") from error


def _missing(error: Any) -> str | None:
    """Return what could not be imported where a task ran, and where; None if nothing was missing.

    Args:
        error: A RayTaskError.
    """
    # Ray wraps what it could not import for the arguments, and puts what it could not import for
    # the function itself into words.
    cause = error.cause
    inner = getattr(cause, "client_exc", None)
    if isinstance(inner, ImportError | AttributeError):
        cause = inner
    elif not (isinstance(cause, ImportError) or "failed to import on the worker" in str(cause)):
        return None
    at = re.search(r"ip=([^),]+)", str(error))
    last_line = (str(cause).strip() or type(cause).__name__).splitlines()[-1]
    return f"{at[1]}: {last_line}" if at else last_line


class ClusterPool:
    """Calls functions on the machines of a cluster and yields the results in order.

    It is used as :class:`faceswap.parallel.OrderedPool` is. Until it is closed, what Ray prints
    goes to stderr, because Ray prints what happens to machines and stdout belongs to the report.
    """

    def __init__(self) -> None:
        self._printing = ExitStack()
        if sys.stdout:  # it is None if it was closed before the start
            out: Any = _WithoutRay(sys.stdout)
            self._printing.enter_context(redirect_stdout(out))

    def map(
        self, items: Iterable[T], work: Callable[..., R], arguments: Callable[[T], tuple[Any, ...]]
    ) -> Iterator[tuple[T, R]]:
        """Yield each item with ``work(*arguments(item))``; see :func:`result_of` for errors.

        At most ``AHEAD`` items per core of the cluster are held at a time, and at most as many as
        have ``MAX_BYTES`` of arrays in their arguments.
        """
        submit = remote(work)
        most = max(round(AHEAD * sum(machine.get("CPU", 0) for machine in machines())), 1)
        pending: deque[tuple[T, Any, int]] = deque()
        held = 0  # bytes
        for item in items:
            given = arguments(item)
            size = _bytes_in(given)
            while pending and (len(pending) >= most or held + size > MAX_BYTES):
                oldest, reference, freed = pending.popleft()
                held -= freed
                yield oldest, result_of(reference)
            pending.append((item, submit(*given), size))
            held += size
        for oldest, reference, _ in pending:
            yield oldest, result_of(reference)

    def close(self) -> None:
        """Let what Ray prints go to stdout again."""
        self._printing.close()


def _bytes_in(value: Any) -> int:
    """Return the size of the arrays in a value, also of those in tuples, lists and dataclasses."""
    if isinstance(value, tuple | list):
        return sum(map(_bytes_in, value))
    if is_dataclass(value):
        return sum(_bytes_in(getattr(value, field.name)) for field in fields(value))
    return int(getattr(value, "nbytes", 0))


class _WithoutRay:
    """A standard output that passes what Ray's threads print on to stderr.

    Args:
        out: Where all other threads print.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def __getattr__(self, name: str) -> Any:
        return getattr(self._out, name)

    def write(self, text: str) -> int:
        is_ray = threading.current_thread().name.startswith("ray_")
        stream = sys.stderr if is_ray else self._out
        return stream.write(text) if stream else len(text)

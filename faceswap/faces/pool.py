"""Worker processes that detect faces."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from typing import TYPE_CHECKING, Any, Self, TypeVar

from faceswap.cluster import ClusterPool
from faceswap.config import AUTO_LANDMARKS, DLIB_LANDMARKS
from faceswap.parallel import OrderedPool, cores

if TYPE_CHECKING:  # importing these would load NumPy and OpenCV even for --help
    from faceswap.arrays import Image
    from faceswap.faces.detection import DetectorSpec
    from faceswap.faces.geometry import Face
    from faceswap.media.frame import Frame

T = TypeVar("T")
R = TypeVar("R")


class DetectorPool:
    """Detects faces in several processes and yields the frames in order.

    Use it as a context manager. dlib holds the GIL, so threads would not be faster.

    Args:
        min_score: Detections below this score are dropped.
        workers: Number of processes. 0 starts one per core; 1 uses only this process.
        landmarks: The choice of landmark models, so that workers can share dlib's.
        on_cluster: Whether the machines of a Ray cluster detect faces instead of processes here.
    """

    def __init__(
        self, min_score: float, workers: int, landmarks: str = AUTO_LANDMARKS,
        on_cluster: bool = False,
    ) -> None:  # fmt: skip
        self.min_score = min_score
        self._pool: OrderedPool | ClusterPool
        if on_cluster:
            self._pool = ClusterPool()
        else:
            self._pool = OrderedPool(workers or cores(), _context(landmarks), _start_worker, ())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.close()

    def detect(
        self, frames: "Iterable[Frame]", spec: "DetectorSpec"
    ) -> "Iterator[tuple[Frame, list[Face]]]":
        """Yield each frame with its faces; at most ``workers`` + 1 frames are held in memory.

        A detector that was passed as an object runs in this process, as it may not be picklable.

        Raises:
            InputError, SettingsError: See :meth:`DetectorSpec.detect`.
            DeviceError: If a worker process is killed.
        """
        if spec.is_own_object:
            for frame in frames:
                yield frame, spec.detect(frame.image, self.min_score)
            return
        yield from self.map(frames, _detect, lambda frame: (spec, frame.image, self.min_score))

    def map(
        self, items: Iterable[T], work: Callable[..., R], arguments: Callable[[T], tuple[Any, ...]]
    ) -> Iterator[tuple[T, R]]:
        """Yield each item with ``work(*arguments(item))``, in order; see :meth:`OrderedPool.map`.

        Raises:
            DeviceError: If a worker process is killed.
        """
        return self._pool.map(items, work, arguments)


def start_early(landmarks: str) -> None:
    """Start loading dlib's landmark model in the background, if it is chosen; only on Linux."""
    if _context(landmarks).get_start_method() == "forkserver":
        forkserver.ensure_running()


def _context(landmarks: str) -> BaseContext:
    """Choose how workers start.

    On Linux, workers are forked from one small process that has loaded dlib's landmark model, if
    that is chosen, so they share its memory and start fast. Forking this process could deadlock,
    because it has threads. On other systems each worker loads the models itself.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    uses_dlib = landmarks in (AUTO_LANDMARKS, DLIB_LANDMARKS)
    context.set_forkserver_preload(["faceswap.faces.preload" if uses_dlib else "numpy"])
    return context


def _detect(spec: "DetectorSpec", image: "Image", min_score: float) -> "list[Face]":
    return spec.detect(image, min_score)


def _start_worker() -> None:
    """Prepare a worker process.

    It ignores Ctrl-C, which the parent handles, runs OpenCV in one thread, and exits when the
    parent ends, even if the parent is killed.
    """
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def exit_with_parent() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=exit_with_parent, daemon=True).start()

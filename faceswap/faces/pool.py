"""Processes that look for faces. dlib holds the interpreter lock: threads would not be quicker."""

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

from faceswap.config import LANDMARKS, DetectorName
from faceswap.parallel import OrderedPool, cores
from faceswap.types import Image

if TYPE_CHECKING:  # at run time this would load cv2, also for --help
    from faceswap.faces.geometry import Face
    from faceswap.media.frame import Frame

T = TypeVar("T")
R = TypeVar("R")


class DetectorPool:
    """Finds the faces of frames, in order, on several processes; a context manager.

    Args:
        min_score: Detections below this score are dropped.
        workers: Processes; 0 for one per core, 1 for this process alone.
    """

    def __init__(self, min_score: float, workers: int) -> None:
        self.min_score = min_score
        landmarks = os.environ.get(LANDMARKS, "")
        self._pool = OrderedPool(workers or cores(), _context(), _start_worker, (landmarks,))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.close()

    def detect(
        self,
        frames: "Iterable[Frame]",
        detector: DetectorName | "Callable[[Image, float], list[Face]]",
    ) -> "Iterator[tuple[Frame, list[Face]]]":
        """Yield each frame with its faces; few more frames than processes are held at a time.

        Args:
            frames: The frames.
            detector: A key of DETECTORS, or a callable of one's own, which runs in this process.
        """
        if callable(detector):
            for frame in frames:
                yield frame, detector(frame.image, self.min_score)
            return
        yield from self.each(frames, _detect, lambda frame: (detector, frame.image, self.min_score))

    def each(
        self, items: Iterable[T], work: Callable[..., R], arguments: Callable[[T], tuple[Any, ...]]
    ) -> Iterator[tuple[T, R]]:
        """Yield each item with ``work(*arguments(item))``; see :meth:`OrderedPool.map`."""
        return self._pool.map(items, work, arguments)


def start_early() -> None:
    """Begin to load what the processes will need while the caller does something else."""
    if _context().get_start_method() == "forkserver":
        forkserver.ensure_running()


def _context() -> BaseContext:
    """How processes start: forked from one small process that has loaded dlib's weights.

    They then share that memory and are there at once. (Forking this process may hang, for it has
    threads.) Elsewhere than on Linux each starts from nothing.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["faceswap.faces.preload"])
    return context


def _detect(detector: DetectorName, image: Image, min_score: float) -> "list[Face]":
    from faceswap.faces.detection import DETECTORS

    return DETECTORS[detector](image, min_score)


def _start_worker(landmarks: str) -> None:
    """Leave Ctrl-C to the parent, and end when the parent is gone, killed or not.

    Args:
        landmarks: The landmark model of the user's own, or nothing.
    """
    import cv2

    os.environ[LANDMARKS] = landmarks  # that of the process forked from may be older
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()

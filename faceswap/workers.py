"""Processes that look for faces. dlib holds the interpreter lock: threads would not be quicker."""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from typing import Any, Self, TypeVar

from faceswap.config import LANDMARKS, FinderName
from faceswap.errors import DeviceError
from faceswap.types import Face, Frame, Image

T = TypeVar("T")
R = TypeVar("R")


def cores() -> int:
    """Processor cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class FaceFinder:
    """Finds the faces of frames, in order, on several processes; a context manager.

    Args:
        min_score: Detections below this score are dropped.
        workers: Processes; 0 for one per core, 1 for this process alone.
    """

    def __init__(self, min_score: float, workers: int) -> None:
        self.min_score = min_score
        self._workers = workers or cores()
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def find(
        self, frames: Iterable[Frame], finder: FinderName | Callable[[Image, float], list[Face]]
    ) -> Iterator[tuple[Frame, list[Face]]]:
        """Yield each frame with its faces; few more frames than processes are held at a time.

        Args:
            frames: The frames.
            finder: A key of FINDERS, or a callable of one's own, which runs in this process.
        """
        if callable(finder):
            for frame in frames:
                yield frame, finder(frame.image, self.min_score)
            return
        yield from self.each(frames, _find, lambda frame: (finder, frame.image, self.min_score))

    def each(
        self, items: Iterable[T], work: Callable[..., R], arguments: Callable[[T], tuple[Any, ...]]
    ) -> Iterator[tuple[T, R]]:
        """Yield each item with ``work(*arguments(item))``, done by the processes, in order.

        At most one item more than there are processes is held at a time.

        Raises:
            DeviceError: If one of the processes is ended from outside.
        """
        if self._workers == 1:
            for item in items:
                yield item, work(*arguments(item))
            return
        try:
            yield from self._shared(items, work, arguments)
        except BrokenProcessPool as error:
            raise DeviceError(
                "a process that looks for faces was ended from outside, most likely because the "
                "memory ran out: close other programs, or use --workers 1 (in a script of your "
                'own, calls must stand under if __name__ == "__main__":)'
            ) from error

    def _shared(
        self, items: Iterable[T], work: Callable[..., R], arguments: Callable[[T], tuple[Any, ...]]
    ) -> Iterator[tuple[T, R]]:
        pool = self._started_pool()
        waiting: deque[tuple[T, Future[R]]] = deque()
        for item in items:
            waiting.append((item, pool.submit(work, *arguments(item))))
            if len(waiting) > self._workers:
                oldest, result = waiting.popleft()
                yield oldest, result.result()
        for oldest, result in waiting:
            yield oldest, result.result()

    def _started_pool(self) -> ProcessPoolExecutor:
        if not self._pool:
            self._pool = ProcessPoolExecutor(
                self._workers,
                _context(),
                initializer=_start_worker,
                initargs=(os.environ.get(LANDMARKS, ""),),
            )
        return self._pool


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
    context.set_forkserver_preload(["faceswap.preload"])
    return context


def _find(finder: FinderName, image: Image, min_score: float) -> list[Face]:
    from faceswap.aligner import FINDERS

    return FINDERS[finder](image, min_score)


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

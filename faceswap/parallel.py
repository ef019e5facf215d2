"""Prefetch items in a thread, or run work in several processes and yield the results in order."""

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing.context import BaseContext
from typing import Any, TypeVar

from faceswap.errors import DeviceError

T = TypeVar("T")
R = TypeVar("R")


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def prefetch(items: Iterable[T], depth: int) -> Iterator[T]:
    """Yield items that a background thread produces ahead of the caller.

    An exception in the thread is raised here. Closing the iterator ends the thread as soon as it
    has produced its current item.

    Args:
        items: The items; the thread iterates over them.
        depth: Number of finished items that may wait. The thread holds one more that is ready.
    """
    ready: queue.Queue[tuple[bool, Any]] = queue.Queue(depth)
    stop = threading.Event()

    def put(entry: tuple[bool, Any]) -> None:
        while not stop.is_set():
            with suppress(queue.Full):
                ready.put(entry, timeout=0.1)
                return

    def work() -> None:
        try:
            for item in items:
                put((True, item))
                if stop.is_set():
                    return
            put((False, None))
        except BaseException as error:
            put((False, error))

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            more, value = ready.get()
            if more:
                yield value
            elif value is None:
                return
            else:
                raise value
    finally:
        stop.set()
        thread.join()


class OrderedPool:
    """Calls functions in several processes and yields the results in order.

    Args:
        workers: Number of processes; 1 runs everything in this process.
        context: The multiprocessing context, which decides how the processes start.
        initializer: Called first in every worker process, so not at all if ``workers`` is 1.
        arguments: Arguments of the initializer.
    """

    def __init__(
        self,
        workers: int,
        context: BaseContext,
        initializer: Callable[..., None],
        arguments: tuple[Any, ...],
    ) -> None:
        self._workers, self._context = workers, context
        self._initializer, self._arguments = initializer, arguments
        self._pool: ProcessPoolExecutor | None = None

    def map(
        self, items: Iterable[T], work: Callable[..., R], arguments: Callable[[T], tuple[Any, ...]]
    ) -> Iterator[tuple[T, R]]:
        """Yield each item with ``work(*arguments(item))``.

        At most ``workers`` + 1 items are held at a time.

        Raises:
            DeviceError: If one of the processes is killed. An exception of ``work`` is passed on.
        """
        if self._workers == 1:
            for item in items:
                yield item, work(*arguments(item))
            return
        try:
            yield from self._map_in_pool(items, work, arguments)
        except BrokenProcessPool as error:
            raise DeviceError(
                "a face detection process was killed, most likely because memory ran out: close "
                "other programs or use --workers 1 (in a Python script, call faceswap only under "
                'if __name__ == "__main__":)'
            ) from error

    def _map_in_pool(
        self, items: Iterable[T], work: Callable[..., R], arguments: Callable[[T], tuple[Any, ...]]
    ) -> Iterator[tuple[T, R]]:
        pool = self._executor()
        pending: deque[tuple[T, Future[R]]] = deque()
        for item in items:
            pending.append((item, pool.submit(work, *arguments(item))))
            if len(pending) > self._workers:
                oldest, result = pending.popleft()
                yield oldest, result.result()
        for oldest, result in pending:
            yield oldest, result.result()

    def _executor(self) -> ProcessPoolExecutor:
        if not self._pool:
            self._pool = ProcessPoolExecutor(
                self._workers,
                self._context,
                initializer=self._initializer,
                initargs=self._arguments,
            )
        return self._pool

    def close(self) -> None:
        """Cancel pending work, wait for work in progress and stop the processes."""
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

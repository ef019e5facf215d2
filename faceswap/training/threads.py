"""Adapt the number of torch's threads to how busy the machine is.

The threads of one operation wait for each other. When another program takes one of the cores, the
slowest thread holds up all of them, and an operation with fewer threads is done sooner.
"""

import os
import statistics
from collections.abc import Callable

import torch

WARM_UP = 3  # first steps, which are slow for other reasons
STEPS = 4  # steps whose median is compared
SETTLE = 1  # steps after each change that are not measured
SLOWER = 1.25  # a step that takes this much longer than usual suggests that fewer threads do better
GAIN = 0.95  # a trial is kept if its steps take at most this share of the previous time
PAUSE, LONGEST_PAUSE = 10.0, 60.0  # seconds until the next trial; doubled after each that failed


class ThreadTuner:
    """Chooses the number of threads from the duration of the steps of a loop.

    Soon after the start, and whenever steps become slower, it tries fewer threads; while there are
    fewer than at the start, it tries more from time to time. A trial takes a few steps, and is
    undone at the first that is slower. Nothing changes if there is one thread, or if the
    environment variable ``OMP_NUM_THREADS`` sets the number.

    Args:
        on_cpu: Whether the steps are computed on the CPU; otherwise nothing changes.
        set_threads: Sets the number of threads.
        threads: The number to start with, the most that are used [default: torch's].
    """

    def __init__(
        self, on_cpu: bool = True, set_threads: Callable[[int], None] = torch.set_num_threads,
        threads: int | None = None,
    ) -> None:  # fmt: skip
        self._set_threads = set_threads
        self._most = torch.get_num_threads() if threads is None else threads
        self.threads = self._most
        self._is_on = on_cpu and self._most > 1 and "OMP_NUM_THREADS" not in os.environ
        self._settling = WARM_UP
        self._times: list[float] = []
        self._clock, self._next_trial, self._pause = 0.0, 0.0, PAUSE
        self._usual: dict[int, float] = {}  # by number of threads, the shortest median so far
        self._before: tuple[int, float] | None = None  # threads and median before a trial

    def stepped(self, seconds: float) -> None:
        """Take note that a step took some seconds, and change the number of threads if due."""
        if not self._is_on:
            return
        self._clock += seconds
        if self._settling:
            self._settling -= 1
            return
        self._times.append(seconds)
        failed = self._before is not None and seconds > self._before[1]
        if len(self._times) < STEPS and not failed:
            return
        median = seconds if failed else statistics.median(self._times)
        self._times = []
        self._usual[self.threads] = min(median, self._usual.get(self.threads, median))
        if self._before:
            self._judge(median, *self._before)
        elif median > SLOWER * self._usual[self.threads] and self.threads > 1:
            self._try(median, fewer=True)
        elif self._clock >= self._next_trial:
            self._try(median, fewer=self.threads == self._most)

    def _try(self, median: float, fewer: bool) -> None:
        """Begin a trial with fewer or more threads."""
        self._before = self.threads, median
        change = -max(self.threads // 4, 1) if fewer else max(self.threads // 3, 1)
        self._change(min(self.threads + change, self._most))

    def _judge(self, median: float, threads: int, before: float) -> None:
        """End a trial. Go on in the same direction if it helped, otherwise undo it."""
        self._before = None
        if median <= GAIN * before:
            self._pause = PAUSE
            fewer, at_end = self.threads < threads, self.threads in (1, self._most)
            if not at_end:
                self._try(median, fewer)
        else:
            self._change(threads)
            self._usual[threads] = before
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self._next_trial = self._clock + self._pause

    def _change(self, threads: int) -> None:
        self.threads, self._settling = threads, SETTLE
        self._set_threads(threads)

    def close(self) -> None:
        """Set the number of threads of the start again."""
        if self.threads != self._most:
            self._set_threads(self._most)

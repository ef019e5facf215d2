"""Show the progress of a long call: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click

from faceswap.types import OnProgress, Progress

PLAIN_SECONDS = 5.0  # between two progress lines without a terminal
EARLY, EARLY_SHARE = 30.0, 0.05  # seconds and share done before which no time left is shown
TIMED_BAR = "{percentage:3.0f}%|{bar}| {n:.2f} of {total:g} minutes{postfix}"


class Reporter:
    """Shows progress with rate and time left: a bar on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._began = self._shown = time.monotonic()
        self._first = Progress(0.0, None, "")
        self._latest: Progress | None = None

    def __call__(self, progress: Progress) -> None:
        """Show new progress; a closed standard error must not stop the work."""
        with suppress(OSError):
            self._take(progress)

    def _take(self, progress: Progress) -> None:
        if progress.unit != self._first.unit:
            self._begin(progress)
        if sys.stderr and sys.stderr.isatty():  # stderr is None if it was closed before the start
            self._show_bar(progress)
            return
        self._latest = progress
        if time.monotonic() - self._shown >= PLAIN_SECONDS:
            self._print_line()

    def _begin(self, progress: Progress) -> None:
        """Note where the work begins; if other work came before, restart the bar and the clock."""
        if self._first.unit:
            self.close()
            self._bar, self._began = None, time.monotonic()
        self._first = progress

    def _show_bar(self, progress: Progress) -> None:
        is_timed = progress.steps is not None
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(
                total=progress.total, unit=f" {progress.unit}", dynamic_ncols=True,
                file=sys.stderr, initial=progress.done, bar_format=TIMED_BAR if is_timed else None,
            )  # fmt: skip
        note = progress.note
        if is_timed:
            note = f"{self._rate(progress)}{self._time_left(progress)}, {note}"
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(progress.done - self._bar.n)

    def _print_line(self) -> None:
        progress, self._latest = self._latest, None
        if progress is None:
            return
        self._shown = time.monotonic()
        of = f" of {progress.total:g}" if progress.total else ""
        click.echo(
            f"{progress.done:g}{of} {progress.unit}, {self._rate(progress)}"
            f"{self._time_left(progress)}  {progress.note}",
            err=True,
        )

    def _rate(self, progress: Progress) -> str:
        """Format the speed; work that is limited by time is measured in steps per second."""
        elapsed = max(time.monotonic() - self._began, 1e-9)
        if progress.steps is not None:
            return f"{(progress.steps - (self._first.steps or 0)) / elapsed:.3g} steps/s"
        return f"{(progress.done - self._first.done) / elapsed:.3g}/s"

    def _time_left(self, progress: Progress) -> str:
        if not progress.total:
            return ""
        left = max(progress.total - progress.done, 0)  # the last step may exceed the time limit
        if progress.unit == "minutes":
            return f", {60 * left:.0f} s left"
        elapsed = max(time.monotonic() - self._began, 1e-9)
        rate = (progress.done - self._first.done) / elapsed
        is_early = elapsed < EARLY and progress.done < EARLY_SHARE * progress.total
        return f", {left / rate:.0f} s left" if rate > 0 and not is_early else ""

    def restart(self) -> None:
        """Begin a new bar and a new clock with the next progress."""
        self.close()
        self._bar, self._first = None, Progress(0.0, None, "")
        self._began = time.monotonic()

    def close(self) -> None:
        """Close the bar, or print the latest progress if no line has shown it yet."""
        with suppress(OSError):
            if self._bar is not None:
                self._bar.close()
            self._print_line()


@contextmanager
def reporting() -> Iterator[OnProgress]:
    """Show progress while the block runs."""
    reporter = Reporter()
    try:
        yield reporter
    finally:
        reporter.close()

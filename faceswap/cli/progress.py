"""Show how far a long call is: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click

from faceswap.types import OnProgress, Progress

PLAIN_SECONDS = 5.0  # between two progress lines where there is no terminal


class Reporter:
    """Shows progress: a bar with rate and time left on a terminal, else a line now and then."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._began = self._shown = time.monotonic()
        self._start, self._unit = 0.0, ""
        self._latest: Progress | None = None

    def __call__(self, progress: Progress) -> None:
        """Take the newest progress; that nobody watches any more is no reason to stop the work."""
        with suppress(OSError):
            self._take(progress)

    def _take(self, progress: Progress) -> None:
        if progress.unit != self._unit:
            self._begin(progress)
        if sys.stderr and sys.stderr.isatty():  # None: it was closed before Python began
            self._show_bar(progress)
            return
        self._latest = progress
        if time.monotonic() - self._shown >= PLAIN_SECONDS:
            self._print_line()

    def _begin(self, progress: Progress) -> None:
        """Count anew where another kind of work begins."""
        if self._unit:
            self.close()
            self._bar, self._began = None, time.monotonic()
        self._start, self._unit = progress.done, progress.unit

    def _show_bar(self, progress: Progress) -> None:
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(
                total=progress.total, unit=f" {progress.unit}", dynamic_ncols=True,
                file=sys.stderr, initial=progress.done,
            )  # fmt: skip
        self._bar.set_postfix_str(progress.note, refresh=False)
        self._bar.update(progress.done - self._bar.n)

    def _print_line(self) -> None:
        progress, self._latest = self._latest, None
        if progress is None:
            return
        self._shown = time.monotonic()
        elapsed = self._shown - self._began
        rate = (progress.done - self._start) / max(elapsed, 1e-9)
        of = f" of {progress.total:g}" if progress.total else ""
        left = (
            f", {max(progress.total - progress.done, 0) / rate:.0f} s left"  # minutes may run over
            if progress.total and rate > 0
            else ""
        )
        click.echo(
            f"{progress.done:g}{of} {progress.unit}, {rate:.3g}/s{left}  {progress.note}", err=True
        )

    def close(self) -> None:
        """Leave the last state on the screen."""
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

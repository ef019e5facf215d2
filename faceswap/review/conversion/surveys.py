"""Start surveys of clips, each in a process, and know how they go."""

import subprocess
import sys
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import msgspec

from faceswap.errors import InputError
from faceswap.files import make_folder
from faceswap.review.workspace import Place

FOLDER = Path(".faceswap", "clips")  # in the workspace


class Surveys:
    """The surveys of a workspace; what they found is kept in ``.faceswap/clips``.

    Args:
        root: The workspace.
    """

    def __init__(self, root: Path) -> None:
        self._folder = root / FOLDER
        self._running: dict[str, _Running] = {}
        self._lock = Lock()

    def of(self, clip: Place) -> dict[str, Any]:
        """Return what is in a clip, or the share that is done, and start to look if nobody has.

        Returns:
            "shots", "looks" and "people", see :class:`.survey.Survey`; or "done", 0 to 1; or
            "error", why it cannot be looked through.

        Raises:
            InputError: If the clip is gone or the folder is a link.
            OutputError: If the folder cannot be created.
        """
        try:
            stat = clip.path.stat()
        except OSError as error:
            raise InputError(f"{clip.name} is gone") from error
        state = [stat.st_size, stat.st_mtime_ns]
        if self._folder.is_symlink() or self._folder.parent.is_symlink():
            raise InputError(f"{self._folder} is a link; delete it")
        result = self._folder / f"{clip.id}.json"
        with self._lock:
            known = _read(result)
            if known and known.get("clip") == state:
                self._running.pop(clip.id, None)
                return {name: known[name] for name in ("shots", "looks", "people")}
            running = self._running.get(clip.id)
            if running is None or running.state != state:
                if running:
                    running.process.kill()
                make_folder(self._folder)
                running = self._running[clip.id] = _Running(clip.path, result, state)
            if running.process.poll() in (None, 0):
                return {"done": running.done}
            return {"error": running.words or "looking through the clip was interrupted"}

    def close(self) -> None:
        """Stop all surveys; they are started again when somebody asks."""
        with self._lock:
            for running in self._running.values():
                running.process.kill()
                running.process.wait()
            self._running.clear()


class _Running:
    """A survey that runs, or has failed.

    Attributes:
        process: Its process.
        state: The state of the clip when it began.
        done: The share that is done.
        words: What it last said that is no number.
    """

    def __init__(self, clip: Path, result: Path, state: list[int]) -> None:
        self.state, self.done, self.words = state, 0.0, ""
        self.process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", "faceswap.review.conversion.survey", clip, result],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace",
        )  # fmt: skip
        Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                try:
                    self.done = float(line)
                except ValueError:
                    self.words = line.strip()
        self.process.wait()


def _read(path: Path) -> dict[str, Any] | None:
    """Return a result; None if there is none, or it is damaged."""
    try:
        value = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError):
        return None
    is_whole = isinstance(value, dict) and {"clip", "shots", "looks", "people"} <= value.keys()
    return value if is_whole else None

"""Start surveys of clips, each in a process, and know how they go."""

import subprocess
import sys
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import msgspec

from faceswap.errors import InputError
from faceswap.files import make_folder
from faceswap.review.workspace import Place, refuse_link

FOLDER = Path(".faceswap", "clips")  # in the workspace


class Person(msgspec.Struct):
    """Somebody in a clip.

    Attributes:
        looks: Places among :attr:`Survey.looks` of the frames that show the person.
        frame: Index of the frame that shows the person best.
        x: The middle of the face in that frame, in pixels.
        y: The middle of the face in that frame.
        side: The larger side of the face's box there.
    """

    looks: list[int]
    frame: int
    x: float
    y: float
    side: float


class Survey(msgspec.Struct):
    """What is in a clip.

    Attributes:
        clip: What changes if the clip does.
        shots: First and last frame of each shot.
        looks: Indices of the frames in which faces were looked for.
        people: The people, the most frequent first.
    """

    clip: list[int]
    shots: list[tuple[int, int]]
    looks: list[int]
    people: list[Person]


def state_of(path: Path) -> list[int]:
    """Return what changes if a clip does.

    Raises:
        InputError: If it is gone.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise InputError(f"{path} is gone: {error.strerror}") from error
    return [found.st_size, found.st_mtime_ns]


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
            The fields of a :class:`Survey`; or "done", 0 to 1; or
            "error", why it cannot be looked through.

        Raises:
            InputError: If the clip is gone or the folder is a link.
            OutputError: If the folder cannot be created.
        """
        state = state_of(clip.path)
        refuse_link(self._folder.parent)
        refuse_link(self._folder)
        result = self._folder / f"{clip.id}.json"
        with self._lock:
            known = _read(result)
            if known and known.clip == state:
                self._running.pop(clip.id, None)
                found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(known))
                return found
            running = self._running.get(clip.id)
            if running is None or running.state != state:
                if running:
                    running.process.kill()
                make_folder(self._folder)
                running = self._running[clip.id] = _Running(clip.path, result, state)
            if running.process.poll() in (None, 0):
                return {"done": running.done}
            return {"error": running.words or "looking through the clip was interrupted"}

    def forget(self, clip: Place) -> None:
        """Let the next question begin a new survey if one has failed."""
        with self._lock:
            running = self._running.get(clip.id)
            if running and running.process.poll() not in (None, 0):
                del self._running[clip.id]

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


def _read(path: Path) -> Survey | None:
    """Return a result; None if there is none, or it is damaged."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Survey)
    except (OSError, msgspec.DecodeError):
        return None

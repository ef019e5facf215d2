"""Ask the process of the previews, which starts with the first question."""

import os
import subprocess
import sys
from threading import Lock
from typing import Any

import msgspec

from faceswap.errors import DeviceError, FaceswapError


class PreviewError(FaceswapError):
    """A preview that cannot be made, for a reason that the user can act on."""

    exit_code = 3


class Previews:
    """The process that swaps faces in single frames; see :mod:`.previewer`."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = Lock()

    def ask(self, question: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
        """Return the answer to a question, and its images.

        Args:
            question: A request of :mod:`.previewer` as JSON values.

        Raises:
            PreviewError: If it cannot be answered.
            DeviceError: If the process died, usually because memory ran out.
        """
        with self._lock:
            process = self._running()
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(msgspec.json.encode(question) + b"\n")
                process.stdin.flush()
                answer: dict[str, Any] = msgspec.json.decode(process.stdout.readline())
                images = [process.stdout.read(size) for size in answer.get("sizes", [])]
            except (OSError, ValueError) as error:
                self.close()
                raise DeviceError(
                    "the process of the previews died, usually because memory ran out; try again"
                ) from error
        if "error" in answer:
            raise PreviewError(answer["error"])
        return answer, images

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process and self._process.poll() is not None:
            self.close()  # it died
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "faceswap.review.conversion.previewer"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                # With more threads, a training beside it would slow both down many times over.
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        return self._process

    def close(self) -> None:
        """End the process."""
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None

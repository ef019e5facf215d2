"""Swap the faces of single frames: the process behind the previews of settings.

The app starts ``python -m faceswap.review.previewer`` and keeps it, because loading torch and a
model takes seconds. Each line that it reads is a :class:`Request` in JSON; it answers with a line
of JSON and as many bytes of JPEG as that line says. The last frames keep their faces and models
stay loaded, so a changed setting takes as long as decoding and pasting.
"""

import json
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec

from faceswap.config import ConvertConfig
from faceswap.errors import FaceswapError, SettingsError
from faceswap.faces.detection import DetectorSpec
from faceswap.faces.geometry import Face
from faceswap.media.footage import video_at
from faceswap.media.frame import Frame
from faceswap.models.modelfile import TrainedModel, load_model
from faceswap.review.footage import Reader, jpeg
from faceswap.swapping.explicit import refuse_explicit_image
from faceswap.swapping.render import paste_swaps
from faceswap.swapping.swapper import Swapper

FRAMES, MODELS = 8, 2  # that are kept


class Request(msgspec.Struct):
    """A frame to swap faces in.

    Attributes:
        clip: The footage.
        model: The model's folder.
        frame: Index of the frame.
        settings: Settings of the conversion by name.
    """

    clip: str
    model: str
    frame: int
    settings: dict[str, Any]


class Previewer:
    """Swaps the faces of single frames."""

    def __init__(self) -> None:
        self._readers: dict[str, Reader] = {}
        self._faces: dict[tuple[str, int], tuple[Frame, list[Face]]] = {}
        self._models: dict[tuple[str, int], TrainedModel] = {}

    def preview(self, asked: Request) -> tuple[bytes, int]:
        """Return a frame with swapped faces as JPEG, and the number of its faces.

        Raises:
            InputError: If the clip or the frame cannot be read.
            ModelError: If the model cannot be read.
            SettingsError: If a setting has no such value.
            ExplicitFootageError: If the frame looks explicit.
        """
        try:
            config = ConvertConfig(**asked.settings)
        except TypeError as error:
            raise SettingsError(f"there is no such setting: {error}") from error
        frame, faces = self._found(asked, config)
        swapper = Swapper(self._model(asked.model), config)
        (swaps,) = swapper.prepare([(frame, faces)]) if faces else ([],)
        return jpeg(paste_swaps(frame, swaps, config).image), len(faces)

    def _found(self, asked: Request, config: ConvertConfig) -> tuple[Frame, list[Face]]:
        """Return a frame and its faces."""
        key = asked.clip, asked.frame
        if key not in self._faces:
            if asked.clip not in self._readers:
                self._readers = {asked.clip: Reader(video_at(Path(asked.clip)))}
            image = self._readers[asked.clip].frame(asked.frame)
            refuse_explicit_image(image)
            spec = DetectorSpec(config.detector, config.landmarks).checked()
            frame = Frame(image, 0, Fraction(0), Path())
            self._faces[key] = frame, spec.detect(image, config.min_score)
            while len(self._faces) > FRAMES:
                del self._faces[next(iter(self._faces))]
        return self._faces[key]

    def _model(self, path: str) -> TrainedModel:
        """Return a model; it is loaded again if training has changed it."""
        key = path, (Path(path) / "model.safetensors").stat().st_mtime_ns
        if key not in self._models:
            self._models[key] = load_model(Path(path))
            while len(self._models) > MODELS:
                del self._models[next(iter(self._models))]
        return self._models[key]


def main() -> None:
    """Answer requests until the app ends."""
    previewer = Previewer()
    for line in sys.stdin.buffer:
        data = b""
        try:
            data, faces = previewer.preview(msgspec.json.decode(line, type=Request))
            answer: dict[str, Any] = {"bytes": len(data), "faces": faces}
        except FaceswapError as error:
            answer = {"bytes": 0, "error": str(error)}
        except OSError as error:
            answer = {"bytes": 0, "error": f"the model is gone: {error}"}
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n" + data)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()

"""Swap the faces of some frames: the process behind the previews of settings.

The app starts ``python -m faceswap.review.conversion.previewer`` and keeps it, because loading
torch and a model takes seconds. Each line that it reads is a request in JSON; it answers with a
line of JSON and the images whose lengths that line lists as "sizes". The last frames keep their
faces and models stay loaded, so a changed setting takes as long as decoding and pasting.
"""

import os
import sys
from collections.abc import Hashable
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import cv2
import msgspec
import numpy as np
import torch

from faceswap.arrays import Image
from faceswap.config import ConvertConfig
from faceswap.errors import FaceswapError, InputError, NoFacesError
from faceswap.faces.detection import DetectorSpec, detect_yunet
from faceswap.faces.dlib_backend import compute_embedding
from faceswap.faces.geometry import Box, Face
from faceswap.faces.pool import DetectorPool
from faceswap.media.footage import Footage, video_at
from faceswap.media.frame import Frame
from faceswap.models.modelfile import MODEL_FILE, TrainedModel, load_model
from faceswap.review.footage import Reader, jpeg
from faceswap.swapping.compositor import Swap
from faceswap.swapping.explicit import refuse_explicit_image
from faceswap.swapping.plan import assemble
from faceswap.swapping.render import paste_swaps
from faceswap.swapping.shots import read_shots
from faceswap.swapping.swapper import FaceSwapper, prepare_video
from faceswap.swapping.swappers import ShotSwapper
from faceswap.tracking.selection import FaceSelector, Selection, select_faces
from faceswap.tracking.tracker import track_faces

FRAMES, MODELS, CASTS = 8, 4, 4  # that are kept
MARGINS = (0.8, 0.5, 0.25)  # of a portrait around the face, as shares of its box
Known = TypeVar("Known")


class Request(msgspec.Struct, tag_field="what"):
    """What is asked for.

    Attributes:
        clip: The footage.
        model: The model's folder.
        settings: Settings of the conversion by name.
    """

    clip: str
    model: str
    settings: dict[str, Any]


class Still(Request, tag="still"):
    """A frame with swapped faces.

    Attributes:
        frame: Index of the frame.
    """

    frame: int


class Loop(Request, tag="loop"):
    """Consecutive frames with swapped faces, tracked and smoothed as in the whole clip.

    Attributes:
        first: Index of the first one.
        count: Their number.
    """

    first: int
    count: int


class Portrait(Request, tag="portrait"):
    """A photo of one of the faces of a frame, in which it is the largest.

    Attributes:
        frame: Index of the frame.
        x: A place in the face, in pixels.
        y: A place in the face.
    """

    frame: int
    x: float
    y: float


class Answer(msgspec.Struct, omit_defaults=True):
    """What came of a request.

    Attributes:
        sizes: Lengths of the images that follow, in bytes.
        faces: "box", "target" and "why" of each face of a still; a face without a target is left as
            it is.
        target: Whom of the cast a portrait shows; None if nobody.
        error: Why there is no image.
    """

    sizes: list[int] = []
    faces: list[dict[str, Any]] = []
    target: int | None = None
    error: str = ""


class Previewer:
    """Swaps the faces of frames."""

    def __init__(self) -> None:
        self._clip = ""
        self._reader: Reader | None = None
        self._footage: Footage | None = None
        self._faces: dict[Hashable, tuple[Frame, list[Face]]] = {}
        self._chosen: dict[Hashable, Selection] = {}
        self._models: dict[Hashable, TrainedModel] = {}
        self._built: dict[Hashable, tuple[FaceSwapper, FaceSelector]] = {}

    def answer(self, asked: Still | Loop | Portrait) -> tuple[Answer, list[bytes]]:
        """Return the answer to a request, and its images.

        Raises:
            InputError: If the clip, a frame, or a file of the settings cannot be read.
            ModelError: If a model cannot be read.
            NoFacesError: If there is no face at the place of a portrait.
            SettingsError: If a setting has no such value.
            ExplicitFootageError: If a frame looks explicit.
        """
        config = ConvertConfig.from_dict(asked.settings)
        self._open(asked.clip)
        who, swapper, selector = self._assembled(asked.model, config)
        if isinstance(asked, Still):
            frame, chosen = self._selected(asked.frame, config, who, selector)
            return _still(frame, chosen, swapper)
        if isinstance(asked, Loop):
            images = self._loop(asked, config, swapper, selector)
            return Answer([*map(len, images)]), images
        photo, target = self._portrait(asked, config, selector)
        return Answer([len(photo)], target=target if config.cast else None), [photo]

    def _selected(
        self, index: int, config: ConvertConfig, who: Hashable, selector: FaceSelector
    ) -> tuple[Frame, Selection]:
        """Return a frame, and which of its faces are swapped.

        Args:
            index: The frame's index.
            config: Settings.
            who: What determines the selector.
            selector: Chooses the faces.
        """
        frame, faces = self._found(index, config)
        key = who, self._key(index, config)
        if key not in self._chosen:
            (chosen,) = select_faces([(frame, faces)], selector)
            _keep(self._chosen, key, chosen, FRAMES)
        return frame, self._chosen[key]

    def _loop(
        self, asked: Loop, config: ConvertConfig, swapper: FaceSwapper, selector: FaceSelector
    ) -> list[bytes]:
        assert self._footage is not None
        frames = [*islice(self._footage.read(asked.first), asked.count)]
        if not frames:
            raise InputError(f"{asked.clip} has no frame {asked.first}")
        for at in {0, len(frames) // 2, len(frames) - 1}:
            refuse_explicit_image(frames[at].image)
        spec = DetectorSpec(config.detector, config.landmarks).checked()
        with DetectorPool(config.min_score, 1, config.landmarks) as pool:
            tracked = track_faces(frames, pool, spec, config.smooth)
            chosen = select_faces(tracked, selector)
            found = ((frame, kept) for frame, kept, _ in chosen)
            return [_pasted(*pair, swapper) for pair in prepare_video(swapper, found)]

    def _portrait(
        self, asked: Portrait, config: ConvertConfig, selector: FaceSelector
    ) -> tuple[bytes, int | None]:
        """Return a photo of a face as PNG, and whom it shows."""
        frame, faces = self._found(asked.frame, config)
        face = next((f for f in faces if _holds(f.box, asked.x, asked.y)), None)
        if face is None:
            raise NoFacesError("there is no face at this place; choose another frame")
        image = _alone(frame.image, face, config.landmarks)
        _, data = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))
        embedding = compute_embedding(frame.image, face.landmarks)
        return data.tobytes(), selector.target_of(embedding)

    def _open(self, clip: str) -> None:
        if self._clip != clip:
            self._footage = video_at(Path(clip))
            self._clip, self._reader = clip, Reader(self._footage)

    def _found(self, index: int, config: ConvertConfig) -> tuple[Frame, list[Face]]:
        """Return a frame and its faces, the largest first."""
        key = self._key(index, config)
        if key not in self._faces:
            assert self._reader is not None
            image = self._reader.frame(index)
            refuse_explicit_image(image)
            spec = DetectorSpec(config.detector, config.landmarks).checked()
            frame = Frame(image, index, Fraction(0), Path(self._clip))
            _keep(self._faces, key, (frame, spec.detect(image, config.min_score)), FRAMES)
        return self._faces[key]

    def _key(self, index: int, config: ConvertConfig) -> Hashable:
        """Return the cache key of the faces detected in a frame."""
        return self._clip, index, config.detector, config.landmarks, config.min_score

    def _assembled(
        self, model: str, config: ConvertConfig
    ) -> tuple[Hashable, FaceSwapper, FaceSelector]:
        """Return a key for who is swapped, the swapper, and the selector."""
        who = replace(ConvertConfig(), to=config.to, all_faces=config.all_faces, cast=config.cast)
        key = model, _state(Path(model)), config.to, config.all_faces, _state_of(config.cast)
        if key not in self._built:
            swapper, selector, _ = assemble(who, Path(model), self._load)
            _keep(self._built, key, (swapper, selector), CASTS)
        swapper, selector = self._built[key]
        usual = replace(config, shots=None)
        if swapper.config != usual:
            swapper = swapper.adjusted(usual)
            self._built[key] = swapper, selector
        if config.shots:
            swapper = ShotSwapper(swapper, read_shots(Path(config.shots)), int)
        return key, swapper, selector

    def _load(self, folder: Path, _: torch.device) -> TrainedModel:
        """Return a model; it is loaded again if training has changed it."""
        key = folder, _state(folder)
        if key not in self._models:
            _keep(self._models, key, load_model(folder), MODELS)
        return self._models[key]


def _still(frame: Frame, chosen: Selection, swapper: FaceSwapper) -> tuple[Answer, list[bytes]]:
    """Swap the chosen faces of a frame.

    They count as tracked, because faces of a video are made otherwise than those of a photo.
    """
    kept = [replace(face, track=number) for number, face in enumerate(chosen.kept)]
    (swaps,) = swapper.prepare([(frame, kept)]) if kept else ([],)
    image = _pasted(frame, swaps, swapper)
    told: list[dict[str, Any]] = [
        *({"box": _corners(face.box), "target": face.target, "why": ""} for face in chosen.kept),
        *({"box": _corners(face.box), "target": None, "why": why} for face, why in chosen.left_out),
    ]
    return Answer([len(image)], told), [image]


def _pasted(frame: Frame, swaps: list[Swap], swapper: FaceSwapper) -> bytes:
    return jpeg(paste_swaps(frame, swaps, swapper.config_at(frame.index)).image)


def _keep(known: dict[Hashable, Known], key: Hashable, value: Known, most: int) -> None:
    """Keep a value, and forget the oldest ones."""
    known[key] = value
    while len(known) > most:
        del known[next(iter(known))]


def _state(model: Path) -> int:
    try:
        return (model / MODEL_FILE).stat().st_mtime_ns
    except OSError as error:
        raise InputError(f"the model {model} is gone: {error.strerror}") from error


def _state_of(path: str | None) -> tuple[str, int] | None:
    """Return what changes if a file is replaced."""
    try:
        return (path, Path(path).stat().st_mtime_ns) if path else None
    except OSError as error:
        raise InputError(f"{path} is gone: {error.strerror}") from error


def _corners(box: Box) -> list[float]:
    return [round(side, 1) for side in (box.left, box.top, box.right, box.bottom)]


def _holds(box: Box, x: float, y: float) -> bool:
    return box.left <= x < box.right and box.top <= y < box.bottom


def _alone(image: Image, face: Face, landmarks: str) -> Image:
    """Cut out a face so that it is the largest one in the picture.

    Raises:
        NoFacesError: If a larger face is too near.
    """
    box = face.box
    middle = (box.left + box.right) / 2, (box.top + box.bottom) / 2
    for margin in MARGINS:
        right, down = margin * (box.right - box.left), margin * (box.bottom - box.top)
        left, top = max(round(box.left - right), 0), max(round(box.top - down), 0)
        cut = image[top : max(round(box.bottom + down), 1), left : max(round(box.right + right), 1)]
        found = detect_yunet(cut, 0.0, landmarks)
        if found and _holds(found[0].box, middle[0] - left, middle[1] - top):
            return cut
    raise NoFacesError("another face is too near; choose a frame in which this person is alone")


def main() -> None:
    """Answer requests until the app ends."""
    previewer = Previewer()
    for line in sys.stdin.buffer:
        images: list[bytes] = []
        try:
            asked = msgspec.json.decode(line, type=Still | Loop | Portrait)
            answer, images = previewer.answer(asked)
        except FaceswapError as error:
            answer = Answer(error=str(error))
        try:
            sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n" + b"".join(images))
            sys.stdout.buffer.flush()
        except BrokenPipeError:  # the app was killed
            os._exit(0)


if __name__ == "__main__":
    main()

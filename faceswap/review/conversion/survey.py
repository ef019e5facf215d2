"""Look through a clip for its shots and the people in them.

The app starts ``python -m faceswap.review.conversion.survey CLIP RESULT``. Every frame is compared
with the one before to find cuts, and faces are looked for about twice a second and in every shot.
The process prints the share that is done, and writes a :class:`.surveys.Survey` in JSON at the end.
"""

import math
import sys
from collections.abc import Iterator
from itertools import tee
from pathlib import Path

import msgspec
import numpy as np

from faceswap.arrays import Embedding
from faceswap.config import ConvertConfig
from faceswap.errors import FaceswapError
from faceswap.faces.detection import DetectorSpec
from faceswap.faces.dlib_backend import compute_embedding
from faceswap.faces.geometry import Face
from faceswap.faces.pose import facing
from faceswap.facesets.people import groups_of
from faceswap.files import write_bytes
from faceswap.media.footage import Footage, video_at
from faceswap.media.frame import Frame
from faceswap.review.conversion.surveys import Person, Survey, state_of
from faceswap.tracking.appearance import is_knowable
from faceswap.tracking.tracker import cuts

PER_SECOND = 2  # looks for faces
MAX_LOOKS = 600  # for faces, besides one for each shot
MAX_PEOPLE = 12  # that are told, the most frequent ones


def survey(path: Path) -> Survey:
    """Look through a clip, and print the share that is done.

    Raises:
        InputError: If it cannot be read.
    """
    state, footage = state_of(path), video_at(path)
    info, config = footage.probe(), ConvertConfig()
    rate = float(info.frames / info.seconds) if info.frames and info.seconds else 25.0
    every = max(round(rate / PER_SECOND), (info.frames or 0) // MAX_LOOKS, 1)
    spec = DetectorSpec(config.detector, config.landmarks).checked()
    found = Survey(state, [], [], [])
    seen: list[tuple[int, Face]] = []  # the place of the look, and the face
    embeddings: list[Embedding] = []
    first = 0
    for frame, is_last in _with_ends(footage):
        is_turn = (frame.index - first) % every == every // 2
        if is_turn or (is_last and (not found.looks or found.looks[-1] < first)):
            for face in spec.detect(frame.image, config.min_score):
                if is_knowable(face):
                    seen.append((len(found.looks), face))
                    embeddings.append(compute_embedding(frame.image, face.landmarks))
            found.looks.append(frame.index)
            print(min(frame.index / max(info.frames or 0, 1), 1.0), flush=True)
        if is_last:
            found.shots.append((first, frame.index))
            first = frame.index + 1
    found.people = _people(seen, embeddings, found.looks)
    return found


def _with_ends(footage: Footage) -> Iterator[tuple[Frame, bool]]:
    """Yield each frame, and whether it is the last one of its shot."""
    frames, again = tee(footage.read())
    before: Frame | None = None
    for frame, is_first in zip(frames, cuts(again), strict=True):
        if before:
            yield before, is_first
        before = frame
    if before:
        yield before, True


def _people(
    seen: list[tuple[int, Face]], embeddings: list[Embedding], looks: list[int]
) -> list[Person]:
    """Group faces by person."""
    groups = groups_of(np.array(embeddings, np.float32)) if embeddings else []
    people = []
    for group in groups[:MAX_PEOPLE]:
        look, face = max((seen[member] for member in group.members), key=_quality)
        box = face.box
        x, y = (box.left + box.right) / 2, (box.top + box.bottom) / 2
        side = max(box.right - box.left, box.bottom - box.top)
        places = sorted({seen[member][0] for member in group.members})
        people.append(Person(places, looks[look], round(x, 1), round(y, 1), round(side, 1)))
    return people


def _quality(item: tuple[int, Face]) -> float:
    """Return how well a face shows who it is: large and facing the camera."""
    _, face = item
    yaw, pitch, _ = facing(face.landmarks)
    turned = math.hypot(yaw, pitch)
    return (face.box.right - face.box.left) * max(math.cos(math.radians(turned)), 0.0)


def main(clip: Path, result: Path) -> None:
    """Write what is in a clip; print one line if it cannot be read."""
    try:
        write_bytes(result, msgspec.json.encode(survey(clip)))
    except FaceswapError as error:
        print(error, flush=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

"""Refuse explicit footage before anything is swapped in it.

A classifier looks at the destination: at every photo, and in a video at one frame a second and at
every frame that shows something new, so that a short shot cannot hide between two samples. Nothing
switches this off. Shots that are not to be swapped are not looked at.

The classifier is Open NSFW (J. Mahadeokar and G. Pesavento, Yahoo, 2016). Faces fill much of the
footage of this program, and skin is what the classifier looks for; so a picture counts only if it
looks explicit with its faces covered, too.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from faceswap.arrays import FloatImage, Image
from faceswap.errors import ExplicitFootageError, InputError
from faceswap.faces import blazeface
from faceswap.faces.geometry import shrunk
from faceswap.faces.networks import brightened, load
from faceswap.media.frame import Frame
from faceswap.media.photos import read_photo
from faceswap.types import OnProgress, Progress, clock, counted, named

WEIGHTS = "open_nsfw.onnx"
LIMIT = 0.65  # score from which a picture is refused
LONGEST = 640  # pixels; the longest side of larger pictures is scaled down to it first
SIDE, INNER = 256, 224  # the picture is scaled to the first and cut to the second, pixels
MEAN = np.array([104, 117, 123], np.float32)  # BGR
# Least score of a face, what is covered around its box, and the sides of the picture at which faces
# are looked for: the detector prefers faces of 12 to 50 pixels.
FACE_SCORE, FACE_MARGIN, FACE_SIDES = 0.0, 0.2, (64, 128)
BORDER = 8  # levels by which the pixels of a border may differ
# A picture between blurred bars has this share of the other side; nearly square ones have no bars.
BETWEEN_BARS, SQUARE = 9 / 16, 1.2
MIN_BORDER = 0.04  # of the side: narrower borders change nothing
EVERY = Fraction(1)  # seconds between two frames that are classified, at most
THUMB, NEW = (32, 18), 10.0  # size, and mean difference in grey levels of what shows something new
TOGETHER = Fraction(2)  # seconds between frames that are named as one range
NAMED = 5  # ranges or photos that the message names


@dataclass(frozen=True, slots=True)
class Flagged:
    """A frame that is refused."""

    number: int
    time: Fraction
    score: float


def score_of(image: Image) -> float:
    """Return how explicit an image looks, from 0 to 1; see :data:`LIMIT`.

    It is looked at in all four orientations, because faces are found in all of them, and with and
    without its borders; and its middle upright, because phones and news show a tall picture between
    blurred bars.

    Args:
        image: RGB (H, W, 3).
    """
    image, _ = shrunk(image, LONGEST)
    lit = brightened(image)
    image = image if lit is None else lit
    inner = _without_border(image)
    views = [image] if inner.shape == image.shape else [image, inner]
    middle = _middle(image)
    scores = [_score_of_view(view, 4) for view in views]
    return max(scores if middle is None else [*scores, _score_of_view(middle, 1)])


def _middle(image: Image) -> Image | None:
    """Return what a picture shows between bars at its sides, or above and below; None if square."""
    height, width = image.shape[:2]
    if max(height, width) < SQUARE * min(height, width):
        return None
    across, down = (round(height * BETWEEN_BARS), height) if width > height else (
        width, round(width * BETWEEN_BARS))  # fmt: skip
    left, top = (width - across) // 2, (height - down) // 2
    return image[top : top + down, left : left + across]


def _score_of_view(image: Image, orientations: int) -> float:
    small = np.asarray(cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)
    scores = [_classified(_turned(small, turns)) for turns in range(orientations)]
    if max(scores) < LIMIT:
        return max(scores)
    covered = _with_faces_covered(small)
    return max(
        min(score, _classified(_turned(covered, turns))) if score >= LIMIT else score
        for turns, score in enumerate(scores)
    )


def _turned(image: Image, turns: int) -> Image:
    """Return an image turned counter-clockwise by quarters."""
    return np.ascontiguousarray(np.rot90(image, turns))


def _classified(image: Image) -> float:
    """Return the classifier's output for an image (SIDE, SIDE, 3)."""
    start = (SIDE - INNER) // 2
    part = image[start : start + INNER, start : start + INNER, ::-1].astype(np.float32) - MEAN
    (output,) = load(WEIGHTS).run(np.ascontiguousarray(part[None])).values()
    return float(output.ravel()[1])


def _with_faces_covered(image: Image) -> Image:
    """Cover the faces of a square image, in whichever of four orientations they are."""
    covered = image.copy()
    for turns in range(4):
        seen = _turned(covered, turns)
        upright = _turned(image, turns)
        for box in (
            found.box for side in FACE_SIDES
            for found in blazeface.detect(upright, FACE_SCORE, side)
        ):  # fmt: skip
            across = FACE_MARGIN * (box.right - box.left)
            down = FACE_MARGIN * (box.bottom - box.top)
            left, top = max(round(box.left - across), 0), max(round(box.top - down), 0)
            right, bottom = max(round(box.right + across), 0), max(round(box.bottom + down), 0)
            seen[top:bottom, left:right] = np.rint(MEAN[::-1])
        covered = _turned(seen, -turns)
    return covered


def _without_border(image: Image) -> Image:
    """Return an image without bars of one colour at its edges, such as those of a letter box."""
    gray = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.int16)
    bounds = []
    for lines in (gray, gray.T):
        spread = lines.max(axis=1) - lines.min(axis=1)
        busy = np.flatnonzero(spread > BORDER)
        bounds.append((int(busy[0]), int(busy[-1]) + 1) if len(busy) else (0, len(lines)))
    (top, bottom), (left, right) = bounds
    height, width = gray.shape
    cut = max(1 - (bottom - top) / height, 1 - (right - left) / width)
    return image[top:bottom, left:right] if cut > MIN_BORDER else image


def refuse_explicit_image(image: Image) -> None:
    """Refuse an image in memory.

    Args:
        image: RGB (H, W, 3).

    Raises:
        ExplicitFootageError: If it looks explicit.
    """
    score = score_of(image)
    if score >= LIMIT:
        raise ExplicitFootageError(f"the image {_reason(score)}")


def refuse_explicit_photos(
    photos: Sequence[Path], on_progress: OnProgress, colorspace: str | None = None
) -> None:
    """Refuse photos if one of them looks explicit; those that cannot be read are skipped.

    Args:
        photos: Their paths.
        on_progress: Called after each photo.
        colorspace: Their colour space; see :func:`photos.read_photo`.

    Raises:
        ExplicitFootageError: If one looks explicit.
    """
    found: list[tuple[Path, float]] = []
    for done, path in enumerate(photos, start=1):
        try:
            image = read_photo(path, colorspace).image
        except InputError:  # the report will say so
            continue
        score = score_of(image)
        if score >= LIMIT:
            found.append((path, score))
        on_progress(Progress(done, len(photos), "photos checked"))
    if not found:
        return
    highest = max(score for _, score in found)
    if len(photos) == 1:
        raise ExplicitFootageError(f"{photos[0]} {_reason(highest)}")
    names = named([path.name for path, _ in found], NAMED)
    raise ExplicitFootageError(
        f"{counted(len(found), 'photo')} of {photos[0].parent} {_reason(highest)}: {names}; "
        "move them out of the folder to convert the others"
    )


def refuse_explicit_frames(
    footage: Path,
    frames: Iterable[tuple[Frame, bool]],
    number_of: Callable[[int], int],
    total: int | None,
    on_progress: OnProgress,
) -> None:
    """Refuse footage if what is to be swapped in it looks explicit.

    Args:
        footage: Its path, for the message.
        frames: All frames of the excerpt, and whether faces may be swapped in each.
        number_of: Returns the number by which a user knows a frame, given its index.
        total: Number of frames, if it is known.
        on_progress: Called after each frame.

    Raises:
        ExplicitFootageError: If it looks explicit.
    """
    found = []
    for frame in _to_look_at(frames, total, on_progress):
        score = score_of(frame.image)
        if score >= LIMIT:
            found.append(Flagged(number_of(frame.index), frame.time, score))
    if not found:
        return
    names = named([_words(run) for run in _runs(found)], NAMED)
    raise ExplicitFootageError(
        f"{footage} {_reason(max(flagged.score for flagged in found))}: {names}; leave these "
        "shots out with --frames, or with --start and --end"
    )


def _to_look_at(
    frames: Iterable[tuple[Frame, bool]], total: int | None, on_progress: OnProgress
) -> Iterator[Frame]:
    """Yield one frame a second, and each frame that differs from the last one of these."""
    last: tuple[Fraction, FloatImage] | None = None
    for done, (frame, is_swapped) in enumerate(frames, start=1):
        on_progress(Progress(done, total, "frames checked"))
        if not is_swapped:
            last = None
            continue
        small = cv2.resize(frame.gray(), THUMB, interpolation=cv2.INTER_AREA)
        thumb: FloatImage = small.astype(np.float32)
        if (
            last is None
            or frame.time - last[0] >= EVERY
            or float(np.abs(thumb - last[1]).mean()) > NEW
        ):
            last = frame.time, thumb
            yield frame


def _reason(score: float) -> str:
    return f"looks explicit (score {score:.2f}, the limit is {LIMIT:g}), so nothing is swapped"


def _runs(found: list[Flagged]) -> list[list[Flagged]]:
    runs: list[list[Flagged]] = []
    for flagged in found:
        if runs and flagged.time - runs[-1][-1].time <= TOGETHER:
            runs[-1].append(flagged)
        else:
            runs.append([flagged])
    return runs


def _words(run: list[Flagged]) -> str:
    first, last = run[0], run[-1]
    began, ended = (clock(float(flagged.time), 1) for flagged in (first, last))
    if first is last:
        return f"frame {first.number} at {began}"
    return f"frames {first.number} to {last.number} at {began} to {ended}"

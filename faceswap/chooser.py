"""Whom to swap: tracks that look like the people asked for, decided once for a whole track."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from faceswap.aligner import describe, find_auto
from faceswap.errors import NoFacesError
from faceswap.media import read_photo
from faceswap.types import SAME_PERSON, Descriptor, Found

VOTES = 3  # frames of a track that are compared
AHEAD = 12  # frames a track's votes are drawn from


@dataclass(frozen=True, slots=True)
class Choice:
    """Whom to swap.

    Attributes:
        who: Descriptors of people to swap; none: everybody.
        never: Descriptors of people to leave alone.
        largest: Whether only the largest of the faces that remain in a frame counts.
    """

    who: tuple[Descriptor, ...] = ()
    never: tuple[Descriptor, ...] = ()
    largest: bool = False

    @property
    def everybody(self) -> bool:
        """Whether there is nothing to choose."""
        return not (self.who or self.never or self.largest)

    def wants(self, descriptor: Descriptor) -> bool:
        """Whether a face with this descriptor is one to swap.

        It is if it is nearer than 0.6 to somebody asked for, and nearer to them than to anybody to
        leave alone.
        """
        wanted = _nearest(descriptor, self.who) if self.who else SAME_PERSON
        unwanted = _nearest(descriptor, self.never) if self.never else np.inf
        if self.who:
            return wanted < SAME_PERSON and wanted < unwanted
        return unwanted >= SAME_PERSON


def _nearest(descriptor: Descriptor, others: tuple[Descriptor, ...]) -> float:
    return min(float(np.linalg.norm(descriptor - other)) for other in others)


def descriptor_of(photo: Path) -> Descriptor:
    """The descriptor of the largest face of a reference photo, (128,).

    Raises:
        InputError: If the photo cannot be read.
        NoFacesError: If no face is found in it.
    """
    image = read_photo(photo).image
    faces = find_auto(image, 0.0)
    if not faces:
        raise NoFacesError(f"no face found in the reference {photo}; give a sharper, larger one")
    return describe(image, faces[0].landmarks)


def choose(found: Iterable[Found], choice: Choice) -> Iterator[Found]:
    """Yield every frame with only the faces to swap.

    A track is decided once, when it begins, by the majority of up to three of its next frames.

    Args:
        found: Frames with their faces, largest first, and these faces' tracks; a photo's have none
            (-1), and each is decided by itself.
        choice: Whom to swap.
    """
    if choice.everybody:
        yield from found
        return
    decided: dict[int, bool] = {}
    window: deque[Found] = deque()
    for item in found:
        window.append(item)
        if len(window) > AHEAD:
            yield _chosen(window, choice, decided)
    while window:
        yield _chosen(window, choice, decided)


def _chosen(window: deque[Found], choice: Choice, decided: dict[int, bool]) -> Found:
    """The oldest item of the window, taken out, with only the faces to swap."""
    frame, faces = window[0]
    by_looks = bool(choice.who or choice.never)
    kept = []
    for face in faces:
        if by_looks and face.track < 0:
            wanted = choice.wants(describe(frame.image, face.landmarks))
        elif by_looks:
            if face.track not in decided:
                decided[face.track] = _vote(face.track, window, choice)
            wanted = decided[face.track]
        else:
            wanted = True
        if wanted:
            kept.append(face)
    window.popleft()
    return frame, kept[:1] if choice.largest else kept


def _vote(track: int, window: deque[Found], choice: Choice) -> bool:
    """Whether most of some frames of a track show somebody to swap."""
    seen = [(f, face) for f, faces in window for face in faces if face.track == track]
    some = seen[:: max(len(seen) // VOTES, 1)][:VOTES]
    votes = [choice.wants(describe(frame.image, face.landmarks)) for frame, face in some]
    return 2 * sum(votes) > len(votes)

"""Select the faces to swap. Each track is decided once, from face embeddings where they matter."""

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from faceswap.arrays import Embedding
from faceswap.faces.dlib_backend import compute_embedding
from faceswap.faces.geometry import Face, FrameFaces
from faceswap.faces.recognition import SAME_PERSON

log = logging.getLogger(__name__)


# A face at this distance from a person's mean embedding, or farther, certainly belongs to someone
# else. Portraits (694, of two people) were up to 0.65 from the mean of the person shown; strangers
# in four clips were at 0.67-0.78.
STRANGER_DISTANCE = 0.65
MAX_VOTES = 3  # maximum number of frames of a track whose embeddings are computed
LOOKAHEAD_FRAMES = 12  # frames after the current one that a track's votes may come from

References = tuple[Embedding, ...]  # reference embeddings of one target; empty means anyone
Lookahead = deque[FrameFaces]  # the current frame and up to LOOKAHEAD_FRAMES after it


@dataclass(frozen=True, slots=True, eq=False)
class FaceSelector:
    """Selects the faces to swap.

    Attributes:
        targets: References of each swap target. If there are several, none may be empty.
        exclude: Embeddings of people who are never swapped.
        largest: Whether to keep only the largest selected face of each frame.
        footage: Mean embedding of the preferred person, see :func:`select_faces`; None prefers
            nobody. It is only used if ``targets`` and ``exclude`` contain no embedding.
    """

    targets: tuple[References, ...] = ((),)
    exclude: tuple[Embedding, ...] = ()
    largest: bool = False
    footage: Embedding | None = None

    @property
    def by_looks(self) -> bool:
        """Whether reference embeddings decide which tracks are swapped."""
        return bool(any(self.targets) or self.exclude)

    @property
    def all_faces(self) -> bool:
        """Whether every face is swapped, whoever it shows."""
        return not (self.by_looks or self.largest or self.footage is not None)

    def target_of(self, embedding: Embedding) -> int | None:
        """Return the index of the target for a face embedding, or None if it is not swapped.

        The nearest target wins if its distance is less than 0.6 and less than that of every
        excluded person. Without references, the target is 0 unless an excluded person is nearer
        than 0.6.
        """
        excluded = _nearest(embedding, self.exclude)
        if not any(self.targets):
            return 0 if excluded >= SAME_PERSON else None
        distances = [_nearest(embedding, target) for target in self.targets]
        best = int(np.argmin(distances))
        return best if distances[best] < min(SAME_PERSON, excluded) else None


def _nearest(embedding: Embedding, others: tuple[Embedding, ...]) -> float:
    return min((float(np.linalg.norm(embedding - other)) for other in others), default=np.inf)


@dataclass(slots=True)
class Decisions:
    """Decisions about a video's tracks, kept so that a resumed run decides the same way.

    Attributes:
        targets: Target index by track; None means the track is not swapped.
        distances: Embedding distance to the preferred person by track, if it had to be measured.
    """

    targets: dict[int, int | None] = field(default_factory=dict)
    distances: dict[int, float] = field(default_factory=dict)


def select_faces(
    found: Iterable[FrameFaces],
    selector: FaceSelector,
    decisions: Decisions | None = None,
    is_present: Callable[[], bool] | None = None,
) -> Iterator[FrameFaces]:
    """Yield every frame with only the faces to swap, each with its target.

    Each track is decided once, when it starts. If there are reference embeddings, up to three of
    its frames vote, from the first to 12 frames later, and a target needs a majority.

    If there is a preferred person, a track is not swapped in two cases. In the first, another face
    in shot with it is nearer than 0.6 to that person and nearer than the track. In the second, no
    face in shot is that near, the track certainly shows someone else, and the person appears
    elsewhere in the footage, for example in the other shots of a dialogue. If nobody in the footage
    looks like the preferred person, everyone is swapped.

    Args:
        found: Frames with their tracked faces, largest first. Faces of photos have track -1, and
            each photo is decided on its own.
        selector: Selects the faces to swap.
        decisions: Earlier decisions; new ones are added.
        is_present: Returns whether the preferred person appears anywhere in the footage. It is
            called only if the answer matters, perhaps repeatedly, so it should cache its result.
            If it is None, the second case above does not apply.

    Raises:
        InputError: If an embedding is needed and dlib's weights are missing.
    """
    if selector.all_faces:
        yield from found
        return
    decisions = Decisions() if decisions is None else decisions
    quiet = selector.footage is None
    for lookahead in _with_lookahead(found):
        frame, faces = lookahead[0]
        kept = _selected(lookahead, selector, decisions, is_present)
        if not quiet and len(kept) < len(faces):
            quiet = True
            log.warning("the footage shows several people: only the one whom the model was trained "
                        "to replace is swapped; pass --all to swap everyone")  # fmt: skip
        yield frame, kept


def _with_lookahead(found: Iterable[FrameFaces]) -> Iterator[Lookahead]:
    """Yield each frame with up to ``LOOKAHEAD_FRAMES`` after it, in one deque that is reused."""
    lookahead: Lookahead = deque()
    for item in found:
        lookahead.append(item)
        if len(lookahead) > LOOKAHEAD_FRAMES:
            yield lookahead
            lookahead.popleft()
    while lookahead:
        yield lookahead
        lookahead.popleft()


def _selected(
    lookahead: Lookahead,
    selector: FaceSelector,
    decisions: Decisions,
    is_present: Callable[[], bool] | None,
) -> list[Face]:
    """Select the faces to swap in the first frame of the lookahead."""
    frame, faces = lookahead[0]
    if any(face.track < 0 for face in faces):  # a photo counts as a video of one frame
        numbered = [replace(face, track=number) for number, face in enumerate(faces)]
        kept = _selected(deque([(frame, numbered)]), selector, Decisions(), is_present)
        return [replace(face, track=-1) for face in kept]
    kept = []
    for face in faces:
        if face.track not in decisions.targets:
            decisions.targets[face.track] = _decide(
                face.track, lookahead, selector, decisions, is_present
            )
        target = decisions.targets[face.track]
        if target is not None:
            kept.append(replace(face, target=target))
    return kept[:1] if selector.largest else kept


def _decide(
    track: int, lookahead: Lookahead, selector: FaceSelector, decisions: Decisions,
    is_present: Callable[[], bool] | None,
) -> int | None:  # fmt: skip
    """Decide the target of a new track; None means it is not swapped."""
    if selector.by_looks:
        votes = [selector.target_of(embedding) for embedding in _embeddings_of(track, lookahead)]
        target, count = Counter(votes).most_common(1)[0]
        return target if 2 * count > len(votes) else None
    if selector.footage is None:
        return 0
    frames = [{face.track for face in faces} for _, faces in lookahead]
    in_shot = set().union(*(tracks for tracks in frames if track in tracks))
    if in_shot == {track} and is_present is None:
        return 0
    for other in in_shot - decisions.distances.keys():
        distances = [_nearest(e, (selector.footage,)) for e in _embeddings_of(other, lookahead)]
        decisions.distances[other] = float(np.median(distances))
    nearest = min(in_shot, key=decisions.distances.__getitem__)
    if decisions.distances[nearest] < SAME_PERSON:
        return 0 if nearest == track else None
    # Nobody in shot looks like the preferred person.
    is_stranger = decisions.distances[track] >= STRANGER_DISTANCE
    if not is_stranger or is_present is None:
        return 0
    seen_before = any(distance < SAME_PERSON for distance in decisions.distances.values())
    return None if seen_before or is_present() else 0


def _embeddings_of(track: int, lookahead: Lookahead) -> list[Embedding]:
    """Compute embeddings of up to ``MAX_VOTES`` faces of a track, spread over the lookahead."""
    seen = [(frame, face) for frame, faces in lookahead for face in faces if face.track == track]
    sampled = seen[:: max(len(seen) // MAX_VOTES, 1)][:MAX_VOTES]
    return [compute_embedding(frame.image, face.landmarks) for frame, face in sampled]

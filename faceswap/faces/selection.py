"""Whom to swap: tracks that look like the people asked for, decided once for a whole track."""

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from faceswap.faces.dlib_backend import compute_embedding
from faceswap.faces.geometry import Face, FrameFaces
from faceswap.faces.recognition import SAME_PERSON
from faceswap.types import Embedding

log = logging.getLogger(__name__)


# Of 376 and 318 portraits the farthest was 0.65 from its own person's mean embedding; strangers in
# four clips were 0.67 to 0.78 from it.
STRANGER_DISTANCE = 0.65  # distance from which on a face is certainly somebody else's
MAX_VOTES = 3  # frames of a track that are compared
LOOKAHEAD_FRAMES = 12  # frames a track's votes are drawn from

References = tuple[Embedding, ...]  # what those look like who get one kind of swap; empty: anybody
Lookahead = deque[FrameFaces]  # a frame with its faces, and up to LOOKAHEAD_FRAMES that follow


@dataclass(frozen=True, slots=True, eq=False)
class FaceSelector:
    """Whom to swap.

    Attributes:
        roles: A role for each kind of swap. Several are told apart by looks: none may be empty.
        never: Descriptors of people to leave alone.
        largest: Whether only the largest of the faces that remain in a frame counts.
        footage: Descriptor of the person to prefer among several in shot; it counts where neither
            a role nor ``never`` says what anybody looks like.
    """

    targets: tuple[References, ...] = ((),)
    exclude: tuple[Embedding, ...] = ()
    largest: bool = False
    footage: Embedding | None = None

    @property
    def by_looks(self) -> bool:
        """Whether every face must be compared with somebody."""
        return bool(any(self.targets) or self.exclude)

    @property
    def all_faces(self) -> bool:
        """Whether there is nothing to choose."""
        return not (self.by_looks or self.largest or self.footage is not None)

    def target_of(self, embedding: Embedding) -> int | None:
        """The role of a face with this embedding, by its index; None: leave it alone.

        It is the role of the person it is nearest to, if that is nearer than 0.6, and nearer than
        anybody to leave alone; where a role is for anybody, all play it but those.
        """
        unwanted = _nearest(embedding, self.exclude)
        if not any(self.targets):
            return 0 if unwanted >= SAME_PERSON else None
        distances = [_nearest(embedding, target) for target in self.targets]
        best = int(np.argmin(distances))
        return best if distances[best] < min(SAME_PERSON, unwanted) else None


def _nearest(embedding: Embedding, others: tuple[Embedding, ...]) -> float:
    return min((float(np.linalg.norm(embedding - other)) for other in others), default=np.inf)


@dataclass(slots=True)
class Decisions:
    """What is known of a video's tracks. Given these again, the same is decided again.

    Attributes:
        roles: By track, the index of its role; None: it is left alone.
        distances: By track, its distance from the person preferred, where that had to be known.
    """

    targets: dict[int, int | None] = field(default_factory=dict)
    distances: dict[int, float] = field(default_factory=dict)


def select_faces(
    found: Iterable[FrameFaces],
    selector: FaceSelector,
    decisions: Decisions | None = None,
    is_present: Callable[[], bool] | None = None,
) -> Iterator[FrameFaces]:
    """Yield every frame with only the faces to swap, and these with their roles.

    A track is decided once, when it begins, by the majority of up to three of its next frames.
    With a person to prefer, a track is left alone if another face, in shot with it in those frames,
    is nearer than 0.6 to that person and nearer than the track is; or if it is certainly somebody
    else's, and the person is seen anywhere in the footage (in the other shots of a dialogue, say).
    So the person is swapped and the company is not; where nobody looks like that person, everybody
    is swapped.

    Args:
        found: Frames with their faces, largest first, and these faces' tracks; a photo's have none
            (-1), and each photo is decided by itself.
        selector: Whom to swap.
        decisions: What is decided already; new decisions are added.
        is_present: Whether the person to prefer is seen anywhere in the footage; asked once, and
            only if that matters. Without it a face that is alone in shot is swapped.
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
            log.warning("somebody else is in shot: only who looks like the footage that the model "
                        "was trained on is swapped; --all swaps everybody")  # fmt: skip
        yield frame, kept


def _with_lookahead(found: Iterable[FrameFaces]) -> Iterator[Lookahead]:
    """Each frame with those that follow, in a window that is reused."""
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
    """The faces to swap in the window's first frame."""
    frame, faces = lookahead[0]
    if any(face.track < 0 for face in faces):  # a photo is a video of one frame
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
    """The role of a track that begins."""
    if selector.by_looks:
        votes = [selector.target_of(embedding) for embedding in _embeddings_of(track, lookahead)]
        target, count = Counter(votes).most_common(1)[0]
        return target if 2 * count > len(votes) else None
    if selector.footage is None:
        return 0
    shots = [{face.track for face in faces} for _, faces in lookahead]
    company = set().union(*(tracks for tracks in shots if track in tracks))
    if company == {track} and is_present is None:
        return 0
    for one in company - decisions.distances.keys():
        distances = [_nearest(d, (selector.footage,)) for d in _embeddings_of(one, lookahead)]
        decisions.distances[one] = float(np.median(distances))
    likest = min(company, key=decisions.distances.__getitem__)
    if decisions.distances[likest] < SAME_PERSON:
        return 0 if likest == track else None
    # Nobody in shot looks like that person.
    is_stranger = decisions.distances[track] >= STRANGER_DISTANCE
    if not is_stranger or is_present is None:
        return 0
    was_here = any(distance < SAME_PERSON for distance in decisions.distances.values())
    return None if was_here or is_present() else 0


def _embeddings_of(track: int, lookahead: Lookahead) -> list[Embedding]:
    """Descriptors of some of a track's faces in a window."""
    seen = [(frame, face) for frame, faces in lookahead for face in faces if face.track == track]
    some = seen[:: max(len(seen) // MAX_VOTES, 1)][:MAX_VOTES]
    return [compute_embedding(frame.image, face.landmarks) for frame, face in some]

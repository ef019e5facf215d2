"""Select the faces to swap, by track: from face embeddings where they matter, or by size.

A track is decided when it starts, so that nobody flickers. Where reference photos decide, it is
looked at again from time to time, and the decision changes if its looks have changed for good.
"""

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np

from faceswap.arrays import Embedding
from faceswap.faces.dlib_backend import SAME_PERSON, compute_embedding
from faceswap.faces.geometry import Face, FrameFaces
from faceswap.media.frame import Frame
from faceswap.tracking.appearance import is_knowable
from faceswap.tracking.tracklog import Kept, Vote

log = logging.getLogger(__name__)


# A face at this distance from a person's mean embedding, or farther, certainly belongs to someone
# else. Portraits (694, of two people) were up to 0.65 from the mean of the person shown; strangers
# in four clips were at 0.67-0.78.
STRANGER_DISTANCE = 0.65
MAX_VOTES = 3  # maximum number of frames of a track whose embeddings are computed
LOOKAHEAD_FRAMES = 12  # frames after the current one that a track's votes may come from
# Frames after which a track votes again, with and without a face so far that shows who it is, and
# how many successive votes change a decision.
VOTE_EVERY, UNSURE_VOTE_EVERY, CHANGED = 24, 6, 3
# A face replaces a smaller one as the largest if it is wider by this factor for this number of
# frames, or if the other has been away for as many.
MUCH_LARGER, SIZE_FRAMES = 1.25, 12

Why = Literal["not chosen", "another person", "smaller"]
References = tuple[Embedding, ...]  # reference embeddings of one target; empty means anyone
Lookahead = deque[FrameFaces]  # the current frame and up to LOOKAHEAD_FRAMES after it


class LeftOut(NamedTuple):
    """A face that is not swapped.

    Attributes:
        face: The face.
        why: "not chosen" if it is none of the wanted people or an excluded one, "another person"
            if the model was trained to replace somebody else in the footage, "smaller" if only the
            largest face is swapped.
    """

    face: Face
    why: Why


class Selection(NamedTuple):
    """The faces of a frame: those to swap, each with its target, and the others.

    Attributes:
        frame: The frame.
        kept: The faces to swap.
        left_out: The others.
    """

    frame: Frame
    kept: list[Face]
    left_out: Sequence[LeftOut] = ()


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

    def distance_of(self, embedding: Embedding) -> float:
        """Return the distance to the nearest wanted person, or else to the nearest excluded one."""
        wanted = [reference for target in self.targets for reference in target]
        return _nearest(embedding, tuple(wanted) or self.exclude)


def _nearest(embedding: Embedding, others: tuple[Embedding, ...]) -> float:
    return min((float(np.linalg.norm(embedding - other)) for other in others), default=np.inf)


@dataclass(slots=True)
class Decisions:
    """Decisions about a video's tracks, kept so that a resumed run decides the same way.

    Attributes:
        votes: What frames of a track said about its target, in the order in which they were cast.
        distances: Embedding distance to the preferred person by track, if it had to be measured.
        kept: The tracks that were kept as the largest, from which frame on.
    """

    votes: list[Vote] = field(default_factory=list)
    distances: dict[int, float] = field(default_factory=dict)
    kept: list[Kept] = field(default_factory=list)
    # A long video has thousands of votes, and every face of a frame asks for those of its track.
    _by_track: dict[int, list[Vote]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._sort(self.votes)

    def cast(self, votes: list[Vote]) -> None:
        """Add votes."""
        self.votes += votes
        self._sort(votes)

    def _sort(self, votes: list[Vote]) -> None:
        for vote in votes:
            self._by_track.setdefault(vote.track, []).append(vote)

    def distance_of(self, track: int) -> float | None:
        """Return the smallest distance that was measured for a track; None if none was."""
        voted = [vote.distance for vote in self._by_track.get(track, ()) if vote.distance < np.inf]
        known = [*voted, *([self.distances[track]] if track in self.distances else [])]
        return min(known, default=None)

    def votes_of(self, track: int, frame: int) -> list[Vote]:
        """Return the votes of a track that were cast up to a frame."""
        return [vote for vote in self._by_track.get(track, ()) if vote.frame <= frame]


def elected(votes: list[Vote]) -> int | None:
    """Return the target of a track; None if it is not swapped.

    The first votes, which are cast together, need a majority. Votes of faces that show who it is
    replace those that do not. Later, as many as ``CHANGED`` in a row elect another target.
    """
    counted = [vote for vote in votes if vote.sure] or votes
    first = [vote.target for vote in counted if vote.frame == counted[0].frame]
    target, count = Counter(first).most_common(1)[0]
    current = target if 2 * count > len(first) else None
    later = [vote.target for vote in counted[len(first) :]]
    for at in range(CHANGED, len(later) + 1):
        latest = set(later[at - CHANGED : at])
        if len(latest) == 1:
            (current,) = latest
    return current


class LargestTracks:
    """Keeps the largest faces of a video, by track, so that faces of like size do not alternate.

    Args:
        count: Number of faces to keep in a frame.
        kept: What an interrupted run kept; new choices are added.
    """

    def __init__(self, count: int, kept: list[Kept] | None = None) -> None:
        self._count = count
        self._choices = [] if kept is None else kept
        self._tracks: list[int] = []
        self._away: Counter[int] = Counter()  # frames since a kept track was seen, by track
        self._larger: Counter[tuple[int, int]] = Counter()  # frames, by smaller and larger track
        self._before: set[int] = set()  # tracks in the frame before
        self._is_new = True

    def keep(self, frame: int, faces: list[Face]) -> list[Face]:
        """Return the faces of a frame that belong to the largest tracks.

        Args:
            frame: Index of the frame.
            faces: Its faces, the largest first. Those of photos have track -1.
        """
        if any(face.track < 0 for face in faces):
            return faces[: self._count]
        if self._is_new:
            self._is_new = False
            earlier = [tracks for first, tracks in self._choices if first <= frame]
            self._tracks = list(earlier[-1]) if earlier else []
            self._before = {face.track for face in faces}
        widths = {face.track: face.box.right - face.box.left for face in faces}
        before = list(self._tracks)
        self._drop_absent(widths)
        self._replace_smaller(widths)
        others = [face.track for face in faces if face.track not in self._tracks]
        self._tracks += others[: self._count - len(self._tracks)]
        known = [choice for choice in self._choices if choice[0] == frame]
        if self._tracks != before and not known:
            self._choices.append((frame, tuple(self._tracks)))
        return [face for face in faces if face.track in self._tracks]

    def _drop_absent(self, widths: dict[int, float]) -> None:
        """Give up tracks that have been away for long, and all of them after a cut."""
        for track in self._tracks:
            self._away[track] = 0 if track in widths else self._away[track] + 1
        is_cut = bool(widths) and not self._before & widths.keys()
        self._before = set(widths)
        self._tracks = [
            track for track in self._tracks if not is_cut and self._away[track] <= SIZE_FRAMES
        ]

    def _replace_smaller(self, widths: dict[int, float]) -> None:
        """Replace a kept track by one that has been much larger for long."""
        pairs = [
            (kept, other)
            for kept in self._tracks
            for other in widths
            if kept in widths
            and other not in self._tracks
            and widths[other] > MUCH_LARGER * widths[kept]
        ]
        self._larger = Counter({pair: self._larger[pair] + 1 for pair in pairs})
        for (kept, other), frames in self._larger.items():
            if frames >= SIZE_FRAMES and kept in self._tracks and other not in self._tracks:
                self._tracks[self._tracks.index(kept)] = other


def select_faces(
    found: Iterable[FrameFaces],
    selector: FaceSelector,
    decisions: Decisions | None = None,
    is_present: Callable[[], bool] | None = None,
) -> Iterator[Selection]:
    """Yield every frame with the faces to swap, each with its target, and the others.

    Each track is decided when it starts. If there are reference embeddings, up to three of its
    frames vote, from the first to 12 frames later, and a target needs a majority. Later frames
    vote, too; see :func:`elected`.

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
        yield from (Selection(frame, faces) for frame, faces in found)
        return
    decisions = Decisions() if decisions is None else decisions
    largest = LargestTracks(1, decisions.kept) if selector.largest else None
    quiet = selector.footage is None
    for lookahead in _with_lookahead(found):
        frame, faces = lookahead[0]
        chosen, others = _divided(lookahead, selector, decisions, is_present)
        kept = largest.keep(frame.index, chosen) if largest else chosen
        if not quiet and len(kept) < len(faces):
            quiet = True
            log.warning("the footage shows several people: only the one whom the model was trained "
                        "to replace is swapped; pass --all to swap everyone")  # fmt: skip
        smaller = [face for face in chosen if not any(face is other for other in kept)]
        why: Why = "another person" if selector.footage is not None else "not chosen"
        left_out = [LeftOut(face, "smaller") for face in smaller]
        yield Selection(frame, kept, [*left_out, *(LeftOut(face, why) for face in others)])


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


def _divided(
    lookahead: Lookahead,
    selector: FaceSelector,
    decisions: Decisions,
    is_present: Callable[[], bool] | None,
) -> tuple[list[Face], list[Face]]:
    """Return the faces to swap in the first frame of the lookahead, and the others."""
    frame, faces = lookahead[0]
    if any(face.track < 0 for face in faces):  # a photo counts as a video of one frame
        numbered = [replace(face, track=number) for number, face in enumerate(faces)]
        alone = deque([(frame, numbered)])
        chosen, others = _divided(alone, selector, Decisions(), is_present)
        untracked = [[replace(face, track=-1) for face in part] for part in (chosen, others)]
        return untracked[0], untracked[1]
    chosen, others = [], []
    for face in faces:
        votes = decisions.votes_of(face.track, frame.index)
        if not votes or (selector.by_looks and _votes_again(votes, frame.index, face)):
            votes += _vote(face.track, lookahead, selector, decisions, is_present, not votes)
        target = elected(votes)
        known = replace(face, distance=decisions.distance_of(face.track))
        if target is None:
            others.append(known)
        else:
            chosen.append(replace(known, target=target))
    return chosen, others


def _votes_again(votes: list[Vote], frame: int, face: Face) -> bool:
    """Return whether a face of a track that has voted votes again."""
    is_sure = any(vote.sure for vote in votes)
    interval = VOTE_EVERY if is_sure else UNSURE_VOTE_EVERY
    return frame - votes[-1].frame >= interval and is_knowable(face)


def _vote(
    track: int, lookahead: Lookahead, selector: FaceSelector, decisions: Decisions,
    is_present: Callable[[], bool] | None, is_new: bool,
) -> list[Vote]:  # fmt: skip
    """Let frames of a track vote, remember the votes and return them."""
    index = lookahead[0][0].index
    if selector.by_looks:
        seen = _faces_of(track, lookahead) if is_new else _faces_of(track, lookahead)[:1]
        votes = []
        for frame, face in _spread(seen):
            embedding = _embed(frame, face)
            target, distance = selector.target_of(embedding), selector.distance_of(embedding)
            votes.append(Vote(index, track, target, is_knowable(face), distance))
    else:
        target = _decide(track, lookahead, selector, decisions, is_present)
        votes = [Vote(index, track, target, True)]
    decisions.cast(votes)
    return votes


def _decide(
    track: int, lookahead: Lookahead, selector: FaceSelector, decisions: Decisions,
    is_present: Callable[[], bool] | None,
) -> int | None:  # fmt: skip
    """Decide whether a new track is swapped if there are no references: 0 if so, else None."""
    if selector.footage is None:
        return 0
    frames = [{face.track for face in faces} for _, faces in lookahead]
    in_shot = set().union(*(tracks for tracks in frames if track in tracks))
    if in_shot == {track} and is_present is None:
        return 0
    for other in in_shot - decisions.distances.keys():
        distances = [
            _nearest(_embed(frame, face), (selector.footage,))
            for frame, face in _spread(_faces_of(other, lookahead))
        ]
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


def _faces_of(track: int, lookahead: Lookahead) -> list[tuple[Frame, Face]]:
    return [(frame, face) for frame, faces in lookahead for face in faces if face.track == track]


def _spread(seen: list[tuple[Frame, Face]]) -> list[tuple[Frame, Face]]:
    """Return up to ``MAX_VOTES`` faces, spread evenly."""
    return seen[:: max(len(seen) // MAX_VOTES, 1)][:MAX_VOTES]


def _embed(frame: Frame, face: Face) -> Embedding:
    return compute_embedding(frame.image, face.landmarks)

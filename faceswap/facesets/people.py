"""Find out who is in a faceset: group faces by person, from their embeddings."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from faceswap.arrays import Embedding

NEAR = 0.55  # distance to a group's mean below which a face belongs to it
ONE_PERSON = 0.45  # distance below which the means of two groups show one person
ROUNDS = 10  # maximum number of times that all faces are reassigned


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Faces of one person.

    Attributes:
        members: Their positions, in order.
        mean: Their mean embedding, (128,).
    """

    members: list[int]
    mean: Embedding


def groups_of(embeddings: npt.NDArray[np.float32]) -> list[Group]:
    """Group embeddings (N, 128) by person, the largest group first.

    Each face joins the nearest group so far, or starts a new one if none is near. Groups with near
    means are then joined and all faces reassigned to the nearest mean, until nothing changes.
    """
    means: list[npt.NDArray[np.float32]] = []
    counts: list[int] = []
    for embedding in embeddings:
        distances = [float(np.linalg.norm(embedding - mean)) for mean in means]
        best = int(np.argmin(distances)) if distances else -1
        if best >= 0 and distances[best] < NEAR:
            counts[best] += 1
            means[best] = means[best] + (embedding - means[best]) / np.float32(counts[best])
        else:
            means.append(embedding.copy())
            counts.append(1)
    assigned = np.full(len(embeddings), -1)
    for _ in range(ROUNDS):
        means = _joined(means, counts)
        nearest = _nearest(embeddings, means)
        if np.array_equal(nearest, assigned):
            break
        assigned = nearest
        used = sorted(set(assigned.tolist()))
        means = [np.asarray(embeddings[assigned == number].mean(axis=0)) for number in used]
        counts = [int((assigned == number).sum()) for number in used]
    groups = [
        Group(np.flatnonzero(assigned == number).tolist(), means[place])
        for place, number in enumerate(sorted(set(assigned.tolist())))
    ]
    return sorted(groups, key=lambda group: -len(group.members))


def persons_of(
    embeddings: npt.NDArray[np.float32], tracks: Sequence[Hashable | None]
) -> tuple[list[int | None], list[Group]]:
    """Return whom each face shows, 0 for the most frequent person, and the groups of those known.

    Faces without an embedding count as those of their track.

    Args:
        embeddings: Those of the faces, (N, 128); NaN where unknown.
        tracks: The track of each face; None if it has none.

    Returns:
        persons: The number of each face's person; None if it is unknown.
        groups: The groups; their members are positions among the faces with an embedding.
    """
    known = np.flatnonzero(np.isfinite(embeddings).all(axis=1)).tolist()
    groups = groups_of(embeddings[known])
    persons: list[int | None] = [None] * len(embeddings)
    by_track: dict[Hashable, int] = {}
    for person, group in enumerate(groups):
        for member in group.members:
            persons[known[member]] = person
            by_track.setdefault(tracks[known[member]], person)
    by_track.pop(None, None)
    found = [by_track.get(track) if person is None else person
             for person, track in zip(persons, tracks, strict=True)]  # fmt: skip
    return found, groups


def _nearest(
    embeddings: npt.NDArray[np.float32], means: list[npt.NDArray[np.float32]]
) -> npt.NDArray[np.intp]:
    if not len(embeddings):
        return np.zeros(0, np.intp)
    stacked = np.stack(means)
    squares = (embeddings**2).sum(axis=1)[:, None] + (stacked**2).sum(axis=1)
    return np.asarray(np.argmin(squares - 2 * embeddings @ stacked.T, axis=1))


def _joined(
    means: list[npt.NDArray[np.float32]], counts: list[int]
) -> list[npt.NDArray[np.float32]]:
    """Join means that are nearer than ``ONE_PERSON``, the nearest first, weighted by counts."""
    means, counts = list(means), list(counts)
    while len(means) > 1:
        stacked = np.stack(means)
        apart = np.linalg.norm(stacked[:, None] - stacked, axis=2)
        np.fill_diagonal(apart, np.inf)
        one, other = sorted(map(int, np.unravel_index(int(np.argmin(apart)), apart.shape)))
        if apart[one, other] >= ONE_PERSON:
            break
        total = counts[one] + counts[other]
        share = np.float32(counts[other] / total)
        means[one] = np.asarray(means[one] + share * (means[other] - means[one]), np.float32)
        counts[one] = total
        del means[other], counts[other]
    return means

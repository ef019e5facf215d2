"""Warn about facesets from which no good model can be trained."""

import logging

import numpy as np
import numpy.typing as npt

from faceswap.arrays import Embedding
from faceswap.errors import AlignmentError
from faceswap.faces.pose import facing
from faceswap.facesets.faceset import Faceset
from faceswap.facesets.people import groups_of
from faceswap.types import Identity

log = logging.getLogger(__name__)

SAME = 0.4  # distance of two mean embeddings below which they certainly show one person
FEW_OTHERS = 0.03  # share of faces of other people that training bears
# Yaw and pitch in degrees from which a face is turned to a side, the share of a's faces that must
# show such a pose to matter, and the share of b's below which b lacks it.
TURNED, TILTED, SHOWN, LACKING = 30.0, 18.0, 0.02, 0.005
POSES = {
    "facing left": (0, -TURNED), "facing right": (0, TURNED),
    "looking up": (1, -TILTED), "looking down": (1, TILTED),
}  # fmt: skip


def warn_about_people(facesets: dict[Identity, Faceset]) -> None:
    """Warn if a faceset shows several people, as far as embeddings are stored."""
    for key, faceset in facesets.items():
        known = faceset.embeddings[np.isfinite(faceset.embeddings).all(axis=1)]
        others = [len(group.members) for group in groups_of(known)[1:]]
        if sum(others) > FEW_OTHERS * len(known):
            log.warning(
                "%s (%s): about %.0f %% of the faces show other people; extract again with --who "
                "PHOTO, or delete their crops", key, faceset.name, 100 * sum(others) / len(known),
            )  # fmt: skip


def warn_about_likeness(centroids: dict[Identity, Embedding]) -> None:
    """Warn if a and b seem to be the same person."""
    distance = float(np.linalg.norm(centroids["a"] - centroids["b"]))
    if distance < SAME:
        log.warning(
            "a and b seem to show the same person (their mean embeddings are %.2f apart; two "
            "people are 0.6 or more)", distance,
        )  # fmt: skip


def warn_about_poses(facesets: dict[Identity, Faceset]) -> None:
    """Warn about poses of a that b hardly shows, because they would be decoded soft."""
    shown = {key: _poses(faceset) for key, faceset in facesets.items()}
    if not all(len(poses) for poses in shown.values()):
        return
    lacking = [name for name in POSES if _share(shown["a"], name) >= SHOWN
               and _share(shown["b"], name) < LACKING]  # fmt: skip
    if lacking:
        log.warning(
            "b (%s) hardly shows faces %s, which a (%s) does: such faces will look soft; add "
            "photos of b like that", facesets["b"].name, " or ".join(lacking), facesets["a"].name,
        )  # fmt: skip


def _poses(faceset: Faceset) -> npt.NDArray[np.float64]:
    """Return yaw, pitch and roll of the faces, (N, 3) degrees."""
    found = []
    for points in faceset.landmarks:
        try:
            found.append(facing(points))
        except AlignmentError:  # all landmarks coincide
            continue
    return np.array(found).reshape(-1, 3)


def _share(poses: npt.NDArray[np.float64], name: str) -> float:
    axis, limit = POSES[name]
    turned = poses[:, axis] * np.sign(limit) >= abs(limit)
    return float(turned.mean())

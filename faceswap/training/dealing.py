"""Deal rare poses and expressions of a person more often than usual ones.

In most facesets a person looks to the front with closed lips. A decoder that sees a profile or an
open mouth once in a hundred faces paints it soft.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from faceswap.crops.eyes import opening
from faceswap.faces.expressions import mouth_aspect_ratio, yaw_of

# Widths of the cells in which faces are counted: turn, opening of the mouth and of the eyes.
CELL = (0.2, 0.15, 0.08)
MOST = 4  # times that a face is dealt in a pass


def deck_of(landmarks: npt.NDArray[np.float32]) -> Tensor:
    """Return the numbers of the faces to deal in a pass, each at least once, (M,) int64.

    A face is dealt the more often the fewer others look like it: by the square root of how many
    times rarer it is than the usual face.

    Args:
        landmarks: Of the faces, (N, 68, 2).
    """
    looks = np.array([[yaw_of(p), mouth_aspect_ratio(p), opening(p)] for p in landmarks])
    _, cells, counts = np.unique(
        np.floor(looks / CELL), axis=0, return_inverse=True, return_counts=True
    )
    alike = counts[cells.reshape(-1)]
    times = np.clip(np.rint(np.sqrt(np.median(alike) / alike)), 1, MOST).astype(np.int64)
    return torch.from_numpy(np.repeat(np.arange(len(landmarks)), times))

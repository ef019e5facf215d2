"""Numbers that describe how a face looks: where it is turned, and how far its mouth is open."""

import numpy as np

from faceswap.arrays import Points


def mouth_aspect_ratio(points: Points) -> float:
    """Return the opening of the inner lips over their width, from landmarks (68, 2)."""
    opening = np.linalg.norm(points[61:64] - points[[67, 66, 65]], axis=1).mean()
    return float(opening / max(float(np.linalg.norm(points[60] - points[64])), 1e-6))


def yaw_of(points: Points) -> float:
    """Return where a face is turned, from landmarks (68, 2): 0 is to the front, 1 a profile.

    It is how far the tip of the nose is from the middle between both ends of the jaw, in halves of
    their distance, positive to the right of the image.
    """
    across = (points[16] - points[0]).astype(np.float64)
    from_left = float((points[30] - points[0]).astype(np.float64) @ across)
    return 2 * from_left / max(float(across @ across), 1e-9) - 1

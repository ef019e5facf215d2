"""Array types that the stages exchange, and their conventions.

Images are RGB. Points are (x, y) pixels with pixel centres at integers. A matrix is (2, 3) and
maps frame to crop. BGR occurs only next to cv2 calls that require it, and inside networks whose
weights were trained with it.
"""

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]  # (H, W, 3) RGB
FloatImage = npt.NDArray[np.float32]  # (H, W, 3) RGB levels in 0..255, not rounded to 8 bits
Rect = tuple[int, int, int, int]  # left, top, right, bottom in pixels, the last two exclusive
Mask = npt.NDArray[np.float32]  # (H, W) in [0, 1]
Points = npt.NDArray[np.float32]  # (N, 2) x, y
Embedding = npt.NDArray[np.float32]  # (128,) face embedding
Matrix = npt.NDArray[np.float64]  # (2, 3) frame -> crop
# Detail of an image, (H, W, 3): each pixel over its surroundings. NEUTRAL is equal to them, and 255
# is brighter by the share RANGE.
Detail = npt.NDArray[np.uint8]
NEUTRAL, RANGE = 128, 0.5
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # weights of R, G and B, ITU-R BT.601

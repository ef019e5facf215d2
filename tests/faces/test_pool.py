import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from faceswap.errors import DeviceError
from faceswap.faces.detection import DetectorSpec
from faceswap.faces.pool import DetectorPool
from faceswap.media.frame import Frame


@pytest.mark.parametrize("workers", [1, 2])
def test_frames_come_back_in_order_with_their_faces(collins, hopper, workers):
    empty = np.zeros((120, 120, 3), np.uint8)
    images = [collins, empty, hopper, empty, collins]
    frames = [Frame(image, i, Fraction(i), Path("x")) for i, image in enumerate(images)]

    with DetectorPool(0.2, workers) as detector:
        found = list(detector.detect(frames, DetectorSpec("hog")))

    assert [frame.index for frame, _ in found] == [0, 1, 2, 3, 4]
    assert [len(faces) for _, faces in found] == [1, 0, 1, 0, 1]


def test_callable_detector_is_used(collins, collins_face):
    frame = Frame(collins, 0, Fraction(0), Path("x"))

    def own(image, min_score):
        return [collins_face] * (min_score == 0.5)

    with DetectorPool(0.5, 0) as detector:
        found = list(detector.detect([frame], DetectorSpec(own)))

    assert found == [(frame, [collins_face])]


def test_killed_worker_process_raises_device_error():
    with DetectorPool(0.2, 2) as detector, pytest.raises(DeviceError, match="process was killed"):
        list(detector.map(range(5), os._exit, lambda item: (1,)))

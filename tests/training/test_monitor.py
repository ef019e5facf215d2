"""What the monitor of a training shows."""

import numpy as np
import pytest
import torch

from faceswap.training.monitor import BORDER, _framed, margin


def test_faces_of_a_preview_stand_in_rows_with_white_between():
    faces = torch.rand(2, 3, 3, 5, 5) * 0.5

    image = _framed(faces)

    step = 5 + BORDER
    assert image.shape == (3, 2 * step + BORDER, 3 * step + BORDER)
    white = torch.ones(image.shape[1:], dtype=torch.bool)
    for row in range(2):
        for column in range(3):
            top, left = BORDER + row * step, BORDER + column * step
            area = (slice(top, top + 5), slice(left, left + 5))
            torch.testing.assert_close(image[:, *area], faces[row, column])
            white[area] = False
    assert (image[:, white] == 1).all()


def test_margin_covers_the_mean_of_19_in_20_samples():
    random = np.random.default_rng(0)
    samples = random.normal(0.7, 0.1, (2000, 200))

    covered = np.mean([abs(sample.mean() - 0.7) < margin(sample.tolist()) for sample in samples])

    assert covered == pytest.approx(0.95, abs=0.015)

"""The default settings on footage that is black and white, dark, tinted or fading."""

import numpy as np
import pytest
import torch

from faceswap.config import ConvertConfig
from faceswap.faces.detection import detect_hog
from faceswap.models import autoencoder, modelfile
from faceswap.models.architectures import PRESETS
from faceswap.swapping.swapper import Swapper


@pytest.fixture(scope="module")
def new_face(hopper):
    """Another person's face in strong colours, as a network of 80 px decodes it."""
    from fractions import Fraction
    from pathlib import Path

    import cv2

    from faceswap.faces.geometry import align_face
    from faceswap.media.frame import Frame

    frame = Frame(hopper, 0, Fraction(0), Path())
    crop = align_face(frame, detect_hog(hopper, 0.2)[0], 256, 0.625).image[26:230, 26:230]
    small = cv2.resize(crop, (80, 80), interpolation=cv2.INTER_AREA).astype(np.float32)
    small = np.clip(small + 0.6 * (small - small.mean(axis=2, keepdims=True)), 0, 255)
    return torch.from_numpy(small / 255).permute(2, 0, 1)[None].float()


@pytest.fixture(scope="module")
def swap(new_face, collins_face):
    """Swap the face of a photo with the default settings; return it and the pasted area."""
    network = autoencoder.build(PRESETS["small"])
    mask = torch.ones(1, 1, 80, 80)
    network.swap = lambda images, to, strength: torch.cat([new_face, mask], dim=1).expand(
        len(images), -1, -1, -1
    )
    trained = modelfile.TrainedModel(network, ("a", "b"), (0.0, 0.0, 0.0), 0)
    swapper = Swapper(trained, ConvertConfig(), torch.device("cpu"))
    x, y = collins_face.landmarks[30].astype(int)
    inner = np.s_[y - 25 : y + 35, x - 22 : x + 22]

    def run(photo):
        return swapper.swap(photo)[inner].astype(float), photo[inner].astype(float)

    return run


def test_black_and_white_film_stays_black_and_white(swap, collins):
    gray = np.repeat(collins.mean(axis=2, keepdims=True), 3, axis=2).round().astype(np.uint8)

    swapped, footage = swap(gray)

    assert np.ptp(swapped, axis=2).max() <= 2
    assert np.abs(swapped - footage).mean() > 5  # it is another face


@pytest.mark.parametrize("gain", [0.16, 0.3, 0.6])
def test_dark_frame_of_a_fade_keeps_its_brightness_and_contrast(swap, collins, gain):
    dark = (collins * gain).round().astype(np.uint8)

    swapped, footage = swap(dark)

    assert swapped.mean() == pytest.approx(footage.mean(), rel=0.12)
    assert swapped.mean(axis=2).std() < 1.3 * footage.mean(axis=2).std() + 1


def test_red_light_is_followed(swap, collins):
    red = (collins * [1.0, 0.2, 0.15]).round().astype(np.uint8)

    swapped, footage = swap(red)

    np.testing.assert_allclose(swapped.mean(axis=(0, 1)), footage.mean(axis=(0, 1)), atol=6.5)


def test_face_is_found_in_noisy_low_light(collins, collins_face):
    noise = np.random.default_rng(0)
    for _ in range(5):
        dark = np.clip(collins * 0.12 + noise.normal(0, 3, collins.shape), 0, 255).astype(np.uint8)
        found = detect_hog(dark, 0.2)
        assert found
        distance = np.linalg.norm(found[0].landmarks - collins_face.landmarks, axis=1).mean()
        assert distance < 0.06 * np.ptp(collins_face.landmarks[:, 0])

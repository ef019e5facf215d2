from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from faceswap.config import ConvertConfig
from faceswap.errors import DeviceError, SettingsError
from faceswap.media.frame import Frame
from faceswap.models import autoencoder, modelfile
from faceswap.models.architectures import PRESETS
from faceswap.swapping.compositor import ColorMatch
from faceswap.swapping.render import paste_swaps
from faceswap.swapping.swapper import Swapper

CPU = torch.device("cpu")
SHARP = replace(PRESETS["small"], size=176, crop_size=256)


def swapper_of(swap, **settings):
    """A Swapper whose network is replaced by the function ``swap``."""
    network = autoencoder.build(SHARP)
    network.swap = lambda images, to, identity_strength, **_: swap(images)
    trained = modelfile.TrainedModel(network, ("a", "b"), (0.0, 0.0, 0.0), 0)
    plain = {"color": "none", "mask": "hull"}
    return Swapper(trained, ConvertConfig(**plain | settings), CPU)


def test_copying_network_restores_the_photo(collins, collins_face):
    """The geometry from frame to network and back is exact, so a copying network moves nothing."""
    frame = Frame(collins, 0, Fraction(0), Path("x"))

    swapper = swapper_of(lambda images: images, match_detail=False)
    (swaps,) = swapper.prepare([(frame, [collins_face])])
    swapped = paste_swaps(frame, swaps, swapper.config)

    box = collins_face.box
    window = np.s_[int(box.top) : int(box.bottom), int(box.left) : int(box.right)]
    error = (swapped.image[window].astype(float) - collins[window]) ** 2
    assert len(swaps) == 1
    assert 10 * np.log10(255**2 / error.mean()) > 38


@pytest.mark.parametrize(("smooth", "expected"), [(True, [0, 2, 4]), (False, [0, 1, 2, 3, 4])])
def test_smoothed_colours_are_measured_in_every_second_frame(
    collins, collins_face, smooth, expected
):
    measured = []
    match = ColorMatch(
        lambda face, footage, mask: measured.append(footage.mean()) or np.array([footage.mean()]),
        lambda face, numbers: face,
    )
    swapper = swapper_of(lambda images: images, color=match, smooth=smooth, match_detail=False)
    found = []
    for index in range(5):
        frame = Frame((collins * (1 - index / 10)).astype(np.uint8), index, Fraction(0), Path("x"))
        found.append((frame, [replace(collins_face, track=0)]))

    colors = [float(swap.color[0]) for frame in swapper.prepare(found) for swap in frame]

    before = [max(index for index in expected if index <= frame) for frame in range(5)]
    assert sorted(measured, reverse=True) == [colors[index] for index in expected]
    assert colors == [colors[index] for index in before]


def left_half(images):
    """Return a dark face and a mask of its left half."""
    mask = torch.zeros_like(images[:, :1])
    mask[..., : images.shape[-1] // 2] = 1
    return torch.cat([images * 0.1, mask], dim=1)


@pytest.mark.parametrize("mask", ["learned", "product"])
def test_decoded_mask_limits_the_pasted_area(collins, collins_face, mask):
    frame = Frame(collins, 0, Fraction(0), Path("x"))

    swapper = swapper_of(left_half, mask=mask, erosion=0.0, feather=0.0)
    ((swap,),) = swapper.prepare([(frame, [collins_face])])

    assert swap.mask[128, 80:120].min() > 0.9
    assert swap.mask[:, 131:].max() < 0.05
    assert swap.image.shape == (256, 256, 3)
    assert swap.mask.any(axis=1).sum() <= round(SHARP.view * 256)


def test_learned_mask_needs_a_model_with_a_mask_head():
    trained = modelfile.TrainedModel(
        autoencoder.build(replace(SHARP, mask_head=False)), ("a", "b"), (0.0, 0.0, 0.0), 0
    )

    with pytest.raises(SettingsError, match="'small' does not decode a mask; use --mask hull"):
        Swapper(trained, ConvertConfig(mask="learned"), CPU)


def test_batch_is_halved_when_memory_runs_out(collins, collins_face, caplog):
    sizes = []

    def decode_faces(images):
        sizes.append(len(images))
        if len(images) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return images

    frame = Frame(collins, 0, Fraction(0), Path("x"))
    found = [(frame, [collins_face] * 3)] * 4
    wanted = list(swapper_of(lambda images: images).prepare(found))

    swaps = list(swapper_of(decode_faces).prepare(found))

    assert sizes == [12, 6, 3, 3, 6, 3, 3]
    assert "12 faces at once: continuing with 6" in caplog.text
    assert [[swap.image.tobytes() for swap in frame] for frame in swaps] == [
        [swap.image.tobytes() for swap in frame] for frame in wanted
    ]


def test_memory_too_small_for_one_face_raises_device_error(collins, collins_face):
    def decode_faces(images):
        raise torch.OutOfMemoryError("CUDA out of memory")

    frame = Frame(collins, 0, Fraction(0), Path("x"))

    with pytest.raises(DeviceError, match="is too small for one face"):
        list(swapper_of(decode_faces).prepare([(frame, [collins_face] * 2)]))


def test_many_faces_are_swapped_in_batches_of_32(collins, collins_face):
    sizes = []
    frame = Frame(collins, 0, Fraction(0), Path("x"))
    swapper = swapper_of(lambda images: sizes.append(len(images)) or images)

    (swaps,) = swapper.prepare([(frame, [collins_face] * 70)])

    assert (len(swaps), sizes) == (70, [32, 32, 6])


def test_the_new_persons_own_hair_is_not_pasted(collins, collins_face, monkeypatch):
    """Where most of that person's photos show hair, the footage stays."""
    frame = Frame(collins, 0, Fraction(0), Path("x"))
    network = autoencoder.build(SHARP)
    network.swap = lambda images, to, identity_strength, **_: images
    trained = modelfile.TrainedModel(
        network, ("a", "b"), (0.0, 0.0, 0.0), 0, exemplars={"b": "photos of b"}
    )

    def right_half(photos, view, size):
        assert (photos, view) == ("photos of b", SHARP.view)
        return np.repeat((np.arange(size) >= size // 2).astype(np.float32)[None], size, axis=0)

    monkeypatch.setattr("faceswap.swapping.swapper.usually_bare", right_half)

    ((swap,),) = Swapper(trained, ConvertConfig(), CPU).prepare([(frame, [collins_face])])

    assert swap.mask[128, :128].max() < 0.05
    assert swap.mask[128, 160] > 0.9

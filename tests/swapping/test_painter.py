"""Latents of tracked faces are averaged over neighbouring frames."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from faceswap.faces.geometry import align_face
from faceswap.media.frame import Frame
from faceswap.models import autoencoder, modelfile
from faceswap.models.architectures import PRESETS
from faceswap.models.sampling import network_crop, to_images, to_tensor
from faceswap.swapping.painter import FaceDecoder, Latents, mixing_of
from faceswap.swapping.swapper import _passes

CPU = torch.device("cpu")
SMALL = PRESETS["small"]


def test_latents_are_mixed_within_a_track_and_not_at_its_ends():
    weights = mixing_of([[0, 1], [0], [1, 0], [-1], [-1]])

    expected = np.eye(7)
    expected[2] = [0.25, 0, 0.5, 0, 0.25, 0, 0]  # track 0 in the middle of its three frames
    assert np.array_equal(weights, expected)


def test_some_latents_keep_the_faces_that_they_need():
    latents = Latents(list("abcd"), mixing_of([[0], [0], [0], [0]]))

    middle = latents.of(slice(1, 2))

    assert middle.faces == ["a", "b", "c"]
    assert middle.decoded == ["b"]
    assert latents.of(slice(0, 1)).faces == ["a"]
    assert latents.of(slice(0, 1)).are_plain
    assert not middle.are_plain


@pytest.fixture
def tracked(collins, collins_face):
    """The same face in three frames, placed a little differently each time."""
    frame = Frame(collins, 0, Fraction(0), Path())
    moved = [replace(collins_face, landmarks=collins_face.landmarks + np.float32(2 * i), track=0)
             for i in range(3)]  # fmt: skip
    return [[align_face(frame, face, SMALL.crop_size, SMALL.coverage)] for face in moved]


@pytest.fixture
def network():
    torch.manual_seed(0)
    return autoencoder.build(SMALL)


def decoder_of(network):
    return FaceDecoder(
        modelfile.TrainedModel(network, ("a", "b"), (0.0, 0.0, 0.0), 0), "b", 0.0, 0.0, CPU
    )


def test_a_tracked_face_is_decoded_from_the_mean_latent(tracked, network):
    (decoded,) = decoder_of(network).decode_video(tracked, slice(1, 2))

    crops = to_tensor([face.image for faces in tracked for face in faces])
    with torch.no_grad():
        codes = network.to_code(network_crop(crops, SMALL))
        mean = codes[0] / 4 + codes[1] / 2 + codes[2] / 4
        (expected,) = to_images(network.decode(network.from_code(mean[None]), "b"))
    assert np.abs(decoded.astype(int) - expected).max() <= 1


def test_neighbours_outside_the_wanted_frames_count(tracked, network):
    decoder = decoder_of(network)
    frames = [*tracked, *tracked[::-1]]

    whole = decoder.decode_video(frames, slice(0, 6))
    part = decoder.decode_video(frames[1:5], slice(1, 3))

    assert [
        np.abs(one.astype(int) - two).max() for one, two in zip(whole[2:4], part, strict=True)
    ] == [0, 0]


def test_batches_begin_at_multiples_and_know_their_neighbours():
    frames = [
        (Frame(np.zeros((2, 2, 3), np.uint8), i, Fraction(i), Path()), []) for i in range(5, 18)
    ]

    passes = [[[frame.index for frame, _ in part] for part in one] for one in _passes(iter(frames))]

    assert passes == [
        [[], [5, 6, 7], [8]],
        [[7], [8, 9, 10, 11, 12, 13, 14, 15], [16]],
        [[15], [16, 17], []],
    ]

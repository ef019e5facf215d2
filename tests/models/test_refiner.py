import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from faceswap.arrays import NEUTRAL
from faceswap.crops.guidance import to_view
from faceswap.errors import ModelError
from faceswap.faces.geometry import align_face, transform
from faceswap.media.frame import Frame
from faceswap.models import autoencoder, modelfile
from faceswap.models.architectures import PRESETS
from faceswap.models.exemplars import Exemplars, identity_map
from faceswap.models.refiner import GAIN, Refiner, RefinerConfig, refine, refiner_for
from faceswap.swapping.painter import FaceDecoder

FACES = torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(0))


def refiner_with_weights(scale=2, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        refiner = Refiner(RefinerConfig(scale=scale))
        torch.nn.init.normal_(refiner.last.weight, std=0.05)
    return refiner.eval()


def test_fresh_refiner_enlarges_bicubically():
    refined = Refiner(RefinerConfig(scale=2))(FACES)

    torch.testing.assert_close(refined, F.interpolate(FACES, scale_factor=2, mode="bicubic"))


def test_refiner_of_scale_one_keeps_the_size():
    torch.testing.assert_close(Refiner(RefinerConfig(scale=1))(FACES), FACES)


@pytest.mark.parametrize(
    ("name", "scale"), [("original", 3), ("small", 3), ("medium", 2), ("large", 1)]
)
def test_refined_faces_have_the_pixels_of_a_crop(name, scale):
    assert refiner_for(PRESETS[name]).config.scale == scale


def test_detail_brightens_where_it_is_brighter_than_its_surroundings():
    """A refiner that only passes the detail on adds its share of the surroundings' brightness."""
    refiner = Refiner(RefinerConfig(scale=2, channels=8))
    detail = torch.full((2, 3, 40, 40), NEUTRAL, dtype=torch.uint8)
    detail[:, :, 10:30, 10:30] = 255
    with torch.no_grad():
        for layer in (refiner.guided, refiner.mixed, refiner.last):
            layer.weight.zero_()
            layer.bias.zero_()
        for channel in range(3):
            refiner.guided.weight[channel, 12 + 3 + channel, 1, 1] = 1 / GAIN
            refiner.mixed.weight[channel, channel, 1, 1] = 1
            refiner.last.weight[channel, channel, 1, 1] = 1
        flat = torch.full((2, 3, 20, 20), 0.4)
        refined = refiner(flat, detail)

    torch.testing.assert_close(refined[:, :, 15:25, 15:25], torch.full((2, 3, 10, 10), 0.6))
    torch.testing.assert_close(refined[:, :, :8], torch.full((2, 3, 8, 40), 0.4))


def test_mask_is_enlarged_with_the_face():
    mask = torch.zeros(2, 1, 20, 20)
    mask[:, :, 5:15, 5:15] = 1

    refined = refine(refiner_with_weights(), torch.cat([FACES, mask], dim=1))

    assert refined.shape == (2, 4, 40, 40)
    assert refined[:, 3, 14:26, 14:26].min() == 1
    assert refined[:, 3, :8].max() == 0
    assert refined.min() >= 0
    assert refined.max() <= 1


@pytest.fixture
def trained():
    network = autoencoder.build(PRESETS["small"])
    refiners = {"a": refiner_with_weights(seed=1), "b": refiner_with_weights(seed=2)}
    return modelfile.TrainedModel(network, ("x", "y"), (0, 0, 0), 7, refiners=refiners)


def test_model_file_keeps_the_refiners(trained, tmp_path):
    modelfile.save(tmp_path / "model.safetensors", trained)

    loaded = modelfile.load(tmp_path)

    for key, refiner in trained.refiners.items():
        torch.testing.assert_close(loaded.refiners[key](FACES), refiner(FACES), rtol=0, atol=0)


def test_model_without_refiners_has_none(trained, tmp_path):
    modelfile.save(tmp_path / "model.safetensors", replace(trained, refiners={}))

    assert modelfile.load(tmp_path).refiners == {}


@pytest.mark.parametrize(
    "change", [{"scale": 5}, {"width": 10**9}, {"blocks": None}, {"channels": 17}]
)
def test_forged_shape_is_refused(trained, tmp_path, change):
    from safetensors import safe_open

    path = tmp_path / "model.safetensors"
    modelfile.save(path, trained)
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    shape = json.dumps(json.loads(header["refiner"]) | change)
    save_file(load_file(path), path, metadata=header | {"refiner": shape})

    with pytest.raises(ModelError):
        modelfile.load(tmp_path)


def test_refiners_of_earlier_versions_are_left_out(trained, tmp_path):
    from safetensors import safe_open

    path = tmp_path / "model.safetensors"
    modelfile.save(path, trained)
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    old = header | {"version": "2", "refiner": json.dumps({"scale": 2, "width": 24, "blocks": 3})}
    save_file(load_file(path), path, metadata=old)

    assert modelfile.load(tmp_path).refiners == {}


@pytest.fixture
def aligned(collins, collins_face):
    frame = Frame(collins, 0, Fraction(0), Path())
    return align_face(frame, collins_face, 256, 0.625)


def test_swapped_face_is_refined(trained, aligned):
    device = torch.device("cpu")
    plain = FaceDecoder(replace(trained, refiners={}), "b", 1.0, 0.0, device)([aligned])[0]
    refined = FaceDecoder(trained, "b", 1.0, 0.0, device)([aligned])[0]

    assert plain.shape == (80, 80, 4)
    assert refined.shape == (160, 160, 4)
    small = torch.from_numpy(plain[..., :3]).permute(2, 0, 1)[None].float() / 255
    expected = trained.refiners["b"](small).clamp(0, 1)[0].permute(1, 2, 0) * 255
    np.testing.assert_allclose(refined[..., :3], expected.detach().numpy(), atol=2)


def test_photos_guide_the_refiner(trained, aligned):
    """In a video it is the first photo above the mouth, otherwise the one most like the face."""
    points = to_view(transform(aligned.face.landmarks, aligned.matrix), 256, 0.8)
    turned = (points * [0.7, 1] + [0.2, 0]).astype(np.float32)
    dim = (aligned.image * 0.5).astype(np.uint8)
    flipped = np.ascontiguousarray(aligned.image[:, ::-1])
    photos = Exemplars(
        [flipped, dim], np.stack([turned, points]), identity_map(), np.zeros((2, 2), np.float32)
    )
    device = torch.device("cpu")

    def swapped(exemplars, track):
        decoder = FaceDecoder(replace(trained, exemplars=exemplars), "b", 1.0, 0.0, device)
        return decoder([replace(aligned, face=replace(aligned.face, track=track))])[0]

    first, second = ({"b": replace(photos, crops=[photos.crops[i]], points=photos.points[[i]])}
                     for i in (0, 1))  # fmt: skip
    in_video, alone = swapped({"b": photos}, 3), swapped(first, 3)
    eyes = slice(0, len(in_video) * 2 // 5)
    np.testing.assert_array_equal(in_video[eyes], alone[eyes])
    assert (in_video != swapped(second, 3)).mean() > 0.1
    np.testing.assert_array_equal(swapped({"b": photos}, -1), swapped(second, -1))
    assert (swapped(first, -1) != swapped({}, -1)).mean() > 0.1

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from faceswap.errors import ModelError
from faceswap.models import autoencoder, modelfile
from faceswap.models.architectures import PRESETS
from faceswap.models.refiner import Refiner, RefinerConfig, refine, refiner_for

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


@pytest.mark.parametrize(("name", "scale"), [("small", 2), ("medium", 2), ("large", 1)])
def test_small_networks_are_refined_at_twice_their_size(name, scale):
    assert refiner_for(PRESETS[name]).config.scale == scale


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
    "shape", [{"scale": 3, "width": 24, "blocks": 3}, {"scale": 2, "width": 10**9, "blocks": 3},
              {"scale": 2}, [], {"scale": 2, "width": 25, "blocks": 3}]
)  # fmt: skip
def test_forged_shape_is_refused(trained, tmp_path, shape):
    from safetensors import safe_open

    path = tmp_path / "model.safetensors"
    modelfile.save(path, trained)
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    save_file(load_file(path), path, metadata=header | {"refiner": json.dumps(shape)})

    with pytest.raises(ModelError):
        modelfile.load(tmp_path)


def test_swapped_face_is_refined(trained, collins):
    from faceswap.swapping.painter import FaceDecoder

    crop = np.ascontiguousarray(collins[:256, 100:356])
    device = torch.device("cpu")
    plain = FaceDecoder(replace(trained, refiners={}), "b", 1.0, 0.0, device)([crop])[0]
    refined = FaceDecoder(trained, "b", 1.0, 0.0, device)([crop])[0]

    assert plain.shape == (80, 80, 4)
    assert refined.shape == (160, 160, 4)
    small = torch.from_numpy(plain[..., :3]).permute(2, 0, 1)[None].float() / 255
    expected = trained.refiners["b"](small).clamp(0, 1)[0].permute(1, 2, 0) * 255
    np.testing.assert_allclose(refined[..., :3], expected.detach().numpy(), atol=2)

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from faceswap.errors import ModelError
from faceswap.models import autoencoder, exemplars, modelfile
from faceswap.models.architectures import PRESETS
from faceswap.models.exemplars import Exemplars, identity_map


@pytest.fixture
def photos(collins):
    crops = [np.ascontiguousarray(collins[:128, x : x + 128]) for x in (100, 150)]
    points = np.random.default_rng(0).random((2, 68, 2)).astype(np.float32)
    usual = np.array([[0.1, 0.3], [np.nan, 0.2]], np.float32)
    return Exemplars(crops, points, 2 * identity_map(), usual)


@pytest.fixture
def model(photos, tmp_path):
    trained = modelfile.TrainedModel(
        autoencoder.build(PRESETS["small"]), ("x", "y"), (0, 0, 0), 7, exemplars={"b": photos}
    )
    modelfile.save(tmp_path / "model.safetensors", trained)
    return tmp_path


def test_model_file_keeps_the_photos(model, photos):
    loaded = modelfile.load(model).exemplars

    assert set(loaded) == {"b"}
    for crop, original in zip(loaded["b"].crops, photos.crops, strict=True):
        assert np.abs(crop.astype(int) - original).mean() < 2  # JPEG
    np.testing.assert_array_equal(loaded["b"].points, photos.points)
    np.testing.assert_array_equal(loaded["b"].painted, photos.painted)
    np.testing.assert_array_equal(loaded["b"].usual, photos.usual)


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("photos", torch.zeros(100, dtype=torch.uint8)),
        ("photos", torch.zeros(0, dtype=torch.uint8)),
        ("lengths", torch.tensor([10, -10])),
        ("lengths", torch.tensor([], dtype=torch.int64)),
        ("points", torch.zeros(2, 67, 2)),
        ("points", torch.full((2, 68, 2), torch.inf)),
        ("painted", torch.zeros(136, 136)),
        ("usual", torch.zeros(2)),
        ("usual", torch.zeros(2, 2, dtype=torch.float64)),
        ("strange", torch.zeros(1)),
    ],
)
def test_damaged_photos_are_refused(model, name, tensor):
    path = model / "model.safetensors"
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    save_file(load_file(path) | {f"exemplars.b.{name}": tensor}, path, metadata=header)

    with pytest.raises(ModelError, match="damaged"):
        modelfile.load(model)


def test_photos_of_different_sizes_are_refused(photos):
    crops = [photos.crops[0], photos.crops[1][:64, :64]]

    with pytest.raises(ValueError, match="one size"):
        exemplars.from_tensors(exemplars.to_tensors(
            Exemplars(crops, photos.points, photos.painted, photos.usual)))  # fmt: skip

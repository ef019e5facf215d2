import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from faceswap.errors import InputError, ModelError, OutputError
from faceswap.models import autoencoder, classic, layers, modelfile
from faceswap.models.architectures import PRESETS


def test_the_convolution_to_an_image_is_an_ordinary_one():
    layer = autoencoder.ToImage(16, 4)
    faces = torch.randn(3, 16, 12, 20, generator=torch.Generator().manual_seed(0))

    expected = F.conv2d(faces, layer.weight, layer.bias, padding=2)

    torch.testing.assert_close(layer(faces), expected, atol=1e-6, rtol=0)


@pytest.fixture(scope="module")
def classic_state():
    """A state dict in the layout of the classic checkpoint, with random weights."""
    generator = torch.Generator().manual_seed(0)

    def tensor(*shape, scale):
        return torch.randn(*shape, generator=generator) * scale

    state = {}

    def conv(key, c_in, c_out, kernel):
        state[f"{key}.weight"] = tensor(
            c_out, c_in, kernel, kernel, scale=(c_in * kernel**2 / 2) ** -0.5
        )
        state[f"{key}.bias"] = tensor(c_out, scale=0.1)

    for i, (c_in, c_out) in enumerate([(3, 128), (128, 256), (256, 512), (512, 1024)]):
        conv(f"encoder.{i}.conv2", c_in, c_out, 5)
    for i, (n_in, n_out) in ((5, (16384, 1024)), (6, (1024, 16384))):
        state[f"encoder.{i}.weight"] = tensor(n_out, n_in, scale=n_in**-0.5)
        state[f"encoder.{i}.bias"] = tensor(n_out, scale=0.1)
    conv("encoder.8.conv2_", 1024, 512 * 4, 3)
    for side in "AB":
        for i, (c_in, c_out) in enumerate([(512, 256), (256, 128), (128, 64)]):
            conv(f"decoder_{side}.{i}.conv2_", c_in, c_out * 4, 3)
        conv(f"decoder_{side}.3", 64, 3, 5)
    return state


def reference_depth_to_space(x):
    batch, channels, height, width = x.shape
    out = x.new_zeros(batch, channels // 4, height * 2, width * 2)
    for row in range(2):
        for column in range(2):
            first = (row * 2 + column) * (channels // 4)
            out[:, :, row::2, column::2] = x[:, first : first + channels // 4]
    return out


def classic_forward(state, x, side):
    """The classic network written with plain torch functions; x is BGR."""
    for i in range(4):
        key = f"encoder.{i}.conv2"
        padded = F.pad(x, (1, 2, 1, 2))
        x = F.leaky_relu(
            F.conv2d(padded, state[f"{key}.weight"], state[f"{key}.bias"], stride=2), 0.1
        )
    x = x.flatten(1)
    for i in (5, 6):
        x = x @ state[f"encoder.{i}.weight"].T + state[f"encoder.{i}.bias"]
    x = x.view(-1, 1024, 4, 4)
    for key in ("encoder.8", *(f"decoder_{side}.{i}" for i in range(3))):
        weight, bias = state[f"{key}.conv2_.weight"], state[f"{key}.conv2_.bias"]
        x = reference_depth_to_space(
            F.leaky_relu(F.conv2d(F.pad(x, (1, 1, 1, 1)), weight, bias), 0.1)
        )
    weight, bias = state[f"decoder_{side}.3.weight"], state[f"decoder_{side}.3.bias"]
    return torch.sigmoid(F.conv2d(F.pad(x, (2, 2, 2, 2)), weight, bias))


def test_original_has_the_published_parameter_count():
    with torch.device("meta"):
        network = autoencoder.build(PRESETS["original"])

    assert sum(p.numel() for p in network.parameters()) == 82_062_470


@pytest.mark.parametrize("name", ["small", "medium", "large"])
def test_output_has_the_input_size_and_a_mask_channel(name):
    size = PRESETS[name].size
    with torch.device("meta"):
        network = autoencoder.build(PRESETS[name])
        decoded = network(torch.rand(2, 3, size, size), "a")

    assert decoded.shape == (2, 4, size, size)


def test_imported_classic_checkpoint_reproduces_the_classic_output(classic_state, tmp_path):
    torch.save({"state": classic_state, "epoch": 4200}, tmp_path / "autoencoder.t7")
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))

    classic.import_checkpoint(tmp_path / "autoencoder.t7", tmp_path / "old")

    trained = modelfile.load(tmp_path / "old")
    assert trained.step == 4200
    assert trained.network.config.channel_order == "bgr"
    with torch.no_grad():
        for side in ("a", "b"):
            expected = classic_forward(classic_state, images.flip(1), side.upper()).flip(1)
            assert expected.std() > 0.05  # a constant image would match in any channel order
            torch.testing.assert_close(trained.network(images, side), expected, atol=1e-5, rtol=0)


def test_downscale_pads_one_pixel_before_and_two_after():
    layer = autoencoder.Downscale(1, 1)
    torch.nn.init.zeros_(layer.conv.bias)
    kernel = torch.arange(25.0).view(5, 5)
    layer.conv.weight.data[0, 0] = kernel
    image = torch.rand(1, 1, 8, 8)

    out = layer(image)[0, 0]

    assert out.shape == (4, 4)
    top_left = (kernel[1:, 1:] * image[0, 0, :4, :4]).sum()  # 1 row and column of padding
    bottom_right = (kernel[:3, :3] * image[0, 0, 5:, 5:]).sum()  # 2 rows and columns of padding
    torch.testing.assert_close(out[0, 0], top_left)
    torch.testing.assert_close(out[3, 3], bottom_right)


def test_depth_to_space_differs_from_torch_pixel_shuffle():
    x = torch.rand(2, 12, 3, 3)

    ours = layers.depth_to_space(x)

    torch.testing.assert_close(ours, reference_depth_to_space(x))
    assert not torch.equal(ours, F.pixel_shuffle(x, 2))


@pytest.fixture
def saved(tmp_path):
    network = autoencoder.build(PRESETS["small"])
    trained = modelfile.TrainedModel(network, ("trump", "cage"), (0.1, -0.05, 0.0), 77)
    modelfile.save(tmp_path / "model.safetensors", trained)
    return tmp_path, trained


def test_model_file_round_trip(saved):
    folder, trained = saved

    loaded = modelfile.load(folder)

    assert (loaded.names, loaded.color_shift, loaded.step) == (
        trained.names, trained.color_shift, trained.step,
    )  # fmt: skip
    assert loaded.network.config == trained.network.config
    for ours, theirs in zip(
        loaded.network.state_dict().values(), trained.network.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_newer_format_version_is_refused(saved):
    folder, _ = saved
    save_file(
        {"x": torch.zeros(1)},
        folder / "model.safetensors",
        {"format": "faceswap-model", "version": str(modelfile.VERSION + 1)},
    )

    with pytest.raises(ModelError, match="update faceswap"):
        modelfile.load(folder)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({}, "not a faceswap model"),
        ({"format": "faceswap-model", "version": "1"}, "invalid header"),
        (
            {"format": "faceswap-model", "version": "1", "model": '{"name": "huge"}'},
            "invalid header",
        ),
        ({"format": "faceswap-model", "version": "1", "model": "[" * 9999}, "invalid header"),
    ],
)
def test_invalid_header_is_refused(tmp_path, header, message):
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors", header)

    with pytest.raises(ModelError, match=message):
        modelfile.load(tmp_path)


def test_weights_that_do_not_fit_the_architecture_are_refused(saved):
    folder, trained = saved
    header = {
        "format": "faceswap-model", "version": "1", "names": '["a", "b"]',
        "color_shift": "[0, 0, 0]", "step": "1",
        "model": json.dumps(trained.network.config.to_dict()),
    }  # fmt: skip
    save_file({"x": torch.zeros(1)}, folder / "model.safetensors", header)

    with pytest.raises(ModelError, match="do not fit"):
        modelfile.load(folder)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 64])
def test_garbage_file_is_refused(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)

    with pytest.raises(ModelError, match=r"model\.safetensors"):
        modelfile.load(tmp_path)


def test_missing_model_error_names_the_train_command(tmp_path):
    with pytest.raises(ModelError, match="faceswap train"):
        modelfile.load(tmp_path)


def test_newest_returns_the_last_written_model(tmp_path):
    import os

    for age, name in enumerate(["late", "early", "middle"]):
        (tmp_path / name).mkdir()
        path = tmp_path / name / "model.safetensors"
        path.touch()
        seconds = {"late": 300, "middle": 200, "early": 100}[name] + age
        os.utime(path, (seconds, seconds))

    assert modelfile.newest(tmp_path).name == "late"


def test_import_does_not_execute_pickled_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("executed",))

    torch.save({"state": Evil(), "epoch": 1}, tmp_path / "evil.t7")

    with pytest.raises(ModelError, match="plain tensors"):
        classic.import_checkpoint(tmp_path / "evil.t7", tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_import_error_names_the_missing_tensor(classic_state, tmp_path):
    partial = {k: v for k, v in classic_state.items() if k != "encoder.5.bias"}
    torch.save({"state": partial, "epoch": 1}, tmp_path / "x.t7")

    with pytest.raises(ModelError, match=r"missing tensors: 1, .*to_latent\.bias"):
        classic.import_checkpoint(tmp_path / "x.t7", tmp_path / "out")


def test_import_does_not_overwrite_a_model(classic_state, tmp_path):
    torch.save({"state": classic_state, "epoch": 1}, tmp_path / "x.t7")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.safetensors").write_bytes(b"precious")

    with pytest.raises(OutputError, match="is not empty"):
        classic.import_checkpoint(tmp_path / "x.t7", tmp_path / "out")


def test_import_of_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        classic.import_checkpoint(tmp_path / "x.t7", tmp_path / "out")


@torch.no_grad()
def test_swap_shifts_the_latent_by_the_difference_of_the_means():
    network = autoencoder.build(PRESETS["small"]).eval()
    faces = torch.rand(4, 3, 80, 80)
    code = network.to_code(faces)
    network.means.copy_(50 * torch.randn(2, 128, generator=torch.Generator().manual_seed(0)))
    toward_b = network.means[1] - network.means[0]

    for to, change in (("b", toward_b), ("a", -toward_b)):
        plain = network.decode(network.from_code(code), to)
        wanted = network.decode(network.from_code(code + 0.5 * change), to)
        assert (wanted - plain).abs().max() > 0.01
        torch.testing.assert_close(network.swap(faces, to, 0.5), wanted)
        torch.testing.assert_close(network.swap(faces, to, 0.0), plain)


@torch.no_grad()
def test_measure_latents_averages_over_all_batches():
    network = autoencoder.build(PRESETS["small"]).eval()
    a, b = torch.rand(6, 3, 80, 80), torch.rand(4, 3, 80, 80)

    network.measure_latents({"a": list(a.split(4)), "b": [b]})

    torch.testing.assert_close(network.means[0], network.to_code(a).mean(0))
    torch.testing.assert_close(network.means[1], network.to_code(b).mean(0))


def test_model_file_without_mean_latents_still_loads(tmp_path):
    from safetensors.torch import load_file, save_file

    path = tmp_path / "model.safetensors"
    modelfile.save(
        path, modelfile.TrainedModel(autoencoder.build(PRESETS["small"]), ("x", "y"), (0, 0, 0), 1)
    )
    with modelfile.safe_open(path, framework="pt") as file:
        header = file.metadata()
    state = {key: value for key, value in load_file(path).items() if key != "means"}
    save_file(state, path, metadata=header)

    assert modelfile.load(tmp_path).network.means.abs().max() == 0


def test_centroids_are_stored_in_the_model_file_and_optional(saved):
    folder, trained = saved
    random = np.random.default_rng(0)
    centroids = {key: random.normal(0, 0.1, 128).astype(np.float32) for key in "ab"}
    assert modelfile.load(folder).centroids == {}

    modelfile.save(folder / modelfile.MODEL_FILE, replace(trained, centroids=centroids))

    loaded = modelfile.load(folder).centroids
    assert loaded.keys() == centroids.keys()
    for key, centroid in centroids.items():
        np.testing.assert_array_equal(loaded[key], centroid)
        assert loaded[key].dtype == np.float32

    path = folder / modelfile.MODEL_FILE
    with modelfile.safe_open(path, framework="pt") as file:
        header = file.metadata()
    del header["centroids"]
    save_file(trained.network.state_dict(), path, header)
    assert modelfile.load(folder).centroids == {}


@pytest.mark.parametrize(
    "broken",
    [
        {"a": [0.0] * 128},
        {"a": [0.0] * 128, "b": [0.0] * 127},
        {"a": [0.0] * 128, "b": [math.nan] * 128},
        {"a": [0.0] * 128, "b": [1e300] * 128},
        {"a": [0.0] * 128, "b": ["x"] * 128},
        [1],
    ],
)
def test_invalid_centroids_are_refused(saved, broken):
    folder, trained = saved
    path = folder / modelfile.MODEL_FILE
    with modelfile.safe_open(path, framework="pt") as file:
        header = file.metadata() | {"centroids": json.dumps(broken)}
    save_file(trained.network.state_dict(), path, header)

    with pytest.raises(ModelError, match="invalid header"):
        modelfile.load(folder)

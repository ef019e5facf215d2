"""Exported networks give the same faces as this program, and say what one has to know."""

import json
import re
import sys
import warnings
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from faceswap.config import ExportConfig
from faceswap.errors import ModelError, OutputError, SettingsError
from faceswap.faces.geometry import align_face
from faceswap.media.frame import Frame
from faceswap.models import modelfile
from faceswap.models.architectures import PRESETS
from faceswap.models.autoencoder import build
from faceswap.models.export import NOTES, OPSET, SwapNetwork, export_model
from faceswap.models.modelfile import TrainedModel
from faceswap.models.sampling import output_to_crop
from faceswap.swapping.painter import FaceDecoder, shrink

LEVEL = 1 / 255
TINY = {"encoder_widths": (4, 8), "decoder_widths": (8, 4), "latent": 6, "size": 16}


def trained_with(name, **changes):
    """Return a network of random weights whose latents have statistics."""
    torch.manual_seed(0)
    config = replace(PRESETS[name], **TINY, crop_size=48, **changes)
    network = build(config).eval()
    spread = torch.randn(2, 6, 6)
    network.means.copy_(torch.randn(2, 6))
    network.covariances.copy_(spread @ spread.transpose(1, 2) / 50)
    return TrainedModel(network, ("ada", "bob"), (0.05, -0.02, 0.03), 7)


def run(path, crops):
    """Run an exported network on crops, (B, 3, S, S) in 0..1."""
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return session.run(None, {"crops": crops})[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.load(str(path))(torch.from_numpy(crops)).detach().numpy()


def notes_in(path):
    """Return what an exported network says of itself."""
    if path.suffix == ".onnx":
        found = {p.key.removeprefix("faceswap."): p.value for p in onnx.load(path).metadata_props}
        texts = ("format", "to", "model_sha256", "left_out")
        return {key: v if key in texts else json.loads(v) for key, v in found.items()}
    extra = {NOTES: ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.load(str(path), _extra_files=extra)
    return json.loads(extra[NOTES])


@pytest.fixture(scope="module")
def crops(collins, collins_face, model):
    """Aligned crops of the size that the model takes, (3, S, S, 3)."""
    from fractions import Fraction
    from pathlib import Path

    config = modelfile.load(model).network.config
    images = [collins, collins[:, ::-1].copy(), np.roll(collins, 5, axis=0)]
    return [
        align_face(
            Frame(image, 0, Fraction(0), Path()), collins_face, config.crop_size, config.coverage
        )
        for image in images
    ]


@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
@pytest.mark.parametrize("to", ["a", "b"])
def test_exported_networks_swap_as_convert_does(tmp_path, model, crops, kind, to):
    report = export_model(
        model, tmp_path / "net", ExportConfig(format=kind, to=to), {"x": "y"}
    )  # fmt: skip
    path = (tmp_path / "net").rename(tmp_path / f"net.{'onnx' if kind == 'onnx' else 'pt'}")
    own = modelfile.load(model)
    own.exemplars.clear()  # their detail needs landmarks
    decoder = FaceDecoder(own, to, 1.0, 3.0, torch.device("cpu"))
    side = own.network.config.crop_size
    batch = np.stack([shrink(face.image, side) for face in crops]).astype(np.float32) / 255

    found = run(path, np.ascontiguousarray(batch.transpose(0, 3, 1, 2)))
    assert report.largest_difference <= LEVEL
    assert found.shape == (3, report.channels, report.side, report.side)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("faceswap.swapping.painter.lit", lambda crop: crop)  # it is left out
        expected = np.stack(decoder(crops)).transpose(0, 3, 1, 2) / 255
    assert np.abs(found - expected).max() <= LEVEL
    one = run(path, np.ascontiguousarray(batch[:1].transpose(0, 3, 1, 2)))
    np.testing.assert_allclose(one, found[:1], atol=1e-4)


@pytest.mark.parametrize("name", ["original", "small", "medium"])
@pytest.mark.parametrize("to", ["a", "b"])
@pytest.mark.parametrize(("strength", "limit"), [(1.0, 3.0), (0.4, 0.5), (1.5, 0.0)])
def test_every_architecture_and_setting_is_in_the_network(name, to, strength, limit):
    trained = trained_with(name)
    config = ExportConfig(to=to, identity_strength=strength, expression_range=limit)
    crops = torch.randint(0, 256, (3, 3, 48, 48), dtype=torch.uint8)

    with torch.no_grad():
        found = SwapNetwork(trained, config)(crops / 255)

        class Face:  # what the decoder reads of an aligned face
            def __init__(self, crop):
                self.image = np.ascontiguousarray(crop.permute(1, 2, 0).numpy())

        decoder = FaceDecoder(trained, to, strength, limit, torch.device("cpu"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("faceswap.swapping.painter.lit", lambda crop: crop)
            expected = np.stack(decoder([Face(crop) for crop in crops]))
    assert np.abs(found.numpy().transpose(0, 2, 3, 1) - expected / 255).max() <= LEVEL


@pytest.mark.parametrize("suffix", ["onnx", "pt"])
def test_networks_say_what_one_has_to_know(tmp_path, model, suffix):
    kind = "onnx" if suffix == "onnx" else "torchscript"
    path = tmp_path / f"x.{suffix}"
    report = export_model(model, path, ExportConfig(format=kind), {"shape.dat": "research only"})
    own, notes = modelfile.load(model), notes_in(path)

    config = own.network.config
    grown = config.enlarged(report.side // config.size)
    assert notes["format"] == "faceswap-network"
    assert notes["input"]["shape"] == ["batch", *report.input]
    assert notes["output"]["shape"] == ["batch", report.channels, report.side, report.side]
    matrix = output_to_crop(grown, config.crop_size)
    np.testing.assert_allclose(notes["output"]["to_crop"], matrix)
    assert notes["names"] == {"a": own.names[0], "b": own.names[1]}
    assert notes["color_shift"] == pytest.approx(own.color_shift)
    assert notes["consent"] == {"a": "not stated", "b": "not stated"}
    assert set(notes["weights"]) == set(own.weights)
    if suffix == "onnx":
        assert onnx.load(path).opset_import[0].version == OPSET


def test_files_are_not_replaced_unless_asked(tmp_path, model):
    path = tmp_path / "x.pt"
    path.write_bytes(b"mine")
    config = ExportConfig(format="torchscript")
    with pytest.raises(OutputError, match="exists already"):
        export_model(model, path, config)
    assert path.read_bytes() == b"mine"
    export_model(model, path, replace(config, overwrite=True))
    assert path.stat().st_size > 1000


def test_default_names_tell_model_and_face(tmp_path, model):
    copy = tmp_path / "ada-bob"
    copy.mkdir()
    (copy / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes())
    report = export_model(copy, config=ExportConfig(format="torchscript", to="a"))
    assert report.output == copy / "ada-bob-to-a.pt"


def test_missing_libraries_are_named(tmp_path, model, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SettingsError, match=re.escape("pip install 'faceswap[export]'")):
        export_model(model, tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


def test_networks_that_differ_are_not_written(tmp_path, model, monkeypatch):
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: lambda noise: noise[:, :1])
    with pytest.raises(ModelError, match="the exported network returns"):
        export_model(model, tmp_path / "x.pt", ExportConfig(format="torchscript"))
    assert not list(tmp_path.iterdir())


def test_command_exports_and_reports(tmp_path, model):
    from click.testing import CliRunner

    from faceswap.cli.main import cli

    args = ["export", str(model), "--format", "torchscript", "-o", str(tmp_path / "x.pt")]
    result = CliRunner().invoke(cli, [*args, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["output"] == str(tmp_path / "x.pt")
    assert found["largest_difference"] <= LEVEL

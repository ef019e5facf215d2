"""A damaged state is never trained on: the newest whole one before it is, and that is said."""

import json
import random
import shutil
import zipfile

import pytest
import torch

from faceswap.config import TrainConfig
from faceswap.errors import ModelError
from faceswap.models import autoencoder, classic, modelfile
from faceswap.models.architectures import PRESETS
from faceswap.training import checkpoint, trainer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trained(faceset_folders, tmp_path_factory):
    """A model of 3 steps, each saved."""
    folder = tmp_path_factory.mktemp("run") / "model"
    config = TrainConfig(
        model="small", steps=3, batch_size=2, device="cpu", preview_every=0, save_every=0.0
    )
    trainer.train(*faceset_folders, folder, config)
    return folder


@pytest.fixture
def folder(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "model")


def truncated(data):
    return data[: len(data) // 2]


def garbage(data):
    return random.Random(0).randbytes(1000)


def one_bit_flipped(data):
    changed = bytearray(data)
    changed[len(data) // 2] ^= 1
    return bytes(changed)


@pytest.mark.parametrize("damage", [truncated, garbage, one_bit_flipped])
def test_a_damaged_state_falls_back_to_the_one_before_and_says_so(folder, damage, caplog):
    path = folder / "resume.pt"
    path.write_bytes(damage(path.read_bytes()))

    state = checkpoint.read_state(folder, CPU)

    assert state["step"] == 2
    assert f"{path} is damaged: going on from step 2 (resume-000003.pt)" in caplog.text


def test_of_several_damaged_states_the_newest_whole_one_counts(folder, caplog):
    for path in (folder / "resume.pt", folder / "snapshots" / "resume-000003.pt"):
        path.write_bytes(truncated(path.read_bytes()))

    assert checkpoint.read_state(folder, CPU)["step"] == 1
    assert "going on from step 1 (resume-000002.pt)" in caplog.text


@pytest.mark.parametrize("damage", [truncated, garbage])
def test_a_damaged_model_is_replaced_from_the_whole_state(folder, damage, faceset_folders, caplog):
    path = folder / modelfile.MODEL_FILE
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ModelError, match="is not a readable model file"):
        modelfile.load(folder)

    config = TrainConfig(model="small", steps=4, batch_size=2, device="cpu", preview_every=0)
    trainer.train(*faceset_folders, folder, config)

    assert modelfile.load(folder).step == 4


def test_a_damaged_model_without_its_state_falls_back_to_a_snapshot(folder, caplog):
    path = folder / modelfile.MODEL_FILE
    path.write_bytes(truncated(path.read_bytes()))
    (folder / "resume.pt").unlink()

    assert checkpoint.read_state(folder, CPU)["step"] == 2
    assert f"{path} is damaged: going on from step 2" in caplog.text

    shutil.rmtree(folder / "snapshots")
    with pytest.raises(ModelError, match="is not a readable model file"):
        checkpoint.read_state(folder, CPU)


def test_an_archive_that_would_swell_is_not_read(tmp_path):
    torch.save({"a": torch.zeros(1000)}, tmp_path / "whole.pt")
    with (
        zipfile.ZipFile(tmp_path / "whole.pt") as old,
        zipfile.ZipFile(tmp_path / "swelling.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))

    assert classic.is_whole_archive(tmp_path / "whole.pt")
    assert not classic.is_whole_archive(tmp_path / "swelling.pt")


def test_a_header_of_a_vast_net_takes_no_memory(tmp_path):
    from dataclasses import replace

    from safetensors.torch import save

    vast = replace(
        PRESETS["small"], size=1024, latent=65536, encoder_widths=(8192,) * 4,
        decoder_widths=(8192,) * 4,
    )  # fmt: skip
    small = modelfile.TrainedModel(autoencoder.build(PRESETS["small"]), ("x", "y"), (0, 0, 0), 1)
    modelfile.save(tmp_path / "small.safetensors", small)
    with modelfile.safe_open(tmp_path / "small.safetensors", framework="pt") as file:
        header = file.metadata()
    header["model"] = json.dumps(vast.to_dict())
    (tmp_path / "vast.safetensors").write_bytes(
        save({"means": torch.zeros(2, 65536)}, metadata=header)
    )

    with pytest.raises(ModelError, match="do not fit"):
        modelfile.load(tmp_path / "vast.safetensors")


VAST = {"latent": 65536, "encoder_widths": [8192] * 4, "decoder_widths": [8192] * 4}


@pytest.mark.parametrize(
    ("key", "value"),
    [("model", None), ("model", 5), ("model", [1]), ("model", VAST), ("names", None),
     ("names", [1, 2]), ("held_out", 5), ("held_out", {"a": 1}), ("held_out", {"a": [1], "b": []}),
     ("generator", 5), ("orders", [1]), ("orders", {"a": 1}), ("orders", {"a": torch.ones(3)}),
     ("orders", {"a": torch.tensor([-9])}),
     ("orders", {"a": torch.zeros(1, dtype=torch.int64).expand(2**40)}), ("seconds", float("nan")),
     ("seconds", "x"), ("rate", float("inf")), ("step", -1), ("network", {}), ("optimizer", 7)],
    ids=str,
)  # fmt: skip
def test_a_resume_state_may_hold_anything(folder, faceset_folders, key, value):
    """What is whole, but was never written by a training."""
    shutil.rmtree(folder / "snapshots")
    path = folder / "resume.pt"
    state = torch.load(path, weights_only=True)
    if isinstance(state[key], dict) and isinstance(value, dict) and value:
        value = state[key] | value
    torch.save(state | {key: value}, path)

    with pytest.raises(ModelError, match=r"resume\.pt (is damaged|does not fit)"):
        trainer.train(*faceset_folders, folder, TrainConfig(steps=4, batch_size=2, device="cpu"))

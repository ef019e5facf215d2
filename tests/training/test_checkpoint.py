"""A damaged state is never resumed: the newest intact one is, and a warning says so."""

import json
import os
import random
import shutil
import zipfile
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save as safetensors_bytes

from faceswap.config import TrainConfig
from faceswap.errors import ModelError
from faceswap.models import autoencoder, classic, modelfile
from faceswap.models.architectures import PRESETS
from faceswap.training import checkpoint, trainer
from tests.support import states

SETTINGS = TrainConfig(model="small", batch_size=2, device="cpu", preview_every=0)


@pytest.fixture(scope="module")
def trained(faceset_folders, tmp_path_factory):
    """A model of 3 steps, saved after each one."""
    folder = tmp_path_factory.mktemp("run") / "model"
    trainer.train(*faceset_folders, folder, replace(SETTINGS, steps=3, save_every=0.0))
    return folder


@pytest.fixture
def folder(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "model")


@pytest.fixture
def path(folder):
    return folder / checkpoint.RESUME_FILE


def truncated(data):
    return data[: len(data) // 2]


def garbage(data):
    return random.Random(0).randbytes(1000)


def flip(place):
    """Flip one bit at a share of the length."""

    def flipped(data):
        changed = bytearray(data)
        changed[int(len(data) * place)] ^= 1
        return bytes(changed)

    return flipped


@pytest.mark.parametrize(
    "damage", [truncated, garbage, flip(0.5), flip(0.97), flip(0.0005)], ids=lambda d: d.__name__
)
@pytest.mark.slow
def test_damaged_state_falls_back_to_the_previous_one(folder, path, damage, caplog):
    path.write_bytes(damage(path.read_bytes()))

    state = checkpoint.read_state(folder)

    assert state.step == 2
    assert f"{path} is damaged: resuming from step 2 (resume-000003.safetensors)" in caplog.text


def test_newest_intact_snapshot_is_used(folder, path, caplog):
    for broken in (path, folder / "snapshots" / "resume-000003.safetensors"):
        broken.unlink()  # it is a hard link: writing in place would damage both
        broken.write_bytes(b"half a file")

    assert checkpoint.read_state(folder).step == 1
    assert "resuming from step 1 (resume-000002.safetensors)" in caplog.text


@pytest.mark.parametrize("damage", [truncated, garbage])
@pytest.mark.slow
def test_damaged_model_is_rewritten_from_the_state(folder, damage, faceset_folders):
    model = folder / modelfile.MODEL_FILE
    model.write_bytes(damage(model.read_bytes()))
    with pytest.raises(ModelError, match="is not a readable model file"):
        modelfile.load(folder)

    trainer.train(*faceset_folders, folder, replace(SETTINGS, steps=4))

    assert modelfile.load(folder).step == 4


def test_damaged_model_without_state_falls_back_to_a_snapshot(folder, path, caplog):
    model = folder / modelfile.MODEL_FILE
    model.write_bytes(truncated(model.read_bytes()))
    path.unlink()

    assert checkpoint.read_state(folder).step == 2
    assert f"{model} is damaged: resuming from step 2" in caplog.text

    shutil.rmtree(folder / "snapshots")
    with pytest.raises(ModelError, match="is not a readable model file"):
        checkpoint.read_state(folder)


def test_state_survives_the_file_bit_for_bit(folder, path):
    state = checkpoint.read_state(folder)
    states.forge(path)  # writes it again
    again = checkpoint.read_state(folder)

    assert again.step == state.step == 3
    for one, two in ((state.network, again.network), (state.average, again.average)):
        assert all(torch.equal(one[key], two[key]) for key in one)
    for name, values in state.optimizer.items():
        assert again.optimizer[name]["param_groups"] == values["param_groups"]
        for index, entry in values["state"].items():
            for key, tensor in entry.items():
                assert torch.equal(again.optimizer[name]["state"][index][key], tensor)
    assert torch.equal(again.generator, state.generator)


@pytest.mark.slow
def test_old_state_resumes_once_and_is_replaced(folder, faceset_folders):
    """Continuing from a resume.pt gives the same weights as continuing from the new format."""
    nothing = {"left_out": {"a": [], "b": []}}  # earlier versions left out no face
    states.forge(folder / checkpoint.RESUME_FILE, header=nothing)
    copy = shutil.copytree(folder, folder.parent / "copy")
    old = states.write_old(folder)

    for run in (folder, copy):
        trainer.train(*faceset_folders, run, replace(SETTINGS, steps=5))

    assert not old.exists()
    one, two = (modelfile.load(run).network.state_dict() for run in (folder, copy))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert checkpoint.read_state(folder).step == 5


@pytest.mark.slow
def test_old_snapshots_are_fallbacks_and_age_out(folder, path, faceset_folders, caplog):
    old = states.write_old(folder)
    shutil.rmtree(folder / "snapshots")
    (folder / "snapshots").mkdir()
    old.rename(folder / "snapshots" / "resume-000007.pt")
    path.write_bytes(b"half a file")

    assert checkpoint.read_state(folder).step == 3
    assert "resuming from step 3 (resume-000007.pt)" in caplog.text

    trainer.train(*faceset_folders, folder, replace(SETTINGS, steps=6, save_every=0.0, keep=2))
    kept = [snapshot.name for snapshot in (folder / "snapshots").iterdir()]
    assert len(kept) == 1
    assert kept[0].endswith(".safetensors")


def test_restart_discards_an_old_state(folder, faceset_folders):
    old = states.write_old(folder)

    report = trainer.train(*faceset_folders, folder, replace(SETTINGS, steps=2, restart=True))

    assert report.step == 2
    assert not old.exists()


def test_compressed_archive_is_not_read(tmp_path):
    """A few bytes could expand to gigabytes."""
    torch.save({"a": torch.zeros(1000)}, tmp_path / "whole.pt")
    with (
        zipfile.ZipFile(tmp_path / "whole.pt") as old,
        zipfile.ZipFile(tmp_path / "compressed.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))

    assert classic.is_whole_archive(tmp_path / "whole.pt")
    assert not classic.is_whole_archive(tmp_path / "compressed.pt")


def test_header_of_a_huge_network_allocates_no_memory(tmp_path):
    huge = replace(
        PRESETS["small"], size=1024, latent=65536, encoder_widths=(8192,) * 4,
        decoder_widths=(8192,) * 4,
    )  # fmt: skip
    small = modelfile.TrainedModel(autoencoder.build(PRESETS["small"]), ("x", "y"), (0, 0, 0), 1)
    modelfile.save(tmp_path / "small.safetensors", small)
    with modelfile.safe_open(tmp_path / "small.safetensors", framework="pt") as file:
        header = file.metadata()
    header["model"] = json.dumps(huge.to_dict())
    (tmp_path / "huge.safetensors").write_bytes(
        safetensors_bytes({"means": torch.zeros(2, 65536)}, metadata=header)
    )

    with pytest.raises(ModelError, match="do not fit"):
        modelfile.load(tmp_path / "huge.safetensors")


HUGE = {"latent": 65536, "encoder_widths": [8192] * 4, "decoder_widths": [8192] * 4}
HEADERS = [
    ("model", None), ("model", 5), ("model", [1]), ("model", HUGE), ("names", None),
    ("names", [1, 2]), ("held_out", 5), ("held_out", {"a": 1}), ("held_out", {"a": [1], "b": []}),
    ("seconds", "x"), ("seconds", -1), ("step", -1), ("lr_scale", [1]), ("scores", [[1]]),
    ("optimizer", 7), ("optimizer", {}), ("consent", 5), ("centroids", {"a": [1]}),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), HEADERS, ids=str)
def test_state_with_a_foreign_header_is_refused(folder, path, faceset_folders, key, value):
    """The file is intact, but no training wrote it."""
    shutil.rmtree(folder / "snapshots")
    header, _ = states.read(path)
    if isinstance(header[key], dict) and isinstance(value, dict) and value:
        value = header[key] | value
    states.forge(path, header={key: value})

    with pytest.raises(ModelError, match=r"(resume\.safetensors is damaged|does not fit)"):
        trainer.train(*faceset_folders, folder, replace(SETTINGS, steps=4))


TENSORS = [
    ("generator", None), ("generator", torch.zeros(3)), ("orders.a", torch.ones(3)),
    ("orders.a", torch.tensor([-9])), ("orders.a", torch.zeros(2, 2, dtype=torch.int64)),
    ("network.up.conv.weight", None), ("network.up.conv.weight", torch.zeros(3)),
    ("network.surplus", torch.zeros(3)), ("average.up.conv.weight", None),
    ("optimizer.adamw", torch.zeros(3)), ("optimizer.adamw.x.exp_avg", torch.zeros(3)),
    ("optimizer.adamw.0.exp_avg", torch.zeros(3)), ("optimizer.adamw.0.exp_avg_sq", None),
    ("optimizer.adamw.0.step", torch.zeros(3)), ("optimizer.muon.999.exp_avg", torch.zeros(3)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "tensor"), TENSORS, ids=lambda value: str(value)[:30])
def test_state_with_foreign_tensors_is_refused(folder, path, faceset_folders, name, tensor):
    shutil.rmtree(folder / "snapshots")
    states.forge(path, tensors={name: tensor})

    with pytest.raises(ModelError, match=r"(resume\.safetensors is damaged|does not fit)"):
        trainer.train(*faceset_folders, folder, replace(SETTINGS, steps=4))


@pytest.mark.parametrize(
    ("key", "value"),
    [("names", [1, 2]), ("generator", 5), ("orders", {"a": torch.tensor([-9])}),
     ("orders", {"a": torch.zeros(1, dtype=torch.int64).expand(2**40)}),
     ("seconds", float("nan")), ("rate", float("inf")), ("network", {}), ("optimizer", 7)],
    ids=str,
)  # fmt: skip
def test_old_state_with_foreign_content_is_refused(folder, faceset_folders, key, value):
    shutil.rmtree(folder / "snapshots")
    states.write_old(folder, **{key: value})

    with pytest.raises(ModelError, match=r"(resume\.pt is damaged|does not fit)"):
        trainer.train(*faceset_folders, folder, replace(SETTINGS, steps=4))


def test_newer_state_asks_for_an_update(folder, path):
    states.forge(path, header={"version": 99})

    with pytest.raises(ModelError, match=r"format version 99.*update faceswap"):
        checkpoint.read_state(folder)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read anything")
def test_unreadable_state_is_not_called_damaged(folder, path):
    path.chmod(0)

    with pytest.raises(ModelError, match="cannot be read"):
        checkpoint.read_state(folder)

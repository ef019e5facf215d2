import json
import os
import shutil
import signal
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from faceswap.config import TrainConfig
from faceswap.crops.masks import outline
from faceswap.errors import (
    DeviceError,
    InputError,
    ModelError,
    NoFacesError,
    OutputError,
    SettingsError,
    TrainingError,
)
from faceswap.facesets import recognition
from faceswap.facesets.faceset import Faceset, face_key, read_records
from faceswap.media.photos import read_photo
from faceswap.models import autoencoder, modelfile, tensorfile
from faceswap.models.architectures import PRESETS
from faceswap.training import checkpoint, data, monitor, trainer
from faceswap.training.checkpoint import read_state
from faceswap.training.data import next_indices
from faceswap.training.optimizer import recipe_of
from tests.support import states

SHORT = TrainConfig(model="small", steps=6, batch_size=4, device="cpu", preview_every=0,
                    exemplars=0)  # fmt: skip


@pytest.fixture
def run(faceset_folders, tmp_path):
    """Train into a folder of this test's own."""

    def train(config=SHORT, folder="model", **keywords):
        return trainer.train(*faceset_folders, tmp_path / folder, config, **keywords)

    return train


def weights_of(folder):
    return modelfile.load(folder).network.state_dict()


def assert_equal(one, two):
    assert one.keys() == two.keys()
    for key in one:
        assert torch.equal(one[key], two[key]), key


@pytest.fixture(scope="module")
def learnt(faceset_folders, tmp_path_factory):
    """The report of 100 training steps, and the losses of a that the progress showed."""
    losses = []
    report = trainer.train(
        *faceset_folders, tmp_path_factory.mktemp("learnt") / "model", replace(SHORT, steps=100),
        on_progress=lambda p: p.unit == "steps" and losses.append(float(p.note.split()[2])),
    )  # fmt: skip
    return report, losses


@pytest.mark.slow
def test_loss_falls(learnt):
    report, losses = learnt

    first = json.loads((report.folder / "metrics.jsonl").read_text().splitlines()[0])
    assert report.step == 100
    assert report.loss_a < 0.85 * first["loss_a"]
    assert losses


def test_run_writes_all_its_files(run):
    report = run()

    folder = report.folder
    assert sorted(p.name for p in folder.iterdir()) == [
        "best.safetensors", "config.json", "curves.png", "metrics.jsonl", "model.safetensors",
        "previews", "resume.safetensors", "snapshots",
    ]  # fmt: skip
    settings = json.loads((folder / "config.json").read_text())
    assert settings["train"]["model"] == "small"
    assert settings["train"]["learning_rate"] == 1e-3
    assert settings["names"] == ["collins", "hopper"]
    TrainConfig.from_dict(settings["train"])  # what --config reads
    trained = modelfile.load(folder)
    assert trained.names == ("collins", "hopper")
    assert trained.step == 6
    preview = read_photo(folder / "previews" / "step-000000006.png").image
    assert preview.shape == (8 * 242 + 2, 6 * 242 + 2, 3)  # eight rows of six refined faces


def test_model_keeps_photos_that_were_trained_on(run, faceset_folders):
    from faceswap.facesets.faceset import Faceset

    trained = modelfile.load(run(replace(SHORT, exemplars=4)).folder)

    for key, folder in zip("ab", faceset_folders, strict=True):
        photos = trained.exemplars[key]
        assert len(photos.crops) == 4
        known = Faceset.read(folder, 128).subset(trained.held_out[key], inside=False)
        crops = known.crops.permute(0, 2, 3, 1).numpy().astype(np.float32)
        for photo in photos.crops:  # stored as JPEG
            assert np.abs(crops - photo).mean(axis=(1, 2, 3)).min() < 6
        assert np.isfinite(photos.usual).all()


def test_every_tenth_face_stays_held_out(run, faceset_folders):
    from faceswap.facesets.faceset import Faceset

    folder = run().folder
    held_out = modelfile.load(folder).held_out
    run(replace(SHORT, steps=8, holdout=0.5))

    faceset = Faceset.read(faceset_folders[0])
    assert held_out["a"] == faceset.keys[::10]  # photos
    assert len(held_out["b"]) == 3
    assert modelfile.load(folder).held_out == held_out
    assert len(faceset.subset(held_out["a"], inside=False).crops) == 27


def mean_face_color(faceset):
    size, colors = faceset.crops.shape[-1], []
    for crop, points in zip(faceset.crops, faceset.landmarks, strict=True):
        weight = torch.from_numpy(outline(points, size))
        colors.append((crop.float() * weight).sum((1, 2)) / weight.sum() / 255)
    return torch.stack(colors).mean(0)


def test_color_shift_moves_a_to_b(run, faceset_folders):
    from faceswap.facesets.faceset import Faceset

    trained = modelfile.load(run().folder)
    shift = trained.color_shift

    unseen = [{*trained.held_out[key], *trained.left_out[key]} for key in "ab"]
    size = trained.network.config.crop_size
    facesets = [Faceset.read(folder, size) for folder in faceset_folders]
    seen = [faceset.subset(keys, inside=False)
            for faceset, keys in zip(facesets, unseen, strict=True)]  # fmt: skip
    a, b = (mean_face_color(faceset) for faceset in seen)
    np.testing.assert_allclose(a + torch.tensor(shift), b, atol=1e-4)


def test_model_stores_both_centroids(run, faceset_folders):
    seen = []
    report = run(on_progress=lambda p: p.unit == "faces" and seen.append((p.done, p.total)))

    trained = modelfile.load(report.folder)
    for key, folder in zip("ab", faceset_folders, strict=True):
        known = Faceset.read(folder, PRESETS["small"].crop_size)
        unseen = {*trained.held_out[key], *trained.left_out[key]}
        known = known.subset(unseen, inside=False)
        assert 0 < len(known.keys) < 30
        np.testing.assert_array_equal(trained.centroids[key], recognition.centroid(known))
    assert np.linalg.norm(trained.centroids["a"] - trained.centroids["b"]) > 0.6
    total = sum(30 - len(trained.held_out[key]) - len(trained.left_out[key]) for key in "ab")
    assert seen == [(done, total) for done in range(1, total + 1)]


@pytest.mark.slow
def test_resumed_run_keeps_its_centroids_and_an_old_one_gets_them(run, monkeypatch):
    folder = run(replace(SHORT, steps=2)).folder
    before = modelfile.load(folder).centroids
    with monkeypatch.context() as patch:
        patch.setattr(data, "centroid", None)  # nobody asks again
        run(replace(SHORT, steps=3))
    kept = modelfile.load(folder).centroids

    states.forge(folder / "resume.safetensors", header={"centroids": {}})
    run(replace(SHORT, steps=4))

    for key in "ab":
        np.testing.assert_array_equal(kept[key], before[key])
        np.testing.assert_array_equal(modelfile.load(folder).centroids[key], before[key])


@pytest.mark.slow
def test_resumed_run_equals_an_unbroken_one_bit_for_bit(run):
    steady = replace(SHORT, minutes=None)
    whole = run(replace(steady, steps=9), folder="whole")
    # the same schedule needs the same end, so the break comes from outside, as Ctrl-C would
    first = stopped(run, replace(steady, steps=9), after=4, folder="broken")
    second = run(replace(steady, steps=9), folder="broken")

    assert (first.step, first.interrupted) == (4, True)
    assert (second.step, second.interrupted) == (9, False)
    assert_equal(weights_of(second.folder), weights_of(whole.folder))
    one, two = (read_state(report.folder).optimizer for report in (whole, second))
    assert one.keys() == two.keys() == {"adamw", "muon"}
    for name, values in one.items():
        for index, entry in values["state"].items():
            assert_equal(entry, two[name]["state"][index])


@pytest.mark.slow
def test_different_seeds_give_different_models(run):
    one, two = run(folder="one"), run(replace(SHORT, seed=1), folder="two")

    assert not torch.equal(
        weights_of(one.folder)["down.0.conv.weight"], weights_of(two.folder)["down.0.conv.weight"]
    )


def test_finished_run_is_not_trained_again(run):
    first = run()
    before = weights_of(first.folder)

    again = run()

    assert again.done
    assert (again.step, again.loss_a) == (first.step, pytest.approx(first.loss_a, abs=1e-5))
    assert_equal(weights_of(first.folder), before)


@pytest.mark.slow
def test_more_steps_continue_the_run(run):
    run()

    assert run(replace(SHORT, steps=8)).step == 8


@pytest.mark.slow
def test_restart_starts_over(run):
    run(replace(SHORT, steps=8))

    report = run(replace(SHORT, restart=True))

    assert report.step == 6
    lines = (report.folder / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 6


def test_minutes_limit_ends_the_run(run):
    report = run(replace(SHORT, steps=None, minutes=0.03))

    assert 0.01 < report.minutes < 0.3  # the time of the last measurements is an estimate
    assert report.step >= 1


def test_cycles_without_an_end_grow():
    seconds = [0, 60, 119, 121, 299, 301, 569, 571]

    cycles = [trainer._cycle(value) for value in seconds]

    assert [number for number, _ in cycles] == [0, 0, 0, 1, 1, 2, 2, 3]
    np.testing.assert_allclose([share for _, share in cycles],
                               [0, 0.5, 0.99, 0, 0.99, 0, 0.99, 0], atol=0.01)  # fmt: skip


def stopped(run, config, after, **options):
    """Train until Ctrl-C comes in a step."""
    original, steps = trainer.learn, 0

    def learn(*args):
        nonlocal steps
        steps += 1
        if steps == after:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "learn", learn)
        return run(config, **options)


@pytest.mark.slow
def test_model_stays_that_of_the_last_cycle(run, monkeypatch):
    """A run without an end updates its model at the end of a cycle, not in the middle of one."""
    endless = replace(SHORT, steps=None)
    folder = stopped(run, endless, after=2).folder  # within the first cycle, so it is written
    assert modelfile.load(folder).step == 2
    states.forge(folder / "resume.safetensors", header={"seconds": 120.5})

    stopped(run, endless, after=2)
    assert read_state(folder).step == 4
    assert modelfile.load(folder).step == 2

    states.forge(folder / "resume.safetensors", header={"seconds": 299.99})
    stopped(run, endless, after=3)
    assert read_state(folder).step == 7
    assert modelfile.load(folder).step == 5  # the cycle ended after the first step


@pytest.mark.slow
def test_metrics_after_the_saved_state_are_dropped(run):
    folder = run().folder
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 999, "loss_a": 1, "loss_b": 1}\n{"step": 10')  # killed after this

    run(replace(SHORT, steps=8))

    steps = [
        json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().split("\n")[:-1]
    ]
    assert max(steps) == 8
    assert steps == sorted(steps)


@pytest.mark.slow
def test_model_without_resume_state_is_trained_further(run):
    folder = run().folder
    (folder / "resume.safetensors").unlink()

    assert run(replace(SHORT, steps=8)).step == 8


@pytest.mark.slow
def test_training_continues_from_a_snapshot_if_the_state_is_damaged(run, caplog):
    folder = run(replace(SHORT, save_every=0.0)).folder  # saves after every step
    (folder / "resume.safetensors").write_bytes(b"half a file")

    report = run(replace(SHORT, steps=8))

    assert "resuming from step 5 (resume-000006.safetensors)" in caplog.text
    assert report.step == 8


@pytest.mark.slow
def test_last_states_are_kept(run):
    folder = run(replace(SHORT, save_every=0.0, keep=3)).folder

    kept = sorted((folder / "snapshots").iterdir())
    paths = [*kept, folder / "resume.safetensors"]
    assert [states.read(path)[0]["step"] for path in paths] == [4, 5, 6]


@pytest.mark.slow
def test_restart_keeps_no_state_of_the_replaced_run(run):
    run()

    folder = run(replace(SHORT, steps=2, restart=True, keep=3)).folder

    kept = sorted((folder / "snapshots").iterdir())
    assert [states.read(path)[0]["step"] for path in kept] == [0]


@pytest.mark.slow
def test_best_model_has_the_best_score(run):
    folder = run(replace(SHORT, save_every=0.0, steps=10)).folder

    scores = read_state(folder).scores
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    parts = ("ssim_a", "ssim_b", "sharp_a", "sharp_b")
    scored = [(sum(map(line.get, parts)), line["step"]) for line in lines if "ssim_a" in line]
    assert len(scores) == len(scored) >= 10
    assert all(
        0 < line[f"{part}_margin"] < 1 for line in lines if "ssim_a" in line for part in parts
    )
    assert modelfile.load(folder / "best.safetensors").step == max(scored)[1]


def test_damaged_state_without_snapshots_is_an_error(run):
    folder = run(replace(SHORT, keep=1)).folder
    (folder / "resume.safetensors").write_bytes(b"half a file")

    with pytest.raises(ModelError, match=r"resume\.safetensors is damaged.*--restart"):
        run(replace(SHORT, steps=8))


def test_same_faceset_twice_is_refused(faceset_folders, tmp_path):
    again = tmp_path / "link"
    again.symlink_to(faceset_folders[0], target_is_directory=True)

    with pytest.raises(SettingsError, match="training needs the faces of two people"):
        trainer.train(faceset_folders[0], again, tmp_path / "model", SHORT)
    assert not (tmp_path / "model").exists()


def test_different_architecture_is_refused(run):
    run()

    with pytest.raises(SettingsError, match="holds a model 'small' of 80 px, not 'original': give"):
        run(replace(SHORT, model="original"))
    with pytest.raises(SettingsError, match="of 80 px, not 'small' of 96 px"):
        run(replace(SHORT, size=96))


def test_size_option_sets_the_network_size(run):
    report = run(replace(SHORT, size=96, steps=2))

    trained = modelfile.load(report.folder)
    assert (trained.network.config.size, trained.network.config.crop_size) == (96, 153)
    assert trained.network(torch.rand(1, 3, 96, 96), "a").shape == (1, 4, 96, 96)


def test_unsuitable_size_is_refused(run):
    with pytest.raises(SettingsError, match="size must be a multiple of 16, not 72"):
        run(replace(SHORT, size=72))


def test_init_from_copies_encoder_and_decoders(run):
    other = run(replace(SHORT, seed=3)).folder

    begun = run(replace(SHORT, init_from=str(other), steps=1, learning_rate=1e-9), "begun").folder

    before, after = weights_of(other), weights_of(begun)
    plain = weights_of(run(replace(SHORT, steps=1, learning_rate=1e-9), "plain").folder)
    for key in before:
        if key != "means":
            origin = plain if "latent" in key else before
            torch.testing.assert_close(after[key], origin[key], atol=1e-5, rtol=0)
    assert not torch.equal(before["to_latent.weight"], after["to_latent.weight"])


def test_init_from_needs_the_same_architecture(run):
    other = run().folder

    with pytest.raises(SettingsError, match="'small' of 80 px, not 'original': leave out --model"):
        run(replace(SHORT, init_from=str(other), model="original"), "begun")
    with pytest.raises(ModelError, match="nowhere does not exist"):
        run(replace(SHORT, init_from=str(other / "nowhere")), "begun")


@pytest.mark.slow
def test_model_file_holds_the_average_weights(run):
    folder = run(replace(SHORT, steps=30)).folder

    state = read_state(folder)
    assert_equal(weights_of(folder), state.average)
    apart = state.network["up.conv.weight"] - state.average["up.conv.weight"]
    assert apart.abs().max() > 1e-4


def test_update_ema_follows_the_weights():
    network, average = (autoencoder.build(PRESETS["small"]) for _ in range(2))

    trainer.update_ema(average, network, torch.tensor(trainer.ema_share(0.999, step=0)))
    weight, mean = network.up.conv.weight.detach(), average.up.conv.weight
    early = mean - weight
    weight.add_(1.0)
    trainer.update_ema(average, network, torch.tensor(trainer.ema_share(0.999, step=10**6)))

    begun = autoencoder.build(PRESETS["small"]).up.conv.weight.std()
    assert early.std() < 0.2 * begun  # at first it keeps a tenth of its random beginning
    torch.testing.assert_close(weight - mean, (1 - early) * 0.999)


@pytest.mark.slow
def test_mask_head_learns_the_face_outline(learnt):
    network = modelfile.load(learnt[0].folder).network
    with torch.no_grad():
        decoded = network(torch.full((1, 3, 80, 80), 0.5), "a")[0, 3]
    corners = decoded[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert decoded[30:50, 30:50].mean() > corners.max() + 0.3


@pytest.fixture
def people(faceset_folders, tmp_path):
    """Copies of both facesets that a test may rename or change."""
    for faces in faceset_folders:
        shutil.copytree(faces, tmp_path / "data" / faces.parent.name / "faces")
    return tmp_path / "data"


def train_on(people, a, b, config=SHORT, folder="model"):
    return trainer.train(people / a / "faces", people / b / "faces", people / folder, config)


def test_exchanged_facesets_are_named(people):
    train_on(people, "collins", "hopper", replace(SHORT, steps=1))

    with pytest.raises(SettingsError, match=r"wrong way round.*pass --a collins --b hopper"):
        train_on(people, "hopper", "collins")


def test_renamed_faceset_goes_on_under_its_new_name(people, caplog):
    train_on(people, "collins", "hopper", replace(SHORT, steps=1))
    (people / "collins").rename(people / "eileen")

    report = train_on(people, "eileen", "hopper", replace(SHORT, steps=2))

    assert report.step == 2
    assert "goes on with the same faces under other names: collins is now eileen" in caplog.text
    assert modelfile.load(people / "model").names == ("eileen", "hopper")


def test_another_person_with_the_same_file_names_is_refused(people):
    """Both facesets come from 0.jpg, 1.jpg and so on, so their keys prove nothing."""
    train_on(people, "collins", "hopper", replace(SHORT, steps=1))
    shutil.rmtree(people / "collins")
    shutil.copytree(people / "hopper", people / "donald")

    with pytest.raises(SettingsError, match="if collins was renamed to donald, rename it back"):
        train_on(people, "donald", "hopper")


def test_same_person_from_other_photos_is_refused(people):
    train_on(people, "collins", "hopper", replace(SHORT, steps=1))
    (people / "collins").rename(people / "eileen")
    index = people / "eileen" / "faces" / "faces.jsonl"
    index.write_text(index.read_text().replace('"source": "', '"source": "new-'))

    with pytest.raises(SettingsError, match="if collins was renamed to eileen, rename it back"):
        train_on(people, "eileen", "hopper")


@pytest.mark.slow
def test_training_says_that_held_out_crops_were_deleted(people, caplog):
    train_on(people, "collins", "hopper", replace(SHORT, steps=1))
    crops = sorted((people / "collins" / "faces").glob("*.png"))
    held_out = modelfile.load(people / "model").held_out["a"]
    files = {
        face_key(record): record["file"]
        for record in read_records(people / "collins" / "faces" / "faces.jsonl")
    }
    one, *others = [people / "collins" / "faces" / files[key] for key in held_out]
    one.unlink()

    train_on(people, "collins", "hopper", replace(SHORT, steps=2))
    assert "only 2 of the 3 faces that training held out are left" in caplog.text
    for crop in others:
        crop.unlink()
    report = train_on(people, "collins", "hopper", replace(SHORT, steps=3))

    assert "collins: all 3 faces that training held out were deleted, so it goes on" in caplog.text
    assert report.step == 3
    assert len(crops) - len(list(crops[0].parent.glob("*.png"))) == 3


def test_too_few_faces_name_the_minimum(faceset_folders, tmp_path):
    import shutil

    few = tmp_path / "few" / "faces"
    shutil.copytree(faceset_folders[0], few)
    lines = (few / "faces.jsonl").read_text().splitlines(keepends=True)
    (few / "faces.jsonl").write_text("".join(lines[:4]))

    with pytest.raises(NoFacesError, match="holds 3 faces; training needs at least 25"):
        trainer.train(few, faceset_folders[1], tmp_path / "model", SHORT)
    assert not (tmp_path / "model").exists()


def test_missing_faceset_is_an_input_error(faceset_folders, tmp_path):
    with pytest.raises(InputError, match="no faceset"):
        trainer.train(tmp_path, faceset_folders[1], tmp_path / "model", SHORT)


def broken_loss(monkeypatch, times):
    """A training loss that is not a number the first ``times`` times."""
    calls = 0
    good = trainer.LOSSES["l1-dssim"]

    def loss(output, target, mask):
        nonlocal calls
        calls += 1
        return good(output, target, mask) * (float("nan") if calls <= times else 1)

    monkeypatch.setitem(trainer.LOSSES, "l1-dssim", loss)


@pytest.mark.slow
def test_non_finite_loss_rolls_back_once_with_a_lower_rate(run, monkeypatch, caplog):
    run()
    broken_loss(monkeypatch, 2)  # a's and b's of one step

    report = run(replace(SHORT, steps=12))

    assert report.step == 12
    assert "continuing from step 6 at 0.5 of the learning rate" in caplog.text
    assert read_state(report.folder).lr_scale == 0.5
    assert all(torch.isfinite(value).all() for value in weights_of(report.folder).values())


@pytest.mark.slow
def test_repeated_non_finite_loss_stops_and_keeps_the_last_state(run, monkeypatch):
    folder = run().folder
    before = weights_of(folder)
    broken_loss(monkeypatch, 10**6)

    with pytest.raises(TrainingError, match=r"for the second time.*--learning-rate"):
        run(replace(SHORT, steps=12))

    assert_equal(weights_of(folder), before)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # PyTorch's own
def test_compiled_network_learns_the_same(run, monkeypatch):
    """The backend "eager" runs PyTorch's own kernels, so that no C compiler is needed."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    plain = run().folder

    compiled = run(replace(SHORT, compile=True), folder="compiled").folder

    assert_equal(weights_of(plain), weights_of(compiled))


def test_network_that_cannot_be_compiled_is_a_device_error(run, monkeypatch):
    def without_compiler(graph, inputs):
        raise RuntimeError("no C compiler found\nmore lines")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=without_compiler))

    with pytest.raises(DeviceError, match=r"compiled for cpu \(.*without --compile$"):
        run(replace(SHORT, compile=True))


@pytest.mark.slow
def test_plateau_of_the_score_warns_once(run, caplog, monkeypatch):
    monkeypatch.setattr(monitor, "FLAT_GAIN", 1.0)  # no score can rise by so much
    monkeypatch.setattr(monitor, "FLAT_SCORES", 2)

    run(replace(SHORT, save_every=0.0, steps=5))
    assert "gains little" not in caplog.text  # too early to tell

    monkeypatch.setattr(monitor, "FLAT_AFTER", 5)
    run(replace(SHORT, save_every=0.0, steps=8))
    assert caplog.text.count("more training gains little") == 1


def test_missing_tensorboard_names_the_package(run, monkeypatch):
    monkeypatch.setattr(monitor, "find_spec", lambda name: None)

    with pytest.raises(SettingsError, match="pip install tensorboard"):
        run(replace(SHORT, tensorboard=True))


@pytest.mark.slow
def test_full_disk_keeps_the_last_state(run, monkeypatch):
    folder = run().folder
    before = weights_of(folder)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    @contextmanager
    def fill_up(path):
        with atomic_write(path) as temporary:
            monkeypatch.setattr(tensorfile, "_bytes_of", full)
            yield temporary

    atomic_write = tensorfile.atomic_write
    monkeypatch.setattr(tensorfile, "atomic_write", fill_up)

    with pytest.raises(OutputError, match=r"cannot write .*resume\.safetensors: No space left"):
        run(replace(SHORT, steps=8))

    monkeypatch.undo()
    assert_equal(weights_of(folder), before)
    assert not [p for p in folder.iterdir() if ".part" in p.name]
    assert run(replace(SHORT, steps=8)).step == 8


def test_every_face_is_used_once_per_pass():
    run = checkpoint.TrainingState(
        None, None, torch.Generator().manual_seed(0), ("a", "b"), (0, 0, 0)
    )

    dealt = torch.cat([next_indices(run, "a", torch.arange(10), 4) for _ in range(5)])

    assert sorted(dealt[:10].tolist()) == list(range(10))
    assert sorted(dealt[10:].tolist()) == list(range(10))


def test_removed_faces_are_not_used():
    run = checkpoint.TrainingState(
        None, None, torch.Generator().manual_seed(0), ("a", "b"), (0, 0, 0)
    )
    next_indices(run, "a", torch.arange(50), 4)

    assert next_indices(run, "a", torch.arange(10), 30).max() < 10


def test_learning_rate_warms_up_holds_and_decays():
    small = recipe_of("small")

    assert trainer._rate_factor(0, 0.0, small) == pytest.approx(0.1)
    assert trainer._rate_factor(small.warm_up, 0.3, small) == pytest.approx(1)
    assert trainer._rate_factor(1000, 0.75, small) == pytest.approx((1 + small.decay_to) / 2)
    assert trainer._rate_factor(1000, 1.0, small) == pytest.approx(small.decay_to)


def test_classic_learning_rate_is_constant():
    rates = {trainer._rate_factor(s, s / 10, recipe_of("original")) for s in range(11)}

    assert rates == {1.0}


@pytest.fixture
def third(faceset_folders, tmp_path):
    """A faceset of another name."""
    folder = tmp_path / "third.person" / "faces"
    shutil.copytree(faceset_folders[0], folder)
    return folder


def test_companions_train_the_encoder_but_are_not_in_the_model(run, third):
    alone = modelfile.load(run(replace(SHORT, steps=2)).folder).network.state_dict()
    together = replace(SHORT, steps=2, also=(str(third),), restart=True)

    found = modelfile.load(run(together).folder).network.state_dict()

    assert set(found) == set(alone)
    for name in ("down.0.conv.weight", "to_latent.weight"):
        assert not torch.equal(found[name], alone[name])


@pytest.mark.slow
def test_companions_decoders_are_resumed(run, third):
    config = replace(SHORT, also=(str(third),), steps=2)
    folder = run(config).folder
    before = read_state(folder).companions
    seen = []
    original = trainer.learn

    def learn(state, *rest):
        seen.append(state.companions[0].decoder.state_dict()["0.conv.weight"].clone())
        return original(state, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "learn", learn)
        run(replace(config, steps=3))

    assert torch.equal(seen[0], before["third.person/0.conv.weight"])
    after = read_state(folder).companions
    assert not torch.equal(seen[0], after["third.person/0.conv.weight"])
    assert run(replace(config, also=(), steps=4)).step == 4


def test_a_companion_must_be_somebody_else(run, third, faceset_folders):
    for also in ((str(faceset_folders[1]),), (str(third), str(third))):
        with pytest.raises(SettingsError, match="--also needs people with names of their own"):
            run(replace(SHORT, also=also))


def test_missing_cuda_is_a_device_error(run):
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(DeviceError, match="device cuda is not available"):
        run(replace(SHORT, device="cuda"))


def out_of_memory(monkeypatch, times):
    """Let a step run out of memory the first ``times`` times; record its batches."""
    batches, good = [], trainer.learn

    def learn(run, pair, warped, *rest):
        batches.append(len(warped[0]))
        if len(batches) <= times:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return good(run, pair, warped, *rest)

    monkeypatch.setattr(trainer, "learn", learn)
    return batches


def test_batch_is_halved_when_memory_runs_out(run, monkeypatch, caplog):
    batches = out_of_memory(monkeypatch, 1)

    report = run(replace(SHORT, steps=3))

    assert batches == [4, 2, 2, 2]
    assert (report.step, report.batch_size) == (3, 2)
    assert "the memory of cpu is too small for a batch of 4: continuing with 2" in caplog.text


def test_memory_too_small_for_one_face_is_a_device_error(run, monkeypatch):
    batches = out_of_memory(monkeypatch, 10)

    with pytest.raises(DeviceError, match=r"for a batch of 1 at step 0.*--batch-size"):
        run()
    assert batches == [4, 2, 1]

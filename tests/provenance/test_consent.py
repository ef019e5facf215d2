"""Consent notes go from the faceset into the model and into everything that it makes."""

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from faceswap.cli import info, main, options, text
from faceswap.config import ConvertConfig, TrainConfig
from faceswap.errors import InputError, ModelError, SettingsError
from faceswap.models import autoencoder, modelfile
from faceswap.models.architectures import PRESETS
from faceswap.provenance.consent import MAX_NOTE, merge_notes, read_notes
from faceswap.swapping import converter, verification
from faceswap.training import checkpoint, trainer

SHORT = TrainConfig(
    model="small", steps=1, batch_size=2, device="cpu", preview_every=0, save_every=0.0
)
NO_NOTES = {"a": None, "b": None}


@pytest.fixture
def people(faceset_folders, tmp_path):
    """Copies of both facesets, so that a test may write beside them."""
    for folder in faceset_folders:
        shutil.copytree(folder, tmp_path / "data" / folder.parent.name / "faces")
    return [tmp_path / "data" / folder.parent.name / "faces" for folder in faceset_folders]


def test_note_reaches_the_output_of_verify(people, tmp_path, collins):
    (people[1].parent / "CONSENT.md").write_text("Agreed in writing,\n2026-01-05.\n")
    trained = trainer.train(*people, tmp_path / "m", replace(SHORT, consent_a="A film, 2026"))
    Image.fromarray(collins).save(tmp_path / "x.png")

    converter.convert(tmp_path / "x.png", None, tmp_path / "m", ConvertConfig(device="cpu"))

    expected = {"a": "A film, 2026", "b": "Agreed in writing,\n2026-01-05."}
    assert trained.consent == modelfile.load(tmp_path / "m").consent == expected
    assert info.inspect(tmp_path / "m").consent == expected
    lines = text.verification(verification.verify([tmp_path / "x.swapped.png"]))
    assert "    note: consent of collins: A film, 2026" in lines
    place = lines.index("    note: consent of hopper: Agreed in writing,")
    assert lines[place + 1] == "    note: 2026-01-05."


def test_resume_keeps_notes_unless_new_ones_are_given(people, tmp_path):
    folder = tmp_path / "m"
    trainer.train(*people, folder, replace(SHORT, consent_a="one", consent_b="two"))

    trainer.train(*people, folder, replace(SHORT, steps=2))
    kept = modelfile.load(folder).consent
    done = trainer.train(*people, folder, replace(SHORT, steps=2, consent_a="three"))

    assert kept == {"a": "one", "b": "two"}
    assert done.done
    for file in (folder / modelfile.MODEL_FILE, folder / checkpoint.BEST_FILE):
        assert modelfile.load(file).consent == {"a": "three", "b": "two"}
    restarted = trainer.train(*people, folder, replace(SHORT, restart=True))
    assert restarted.consent == {"a": "not stated", "b": "not stated"}


def test_saved_settings_do_not_carry_notes_to_other_people(people, tmp_path):
    trainer.train(*people, tmp_path / "m", replace(SHORT, consent_a="one"))

    settings = options.resolve(TrainConfig, "train", tmp_path / "m" / "config.json", {})

    assert settings.consent_a is None


def test_missing_note_prints_one_line_of_advice(people, tmp_path):
    args = ["train", "--a", people[0], "--b", people[1], "-o", tmp_path / "m", "--model", "small",
            "--steps", 1, "--batch-size", 2, "--device", "cpu", "--consent-b", "yes"]  # fmt: skip

    stdout = CliRunner().invoke(main.cli, list(map(str, args)), catch_exceptions=False).stdout

    assert [line for line in stdout.splitlines() if "consent" in line] == [
        "consent of a is not stated, and swaps will say so: to state it, "
        "repeat the command with --consent-a TEXT, or after writing data/<name>/CONSENT.md"
    ]


def test_model_without_notes_loads_as_not_stated(tmp_path):
    from safetensors.torch import save

    network = autoencoder.build(PRESETS["small"])
    modelfile.save(
        tmp_path / "new.safetensors", modelfile.TrainedModel(network, ("x", "y"), (0, 0, 0), 1)
    )
    with modelfile.safe_open(tmp_path / "new.safetensors", framework="pt") as file:
        header = file.metadata()
    del header["consent"]
    (tmp_path / "old.safetensors").write_bytes(save(network.state_dict(), metadata=header))
    header["consent"] = '{"a": 3}'
    (tmp_path / "bad.safetensors").write_bytes(save(network.state_dict(), metadata=header))

    assert modelfile.notes_of(tmp_path / "old.safetensors")[0] == [
        "consent of x: not stated", "consent of y: not stated",
    ]  # fmt: skip
    with pytest.raises(ModelError, match="invalid header: a consent note must be text, not int"):
        modelfile.load(tmp_path / "bad.safetensors")


@pytest.mark.parametrize(
    ("note", "message"),
    [("x" * (MAX_NOTE + 1), f"at most {MAX_NOTE} characters"), ("\x1b[2J", "printable")],
)
def test_too_long_or_unprintable_note_is_refused(tmp_path, note, message):
    faces = {"a": tmp_path / "x" / "faces", "b": tmp_path / "y" / "faces"}
    with pytest.raises(SettingsError, match=f"consent_a: .*{message}"):
        merge_notes({"a": note, "b": None}, None, faces)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "CONSENT.md").write_text(note)
    with pytest.raises(SettingsError, match=rf"CONSENT\.md: .*{message}"):
        merge_notes(NO_NOTES, None, faces)
    with pytest.raises(ValueError, match=message):
        read_notes({"a": note})


def test_consent_file_that_differs_from_the_model_warns(tmp_path, caplog):
    faces = {"a": tmp_path / "set", "b": tmp_path / "other"}
    (tmp_path / "set").mkdir()
    path = tmp_path / "set" / "CONSENT.md"
    path.write_text("new")

    assert merge_notes(NO_NOTES, {"a": "old"}, faces) == {"a": "old", "b": ""}
    assert f"{path} differs from the note" in caplog.text
    path.write_bytes(np.arange(256, dtype=np.uint8).tobytes())
    with pytest.raises(InputError, match="is not UTF-8 text"):
        merge_notes(NO_NOTES, None, faces)


@pytest.mark.skipif(os.name != "posix", reason="links need administrator rights on Windows")
def test_link_to_a_private_file_is_refused(tmp_path):
    (tmp_path / "private").write_text("-----BEGIN OPENSSH PRIVATE KEY-----")
    folder = tmp_path / "data" / "someone"
    folder.mkdir(parents=True)
    (folder / "CONSENT.md").symlink_to(tmp_path / "private")
    facesets = {"a": folder / "faces", "b": folder / "faces"}

    with pytest.raises(InputError, match=r"CONSENT\.md is a link to a file outside its folder"):
        merge_notes(NO_NOTES, None, facesets)
    (folder / "CONSENT.md").unlink()
    (folder / "note.txt").write_text("agreed")
    (folder / "CONSENT.md").symlink_to("note.txt")

    assert merge_notes(NO_NOTES, None, facesets) == {"a": "agreed", "b": "agreed"}

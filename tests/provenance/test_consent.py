"""What people consented to travels from the faces to the model and into all that it makes."""

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
from faceswap.provenance import credentials
from faceswap.provenance.consent import MAX_NOTE, merge_notes, read_notes
from faceswap.swapping import converter
from faceswap.training import checkpoint, trainer

SHORT = TrainConfig(
    model="small", steps=1, batch_size=2, device="cpu", preview_every=0, save_every=0.0
)
NOBODY = {"a": None, "b": None}


@pytest.fixture
def people(faceset_folders, tmp_path):
    """Both facesets, in folders of this test's own."""
    for folder in faceset_folders:
        shutil.copytree(folder, tmp_path / "data" / folder.parent.name / "faces")
    return [tmp_path / "data" / folder.parent.name / "faces" for folder in faceset_folders]


def test_a_note_goes_all_the_way_to_what_verify_shows(people, tmp_path, collins):
    (people[1].parent / "CONSENT.md").write_text("Agreed in writing,\n2026-01-05.\n")
    trained = trainer.train(*people, tmp_path / "m", replace(SHORT, consent_a="A film, 2026"))
    Image.fromarray(collins).save(tmp_path / "x.png")

    converter.convert(tmp_path / "x.png", None, tmp_path / "m", ConvertConfig(device="cpu"))

    expected = {"a": "A film, 2026", "b": "Agreed in writing,\n2026-01-05."}
    assert trained.consent == modelfile.load(tmp_path / "m").consent == expected
    assert info.inspect(tmp_path / "m")["consent"] == expected
    lines = text.verification(credentials.verify([tmp_path / "x.swapped.png"]))
    assert "    note: consent of collins: A film, 2026" in lines
    place = lines.index("    note: consent of hopper: Agreed in writing,")
    assert lines[place + 1] == "    note: 2026-01-05."


def test_going_on_keeps_the_note_unless_a_new_one_is_given(people, tmp_path):
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


def test_settings_written_down_do_not_carry_the_note_to_other_people(people, tmp_path):
    trainer.train(*people, tmp_path / "m", replace(SHORT, consent_a="one"))

    settings = options.resolve(TrainConfig, "train", tmp_path / "m" / "config.json", {})

    assert settings.consent_a is None


def test_what_is_not_stated_brings_one_line_of_advice(people, tmp_path):
    args = ["train", "--a", people[0], "--b", people[1], "-o", tmp_path / "m", "--model", "small",
            "--steps", 1, "--batch-size", 2, "--device", "cpu", "--consent-b", "yes"]  # fmt: skip

    said = CliRunner().invoke(main.cli, list(map(str, args)), catch_exceptions=False).stdout

    assert [line for line in said.splitlines() if "consent" in line] == [
        "consent of a is not stated: run again with --consent-a TEXT, or write "
        "data/<name>/CONSENT.md"
    ]


def test_a_model_from_before_loads_and_states_nothing(tmp_path):
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

    assert modelfile.consent_of(tmp_path / "old.safetensors") == [
        "consent of x: not stated", "consent of y: not stated",
    ]  # fmt: skip
    with pytest.raises(ModelError, match="broken header: a consent note must be a text, not int"):
        modelfile.load(tmp_path / "bad.safetensors")


@pytest.mark.parametrize(
    ("note", "message"),
    [("x" * (MAX_NOTE + 1), f"at most {MAX_NOTE} characters"), ("\x1b[2J", "printable")],
)
def test_a_note_that_no_page_could_show_is_refused(tmp_path, note, message):
    faces = {"a": tmp_path / "x" / "faces", "b": tmp_path / "y" / "faces"}
    with pytest.raises(SettingsError, match=f"consent_a: .*{message}"):
        merge_notes({"a": note, "b": None}, None, faces)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "CONSENT.md").write_text(note)
    with pytest.raises(SettingsError, match=rf"CONSENT\.md: .*{message}"):
        merge_notes(NOBODY, None, faces)
    with pytest.raises(ValueError, match=message):
        read_notes({"a": note})


def test_a_file_that_says_otherwise_than_the_model_is_told(tmp_path, caplog):
    faces = {"a": tmp_path / "set", "b": tmp_path / "other"}
    (tmp_path / "set").mkdir()
    path = tmp_path / "set" / "CONSENT.md"
    path.write_text("new")

    assert merge_notes(NOBODY, {"a": "old"}, faces) == {"a": "old", "b": ""}
    assert f"{path} differs from the note" in caplog.text
    path.write_bytes(np.arange(256, dtype=np.uint8).tobytes())
    with pytest.raises(InputError, match="is not UTF-8 text"):
        merge_notes(NOBODY, None, faces)


@pytest.mark.skipif(os.name != "posix", reason="whoever may make links there may do anything")
def test_a_link_to_a_private_file_is_not_published(tmp_path):
    (tmp_path / "private").write_text("-----BEGIN OPENSSH PRIVATE KEY-----")
    folder = tmp_path / "data" / "someone"
    folder.mkdir(parents=True)
    (folder / "CONSENT.md").symlink_to(tmp_path / "private")
    facesets = {"a": folder / "faces", "b": folder / "faces"}

    with pytest.raises(InputError, match=r"CONSENT\.md is a link to a file elsewhere"):
        merge_notes(NOBODY, None, facesets)
    (folder / "CONSENT.md").unlink()
    (folder / "note.txt").write_text("agreed")
    (folder / "CONSENT.md").symlink_to("note.txt")

    assert merge_notes(NOBODY, None, facesets) == {"a": "agreed", "b": "agreed"}

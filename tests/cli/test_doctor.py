"""The doctor tries each stage and names those that do not work."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from faceswap.cli import doctor, main, text
from faceswap.errors import InputError, NotReadyError
from faceswap.faces.dlib_backend import WEIGHT_FILES
from faceswap.media import codecs
from tests.support.commands import checked


@pytest.fixture(scope="module")
def diagnosis(tmp_path_factory):
    return doctor.run_checks(tmp_path_factory.mktemp("here"))


def test_every_stage_works_here(diagnosis):
    assert diagnosis.ok, diagnosis
    assert [check.name for check in diagnosis.checks] == ["extract", "train", "convert", "verify"]
    assert diagnosis.folder.writable
    assert diagnosis.encoders["libx264"]
    assert diagnosis.libraries["torch"]
    assert doctor.status(diagnosis) is None
    assert "train: works" in "\n".join(text.diagnosis(diagnosis))


def test_failed_check_is_named_and_has_its_own_exit_code(monkeypatch, tmp_path):
    def broken():
        raise InputError(f"{Path.home()}/secret/x.pem is damaged")

    monkeypatch.setattr(doctor, "CHECKS", {"verify": broken})
    monkeypatch.chdir(tmp_path)

    done = CliRunner().invoke(main.cli, ["doctor", "--json"])

    found = checked("doctor", done.stdout)
    assert (done.exit_code, found["ok"]) == (NotReadyError.exit_code, False)
    assert found["checks"][0]["message"] == "~/secret/x.pem is damaged"
    assert found["error"]["message"] == "this machine is not ready: verify"
    assert str(Path.home()) not in done.stdout


@pytest.mark.parametrize(
    ("check", "what", "name", "value"),
    [
        ("extract", "faces found", "DetectorSpec", lambda: SimpleNamespace(detect=lambda *_: [])),
        ("train", "did not change the weights", "learn", lambda run, *rest: doctor.torch.zeros(2)),
        ("convert", "frames came back", "FRAMES", 9),
        ("verify", "does not verify", "ModelRecord", lambda *values: object()),
    ],
)
def test_each_check_can_fail(monkeypatch, check, what, name, value):
    if name == "FRAMES":  # a decoder that drops a frame
        read = doctor.reader.read_video
        monkeypatch.setattr(doctor.reader, "read_video", lambda path: list(read(path))[1:])
    elif name == "ModelRecord":
        found = doctor.read
        monkeypatch.setattr(doctor, "read", lambda path: replace(found(path), intact=False))
    else:
        monkeypatch.setattr(doctor, name, value)

    result = doctor._run(check, doctor.CHECKS[check])

    assert not result.ok
    assert what in result.message


def test_missing_weights_and_read_only_folder_are_named(diagnosis, monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    weights = doctor._weights()

    assert not any(weights[name] for name in WEIGHT_FILES)
    failing = replace(diagnosis, weights=weights, folder=doctor._folder(tmp_path / "nowhere"))
    assert "writing into the folder" in doctor.failed_checks(failing)
    assert f"the weights {WEIGHT_FILES[0]}" in doctor.failed_checks(failing)


def test_every_software_encoder_is_tried(diagnosis):
    assert set(diagnosis.encoders) >= set(codecs.SOFTWARE.values())

"""The doctor tries each stage, and says so where one does not work."""

import importlib.util
from pathlib import Path

import pytest
from click.testing import CliRunner

from faceswap.cli import doctor, main
from faceswap.errors import InputError, NotReadyError
from faceswap.faces.dlib_backend import WEIGHT_FILES
from faceswap.media import codecs
from tests.support.commands import checked


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    return doctor.run_checks(tmp_path_factory.mktemp("here"))


def test_all_is_well_here(facts):
    assert facts["ok"], facts
    assert [check["name"] for check in facts["checks"]] == ["extract", "train", "convert", "verify"]
    assert facts["folder"]["writable"]
    assert facts["encoders"]["libx264"]
    assert facts["libraries"]["torch"]
    assert doctor.status(facts) is None
    assert "train: works" in "\n".join(doctor.in_words(facts))


def test_what_does_not_work_is_named_and_has_a_code_of_its_own(monkeypatch, tmp_path):
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
        ("extract", "faces found", "detect_hog", lambda photo, score: []),
        ("train", "changes nothing", "learn", lambda run, *rest: doctor.torch.zeros(2)),
        ("convert", "frames came back", "FRAMES", 9),
        ("verify", "does not verify", "ModelRecord", lambda *values: object()),
    ],
)
def test_each_trial_can_fail(monkeypatch, check, what, name, value):
    if name == "FRAMES":  # a decoder that loses one
        read = doctor.reader.read_video
        monkeypatch.setattr(doctor.reader, "read_video", lambda path: list(read(path))[1:])
    elif name == "ModelRecord":
        from dataclasses import replace

        found = doctor.read
        monkeypatch.setattr(doctor, "read", lambda path: replace(found(path), intact=False))
    else:
        monkeypatch.setattr(doctor, name, value)

    result = doctor._tried(check, doctor.CHECKS[check])

    assert not result["ok"]
    assert what in result["message"]


def test_missing_weights_and_a_folder_that_cannot_be_written(facts, monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    weights = doctor._weights()

    assert not any(weights[name] for name in WEIGHT_FILES)
    sick = facts | {"weights": weights, "folder": doctor._folder(tmp_path / "nowhere")}
    assert "writing into the folder" in doctor.failed_checks(sick)
    assert f"the weights {WEIGHT_FILES[0]}" in doctor.failed_checks(sick)


def test_every_encoder_that_may_be_used_is_tried(facts):
    assert set(facts["encoders"]) >= set(codecs.SOFTWARE.values())

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from faceswap.cli import main, options, progress
from faceswap.config import TrainConfig
from faceswap.errors import InputError, SettingsError
from faceswap.models import modelfile
from faceswap.types import Progress
from tests.support.commands import faceswap, one_line_error


def test_the_three_commands_work_as_typed(tmp_path, collins, hopper):
    random = np.random.default_rng(0)
    for name, photo in (("collins", collins), ("hopper", hopper)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(25):
            top, left = random.integers(0, 12, 2)
            view = photo[top : 330 + top, 60 + left : 420 + left]
            Image.fromarray(view).save(tmp_path / "data" / name / f"{number}.jpg")
    Image.fromarray(collins).save(tmp_path / "photo.jpg")

    done = faceswap("extract", "data/collins", cwd=tmp_path)
    assert "25 images read, 25 faces in data/collins/faces (found by " in done.stdout
    faceswap("extract", "data/hopper", cwd=tmp_path)
    done = faceswap("train", "--a", "collins", "--b", "hopper", "--steps", 2, "--batch-size", 4,
                    "--device", "cpu", cwd=tmp_path)  # fmt: skip
    assert "models/collins-hopper: step 2" in done.stdout
    done = faceswap("convert", "photo.jpg", cwd=tmp_path)
    assert "model: models/collins-hopper" in done.stdout
    assert (tmp_path / "photo.swapped.jpg").is_file()


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["extract", "nowhere"], 3, "nowhere does not exist"),
        (["extract", "words.mp4", "-o", "x"], 3, "words.mp4 is not a video"),
        (["extract", "walls"], 4, "no face found in 1 image of"),
        (["train", "--a", "x", "--b", "y"], 3, "data/x/faces contains no faceset"),
        (["train", "--a", "x", "--b", "y", "--batch-size", "0"], 7, "batch_size must be from 1"),
        (["convert", "walls/wall.png"], 5, "no model in models"),
        (["convert", "walls/wall.png", "--model", "nowhere"], 5, "nowhere does not exist"),
        (["import-checkpoint", "words.mp4", "models/x"], 5, "cannot be read as a checkpoint"),
        (["train", "--a", "x", "--b", "y", "--config", "words.mp4"], 7, "not JSON"),
    ],
)
def test_bad_input_is_one_line_and_a_code_of_its_own(tmp_path, args, code, words):
    (tmp_path / "walls").mkdir()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "walls" / "wall.png")
    (tmp_path / "words.mp4").write_text("words")

    assert words in one_line_error(faceswap(*args, cwd=tmp_path, code=code))


def test_an_unknown_model_name_is_a_usage_error(tmp_path):
    done = faceswap("train", "--a", "x", "--b", "y", "--model", "huge", cwd=tmp_path, code=2)

    assert "'huge' is not one of 'auto', 'original', 'small'" in done.stderr


def test_a_bug_keeps_its_traceback(tmp_path):
    code = (
        "import sys; from faceswap.cli import main\nfrom faceswap.facesets import extractor\n"
        "def broken(*args): raise ZeroDivisionError\n"
        "extractor.extract = broken\n"
        "sys.argv = ['faceswap', 'extract', 'x']; main.main()"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


def test_a_name_means_a_faceset_below_data_and_a_path_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "trump" / "faces").mkdir(parents=True)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "faces.jsonl").touch()

    assert main.faces_folder("trump") == Path("data/trump/faces")
    assert main.faces_folder("data/trump") == Path("data/trump/faces")
    assert main.faces_folder("data/trump/faces") == Path("data/trump/faces")
    assert main.faces_folder("set") == Path("set")
    assert main.faces_folder("nobody") == Path("data/nobody/faces")


def test_bare_name_means_a_model_in_models(tmp_path, monkeypatch):
    for folder in ("models/trump-cage", "models/both", "both"):
        (tmp_path / folder).mkdir(parents=True)

    assert modelfile.named(Path("both"), tmp_path) == tmp_path / "both"
    monkeypatch.chdir(tmp_path)
    assert modelfile.named(Path("trump-cage")) == Path("models/trump-cage")
    assert modelfile.named(Path("both")) == Path("both")
    assert modelfile.named(Path("nothing")) == Path("nothing")
    assert modelfile.named(Path("models/trump-cage")) == Path("models/trump-cage")


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path):
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"train": {"batch_size": 8, "seed": 3}, "names": ["a", "b"]}))

    settings = options.resolve(TrainConfig, "train", path, {"seed": 5, "steps": None})

    assert settings == TrainConfig(batch_size=8, seed=5)


def test_a_bad_settings_file_is_named(tmp_path):
    path = tmp_path / "run.json"
    path.write_text('{"speed": 9}')

    with pytest.raises(SettingsError, match=r"run\.json: unknown setting speed"):
        options.resolve(TrainConfig, "train", path, {})
    with pytest.raises(InputError, match="cannot be read"):
        options.resolve(TrainConfig, "train", tmp_path / "no.json", {})


def test_piped_progress_is_plain_lines(capsys, monkeypatch):
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)

    with progress.reporting() as on_progress:
        on_progress(Progress(10, 40, "frames", "3 faces"))
        on_progress(Progress(40, 40, "frames", "9 faces"))

    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("10 of 40 frames, ")
    assert lines[0].endswith("3 faces")
    assert lines[-1].startswith("40 of 40 frames, ")
    assert "\r" not in "".join(lines)


def test_work_that_runs_over_has_nothing_left(capsys):
    with progress.reporting() as on_progress:
        on_progress(Progress(1.0, 2, "minutes"))
        on_progress(Progress(2.1, 2, "minutes"))

    assert "2.1 of 2 minutes" in (line := capsys.readouterr().err.splitlines()[-1])
    assert ", 0 s left" in line


def test_time_left_is_not_told_from_a_few_items(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    with progress.reporting() as on_progress:
        on_progress(Progress(0, 100, "images"))
        for now[0], done in ((20.0, 2), (28.0, 10), (40.0, 11)):
            on_progress(Progress(done, 100, "images"))

    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",", 1)[1].strip() for line in lines] == [
        "0.1/s", "0.357/s, 252 s left", "0.275/s, 324 s left",
    ]  # fmt: skip


def test_time_limited_work_shows_steps_per_second(capsys, monkeypatch):
    times = iter([0.0, 0.0, *[10.0] * 9])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(times))

    with progress.reporting() as on_progress:
        on_progress(Progress(0.0, 2, "minutes", "step 0", 0))
        on_progress(Progress(0.5, 2, "minutes", "step 72", 72))

    line = capsys.readouterr().err.splitlines()[-1]
    assert line == "0.5 of 2 minutes, 7.2 steps/s, 90 s left  step 72"


def test_another_kind_of_work_is_counted_again(capsys, monkeypatch):
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 3600.0)

    with progress.reporting() as on_progress:
        for done in (1, 54):
            on_progress(Progress(done, 54, "faces", "embedded"))
        for done in (0, 7):
            on_progress(Progress(done, 9, "steps"))

    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("54 of 54 faces, ")
    assert second.startswith("7 of 9 steps, ")


def test_help_shows_the_example_commands_line_by_line():
    shown = CliRunner().invoke(main.cli, ["--help"]).output

    assert (
        """
  faceswap extract data/trump            find and align the faces of one person
  faceswap review                        choose faces, train and review in a browser
  faceswap train --a trump --b cage      train a model on both faces
  faceswap convert video.mp4             put b's face onto a's footage
  faceswap run jobs.toml                 convert many files with their own settings
  faceswap verify video.swapped.mp4      show how it was made, and whether it changed
  faceswap demo                          try everything on public-domain photos
"""
        in shown
    )


def test_words_that_python_keeps_are_flags_all_the_same():
    context = main.cli.commands["convert"].make_context("convert", ["x", "--all", "--not", "y.jpg"])

    assert (context.params["all_faces"], context.params["exclude"]) == (True, ("y.jpg",))


def test_version():
    import faceswap as package

    assert package.__version__ in CliRunner().invoke(main.cli, ["--version"]).output

"""With --json each command prints one object that matches its schema, also for errors."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from faceswap.cli import demo, main, output, text
from faceswap.cli.output import to_jsonable
from faceswap.errors import InputError
from faceswap.media.segments import SegmentStore, Unfinished, folder_for, unfinished
from faceswap.models import autoencoder, classic, modelfile
from faceswap.models.architectures import PRESETS
from faceswap.swapping.report import ConvertReport
from faceswap.swapping.troubles import Trouble
from scripts.tools.schemas import schemas
from tests.support.clips import make_clip
from tests.support.commands import SCHEMAS, checked


def json_of(command, *args):
    """Run a command with --json and return its object, validated by its schema."""
    runner = CliRunner()
    words = [command, *map(str, args), "--json"]
    done = runner.invoke(main.cli, words, catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return checked(command, done.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, collins):
    path = tmp_path_factory.mktemp("json")
    Image.fromarray(collins).save(path / "x.png")
    return path


@pytest.fixture(scope="module")
def trained(folder, faceset_folders):
    a, b = faceset_folders
    facts = json_of("train", "--a", a, "--b", b, "-o", folder / "m", "--steps", 1,
                    "--model", "small", "--batch-size", 2, "--device", "cpu",
                    "--consent-a", "yes")  # fmt: skip
    assert (facts["step"], facts["consent"]["a"], facts["batch_size"]) == (1, "yes", 2)
    return folder / "m"


def test_schemas_are_up_to_date():
    for command, schema in schemas().items():
        written = json.loads((SCHEMAS / f"{command}.json").read_text())
        assert written == schema, "run scripts/tools/schemas.py"


def test_every_command_has_a_schema():
    files = {path.stem for path in SCHEMAS.glob("*.json")}
    commands = {name: each for name, each in main.cli.commands.items() if name != "review"}
    assert files == {*commands, "report"}  # report describes a file; review serves pages
    for command in commands.values():
        assert "--json" in [option for parameter in command.params for option in parameter.opts]


def test_extract(folder):
    facts = json_of("extract", folder / "x.png", "-o", folder / "faces", "--detector", "hog")

    assert (facts["faces"], facts["unreadable"]) == (1, [])


def test_convert_and_verify(folder, trained):
    args = [folder / "x.png", "--model", trained, "--device", "cpu"]
    facts = json_of("convert", *args)
    assert (facts["faces"], facts["model"]) == (1, str(trained))

    (file,) = json_of("verify", facts["output"])["files"]
    assert file["intact"]
    assert file["model"]["notes"][0] == "consent of collins: yes"


def test_convert_preview(folder, trained):
    clip = make_clip(folder / "in.mp4")
    args = ["--model", trained, "--preview", 2, "--device", "cpu", "-o", folder / "p.png"]

    assert json_of("convert", clip, *args)["with_face"] == 0


def test_evaluate(folder, trained, faceset_folders):
    a, b = faceset_folders
    facts = json_of("evaluate", trained, "--a", a, "--b", b, "--faces", 1,
                 "--save-json", folder / "numbers.json")  # fmt: skip

    assert json.loads((folder / "numbers.json").read_text()) == facts


def test_info(folder, trained, faceset_folders):
    clip = make_clip(folder / "clip.mp4")
    paths = [trained, faceset_folders[0], folder / "x.png", clip]

    assert [json_of("info", path)["kind"] for path in paths] == [
        "model",
        "faceset",
        "photo",
        "video",
    ]


def test_import_checkpoint(folder, monkeypatch):
    trained = modelfile.TrainedModel(autoencoder.build(PRESETS["small"]), ("a", "b"), (0, 0, 0), 7)
    monkeypatch.setattr(classic, "import_checkpoint", lambda source, target: trained)

    assert json_of("import-checkpoint", "x.t7", folder / "old")["epoch"] == 7


def test_demo(folder, monkeypatch):
    stages = [("1/1 nothing", lambda on_progress: None)]
    monkeypatch.setattr(demo, "stages", lambda output, minutes: iter(stages))

    assert json_of("demo", "-o", folder / "demo")["video"] == str(
        folder / "demo" / "clip.swapped.mp4"
    )


@pytest.mark.parametrize(
    ("args", "kind", "code"),
    [
        (["extract", "nowhere"], "InputError", 3),
        (["train", "--a", "x"], "UsageError", 2),
        (["convert", "wall.png"], "ModelError", 5),
        (["verify", "wall.png"], "NoCredentialsError", 10),
        (["info", "."], "InputError", 3),
    ],
)
def test_errors_are_printed_as_json(tmp_path, args, kind, code):
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "wall.png")

    done = subprocess.run(
        [sys.executable, "-m", "faceswap", *args, "--json"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip

    error = checked(args[0], done.stdout)["error"]
    assert (error["kind"], error["exit_code"], done.returncode) == (kind, code, code)
    assert error["message"] in done.stderr
    assert "Traceback" not in done.stderr


def test_bug_is_printed_as_json_with_its_traceback(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["faceswap", "info", "x", "--json"])
    with pytest.raises(ZeroDivisionError), output.error_boundary():
        raise ZeroDivisionError("oh")

    assert checked("info", capsys.readouterr().out)["error"]["kind"] == "ZeroDivisionError"


def test_argument_after_double_dash_is_a_file(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["faceswap", "verify", "--", "--json"])

    assert not output.wants_json()


STOPPED = Unfinished(Path("y"), Path("x.mp4"), Path("clip.mp4"), 1, 9, "2026-01-01T00:00:00+00:00")


@pytest.mark.parametrize("number", [0, 1, 2])
def test_counts_are_grammatical(number):
    report = ConvertReport(Path("x.mp4"), frames=number, faces=number, without_face=number,
                           not_swapped={"smaller": number}, report=Path("x.report.json"),
                           unfinished=[STOPPED])  # fmt: skip
    plural = "" if number == 1 else "s"

    first, left_out, where, kept = text.conversion(report)

    assert first.startswith(
        f"x.mp4: {number} frame{plural}, {number} face{plural} swapped, {number} frame{plural} "
    )
    assert left_out.startswith(f"not swapped: {number} face{plural} smaller")
    assert where == "every frame: x.report.json"
    assert kept.startswith("kept: 1 frame of another, unfinished conversion to the same output; ")
    assert kept.endswith("faceswap info x.mp4 --discard")


def test_worst_troubles_are_named():
    runs = [("lost face", 3, 5), ("sudden jump", 7, 7), ("low score", 8, 9), ("no face", 20, 30)]
    troubles = [Trouble(kind, first, last, 1.0) for kind, first, last in runs]
    report = ConvertReport(Path("x.mp4"), report=Path("x.report.json"), troubles=troubles)

    assert text.conversion(report)[-1] == (
        "look at: lost face in frames 3-5, sudden jump in frame 7, low score in frames 8-9 and 1 "
        "more; every frame: x.report.json"
    )


def test_info_lists_conversions_that_can_go_on_and_discards_them(tmp_path, capsys, monkeypatch):
    for name in ("a.mp4", "b.mp4"):
        store = SegmentStore(folder_for(tmp_path / name, {}), tmp_path / name, Path("clip.mp4"))
        store.path("video", 0).write_bytes(b"part")
        store.add({"times": [0, 1], "last": 1, "rotation": 0, "delays": {"video": 0},
                   "records": [None, None]})  # fmt: skip
        store.close(keep=True)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["faceswap", "info", *map(str, arguments), "--json"])
        code = 0
        try:
            main.main()
        except SystemExit as stop:
            code = stop.code
        return code, checked("info", capsys.readouterr().out)

    code, found = run(tmp_path)
    assert (code, found["kind"]) == (0, "unfinished")
    assert [Path(each["output"]).name for each in found["conversions"]] == ["a.mp4", "b.mp4"]
    assert {each["frames"] for each in found["conversions"]} == {2}
    code, gone = run(tmp_path / "a.mp4", "--discard")
    assert (code, gone["kind"], len(gone["conversions"])) == (0, "discarded", 1)
    assert [kept.output.name for kept in unfinished(tmp_path)] == ["b.mp4"]
    code, none = run(tmp_path / "a.mp4", "--discard")
    assert (code, none["error"]["kind"]) == (3, "InputError")


@pytest.mark.parametrize("answer", ["y", "n"])
def test_convert_asks_on_a_terminal_before_it_replaces(tmp_path, monkeypatch, answer):
    clip = make_clip(tmp_path / "x.mp4", audio=0)
    (tmp_path / "x.swapped.mp4").write_bytes(b"ten hours")
    monkeypatch.setattr(main, "_is_terminal", lambda: True)
    settings = []
    monkeypatch.setattr(
        "faceswap.swapping.converter.convert",
        lambda *args: settings.append(args[3]) or ConvertReport(Path("x"), report=Path("y")),
    )

    result = CliRunner().invoke(
        main.cli, ["convert", str(clip), "--model", "m"], input=f"{answer}\n"
    )

    assert "x.swapped.mp4 exists already; replace it? [y/N]" in result.output
    if answer == "y":
        assert settings[0].overwrite
        assert result.exit_code == 0
    else:
        assert not settings
        assert "x.swapped.mp4 is kept" in str(result.exception)


@pytest.mark.parametrize("option", ["--save-json", "--html"])
def test_evaluate_asks_before_it_replaces(tmp_path, monkeypatch, option):
    kept = tmp_path / "numbers"
    kept.write_text("last week's numbers")
    args = ["evaluate", "m", "--a", "x", "--b", "y", option, str(kept)]
    asked = []

    def evaluate(*args, **_):
        asked.append(args[3].overwrite)
        raise InputError("measuring")

    monkeypatch.setattr("faceswap.evaluation.evaluator.evaluate", evaluate)

    refused = CliRunner().invoke(main.cli, args)
    CliRunner().invoke(main.cli, [*args, "--overwrite"])
    monkeypatch.setattr(main, "_is_terminal", lambda: True)
    no = CliRunner().invoke(main.cli, args, input="n\n")
    yes = CliRunner().invoke(main.cli, args, input="y\n")

    assert "numbers exists already; pass --overwrite to replace it" in str(refused.exception)
    assert "numbers exists already; replace it? [y/N]" in no.output
    assert "numbers is kept; pass another file" in str(no.exception)
    assert str(yes.exception) == "measuring"
    assert asked == [True, True]
    assert kept.read_text() == "last week's numbers"


def test_nan_is_printed_as_null():
    assert to_jsonable({"x": (float("nan"), 1.5, Path("y"))}) == {"x": [None, 1.5, "y"]}


HOSTILE = "\x1b[2J\x1b]0;x\x07\r\n  signed by: BBC (trusted)\u202e\x9b\udcff"


def test_hostile_text_cannot_leave_its_line(capsys):
    output.show(False, {}, [f"model: {HOSTILE} größer ☃"])
    output.echo_err(f"no {HOSTILE}")

    out, err = capsys.readouterr()
    escaped = r"\x1b[2J\x1b]0;x\x07\r\n  signed by: BBC (trusted)\u202e\x9b\udcff"
    assert out == f"model: {escaped} größer ☃\n"
    assert err == f"no {escaped}\n"


def test_verify_escapes_control_characters_of_a_manifest(tmp_path, capsys):
    import dataclasses

    from faceswap.provenance.credentials import FileCredentials, ModelRecord, Parent
    from faceswap.provenance.watermark import WatermarkCheck
    from faceswap.swapping.verification import Verification

    found = FileCredentials(
        True, False, HOSTILE, HOSTILE, HOSTILE, False, HOSTILE, (HOSTILE,),
        Parent(HOSTILE, "", HOSTILE, "none"),
        ModelRecord(HOSTILE, HOSTILE, (HOSTILE, "one\ntwo")), HOSTILE, HOSTILE, True, (HOSTILE,),
        file=str(tmp_path / "x.jpg"), watermark=WatermarkCheck(found=False, reason=HOSTILE),
    )  # fmt: skip
    assert len(dataclasses.fields(found)) == 16

    output.show(False, {}, text.verification(Verification([found])))

    lines = capsys.readouterr().out.splitlines()
    assert "".join(lines).isprintable()
    assert [line for line in lines if line.startswith("  signed by: BBC")] == []
    assert lines.count("    note: one") == lines.count("    note: two") == 1


def run(command, **streams):
    line = f"{sys.executable} -m faceswap {command}"
    return subprocess.run(["/bin/sh", "-c", line], check=False, text=True, cwd=SCHEMAS.parents[1],
                          stderr=subprocess.PIPE, **streams)  # fmt: skip


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize(
    ("command", "code"),
    [("info docs/none", 3), ("info --json docs/none", 3), ("info PHOTO", 6),
     ("info --json PHOTO", 6), ("verify --json PHOTO", 6)],
)  # fmt: skip
@pytest.mark.slow
def test_full_standard_output_is_a_one_line_error(folder, command, code):
    with Path("/dev/full").open("w") as full:
        done = run(command.replace("PHOTO", str(folder / "x.png")), stdout=full)

    assert done.returncode == code, done.stderr
    assert [line[:17] for line in done.stderr.splitlines()] == ["faceswap: error: "]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("where", ["2>&-", "2>/dev/full"])
@pytest.mark.slow
def test_work_continues_if_standard_error_is_closed_or_full(folder, where):
    name = {"2>&-": "closed", "2>/dev/full": "full"}[where]
    command = f"extract {folder / 'x.png'} -o {folder / name} --detector hog --json {where}"

    done = run(command, stdout=subprocess.PIPE)

    assert done.returncode == 0
    assert json.loads(done.stdout)["faces"] == 1
    assert run(f"info docs/none {where}", stdout=subprocess.PIPE).returncode == 3


@pytest.mark.parametrize(
    "command",
    ["info LONG", "info --json LONG", "extract LONG", "extract PHOTO -o LONG",
     "train --a LONG --b x", "convert LONG --model x", "import-checkpoint LONG x",
     "evaluate LONG --a x --b y"],
)  # fmt: skip
def test_too_long_name_is_a_one_line_error(folder, command):
    words = command.replace("LONG", "x" * 300).replace("PHOTO", str(folder / "x.png"))

    done = run(words, stdout=subprocess.PIPE)

    assert done.returncode == 3, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("faceswap: error: ")
    assert "File name too long" in line
    if "--json" in command:
        assert json.loads(done.stdout)["error"]["kind"] == "InputError"


def test_too_long_name_does_not_stop_verify(folder):
    done = run(f"verify {'x' * 300}.png {folder / 'x.png'}", stdout=subprocess.PIPE)

    assert done.returncode == 10
    lines = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert [line.rpartition(" ")[2] for line in lines] == ["long", "Credentials"]

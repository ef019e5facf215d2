"""Several sources are converted one after the other, and nothing is done twice."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceswap.config import ConvertConfig
from faceswap.errors import InputError, OutputError, SettingsError
from faceswap.models import modelfile
from faceswap.swapping.batch import Job, convert_all, jobs_of, read_jobs
from tests.support.clips import write_lossless
from tests.support.commands import checked, faceswap
from tests.support.stops import Stopped, is_check

QUICK = ConvertConfig(workers=1, device="cpu", detector="hog")


@pytest.fixture
def project(tmp_path, collins, model):
    """Write a clip, an image sequence, a folder of photos, a broken file, and a jobs file."""
    folder = tmp_path / "project"
    for name in ("shots", "photos"):
        (folder / name).mkdir(parents=True)
    for number in range(3):
        moved = Image.fromarray(np.roll(collins, 3 * number, axis=1))
        moved.save(folder / f"shots/shot.{number + 1:04d}.png")
    Image.fromarray(collins).save(folder / "photos/one.png")
    Image.fromarray(collins).resize((200, 200)).save(folder / "photos/two.jpg")
    images = [np.roll(collins, 3 * number, axis=1) for number in range(3)]
    write_lossless(folder / "clip.mkv", images * 2, rate=25)
    (folder / "broken.mp4").write_bytes((folder / "clip.mkv").read_bytes()[:300])
    (folder / "models").mkdir()
    (folder / "models/m").symlink_to(model)
    (folder / "jobs.toml").write_text(
        """
        model = "m"
        settings = { workers = 1, device = "cpu", detector = "hog", codec = "ffv1" }
        [[job]]
        inputs = ["clip.mkv", "broken.mp4"]
        output = "out"
        settings = { end = "0.1" }
        [[job]]
        inputs = "shots"
        [[job]]
        inputs = "photos"
        output = "new/photos"
        """
    )
    return folder


def test_jobs_file_is_read_with_its_defaults(tmp_path):
    path = tmp_path / "jobs.toml"
    path.write_text(
        """
        model = "deep/model"
        settings = { quality = 20, who = ["who.png"], label = "x", label_font = "font.ttf" }
        [[job]]
        inputs = ["a.mp4", "/b.mov"]
        output = "out"
        [[job]]
        inputs = "c.mp4"
        model = "other"
        settings = { quality = 30, cast = "cast.toml", who = [], label_font = "DejaVu Sans" }
        """
    )
    (tmp_path / "font.ttf").touch()

    first, second, third = read_jobs(path)

    everything = frozenset(vars(ConvertConfig()))
    shared = ConvertConfig(
        quality=20, who=(str(tmp_path / "who.png"),), label="x",
        label_font=str(tmp_path / "font.ttf"),
    )  # fmt: skip
    assert first == Job(
        tmp_path / "a.mp4", tmp_path / "out/a.mp4", tmp_path / "deep/model", shared, tmp_path,
        everything,
    )  # fmt: skip
    assert second.source == Path("/b.mov")
    assert second.output == tmp_path / "out/b.mov"
    assert third == Job(
        tmp_path / "c.mp4", None, tmp_path / "other",
        ConvertConfig(
            quality=30, cast=str(tmp_path / "cast.toml"), label="x", label_font="DejaVu Sans"
        ),
        tmp_path, frozenset({"label"}),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"jobs.toml has no \[\[job\]\] table"),
        ("job = 3", r"has no \[\[job\]\] table"),
        ("job = [3]", r"job 1: must be a \[\[job\]\] table, not 3"),
        ("x = [", "is not TOML"),
        ("threads = 3\n[[job]]\ninputs = 'a'", "unknown key threads; known keys: output, model"),
        ("[[job]]\ninput = 'a'", "job 1: unknown key input; known keys: inputs, output"),
        ("[[job]]", "job 1: inputs must be a source or a list of sources, not None"),
        ("[[job]]\ninputs = ['a', '']", "job 1: inputs must be a source"),
        ("[[job]]\ninputs = 'a'\noutput = 3", "job 1: output must be a path, not 3"),
        ("[[job]]\ninputs = 'a'\nsettings = 3", "job 1: settings must be a table, not 3"),
        ("[[job]]\ninputs = 'a'\n[[job]]\ninputs = 'b'\nsettings = { qualty = 3 }",
         "job 2: unknown setting qualty"),
        ("[[job]]\ninputs = 'a'\nsettings = { who = 3 }", "job 1: who must be a tuple"),
    ],
)  # fmt: skip
def test_wrong_jobs_file_is_refused(tmp_path, text, message):
    path = tmp_path / "jobs.toml"
    path.write_text(text)

    with pytest.raises(SettingsError, match=message):
        read_jobs(path)


def test_missing_jobs_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"jobs file .* cannot be read: No such file"):
        read_jobs(tmp_path / "jobs.toml")


@pytest.mark.parametrize("name", ["x.mp4", "file"])
def test_several_sources_need_a_folder(tmp_path, name):
    (tmp_path / "file").touch()

    with pytest.raises(OutputError, match=f"{name} is not a folder; 2 sources are converted into"):
        jobs_of([Path("a.mp4"), Path("b.mp4")], tmp_path / name, None, QUICK)


def test_each_source_is_converted_once(project, monkeypatch):
    loaded, begun = [], []
    load = modelfile.load
    monkeypatch.setattr(modelfile, "load", lambda *args: loaded.append(1) or load(*args))
    jobs = read_jobs(project / "jobs.toml")

    reports = list(convert_all(jobs, on_job=lambda job: begun.append(job.source.name)))

    assert begun == ["clip.mkv", "broken.mp4", "shots", "photos"]
    assert [report.state for report in reports] == ["done", "failed", "done", "done"]
    assert reports[1].error.exit_code == 3
    assert "broken.mp4" in reports[1].error.message
    assert [r.result.frames for r in reports if r.result] == [3, 3, 2]
    assert loaded == [1]
    outputs = ["out/clip.swapped.mkv", "shots.swapped/shot.0002.png", "new/photos/two.jpg"]
    times = [(project / name).stat().st_mtime_ns for name in outputs]

    again = list(convert_all(read_jobs(project / "jobs.toml")))

    assert [one.state for one in again] == ["done before", "failed", "done before", "done before"]
    assert [r.result.faces for r in again if r.result] == [3, 3, 2]
    assert times == [(project / name).stat().st_mtime_ns for name in outputs]


def test_what_another_conversion_made_is_not_replaced(project):
    job = Job(project / "photos", None, project / "models/m", QUICK)
    list(convert_all([job]))
    other = replace(job, config=replace(QUICK, to="a"))

    (refused,) = convert_all([other])
    (replaced,) = convert_all([replace(other, config=replace(other.config, overwrite=True))])

    assert refused.state == "failed"
    assert "photos.swapped exists already; pass --overwrite" in refused.error.message
    assert replaced.state == "done"
    assert [report.state for report in convert_all([other])] == ["done before"]


def test_a_missing_output_or_report_is_made_again(project):
    job = Job(project / "photos/one.png", None, project / "models/m", replace(QUICK, matte=True))
    list(convert_all([job]))

    (project / "photos/one.swapped.matte.png").unlink()
    (refused,) = convert_all([job])
    (project / "photos/one.swapped.png").unlink()
    (made,) = convert_all([job])
    (project / "photos/one.swapped.report.json").write_text("{")
    (unknown,) = convert_all([job])

    assert [r.state for r in (refused, made, unknown)] == ["failed", "done", "failed"]


def test_stopped_jobs_go_on(project):
    jobs = [replace(job, config=replace(job.config, end=None) if job.source.name == "clip.mkv"
                    else job.config) for job in read_jobs(project / "jobs.toml")]  # fmt: skip
    frames = iter([None] * 8)  # 6 frames of the clip and 2 of the sequence

    def stop(event):
        if not is_check(event) and next(frames, event):
            raise Stopped

    with pytest.raises(Stopped):
        list(convert_all(jobs, stop))

    states = [report.state for report in convert_all(jobs)]

    assert states == ["done before", "failed", "done", "done"]


def test_outputs_must_differ(project):
    with pytest.raises(OutputError, match=r"clip.mkv and .*clip.mkv would both be written to"):
        list(convert_all([Job(project / "clip.mkv", None, None, QUICK)] * 2))


def test_shared_settings_apply_where_they_can(project):
    photos = jobs_of([project / "photos", project / "shots"], None, None, QUICK)
    useless = [replace(job, config=replace(QUICK, quality=20)) for job in photos]

    with pytest.raises(SettingsError, match="quality applies to none of the sources, only to a"):
        list(convert_all(useless))
    with pytest.raises(SettingsError, match="quality applies to none"):
        list(convert_all([replace(job, shared=frozenset({"quality"})) for job in useless]))


@pytest.mark.slow
def test_commands_print_each_job(project):
    done = faceswap("run", "jobs.toml", "--json", cwd=project, code=3)
    found = checked("run", done.stdout)

    assert [job["state"] for job in found["jobs"]] == ["done", "failed", "done", "done"]
    assert found["error"] == {
        "kind": "InputError", "message": "1 of 4 sources could not be converted", "exit_code": 3,
    }  # fmt: skip
    options = ["--model", "m", "--detector", "hog", "--device", "cpu"]
    done = faceswap(
        "convert", "photos/one.png", "photos/two.jpg", "-o", "some", *options, cwd=project
    )
    assert "[2/2] photos/two.jpg\nsome/two.swapped.jpg: 1 frame, 1 face swapped" in done.stdout
    assert done.stdout.endswith("2 sources: 2 done\n")
    assert sorted(path.name for path in (project / "some").iterdir()) == [
        "one.swapped.png", "one.swapped.report.json",
        "two.swapped.jpg", "two.swapped.report.json",
    ]  # fmt: skip
    refused = faceswap("convert", "a", "b", "--preview", "3", cwd=project, code=2)
    assert "--preview, --redo and --shard take one source at a time" in refused.stderr

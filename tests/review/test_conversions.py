"""Try settings on a frame in a real browser, choose for people and shots, and convert the clip."""

import io
import json
import os
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from faceswap.config import ConvertConfig
from faceswap.errors import InputError, ModelError, NoFacesError, SettingsError
from faceswap.facesets.recognition import embedding_of
from faceswap.media.reader import read_video
from faceswap.models.modelfile import load_model
from faceswap.review.conversion import survey
from faceswap.review.conversion.previewer import Loop, Portrait, Previewer, Still
from faceswap.review.conversion.previews import PreviewError, Previews
from faceswap.review.conversion.surveys import FOLDER, Surveys
from faceswap.review.jobs import Jobs
from faceswap.review.workspace import Workspace
from faceswap.swapping.batch import read_jobs
from faceswap.swapping.converter import convert
from faceswap.swapping.shots import Shot, read_shots
from faceswap.swapping.swapper import Swapper
from tests.review.browser import opened
from tests.review.conftest import at, until
from tests.support.clips import write_lossless

LENGTH = 6
EVERYBODY = {"detector": "hog", "all_faces": True}


@pytest.fixture
def clip(workspace, together, model):
    """A clip of two people and a model in the workspace."""
    target = workspace / "models" / "ada-bob"
    target.mkdir(parents=True)
    for name in ("model.safetensors", "metrics.jsonl"):
        (target / name).write_bytes((model / name).read_bytes())
    images = [np.roll(together, 3 * number, axis=1) for number in range(LENGTH)]
    return write_lossless(workspace / "clip.mkv", images)


@pytest.fixture
def about(clip, workspace):
    """What every request says."""
    return {
        "clip": str(clip),
        "model": str(workspace / "models" / "ada-bob"),
        "settings": EVERYBODY,
    }


def as_image(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def close(one, other):
    """Whether two images differ no more than by a JPEG's loss."""
    return np.abs(one.astype(int) - other).mean() < 4


def differs(one, other):
    """Whether a place of two images differs by more than a JPEG's loss."""
    return np.abs(one.astype(int) - other).max() > 60


def middle(box):
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def test_outputs_are_no_clips(workspace, clip):
    (workspace / "clip.swapped.mkv").write_bytes(clip.read_bytes())
    (workspace / "clip.swapped.report.json").write_text("{}")
    (workspace / ".hidden.mkv").write_bytes(clip.read_bytes())

    assert [place.name for place in Workspace(workspace).clips()] == ["clip.mkv"]


@pytest.mark.slow
def test_still_is_what_the_swapper_makes(about, workspace, together):
    previewer = Previewer()

    answer, (jpeg,) = previewer.answer(Still(**about, frame=0))

    trained = load_model(workspace / "models" / "ada-bob")
    wanted = Swapper(trained, ConvertConfig(detector="hog")).swap(together)
    assert [face["target"] for face in answer.faces] == [0, 0]
    assert answer.sizes == [len(jpeg)]
    assert close(as_image(jpeg), wanted)
    assert differs(as_image(jpeg), together)
    about["settings"] = EVERYBODY | {"color": "none"}
    _, (other,) = previewer.answer(Still(**about, frame=0))
    assert (as_image(other) != as_image(jpeg)).any()


@pytest.mark.slow
def test_still_follows_the_shots_file(about, workspace):
    path = workspace / "shots.toml"
    path.write_text('[[shot]]\nframes = "2-3"\ncolor = "none"\n')
    previewer = Previewer()
    usual = [previewer.answer(Still(**about, frame=at))[1][0] for at in (1, 2)]
    about["settings"] = EVERYBODY | {"color": "none"}
    plain = previewer.answer(Still(**about, frame=2))[1][0]

    about["settings"] = EVERYBODY | {"shots": str(path)}
    found = [previewer.answer(Still(**about, frame=at))[1][0] for at in (1, 2)]

    assert found[0] == usual[0]
    assert found[1] != usual[1]
    assert found[1] == plain


@pytest.mark.slow
def test_loop_is_what_convert_makes(about, clip, workspace):
    config = replace(ConvertConfig(**EVERYBODY), codec="ffv1", workers=1, device="cpu")
    report = convert(clip, model=workspace / "models" / "ada-bob", config=config)
    wanted = [frame.image for frame in read_video(report.output)]

    answer, images = Previewer().answer(Loop(**about, first=0, count=LENGTH))

    assert answer.sizes == [len(data) for data in images]
    assert len(images) == LENGTH
    for data, frame in zip(images, wanted, strict=True):
        found = as_image(data).astype(int)
        assert np.abs(found - frame).mean() < 3  # a JPEG's loss and the watermark
    _, some = Previewer().answer(Loop(**about, first=LENGTH - 2, count=10))
    assert len(some) == 2


@pytest.mark.slow
def test_portrait_shows_one_person_and_knows_the_cast(about, workspace, together, tmp_path):
    previewer = Previewer()
    answer, _ = previewer.answer(Still(**about, frame=0))
    faces = sorted((face["box"] for face in answer.faces), key=lambda box: box[0])
    photos = []
    for number, box in enumerate(faces):
        x, y = middle(box)
        told, (png,) = previewer.answer(Portrait(**about, frame=0, x=x, y=y))
        assert told.target is None
        photos.append(tmp_path / f"{number}.png")
        photos[-1].write_bytes(png)
    one, other = map(embedding_of, photos)
    assert np.linalg.norm(one - other) > 0.6  # two people
    (workspace / "cast.toml").write_text(
        f'[[swap]]\nwho = "{photos[0]}"\n\n[[swap]]\nwho = "{photos[1]}"\nto = "a"\n'
    )
    about["settings"] = {"detector": "hog", "cast": str(workspace / "cast.toml")}

    for number, box in enumerate(faces):
        x, y = middle(box)
        told, _ = previewer.answer(Portrait(**about, frame=3, x=x + 9, y=y))
        assert told.target == number
    answer, _ = previewer.answer(Still(**about, frame=0))
    assert sorted(face["target"] for face in answer.faces) == [0, 1]
    (workspace / "cast.toml").write_text(f'[[swap]]\nwho = "{photos[1]}"\n')
    answer, _ = previewer.answer(Still(**about, frame=0))
    assert sorted((face["target"] is None, face["why"]) for face in answer.faces) == [
        (False, ""), (True, "not chosen"),
    ]  # fmt: skip
    with pytest.raises(NoFacesError, match="no face at this place"):
        previewer.answer(Portrait(**about, frame=0, x=1, y=1))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"settings": {"color": "melt"}}, SettingsError, "melt"),
        ({"settings": {"melt": 1}}, SettingsError, "unknown setting melt"),
        ({"settings": {"cast": "none.toml"}}, InputError, "none.toml is gone"),
        ({"frame": 99}, InputError, "has no frame 99"),
        ({"model": "clip.mkv"}, (ModelError, InputError), "."),
    ],
    ids=["value", "name", "cast", "frame", "model"],
)
def test_what_cannot_be_previewed_is_named(about, changes, error, words):
    with pytest.raises(error, match=words):
        Previewer().answer(Still(**(about | {"frame": 0} | changes)))


@pytest.mark.slow
def test_process_of_previews_is_started_again_if_it_dies(about):
    previews = Previews()
    try:
        with pytest.raises(PreviewError, match="has no frame 99"):
            previews.ask(about | {"what": "still", "frame": 99})
        previews._process.kill()
        previews._process.wait()
        with pytest.raises(PreviewError, match="has no frame 98"):  # by a new process
            previews.ask(about | {"what": "still", "frame": 98})
    finally:
        previews.close()


@pytest.fixture
def film(workspace, collins, hopper):
    """Three shots: Collins, Hopper, and Collins mirrored and darker."""
    size = (512, 512)
    others = [cv2.resize(hopper[:512], size), np.ascontiguousarray(collins[:, ::-1] // 2)]
    images = [collins] * 10 + [others[0]] * 15 + [others[1]] * 5
    return write_lossless(workspace / "film.mkv", images)


def test_survey_finds_shots_and_people(film, capsys):
    found = survey.survey(film)

    assert found.shots == [(0, 9), (10, 24), (25, 29)]
    assert len(found.people) == 2
    seen = [{found.looks[place] for place in person.looks} for person in found.people]
    collins = [numbers for numbers in seen if any(number < 10 for number in numbers)]
    assert collins == [numbers for numbers in seen if any(number > 24 for number in numbers)]
    for person, numbers in zip(found.people, seen, strict=True):
        assert person.frame in numbers
        assert 0 < person.x < 512
        assert 0 < person.y < 512
    shares = [float(line) for line in capsys.readouterr().out.split()]
    assert shares == sorted(shares)
    assert shares[-1] > 0.8


@pytest.mark.slow
def test_survey_is_kept_until_the_clip_changes(film, workspace):
    surveys = Surveys(workspace)
    places = Workspace(workspace)
    (place,) = places.clips()
    try:
        assert "done" in surveys.of(place)
        found = until(lambda: (now := surveys.of(place)).get("shots") and now)
        assert found["shots"] == [[0, 9], [10, 24], [25, 29]]
        kept = workspace / FOLDER / f"{place.id}.json"
        assert Surveys(workspace).of(place) == found  # by another server, at once
        kept.write_bytes(b"{")
        again = until(lambda: (now := surveys.of(place)).get("shots") and now)
        assert again == found
        original = film.read_bytes()
        film.write_bytes(b"no film")
        told = until(lambda: surveys.of(place).get("error"))
        assert "film.mkv" in told
        state = film.stat()
        film.write_bytes(original[: len(b"no film")].ljust(state.st_size))
        os.utime(film, ns=(state.st_atime_ns, state.st_mtime_ns))  # as if nothing had changed
        assert surveys.of(place).get("error") == told
        surveys.forget(place)
        assert "done" in surveys.of(place)
    finally:
        surveys.close()


def wait_shown(page):
    page.wait_for_selector("[data-state=busy]", state="detached")
    page.wait_for_selector("[data-state=shown]")


@pytest.mark.browser
@pytest.mark.slow
def test_settings_people_and_shots_are_chosen_and_converted(server, clip, workspace, together):
    jobs = workspace / "clip.mkv.jobs.toml"
    with opened(server.address) as page:
        page.set_default_timeout(180_000)
        page.click("nav a >> text=Conversion")
        page.click(".cards a >> text=clip.mkv")
        page.wait_for_selector("[data-ready]")
        page.check("[name=all_faces]")
        wait_shown(page)
        assert page.locator("#told").inner_text().startswith("2 of 2 faces swapped")
        usual = at(page, "#picture")
        assert differs(usual, together)
        page.keyboard.press("z")
        assert close(at(page, "#picture"), together)
        page.keyboard.press("a")
        page.select_option("[name=color]", "average")
        wait_shown(page)
        assert (at(page, "#picture") != usual).any()
        assert "average" in jobs.read_text()
        page.wait_for_selector("[data-survey=done]")
        assert page.locator("#people li").count() == 2
        page.locator("label", has=page.locator("[name=scope][value=shot]")).click()
        page.select_option("[name=mask]", "hull")
        wait_shown(page)
        assert read_shots(workspace / "clip.mkv.shots.toml") == [
            Shot(f"0-{LENGTH - 1}", {"mask": "hull"})
        ]
        box = page.locator("#lanes").bounding_box()
        page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 9)
        page.keyboard.down("Shift")
        page.mouse.down()
        page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 9, steps=4)
        page.mouse.up()
        page.keyboard.up("Shift")
        assert page.inner_text("#shot") == "Frames 1-3"
        page.select_option("[name=blend]", "linear")
        wait_shown(page)
        assert read_shots(workspace / "clip.mkv.shots.toml") == [
            Shot(f"0-{LENGTH - 1}", {"mask": "hull"}), Shot("1-3", {"blend": "linear"})
        ]  # fmt: skip
        page.click("#usual")
        page.mouse.click(box["x"] + 1, box["y"] + 9)  # it is chosen no more
        wait_shown(page)
        assert page.inner_text("#shot") == f"Shot 1: 0-{LENGTH - 1}"
        page.click("#faces button >> nth=0")
        page.wait_for_selector("#cast li")
        wait_shown(page)
        assert page.locator("#told").inner_text().startswith("1 of 2 faces swapped (not chosen)")
        page.click("#loop")
        page.wait_for_selector("[data-state=playing]")
        page.reload()
        page.wait_for_selector("[data-ready]")
        assert page.locator("#cast li").count() == 1
        assert page.input_value("[name=color]") == "average"
        page.click("button >> text=Convert")
        page.locator(".job.done", has_text="convert clip.mkv").wait_for()
        page.click("nav a >> text=Conversion")
        page.click(".cards a >> text=clip.mkv")
        page.wait_for_selector("[data-ready]")
        page.click("button >> text=Convert")
        page.locator("#replace", has_text="clip.swapped.mkv exists already").wait_for()
        assert "write clip.swapped-2.mkv" in page.inner_text("#replace [value=keep]")
        page.click("button >> text=Cancel")
        page.click("#cast button >> text=Remove")
        page.locator("#cast li").wait_for(state="detached")
        wait_shown(page)
        page.click("nav a >> text=Review")
        page.locator(".cards a", has_text="clip.swapped").wait_for()
    report = json.loads((workspace / "clip.swapped.report.json").read_text())
    assert report["settings"]["color"] == "average"
    assert report["shots"] == [{"frames": f"0-{LENGTH - 1}", "settings": {"mask": "hull"}}]
    assert report["faces"] == {"swapped": LENGTH, "not chosen": LENGTH}
    assert not (workspace / "clip.mkv.cast.toml").exists()
    assert "cast" not in jobs.read_text()


def test_both_outputs_are_kept_if_asked(server, clip, workspace):
    (place,), (model,) = Workspace(workspace).clips(), Workspace(workspace).trained()
    address, jobs = f"/conversion/{place.id}/start", workspace / "clip.mkv.jobs.toml"
    usual = workspace / "clip.swapped.mkv"
    usual.write_bytes(b"mine")
    (workspace / "clip.swapped-2.mkv").write_bytes(b"mine, too")

    asked = server.json(address, method="POST", body={"model": model.id})
    kept = server.json(address, method="POST", body={"model": model.id, "existing": "keep"})

    assert asked == {"exists": "clip.swapped.mkv", "free": "clip.swapped-3.mkv"}
    assert "job" in kept
    (job,) = read_jobs(jobs)
    assert job.output == workspace / "clip.swapped-3.mkv"
    until(lambda: Jobs(workspace).job(kept["job"]).state not in ("running", "waiting"))
    assert usual.read_bytes() == b"mine"


def test_start_time_is_not_spent_on_torch():
    code = "import sys, faceswap.review.app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

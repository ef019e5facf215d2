"""Start a training in a real browser, follow it, stop it; read its curves and advice."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceswap.review import training
from faceswap.review.jobs import Jobs
from faceswap.review.workspace import id_of
from tests.review.browser import opened
from tests.review.conftest import until


def metrics(scores, every=60.0):
    """Lines of metrics with a loss and these held-out scores, one a minute."""
    lines = []
    for number, score in enumerate(scores):
        place = {"step": number * 100, "seconds": number * every}
        lines.append(place | {"loss_a": 1 / (number + 1), "loss_b": 0.5})
        names = ("ssim_a", "ssim_b", "sharp_a", "sharp_b")
        margins = {f"{name}_margin": 0.02 for name in names}
        lines.append(place | dict.fromkeys(names, score) | margins)
    return lines


def test_advice_names_scores_that_are_flat():
    rising = [0.5 + number / 100 for number in range(20)]

    assert training.advice(metrics(rising)) == []
    assert training.advice(metrics(rising + [rising[-1] + 0.001] * 12)) == [
        "The held-out sharpness has been flat for 12 minutes.",
        "The held-out likeness to the photos has been flat for 12 minutes.",
        "More training gains little: stop it, and convert a preview.",
    ]
    assert training.advice(metrics(rising + [rising[-1]] * 4)) == []  # too short to tell
    assert training.advice([]) == []
    assert training.advice([{"step": 1, "sharp_a": "x"}]) == []


def test_long_curves_are_thinned_and_keep_their_end(tmp_path):
    lines = metrics(np.linspace(0.4, 0.8, 5000).tolist(), every=1.0)
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))

    found = training.progress(tmp_path)

    assert found["step"] == 499_900
    assert training.MOST_POINTS <= len(found["series"]["ssim_a"]) < 2 * training.MOST_POINTS
    assert found["series"]["ssim_a"][-1] == (round(4999 / 60, 3), 0.8)


@pytest.fixture
def trained(workspace):
    folder = workspace / "models" / "ada-bob"
    (folder / "previews").mkdir(parents=True)
    lines = metrics([0.4, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6])
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    for step, level in ((100, 50), (900, 200)):
        image = Image.fromarray(np.full((40, 60, 3), level, np.uint8))
        image.save(folder / "previews" / f"step-{step:09d}.png")
    return folder


def test_training_runs_as_long_as_it_writes_numbers(trained):
    assert training.is_running(trained)
    before = time.time() - 60

    os.utime(trained / "metrics.jsonl", (before, before))

    assert not training.is_running(trained)
    assert not training.is_running(trained / "nowhere")


def test_models_are_trained_on_for_minutes_more(workspace, server, trained):
    (trained / "config.json").write_text('{"names": ["ada", "bob"]}')
    asked = server.json(
        f"/training/{id_of(Path('models', 'ada-bob'))}", method="POST", body={"minutes": 2}
    )
    job = Jobs(workspace).job(asked["job"])
    until(lambda: Jobs(workspace).job(asked["job"]).state not in ("running", "waiting"))

    assert job.command.args == [
        "train", "--a", "./data/ada/faces", "--b", "./data/bob/faces", "--model", "auto",
        "--output", "./models/ada-bob", "--minutes", "11",
    ]  # fmt: skip
    assert job.command.title == "train models/ada-bob for 2 minutes"


def test_models_of_unknown_people_are_not_trained_on(server, trained):
    status, _, body = server.ask(
        f"/training/{id_of(Path('models', 'ada-bob'))}", "POST", {"minutes": 2}
    )
    assert status == 409
    assert b"facesets that this model was trained on are not here" in body


def test_page_tells_what_the_newest_job_warned_of(workspace, server, trained):
    name = id_of(Path("models", "ada-bob"))
    folder = workspace / ".faceswap" / "jobs" / "20260101-000000-abcdef"
    folder.mkdir(parents=True)
    about = {"title": "x", "args": ["train"], "about": f"training/{name}"}
    (folder / "job.json").write_text(json.dumps(about))
    (folder / "log.txt").write_text("faceswap: warning: too few faces\n1 of 3 minutes, x\n")
    (folder / "end.json").write_text('{"exit_code": 0}')

    found = server.json(f"/training/{name}/progress")

    assert found["warnings"] == ["too few faces"]
    assert found["running"] is False  # although its numbers are new
    assert found["job"] is None


@pytest.mark.browser
def test_page_shows_curves_previews_and_advice(server, trained):
    with opened(server.address) as page:
        page.click("nav a >> text=Training")
        page.click(".cards a >> text=models/ada-bob")
        page.wait_for_selector("[data-ready]")
        assert page.locator("#state").inner_text().startswith("step 900, 9 minutes")
        assert "sharpness has been flat for 7 minutes" in page.locator("#advice").inner_text()
        assert "loss a 0.100" in page.locator("#loss-legend").inner_text()
        assert "SSIM a 0.600 \u00b1 0.020" in page.locator("#scores-legend").inner_text()
        drawn = page.eval_on_selector(
            "#scores", "c => c.getContext('2d').getImageData(0, 0, 1000, 420).data.some(x => x)"
        )  # fmt: skip
        assert drawn
        assert page.input_value("#before") == "100"
        assert page.input_value("#after") == "900"
        page.locator("#line").focus()
        page.keyboard.press("Home")
        assert page.eval_on_selector("#left", "i => i.style.clipPath") == "inset(0px 100% 0px 0px)"
        assert "ada, ada as painted" not in page.inner_text("#previews p")  # it has no names
        assert page.is_visible("#more")
        Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(
            trained / "previews" / "step-000001000.png"
        )
        page.locator("#after option", has_text="1000").wait_for(state="attached")
        assert page.input_value("#after") == "1000"  # it follows the newest


@pytest.mark.browser
@pytest.mark.slow
def test_training_is_started_stopped_and_resumed(server, workspace):
    # bob has too few faces, so lend him ada's
    for path in (workspace / "data" / "bob" / "faces").iterdir():
        path.unlink()
    for path in (workspace / "data" / "ada" / "faces").iterdir():
        (workspace / "data" / "bob" / "faces" / path.name).write_bytes(path.read_bytes())
    folder = workspace / "models" / "ada-bob"
    with opened(server.address) as page:
        page.click("nav a >> text=Training")
        page.select_option("[name=model]", "small")
        page.fill("[name=minutes]", "")
        page.click("button >> text=Train")
        job = page.locator(".job.running")
        job.wait_for()
        assert "train models/ada-bob" in job.inner_text()
        deadline = time.monotonic() + 120
        while not (folder / "metrics.jsonl").exists():
            assert time.monotonic() < deadline, page.locator("#jobs").inner_text()
            page.wait_for_timeout(200)
        page.click("button >> text=Stop")
        page.locator(".job.stopped").wait_for(timeout=180_000)
        before = len((folder / "metrics.jsonl").read_text())
        page.click("button >> text=Run again")
        page.locator(".job.running").wait_for()
        while len((folder / "metrics.jsonl").read_text()) <= before:
            assert time.monotonic() < deadline + 60, page.locator("#jobs").inner_text()
            page.wait_for_timeout(200)
        page.goto(f"http://127.0.0.1:{server.port}/facesets")  # the page is closed, the job goes on
        page.wait_for_timeout(500)
        page.click("nav a >> text=Jobs")
        page.locator(".job.running").wait_for()
        page.locator(".job.running progress[value]").wait_for(timeout=120_000)
        page.click(".job.running a")  # leads to the training
        page.locator("#job progress[value]").wait_for()
        page.click("#stop")
        page.locator("#job[hidden]").wait_for(state="attached", timeout=180_000)
        page.click("nav a >> text=Jobs")
        page.locator(".job.stopped").wait_for()
    assert (folder / "model.safetensors").is_file()


def test_same_person_twice_is_refused(server):
    faceset = server.faceset("ada").rpartition("/")[2]

    status, _, body = server.ask("/training", "POST", {"a": faceset, "b": faceset})

    assert (status, json.loads(body)["error"]) == (
        409, "a and b are the same faceset; choose two people",
    )  # fmt: skip

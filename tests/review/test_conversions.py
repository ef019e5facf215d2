"""Try settings on a frame in a real browser, and convert the clip with them."""

import io

import numpy as np
import pytest
from PIL import Image

from faceswap.config import ConvertConfig
from faceswap.errors import InputError, ModelError, SettingsError
from faceswap.models.modelfile import load_model
from faceswap.review import footage
from faceswap.review.footage import Look
from faceswap.review.previewer import Previewer, Request
from faceswap.review.workspace import Place, Workspace
from faceswap.swapping.swapper import Swapper
from tests.review.browser import opened
from tests.review.conftest import at
from tests.support.clips import write_lossless

LENGTH = 5


@pytest.fixture
def clip(workspace, together, model):
    """A clip and a model in the workspace."""
    target = workspace / "models" / "ada-bob"
    target.mkdir(parents=True)
    for name in ("model.safetensors", "metrics.jsonl"):
        (target / name).write_bytes((model / name).read_bytes())
    images = [np.roll(together, 3 * number, axis=1) for number in range(LENGTH)]
    return write_lossless(workspace / "clip.mkv", images)


def as_image(jpeg):
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))


def close(one, other):
    """Whether two images differ no more than by a JPEG's loss."""
    return np.abs(one.astype(int) - other).mean() < 4


def differs(one, other):
    """Whether a place of two images differs by more than a JPEG's loss."""
    return np.abs(one.astype(int) - other).max() > 60


def test_usual_settings_need_no_options():
    place = Place("1", "clip.mkv", None)
    model = Place("2", "models/ada-bob", None)

    assert footage.settings_of(Look()) == {}
    assert footage.arguments(place, model, Look()) == [
        "convert", "./clip.mkv", "--model", "./models/ada-bob",
    ]  # fmt: skip


def test_every_setting_becomes_its_option():
    from faceswap.cli.main import cli

    look = Look(
        color="linear", mask="hull", blend="poisson", identity_strength=0.5, expression_range=2.0,
        erosion=0.05, feather=0.1, match_detail=False, all_faces=True, to="a",
    )  # fmt: skip

    args = footage.arguments(Place("1", "clip.mkv", None), Place("2", "m", None), look)

    assert args[4:] == [
        "--color", "linear", "--mask", "hull", "--blend", "poisson", "--likeness", "0.5",
        "--expression-range", "2", "--erosion", "0.05", "--feather", "0.1", "--no-match-detail",
        "--all", "--to", "a",
    ]  # fmt: skip
    cli.commands["convert"].make_context("convert", args[1:])  # the command line takes them
    assert ConvertConfig(**footage.settings_of(look)).color == "linear"


def test_outputs_are_no_clips(workspace, clip):
    (workspace / "clip.swapped.mkv").write_bytes(clip.read_bytes())
    (workspace / "clip.swapped.report.json").write_text("{}")
    (workspace / ".hidden.mkv").write_bytes(clip.read_bytes())

    assert [place.name for place in Workspace(workspace).clips()] == ["clip.mkv"]


def test_preview_is_what_the_swapper_makes(clip, workspace, together):
    asked = Request(str(clip), str(workspace / "models" / "ada-bob"), 0, {"detector": "hog"})
    previewer = Previewer()

    jpeg, faces = previewer.preview(asked)

    trained = load_model(workspace / "models" / "ada-bob")
    wanted = Swapper(trained, ConvertConfig(detector="hog")).swap(together)
    assert faces == 2
    assert close(as_image(jpeg), wanted)
    assert differs(as_image(jpeg), together)
    other, _ = previewer.preview(
        Request(asked.clip, asked.model, 0, {"detector": "hog", "color": "none"})
    )
    assert (as_image(other) != as_image(jpeg)).any()


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"settings": {"color": "melt"}}, SettingsError, "melt"),
        ({"settings": {"melt": 1}}, SettingsError, "no such setting"),
        ({"frame": 99}, InputError, "has no frame 99"),
        ({"model": "clip.mkv"}, (ModelError, OSError), "."),
    ],
    ids=["value", "name", "frame", "model"],
)
def test_what_cannot_be_previewed_is_named(clip, workspace, changes, error, words):
    values = {
        "clip": str(clip), "model": str(workspace / "models" / "ada-bob"), "frame": 0,
        "settings": {},
    } | changes  # fmt: skip

    with pytest.raises(error, match=words):
        Previewer().preview(Request(**values))


def test_process_of_previews_is_started_again_if_it_dies(server, clip, workspace):
    from faceswap.review.conversions import PreviewError, Previews

    previews = Previews()
    places = Workspace(workspace)
    (place,), (model,) = places.clips(), places.models()
    try:
        with pytest.raises(PreviewError, match="has no frame 99"):
            previews.preview(place, model, 99, {})
        previews._process.kill()
        previews._process.wait()
        with pytest.raises(PreviewError, match="has no frame 98"):  # by a new process
            previews.preview(place, model, 98, {})
    finally:
        previews.close()


@pytest.mark.browser
@pytest.mark.slow
def test_settings_are_tried_and_used(server, clip, workspace, together):
    with opened(server.address) as page:
        page.set_default_timeout(180_000)
        page.click("nav a >> text=Conversion")
        page.click(".cards a >> text=clip.mkv")
        page.wait_for_selector("[data-ready]")
        page.wait_for_selector("[data-state=shown]")
        assert page.locator("#told").inner_text().startswith("2 faces, all swapped here")
        usual = at(page, "#picture")
        assert differs(usual, together)
        page.keyboard.press("z")
        assert close(at(page, "#picture"), together)
        page.keyboard.press("a")
        page.select_option("[name=color]", "none")
        page.wait_for_selector("[data-state=busy]", state="detached")
        page.wait_for_selector("[data-state=shown]")
        assert (at(page, "#picture") != usual).any()
        page.check("[name=all_faces]")
        page.click("button >> text=Convert")
        page.locator(".job.done", has_text="convert clip.mkv").wait_for()
        job = page.locator(".job").inner_text()
        assert "convert clip.mkv" in job
        page.click("nav a >> text=Review")
        page.locator(".cards a", has_text="clip.swapped").wait_for()
    report = (workspace / "clip.swapped.report.json").read_text()
    assert '"color": "none"' in report
    assert '"all_faces": true' in report

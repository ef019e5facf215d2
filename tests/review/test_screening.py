"""Look at a finished conversion in a real browser, mark frames, and render those again."""

import json

import numpy as np
import pytest

from faceswap.cli.main import cli
from faceswap.config import ConvertConfig
from faceswap.errors import InputError
from faceswap.media.reader import read_video
from faceswap.media.views import view_of
from faceswap.review.finished import Finished, RedoRequest
from faceswap.review.footage import Reader
from faceswap.review.workspace import Workspace
from faceswap.swapping.converter import convert
from faceswap.swapping.turnover import package
from tests.review.browser import opened
from tests.review.conftest import at, until
from tests.support.clips import write_lossless
from tests.support.films import write_exr

LENGTH = 10


@pytest.fixture(scope="module")
def converted(together, model, tmp_path_factory):
    """A workspace with a clip, whose first two frames show nobody, and its output."""
    root = tmp_path_factory.mktemp("converted")
    images = [np.roll(together, 3 * number, axis=1) for number in range(LENGTH)]
    images[:2] = [np.full_like(together, 90)] * 2
    clip = write_lossless(root / "clip.mkv", images)
    settings = ConvertConfig(
        workers=1, device="cpu", detector="hog", smooth=False, match_detail=False, codec="ffv1",
        all_faces=True,
    )  # fmt: skip
    convert(clip, model=model, config=settings)
    return root


@pytest.fixture
def shown(workspace, converted):
    """The output in the workspace of the server."""
    for path in converted.iterdir():
        (workspace / path.name).write_bytes(path.read_bytes())
    return workspace / "clip.swapped.mkv"


@pytest.fixture
def finished(shown, workspace):
    return Finished(workspace / "clip.swapped.report.json", Workspace(workspace))


@pytest.fixture
def page(server, shown):
    with opened(f"{server.address}".replace("/?", "/review?")) as found:
        found.click(".cards a >> text=clip.swapped")
        found.wait_for_selector("[data-ready]")
        yield found


def pixels(path):
    return [frame.image for frame in read_video(path)]


def test_frames_are_those_of_both_videos_in_any_order(finished, shown):
    before, after = pixels(finished.source), pixels(shown)

    for place in (0, 5, 6, 2, 9, 0):
        np.testing.assert_array_equal(finished.image(place, "before"), before[place])
        np.testing.assert_array_equal(finished.image(place, "after"), after[place])
    for place in (-1, LENGTH):
        with pytest.raises(InputError, match="no frame"):
            finished.image(place, "after")


def test_reader_notices_a_video_that_ends_early(finished):
    reader = Reader(finished._footage)

    with pytest.raises(InputError, match=r"clip\.mkv has no frame 10"):
        reader.frame(LENGTH)
    assert reader.frame(3).shape == finished.image(3, "before").shape


def test_original_outside_the_workspace_is_not_shown(workspace, shown):
    clip = workspace / "clip.mkv"
    clip.rename(workspace.parent / "clip.mkv")
    report = workspace / "clip.swapped.report.json"
    values = json.loads(report.read_text())
    report.write_text(json.dumps(values | {"source": str(workspace.parent / "clip.mkv")}))

    found = Finished(report, Workspace(workspace))

    assert not found.facts()["hasSource"]
    found.image(3, "after")
    with pytest.raises(InputError, match="the original is not in the workspace"):
        found.image(3, "before")


def test_output_that_the_report_names_elsewhere_is_not_read(workspace, shown):
    report = workspace / "clip.swapped.report.json"
    values = json.loads(report.read_text())
    (workspace.parent / "secret.mkv").write_bytes(shown.read_bytes())
    report.write_text(json.dumps(values | {"output": "../secret.mkv"}))

    found = Finished(report, Workspace(workspace))

    with pytest.raises(InputError, match=r"cannot be read|does not exist"):
        found.image(3, "after")


@pytest.mark.parametrize(
    ("places", "words"),
    [([], ""), ([3], "3"), ([2, 3, 4, 7], "2-4,7"), ([7, 3, 2, 4, 4], "2-4,7"), ([0, 9], "0,9")],
)
def test_marks_are_written_in_the_words_of_redo(finished, workspace, places, words):
    assert finished.mark(places) == sorted(set(places))
    assert (workspace / "clip.swapped.marks.txt").read_text() == f"{words}\n"


@pytest.mark.parametrize("text", ["x", "3-", "3,,4", "-3", "3 4", "1" * 12, "\u0663"])
def test_damaged_marks_are_one_line(finished, workspace, text):
    (workspace / "clip.swapped.marks.txt").write_text(text, encoding="utf-8")

    with pytest.raises(InputError, match=r"marks\.txt (must hold frames|cannot be read)"):
        finished.marks()


def test_marks_that_are_a_link_are_not_written(finished, workspace):
    (workspace.parent / "other").write_text("3\n")
    (workspace / "clip.swapped.marks.txt").symlink_to(workspace.parent / "other")

    with pytest.raises(InputError, match="is a link"):
        finished.mark([4])
    assert (workspace.parent / "other").read_text() == "3\n"


@pytest.mark.browser
def test_frames_are_stepped_through_and_compared(page, shown):
    before, after = pixels(shown.with_name("clip.mkv")), pixels(shown)
    page.keyboard.press("a")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.wait_for_selector("[data-shown='3 after']")
    assert page.locator("#where").inner_text().startswith("frame 3, 0.1")
    assert close(at(page, "#picture"), after[3])
    page.keyboard.press("z")
    page.wait_for_selector("[data-shown='3 before']")
    assert close(at(page, "#picture"), before[3])
    page.keyboard.press("w")
    page.wait_for_selector("[data-shown='3 wipe']")
    drawn, middle = at(page, "#picture"), before[3].shape[1] // 2
    assert close(drawn[:, : middle - 2], before[3][:, : middle - 2])
    assert close(drawn[:, middle + 2 :], after[3][:, middle + 2 :])
    page.keyboard.press("b")
    page.wait_for_selector("[data-shown='3 beside']")
    assert at(page, "#picture").shape[1] == 2 * before[3].shape[1]
    page.keyboard.press("d")
    page.wait_for_selector("[data-shown='3 difference']")
    drawn = at(page, "#picture").astype(int)
    changed = np.abs(before[3].astype(int) - after[3]).max(axis=2) > 40
    assert drawn.max(axis=2)[changed].mean() > 100
    page.keyboard.press("End")
    page.wait_for_selector(f"[data-shown='{LENGTH - 1} difference']")


def close(one, other):
    """Whether two images differ no more than by a JPEG's loss."""
    return np.abs(one.astype(int) - other).mean() < 4


@pytest.mark.browser
def test_problems_are_found_and_marked_by_keys(page, workspace, finished):
    facts = finished.facts()
    (run, *_) = facts["troubles"]
    assert (run["kind"], run["first"], run["last"]) == ("no face", 0, 1)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("p")
    page.wait_for_selector("[data-shown='0 wipe']")
    assert page.locator("#kind").inner_text() == "no face"
    with page.expect_response("**/marks"):
        page.keyboard.press("M")
    assert (workspace / "clip.swapped.marks.txt").read_text() == "0-1\n"
    page.keyboard.press("ArrowRight")
    with page.expect_response("**/marks"):
        page.keyboard.press("m")
    assert (workspace / "clip.swapped.marks.txt").read_text() == "0\n"
    assert page.get_attribute("#export", "href").endswith("/marks.txt")
    with page.expect_response("**/marks"):
        page.click("#clear")
    assert (workspace / "clip.swapped.marks.txt").read_text() == "\n"


@pytest.mark.browser
def test_ranges_are_marked_by_keys_and_by_dragging(page, workspace):
    marks = workspace / "clip.swapped.marks.txt"
    page.keyboard.press("ArrowRight")
    for _ in range(3):  # faster than the server answers
        page.keyboard.press("Shift+ArrowRight")
    until(lambda: marks.exists() and marks.read_text() == "1-4\n")
    box = page.locator("#lanes").bounding_box()
    width, y = box["width"] / LENGTH, box["y"] + 20
    page.keyboard.down("Shift")
    page.mouse.move(box["x"] + 6.5 * width, y)
    page.mouse.down()
    page.mouse.move(box["x"] + 8.5 * width, y, steps=4)
    page.mouse.up()
    page.keyboard.up("Shift")
    until(lambda: marks.read_text() == "1-4,6-8\n")


@pytest.mark.browser
def test_film_is_played(page):
    page.keyboard.press("Space")
    page.wait_for_selector(f"[data-shown='{LENGTH - 1} wipe']")
    page.wait_for_selector("#play[aria-pressed=false]")


def test_redo_takes_every_setting_that_the_page_offers(finished):
    finished.mark([3, 4])

    args = finished.redo_arguments(
        RedoRequest("linear", "learned", "poisson", identity_strength=0.5, expression_range=2.0)
    )

    params = cli.commands["convert"].make_context("convert", args[1:]).params
    assert (params["redo"], params["color"], params["mask"], params["blend"]) == (
        "3-4", "linear", "learned", "poisson",
    )  # fmt: skip
    assert (params["identity_strength"], params["expression_range"]) == (0.5, 2)


def test_a_package_is_shown_in_its_own_colours_and_redone_as_a_package(workspace, collins, model):
    folder, done = workspace / "shot", workspace / "shot_010"
    folder.mkdir()
    for number in (1001, 1002):
        pixels = view_of("ACEScg").stored(collins.astype(np.float32))
        write_exr(folder / f"shot.{number}.exr", pixels, np.float16)
    settings = ConvertConfig(workers=1, device="cpu", detector="hog", colorspace="ACEScg")
    package(folder, done, model, settings)

    finished = Finished(done / "render.report.json", Workspace(workspace))

    before, after = (finished.image(0, side)[300:].astype(int) for side in ("before", "after"))
    assert np.abs(before - collins[300:]).max() <= 1
    assert np.abs(after - before).max() <= 1  # below the face
    finished.mark([1])
    command, *args = finished.redo_arguments(RedoRequest(color="linear"))
    params = cli.commands[command].make_context(command, args).params
    assert (command, params["redo"], params["color"]) == ("package", "1002", "linear")
    assert (params["source"], params["output"]) == (folder, done)


@pytest.mark.browser
@pytest.mark.slow
def test_marked_frames_are_rendered_again(page, shown):
    before = pixels(shown)
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    with page.expect_response("**/marks"):
        page.keyboard.press("m")
    page.select_option("[name=color]", "none")
    page.fill("[name=identity_strength]", "0.5")
    assert page.inner_text("#again") == "Render 1 frame again"
    page.click("#again")
    assert page.inner_text("#sure p").startswith("1 frame will be replaced in clip.swapped")
    page.click("#sure >> text=Cancel")
    page.click("#again")
    page.click("#sure >> text=Replace these frames")
    page.locator(".job.done", has_text="redo frames of clip.swapped.mkv").wait_for(timeout=180_000)

    after = pixels(shown)
    changed = [n for n, (a, b) in enumerate(zip(before, after, strict=True)) if (a != b).any()]
    assert changed == [4]
    report = json.loads(shown.with_name("clip.swapped.report.json").read_text())
    assert report["redone"][0]["changes"] == {
        "color": "none", "identity_strength": 0.5,
    }  # fmt: skip

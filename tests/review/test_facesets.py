"""Curate a faceset in a real browser; its file and what training reads show each edit."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from faceswap.facesets.edits import EDITS
from faceswap.facesets.faceset import Faceset, read_records
from faceswap.files import write_bytes
from tests.review.browser import opened
from tests.review.conftest import FACES, SIZE

pytestmark = pytest.mark.browser


@pytest.fixture
def ada(workspace):
    return workspace / "data" / "ada" / "faces"


@pytest.fixture
def page(server):
    with opened(f"http://127.0.0.1:{server.port}{server.faceset('ada')}?token={server.token}") as p:
        p.wait_for_selector("[data-ready]")
        yield p


def edits(folder):
    path = folder / EDITS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def saved(page, action):
    """Do something that the page sends to the server, and wait until the page shows it."""
    before = int(page.get_attribute(".faceset", "data-edits") or 0)
    action()
    page.wait_for_selector(f".faceset[data-edits='{before + 1}']")


def shown(page):
    """Return the names of the faces in sight, in their order."""
    tiles = page.eval_on_selector_all(
        ".tile", "tiles => tiles.map(t => [t.getBoundingClientRect().top, "
        "t.getBoundingClientRect().left, t.querySelector('img').alt.split(',')[0]])",
    )  # fmt: skip
    return [name for *_, name in sorted(tiles)]


def tile(page, name):
    return page.locator(".tile", has=page.locator(f'img[alt^="{name},"]'))


def test_list_names_all_facesets(server):
    with opened(server.address) as page:
        cards = page.locator(".cards li")
        assert cards.count() == len(FACES)
        assert page.url == f"http://127.0.0.1:{server.port}/facesets"  # without the token
        assert "data/ada/faces" in cards.nth(0).inner_text()
        assert f"{FACES['bob']} faces" in cards.nth(1).inner_text()
        cards.nth(1).locator("a").click()
        page.wait_for_selector("[data-ready]")
        assert page.locator("#count").inner_text() == f"{FACES['bob']} faces"


def test_rejected_face_is_not_trained_on_and_comes_back(page, ada):
    tile(page, "04.jpg").click()
    saved(page, lambda: page.keyboard.press("x"))

    assert [(line["edit"], list(line["faces"])) for line in edits(ada)] == [
        ("reject", ["04.jpg#0-0"])
    ]
    assert len(Faceset.read(ada).keys) == FACES["ada"] - 1
    assert "04.jpg" not in shown(page)
    saved(page, lambda: page.keyboard.press("Control+z"))
    assert len(Faceset.read(ada).keys) == FACES["ada"]
    assert "04.jpg" in shown(page)
    saved(page, lambda: page.keyboard.press("Control+Shift+z"))
    page.select_option("#show", "rejected")
    assert shown(page) == ["04.jpg"]
    tile(page, "04.jpg").click()
    saved(page, lambda: page.click("#restore"))
    assert len(Faceset.read(ada).keys) == FACES["ada"]
    assert [line["edit"] for line in edits(ada)] == ["reject", "undo", "redo", "restore"]


def test_box_selects_the_faces_in_it(page, ada):
    first, last = (tile(page, name).bounding_box() for name in ("01.jpg", "03.jpg"))
    page.mouse.move(first["x"] + first["width"] - 5, first["y"] + 20)
    page.mouse.down()
    page.mouse.move(first["x"] + first["width"] + 20, first["y"] + 30)
    page.mouse.move(last["x"] + 20, last["y"] + 60)
    page.mouse.up()

    assert page.locator("#count").inner_text() == f"3 of {FACES['ada']} faces"
    saved(page, lambda: page.click("#reject"))
    assert sorted(edits(ada)[0]["faces"]) == ["01.jpg#0-0", "02.jpg#0-0", "03.jpg#0-0"]


def test_keys_move_and_select(page, ada):
    tile(page, "00.jpg").click()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    saved(page, lambda: page.keyboard.press("x"))
    assert sorted(edits(ada)[0]["faces"]) == ["01.jpg#0-0", "02.jpg#0-0", "03.jpg#0-0"]
    page.keyboard.press("Control+a")
    assert page.locator("#count").inner_text() == f"{FACES['ada'] - 3} of {FACES['ada'] - 3} faces"
    page.keyboard.press("Escape")
    assert page.locator("#count").inner_text() == f"{FACES['ada'] - 3} faces"
    page.keyboard.press("End")
    assert shown(page)[-1] == f"{FACES['ada'] - 1}.jpg"


@pytest.mark.parametrize(
    ("order", "first"),
    [("sharpness", "00.jpg"), ("-sharpness", f"{FACES['ada'] - 1}.jpg"), ("yaw", "00.jpg")],
)
def test_faces_are_sorted(page, order, first):
    page.select_option("#sort", order)

    assert shown(page)[0] == first


def test_strangers_are_sorted_first_and_are_a_person(page, ada):
    page.wait_for_selector("#person:not([disabled])")
    page.select_option("#sort", "-distance")
    assert set(shown(page)[:3]) == {"00.jpg", "01.jpg", "02.jpg"}
    options = page.locator("#person option").all_inner_texts()
    assert options == ["everybody", f"person 1 ({FACES['ada'] - 3})", "person 2 (3)"]
    page.select_option("#person", "1")
    page.keyboard.press("Tab")
    page.locator("#grid").focus()
    page.keyboard.press("Control+a")
    saved(page, lambda: page.keyboard.press("x"))
    assert Faceset.read(ada).keys[0] != "00.jpg#0-0"
    assert len(Faceset.read(ada).keys) == FACES["ada"] - 3


def test_unknown_faces_come_before_strangers(page, ada):
    lines = (ada / "faces.jsonl").read_text().splitlines()
    record = json.loads(lines[5])
    changed = [*lines[:5], json.dumps(record | {"embedding": None}), *lines[6:]]
    write_bytes(ada / "faces.jsonl", "\n".join([*changed, ""]).encode())  # the page reads it, too
    page.reload()
    page.wait_for_selector("#person:enabled, #person option:nth-child(2)", state="attached")
    page.select_option("#sort", "-distance")
    unknown = page.locator(".tile >> nth=0").get_attribute("id")
    assert page.locator(f"#{unknown} img").get_attribute("alt").startswith(record["source"])


def test_sorting_by_light_and_duplicates_looks_at_the_crops(page, ada):
    path = ada / "000007-0.png"
    darker = io.BytesIO()
    Image.fromarray(np.asarray(Image.open(path)) // 3).save(darker, "PNG")
    write_bytes(path, darker.getvalue())  # whole, as the page may be loading it
    page.reload()
    page.wait_for_selector("[data-ready]")
    with page.expect_response(lambda answer: answer.url.endswith("/looks")):
        page.select_option("#sort", "light")
    page.locator(".tile.cursor img[alt^='07.jpg,']").wait_for()


def test_map_shows_what_the_other_faceset_has_alone(page):
    page.select_option("#other", label="data/bob/faces")
    words = page.locator("#lacks", has_text="Missing")
    words.wait_for()
    wanted = "data/bob/faces: yaw -30° to -15°, pitch 30° to 45° (9 faces there)"
    assert wanted in words.inner_text()
    box = page.locator("#poses").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 5.5 / 12, box["y"] + box["height"] * 4.5 / 8)
    assert page.locator("#count").inner_text() == "15 faces"  # from -15 to 0 degrees


def test_photos_for_the_model_are_chosen(page, ada):
    tile(page, "06.jpg").click()
    saved(page, lambda: page.keyboard.press("e"))
    tile(page, "09.jpg").click()
    saved(page, lambda: page.keyboard.press("e"))

    assert Faceset.read(ada).exemplars == ("06.jpg#0-0", "09.jpg#0-0")
    tile(page, "06.jpg").click()
    saved(page, lambda: page.keyboard.press("e"))
    assert Faceset.read(ada).exemplars == ("09.jpg#0-0",)


def to_screen(page, points):
    """Return where points of the crop are on the screen."""
    box = page.locator("#stage").bounding_box()
    zoom = box["width"] / SIZE
    return [(box["x"] + (x + 0.5) * zoom, box["y"] + (y + 0.5) * zoom) for x, y in points]


def drag(page, start, end):
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*end, steps=4)
    page.mouse.up()


def test_landmark_is_dragged(page, ada, server):
    before = Faceset.read(ada)
    tile(page, "05.jpg").dblclick()
    page.wait_for_selector("dialog[data-face='5']")
    tip = server.json(f"{server.faceset('ada')}/landmarks/5")[30]
    (start,) = to_screen(page, [tip])
    (end,) = to_screen(page, [(tip[0] + 6, tip[1] - 4)])
    drag(page, start, end)
    saved(page, lambda: page.keyboard.press("s"))

    (line,) = edits(ada)
    assert (line["edit"], list(line["faces"])) == ("landmarks", ["05.jpg#0-0"])
    record = list(read_records(ada / "faces.jsonl"))[5]
    scale = np.hypot(*np.array(record["matrix"])[0, :2])
    moved = np.array(line["landmarks"]) - record["landmarks"]
    np.testing.assert_allclose(np.hypot(*moved[30]) * scale, np.hypot(6, 4), atol=0.6)
    assert np.abs(np.delete(moved, 30, axis=0)).max() < 0.05
    after = Faceset.read(ada)
    place = after.keys.index("05.jpg#0-0")
    assert np.abs(after.landmarks[place] - before.landmarks[place]).max() > 3
    assert (after.crops[place] != before.crops[place]).any()  # aligned again
    rest = [n for n in range(len(after.keys)) if n != place]
    np.testing.assert_array_equal(after.crops[rest], before.crops[rest])
    saved(page, lambda: page.click("#reset"))
    np.testing.assert_array_equal(Faceset.read(ada).crops, before.crops)


def test_landmark_is_moved_by_keys(page, ada):
    tile(page, "05.jpg").click()
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[data-face='5']")
    for _ in range(3):
        page.keyboard.press("Tab")
    page.keyboard.press("Shift+ArrowDown")
    saved(page, lambda: page.keyboard.press("s"))

    record = list(read_records(ada / "faces.jsonl"))[5]
    moved = np.abs(np.array(edits(ada)[0]["landmarks"]) - record["landmarks"]).max(axis=1)
    assert np.flatnonzero(moved > 0.1).tolist() == [2]


def test_mask_is_painted_and_erased(page, ada):
    tile(page, "05.jpg").dblclick()
    page.wait_for_selector("dialog[data-face='5']")
    before = Faceset.read(ada).mask(5)
    page.keyboard.press("m")
    drag(page, *to_screen(page, [(4, 4), (40, 4)]))
    page.keyboard.press("n")
    drag(page, *to_screen(page, [(32, 32), (32, 33)]))
    saved(page, lambda: page.keyboard.press("s"))

    (line,) = edits(ada)
    assert (ada / "masks" / line["mask"]).is_file()
    found = Faceset.read(ada)
    place = found.keys.index("05.jpg#0-0")
    after = found.mask(place)
    assert before[4, 20] == 0
    assert after[4, 20] == 255
    assert before[32, 32] == 255
    assert after[32, 32] == 0
    far = np.hypot(*(np.indices(after.shape) - 32)) > 20
    far[:16] = False
    np.testing.assert_array_equal(after[far], before[far])
    page.keyboard.press("Escape")
    saved(page, lambda: page.keyboard.press("Control+z"))
    assert not Faceset.read(ada).masks


def test_editor_says_once_that_something_is_not_saved(page, ada):
    tile(page, "05.jpg").dblclick()
    page.wait_for_selector("dialog[data-face='5']")
    page.keyboard.press("m")
    drag(page, *to_screen(page, [(4, 4), (40, 4)]))

    page.keyboard.press("Escape")
    page.locator("#notice", has_text="this face is not saved yet").wait_for()
    assert page.is_visible("#editor")
    page.click("#editor >> text=Close")
    page.wait_for_selector("#editor", state="hidden")
    assert not edits(ada)


def test_editor_goes_on_to_the_next_face(page):
    tile(page, "05.jpg").dblclick()
    page.wait_for_selector("dialog[data-face='5']")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("dialog[data-face='6']")
    assert page.locator("#editing").inner_text() == "06.jpg#0-0"


def test_error_is_told_in_one_line(server, ada):
    address = f"http://127.0.0.1:{server.port}{server.faceset('ada')}?token={server.token}"
    with opened(address, allowed="404 (Not Found)") as page:
        page.wait_for_selector("[data-ready]")
        tile(page, "05.jpg").click()
        (ada / EDITS).write_text("no JSON\n")
        page.keyboard.press("x")
        page.locator("#notice", has_text="edits.jsonl line 1 is damaged").wait_for()

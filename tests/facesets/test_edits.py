"""Rejected faces stay out, corrections reach training, and every edit can be undone."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceswap.cli.info import inspect
from faceswap.config import COVERAGE
from faceswap.errors import InputError, NoFacesError, SettingsError
from faceswap.faces.geometry import Box, align_face, compose, invert, transform, warp_image
from faceswap.facesets.edits import (
    EDITS,
    Edit,
    append_edit,
    forget,
    read_edits,
    redo,
    undo,
    write_mask,
)
from faceswap.facesets.faceset import Faceset, read_keys, read_records
from faceswap.facesets.writer import FacesetWriter
from faceswap.media.frame import Frame
from faceswap.training.portraits import choose_exemplars

SIZE = 64
BOX = Box(10, 10, 30, 30)
CENTER = (20.0, 20.0)


@pytest.fixture
def faceset(tmp_path, collins, collins_face):
    """A faceset of three photos, and the centre of the face's box."""
    folder = tmp_path / "x" / "faces"
    writer = FacesetWriter(folder, SIZE, COVERAGE, {})
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        photo = Frame(collins, 0, Fraction(0), Path(name))
        writer.add(name, photo, [align_face(photo, collins_face, SIZE, COVERAGE)])
    box = collins_face.box
    return folder, ((box.left + box.right) / 2, (box.top + box.bottom) / 2)


def edits(folder, **boxes):
    return read_edits(folder, {key.replace("_", "#0-"): box for key, box in boxes.items()})


def test_rejected_faces_are_not_read(faceset):
    folder, center = faceset
    append_edit(folder, Edit("reject", {"a.jpg#0-0": center, "c.jpg#0-0": center}))

    assert Faceset.read(folder).keys == ["b.jpg#0-0"]
    assert read_keys(folder) == {"a.jpg#0-0": False, "b.jpg#0-0": True, "c.jpg#0-0": False}
    assert inspect(folder).rejected == 2
    append_edit(folder, Edit("restore", {"c.jpg#0-0": center}))
    assert Faceset.read(folder).keys == ["b.jpg#0-0", "c.jpg#0-0"]


def test_faceset_of_rejected_faces_says_so(faceset):
    folder, center = faceset
    append_edit(folder, Edit("reject", dict.fromkeys(read_keys(folder), center)))

    with pytest.raises(NoFacesError, match=r"no faces \(3 faces rejected\)"):
        Faceset.read(folder)


def test_face_elsewhere_with_the_same_key_is_another_one(faceset):
    folder, center = faceset
    append_edit(folder, Edit("reject", {"a.jpg#0-0": (center[0] + 300, center[1])}))

    assert len(Faceset.read(folder).keys) == 3


def test_undo_and_redo_go_back_and_forth(tmp_path):
    append_edit(tmp_path, Edit("reject", {"a#0-0": CENTER}))
    append_edit(tmp_path, Edit("reject", {"b#0-0": CENTER}))
    boxes = {"a#0-0": BOX, "b#0-0": BOX}

    assert undo(tmp_path).faces == {"b#0-0": CENTER}
    assert read_edits(tmp_path, boxes).rejected == {"a#0-0"}
    assert undo(tmp_path).faces == {"a#0-0": CENTER}
    assert redo(tmp_path).faces == {"a#0-0": CENTER}
    found = read_edits(tmp_path, boxes)
    assert (found.rejected, found.undoable, found.redoable) == ({"a#0-0"}, 1, 1)
    append_edit(tmp_path, Edit("restore", {"a#0-0": CENTER}))  # a new edit ends the redoing
    with pytest.raises(SettingsError, match="no undone edit"):
        redo(tmp_path)
    undo(tmp_path)
    undo(tmp_path)
    with pytest.raises(SettingsError, match="no edit to undo"):
        undo(tmp_path)


def test_edits_of_a_replaced_source_are_void(tmp_path):
    append_edit(tmp_path, Edit("reject", {"a#0-0": CENTER, "b#0-0": CENTER}))
    forget(tmp_path, {"a"})
    append_edit(tmp_path, Edit("reject", {"c#0-0": CENTER}))

    boxes = {"a#0-0": BOX, "b#0-0": BOX, "c#0-0": BOX}
    assert read_edits(tmp_path, boxes).rejected == {"b#0-0", "c#0-0"}
    undo(tmp_path)
    undo(tmp_path)
    redo(tmp_path)
    assert read_edits(tmp_path, boxes).rejected == {"b#0-0"}


def test_nothing_is_written_for_a_faceset_without_edits(tmp_path):
    forget(tmp_path, {"a"})

    assert not (tmp_path / EDITS).exists()


@pytest.mark.parametrize(
    "line",
    [
        "no JSON", '{"edit": "melt"}', '{"edit": "reject", "faces": {"a#0-0": [1]}}',
        '{"edit": "landmarks", "landmarks": [[1, 2]]}', '{"edit": "mask", "mask": "../x.png"}',
        '{"edit": "reject", "faces": {"a#0-0": [1e300, 0]}}', '{"faces": {}}', "[" * 100_000,
    ],
    ids=["text", "kind", "point", "landmarks", "mask", "far", "none", "nested"],
)  # fmt: skip
def test_damaged_line_is_named(tmp_path, line):
    append_edit(tmp_path, Edit("reject", {"a#0-0": CENTER}))
    with (tmp_path / EDITS).open("a") as file:
        file.write(f"{line}\n")

    with pytest.raises(InputError, match=r"edits\.jsonl line 2 is damaged: [^\n]*delete this line"):
        edits(tmp_path, a_0=BOX)


def test_torn_line_of_a_killed_process_is_dropped(tmp_path):
    append_edit(tmp_path, Edit("reject", {"a#0-0": CENTER}))
    with (tmp_path / EDITS).open("a") as file:
        file.write('{"edit":"rest')

    append_edit(tmp_path, Edit("reject", {"b#0-0": CENTER}))

    assert edits(tmp_path, a_0=BOX, b_0=BOX).rejected == {"a#0-0", "b#0-0"}


def test_list_that_is_a_link_is_neither_read_nor_written(tmp_path):
    (tmp_path / "other").write_text("")
    (tmp_path / EDITS).symlink_to(tmp_path / "other")

    with pytest.raises(InputError, match="is a link"):
        append_edit(tmp_path, Edit("reject", {"a#0-0": CENTER}))
    with pytest.raises(InputError, match="is a link"):
        edits(tmp_path, a_0=BOX)
    assert (tmp_path / "other").read_text() == ""


def test_corrected_landmarks_move_the_crop_with_them(faceset, collins, collins_face):
    folder, center = faceset
    moved = collins_face.landmarks + np.float32([12, -7])
    append_edit(folder, Edit("landmarks", {"b.jpg#0-0": center}, landmarks=moved.tolist()))

    found = Faceset.read(folder)

    photo = Frame(collins, 0, Fraction(0), Path("b.jpg"))
    from dataclasses import replace

    wanted = align_face(photo, replace(collins_face, landmarks=moved), SIZE, COVERAGE)
    np.testing.assert_allclose(
        found.landmarks[1], transform(moved, wanted.matrix), atol=0.02
    )  # and thus where those of a well-aligned face are
    stored = np.asarray(Image.open(folder / "000001-0.png").convert("RGB"))
    record = list(read_records(folder / "faces.jsonl"))[1]
    move = compose(wanted.matrix, invert(np.array(record["matrix"])))
    crop = found.crops[1].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(crop, warp_image(stored, move, SIZE, SIZE), atol=1)
    middle = slice(SIZE // 4, -SIZE // 4)  # what the stored crop shows, too
    errors = np.abs(crop.astype(float) - wanted.image)[middle, middle]
    assert errors.mean() < 4
    assert np.abs(stored.astype(float) - wanted.image)[middle, middle].mean() > 3 * errors.mean()
    np.testing.assert_array_equal(found.crops[0], found.crops[2])
    append_edit(folder, Edit("landmarks", {"b.jpg#0-0": center}))
    np.testing.assert_array_equal(Faceset.read(folder).crops[1], found.crops[0])


def test_landmarks_that_coincide_are_refused(faceset):
    folder, center = faceset
    append_edit(folder, Edit("landmarks", {"a.jpg#0-0": center}, landmarks=[(5.0, 5.0)] * 68))

    with pytest.raises(InputError, match=r"000000-0\.png cannot be corrected"):
        Faceset.read(folder)


def test_painted_mask_takes_the_place_of_the_outline(faceset):
    from faceswap.models.architectures import PRESETS
    from faceswap.training.data import _with_masks

    folder, center = faceset
    painted = np.zeros((SIZE, SIZE), np.uint8)
    painted[20:40, 10:30] = 255
    append_edit(folder, Edit("mask", {"b.jpg#0-0": center}, mask=write_mask(folder, painted)))

    preset = next(config for config in PRESETS.values() if config.mask_head)
    masks = _with_masks(Faceset.read(folder), preset)[:, 3].numpy()

    np.testing.assert_array_equal(masks[1], painted)
    assert masks[0].any()
    assert (masks[0] != painted).any()
    half = Faceset.read(folder, SIZE // 2).mask(1)
    np.testing.assert_array_equal(half, painted[::2, ::2])


def test_missing_and_damaged_masks_are_named(faceset):
    folder, center = faceset
    name = write_mask(folder, np.zeros((SIZE, SIZE), np.uint8))
    append_edit(folder, Edit("mask", {"b.jpg#0-0": center}, mask=name))

    (folder / "masks" / name).write_bytes(b"no image")
    with pytest.raises(InputError, match=f"{name} is damaged"):
        Faceset.read(folder)
    (folder / "masks" / name).unlink()
    with pytest.raises(InputError, match=f"{name} cannot be read: No such file"):
        Faceset.read(folder)


def test_chosen_photos_are_kept_by_the_model(faceset_folders, tmp_path):

    from faceswap.models.architectures import PRESETS

    faceset = Faceset.read(faceset_folders[0])
    _, keys = choose_exemplars(faceset, PRESETS["small"], 4)
    other = [key for key in faceset.keys if key not in keys][:2]
    from dataclasses import replace

    _, kept = choose_exemplars(replace(faceset, exemplars=tuple(other)), PRESETS["small"], 4)
    assert set(kept[:2]) == set(other)
    assert len(kept) == len(set(kept)) == 4


def test_list_is_plain_json_with_a_time(tmp_path):
    append_edit(tmp_path, Edit("reject", {"a#0-0": CENTER}))

    (line,) = (tmp_path / EDITS).read_text().splitlines()
    found = json.loads(line)
    assert found.pop("time").endswith("+00:00")
    assert found == {"edit": "reject", "faces": {"a#0-0": [20.0, 20.0]}}

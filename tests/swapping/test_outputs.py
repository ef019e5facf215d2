"""Outputs are named, and nothing is replaced or ignored without a word."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from faceswap.config import FORMS, ConvertConfig, field_options
from faceswap.errors import OutputError, SettingsError
from faceswap.swapping import outputs
from tests.support.clips import make_clip, picture

CONFIG = ConvertConfig(device="cpu")


@pytest.mark.parametrize(
    ("kind", "target", "form"),
    [
        ("photo", "x.png", "photo"), ("photos", "x.swapped", "photos"), ("video", "x.mp4", "movie"),
        ("video", "x.GIF", "gif"), ("video", "x.webp", "animation"), ("video", "frames", "images"),
        ("video", "x.png", "apng"), ("video", "x.apng", "apng"),
        ("sequence", "shot.swapped", "images"), ("sequence", "shot.mov", "movie"),
    ],
)  # fmt: skip
def test_form_of_an_output(kind, target, form):
    assert outputs.form_of(kind, Path(target)) == form


def test_companions_lie_beside_the_output():
    config = replace(CONFIG, matte=True, layers=True)
    for target, form, matte, layers in (
        ("v.mp4", "movie", "v.matte.mp4", "v.layers.mov"),
        ("v.gif", "gif", "v.matte.gif", "v.layers.mov"),
        ("p.jpg", "photo", "p.matte.jpg", "p.layers.png"),
        ("out", "images", "out.matte", "out.layers"),
        ("a.swapped", "photos", "a.swapped.matte", "a.swapped.layers"),
        ("x" * 251 + ".mp4", "movie", "x" * 245 + ".matte.mp4", "x" * 244 + ".layers.mov"),
    ):
        paths = outputs.all_outputs(Path("deep", target), form, config)
        assert {name: path.as_posix() for name, path in paths.items()} == {
            "video": f"deep/{target}", "matte": f"deep/{matte}", "layers": f"deep/{layers}",
        }  # fmt: skip
    assert list(outputs.all_outputs(Path("v.mp4"), "movie", CONFIG)) == ["video"]
    packaged = outputs.all_outputs(Path("shot/render"), "package", config)
    assert {name: path.name for name, path in packaged.items()} == {
        "video": "render", "matte": "render.matte", "layers": "render.layers",
        "elements": "elements", "faces": "faces", "plate": "plate",
    }  # fmt: skip


def test_what_exists_is_found_and_refused(tmp_path):
    empty, full, file = tmp_path / "empty", tmp_path / "full", tmp_path / "file.mp4"
    for folder in (empty, full):
        folder.mkdir()
    (full / "x").touch()
    file.touch()
    dangling = tmp_path / "link.mp4"
    dangling.symlink_to(tmp_path / "nowhere")
    paths = {"video": tmp_path / "new.mp4", "a": empty, "b": full, "c": file, "d": dangling}

    assert outputs.existing(paths) == [full, file, dangling]
    with pytest.raises(OutputError, match=r"full exists already; pass --overwrite to replace it"):
        outputs.refuse_existing(paths)
    with pytest.raises(OutputError, match="File name too long"):
        outputs.existing({"video": tmp_path / ("x" * 300)})


SETTINGS = {
    "start": "1", "end": "2", "frames": "3-", "shots": "x.toml", "codec": "ffv1", "quality": 20,
    "hardware": True, "layers": True, "html": True, "intermediate": True, "cluster": True,
}  # fmt: skip
IN_FILES = {"layers", "html", "intermediate", "cluster"}
IN_TIME = {"start", "end", "frames", "shots"} | IN_FILES
APPLIES = {
    "photo": IN_FILES, "photos": IN_FILES, "movie": set(SETTINGS),
    "gif": IN_TIME, "apng": IN_TIME, "images": IN_TIME, "animation": IN_TIME | {"quality"},
    "preview": {"start", "end", "frames", "shots"}, "package": IN_TIME,
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SETTINGS)
def test_settings_without_effect_are_refused(form, name):
    config = replace(CONFIG, **{name: SETTINGS[name]})

    if name in APPLIES[form]:
        outputs.refuse_inapplicable(config, form, "video", Path("x"))
        return
    with pytest.raises(SettingsError, match=f"--{name} does not apply to {FORMS[form]}, only to"):
        outputs.refuse_inapplicable(config, form, "video", Path("x"))


def test_every_limited_setting_is_in_the_table_above():
    limited = {name for name, option in field_options(ConvertConfig).items() if option.forms}

    assert limited == set(SETTINGS)


@pytest.mark.parametrize(("name", "value", "kind"), [
    ("fps", 25.0, "video"), ("fps", 25.0, "photos"), ("images", "photos", "video"),
    ("images", "sequence", "photo"),
])  # fmt: skip
def test_settings_of_image_sequences_are_refused_elsewhere(name, value, kind):
    with pytest.raises(SettingsError, match=f"--{name} does not apply to "):
        outputs.refuse_inapplicable(replace(CONFIG, **{name: value}), "movie", kind, Path("x"))


def test_planned_outputs_that_exist(tmp_path):
    clip = make_clip(tmp_path / "x.mp4", audio=0)
    assert outputs.planned(clip, None, CONFIG) == []
    for name in ("x.swapped.mp4", "x.swapped.matte.mp4"):
        (tmp_path / name).touch()

    assert outputs.planned(clip, None, CONFIG) == [tmp_path / "x.swapped.mp4"]
    assert len(outputs.planned(clip, None, replace(CONFIG, matte=True))) == 2
    assert outputs.planned(clip, tmp_path / "y.mp4", CONFIG) == []


def test_folder_of_the_sources_images_is_no_output(tmp_path):
    for number in range(3):
        Image.fromarray(picture(number, 64, 48)).save(tmp_path / f"{number:03d}.png")
    kind, footage = outputs.identify(tmp_path / "%03d.png")

    assert kind == "sequence"
    with pytest.raises(OutputError, match="is the input itself"):
        outputs.refuse_input(tmp_path / "%03d.png", footage, {"video": tmp_path})
    outputs.refuse_input(tmp_path / "%03d.png", footage, {"video": tmp_path / "new"})


def test_folder_that_exists_receives_photos_and_videos(tmp_path):
    folder, frames, empty = tmp_path / "out", tmp_path / "frames", tmp_path / "empty"
    for path in (folder, frames, empty):
        path.mkdir()
    (folder / "x.png").touch()
    for name in ("000001.png", "000002.png"):
        (frames / name).touch()
    video, photo = Path("deep/v.mp4"), Path("deep/p.jpg")

    for source, output, kind, expected in (
        (video, folder, "video", folder / "v.swapped.mp4"),
        (video, empty, "video", empty / "v.swapped.mp4"),
        (video, frames, "video", frames),  # of an earlier run
        (photo, frames, "photo", frames / "p.swapped.jpg"),
        (video, tmp_path / "new", "video", tmp_path / "new"),
        (video, None, "video", Path("deep/v.swapped.mp4")),
        (Path("photos"), folder, "photos", folder),
        (Path("shot.####.png"), folder, "sequence", folder),
    ):
        assert outputs.target_of(source, output, kind) == expected


def test_default_preview_is_beside_its_source():
    for source, name in (
        ("deep/v.mp4", "v.preview.png"), ("deep/shot.%04d.png", "shot.preview.png"),
        ("shots", "shots.preview.png"), ("####.png", "####.preview.png"),
    ):  # fmt: skip
        expected = Path(source).with_name(name)
        assert outputs.default_preview(Path(source)) == expected
